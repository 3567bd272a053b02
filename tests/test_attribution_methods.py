"""Attribution against slow float64 re-derivations, its properties, and planted networks."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from absence_utils.attribution.baselines import baseline_images
from absence_utils.attribution.completeness import CompletenessWarning, completeness_gap
from absence_utils.attribution.evidence import absence_evidence, presence_evidence, region_sums
from absence_utils.attribution.gradcam import last_spatial_layer
from absence_utils.attribution.methods import METHODS, attribute
from absence_utils.errors import InputError
from absence_utils.images.base import Normalisation
from absence_utils.models.load import load_model
from absence_utils.units import Unit

QUICK = {
    "integrated_gradients": {"steps": 8},
    "smoothgrad": {"samples": 3},
    "occlusion": {"window": 4, "stride": 2},
}


class Reused(nn.Module):
    """All that captum's DeepLIFT stumbles over: a ReLU called twice, F.relu, in-place calls, max pooling."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3),
        )
        self.relu, self.pool, self.fc = (
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
            nn.Linear(6, 3),
        )

    def forward(self, images):
        maps = self.pool(self.relu(self.conv1(images)))
        after = self.conv2(maps)
        after += maps
        after = self.relu(after)
        return self.fc(
            F.relu(self.conv3(after)).amax(dim=(2, 3)) * 0 + F.relu6(self.conv3(after) * 40).mean(dim=(2, 3))
        )


def reused(seed=0):
    torch.manual_seed(seed)
    return Reused().double().eval()


def some_images(n=3, edge=11, seed=1):
    return torch.randn(n, 3, edge, edge, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_gradient(unit, images):
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(unit.response(images).sum(), images)
    return gradient


# -- re-derivations


def test_integrated_gradients_is_the_path_integral():
    unit, images = Unit(reused(), None, 1), some_images(2)
    baseline = baseline_images(unit, images, "blurred")
    place, weight = np.polynomial.legendre.leggauss(20)
    expected = torch.zeros_like(images)
    for x, w in zip(place, weight, strict=True):
        expected += (
            w / 2 * plain_gradient(unit, baseline + (x + 1) / 2 * (images - baseline)) * (images - baseline)
        )
    found = attribute(unit, images, steps=20, baseline="blurred")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)  # captum keeps its weights in float32


def test_input_x_gradient_by_hand():
    unit, images = Unit(reused(), "conv2", 2), some_images(2)
    baseline = torch.full((3, 1, 1), 0.3, dtype=torch.float64)
    expected = (images - 0.3) * plain_gradient(unit, images)
    torch.testing.assert_close(attribute(unit, images, "input_x_gradient", baseline=baseline), expected)


def test_occlusion_by_loops():
    unit, images = Unit(reused(), None, 0), some_images(1, edge=12)
    window, stride, total, count = 4, 2, torch.zeros(12, 12), torch.zeros(12, 12)
    for top in range(0, 9, stride):
        for left in range(0, 9, stride):
            covered = images.clone()
            covered[..., top : top + window, left : left + window] = 0
            drop = (unit.response(images) - unit.response(covered)).item()
            total[top : top + window, left : left + window] += drop / (3 * window**2)
            count[top : top + window, left : left + window] += 1
    expected = (total / count).double().expand(1, 3, 12, 12)
    found = attribute(unit, images, "occlusion", window=window, stride=stride)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)  # captum averages in float32


def test_deeplift_is_the_rescale_rule():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second)
    x, b = torch.randn(3, 1, 2, 2, dtype=torch.float64), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    z, zb = first(x.flatten(1)), first(b.flatten(1))
    ratio = (z.relu() - zb.relu()) / (z - zb)
    multiplier = (ratio * second.weight[1]) @ first.weight
    expected = (multiplier * (x - b).flatten(1)).view_as(x)
    torch.testing.assert_close(attribute(Unit(net, None, 1), x, "deeplift", baseline=b), expected)


