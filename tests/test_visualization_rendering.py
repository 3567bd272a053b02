"""Synthesised maxima and minima: alive on every architecture, reproducible, leaving everything as found."""

import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import IMAGENET, Normalisation, TensorImages
from absence_utils.units import Unit, responses
from absence_utils.visualization import facets, rendering
from absence_utils.visualization import optimisation as synthesis
from absence_utils.visualization.budget import pole_table
from absence_utils.visualization.parametrisation import changed_image
from absence_utils.visualization.rendering import render_pair, suppress, suppress_top

RED, GREEN = 0, 1


class Planted(nn.Module):
    """Closed form: channel 0 is red minus green (mean 0 of grey), channel 1 is the opposite, channel 2 is
    blue.

    The ReLU behind it works in place. `out` holds their rectified means, so it can't go below zero.
    """

    normalisation = Normalisation((0.5,), (0.25,))

    def __init__(self, channels=3):
        super().__init__()
        self.mix, self.relu = nn.Conv2d(channels, 3, 1, bias=False), nn.ReLU(inplace=True)
        self.mix.weight.data.zero_()
        if channels == 3:
            self.mix.weight.data[:, :, 0, 0] = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 1]])
        else:
            self.mix.weight.data[:, 0, 0, 0] = torch.tensor([1.0, -1, 2])

    def forward(self, x):
        return self.relu(self.mix(x)).mean((2, 3))


@pytest.fixture
def planted():
    return Planted().eval()


def quick(unit, **options):
    return render_pair(unit, **({"steps": 4, "size": 16, "lr": 0.2} | options))


# -- alive on every architecture: the layer recomputed by hand, then five steps down


def convolution(module, x):
    return F.conv2d(
        x, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


def batch_norm(module, x):
    scale = module.weight / torch.sqrt(module.running_var + module.eps)
    shift = module.bias - module.running_mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def layer_norm(x, module):  # over the last axis
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + module.eps) * module.weight + module.bias
    )


def vgg_conv(net, x):
    for module in net.features[:8]:
        x = {nn.Conv2d: lambda m, x: convolution(m, x), nn.ReLU: lambda m, x: x.clamp(min=0)}.get(
            type(module), lambda m, x: F.max_pool2d(x, 2)
        )(module, x)
    return convolution(net.features[8], x)


def squeezenet_fire(net, x):
    """features.0 to .3, then the squeeze and the 3x3 expansion of the first Fire module."""
    x = F.max_pool2d(convolution(net.features[0], x).clamp(min=0), 3, 2, ceil_mode=True)
    fire = net.features[3]
    return convolution(fire.expand3x3, convolution(fire.squeeze, x).clamp(min=0))


def squeezenet_logits(net, x):
    for module in net.features:
        if hasattr(module, "squeeze"):
            inner = convolution(module.squeeze, x).clamp(min=0)
            x = torch.cat([convolution(module.expand1x1, inner), convolution(module.expand3x3, inner)], 1)
            x = x.clamp(min=0)
        elif isinstance(module, nn.Conv2d):
            x = convolution(module, x).clamp(min=0)
        elif isinstance(module, nn.MaxPool2d):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return convolution(net.classifier[1], x)


def resnet_parts(net, x):
    """conv1, bn1 and the sum before the last ReLU of layer1's first (bottleneck) block."""
    x = F.max_pool2d(batch_norm(net.bn1, convolution(net.conv1, x)).clamp(min=0), 3, 2, 1)
    block = net.layer1[0]
    first = convolution(block.conv1, x)
    y = batch_norm(block.bn1, first).clamp(min=0)
    y = batch_norm(block.bn2, convolution(block.conv2, y)).clamp(min=0)
    third = batch_norm(block.bn3, convolution(block.conv3, y))
    return first, third, third + batch_norm(block.downsample[1], convolution(block.downsample[0], x))


def vit_parts(net, x):
    """The first MLP layer before its GELU, and the block's output, of the first encoder block."""
    block = net.encoder.layers[0]
    patches = convolution(net.conv_proj, x).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.class_token.expand(len(x), -1, -1), patches], 1) + net.encoder.pos_embedding
    attention, normed = block.self_attention, layer_norm(tokens, block.ln_1)
    q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    heads, width = attention.num_heads, tokens.shape[-1] // attention.num_heads
    mixed = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / width**0.5, dim=-1)
        mixed.append(weights @ v[..., part])
    tokens = tokens + torch.cat(mixed, -1) @ attention.out_proj.weight.T + attention.out_proj.bias
    inner = layer_norm(tokens, block.ln_2) @ block.mlp[0].weight.T + block.mlp[0].bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    return inner, tokens + gelu @ block.mlp[3].weight.T + block.mlp[3].bias


