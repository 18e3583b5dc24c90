"""Checks of options; each error names the option, the range and the number."""


def at_least(minimum: int, **options: float | int) -> None:
    """Raises ValueError for the first option below the minimum (or NaN)."""
    for name, value in options.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")


def positive(**options: float | int) -> None:
    """Raises ValueError for the first option that is not above 0."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def fraction(**options: float | int) -> None:
    """Raises ValueError for the first option outside (0, 1]."""
    for name, value in options.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value}")


def layers(hidden: tuple[int, ...]) -> None:
    """Raises ValueError unless there is a hidden layer and each is at least 1 wide."""
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden needs at least one layer, each at least 1 wide, got {hidden}")
