"""Tensors in one safetensors file, with a digest over all that is in it; nothing in such a file can execute."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from cifarfast.errors import UserError
from cifarfast.files import read_plain, replacing

_DIGEST = "sha256"
_HEADER_BYTES = 1 << 24
"""Room for names, shapes and facts; a checkpoint has a row of some 500 bytes an epoch among these."""


def file_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """The most that a file of such tensors can have."""
    return sum(tensor.nbytes for tensor in tensors) + _HEADER_BYTES


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str] | None = None) -> None:
    """Atomically write tensors, contiguous and from the CPU, and strings, the `facts`, with a digest of both.

    Raises:
        UserError, OSError: the folder is not writable, the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = dict(facts or {})
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={**facts, _DIGEST: _digest(plain, facts)})
        except SafetensorError as error:  # the operating system's error, as text
            raise UserError(f"{path} cannot be written ({error}): make room, or choose another folder") from None


def read_tensors(path: Path, *, max_bytes: int, hint: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the facts of a file that `write_tensors` wrote.

    Args:
        path: the file.
        max_bytes: the most that such a file can rightly have; a larger one is not read.
        hint: what to do about a file that cannot be used.

    Raises:
        UserError: there is none, it is too large, it is not such a file, or it was changed since it was written.
    """
    try:
        raw = read_plain(path, max_bytes)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {hint}") from None
    try:
        tensors = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        facts = dict(header.get("__metadata__") or {})
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError, RuntimeError) as error:
        raise UserError(f"{path} is damaged ({error}): {hint}") from None
    if facts.pop(_DIGEST, None) != _digest(tensors, facts):
        raise UserError(f"{path} is damaged (its SHA-256 is not that of its contents): {hint}")
    return tensors, facts


def _digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> str:
    layout = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in sorted(tensors.items())}
    digest = hashlib.sha256(json.dumps([sorted(facts.items()), layout]).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
