"""Writing `.beton` files: FFCV's own writer where FFCV is installed, ours elsewhere."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cifarfast.dataset.beton import Beton
from cifarfast.door import note
from cifarfast.errors import UserError
from data_prep.writers.ffcv_writer import FFCVMissingError, FFCVWriter
from data_prep.writers.raw_writer import write_raw

WriterName = Literal["auto", "ffcv", "cifarfast"]
Files = Mapping[Path, Beton]
Write = Callable[[Files], str]
"""Writes each data set to its path and returns which writer it was, `ffcv` or `cifarfast`."""


@contextmanager
def open_writer(name: WriterName = "auto") -> Iterator[Write]:
    """Yield the function that writes; until it is called, FFCV is being imported in a process of its own.

    The function raises UserError or OSError where a file could not be written.

    Args:
        name: which writer; `auto` is `ffcv` where FFCV can be imported, else `cifarfast`.
    """
    if name == "cifarfast":
        yield _write_without_ffcv
        return
    if importlib.util.find_spec("ffcv") is None:
        yield lambda files: _replace_ffcv(name, files, "ffcv is not installed")
        return
    with FFCVWriter() as ffcv:

        def write(files: Files) -> str:
            try:
                ffcv.write(files)
            except FFCVMissingError as reason:
                return _replace_ffcv(name, files, str(reason))
            return "ffcv"

        yield write


def _replace_ffcv(name: WriterName, files: Files, reason: str) -> str:
    if name == "ffcv":
        raise UserError(f"{reason}: install FFCV (pip install 'cifarfast[ffcv]'), or leave the writing to cifarfast")
    note(f"{reason}: writing the same files without it")
    return _write_without_ffcv(files)


def _write_without_ffcv(files: Files) -> str:
    for path, data in files.items():
        write_raw(path, data)
    return "cifarfast"
