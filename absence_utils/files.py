"""Files that are never half written, their hashes, and which were read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_read: dict[str, str] = {}  # what the record of the current run says was read: name -> sha256


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


def note_file_read(path: Path | str) -> None:
    """Remember a file of weights with its hash, for the record of the run."""
    _read[Path(path).name] = file_hash(path)


def files_read() -> dict[str, str]:
    """Name and sha256 of each file noted since `forget_files`."""
    return dict(_read)


def forget_files() -> None:
    """Begin a new record."""
    _read.clear()
