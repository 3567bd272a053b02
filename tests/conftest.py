"""What all tests share: one thread, no display, the place of real data."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: results differ between thread counts
os.environ.setdefault("MPLBACKEND", "agg")

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
