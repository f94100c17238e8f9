from dataclasses import replace

import pytest

from cifarfast.studying.figures import Figures, figures_of
from cifarfast.studying.words import caveat_of, differences, results, seconds
from tests.studying.made import made, made_peer
from tests.test_summary import used

MACHINE = "a cpu, 2 threads, AVX2, fp32, eager, torch 2.14.1, channels-last, loader resident"


def figures() -> Figures:
    runs = [made("reference", seed, 0.9160 + seed / 1000) for seed in range(3)]
    runs += [made("reference", 5, state="diverged"), made("reference", 6, state="unfinished")]
    return figures_of(
        [*runs, made("other", 0, 0.7, epoch_seconds=12.0), made("none", 1, state="diverged")], margin=0.25
    )


def test_results() -> None:
    table = results(figures())
    assert [dict(zip(table.columns, row, strict=True)) for row in table.rows] == [
        {
            "recipe": "reference",
            "runs": "3, 1 diverged, 1 unfinished",
            "mean": "91.70 %",
            "std": "0.10",
            "95 % interval": "91.45 to 91.95 %",
            "worst": "91.60 %",
            "best": "91.80 %",
            "target": "91.42 %",
            "mean at the target": "met, p 0.02",
        },
        dict(zip(table.columns, ("other", "1", "70.00 %", "none", "none", "70.00 %", "70.00 %", "91.42 %",
                                 "too few runs"), strict=True)),
        dict(zip(table.columns, ("none", "0, 1 diverged", "none", "none", "none", "none", "none", "91.42 %",
                                 "not judged"), strict=True)),
    ]  # fmt: skip


def test_differences() -> None:
    table = differences(figures())
    assert table.title == "Points of accuracy against reference, of which 0.25 may be lost"
    assert table.rows == [("other", "-21.70", "none", "none", "too few runs")]
    runs = [made(name, seed, 0.91 + seed / 1000) for name in ("a", "b") for seed in range(3)]
    (row,) = differences(figures_of(runs, margin=0.5)).rows
    assert row == ("b", "+0.00", "-0.23 to +0.23", "0.0018", "not inferior")


def test_seconds() -> None:
    table = seconds(figures())
    assert table.columns == ("recipe", "runs", "whole run", "epoch", "80 %", "90 %", "91.42 %", "94 %", "machine")
    assert table.rows == [
        ("reference", "3", "4,001 s (4,001 to 4,001 s)", "200 s", "200 s", "200 s", "200 s", "never", MACHINE),
        ("other", "1", "241 s", "12 s", *["never"] * 4, MACHINE),
    ]


def test_another_program_is_beside_ours_and_not_judged() -> None:
    found = figures_of([made("reference", 0)], margin=0.25, peers=[made_peer(0), made_peer(1, 0.945)])
    assert results(found).rows[1:] == [
        ("airbench94-0", "2", "94.25 %", "0.35", "91.07 to 97.43 %", "94.00 %", "94.50 %", "none", "not judged")
    ]
    peer = dict(zip(seconds(found).columns, seconds(found).rows[1], strict=True))
    assert (peer["recipe"], peer["whole run"], peer["94 %"]) == ("airbench94-0", "305 s (305 to 305 s)", "300 s")
    assert peer["91.42 %"] == "300 s"
    assert peer["machine"] == MACHINE.replace("resident", "airbench")


def test_what_most_runs_never_reach_is_told() -> None:
    runs = [made("a", seed, accuracy) for seed, accuracy in enumerate((0.92, 0.7, 0.85, 0.85, 0.7))]
    ((_, _, _, _, *reached, _),) = seconds(figures_of(runs, margin=0.25)).rows
    assert reached == ["200 s (3 of 5)", "most never (1 of 5)", "most never (1 of 5)", "never"]
    ((_, _, _, _, *reached, _),) = seconds(figures_of(runs[1:3], margin=0.25)).rows
    assert reached[0] == "half never (1 of 2)"


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (replace(used(), official=False, kind="synthetic"), "Synthetic data", "say nothing about CIFAR-10"),
        (replace(used(), official=False, kind="custom"), "Not CIFAR-10", "of another task"),
        (used(train_images=64), "Part of CIFAR-10", "64 of 50,000 training images and 10,000 of 10,000 test images"),
    ],
)
def test_what_is_not_the_whole_cifar10_is_told(data: object, kind: str, words: str) -> None:
    caveat = caveat_of(data)  # type: ignore[arg-type]
    assert caveat is not None
    assert caveat.kind == kind
    assert words in caveat.reason


def test_of_the_whole_cifar10_nothing_is_told() -> None:
    assert caveat_of(used()) is None
    assert caveat_of(None) is None
