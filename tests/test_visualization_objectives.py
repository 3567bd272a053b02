"""Lucent's objectives on the signed values of `Readings`."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import IMAGENET, Normalisation
from absence_utils.units import Unit
from absence_utils.visualization import objectives
from absence_utils.visualization._lucent import hook_model
from absence_utils.visualization._lucent import objectives as lucent
from absence_utils.visualization.objectives import Readings


class Small(nn.Module):
    """conv, ReLU in place, conv, average, linear; not ImageNet's normalisation."""

    normalisation = Normalisation((0.3,), (0.5,))

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.relu, self.out = nn.ReLU(inplace=True), nn.Linear(5, 4)

    def forward(self, x):
        return self.out(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))


@pytest.fixture
def model():
    return Small().eval()


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def look_at(model, pixels, **layers):
    readings = Readings(model, **layers)
    look = hook_model(readings, lambda: pixels)
    readings(pixels)
    return look


def second_by_hand(model, pixels):
    return model.second(F.relu(model.first((pixels - 0.3) / 0.5)))


def test_lucents_objectives_see_signed_values(model, pixels):
    """Channel and direction, from their definitions: mean, and cosine with the values at each position."""
    look, values = look_at(model, pixels, reading="second"), second_by_hand(model, pixels)
    assert values.min() < 0
    assert torch.allclose(lucent.channel("reading", 2)(look), -values[:, 2].mean(), atol=1e-6)
    v = torch.tensor([1.0, -2.0, 0.0, 0.5, 1.0])
    cosine = (values * v[:, None, None]).sum(1) / (values.norm(dim=1) * v.norm())
    assert torch.allclose(lucent.direction("reading", v)(look), -cosine.mean(), atol=1e-6)
    both = lucent.channel("reading", 0) - 2 * lucent.channel("reading", 1)
    assert torch.allclose(both(look), -values[:, 0].mean() + 2 * values[:, 1].mean(), atol=1e-6)


def test_the_trap_is_real_and_avoided(pixels):
    """Lucent's own hook on SqueezeNet never sees a negative value; through Readings it does."""
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_0().eval()
    image = torch.rand(1, 3, 64, 64)
    own = hook_model(network, lambda: image)
    network(IMAGENET.apply(image))
    assert own("features_12_expand3x3").min() >= 0
    assert look_at(network, image, reading="features.12.expand3x3")("reading").min() < 0


@pytest.mark.parametrize("direction", [None, torch.tensor([1.0, 0.0, -3.0, 0.0, 2.0])])
@pytest.mark.parametrize("pool", ["mean", "max", "min"])
def test_presence_and_absence_are_the_response(model, pixels, direction, pool):
    unit = Unit(model, "second", 3, direction, pool)
    look, response = look_at(model, pixels, reading="second"), unit.response((pixels - 0.3) / 0.5)
    absence, presence = objectives.absence(unit)(look), objectives.presence(unit)(look)
    assert torch.allclose(absence, response.mean(), atol=1e-6)
    assert presence + absence == 0
    assert -objectives.presence(unit)(look) == (-objectives.presence(unit))(look) == absence


def test_tokens_and_vectors_get_four_axes():
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
    ).eval()
    pixels = torch.rand(2, 3, 32, 32)
    look = look_at(vit, pixels, reading="encoder.layers.encoder_layer_0", logits="logits")
    assert look("reading").shape == (2, 8, 1, 5)
    assert look("logits").shape == (2, 1000, 1, 1)
    assert lucent.diversity("reading")(look).isfinite()
    unit = Unit(vit, "encoder.layers.encoder_layer_0", 1, pool="cls")
    assert torch.allclose(
        objectives.absence(unit)(look), unit.response(IMAGENET.apply(pixels)).mean(), atol=1e-6
    )


def test_apart_is_the_similarity_of_gram_matrices_in_units_of_the_layer(model, pixels):
    values = second_by_hand(model, pixels).double()
    flat = values.flatten(2)
    gram = torch.stack([item @ item.T / (item @ item.T).norm() for item in flat])
    expected = sum((gram[i] * gram[j]).sum() for i in range(3) for j in range(3) if i != j) / 3
    found = objectives.apart(2.0)(look_at(model, pixels, reading="second"))
    assert found.item() == pytest.approx(2 * values.abs().mean().item() * expected.item(), rel=1e-4)
    assert found > 0  # minimised: images that are alike cost


def test_smooth_is_the_total_variation(model, pixels):
    values = second_by_hand(model, pixels)
    across = sum((pixels[..., j + 1] - pixels[..., j]).abs().sum() for j in range(11)) / (3 * 3 * 12 * 11)
    down = sum((pixels[..., i + 1, :] - pixels[..., i, :]).abs().sum() for i in range(11)) / (3 * 3 * 12 * 11)
    found = objectives.smooth(0.5)(look_at(model, pixels, reading="second"))
    assert torch.allclose(found, 0.5 * values.abs().mean() * (across + down), rtol=1e-5)


def test_suppression_counts_what_is_left_and_what_was_changed(model, pixels):
    unit, original = Unit(model, "second", 1), torch.full((3, 12, 12), 0.4)
    start = unit.response((original[None] - 0.3) / 0.5).item()
    response = second_by_hand(model, pixels)[:, 1].mean((1, 2))
    target = min(start, response.min().item()) - 1
    objective = objectives.suppression(unit, original, target=target, penalty=3.0)
    expected = (response - target).mean() / (start - target) + 3 * (pixels - original).abs().mean()
    assert torch.allclose(objective(look_at(model, pixels, reading="second")), expected, rtol=1e-5)
    same = objective(look_at(model, original[None], reading="second"))
    assert same.item() == pytest.approx(1, rel=1e-5)
    with pytest.raises(InputError, match="not above the target"):
        objectives.suppression(unit, original, target=start)


def test_lucent_finds_only_the_readings(model, pixels):
    """No hook on the network, and none left anywhere when the readings are gone."""
    look_at(model, pixels, reading="second", other="first")
    assert [name for name, _ in Readings(model, a="first", b=None).named_modules()] == ["", "a", "b"]
    assert list(Readings(model, a="first").parameters()) == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_lucents_own_names_are_refused(model):
    with pytest.raises(InputError, match="input"):
        Readings(model, input="first")
