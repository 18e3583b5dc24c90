"""The variance within each group, over batches."""

import pytest
import torch

from metarl.maths.group_variance import SHARE, SLOTS, GroupVariance


def test_each_group_has_its_own_moving_variance() -> None:
    groups = torch.tensor([7, 3, 7])
    first, second = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    first[1] *= 100
    mask = torch.tensor([[True] * 5, [True, True, True, False, False], [True] * 4 + [False]])
    after = GroupVariance.initial().merge(groups, first, mask)
    seven, three = torch.cat([first[0], first[2, :4]]), first[1, :3]
    expected = torch.stack([each.var(correction=0) for each in (seven, three, seven)])
    torch.testing.assert_close(after.of(groups), expected)
    again = after.merge(groups[:1], second[:1], mask[:1])
    moved = (1 - SHARE) * expected[0] + SHARE * second[0].var(correction=0)
    torch.testing.assert_close(again.of(groups), torch.stack([moved, expected[1], moved]))
    torch.testing.assert_close(after.of(groups), expected)  # a value: not written to


def test_there_are_only_so_many_slots() -> None:
    groups, x = torch.arange(1, SLOTS + 1), torch.randn(SLOTS, 4)
    full = GroupVariance.initial().merge(groups, x, torch.ones(SLOTS, 4, dtype=torch.bool))
    assert full.of(groups).tolist() == pytest.approx(x.var(1, correction=0).tolist())
    with pytest.raises(ValueError, match=f"at most {SLOTS} groups"):
        full.merge(torch.tensor([SLOTS + 1]), x[:1], torch.ones(1, 4, dtype=torch.bool))
