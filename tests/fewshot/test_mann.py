"""MANN's memory against the paper's equations, written out for one sequence, slot by slot."""

import dataclasses

import numpy as np
import pytest
import torch

from metarl.fewshot import lstm
from metarl.fewshot.encoders import Conv4Config
from metarl.fewshot.examples import Examples, TaskSignature
from metarl.fewshot.learner import SequenceLearner
from metarl.fewshot.mann import MannCarry, MannConfig, initial_carry, least_used, step
from metarl.testing.toy_tasks import IMAGES, ToyTasks

CONFIG = MannConfig(slots=6, width=5, heads=2, controller=7, usage_decay=0.9)
SIGNATURE = TaskSignature("classification", (3,), ways=2, shots=1, outputs=2, classes=4)
SEQUENCES, INPUTS = 3, 5  # of three features and the target before


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def written_out(parameters: dict[str, np.ndarray], hidden: np.ndarray, before: MannCarry, row: int) -> list[np.ndarray]:
    """Logits, memory, reading weights and usage of one sequence, from what its controller says (eq. 2-8)."""
    memory, reading, usage = (part[row].numpy().copy() for part in (before.memory, before.reading, before.usage))
    said = (hidden @ parameters["heads.weight"] + parameters["heads.bias"]).reshape(CONFIG.heads, CONFIG.width + 2)
    keys, strengths, gates = np.tanh(said[:, :-2]), 1 + np.log1p(np.exp(said[:, -2])), sigmoid(said[:, -1])
    least = np.argsort(usage, kind="stable")[: CONFIG.heads]
    writing = gates[:, None] * reading
    for head, slot in enumerate(least):
        writing[head, slot] += 1 - gates[head]
        memory[slot] = 0
    for slot in range(CONFIG.slots):
        memory[slot] += sum(writing[head, slot] * keys[head] for head in range(CONFIG.heads))
    lengths = np.linalg.norm(memory, axis=1)
    cosines = keys @ memory.T / np.linalg.norm(keys, axis=1)[:, None] / lengths
    weights = np.exp(strengths[:, None] * cosines)
    reading = weights / weights.sum(1, keepdims=True)
    usage = CONFIG.usage_decay * usage + reading.sum(0) + writing.sum(0)
    shown = np.concatenate([hidden, (reading @ memory).reshape(-1)])
    return [shown @ parameters["output.weight"] + parameters["output.bias"], memory, reading, usage]


def test_a_step_is_the_papers() -> None:
    parameters = {k: v.double() for k, v in CONFIG.build(SIGNATURE).init(0).parameters.items()}
    plain = {name: value.numpy() for name, value in parameters.items()}
    generator = torch.Generator().manual_seed(0)
    carry = initial_carry(CONFIG, SEQUENCES, torch.zeros((), dtype=torch.float64))
    # slots used so unequally that which are the least used is no accident
    carry = carry._replace(
        memory=torch.randn(carry.memory.shape, dtype=torch.float64, generator=generator),
        usage=torch.rand(carry.usage.shape, dtype=torch.float64, generator=generator),
    )
    for _ in range(4):
        x = torch.randn(SEQUENCES, INPUTS, dtype=torch.float64, generator=generator)
        controller = lstm.step(parameters, "controller", torch.cat([x, carry.read], dim=-1), carry.controller)
        logits, after = step(parameters, CONFIG, x, carry)
        for row in range(SEQUENCES):
            expected = written_out(plain, controller.hidden[row].numpy(), carry, row)
            found = (logits[row], after.memory[row], after.reading[row], after.usage[row])
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)  # of the cosine's guard against zeros
        carry = after


def test_an_input_finds_the_slot_that_it_was_just_put_in() -> None:
    """So that the next step, which is shown the target, can add it there."""
    config = MannConfig()
    learner = config.build(SIGNATURE)
    x = torch.randn(1, INPUTS, generator=torch.Generator().manual_seed(0))
    _, carry = step(learner.init(0).parameters, config, x, initial_carry(config, 1, x))
    written = least_used(torch.zeros(1, config.slots), config.heads).argmax(-1)
    assert torch.equal(carry.reading.argmax(-1), written)
    assert carry.reading.amax(-1).min() > 0.5


def test_a_fixed_embedding_stays_as_it_began_and_the_rest_learns() -> None:
    learner = dataclasses.replace(CONFIG, embedding="fixed", encoder=Conv4Config(filters=4)).build(IMAGES)
    before, rng = learner.init(0), np.random.default_rng(0)
    after, _ = learner.meta_step(before, ToyTasks(IMAGES).sample(2, 2, rng), rng)
    for name, value in before.parameters.items():
        assert torch.equal(value, after.parameters[name]) == ("blocks." in name), name
    assert any(name.startswith("running.standardised") for name in before.parameters)  # what the rest learns from


def sequence(*targets: int) -> Examples:
    """One sequence of random inputs."""
    inputs = torch.randn(1, len(targets), 3, generator=torch.Generator().manual_seed(0))
    return Examples(inputs, torch.tensor([targets]))


def test_a_support_is_read_with_each_target_one_step_late() -> None:
    """By hand: x_t = [input, target before], then one more step for the query with the last target."""
    learner = CONFIG.build(SIGNATURE)
    state, support = learner.init(0), sequence(1, 0, 1)
    carry, previous = initial_carry(CONFIG, 1, torch.zeros(())), torch.zeros(1, 2)
    in_turn = []
    for t in range(3):
        logits, carry = step(state.parameters, CONFIG, torch.cat([support.inputs[:, t], previous], dim=-1), carry)
        in_turn.append(logits)
        previous = torch.nn.functional.one_hot(support.targets[:, t], 2).float()
    assert isinstance(learner, SequenceLearner)
    torch.testing.assert_close(learner.predict_in_turn(state, support), torch.stack(in_turn, dim=1))
    queries = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    expected = [step(state.parameters, CONFIG, torch.cat([x, previous], dim=-1), carry)[0] for x in queries.unbind(1)]
    predictor = learner.start(state, 1).adapt(support)
    torch.testing.assert_close(predictor.predict(queries), torch.stack(expected, dim=1), rtol=1e-5, atol=1e-6)


def test_reading_goes_on_where_it_stopped() -> None:
    learner = CONFIG.build(SIGNATURE)
    state, support = learner.init(0), sequence(1, 0, 1, 1)
    parts = [Examples(*(part[:, i : i + 2] for part in support)) for i in (0, 2)]
    queries = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    started = learner.start(state, 1)
    whole, twice = started.adapt(support), started.adapt(parts[0]).adapt(parts[1])
    torch.testing.assert_close(twice.predict(queries), whole.predict(queries))


def test_an_encoder_that_nobody_asks_is_refused() -> None:
    with pytest.raises(ValueError, match="say embedding"):
        MannConfig(encoder=Conv4Config())
