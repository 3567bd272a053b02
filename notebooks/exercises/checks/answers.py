"""What checks are made of: is there an answer, is it the right one, and if not, which mistake is it?"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from absence_utils.plots.base import to_numpy

TYPED = 20  # an array of up to so many numbers may have been typed, and rounded


class WrongAnswer(AssertionError):
    """An answer is missing or wrong; the message says which, and where to look.

    Jupyter shows the message alone: the lines of the check would say nothing to the person who answers.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


class Correct(str):
    """What a check returns when the answer is right; a notebook shows it without quotation marks."""

    def __repr__(self) -> str:
        return f"Right. {self}"


def answered(**answers) -> None:
    """Raise unless every answer has replaced its placeholder.

    Args:
        answers: name -> value; a placeholder counts also inside a list, a tuple, a set or a dict.

    Raises:
        WrongAnswer: one of them is, or holds, `...`.
    """
    for name, value in answers.items():
        if _has_gap(value):
            raise WrongAnswer(f"You have not answered yet: replace the ... of `{name}` in the cell above.")


def _has_gap(value) -> bool:
    if isinstance(value, Mapping):
        return any(_has_gap(item) for item in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(_has_gap(item) for item in value)
    return value is Ellipsis


def compare(
    name: str,
    given,
    truth,
    *,
    mistakes: Iterable[tuple[object, str]] = (),
    look: str = "",
    tolerance: float = 5e-3,
    share: bool = False,
) -> None:
    """Compare a number or an array with the truth; a known wrong value gets its own sentence.

    Few numbers may be rounded as one types them: below 1 to two digits, and in any case to two decimals. Of a truth
    and a mistake that one rounded number may mean, the nearer one counts.

    Args:
        name: of the student's variable.
        given: a number, tensor, array or list of numbers.
        truth: the same, recomputed by the check.
        mistakes: pairs (value that a known mistake gives, sentence that names the mistake); the first that fits counts.
        look: sentence on where to look, for every other wrong value.
        tolerance: as a share of the largest magnitude of the truth (of 1 where the truth is 0), so that a number
            typed with three digits passes.
        share: whether it is a share between 0 and 1, so that a percentage gets its own sentence.

    Raises:
        WrongAnswer: there is no answer, it is no number, has another shape, or another value.
    """
    answered(**{name: given})
    truth, given = _as_array("truth", truth), _as_array(name, given)
    if truth.shape == () and given.size == 1:
        given = given.reshape(())  # one number is one number, also inside a list or a tensor of shape (1,)
    right = _fits(given, truth, truth, tolerance)
    known = [(_as_array(name, value), sentence) for value, sentence in mistakes]
    known = [(value, sentence) for value, sentence in known if not _near(value, truth, truth, tolerance)]
    for fits in (_near, _fits):  # a value that a mistake gives exactly is that mistake, before a rounded one
        for value, sentence in known:
            if fits(given, value, truth, tolerance) and not (right and _nearer(given, truth, value)):
                raise WrongAnswer(sentence)
    if given.shape != truth.shape:
        raise WrongAnswer(
            f"`{name}` should be {_shape(truth.shape)}, and yours is {_shape(given.shape)}. {look}".rstrip()
        )
    if right:
        return
    if share and (given > 1).all() and _fits(given / 100, truth, truth, tolerance):
        raise WrongAnswer(f"`{name}` is in percent. Give a share between 0 and 1: divide by 100.")
    raise WrongAnswer(f"`{name}` is not right yet{_what_is_off(given, truth, tolerance)}. {look}".rstrip())


def _as_array(name: str, given) -> np.ndarray:
    try:
        array = np.asarray(to_numpy(given), dtype=float)
    except (TypeError, ValueError):
        kind = type(given).__name__
        raise WrongAnswer(
            f"`{name}` should be a number or an array of numbers, and yours is a {kind}."
        ) from None
    if not np.isfinite(array).all():
        raise WrongAnswer(f"`{name}` holds a value that is not a finite number.")
    return array


def _near(given: np.ndarray, value: np.ndarray, truth: np.ndarray, tolerance: float) -> bool:
    scale = np.abs(truth).max(initial=0.0) or 1.0
    return given.shape == value.shape and bool((np.abs(given - value) <= tolerance * scale).all())


def _fits(given: np.ndarray, value: np.ndarray, truth: np.ndarray, tolerance: float) -> bool:
    """Whether given is near the value, or the value rounded by hand to two decimals or two digits."""
    if _near(given, value, truth, tolerance):
        return True
    if given.shape != value.shape or value.size > TYPED:
        return False
    scale = np.abs(truth).max(initial=0.0) or 1.0
    size = np.abs(value)
    digits = 10.0 ** (np.floor(np.log10(np.where(size > 0, size, 1.0))) - 1)  # place of the second digit
    steps = (np.full_like(size, 0.01), np.where(size < 1, digits, 0.01))
    fits = np.abs(given - value) <= tolerance * scale
    for step in steps:
        multiple = np.abs(given - np.round(given / step) * step) < 1e-6
        fits |= multiple & (np.abs(given - value) <= step / 2 + 1e-9) & ((given != 0) | (value == 0))
    return bool(fits.all())


def _nearer(given: np.ndarray, truth: np.ndarray, value: np.ndarray) -> bool:
    return value.shape != truth.shape or np.abs(given - truth).max() <= np.abs(given - value).max()


def _shape(shape: tuple) -> str:
    return "one number" if shape == () else f"an array of shape {tuple(shape)}"


def _what_is_off(given: np.ndarray, truth: np.ndarray, tolerance: float) -> str:
    """The kind of difference, without giving the answer away."""
    if _near(-given, truth, truth, tolerance):
        return ": its sign is the wrong way round"
    if truth.shape == ():
        return " (too high)" if given > truth else " (too low)"
    share = (np.abs(given - truth) > tolerance * (np.abs(truth).max(initial=0.0) or 1.0)).mean()
    return f": {share:.0%} of its values differ"


def choose(name: str, given, truth: str, because: Mapping[str, str]) -> None:
    """One of several words; every wrong one has a sentence that says why it is wrong.

    Args:
        given: the student's word; case and blanks at the ends do not count.
        truth: the right word.
        because: wrong word -> sentence.

    Raises:
        WrongAnswer: no answer, a wrong word, or one that is not among them.
    """
    answered(**{name: given})
    word = str(given).strip().lower()
    if word == truth.lower():
        return
    for wrong, sentence in because.items():
        if word == wrong.lower():
            raise WrongAnswer(sentence)
    options = ", ".join(repr(option) for option in sorted([truth, *because]))
    raise WrongAnswer(f"`{name}` should be one of {options}, and yours is {given!r}.")


def yes_or_no(name: str, given, truth: bool, because: str) -> None:
    """True or False; the wrong one fails with the sentence `because`.

    Raises:
        WrongAnswer: no answer, neither True nor False, or the wrong one.
    """
    answered(**{name: given})
    if not isinstance(given, (bool, np.bool_)):
        raise WrongAnswer(f"`{name}` should be True or False, and yours is {given!r}.")
    if bool(given) != truth:
        raise WrongAnswer(because)


def same_items(
    name: str, given, truth: Sequence, *, missing: str = "", extra: str = "", mistakes: Iterable[tuple] = ()
) -> None:
    """A set of things, in any order.

    Args:
        given: list, tuple or set; numbers may be those of torch or NumPy.
        truth: the right ones.
        missing, extra: sentences for an answer that leaves something out, or has something too much.
        mistakes: pairs (set that a known mistake gives, sentence).

    Raises:
        WrongAnswer: no answer, not a collection, or other items.
    """
    answered(**{name: given})
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise WrongAnswer(f"`{name}` should be a list, and yours is {given!r}.")
    items, truth = {_plain(item) for item in given}, set(truth)
    for wrong, sentence in mistakes:
        if items == set(wrong) != truth:
            raise WrongAnswer(sentence)
    if truth - items:
        count = f"{len(truth - items)} of {len(truth)}"
        raise WrongAnswer(f"`{name}` leaves out {count}. {missing}".rstrip())
    if items - truth:
        listed = ", ".join(sorted(str(item) for item in items - truth))
        raise WrongAnswer(f"`{name}` has what does not belong there: {listed}. {extra}".rstrip())


def _plain(item):
    if hasattr(item, "item"):
        return item.item()
    return int(item) if isinstance(item, numbers.Integral) else item
