"""The curve of a training run."""

import io

import numpy as np
from PIL import Image

from metarl.fewshot.plot import training_curve


def test_it_is_a_picture_with_a_panel_for_each_metric() -> None:
    rows = [{"step": step, "loss": 1 / step, "accuracy": None if step % 2 else 0.5} for step in range(1, 1000)]
    one, two = (Image.open(io.BytesIO(training_curve(rows, keys))) for keys in (["loss"], ["loss", "accuracy"]))
    assert one.format == "PNG" and two.size == (2 * one.size[0], one.size[1])
    assert np.asarray(two.convert("L")).std() > 5  # not blank
    assert training_curve([], ["loss"]).startswith(b"\x89PNG")  # before the first step
