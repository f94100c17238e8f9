"""Other programs, moved to the device at hand: their own code, recipe and clock, on our copy of the data.

cifar10-airbench (K. Jordan, arXiv:2404.00498) wants a CUDA GPU, fp16 weights and a download. On another device its
weights are fp32 and its arithmetic is autocast, as in our runs: bf16 weights would round most of its steps away.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

from cifarfast.config import RunConfig
from cifarfast.dataset.beton import read_beton
from cifarfast.dataset.manifest import unchanged
from cifarfast.device import Device
from cifarfast.errors import UserError
from cifarfast.setup import Site, open_site
from cifarfast.studying.peers import PeerEpoch, PeerRun
from cifarfast.summary import Effective, data_of


def airbench94_alone(config: RunConfig, *, seed: int, lend_memory: bool = False, **options: Any) -> PeerRun:
    """`airbench94` in a process of its own, so that nothing of ours but what is lent makes it faster or slower.

    Args:
        config: its data and runtime.
        seed: as in `airbench94`.
        lend_memory: whether it takes our settings of memory (`cifarfast.heap`), which it does not have by itself.
        options: as in `airbench94`.

    Raises:
        UserError: as in `airbench94`, or the process ended without a word.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(sender, config, seed, lend_memory, options))
    process.start()
    sender.close()
    try:
        found: PeerRun | UserError = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"airbench's process ended with exit code {process.exitcode} and no result") from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
    if isinstance(found, UserError):
        raise found
    return found


def _alone(sender: Connection, config: RunConfig, seed: int, lend_memory: bool, options: Mapping[str, Any]) -> None:
    # Ctrl-C reaches both processes, and ours then ends this one, which so leaves no files and says nothing of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    try:
        run = airbench94(open_site(config, keep_memory=lend_memory), seed=seed, verified=config.verify, **options)
        sender.send(replace(run, name=peer_name(lend_memory=lend_memory)))
    except UserError as error:
        sender.send(error)


