"""Which classes are held out, where the user says it by name.

The test classes are those named for them, the validation classes those named for them; where nothing is named, they are
the data's own. All other classes are trained on: also classes of the data's own lists for which others were named.
"""

import dataclasses
import difflib
import fnmatch
from collections.abc import Sequence
from typing import final

from metarl.fewshot.dataset import FewShotDataset
from metarl.tasks import SPLITS, Split

_SHOWN = 8


@final
@dataclasses.dataclass(frozen=True)
class ClassChoice:
    """Which classes are held out; as the data set has it, if nothing is said."""

    test_classes: tuple[str, ...] = ()
    """The classes that are tested, and never trained on: names, or patterns such as 'Greek/*' (quoted). All that are
    named for neither test nor validation are trained on."""
    validation_classes: tuple[str, ...] = ()
    """The classes that checkpoints are chosen by, as names or patterns."""

    @property
    def given(self) -> bool:
        """Whether anything is said."""
        return bool(self.test_classes or self.validation_classes)

    def apply(self, data: FewShotDataset) -> FewShotDataset:
        """The data set with its classes shared out as chosen.

        Raises:
            ValueError: a name that no class has, a class in both, or a split without a class.
        """
        if not self.given:
            return data
        test = matching(data, self.test_classes, "--test-classes")
        validation = matching(data, self.validation_classes, "--validation-classes")
        if both := [number for number in validation if number in test]:
            raise ValueError(
                f"class {data.classes[both[0]]!r} is in --test-classes and in --validation-classes; a class that is "
                "tested must be in no other split"
            )
        if not self.test_classes:
            test = tuple(number for number in data.splits["test"] if number not in validation)
        if not self.validation_classes:
            validation = tuple(number for number in data.splits["validation"] if number not in test)
        used = {number for split in SPLITS for number in data.splits[split]}  # a data set may leave classes out
        rest = tuple(sorted(used - {*test, *validation}))
        splits: dict[Split, tuple[int, ...]] = {"train": rest, "validation": validation, "test": test}
        for split in SPLITS:
            if not splits[split]:
                what = "name fewer for test and validation" if split == "train" else f"name some by --{split}-classes"
                raise ValueError(f"{data.id}: no class is left for {split}; {what}")
        chosen = dataclasses.replace(data, splits=splits)
        return chosen.standardised() if data.mean and data.images else chosen


def matching(data: FewShotDataset, patterns: Sequence[str], option: str) -> tuple[int, ...]:
    """The numbers of the classes that have these names or fit these patterns, each once, in order.

    Raises:
        ValueError: a pattern that no class fits.
    """
    numbers = {name: number for number, name in enumerate(data.classes)}
    found: set[int] = set()
    for pattern in patterns:
        if pattern in numbers:  # also a name with a character that patterns know
            found.add(numbers[pattern])
            continue
        fitting = fnmatch.filter(data.classes, pattern)
        if not fitting:
            near = difflib.get_close_matches(pattern, data.classes, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {listed(data.classes)}"
            raise ValueError(f"{option} {pattern!r}: {data.id} has no such class; {hint}")
        found |= {numbers[name] for name in fitting}
    return tuple(sorted(found))


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """The names, or the first of them and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def class_lines(data: FewShotDataset) -> list[str]:
    """A line for each split that has classes: how many, and their names."""
    names = {split: [data.classes[number] for number in data.splits[split]] for split in SPLITS}
    return [f"{split} classes ({len(names[split])}): {listed(names[split])}" for split in SPLITS if names[split]]
