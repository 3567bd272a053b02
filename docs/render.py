"""Fill the numbers into a text: `python site/render.py` writes README.md from site/README.template.md.

A template is Jinja2 with a few functions that read data/reference (the default run, see `make compare`), data/measured
(benchmarks, real images, times) and the parameters of the notebooks. What is not there, or not there exactly once, is
an error: no number is typed, and none is silently empty.

    {{ cell("03_removal", "rate", fmt=".0%", treatment="random", share=0.24) }}    the only row that has these values
    {{ interval("03_removal", "rate", fmt=".0%", treatment="random", share=0.24) }} and its low and high
    {{ mean("06_known_answer", "excess", "planted < 0", side="lowest") }}    where a query holds; lowest, highest, total
    {{ count("03_class_pairs", treatment="random") }}                        rows
    {{ share("07_verdicts", "vetoed", network="veto units") }}               of rows in which a query holds
    {{ measured("install_minutes", ".0f") }}                                a row of data/measured/numbers.csv
    {{ parameter("06", "stride", "imagenet") }}                             of a notebook under a profile
    {{ seconds("06") }}                                                     of the default run
    {% for row in rows("mining_speed") %}{{ row.layer }}{% endfor %}        every row of a table
    {{ show(row.value, ".2f") }}                                            a value in a format
"""

import numbers
import re
import sys
from functools import cache
from pathlib import Path
from textwrap import TextWrapper

import jinja2
import pandas as pd

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.paths import DATA, ROOT
from absence_utils.runner.parameters import read_parameters, read_profile
from absence_utils.runner.run import find_notebook, read_notebook

TEMPLATE, README = ROOT / "site" / "README.template.md", ROOT / "README.md"
FOLDERS = [DATA / "reference", DATA / "measured"]


