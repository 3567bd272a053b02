"""Networks on which what a method must say is known: units that add up the red of an image, and opposite units."""

import torch
from torch import nn

from absence_utils.benchmark.rule_networks import CHANNELS, COLUMNS
from absence_utils.benchmark.tasks import BenchmarkTask
from absence_utils.images.worlds import World
from absence_utils.models.concept_net import ConceptNet

RED = 64**2  # pixels that a mean is over


class Brightness(nn.Module):
    """Output 0 adds up the red channel, output 1 takes it away: every concept is a presence of one, an absence of the
    other, and what it does is the red inside its mask."""

    def __init__(self):
        super().__init__()
        self.block4 = nn.Conv2d(3, 2, 1, bias=False)
        self.block4.weight.data = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])[..., None, None]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, images):
        return self.flatten(self.pool(self.block4(images)))


def bright_task(scenes=96, presence=None, **options) -> BenchmarkTask:
    """Both units in random scenes of the plain world; target inputs are those above the median."""
    world, model = World(), Brightness().eval()
    presence = world.draw_presence(scenes, 3) if presence is None else presence
    rendered = world.render(presence, 3)
    task = BenchmarkTask(model, None, [0, 1], world, rendered, torch.zeros(0), model, **options)
    task.target = task.response > task.response.median(dim=0).values
    return task


def opposite_task(scenes=64, images_for_maps=4, steps=2, layer=None, **options) -> BenchmarkTask:
    """Two outputs of an untrained network without biases, one minus the other, with the same target inputs."""
    torch.manual_seed(5)
    world, model, detector = World(), ConceptNet(2, COLUMNS, CHANNELS).eval(), ConceptNet(7).eval()
    with torch.no_grad():
        model.fc.weight[1] = -model.fc.weight[0]
    rendered = world.render(world.draw_presence(scenes, 3), 3)
    task = BenchmarkTask(
        model, layer, [0, 1], world, rendered, torch.zeros(0), detector,
        images_for_maps=images_for_maps, steps=steps, **options,
    )  # fmt: skip
    task.target = (task.response[:, :1] > task.response[:, :1].median()).expand(-1, 2)
    return task