def test_deeplift_of_a_maximum_by_hand():
    # max(p, q) = p + relu(q - p); at the baseline (0, 1) it is 1, at the input (4, 3) it is 4.
    net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten()).double()
    x, b = torch.tensor([[[[4.0, 3.0]]]]).double(), torch.tensor([[[[0.0, 1.0]]]]).double()
    ratio = (0 - 1) / (-1 - 1)  # relu(3 - 4) - relu(1 - 0), over the change of q - p
    expected = torch.tensor([[[[4 * (1 - ratio), 2 * ratio]]]]).double()
    torch.testing.assert_close(attribute(Unit(net, None, 0), x, "deeplift", baseline=b), expected)


@pytest.mark.parametrize(
    "call", [torch.relu, torch.Tensor.relu, F.relu, nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), F.elu]
)
def test_deeplift_is_complete_however_an_activation_is_called_and_who_else_reads_its_input(call):
    class Skip(nn.Module):
        def forward(self, images):
            once = call(images)  # the input has a second reader, and one activation feeds the next
            return (images * 0.5 + once + call(once * 1.0) + call(once)).flatten(1)

    images = 5 * some_images(2, edge=3)
    unit = Unit(Skip(), None, direction=torch.linspace(-1, 1, 27).double())
    found = attribute(unit, images, "deeplift", baseline=torch.full((3, 1, 1), 0.7).double())
    gap = completeness_gap(unit, images, found, baseline=torch.full((3, 1, 1), 0.7).double())
    assert gap.abs().max() < 1e-9 * found.abs().sum()


@pytest.mark.parametrize(
    "pool",
    [
        (3, 2, 1, True),
        (2, 2, 0, False),
        (3, 2, 0, True),
        (3, 3, 1, False),
        ((2, 3), 2, 0, True),
        (2, 3, 0, True),
    ],
)
@pytest.mark.parametrize("edge", [7, 8, 9])
def test_max_pooling_written_as_rectifications_is_max_pooling(pool, edge):
    kernel, stride, padding, ceil = pool
    net = nn.Sequential(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil), nn.Flatten())
    images = torch.randn(2, 2, edge, edge).double()
    for channel in (0, -1):
        unit = Unit(net, None, channel % net(images).shape[1])
        gap = completeness_gap(unit, images, attribute(unit, images, "deeplift"))
        assert gap.abs().max() < 1e-12


def test_smoothgrad_is_the_mean_of_noisy_input_x_gradients():
    unit, images = Unit(reused(), None, 0), some_images(1)
    sd = 0.2 * (images.max() - images.min())
    torch.manual_seed(5)
    noise = torch.normal(0, torch.full((4, 3, 11, 11), float(sd)))
    expected = ((images + noise) * plain_gradient(unit, images + noise)).mean(dim=0, keepdim=True)
    found = attribute(unit, images, "smoothgrad", samples=4, noise=0.2, seed=5)
    torch.testing.assert_close(found, expected)
    assert (found < 0).any() and (found > 0).any()


def test_gradcam_by_hand_is_signed_and_not_clipped():
    torch.manual_seed(2)
    conv, head = nn.Conv2d(3, 4, 3, padding=1, stride=2).double(), nn.Conv2d(4, 3, 3).double()
    net = nn.Sequential(conv, nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = some_images(2, edge=12)
    maps = conv(images).relu().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(head(maps).mean(dim=(2, 3))[:, 1].sum(), maps)
    cells = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).detach()
    assert (cells < 0).any()
    unit = Unit(net, None, 1)
    assert last_spatial_layer(unit, images) == "1"  # module 2 is the map of the classes itself
    found = attribute(unit, images, "gradcam")
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), cells.sum(dim=(1, 2, 3)))
    expected = (
        F.interpolate(cells, (12, 12), mode="bilinear") / 4
    )  # an integer factor of 2 keeps sums by itself
    torch.testing.assert_close(found.sum(dim=1, keepdim=True), expected)
    torch.testing.assert_close(found[:, 0], found[:, 2])


