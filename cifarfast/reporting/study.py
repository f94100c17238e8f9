"""The page of a study."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from cifarfast.comparable import flat
from cifarfast.errors import UserError
from cifarfast.reporting.plots import CYCLE, label_ends
from cifarfast.reporting.style import MUTED, Plot, Sheet, styled
from cifarfast.reporting.writing import letters, render, write
from cifarfast.studying import words
from cifarfast.studying.figures import Entrant, Figures, MachineKey, figures_of, machine_key, machines_of, write_figures
from cifarfast.studying.peers import PeerRun, beside, read_peers
from cifarfast.studying.runs import StudyRun, read_runs
from cifarfast.summary import Epoch, Summary

PAGE_NAME = "study.html"

Curve = tuple[list[float], list[float]]


def write_study(out: Path, *, first: Sequence[str] = (), margin: float) -> tuple[Figures, Path]:
    """Write study.json and study.html of the runs in a study's folder, and the page's plots into `plots` there.

    The same runs give the same bytes.

    Args:
        out: the study's folder.
        first: recipes to begin with, as in `read_runs`.
        margin: points of accuracy that may be lost.

    Returns:
        The figures, and the page.

    Raises:
        UserError: the folder holds no run, or one (of another program, too) that is damaged or not comparable with the
            others.
        OSError: a file cannot be written.
    """
    runs = read_runs(out, first=first)
    if not runs:
        raise UserError(f"{out} holds no run of a study: name the folder that python -m cifarfast.study was given")
    peers = read_peers(out, data=next((run.run.summary.data for run in runs if run.run.summary), None))
    figures, names = figures_of(runs, margin=margin, peers=peers), machines_of(runs, peers)
    write_figures(out, figures)
    with styled():
        plots = _draw(figures, runs, peers, names)
    page = out / PAGE_NAME
    write(page, render("study.html.j2", _context(out, figures, runs, plots, names)), [plot for plot, _ in plots], {})
    return figures, page


def _draw(
    figures: Figures, runs: Sequence[StudyRun], peers: Sequence[PeerRun], names: Mapping[MachineKey, str]
) -> list[tuple[Plot, str]]:
    """A plot for every machine, for seconds are of one machine, and what machine that is.

    Other programs are in the plots of their machine and precision, though they were executed in ways of their own.
    """
    places: dict[MachineKey, list[tuple[StudyRun, Summary]]] = {}
    for run in runs:
        if (summary := run.run.summary) is not None:
            key = machine_key(summary.fingerprint, summary.runtime.effective)
            places.setdefault(key, []).append((run, summary))
    plots = []
    for number, (key, there) in enumerate(places.items(), 1):
        curves: dict[str, list[Curve]] = defaultdict(list)
        for run, _ in there:
            curves[run.recipe].append(_curve(run.run.rows))
        summary = there[0][1]
        for peer in peers:
            if beside(peer, summary):
                curves[peer.name].append(_curve(peer.rows))
        place = names[key]
        plots.append((_curves(f"accuracy_{number}", figures, curves, place), place))
    return plots


def _keys(figures: Figures) -> dict[str, str]:
    """The letter that stands for each recipe and each other program."""
    entrants: Sequence[Entrant] = [*figures.recipes, *figures.peers]
    return {entrant.name: letter for letter, entrant in zip(letters(), entrants, strict=False)}


def _curves(name: str, figures: Figures, curves_of: Mapping[str, Sequence[Curve]], place: str) -> Plot:
    """Test accuracy against training seconds on one machine: a thin line a run, the median of their kind bold."""
    sheet = Sheet(name, height=300)
    axes = sheet.axes
    axes.set_title("Test accuracy by seconds of training, %")
    targets = sorted({100 * recipe.recipe.target_accuracy for recipe in figures.recipes})
    labels = [("target", MUTED, target) for target in targets]
    told = []
    for number, (entrant, letter) in enumerate(_keys(figures).items()):
        curves, colour = curves_of.get(entrant, ()), CYCLE[number % len(CYCLE)]
        if not curves:
            continue
        for x, y in curves:
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.45, clip_on=False)
        x, y = _median(curves)
        axes.plot(x, y, color=colour, linewidth=2.6, marker="o" if len(x) == 1 else "", clip_on=False)
        labels.append((letter, colour, y[-1]))
        runs_told = "1 run" if len(curves) == 1 else f"{len(curves)} runs"
        told.append(f"{letter}, {entrant}: {runs_told}, in the median {y[-1]:.2f} % after {x[-1]:,.4g} s")
    for target in targets:
        axes.axhline(target, color=MUTED, linewidth=1, dashes=(4, 3))
    axes.set_xlabel("seconds of training")
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    label_ends(axes, labels)
    lines = ", ".join(f"{target:.2f} %" for target in targets)
    return sheet.finish(
        f"Test accuracy by seconds of training on {place}: a thin line a run, the median of every recipe bold. "
        f"{'; '.join(told)}. Target: {lines}."
    )


def _curve(rows: Sequence[Epoch]) -> Curve:
    return list(accumulate(row.epoch_seconds for row in rows)), [100 * row.test_accuracy for row in rows]


def _median(curves: Sequence[Curve]) -> Curve:
    """Median seconds and median accuracy, epoch by epoch, of runs of one length."""
    x, y = (np.median([curve[axis] for curve in curves], axis=0).tolist() for axis in (0, 1))
    return x, y


def _context(
    out: Path,
    figures: Figures,
    runs: Sequence[StudyRun],
    plots: Sequence[tuple[Plot, str]],
    names: Mapping[MachineKey, str],
) -> dict[str, Any]:
    tables = (words.results(figures), words.differences(figures), words.seconds(figures))
    return {
        "folder": str(out),
        "lede": _lede(figures),
        "caveat": words.caveat_of(figures.data),
        "synthetic": words.caveat_of(figures.data) is not None,
        "keys": _keys(figures),
        "recipes": [recipe.name for recipe in figures.recipes],
        "results": tables[0],
        "differences": tables[1],
        "seconds": tables[2],
        "plots": plots,
        "settings": _settings(figures),
        "runs": [_run(run, names) for run in runs],
    }


def _lede(figures: Figures) -> str:
    recipes = figures.recipes
    counts = {
        "finished": sum(recipe.n for recipe in recipes),
        "diverged": sum(len(recipe.diverged) for recipe in recipes),
        "unfinished": sum(len(recipe.unfinished) for recipe in recipes),
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    what = "one recipe" if len(recipes) == 1 else f"{len(recipes)} recipes"
    others = ", ".join(f"{peer.name} ({peer.n})" for peer in figures.peers)
    beside = f" Other programs ran beside them: {others}." if others else ""
    return f"Runs of {what}: {told}. Each began with a seed of its own.{beside}"


def _settings(figures: Figures) -> Mapping[str, Sequence[object]]:
    """What differs between the recipes; of a single one, everything."""
    records = [flat(asdict(recipe.recipe)) for recipe in figures.recipes]
    table = {name: [record[name] for record in records] for name in records[0]}
    return {name: values for name, values in table.items() if len(records) == 1 or len({*map(str, values)}) > 1}


def _run(run: StudyRun, names: Mapping[MachineKey, str]) -> dict[str, Any]:
    rows, summary = run.run.rows, run.run.summary
    compiled = summary.compile_seconds if summary else None
    return {
        "recipe": run.recipe,
        "seed": run.seed,
        "state": run.state,
        "reason": run.diverged.reason if run.state == "diverged" and run.diverged else None,
        "epochs": len(rows),
        "accuracy": summary.test_accuracy if summary else None,
        "seconds": sum(row.epoch_seconds for row in rows),
        "compiled": compiled,
        "resumed": len(summary.resumed_at) if summary else None,
        "machine": names[machine_key(summary.fingerprint, summary.runtime.effective)] if summary else None,
    }
