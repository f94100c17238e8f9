from pathlib import Path
from typing import Any

import pytest

from bench.records import read_bench
from bench.reporting.blocks import Absent, Block, Drawing, Title, Words
from bench.reporting.contests import Album, throughput
from bench.reporting.findings import find
from cifarfast.reporting.style import Plot, styled
from tests.bench.made import entry, write_bench


def shown(folder: Path, entries: list[dict[str, Any]], **header: Any) -> list[Block]:
    (section,) = find([read_bench(write_bench(folder / "a.json", entries, **header))], []).sections
    with styled():
        return throughput(section, Album())


def drawing(blocks: list[Block]) -> Drawing:
    (found,) = (block for block in blocks if isinstance(block, Drawing))
    return found


def titles(found: Drawing) -> list[str]:
    return [column.title for column in found.table.columns]


def test_a_contest_is_a_plot_and_a_table(tmp_path: Path) -> None:
    entries = [entry("step", "a", 100, baseline="a"), entry("step", "b", 250, baseline="a")]
    skipped = [{"group": "step", "name": "c", "reason": "no time"}]
    blocks = shown(tmp_path, entries, skipped=skipped)
    found = drawing(blocks)
    assert titles(found) == ["variant", "images/s", "n", "times baseline"]
    assert found.table.rows == [
        ["a", "100 (99.5 to 101)", "7", "baseline"],
        ["b", "250 (249 to 251)", "7", "2.50 (2.50 to 2.50)"],
        ["c", "not measured", "", ""],
    ]
    assert found.plot.alt == "Training step, images/s, medians: a 100; b 250 · 2.50\u00d7."
    assert Title("Training step") in blocks
    assert "wider than 10 % of the median: 0 of 2." in _words(blocks)


def test_noise_is_pointed_out(tmp_path: Path) -> None:
    blocks = shown(tmp_path, [entry("step", "calm", 100), entry("step", "wild", 100, spread=0.4)])
    found = drawing(blocks)
    assert titles(found) == ["variant", "images/s", "n", ""]
    assert [row[-1] for row in found.table.rows] == ["", "noisy"]
    assert "wider than 10 % of the median: 1 of 2." in _words(blocks)
    assert "wild 10" in found.plot.alt
    assert " noisy" in found.plot.alt


def test_few_rounds_are_pointed_out(tmp_path: Path) -> None:
    assert "2 in 32 with five" in _words(shown(tmp_path, [entry("step", "a", 100, rounds=5)]))
    assert "2 in 32" not in _words(shown(tmp_path, [entry("step", "a", 100, rounds=6)]))


def test_other_amounts_of_work_are_pointed_out(tmp_path: Path) -> None:
    entries = [entry("step", "a", 100, batch_size=512), entry("step", "b", 5, work=8, batch_size=8)]
    blocks = shown(tmp_path, entries)
    assert [row[0] for row in drawing(blocks).table.rows] == ["a", "b, 8 images"]
    assert "update of one batch. 512 images a batch." in _words(blocks)


def test_durations_and_unknown_groups(tmp_path: Path) -> None:
    found = drawing(shown(tmp_path, [entry("start-up", "eager", 0.5, work=1, unit=None, rounds=1)]))
    assert (titles(found), found.table.rows) == (["variant", "seconds", "n"], [["eager", "2.00", "1"]])
    blocks = shown(tmp_path, [entry("<my group>", "a", 3, unit="stones", rounds=1)])
    assert Title("<my group>") in blocks
    assert titles(drawing(blocks)) == ["variant", "stones/s", "n"]
    assert drawing(blocks).plot.name == "my-group"


def test_contests_of_several_files_say_which(tmp_path: Path) -> None:
    paths = [write_bench(tmp_path / f"{n}.json", [entry("step", "a", 100 + n)]) for n in range(2)]
    (section,) = find([read_bench(path) for path in paths], []).sections
    with styled():
        blocks = throughput(section, Album())
    assert [block.text for block in blocks if isinstance(block, Title)] == [
        "Training step (file 1)",
        "Training step (file 2)",
    ]


def test_nothing_measured(tmp_path: Path) -> None:
    assert shown(tmp_path, []) == [Absent("Throughput", "not measured")]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("step", "step"), ("../../etc/passwd", "etc-passwd"), ("Käse\0", "k-se"), ("猫", "plot"), ("a" * 500, "a" * 40)],
)
def test_a_plot_s_file_name_is_harmless_and_its_own(wanted: str, name: str) -> None:
    album = Album()
    assert album.name(wanted) == name
    album.keep(Plot(name=name, svg="", alt=""))
    album.keep(Plot(name=f"{name}-2", svg="", alt=""))
    assert album.name(wanted) == f"{name}-3"


def _words(blocks: list[Block]) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Words))
