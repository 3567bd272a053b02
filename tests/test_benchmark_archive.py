"""The archive: the same bytes on every run, whole, and enough to score a method by."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from helpers.untrained import without_files

from absence_utils.benchmark import archive
from absence_utils.benchmark.archive import write_archive
from absence_utils.benchmark.rule_networks import NAMES, WORLDS, rules_of
from absence_utils.benchmark.running import BenchmarkConfig, scenes_of
from absence_utils.benchmark.scores import PAIR
from absence_utils.benchmark.submission import score_answers
from absence_utils.errors import InputError

WORLD, NETWORKS = "together a little", ["together a little/0", "together a little/1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name to content of an archive of two networks of one world, and whether a second one was the same."""
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        without_files(patch, folder)
        patch.setattr(archive, "network_names", lambda: NETWORKS)
        patch.setattr(archive, "PAIRS", 2)
        patch.setattr(BenchmarkConfig, "scenes", 16)
        said = [write_archive(folder / name) for name in ("one.zip", "sub/two.zip")]
    one, two = (folder / name for name in ("one.zip", "sub/two.zip"))
    assert said[0].endswith(hashlib.sha256(one.read_bytes()).hexdigest())
    with zipfile.ZipFile(one) as whole:
        assert whole.testzip() is None
        found = {name: whole.read(name) for name in whole.namelist()}
    return found | {"same": one.read_bytes() == two.read_bytes()}


def table(files, name):
    return pd.read_csv(io.BytesIO(files[name]))


def test_the_same_bytes_on_every_run(files):
    assert files["same"]


def test_checksums_are_of_every_other_file(files):
    sums = json.loads(files["checksums.json"])
    assert set(sums) == set(files) - {"checksums.json", "same"}
    assert all(hashlib.sha256(files[name]).hexdigest() == value for name, value in sums.items())


def test_the_template_has_every_pair_once_and_no_answer(files):
    template, truth = table(files, "answers_template.csv"), table(files, "truth.csv")
    assert template.columns.tolist() == [*PAIR, "value"] and template.value.isna().all()
    assert len(template) == 4 * 4 * 7 and not template.duplicated(PAIR).any()
    assert set(template.network) == {name + end for name in NETWORKS for end in ("", " twin")}
    assert template[PAIR].equals(truth[PAIR])


@pytest.mark.parametrize(("sign", "area", "alarms"), [(1, 1, 0), (-1, 0, 1)])
def test_answers_from_the_archive_are_scored(files, sign, area, alarms):
    truth = table(files, "truth.csv")
    filled = table(files, "answers_template.csv").assign(value=sign * (truth.truth == "absence"))
    rows, _ = score_answers("mine", filled)
    means = rows.set_index("score")["mean"]
    assert means["AUROC"] == area and means["false alarms"] == alarms


def test_what_is_said_of_networks_and_rules(files):
    networks, rules = json.loads(files["networks.json"]), json.loads(files["rules.json"])
    assert networks["concepts"] == {WORLD: list(WORLDS[WORLD].names)}
    assert networks["normalisation"] == {"mean": [0.35] * 3, "spread": [0.2] * 3}
    assert (
        list(networks["layers"])[:2] == ["block1", "relu1"]
        and "stride=(2, 2)" in networks["layers"]["block1"]
    )
    assert rules[NETWORKS[1]] == rules_of(NETWORKS[1]).names and len(rules) == 4
    card = files["README.md"].decode()
    absences = (table(files, "truth.csv").truth == "absence").sum()
    assert "2 small networks with rules drawn at random, and as many twins" in card and "in 1\nworlds" in card
    assert f"{absences} pairs of an output and a concept are absences" in card
    assert files["networks/together_a_little.safetensors"] == WORLD.encode()


def test_scenes_masks_and_pairs_are_those_of_the_benchmark(files):
    world, arrays = WORLDS[WORLD], np.load(io.BytesIO(files["worlds/together_a_little.npz"]))
    scenes = scenes_of(world, 16)
    assert arrays["pixels"].shape == (16, 64, 64, 3) and arrays["pixels"].dtype == np.uint8
    np.testing.assert_allclose(
        arrays["pixels"].transpose(0, 3, 1, 2) / 255, scenes.pixels, atol=0.5 / 255 + 1e-6
    )
    assert np.array_equal(arrays["presence"], scenes.presence) and np.array_equal(
        arrays["place"], scenes.place
    )
    shape = tuple(arrays["mask_shape"])
    masks = np.unpackbits(arrays["masks"], count=np.prod(shape)).reshape(shape).astype(bool)
    assert np.array_equal(masks, scenes.masks)
    for concept in (0, 6):
        shown, hidden = world.pairs(world.names[concept], 2, 500)
        np.testing.assert_allclose(
            arrays["with"][concept] / 255, shown.pixels.permute(0, 2, 3, 1), atol=0.003
        )
        changed = (arrays["with"][concept] != arrays["without"][concept]).any(axis=3)
        assert changed.any() and not changed[~shown.masks[:, concept].numpy()].any()
        np.testing.assert_allclose(
            arrays["without"][concept] / 255, hidden.pixels.permute(0, 2, 3, 1), atol=0.003
        )


def test_networks_of_each_world_can_be_fewer(monkeypatch):
    kept = []
    monkeypatch.setattr(archive, "archive_files", lambda names: kept.extend(names) or {})
    monkeypatch.setattr(archive, "write_atomically", lambda path, content: None)
    write_archive(archive.Path("x.zip"), networks=2)
    assert kept == [name for name in NAMES if name[-1] in "01"]


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.zip"):
        write_archive(tmp_path / "benchmark.tar")
