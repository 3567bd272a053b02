"""Mine in shards, ranges of images with a file each: a killed run resumes where it was, and many can share the work.

`python -m absence_utils.patches.shards BOOK SHARD SHARD ...` merges the files of all shards into one book.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from absence_utils.errors import InputError
from absence_utils.files import remove_leftovers
from absence_utils.identity import difference
from absence_utils.progress import progress

from .book import PatchBook
from .mining import book_settings, mine_patches, require_k_patches

_log = logging.getLogger(__name__)


def shard_range(n_images: int, num_shards: int, shard: int) -> range:
    """The images of one shard, counted from 0: neighbouring ranges whose sizes differ by one at most.

    Raises:
        InputError: no shards, more shards than images, or a shard that is none of them.
    """
    for name, value, least, most, remedy in (
        ("num_shards", num_shards, 1, n_images, f"There are {n_images} images: use 1 to {n_images} shards."),
        ("shard", shard, 0, num_shards - 1, f"Shards are counted from 0 to {num_shards - 1}."),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(name, f"{value!r} is out of range", remedy)
    return range(n_images * shard // num_shards, n_images * (shard + 1) // num_shards)


def shard_path(folder: str | Path, num_shards: int, shard: int) -> Path:
    """Where `mine_shards` keeps the book of a shard."""
    return Path(folder) / f"shard-{shard:04d}-of-{num_shards:04d}.safetensors"


def mine_shards(
    model: nn.Module,
    layer: str | None,
    dataset,
    folder: str | Path,
    num_shards: int,
    *,
    workers: int = 1,
    batch_size: int | None = None,
    **how,
) -> PatchBook:
    """Mine shard after shard into `folder`, skip those that are there, and merge them.

    It may be killed at any moment and started again: a shard's file is there when it is complete, and not before. A
    file that is damaged, or of other settings, weights, images or code, is mined anew, and the log says why. Images are
    told apart by the dataset's `identity` or `fingerprint`; without either, every shard is mined anew.

    Args:
        model, layer, dataset, workers, batch_size: as for `mine_patches`.
        how: `mine_patches`' patch, stride, k, pool, region, per_image, reservoir, seed, exact and precision.

    Returns:
        The book of all images, equal to that of one `mine_patches` with the same batch size.

    Raises:
        InputError: as `shard_range` and `mine_patches`.
    """
    shard_range(len(dataset), num_shards, 0)
    settings = book_settings(model, layer, dataset, **how)
    paths = [shard_path(folder, num_shards, shard) for shard in range(num_shards)]
    for shard, path in enumerate(progress(paths, "mining shards")):
        part = shard_range(len(dataset), num_shards, shard)
        stale = _why_stale(path, settings, part)
        if stale:
            _log.warning("%s is mined anew: %s.", path, stale)
        if stale is not None:
            remove_leftovers(path)
            mine_patches(
                model, layer, dataset, **how, workers=workers, batch_size=batch_size, part=part
            ).save(path)
    return merge_shards(paths)


def _why_stale(path: Path, settings: dict, part: range) -> str | None:
    """Why the file of a shard cannot be used, "" if there is none yet, None if it can."""
    if not path.exists():
        return ""
    try:
        book = PatchBook.load(path)
    except InputError as error:
        return error.problem
    if not settings["images"]:
        return "the dataset has no `fingerprint`, so that nothing tells whether these are its images"
    return (
        difference(book.settings | {"range": book.covered}, settings | {"range": ((part.start, part.stop),)})
        or None
    )


def merge_shards(paths: Iterable[str | Path]) -> PatchBook:
    """The book of all shards, in any order; two of them are in memory at a time.

    Raises:
        InputError: none is given, one cannot be read, they do not belong together, an image is missing between them,
            or there are fewer patches than k.
    """
    book = None
    for path in paths:
        shard = PatchBook.load(path)
        book = shard if book is None else book.merge(shard)
    if book is None:
        raise InputError("paths", "no shard is given", "Give the files of all shards.")
    if len(book.covered) > 1 or book.covered[0][0] != 0:
        ranges = ", ".join(f"{start} to {stop - 1}" for start, stop in book.covered)
        raise InputError("paths", f"the shards cover only images {ranges}", "Give the files of all shards.")
    require_k_patches(book)
    return book


def load_or_mine(path: str | Path, model: nn.Module, layer: str | None, dataset, **how) -> PatchBook:
    """The saved book at `path`, which must be what `mine_patches` would find with these arguments; "" mines it here.

    Raises:
        InputError: it cannot be read, or was mined from something else: says from what.
    """
    if not str(path):
        return mine_patches(model, layer, dataset, **how)
    try:
        book = PatchBook.load(path)
    except InputError as error:
        raise InputError("book", error.problem, error.remedy) from error
    wanted = book_settings(model, layer, dataset, **how)
    if not wanted["images"]:
        problem = f"it has no `fingerprint`, so that nothing tells whether {path} is of its images"
        raise InputError(
            "dataset", problem, 'Give it one that follows from its contents, or mine here with book="".'
        )
    searched = {"range of images": book.covered}, {"range of images": ((0, len(dataset)),)}
    if differs := difference(book.settings | searched[0], wanted | searched[1]):
        remedy = "Mine it anew, or give the parameters it was mined with."
        raise InputError("book", f"{path} does not fit: {differs}", remedy)
    return book


def main(arguments: list[str] | None = None) -> int:
    """The command line: merge shards; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m absence_utils.patches.shards", description="Merge shards of a book."
    )
    parser.add_argument("book", help="file to write")
    parser.add_argument("shards", nargs="+", help="files of all shards, in any order")
    parser.add_argument(
        "--remove-damaged", action="store_true", help="so that Snakemake, started again, mines them anew"
    )
    options = parser.parse_args(arguments)
    try:
        if options.remove_damaged:
            _remove_damaged(options.shards)
        merge_shards(options.shards).save(options.book)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _remove_damaged(paths: list[str]) -> None:
    damaged = []
    for path in paths:
        try:
            PatchBook.load(path)
        except InputError:
            Path(path).unlink(missing_ok=True)
            damaged.append(path)
    if damaged:
        raise InputError("shards", f"removed the damaged {', '.join(damaged)}", "Start the run again.")


if __name__ == "__main__":
    sys.exit(main())
