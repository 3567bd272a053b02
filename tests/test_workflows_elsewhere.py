"""What other places read: Binder's folder, the development container, Colab's cell, JupyterLab's settings, Pages."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from absence_utils.paths import NOTEBOOKS, ROOT

PAGE = (ROOT / "docs" / "run_elsewhere.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHONS = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
BINDER = ROOT / ".binder"
CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
SETTINGS = NOTEBOOKS / "jupyterlab"
NEWS = "@jupyterlab/apputils-extension:notification"


def test_binder_installs_the_file_for_cpus_with_a_python_that_works():
    assert {path.name for path in BINDER.iterdir()} == {
        "requirements.txt",
        "runtime.txt",
        "postBuild",
        "start",
    }
    (version,) = re.findall(r"^python-(\d+\.\d+)$", (BINDER / "runtime.txt").read_text().strip())
    assert f"{version}.1" in PYTHONS
    lines = (BINDER / "requirements.txt").read_text().splitlines()
    (wanted,) = [line for line in lines if not line.startswith("#")]
    assert (BINDER / wanted.removeprefix("-r ")).resolve() == ROOT / "requirements-cpu.txt"


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_of_binder_are_scripts(name):
    path = BINDER / name
    assert os.access(path, os.X_OK) and path.read_text().startswith("#!/bin/bash\n")
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    files = re.findall(r"(?<![\w/])(notebooks/[\w/.]+)", path.read_text())
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_start_sets_one_thread_and_goes_on():
    command = [str(BINDER / "start"), "bash", "-c", "echo $OMP_NUM_THREADS"]
    environment = {**os.environ, "OMP_NUM_THREADS": "7"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "1\n"


def test_the_container_has_a_python_that_works_and_calls_what_exists():
    (version,) = re.findall(r"python:(\d+\.\d+)-", CONTAINER["image"])
    assert f"{version}.1" in PYTHONS
    made = CONTAINER["postCreateCommand"]
    assert "-m venv .venv" in made and made.endswith("pip install -r requirements-cpu.txt")
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", CONTAINER["postAttachCommand"])) <= targets
    assert CONTAINER["forwardPorts"] == [int(port) for port in CONTAINER["portsAttributes"]] == [8888]
    assert CONTAINER["containerEnv"] == {"OMP_NUM_THREADS": "1"}


def test_the_cell_for_colab_installs_pinned_versions_and_no_torch():
    (cell,) = re.findall(r"```ipython3\n(.*?)```", PAGE, re.DOTALL)
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins = re.findall(r"\S+==\S+", cell)
    assert len(pins) == 3 and set(pins) <= set(lock)
    assert "--no-deps" in cell and not [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))]
    folders = re.findall(r"what-is-missing/(\S+)", cell)
    assert folders and all((ROOT / folder).is_dir() for folder in folders)
    plain = "\n".join(line for line in cell.splitlines() if line[:1] not in "!%")
    compile(plain, "cell", "exec")


def test_the_page_names_files_and_targets_that_exist():
    for file in re.findall(r"`((?:\.|docs|notebooks|tests|requirements|environment)[\w./-]*\.\w+)`", PAGE):
        assert (ROOT / file).exists(), file
    assert "ABSENCE_REPOSITORY" in PAGE and "PAGES" in PAGE


def lab_options() -> list[str]:
    """What `make lab` passes to JupyterLab."""
    said = re.search(r"^LAB := \$\(BIN\)/jupyter lab (.*?[^\\])$", MAKEFILE, re.MULTILINE | re.DOTALL)[1]
    return said.replace("\\\n", " ").split()


def test_both_targets_open_jupyterlab_with_the_same_options():
    assert MAKEFILE.count("$(LAB) $(ARGS)") == 2 and MAKEFILE.count("jupyter lab ") == 1
    overrides = json.loads((SETTINGS / "overrides.json").read_text())
    assert overrides == {NEWS: {"fetchNews": "false"}}
    assert f"--LabApp.app_settings_dir={SETTINGS.relative_to(ROOT)}" in lab_options()


@pytest.mark.slow
def test_jupyterlab_takes_the_options_and_asks_nothing_about_news(tmp_path):
    """The server that is installed, started as `make lab` does: its settings, and a picture of an exercise."""
    port, token = 18_000 + os.getpid() % 2_000, "test"
    command = [sys.executable, "-m", "jupyterlab", *lab_options(), "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    homes = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    homes |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path)}

    def fetch(path: str) -> bytes:
        address = f"http://127.0.0.1:{port}/{path}?token={token}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()

    with open(tmp_path / "log", "w+") as log:
        server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **homes}, stdout=log, stderr=log)
        try:
            for _ in range(240):
                try:
                    fetch("api/status")
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.5)
            setting = json.loads(fetch(f"lab/api/settings/{NEWS}"))
            page = fetch("lab").decode()
            picture = fetch("files/static/exercise_01.png")
            said = (tmp_path / "log").read_text()
        finally:
            server.terminate()
            server.wait(30)
    assert setting["schema"]["properties"]["fetchNews"]["default"] == "false"
    assert '"preferredPath": "notebooks"' in page and re.search(r'"news": \{\s*"disabled": true', page)
    assert picture == (ROOT / "static" / "exercise_01.png").read_bytes()
    assert "Unrecognized" not in said and "not recognized" not in said and "invalid" not in said.lower()


# The docs on GitHub Pages


def pages_jobs() -> tuple[dict, dict]:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "figures.yml").read_text())["jobs"]
    return jobs["figures"], jobs["pages"]


def test_docs_are_deployed_from_main_where_the_repository_asks_for_it():
    made, deployed = pages_jobs()
    (kept,) = [step for step in made["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    for condition in (kept["if"], deployed["if"]):
        assert "vars.PAGES == 'true'" in condition and "github.ref == 'refs/heads/main'" in condition
    assert kept["with"]["path"] == "results/docs/" and deployed["needs"] == "figures"
    (docs,) = [step for step in made["steps"] if step.get("run") == "make docs"]
    assert (
        set(docs["env"]) == {"ABSENCE_REPOSITORY"}
        and f"steps.{docs['id']}.outcome" in made["outputs"]["docs"]
    )


def test_only_the_job_that_deploys_may_and_it_runs_nothing_of_ours():
    made, deployed = pages_jobs()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "figures.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in made
    assert deployed["permissions"] == {"pages": "write", "id-token": "write"}
    (step,) = deployed["steps"]
    assert step["uses"].startswith("actions/deploy-pages@") and "run" not in step
