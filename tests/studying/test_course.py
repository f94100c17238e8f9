"""Studies of the tiny network: two epochs of three steps a run."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from cifarfast import Recipe, RunConfig, Runtime, Stopped, UserError
from cifarfast.dataset.manifest import MANIFEST_NAME, read_manifest
from cifarfast.files import write_json
from cifarfast.records import sealed
from cifarfast.setup import open_site, set_up
from cifarfast.step import TrainStep
from cifarfast.studying.course import MOST_COMPILED, run_study
from cifarfast.studying.plan import Plan
from cifarfast.studying.runs import StudyRun, read_runs
from tests.dying import study_in_a_process
from tests.test_resume import contents, fit, outcome, signalling
from tests.tiny import build_tiny

BASE = Recipe(batch_size=4, epochs=2, max_lr=0.004, dropout=0.5)
RECIPES = {
    "base": BASE,
    "free": replace(BASE, name="free", weight_decay=0.1, final_div_factor=10.0),  # compiled as the first is
    "other": replace(BASE, batch_size=6, label_smoothing=0.1),
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("cifarfast.setup.build_model", build_tiny)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def plan_of(data: Path, tmp_path: Path) -> Callable[..., Plan]:
    def make(*names: str, seeds: tuple[int, ...] = (7, 3), out: Path = tmp_path / "study", **runtime: Any) -> Plan:
        usual = RunConfig(
            data=data,
            runtime=Runtime(device="cpu", loader="resident", **runtime),
            train_images=13,
            test_images=8,
            verify=False,
        )
        return Plan(out=out, recipes={name: RECIPES[name] for name in names}, seeds=seeds, usual=usual)

    return make


def trained(plan: Plan) -> list[str]:
    """What a study trains, in this order."""
    done: list[StudyRun] = []
    run_study(plan, on_run=done.append)
    return [f"{run.recipe} {run.seed}" for run in done]


def assert_alone(plan: Plan, tmp_path: Path) -> None:
    """Every run of a study is, bit for bit, the run that `fit` makes alone."""
    for number, (folder, config) in enumerate(plan.runs()):
        alone = tmp_path / f"alone{number}"
        fit(config, alone)
        (weights, rows), (expected, expected_rows) = outcome(folder), outcome(alone)
        assert rows == expected_rows
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
        assert json.loads((folder / "config.json").read_text())["recipe"]["max_lr"] == config.recipe.max_lr


@pytest.mark.parametrize("compiling", [False, True])
def test_every_run_is_the_one_that_is_made_alone(
    plan_of: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiling: bool
) -> None:
    plan = plan_of("base", "free", "other", compile=compiling)
    compiled: list[int] = []
    compile_step = TrainStep.compile

    def counted(step: TrainStep, note: Callable[[str], None]) -> float | None:
        compiled.append(step.recipe.batch_size)
        return compile_step(step, note)

    monkeypatch.setattr(TrainStep, "compile", counted)
    assert trained(plan) == ["base 7", "free 7", "other 7", "base 3", "free 3", "other 3"]
    assert compiled == ([4, 6] if compiling else [])
    summaries = {f"{run.recipe} {run.seed}": run.run.summary for run in read_runs(plan.out)}
    cost = {name: summary.compile_seconds for name, summary in summaries.items() if summary is not None}
    if not compiling:
        assert set(cost.values()) == {None}
    else:
        paid = {name for name, each in cost.items() if each is not None and each.cache != "in-process"}
        assert paid == {"base 7", "other 7"}
        assert {each.seconds for name, each in cost.items() if each is not None and name not in paid} == {0.0}
        assert all(each is not None and each.seconds > 0 for name, each in cost.items() if name in paid)
        assert all(summary is not None and summary.runtime.effective.compile for summary in summaries.values())
    assert_alone(replace(plan, seeds=[3]), tmp_path)  # the runs that took over what was compiled


@pytest.mark.parametrize(
    ("point", "count", "minutes"),
    [
        ("in the middle of an epoch", 6 + 5, 1e-9),
        ("in the middle of an epoch", 6 + 2, 10.0),  # no checkpoint yet
        ("before the summary", 2, 10.0),
    ],
)
def test_killed_it_goes_on_where_it_was(
    plan_of: Callable[..., Plan], tmp_path: Path, point: str, count: int, minutes: float
) -> None:
    plan = plan_of("base", "free")
    assert study_in_a_process(plan, die_at=(point, count), checkpoint_minutes=minutes) == -signal.SIGKILL
    runs = read_runs(plan.out)
    assert [(run.recipe, run.seed, run.state) for run in runs] == [("base", 7, "finished"), ("free", 7, "unfinished")]
    before = contents(runs[0].run.path)
    assert trained(plan) == ["free 7", "base 3", "free 3"]
    assert contents(runs[0].run.path) == before
    assert_alone(plan, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_same_goes_on(
    plan_of: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    plan = plan_of("base", "free")
    with monkeypatch.context() as patch:
        signalling(patch, TrainStep, "__call__", number, 6 + 4)
        with pytest.raises(Stopped, match=f"^stopped by {number.name}: the same command goes on$") as stopped:
            run_study(plan)
    assert stopped.value.signum is number
    assert trained(plan) == ["free 7", "base 3", "free 3"]
    assert_alone(plan, tmp_path)
    assert [run.run.summary.resumed_at for run in read_runs(plan.out) if run.run.summary] == [[], [], [], [4]]


def test_what_is_done_needs_no_data_and_seeds_and_recipes_can_be_added(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of("base", seeds=(7,))
    assert trained(plan) == ["base 7"]
    before = contents(plan.out)
    assert trained(replace(plan, usual=replace(plan.usual, data=Path("gone")))) == []
    assert contents(plan.out) == before
    assert trained(plan_of("base", "free", seeds=(3, 7))) == ["base 3", "free 3", "free 7"]


def test_runs_from_elsewhere_can_be_put_into_it(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    here, there = plan_of("base", seeds=(7,)), plan_of("base", seeds=(3,), out=tmp_path / "there")
    assert (trained(here), trained(there)) == (["base 7"], ["base 3"])
    (there.out / "base" / "seed-3").rename(here.out / "base" / "seed-3")
    assert trained(plan_of("base", seeds=(3, 7))) == []
    assert [(run.seed, run.state) for run in read_runs(here.out)] == [(3, "finished"), (7, "finished")]


def test_a_run_that_diverges_is_recorded_and_the_others_are_trained(
    plan_of: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_step = TrainStep.__call__

    def poisoned(step: TrainStep, *args: Any, **kwargs: Any) -> None:
        if step.recipe.name == "reference" and step._seed == 7:
            with torch.no_grad():
                step.model.head.weight[3, 1] = torch.inf
        take_step(step, *args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", poisoned)
    plan = plan_of("base", "free")
    assert trained(plan) == ["base 7", "free 7", "base 3", "free 3"]
    states = {(run.recipe, run.seed): run.state for run in read_runs(plan.out)}
    assert states == {
        ("base", 7): "diverged", ("base", 3): "finished", ("free", 7): "finished", ("free", 3): "finished"
    }  # fmt: skip
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"{plan.out / 'base' / 'seed-7'}: run 1 of 4"
    assert told[1].startswith("training diverged at step 0 (epoch 1")
    assert [line.rpartition(": ")[2] for line in told[2:]] == ["run 2 of 4", "run 3 of 4", "run 4 of 4"]
    assert trained(plan) == []
    assert_alone(replace(plan, recipes={"free": RECIPES["free"]}), tmp_path)


def test_a_site_is_for_one_runtime(data: Path) -> None:
    config = RunConfig(data=data, recipe=BASE, verify=False, runtime=Runtime(device="cpu", loader="resident"))
    site = open_site(config)
    with pytest.raises(ValueError, match="this site is for"):
        set_up(replace(config, runtime=replace(config.runtime, channels_last=False)), site)


def refused(plan: Plan) -> str:
    """Why a study is refused, which must not have changed anything."""
    before = contents(plan.out)
    with pytest.raises(UserError) as refusal:
        run_study(plan)
    assert contents(plan.out) == before
    return str(refusal.value)


def test_other_settings_are_refused_before_anything_is_trained(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of("base", seeds=(7,))
    assert trained(plan) == ["base 7"]
    more = replace(plan, recipes={"free": RECIPES["free"], **plan.recipes})
    longer = replace(more, recipes={"free": RECIPES["free"], "base": replace(BASE, epochs=3)})
    assert "base/seed-7 was not begun with --epochs 3 (but 2): choose another --out" in refused(longer)
    contiguous = replace(more.usual, runtime=replace(more.usual.runtime, channels_last=False))
    assert "--channels-last False (but True)" in refused(replace(more, usual=contiguous))
    # Also where the run itself is not in the plan:
    fewer = replace(more, recipes={"free": RECIPES["free"]}, usual=replace(more.usual, test_images=6))
    assert "base/seed-7 was made with --test-images 8: do the same, or choose another --out" in refused(fewer)
    damaged = plan.out / "base" / "seed-7" / "config.json"
    damaged.write_text(damaged.read_text().replace('"seed": 7', '"seed": 8'))
    assert "config.json is damaged" in refused(more)


def test_other_data_is_refused(plan_of: Callable[..., Plan], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "other")
    manifest = read_manifest(data)
    other = replace(manifest, train=replace(manifest.train, sha256="0" * 64))
    write_json(tmp_path / "other" / MANIFEST_NAME, sealed(other))
    plan = plan_of("base", seeds=(7,))
    assert trained(plan) == ["base 7"]
    elsewhere = replace(plan, seeds=[3], usual=replace(plan.usual, data=tmp_path / "other"))
    assert "other holds: choose another --out" in refused(elsewhere)


def test_what_cannot_be_trained_is_refused_before_anything_is(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    plan = plan_of("base")
    huge = replace(plan, recipes={**plan.recipes, "huge": replace(BASE, batch_size=14)})
    assert "--batch-size 14 is more than the 13 training images" in refused(huge)
    rates = {f"drop{n}": replace(BASE, dropout=n / 10) for n in range(9)}
    many = replace(plan_of("base", compile=True), recipes=rates)
    assert "--recipe asks for 9 compiled versions of the step, of which 8 fit into one process" in refused(many)
    alternating = replace(BASE, augmentation=replace(BASE.augmentation, alternate_flip=True))
    ordinary = replace(plan.usual, runtime=replace(plan.usual.runtime, loader="torchvision"))
    last = replace(plan, recipes={**plan.recipes, "last": alternating}, usual=ordinary)
    assert "in a study :alternate-flip=false" in refused(last)
    assert "gone holds no manifest.json" in refused(replace(plan, usual=replace(plan.usual, data=Path("gone"))))
    assert not plan.out.exists()
    assert torch._dynamo.config.recompile_limit >= MOST_COMPILED
    plan.out.mkdir()
    eager = replace(many, usual=replace(many.usual, runtime=replace(many.usual.runtime, compile=False)))
    with FileLock(plan.out / ".lock"):
        assert "is in use" in refused(eager)  # for no other reason


def test_two_studies_do_not_work_in_one_folder(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of("base", seeds=(7,))
    plan.out.mkdir()
    with FileLock(plan.out / ".lock"):
        assert "study is in use by another study: wait for it" in refused(plan)
    assert trained(plan) == ["base 7"]
    with FileLock(plan.out / ".lock"):
        assert trained(plan) == []  # looking is allowed
