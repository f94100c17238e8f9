"""`python -m cifarfast.train`: train a recipe and leave a run folder."""

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cifarfast.checks import positive
from cifarfast.config import CHECKPOINT_MINUTES, RunConfig, run_config
from cifarfast.door import named, named_recipe, note, parse, run, without
from cifarfast.range_test import Sweep
from cifarfast.recipe import RECIPES, Recipe
from cifarfast.runfolder import read_config
from cifarfast.runtime import Runtime

if TYPE_CHECKING:
    from cifarfast.metrics import EpochRow
    from cifarfast.summary import Summary

PROG = "python -m cifarfast.train"


@dataclass(frozen=True, kw_only=True)
class Arguments(RunConfig):
    """Train a network on CIFAR-10 and leave a run folder. Flags of the recipe override it one by one.

    --max-lr auto finds the rate by a range test first.
    """

    out: Path | None = None
    """Run folder to make; by default runs/<time>-<recipe>."""
    resume: Path | None = None
    """Go on with the run in this folder, as it was begun; more --epochs make it longer."""
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    """Longest time between two checkpoints; there is one at the end of every epoch too."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder too (pip install 'cifarfast[tensorboard]')."""
    report: bool = True
    """Draw report.html at the end; --no-report leaves that to python -m cifarfast.report."""
    summary: bool = False
    """Print the network's layers, output shapes, parameters and FLOPs, and leave."""

    def __post_init__(self) -> None:
        positive("checkpoint_minutes", self.checkpoint_minutes)
        if self.out is not None and self.resume is not None:
            raise ValueError("--resume goes on in the run's own folder: leave out --out")


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """The command line; its defaults are those of the recipe that it names, or of the run that it resumes."""
    run, max_lr = named(argv, "--resume"), named(argv, "--max-lr")
    config = RunConfig(recipe=named_recipe(argv)) if run is None else run_config(read_config(Path(run)))
    if max_lr is not None:
        config = replace(config, sweep=Sweep() if max_lr == "auto" else None)
    if max_lr == "auto":
        argv = without(argv, "--max-lr")
    return parse(Arguments, prog=PROG, argv=argv, default=Arguments(**vars(config)))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, print."""
    arguments = parse_arguments(argv)
    if arguments.summary:
        _print_layers(arguments.recipe)
        return
    from cifarfast.tensorboard import TensorBoard
    from cifarfast.training import fit, resume  # imports torch, which --help does without

    config, minutes = run_config(arguments), arguments.checkpoint_minutes
    default = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{arguments.recipe.name}"
    out = arguments.resume or arguments.out or default
    with TensorBoard(out) if arguments.tensorboard else nullcontext() as board:
        on_epoch = board.epoch if board else _nothing
        if arguments.resume:
            summary = resume(out, config, checkpoint_minutes=minutes, on_epoch=on_epoch)
        else:
            summary = fit(**vars(config), out=out, checkpoint_minutes=minutes, on_epoch=on_epoch)
    _print_result(summary, arguments)
    print(f"saved {out}")
    if arguments.report:
        _draw_report(out)


def _nothing(row: "EpochRow") -> None:
    """No TensorBoard was asked for."""


def _draw_report(run: Path) -> None:
    try:
        from cifarfast.reporting.page import write_report

        print(f"see {write_report(run)}")
    except Exception as error:  # noqa: BLE001  # whatever it is, the run itself is safe on the disk
        note(f"no report was drawn ({error}): python -m cifarfast.report {run} tries again")


def _print_layers(recipe: Recipe) -> None:
    from rich.console import Console
    from rich.table import Table

    from cifarfast.model import flops_per_image, layer_table

    layers, flops = layer_table(recipe), flops_per_image(recipe)
    table = Table("layer", title="one image of 3 x 32 x 32")
    for heading in ("output", "parameters", "MFLOP forward"):
        table.add_column(heading, justify="right")
    for layer in layers:
        output = " x ".join(map(str, layer.output))
        table.add_row(layer.name, output, f"{layer.parameters:,}", f"{layer.flops / 1e6:.2f}")
    table.add_section()
    table.add_row("all", "", f"{sum(layer.parameters for layer in layers):,}", f"{flops['forward'] / 1e6:.2f}")
    console = Console()
    console.print(table)
    console.print(f"forward and backward: {flops['train'] / 1e9:.2f} GFLOP an image; a multiply-add counts as two")


def _print_result(summary: "Summary", arguments: Arguments) -> None:
    data = summary.data
    verdict = {True: "met", False: "not met", None: "not judged, for this was not the whole recipe on real CIFAR-10"}
    averaged = "" if summary.recipe.tta == "none" else f", test-time augmentation {summary.recipe.tta}"
    print(f"data: {data.kind}, {data.train_images:,} training and {data.test_images:,} test images")
    print(
        f"test accuracy {summary.test_accuracy:.2%} after epoch {summary.epochs}{averaged} "
        f"(target {summary.target_accuracy:.2%}: {verdict[summary.target_met]})"
    )
    print(f"speed {summary.images_per_second:,.0f} images/s, {summary.data_wait_percent:.1f}% of it waiting for data")
    if summary.compile_seconds is not None:
        print(f"compiled in {summary.compile_seconds.seconds:.1f} s ({summary.compile_seconds.cache} cache)")
    if summary.capture_seconds is not None:
        print(f"captured CUDA graphs in {summary.capture_seconds:.1f} s")
    known = RECIPES.get(summary.recipe.name)  # one made in Python has no command
    if known and (summary.epochs < known.epochs or not data.whole):
        print(f"the whole run, about {_whole_run_minutes(summary, known):,.0f} minutes here: {_whole_run(arguments)}")


def _whole_run_minutes(summary: "Summary", recipe: Recipe) -> float:
    """Training at this run's speed, and evaluation at this run's, for all epochs with all images that they take."""
    data, evaluation = summary.data, summary.eval_seconds
    training = recipe.hard_share * data.train_images_available / summary.images_per_second
    evaluating = (evaluation.median or evaluation.first) / data.test_images * data.test_images_available
    return recipe.epochs * (training + evaluating) / 60


def _whole_run(arguments: Arguments) -> str:
    """The command that trains the whole recipe with the same data and runtime."""
    runtime, usual = arguments.runtime, Runtime()
    flags = ["--data", str(arguments.data), "--recipe", arguments.recipe.name]
    for name in runtime.__dataclass_fields__:
        value, flag = getattr(runtime, name), name.replace("_", "-")
        if value != getattr(usual, name):
            flags += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return f"{PROG} {shlex.join(flags)}"


if __name__ == "__main__":
    run(main)
