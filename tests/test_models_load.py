"""Networks by name: weights from files are data, never programs, and what does not fit is said."""

import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from absence_utils.errors import InputError
from absence_utils.models.load import load_model, model_fingerprint, read_weights


@pytest.fixture(scope="module")
def trained():
    """A SqueezeNet with weights of its own and 6 classes, small enough to write to disk."""
    torch.manual_seed(7)
    return torchvision.models.squeezenet1_1(num_classes=6).eval()


def test_random_weights_come_from_the_seed_and_leave_the_global_state(trained):
    before = torch.random.get_rng_state()
    first, again, other = (load_model("squeezenet1_1", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert model_fingerprint(first) == model_fingerprint(again) != model_fingerprint(other)
    assert not first.training


def test_a_module_passes_through_in_eval_mode(trained):
    assert load_model(trained.train()) is trained and not trained.training
    with pytest.raises(InputError, match="weights.*beside a network"):
        load_model(trained, weights="x.pt")


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_from_a_file(tmp_path, trained, wrap, suffix):
    state, path = trained.state_dict(), tmp_path / f"net{suffix}"
    if wrap == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrap == "state_dict" else state, path)
    loaded = load_model("squeezenet1_1", path)
    assert model_fingerprint(loaded) == model_fingerprint(trained)  # the 6 classes are read from the file
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(images), trained(images))


def test_nothing_is_unpickled(tmp_path):
    ran = tmp_path / "ran"

    class Program:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    path = tmp_path / "net.pt"
    torch.save({"weight": torch.ones(1), "extra": Program()}, path)
    with pytest.raises(InputError, match="nothing is unpickled"):
        read_weights("resnet18", str(path))
    path.write_bytes(pickle.dumps(Program()))
    with pytest.raises(InputError, match="weights"):
        read_weights("resnet18", str(path))
    assert not ran.exists()


def test_bad_weights_are_named(tmp_path, trained):
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    state["features.0.bias"][3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10" * 40)
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty.pt").touch()
    cases = {
        "nan.safetensors": "1 of 52 tensors.*not finite.*features.0.bias",
        "other.safetensors": "do not fit 'squeezenet1_1'.*52 missing.*1 unknown \\(first 'a'\\)",
        "broken.safetensors": "cannot be read as plain tensors",
        "list.pt": "holds a list",
        "empty.pt": "cannot be read as plain tensors",
        "absent.pt": "there is no file.*Give a .safetensors",
    }
    for file, message in cases.items():
        with pytest.raises(InputError, match=f"`weights`.*{message}"):
            load_model("squeezenet1_1", tmp_path / file)


def test_shapes_that_do_not_fit_are_named(tmp_path, trained):
    state = {key: value.clone() for key, value in trained.state_dict().items()}
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    save_file(state, tmp_path / "grey.safetensors")
    with pytest.raises(InputError, match="1 of another shape \\(first 'features.0.weight'\\)"):
        load_model("squeezenet1_1", tmp_path / "grey.safetensors")


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="`model`.*'resnet5'.*resnet50"):
        load_model("resnet5")
    with pytest.raises(InputError, match="`model`.*not a name"):
        load_model(3)


def test_official_weights_without_a_network_say_which_file_goes_where(monkeypatch):
    def offline(*_, **options):
        assert options["weights_only"] is True and options["check_hash"] is True
        raise URLError("offline")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"`weights`.*resnet18-.*\.pth into .*checkpoints, or pass its path"):
        load_model("resnet18", "torchvision")
    with pytest.raises(InputError, match="`weights`.*'V9' is not known.*IMAGENET1K_V1"):
        load_model("resnet18", "torchvision:V9")


def test_a_fingerprint_of_a_single_value_with_a_stride():
    net = torch.nn.Module()
    net.register_buffer("value", torch.arange(6.0).view(1, 6)[:, 2:3])
    whole = torch.nn.Module()
    whole.register_buffer("value", torch.full((1, 1), 2.0))
    assert model_fingerprint(net) == model_fingerprint(whole)


def test_fingerprint_sees_one_changed_value():
    net = nn.Linear(3, 2)
    before = model_fingerprint(net)
    with torch.no_grad():
        net.bias[1] += 1e-6
    assert model_fingerprint(net) != before
