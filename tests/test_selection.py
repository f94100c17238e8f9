from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifarfast.selection import NEVER_SEEN, LastLosses, hardest

CPU = torch.device("cpu")
GO, SKIP = torch.tensor(0.0), torch.tensor(1.0)


def record(losses: LastLosses, of: dict[int, float], skip: torch.Tensor = GO) -> None:
    losses.record(torch.tensor(list(of)), torch.tensor(list(of.values())), skip=skip)


def test_what_is_recorded_counts_from_the_next_epoch_on() -> None:
    losses = LastLosses(4, CPU)
    losses.begin_epoch()
    record(losses, {2: 0.5, 0: 2.0})
    assert losses.ranking().tolist() == [NEVER_SEEN] * 4
    losses.begin_epoch()
    record(losses, {0: 0.25, 1: 1.0})
    assert losses.ranking().tolist() == [2.0, NEVER_SEEN, 0.5, NEVER_SEEN]
    losses.begin_epoch()
    assert losses.ranking().tolist() == [0.25, 1.0, 0.5, NEVER_SEEN]


def test_a_step_that_changed_nothing_records_nothing() -> None:
    losses = LastLosses(2, CPU)
    record(losses, {0: 3.0})
    record(losses, {0: float("nan"), 1: float("inf")}, skip=SKIP)
    losses.begin_epoch()
    assert losses.ranking().tolist() == [3.0, NEVER_SEEN]


def test_its_tensors_are_finite_and_live() -> None:
    losses, other = LastLosses(3, CPU), LastLosses(3, CPU)
    losses.begin_epoch()
    record(losses, {1: 0.5})
    for name, tensor in losses.tensors().items():
        assert torch.isfinite(tensor).all()
        other.tensors()[name].copy_(tensor)
    assert other.ranking().tolist() == [NEVER_SEEN] * 3
    other.begin_epoch()
    assert other.ranking().tolist() == [NEVER_SEEN, 0.5, NEVER_SEEN]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, NEVER_SEEN]), min_size=1, max_size=30), st.data())
def test_the_hardest_are_taken_in_the_order_in_which_they_stand(values: list[float], data: st.DataObject) -> None:
    losses = np.array(values, np.float32)
    images = np.array(data.draw(st.permutations(range(len(values)))), np.int64)
    count = data.draw(st.integers(0, len(values)))
    taken = hardest(images, losses, count).tolist()
    places = [images.tolist().index(image) for image in taken]
    assert len(taken) == count
    assert all(one < other for one, other in pairwise(places))
    for image in set(images.tolist()) - set(taken):
        assert all((losses[image], -images.tolist().index(image)) < (losses[t], -p) for t, p in zip(taken, places))  # noqa: B905


@pytest.mark.parametrize("count", [1, 2])
def test_of_all_the_images_of_a_file_only_those_in_use_are_ranked(count: int) -> None:
    losses = np.array([9.0, 1.0, 9.0, 2.0, 9.0], np.float32)
    assert hardest(np.array([1, 3]), losses, count).tolist() == [[3], [1, 3]][count - 1]
