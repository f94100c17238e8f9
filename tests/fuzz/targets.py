"""Every file that is read and that somebody else may have written or damaged: how to make one, how it is read."""

import gzip
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from bench.records import BenchFile, possible, read_bench
from cifarfast.checkpoint import Checkpoints, Progress, restore
from cifarfast.dataset.beton import Beton, read_beton
from cifarfast.dataset.manifest import check_folder
from cifarfast.errors import UserError
from cifarfast.files import write_json
from cifarfast.image_files import read_image
from cifarfast.networks.resnet import ResNet
from cifarfast.predictions import PREDICTIONS_NAME, read_predictions, write_predictions
from cifarfast.range_record import RANGE_NAME, read_range
from cifarfast.records import sealed
from cifarfast.runfolder import Diverged, RunFolder, read_diverged, read_model, read_run
from cifarfast.step import TrainStep
from cifarfast.studying.peers import peer_file, read_peers, write_peer
from cifarfast.tensorfile import read_tensors, write_tensors
from data_prep.sources import open_source
from data_prep.sources.base import Dataset
from data_prep.sources.records import BATCHES, TEST_BATCH
from tests.bench.made import entry, write_bench
from tests.data_prep.conftest import binary_files, python_files, write_archive, write_images, write_tree
from tests.dataset.test_beton import PIXELS, SIZE, TABLE, Parts
from tests.dataset.test_manifest import write_folder
from tests.reporting.conftest import range_record
from tests.studying.made import made_peer
from tests.test_runfolder import CONFIG, row
from tests.test_summary import EFFECTIVE, summary

