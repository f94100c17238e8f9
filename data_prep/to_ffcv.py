"""`python -m data_prep.to_ffcv`: convert CIFAR-10 from any of its forms to `.beton` files and a manifest."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cifarfast import door
from cifarfast.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Convert CIFAR-10 to .beton files that every loader of cifarfast reads."""

    source: str | None = None
    """Official binary or python archive (.tar.gz) or its folder, a tree train/<class>/*.png|jpg and test/<class>/*,
    `download`, `synthetic`, or `synthetic:TRAIN,TEST`. Default: $CIFAR10_SOURCE, else `download`."""
    out: Path = Path("data/cifar10")
    """Folder for train.beton, test.beton and manifest.json (and the archive, if it is downloaded)."""
    force: bool = False
    """Convert again even if the folder is up to date."""
    verify: bool = False
    """Convert nothing: hold the files in the folder against the digests in its manifest."""
    any_count: bool = False
    """Accept local batch files that do not hold 10,000 images each; the manifest says that they are not official."""


def main() -> None:
    """The command."""
    arguments = door.parse(Arguments, prog="python -m data_prep.to_ffcv")
    if arguments.verify:
        _verify(arguments)
    else:
        _convert(arguments)


def _verify(arguments: Arguments) -> None:
    from cifarfast.dataset.manifest import check_folder

    if arguments.force or arguments.source is not None:
        raise UserError("--verify converts nothing: leave out --force and --source, or leave out --verify")
    manifest = check_folder(arguments.out, full=True)
    print(f"{arguments.out} is ok: {manifest.train.images} train and {manifest.test.images} test images")


def _convert(arguments: Arguments) -> None:
    from data_prep.convert import convert
    from data_prep.sources import open_source

    start = time.perf_counter()
    if arguments.source == "":
        raise UserError("--source is empty: name an archive or a folder, or leave it out")
    spec = arguments.source or os.environ.get("CIFAR10_SOURCE") or "download"
    source = open_source(spec, cache=arguments.out, any_count=arguments.any_count)
    manifest, converted = convert(source, arguments.out, force=arguments.force)
    if not converted:
        print(f"{arguments.out} is up to date with {spec} (--force converts it again)")
        return
    print(
        f"{arguments.out}: {manifest.train.images} train and {manifest.test.images} test images, kind {manifest.kind}, "
        f"{'official' if manifest.official else 'not the official batches'}, written by {manifest.writer} "
        f"in {time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    door.run(main)
