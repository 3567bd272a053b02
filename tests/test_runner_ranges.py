"""Ranges of parameters: declared beside each, checked before anything runs, whatever is typed."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from absence_utils.errors import InputError
from absence_utils.paths import NOTEBOOKS
from absence_utils.runner import record
from absence_utils.runner.notebooks import all_notebooks
from absence_utils.runner.parameters import check_parameters, notebook_parameters, read_profile
from absence_utils.runner.ranges import read_range

PATHS = [*all_notebooks(), NOTEBOOKS / "shards" / "mine_shard.ipynb"]
FREE = {
    "concept",
    "tree",
    "model",
    "weights",
    "layer",
    "images",
    "data",
    "book",
    "checkpoints",
    "unit",
    "device",
}  # names, paths
ALL = [(path.stem, parameter) for path in PATHS for parameter in notebook_parameters(path).values()]
each = pytest.mark.parametrize("stem, parameter", ALL, ids=[f"{stem}-{it.name}" for stem, it in ALL])
KNOWN = {path.stem: notebook_parameters(path) for path in PATHS}
TRIED = 8  # wrong values of each parameter: more than 1,000 in all


def bounds(stem, parameter):
    """Lowest and highest number, with the bounds that are parameters at their defaults."""
    found = parameter.range
    if not found.text:
        return []
    values = {name: it.default for name, it in KNOWN[stem].items()}
    return [float(values.get(end, end)) for end in (found.low, found.high)]


def wrong_values(stem, parameter):
    """Values of other types, out of range, not finite, repeated, empty, of other words."""
    default, found = parameter.default, parameter.range
    text, number = st.text(max_size=8), st.floats(allow_nan=True)
    if isinstance(default, bool):
        return st.one_of(st.integers(), number, text, st.none())
    if isinstance(default, list):
        item = wrong_items(stem, parameter)
        good = default or [0]
        empty = [st.just([])] if default else []
        return st.one_of(item.map(lambda it: [it]), st.just([good[0], good[0]]), item, *empty)
    words = found.choices()
    if isinstance(default, str):
        free = st.sampled_from(["a\0b", "two\nlines", "\ud800", "x" * 9000])
        other = [text.filter(lambda it: it not in words)] if words else []
        return st.one_of(st.integers(), number, st.none(), st.lists(text, max_size=2), free, *other)
    return wrong_items(stem, parameter)


def wrong_items(stem, parameter):
    default, found = parameter.default, parameter.range
    words, whole = found.choices(), isinstance(default, int) or isinstance(default, list)
    text = st.text(alphabet="abcxyz² []", min_size=1, max_size=8).filter(lambda it: it not in words)
    if not found.text:
        return (
            st.one_of(text, st.floats(min_value=1.5, max_value=9e9), st.none())
            if words or found.one_of
            else text
        )
    low, high = bounds(stem, parameter)
    outside = [st.integers(max_value=math.ceil(low) - 1), st.integers(min_value=math.floor(high) + 1)]
    broken = st.sampled_from([math.nan, math.inf, -math.inf, -1e-9, 10**400, True, None, {}, [[]]])
    fraction = (
        [st.floats(0.1, 0.9).map(lambda it: math.floor(low) + it)]
        if whole and float(low).is_integer()
        else []
    )
    keep = [] if stem == "03_digits" and parameter.name == "shares" else fraction
    return st.one_of(text, *outside, broken, *keep)


@each
@settings(max_examples=TRIED, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_wrong_value_is_one_line_that_names_the_parameter(stem, parameter, data):
    value = data.draw(wrong_values(stem, parameter))
    with pytest.raises(InputError) as caught:
        check_parameters(KNOWN[stem], {parameter.name: value})
    message = str(caught.value)
    assert message.startswith(f"`{parameter.name}`: ") and "\n" not in message and len(message) < 400


def test_a_thousand_are_tried():
    assert len(ALL) * TRIED >= 1000


@pytest.mark.parametrize("stem", KNOWN)
def test_every_range_is_declared_and_holds_the_default(stem):
    known = KNOWN[stem]
    for name, parameter in known.items():
        assert parameter.range.declared or isinstance(parameter.default, bool) or name in FREE, name
        assert parameter.range.parameters - {parameter.range.low, parameter.range.high} <= known.keys(), name
    check_parameters(known, {name: parameter.default for name, parameter in known.items()})


@pytest.mark.parametrize("stem", KNOWN)
def test_both_ends_of_a_range_are_inside_it_or_not_as_its_brackets_say(stem):
    for parameter in KNOWN[stem].values():
        found, default = parameter.range, parameter.default
        sample = (default or [0])[0] if isinstance(default, list) else default
        alone = {name: it for name, it in KNOWN[stem].items() if parameter.name not in it.range.parameters}
        for bracket, end in zip(
            found.text[:1] + found.text[-1:], bounds(stem, parameter), strict=bool(found.text)
        ):
            value = int(end) if isinstance(sample, int) else end
            given = {parameter.name: [value] if isinstance(default, list) else value}
            if bracket in "[]":
                assert parameter.name in check_parameters(
                    alone, given | dict.fromkeys({found.unlike} - {""}, 5)
                )
            else:
                with pytest.raises(InputError, match=parameter.name):
                    check_parameters(alone, given)


@pytest.mark.parametrize(
    "comment, text, words, said",
    [
        ("px, in [1, size]", "[1, size]", (), "a number in [1, size] (size is 12)"),
        ("in (0, 0.5]", "(0, 0.5]", (), "a number in (0, 0.5]"),
        ('in [1, 9] or "auto"', "[1, 9]", ("auto",), 'a number in [1, 9] or "auto"'),
        ('as ever, one of "a" (mean, or so), "b"', "", ("a", "b"), 'one of "a", "b"'),
        ('some of "a", "b"', "", ("a", "b"), 'some of "a", "b"'),
        ("one of many words (8x8, offline)", "", (), "any"),
        ("frames in a sequence", "", (), "any"),
    ],
)
def test_comments_are_read(comment, text, words, said):
    found = read_range(comment)
    assert (found.text, found.words, found._said({"size": 12})) == (text, words, said)


def test_words_of_the_package_are_looked_up_where_they_stand():
    from absence_utils.attribution import METHODS

    assert read_range("of the maps, one of attribution.METHODS").choices() == METHODS


def test_a_bound_that_is_a_parameter_moves_with_it():
    with pytest.raises(
        InputError, match=r"`patch`: 6 is out of range. Use a number in \[1, size\] \(size is 4\)"
    ):
        check_parameters(KNOWN["01_reichardt_detector"], {"size": 4})
    check_parameters(KNOWN["01_reichardt_detector"], {"size": 4, "patch": 4})


def test_parameters_that_must_agree():
    with pytest.raises(InputError, match="`share`: 0.24 is not among them. Use one of shares"):
        check_parameters(KNOWN["03_digits"], {"shares": [0.1]})
    with pytest.raises(InputError, match="`source`: 3 is that of unit"):
        check_parameters(KNOWN["03_digits"], {"source": 3})
    with pytest.raises(InputError, match="`methods`: .* names one twice"):
        check_parameters(KNOWN["05_non_target_attribution"], {"methods": "deeplift deeplift"})
    assert check_parameters(KNOWN["05_non_target_attribution"], {"steps": "auto"}) == {"steps": "auto"}


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_every_profile_is_within_the_ranges(path):
    for file in sorted((path.parent / "profiles").glob(f"{path.stem}.*.yaml")):
        check_parameters(notebook_parameters(path), read_profile(path, file.name.split(".")[1]))


def test_a_run_without_the_runner_is_checked_too(monkeypatch, tmp_path):
    parameters = {name: it.default for name, it in KNOWN["10_your_model"].items()}
    with pytest.raises(InputError, match="`effort`: 'much' is not known"):
        record.start_run("10_your_model", parameters | {"effort": "much"})
    record.start_run("10_your_model", parameters | {"layer": None, "images": object()})  # the cell runs again
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["k = 1  # in [1, 2]"]}
    (tmp_path / "own.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="`k`: 3 is out of range"):
        record.start_run("own", {"k": 3})
