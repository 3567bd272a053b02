"""The workflows call commands that exist, with actions pinned by commit and no more rights than they need."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from absence_utils.paths import ROOT

FOLDER = ROOT / ".github" / "workflows"
PATHS = sorted(FOLDER.glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)


def workflow(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def triggers(path: Path) -> dict:
    return workflow(path)[True]  # YAML 1.1 reads `on` as true


def steps(path: Path) -> list[dict]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def test_the_two_workflows_run_when_they_should():
    assert [path.name for path in PATHS] == ["checks.yml", "figures.yml"]
    checks, figures = map(triggers, PATHS)
    assert set(checks) == {"pull_request"}  # never pull_request_target, which runs with rights of its own
    assert set(figures) == {"push", "schedule", "workflow_dispatch"} and figures["push"]["branches"] == [
        "main"
    ]
    (weekly,) = figures["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", weekly["cron"])


@each
def test_actions_are_pinned_by_commit_with_their_version_beside(path):
    lines = re.findall(r"uses: (.*)", path.read_text())
    assert len(lines) == sum("uses" in step for step in steps(path)) >= 3
    for line in lines:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_commit_everywhere():
    pins = {line for path in PATHS for line in re.findall(r"uses: (.*)", path.read_text())}
    assert len(pins) == len({pin.split("@")[0] for pin in pins})


@each
def test_rights_and_time_are_limited(path):
    content = workflow(path)
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["cancel-in-progress"] is True
    for job in content["jobs"].values():
        assert "permissions" not in job and 0 < job["timeout-minutes"] <= 180
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)


@each
def test_nothing_from_outside_is_pasted_into_a_command(path):
    assert not [command for command in commands(path) if "${{" in command]


@each
def test_commands_exist(path):
    called = {name for command in commands(path) for name in re.findall(r"\bmake ([a-z]+)", command)}
    assert called and called <= TARGETS


def test_what_the_issue_asks_for_is_called():
    checks, figures = ("\n".join(commands(path)) for path in PATHS)
    assert all(f"make {target}" in checks for target in ("lint", "test", "smoke"))
    assert all(f"make {target}" in figures for target in ("figures", "compare", "docs"))


@each
def test_versions_of_torch_are_those_of_the_lock(path):
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = set(re.findall(r"\b(?:torch|torchvision)==[\d.]+\d", path.read_text()))
    assert len(pins) == 2 and pins <= set(lock)
    (python,) = [
        step["with"]["python-version"] for step in steps(path) if "setup-python" in step.get("uses", "")
    ]
    assert python in (ROOT / "README.md").read_text()


def test_the_report_is_shown_and_kept_also_when_numbers_moved():
    found = steps(FOLDER / "figures.yml")
    (compare,) = [step["run"] for step in found if "make compare" in step.get("run", "")]
    report = re.search(r"--markdown (\S+?)\"", compare)[1]
    shown = [step for step in found if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    kept = [step for step in found if report in str(step.get("with", ""))]
    for step in (*shown, *kept):
        assert "!cancelled()" in step["if"] and report in str(step)
    assert len(shown) == len(kept) == 1


@each
def test_zizmor_finds_nothing(path):
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    assert program, "zizmor is in the lock: `make` installs it"
    command = [program, "--offline", "--no-progress", "--persona", "auditor", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_something(tmp_path):
    text = (FOLDER / "checks.yml").read_text().replace("persist-credentials: false", "fetch-depth: 1")
    (tmp_path / "checks.yml").write_text(text)
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    done = subprocess.run(
        [program, "--offline", str(tmp_path / "checks.yml")], capture_output=True, text=True
    )
    assert done.returncode != 0 and "artipacked" in done.stdout
