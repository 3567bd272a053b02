"""Every file that ships in data/ is listed in the manifest, with where it comes from and under which licence."""

import json
import subprocess
from pathlib import Path

import pytest

from absence_utils.files import file_hash
from absence_utils.paths import DATA, ROOT

FIELDS = {
    "path": str,  # relative to the checkout
    "sha256": str,
    "bytes": int,
    "origin": str,  # who made it, or from where it was taken
    "licence": str,
    "made_by": str,  # the command that makes it again
    "facts": dict,  # what was measured on it, for example the accuracy of a network
}
ENTRIES = json.loads((DATA / "manifest.json").read_text())["files"]
SCRIPTS = {".py", ".md"}


def shipped_files() -> set[str]:
    """Files in data/ other than the manifest, scripts and what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "data"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    paths = [Path(line) for line in listed.stdout.splitlines()]
    if listed.returncode:  # no git: a download of the sources
        paths = [path.relative_to(ROOT) for path in DATA.rglob("*") if path.is_file()]
    return {str(path) for path in paths if path.suffix not in SCRIPTS and path.name != "manifest.json"}


def test_every_shipped_file_is_listed():
    assert {entry["path"] for entry in ENTRIES} == shipped_files()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["path"] for entry in ENTRIES])
def test_entry_matches_its_file(entry):
    assert {name: type(value) for name, value in entry.items()} == FIELDS
    assert all(entry[name] for name in FIELDS)
    path = ROOT / entry["path"]
    assert path.stat().st_size == entry["bytes"] < 4_000_000
    assert file_hash(path) == entry["sha256"]
