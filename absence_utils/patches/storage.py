"""Books of patches as files: one safetensors file, complete under its name or not there, refused when damaged."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from absence_utils.errors import InputError
from absence_utils.files import write_atomically

KIND = "absence_utils.patches"
FORMAT = f"{KIND} 4"  # 3 did not say of which image size, normalisation and code it was


def write_book(path: str | Path, tensors: dict[str, Tensor], about: dict) -> Path:
    """Write tensors and what is known about them; equal books are equal files, byte for byte."""
    path, about = Path(path), json.dumps(about, sort_keys=True)
    header = {"format": FORMAT, "about": about, "checksum": _checksum(tensors, about)}
    # One key, because the library writes several in any order and equal books shall be equal files.
    content = write_tensors(tensors, {"book": json.dumps(header, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def read_book(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """What `write_book` wrote.

    Raises:
        InputError: there is no such file, it is damaged, of an older format, or something else.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        problem = f"cannot read {path} ({error.strerror})"
        raise InputError("path", problem, "Give a book that was saved.") from error
    damaged = InputError("path", f"{path} is damaged or no book of patches", "Mine it again.")
    try:
        tensors = read_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header = json.loads(header["__metadata__"]["book"])
        form, intact = header["format"], header["checksum"] == _checksum(tensors, header["about"])
        about = json.loads(header["about"])
    except Exception as error:  # whatever the reader trips over, the file is not a book
        raise damaged from error
    if not intact:
        raise damaged
    if form != FORMAT:
        known = form.startswith(KIND)
        raise InputError(
            "path",
            f"{path} has the format {form!r}, this version reads {FORMAT!r}"
            if known
            else f"{path} is no book",
            "Mine it again.",
        )
    return tensors, about


def _checksum(tensors: dict[str, Tensor], about: str = "") -> str:
    digest = sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
