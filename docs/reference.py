"""The API reference: the public names first, then every module, in the order in which data flows through them."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from pathlib import Path

from links import ROOT

import absence_utils

PACKAGE = ROOT / "absence_utils"


@dataclass(frozen=True)
class Group:
    """One page of the reference: modules that belong together."""

    name: str
    title: str
    modules: str  # names or patterns with spaces between them
    says: str


GROUPS = (
    Group("data", "Data", "datasets scenes glyphs images image_cache decoding",
          "Moving bars, green pixels, digits, concept scenes with a known answer, and folders of images."),
    Group("networks", "Networks", "models networks training xdnn heads compiled nulls",
          "Networks by name, the small ones of the notebooks, networks without biases, and networks wired by hand."),
    Group("units", "Units", "units", "Address a unit and read its signed response."),
    Group("synthesis", "Objectives and synthesis", "objectives visualize synthesis",
          "The image that drives a unit highest beside the one that drives it lowest."),
    Group("attribution", "Attribution",
          "attribution separate screening interventions toys regions faithfulness diagnosis",
          "Signed maps on target and on non-target inputs, and tests of whether they are right about absence."),
    Group("patches", "Extreme patches",
          "patches patch_book patch_tables selection sketch book_files shards rearrange",
          "The highest and the lowest patches of all units in one pass over the images."),
    Group("insertion", "Insertion",
          "insertion insertion_design insertion_runs protocols scores verdicts pooling",
          "Paste patches into images and measure what that does to a unit, against controls."),
    Group("statistics", "Statistics", "stats", "Intervals and tests for what is not independent."),
    Group("benchmark", "Benchmark",
          "scenes_benchmark benchmark_methods benchmark_networks benchmark_gallery",
          "With planted ground truth: which method finds which absence."),
    Group("debiasing", "Debiasing",
          "shortcuts artefacts isic debias debias_training debias_study debias_tables debias_examples",
          "Data with a shortcut, and objectives that unlearn it."),
    Group("figures", "Figures", "plots.base plots.toys plots.synthesis plots.maps plots.patches plots.insertion "
          "plots.debias plots.benchmark", "Figures from arrays and tables; no science in here."),
    Group("running", "Running and recording", "record run parameters errors paths compare tolerances compare_report",
          "Strict runs of notebooks, and figures with their numbers and their provenance."),
    Group("exercises", "Exercises", "exercises.*", "What the check cells of the exercises ask."),
)  # fmt: skip
MORE = ("more", "More modules", "What is in none of the groups before.")


def all_modules() -> list[str]:
    """Names of the public modules, `plots.maps` for one of the subpackage."""
    paths = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/*.py")]
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    return sorted(name for name in names if not name.split(".")[-1].startswith("_"))


def grouped() -> list[Group]:
    """The groups with modules that exist; those that no group names stand in a last one."""
    there = all_modules()
    groups = [
        replace(
            g, modules=" ".join(m for pattern in g.modules.split() for m in fnmatch.filter(there, pattern))
        )
        for g in GROUPS
    ]
    named = {module for group in groups for module in group.modules.split()}
    rest = " ".join(module for module in there if module not in named)
    name, title, says = MORE
    return [group for group in [*groups, Group(name, title, rest, says)] if group.modules]


def label(module: str) -> str:
    """Name of a module as the target of a link."""
    return "api-" + module.replace(".", "-").replace("_", "-")


def module_places() -> dict[str, str]:
    """Link target of every module by its path in the repository."""
    places = {f"absence_utils/{m.replace('.', '/')}.py": f"#{label(m)}" for m in all_modules()}
    return {**places, "absence_utils/plots": f"#{label('plots.base')}", "absence_utils": "api/index.md"}


def write_reference(source: Path) -> None:
    """Write the pages of the reference into `api/` of the source folder."""
    folder, groups = source / "api", grouped()
    folder.mkdir()
    (folder / "index.md").write_text(_index(groups))
    for group in groups:
        (folder / f"{group.name}.md").write_text(_page(group))


def _index(groups: list[Group]) -> str:
    entries = [_entry(name) for name in absence_utils.__all__]
    rows = [
        f"- [{group.title}]({group.name}.md): {group.says}\n  "
        + ", ".join(f"[`{module}`](#{label(module)})" for module in group.modules.split())
        for group in groups
    ]
    return "\n".join(
        [
            "# API reference",
            "",
            "The names that `from absence_utils import ...` gives come first. Behind them are the modules, in the "
            "order in which data flows through them. Arrays and tensors are described by their axes in square "
            "brackets, as `[batch, channel, height, width]`. Responses and maps keep their sign: positive speaks "
            "for a unit, negative against it.",
            "",
            "```{toctree}\n:hidden:\n",
            *[group.name for group in groups],
            "```",
            "",
            "## Public names",
            "",
            "```{eval-rst}",
            *entries,
            "```",
            "",
            "## Modules",
            "",
            *rows,
            "",
        ]
    )


def _home(name: str) -> str:
    """Module that defines a public name: "absence_utils.patch_book" for PatchBook."""
    return getattr(absence_utils, name).__module__


def _entry(name: str) -> str:
    members = "   :members:\n" * (_kind(name) == "class")
    return f".. auto{_kind(name)}:: {_home(name)}.{name}\n{members}"


def _kind(name: str) -> str:
    public = getattr(absence_utils, name)
    if not isinstance(public, type):
        return "function"
    return "exception" if issubclass(public, BaseException) else "class"


def _page(group: Group) -> str:
    parts = [f"# {group.title}", "", group.says, ""]
    for module in group.modules.split():
        public = [name for name in absence_utils.__all__ if _home(name) == f"absence_utils.{module}"]
        parts += [f"({label(module)})=", f"## `{module}`", "", "```{eval-rst}"]
        parts += [f".. automodule:: absence_utils.{module}", "   :members:", "   :ignore-module-all:"]
        parts += [f"   :exclude-members: {', '.join(public)}"] * bool(public) + ["```", ""]
        if public:
            links = ", ".join(f"{{py:obj}}`{name} <absence_utils.{module}.{name}>`" for name in public)
            parts += [f"Among the [public names](index.md): {links}.", ""]
    return "\n".join(parts)
