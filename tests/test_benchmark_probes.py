"""Linear probes: derivatives by hand, a unit that is a probe's direction, and noise that must not be called."""

import numpy as np
import pytest
import torch
from helpers.benchmark_units import opposite_task
from torch import nn

from absence_utils.benchmark import probes
from absence_utils.benchmark.probes import concept_probe, tcav
from absence_utils.benchmark.tasks import BenchmarkTask
from absence_utils.images.worlds import World


class Painted(nn.Module):
    """block4 shows concept k by channel k (the scenes' masks are the input); outputs: channel 0, minus channel 1, and a
    channel of noise that no concept touches."""

    def __init__(self):
        super().__init__()
        self.block4 = nn.Conv2d(8, 8, 1, bias=False)
        self.block4.weight.data = torch.eye(8)[..., None, None]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8, 3, bias=False)
        self.fc.weight.data = torch.zeros(3, 8)
        self.fc.weight.data[0, 0], self.fc.weight.data[1, 1], self.fc.weight.data[2, 7] = 1.0, -1.0, 1.0

    def forward(self, images):
        return self.fc(self.flatten(self.pool(self.block4(images))))


@pytest.fixture(scope="module")
def painted():
    world = World()
    scenes = world.render(world.draw_presence(128, 3), 3)
    noise = torch.randn(128, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    task = BenchmarkTask(Painted().eval(), None, [0, 1, 2], world, scenes, torch.zeros(0), None)
    task.images = torch.cat((scenes.masks.float(), noise), dim=1)
    task.target = torch.ones(128, 3, dtype=torch.bool)
    return task


def test_a_unit_that_is_a_direction_is_called_and_no_other(painted):
    found = tcav(painted)
    assert found[0, 0] == -1 and found[1, 1] == 1, "every derivative along the vector has one sign"
    # Of concepts that the unit does not read more than 5% are called: vectors of a concept share scenes.
    others = torch.ones(3, 7, dtype=torch.bool)
    others[0, 0] = others[1, 1] = False
    assert (found[others] != 0).double().mean() < 0.3


def test_probe_of_a_unit_that_is_a_direction(painted):
    found = concept_probe(painted)
    assert found[0].argmin() == 0 and found[1].argmax() == 1
    assert found[0, 0] < 0 < found[1, 1]
    assert found[0, 1:].abs().max() < 0.3 * found[0, 0].abs()


def test_the_slope_of_a_linear_head_is_its_weight():
    """Through a mean over 8 x 8 positions: moving a channel everywhere by 1 moves the mean by 1."""
    task = BenchmarkTask(
        Painted().eval(), None, [0, 1], World(), None, torch.zeros(0), None, images_for_maps=2
    )
    task.images = torch.randn(6, 8, 8, 8)
    slopes = probes._slopes(task)
    assert slopes.shape == (2, 4, 8)
    torch.testing.assert_close(slopes, task.model.fc.weight[:2, None].double().expand(2, 4, 8))


def test_slopes_by_finite_differences():
    task = opposite_task(scenes=8, images_for_maps=1)
    slopes, model = probes._slopes(task), task.model.double()
    step, images = 1e-5, task.images[:2].double()
    for channel in (0, 17):
        answers = []
        for sign in (1, -1):
            move = torch.zeros(1, 64, 1, 1).double()
            move[0, channel] = sign * step
            handle = model.block4.register_forward_hook(lambda _, __, output, move=move: output + move)
            answers.append(model(images).detach())
            handle.remove()
        expected = (answers[0] - answers[1])[:, 0] / (2 * step)
        np.testing.assert_allclose(slopes[0, :, channel].numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)
    assert not model.block4._forward_hooks


def test_a_unit_without_target_inputs_is_passed_over(painted, monkeypatch):
    monkeypatch.setattr(probes, "VECTORS", 2), monkeypatch.setattr(probes, "AT_RANDOM", 2)
    target = painted.target.clone()
    target[:, 1] = False
    task = BenchmarkTask(painted.model, None, [0, 1, 2], painted.world, painted.scenes, target, None)
    task.images = painted.images
    assert tcav(task).isnan().all(dim=1).tolist() == [False, True, False]


def test_shares_are_over_target_inputs_alone(painted, monkeypatch):
    monkeypatch.setattr(probes, "VECTORS", 3)
    """Rectified: the derivative is positive on the inputs that show the concept, and 0 on the others."""

    class Rectified(Painted):
        def forward(self, images):
            return torch.relu(super().forward(images) - 1e-4)

    target = painted.scenes.presence[:, :1].expand(-1, 3).clone()
    said = []
    for inputs in (target, torch.ones_like(target)):
        task = BenchmarkTask(Rectified().eval(), None, [0, 1, 2], painted.world, painted.scenes, inputs, None)
        task.images = painted.images
        said.append(tcav(task)[0, 0].item())
    share = painted.scenes.presence[:48, 0].double().mean().item()
    assert said[0] == -1 and said[1] == pytest.approx(1 - 2 * share, abs=1e-6)
