"""Parameters of a notebook: what it has, what a profile or the command line sets, and whether the two fit."""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from absence_utils.errors import InputError

TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
EXAMPLES = {bool: "true", int: "3", float: "0.5", str: "word", list: "'[1, 2]'", dict: "'{a: 1}'"}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: name, default, and the comment behind it."""

    name: str
    default: object
    comment: str = ""


def read_parameters(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """Parameters of a notebook: the literals assigned in its cell tagged `parameters`, with their comments.

    Raises:
        InputError: a line that is not an assignment of a literal to a name.
    """
    source = "\n".join(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for line in ast.parse(source).body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        try:
            found[target.id] = Parameter(
                target.id, ast.literal_eval(line.value), comments.get(line.end_lineno, "")
            )
        except (AttributeError, ValueError):
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
    if not path.is_file():
        files = (notebook.parent / "profiles").glob(f"{notebook.stem}.*.yaml")
        names = sorted(file.name.split(".")[1] for file in files)
        problem = f"{notebook.stem} has no profile {profile!r}"
        raise InputError(
            "profile", problem, f"{suggest(profile, names)}There are: {', '.join(names) or 'none'}."
        )
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(
            "profile", f"{path} is not YAML: {first_line(error)}", "Write `name: value` lines."
        ) from None
    if not isinstance(values, dict):
        raise InputError(
            "profile", f"{path} is not a mapping", "Write one `name: value` line for each parameter."
        )
    return values


def parse_value(text: str, default):
    """Value typed on the command line: YAML, except that text stays text where the notebook has text.

    So `-p layer features.7`, `-p images 2024` and `-p dataset no` are what they look like.
    """
    if isinstance(default, str) and not text.startswith(("'", '"')):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def check_value(name: str, value, default):
    """Value of the type of the notebook's default; whole numbers pass as numbers.

    Lists are checked item by item against the types of the default's items; None as default takes anything.

    Returns:
        The value, as the type of the default.

    Raises:
        InputError: wrong type; names the parameter, what is expected and how to write it.
    """
    kind = type(default)
    if kind is float:
        value = _as_float(value)
    if default is None or type(value) is kind and kind is not list:
        return value
    if kind is list and type(value) is list:
        return [_check_item(name, item, default) for item in value]
    expected = TYPE_NAMES.get(kind, kind.__name__)
    remedy = f"Write for example `-p {name} {EXAMPLES.get(kind, default)}`; the default is {default!r}."
    raise InputError(name, f"expected {expected}, got {value!r}", remedy)


def _as_float(value):
    """Number from a whole number or from forms that YAML takes for text, as 1e-3."""
    if type(value) is int:
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_item(name: str, item, default: list):
    """Item of a list, of the type of one of the default's items; an empty default allows any type."""
    for example in default:
        try:
            return check_value(name, item, example)
        except InputError:
            continue
    if not default:
        return item
    expected = " or ".join(dict.fromkeys(TYPE_NAMES.get(type(example), "") for example in default))
    raise InputError(
        name, f"expected a list of items that are {expected}, got {item!r}", f"As in {default!r}."
    )


def resolve_parameters(known: dict[str, Parameter], profile: dict, typed: list[tuple[str, str]]) -> dict:
    """Parameters of a profile, then those typed with -p, checked against what the notebook has.

    Raises:
        InputError: a name that the notebook does not have (suggests the nearest), or a wrong type.
    """
    values = {}
    for name, value, origin in [
        *((name, value, " (set by the profile)") for name, value in profile.items()),
        *((name, text, "") for name, text in typed),
    ]:
        if name not in known:
            remedy = f"{suggest(str(name), list(known))}It has: {', '.join(known) or 'none'}."
            raise InputError(str(name), f"the notebook has no such parameter{origin}", remedy)
        default = known[name].default
        values[name] = check_value(name, value if origin else parse_value(value, default), default)
    return values


def suggest(name: str, names: list[str]) -> str:
    """Sentence that suggests the names most like a misspelt one, or nothing."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def first_line(error) -> str:
    """First line of a message that says something; messages of libraries run over many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
