"""Runs of other programs beside a study's, on the same machine and data: `peers/<name>/seed-<n>.json` in its folder.

`python -m bench.race` makes them. They are timed by the rule for our own (`clock_seconds` of `MachineFigures`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cifarfast.comparable import differing, machine_facts
from cifarfast.errors import UserError
from cifarfast.files import read_plain, write_json
from cifarfast.fingerprint import Fingerprint
from cifarfast.records import decode_versioned, sealed
from cifarfast.studying.plan import run_name
from cifarfast.summary import Data, Effective, Summary

SCHEMA = 1
PEERS_NAME = "peers"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PeerEpoch:
    """An epoch of another program's run."""

    epoch: int
    """1 for the first."""
    epoch_seconds: float
    """Training only."""
    test_accuracy: float
    """At its end, 0 to 1; of the last one with the program's own test-time augmentation."""


@dataclass(frozen=True, kw_only=True)
class PeerRun:
    """A run of another program, by its own code and clock."""

    schema: int = SCHEMA
    """Version of this layout."""
    name: str
    """Program and version: `airbench94-0.1.8`."""
    seed: int
    """What the random generators were set to."""
    data: Data
    """What was trained and tested on."""
    fingerprint: Fingerprint
    """Machine and versions."""
    effective: Effective
    """How it was executed; its loader is the program's own."""
    rows: list[PeerEpoch]
    """Its epochs, the last one perhaps not whole."""
    clock_seconds: float
    """From data in memory to the result: training, and evaluation after the last epoch, not those in between."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("no epochs")

    @property
    def test_accuracy(self) -> float:
        """After the last epoch, with the program's own test-time augmentation, 0 to 1."""
        return self.rows[-1].test_accuracy


def peer_file(out: Path, name: str, seed: int) -> Path:
    """Where a run is kept in a study's folder."""
    return out / PEERS_NAME / name / f"{run_name(seed)}.json"


def write_peer(out: Path, run: PeerRun) -> None:
    """Keep a run in a study's folder.

    Raises:
        OSError: it cannot be written.
    """
    path = peer_file(out, run.name, run.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sealed(run))


def read_peers(out: Path, *, data: Data | None) -> list[PeerRun]:
    """Read all runs of other programs in a study's folder, by name and seed.

    Args:
        data: what the study's runs were trained on, where that is known.

    Raises:
        UserError: one is damaged, or of other data.
    """
    runs = [_read(path) for path in (out / PEERS_NAME).glob("*/seed-*.json")]
    facts = [_facts(each) for each in ([] if data is None else [data]) + [run.data for run in runs]]
    if differences := differing(facts):
        raise UserError(f"the runs in {out} and {out / PEERS_NAME} differ in {', '.join(differences)}: part them")
    return sorted(runs, key=lambda run: (run.name, run.seed))


def _read(path: Path) -> PeerRun:
    hint = "delete it, and python -m bench.race makes it again"
    try:
        raw = read_plain(path, _MAX_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}: {hint}") from None
    run = decode_versioned(raw, PeerRun, schema=SCHEMA, where=path, hint=hint)
    if path != peer_file(path.parent.parent.parent, run.name, run.seed):
        raise UserError(f"{path} holds {run.name} with seed {run.seed}: put it where that belongs")
    return run


def _facts(data: Data) -> dict[str, object]:
    names: Sequence[str] = ("train_images", "test_images", "train_sha256", "test_sha256")
    return {name: getattr(data, name) for name in names}


def beside(peer: PeerRun, summary: Summary) -> bool:
    """Whether both ran on one machine, in one precision, with as many threads; on CUDA airbench has its own, fp16."""
    theirs, ours = peer.effective, summary.runtime.effective
    alike = theirs.device == "cuda" or (theirs.precision, theirs.threads) == (ours.precision, ours.threads)
    return alike and machine_facts(peer.fingerprint) == machine_facts(summary.fingerprint)
