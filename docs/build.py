"""Build these pages, offline: `python docs/build.py --results results/default`.

Notebooks and the atlas come from the results of one profile; notebooks that have not been run are shown as they are
stored. The pages appear under their name only when they are complete and Sphinx warned of nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from hero import hero_html
from notebook_pages import ROOT, write_page

DOCS = ROOT / "docs"
HERO = "<!-- The digit with its slider stands here. -->"  # in index.md
HOW_MEASURED = ["command", "machine", "date"]  # columns of data/measured that a page says in words


def assemble(source: Path, results: Path) -> int:
    """Put Sphinx's source folder together: pages, notebooks, and the tables and pictures that pages show.

    Links of a page count from docs/ as they do on GitHub; in here notebooks, pictures and tables stand beside it.

    Args:
        source: folder that is made.
        results: results of one profile, `results/default`; need not exist.

    Returns:
        How many notebooks have results.
    """
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("*.py", "*.yaml", "__pycache__"))
    shutil.copytree(ROOT / "static", source / "static")
    for path in (ROOT / "data" / "measured").glob("*.csv"):
        (source / "data" / "measured").mkdir(parents=True, exist_ok=True)
        table = pd.read_csv(path, dtype=str).drop(columns=HOW_MEASURED)
        table.columns = table.columns.str.replace("_", " ")
        table.to_csv(source / "data" / "measured" / path.name, index=False)
    (source / "data" / "reference").mkdir()
    for path in (ROOT / "data" / "reference").glob("*.csv"):
        table = pd.read_csv(path)
        table.to_csv(source / "data" / "reference" / path.name, index=False, float_format="%.3g")
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    executed = sum(write_page(path, results, source) for path in notebooks)
    for path in sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb")):
        write_page(path, results, source)
    entry = Path("notebooks", "exercises", "README.md")
    (source / entry).write_text((ROOT / entry).read_text().replace("](../../docs/", "](../../"))
    for page in source.glob("*.md"):
        page.write_text(page.read_text().replace("](../", "](").replace(":file: ../", ":file: "))
    start = source / "index.md"
    digit = hero_html(json.loads((ROOT / "static" / "hero.json").read_text()))
    start.write_text(start.read_text().replace(HERO, f"```{{raw}} html\n{digit}\n```"))
    for page in source.rglob("*.md"):
        page.write_text(_without_lost_links(page.read_text(), page.parent))
    return executed


def _without_lost_links(text: str, folder: Path) -> str:
    """Links to files that are in the repository and not among the pages become their text."""

    def kept(link: re.Match) -> str:
        elsewhere = link[2].startswith(("#", "http"))
        return link[0] if elsewhere or (folder / link[2].split("#")[0]).is_file() else link[1]

    return re.sub(r"(?<!!)\[([^\[\]]+)\]\(([^()\s]+)\)", kept, text)


def build(results: Path, out: Path) -> int:
    """Build the pages into `out`, replacing what is there; if Sphinx's exit status, returned, is not 0, it stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        source, html, atlas = Path(folder, "source"), Path(folder, "html"), results / "10_atlas"
        executed = assemble(source, results.resolve())
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
        command += ["-c", DOCS, "-d", Path(folder, "doctrees"), source, html]
        command += ["-t", "atlas"] * (atlas / "index.html").is_file()
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        status = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}).returncode
        if status:
            return status
        if (atlas / "index.html").is_file():
            shutil.copytree(atlas, html / "atlas")
        for template in html.rglob("*macros.html"):  # of the theme, which copies them by mistake
            template.unlink()
        shutil.rmtree(out, ignore_errors=True)
        os.replace(html, out)
    pages = sum(1 for _ in out.rglob("*.html"))
    print(f"{out / 'index.html'}: {pages} pages, {executed} notebooks with their results ({results.name})")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "default", help="of one profile")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "docs", help="folder of the pages")
    options = parser.parse_args(arguments)
    return build(options.results, options.out)


if __name__ == "__main__":
    sys.exit(main())
