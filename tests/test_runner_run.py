"""The strict runner: what it refuses, what it leaves behind, and what it accepts as done."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from absence_utils.errors import InputError
from absence_utils.runner import run
from absence_utils.runner.parameters import (
    check_value,
    notebook_parameters,
    parse_value,
    read_parameters,
    read_profile,
    resolve_parameters,
)

PARAMETERS = """k = 3  # patches
rate = 0.1  # per step
layer = "a"  # name
units = [0, 1]  # channels
flag = True
do = ""  # what goes wrong
"""
DRAW = """import os, pathlib, time
out = pathlib.Path(os.environ["ABSENCE_OUT"])
for suffix in (".png", ".csv", ".json"):
    (out / f"00_a{suffix}").write_text(f"{k} {rate} {os.getcwd()}")
"""
FAIL = """from absence_utils.errors import InputError
if do == "sleep": time.sleep(900)
if do == "divide": 1 / 0
if do == "refuse": raise InputError("layer", "there is no 'a'", "Use 'b'.")
if do == "forget": (out / "00_a.csv").unlink()
if do == "surprise": (out / "00_b.png").write_text("")
if do == "table": (out / "table.bin").write_text("1")
if do == "folder": (out / "pages").mkdir(); (out / "pages" / f"{k}.html").write_text("1")
if do == "quit": (out / "00_a.json").unlink(); raise SystemExit(0)
"""


@pytest.fixture
def notebook(tmp_path):
    """A small notebook with one figure and one profile, in a folder of its own."""
    cells = [
        new_markdown_cell("# A **claim**\n\nand more"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_markdown_cell("Draw it."),
        new_code_cell(DRAW),
        new_code_cell(FAIL),
    ]
    metadata = {
        "companion": {"figures": ["00_a"]},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
    }
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    path = tmp_path / "notebooks" / "00_x.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    (path.parent / "profiles" / "00_x.default.yaml").write_text("k: 4\n")
    (path.parent / "profiles" / "00_x.misspelt.yaml").write_text("rates: 0.5\n")
    return path


@pytest.fixture
def start(notebook, tmp_path):
    """Start the runner as a user would; results go to out/."""
    command = [sys.executable, "-m", "absence_utils.run", str(notebook), "--out", "out"]

    def begin(*words):
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*command, *words], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=listen
        )

    return begin


def listen():
    """Ctrl-C counts, also where the tests themselves run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finish(process):
    output, errors = process.communicate(timeout=900)
    return process.returncode, output, errors


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.notebook
def test_success(start, tmp_path):
    status, output, errors = finish(start("-p", "rate", "1e-3"))
    assert status == 0, errors
    assert output.splitlines() == ["out/00_a.png"]
    assert files(tmp_path / "out") == ["00_a.csv", "00_a.json", "00_a.png", "00_x.ipynb"]
    assert (
        tmp_path / "out" / "00_a.csv"
    ).read_text() == f"4 0.001 {tmp_path}"  # profile, -p, working directory
    assert "/.00_x." not in (tmp_path / "out" / "00_x.ipynb").read_text(), "the folder it ran in is gone"
    lines = errors.splitlines()
    assert re.fullmatch(r"00_x +cell 1/3  A claim", lines[0]) and re.fullmatch(
        r"00_x +cell 2/3  Draw it.", lines[1]
    )
    assert re.fullmatch(r"00_x +done in \d+ s", lines[-1]) and len(lines) == 4


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("divide", "error: 00_x: ZeroDivisionError in cell 3 of 3 (Draw it.): division by zero"),
        ("refuse", "error: `layer`: there is no 'a'. Use 'b'."),
        ("forget", "error: 00_x: ran, but did not write 00_a.csv, which it declares"),
        ("surprise", "error: 00_x: wrote 00_b, which its metadata does not declare"),
        ("quit", "error: 00_x: ran, but did not write 00_a.json, which it declares"),
    ],
)
def test_failure_leaves_old_results_and_the_traceback(start, tmp_path, do, message):
    out = tmp_path / "out"
    out.mkdir()
    (out / "00_a.png").write_text("old")  # a stale figure is neither accepted nor touched
    status, output, errors = finish(start("-p", "do", do))
    assert (status, output) == (1, "") and message in errors.splitlines() and "Traceback" not in errors
    assert files(out) == ["00_a.png", "failed/00_x.ipynb"]
    assert (out / "00_a.png").read_text() == "old"
    if do == "divide":
        assert "ZeroDivisionError" in (out / "failed" / "00_x.ipynb").read_text()


