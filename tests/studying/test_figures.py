import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_1samp, ttest_ind

from cifarfast.records import decode_versioned
from cifarfast.studying.figures import SCHEMA, STUDY_NAME, Figures, figures_of, machines_of, write_figures
from cifarfast.studying.runs import StudyRun
from tests.studying.made import made, made_peer

ACCURACIES = {"reference": [0.9150, 0.9160, 0.9145, 0.9158], "other": [0.9170, 0.9161, 0.9180]}


def study() -> list[StudyRun]:
    return [made(name, seed, value) for name, values in ACCURACIES.items() for seed, value in enumerate(values)]


def test_accuracies_are_pooled() -> None:
    runs = [*study(), made("reference", 7, state="diverged"), made("reference", 8, state="unfinished")]
    figures = figures_of(sorted(runs, key=lambda run: run.recipe != "reference"), margin=0.25)
    reference, other = figures.recipes
    percents = [100 * value for value in ACCURACIES["reference"]]
    assert (reference.name, reference.n, reference.seeds, reference.diverged, reference.unfinished) == (
        "reference", 4, [0, 1, 2, 3], [7], [8]
    )  # fmt: skip
    assert (reference.mean, reference.std) == pytest.approx((statistics.mean(percents), statistics.stdev(percents)))
    assert (reference.worst, reference.best) == pytest.approx((91.45, 91.60))
    interval = ttest_1samp(percents, 0).confidence_interval(0.95)
    assert reference.interval is not None
    assert (reference.interval.low, reference.interval.high) == pytest.approx((interval.low, interval.high))
    assert reference.target is not None
    assert reference.target.p == pytest.approx(ttest_1samp(percents, 91.42, alternative="greater").pvalue)
    (difference,) = figures.differences
    assert (difference.name, difference.baseline, difference.accuracy.verdict) == ("other", "reference", "not inferior")
    later = [100 * value for value in ACCURACIES["other"]]
    expected = ttest_ind(later, percents, equal_var=False).confidence_interval(0.95)
    assert difference.accuracy.interval is not None
    assert difference.accuracy.interval.low == pytest.approx(expected.low)
    assert other.diverged == other.unfinished == []
    assert figures.data == runs[0].run.summary.data if runs[0].run.summary else False


def test_the_margin_is_the_one_asked_for() -> None:
    runs = [made(name, seed, value) for name, value in (("a", 0.92), ("b", 0.915)) for seed, value in _three(value)]
    verdicts = [figures_of(runs, margin=margin).differences[0].accuracy.verdict for margin in (0.25, 1.0)]
    assert verdicts == ["inferior", "not inferior"]


def _three(value: float) -> list[tuple[int, float]]:
    return [(seed, value + seed / 10_000) for seed in range(3)]


def test_seconds_are_of_one_machine_and_accuracies_of_all() -> None:
    runs = [made("a", 0, 0.92), made("a", 1, 0.92, cpu="another", epoch_seconds=50.0), made("a", 2, 0.91)]
    (recipe,) = figures_of(runs, margin=0.25).recipes
    assert recipe.n == 3
    here, there = recipe.machines
    assert (here.n, here.epoch_seconds, there.n, there.epoch_seconds) == (2, 200.0, 1, 50.0)
    # Twenty epochs, and one evaluation of a second.
    assert (here.clock_seconds, here.clock_min, here.clock_max, there.clock_seconds) == (4001.0, 4001.0, 4001.0, 1001.0)
    assert (here.machine.split(",")[0], there.machine.split(",")[0]) == ("a cpu", "another")


@pytest.mark.parametrize(
    ("reaching", "seconds"), [((True, True, True), 200.0), ((True, False, True), 210.0), ((False, False, True), None)]
)
def test_a_run_that_never_reaches_an_accuracy_is_later_than_all_others(
    reaching: tuple[bool, ...], seconds: float | None
) -> None:
    times = (190.0, 200.0, 210.0)
    runs = [made("a", i, 0.92 if r else 0.7, epoch_seconds=times[i]) for i, r in enumerate(reaching)]
    ((machine,),) = (recipe.machines for recipe in figures_of(runs, margin=0.25).recipes)
    assert [level.accuracy for level in machine.levels] == pytest.approx([80.0, 90.0, 91.42, 94.0])
    level = machine.levels[1]
    assert (level.seconds, level.reached, level.n) == (seconds, sum(reaching), 3)
    assert (machine.levels[3].seconds, machine.levels[3].reached) == (None, 0)


