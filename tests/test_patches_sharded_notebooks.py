"""The notebook of a shard, and the way through Snakemake on a cluster: shards, their merge, notebook 06 on the book."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from absence_utils import load_images, load_model, mine_patches
from absence_utils.paths import NOTEBOOKS, ROOT
from absence_utils.runner.notebooks import declared_figures, declared_files, read_notebook
from absence_utils.runner.parameters import read_parameters, read_profile, resolve_parameters

SHARD, WHOLE = NOTEBOOKS / "shards" / "mine_shard.ipynb", NOTEBOOKS / "06_extreme_patches.ipynb"
OWN = {"num_shards", "shard", "workers"}


def test_parameters_are_those_of_notebook_06():
    shard, whole = read_parameters(read_notebook(SHARD)), read_parameters(read_notebook(WHOLE))
    assert OWN == set(shard) - set(whole)
    for name in set(shard) - OWN - {"seed"}:
        assert shard[name] == whole[name]
    assert shard["seed"].default == whole["seed"].default and all(it.comment for it in shard.values())


@pytest.mark.parametrize("profile", ["default", "smoke", "imagenet", "paper"])
def test_profiles_set_what_those_of_notebook_06_set(profile):
    known = read_parameters(read_notebook(SHARD))
    values = read_profile(SHARD, profile)
    assert resolve_parameters(known, values, []) == values
    assert values == {name: it for name, it in read_profile(WHOLE, profile).items() if name in known}


def test_stored_without_outputs_and_declares_its_file():
    node = read_notebook(SHARD)
    assert all(
        not cell.outputs and cell.execution_count is None for cell in node.cells if cell.cell_type == "code"
    )
    assert declared_figures(node) == [] and declared_files(node) == ["shard.safetensors"]


def snakemake(folder, *words):
    command = [sys.executable, "-m", "snakemake", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path):
    """What Snakemake needs of this checkout, with results/ of its own."""
    for name in ("Snakefile", "notebooks", "absence_utils", "data", "cluster"):
        os.symlink(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.notebook
def test_shards_on_a_cluster(checkout):
    """The Slurm profile, with a script in the place of sbatch: each job is submitted, runs, and is waited for."""
    submit = [
        "--executor",
        "cluster-generic",
        "--cluster-generic-submit-cmd",
        str(ROOT / "tests" / "helpers" / "submit_locally.sh"),
    ]
    quick = ["--jobs", "2", "--latency-wait", "10", "--seconds-between-status-checks", "1"]
    words = ["--config", "profile=smoke", "notebooks=06", "shards=2", "limit=12", "stride=16"]
    status, said = snakemake(checkout, "--profile", "cluster/slurm", *submit, *quick, *words)
    assert status == 0, said
    results = checkout / "results" / "smoke"
    assert said.count("with external jobid") == 3, said
    for shard in range(2):
        executed = json.loads((results / "shards" / f"{shard}-of-2" / "mine_shard.ipynb").read_text())
        assert executed["metadata"]["papermill"]["parameters"]["shard"] == shard

    network = load_model("concept_scenes")
    dataset = load_images("concept_scenes", network, size=64, limit=12)
    whole = mine_patches(network, "block4", dataset, 24, 16, 8, per_image=1)
    merged = results / "shards" / "book.safetensors"
    assert merged.read_bytes() == whole.save(checkout / "whole.safetensors").read_bytes()
    executed = json.loads((results / WHOLE.name).read_text())
    assert executed["metadata"]["papermill"]["parameters"]["book"] == "results/smoke/shards/book.safetensors"
    assert all((results / f"{figure}.png").is_file() for figure in declared_figures(read_notebook(WHOLE)))


def planned(checkout, *words):
    """Exit status and what a dry run says it would do."""
    return snakemake(
        checkout, "--profile", "cluster/local", "--dry-run", "--cores", "1", "--quiet", "--config", *words
    )


@pytest.mark.notebook
def test_without_shards_nothing_is_sharded(checkout):
    status, said = snakemake(
        checkout, "--dry-run", "--cores", "1", "--config", "profile=smoke", "notebooks=06"
    )
    assert status == 0 and "notebook_06_extreme_patches" in said and "mine_shard" not in said, said
    assert "patches/mining.py" in said and "toys/motion.py" not in said, (
        "inputs are what the notebook imports"
    )


@pytest.mark.notebook
@pytest.mark.parametrize("words", [("shards=two", "notebooks=06"), ("shards=2", "notebooks=01")])
def test_shards_that_make_no_sense(checkout, words):
    status, said = planned(checkout, "profile=smoke", *words)
    assert status == 1 and "give a number of shards, in a run that includes 06_extreme_patches" in said


@pytest.mark.notebook
@pytest.mark.slow
def test_weights_and_images_outside_that_changed_are_run_again(checkout, tmp_path_factory):
    """By content: an older file in place of the weights, an image less."""
    outside = tmp_path_factory.mktemp("outside")
    weights, images = outside / "w.safetensors", outside / "images"
    weights.write_bytes((ROOT / "data" / "concept_scenes.safetensors").read_bytes())
    for number in range(14):
        (images / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 70), (9 * number, 99, 0)).save(images / f"class{number % 2}" / f"{number}.png")
    quick = [
        "known_scenes=64",
        "known_k=4",
        "steps=2",
        "compared=4",
        "stride=40",
        "limit=0",
    ]
    words = ["profile=smoke", "notebooks=06", f"weights={weights}", f"images={images}", *quick]
    status, said = snakemake(checkout, "--profile", "cluster/local", "--cores", "1", "--config", *words)
    assert status == 0, said

    def changed():
        status, said = snakemake(checkout, "--dry-run", "--cores", "1", "--config", *words)
        assert status == 0, said
        return "Params have changed" in said

    assert not changed()
    os.utime(weights)
    assert not changed()
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, (1, 1))
    assert changed()
    content[-2] ^= 1
    weights.write_bytes(content)
    assert not changed()
    (images / "class0" / "4.png").unlink()
    assert changed()
    status, said = snakemake(checkout, "--profile", "cluster/local", "--cores", "1", "--config", *words)
    assert status == 0 and f"{images} has other contents than in the last run" in said and not changed()
