"""What checks are made of: is there an answer, is it the right one, and if not, which mistake is it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from absence_utils.plots.base import to_numpy


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
            raise WrongAnswer(
                f"You have not answered yet: replace the ... of `{name}` in the cell above."
            )


def _has_gap(value) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
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
    tolerance: float = 0.01,
    absolute: float = 0.0,
    share: bool = False,
) -> None:
    """Compare a number or an array with the truth; a known wrong value gets its own sentence.

    Args:
        name: of the student's variable.
        given: a number, tensor, array or list of numbers.
        truth: the same, recomputed by the check.
        mistakes: pairs (value that a known mistake gives, sentence that names the mistake); of those that fit, the
            nearest counts.
        look: sentence on where to look, for every other wrong value.
        tolerance: as a share of the largest magnitude of the truth (of 1 where the truth is 0), so that a number
            typed with three digits passes.
        absolute: tolerance in the truth's own unit, where it is the larger one: for a truth near 0.
        share: whether it is a share between 0 and 1: right to half a percentage point, and a percentage gets its own
            sentence.

    Raises:
        WrongAnswer: there is no answer, it is no number, has another shape, or another value.
    """
    answered(**{name: given})
    truth, given = _as_array("truth", truth), _as_array(name, given)
    if truth.shape == () and given.size == 1:
        given = given.reshape(
            ()
        )  # one number is one number, also inside a list or a tensor of shape (1,)
    within = max(
        tolerance * (np.abs(truth).max(initial=0.0) or 1.0),
        absolute,
        0.005 if share else 0.0,
    )
    off = _distance(given, truth)
    if off <= within:
        return
    near = [
        (_distance(given, _as_array(name, value)), sentence)
        for value, sentence in mistakes
    ]
    distance, sentence = min(near, key=lambda pair: pair[0], default=(np.inf, ""))
    if distance <= within:
        raise WrongAnswer(sentence)
    if given.shape != truth.shape:
        problem = f"should be {_shape(truth.shape)}, and yours is {_shape(given.shape)}"
    elif (
        share
        and given.min(initial=np.inf) > 1
        and _distance(given / 100, truth) <= within
    ):
        raise WrongAnswer(
            f"`{name}` is in percent. Give a share between 0 and 1: divide by 100."
        )
    else:
        problem = f"is not right yet{_what_is_off(given, truth, within)}"
    raise WrongAnswer(f"`{name}` {problem}. {look}".rstrip())


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


def _distance(given: np.ndarray, value: np.ndarray) -> float:
    """The largest difference; infinite between arrays of different shape."""
    return (
        np.abs(given - value).max(initial=0.0) if given.shape == value.shape else np.inf
    )


def _shape(shape: tuple) -> str:
    return "one number" if shape == () else f"an array of shape {tuple(shape)}"


def _what_is_off(given: np.ndarray, truth: np.ndarray, within: float) -> str:
    """The kind of difference, without giving the answer away."""
    if _distance(-given, truth) <= within:
        return ": its sign is the wrong way round"
    if truth.shape == ():
        near = (
            ", though near: give three digits"
            if abs(given - truth) <= 10 * within
            else ""
        )
        return f" (too high{near})" if given > truth else f" (too low{near})"
    return f": {(np.abs(given - truth) > within).mean():.0%} of its values differ"


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


def same_items(
    name: str,
    given,
    truth: Sequence,
    *,
    missing: str = "",
    extra: str = "",
    mistakes: Iterable[tuple] = (),
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
    items, truth = (
        {item.item() if hasattr(item, "item") else item for item in given},
        set(truth),
    )
    for wrong, sentence in mistakes:
        if items == set(wrong) != truth:
            raise WrongAnswer(sentence)
    if truth - items:
        count = f"{len(truth - items)} of {len(truth)}"
        raise WrongAnswer(f"`{name}` leaves out {count}. {missing}".rstrip())
    if items - truth:
        listed = ", ".join(sorted(str(item) for item in items - truth))
        raise WrongAnswer(
            f"`{name}` has what does not belong there: {listed}. {extra}".rstrip()
        )


# What answer cells print at their end: the finding as it looks before a check says anything about it.


def print_numbers(**values) -> None:
    """Print numbers with their names, in one line; a dict gives one for each key, a placeholder none."""
    found = {}
    for name, value in values.items():
        found |= value if isinstance(value, Mapping) else {name: value}
    parts = [
        f"{name} = {_short(value)}" for name, value in found.items() if value is not ...
    ]
    if parts:
        print(", ".join(parts))


def _short(value) -> str:
    array = np.asarray(to_numpy(value))
    if array.size != 1 or array.dtype.kind not in "iuf":
        return str(value)
    number = array.item()
    return (
        str(number) if array.dtype.kind in "iu" else f"{round(number, 3) + 0.0:g}"
    )  # no -0


def print_t_test(drops) -> None:
    """Print the mean of drops in sd, of any shape, with a t-test that takes every number as an input of its own."""
    drops = np.asarray(to_numpy(drops), dtype=float)
    p = stats.ttest_1samp(drops.ravel(), 0).pvalue
    print(
        f"mean drop {drops.mean():+.2f} sd over {drops.size} inputs, t-test p = {p:.0e}"
    )
