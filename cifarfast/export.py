"""`python -m cifarfast.export`: the network of a run as a program for other tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cifarfast.door import parse, run

PROG = "python -m cifarfast.export"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the network of a run as torch.export program: uint8 images (B, 3, 32, 32) in, logits (B, 10) out."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as python -m cifarfast.train printed it."""
    onnx: bool = False
    """Write ONNX instead, checked on noise against onnxruntime (needs the extra onnx)."""
    out: Path | None = None
    """File to write; by default model.pt2 or model.onnx in the run's folder."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export, print."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    from cifarfast.exporting import CHECKED_IMAGES, export_run  # imports torch, which --help does without

    out = arguments.out or arguments.run / ("model.onnx" if arguments.onnx else "model.pt2")
    difference = export_run(arguments.run, out, onnx=arguments.onnx)
    if difference is not None:
        print(f"same classes as torch on {CHECKED_IMAGES} images of noise, logits within {difference:.1e}")
    print(f"saved {out}")


if __name__ == "__main__":
    run(main)
