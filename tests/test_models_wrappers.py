"""Wrappers come off, whatever their order; forms whose layers cannot be read are refused by their name."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from absence_utils import InputError, load_model, open_model, validate_model
from absence_utils.models.load import model_fingerprint
from absence_utils.models.random_weights import random_copy
from absence_utils.models.wrappers import unreadable_form, unwrapped, without_prefixes

AveragedModel = torch.optim.swa_utils.AveragedModel


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


class Inner(nn.Module):
    """A network that itself calls a part of it `model`."""

    def __init__(self):
        super().__init__()
        self.model = small()

    def forward(self, images):
        return self.model(images)


WRAP = {"parallel": nn.DataParallel, "compiled": torch.compile, "averaged": AveragedModel}


@pytest.mark.parametrize("order", [*itertools.permutations(WRAP), ("compiled",), ("averaged", "averaged")])
def test_wrappers_come_off_the_network_and_its_checkpoint(tmp_path, order):
    def wrapped(seed=1):
        net = small(seed)
        for name in order:
            net = WRAP[name](net)
        return net

    torch.save(wrapped(5).state_dict(), tmp_path / "net.pth")
    for make in (wrapped, small):
        opened = open_model(make, tmp_path / "net.pth", size=16).model
        assert type(opened) is nn.Sequential
        assert model_fingerprint(opened) == model_fingerprint(small(5))
    assert model_fingerprint(unwrapped(wrapped(5))) == model_fingerprint(small(5))


def test_prefixes_of_lightning_and_of_nested_wrappers_come_off(tmp_path):
    state = small(5).state_dict()
    for prefix in ("model.", "model._orig_mod.", "_orig_mod.model.", "module.model.module."):
        content = {"state_dict": {prefix + key: value for key, value in state.items()}, "epoch": 1}
        torch.save(content, tmp_path / "net.pth")
        opened = open_model(small, tmp_path / "net.pth", size=16).model
        assert model_fingerprint(opened) == model_fingerprint(small(5))
    trained = load_model("squeezenet1_1", num_classes=6, seed=3)
    torch.save(
        {f"model._orig_mod.{key}": value for key, value in trained.state_dict().items()}, tmp_path / "s.pth"
    )
    assert model_fingerprint(load_model("squeezenet1_1", tmp_path / "s.pth")) == model_fingerprint(trained)


def test_a_prefix_that_is_the_network_s_own_name_stays(tmp_path):
    torch.manual_seed(9)
    trained = Inner()
    for prefix in ("", "module.", "model.", "_orig_mod.module."):
        torch.save({prefix + key: value for key, value in trained.state_dict().items()}, tmp_path / "net.pth")
        opened = open_model(Inner, tmp_path / "net.pth", size=16).model
        assert model_fingerprint(opened) == model_fingerprint(trained)


def test_prefixes_are_only_taken_off_where_all_keys_have_them():
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert without_prefixes(state) == state and without_prefixes(state, {"a", "b"}) == state
    assert without_prefixes({"n_averaged": torch.ones(1), "a": torch.ones(1)}).keys() == {"n_averaged", "a"}


def test_a_prefix_of_another_name_is_named(tmp_path):
    torch.save({f"student.{key}": value for key, value in small().state_dict().items()}, tmp_path / "net.pth")
    with pytest.raises(InputError, match="`weights`.*prefix 'student.'"):
        open_model(small, tmp_path / "net.pth", size=16)


# -- forms that cannot be read


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8).eval()


def in_place():
    net = small()
    net.compile()
    return net


IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FORMS = {
    "scripted": lambda: torch.jit.script(small()),
    "traced": lambda: torch.jit.trace(small().eval(), IMAGES),
    "part of it scripted": lambda: nn.Sequential(torch.jit.script(small())),
    "compiled": lambda: torch.compile(small().eval()),
    "part of it compiled": lambda: nn.Sequential(torch.compile(small())),
    "in place compiled": in_place,
    "quantised": quantised,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_cannot_be_read_are_named(form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FORMS[form]().eval()
    word = form.split()[-1]
    problem, remedy = unreadable_form(model)
    assert word in problem and ("module '0'" in problem) == form.startswith("part")
    assert "eager" in remedy or "floating point" in remedy
    with pytest.raises(InputError, match=f"`model`.*{word}"):
        random_copy(model)
    checked = validate_model(model, None, IMAGES)
    with pytest.raises(InputError, match=word) as raised:
        checked.raise_for_failure()
    assert raised.value.remedy == remedy  # nothing else is blamed
    own = type("Own", (nn.ReLU,), {"__module__": "project.quantized.layers"})
    assert unreadable_form(nn.Sequential(small(), own())) is None


@pytest.mark.parametrize("form", ["scripted", "quantised", "part of it compiled"])
def test_they_are_not_opened(form):
    with pytest.raises(InputError, match=f"`model`.*{form.split()[-1]}"):
        open_model(FORMS[form], size=16)
