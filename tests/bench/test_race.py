import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.race import RACE_NAME, main, race_of
from bench.statistics import speed_ratio
from cifarfast.config import RunConfig
from cifarfast.errors import UserError
from cifarfast.setup import open_site
from cifarfast.studying.course import study_lock
from cifarfast.studying.peers import PeerRun, peer_file, read_peers, write_peer
from cifarfast.studying.runs import read_runs
from tests.commands import refusal
from tests.studying.made import made, made_peer, write_study_run

RECIPE = "reference:batch-size=40:epochs=1:max-lr=0.0001"
FOLDER = "reference+epochs=1+batch-size=40+max-lr=0.0001"
Asked = list[tuple[int, bool]]
"""Seeds that airbench was asked for, and whether it was lent memory settings."""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """airbench, replaced by one that takes no time."""
    asked: Asked = []

    def trained(config: RunConfig, *, seed: int, lend_memory: bool) -> PeerRun:
        assert config.verify
        with pytest.raises(UserError, match="in use by another study"), study_lock(Path("race")):
            pass
        asked.append((seed, lend_memory))
        peer = made_peer(seed)
        effective = replace(peer.effective, precision="fp32", threads=torch.get_num_threads())
        data = next(run.run.summary.data for run in read_runs(Path("race")) if run.run.summary)
        fingerprint = open_site(config).fingerprint
        return replace(peer, name=name(lend_memory), fingerprint=fingerprint, data=data, effective=effective)

    def name(lend_memory: bool) -> str:
        return made_peer(0).name + "+lent" * lend_memory

    monkeypatch.setattr("bench.peers.airbench94_alone", trained)
    monkeypatch.setattr("bench.peers.imported", lambda: None)
    monkeypatch.setattr("bench.peers.peer_name", lambda lend_memory: name(lend_memory))
    return asked


@pytest.mark.usefixtures("tiny")
def test_both_run_in_turn_and_what_is_there_is_not_run_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], peers: Asked
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--recipe", RECIPE, "--data", str(data), "--device", "cpu", "--loader", "resident", "--out", "race"]
    main([*command, "--seeds", "3,5"])
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.err.splitlines()] == [
        name for seed in (3, 5) for name in (f"race/{FOLDER}/seed-{seed}", f"race/peers/airbench94-0/seed-{seed}.json")
    ]
    last = shown.out.splitlines()[-2:]
    assert last[0].startswith(f"{FOLDER} is ")
    assert last[0].endswith(" times as fast as airbench94-0, n=2, too few for this interval to be wide enough")
    assert last[1] == "see race/study.html"
    record = json.loads((tmp_path / "race" / RACE_NAME).read_text())
    assert record["pairings"][0]["seeds"] == [3, 5]
    peer_file(Path("race"), "airbench94-0", 3).unlink()
    main([*command, "--seeds", "3,5"])
    assert peers == [(3, False), (5, False), (3, False)]
    assert "run 1 of" not in capsys.readouterr().err
    main([*command, "--seeds", "3,5,6", "--memory", "ours"])
    main([*command, "--seeds", "5,7", "--memory", "both"])
    assert peers[3:] == [(3, True), (5, True), (6, True), (7, False), (7, True)]
    assert [one.peer for one in race_of(Path("race"), [FOLDER]).pairings] == ["airbench94-0", "airbench94-0+lent"]


def test_only_pairs_of_one_machine_count(tmp_path: Path) -> None:
    for seed in range(4):
        write_study_run(made("reference", seed, out=tmp_path, epoch_seconds=100.0 + seed))
        write_peer(tmp_path, made_peer(seed, epoch_seconds=50.0 + seed, cpu="a cpu" if seed else "another"))
    write_study_run(made("alone", 0, out=tmp_path, cpu="a third"))
    (pairing,) = race_of(tmp_path, ["reference"]).pairings
    assert (pairing.recipe, pairing.peer, pairing.seeds) == ("reference", "airbench94-0", [1, 2, 3])
    ours, theirs = [2001.0 + 20 * seed for seed in (1, 2, 3)], [155.0 + 3 * seed for seed in (1, 2, 3)]
    assert pairing.clock_ratio == speed_ratio(ours, theirs, paired=True)
    assert pairing.clock_ratio.value == pytest.approx(161 / 2041)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "nonsense"), "--recipe nonsense is unknown"),
        (("--seeds", "4-0"), "neither a seed nor a range"),
        (("--checkpoint-minutes", "0"), "checkpoint_minutes must be positive"),
        (("--data", "nowhere"), "python -m data_prep.to_ffcv --out nowhere"),
    ],
)
@pytest.mark.usefixtures("restored_sigterm", "peers")
def test_a_mistake_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(main, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_without_airbench_nothing_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "airbench", None)
    assert "pip install 'cifarfast[bench]'" in refusal(main, capsys, "--data", data, "--recipe", RECIPE)
    assert read_peers(tmp_path, data=None) == []
    assert list(tmp_path.iterdir()) == []
