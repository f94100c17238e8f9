import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifarfast.errors import UserError
from cifarfast.studying.peers import PeerRun, beside, peer_file, read_peers, write_peer
from tests.studying.made import made_peer
from tests.test_runfolder import row
from tests.test_summary import summary, used


def test_runs_are_read_by_name_and_seed(tmp_path: Path) -> None:
    runs = [made_peer(seed, name=name) for name in ("b-1", "a-1") for seed in (10, 2)]
    for run in runs:
        write_peer(tmp_path, run)
    assert read_peers(tmp_path, data=used()) == [runs[3], runs[2], runs[1], runs[0]]
    assert read_peers(tmp_path / "nowhere", data=None) == []
    assert runs[0].test_accuracy == 0.94


def test_runs_on_other_images_are_refused(tmp_path: Path) -> None:
    write_peer(tmp_path, made_peer(0))
    with pytest.raises(UserError, match=r"differ in train_images \(160, 50000\): part them"):
        read_peers(tmp_path, data=used(train_images=160))
    write_peer(tmp_path, replace(made_peer(1), data=used(train_images=160)))
    with pytest.raises(UserError, match="differ in train_images"):
        read_peers(tmp_path, data=None)


def test_one_that_is_damaged_or_misplaced_is_named(tmp_path: Path) -> None:
    write_peer(tmp_path, made_peer(0))
    path = peer_file(tmp_path, made_peer(0).name, 0)
    record = json.loads(path.read_text())
    path.rename(path.with_name("seed-1.json"))
    with pytest.raises(UserError, match=r"seed-1\.json holds airbench94-0 with seed 0: put it where that belongs"):
        read_peers(tmp_path, data=None)
    path.with_name("seed-1.json").unlink()
    damages: tuple[dict[str, Any], ...] = ({"clock_seconds": 1.0}, {"rows": []}, {"schema": 2})
    for damage in damages:
        path.write_text(json.dumps(record | damage))
        with pytest.raises(UserError, match=r"seed-0\.json .*: "):
            read_peers(tmp_path, data=None)


def test_a_run_has_epochs() -> None:
    with pytest.raises(ValueError, match="no epochs"):
        PeerRun(**{**vars(made_peer(0)), "rows": []})


def test_a_run_is_beside_another_in_the_same_precision_or_on_cuda() -> None:
    made = summary([row(1)])
    effective = made.runtime.effective
    peer = replace(made_peer(0, cpu="a cpu"), fingerprint=made.fingerprint, effective=effective)
    assert beside(peer, made)
    for change in ({"precision": "bf16"}, {"threads": effective.threads + 1}):
        assert not beside(replace(peer, effective=replace(effective, **change)), made)
    assert beside(replace(peer, effective=replace(effective, device="cuda", precision="fp16")), made)
    assert not beside(replace(peer, fingerprint=replace(made.fingerprint, cpu="another")), made)
