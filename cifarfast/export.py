"""`python -m cifarfast.export`: the network of a run as a program for other tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cifarfast.door import parse, run
from cifarfast.errors import UserError

PROG = "python -m cifarfast.export"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the network of a run as torch.export program: uint8 images (B, 3, 32, 32) in, logits (B, 10) out."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, as python -m cifarfast.train printed it."""
    onnx: bool = False
    """Write ONNX instead, after checking that onnxruntime says of the test images what torch says (extra onnx)."""
    out: Path | None = None
    """File to write; by default model.pt2 or model.onnx in the run's folder."""
    data: Path | None = None
    """Where the data of the run is now, for that check; by default where it was, and noise if it is not there."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export, print."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    if arguments.data is not None and not arguments.onnx:
        raise UserError(f"--data {arguments.data} is for the check of --onnx: leave it out")
    from cifarfast.exporting import export_run  # imports torch, which --help does without

    out = arguments.out or arguments.run / ("model.onnx" if arguments.onnx else "model.pt2")
    check = export_run(arguments.run, out, onnx=arguments.onnx, data=arguments.data)
    if check is not None:
        print(
            f"the same classes as torch for {check.images:,} {check.kind}, "
            f"logits (up to {check.largest:.3g}) within {check.difference:.1e}"
        )
    print(f"saved {out}")


if __name__ == "__main__":
    run(main)
