"""What two measurements must share before anything is said of their difference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cifarfast.fingerprint import Fingerprint


def machine_facts(machine: Fingerprint) -> dict[str, Any]:
    """Machine and versions; not the commit, whose effect is what is measured."""
    facts = flat(asdict(machine))
    return {name: fact for name, fact in facts.items() if name not in ("git_commit", "git_dirty")}


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A record without levels: `packages.torch` for the field `torch` of its field `packages`."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def differing(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name and values of each field that is not the same in all records: `threads (2, 4)`."""
    found = []
    for name in dict.fromkeys(name for record in records for name in record):
        values = list(dict.fromkeys(str(record.get(name)) for record in records))
        if len(values) > 1:
            found.append(f"{name} ({', '.join(values)})")
    return found
