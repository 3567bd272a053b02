"""Reading a unit: signed, before the nonlinearity, whatever the network does in place, and nothing left behind."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import convnext_tiny, squeezenet1_0, swin_t
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from absence_utils.errors import InputError
from absence_utils.images.base import TensorImages
from absence_utils.units import (
    READINGS,
    Unit,
    dataset_readings,
    dataset_responses,
    feature_map,
    full_name,
    layer_names,
    pool_space,
    responses,
)


class InPlaceResidual(nn.Module):
    """conv, batch norm, `+=`, in-place ReLU, as in torchvision's residual blocks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return self.relu(out)


class TwoPaths(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        return torch.cat([F.relu(self.left(x), inplace=True), F.relu_(self.right(x))], 1)


class Net(nn.Module):
    """Everything that hides a signed value, in one small network that `torch.fx` cannot trace."""

    def __init__(self):
        super().__init__()
        self.block, self.paths = InPlaceResidual(), TwoPaths()
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.head = nn.Conv2d(4, 5, 1)
        self.head_relu = nn.ReLU(inplace=True)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        if x.sum() > 1e9:  # control flow that depends on the data
            return x
        x = self.drop(self.pool(self.paths(self.block(x))))
        return torch.flatten(self.average(self.head_relu(self.head(x))), 1)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().double().eval()
    nn.init.normal_(net.block.bn.running_mean)
    nn.init.uniform_(net.block.bn.running_var, 0.5, 2)
    nn.init.normal_(net.block.bn.weight)
    return net


@pytest.fixture
def images():
    return torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolve(x, weight, bias, padding):
    """The definition of a convolution, one output value at a time."""
    batch, _, height, width = x.shape
    edge = weight.shape[-1]
    padded = torch.zeros(batch, x.shape[1], height + 2 * padding, width + 2 * padding, dtype=x.dtype)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    out = torch.zeros(batch, len(weight), height, width, dtype=x.dtype)
    for b in range(batch):
        for k in range(len(weight)):
            for i in range(height):
                for j in range(width):
                    out[b, k, i, j] = (padded[b, :, i : i + edge, j : j + edge] * weight[k]).sum() + bias[k]
    return out


@pytest.fixture
def by_hand(net, images):
    """Values of every layer, re-derived slowly from the definitions."""
    with torch.no_grad():
        conv = convolve(images, net.block.conv.weight, net.block.conv.bias, 1)
        bn, scale = net.block.bn, torch.sqrt(net.block.bn.running_var + net.block.bn.eps)
        normed = torch.zeros_like(conv)
        for k in range(2):
            normed[:, k] = (conv[:, k] - bn.running_mean[k]) / scale[k] * bn.weight[k] + bn.bias[k]
        block = normed + images
        rectified = block * (block > 0)
        left = convolve(rectified, net.paths.left.weight, net.paths.left.bias, 0)
        right = convolve(rectified, net.paths.right.weight, net.paths.right.bias, 1)
        paths = torch.cat([left, right], 1)
        pooled = torch.stack(
            [paths[:, :, i : i + 2, j : j + 2].amax((2, 3)) for i in (0, 2, 4) for j in (0, 2, 4)], -1
        ).reshape(3, 4, 3, 3)
        head = convolve(pooled * (pooled > 0), net.head.weight, net.head.bias, 0)
        return {
            "block.conv": conv,
            "block.bn": normed,
            "block.relu": block,
            "block": block,
            "paths.left": left,
            "paths": paths,
            "pool": pooled,
            "drop": pooled,
            "head": head,
            "head_relu": head,
            "logits": head.mean((2, 3)),
            None: (head * (head > 0)).mean((2, 3)),
        }


LAYERS = [
    *("block.conv", "block.bn", "block.relu", "block"),
    *("paths.left", "paths", "pool", "drop", "head", "head_relu", "logits"),
]


@pytest.mark.parametrize("layer", [*LAYERS, None])
def test_reading_equals_the_layer_recomputed_by_hand(net, images, by_hand, layer):
    torch.testing.assert_close(feature_map(net, layer, images), by_hand[layer], rtol=1e-12, atol=1e-12)
    expected = by_hand[layer] if by_hand[layer].ndim == 2 else by_hand[layer].mean((2, 3))
    torch.testing.assert_close(responses(net, layer, images), expected, rtol=1e-12, atol=1e-12)
    if layer is not None:
        assert expected.min() < 0, "the test would not see a rectified reading"


def test_a_layer_behind_an_average_of_rectified_values_says_so(net, images):
    with pytest.warns(UserWarning, match="averages rectified values"):
        assert feature_map(net, "average", images).min() >= 0


def test_raw_output_is_the_models_output(net, images):
    assert torch.equal(responses(net, None, images), net(images))
    assert Unit(net).signed.layer == "logits" and Unit(net, "head").signed.layer == "head"


def snapshot(net):
    hooks = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()
    )
    flags = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    return hooks, flags, state, [p.grad for p in net.parameters()], [m for m, _ in net.named_modules()]


