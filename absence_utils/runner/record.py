"""The record: one seeded start for a run, figures with their numbers and their provenance."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from absence_utils.errors import InputError, require_choice
from absence_utils.files import file_hash, files_read, forget_files, write_atomically
from absence_utils.paths import NOTEBOOKS, RESULTS, ROOT

from .parameters import check_parameters, notebook_parameters

LIBRARIES = """captum matplotlib numpy pandas papermill pillow safetensors scikit-learn scipy seaborn
torch torch-lucent torchvision""".split()
DPI = 200  # figures are drawn for 7.5 inches of width: 1500 pixels
VECTOR = {  # formats for print, and what would differ between two runs
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}


@dataclass(frozen=True)
class Run:
    """One run of a notebook or script: what the record says about it."""

    name: str  # of the notebook or script
    seed: int = 0  # of Python's, NumPy's and torch's generators
    device: torch.device = torch.device("cpu")  # where networks run
    threads: int = 1  # for one tensor operation
    parameters: dict = field(default_factory=dict)  # see `run_parameters`
    notes: list[str] = field(default_factory=list)  # what became of the images


_current: Run | None = None  # save_figure is called far from start_run and must know the run


def resolve_device(device: str = "auto") -> torch.device:
    """Device by name: "cpu", "cuda", "cuda:1", or "auto" for CUDA where there is one, otherwise the CPU.

    Raises:
        InputError: unknown name, or a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device  # torch finds out what is there
    except (AssertionError, RuntimeError, TypeError):
        found = None
    if found is None or found.type == "meta":
        problem = f"{device!r} is not a device of this machine"
        raise InputError("device", problem, "Use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    return found


def start_run(name: str, namespace: dict | None = None, *, seed: int = 0, device: str = "auto") -> Run:
    """Begin a run: seed every generator, fix the threads, choose the device, remember the parameters.

    One thread unless OMP_NUM_THREADS says otherwise: synthesised pictures differ between thread counts.
    Denormal numbers are flushed to zero, since they slow a CPU down several times.

    Args:
        name: name of the notebook or script.
        namespace: `vars()` of a notebook; of anything else a dict of its parameters, see `run_parameters`.
        seed: for Python, NumPy and torch.
        device: see `resolve_device`.

    Raises:
        InputError: the seed is not a whole number from 0 to 2**32 - 1, OMP_NUM_THREADS is not a number of
            threads, the device is absent, or a parameter lies outside the range that the notebook declares.

    Example:
        >>> from absence_utils import start_run
        >>> steps = 16
        >>> run = start_run("my_script", {"steps": steps}, seed=3, device="cpu")
        >>> run.seed, run.device
        (3, device(type='cpu'))
    """
    global _current
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError("seed", f"{seed!r} is not a whole number from 0 to 2**32 - 1", "Use 0, for example.")
    _check_ranges(name, namespace or {})
    chosen, threads = resolve_device(device), _thread_count()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = False  # it chooses algorithms by their speed of the moment
    torch.backends.cudnn.deterministic = True
    forget_files()
    _current = Run(name, seed, chosen, threads, run_parameters(name, namespace or {}))
    return _current


def _thread_count() -> int:
    asked = os.environ.get("OMP_NUM_THREADS") or "1"
    if not asked.isdecimal() or int(asked) < 1:
        raise InputError("OMP_NUM_THREADS", f"{asked!r} is not a number of threads", "Use 1 or unset it.")
    return int(asked)


def run_parameters(name: str, namespace: dict) -> dict:
    """Parameters for the record: the names of the notebook's parameters cell, with their values in this run.

    Constants that the notebook imports are none, nor is what an earlier notebook left in the kernel. The notebook is
    the one that the runner executes, or NAME.ipynb in the current folder or in notebooks/. Where there is none, as for
    a script, every literal of `namespace` is recorded that has a public name: pass a dict to say which.
    """
    notebook = _notebook_file(name)
    public = [key for key in namespace if not key.startswith("_") and key not in ("In", "Out")]
    named = notebook_parameters(notebook) if notebook else public
    values = {key: namespace[key] for key in sorted(named) if key in namespace}
    return {key: _anonymise_paths(value) for key, value in values.items() if _is_literal(value)}


def _check_ranges(name: str, namespace: dict) -> None:
    """Check the parameters of a notebook as the runner does: plain papermill and Jupyter do not.

    What the notebook itself made of a parameter, should its first cell run again, is no parameter any more.
    """
    if notebook := _notebook_file(name):
        known = notebook_parameters(notebook)
        given = {key: namespace[key] for key in known if namespace.get(key) is not None}
        check_parameters(known, {key: value for key, value in given.items() if _is_literal(value)})


def _notebook_file(name: str) -> Path | None:
    executed, file = Path(os.environ.get("ABSENCE_NOTEBOOK", "")), f"{name}.ipynb"
    paths = [path for path in (executed, Path(file), *NOTEBOOKS.rglob(file)) if path.name == file]
    return next((path for path in paths if path.is_file()), None)


def _is_literal(value) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _anonymise_paths(value):
    """Shorten absolute paths to their last two parts: the record says which data, not whose machine."""
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        return "/".join([".../", *Path(value).parts[-2:]]).replace("//", "/")
    if isinstance(value, (list, tuple)):
        return [_anonymise_paths(item) for item in value]
    if isinstance(value, dict):
        return {key: _anonymise_paths(item) for key, item in value.items()}
    return value


def output_folder() -> Path:
    """Where results go: ABSENCE_OUT if set, otherwise results/ of the checkout, otherwise ./results."""
    if os.environ.get("ABSENCE_OUT"):
        return Path(os.environ["ABSENCE_OUT"])
    return RESULTS if NOTEBOOKS.is_dir() else Path("results")


def save_figure(
    fig, name: str, numbers: pd.DataFrame | None = None, inputs: dict[str, str | Path] | None = None
) -> Path:
    """Write a figure as NAME.png with the numbers it shows as NAME.csv and its provenance as NAME.json.

    ABSENCE_FORMATS="pdf svg" in the environment writes it in these formats, too, with text that can be edited in PDF.
    Picture and numbers are byte-identical between two runs on one machine; the time stands in the JSON alone.
    No file is ever half written. Where they go is configuration, see `output_folder`.

    Args:
        fig: matplotlib figure.
        name: name of the figure without folder and extension, beginning with the notebook's number.
        numbers: the numbers drawn, one row per observation. The index is written if it carries information.
        inputs: fingerprints (sha256) of the data used, or paths of files, which are hashed here.

    Returns:
        Path of the PNG, at 200 pixels per inch.

    Raises:
        InputError: the name is not a plain name, or ABSENCE_FORMATS asks for a format that is none.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> import pandas as pd
        >>> from absence_utils import save_figure
        >>> figure, ax = plt.subplots()
        >>> _ = ax.plot([1, 2, 4])
        >>> save_figure(figure, "00_example", pd.DataFrame({"value": [1, 2, 4]})).name
        '00_example.png'
        >>> plt.close(figure)
    """
    if not re.fullmatch(r"\w[\w-]*", name):
        raise InputError("name", f"{name!r} is not a plain name", "Use letters, digits, - and _ only.")
    contents = {f".{kind}": _picture(fig, kind) for kind in ("png", *_more_formats())}
    if numbers is not None:
        contents[".csv"] = _csv(numbers)
    contents[".json"] = json.dumps(_provenance(name, inputs or {}, contents), indent=1).encode() + b"\n"
    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if numbers is None:
        (folder / f"{name}.csv").unlink(missing_ok=True)  # numbers of an earlier figure are not this one's
    for kind in VECTOR.keys() - _more_formats():
        (folder / f"{name}.{kind}").unlink(missing_ok=True)  # nor is its drawing
    for suffix, content in contents.items():
        write_atomically(folder / f"{name}{suffix}", content)
    return folder / f"{name}.png"


def _more_formats() -> set[str]:
    """Formats for print that ABSENCE_FORMATS asks for beside PNG."""
    asked = set(os.environ.get("ABSENCE_FORMATS", "").lower().replace(",", " ").split()) - {"png"}
    for kind in sorted(asked):
        require_choice("ABSENCE_FORMATS", kind, list(VECTOR))
    return asked


def _picture(fig, kind: str) -> bytes:
    """The figure in one format, the same bytes each time: no version of matplotlib in it, no time, no random names."""
    picture = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "absence", "pdf.fonttype": 42}):
        fig.savefig(picture, format=kind, dpi=DPI, metadata=VECTOR.get(kind, {"Software": None}))
    return picture.getvalue()


