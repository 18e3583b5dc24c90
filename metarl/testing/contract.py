"""What the checks have in common."""


class ContractError(AssertionError):
    """Something does not keep what its contract promises; the message says what."""


def require(condition: bool | object, message: str) -> None:
    """Checks a promise, also where Python runs without assertions.

    Raises:
        ContractError: it is not kept.
    """
    if not condition:
        raise ContractError(message)
