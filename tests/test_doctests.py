"""The example of each public name runs and gives what it says."""

import doctest

import pytest

import absence_utils


@pytest.mark.parametrize("name", absence_utils.__all__)
def test_example_of_a_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ABSENCE_OUT", str(tmp_path))  # where an example's figure goes
    monkeypatch.setattr("absence_utils.runner.record._current", None)
    public = getattr(absence_utils, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(public, name, module=False, globs={})
    assert example.examples, "an example in its docstring"
    said = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(example, out=said.append)
    assert not said, "".join(said)
