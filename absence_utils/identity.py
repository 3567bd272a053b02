"""What a kept result depends on, as named parts with a hash for each, so that nothing stale passes for new.

Whoever keeps something (a shard, a checkpoint, decoded pixels) stores these parts with it, compares them before it is
used, and says which of them differ.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from absence_utils.files import file_hash

PACKAGE = Path(__file__).parent
PLURAL = {"network": "weights", "fingerprint": "images"}


def fingerprint(parts) -> str:
    """sha256 of whatever JSON can hold; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tensor_hash(*tensors: Tensor) -> str:
    """sha256 of kinds, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def difference(found: Mapping, wanted: Mapping) -> str:
    """The first part in which what was found differs from what is wanted, in words; "" if there is none.

    Of hashes it names the beginnings. A part that is a mapping itself is looked into.
    """
    for name in dict.fromkeys((*wanted, *found)):
        one, other = found.get(name), wanted.get(name)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            return difference(one, other)
        if _is_hash(one) and _is_hash(other):
            return f"it is of other {PLURAL.get(name, name)} ({name} {one[:12]}..., here {other[:12]}...)"
        return f"its {name} is {one!r}, here it is {other!r}"
    return ""


def _is_hash(value) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


# -- code


def code_of(*packages: str, network: nn.Module | None = None) -> str:
    """The code that makes a result, in short: versions of torch and torchvision, and a hash of sources.

    Args:
        packages: parts of `absence_utils`, "patches" or "units".
        network: the files of its modules' classes belong to it, torch's and torchvision's apart, and how it is built.
    """
    sources = [_package_hash(name) for name in packages]
    if network is not None:
        sources.append(repr(network))
        sources += sorted({_class_hash(type(module)) for module in network.modules()})
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}, sources {fingerprint(sources)[:12]}"


@lru_cache
def _package_hash(name: str) -> str:
    folder = PACKAGE / name
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return fingerprint([[path.relative_to(PACKAGE).as_posix(), file_hash(path)] for path in files])


@lru_cache
def _class_hash(kind: type) -> str:
    if kind.__module__.split(".")[0] in ("torch", "torchvision"):
        return f"{kind.__module__}.{kind.__qualname__}"
    try:
        return file_hash(inspect.getfile(kind))
    except (OSError, TypeError):  # typed into a notebook: there is no file
        code = getattr(kind.forward, "__code__", None)
        return fingerprint([kind.__qualname__, code and [code.co_code.hex(), *code.co_names]])