@pytest.mark.notebook
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(start, tmp_path, number):
    process = start("-p", "do", "sleep")
    for line in process.stderr:
        if "cell 3/3" in line:
            break
    process.send_signal(number)
    status, output, errors = finish(process)
    assert status == 130 and "interrupted" in errors and "Traceback" not in errors
    assert files(tmp_path / "out") == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.notebook
def test_a_killed_run_leaves_no_kernel(start, tmp_path):
    """Killed without a chance to clean up: while the kernel starts, and while a cell runs."""
    for until in ("cell 1/3", "cell 3/3"):
        process = start("-p", "do", "sleep")
        for line in process.stderr:
            if until in line:
                break
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        assert children
        while any(map(is_running, children)):  # no end to it would be the failure
            time.sleep(0.1)


def descendants(pid):
    """Ids of the processes that one has started, and those have started in turn."""
    table = subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True)
    pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
    found = [child for child, parent in pairs if parent == pid]
    return found + [below for child in found for below in descendants(child)]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.notebook
def test_success_forgets_the_failure_and_what_a_killed_run_left(notebook, tmp_path):
    out = tmp_path / "out"
    dead = subprocess.Popen(["true"])
    dead.wait()
    abandoned = out / f".00_x@{run.socket.gethostname()}@{dead.pid}"
    alive = out / f".00_x@{run.socket.gethostname()}@{os.getppid()}"
    for folder in (abandoned, alive, out / "failed"):
        folder.mkdir(parents=True)
        (folder / "00_x.ipynb").write_text("")
    assert run.run_notebook(notebook, out, {}) == [out / "00_a.png"]
    assert not abandoned.exists() and alive.exists()
    assert not (out / "failed" / "00_x.ipynb").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "rat", "1"], "`parameter`: 'rat' is not known. Did you mean 'rate'?"),
        (
            ["--profile", "misspelt"],
            "`parameter set by the profile`: 'rates' is not known. Did you mean 'rate'?",
        ),
        (["-p", "k", "3.5"], "`k`: input should be a valid integer, got 3.5. The default is 3."),
        (
            ["--profile", "defualt"],
            "'defualt' is not known. Did you mean 'default'? Use one of default, misspelt, the path of",
        ),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(notebook, tmp_path, capsys, words, message):
    assert run.main([str(notebook), "--out", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_notebook_lists_those_that_exist(tmp_path, capsys):
    for name in ("01_one", "06_extreme_patches"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    for text in ("06_extreme_patches", "6", "06", "06_extreme_patches.ipynb"):
        assert run.find_notebook(text, tmp_path).stem == "06_extreme_patches"
    with pytest.raises(
        InputError, match="Did you mean '06_extreme_patches'[?] Use one of 01_one, 06_extreme_patches"
    ):
        run.find_notebook("06_extreme_patch", tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        run.read_notebook(tmp_path / "01_one.ipynb")


def test_parameters_are_read_with_their_comments(notebook):
    known = read_parameters(run.read_notebook(notebook))
    assert [(p.name, p.default, p.comment) for p in known.values()][:2] == [
        ("k", 3, "patches"),
        ("rate", 0.1, "per step"),
    ]
    assert known["flag"].comment == "" and known["units"].default == [0, 1]


def parameters_cell(source):
    return new_notebook(cells=[new_code_cell(source, metadata={"tags": ["parameters"]})])


def test_values_may_run_over_lines_and_hold_what_comments_are_made_of():
    source = (
        'units = [\n    0,  # first\n    1,\n]  # channels\ntext = """a\n# b = c"""\nk: int = -3  # depth\n'
    )
    known = read_parameters(parameters_cell(source))
    assert [(p.name, p.default) for p in known.values()] == [
        ("units", [0, 1]),
        ("text", "a\n# b = c"),
        ("k", -3),
    ]
    assert (known["units"].comment, known["k"].comment) == ("channels", "depth")


@pytest.mark.parametrize(
    "line",
    ["n = k + 1", "n = [\n    0,\n    k,\n]", "k += 1", "a = b = 3", "import os", "n: int", "print(k)"],
)
def test_a_line_that_assigns_no_literal_is_refused(line):
    with pytest.raises(InputError, match="a line that assigns no literal: [a-z]+") as error:
        read_parameters(parameters_cell(f"k = 3\n{line}"))
    assert "Move it to the next cell" in str(error.value)


def test_a_parameters_cell_that_is_no_python_is_refused():
    with pytest.raises(InputError, match="no Python"):
        read_parameters(parameters_cell("k = "))


def test_names_are_the_same_without_nbformat(notebook):
    assert notebook_parameters(notebook) == read_parameters(run.read_notebook(notebook))


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("3", 1, 3),
        ("3", 1.0, 3.0),
        ("1e-3", 1.0, 0.001),
        ("false", True, False),
        ("2024", "", "2024"),
        ("no", "", "no"),
        ("dir #1: x", "", "dir #1: x"),
        ("'quoted'", "", "quoted"),
        ("[3, 4]", [0], [3, 4]),
        ("[3, 4]", [0.5], [3.0, 4.0]),
        ("[]", [0], []),
        ("[3, logits]", [0, "a"], [3, "logits"]),
        ("[1, b]", [], [1, "b"]),
        ("{a: 1}", {}, {"a": 1}),
        ("7", None, 7),
    ],
)
def test_good_values(text, default, value):
    found = check_value("x", parse_value(text, default), default)
    assert found == value and type(found) is type(value)
    if isinstance(value, list):
        assert [type(item) for item in found] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("3.0", 1),
        ("true", 1),
        ("1", True),
        ("a", 1.0),
        ("true", 1.0),
        ("3", [0]),
        ("[a]", [0]),
        ("[1.5]", [0]),
        ("~", 1),
    ],
)
def test_wrong_types(text, default):
    with pytest.raises(InputError, match="`x`: input should be a valid"):
        check_value("x", parse_value(text, default), default)


