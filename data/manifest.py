"""Manifests of the files that ship, data/manifest.json and static/manifest.json: where each comes from.

An entry says path, hash and size of the file, its origin and licence, the command that makes it again, and facts that
were measured on it.
"""

import json
from pathlib import Path

from absence_utils.files import file_hash, write_atomically
from absence_utils.paths import ROOT


def entry_of(path: Path, origin: str, made_by: str, facts: dict) -> dict:
    """Entry for a file of this project."""
    return {
        "path": path.relative_to(ROOT).as_posix(),
        "sha256": file_hash(path),
        "bytes": path.stat().st_size,
        "origin": origin,
        "licence": "MIT",
        "made_by": made_by,
        "facts": facts,
    }


def write_entry(manifest: Path, entry: dict) -> None:
    """Replace or add the entry with the same path in the manifest."""
    content = json.loads(manifest.read_text())
    others = [known for known in content["files"] if known["path"] != entry["path"]]
    content["files"] = sorted([*others, entry], key=lambda known: known["path"])
    write_atomically(manifest, json.dumps(content, indent=1).encode() + b"\n")