def test_another_program_has_figures_like_ours() -> None:
    peers = [made_peer(0, 0.94), made_peer(1, 0.95, epoch_seconds=110.0), made_peer(2, 0.95, cpu="another")]
    figures = figures_of(study(), margin=0.25, peers=peers)
    (peer,) = figures.peers
    assert (peer.name, peer.n, peer.seeds) == ("airbench94-0", 3, [0, 1, 2])
    assert (peer.mean, peer.std) == pytest.approx((94 + 2 / 3, statistics.stdev([94.0, 95.0, 95.0])))
    here, there = peer.machines
    assert (here.n, here.clock_seconds, here.clock_min, here.clock_max) == (2, 320.0, 305.0, 335.0)
    assert (here.epoch_seconds, there.n, there.clock_seconds) == (105.0, 1, 305.0)
    assert [(level.accuracy, level.reached, level.seconds) for level in here.levels] == [
        (80.0, 2, 210.0), (90.0, 2, 315.0), (pytest.approx(91.42), 2, 315.0), (94.0, 2, 315.0)
    ]  # fmt: skip
    assert figures.differences == figures_of(study(), margin=0.25).differences


def test_every_recipe_is_timed_to_the_targets_of_all() -> None:
    higher = made("b", 0, 0.95)
    config = replace(higher.run.config, recipe=replace(higher.run.config.recipe, target_accuracy=0.945))
    runs = [made("a", 0, 0.92), replace(higher, run=replace(higher.run, config=config))]
    (low,), (high,) = (recipe.machines for recipe in figures_of(runs, margin=0.25).recipes)
    for machine, seconds in ((low, [200.0, 200.0, 200.0, None, None]), (high, [200.0] * 5)):
        assert [level.accuracy for level in machine.levels] == pytest.approx([80.0, 90.0, 91.42, 94.0, 94.5])
        assert [level.seconds for level in machine.levels] == seconds


def test_machines_that_would_be_called_alike_are_numbered() -> None:
    runs = [made("a", seed, 0.92) for seed in range(4)]
    for number, field in ((1, {"memory_bytes": 5}), (2, {"cores_allowed": 9})):
        summary = runs[number].run.summary
        assert summary is not None
        other = replace(summary, fingerprint=replace(summary.fingerprint, **field))  # type: ignore[arg-type]
        runs[number] = replace(runs[number], run=replace(runs[number].run, summary=other))
    (recipe,) = figures_of(runs, margin=0.25).recipes
    endings = [machine.machine.rpartition("resident, ")[2] for machine in recipe.machines]
    apart = "of 3 that differ in cores_allowed, memory_bytes"
    assert endings == [f"1 {apart}", f"2 {apart}", f"3 {apart}"]
    assert [machine.n for machine in recipe.machines] == [2, 1, 1]


def test_the_same_two_machines_have_the_same_numbers_whatever_ran_on_them() -> None:
    runs, peers = [made("a", 0, 0.92), made("a", 1, 0.92)], [made_peer(1), made_peer(0)]
    summary = runs[1].run.summary
    assert summary is not None
    larger = replace(summary, fingerprint=replace(summary.fingerprint, memory_bytes=5))
    runs[1] = replace(runs[1], run=replace(runs[1].run, summary=larger))
    peers[0] = replace(peers[0], fingerprint=replace(peers[0].fingerprint, memory_bytes=5))
    names = machines_of(runs, peers)
    endings = [name.rpartition("loader ")[2] for name in names.values()]
    apart = "of 2 that differ in memory_bytes"
    assert endings == [f"resident, 1 {apart}", f"resident, 2 {apart}", f"airbench, 2 {apart}", f"airbench, 1 {apart}"]


def test_what_is_not_a_whole_run_is_not_judged() -> None:
    (short,) = figures_of([made("a", 0, epochs=3), made("a", 1, 0.93, epochs=3)], margin=0.25).recipes
    assert (short.n, short.target) == (2, None)


def test_without_a_finished_run_there_is_nothing_to_say() -> None:
    figures = figures_of([made("a", 0, state="diverged"), made("b", 0), made("b", 1)], margin=0.25)
    diverged = figures.recipes[0]
    assert (diverged.n, diverged.mean, diverged.std, diverged.best, diverged.machines) == (0, None, None, None, [])
    assert figures.differences == []
    assert figures_of([], margin=0.25) == Figures(data=None, margin=0.25, recipes=[], differences=[])


def test_what_is_written_is_sealed_and_can_be_read(tmp_path: Path) -> None:
    figures = figures_of(study(), margin=0.25, peers=[made_peer(0)])
    write_figures(tmp_path, figures)
    raw = (tmp_path / STUDY_NAME).read_bytes()
    assert decode_versioned(raw, Figures, schema=SCHEMA, where=tmp_path, hint="") == figures
    write_figures(tmp_path, replace(figures, margin=0.5))
    assert (tmp_path / STUDY_NAME).read_bytes() != raw
