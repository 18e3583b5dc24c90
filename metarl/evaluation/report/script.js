"use strict";
// Tables of tasks: sort by a heading, filter by text and family, the worst first.
for (const table of document.querySelectorAll("table.tasks")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const control = (name) => document.querySelector(`[data-${name}="${table.id}"]`);
  const value = (row, column) => {
    const text = row.cells[column].textContent;
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  const sort = (column, order) => {
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [value(one, column), value(other, column)];
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    });
    body.append(...rows);
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", order);
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      sort(column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });
  });
  const filter = () => {
    const text = control("filter").value.toLowerCase();
    const family = control("family") ? control("family").value : "";
    let shown = 0;
    for (const row of body.rows) {
      const fits = row.cells[0].textContent.toLowerCase().includes(text);
      row.hidden = !fits || (family !== "" && row.cells[1].textContent !== family);
      shown += row.hidden ? 0 : 1;
    }
    control("count").textContent = `${shown} of ${body.rows.length} tasks`;
  };
  control("filter").addEventListener("input", filter);
  if (control("family")) control("family").addEventListener("change", filter);
  control("worst").addEventListener("click", () => sort(Number(table.dataset.worstColumn), table.dataset.worstOrder));
  filter();
}
// Videos: their contents lie at the end of the page, and are decoded when they come near.
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    target.src = `data:video/mp4;base64,${document.getElementById(target.dataset.film).textContent}`;
  }
}, { rootMargin: "50%" });
for (const video of document.querySelectorAll("video[data-film]")) near.observe(video);
// Charts: what a point stands for, beside the pointer. Points carry it as their <title>.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("pointermove", (event) => {
  const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = mark === null;
  if (mark === null) return;
  tip.textContent = mark.dataset.tip;
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${Math.max(4, event.clientY - 32)}px`;
});
