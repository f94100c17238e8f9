"""What a benchmark says of itself beside its figures: any JSON at all, of which only what can be true is believed."""

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]

_LONGEST = 40
_SMALLEST, _LARGEST = 1e-9, 1e18


def number(facts: Facts, name: str) -> float | None:
    """A positive figure of a size that can be divided by; None where there is none."""
    return _number(facts.get(name), _SMALLEST, _LARGEST)


def shares(facts: Facts, name: str) -> list[float]:
    """A list of figures from 0 to 100; empty where there is none, or something else is in it."""
    found = facts.get(name)
    values = [_number(value, 0.0, 100.0) for value in found] if isinstance(found, list) else []
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def word(facts: Facts, name: str) -> str | None:
    """A short text; None where there is none."""
    found = facts.get(name)
    return found if isinstance(found, str) and 0 < len(found) <= _LONGEST else None


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if least <= value <= most else None