def _leave(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a group of processes that is ended asks each twice
    sys.exit()


def airbench94(
    site: Site, *, seed: int, verified: bool, epochs: float | None = None, batch_size: int | None = None
) -> PeerRun:
    """Train with `airbench.train94`: 9.9 epochs of its own recipe, for 94 % on average.

    Its clock holds the whitening of the first layer, training, and evaluation with its test-time augmentation; neither
    evaluations in between, nor reading the data, nor the step on which it warms up. For a device that is not CUDA its
    network, timers and loaders are replaced, while it runs, by ones that do the same there.

    Args:
        site: data and device.
        seed: of torch, whose generators are left as they were.
        verified: whether the data was held against its digests, for the record.
        epochs, batch_size: its own where None.

    Raises:
        UserError: airbench is not installed, or the data has other sizes than it can take.
    """
    airbench = imported()
    recipe, device = airbench.lib_airbench94.hyp, site.device
    options = {} if epochs is None else {"epochs": epochs}
    rows: list[Mapping[str, Any]] = []
    with TemporaryDirectory(prefix="airbench-") as folder, _quiet(), torch.random.fork_rng():
        _write_data(site, Path(folder))
        torch.manual_seed(seed)
        with _moved(airbench, device, Path(folder), rows.append) as (load, make_net):
            size = batch_size or recipe["opt"]["batch_size"]
            if size > site.manifest.train.images:
                raise UserError(f"{site.data} has fewer training images than the {size} of airbench's batch")
            train_loader = load("", train=True, batch_size=size, aug=recipe["aug"], altflip=True)
            for run in ("warmup", 1):
                rows.clear()
                airbench.train94(train_loader, make_net=make_net, run=run, **options)
    return PeerRun(
        name=peer_name(),
        seed=seed,
        data=data_of(
            site.manifest,
            train_images=site.manifest.train.images,
            test_images=site.manifest.test.images,
            verified=verified,
        ),
        fingerprint=site.fingerprint,
        effective=_effective(device),
        rows=_epochs(rows),
        clock_seconds=rows[-1]["total_time_seconds"],
    )


def peer_name(*, lend_memory: bool = False) -> str:
    """What its runs are called: program and version, and what it was lent."""
    return f"airbench94-{version('airbench')}{'+our-memory-settings' if lend_memory else ''}"


def imported() -> ModuleType:
    """airbench, without what it does to torch's settings.

    Raises:
        UserError: it is not installed.
    """
    with _quiet():
        try:
            import airbench
        except ImportError as error:
            raise UserError(f"airbench cannot be used ({error}): pip install 'cifarfast[bench]'") from None
    module: ModuleType = airbench
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Importing it lets cuDNN choose its algorithms by time, for everything in this process."""
    before = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _write_data(site: Site, folder: Path) -> None:
    """The files that it would make of a download."""
    with unchanged(site.data, site.manifest):
        for name in ("train", "test"):
            images, labels = read_beton(site.data / site.manifest.split(name).file)
            content = {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels), "classes": []}
            torch.save(content, folder / f"{name}.pt")


@contextmanager
def _moved(
    airbench: ModuleType, device: Device, folder: Path, told: Callable[[Mapping[str, Any]], None]
) -> Iterator[tuple[Callable[..., Any], Callable[[], nn.Module]]]:
    """airbench on a device: how loader and network are made, while all that it looks up itself is replaced to fit."""
    on_cuda, original = device.target.type == "cuda", airbench.utils.CifarLoader

    def load(path: str, **options: Any) -> Any:
        loader = original(folder, gpu=str(device.target), **options)  # whatever the path
        if not on_cuda:
            loader.images = loader.images.to(device.compute_dtype)
        return loader

    def make_net() -> nn.Module:
        net: nn.Sequential = airbench.lib_airbench94.make_net94()
        return net if on_cuda else device.place(_Autocast(device, net))

    def tell(variables: Mapping[str, Any], **_: Any) -> None:
        told(dict(variables))

    with ExitStack() as stack:
        put = mock.patch.object
        replacements: list[AbstractContextManager[Any]] = [
            put(airbench.utils, "CifarLoader", load),
            put(airbench.utils, "print_training_details", tell),
        ]
        if not on_cuda:
            replacements += [
                put(nn.Module, "cuda", lambda module: module),
                put(torch.cuda, "Event", partial(_Timer, device)),
                put(torch.cuda, "synchronize", device.synchronize),
            ]
        for replacement in replacements:
            stack.enter_context(replacement)
        yield load, make_net


class _Autocast(nn.Sequential):
    """Its layers in fp32, computed in the precision of a device; fp32 logits."""

    def __init__(self, device: Device, layers: nn.Sequential) -> None:
        super().__init__(*layers)
        self.float()
        self._device = device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, 32, 32) to (B, 10)."""
        with self._device.autocast():
            logits: torch.Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits.float()


class _Timer:
    """`torch.cuda.Event` for other devices."""

    def __init__(self, device: Device, *, enable_timing: bool) -> None:
        self._device, self.seconds = device, 0.0

    def record(self) -> None:
        """Now."""
        self._device.synchronize()
        self.seconds = time.perf_counter()

    def elapsed_time(self, other: "_Timer") -> float:
        """Milliseconds from here to there."""
        return 1e3 * (other.seconds - self.seconds)


def _epochs(rows: list[Mapping[str, Any]]) -> list[PeerEpoch]:
    """What it told at the end of each epoch; the last one takes the accuracy of the final evaluation."""
    *epochs, final = rows
    found: list[PeerEpoch] = []
    before = 0.0
    for row in epochs:
        seconds = row["total_time_seconds"]
        accuracy = final["tta_val_acc"] if row is epochs[-1] else row["val_acc"]
        found.append(PeerEpoch(epoch=len(found) + 1, epoch_seconds=seconds - before, test_accuracy=accuracy))
        before = seconds
    return found


def _effective(device: Device) -> Effective:
    return Effective(
        device=device.target.type,
        compile=False,
        precision="fp16" if device.target.type == "cuda" else device.amp_dtype or "fp32",
        channels_last=True,
        loader="airbench",
        workers=0,
        threads=torch.get_num_threads(),
        tf32=device.tf32,
        cudnn_benchmark=device.cudnn_benchmark,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