def convnext_parts(net, x):
    """The wide linear layer before its GELU, and the block's output, of the first block."""
    stem, block = net.features[0], net.features[1][0]
    x = layer_norm(convolution(stem[0], x).permute(0, 2, 3, 1), stem[1])
    y = convolution(block.block[0], x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    inner = layer_norm(y, block.block[2]) @ block.block[3].weight.T + block.block[3].bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    out = gelu @ block.block[5].weight.T + block.block[5].bias
    return inner, x + block.layer_scale.permute(1, 2, 0) * out


def mean_of_map(values):
    return values.mean((2, 3))


def mean_of_tokens(values):
    return values.mean(1)


def mean_of_last(values):
    return values.mean((1, 2))


BLOCK = "encoder.layers.encoder_layer_0"
ALIVE = [
    ("vgg11", "features.8", lambda n, x: mean_of_map(vgg_conv(n, x))),
    ("resnet50", "layer1.0.conv1", lambda n, x: mean_of_map(resnet_parts(n, x)[0])),
    ("resnet50", "layer1.0.bn3", lambda n, x: mean_of_map(resnet_parts(n, x)[1])),
    ("resnet50", "layer1.0", lambda n, x: mean_of_map(resnet_parts(n, x)[2])),
    ("squeezenet1_0", "features.3.expand3x3", lambda n, x: mean_of_map(squeezenet_fire(n, x))),
    ("squeezenet1_0", "logits", lambda n, x: mean_of_map(squeezenet_logits(n, x))),
    ("vit_b_16", BLOCK + ".mlp.0", lambda n, x: mean_of_tokens(vit_parts(n, x)[0])),
    ("vit_b_16", BLOCK, lambda n, x: mean_of_tokens(vit_parts(n, x)[1])),
    ("convnext_tiny", "features.1.0.block.3", lambda n, x: mean_of_last(convnext_parts(n, x)[0])),
    ("convnext_tiny", "features.1.0", lambda n, x: mean_of_last(convnext_parts(n, x)[1])),
]


@pytest.fixture(scope="module")
def networks():
    """Random weights; ViT-B/16 is cut to its first block and to small images, its width is kept."""
    torch.manual_seed(0)
    wide = {"image_size": 32, "patch_size": 16, "num_layers": 1, "num_heads": 12}
    made = {
        "vit_b_16": torchvision.models.VisionTransformer(**wide, hidden_dim=768, mlp_dim=3072, num_classes=5)
    }
    for name in ("vgg11", "resnet50", "squeezenet1_0", "convnext_tiny"):
        made[name] = getattr(torchvision.models, name)(num_classes=5)
    for network in made.values():
        network.eval()
        for module in network.modules():  # the values of a fresh network would hide a forgotten gamma or bias
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
                nn.init.normal_(module.running_mean, 0, 0.3)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name, layer, by_hand", ALIVE, ids=[f"{name}-{layer}" for name, layer, _ in ALIVE])
def test_five_steps_of_minimisation_reach_below_zero(networks, name, layer, by_hand):
    network, size = networks[name], 32 if name == "vit_b_16" else 64
    images = IMAGENET.apply(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3)))
    with torch.no_grad():
        expected, found = by_hand(network, images), responses(network, layer, images)
        grey = by_hand(network, IMAGENET.apply(torch.full((1, 3, size, size), 0.5)))[0]
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max())
    above = grey > 0.02 * grey.abs().max()  # it starts above zero, so it has to cross
    channel = int(torch.where(above, grey, torch.inf).argmin())
    pair = render_pair(Unit(network, layer, channel), steps=5, size=size, lr=0.5, transforms="none")
    assert pair.lowest.trajectory[0, 0] > 0 > pair.lowest.response[0]
    assert pair.highest.response[0] > pair.lowest.trajectory[0, 0]
    with torch.no_grad():
        again = by_hand(network, IMAGENET.apply(pair.lowest.image))[0, channel]
    assert pair.lowest.response[0].item() == pytest.approx(
        again.item(), abs=1e-4 * expected.abs().max().item()
    )


# -- closed form


