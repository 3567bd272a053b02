"""Networks on random rules: what a name decides, what is kept of the weights, and how accuracy is counted."""

import json

import make_rule_networks
import pytest
import torch

from absence_utils.benchmark import rule_networks as rn
from absence_utils.benchmark.rules import OUTPUTS
from absence_utils.errors import InputError
from absence_utils.models.concept_net import ConceptNet

TINY = {"n": 64, "epochs": 1, "push": 0.0}


def test_there_are_forty_networks_and_as_many_twins_in_eight_worlds():
    names, twins = rn.network_names(), rn.network_names(twins=True)
    assert len(set(names)) == len(set(twins)) == 40 and not set(names) & set(twins)
    absences = sum(len(rule.absent) for name in names for rule in rn.rules_of(name).rules)
    assert absences >= 60
    for name, twin in zip(names, twins, strict=True):
        assert rn.rules_of(twin) == rn.rules_of(name).twin != rn.rules_of(name)
        assert rn.rules_of(name).world == rn.WORLDS[name.partition("/")[0]]
    assert len({rn.rules_of(name).rules for name in names}) == 40, "no two have the same rules"
    everything = [*names, *twins, *rn.detector_names()]
    assert len({rn._seed(name) for name in everything}) == len(everything) == 88


def test_a_name_decides_the_weights():
    first, again, twin = (
        rn.train_rule_network(name, **TINY) for name in ("plain/1", "plain/1", "plain/1 twin")
    )
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.block1.weight, twin.block1.weight)
    assert first.fc.out_features == OUTPUTS and first.hidden.in_features == 64 * rn.COLUMNS


class Answers(torch.nn.Module):
    """A network that gives the same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_accuracy_is_the_share_of_scenes_with_the_right_sign():
    name, rules = "together/2", rn.rules_of("together/2")
    presence = rules.world.draw_presence(400, 910)
    truth = rules.truth(presence, rules.world.render(presence, 910).place).double().mean(dim=0)
    found = rn.output_accuracy(Answers([1.0, -1.0, 1.0, -1.0]), name, n=400)
    expected = torch.stack([truth[0], 1 - truth[1], truth[2], 1 - truth[3]])
    assert torch.allclose(found, expected)


def test_one_file_for_each_world_holds_what_was_trained_in_half_precision(tmp_path, monkeypatch):
    names = ["plain/0", "plain/0 twin"]
    monkeypatch.setattr(make_rule_networks, "EVERY", names)
    monkeypatch.setattr(make_rule_networks, "WORLDS", {"plain": rn.WORLDS["plain"]})
    monkeypatch.setattr(make_rule_networks, "entry_of", lambda path, *rest: {"path": path.name, "rest": rest})
    monkeypatch.setattr(
        make_rule_networks, "write_entry", lambda manifest, entry: manifest.write_text(json.dumps(entry))
    )
    for name in names:
        make_rule_networks.train(name, tmp_path / "parts", **TINY)
    make_rule_networks.collect(tmp_path / "parts", tmp_path / "kept", tmp_path / "manifest.json")
    for name in names:
        trained, kept = rn.train_rule_network(name, **TINY), rn.load_rule_network(name, tmp_path / "kept")
        for key, value in trained.state_dict().items():
            assert torch.equal(kept.state_dict()[key], value.half().float())
    accuracy = json.loads((tmp_path / "manifest.json").read_text())["rest"][-1]["accuracy"]
    assert list(accuracy) == names and list(accuracy["plain/0"]) == rn.rules_of("plain/0").names
    with pytest.raises(InputError, match=r"plain.safetensors does not have 'plain/1'"):
        rn.load_rule_network("plain/1", tmp_path / "kept")


def test_a_detector_tells_the_concepts_of_its_world():
    assert rn.output_names("natural/detector") == list(rn.WORLDS["natural"].names)
    detector = rn.train_rule_network("natural/detector", **TINY)
    assert detector.fc.out_features == 7
    world = rn.WORLDS["natural"]
    truth = world.draw_presence(400, 910).double().mean(dim=0)
    found = rn.output_accuracy(Answers([1.0] * 7), "natural/detector", n=400)
    assert torch.allclose(found, truth)


@pytest.mark.parametrize(
    ("name", "said"),
    [("plain/9", "plain/9"), ("textures/0", r"textures.safetensors"), ("moon/detector", "moon")],
)
def test_networks_that_are_not_there_are_named(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        rn.load_rule_network(name, tmp_path)


def test_hints_teach_the_features_and_leave_no_trace():
    generator = torch.Generator().manual_seed(0)
    images, wanted = torch.randn(64, 3, 64, 64, generator=generator), torch.randn(64, 2, generator=generator)
    how = {"epochs": 2, "push": 0.0, "columns": 2}
    plain = rn.fit_concept_net(images, wanted, **how)
    hinted = rn.fit_concept_net(images, wanted, images.mean(dim=(2, 3)), **how)
    assert list(hinted.state_dict()) == list(ConceptNet(2, 2).state_dict())
    assert not torch.equal(hinted.block4.weight, plain.block4.weight)
    assert hinted(images).shape == (64, 2)


def test_with_columns_a_network_can_tell_left_from_right():
    net = ConceptNet(1, 4)
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 28:36, 8:16] = images[1, :, 28:36, 48:56] = 5.0
    with torch.no_grad():
        apart = (net.features(images)[0] - net.features(images)[1]).view(64, 4).abs().sum(dim=0)
    assert apart[0] > 0 and apart[3] > 0
    assert net.features(images).shape == (2, 256)