def assert_as_found(before, after):
    assert before[0] == after[0] == 0
    assert before[1] == after[1] and before[3] == after[3] and before[4] == after[4]
    assert all(torch.equal(value, after[2][key]) for key, value in before[2].items())


@pytest.mark.parametrize("layer", ["block", "drop", "logits", None])
def test_model_is_left_as_found(net, images, layer):
    net.train()
    net.block.bn.eval()  # a mixture of flags must survive as well
    before = snapshot(net)
    in_train_mode = responses(net, layer, images)
    assert_as_found(before, snapshot(net))
    assert torch.equal(in_train_mode, responses(net.eval(), layer, images)), (
        "reading must not depend on the mode"
    )


@pytest.mark.parametrize("layer", ["block", "drop", "logits"])
def test_model_is_left_as_found_after_an_exception(net, layer):
    net.train()
    before = snapshot(net)
    with pytest.raises(RuntimeError):
        responses(net, layer, torch.zeros(1, 7, 6, 6))  # 7 channels do not fit
    assert_as_found(before, snapshot(net))
    assert (torch.relu_(torch.tensor([-1.0])) == 0).all() and not hasattr(F.relu(torch.ones(1)), "_signed")


def test_reading_stops_at_the_layer(net, images):
    responses(net, "paths", images)  # the first reading also checks how often the layer runs
    ran = []
    net.head.register_forward_hook(lambda *_: ran.append(True))
    responses(net, "paths", images)
    assert not ran


def test_gradient_reaches_the_images(net, images):
    images.requires_grad_()
    unit = Unit(net, "block.conv", 1)
    (gradient,) = torch.autograd.grad(unit.response(images).sum(), images)
    # mean over 36 positions of a 3x3 convolution: an interior pixel is seen by all nine taps
    torch.testing.assert_close(gradient[0, :, 2, 2], net.block.conv.weight[1].sum((1, 2)) / 36)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), channel=st.integers(0, 3), batch=st.integers(1, 4))
def test_batched_equals_single_and_directions_are_linear(seed, channel, batch):
    torch.manual_seed(seed)
    net, images = Net().double(), torch.randn(batch, 2, 6, 6, dtype=torch.float64)
    unit = Unit(net, "paths", channel)
    single = torch.cat([unit.response(image[None]) for image in images])
    torch.testing.assert_close(unit.response(images), single)
    axis = F.one_hot(torch.tensor(channel), 4).double()
    torch.testing.assert_close(Unit(net, "paths", direction=axis).response(images), single)
    torch.testing.assert_close(Unit(net, "paths", direction=-2 * axis).response(images), -2 * single)


def test_squeezenet_logits_are_signed_where_its_output_is_not():
    torch.manual_seed(0)
    net, images = squeezenet1_0(num_classes=7).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        by_hand = net.classifier[1](net.features(images)).mean((2, 3))
    torch.testing.assert_close(responses(net, "logits", images).detach(), by_hand)
    assert responses(net, None, images).min() >= 0 > by_hand.min()


