"""Every benchmark is built and runs once, with a tiny network where only the wiring matters."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch.nn import functional as F

from bench import (
    bench_augment,
    bench_checkpoint,
    bench_convert,
    bench_epoch,
    bench_evaluate,
    bench_loaders,
    bench_peaks,
    bench_pooling,
    bench_startup,
    bench_step,
    first_step,
    variants,
)
from bench.contest import Entrant, Timing, compete
from bench.lab import Lab
from bench.records import BenchFile, read_bench
from cifarfast.dataset.manifest import check_folder, read_manifest
from cifarfast.device import Device, open_device
from cifarfast.errors import UserError
from cifarfast.model import flops_per_image
from cifarfast.recipe import Recipe
from cifarfast.runtime import Runtime
from cifarfast.step import TrainStep
from cifarfast.tensorfile import write_tensors
from tests.commands import ROOT, command
from tests.tiny import Tiny, build_tiny

needs_ffcv = pytest.mark.skipif(find_spec("ffcv") is None, reason="FFCV is not installed")
needs_airbench = pytest.mark.skipif(find_spec("airbench") is None, reason="airbench is not installed")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
CLOSE = 0.02
"""The mean rounded to a whole pixel value is up to half a 255th off, over a standard deviation of a tenth or more."""
LOADERS = [
    pytest.param("ffcv", None, marks=needs_ffcv),
    ("resident", None),
    ("torchvision", 0),
    ("torchvision", 2),
]


@pytest.fixture
def lab(data: Path, tmp_path: Path) -> Lab:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Lab(
        folder=data,
        manifest=check_folder(data, full=False),
        device=open_device(Runtime(device="cpu"), print),
        profile="quick",
        batch_size=2,
        scratch=scratch,
    )


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tiny network, and a compiler that leaves everything as it is."""
    for module in ("bench.bench_step", "bench.bench_evaluate", "bench.bench_loaders", "cifarfast.setup"):
        monkeypatch.setattr(f"{module}.build_model", build_tiny)
    monkeypatch.setattr(Device, "compile", lambda self, function: function)
    monkeypatch.setattr(variants, "_bf16_speed", lambda: 1.0)
    yield
    bench_step._build.cache_clear()
    variants.amp_precision.cache_clear()


def timed(entrant: Entrant, rounds: int = 1) -> Timing:
    """Its timing, without calls before or beside the warm-up and the rounds."""
    outcome = compete({"": entrant}, rounds=rounds, synchronize=lambda: None)[""]
    if isinstance(outcome, Exception):
        raise outcome
    assert len(outcome.seconds) == rounds
    assert all(seconds > 0 for seconds in outcome.seconds)
    return outcome


def one_call(entrant: Entrant) -> float:
    (seconds,) = timed(replace(entrant, warm_up=0)).seconds
    return seconds