def save_table(table: pd.DataFrame, name: str) -> Path:
    """Write a table beside the figures, as CSV in their format; `name` is that of the file, "08_images.csv".

    Raises:
        InputError: the name is not that of a CSV file.
    """
    if not re.fullmatch(r"\w[\w-]*\.csv", name):
        remedy = "Use letters, digits, - and _, and .csv."
        raise InputError("name", f"{name!r} is not the name of a CSV file", remedy)
    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, _csv(table))
    return folder / name


def _csv(numbers) -> bytes:
    """Table as CSV with nine significant digits: enough to tell two float32 apart, short enough to read."""
    table = pd.DataFrame(numbers)
    objects = table.select_dtypes("object").columns  # pandas formats floats only in columns of floats
    table = table.assign(**{column: table[column].map(_stable) for column in objects})
    default_index = isinstance(table.index, pd.RangeIndex) and table.index.name is None
    return table.to_csv(index=not default_index, float_format="%.9g", lineterminator="\n").encode()


def _stable(value):
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else value


def _provenance(name: str, inputs: dict, contents: dict[str, bytes]) -> dict:
    """What is needed to make the figure again, and to see whether it is the same one."""
    run = _current or Run("")
    hashes = {key: file_hash(it) if isinstance(it, Path) else str(it) for key, it in inputs.items()}
    return {
        "figure": name,
        "notebook": run.name,
        "profile": os.environ.get("ABSENCE_PROFILE", ""),
        "parameters": run.parameters,
        "seed": run.seed,
        "device": _device_name(run.device),
        "threads": run.threads,
        "inputs": hashes,
        "weights files": files_read(),
        "notes": list(run.notes),
        "outputs": {f"{name}{suffix}": hashlib.sha256(data).hexdigest() for suffix, data in contents.items()},
        "git": git_state(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "platform": f"{platform.system()} {platform.machine()}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def about_run(inputs: dict[str, str | Path] | None = None) -> dict[str, str]:
    """The current run in words, for pages that carry their provenance with them: what `save_figure` writes as JSON."""
    found = _provenance("", inputs or {}, {})
    git = found["git"] or {}
    commit = git.get("commit", "")[:12] + (", changed since" if git.get("dirty") else "")
    about = {
        "made by": " ".join(part for part in (found["notebook"], found["profile"]) if part),
        **{
            f"{name}, sha256": value[:16]
            for name, value in (found["inputs"] | found["weights files"]).items()
        },
        "parameters": ", ".join(f"{name}: {value}" for name, value in found["parameters"].items()),
        "notes": " ".join(found["notes"]),
        "seed, threads": f"{found['seed']}, {found['threads']}",
        "device": f"{found['device']}, {found['platform']}",
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "commit": commit,
        "time": found["time"],
    }
    return {name: value for name, value in about.items() if value}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {torch.backends.cpu.get_cpu_capability()}"  # the instruction set changes the last bits


def git_state(folder: Path = ROOT) -> dict | None:
    """Commit of the checkout and whether tracked files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(folder)]  # notebooks run side by side
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.check_output([*git, *describe], stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")}
