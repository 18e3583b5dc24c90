"""Frozen dataclasses that pickle as their fields alone."""

import dataclasses


def fields_only(self: object) -> dict[str, object]:
    """A `__getstate__` for frozen dataclasses: without what `cached_property` has worked out, which is worked out anew.

    So a learner pickles as its options, and an encoder from a user's file is found again by its id.
    """
    assert dataclasses.is_dataclass(self)
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