@pytest.mark.slow
def test_maximum_is_red_and_minimum_is_green(planted):
    pair = render_pair(
        Unit(planted, "mix", 0), steps=60, size=16, lr=0.2, decorrelate=False, transforms="none"
    )
    red, green = pair.highest.image[0].mean((1, 2)), pair.lowest.image[0].mean((1, 2))
    assert red[RED] > 0.8 and red[GREEN] < 0.2
    assert green[GREEN] > 0.8 and green[RED] < 0.2
    assert pair.highest.response[0] > 2 and pair.lowest.response[0] < -2  # 4 and -4 are the limits


def test_the_response_is_that_of_the_finished_image(planted):
    pair = quick(Unit(planted, "mix", 0), facets=2)
    for side in (pair.highest, pair.lowest):
        assert side.image.shape == (2, 3, 16, 16) and side.trajectory.shape == (4, 2)
        assert 0 <= side.image.min() and side.image.max() <= 1
        by_hand = ((side.image[:, RED] - side.image[:, GREEN]) / 0.25).mean((1, 2))
        assert torch.allclose(side.response, by_hand, atol=1e-5)


@pytest.mark.parametrize("transforms", ["none", "standard"])
def test_negating_the_objective_flips_the_pair(planted, transforms):
    """The unit -u has the maximum of u as its minimum, picture for picture, and bit for bit."""
    direction = torch.tensor([1.0, 0.3, -2.0])
    pair = quick(Unit(planted, "mix", direction=direction), transforms=transforms)
    flipped = quick(Unit(planted, "mix", direction=-direction), transforms=transforms)
    assert torch.equal(pair.highest.image, flipped.lowest.image)
    assert torch.equal(pair.lowest.image, flipped.highest.image)
    assert torch.equal(pair.highest.response, -flipped.lowest.response)
    assert not torch.equal(pair.highest.image, pair.lowest.image)


def test_both_signs_start_alike(planted):
    pair = quick(Unit(planted, "mix", 0))
    assert torch.equal(pair.highest.trajectory[0], pair.lowest.trajectory[0])


@pytest.mark.slow
def test_grey_inputs():
    pair = render_pair(Unit(Planted(channels=1).eval(), "mix", 1), steps=40, size=12, lr=0.2)
    assert pair.highest.image.shape == (1, 1, 12, 12)
    assert pair.highest.image.mean() < 0.3 and pair.lowest.image.mean() > 0.7


@pytest.mark.slow
def test_rectified_output_is_rendered_signed(planted):
    with pytest.warns(UserWarning, match="rectifies its output"):
        pair = quick(Unit(planted, None, 0), steps=30)
    assert pair.unit.layer == "logits"
    assert pair.lowest.response[0] < -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(Unit(planted, "logits", 0))


@pytest.mark.slow
def test_facets_are_kept_apart(planted, monkeypatch):
    """With diversity the facets of a random network resemble each other less, by their Gram matrices.

    Here to the last step: a linear unit has one best image, to which all would return without it.
    """
    monkeypatch.setattr(synthesis, "EARLY", 1.0)
    monkeypatch.setattr(rendering, "SPARE", 1)
    monkeypatch.setattr(facets, "KEPT", -10.0)  # all are good enough
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 12 * 12, 4)).eval()
    network.normalisation = Normalisation()

    def likeness(unit, **options):
        images = render_pair(unit, steps=30, size=16, facets=3, transforms="none", **options).highest.image
        flat = network[0](images).flatten(2)
        gram = F.normalize((flat @ flat.mT).flatten(1), dim=1)
        return (gram @ gram.T)[~torch.eye(3, dtype=bool)].mean().item()

    for unit, options in ((Unit(network, "0", 1), {}), (Unit(network, None, 2), {"diversity_layer": "0"})):
        with torch.no_grad():
            assert likeness(unit, diversity=20.0, **options) < likeness(unit, diversity=0.0) - 0.05
    assert synthesis.layer_with_space(Unit(network, None, 2), 16) == "1"
    assert synthesis.layer_with_space(Unit(network, "0", 2), 16) == "0"


@pytest.mark.slow
def test_smoothness_smooths(planted):
    def rough(smoothness):
        image = quick(Unit(planted, "mix", 2), smoothness=smoothness, steps=20, lr=0.05).highest.image
        return image.diff(dim=-1).abs().mean()

    assert rough(50.0) < 0.5 * rough(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, (24, 40), 64, 160])
