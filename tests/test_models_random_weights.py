"""A copy with random weights has new weights everywhere, drawn as a fresh network would draw them."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from absence_utils import InputError, load_model, open_model, responses
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


# -- weights that are computed from others, or held in buffers


def norms(net):
    return [
        torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
        for module in net
        if hasattr(module, "weight")
    ]


@pytest.mark.parametrize("how", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("passes", [0, 30])
@torch.no_grad()
def test_spectral_norm_keeps_norm_one(how, passes):
    torch.manual_seed(0)
    net = nn.Sequential(
        how(nn.Conv2d(3, 16, 3)), nn.ReLU(), how(nn.Conv2d(16, 8, 3)), nn.Flatten(), how(nn.Linear(32, 5))
    )
    images = torch.randn(8, 3, 6, 6)
    for _ in range(passes):
        net(images)
    for seed in range(4):
        twin = random_copy(net, seed, images=images)
        assert norms(twin) == pytest.approx([1, 1, 1], abs=0.02)
        twin(images)
        assert norms(twin) == pytest.approx([1, 1, 1], abs=0.02)
        for old, new in zip(net, twin, strict=True):
            if hasattr(old, "weight"):
                assert (
                    torch.corrcoef(torch.stack([old.weight.flatten(), new.weight.flatten()]))[0, 1].abs()
                    < 0.3
                )


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("how", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@torch.no_grad()
def test_weight_norm_is_drawn_as_a_plain_layer_is(how):
    torch.manual_seed(0)
    net = nn.Sequential(how(nn.Linear(200, 100)))
    for value in net.parameters():
        value.mul_(30)  # learnt lengths, which a fresh network does not have
    net(torch.randn(2, 200))
    twin = random_copy(net)
    twin(torch.randn(2, 200))
    assert twin[0].weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    assert not (twin[0].weight == net[0].weight).any()


def test_a_network_with_old_norms_is_copied_after_a_pass_with_gradients():
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 6)))
    net(torch.randn(3, 6))
    kept = net[0].weight
    assert norms(random_copy(net)) == pytest.approx([1], abs=0.02) and net[0].weight is kept


class Halved(nn.Module):
    """A parametrisation that cannot be inverted."""

    def forward(self, value):
        return value / 2


@torch.no_grad()
def test_parametrisations_keep_what_they_promise():
    torch.manual_seed(0)
    net = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)), nn.Linear(6, 6))
    nn.utils.parametrize.register_parametrization(net[1], "weight", Halved())
    twin = random_copy(net)
    torch.testing.assert_close(twin[0].weight @ twin[0].weight.T, torch.eye(6), atol=1e-5, rtol=0)
    for place in (0, 1):
        assert not torch.isclose(twin[place].weight, net[place].weight, atol=1e-3).all()


class Frozen(nn.Module):
    """A layer whose weights are buffers, with a norm and with what is no weight."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(8, 3, 3, 3) * 0.3 + 0.1)
        self.register_buffer("weight_mask", (torch.rand(8, 3, 3, 3) > 0.3).float())
        self.register_buffer("window", torch.hann_window(8))
        self.norm = torchvision.ops.FrozenBatchNorm2d(8)
        for value in self.norm.buffers():
            value.uniform_(0.5, 2)

    def forward(self, images):
        return (
            self.norm(nn.functional.conv2d(images, self.weight * self.weight_mask))
            * self.window[:, None, None]
        )


def test_weights_in_buffers_are_drawn_and_frozen_norms_forget():
    torch.manual_seed(0)
    net = Frozen()
    twin = random_copy(net, images=torch.randn(3, 3, 9, 9))
    assert not (twin.weight == net.weight).any()
    assert twin.weight.mean().item() == pytest.approx(0.1, abs=0.1)
    assert twin.weight.std().item() == pytest.approx(0.3, rel=0.2)
    assert torch.equal(twin.weight_mask, net.weight_mask) and torch.equal(twin.window, net.window)
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert (getattr(twin.norm, name) == value).all()


class OwnNorm(nn.Module):
    """A norm of the user's own, whose statistics no module resets."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.full((4,), 3.0))
        self.register_buffer("running_var", torch.full((4,), 9.0))

    def forward(self, x):
        return (x - self.running_mean) / self.running_var.sqrt()


def test_statistics_of_norms_of_one_s_own_are_forgotten():
    twin = random_copy(nn.Sequential(nn.Linear(4, 4), OwnNorm()))
    assert (twin[1].running_mean == 0).all() and (twin[1].running_var == 1).all()


# -- the copy is checked


class Hidden(nn.Module):
    """Its weights are where no draw reaches: plain tensors in a list."""

    def __init__(self, head=None):
        super().__init__()
        self.kept, self.head = [torch.randn(5, 3)], head

    def forward(self, images):
        values = images.mean((2, 3)) @ self.kept[0].T
        return values if self.head is None else values + 0 * self.head(values)


def test_a_copy_that_is_none_is_refused():
    with pytest.raises(InputError, match="`model`.*no weight .*drawn anew.*register"):
        random_copy(Hidden())
    images = torch.randn(4, 3, 8, 8)
    random_copy(Hidden(nn.Linear(5, 5)))
    with pytest.raises(InputError, match="`model`.*answers as the network does.*register"):
        random_copy(Hidden(nn.Linear(5, 5)), images=images)


class Loud(nn.Linear):
    """An untrained layer on no sane scale."""

    def __init__(self, scale):
        super().__init__(4, 4)
        self.scale = scale

    def reset_parameters(self):
        nn.init.normal_(self.weight, 0, getattr(self, "scale", 1.0))
        nn.init.zeros_(self.bias)


@pytest.mark.parametrize("scale, says", [(1e9, r"sd .*e\+0"), (1e-10, "sd .*e-1")])
def test_scales_out_of_range_are_said_with_the_layer(scale, says):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), Loud(scale), nn.Linear(4, 2))
    images = torch.randn(6, 3, 4, 4)
    with pytest.warns(UserWarning, match=f"random copy.*'3'.*{says}"):
        random_copy(net, images=images)
    net[3].scale = 1.0
    random_copy(net, images=images)  # a warning is an error


def test_values_that_overflow_in_the_copy_are_refused():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), Loud(1e30), Loud(1e30))
    with pytest.raises(InputError, match="`model`.*'4'.*not finite"):
        random_copy(net, images=torch.randn(6, 3, 4, 4))


def test_a_copy_that_tells_no_images_apart_is_said():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, 2))
    images = torch.randn(1, 3, 4, 4) + 1e-9 * torch.randn(6, 3, 4, 4)
    with pytest.warns(UserWarning, match="random copy.*same for all images"):
        random_copy(net, images=images)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
@pytest.mark.slow
def test_copies_of_torchvision_s_classifiers_have_sane_scales(name):
    images = nn.functional.interpolate(
        torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=96
    )
    random_copy(load_model(name), images=images)  # a warning is an error


def test_the_network_is_left_as_found_when_its_copy_is_checked():
    net = network()
    before = copy.deepcopy(net.state_dict())
    random_copy(net, images=torch.randn(4, 3, 8, 8))
    assert net.training and all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
