"""The transformer memory against attention written out, and in pieces against the whole."""

import math

import pytest
import torch
from torch import Tensor

from metarl.agents import policies
from metarl.agents.recurrent import SequenceModel
from metarl.agents.transformer import HEADS, LAYERS, WINDOW, Transformer, TransformerCarry

INPUTS, UNITS = 5, 8


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model() -> Transformer:
    made = Transformer(INPUTS, UNITS, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter += 0.3 * noise(*parameter.shape, seed=number)
    return made


def by_hand(made: Transformer, inputs: Tensor) -> Tensor:
    """The features of one sequence, step by step and head by head, in float64."""
    p = {name: x.double() for name, x in policies.parameters_of(made).items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return p[f"{name}.weight"] @ x + p[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    steps = [linear("embed", x) for x in inputs.double()]
    width = UNITS // HEADS
    for number in range(LAYERS):
        layer = f"layers.{number}"
        parts = [linear(f"{layer}.projection", norm(f"{layer}.before_attention", x)).split(UNITS) for x in steps]
        following = list[Tensor]()
        for t, x in enumerate(steps):
            heads = list[Tensor]()
            for head in range(HEADS):
                own = slice(head * width, (head + 1) * width)
                reach = range(max(0, t - WINDOW), t + 1)
                scores = [
                    parts[t][0][own] @ parts[j][1][own] / math.sqrt(width) + p[f"{layer}.by_distance"][head, t - j]
                    for j in reach
                ]
                heads.append(torch.stack(scores).softmax(0) @ torch.stack([parts[j][2][own] for j in reach]))
            x = x + linear(f"{layer}.mix", torch.cat(heads))
            hidden = torch.relu(linear(f"{layer}.widen", norm(f"{layer}.before_mlp", x)))
            following.append(x + linear(f"{layer}.narrow", hidden))
        steps = following
    return torch.stack([norm("last", x) for x in steps])


def test_features_are_those_of_attention_written_out() -> None:
    made, inputs = model(), noise(2, WINDOW + 5, INPUTS)
    features, _ = made(inputs, made.initial_carry(2, "cpu"))
    torch.testing.assert_close(features[1].double(), by_hand(made, inputs[1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("length", [1, 7, 100])
def test_pieces_are_the_whole_also_beyond_the_window(length: int) -> None:
    made, inputs = model(), noise(3, 2 * WINDOW + 9, INPUTS)
    assert isinstance(made, SequenceModel)
    carry = made.initial_carry(3, "cpu")
    whole, after = made(inputs, carry)
    parts = list[Tensor]()
    for piece in inputs.split(length, dim=1):
        features, carry = made(piece, carry)
        parts.append(features)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)
    for one, other in zip(carry, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_nothing_is_seen_of_later_steps_nor_of_those_far_back() -> None:
    made, inputs = model(), noise(1, 3 * WINDOW, INPUTS)
    carry = made.initial_carry(1, "cpu")
    assert isinstance(carry, TransformerCarry) and carry.cache.shape == (1, WINDOW, LAYERS * 2 * UNITS)
    changed = inputs.clone()
    changed[:, 10] += 1.0
    moved = (made(changed, carry)[0] - made(inputs, carry)[0]).abs().amax(-1)[0]
    assert not moved[:10].any() and bool((moved[10 : 10 + WINDOW] > 0).all())
    assert not moved[11 + LAYERS * WINDOW :].any() and bool((moved[11 + WINDOW : 10 + 2 * WINDOW] > 0).any())
