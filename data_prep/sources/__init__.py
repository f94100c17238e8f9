"""Where images come from: one file a kind, all of them a `Source`."""

import os
from pathlib import Path

from cifarfast.errors import UserError
from data_prep.sources.base import Dataset, Source
from data_prep.sources.batches import BatchArchive, BatchFolder, find_format
from data_prep.sources.download import Download
from data_prep.sources.synthetic import Synthetic
from data_prep.sources.tree import Tree, is_tree

__all__ = ["Dataset", "Source", "open_source"]


def open_source(spec: str, *, cache: Path, any_count: bool) -> Source:
    """Decide by looking what kind of source `spec` is; nothing is read yet.

    Args:
        spec: `download`, `synthetic`, `synthetic:TRAIN,TEST`, or the path of an archive or a folder.
        cache: folder that keeps a downloaded archive.
        any_count: accept batch files that do not hold 10,000 images.

    Raises:
        UserError: there is no such source, or nothing in it looks like CIFAR-10.
    """
    if spec == "download":
        return Download(cache)
    if spec.split(":")[0] == "synthetic":
        return Synthetic.parse(spec)
    try:
        path = Path(spec).expanduser()
    except RuntimeError:
        raise UserError(f"source {spec} is in the home of an unknown user: name its path, ./~... for a file") from None
    if not os.access(path, os.R_OK):
        problem = "cannot be read: check its permissions" if path.exists() else "does not exist: check the path"
        raise UserError(f"source {spec} {problem}, or use --source download or --source synthetic")
    if path.is_file():
        return BatchArchive(spec, path, any_count=any_count)
    if (found := find_format(path)) is not None:
        folder, layout = found
        return BatchFolder(spec, folder, layout, any_count=any_count)
    if is_tree(path):
        return Tree(spec, path)
    raise UserError(
        f"source {spec} holds neither CIFAR-10 batches (data_batch_1.bin or data_batch_1, ...) nor folders "
        "train/<class> and test/<class> of images: point --source at one that does"
    )
