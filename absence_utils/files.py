"""Files that are never half written, their hashes, and which were read."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from absence_utils.paths import cache_folder

SETTLED = 2.0  # s: a file changed this shortly before it was read may change again without another time
_read: dict[str, str] = {}  # what the record of the current run says was read: name -> sha256
_known: dict[str, list] = {}  # path: [size, time of contents, time of inode, sha256]


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it: no one ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what a run that was killed had written of a file; nobody else may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)


def note_file_read(path: Path | str) -> None:
    """Remember a file of weights with its hash, for the record of the run."""
    _read[Path(path).name] = file_hash(path)


def files_read() -> dict[str, str]:
    """Name and sha256 of each file noted since `forget_files`."""
    return dict(_read)


def forget_files() -> None:
    """Begin a new record."""
    _read.clear()


def content_hashes(paths: Iterable[Path | str], root: Path | str) -> list[str]:
    """sha256 of the content of each file, in order.

    A file is read again only if its path, size or one of its times has changed; the hashes of files below `root` are
    kept in `paths.cache_folder()`, which may be deleted at any time.

    Args:
        root: folder of the files, or the one file; it names the place where hashes are kept.

    Raises:
        OSError: a file cannot be read.
    """
    kept = (
        cache_folder() / f"hashes-{hashlib.sha256(os.fsencode(Path(root).absolute())).hexdigest()[:16]}.json"
    )
    paths, changed = [str(Path(path).absolute()) for path in paths], False
    if any(path not in _known for path in paths):
        for path, entry in _read_hashes(kept).items():
            _known.setdefault(path, entry)
    hashes = []
    for path in paths:
        now, status = time.time(), Path(path).stat()
        times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = _known.get(path)
        if entry is None or entry[:3] != times:
            entry = [*times, file_hash(path)]
            if max(times[1:]) < (now - SETTLED) * 1e9:
                _known[path], changed = entry, True
        hashes.append(entry[3])
    if changed:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(
                kept, json.dumps({path: _known[path] for path in paths if path in _known}).encode()
            )
        except OSError:  # a full or read-only disk: the files are read again next time
            pass
    return hashes


def _read_hashes(kept: Path) -> dict[str, list]:
    try:
        return {path: entry for path, entry in json.loads(kept.read_bytes()).items() if len(entry) == 4}
    except (OSError, ValueError, AttributeError, TypeError):  # absent or damaged
        return {}
