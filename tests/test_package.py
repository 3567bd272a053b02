"""The public names resolve, and importing the package stays cheap."""

import subprocess
import sys
import tomllib

import pytest

import absence_utils
from absence_utils.paths import ROOT


@pytest.mark.parametrize("name", absence_utils.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    assert getattr(absence_utils, name).__doc__
    assert name in dir(absence_utils)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        absence_utils.nothing  # noqa: B018


@pytest.mark.slow
def test_reading_a_unit_and_debiasing_do_not_load_lucent_or_captum():
    code = "import sys, absence_utils.debias.study; from absence_utils import Unit; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lucent", "captum"} & set(done.stdout.split())


def test_a_built_package_has_its_subpackages_and_page_templates():
    setting = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "absence_utils").rglob("__init__.py")}
    assert {ROOT / name.replace(".", "/") for name in setting["packages"]} == folders
    shipped = {
        path
        for name, patterns in setting["package-data"].items()
        for pattern in patterns
        for path in (ROOT / name.replace(".", "/")).glob(pattern)
    }
    every = (ROOT / "absence_utils").rglob("*.*")
    other = {path for path in every if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert shipped == other and other