def test_standard_transforms_keep_the_size_and_the_centre(size):
    """A blob in the middle stays there on average, though lucent's jitter only moves right and down."""
    height, width = (size, size) if isinstance(size, int) else size
    image = torch.zeros(1, 1, height, width)
    image[..., height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 1
    view = synthesis.transform.compose(synthesis.standard_transforms(size))
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    found = []
    with synthesis._reproducible(0):
        for _ in range(60):
            blob = view(image)[0, 0]
            assert blob.shape == (height, width)
            blob = (
                blob * (rows.abs()[:, None] < height / 3) * (columns.abs() < width / 3)
            )  # not the grey border
            found.append(
                [(blob.sum(1) * rows).sum() / blob.sum(), (blob.sum(0) * columns).sum() / blob.sum()]
            )
    found = torch.tensor(found)
    assert found.std(0).min() > 0.3  # it does move
    assert found.mean(0).abs().max() < 0.8


# -- reproducible, and everything as found


def test_same_seed_same_pictures_whatever_was_drawn_before(planted):
    first = quick(Unit(planted, "mix", 0), seed=3)
    torch.randn(7), np.random.rand(5), random.random()
    second, other = quick(Unit(planted, "mix", 0), seed=3), quick(Unit(planted, "mix", 0), seed=4)
    for sign in ("highest", "lowest"):
        assert torch.equal(getattr(first, sign).image, getattr(second, sign).image)
        assert torch.equal(getattr(first, sign).trajectory, getattr(second, sign).trajectory)
        assert not torch.equal(getattr(first, sign).image, getattr(other, sign).image)


class Broken(Exception):
    pass


def failing_at(call):
    calls = []

    def view(images):
        calls.append(1)
        if len(calls) == call:
            raise Broken
        return images

    return [view]


@pytest.mark.filterwarnings("ignore:.*not to the target")
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_found(fails):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5))
    model.normalisation = Normalisation()
    model.train()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    kept = torch.ones_like(model[0].weight)
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.set_num_threads(2)
    numbers = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    try:
        for call in (
            lambda t: quick(Unit(model, "1", 0), transforms=t),
            lambda t: suppress(Unit(model, "1", 0), image, steps=4, target=-100.0, transforms=t),
        ):
            if fails:
                with pytest.raises(Broken):
                    call(failing_at(3))
            else:
                call("standard")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model[0].weight.grad, kept) and model[0].bias.grad is None
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert np.array_equal(np.random.get_state()[1], numbers[1]) and random.getstate() == numbers[2]


@pytest.mark.slow
def test_works_where_gradients_are_off(planted):
    with torch.inference_mode():
        assert quick(Unit(planted, "mix", 0), steps=40).lowest.response[0] < -1


def test_a_failed_step_is_an_error(planted):
    """Lucent would swallow it and go on with the values of the step before."""

    def too_small(images):
        raise RuntimeError("the image is too small")

    with pytest.raises(RuntimeError, match="too small"):
        quick(Unit(planted, "mix", 0), transforms=[too_small])


def test_a_loss_that_is_not_finite_is_an_error(planted):
    with pytest.raises(InputError, match="not finite at step 0"):
        quick(Unit(planted, "mix", 0), transforms=[lambda images: images / 0])
    planted.mix.weight.data[0] = torch.nan
    with pytest.raises(InputError, match="weights"):
        quick(Unit(planted, "mix", 0))


def test_a_unit_that_ignores_the_image_is_an_error(planted):
    planted.mix.weight.data[0] = 0
    with pytest.raises(InputError, match="does not depend on the image"):
        quick(Unit(planted, "mix", 0))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"steps": 0}, "steps"), ({"steps": 2.5}, "steps"), ({"size": 0}, "size"), ({"size": -3}, "size"),
        ({"facets": 0}, "facets"), ({"lr": 0.0}, "lr"), ({"lr": float("nan")}, "lr"),
        ({"diversity": -1.0}, "diversity"), ({"smoothness": float("inf")}, "smoothness"),
        ({"transforms": "standart"}, "transforms"), ({"seed": -1}, "seed"), ({"seed": 0.5}, "seed"),
        ({"facets": 2, "diversity_layer": "mux"}, "layer"),
    ],
)  # fmt: skip
def test_bad_values_are_named(planted, options, named):
    with pytest.raises(InputError, match=f"`{named}`"):
        quick(Unit(planted, "mix", 0), **options)


def test_bad_units_and_sizes_are_named(planted):
    with pytest.raises(InputError, match="out of range"):
        quick(Unit(planted, "mix", 3))
    torch.manual_seed(0)
    fixed = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    with pytest.raises(InputError, match="`size`.*48"):
        render_pair(Unit(fixed.eval(), "encoder", 0), steps=1, size=48)


# -- suppression


@pytest.fixture
def red_corner():
    """Grey pixels, normalised, with a red corner: channel 0 of `Planted` answers to it."""
    pixels = torch.full((3, 16, 16), 0.5)
    pixels[:, 4:12, 4:12] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return Planted.normalisation.apply(pixels)


