"""A copy with random weights has new weights everywhere, drawn as a fresh network would draw them."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from absence_utils import InputError, open_model, responses
from absence_utils.models.load import model_fingerprint
from absence_utils.models.random_weights import random_copy


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4), nn.LayerNorm(4)
    )


def test_a_random_copy_has_new_weights_and_forgets_what_norms_saw():
    net = network()
    net(torch.randn(64, 3, 8, 8) * 3 + 1)  # in training mode: running statistics
    nn.init.normal_(net[1].weight)
    before, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    first, again, other = (random_copy(net, seed) for seed in (0, 0, 1))
    assert torch.equal(random, torch.random.get_rng_state()) and net.training and not first.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert model_fingerprint(first) == model_fingerprint(again) != model_fingerprint(other)
    assert torch.equal(first[1].running_mean, torch.zeros(8)) and torch.equal(
        first[1].running_var, torch.ones(8)
    )
    assert torch.equal(first[1].weight, torch.ones(8))
    for place in (0, 4):
        trained, drawn = net[place].weight.flatten(), first[place].weight.flatten()
        assert torch.corrcoef(torch.stack([trained, drawn]))[0, 1].abs() < 0.25
        fan_in = net[place].weight[0].numel()
        assert drawn.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)  # He
    assert {id(p) for p in net.parameters()}.isdisjoint(id(p) for p in first.parameters())


def test_what_no_module_draws_is_redrawn_with_its_own_mean_and_sd():
    vit = VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=20, num_classes=4)
    with torch.no_grad():
        vit.class_token.normal_(2, 0.5)
        vit.encoder.pos_embedding.normal_(-1, 0.1)
    twin = random_copy(vit, 0)
    for before, after, mean, sd in (
        (vit.class_token, twin.class_token, 2, 0.5),
        (vit.encoder.pos_embedding, twin.encoder.pos_embedding, -1, 0.1),
    ):
        assert not (before == after).any()
        assert after.mean().item() == pytest.approx(mean, abs=0.5) and after.std().item() == pytest.approx(
            sd, rel=0.5
        )
    layer = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    assert not (vit.get_parameter(layer) == twin.get_parameter(layer)).any()


class Custom(nn.Linear):
    """Draws its weight in its own way, forgets about its scale, and has a constant."""

    def __init__(self):
        super().__init__(50, 50, bias=False)
        self.scale, self.temperature = nn.Parameter(torch.randn(200) + 5), nn.Parameter(torch.tensor(3.0))

    def reset_parameters(self):
        nn.init.uniform_(self.weight, 7, 8)


class Demanding(nn.Linear):
    def reset_parameters(self, how=None):
        if how is None:
            raise TypeError("how?")


def test_modules_that_draw_in_their_own_way():
    torch.manual_seed(0)
    net = nn.Sequential(Custom(), nn.utils.parametrizations.weight_norm(nn.Linear(50, 50)))
    twin = random_copy(net, 0)
    assert (
        7 <= twin[0].weight.min()
        and twin[0].weight.max() <= 8
        and not (twin[0].weight == net[0].weight).any()
    )
    assert not (twin[0].scale == net[0].scale).any() and twin[0].scale.mean().item() == pytest.approx(
        5, abs=0.4
    )
    assert twin[0].temperature == 3
    assert not (twin[1].weight == net[1].weight).any()
    torch.manual_seed(0)
    demanding = nn.Linear(30, 30)
    demanding.__class__ = Demanding
    assert not (random_copy(demanding).weight == demanding.weight).any()


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    twin = random_copy(net)
    assert twin[1].weight is twin[0].weight and not (twin[0].weight == net[0].weight).any()


def test_untrained_deep_networks_still_tell_images_apart():
    """PyTorch's own scale leaves differences at rounding: 2e-7 of the output of SqueezeNet."""
    images = nn.functional.interpolate(
        torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=96
    )
    with torch.no_grad():
        outputs = responses(random_copy(open_model("squeezenet1_0").model), "logits", images)
    assert ((outputs.amax(0) - outputs.amin(0)) / outputs.abs().max()).mean() > 1e-3


def test_a_network_that_cannot_be_copied_says_so():
    net = network()
    net.kept = net[0].weight * 2  # a tensor inside a graph
    with pytest.raises(InputError, match="`model`.*cannot be copied"):
        random_copy(net)
