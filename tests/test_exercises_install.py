"""The file that classes install from: the pinned versions of the lock, PyTorch's CPU build before any other."""

import json
import re
import subprocess
import sys
import zipfile

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from absence_utils.paths import ROOT

CPU = (ROOT / "requirements-cpu.txt").read_text()
LINES = [line for line in CPU.splitlines() if line and not line.startswith("#")]
RUN = (ROOT / "docs" / "run.md").read_text()
PAGES = [ROOT / "docs" / name for name in ("teach_students.md", "run_elsewhere.md")]


def torch_pins() -> dict[str, str]:
    lock = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^(torch|torchvision)==(\S+)$", lock, re.MULTILINE))


def test_it_adds_an_index_and_this_package_to_the_lock_and_no_version():
    index, *rest = LINES
    assert re.fullmatch(r"--extra-index-url https://\S+/cpu", index)
    assert index.split()[1] in RUN, "the index that the page on running names"
    assert rest == ["-r requirements.lock", "-e ."]
    assert f"{torch_pins()['torch']}+cpu" in CPU, "its comment says the version of the lock"


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_the_cpu_build_fits_the_pin_and_counts_as_later(name):
    pinned = torch_pins()[name]
    assert Version(f"{pinned}+cpu") in SpecifierSet(f"=={pinned}") and Version(f"{pinned}+cpu") > Version(
        pinned
    )


def stand_in(folder, name: str, version: str, requires: str = "") -> None:
    """An empty wheel of this name and version; `requires` is what its metadata ask for."""
    place = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{place}/METADATA", metadata)
        wheel.writestr(f"{place}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{place}/RECORD", "")


@pytest.mark.slow
@pytest.mark.parametrize("has_cpu_build", [True, False])
def test_pip_takes_the_cpu_build_where_there_is_one(tmp_path, monkeypatch, has_cpu_build):
    """Stand-ins for the two builds, the plain one with a CUDA library: what pip would install."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    version = torch_pins()["torch"]
    stand_in(tmp_path, "torch", version, "cuda-library")
    stand_in(tmp_path, "cuda_library", "1.0")
    if has_cpu_build:
        stand_in(tmp_path, "torch", f"{version}+cpu")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-index",
    ]
    command += ["--find-links", str(tmp_path), "--report", "-", f"torch=={version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken = {
        item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(done.stdout)["install"]
    }
    expected = {"torch": f"{version}+cpu"} if has_cpu_build else {"torch": version, "cuda_library": "1.0"}
    assert taken == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_install_by_this_file(page):
    assert "python -m pip install -r requirements-cpu.txt" in page.read_text()
    assert "python -m pip install -r requirements-cpu.txt" in CPU
