from dataclasses import replace
from typing import Any

from cifarfast.comparable import differing, flat, machine_facts
from tests.test_runfolder import row
from tests.test_summary import summary


def test_the_commit_is_no_fact_of_the_machine() -> None:
    machine = summary([row(1)]).fingerprint
    other = replace(machine, git_commit=None, git_dirty=True)
    assert machine_facts(machine) == machine_facts(other)
    changed: dict[str, Any] = {"cpu": None, "cores_allowed": 4, "memory_bytes": 1, "gpu": "a gpu", "python": "3.12.0"}
    for field, value in changed.items():
        (told,) = differing([machine_facts(machine), machine_facts(replace(machine, **{field: value}))])
        assert told == f"{field} ({getattr(machine, field)}, {value})"


def test_records_are_flattened() -> None:
    assert flat({"a": 1, "b": {"c": None, "d": {"e": [2]}}, "f": {}}) == {"a": 1, "b.c": None, "b.d.e": [2]}


def test_what_differs_is_named_once_with_each_value() -> None:
    two: dict[str, Any] = {"threads": 2, "gpu": None}
    records = [two, {**two, "threads": 4}, {**two, "packages.ffcv": "1"}]
    assert differing(records) == ["threads (2, 4)", "packages.ffcv (None, 1)"]
    assert differing(records[:1]) == differing([two, two]) == []