@pytest.mark.slow
def test_suppression_reaches_the_target_and_stays_an_image(planted, red_corner):
    found = suppress(
        Unit(planted, "mix", 0), red_corner, steps=200, target=-0.5, penalty=2.0, lr=0.1, transforms="none"
    )
    assert found.before == pytest.approx(4 * 64 / 256)  # (1 - 0) / 0.25 on a quarter of the image
    assert found.after == pytest.approx(-0.5, abs=0.1)
    assert found.trajectory.shape == (200,) and found.trajectory[0] == pytest.approx(found.before, abs=1e-3)
    assert 0 <= found.image.min() and found.image.max() <= 1
    assert torch.equal(found.change, found.image - found.original)
    assert found.size == pytest.approx(found.change.abs().mean().item())
    colours = found.change.mean((1, 2))
    assert colours[RED] < -0.05 and colours[GREEN] > 0.05  # the sign of the change says what was added


def test_no_change_is_exactly_no_change(planted):
    """Also for pixels of 0 and 1, which logistic space cannot hold."""
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    with torch.no_grad():
        _, changed = changed_image(pixels)
        assert torch.allclose(changed(), pixels, atol=1e-7)


@pytest.mark.slow
def test_a_higher_price_buys_a_smaller_change(planted, red_corner):
    cheap, dear = (
        suppress(
            Unit(planted, "mix", 0),
            red_corner,
            steps=100,
            target=0.5,
            penalty=price,
            lr=0.1,
            transforms="none",
        )
        for price in (0.0, 4.0)
    )
    assert dear.after < 0.51 and cheap.after < 0.51
    assert dear.size < 0.9 * cheap.size


def test_suppression_refuses_what_it_cannot_do(planted, red_corner):
    unit = Unit(planted, "mix", 0)
    with pytest.raises(InputError, match="not above the target"):
        suppress(unit, red_corner, target=5.0)
    for image in (red_corner[None], red_corner * torch.nan, "image.png"):
        with pytest.raises(InputError, match="`image`"):
            suppress(unit, image)
    with pytest.warns(UserWarning, match="not to the target"):
        suppress(unit, red_corner, steps=1)
    with pytest.raises(InputError, match="`target`"):
        suppress(unit, red_corner, target=float("nan"))
    with pytest.raises(InputError, match="`steps`"):
        suppress(unit, red_corner, steps=0)


# -- against real images


@pytest.fixture
def real_images(red_corner):
    images = torch.stack([red_corner * share for share in (0.2, 1.0, 0.6, 0.4)])
    return TensorImages(
        images, torch.zeros(4, dtype=torch.long), ["any"], normalisation=Planted.normalisation
    )


@pytest.mark.slow
def test_suppress_top_takes_the_image_that_activates_the_unit_most(planted, real_images):
    real = responses(planted, "mix", real_images.images).detach()
    found = suppress_top(
        [Unit(planted, "mix", 0)], real_images, real, steps=60, quantile=0.5, penalty=2.0, lr=0.1
    )
    assert found[0].before == pytest.approx(1.0)
    assert torch.allclose(found[0].original, Planted.normalisation.undo(real_images.images[1]))
    assert found[0].target == pytest.approx(0.5)  # median of 0.2, 0.4, 0.6, 1
    assert found[0].after < 0.7


def test_poles_beside_real_responses(planted):
    unit = Unit(planted, "mix", 0)
    pair = quick(unit, facets=2)
    real = torch.tensor([[0.5, 9.0, 9.0], [-0.5, 9.0, 9.0], [0.3, 9.0, 9.0]])
    table = pole_table([pair], real).set_index("pole")
    assert table.loc["maximum", "response"] == pytest.approx(pair.highest.response.max().item())
    assert table.loc["minimum", "response"] == pytest.approx(pair.lowest.response.min().item())
    assert tuple(table.loc["minimum", ["low", "high"]]) == pytest.approx((-0.42, 0.48))
    sd = np.std([0.5, -0.5, 0.3], ddof=1)
    assert table.loc["minimum", "distance"] == pytest.approx(
        (pair.lowest.response.min().item() - 0.1) / sd, rel=1e-4
    )
    with pytest.raises(InputError, match="`images`: responses to 1 image have no range"):
        pole_table([pair], real[:1])
    with pytest.raises(InputError, match="`real`"):
        pole_table([pair], real[0])
    with pytest.raises(InputError, match="`units`"):
        pole_table([], real)
