"""Parameters of a notebook: what it has, what a profile or the command line sets, and whether the two fit."""

from __future__ import annotations

import ast
import io
import json
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import yaml
from pydantic import BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from absence_utils.errors import InputError, brief, require_choice

from .ranges import Range, read_range

PARAMETER_TAGS = {"parameters", "more-parameters"}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: name, default, and the comment behind it."""

    name: str
    default: object
    comment: str = ""

    @property
    def range(self) -> Range:
        """The values that it may have, see `ranges`."""
        return read_range(self.comment)


def read_parameters(notebook: dict) -> dict[str, Parameter]:
    """Parameters of a notebook: the literals that its two cells of parameters assign, with their comments.

    Those that are changed often are in the cell tagged `parameters`. The others are in a folded cell tagged
    `more-parameters`, which stands before it, so that what papermill sets comes after both.

    Raises:
        InputError: a line that is not an assignment of a literal to a name.
    """
    source = _parameters_cell(notebook)
    return {name: Parameter(name, *found) for name, found in _literals(source).items()}


def notebook_parameters(path: Path | str) -> dict[str, Parameter]:
    """Parameters of the notebook in a file, without the libraries that read notebooks.

    Raises:
        InputError: as `read_parameters`.
    """
    return read_parameters(json.loads(Path(path).read_text(encoding="utf-8")))


def _parameters_cell(notebook: dict) -> str:
    tagged = [it for it in notebook["cells"] if PARAMETER_TAGS & set(it["metadata"].get("tags", []))]
    return "\n".join("".join(cell["source"]) for cell in tagged)


def _literals(source: str) -> dict[str, tuple[object, str]]:
    """Value of each name that the source assigns, and the comment behind it; values may run over lines."""
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        problem = f"its parameters cell is no Python: {first_line(error)}"
        raise InputError("notebook", problem, "Write `name = value` lines.") from None
    words = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {word.start[0]: word.string.lstrip("# ") for word in words if word.type == tokenize.COMMENT}
    found = {}
    for line in lines:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                name, value = "", line
        try:
            found[name] = ast.literal_eval(value), comments.get(line.end_lineno, "").strip()
        except (TypeError, ValueError):
            problem = f"its parameters cell has a line that assigns no literal: {ast.unparse(line)}"
            raise InputError("notebook", problem, "Move it to the next cell.") from None
    return found


def profile_path(notebook: Path, profile: str) -> Path:
    """Where a profile is, or would be: in profiles/ beside the notebook, or where its own path says."""
    if profile.endswith((".yaml", ".yml")):
        return Path(profile)
    return notebook.parent / "profiles" / f"{notebook.stem}.{profile}.yaml"


def read_profile(notebook: Path, profile: str) -> dict:
    """Parameters set by a profile: `profiles/NAME.PROFILE.yaml` beside the notebook, or any YAML file.

    Raises:
        InputError: no such profile, with a list of those that exist; or not a mapping.
    """
    path = profile_path(notebook, profile)
    if not os.path.isfile(path):  # no error for what is no path
        there = (notebook.parent / "profiles").glob(f"{notebook.stem}.*.yaml")
        names = sorted(file.name.split(".")[1] for file in there)
        require_choice("profile", profile, [*names, "the path of a .yaml file"])
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (
        OSError,
        ValueError,
        RecursionError,
        yaml.YAMLError,
    ) as error:  # also not UTF-8, or nested too deep
        problem = f"{brief(str(path))} cannot be read: {first_line(error)}"
        raise InputError("profile", problem, "Write `name: value` lines.") from None
    if not isinstance(values, dict):
        remedy = "Write one `name: value` line for each parameter."
        raise InputError("profile", f"{path} is not a mapping", remedy)
    return values


def parse_value(text: str, default):
    """Value typed on the command line: YAML, except that text stays text where the notebook has text.

    So `-p layer features.7`, `-p images 2024` and `-p dataset no` are what they look like.
    """
    if isinstance(default, str) and not text.startswith(("'", '"')):
        return text
    try:
        return yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):  # a date that is none, brackets without end
        return text


def check_value(name: str, value, default):
    """Value of the type of the notebook's default; whole numbers pass as numbers.

    Lists are checked item by item against the types of the default's items; None as default takes anything.

    Returns:
        The value, as the type of the default.

    Raises:
        InputError: wrong type; names the parameter, what is expected and what was found.
    """
    try:
        return TypeAdapter(_type_of(default)).validate_python(value, strict=True)
    except ValidationError as error:
        expected = " or ".join(dict.fromkeys(each["msg"].lower() for each in error.errors()))
        raise InputError(name, f"{expected}, got {brief(value)}", f"The default is {default!r}.") from None


def _type_of(default):
    if isinstance(default, list):
        return list[Union[tuple(_type_of(item) for item in default) or Any]]  # noqa: UP007
    if isinstance(default, float):
        return Annotated[float, BeforeValidator(_as_number), Strict(), Field(allow_inf_nan=False)]
    return Any if default is None else type(default)


def _as_number(value):
    """Number from forms that YAML takes for text, as 1e-3."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def resolve_parameters(known: dict[str, Parameter], profile: dict, typed: list[tuple[str, str]]) -> dict:
    """Parameters of a profile, then those typed with -p, checked against what the notebook has.

    Raises:
        InputError: a name that the notebook does not have (suggests the nearest), a wrong type, or a value out of
            the range that the notebook declares.
    """
    for parameter, names in (
        ("parameter set by the profile", profile),
        ("parameter", [name for name, _ in typed]),
    ):
        for name in names:
            require_choice(parameter, name, known)
    parsed = {name: parse_value(text, known[name].default) for name, text in typed}
    return check_parameters(known, profile | parsed)


def check_parameters(known: dict[str, Parameter], given: Mapping[str, object]) -> dict:
    """Types and ranges of the parameters given, the others at their defaults.

    Returns:
        The parameters given, each of the type of its default.

    Raises:
        InputError: names the first that is wrong.
    """
    ranges = {name: parameter.range for name, parameter in known.items()}
    checked = {name: _typed(known[name], ranges[name], value) for name, value in given.items()}
    values = {name: parameter.default for name, parameter in known.items()} | checked
    for name in known:  # a default may be out of range for what is given: a patch larger than the image
        if name in checked or ranges[name].parameters & checked.keys():
            ranges[name].check(name, values, known[name].default)
    return checked


def _typed(parameter: Parameter, allowed: Range, value: object):
    """The value as the type of the default; an empty list says nothing of its items, their range does."""
    if isinstance(value, str) and value in allowed.words:
        return value
    like = [0 if allowed.text else ""] if parameter.default == [] and allowed.declared else parameter.default
    return check_value(parameter.name, value, like)


def first_line(error) -> str:
    """First line of a message that says something, cut; messages of libraries run over many."""
    return next(
        (line.strip()[:300] for line in str(error).splitlines() if line.strip()), type(error).__name__
    )
