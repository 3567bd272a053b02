"""Files and folders that parameters name, such as weights and images: their contents are inputs of what is made.

Snakemake compares them as parameters of a rule, by content and not by time: weights that were replaced by an older file
and a folder that lost ten images are noticed. The Snakefile reads this module whenever it is parsed, so no large
library is imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from absence_utils.files import content_hashes, write_atomically

WRITTEN = ("checkpoints",)  # parameters that name what a run itself writes


def outside_inputs(values: dict[str, object]) -> dict[str, str]:
    """sha256 of the contents of every file and folder that the values of parameters name, by the path as it is given.

    Of "file.py:function" the file counts, of a folder all files below it with their names, hidden ones apart. Texts
    that are no path of something are left out.
    """
    found = {}
    for name, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in WRITTEN and isinstance(text, str) and text:
                path = _existing(text)
                found |= {str(path): _hash(path)} if path else {}
    return found


def _existing(text: str) -> Path | None:
    place, _, function = text.rpartition(":")
    for path in (
        Path(text).expanduser(),
        Path(place).expanduser() if place.endswith(".py") and function else None,
    ):
        try:
            if path and (path.is_file() or path.is_dir()):
                return path
        except (OSError, ValueError):  # no path at all: too long, with a null byte
            continue
    return None


def _hash(path: Path) -> str:
    files = _files_below(path, set()) if path.is_dir() else [path]
    try:
        hashes = content_hashes(files, path)
    except OSError as error:  # the run will say what is wrong with it
        return f"{error.filename}: {error.strerror}"
    names = [os.fsencode(file.relative_to(path)).hex() for file in files]
    return hashlib.sha256(json.dumps([names, hashes]).encode()).hexdigest()


def _files_below(folder: Path, seen: set) -> list[Path]:
    """Regular files below a folder in a fixed order; links are followed, each folder is entered once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return []
    seen.add((status.st_dev, status.st_ino))
    files = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and os.access(path, os.R_OK | os.X_OK):
            files += _files_below(path, seen)
        elif path.is_file():
            files.append(path)
    return files


def changed_inputs(record: Path, now: dict[str, str]) -> list[str]:
    """Paths whose contents differ from those in the file `record`, which is then brought up to date."""
    try:
        before = json.loads(record.read_bytes())
    except (OSError, ValueError):
        before = {}
    if before != now:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(now, indent=1, sort_keys=True).encode())
    return [path for path in now if before.get(path, now[path]) != now[path]]