def test_gradcam_of_a_linear_head_is_complete_against_an_empty_layer():
    torch.manual_seed(3)
    conv, head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    images = some_images(2)
    total = attribute(Unit(net, None, 1), images, "gradcam").sum(dim=(1, 2, 3))
    torch.testing.assert_close(total, net(images)[:, 1].detach() - head.bias[1].detach())


# -- properties


@pytest.mark.parametrize("method", METHODS)
def test_shape_sign_and_batches(method):
    net, images, options = reused(), some_images(3, edge=12), QUICK.get(method, {})
    unit = Unit(net, None, 1)
    found = attribute(unit, images, method, **options)
    assert found.shape == images.shape and not found.requires_grad
    assert (found > 0).any() and (found < 0).any()
    negated = Unit(net, None, direction=-torch.eye(3)[1].double())
    torch.testing.assert_close(attribute(negated, images, method, **options), -found)
    torch.testing.assert_close(
        attribute(unit, images, method, batch_size=2, **options), found, rtol=1e-5, atol=1e-9
    )
    single = torch.cat([attribute(unit, image[None], method, **options) for image in images])
    torch.testing.assert_close(single, found, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fails", [False, True])
def test_network_and_images_are_left_as_found(method, fails):
    net, images = reused(), some_images(2, edge=12)
    net.train()
    net.fc.eval()
    unit = Unit(net, None, 9 if fails else 0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    if fails:
        with pytest.raises(InputError):
            attribute(unit, images, method, **QUICK.get(method, {}))
    else:
        attribute(unit, images, method, **QUICK.get(method, {}))
    assert [module.training for module in net.modules()].count(False) == 1
    for module in net.modules():
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
        assert not hasattr(module, "input") and not hasattr(module, "output")
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not images.requires_grad and images.grad is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_exception_inside_the_network_leaves_no_hooks():
    class Fails(Reused):
        calls = 0

        def forward(self, images):
            found = super().forward(images)
            self.calls += 1
            if self.calls > self.allowed:
                raise RuntimeError("planted")
            return found

    for method in METHODS:
        for allowed in (0, 1, 2):
            net = Fails().double().eval()
            net.allowed = allowed
            try:
                attribute(Unit(net, None, 0), some_images(1, edge=12), method, **QUICK.get(method, {}))
            except RuntimeError as error:
                assert "planted" in str(error)
            for module in net.modules():
                assert not (module._forward_hooks or module._forward_pre_hooks)


@pytest.mark.slow
@pytest.mark.parametrize("name, layer", [
    ("squeezenet1_0", "logits"), ("squeezenet1_0", "features.7"), ("resnet18", None),
    ("resnet18", "layer3.1.bn2"),
    ("vgg11", "features.8"), ("vit_b_16", "encoder.layers.encoder_layer_1"),
])  # fmt: skip
def test_every_method_works_on_torchvision_networks(name, layer):
    net = load_model(name, seed=0, **({"image_size": 32} if name.startswith("vit") else {}))
    unit, images = Unit(net, layer, 3), torch.randn(1, 3, 32 if name.startswith("vit") else 64, 64)
    images = images[..., : images.shape[-2]]
    options = QUICK | {"occlusion": {"window": 32}}
    for method in METHODS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CompletenessWarning)  # of DeepLIFT on the transformer
            found = attribute(unit, images, method, **options.get(method, {}))
        assert found.shape == images.shape and found.isfinite().all() and found.any(), method
    if not name.startswith("vit"):  # every nonlinearity is a ReLU or a max pooling
        found = attribute(unit, images, "deeplift", baseline="black")
        gap = completeness_gap(unit, images, found, baseline="black")
        assert gap.abs().max() < 1e-3 * found.abs().sum()


# -- planted networks


class NotCross(nn.Module):
    """Unit 0 = relu(A - 2 B), unit 1 = 1 - B: A is red, B is blue, summed over the image."""

    def __init__(self):
        super().__init__()
        self.look, self.act = nn.Conv2d(3, 2, 1, bias=False).double(), nn.ReLU()
        self.look.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).double()[:, :, None, None]

    def forward(self, images):
        red, blue = self.act(self.look(images)).sum(dim=(2, 3)).unbind(1)
        return torch.stack([self.act(red - 2 * blue) + (red - 2 * blue) / 8, 1 - blue], dim=1)


