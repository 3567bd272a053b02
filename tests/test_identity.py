"""Hashes of contents, code and parts: what is read again, what is compared, and how a difference is named."""

import importlib.util
import json
import os
from hashlib import sha256

import pytest
import torch
from torch import nn

from absence_utils import identity
from absence_utils.identity import code_of, content_hashes, difference, fingerprint, tensor_hash


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of which the hashes are kept at once, as if they had been written long ago."""
    monkeypatch.setenv("ABSENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "SETTLED", -1.0)
    monkeypatch.setattr(identity, "_known", {})
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


def hashes(*contents):
    return [sha256(content).hexdigest() for content in contents]


def count_reads(monkeypatch):
    read, original = [], identity.file_hash
    monkeypatch.setattr(identity, "file_hash", lambda path: read.append(str(path)) or original(path))
    return read


def test_a_file_is_read_once_also_by_the_next_process(files, tmp_path, monkeypatch):
    expected, read = hashes(b"a" * 100, b"b" * 100), count_reads(monkeypatch)
    assert content_hashes(files, tmp_path) == expected and len(read) == 2
    assert content_hashes(files, tmp_path) == expected and len(read) == 2
    monkeypatch.setattr(identity, "_known", {})  # the next process
    assert content_hashes(files[::-1], tmp_path) == expected[::-1] and len(read) == 2


def test_same_size_and_time_of_contents_are_no_proof(files, tmp_path):
    before = files[0].stat()
    content_hashes(files, tmp_path)
    files[0].write_bytes(b"c" * 100)
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_hashes(files, tmp_path) == hashes(b"c" * 100, b"b" * 100)


def test_a_file_that_was_just_written_is_not_trusted_to_its_time(files, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "SETTLED", 1000.0)
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
    monkeypatch.setattr(identity, "_known", {})
    assert content_hashes(files, tmp_path) == expected
    monkeypatch.setattr(identity, "_known", {})
    monkeypatch.setenv("ABSENCE_CACHE", str(kept / "below a file"))
    assert content_hashes(files, tmp_path) == expected


def test_tensors_differ_by_value_kind_and_shape():
    zero = torch.zeros(2, 3)
    others = [zero, zero + 1, zero.view(3, 2), zero.int(), zero.double()]
    assert len({tensor_hash(each) for each in others}) == len(others)
    assert tensor_hash(zero.T.contiguous().T) == tensor_hash(zero)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 2, "b": 1})


def test_differences_are_named():
    a, b = "a" * 64, "b" * 64
    assert difference({"k": 1}, {"k": 1}) == ""
    assert difference({"k": 1, "size": 2}, {"k": 1, "size": 3}) == "its size is 2, here it is 3"
    assert difference({"network": a}, {"network": b}) == (
        "it is of other weights (network aaaaaaaaaaaa..., here bbbbbbbbbbbb...)"
    )
    assert difference({"images": {"size": 1}}, {"images": {"size": 2}}) == "its size is 1, here it is 2"
    assert difference({}, {"code": "new"}) == "its code is None, here it is 'new'"
    assert difference({"code": "old"}, {}) == "its code is 'old', here it is None"


SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, stride)

    def forward(self, x):
        return self.conv(x)
"""


def own_network(path, source, stride=1):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import sys

    sys.modules[path.stem] = module
    return module.Net(stride)


def test_code_of_a_network_sees_its_file_and_how_it_is_built(tmp_path):
    networks = [
        own_network(tmp_path / "one_net.py", SOURCE),
        own_network(tmp_path / "two_net.py", SOURCE.replace("self.conv(x)", "-self.conv(x)")),
        own_network(tmp_path / "three_net.py", SOURCE, stride=2),
    ]
    found = [code_of("patches", network=network) for network in networks]
    assert len(set(found)) == 3 and found[0] != code_of("patches") != code_of("images")
    same = own_network(tmp_path / "four_net.py", SOURCE)
    assert code_of("patches", network=same) == found[0]  # wherever it lies
    assert torch.__version__ in found[0]


def test_code_of_the_package_follows_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    found = []
    for content in ("one", "two"):
        (tmp_path / "step").mkdir(exist_ok=True)
        (tmp_path / "step" / "inner.py").write_text(content)
        identity._package_hash.cache_clear()
        found.append(code_of("step"))
    identity._package_hash.cache_clear()
    assert found[0] != found[1]


def test_a_class_without_a_file_is_told_by_what_it_does():
    spaces = [{"nn": nn, "__name__": "typed"} for _ in range(2)]
    text = "class Net(nn.Module):\n    def forward(self, x):\n        return x{} 1"
    for space, sign in zip(spaces, "+-", strict=True):
        exec(text.format(sign), space)
    assert len({code_of(network=space["Net"]()) for space in spaces}) == 2
