"""Every file that ships in data/ and static/ is in a manifest, with its origin and its licence.

A picture that stands for a reference table is of the run whose numbers are the reference.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from absence_utils.files import file_hash
from absence_utils.paths import DATA, ROOT
from absence_utils.runner.compare import REFERENCE

sys.path.insert(0, str(DATA))
from manifest import entry_of, write_entry  # noqa: E402

FIELDS = {
    "path": str,  # relative to the checkout
    "sha256": str,
    "bytes": int,
    "origin": str,  # who made it, or from where it was taken
    "licence": str,
    "made_by": str,  # the command that makes it again
    "facts": dict,  # what was measured on it, for example the accuracy of a network
}
MANIFESTS = [ROOT / folder / "manifest.json" for folder in ("data", "static")]
ENTRIES = [entry for path in MANIFESTS for entry in json.loads(path.read_text())["files"]]
NO_DATA = {".py", ".md"}


def shipped_files() -> set[str]:
    """Files in data/ and static/ other than the manifests, scripts and what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "data", "static"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    paths = [Path(line) for line in listed.stdout.splitlines()]
    if listed.returncode:  # no git: a download of the sources
        found = [
            path for folder in ("data", "static") for path in (ROOT / folder).rglob("*") if path.is_file()
        ]
        paths = [path.relative_to(ROOT) for path in found]
    return {str(path) for path in paths if path.suffix not in NO_DATA and path.name != "manifest.json"}


def test_every_shipped_file_is_listed():
    assert {entry["path"] for entry in ENTRIES} == shipped_files()


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["path"] for entry in ENTRIES])
def test_entry_matches_its_file(entry):
    assert {name: type(value) for name, value in entry.items()} == FIELDS
    assert all(entry[name] for name in FIELDS)
    path = ROOT / entry["path"]
    assert path.stat().st_size == entry["bytes"] < 4_000_000
    assert file_hash(path) == entry["sha256"]


@pytest.mark.parametrize("path", sorted((ROOT / "static").glob("*.png")), ids=lambda path: path.stem)
def test_a_picture_is_of_the_run_whose_numbers_are_the_reference(path):
    (entry,) = [entry for entry in ENTRIES if ROOT / entry["path"] == path]
    numbers = REFERENCE / f"{path.stem}.csv"
    if numbers.is_file():
        assert entry["facts"]["numbers"] == numbers.relative_to(ROOT).as_posix()
        assert entry["facts"]["numbers_sha256"] == file_hash(numbers), "run `make figures && make reference`"
    else:
        assert entry["facts"]["reference"].startswith("none: "), "why no reference numbers stand behind it"


def test_origins_name_files_that_exist():
    words = {word.strip("(),:") for entry in ENTRIES for word in entry["origin"].split()}
    named = {word for word in words if word.startswith(("absence_utils/", "data/"))}
    assert named and not [path for path in named if not (ROOT / path).is_file()]


def test_an_entry_replaces_the_one_of_its_path(tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"files": []}')
    first = entry_of(REFERENCE / "tolerances.yaml", "a", "b", {"c": 1})
    assert first["path"] == "data/reference/tolerances.yaml"
    assert first["bytes"] == len((REFERENCE / "tolerances.yaml").read_bytes()) and len(first["sha256"]) == 64
    for entry in (first, {**first, "path": "data/a"}, {**first, "origin": "new"}):
        write_entry(manifest, entry)
    found = json.loads(manifest.read_text())["files"]
    assert [(entry["path"], entry["origin"]) for entry in found] == [("data/a", "a"), (first["path"], "new")]