def red_and_blue():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.float64)  # the first is a target input: A without B
    images[:, 0, 0:2, 0:2] = 1
    images[1, 2, 4:6, 4:6] = 1
    return images


@pytest.mark.parametrize("method", [m for m in METHODS if m != "gradcam"])
def test_absence_shows_on_non_target_inputs_only(method):
    images, unit = red_and_blue(), Unit(NotCross(), None, 0)
    options = {"occlusion": {"window": 2, "stride": 2}, "smoothgrad": {"samples": 8, "noise": 0.02}}
    target, other = attribute(unit, images, method, **options.get(method, {})).sum(dim=1)
    assert other[4:6, 4:6].sum() < -0.5 and (other[4:6, 4:6] <= 1e-9).all()  # B is marked, and negative
    assert target[4:6, 4:6].abs().max() < 0.05 and target[:2, :2].min() > 0  # it can't show where it is not


def test_a_negative_rule_without_anything_present_is_all_in_the_baseline():
    images, unit = red_and_blue(), Unit(NotCross(), None, 1)
    target, other = attribute(unit, images, "deeplift")
    assert not target.any()
    torch.testing.assert_close(other[2, 4:6, 4:6], torch.full((2, 2), -1.0).double())


def test_evidence_clips_each_channel_then_sums():
    attribution = torch.tensor([[[[2.0, -1]], [[-3.0, -4]], [[0.5, 1]]]])
    torch.testing.assert_close(absence_evidence(attribution), torch.tensor([[[3.0, 5]]]))
    torch.testing.assert_close(presence_evidence(attribution), torch.tensor([[[2.5, 1]]]))
    signed = presence_evidence(attribution) - absence_evidence(attribution)
    torch.testing.assert_close(signed, attribution.sum(dim=1))


def test_region_sums_keep_the_sum_and_cancel_within_a_region():
    attribution = torch.randn(2, 3, 10, 7)
    found = region_sums(attribution, 4)  # squares of 3 pixels
    assert found.shape == (2, 4, 3)
    torch.testing.assert_close(found[1, 1, 2], attribution[1, :, 3:6, 6:].sum())
    torch.testing.assert_close(found.sum(dim=(1, 2)), attribution.sum(dim=(1, 2, 3)))


# -- choices and bad input


def test_baselines():
    net = nn.Conv2d(3, 1, 1)
    net.normalisation = Normalisation((0.5, 0.2, 0.1), (0.5, 0.4, 0.1))
    unit, images = Unit(net), torch.rand(2, 3, 30, 20)
    black = baseline_images(unit, images, "black")
    torch.testing.assert_close(black[1, :, 4, 5], torch.tensor([-1.0, -0.5, -1.0]))
    assert not baseline_images(unit, images, "zero").any()
    mean = baseline_images(unit, images, "mean")
    torch.testing.assert_close(mean[1, 2, 3, 4], images[1, 2].mean())
    spread = [baseline_images(unit, images, name).std() for name in ("blurred", "strongly blurred")]
    assert 0.3 * images.std() > spread[0] > 1.5 * spread[1]


