"""The workflows call commands that exist, with actions pinned by commit and no more rights than they need."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from absence_utils.paths import ROOT

PATHS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def steps(path: Path) -> list[dict]:
    return [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def test_there_are_workflows():
    assert PATHS


@each
def test_commands_exist(path):
    called = {name for command in commands(path) for name in re.findall(r"\bmake ([a-z]+)", command)}
    assert called and called <= TARGETS


@each
def test_actions_are_pinned_by_commit(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)


@each
def test_versions_of_torch_are_those_of_the_lock(path):
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = set(re.findall(r"\b(?:torch|torchvision)==[\d.]+\d", path.read_text()))
    assert len(pins) == 2 and pins <= set(lock)


@each
def test_zizmor_finds_nothing(path):
    """Rights, credentials, and text from outside in a command: what an auditor of workflows looks for."""
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    assert program, "zizmor is in the lock: `make` installs it"
    command = [program, "--offline", "--no-progress", "--persona", "auditor", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
