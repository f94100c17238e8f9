"""Damage to the content of a file, drawn from a seed: the same seed does the same damage to the same bytes."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Damage = tuple[str, bytes]
"""What was done, in words, and what came of it."""

_LONGEST = 64
"""Of the ranges that are changed, in bytes."""
_MARK = "\x00the literal\x00"
LITERALS = (
    *("null", "true", "false", '""', '"text"', "[]", "{}", "0", "1", "-1", "0.5", "-0.0", "1e308"),
    *("1e999", "-1e999", "NaN", "Infinity", "18446744073709551616", "9" * 400, "9" * 5000),
    *('"\\u0000"', '"\\ud800"', '"\\u001b[31m"', '"line\\nline"', '"' + "long" * 25_000 + '"'),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000),
)
"""JSON, near-JSON and hostile JSON, to be put in the place of a value."""


def corrupt(raw: bytes, seed: str, *, places: Sequence[range] = (), is_json: bool = False) -> Damage:
    """Damage `raw` in one way; what comes of it is never `raw` itself.

    Args:
        raw: the content of a file, not empty.
        seed: decides what is done.
        places: where the format keeps what it lives by; half of the damage is done there.
        is_json: `raw` is JSON, or JSON lines; half of the damage is done to its values.
    """
    random = Random(seed)
    while True:
        if is_json and random.random() < 0.5:
            what, damaged = _corrupt_json(random, raw)
        else:
            range_ = random.choice(places) if places and random.random() < 0.5 else range(len(raw))
            what, damaged = random.choice(BYTES)(random, raw, random.choice(range_))
        if damaged != raw:
            return what, damaged


def _flip(random: Random, raw: bytes, at: int) -> Damage:
    bit = random.randrange(8)
    return f"bit {bit} of byte {at} flipped", _put(raw, at, bytes([raw[at] ^ 1 << bit]))


def _set(random: Random, raw: bytes, at: int) -> Damage:
    value = random.randrange(256)
    return f"byte {at} set to {value}", _put(raw, at, bytes([value]))


def _noise(random: Random, raw: bytes, at: int) -> Damage:
    size = random.randint(2, _LONGEST)
    return f"{size} bytes from {at} on replaced by noise", _put(raw, at, random.randbytes(size))


def _zero(random: Random, raw: bytes, at: int) -> Damage:
    size = random.randint(2, _LONGEST)
    return f"{size} bytes from {at} on zeroed", _put(raw, at, bytes(size))


def _number(random: Random, raw: bytes, at: int) -> Damage:
    """A hostile size: where a length, a count or an offset is, a number that makes a careless reader stumble."""
    width = random.choice((1, 2, 4, 8))
    order: Any = random.choice(("little", "big"))
    top = 1 << 8 * width
    now = int.from_bytes(raw[at : at + width], order)
    value = random.choice((0, 1, top - 1, top // 2 - 1, top // 2, top // 256, now + 1, now - 1, 2 * now)) % top
    return f"{value} put at {at}, {width} bytes, {order}-endian", _put(raw, at, value.to_bytes(width, order))


def _truncate(_: Random, raw: bytes, at: int) -> Damage:
    return f"cut at {at}", raw[:at]


def _insert(random: Random, raw: bytes, at: int) -> Damage:
    size = random.randint(1, _LONGEST)
    return f"{size} bytes of noise inserted at {at}", raw[:at] + random.randbytes(size) + raw[at:]


def _remove(random: Random, raw: bytes, at: int) -> Damage:
    size = random.choice((random.randint(1, _LONGEST), random.randint(1, len(raw))))
    return f"{size} bytes removed at {at}", raw[:at] + raw[at + size :]


def _repeat(random: Random, raw: bytes, at: int) -> Damage:
    size = random.choice((random.randint(1, _LONGEST), random.randint(1, len(raw))))
    return f"{size} bytes from {at} on repeated", raw[: at + size] + raw[at:]


def _swap(random: Random, raw: bytes, at: int) -> Damage:
    other, size = random.randrange(len(raw)), random.randint(1, _LONGEST)
    first, second = sorted((at, other))
    size = min(size, second - first, len(raw) - second)
    swapped = _put(_put(raw, first, raw[second : second + size]), second, raw[first : first + size])
    return f"{size} bytes at {first} and at {second} swapped", swapped


BYTES: tuple[Callable[[Random, bytes, int], Damage], ...] = (
    *(_flip, _set, _noise, _zero, _number, _truncate, _insert, _remove, _repeat, _swap),
)


def _put(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new[: len(raw) - at] + raw[at + len(new) :]


def _corrupt_json(random: Random, raw: bytes) -> Damage:
    """Damage one value of a document, or of one of its lines if each is a document of its own."""
    if random.random() < 0.1:
        encoding = random.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"))
        return f"encoded as {encoding}", raw.decode().encode(encoding)
    lines = raw.decode().splitlines(keepends=True)
    if not lines[0].strip().endswith("}"):
        lines = ["".join(lines)]
    number = random.randrange(len(lines))
    if len(lines) > 1 and random.random() < 0.2:
        how = random.choice(("dropped", "repeated", "moved"))
        line = lines.pop(number)
        others = {"dropped": [], "repeated": [number, number], "moved": [random.randrange(len(lines) + 1)]}[how]
        for place in others:
            lines.insert(place, line)
        return f"document {number} {how}", "".join(lines).encode()
    what, lines[number] = _corrupt_document(random, lines[number])
    return f"{what}, document {number}", "".join(lines).encode()


def _corrupt_document(random: Random, text: str) -> tuple[str, str]:
    document = json.loads(text)
    holder, key = random.choice(list(_values(document)))
    literal = random.choice(LITERALS)
    action = random.choice(("replace", "replace", "remove", "rename", "repeat", "add", "wrap", "swap"))
    if action == "replace":
        holder[key] = _MARK
    elif action == "remove":
        del holder[key]
    elif action == "wrap":
        holder[key] = [holder[key]]
    elif action == "swap":
        other, place = random.choice(list(_values(document)))
        if isinstance(holder[key], dict | list) or isinstance(other[place], dict | list):
            return "nothing", text  # one could lie within the other
        holder[key], other[place] = other[place], holder[key]
    elif isinstance(holder, list):
        holder.insert(key, _MARK)
    elif action == "rename":
        holder[f"{key}_"] = holder.pop(key)
    elif action == "add":
        holder["an unknown field"] = _MARK
    else:
        holder[_MARK] = holder[key]
    damaged = json.dumps(document, indent=2 if "\n " in text else None) + "\n"
    # A key twice, with another value first or last; or a literal that no Python object would become.
    twice = f"{json.dumps(str(key))}: {literal}, {json.dumps(str(key))}"
    damaged = damaged.replace(json.dumps(_MARK) + ":", twice + ":").replace(json.dumps(_MARK), literal)
    return f"{action} {key!r} ({literal[:20]})", damaged


def _values(node: Any) -> list[tuple[Any, Any]]:
    """Every value in a document, as what holds it and its key or index."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [pair for key in keys for pair in ((node, key), *_values(node[key]))]
