"""Estimators reduce to one another, and GAE equals stable-baselines3's."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from metarl.maths.returns import discounted_returns, gae, sequence_gae, td_errors

GAMMA = 0.97


def sample(seed: int = 0, shape: tuple[int, int] = (3, 12)) -> tuple[torch.Tensor, ...]:
    """Rewards, discounts (with a few ends of the task), values and final values."""
    generator = torch.Generator().manual_seed(seed)
    r_t, v_t = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    ends = torch.rand(shape, generator=generator) < 0.15
    final = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    return r_t, GAMMA * (~ends).double(), v_t, final


def test_returns_by_hand() -> None:
    r_t, discount = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 0.5, 0.5])
    torch.testing.assert_close(discounted_returns(r_t, discount), torch.tensor([3.0, 4.0, 4.0]))
    torch.testing.assert_close(discounted_returns(r_t, discount, torch.tensor(8.0)), torch.tensor([4.0, 6.0, 8.0]))


def test_nothing_flows_back_over_the_end_of_a_task() -> None:
    discount = torch.tensor([0.9, 0.0, 0.9])
    one = discounted_returns(torch.tensor([1.0, 1.0, 5.0]), discount)
    other = discounted_returns(torch.tensor([1.0, 1.0, -7.0]), discount)
    torch.testing.assert_close(one[:2], other[:2])
    assert one[2] != other[2]


def test_lambda_0_is_the_td_error() -> None:
    r_t, discount, v_t, final = sample()
    torch.testing.assert_close(gae(r_t, discount, v_t, final, 0.0), td_errors(r_t, discount, v_t, final))


def test_lambda_1_is_the_monte_carlo_return_minus_the_value() -> None:
    r_t, discount, v_t, final = sample()
    expected = discounted_returns(r_t, discount, final) - v_t
    torch.testing.assert_close(gae(r_t, discount, v_t, final, 1.0), expected)


def test_a_truncated_episode_bootstraps_and_a_terminated_one_does_not() -> None:
    r_t, v_t, final = torch.zeros(2), torch.zeros(2), torch.tensor(10.0)
    truncated = gae(r_t, torch.tensor([1.0, 1.0]), v_t, final, 1.0)
    terminated = gae(r_t, torch.tensor([1.0, 0.0]), v_t, final, 1.0)
    torch.testing.assert_close(truncated, torch.tensor([10.0, 10.0]))
    torch.testing.assert_close(terminated, torch.tensor([0.0, 0.0]))


@pytest.mark.parametrize("lam", [0.0, 0.9, 0.95, 1.0])
def test_gae_equals_stable_baselines3(lam: float) -> None:
    envs, steps = 3, 12
    r_t, discount, v_t, final = sample(seed=4, shape=(envs, steps))
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(steps, box, box, device="cpu", gae_lambda=lam, gamma=GAMMA, n_envs=envs)
    ended = (discount == 0).numpy()
    for step in range(steps):
        # There, a flag stands at the first step of the *next* episode.
        starts = ended[:, step - 1] if step else np.zeros(envs, dtype=bool)
        blank = np.zeros((envs, 1), dtype=np.float32)
        buffer.add(blank, blank, r_t[:, step].numpy(), starts, v_t[:, step], torch.zeros(envs))
    buffer.compute_returns_and_advantage(final, ended[:, -1])
    expected = torch.from_numpy(buffer.advantages.T.copy()).double()
    torch.testing.assert_close(gae(r_t, discount, v_t, final, lam), expected, atol=1e-5, rtol=1e-5)


def test_sequences_bootstrap_only_where_they_were_cut_off() -> None:
    """Against the recursion written out, with lengths that differ and padding that is not zero."""
    generator = torch.Generator().manual_seed(0)
    lengths, terminated = torch.tensor([7, 4, 2, 8]), torch.tensor([False, True, False, True])
    rewards, values = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    advantages = sequence_gae(rewards, values, lengths, terminated, GAMMA, 0.9)
    for index, length in enumerate(lengths.tolist()):
        following, expected = 0.0, [0.0] * 9
        for t in reversed(range(length)):
            ended = t == length - 1 and bool(terminated[index])
            v_tp1 = 0.0 if ended else float(values[index, t + 1])
            delta = float(rewards[index, t]) + GAMMA * v_tp1 - float(values[index, t])
            following = delta + GAMMA * 0.9 * following
            expected[t] = following
        torch.testing.assert_close(advantages[index], torch.tensor(expected, dtype=torch.float64))
