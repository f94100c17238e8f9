"""`python -m bench.compare`: what a change made faster, what slower, and what it cost in accuracy."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cifarfast.checks import below
from cifarfast.door import parse, print_columns, run
from cifarfast.errors import UserError, one_line

if TYPE_CHECKING:
    from bench.file_comparison import Benchmark, FileComparison
    from bench.run_comparison import RunComparison, RunSet
    from cifarfast.accuracy import Interval

PROG = "python -m bench.compare"
EXIT_REGRESSION = 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare B with A: two files of pytest bench --benchmark-json, or two run folders (or folders of run folders).

    Within a file the variants were interleaved; two files, or two sets of runs, were not interleaved with one
    another, so that the machine may have drifted in between. That is why a difference counts only where it is
    beyond a minimum effect. Measurements on different machines, versions or data are refused, files of different
    profiles or batch sizes too; what recipes of runs differ in is listed.
    """

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The earlier file, run folder or folder of run folders."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The later one, of the same kind."""
    minimum_effect: float = 3.0
    """Percent of the time that the machine may drift by: what is called faster or slower is so by more than that."""
    margin: float = 0.25
    """Points of test accuracy that a set of runs may lose and still be called not inferior."""
    force: bool = False
    """Compare what is not comparable, and mark the result."""
    fail_on_regression: bool = False
    """Leave with exit code 1 if anything is slower, or the accuracy inferior."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        below("minimum_effect", self.minimum_effect, 100.0)
        below("margin", self.margin, 100.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, compare, print; exit code 1 on a regression, if that was asked for."""
    arguments = parse(Arguments, prog=PROG, argv=argv)
    found = _compare(arguments)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2, allow_nan=False, default=str))
    else:
        _print(found)
    if arguments.fail_on_regression and found.regressed:
        sys.exit(EXIT_REGRESSION)


def _compare(arguments: Arguments) -> "FileComparison | RunComparison":
    from bench.file_comparison import compare_files  # imports numpy, as the other does
    from bench.run_comparison import compare_runs

    before, after = arguments.before, arguments.after
    for path in (before, after):
        if not path.exists():
            raise UserError(f"{path} does not exist: name a file of pytest bench, a run folder or a folder of runs")
    minimum_effect = arguments.minimum_effect / 100
    if before.is_dir() != after.is_dir():
        raise UserError(f"only one of {before} and {after} is a folder: name two files, or two folders of runs")
    if before.is_dir():
        margin = arguments.margin
        return compare_runs(before, after, minimum_effect=minimum_effect, margin=margin, force=arguments.force)
    return compare_files(before, after, minimum_effect=minimum_effect, force=arguments.force)


def _print(found: "FileComparison | RunComparison") -> None:
    from bench.file_comparison import FileComparison

    if found.forced:
        print(one_line(f"FORCED, these are not comparable: they differ in {', '.join(found.forced)}"))
    if isinstance(found, FileComparison):
        _print_files(found)
    else:
        _print_runs(found)


def _print_files(found: "FileComparison") -> None:
    for name, origin in (("A", found.before), ("B", found.after)):
        commit = f"commit {origin.git_commit or 'unknown'}" + (", changed" if origin.git_dirty else "")
        print(one_line(f"{name}: {origin.path}, measured {origin.date}, {commit}"))
    print()
    heading = ("benchmark", "rounds", "B times as fast as A", "p", "test", "verdict")
    print_columns([heading, *map(_row, found.benchmarks)])
    for only in found.unmatched:
        reason = f": {only.reason}" if only.reason else ""
        print(one_line(f"{only.group} {only.name}: only in {'A' if only.only == 'before' else 'B'}{reason}"))
    effect, level, number = 100 * found.minimum_effect, found.level, len(found.benchmarks)
    print(f"\nRatios of medians, with 95 % intervals. Faster and slower mean: by more than {effect:.3g} % of the time,")
    print(f"with p below {level:g}, corrected for {number} benchmarks (Holm), in a test of ranks, or in Welch's t-test")
    print("on the logarithms where the rounds are too few for ranks. A single round cannot be tested.")


def _print_runs(found: "RunComparison") -> None:
    from bench.statistics import ENOUGH

    heading = ("", "runs", "test accuracy", "seconds of an epoch", "folder")
    print_columns([heading, _set("A", found.before), _set("B", found.after)])
    for change in found.changes:
        print(one_line(f"differs: {change}"))
    accuracy, speed = found.accuracy, found.speed
    text = f"{accuracy.points:+.2f} points"
    if accuracy.interval is not None:
        text += f" ({accuracy.interval.low:+.2f} to {accuracy.interval.high:+.2f})"
    print(f"\naccuracy, B less A: {text}; {found.margin:g} may be lost: {accuracy.verdict}")
    print(f"epochs: B is {_interval(speed.ratio)} times as fast, p {speed.p:.2g}: {speed.verdict}")
    if (few := min(found.before.runs, found.after.runs)) < ENOUGH:
        print(f"A run is one round, and with {few} of them the interval of the epochs is too narrow, or none.")
    print(f"in short: {found.in_short}")


def _row(each: "Benchmark") -> tuple[str, ...]:
    speed, rounds = each.speed, f"{each.before.n}, {each.after.n}"
    verdict = speed.verdict + (", noisy" if each.noisy else "")
    return f"{each.group} {each.name}", rounds, _interval(speed.ratio), f"{speed.p:.2g}", speed.test, verdict


def _set(name: str, runs: "RunSet") -> tuple[str, ...]:
    spread = "" if runs.accuracy_std is None else f" (std {runs.accuracy_std:.2f})"
    seconds = runs.epoch_seconds
    epochs = f"{seconds.median:.4g} ({seconds.low:.4g} to {seconds.high:.4g})"
    return name, str(runs.runs), f"{runs.accuracy:.2f} %{spread}", epochs, str(runs.path)


def _interval(interval: "Interval") -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


if __name__ == "__main__":
    run(main)
