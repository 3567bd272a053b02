"""Build the site, offline: `python site/build.py --results results/default`.

The notebooks come from the results of one profile; those that have not been run are shown as they are stored. The
site appears under its name only when it is complete.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from assemble import Site
from links import ROOT

RESULTS = ROOT / "results"


def build(results: Path, out: Path, atlas: Path) -> int:
    """Build the site into `out`, replacing what is there.

    Args:
        results: results of one profile, `results/default`; need not exist.
        out: folder of the site.
        atlas: folder of the atlas, copied to `atlas/` of the site when it is there.

    Returns:
        Sphinx's exit status; if it is not 0, `out` is as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        source, html = Path(folder, "source"), Path(folder, "html")
        site = Site(source, results.resolve(), atlas)
        site.write()
        status = _sphinx(source, html, Path(folder, "doctrees"))
        if status:
            return status
        if site.atlas:
            shutil.copytree(site.atlas, html / "atlas")
        _prune(html)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(html, out)
    pages = sum(1 for _ in out.rglob("*.html"))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(
        f"{out / 'index.html'}: {pages} pages, {size / 1e6:.0f} MB, "
        f"{site.executed()} of {len(site.notebooks)} notebooks with their results ({site.profile})"
    )
    return 0


def _prune(html: Path) -> None:
    """Leave out what no page loads: maps for debuggers, the theme's templates and translations, Sphinx's notes."""
    unused = ("*.map", "*macros.html", ".buildinfo")
    for path in [path for pattern in unused for path in html.rglob(pattern)]:
        path.unlink(missing_ok=True)
    shutil.rmtree(html / "_static" / "locales", ignore_errors=True)


def _sphinx(source: Path, html: Path, doctrees: Path) -> int:
    environment = {**os.environ, "COMPANION_SITE_STATIC": str(source / "_site_static")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-q",
        "-j",
        "auto",
        "-c",
        str(Path(__file__).parent),
    ]
    command += ["-d", str(doctrees), str(source), str(html)]
    return subprocess.run(command, env=environment).returncode


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "default", help="results of one profile")
    parser.add_argument("--out", type=Path, default=RESULTS / "site", help="folder of the site")
    parser.add_argument(
        "--atlas", type=Path, default=RESULTS / "atlas" / "10_atlas", help="folder of the atlas"
    )
    options = parser.parse_args(arguments)
    return build(options.results, options.out, options.atlas)


if __name__ == "__main__":
    sys.exit(main())
