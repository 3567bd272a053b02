"""The record: one seeded start for a run, figures with their numbers and their provenance."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from absence_utils.errors import InputError
from absence_utils.files import file_hash, write_atomically
from absence_utils.paths import NOTEBOOKS, RESULTS, ROOT

LIBRARIES = """captum matplotlib numpy pandas papermill pillow safetensors scikit-learn scipy seaborn
torch torch-lucent torchvision""".split()
# What makes each format differ between two runs, switched off.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Run:
    """One run of a notebook or script: what the record says about it.

    Attributes:
        name: name of the notebook or script.
        seed: seed of Python's, NumPy's and torch's generators.
        device: where networks run.
        threads: threads for one tensor operation.
        parameters: literals found in the caller's namespace.
    """

    name: str
    seed: int = 0
    device: torch.device = torch.device("cpu")
    threads: int = 1
    parameters: dict = field(default_factory=dict)


_current: Run | None = None  # save_figure is called far from start_run and must know the run


def resolve_device(device: str = "auto") -> torch.device:
    """Device by name: "cpu", "cuda", "cuda:1", or "auto" for CUDA where there is one, otherwise the CPU.

    Raises:
        InputError: unknown name, or CUDA asked for but absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise InputError("device", f"{device!r} is not a device", "Use 'auto', 'cpu', 'cuda' or 'cuda:0'.")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "CUDA is asked for but not available here", "Use 'auto' or 'cpu'.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError("device", f"there are only {torch.cuda.device_count()} GPUs", "Count from 'cuda:0'.")
    return chosen


def start_run(name: str, namespace: dict | None = None, *, seed: int = 0, device: str = "auto") -> Run:
    """Begin a run: seed every generator, fix the threads, choose the device, remember the parameters.

    One thread unless OMP_NUM_THREADS says otherwise: synthesised pictures differ between thread counts.
    Denormal numbers are flushed to zero, since they slow a CPU down several times.

    Args:
        name: name of the notebook or script.
        namespace: `vars()` of the caller; its literals are the parameters of the record.
        seed: for Python, NumPy and torch.
        device: see `resolve_device`.

    Raises:
        InputError: the seed is not a whole number from 0 to 2**32 - 1, OMP_NUM_THREADS is not a number of
            threads, or the device is absent.

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
    chosen, threads = resolve_device(device), _thread_count()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = False  # it chooses algorithms by their speed of the moment
    torch.backends.cudnn.deterministic = True
    _current = Run(name, seed, chosen, threads, _literals(namespace or {}))
    return _current


def _thread_count() -> int:
    asked = os.environ.get("OMP_NUM_THREADS") or "1"
    if not asked.isdigit() or int(asked) < 1:
        raise InputError("OMP_NUM_THREADS", f"{asked!r} is not a number of threads", "Use 1 or unset it.")
    return int(asked)


def _literals(namespace: dict) -> dict:
    """JSON-able literals of a namespace, without private names and IPython's own."""
    own = {"In", "Out", "exit", "quit", "get_ipython"}
    found = {}
    for name, value in namespace.items():
        if not name.startswith("_") and name not in own and _is_literal(value):
            found[name] = _anonymise_paths(value)
    return dict(sorted(found.items()))


def _is_literal(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_literal(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_literal(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


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
    fig,
    name: str,
    numbers: pd.DataFrame | None = None,
    inputs: dict[str, str | Path] | None = None,
    *,
    format: str | None = None,
    dpi: float | None = None,
) -> Path:
    """Write a figure as NAME.png with the numbers it shows as NAME.csv and its provenance as NAME.json.

    Picture and numbers are byte-identical between two runs on one machine; the time stands in the JSON alone.
    No file is ever half written. Where they go is configuration, see `output_folder`.

    Args:
        fig: matplotlib figure.
        name: name of the figure without folder and extension, beginning with the notebook's number.
        numbers: the numbers drawn, one row per observation. The index is written if it carries information.
        inputs: fingerprints (sha256) of the data used, or paths of files, which are hashed here.
        format: "svg" or "pdf" to write that beside the PNG; ABSENCE_FORMAT if not given.
        dpi: pixels per inch of the PNG; ABSENCE_DPI if not given, otherwise matplotlib's savefig.dpi.

    Returns:
        Path of the PNG.

    Raises:
        InputError: the name is not a plain name, the format is unknown, or the resolution is not positive.

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
    formats, dpi = _formats(format), _resolution(dpi)
    contents = {f".{kind}": _render(fig, kind, dpi) for kind in formats}
    if numbers is not None:
        contents[".csv"] = _csv(numbers)
    contents[".json"] = json.dumps(_provenance(name, inputs or {}, contents), indent=1).encode() + b"\n"
    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if numbers is None:
        (folder / f"{name}.csv").unlink(missing_ok=True)  # numbers of an earlier figure are not this one's
    for suffix, content in contents.items():
        write_atomically(folder / f"{name}{suffix}", content)
    return folder / f"{name}.png"


def save_table(table: pd.DataFrame, name: str) -> Path:
    """Write a table beside the figures, as CSV in their format; `name` is that of the file, "08_images.csv".

    Raises:
        InputError: the name is not that of a CSV file.
    """
    if not re.fullmatch(r"\w[\w-]*\.csv", name):
        raise InputError(
            "name", f"{name!r} is not the name of a CSV file", "Use letters, digits, - and _, and .csv."
        )
    folder = output_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, _csv(table))
    return folder / name


def _formats(asked: str | None) -> list[str]:
    asked = asked or os.environ.get("ABSENCE_FORMAT") or "png"
    if asked not in METADATA:
        raise InputError("format", f"{asked!r} is not a format", f"Use one of {', '.join(METADATA)}.")
    return list(dict.fromkeys(["png", asked]))


def _resolution(asked: float | None) -> float | str:
    asked = asked or os.environ.get("ABSENCE_DPI") or matplotlib.rcParams["savefig.dpi"]
    if asked == "figure":
        return asked
    try:
        dpi = float(asked)
    except (TypeError, ValueError):
        dpi = 0.0
    if not 0 < dpi < 10_000:
        raise InputError("dpi", f"{asked!r} is not a resolution", "Use pixels per inch, as 150.")
    return dpi


def _render(fig, kind: str, dpi) -> bytes:
    target = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "absence"}):
        fig.savefig(target, format=kind, dpi=dpi, metadata=METADATA[kind])
    return target.getvalue()


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
        "outputs": {f"{name}{suffix}": hashlib.sha256(data).hexdigest() for suffix, data in contents.items()},
        "git": git_state(),
        "versions": {"python": platform.python_version(), **_library_versions()},
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
        **{f"{name}, sha256": value[:16] for name, value in found["inputs"].items()},
        "parameters": ", ".join(f"{name}: {value}" for name, value in found["parameters"].items()),
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


def _library_versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path = ROOT) -> dict | None:
    """Commit of the checkout and whether tracked files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(folder)]  # notebooks run side by side
    try:
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True)
        changes = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes)}
