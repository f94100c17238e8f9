"""Writing `.beton` files: FFCV's own writer where FFCV is installed, ours elsewhere."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cifarfast.dataset.beton import Beton
from cifarfast.door import note
from data_prep.writers.ffcv_writer import FFCVMissingError, FFCVWriter
from data_prep.writers.raw_writer import write_raw

Files = Mapping[Path, Beton]
Write = Callable[[Files], str]
"""Writes each data set to its path and returns which writer it was, `ffcv` or `cifarfast`."""


@contextmanager
def open_writer() -> Iterator[Write]:
    """Yield the function that writes; until it is called, FFCV is being imported in a process of its own.

    The function raises UserError or OSError where a file could not be written.
    """
    if importlib.util.find_spec("ffcv") is None:
        yield lambda files: _write_without_ffcv(files, "ffcv is not installed")
        return
    with FFCVWriter() as ffcv:

        def write(files: Files) -> str:
            try:
                ffcv.write(files)
            except FFCVMissingError as reason:
                return _write_without_ffcv(files, str(reason))
            return "ffcv"

        yield write


def _write_without_ffcv(files: Files, reason: str) -> str:
    note(f"{reason}: writing the same files without it")
    for path, data in files.items():
        write_raw(path, data)
    return "cifarfast"
