"""Files of weights, read as data: intact, never unpickled, and nothing in them but plain tensors.

A .pt or .pth file of today is an archive that holds a checksum of each of its parts. PyTorch reads it without looking
at them, so that a bit that flipped on the way becomes another weight. Here they are verified first. Files in PyTorch's
old format (before 1.6) and .safetensors have none: the record says by its hash which file was read.
"""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parameter import is_lazy

from absence_utils.errors import InputError, brief
from absence_utils.files import note_file_read

PLAIN = "Only state dicts are read, nothing is unpickled: save `model.state_dict()`, best with safetensors."
AGAIN = "Copy or download it again, or save `model.state_dict()` again."


def read_checkpoint(path: Path | str) -> dict:
    """What a .safetensors, .pt or .pth file holds, on the CPU.

    Raises:
        InputError: there is no such file, it is damaged, or it holds more than tensors.
    """
    if not os.path.isfile(path):  # no error for what is no path
        problem = f"there is no file {brief(str(path))}"
        raise InputError("weights", problem, "Give a .safetensors, .pt or .pth file.")
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            archive = zipfile.is_zipfile(path)
            if archive:
                _require_intact(path)
            # Mapped, not copied: a view of a few numbers does not load the many that were saved with it.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except InputError:
        raise
    except Exception as error:  # the bytes of a file decide what a reader raises
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own text advises to unpickle after all
            reason = "it holds more than tensors, such as a whole network"
        raise InputError(
            "weights", f"{path.name!r} cannot be read as plain tensors ({reason})", PLAIN
        ) from error
    if not isinstance(state, dict):
        problem = f"{path.name!r} holds a {type(state).__name__}, not a state dict"
        raise InputError("weights", problem, "Save `model.state_dict()`.")
    note_file_read(path)
    return state


def _require_intact(path: Path) -> None:
    """Compare every part of an archive with its checksum; refuse what PyTorch would inflate.

    Raises:
        InputError: a part is damaged or compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [
                part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED
            ]
            damaged = None if packed else archive.testzip()
    except (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        problem = f"{path.name!r} is damaged ({brief(str(error))})"
        raise InputError("weights", problem, AGAIN) from None
    if packed:
        problem = f"{path.name!r} has compressed parts, which PyTorch never writes"
        raise InputError("weights", problem, "Save `model.state_dict()` with `torch.save`.")
    if damaged:
        problem = f"{path.name!r} is damaged: {damaged!r} has another checksum than when it was saved"
        raise InputError("weights", problem, AGAIN)


def require_plain_tensors(state: dict) -> None:
    """Refuse a state dict whose values are no numbers in memory, one for each place.

    Raises:
        InputError: a key is no text, or a tensor is lazy, meta, sparse, quantised, or expanded; names the first.
    """
    for key, value in state.items():
        if not isinstance(key, str):
            problem = f"the key {brief(key)} is a {type(key).__name__}, not the name of a tensor"
            raise InputError("weights", problem, "Save `model.state_dict()`.")
        if isinstance(value, Tensor) and (kind := _unusual(value)):
            raise InputError("weights", f"{brief(key)} is {kind}", "Save dense tensors with their values.")


def _unusual(value: Tensor) -> str:
    if is_lazy(value):
        return "a parameter of a lazy module, which has no shape yet"
    if value.is_meta:
        return "a tensor without values (device meta)"
    if value.is_quantized:
        return "quantised"
    if value.layout != torch.strided or value.is_nested:
        return f"not dense ({'nested' if value.is_nested else value.layout})"
    held = value.untyped_storage().nbytes() // value.element_size()
    return f"expanded: {value.numel()} places share {held} numbers" if value.numel() > held else ""
