"""Which values a parameter may have, as the comment behind it in the parameters cell says.

The comment is read by people and by this file, so that a range stands in one place::

    k = 8  # patches kept at each end, in [1, 1000]
    patch = 6  # edge of a patch in px, in [1, size]
    lr = 0.5  # peak learning rate, in (0, 10]
    steps = 64  # steps of the path, in [1, 5000] or "auto"
    broken = "raise"  # images that cannot be used, one of "raise", "skip"
    methods = "deeplift occlusion"  # compared, some of "deeplift", "occlusion", "gradcam"
    share = 0.24  # the one reported, one of shares
    method = "deeplift"  # of the maps, one of attribution.METHODS
    source = 8  # class of the inputs, in [0, 9], not unit

A bound may be the name of another parameter; `one of` takes the name of a parameter that is a list, or of a list of
words in the package. A square bracket includes its bound, a round one does not. `some of` is
for words with spaces between. A range holds for each item of a list; no item stands twice in a list, and a list is
empty only where the notebook's own is.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from absence_utils.errors import InputError, brief

INTERVAL = re.compile(r"\bin (?P<left>[\[(])(?P<low>-?\w[\w.]*), (?P<high>-?\w[\w.]*)(?P<right>[\])])")
CHOICE = re.compile(r"\b(?P<how>one|some) of (?=\"|(?P<name>[a-z_]+(\.[A-Z]+)?)$)")
WORD = re.compile(r'"([^"]*)"')
LONGEST = 4000  # characters of a text; longer ones are no path that a system opens


@dataclass(frozen=True)
class Range:
    """Values that a parameter may have; see the head of this file."""

    text: str = ""  # as the comment says it, "[1, size]"
    low: str = ""
    high: str = ""
    words: tuple[str, ...] = ()
    several: bool = False  # words with spaces between
    listed: str = ""  # "attribution.METHODS": where the package lists the words
    one_of: str = ""  # name of the parameter that lists the values
    unlike: str = ""  # name of the parameter whose value it must not have

    @property
    def declared(self) -> bool:
        return bool(self.text or self.words or self.listed or self.one_of)

    @property
    def parameters(self) -> set[str]:
        """Names of other parameters that the range may depend on."""
        return {self.low, self.high, self.one_of, self.unlike} - {""}

    def choices(self) -> tuple[str, ...]:
        """The words that a text may be; none if it is free."""
        if not self.listed:
            return self.words
        package, name = self.listed.split(".")
        return tuple(getattr(importlib.import_module(f"absence_utils.{package}"), name))

    def check(self, name: str, values: Mapping[str, object], default: object) -> None:
        """Refuse the value of a parameter if it lies outside.

        Args:
            name: of the parameter.
            values: of all parameters of the notebook, each of the type of its default.
            default: of this parameter.

        Raises:
            InputError: names parameter, value and range.
        """
        value = values[name]
        if isinstance(value, list):
            self._check_list(name, value, default)
        for item in value if isinstance(value, list) else [value]:
            self._check_item(name, item, values)

    def _check_list(self, name: str, value: list, default: object) -> None:
        if not value and default:
            raise InputError(name, "an empty list", f"Give one value or more: {self._said()}.")
        repeated = [item for place, item in enumerate(value) if item in value[:place]]
        if repeated:
            raise InputError(name, f"{brief(repeated[0])} stands in it twice", "Name each value once.")

    def _check_item(self, name: str, item: object, values: Mapping[str, object]) -> None:
        if isinstance(item, str):
            self._check_text(name, item)
        elif self.one_of and item not in values[self.one_of]:
            remedy = f"Use one of {self.one_of}, {brief(values[self.one_of])}."
            raise InputError(name, f"{brief(item)} is not among them", remedy)
        elif self.text and not self._holds(item, values):
            raise InputError(name, f"{brief(item)} is out of range", f"Use {self._said(values)}.")
        elif self.unlike and item == values[self.unlike]:
            raise InputError(name, f"{brief(item)} is that of {self.unlike}, too", "Use another.")

    def _check_text(self, name: str, text: str) -> None:
        if len(text) > LONGEST or not text.isprintable():
            problem = f"{brief(text)} is longer than {LONGEST} characters" if text.isprintable() else (
                f"{brief(text)} has characters that cannot be printed")  # fmt: skip
            raise InputError(name, problem, "Give plain text.")
        parts = text.split() if self.several else [text]
        if self.several and not (parts and len(set(parts)) == len(parts)):
            problem = f"{brief(text)} names one twice" if parts else "it is empty"
            raise InputError(name, problem, f"Use {self._said()}.")
        for part in parts:
            if self.declared and part not in self.choices():
                raise InputError(name, f"{brief(part)} is not known", f"Use {self._said()}.")

    def _holds(self, number, values: Mapping[str, object]) -> bool:
        low, high = (self._bound(end, values) for end in (self.low, self.high))
        above = number >= low if self.text[0] == "[" else number > low
        return above and (number <= high if self.text[-1] == "]" else number < high)  # false for NaN

    def _bound(self, end: str, values: Mapping[str, object]) -> float:
        return values[end] if end in values else float(end)

    def _said(self, values: Mapping[str, object] | None = None) -> str:
        """The range in words, with the value of each parameter that bounds it."""
        words = ", ".join(f'"{word}"' for word in self.choices())
        if not self.text:
            return f"{'some' if self.several else 'one'} of {words}" if words else "any"
        bounds = [end for end in (self.low, self.high) if values and end in values]
        where = "".join(f" ({end} is {values[end]})" for end in bounds)
        return f"a number in {self.text}{where}" + f" or {words}" * bool(words)


def read_range(comment: str) -> Range:
    """The range that a comment declares; one that allows everything if it declares none."""
    unlike = re.search(r", not (\w+)$", comment)
    unlike = unlike[1] if unlike else ""
    if found := INTERVAL.search(comment):
        words = tuple(WORD.findall(comment[found.end() :]))
        return Range(found[0].removeprefix("in "), found["low"], found["high"], words, unlike=unlike)
    if found := CHOICE.search(comment):
        several, name = found["how"] == "some", found["name"] or ""
        if name and "." not in name:
            return Range(one_of=name)
        return Range(words=tuple(WORD.findall(comment[found.end() :])), listed=name, several=several)
    return Range()
