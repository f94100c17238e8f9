"""The network of a run as a program that needs none of this package: uint8 images in, logits out."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cifarfast.augment import normalize
from cifarfast.config import SavedConfig
from cifarfast.device import open_device
from cifarfast.door import note
from cifarfast.errors import UserError
from cifarfast.files import replacing
from cifarfast.loaders.base import Batch
from cifarfast.model import Network
from cifarfast.networks import IMAGE_SHAPE
from cifarfast.runfolder import read_config, read_model
from cifarfast.runtime import Runtime
from cifarfast.scoring import open_test

NOISE_IMAGES = 64
TOLERANCE = 1e-4
"""How far apart the logits of onnxruntime and of torch may be, as a share of the largest: rounding gives millionths."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How onnxruntime was found to agree with torch."""

    images: int
    """How many images were looked at, all of which got the same class."""
    kind: str
    """`test images`, or `images of noise`."""
    difference: float
    """The largest difference between a logit of onnxruntime and one of torch."""
    largest: float
    """The largest logit, positive or negative."""


class Program(torch.nn.Module):
    """Normalisation and network: uint8 (B, 3, 32, 32) to fp32 logits (B, 10)."""

    def __init__(self, model: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the images."""
        inputs = normalize(images, self.get_buffer("mean"), self.get_buffer("std"), torch.float32)
        logits: torch.Tensor = self.model(inputs)
        return logits


def export_run(run: Path, out: Path, *, onnx: bool = False, data: Path | None = None) -> Check | None:
    """Write the network of a run as `torch.export` program, or as ONNX, for batches of any size.

    ONNX is checked before it is written: onnxruntime must say of the run's test images what torch says, or, where
    the data of the run is not at hand, of 64 images of uniform noise (seed 0).

    Args:
        run: the run folder.
        out: the file to write.
        onnx: write ONNX.
        data: where the data of the run is now; by default where it was.

    Returns:
        How the check went; None without ONNX.

    Raises:
        UserError: the run is unusable, the extra `onnx` is missing, `data` is not the run's, there is no folder for
            `out`, or onnxruntime sees another class or gives a logit that is further off than `TOLERANCE`.
    """
    config = read_config(run)
    program = Program(read_model(run), config.mean, config.std).eval()
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"cannot write {out}: name a file in a folder that exists with --out")
    content, check = io.BytesIO(), None
    if onnx:
        _require_onnx()
        with _images(config, data) as (kind, batches):
            content.write(to_onnx(program))
            check = check_onnx(content.getvalue(), program, kind, batches)
    else:
        torch.export.save(_exported(program), content)
    with replacing(out) as temporary:
        temporary.write_bytes(content.getvalue())
    return check


def to_onnx(program: Program) -> bytes:
    """The program as ONNX: input `images`, output `logits`."""
    names = {"input_names": ["images"], "output_names": ["logits"]}
    made = torch.onnx.export(_exported(program), dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    assert made is not None
    return bytes(made.model_proto.SerializeToString())


def check_onnx(content: bytes, program: Program, kind: str, batches: Iterator[Batch]) -> Check:
    """Hold what onnxruntime makes of an ONNX program against what torch makes of the one that it was made from.

    Raises:
        UserError: they do not agree.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found, expected = [], []
    for batch in batches:
        found.append(torch.from_numpy(session.run(["logits"], {"images": batch.images.numpy()})[0]))
        with torch.inference_mode():
            expected.append(program(batch.images))
    theirs, ours = torch.cat(found), torch.cat(expected)
    others = int((theirs.argmax(1) != ours.argmax(1)).sum())
    difference, largest = float((theirs - ours).abs().max()), float(ours.abs().max())
    if others or not difference <= TOLERANCE * largest:
        raise UserError(
            f"onnxruntime sees {others} of {len(ours)} {kind} as something else than torch does, and its logits are up "
            f"to {difference:.1e} off: nothing was written; try other releases of onnxruntime and torch"
        )
    return Check(images=len(ours), kind=kind, difference=difference, largest=largest)


def _require_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("--onnx needs more packages: pip install 'cifarfast[onnx]'") from None


def _exported(program: Program) -> torch.export.ExportedProgram:
    example = torch.zeros(2, *IMAGE_SHAPE, dtype=torch.uint8)
    return torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@contextmanager
def _images(config: SavedConfig, data: Path | None) -> Iterator[tuple[str, Iterator[Batch]]]:
    """What the check looks at, and what that is."""
    runtime = Runtime(device="cpu", loader="resident")
    try:
        loader, _ = open_test(config, data, runtime, open_device(runtime, note))
    except UserError as error:
        if data is not None:
            raise
        note(f"checking on noise, because the data of the run is not at hand: {error}")
        random = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (NOISE_IMAGES, *IMAGE_SHAPE), dtype=torch.uint8, generator=random)
        labels = torch.zeros(NOISE_IMAGES, dtype=torch.int64)
        yield "images of noise", iter([Batch(noise, labels, np.arange(NOISE_IMAGES))])
        return
    note(f"asking onnxruntime and torch about {loader.feed.count:,} test images")
    with loader.epoch(0) as batches:
        yield "test images", batches
