import contextlib
import json

import pytest

from tests.fuzz.corruption import BYTES, LITERALS, corrupt

RAW = bytes(range(256)) * 4
DOCUMENT = json.dumps({"a": 1, "b": [1, 2, {"c": "text"}]}, indent=2).encode() + b"\n"
LINES = b"".join(json.dumps({"epoch": epoch}).encode() + b"\n" for epoch in range(5))


@pytest.mark.parametrize(("raw", "is_json"), [(RAW, False), (DOCUMENT, True), (LINES, True)])
def test_each_seed_does_its_own_damage_and_always_some(raw: bytes, is_json: bool) -> None:
    first = [corrupt(raw, f"a {number}", is_json=is_json) for number in range(200)]
    assert first == [corrupt(raw, f"a {number}", is_json=is_json) for number in range(200)]
    assert all(damaged != raw for _, damaged in first)
    assert len(set(first)) > 150


def test_every_kind_of_damage_is_done() -> None:
    kinds = {
        "flipped",
        "set to",
        "noise inserted",
        "replaced",
        "zeroed",
        "put at",
        "cut",
        "removed",
        "repeated",
        "swap",
    }
    assert len(kinds) == len(BYTES)
    done = " ".join(corrupt(RAW, str(number))[0] for number in range(200))
    assert {kind for kind in kinds if kind in done} == kinds


def test_half_of_the_damage_is_done_where_it_hurts() -> None:
    flips = [
        damaged for what, damaged in (corrupt(RAW, str(n), places=[range(8)]) for n in range(2000)) if "bit" in what
    ]
    hit = sum(damaged[:8] != RAW[:8] for damaged in flips)
    assert 0.4 < hit / len(flips) < 0.6


def test_lines_are_dropped_repeated_and_moved() -> None:
    all_done = [corrupt(LINES, str(number), is_json=True) for number in range(500)]
    done = {what.split()[-1]: damaged for what, damaged in all_done if what.startswith("document")}
    lines = {how: damaged.splitlines() for how, damaged in done.items()}
    assert {how: len(found) for how, found in lines.items()} == {"dropped": 4, "repeated": 6, "moved": 5}
    assert all(set(found) <= set(LINES.splitlines()) for found in lines.values())


def test_json_stays_json_around_a_hostile_value() -> None:
    done = [corrupt(DOCUMENT, str(number), is_json=True)[1] for number in range(2000)]
    for literal in LITERALS:
        assert any(literal.encode() in damaged for damaged in done), literal[:20]
    parsed = 0
    for damaged in done:
        with contextlib.suppress(ValueError, RecursionError):
            parsed += json.loads(damaged) != json.loads(DOCUMENT)
    assert parsed > 200
