"""The public names resolve, and importing the package stays cheap."""

import subprocess
import sys

import pytest

import absence_utils


@pytest.mark.parametrize("name", absence_utils.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    assert getattr(absence_utils, name).__doc__
    assert name in dir(absence_utils)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        absence_utils.nothing  # noqa: B018


def test_reading_a_unit_does_not_load_lucent_or_captum():
    code = "import sys; from absence_utils import Unit; print([m for m in ('lucent', 'captum') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
