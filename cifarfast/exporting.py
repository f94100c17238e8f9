"""The network of a run as a program that needs none of this package: uint8 images in, logits out."""

import io
from pathlib import Path

import torch

from cifarfast.augment import normalize
from cifarfast.errors import UserError
from cifarfast.files import replacing
from cifarfast.model import IMAGE_SHAPE, ResNet
from cifarfast.runfolder import read_config, read_model

CHECKED_IMAGES = 64


class Program(torch.nn.Module):
    """Normalisation and network: uint8 (B, 3, 32, 32) to fp32 logits (B, 10)."""

    def __init__(self, model: ResNet, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the images."""
        logits: torch.Tensor = self.model(
            normalize(images, self.get_buffer("mean"), self.get_buffer("std"), torch.float32)
        )
        return logits


def export_run(run: Path, out: Path, *, onnx: bool) -> float | None:
    """Write the network of a run as `torch.export` program (or ONNX), for batches of any size.

    Returns:
        The largest difference between the logits of onnxruntime and of torch on 64 images of uniform noise (seed 0);
        None without ONNX.

    Raises:
        UserError: the run is unusable, the extra `onnx` is missing, or onnxruntime sees another class.
    """
    config = read_config(run)
    program = Program(read_model(run), config.mean, config.std).eval()
    example = torch.zeros(2, *IMAGE_SHAPE, dtype=torch.uint8)
    exported = torch.export.export(program, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    content, difference = io.BytesIO(), None
    if onnx:
        content.write(_onnx(exported))
        difference = _check(content.getvalue(), program)
    else:
        torch.export.save(exported, content)
    with replacing(out) as temporary:
        temporary.write_bytes(content.getvalue())
    return difference


def _onnx(exported: torch.export.ExportedProgram) -> bytes:
    try:
        import onnxruntime  # noqa: F401 (before the work, not after it)
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("--onnx needs more packages: pip install 'cifarfast[onnx]'") from None
    names = {"input_names": ["images"], "output_names": ["logits"]}
    made = torch.onnx.export(exported, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    assert made is not None
    return bytes(made.model_proto.SerializeToString())


def _check(content: bytes, program: Program) -> float:
    import onnxruntime

    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CHECKED_IMAGES, *IMAGE_SHAPE), dtype=torch.uint8, generator=random)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        expected = program(images)
    if not torch.equal(found.argmax(1), expected.argmax(1)):
        raise UserError("onnxruntime sees other classes than torch does: nothing was written; try other releases")
    return float((found - expected).abs().max())
