"""The residual projection."""

import pytest
import torch

from metarl.fewshot.encoders import ProjectionConfig
from metarl.fewshot.examples import TaskSignature

SIGNATURE = TaskSignature("classification", (6,), 2, 1, 2)


def test_it_begins_with_the_directions_of_the_inputs_and_follows_its_equation() -> None:
    encoder = ProjectionConfig(hidden=3, radius=2.5).build(SIGNATURE)
    parameters = encoder.init(torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(encoder(parameters, x).features, 2.5 * x / x.norm(dim=-1, keepdim=True))
    assert encoder.num_features == 6 and not encoder.normalises
    parameters |= {"outer.weight": torch.randn(3, 6), "outer.bias": torch.randn(6), "log_radius": torch.tensor([0.0])}
    z = x + torch.relu(x @ parameters["inner.weight"]) @ parameters["outer.weight"] + parameters["outer.bias"]
    torch.testing.assert_close(encoder(parameters, x).features, z / z.norm(dim=-1, keepdim=True))
    own = {name: torch.stack([value, value * 0.5]) for name, value in parameters.items()}  # each task's
    apart = [encoder({name: value[task] for name, value in own.items()}, x[task]).features for task in range(2)]
    torch.testing.assert_close(encoder(own, x).features, torch.stack(apart))


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match="a projection wants vectors"):
        ProjectionConfig().build(TaskSignature("classification", (1, 8, 8), 2, 1, 2))
    with pytest.raises(ValueError, match="radius must be positive"):
        ProjectionConfig(radius=0.0)
