"""The folder of a study: `<recipe>/seed-<n>/`, each an ordinary run folder, wherever it was made.

study.json   what the runs say together, made from their folders alone (`cifarfast.studying.figures`)
study.html   the same as a page
.lock        held by the process that trains here
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from cifarfast.comparable import differing, flat
from cifarfast.config import SavedConfig
from cifarfast.errors import UserError
from cifarfast.runfolder import CONFIG_NAME, Diverged, Run, read_config, read_diverged, read_run, read_summary
from cifarfast.studying.plan import run_name

State = Literal["finished", "diverged", "unfinished"]


@dataclass(frozen=True)
class StudyRun:
    """A run of a study."""

    recipe: str
    """Name of its recipe's folder."""
    run: Run
    """What its folder holds."""
    diverged: Diverged | None
    """Why it came to no end, if it diverged."""

    @property
    def state(self) -> State:
        """`unfinished` is what is under way or was interrupted."""
        if self.run.summary is not None:
            return "finished"
        return "unfinished" if self.diverged is None else "diverged"

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.run.config.seed


def is_done(folder: Path) -> bool:
    """Whether a run has come to its end, or diverged, which the same settings would do again.

    Raises:
        UserError: its configuration, its summary, or the record of its divergence, is damaged.
    """
    summary = read_summary(folder)
    finished = summary is not None and summary.epochs == read_config(folder).recipe.epochs
    return finished or read_diverged(folder) is not None


def read_study_run(folder: Path) -> StudyRun:
    """Read a run of a study; one that is being made longer is unfinished.

    Raises:
        UserError: it holds no run, one with another seed than its folder says, or a damaged one.
    """
    run = read_run(folder)
    if folder.name != run_name(run.config.seed):
        raise UserError(f"{folder} holds a run with seed {run.config.seed}: call it {run_name(run.config.seed)}")
    if run.summary is not None and run.summary.epochs != run.config.recipe.epochs:
        run = replace(run, summary=None)
    return StudyRun(folder.parent.name, run, read_diverged(folder))


def read_runs(out: Path, *, first: Sequence[str] = ()) -> list[StudyRun]:
    """Read all runs in a study's folder, in order of seeds, recipe by recipe.

    Args:
        first: recipes to begin with; the others follow in alphabetical order.

    Raises:
        UserError: a run is damaged, or not comparable with the others.
    """
    runs = [read_study_run(config.parent) for config in out.glob(f"*/seed-*/{CONFIG_NAME}")]
    names = [*first, *sorted({run.recipe for run in runs} - {*first})]
    runs.sort(key=lambda run: (names.index(run.recipe), run.seed))
    _refuse_differing(out, [_data_facts(run.run.config) for run in runs])
    for name in names:
        _refuse_differing(out / name, [flat(asdict(run.run.config.recipe)) for run in runs if run.recipe == name])
    return runs


def _data_facts(config: SavedConfig) -> dict[str, object]:
    """What all runs of a study must share."""
    names = ("train_images", "test_images", "train_sha256", "test_sha256")
    return {name: getattr(config, name) for name in names}


def _refuse_differing(folder: Path, facts: Iterable[dict[str, object]]) -> None:
    if differences := differing(list(facts)):
        raise UserError(f"the runs in {folder} are not of one kind, they differ in {', '.join(differences)}: part them")
