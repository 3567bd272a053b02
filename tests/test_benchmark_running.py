"""Runs on untrained networks: which, what is asked of a method, and what comes out."""

import numpy as np
import pytest
import torch
from helpers.untrained import untrained, without_files

from absence_utils.benchmark.methods import METHODS, Method
from absence_utils.benchmark.rule_networks import NAMES, WORLDS, rules_of
from absence_utils.benchmark.running import BenchmarkConfig, hidden_task, output_task, run_network
from absence_utils.benchmark.scores import ANSWERS, OUTCOMES
from absence_utils.benchmark.truth import output_truth
from absence_utils.errors import InputError

NAME = "together/1"
SMALL = BenchmarkConfig(2, 64, 4, 1, 3, 4)


@pytest.fixture(scope="module", autouse=True)
def no_files(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        without_files(patch, tmp_path_factory.mktemp("networks"))
        yield


@pytest.mark.parametrize(
    ("name", "value"),
    [("networks", 0), ("networks", 41), ("scenes", 63), ("steps", 0), ("pairs", 1), ("hidden", -1), ("hidden", 65),
     ("images_for_maps", 1), ("images_for_maps", 257)],
)  # fmt: skip
def test_bad_settings(name, value):
    with pytest.raises(InputError, match=name):
        BenchmarkConfig(**{name: value})


def test_networks_are_spread_over_the_worlds_hardest_first():
    names = BenchmarkConfig(networks=40).names
    assert sorted(names) == sorted(NAMES)
    assert {name.partition("/")[0] for name in names[:8]} == set(WORLDS)
    assert all(name.endswith("/0") for name in names[:8]) and names[8].endswith("/1")
    correlations = [WORLDS[name.partition("/")[0]].correlation for name in names[:8]]
    assert correlations == sorted(correlations, reverse=True)
    assert BenchmarkConfig(networks=3).names == names[:3]


def test_an_output_task_has_the_scenes_of_its_world_and_its_rules_as_targets():
    task, twin, other = (output_task(name, SMALL) for name in (NAME, NAME + " twin", "together/2"))
    assert task.scenes is twin.scenes is other.scenes and task.world == WORLDS["together"]
    truth = rules_of(NAME).truth(task.scenes.presence, task.scenes.place)
    assert torch.equal(task.target, truth) and not torch.equal(twin.target, truth)
    assert list(task.units) == [0, 1, 2, 3] and task.layer is None and task.detector.fc.out_features == 7
    assert task.seed == twin.seed != other.seed
    assert (task.images_for_maps, task.steps) == (4, 1)
    assert not torch.equal(output_task("plain/0", SMALL).images, task.images)


def test_hidden_targets_are_above_the_median_of_the_unit():
    task = hidden_task(output_task(NAME, SMALL), "block4", [3, 40])
    assert task.target.shape == (64, 2) and (task.target.sum(dim=0) == 32).all()
    for column in range(2):
        values, own = task.response[:, column], task.target[:, column]
        assert values[own].min() > values[~own].max()


class Recorded:
    """A method that says the number of the unit, and keeps the tasks."""

    def __init__(self):
        self.tasks = []

    def __call__(self, task):
        self.tasks.append(task)
        return torch.arange(7.0).expand(len(task.units), 7) + 10 * torch.tensor(list(task.units))[:, None]


@pytest.fixture(scope="module")
def run():
    recorded = Recorded()
    chosen = {"own": Method(recorded), "input_x_gradient, all": METHODS["input_x_gradient, all"]}
    return recorded, *run_network(NAME, SMALL, chosen)


def test_a_method_is_asked_on_outputs_the_twin_and_both_readings_of_hidden_units(run):
    recorded, answers, _ = run
    assert [task.layer for task in recorded.tasks] == [None, None, "block4", "pool4"]
    assert [list(task.units) for task in recorded.tasks] == [[0, 1, 2, 3]] * 2 + [[0, 32, 63]] * 2
    assert answers.columns.tolist() == ANSWERS
    counts = answers[answers.method == "own"].groupby(["network", "layer"]).size().to_dict()
    assert counts == {
        (NAME, "outputs"): 28, (NAME + " twin", "outputs"): 28,
        (NAME, "hidden, signed"): 21, (NAME, "hidden, passed on"): 21,
    }  # fmt: skip
    assert (answers.twin == answers.network.str.endswith(" twin")).all()


def test_answers_stand_beside_their_unit_concept_and_truth(run):
    _, answers, _ = run
    own = answers[answers.method == "own"]
    names = list(rules_of(NAME).world.names)
    assert (own.value == own.unit * 10 + own.concept.map(names.index)).all()
    outputs = own[(own.layer == "outputs") & ~own.twin]
    assert (outputs.truth.to_numpy().reshape(4, 7) == output_truth(NAME)).all()
    assert set(own[own.twin].truth) == {"none"}


def test_findings_are_about_planted_absences_of_methods_that_have_windows_or_maps(run):
    _, _, findings = run
    assert findings.columns.tolist() == OUTCOMES and set(findings.method) == {"input_x_gradient, all"}
    absences = {
        (unit, rules_of(NAME).world.names[concept])
        for unit, concept in np.argwhere(output_truth(NAME) == "absence")
    }
    assert {*zip(findings.unit, findings.concept, strict=True)} == absences
    assert len(findings) == 5 * len(absences)


def test_without_hidden_units_only_outputs_are_asked():
    recorded = Recorded()
    answers, findings = run_network(NAME, BenchmarkConfig(1, 64, 2, 1, 0, 2), {"own": Method(recorded)})
    assert len(recorded.tasks) == 2 and len(answers) == 56 and len(findings) == 0


@pytest.mark.parametrize("shape", [(7, 4), (4,), (4, 7, 1)])
def test_an_answer_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"\[unit, concept\], here \[4, 7\]"):
        run_network(
            NAME, BenchmarkConfig(1, 64, 2, 1, 0, 2), {"own": Method(lambda task: torch.zeros(shape))}
        )


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="name"):
        run_network("plain/9", SMALL, {})


def test_networks_of_the_tests_differ_by_name():
    assert not torch.equal(untrained("plain/0").fc.weight, untrained("plain/0 twin").fc.weight)
