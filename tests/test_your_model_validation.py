"""Every kind of network people bring: the verdict, and the response where reading it right is the matter."""

import copy
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers.user_networks import (
    CIFAR,
    Around,
    Blocks,
    Branches,
    CifarResNet,
    Counting,
    Dense,
    Grey,
    InPlace,
    Overwriting,
    Regular,
    Twice,
    trained_cifar,
    with_logits,
)
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from absence_utils import InputError, Unit, attribute, open_model, responses, validate_model


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


IMAGES = some(4, 3, 16, 16)


def made(build, *args, **options):
    torch.manual_seed(1)
    return build(*args, **options).eval()


def failed(validation):
    return set(validation.table.loc[~validation.table["passed"], "check"])


def row(validation, check):
    (found,) = validation.table[validation.table["check"] == check].itertuples()
    return found


def vit():
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=4)


def swin():
    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=4)


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), Turn(), nn.TransformerEncoder(layer, 2))


class Turn(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


# -- networks that can be asked, with the response recomputed by hand


def by_hand(name, net, x):
    with torch.no_grad():
        conv = F.conv2d
        if name == "in place":
            first = conv(x, net.conv1.weight, net.conv1.bias, padding=1).clamp(min=0)
            second = conv(first, net.conv2.weight, net.conv2.bias, padding=1)
            return (second - net.bn.running_mean[:, None, None]) / (
                net.bn.running_var[:, None, None] + 1e-5
            ).sqrt()
        if name == "functional":
            one, two = net.first.conv, net.second.conv
            return conv(
                conv(x, one.weight, one.bias, padding=1).clamp(min=0), two.weight, two.bias, padding=1
            )
        if name == "twice":
            first = conv(conv(x, net.stem.weight, net.stem.bias), net.conv.weight, net.conv.bias, padding=1)
            return conv(first.clamp(min=0), net.conv.weight, net.conv.bias, padding=1)
        if name == "dense":
            return x.flatten(1) @ net.first.weight.T + net.first.bias
        if name == "grey":
            return conv(x, net.conv.weight, net.conv.bias)
        raise KeyError(name)


@pytest.mark.parametrize(
    "name, build, layer, images",
    [
        ("in place", InPlace, "bn", IMAGES),
        ("functional", lambda: Blocks(F.relu), "second", IMAGES),
        ("functional", lambda: Blocks(torch.relu), "second", IMAGES),
        ("functional", lambda: Blocks(torch.relu_), "second", IMAGES),
        ("functional", lambda: Blocks(nn.ReLU(inplace=True)), "second", IMAGES),
        ("twice", Twice, "relu:1", IMAGES),
        ("twice", Twice, "conv:1", IMAGES),
        ("dense", Dense, "first", some(4, 1, 28, 28)),
        ("grey", Grey, "conv", some(4, 1, 28, 28)),
    ],
)
def test_networks_that_pass_and_are_read_right(name, build, layer, images):
    net = made(build)
    validation = validate_model(net, layer, images)
    assert validation.ok and validation.raise_for_failure() is validation, str(validation)
    expected = by_hand(name, net, images)
    expected = expected if expected.ndim == 2 else expected.mean((2, 3))
    assert expected.min() < 0
    torch.testing.assert_close(responses(net, layer, images).detach(), expected, rtol=1e-4, atol=1e-5)
    assert f"{expected.shape[1]} units" in row(validation, "layer's shape").found


@pytest.mark.parametrize(
    "build, layer, images",
    [
        (vit, "encoder.layers.encoder_layer_0", some(3, 3, 32, 32)),
        (vit, "encoder.layers.encoder_layer_1.mlp.1", some(3, 3, 32, 32)),
        (swin, "features.3.0", some(3, 3, 32, 32)),
        (encoder, "3.layers.0.linear1", some(3, 3, 32, 32)),
        (Blocks, None, IMAGES),
        (Blocks, "logits", IMAGES),
        (lambda: Around(output=lambda y: {"logits": y}), "logits", IMAGES),
        (lambda: Around(output=with_logits), "logits", IMAGES),
        (lambda: Around(output=with_logits), "conv2", IMAGES),
        (lambda: Around(output=lambda y: "a word"), "conv2", IMAGES),
        (lambda: Branches(F.relu), "join", IMAGES),
    ],
)
def test_more_networks_that_pass(build, layer, images):
    assert validate_model(made(build), layer, images).ok


def test_the_output_that_is_read_is_named():
    several = made(lambda: Around(output=lambda y: {"features": -y, "logits": y}))
    assert validate_model(several, None, IMAGES).notes == [
        "layer output: 4 units, no positions, from 'logits' of several outputs"
    ]
    assert validate_model(made(Blocks), None, IMAGES).notes == []


def test_checkpoint_of_a_network_that_is_not_in_torchvision(tmp_path):
    trained = trained_cifar()
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.pth")
    brought = open_model("helpers.user_networks:cifar", tmp_path / "net.pth")
    images = some(4, 3, 32, 32)
    assert validate_model(brought.model, "layer2", images).ok
    block = trained.layer2
    with torch.no_grad():
        x = trained.layer1(F.relu(trained.bn1(trained.conv1(images))))
        inner = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        added = inner + torch.cat(
            [torch.zeros(4, 4, 16, 16), x[:, :, ::2, ::2], torch.zeros(4, 4, 16, 16)], 1
        )
    torch.testing.assert_close(responses(brought.model, "layer2", images).detach(), added.mean((2, 3)))
    assert brought.preprocessing.normalisation.mean == CIFAR["mean"]


# -- networks that cannot, each with all checks it must fail and no other


def poisoned():
    net = Blocks()
    with torch.no_grad():
        net.second.conv.weight[2, 0, 0, 0] = float("nan")
    return net


def count(net):
    net.seen += 1


def shrink(net):
    net.conv.weight.data *= 0.9999


def always_batch(x):
    return F.batch_norm(x, None, None, training=True)


def rounded(x):
    return (x > 0).float()


def unbatched(x):
    with torch.no_grad():
        return x * 2


def squashed(x):
    """Rectified and divided by the size of the image's map: no function of one value, so it is read as it is."""
    return x.clamp(min=0) / (1 + x.abs().mean((1, 2, 3), keepdim=True))


class Shifted(nn.Module):
    """Squared after a norm over the map, as an energy is."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 3), Energy(), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean((2, 3)))


class Energy(nn.Module):
    def forward(self, x):
        return (x - x.mean((2, 3), keepdim=True)).square().mean(1, keepdim=True) + x.square()


SHAPE, PASSES = "layer's shape", {"deterministic", "alone as in a batch"}
VALUES = {"responses finite", "responses differ", "sign survives", "gradients flow"}


@pytest.mark.parametrize(
    "build, layer, checks, found, remedy",
    [
        (poisoned, "first", {"weights finite", "deterministic", "alone as in a batch"}, "1 of 6 tensors", "checkpoint"),
        (lambda: Around(F.dropout), "conv2", {"deterministic", "alone as in a batch"}, "differ by", "self.training"),
        (lambda: Around(always_batch), "conv2", {"alone as in a batch"}, "alone and in a batch", "running statistics"),
        (Twice, "conv", {SHAPE, "layer runs once", *VALUES}, "runs 2 times", "Choose a call: 'conv:0' to 'conv:1'"),
        (Twice, "conv:2", {SHAPE, "layer runs once", *VALUES}, "runs only 2 times", "Use ':0' to ':1'"),
        (lambda: Around(lambda x: x.detach()), "conv2", {"gradients flow"}, "no gradient|zero", "detach"),
        (lambda: Around(unbatched), "conv2", {"gradients flow"}, "no gradient|zero", "no_grad"),
        (lambda: Around(rounded), "conv2", {"gradients flow"}, "no gradient|zero", "rounding"),
        (lambda: Around(lambda x: x + (x * 0).sqrt()), "conv2", {"gradients flow"}, "not finite", "a root"),
        (lambda: Branches(torch.detach), "join", {"gradients flow"}, r"2 of 8 units .*\(units 6, 7\)", "detach"),
        (lambda: Around(lambda x: x * 0), "conv2", VALUES - {"responses finite"}, "zero", "image and layer"),
        (lambda: Blocks(squashed), "second", {"sign survives"}, "ever below", "'second.conv' has"),
        (lambda: Blocks(squashed), "first", {"sign survives"}, "ever below", "'first.conv' has"),
        (Shifted, "norm", {"sign survives"}, "ever below", "'conv' has both signs"),
        (Blocks, "pool", {"sign survives"}, "averages rectified", "'second' has both signs"),
        (lambda: Branches(squashed), "join", {"sign survives"}, r"2 of 8 .*6, 7", "'right' has"),
        (lambda: Around(output=F.relu), None, {"sign survives"}, "ends in a nonlinearity", "layer='logits'"),
        (lambda: Around(output=lambda y: y.softmax(1)), None, {"sign survives"}, "sum to 1", "has both signs"),
        (lambda: Around(output=lambda y: y.argmax(1)), None, VALUES - {"responses finite"}, "no gradient", "argmax"),
        (lambda: Around(output=lambda y: "a word"), None, {SHAPE, *PASSES, *VALUES}, "is a str", "another layer"),
        (lambda: Counting(count), "conv", {"left as found"}, "changes 'seen'", "change nothing"),
        (lambda: Counting(shrink), "conv", {"deterministic", "left as found"}, "'conv.weight'", "change nothing"),
        (lambda: Counting(lambda net: net.train()), "conv", {"left as found"}, "the mode of", "change nothing"),
        (lambda: Around(output=torch.sigmoid), None, {"sign survives"}, "ends in a nonlinearity", "layer='logits'"),
        (lambda: Blocks(lambda x: -squashed(x)), "first", {"sign survives"}, "ever above 0", "'first.conv' has"),
        (Overwriting, "first", {"takes these images"}, "overwrites the images", "out of place"),
        (Blocks, "third", {SHAPE, "layer runs once", *VALUES}, "no layer 'third'", "Nearest names"),
    ],
)  # fmt: skip
def test_each_failure_is_found_alone_and_says_what_to_do(build, layer, checks, found, remedy):
    net = made(build)
    validation = validate_model(net, layer, IMAGES)
    assert failed(validation) == checks, str(validation)
    with pytest.raises(InputError, match="of layer") as raised:
        validation.raise_for_failure()
    assert re.search(found, raised.value.problem), raised.value.problem
    assert remedy in raised.value.remedy
    assert f"{len(checks)} of 14 checks failed" in str(validation) and remedy in str(validation)


def test_training_mode_is_a_failure_and_the_rest_is_judged_in_eval_mode():
    net = made(Regular)
    net.train()
    before = copy.deepcopy(net.state_dict())
    validation = validate_model(net, "conv", IMAGES)
    assert failed(validation) == {"eval mode"} and "first 'bn'" in row(validation, "eval mode").found
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    net.eval().drop.train()
    assert (
        "1 modules.*first 'drop'"
        and "first 'drop'" in row(validate_model(net, "conv", IMAGES), "eval mode").found
    )
    assert validate_model(net.eval(), "conv", IMAGES).ok


def test_nan_that_reaches_the_layer_is_found_there_as_well():
    validation = validate_model(made(poisoned), "second", IMAGES)
    assert {"weights finite", "responses finite"} <= failed(validation)
    assert "4 of 4 images" in row(validation, "responses finite").found


def test_wrong_images_fail_checks_and_raise_nothing():
    for images in (some(3, 1, 16, 16), some(3, 3, 1, 1)):
        validation = validate_model(made(Twice), "stem", images)
        assert {"takes these images", SHAPE, "layer runs once"} <= failed(validation)
        assert "channels and the size" in row(validation, "takes these images").remedy
        assert row(validation, "weights finite").passed and row(validation, "eval mode").passed
    # a pass that fails behind the layer hides nothing about the layer
    validation = validate_model(made(lambda: Around(output=lambda y: 1 / 0)), "conv2", IMAGES)
    assert failed(validation) == {"takes these images"}


def test_dead_units_are_named_and_a_dead_layer_fails():
    net = made(Blocks)
    with torch.no_grad():
        net.second.conv.weight[[1, 4]] = 0
    validation = validate_model(net, "second", IMAGES)
    assert (
        validation.ok
        and "4 of 6 units; the same for all images: units 1, 4" in row(validation, "responses differ").found
    )
    assert "from 4 of 6 units" in row(validation, "gradients flow").found
    with torch.no_grad():
        net.second.conv.weight.zero_()
    assert "responses differ" in failed(validate_model(net, "second", IMAGES))


class NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Apply(nn.Module):
    def forward(self, x):
        return NoSecondDerivative.apply(x)


def test_gradients_of_networks_without_second_derivatives():
    assert validate_model(made(lambda: Around(NoSecondDerivative.apply)), "conv2", IMAGES).ok
    detached = made(lambda: Branches(lambda x: NoSecondDerivative.apply(x).detach()))
    assert failed(validate_model(detached, "join", IMAGES)) == {"gradients flow"}
    both = made(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), Apply(), Branches(torch.detach, 6)))
    assert failed(validate_model(both, "2.join", IMAGES)) == {"gradients flow"}
    one_branch = made(lambda: Branches(NoSecondDerivative.apply))
    assert validate_model(one_branch, "join", IMAGES).ok


@pytest.mark.parametrize("layer", ["second", "nothing", "logits"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_found(layer, fails):
    net = made(lambda: Blocks(second=(lambda x: x[:, :, :99, 1000]) if fails else F.relu))
    net.first.train()
    net.fc.weight.requires_grad_(False)
    net.fc.bias.grad = torch.ones(4)
    kept = net.first.register_forward_hook(lambda *_: None)
    state, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    with torch.inference_mode():
        validate_model(net, layer, IMAGES)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert [m.training for m in net.modules()] == [
        m is net.first or m is net.first.conv for m in net.modules()
    ]
    assert torch.equal(net.fc.bias.grad, torch.ones(4)) and net.second.conv.weight.grad is None
    assert not net.fc.weight.requires_grad and kept.id in net.first._forward_hooks
    assert (
        sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules())
        == 1
    )


def test_buffers_changed_by_a_pass_are_put_back():
    net = made(lambda: Counting(count))
    validate_model(net, "conv", IMAGES)
    assert net.seen.item() == 0


def test_modes_changed_by_a_pass_are_put_back():
    net = made(lambda: Counting(lambda net: net.train()))
    validate_model(net, "conv", IMAGES)
    assert not any(module.training for module in net.modules())


def test_the_random_state_is_kept_and_the_callers_mode_does_not_matter():
    net = made(lambda: Around(F.dropout))
    random = torch.random.get_rng_state()
    validate_model(net, "conv2", IMAGES)
    assert torch.equal(random, torch.random.get_rng_state())
    net = made(Blocks)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            assert validate_model(net, "second", IMAGES.clone()).ok


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validate_model(made(Blocks), "pool", IMAGES)


@pytest.mark.parametrize(
    "images", [IMAGES[0], IMAGES[:1], IMAGES[[0, 0]], IMAGES * float("inf"), (IMAGES * 9).byte(), None]
)
def test_bad_arguments(images):
    with pytest.raises(InputError, match="`images`"):
        validate_model(made(Blocks), "first", images)
    with pytest.raises(InputError, match="`model`.*open_model"):
        validate_model("resnet18", "layer1", IMAGES)


def test_at_most_sixteen_images_are_used():
    shapes = []
    net = made(CifarResNet)
    net.register_forward_pre_hook(lambda _, inputs: shapes.append(len(inputs[0])))
    assert validate_model(net, "layer1", some(40, 3, 32, 32)).ok and max(shapes) == 16


# -- what came with the network


def plain():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)])


def test_hooks_that_change_gradients_are_a_failure_and_stay():
    net = made(plain)
    net[1].register_full_backward_hook(lambda module, into, out: (into[0].clamp(min=0),))
    net[3].register_full_backward_pre_hook(lambda module, out: (out[0] * 2,))
    validation = validate_model(net, None, IMAGES)
    assert failed(validation) == {"hooks"}
    found = row(validation, "hooks")
    assert re.search(r"on 2 modules .*first '1'.* change the gradient by \d+% of", found.found)
    assert "handle.remove()" in found.remedy and len(net[1]._backward_hooks) == 1


def test_hooks_that_change_values_are_said_and_those_that_change_nothing_too():
    net = made(plain)
    assert row(validate_model(net, None, IMAGES), "hooks").found == "none"
    kept = net[2].register_forward_hook(lambda *_: None)
    found = row(validate_model(net, "2", IMAGES), "hooks")
    assert found.passed and "on 1 module (first '2'), which change nothing" in found.found
    kept.remove()
    net[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    validation = validate_model(net, "2", IMAGES)
    found = row(validation, "hooks")
    assert found.passed and "change its values" in found.found and found.remedy
    assert re.search(r"note +hooks", str(validation)) and validation.ok
    norm = made(lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.ReLU()))
    assert row(validate_model(norm, "0", IMAGES), "hooks").passed


class Saving(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(lambda y: self.conv(y).relu(), self.stem(x), use_reentrant=self.reentrant)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("layer", [None, "conv"])
def test_reentrant_checkpointing_is_named(layer):
    assert validate_model(made(Saving, False), layer, IMAGES).ok
    validation = validate_model(made(Saving, True), layer, IMAGES)
    assert failed(validation) == {"gradients flow"}
    found = row(validation, "gradients flow")
    assert "reentrant checkpointing" in found.found and "use_reentrant=False" in found.remedy
    with pytest.raises(InputError, match="`model`.*reentrant checkpointing.*use_reentrant=False"):
        attribute(Unit(made(Saving, True), None, 1), IMAGES[:2])
    assert attribute(Unit(made(Saving, False), None, 1), IMAGES[:2], steps=4).shape == IMAGES[:2].shape


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(9, 4)

    def forward(self, images, age, *, flip=False):
        return self.fc(torch.cat([self.conv(images).mean((2, 3)), age], 1))


class Batch(Several):
    def forward(self, batch):
        return super().forward(batch["image"], batch["age"])


class MixedPrecision(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4).bfloat16()

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.offset = nn.Conv2d(3, 8, 3), [torch.zeros(8, 1, 1, device="meta")]

    def forward(self, images):
        return (self.conv(images) + self.offset[0]).mean((2, 3))


@pytest.mark.parametrize(
    "build, found, remedy",
    [
        (Several, r"takes several inputs \(images, age\)", "whose forward(images)"),
        (Batch, "a pass of 3 x 16 x 16 fails", "a batch of images alone"),
        (MixedPrecision, "a pass of 3 x 16 x 16 fails", "model.float()"),
        (Elsewhere, "a pass of 3 x 16 x 16 fails", "on one device"),
        (lambda: nn.Conv2d(1, 4, 3), "a pass of 3 x 16 x 16 fails", "channels and the size"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), "a pass of 3 x 16 x 16 fails", "channels and the size"),
        (lambda: Around(output=lambda y: 1 / 0), "ZeroDivisionError", "a batch of images alone"),
    ],
)  # fmt: skip
def test_why_a_pass_fails_decides_the_remedy(build, found, remedy):
    failing = row(validate_model(made(build), None, IMAGES), "takes these images")
    assert not failing.passed and re.search(found, failing.found) and remedy in failing.remedy, failing


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_passes_and_is_said(precision):
    net = made(plain).to(precision)
    for layer in (None, "2"):
        validation = validate_model(net, layer, IMAGES)
        assert validation.ok, str(validation)
        found = row(validation, "takes these images")
        assert str(precision).removeprefix("torch.") in found.found and "float()" in found.remedy
    assert row(validate_model(made(plain), "2", IMAGES), "takes these images").remedy == ""
