"""The benchmark's networks: what they were trained on, that they answer it, and that they can be trained again."""

import json
import sys

import make_benchmark_networks
import pytest
import torch

from absence_utils import InputError
from absence_utils.benchmark.networks import (
    KINDS,
    SEEDS,
    TWIN_RULES,
    concept_logits,
    load_benchmark_network,
)
from absence_utils.images.scenes import CONCEPTS, NORMALISATION, draw_presence, render_scenes, rule_logits
from absence_utils.models.training import predict
from absence_utils.paths import DATA

SCENES = draw_presence(400, 77)


@pytest.fixture(scope="module")
def images():
    return NORMALISATION.apply(render_scenes(SCENES, 77).pixels)


@pytest.mark.parametrize(
    ("kind", "seed"), [("rules", 0), ("rules", 4), ("twin", 0), ("twin", 3), ("detector", 0)]
)
def test_networks_answer_their_rules(kind, seed, images):
    outputs, truth, _ = KINDS[kind]
    network = load_benchmark_network(kind, seed)
    logits = predict(network, images)
    assert logits.shape == (400, len(outputs)) and not network.training
    assert ((logits > 0) == truth(SCENES)).float().mean(dim=0).min() > 0.99


def test_networks_of_two_seeds_differ():
    first, second = (load_benchmark_network("rules", seed).block1.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_twins_ask_for_no_absence():
    assert all(rule.absent == () for rule in TWIN_RULES.values())
    presence = torch.eye(len(CONCEPTS), dtype=torch.bool)
    nothing = rule_logits(torch.zeros(1, len(CONCEPTS), dtype=torch.bool), TWIN_RULES)
    assert (rule_logits(presence, TWIN_RULES) >= nothing).all()  # no concept lowers any of them
    assert rule_logits(presence, TWIN_RULES)[CONCEPTS.index("ring")].tolist() == [-8, 8, -8, -8, -8]
    assert concept_logits(presence).diagonal().tolist() == [8] * len(CONCEPTS)


def test_bad_names():
    with pytest.raises(InputError, match="kind"):
        load_benchmark_network("rule")
    with pytest.raises(InputError, match="seed.*no rules network of seed 9"):
        load_benchmark_network("rules", 9)


def test_the_manifest_holds_their_accuracy_and_the_file_is_small():
    (entry,) = [
        e
        for e in json.loads((DATA / "manifest.json").read_text())["files"]
        if "benchmark_networks" in e["path"]
    ]
    assert entry["bytes"] < 8e6
    facts = entry["facts"]["accuracy"]
    assert len(facts) == 2 * SEEDS + 1 and min(min(each.values()) for each in facts.values()) > 0.995


def test_the_script_says_what_it_does(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_benchmark_networks.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        make_benchmark_networks.main()
    assert ended.value.code == 0 and "--only" in capsys.readouterr().out