RECORDS = {
    batch: np.random.default_rng([7, number]).integers(0, 10, (2, 3073), dtype=np.uint8)
    for number, batch in enumerate(BATCHES)
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One file in a folder, and a reader of the folder."""

    name: str
    write: Callable[[Path], Path]
    """Makes the folder; returns the file to be damaged."""
    read: Callable[[Path], Any]
    """What the project makes of the folder, in a form that can be compared; raises UserError."""
    kept: Callable[[Any, Any], bool] = operator.eq
    """Whether what was read of the undamaged and of the damaged file keeps the promise: that they are equal."""
    unpack: Callable[[bytes], bytes] = bytes
    """The part of the file that is damaged."""
    pack: Callable[[bytes, bytes], bytes] = lambda _, part: part
    """The file with that part replaced."""
    places: Callable[[bytes], Sequence[range]] = lambda part: [range(min(300, len(part))), _last(300, part)]
    """Where the format keeps what it lives by."""
    is_json: bool = False
    """Whether that part is JSON or JSON lines."""
    weight: float = 1.0
    """Its share of all damage: less where reading takes long."""
    detected: float = 0.9
    """The least share of damage that must be noticed: all but what changes nothing, and what nobody can see."""


def _last(size: int, part: bytes) -> range:
    return range(max(0, len(part) - size), len(part))


# Converted folders. A digest guards the pixels; without it a reader vouches only for what an image set must be.


def _write_beton(folder: Path) -> Path:
    return Parts().write(folder / "train.beton")


def _read_beton(folder: Path) -> tuple[Any, ...]:
    return _facts(read_beton(folder / "train.beton"))


def _write_converted(folder: Path) -> Path:
    images = {split: Parts().write(folder / f"{split}.beton").read_bytes() for split in ("train", "test")}
    write_folder(folder, images)
    return folder / "train.beton"


def _read_converted(folder: Path) -> tuple[Any, ...]:
    manifest = check_folder(folder, full=True)
    return manifest, *_facts(read_beton(folder / manifest.train.file))


def _facts(data: Beton) -> tuple[tuple[int, ...], str, bytes, list[int]]:
    return data.images.shape, str(data.images.dtype), data.images.tobytes(), data.labels.tolist()


def _well_formed(good: tuple[Any, ...], found: tuple[Any, ...]) -> bool:
    return bool(found[:2] == good[:2] and all(0 <= label <= 9 for label in found[3]))


def _beton_places(part: bytes) -> list[range]:
    return [range(24), range(PIXELS - 7 * 32, PIXELS), range(TABLE, SIZE)]


# Batches. The official digests guard them; what does not have these is called not official, whatever it holds.


def _write_batches(files: dict[str, bytes], damaged: str) -> Callable[[Path], Path]:
    return lambda folder: write_tree(folder / "source", files) / damaged


def _write_archive(files: dict[str, bytes]) -> Callable[[Path], Path]:
    return lambda folder: write_archive(folder / "source", files)


def _read_source(folder: Path) -> Dataset:
    return open_source(str(folder / "source"), cache=folder, any_count=True).load()


def _plain(data: Dataset) -> tuple[Any, ...]:
    return data.kind, data.class_names, data.official, *_facts(data.train), *_facts(data.test)


def _official(good: Dataset, found: Dataset) -> bool:
    if found.official:
        return _plain(found) == _plain(good)
    same = (found.kind, found.class_names) == (good.kind, good.class_names)
    return same and all(_is_image_set(data) for data in (found.train, found.test))


def _is_image_set(data: Beton) -> bool:
    shape = (len(data.labels), 32, 32, 3)
    return data.images.shape == shape and data.images.dtype == np.uint8 and set(data.labels) <= set(range(10))


def _tar_places(part: bytes) -> list[range]:
    header = range(512)
    return [range(100), range(124, 136), range(148, 157), header]


# Image trees. A PNG carries checksums; of a JPEG, only what it says about itself can be held against it.


def _write_tree(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_images(folder / "source", per_class=1)
        path = folder / "source" / "train" / "cat" / f"0{suffix}"
        with Image.open(path.with_suffix(".png")) as image:
            image.load()
        path.with_suffix(".png").unlink()
        image.save(path)
        return path

    return write


def _same_tree(good: Dataset, found: Dataset) -> bool:
    return _plain(found) == _plain(good)


def _one_image_at_most(good: Dataset, found: Dataset) -> bool:
    others = [image for image in range(10) if image != good.class_names.index("cat")]
    same = np.array_equal(found.train.images[others], good.train.images[others])
    labels = np.array_equal(found.train.labels, good.train.labels)
    return same and labels and _is_image_set(found.train) and _facts(found.test) == _facts(good.test)


# Pictures to be named. Little can be held against one: what comes out has the right shape, or nothing does.


def _write_picture(suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pixels = np.random.default_rng(7).integers(0, 256, (40, 52, 3), dtype=np.uint8)
        path = folder / f"cat{suffix}"
        Image.fromarray(pixels).save(path)
        return path

    return write


def _read_picture(suffix: str) -> Callable[[Path], Any]:
    return lambda folder: read_image(folder / f"cat{suffix}")


def _is_picture(_: Any, found: Any) -> bool:
    return bool(found.shape == (32, 32, 3) and found.dtype == np.uint8)


# Run folders.

ROWS = [row(epoch) for epoch in (1, 2, 3)]


def _write_run(damaged: str, *, finished: bool = True) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with RunFolder(folder / "run") as run:
            run.write_config(CONFIG)
            for done in ROWS:
                run.append(done)
            if finished:
                run.write_summary(summary(ROWS))
        return folder / "run" / damaged

    return write


def _read_run(folder: Path) -> dict[str, Any]:
    return asdict(read_run(folder / "run"))


def _rows_from_the_first_on(good: dict[str, Any], found: dict[str, Any]) -> bool:
    rows = found["rows"]
    return bool(rows == good["rows"][: len(rows)] and {**found, "rows": None} == {**good, "rows": None})


def _write_diverged(folder: Path) -> Path:
    with RunFolder(folder / "run") as run:
        run.write_diverged(Diverged(epochs=3, reason="training diverged at step 12"))
    return folder / "run" / "diverged.json"


def _write_range(folder: Path) -> Path:
    write_json(folder / RANGE_NAME, sealed(range_record()))
    return folder / RANGE_NAME


def _write_peer(folder: Path) -> Path:
    run = made_peer(3)
    write_peer(folder, run)
    return peer_file(folder, run.name, run.seed)


# Tensors.


def _write_tensors(folder: Path) -> Path:
    tensors = {
        "weight": torch.arange(24.0).reshape(4, 6),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.empty(0, 5),
    }
    write_tensors(folder / "some.safetensors", tensors, {"state": json.dumps({"epoch": 3})})
    return folder / "some.safetensors"


def _read_tensors(folder: Path) -> Any:
    tensors, facts = read_tensors(folder / "some.safetensors", max_bytes=1 << 20, hint="take another")
    return _bits(tensors), facts


def _bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        name: (str(tensor.dtype), list(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


def _write_predictions(folder: Path) -> Path:
    write_predictions(folder, torch.arange(30.0).reshape(3, 10), torch.tensor([3, 0, 9]), epoch=2)
    return folder / PREDICTIONS_NAME


def _read_predictions(folder: Path) -> Any:
    if (found := read_predictions(folder)) is None:
        return None
    return found.logits.tobytes(), found.labels.tolist(), found.epoch


class _Step:
    """As much of a training step as a checkpoint needs."""

    scaler = torch.amp.GradScaler("cpu", enabled=False)
    model = torch.nn.Identity()

    def __init__(self, value: float = 0.0) -> None:
        self._tensors = {"weight": torch.full((4, 6), value)}

    def tensors(self) -> dict[str, torch.Tensor]:
        return self._tensors

    def load(self, tensors: dict[str, torch.Tensor], scaler: dict[str, float]) -> None:
        if tensors.keys() != self._tensors.keys() or scaler:
            raise ValueError("other tensors")
        self._tensors = tensors


def _write_checkpoints(folder: Path) -> Path:
    with Checkpoints(folder / "checkpoints", EFFECTIVE, minutes=10) as checkpoints:
        for epoch in (1, 2):
            progress = Progress(epoch=epoch, rows=ROWS[:epoch], seconds={"train": 1.5})
            checkpoints.write(cast(TrainStep, _Step(epoch)), progress, steps=4 * epoch)
    return folder / "checkpoints" / "step-00000008.safetensors"


def _read_checkpoints(folder: Path) -> Any:
    """The last checkpoint, or an error after the one before has been taken in its place."""
    notes: list[str] = []
    step = _Step()
    found = restore(folder / "checkpoints", cast(TrainStep, step), notes.append, steps_per_epoch=4)
    assert found is not None
    path, state = found
    weights = set(step.tensors()["weight"].flatten().tolist())
    assert (path.name, weights) == (f"step-{4 * state.progress.epoch:08d}.safetensors", {state.progress.epoch})
    if notes:
        assert (len(notes), state.progress.epoch, state.progress.rows) == (1, 1, ROWS[:1])
        raise UserError(notes[0])
    return state


def _header_end(raw: bytes) -> int:
    return 8 + int.from_bytes(raw[:8], "little")


def _header(raw: bytes) -> bytes:
    return raw[8 : _header_end(raw)]


def _with_header(raw: bytes, header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + raw[_header_end(raw) :]


def _write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    with RunFolder(folder / "run") as run:
        run.write_config(CONFIG)
        run.write_model(ResNet())
    return folder / "run" / "model.safetensors"


def _read_model(folder: Path) -> Any:
    return _bits(read_model(folder / "run").state_dict())


# Benchmarks. pytest-benchmark writes them, without a checksum: a reader vouches only for figures that there can be.


def _write_benchmarks(folder: Path) -> Path:
    entries = [entry("step", name, 50.0, flops=10) for name in ("eager", "compiled")]
    return write_bench(folder / "bench.json", entries)


def _read_benchmarks(folder: Path) -> BenchFile:
    return read_bench(folder / "bench.json")


def _can_be(_: BenchFile, found: BenchFile) -> bool:
    return all(map(possible, (figure for each in found.measured for figure in (each.extra.work, *each.seconds))))


_BINARY, _PYTHON = binary_files(RECORDS), python_files(RECORDS)

TARGETS = (
    Target(name="beton", write=_write_beton, read=_read_beton, kept=_well_formed, places=_beton_places, detected=0.5),
    Target(name="converted beton", write=_write_converted, read=_read_converted, places=_beton_places, detected=1.0),
    Target(
        name="manifest",
        write=lambda folder: _write_converted(folder).with_name("manifest.json"),
        read=_read_converted,
        is_json=True,
    ),
    Target(name="binary archive", write=_write_archive(_BINARY), read=_read_source, kept=_official),
    Target(name="python archive", write=_write_archive(_PYTHON), read=_read_source, kept=_official),
    Target(
        name="archive, damaged before gzip",
        write=_write_archive(_PYTHON),
        read=_read_source,
        kept=_official,
        unpack=gzip.decompress,
        pack=lambda _, tar: gzip.compress(tar, 1),
        places=_tar_places,
        detected=0.3,
    ),
    Target(
        name="binary batch",
        write=_write_batches(_BINARY, f"cifar-10-batches-bin/{TEST_BATCH}.bin"),
        read=_read_source,
        kept=_official,
        places=lambda part: [range(1), range(3073, 3074)],
        detected=0.3,
    ),
    Target(
        name="python batch",
        write=_write_batches(_PYTHON, f"cifar-10-batches-py/{TEST_BATCH}"),
        read=_read_source,
        kept=_official,
        detected=0.5,
    ),
    Target(
        name="binary class names",
        write=_write_batches(_BINARY, "cifar-10-batches-bin/batches.meta.txt"),
        read=_read_source,
        kept=_official,
    ),
    Target(
        name="python class names",
        write=_write_batches(_PYTHON, "cifar-10-batches-py/batches.meta"),
        read=_read_source,
        kept=_official,
        detected=0.8,
    ),
    Target(
        name="png",
        write=_write_tree(".png"),
        read=_read_source,
        kept=_same_tree,
        places=lambda part: [range(64), _last(40, part)],
    ),
    Target(name="jpeg", write=_write_tree(".jpg"), read=_read_source, kept=_one_image_at_most, detected=0.1),
    *(
        Target(
            name=f"picture{suffix}",
            write=_write_picture(suffix),
            read=_read_picture(suffix),
            kept=_is_picture,
            detected=detected,
        )
        for suffix, detected in ((".jpg", 0.1), (".tif", 0.1), (".png", 0.5))
    ),
    Target(name="config.json", write=_write_run("config.json"), read=_read_run, is_json=True),
    Target(name="metrics.jsonl", write=_write_run("metrics.jsonl"), read=_read_run, is_json=True),
    Target(
        name="metrics.jsonl of an unfinished run",
        write=_write_run("metrics.jsonl", finished=False),
        read=_read_run,
        kept=_rows_from_the_first_on,
        is_json=True,
        detected=0.8,
    ),
    Target(name="summary.json", write=_write_run("summary.json"), read=_read_run, is_json=True),
    Target(
        name="diverged.json", write=_write_diverged, read=lambda folder: read_diverged(folder / "run"), is_json=True
    ),
    Target(
        name="lr_range.json",
        write=_write_range,
        read=lambda folder: read_range(folder, hint="take another"),
        is_json=True,
    ),
    Target(
        name="run of another program",
        write=_write_peer,
        read=lambda folder: read_peers(folder, data=None),
        is_json=True,
    ),
    Target(
        name="tensors",
        write=_write_tensors,
        read=_read_tensors,
        places=lambda raw: [range(8), range(8, _header_end(raw))],
    ),
    Target(
        name="tensors, header",
        write=_write_tensors,
        read=_read_tensors,
        unpack=_header,
        pack=_with_header,
        is_json=True,
    ),
    Target(name="checkpoint", write=_write_checkpoints, read=_read_checkpoints),
    Target(name="predictions", write=_write_predictions, read=_read_predictions),
    Target(
        name="benchmarks",
        write=_write_benchmarks,
        read=_read_benchmarks,
        kept=_can_be,
        is_json=True,
        detected=0.7,
    ),
    Target(name="model.safetensors", write=_write_model, read=_read_model, weight=0.1),
)