def render(text: str, folders: list[Path] | None = None) -> str:
    """Fill in the numbers of a text.

    Args:
        text: Jinja2 template.
        folders: where tables are looked for; data/reference and data/measured if not given.

    Raises:
        InputError: a table, column, row or parameter is not there, or a row is not the only one.
        jinja2.TemplateError: the template is wrong, or uses a name that is not defined.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,
    )  # fmt: skip
    environment.globals.update(_functions([Path(folder) for folder in folders or FOLDERS]))
    return environment.from_string(text).render()


def show(value, fmt: str = "") -> str:
    """A value in a format: two decimals or a whole number if not given, "points" for hundredths; text stays text."""
    if isinstance(value, str):
        return value
    if fmt == "points":
        return f"{100 * value:.0f}"
    whole = isinstance(value, numbers.Integral)
    return format(value, fmt or ("," if whole else ".2f")).replace("%", " %")


def refilled(text: str, width: int = 120) -> str:
    """A text with its paragraphs and list items broken anew, since values are shorter than their expressions.

    Code, tables, headings, pictures and tags stay as they are.
    """
    lines, block, fenced = [], [], False
    for line in [*text.splitlines(), ""]:
        prose = not fenced and re.match(r" *[^\s|#<!`]|`[^`]", line)
        if block and (not prose or re.match(r" *- ", line)):
            lines += _filled(block, width)
            block = []
        fenced ^= line.lstrip().startswith("```")
        (block if prose else lines).append(line)
    return "\n".join(lines)


def _filled(block: list[str], width: int) -> list[str]:
    indent = re.match(r" *(- )?", block[0])[0]
    content = " ".join(line.strip() for line in block).removeprefix("- ")
    whole = r"`[^`]+`|\d %|\[[-+\d., %]+\]"  # code, a number with its unit and an interval are not broken
    content = re.sub(whole, lambda found: found[0].replace(" ", "\0"), content)
    wrap = TextWrapper(
        width, initial_indent=indent, subsequent_indent=" " * len(indent), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\0", " ") for line in wrap.wrap(content)]


def _functions(folders: list[Path]) -> dict:
    """The functions of a template, on the tables of some folders."""

    @cache
    def table(name: str) -> pd.DataFrame:
        found = [folder / f"{name}.csv" for folder in folders if (folder / f"{name}.csv").is_file()]
        if len(found) != 1:
            problem = f"there is {'no' if not found else 'more than one'} table {name!r}"
            raise InputError("table", problem, f"Look in {', '.join(folder.name for folder in folders)}.")
        return pd.read_csv(found[0])

    def chosen(name: str, where: str, equal: dict) -> pd.DataFrame:
        found = table(name)
        for column, value in equal.items():
            _has(name, found, column)
            found = found[found[column] == value]
        try:
            found = found.query(where) if where else found
        except Exception as error:  # pandas raises many kinds
            raise InputError(
                "where", f"{where!r} is no query of {name}: {error}", "See pandas.query."
            ) from None
        return found

    def column(name: str, of: str, where: str, equal: dict) -> pd.Series:
        found = chosen(name, where, equal)
        _has(name, found, of)
        if found.empty:
            raise InputError("where", f"no row of {name} has {where} {equal}", "Look at its values.")
        return found[of]

    def cell(name: str, of: str, /, where: str = "", fmt: str = "", **equal) -> str:
        values = column(name, of, where, equal)
        if len(values) != 1:
            raise InputError("where", f"{len(values)} rows of {name} have {where} {equal}", "Say more.")
        return show(values.iloc[0], fmt)

    def interval(name: str, of: str, /, where: str = "", fmt: str = "", **equal) -> str:
        value, low, high = (cell(name, end, where, fmt, **equal) for end in (of, "low", "high"))
        return f"{value} [{low}, {high}]"

    def reduced(how: str):
        def function(name: str, of: str, /, where: str = "", fmt: str = "", **equal) -> str:
            return show(getattr(column(name, of, where, equal), how)(), fmt)

        return function

    def count(name: str, /, where: str = "", **equal) -> int:
        return len(chosen(name, where, equal))

    def share(name: str, condition: str, /, fmt: str = ".0%", **equal) -> str:
        everything = chosen(name, "", equal)
        if everything.empty:
            raise InputError("where", f"no row of {name} has {equal}", "Look at its values.")
        return show(len(chosen(name, condition, equal)) / len(everything), fmt)

    def measured(name: str, fmt: str = "g") -> str:
        return cell("numbers", "value", f"name == {name!r}", fmt)

    def seconds(number: str) -> str:
        return cell("notebook_seconds", "seconds", f"notebook.str.startswith('{number}_')", ".0f")

    def rows(name: str) -> list[dict]:
        return table(name).to_dict("records")

    aggregates = {"mean": "mean", "lowest": "min", "highest": "max", "total": "sum"}
    readers = {"cell": cell, "interval": interval, "count": count, "share": share, "rows": rows}
    readers |= {name: reduced(how) for name, how in aggregates.items()}
    return readers | {"measured": measured, "seconds": seconds, "parameter": parameter, "show": show}


def _has(name: str, table: pd.DataFrame, column: str) -> None:
    if column not in table:
        raise InputError("column", f"{name} has no {column!r}", f"It has {', '.join(table)}.")


@cache
def parameter(notebook: str, name: str, profile: str = "default"):
    """Value of a parameter of a notebook (name or number) under a profile.

    Raises:
        InputError: no such notebook, profile or parameter.
    """
    path = find_notebook(notebook)
    known = {each.name: each.default for each in read_parameters(read_notebook(path)).values()}
    values = known | read_profile(path, profile)
    if name not in values:
        raise InputError("parameter", f"{path.stem} has no {name!r}", f"It has {', '.join(values)}.")
    return values[name]


def readme(folders: list[Path] | None = None) -> str:
    """README.md as it should be, from its template; `folders` as in `render`."""
    return refilled(render(TEMPLATE.read_text(), folders))


def main() -> int:
    """Write README.md."""
    try:
        write_atomically(README, readme().encode())
    except (InputError, jinja2.TemplateError) as error:
        print(f"error: {TEMPLATE.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
