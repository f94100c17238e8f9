import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.peers import _Autocast, airbench94, airbench94_alone, imported, peer_name
from cifarfast.augment import normalize
from cifarfast.config import RunConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.errors import UserError
from cifarfast.runtime import Runtime
from cifarfast.setup import Site, open_site
from cifarfast.tta import augmented_logits

needs_airbench = pytest.mark.skipif(find_spec("airbench") is None, reason="airbench is not installed")
RUNTIME = Runtime(device="cpu", loader="resident")


@pytest.fixture
def site(data: Path) -> Site:
    return open_site(RunConfig(data=data, runtime=RUNTIME, verify=False))


@needs_airbench
def test_airbench_trains_here_and_nothing_of_torch_is_changed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "airbench"]:
        monkeypatch.delitem(sys.modules, name)  # imported anew, so that what its import does to torch is seen
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    airbench = imported()
    seen: list[nn.Module] = []
    evaluate = airbench.utils.evaluate

    def watching(model: nn.Module, loader: object, tta_level: int = 0) -> float:
        seen.append(model)
        accuracy: float = evaluate(model, loader, tta_level)
        return accuracy

    monkeypatch.setattr(airbench.utils, "evaluate", watching)
    before = (torch.cuda.Event, torch.cuda.synchronize, nn.Module.cuda, airbench.utils.CifarLoader)
    state = torch.random.get_rng_state()
    run = airbench94(site, seed=3, verified=False, epochs=1.4, batch_size=32)
    assert (torch.cuda.Event, torch.cuda.synchronize, nn.Module.cuda, airbench.utils.CifarLoader) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.backends.cudnn.benchmark
    assert (run.name, run.seed, [row.epoch for row in run.rows]) == (peer_name(), 3, [1, 2])
    assert (run.data.train_images, run.data.test_images, run.effective.loader) == (160, 40, "airbench")
    # After both epochs without, and at the end with test-time augmentation, all by the same network.
    assert len(seen) == 3
    assert len(set(map(id, seen))) == 1
    assert all(0 < row.epoch_seconds < run.clock_seconds for row in run.rows)
    assert sum(row.epoch_seconds for row in run.rows) < run.clock_seconds
    assert [40 * row.test_accuracy for row in run.rows] == pytest.approx(
        [round(40 * row.test_accuracy) for row in run.rows]
    )
    images, labels = read_beton(site.data / site.manifest.test.file)
    mean, std = airbench.utils.CIFAR_MEAN, airbench.utils.CIFAR_STD
    with torch.no_grad():
        normalised = normalize(torch.from_numpy(images).permute(0, 3, 1, 2), mean, std, torch.float32)
        right = augmented_logits(seen[-1].eval(), normalised, "flip+shift").argmax(1) == torch.from_numpy(labels)
    assert run.test_accuracy == pytest.approx(right.float().mean().item(), abs=0.026)  # its pixels are rounded to fp16


@needs_airbench
@pytest.mark.parametrize("lent", [False, True])
def test_alone_it_does_the_same(data: Path, site: Site, lent: bool) -> None:
    config = RunConfig(data=data, runtime=RUNTIME, verify=False)
    here = airbench94(site, seed=3, verified=False, epochs=1, batch_size=32)
    alone = airbench94_alone(config, seed=3, lend_memory=lent, epochs=1, batch_size=32)
    assert alone.name == peer_name(lend_memory=lent) == peer_name() + "+our-memory-settings" * lent
    assert [row.test_accuracy for row in alone.rows] == pytest.approx([row.test_accuracy for row in here.rows], abs=0.1)
    assert (alone.seed, alone.data, alone.effective) == (3, here.data, here.effective)


@needs_airbench
def test_what_is_wrong_in_its_process_is_one_line_in_ours(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(data=data, runtime=RUNTIME)
    with pytest.raises(UserError, match="has fewer training images than the 1024 of airbench's batch"):
        airbench94_alone(config, seed=0)
    assert capfd.readouterr().err == ""
    with pytest.raises(UserError, match=r"^airbench's process ended with exit code 1 and no result$"):
        airbench94_alone(config, seed=0, batch_size="many")
    assert "TypeError" in capfd.readouterr().err


@needs_airbench
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_stops_us_stops_it_and_no_files_stay(data: Path, tmp_path: Path, number: int, code: int) -> None:
    script = f"""
from pathlib import Path
from bench.peers import airbench94_alone
from cifarfast.config import RunConfig
from cifarfast.door import run
from cifarfast.runtime import Runtime
config = RunConfig(data=Path({str(data)!r}), runtime=Runtime(device="cpu", loader="resident"))
run(lambda: airbench94_alone(config, seed=0, epochs=10_000, batch_size=32))
"""
    started = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("airbench-*/test.pt")):
        assert started.poll() is None
        time.sleep(0.05)
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(started.pid, number)
    else:
        started.send_signal(number)
    _, told = started.communicate()
    assert started.returncode == code
    assert told.splitlines() == [f"error: {'interrupted' if number == signal.SIGINT else 'terminated'}"]
    assert list(tmp_path.glob("airbench-*")) == []


@needs_airbench
def test_its_weights_stay_in_fp32_and_its_arithmetic_does_not(site: Site) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10)).half()
    found: list[torch.dtype] = []
    net = _Autocast(replace(site.device, amp_dtype="bf16"), layers)
    net[0].register_forward_hook(lambda *call: found.append(call[2].dtype))
    logits = net(torch.ones(2, 3, 32, 32, dtype=torch.bfloat16))
    assert (logits.dtype, found) == (torch.float32, [torch.bfloat16])
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


@needs_airbench
def test_data_that_makes_no_batch_is_refused(site: Site) -> None:
    with pytest.raises(UserError, match="has fewer training images than the 1024 of airbench's batch"):
        airbench94(site, seed=0, verified=True)


def test_without_it_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airbench", None)
    with pytest.raises(UserError, match=r"^airbench cannot be used \(.*\): pip install 'cifarfast\[bench\]'$"):
        imported()
