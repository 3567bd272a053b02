"""What all tests share: one thread, no display, the place of real data."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: results differ between thread counts
os.environ.setdefault("MPLBACKEND", "agg")

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """What opens a browser or builds the pages for one is marked here; `make check` leaves it out."""
    for item in items:
        if {"browser", "site"} & set(item.fixturenames):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of real images and weights, or a skip that says how to have one."""
    folder = os.environ.get("ABSENCE_REAL", "")
    if not folder:
        pytest.skip("set ABSENCE_REAL to a folder with imagenet/val and models/ to run this on real images")
    if not Path(folder, "imagenet", "val").is_dir():
        pytest.fail(f"ABSENCE_REAL is {folder}, which has no imagenet/val")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def browser():
    """Chromium for `browser.open_page`, or a skip; of one module, since asyncio of this thread is its while it runs."""
    from helpers.browser import NAMES, chromium, launched

    if not chromium():
        pytest.skip(f"install Chromium (one of {', '.join(NAMES)} on PATH, or ABSENCE_CHROMIUM) to run this")
    with launched() as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What tests decode and hash is kept apart from what the user has; processes that tests start know it, too."""
    with pytest.MonkeyPatch.context() as patch:
        if "ABSENCE_CACHE" not in os.environ:
            patch.setenv("ABSENCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """Folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def smoke_run(shared):
    """A function of a notebook's path: what its one run in the profile smoke said, and the folder of its files.

    From a fresh kernel, from another folder, without a display; the first test that asks for it runs it.
    """
    from helpers.alone import alone

    def once(path: Path) -> tuple[dict, Path]:
        out = Path("runs", path.stem)
        with alone(shared, f"run_{path.stem}") as done:
            if not done.exists():
                kept = {key: it for key, it in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
                command = ["-m", "absence_utils.run", str(path), "--profile", "smoke", "--out", str(out)]
                ran = subprocess.run([sys.executable, *command], cwd=shared, env=kept, capture_output=True,
                                     text=True, timeout=1800)  # fmt: skip
                said = {name: getattr(ran, name) for name in ("returncode", "stdout", "stderr")}
                done.write_text(json.dumps(said))
            return json.loads(done.read_text()), shared / out

    return once


@pytest.fixture(autouse=True)
def close_figures():
    """No test leaves a figure open for the next."""
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture(autouse=True)
def small_numbers():
    """A run that a test starts flushes denormals for the rest of its process; the next test begins without that."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def layer_study():
    """A small study of the scenes network's logits, for cards: (study, dataset)."""
    from absence_utils import load_model
    from absence_utils.images.scenes import scene_dataset
    from absence_utils.models.random_weights import random_copy
    from absence_utils.your_model.study import auto_config, study_layer

    net, dataset = load_model("concept_scenes"), scene_dataset(150, 0)
    setting = auto_config(150, 64, 24, k=6, hosts=24)
    copies = [random_copy(net, seed) for seed in (1, 2)]
    return study_layer(net, "logits", dataset, setting, copies, null_units=6, redraws=2), dataset
