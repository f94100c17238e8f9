"""Runs of a study, without training: whole runs of `reference` on the real CIFAR-10, and another program's."""

from dataclasses import replace
from pathlib import Path

from cifarfast.runfolder import Diverged, RunFolder
from cifarfast.studying.peers import PeerEpoch, PeerRun
from cifarfast.studying.runs import StudyRun
from tests.bench.made import whole_run, write_run
from tests.test_runfolder import row
from tests.test_summary import EFFECTIVE, summary, used


def made(
    recipe: str,
    seed: int,
    accuracy: float = 0.92,
    *,
    out: Path = Path("out"),
    epochs: int = 20,
    epoch_seconds: float = 200.0,
    cpu: str = "a cpu",
    state: str = "finished",
) -> StudyRun:
    """A run that ends with this accuracy, or one that does not end."""
    run = whole_run(out / recipe / f"seed-{seed}", accuracy, seed=seed, epochs=epochs, epoch_seconds=epoch_seconds)
    assert run.summary is not None
    summary = replace(run.summary, fingerprint=replace(run.summary.fingerprint, cpu=cpu))
    run = replace(run, summary=summary if state == "finished" else None)
    diverged = Diverged(epochs=len(run.rows), reason="training diverged at step 7") if state == "diverged" else None
    return StudyRun(recipe, run, diverged)


def write_study_run(run: StudyRun) -> None:
    """Write it into its folder."""
    write_run(run.run)
    if run.diverged is not None:
        with RunFolder(run.run.path, resume=True) as folder:
            folder.write_diverged(run.diverged)


def made_peer(
    seed: int, accuracy: float = 0.94, *, name: str = "airbench94-0", epoch_seconds: float = 100.0, cpu: str = "a cpu"
) -> PeerRun:
    """Three epochs and a final evaluation of five seconds."""
    rows = [
        PeerEpoch(epoch=epoch, epoch_seconds=epoch_seconds, test_accuracy=accuracy - 0.1 * (3 - epoch))
        for epoch in (1, 2, 3)
    ]
    return PeerRun(
        name=name,
        seed=seed,
        data=used(),
        fingerprint=replace(summary([row(1)]).fingerprint, cpu=cpu),
        effective=replace(EFFECTIVE, loader="airbench", workers=0),
        rows=rows,
        clock_seconds=3 * epoch_seconds + 5,
    )
