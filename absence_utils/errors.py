"""The one exception for bad input, which names parameter and remedy, and the checks that many functions need."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A parameter has a value that cannot be used.

    Args:
        parameter: name of the parameter, as the caller wrote it.
        problem: what is wrong with the value, without a full stop.
        remedy: what to do about it, as a sentence.

    Example:
        >>> from absence_utils import InputError
        >>> raise InputError("k", "0 is less than 1", "Give one or more.")
        Traceback (most recent call last):
        absence_utils.errors.InputError: `k`: 0 is less than 1. Give one or more.
    """

    def __init__(self, parameter: str, problem: str, remedy: str = ""):
        self.parameter, self.problem, self.remedy = parameter, problem, remedy
        super().__init__(f"`{parameter}`: {problem}." + (f" {remedy}" if remedy else ""))


def brief(value: object, most: int = 80) -> str:
    """A value for a message: on one line, and cut where it is longer than `most` characters."""
    try:
        said = repr(value)
    except ValueError:  # a whole number of thousands of digits
        said = f"a {type(value).__name__} of many digits"
    return said if len(said) <= most else f"{said[:most]} ..."


def require_choice(parameter: str, value, choices: Iterable[str]) -> None:
    """Refuse a value that is none of `choices`, and name them.

    Raises:
        InputError: `value` is not among them; the nearest name comes first.
    """
    choices = list(choices)
    if not (isinstance(value, str) and value in choices):
        near = get_close_matches(value, choices, 1) if isinstance(value, str) and len(value) < 100 else []
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise InputError(
            parameter, f"{brief(value)} is not known", f"{meant}Use one of {', '.join(choices)}."
        )


def require_at_least(parameter: str, value: float, least: float, why: str = "") -> None:
    """Refuse a number below `least`, or NaN.

    Args:
        why: the reason, where it is not plain; it follows "Use 2 or more".

    Raises:
        InputError: `value` is smaller, or no number.
    """
    if not value >= least:
        raise InputError(parameter, f"{value}", f"Use {least} or more{': ' + why if why else ''}.")


def require_shape(parameter: str, value, *axes: str | int) -> None:
    """Refuse what has not these axes: a name stands for any length, a number for just that one.

    Example:
        `require_shape("images", images, "batch", 3, "height", "width")`

    Raises:
        InputError: `value` has no shape, another number of axes, or another length where one is given.
    """
    shape = getattr(value, "shape", None)
    wanted = f"Give [{', '.join(map(str, axes))}]."
    if shape is None:
        raise InputError(parameter, f"a {type(value).__name__} has no shape", wanted)
    fits = len(shape) == len(axes) and all(
        isinstance(axis, str) or axis == length for axis, length in zip(axes, shape, strict=True)
    )
    if not fits:
        raise InputError(parameter, f"shape {tuple(shape)}", wanted)
