"""Files of weights are verified before they are read, and hold plain tensors or are refused."""

import random
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from absence_utils.errors import InputError
from absence_utils.files import file_hash, files_read, forget_files
from absence_utils.images import scan
from absence_utils.models import open_model
from absence_utils.models.checkpoint import read_checkpoint
from absence_utils.models.load import read_weights
from absence_utils.runner import record


def small_state():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Linear(16, 8)).state_dict()


def test_300_flipped_bits_are_refused_or_change_nothing(tmp_path):
    state, draw = small_state(), random.Random(0)
    torch.save(state, tmp_path / "whole.pt")
    content, passed = (tmp_path / "whole.pt").read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            found = read_weights("net", str(tmp_path / "damaged.pt"))
        except InputError as error:
            assert error.parameter == "weights" and "\n" not in str(error)
            continue
        passed += 1
        assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)
    assert passed < 200, "what lies between the parts of an archive may change, no more"


def test_a_damaged_part_is_named(tmp_path):
    path, state = tmp_path / "net.pt", {"w": torch.arange(1000.0)}
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["w"].numpy().tobytes()) + 1234] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="`weights`: 'net.pt' is damaged: .*has another checksum.*again"):
        read_checkpoint(path)


def test_an_archive_that_would_be_inflated_is_refused(tmp_path):
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    with pytest.raises(InputError, match="'bomb.pt' has compressed parts"):
        read_checkpoint(tmp_path / "bomb.pt")


def test_the_old_format_is_still_read(tmp_path):
    state = small_state()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert all(torch.equal(value, state[key]) for key, value in read_checkpoint(tmp_path / "old.pth").items())


def test_a_view_does_not_load_what_it_was_cut_from(tmp_path):
    """Two numbers of a million: the file is mapped, and its other pages stay on disk."""
    path = tmp_path / "view.pt"
    torch.save({"w": torch.arange(2**20, dtype=torch.float32)[3:5]}, path)
    found = read_weights("net", str(path))["w"]
    assert found.tolist() == [3.0, 4.0]
    assert "view.pt" in Path("/proc/self/maps").read_text(), "mapped, not read"


def odd_states():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "the key 0": {0: torch.ones(2)},
            "the key None": {None: torch.ones(2)},
            "'w' is not dense": {"w": torch.eye(3).to_sparse()},
            "'w' is a tensor without values": {"w": torch.ones(2, device="meta")},
            "'w' is quantised": {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
            "'w' is expanded: 10000000000 places share 1 numbers": {"w": torch.ones(1).expand(10**5, 10**5)},
            "holds no state dict": {"w": "text"},
        }


@pytest.mark.parametrize("said", odd_states())
def test_what_is_no_plain_tensor_is_named(tmp_path, said):
    torch.save(odd_states()[said], tmp_path / "net.pt")
    with pytest.raises(InputError, match="`weights`") as caught:
        read_weights("net", str(tmp_path / "net.pt"))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["x" * 5000 + ".pt", "a\0.pt", "~nobody-of-that-name/net.pt", "/"])
def test_a_path_that_is_none(path):
    with pytest.raises(InputError, match="`weights`: there is no file"):
        read_weights("net", path)


def test_the_record_says_which_file_was_read(tmp_path):
    record.start_run("script", {}, device="cpu")
    for suffix in ("safetensors", "pt"):
        path = tmp_path / f"net.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(small_state(), path)
        read_checkpoint(path)
        assert record._provenance("x", {}, {})["weights files"][path.name] == file_hash(path)
        assert record.about_run()[f"{path.name}, sha256"] == file_hash(path)[:16]
    assert len(files_read()) == 2
    record.start_run("script", {}, device="cpu")
    assert files_read() == {}
    forget_files()


# -- networks that cannot be used, and a folder that cannot be listed


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())


def without_values():
    with torch.device("meta"):
        return nn.Conv2d(3, 4, 3)


def leaves():
    raise SystemExit(3)


def absurd():
    return nn.Linear(10**9, 10**9)


@pytest.mark.parametrize(
    "function, said",
    [(lazy, "'0.weight' belongs to a lazy module"), (without_values, "'weight' has no values"),
     (leaves, "failed (SystemExit: 3)"), (absurd, "failed (RuntimeError")],
)  # fmt: skip
def test_a_function_that_makes_no_network(function, said):
    with pytest.raises(InputError, match="`model`") as caught:
        open_model(function)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, size", [("concept_scenes", 1), ("squeezenet1_0", 16)])
def test_a_size_that_the_network_cannot_take(name, size):
    with pytest.raises(
        InputError, match=f"`image_size`: the network cannot take images of {size} px"
    ) as caught:
        open_model(name, size=size)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(folder):  # whoever runs the tests may be allowed everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scan.os, "listdir", refuse)
    with pytest.raises(InputError, match="`images`: the folder .* cannot be listed .Permission denied"):
        scan.scan_folder(tmp_path)


@pytest.mark.parametrize("folder", ["x" * 5000, "a\0b", "~nobody-of-that-name/images"])
def test_a_folder_that_is_no_path(folder):
    opened = open_model("concept_scenes")
    with pytest.raises(InputError, match="`images`: there is no folder"):
        opened.images(folder)