def test_text_in_a_profile_must_be_text():
    known = {"layer": run.Parameter("layer", "a")}
    with pytest.raises(InputError, match="`layer`: input should be a valid string, got 7"):
        resolve_parameters(known, {"layer": 7}, [])
    assert resolve_parameters(known, {"layer": "b"}, [("layer", "7")]) == {"layer": "7"}


def test_a_profile_is_a_mapping(notebook, tmp_path):
    for text, problem in (("[1]", "not a mapping"), ("a: [", "cannot be read")):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=problem):
            read_profile(notebook, str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("")
    assert read_profile(notebook, str(tmp_path / "mine.yaml")) == {}


def test_a_notebook_must_declare_its_figures(notebook):
    node = json.loads(notebook.read_text())
    del node["metadata"]["companion"]
    with pytest.raises(InputError, match="does not declare its figures"):
        run.declared_figures(nbformat.from_dict(node))


def declare(notebook, figures, files):
    node = json.loads(notebook.read_text())
    node["metadata"]["companion"] = {"figures": figures, "files": files}
    notebook.write_text(json.dumps(node))


@pytest.mark.notebook
def test_a_notebook_may_make_other_files(start, notebook, tmp_path):
    declare(notebook, ["00_a"], ["table.bin"])
    status, output, errors = finish(start())
    assert status == 1 and output == "" and "did not write table.bin, which it declares" in errors
    assert files(tmp_path / "out") == ["failed/00_x.ipynb"]
    status, output, errors = finish(start("-p", "do", "table"))
    assert (status, output.split()) == (0, ["out/00_a.png", "out/table.bin"]), errors
    assert (tmp_path / "out" / "table.bin").read_bytes() == b"1"


@pytest.mark.notebook
def test_a_declared_file_may_lie_in_a_folder_which_is_replaced_as_a_whole(start, notebook, tmp_path):
    declare(notebook, ["00_a"], ["pages/5.html"])
    (tmp_path / "out" / "pages").mkdir(parents=True)
    (tmp_path / "out" / "pages" / "old.html").write_text("0")
    status, _, errors = finish(start("-p", "do", "folder"))
    assert status == 1 and "did not write pages/5.html" in errors
    assert (tmp_path / "out" / "pages" / "old.html").exists()
    status, output, errors = finish(start("-p", "do", "folder", "-p", "k", "5"))
    assert (status, output.split()) == (0, ["out/00_a.png", "out/pages/5.html"]), errors
    assert [path.name for path in (tmp_path / "out" / "pages").iterdir()] == ["5.html"]


@pytest.mark.slow
def test_a_notebook_of_files_alone_still_declares_its_figures(start, notebook, tmp_path, capsys):
    declare(notebook, [], ["table.bin"])
    status, output, errors = finish(start("-p", "do", "table"))
    assert status == 1 and "wrote 00_a, which its metadata does not declare" in errors
    assert run.main([str(notebook), "--list", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/table.bin  (not made yet)"]


@pytest.mark.parametrize("name", ["../a.bin", "a/b/c", "a/../b", "/a", "", "a.png", "a.ipynb", 3, None])
def test_a_declared_file_lies_in_the_output_folder(notebook, name):
    declare(notebook, [], [name])
    if name == 3:
        declare(notebook, [], "table.bin")  # no list
    with pytest.raises(InputError, match="declares the file"):
        run.declared_files(run.read_notebook(notebook))


def test_words_that_the_package_lists_are_printed_as_they_are_typed(capsys):
    assert run.main(["10", "--parameters"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("effort = ")]
    assert line.endswith('one of "full", "atlas", "quick"')


def test_lists(notebook, tmp_path, capsys):
    assert run.main([str(notebook), "--list", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/00_a.png  (not made yet)"]
    assert run.main([str(notebook), "--parameters"]) == 0
    assert re.search(r"^rate = 0.1 +# per step$", capsys.readouterr().out, re.MULTILINE)


# -- what is typed wrong ends in one line


def refused(capsys, *words):
    """Exit status and the one line on stderr of a command that must run nothing."""
    status = run.main([str(word) for word in words])
    printed = capsys.readouterr()
    assert (status, printed.out) == (1, ""), printed
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and len(line) < 600, line
    return line


@pytest.mark.parametrize(
    "content",
    [
        b"k: " + b"[" * 5000,
        b"k: \xff\xfe\xff",
        b"k: 2024-99-99",
        b"k: \x00",
        b"k: " + b"9" * 6000,
        b"? [a]\n: 1",
        b"*k",
    ],
)
def test_a_profile_that_cannot_be_read(notebook, tmp_path, capsys, content):
    (tmp_path / "odd.yaml").write_bytes(content)
    assert re.search(
        "`(profile|k|parameter set by the profile)`",
        refused(capsys, notebook, "--profile", tmp_path / "odd.yaml"),
    )


@pytest.mark.parametrize(
    "value", ["²", "[" * 5000, "9" * 6000, "2024-99-99", "\udcff", "a\nb", "{a: &b [*b]}"]
)
@pytest.mark.parametrize("name", ["k", "units", "rate", "flag"])
def test_a_value_that_is_none(notebook, capsys, name, value):
    assert f"`{name}`: " in refused(capsys, notebook, "-p", name, value)


@pytest.mark.parametrize("name", ["²", "06²", "x" * 5000 + ".ipynb", "a\0.ipynb", ""])
def test_a_notebook_that_is_none(capsys, name):
    assert "`notebook`" in refused(capsys, name)


def test_a_profile_that_is_no_path(notebook, capsys):
    for name in ("a\0.yaml", "x" * 5000 + ".yaml", "x" * 5000):
        assert "`profile`" in refused(capsys, notebook, "--profile", name)


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[1]", "{}", '{"cells": 3}', "[" * 5000, '{"nbformat": 4, "cells": [{}]}']
)
def test_a_file_that_is_no_notebook(tmp_path, capsys, content):
    (tmp_path / "x.ipynb").write_text(content)
    assert "`notebook`" in refused(capsys, tmp_path / "x.ipynb")


@pytest.fixture
def not_executed(monkeypatch):
    """A run fails the test that gets so far."""

    def execute(*_):
        pytest.fail("it must be refused before anything runs")

    monkeypatch.setattr(run, "_execute", execute)


def test_an_output_folder_that_cannot_be(notebook, tmp_path, capsys, not_executed):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/below", "x" * 300, "a/" * 3000, "a\0b"):
        assert "`out`: " in refused(capsys, notebook, "--out", f"{tmp_path}/{out}")
    assert (tmp_path / "file").read_text() == ""


def test_an_output_folder_that_is_read_only(notebook, tmp_path, capsys, not_executed, monkeypatch):
    def refuse(**_):  # whoever runs the tests may be allowed everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run.tempfile, "TemporaryFile", refuse)
    assert "(Permission denied)" in refused(capsys, notebook, "--out", tmp_path / "out")


@pytest.mark.parametrize("taken", ["00_a.png", "00_a.csv", "00_x.ipynb"])
def test_a_result_whose_name_is_taken_by_a_folder(notebook, tmp_path, capsys, not_executed, taken):
    (tmp_path / "out" / taken).mkdir(parents=True)
    line = refused(capsys, notebook, "--out", tmp_path / "out")
    assert f"has the name of a result, {taken}" in line and (tmp_path / "out" / taken).is_dir()


def test_a_folder_of_results_whose_name_is_taken_by_a_file(notebook, tmp_path, capsys, not_executed):
    declare(notebook, ["00_a"], ["pages/5.html"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pages").write_text("mine")
    assert "a file in" in refused(capsys, notebook, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "pages").read_text() == "mine"
