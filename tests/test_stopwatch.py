import time
from collections.abc import Iterator

from cifarfast.stopwatch import Stopwatch


def test_spans_add_up_and_are_taken_once() -> None:
    calls: list[int] = []
    watch = Stopwatch(lambda: calls.append(1))
    for _ in range(2):
        with watch.span("train"):
            time.sleep(0.01)
    assert len(calls) == 4
    assert watch.take("train") >= 0.02
    assert watch.take("train") == 0.0


def test_waiting_counts_the_iterator_and_not_its_consumer_and_does_not_synchronise() -> None:
    calls: list[int] = []
    watch = Stopwatch(lambda: calls.append(1))

    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.005)
            yield number

    seen = []
    for item in watch.waiting("data", slow()):
        time.sleep(0.05)
        seen.append(item)
    assert seen == [0, 1, 2]
    assert calls == []
    assert 0.015 <= watch.take("data") < 0.15


def test_a_span_that_fails_is_still_counted() -> None:
    watch = Stopwatch(lambda: None)
    try:
        with watch.span("eval"):
            time.sleep(0.01)
            raise KeyError
    except KeyError:
        pass
    assert watch.take("eval") >= 0.01


def test_a_span_can_be_taken_out_of_the_one_around_it() -> None:
    watch = Stopwatch(lambda: None)
    with watch.span("train"), watch.span("checkpoint", out_of="train"):
        time.sleep(0.05)
    assert watch.take("train") < 0.01
    assert watch.take("checkpoint") >= 0.05


def test_what_it_reads_can_be_counted_on_by_another() -> None:
    watch, later = Stopwatch(lambda: None), Stopwatch(lambda: None)
    with watch.span("eval"):
        time.sleep(0.01)
    with watch.span("train"):
        time.sleep(0.01)
        read = watch.read()
    assert read.keys() == {"eval", "train"}
    assert watch.take("train") >= read["train"] >= 0.01
    later.add(read)
    later.add(read)
    assert later.take("eval") == 2 * watch.take("eval")