class Sequence(nn.Module):
    """A transformer whose tokens come first, [token, batch, channel]."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Linear(12, 8), nn.Linear(8, 8)

    def forward(self, x):
        tokens = self.embed(x.flatten(2)).permute(1, 0, 2)
        return self.mix(tokens).mean(0)


def test_token_axes():
    torch.manual_seed(0)
    vit = VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=12, mlp_dim=20
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    seen = {}
    block = vit.encoder.layers.encoder_layer_0
    block.mlp[0].register_forward_hook(lambda m, i, o: seen.update(mlp=o.clone()))
    block.register_forward_hook(lambda m, i, o: seen.update(block=o.clone()))
    with torch.no_grad():
        vit(images)
    block_out, mlp_out = seen["block"], seen["mlp"]
    name = "encoder.layers.encoder_layer_0"
    tokens = feature_map(vit, name, images)
    assert tokens.shape == (2, 12, 17)  # 16 patches and the class token
    torch.testing.assert_close(tokens.detach(), block_out.transpose(1, 2))
    # the GELU's reading is what went into it
    torch.testing.assert_close(feature_map(vit, f"{name}.mlp.1", images).detach(), mlp_out.transpose(1, 2))
    expected = {
        "mean": block_out.mean(1),
        "cls": block_out[:, 0],
        "max": block_out.amax(1),
        "min": block_out.amin(1),
    }
    for pool, value in expected.items():
        torch.testing.assert_close(Unit(vit, name, 3, pool=pool).response(images).detach(), value[:, 3])
    assert feature_map(Sequence(), "mix", torch.randn(3, 2, 3, 4)).shape == (3, 8, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build, layer, channels",
    [
        (swin_t, "features.1.0", 96),
        (swin_t, "features.1.0.mlp.0", 384),
        (convnext_tiny, "features.1.0", 96),
        (convnext_tiny, "features.1.0.block.4", 384),
    ],
)
def test_channels_come_second_whatever_the_layout(build, layer, channels):
    assert feature_map(build(num_classes=2), layer, torch.randn(2, 3, 64, 64)).shape == (2, channels, 16, 16)


def test_convnext_gelu_reading_is_the_linear_layer_before_it():
    torch.manual_seed(0)
    net = ConvNeXt([CNBlockConfig(4, None, 2)], num_classes=2).eval()
    images, seen = torch.randn(2, 3, 16, 16), {}
    block = net.features[1][0].block
    block[3].register_forward_hook(lambda m, i, o: seen.update(before=o.clone()))
    block[5].register_forward_hook(lambda m, i, o: seen.update(after=o.clone()))
    with torch.no_grad():
        net(images)
    before, after = seen["before"].permute(0, 3, 1, 2), seen["after"].permute(0, 3, 1, 2)
    torch.testing.assert_close(feature_map(net, "features.1.0.block.4", images).detach(), before)
    # 4 channels on a 4x4 map: the shape says nothing, the type of the layer does
    torch.testing.assert_close(feature_map(net, "features.1.0.block.5", images).detach(), after)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(-self.relu(self.conv(x)) + 1)


def test_a_layer_that_runs_twice_needs_the_call_named():
    net = Shared()
    nn.init.constant_(net.conv.weight, 3.0)
    images = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1)
    with pytest.raises(InputError, match="runs 2 times.*'relu:0' to 'relu:1'"):
        responses(net, "relu", images)
    assert responses(net, "relu:0", images).flatten().tolist() == [-3.0, 6.0]
    assert responses(net, "relu:1", images).flatten().tolist() == [1.0, -5.0]
    with pytest.raises(InputError, match="runs only 2 times"):
        responses(net, "relu:2", images)


def test_dataset_responses_keep_the_order_for_every_batch_size(net, images):
    dataset = TensorImages(images, torch.zeros(3, dtype=torch.long), ["only"])
    expected = responses(net, "paths", images)
    for batch_size in (1, 2, 5):
        torch.testing.assert_close(dataset_responses(net, "paths", dataset, batch_size=batch_size), expected)


def test_bad_input_names_the_parameter_and_the_remedy(net, images):
    cases = {
        "layer.*no layer 'paths.lefd'.*paths.left": lambda: Unit(net, "paths.lefd"),
        "layer.*did not run": lambda: responses(net, "unused", images),
        "channel.*out of range.*has 4 units.*0 to 3": lambda: Unit(net, "paths", 4).response(images),
        "channel.*not a whole number": lambda: Unit(net, "paths", "3"),
        "direction.*4 channels": lambda: Unit(net, "paths", direction=torch.ones(3)).response(images),
        "pool.*'median'": lambda: Unit(net, "paths", pool="median"),
        "pool.*layer of tokens": lambda: Unit(net, "paths", pool="cls").response(images),
        "images.*expected a batch": lambda: responses(net, "paths", [1, 2]),
        "dataset.*no images": lambda: dataset_responses(net, "paths", []),
    }
    for message, call in cases.items():
        with pytest.raises(InputError, match=message):
            call()


def test_pools_and_names():
    features = torch.tensor([[[1.0, -2.0, 6.0]]])
    assert [pool_space(features, p).item() for p in ("mean", "cls", "max", "min")] == pytest.approx(
        [5 / 3, 1, 6, -2]
    )
    assert layer_names(Shared()) == ["conv", "relu"]
    assert Unit(Shared(), "conv", 0).name == "conv:0" and Unit(Shared()).name == "output:0"


def test_an_output_bears_a_class_only_if_there_are_as_many_classes_as_outputs():
    """Ten class folders under a network with a thousand outputs: logit 3 is not the fourth folder."""
    net, names = Shared(), ["cat", "dog", "7"]
    for layer in (None, "logits"):
        unit = Unit(net, layer, 1)
        assert unit.label(names, 3) == "dog" and unit.label(names, 1000) == unit.label() == unit.name
    assert Unit(net, "conv", 1).label(names, 3) == "conv:1"
    assert Unit(net, direction=torch.ones(3)).label(names, 3) == "output:direction"
    assert full_name(None, 1, names, 3) == "output, unit 1: dog" and full_name("conv", 1) == "conv, unit 1"
    assert full_name("logits", 2, names, 3) == "logits, unit 2: class 7"
    assert full_name("logits", 2, names, 1000) == "logits, unit 2"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.half])
def test_networks_of_half_precision_with_whole_numbers_first(precision):
    """Images go to the precision of the weights, whatever is registered first; NumPy gets single precision."""

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.Parameter(torch.tensor([3]), requires_grad=False)
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return F.relu(self.conv(x), inplace=True).mean((2, 3))

    torch.manual_seed(0)
    net, images = Counted(), torch.randn(3, 2, 6, 6)
    expected = net.conv(images).mean((2, 3)).detach()
    dataset = TensorImages(images, torch.zeros(3, dtype=torch.long), ["only"])
    net.conv.to(precision)
    for layer in ("conv", "logits"):
        found = dataset_responses(net, layer, dataset)
        assert found.dtype == torch.float32 and found.numpy().shape == (3, 3)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_readings_of_one_pass_are_those_of_their_own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    dataset, passes = [(torch.randn(3, 6, 6), 0) for _ in range(5)], []
    found_out = dataset_readings(net, "1", dataset, READINGS, batch_size=2)  # after the trial of the layer
    net.register_forward_pre_hook(lambda *_: passes.append(1))
    found = dataset_readings(net, "1", dataset, READINGS, batch_size=2)
    assert list(found) == list(READINGS) and len(passes) == 3
    for read in READINGS:
        torch.testing.assert_close(found[read], found_out[read])
        torch.testing.assert_close(found[read], dataset_responses(net, "1", dataset, read=read))
    assert (found["signed"] < 0).any() and (found["passed on"] >= 0).all()
    with pytest.raises(InputError, match="read.*Use one of signed"):
        dataset_readings(net, "1", dataset, ["negative"])


def test_whole_numbers_of_other_libraries_are_channels():
    order = torch.tensor([0.1, 0.4, 0.3]).argsort()
    for channel in (order[-1], order.numpy()[-1]):
        assert Unit(Shared(), "conv", channel).channel == 1
    for wrong in (True, torch.tensor(True), 1.0, "1"):
        with pytest.raises(InputError, match="channel.*not a whole number"):
            Unit(Shared(), "conv", wrong)