def test_variants_are_named_as_reports_expect() -> None:
    done = command("pytest", "bench", "--collect-only", "--quiet", cwd=ROOT)
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        benchmark, _, name = line.rpartition("::")[2].rstrip("]").partition("[")
        found.setdefault(benchmark, set()).add(name)
    loaders = {"ffcv", "resident", "torchvision-0", "torchvision-2"}
    layouts = {
        f"{precision}-{layout}" for precision in ("fp32", "bf16", "fp16") for layout in ("contiguous", "channels-last")
    }
    steps = {f"{layout}-{mode}" for layout in layouts for mode in ("eager", "compiled")}
    wanted = {
        "bench_raw": loaders,
        "bench_augmented": loaders,
        "bench_augment": {"ours-eager", "ours-compiled", "ffcv", "torchvision", "airbench"},
        "bench_forward": steps,
        "bench_forward_backward": steps,
        "bench_step": steps,
        "bench_dropout": {f"{way}-{mode}" for way in ("ordinary", "masks", "none") for mode in ("eager", "compiled")},
        "bench_pooling": {"torch", "winograd"},
        "bench_epoch": loaders,
        "bench_convert": {"ffcv", "cifarfast"},
        "bench_checkpoint": {"waiting", "whole"},
        "bench_evaluate": {f"{layout}-eager" for layout in layouts},
        "bench_startup": {"eager", "compiled-cold", "compiled-warm"},
        "bench_product": {"product-fp32", "product-bf16", "product-fp16"},
        "bench_convolutions": {"convolutions-fp32", "convolutions-bf16", "convolutions-fp16"},
        "bench_copy": {""},
    }
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchFile:
    """What one run of pytest leaves."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    options: list[str | Path] = ["--benchmark-only", "--benchmark-json", path, "--data", data, "--batch-size", "2"]
    done = command("pytest", "bench", "-k", "checkpoint", *options, cwd=ROOT, PYTEST_XDIST_WORKER="")
    assert done.returncode == 0, done.stdout + done.stderr
    return read_bench(path)


def test_what_pytest_leaves(measured: BenchFile) -> None:
    assert (measured.header.data, measured.header.batch_size, measured.header.skipped) == ("synthetic", 2, [])
    waiting, whole = (measured.find("checkpoint", name) for name in ("waiting", "whole"))
    assert waiting is not None
    assert whole is not None
    assert waiting.extra.unit == whole.extra.unit == "bytes"
    assert len(waiting.seconds) == len(whole.seconds) == 5
    assert waiting.extra.work == pytest.approx(3 * 4 * 6_573_130, rel=0.01)  # weights and both of Adam's moments
    assert measured.baseline_of(waiting) == whole


@pytest.mark.usefixtures("_tiny")
def test_the_first_step_is_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TrainStep, "__call__", TrainStep.__call__)  # to be put back
    flags = ["--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--loader", "resident"]
    monkeypatch.setattr(sys, "argv", ["first_step", *flags, "--batch-size", "2"])
    start = time.monotonic()
    with pytest.raises(SystemExit) as leaving:
        first_step.main()
    assert leaving.value.code is None
    assert start < float(capsys.readouterr().out.splitlines()[-1]) < time.monotonic()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_training_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did not start.*nowhere"):
        bench_startup.first_step_seconds(["--data", str(tmp_path / "nowhere")], tmp_path)


def test_compile_caches_are_cold_or_warm(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, bool]] = []

    def compiling(flags: Sequence[str], cache: Path) -> float:
        out = Path(flags[flags.index("--out") + 1])
        assert not out.exists()
        calls.append((out.parent.name, "--compile" in flags and cache.exists()))
        cache.mkdir(exist_ok=True)
        return 1.0

    monkeypatch.setattr(bench_startup, "first_step_seconds", compiling)
    eager, cold, warm = (
        bench_startup.bench_startup(replace(lab, profile="full", scratch=lab.scratch / mode), mode)
        for mode in ("eager", "compiled-cold", "compiled-warm")
    )
    for entrant in (warm, cold, warm, eager, warm, cold):
        assert entrant.once() == 1.0
    assert calls == [
        ("compiled-warm", False),  # which fills the cache
        ("compiled-warm", True),
        ("compiled-cold", False),
        ("compiled-warm", True),
        ("eager", False),
        ("compiled-warm", True),
        ("compiled-cold", False),
    ]


@pytest.mark.parametrize(("loader", "workers"), LOADERS)
@pytest.mark.usefixtures("_tiny")
def test_loaders(lab: Lab, monkeypatch: pytest.MonkeyPatch, loader: Any, workers: int | None) -> None:
    seen: list[torch.Tensor] = []

    def inputs(self: TrainStep, *arguments: Any, **named: Any) -> Any:
        images, masks = real(self, *arguments, **named)
        assert masks is None
        assert named["augmented"] == (loader == "torchvision")
        seen.append(images)
        return images, masks

    real = TrainStep.inputs
    monkeypatch.setattr(TrainStep, "inputs", inputs)
    for benchmark in (bench_loaders.bench_raw, bench_loaders.bench_augmented):
        entrant = benchmark(lab, loader, workers)
        assert entrant.work == 160
        if workers is not None:
            assert entrant.facts["workers"] == workers
        one_call(entrant)
    (images,) = seen
    assert images.shape == (160, 3, 32, 32)
    assert images.dtype == torch.float32


def test_a_loader_without_its_workers_is_left_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarfast.loaders.base.allowed_cores", lambda: 1)
    with pytest.raises(UserError, match="2 workers need as many CPUs, and this process may use 1"):
        bench_loaders.bench_raw(lab, "torchvision", 2)


@pytest.mark.parametrize("loader", ["resident", "torchvision"])
@pytest.mark.usefixtures("_tiny")
def test_epochs_follow_one_another(lab: Lab, monkeypatch: pytest.MonkeyPatch, loader: Any) -> None:
    monkeypatch.setattr("bench.contest.MIN_ROUND_SECONDS", 0.0)  # each call is a round
    entrant = bench_epoch.bench_epoch(lab, loader, None)
    timing = timed(entrant, rounds=2)
    run = lab.scratch / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert timing.seconds == [row["epoch_seconds"] for row in rows[1:]]
    assert entrant.facts["data_wait_percent"] == [row["data_wait_percent"] for row in rows[1:]]
    assert entrant.work == entrant.facts["train_images"] == 4
    with FileLock(run / ".lock", timeout=0):
        pass  # it is no longer locked


@pytest.mark.parametrize(
    ("precision", "layout", "mode"),
    [("fp32", "contiguous", "eager"), ("fp32", "channels-last", "compiled"), ("bf16", "channels-last", "eager")],
)
@pytest.mark.usefixtures("_tiny")
def test_steps(lab: Lab, precision: Any, layout: Any, mode: Any) -> None:
    device = variants.execution(lab, precision, layout).device
    step, cost = bench_step._build(device, 2, mode, lab.manifest.mean, lab.manifest.std)
    images, _ = step.inputs(variants.noise(device, 2), augmented=False, epoch=0, number=0)
    assert images.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert images.is_contiguous(memory_format=LAYOUTS[layout])
    assert next(step.model.parameters()).is_contiguous(memory_format=LAYOUTS[layout])
    assert (cost.seconds is None) == (mode == "eager")
    for benchmark, part, moves in (
        (bench_step.bench_forward, "forward", False),
        (bench_step.bench_forward_backward, "train", False),
        (bench_step.bench_step, "train", True),
    ):
        before = [weight.clone() for weight in step.model.parameters()]
        entrant = benchmark(lab, precision, layout, mode)
        one_call(entrant)
        assert moves != all(map(torch.equal, before, step.model.parameters()))
        assert all(weight.grad is None for weight in step.model.parameters())
        assert entrant.work == entrant.facts["batch_size"] == 2
        assert entrant.facts["flops"] == 2 * flops_per_image(Recipe())[part]
        assert entrant.facts["compile_seconds"] == cost.seconds


@pytest.mark.usefixtures("_tiny")
def test_a_step_that_does_not_compile_is_left_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*arguments: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(Device, "compile", lambda self, function: compiled)
    with pytest.raises(UserError, match="no compiler"):
        bench_step.bench_step(lab, "fp32", "channels-last", "compiled")


def test_a_quick_look_compiles_once_a_contest(lab: Lab) -> None:
    with pytest.raises(UserError, match="channels-last alone"):
        bench_step.bench_step(lab, "fp32", "contiguous", "compiled")
    for mode in ("compiled-cold", "compiled-warm"):
        with pytest.raises(UserError, match="no time for compiled starts"):
            bench_startup.bench_startup(lab, mode)


@pytest.mark.parametrize(("dropout", "masks"), [("ordinary", False), ("masks", True), ("none", False)])
@pytest.mark.usefixtures("_tiny")
def test_ways_of_dropout(lab: Lab, monkeypatch: pytest.MonkeyPatch, dropout: str, masks: bool) -> None:
    given: list[Any] = []

    def forward(self: TrainStep, images: torch.Tensor, labels: torch.Tensor, masks: Any) -> Any:
        given.append((self.recipe.dropout, masks))
        return real(self, images, labels, masks)

    real = TrainStep.forward
    monkeypatch.setattr(TrainStep, "forward", forward)
    monkeypatch.setattr("cifarfast.device.probe_bf16", lambda: 1.5)
    entrant = bench_step.bench_dropout(lab, dropout, "eager")
    assert entrant.facts["precision"] == "bf16"  # as --amp would have it
    one_call(entrant)
    one_call(entrant)
    (rate, first), (_, second) = given
    assert rate == (0.0 if dropout == "none" else 0.07)
    assert (first is not None) == (second is not None) == masks
    assert not masks or not torch.equal(first[0], second[0])


def test_a_quick_look_does_not_compile_dropout(lab: Lab) -> None:
    with pytest.raises(UserError, match="compile three times"):
        bench_step.bench_dropout(lab, "masks", "compiled")


@pytest.mark.usefixtures("_tiny")
def test_pooling(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(bench_pooling.bench_pooling(lab, "torch"))
    calls: list[tuple[int, ...]] = []

    def conv_max_pool(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append((*x.shape, *weight.shape))
        return bench_pooling.WAYS["torch"](x, weight)

    monkeypatch.setitem(bench_pooling.WAYS, "winograd", conv_max_pool)
    one_call(bench_pooling.bench_pooling(lab, "winograd"))
    assert calls == [(2, 80, 16, 16, 320, 80, 3, 3), (2, 320, 8, 8, 320, 320, 3, 3)]
    how = variants.execution(lab, "bf16")
    elsewhere = replace(how, device=replace(how.device, target=torch.device("meta")))
    monkeypatch.setattr(bench_pooling, "execution", lambda *_: elsewhere)
    with pytest.raises(UserError, match="for bf16 on a CPU"):
        bench_pooling.bench_pooling(lab, "torch")


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.usefixtures("_tiny")
def test_evaluation(lab: Lab, monkeypatch: pytest.MonkeyPatch, layout: Any) -> None:
    given: list[torch.Tensor] = []

    def forward(self: Tiny, images: torch.Tensor) -> torch.Tensor:
        given.append(images)
        return torch.zeros(len(images), 10)

    monkeypatch.setattr(Tiny, "forward", forward)
    entrant = bench_evaluate.bench_evaluate(lab, "bf16", layout, "eager")
    one_call(entrant)
    assert given[0].is_contiguous(memory_format=LAYOUTS[layout])
    assert given[0].dtype == torch.bfloat16
    assert entrant.facts["flops"] == 2 * flops_per_image(Recipe())["forward"]


def test_fp16_is_for_cuda(lab: Lab) -> None:
    with pytest.raises(UserError, match="fp16 is for CUDA, and this is measured on cpu"):
        variants.execution(lab, "fp16")


def test_emulated_bf16_is_measured_only_in_full_and_on_few_images(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "_bf16_speed", lambda: 0.06)
    with pytest.raises(UserError, match=r"0\.06 times the speed of fp32"):
        variants.execution(lab, "bf16")
    full = replace(lab, profile="full", batch_size=512)
    assert variants.execution(full, "bf16").batch_size == variants.FEW_IMAGES
    assert variants.execution(full, "fp32").batch_size == 512
    assert bench_peaks.bench_product(full, "bf16").work == 2 * bench_peaks.SMALL_SIDE**3
    monkeypatch.setattr(variants, "_bf16_speed", lambda: 0.6)
    assert variants.execution(full, "bf16").batch_size == 512


@pytest.mark.parametrize("writer", [pytest.param("ffcv", marks=needs_ffcv), "cifarfast"])
def test_conversion(lab: Lab, writer: Any) -> None:
    entrant = bench_convert.bench_convert(lab, writer)
    one_call(entrant)
    manifest = read_manifest(lab.scratch / "out")
    assert manifest.writer == writer
    assert manifest.train.images + manifest.test.images == entrant.work == 200
    assert (manifest.train.sha256, manifest.test.sha256) == (lab.manifest.train.sha256, lab.manifest.test.sha256)


@pytest.mark.usefixtures("_tiny")
def test_waiting_for_a_checkpoint_is_not_waiting_for_the_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        write_tensors(*arguments)

    monkeypatch.setattr("cifarfast.checkpoint.write_tensors", slowly)
    waiting, whole = (bench_checkpoint.bench_checkpoint(lab, part) for part in ("waiting", "whole"))
    assert one_call(waiting) < 0.5 <= one_call(whole)
    (path,) = lab.scratch.glob("*.safetensors")
    assert 0 < waiting.work == whole.work < path.stat().st_size


def test_convolutions_are_those_of_the_network(lab: Lab) -> None:
    entrant = bench_peaks.bench_convolutions(lab, "fp32")
    one_call(entrant)
    head = 2 * 512 * 10 * 3  # forward, and the gradients of weights and of activations
    assert entrant.work == 2 * (flops_per_image(Recipe())["train"] - head)


def test_copies_copy(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_peaks, "COPY_BYTES", 1 << 16)
    entrant = bench_peaks.bench_copy(lab)
    assert entrant.work == 2 << 16
    one_call(entrant)


@pytest.mark.parametrize(
    "name",
    [
        "ours-eager",
        "torchvision",
        pytest.param("ffcv", marks=needs_ffcv),
        pytest.param("airbench", marks=needs_airbench),
    ],
)
def test_augmenters_do_the_same_work(lab: Lab, name: str) -> None:
    """Each image of the result is the source, mirrored or not, moved by 0 to 4 pixels, and a hole of 8x8."""
    pixels = variants.pixels(128)  # so many that each offset is drawn
    augmenter = bench_augment.AUGMENTERS[name](lab, pixels)
    first, second = augmenter.once().clone(), augmenter.once()
    assert first.shape == (128, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=LAYOUTS[augmenter.layout])
    assert not torch.equal(first, second)  # drawn anew
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (lab.manifest.mean, lab.manifest.std))
    sources = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
    border = "reflect" if name == "airbench" else "constant"
    found = [explain(result, source, border) for result, source in zip(first, sources, strict=True)]
    flips, downs, acrosses, hole_rows, hole_columns = (set(values) for values in zip(*found, strict=True))
    assert flips == {False, True}
    assert downs == acrosses == set(range(9))
    for hole in (hole_rows, hole_columns):
        assert max(map(len, hole)) == 8
        assert len(hole) > 8


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [("airbench", "airbench", "airbench cannot be used"), ("ffcv", "ffcv.loader", "FFCV cannot be used")],
)
def test_what_is_not_installed_is_left_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "cifarfast.loaders.ffcv_loader", raising=False)
    with pytest.raises(UserError, match=message):
        bench_augment.bench_augment(lab, name)


def test_airbench_does_each_part_once_a_call(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pytest.importorskip("airbench.utils")
    calls: list[str] = []

    def counted(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            calls.append(name)
            return part(*arguments)

        return called

    for name in ("batch_flip_lr", "batch_crop", "batch_cutout"):
        monkeypatch.setattr(parts, name, counted(name, getattr(parts, name)))
    augmenter = bench_augment.AUGMENTERS["airbench"](lab, variants.pixels(2))
    for _ in range(3):
        augmenter.once()
    assert calls == 3 * ["batch_flip_lr", "batch_crop", "batch_cutout"]


def explain(result: torch.Tensor, source: torch.Tensor, border: str) -> tuple[bool, int, int, range, range]:
    """Flip, crop offsets, rows and columns of the hole with which `result` (3, 32, 32) was made of `source`."""
    for flip in (False, True):
        padded = F.pad((source.flip(2) if flip else source).unsqueeze(0), (4, 4, 4, 4), mode=border)[0]
        for down in range(9):
            for across in range(9):
                differs = ((result - padded[:, down : down + 32, across : across + 32]).abs() > CLOSE).any(0)
                rows, columns = (torch.nonzero(differs.any(side)).flatten().tolist() for side in (1, 0))
                if rows and rows[-1] - rows[0] < 8 and columns[-1] - columns[0] < 8:
                    hole = range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)
                    assert result[:, hole[0]][:, :, hole[1]].abs().max() <= CLOSE
                    return flip, down, across, *hole
    raise AssertionError("it was not made of that")
