"""What all tests share: one thread each, and a way to ask for a picture."""

import os

# Small tensors are several times slower on two threads than on one, more so next to another worker's tests.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="every class of Meta-World over whole episodes, and storms on clusters: minutes",
    )


@pytest.fixture(scope="session")
def drawing() -> str:
    """The backend that draws here. Skips where none does, unless METARL_MUST_DRAW is set (CI sets it)."""
    from metarl.envs import rendering  # no earlier: the checks of shapes are put in as modules are imported

    try:
        return rendering.use()
    except rendering.RenderingUnavailableError as error:
        if os.environ.get("METARL_MUST_DRAW"):
            raise
        pytest.skip(str(error))
