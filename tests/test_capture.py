from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from cifarfast.capture import WARM_UP, Captured, CudaGraphs
from cifarfast.errors import UserError
from tests.tape import Tape


class Told:
    """Graphs that tell what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def warm_up(self, call: Callable[[], object]) -> None:
        self.asked.append("warm-up")
        Tape().warm_up(call)

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        self.asked.append("capture")
        return Tape().capture(call)


def test_every_call_counts_once() -> None:
    total, told = torch.zeros(3), Told()
    captured = Captured(lambda amounts: total.add_(amounts), told)
    for number in range(1, 7):
        captured(torch.full((3,), float(number)))
        assert total.tolist() == [number * (number + 1) / 2] * 3
    assert told.asked == ["warm-up"] * WARM_UP + ["capture"]


def test_each_layout_of_the_arguments_and_each_value_has_a_graph_of_its_own() -> None:
    told, total = Told(), torch.zeros(())
    captured = Captured(
        lambda factor, amounts, more: total.add_(factor * amounts.sum() + (0 if more is None else more)), told
    )
    square, images = torch.ones(4, 4), torch.ones(2, 3, 4, 4)
    layouts = [
        (1, square, None), (2, square, None), (1, square.T[:2], None), (1, square[:2], None), (1, square.int(), None),
        (1, square, square[0, 0]), (1, images, None), (1, images.to(memory_format=torch.channels_last), None),
    ]  # fmt: skip
    expected = 0.0
    for _ in range(WARM_UP + 2):
        for factor, amounts, more in layouts:
            captured(factor, amounts, more)
            expected += factor * float(amounts.sum()) + float(more or 0)
            assert total.item() == expected
    assert told.asked.count("capture") == len(layouts)


def test_a_graph_works_on_copies_of_what_is_given() -> None:
    seen = torch.zeros(2)

    def keep(given: torch.Tensor) -> None:
        seen.copy_(given)
        given.zero_()

    captured = Captured(keep, Tape())
    for number in range(WARM_UP + 3):
        given = torch.full((2,), 1.0 + number)
        captured(given)
        assert seen.tolist() == [1 + number] * 2
        assert (given.tolist() == seen.tolist()) == (number >= WARM_UP)


def test_a_number_that_changes_is_replayed_as_it_was() -> None:
    """What the tape is for: a graph would do the same, and a step that depends on such a number would be found out."""
    total, step = torch.zeros(()), {"lr": 1.0}
    captured = Captured(lambda: total.add_(torch.ones(()), alpha=step["lr"]), Tape())
    for _ in range(WARM_UP + 1):
        captured()
    step["lr"] = 100.0
    captured()
    assert total.item() == WARM_UP + 2


def test_waiting_for_the_device_cannot_be_captured() -> None:
    captured = Captured(lambda tensor: tensor.sum().item(), Tape())
    for _ in range(WARM_UP):
        captured(torch.ones(2))
    with pytest.raises(RuntimeError, match="capturing"):
        captured(torch.ones(2))


def test_what_cannot_be_captured_is_said_with_its_first_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch fails: in what is captured, and again where the capture ends."""

    @contextmanager
    def graph(*_: object, **__: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)

    def wait() -> None:
        raise RuntimeError("not permitted when stream is capturing\nSearch for it")

    with pytest.raises(UserError) as raised:
        CudaGraphs(torch.device("cuda")).capture(wait)
    assert str(raised.value) == (
        "the step cannot be captured as a CUDA graph (not permitted when stream is capturing): add --no-cuda-graphs"
    )
