"""Hashes of tensors, code and parts, and how a difference is named."""

import importlib.util
import sys

import torch
from torch import nn

from absence_utils import identity
from absence_utils.identity import code_of, difference, fingerprint, tensor_hash


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