@pytest.mark.parametrize("shape", [(5, 7), (1, 4), (4, 1), (1, 1), (2, 2)])
def test_the_border_baseline_is_the_mean_of_the_outermost_pixels_of_each_image(shape):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    height, width = shape
    ring = [(y, x) for y in range(height) for x in range(width)
            if y in (0, height - 1) or x in (0, width - 1)]  # fmt: skip
    expected = torch.stack([images[:, :, y, x] for y, x in ring]).mean(dim=0)
    found = baseline_images(Unit(nn.Conv2d(3, 1, 1)), images, "border")
    assert found.shape == images.shape
    torch.testing.assert_close(found[..., 0, 0], expected)
    assert (found == found[..., :1, :1]).all()


def test_a_plain_background_of_its_own_colour_gets_no_evidence_against_the_border_baseline():
    images = torch.full((2, 3, 12, 12), 0.7, dtype=torch.float64)
    images[1] = -1.3
    images[:, :, 4:8, 4:8] = 0.1
    signed = attribute(Unit(reused(), None, 1), images, steps=8, baseline="border")
    outside = torch.ones(12, 12, dtype=torch.bool)
    outside[4:8, 4:8] = False
    assert signed[..., outside].abs().max() < 1e-12 < signed[..., ~outside].abs().max()


def test_a_method_of_ones_own():
    def everywhere(unit, images, baseline, batch_size, height=1.0):
        return torch.full_like(images, height)

    found = attribute(Unit(reused(), None, 0), some_images(3), everywhere, batch_size=2, height=2.0)
    assert found.shape == (3, 3, 11, 11) and (found == 2).all()


@pytest.mark.parametrize("arguments, named", [
    (("integrated_gradient",), "integrated_gradients"),
    (("deeplift", {"steps": 3}), "steps"),
    (("integrated_gradients", {"steps": 0}), "steps"),
    (("integrated_gradients", {"steps": "many"}), "steps"),
    (("integrated_gradients", {"baseline": "white"}), "white"),
    (("integrated_gradients", {"baseline": torch.zeros(5)}), "baseline"),
    (("occlusion", {"window": 99}), "window"),
    (("occlusion", {"window": 3, "stride": 4}), "stride"),
    (("gradcam", {"cam_layer": "conv9"}), "conv9"),
    (("gradcam", {"cam_layer": "fc"}), "cam_layer"),
    (("gradcam", {"cam_layer": "relu:0"}), "cam_layer"),
    (("smoothgrad", {"samples": 0}), "samples"),
    (("integrated_gradients", {"batch_size": 0}), "batch_size"),
])  # fmt: skip
def test_bad_input_is_named(arguments, named):
    method, options = arguments if len(arguments) == 2 else (*arguments, {})
    with pytest.raises(InputError, match=named):
        attribute(Unit(reused(), None, 0), some_images(1), method, **options)


def test_gradcam_refuses_layers_that_cannot_answer():
    net = load_model("squeezenet1_0", seed=0)
    images = torch.randn(1, 3, 64, 64)
    for unit, cam_layer in (
        (Unit(net, "features.3", 0), "features.7"),  # runs after the unit
        (Unit(net, "features.7", 0), "features.7.expand3x3_activation"),  # inside the unit's own layer
        (Unit(net, "logits", 0), "classifier.2"),  # the rectification that the signed logit looks behind
        (Unit(net, "features.0", 0), None),  # nothing before it
    ):
        with pytest.raises(InputError, match="cam_layer"):
            attribute(unit, images, "gradcam", cam_layer=cam_layer)


def test_scripted_networks_are_refused_by_deeplift_with_a_remedy():
    class Inner(nn.Module):
        def forward(self, maps):
            return torch.relu(maps)

    with pytest.warns(FutureWarning):  # PyTorch wants torch.compile; scripted networks are still about
        scripted = torch.jit.script(Inner())
    net = nn.Sequential(nn.Conv2d(3, 2, 3), scripted, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="integrated_gradients"):
        attribute(Unit(net, None, 0), torch.randn(1, 3, 8, 8), "deeplift")
