"""One line for what holds arrays: a result that is printed should say what it is, not list its numbers."""

from __future__ import annotations

from dataclasses import fields

LONGEST = 40  # characters of a value that is shown as it is


def one_line(result) -> str:
    """A dataclass as one line, for its `__repr__`: arrays, tensors and tables by shape, other values if short."""
    shown = [f"{field.name}={_short(getattr(result, field.name))}" for field in fields(result) if field.repr]
    return f"{type(result).__name__}({', '.join(shown)})"


def _short(value) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"[{', '.join(map(str, shape))}]"
    if isinstance(value, (tuple, list, dict)) and len(value):
        text = str(value)
        held = f"{len(value)} {'entries' if isinstance(value, dict) else 'items'}"
        return text if len(text) <= LONGEST and "tensor" not in text else held
    text = repr(value)
    return text if len(text) <= LONGEST and "\n" not in text else type(value).__name__
