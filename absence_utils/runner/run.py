"""Run one notebook strictly: `python -m absence_utils.run 06_extreme_patches --profile smoke -p k 4`.

papermill executes it, but papermill only warns of a parameter that does not exist and checks no type. Here
both are errors, and nothing appears in the output folder unless the whole notebook ran and wrote every figure
that its metadata declares (`companion.figures`), with its numbers and its provenance, and every other file that it
declares (`companion.files`).

The notebook runs in the folder where the command is typed: relative paths given with -p mean what they say.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import nbformat

from absence_utils.errors import InputError, brief
from absence_utils.paths import RESULTS
from absence_utils.processes import end_with

from .notebooks import all_notebooks, declared_figures, declared_files, find_notebook, read_notebook
from .parameters import (
    Parameter,
    first_line,
    profile_path,
    read_parameters,
    read_profile,
    resolve_parameters,
)


class NotebookError(RuntimeError):
    """A notebook did not run through; the message is one line for the terminal."""


def run_notebook(notebook: Path, out: Path, parameters: dict, profile: str = "") -> list[Path]:
    """Execute a notebook and, if all went well, put its figures and itself into the output folder.

    Args:
        notebook: path of the notebook.
        out: output folder, made if absent. While the notebook runs, its files lie in a hidden folder in it.
        parameters: checked values, see `resolve_parameters`.
        profile: name for the record.

    Returns:
        Paths of the figures' PNG files, then of the other files that the notebook declares.

    Raises:
        InputError: the output folder cannot be made or written into.
        NotebookError: it did not run through, or did not make what it declares. The output folder is as it was
            before, but for the notebook with its traceback in `failed/`.
    """
    node, name, started = read_notebook(notebook), notebook.stem, time.monotonic()
    figures, files = declared_figures(node), declared_files(node)
    _require_output(out, name, figures, files)
    with _staging(out, name) as staging:
        executed = staging / f"{name}.ipynb"
        told = {"OUT": staging.resolve(), "PROFILE": profile, "NOTEBOOK": notebook.resolve()}
        with _environment(**{f"ABSENCE_{name}": str(value) for name, value in told.items()}):
            try:
                _execute(node, executed, parameters, name)
                _check_products(staging, figures, files, name)
            except NotebookError:
                _keep_failed(executed, out)
                raise
        _publish(staging, out, name)
    _log_step(name, f"done in {time.monotonic() - started:.0f} s")
    return [out / product for product in (*(f"{figure}.png" for figure in figures), *files)]


def _require_output(out: Path, name: str, figures: list[str], files: list[str]) -> None:
    """Make the output folder, and refuse one that could not take the results of hours at the end."""
    products = [
        f"{name}.ipynb",
        *(f"{figure}{suffix}" for figure in figures for suffix in (".png", ".csv", ".json")),
    ]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        taken = [product for product in [*products, *files] if (out / product).is_dir()]
        taken += [
            folder
            for folder in {"failed", *(str(Path(file).parent) for file in files)}
            if (out / folder).is_file()
        ]
    except (OSError, ValueError) as error:  # a file, below a file, read-only, too long, with a NUL in it
        problem = f"{brief(str(out))} cannot be written into ({getattr(error, 'strerror', None) or error})"
        raise InputError("out", problem, "Give a folder, or a path where one can be made.") from None
    if taken:
        what = "folder" if (out / taken[0]).is_dir() else "file"
        problem = f"a {what} in {brief(str(out))} has the name of a result, {taken[0]}"
        raise InputError("out", problem, "Move it away, or give another folder.")


def _execute(node, executed: Path, parameters: dict, name: str) -> None:
    import papermill  # slow to import, and not needed to answer --list or to refuse a parameter
    from papermill.exceptions import PapermillExecutionError

    titles, total = _cell_titles(node), sum(cell.cell_type == "code" for cell in node.cells)
    place = ["before its first cell"]

    def announce(cell, cell_index):
        if cell.id in titles:
            number, title = titles[cell.id]
            place[0] = f"in cell {number} of {total}" + (f" ({title})" if title else "")
            _log_step(name, f"cell {number}/{total}  {title}")

    try:
        papermill.execute_notebook(
            node,
            str(executed).replace("{", "{{").replace("}", "}}"),  # papermill fills in braces
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            extra_arguments=[
                "--IPKernelApp.log_level=CRITICAL",  # its advice on transport is for servers
                f"--IPKernelApp.exec_lines=__import__('absence_utils.processes').processes.end_with({os.getpid()})",
            ],
            on_cell_start=announce,
        )
    except PapermillExecutionError as error:
        if error.ename == "InputError":  # its message says what to do
            raise NotebookError(error.evalue) from None
        raise NotebookError(f"{name}: {error.ename} {place[0]}: {first_line(error.evalue)}") from None
    except Exception as error:  # a kernel that dies (no memory left) or does not start
        raise NotebookError(f"{name}: {type(error).__name__} {place[0]}: {first_line(error)}") from error


def _cell_titles(node) -> dict[str, tuple[int, str]]:
    """Number of each code cell and the first words of the prose before it, by cell id."""
    titles, number, title = {}, 0, ""
    for cell in node.cells:
        if cell.cell_type == "markdown" and cell.source.strip():
            title = shorten(re.sub(r"[#*`_$]", "", first_line(cell.source)), 60, placeholder=" ...")
        elif cell.cell_type == "code":
            number += 1
            titles[cell.id] = number, title
    return titles


def _check_products(staging: Path, figures: list[str], files: list[str], name: str) -> None:
    """Every declared figure is complete, every declared file is there, and no figure is undeclared."""
    wanted = [f"{figure}{suffix}" for figure in figures for suffix in (".png", ".csv", ".json")]
    missing = [product for product in (*wanted, *files) if not (staging / product).is_file()]
    if missing:
        raise NotebookError(f"{name}: ran, but did not write {', '.join(missing)}, which it declares")
    undeclared = sorted({path.stem for path in staging.glob("*.png")} - set(figures))
    if undeclared:
        raise NotebookError(f"{name}: wrote {', '.join(undeclared)}, which its metadata does not declare")


@contextmanager
def _staging(out: Path, name: str):
    """Hidden folder for one run, removed afterwards whatever happens, as are those that a killed run left."""
    host = socket.gethostname()
    for left in out.glob(f".{name}@{host}@*"):
        if not _alive(int(left.name.rsplit("@", 1)[1])):
            shutil.rmtree(left, ignore_errors=True)
    staging = out / f".{name}@{host}@{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


@contextmanager
def _environment(**values: str):
    """Environment that the kernel inherits: quiet, one thread, the same hashing in every run."""
    before = dict(os.environ)
    os.environ.update(values, TQDM_DISABLE="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _keep_failed(executed: Path, out: Path) -> None:
    if executed.is_file():
        (out / "failed").mkdir(exist_ok=True)
        _strip_paths(executed)
        os.replace(executed, out / "failed" / executed.name)


def _strip_paths(executed: Path) -> None:
    """Drop where the notebook lay while it ran: that folder is gone."""
    node = nbformat.read(executed, as_version=4)
    for key in ("input_path", "output_path"):
        node.metadata.get("papermill", {}).pop(key, None)
    nbformat.write(node, executed)


def _publish(staging: Path, out: Path, name: str) -> None:
    """Move a complete run into the output folder, the executed notebook last. No signal interrupts it."""
    _strip_paths(staging / f"{name}.ipynb")
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        for path in sorted(staging.iterdir(), key=lambda path: path.suffix == ".ipynb"):
            if path.is_dir():
                shutil.rmtree(out / path.name, ignore_errors=True)
            os.replace(path, out / path.name)
        (out / "failed" / f"{name}.ipynb").unlink(missing_ok=True)
        if (out / "failed").is_dir() and not any((out / "failed").iterdir()):
            (out / "failed").rmdir()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _log_step(name: str, message: str) -> None:
    print(f"{name:24} {message}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.getLogger("tornado").setLevel(logging.CRITICAL)  # sockets that close when a run is interrupted
    # Cluster managers end a job by SIGTERM: leave as clean as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.end_with:
        end_with(options.end_with, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        if options.list:
            return _print_figures(options)
        path = find_notebook(options.notebook or "")
        known = read_parameters(read_notebook(path))
        if options.parameters:
            return _print_parameters(known)
        values = resolve_parameters(known, read_profile(path, options.profile), options.parameter)
        for product in run_notebook(path, _out(options), values, _profile_name(options)):
            print(_short(product))
    except (InputError, NotebookError) as error:
        print(f"error: {error}", file=sys.stderr)
        failed = _out(options) / "failed"
        if isinstance(error, NotebookError) and failed.is_dir():
            print(f"The notebook with its traceback is in {_short(failed)}.", file=sys.stderr)
        return 1
    except OSError as error:  # no space left, a path that is too long
        print(f"error: {error.strerror or error}: {brief(str(error.filename or ''))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted, nothing written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m absence_utils.run", description=__doc__.split("\n")[0])
    parser.add_argument("notebook", nargs="?", help="name, number or path")
    parser.add_argument("--profile", default="default", help="smoke, default, imagenet, or a YAML file")
    setting = "set a parameter; the value is YAML; may be given several times"
    pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    parser.add_argument("-p", dest="parameter", help=setting, **pair)
    parser.add_argument("--out", help="output folder (default: results/PROFILE of the checkout)")
    parser.add_argument("--list", action="store_true", help="print the path of every product, and stop")
    parser.add_argument(
        "--end-with", type=int, metavar="PID", help="stop when PID, which started it, is gone"
    )
    parser.add_argument("--parameters", action="store_true", help="print the notebook's parameters and stop")
    return parser


def _profile_name(options) -> str:
    """Name of a profile, also when it is given as a file (06_extreme_patches.mine.yaml is "mine")."""
    by_path = options.profile.endswith((".yaml", ".yml"))
    return Path(options.profile).stem.split(".")[-1] if by_path else options.profile


def _out(options) -> Path:
    return Path(options.out) if options.out else RESULTS / _profile_name(options)


def _short(path: Path) -> str:
    """Path as seen from here where it lies below, otherwise in full."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_figures(options) -> int:
    """One line per figure; of all notebooks those that have the profile."""
    paths = [find_notebook(options.notebook)] if options.notebook else all_notebooks()
    if not options.notebook:
        paths = [path for path in paths if profile_path(path, options.profile).is_file()]
    for path in paths:
        node = read_notebook(path)
        pictures = [f"{figure}.png" for figure in declared_figures(node)]
        for product in [_out(options) / name for name in (*pictures, *declared_files(node))]:
            print(_short(product) + ("" if product.is_file() else "  (not made yet)"))
    return 0


def _print_parameters(known: dict[str, Parameter]) -> int:
    for parameter in known.values():
        line, comment = f"{parameter.name} = {parameter.default!r}", parameter.comment
        if parameter.range.listed:  # a name of the package stands for words that can be typed
            words = ", ".join(f'"{word}"' for word in parameter.range.choices())
            comment = comment.replace(parameter.range.listed, words)
        print(f"{line:40}  # {comment}" if comment else line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
