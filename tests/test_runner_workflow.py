"""`make figures` as a process: alone in its folder, and nothing goes on after it, however it ends."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from absence_utils.paths import ROOT
from absence_utils.runner import workflow

SNAKEFILE = """
import os
from absence_utils.processes import end_with
end_with(int(os.environ.pop("ABSENCE_WORKFLOW")))

rule all:
    output: "done"
    shell: "echo $$ > started; exec {config[python]} -m absence_utils.run --end-with $PPID waits.ipynb --out out"
"""
NOTEBOOK = """{"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": null,
"source": "import time, pathlib; pathlib.Path('running').touch(); time.sleep(9999)"}],
"metadata": {"companion": {"figures": ["00_a"]}, "kernelspec": {"name": "python3",
"display_name": "Python 3"}}, "nbformat": 4, "nbformat_minor": 5}"""


@pytest.fixture
def started(tmp_path):
    """A run whose only notebook never ends, and the pipe that all its processes hold open."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "waits.ipynb").write_text(NOTEBOOK)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "waits.default.yaml").write_text("")
    os.symlink(ROOT / "cluster", tmp_path / "cluster")
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-m",
        "absence_utils.runner.workflow",
        str(os.getpid()),
        "smoke",
        "1",
        f"python={sys.executable}",
    ]
    said = (tmp_path / "said").open("w")
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=writing, stderr=said, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    os.close(writing)
    said.close()
    while not (tmp_path / "running").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.05)
    yield process, tmp_path, reading
    os.close(reading)


@pytest.mark.notebook
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_was_ended(started, number):
    process, folder, pipe = started
    process.send_signal(number)
    while os.read(pipe, 4096):  # ends when the last process that holds it has ended
        pass
    process.wait()
    assert not list((folder / "out").glob("*")) and not list((folder / "out").glob(".*"))
    with (folder / "results" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_second_run_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    workflow.LOCK.parent.mkdir()
    with workflow.LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert workflow.main(["smoke", "1"]) == 1
    assert "another run is under way" in capsys.readouterr().err
