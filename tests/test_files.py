"""Hashes of contents: what is read again, and what is not."""

import json
import os
from hashlib import sha256

import pytest

from absence_utils import files as module
from absence_utils.files import content_hashes


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of which the hashes are kept at once, as if they had been written long ago."""
    monkeypatch.setenv("ABSENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLED", -1.0)
    monkeypatch.setattr(module, "_known", {})
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


def hashes(*contents):
    return [sha256(content).hexdigest() for content in contents]


def count_reads(monkeypatch):
    read, original = [], module.file_hash
    monkeypatch.setattr(module, "file_hash", lambda path: read.append(str(path)) or original(path))
    return read


def test_a_file_is_read_once_also_by_the_next_process(files, tmp_path, monkeypatch):
    expected, read = hashes(b"a" * 100, b"b" * 100), count_reads(monkeypatch)
    assert content_hashes(files, tmp_path) == expected and len(read) == 2
    assert content_hashes(files, tmp_path) == expected and len(read) == 2
    monkeypatch.setattr(module, "_known", {})  # the next process
    assert content_hashes(files[::-1], tmp_path) == expected[::-1] and len(read) == 2


def test_same_size_and_time_of_contents_are_no_proof(files, tmp_path):
    before = files[0].stat()
    content_hashes(files, tmp_path)
    files[0].write_bytes(b"c" * 100)
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_hashes(files, tmp_path) == hashes(b"c" * 100, b"b" * 100)


def test_a_file_that_was_just_written_is_not_trusted_to_its_time(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 1000.0)
    read = count_reads(monkeypatch)
    content_hashes(files, tmp_path)
    content_hashes(files, tmp_path)
    assert len(read) == 4 and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 3}', b"\xff"])
def test_damaged_or_unwritable_places_cost_only_time(files, tmp_path, monkeypatch, content):
    expected = content_hashes(files, tmp_path)
    (kept,) = (tmp_path / "cache").iterdir()
    assert len(json.loads(kept.read_bytes())) == 2
    kept.write_bytes(content)
    monkeypatch.setattr(module, "_known", {})
    assert content_hashes(files, tmp_path) == expected
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setenv("ABSENCE_CACHE", str(kept / "below a file"))
    assert content_hashes(files, tmp_path) == expected
