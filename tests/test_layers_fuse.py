"""The faster network: batch norms folded by the formula, never the one that is read, the given network untouched."""

import copy

import pytest
import torch
from helpers.toy_networks import Untraceable, transformer
from published_scheme import published_scheme
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from absence_utils import feature_map, mine_patches
from absence_utils.images.base import TensorImages
from absence_utils.layers.fuse import channels_last, fused

SHAPE = (3, 32, 32)
LAYERS = [
    "conv1",
    "bn1",
    "layer1",
    "layer2.0.conv3",
    "layer2.0.bn3",
    "layer3.0.relu:2",
    "layer4.0",
    "logits",
    None,
]


def bottlenecks(seed=0):
    """A small ResNet of ResNet-50's blocks, with batch norms that have seen something."""
    torch.manual_seed(seed)
    network = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.3, 1)
            nn.init.normal_(module.bias, 0, 1)
            nn.init.normal_(module.running_mean, 0, 1)
            nn.init.uniform_(module.running_var, 0.05, 3)
    return network.eval()


def images(n=4, size=64, seed=1):
    pixels = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return TensorImages(pixels, torch.zeros(n).long(), ["all"])


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("layer", LAYERS)
def test_answers_as_the_network_does(layer):
    network, pixels = bottlenecks(), images(3).images
    fast = fused(network, layer, SHAPE)
    assert fast is not network
    exact = feature_map(copy.deepcopy(network).double(), layer, pixels.double()).detach()
    for given in (pixels, channels_last(pixels)):
        found = feature_map(fast, layer, given).double().detach()
        assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_folding_is_the_formula():
    convolution, norm = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -2, 0.5]), torch.tensor([4.0, 0.25, 9])
    norm.weight.data, norm.bias.data = torch.tensor([-1.0, 2, 0.5]), torch.tensor([0.0, 1, -1])
    network = nn.Sequential(convolution, norm, nn.ReLU(inplace=True)).eval()
    fast = fused(network, "2", (2, 8, 8))
    scale = torch.tensor([-1 / 4.00001**0.5, 2 / 0.25001**0.5, 0.5 / 9.00001**0.5])
    torch.testing.assert_close(fast[0].weight, (convolution.weight * scale[:, None, None, None]).detach())
    bias = (convolution.bias - norm.running_mean) * scale + norm.bias
    torch.testing.assert_close(fast[0].bias, bias.detach())
    assert isinstance(fast[1], nn.Identity) and fast[0].stride == (2, 2)


def test_what_is_read_and_what_comes_after_keeps_its_batch_norm():
    network = bottlenecks()
    total = norms(network)
    assert total == 17
    assert norms(fused(network, "logits", SHAPE)) == 0
    assert norms(fused(network, "conv1", SHAPE)) == total  # its own norm is not in it, the others do not run
    assert norms(fused(network, "bn1", SHAPE)) == total
    assert (
        norms(fused(network, "layer4.0.conv3", SHAPE)) == 2
    )  # its own, and the shortcut's, which comes after
    assert norms(fused(network, "layer4.0.bn3", SHAPE)) == 2


class Shared(nn.Module):
    """Convolutions that must keep their batch norm: read twice, run twice, hooked, or looked into."""

    def __init__(self):
        super().__init__()
        self.twice, self.norm_a = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.again, self.norm_b, self.norm_c = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.inside, self.norm_d = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.hooked, self.norm_e = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm_e.register_forward_hook(lambda module, inputs, output: output * 2)
        self.batch, self.norm_f = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        y = self.twice(x)
        x = self.norm_a(y) + y
        x = self.norm_c(self.again(self.norm_b(self.again(x))))
        x = self.norm_d(self.inside(x)) + self.inside.weight.mean()
        return self.norm_f(self.batch(self.norm_e(self.hooked(x))))


def test_only_what_may_be_folded_is_folded():
    torch.manual_seed(0)
    network, pixels = Shared().eval(), torch.randn(4, 3, 8, 8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean), nn.init.uniform_(module.running_var, 0.5, 2)
    fast = fused(network, None, (3, 8, 8))
    assert fast is not network and norms(fast) == 6
    torch.testing.assert_close(feature_map(fast, None, pixels), feature_map(network, None, pixels))


class Flat(nn.Module):
    """`view` wants the usual order in memory."""

    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

    def forward(self, x):
        return self.linear(self.convolution(x).view(len(x), -1))


class Uncopied(nn.Conv2d):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


def test_networks_that_cannot_be_rearranged_are_left_as_they_are():
    torch.manual_seed(0)
    for network, layer in ((Flat(), None), (nn.Sequential(Uncopied(3, 4, 3)), "0")):
        assert fused(network.eval(), layer, (3, 8, 8)) is network
    flat = Flat().eval()
    assert fused(flat, "convolution", (3, 8, 8)) is not flat  # stops before the view
    network = Untraceable(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    assert norms(fused(network, "second", (3, 8, 8))) == 1
    network = transformer()
    fast = fused(network, "encoder.layers.encoder_layer_0", (3, 16, 16))
    assert torch.allclose(fast(images(2, 16).images), network(images(2, 16).images), atol=1e-6)


class Capricious(nn.Module):
    """Does something else when it is traced."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.convolution(x)
        return self.norm(y) if isinstance(x, torch.fx.Proxy) else self.norm(-y)


def test_a_copy_that_disagrees_is_not_used():
    torch.manual_seed(0)
    network = Capricious().eval()
    network.norm.running_mean += 1
    assert fused(network, None, (3, 8, 8)) is network


def test_the_network_is_not_touched_and_its_tensors_are_shared():
    network = bottlenecks().train()
    before = copy.deepcopy(network.state_dict())
    strides = [parameter.stride() for parameter in network.parameters()]
    fast = fused(network, "layer2", SHAPE)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert strides == [parameter.stride() for parameter in network.parameters()]
    assert all(module.training for module in network.modules()) and norms(network) == 17
    assert fast.fc.weight is network.fc.weight


# ---------------------------------------------------------------------- against the published scheme
@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer1.0.conv3", "layer3.0.conv3", "layer4.0.bn2"])
def test_equals_the_published_scheme_exactly(layer):
    """9 windows an image and batches of 9, so that both run the same shapes."""
    network, dataset = bottlenecks(), images(6)
    book = mine_patches(network, layer, dataset, 32, 16, 4, batch_size=9, exact=True)
    for kept, found in zip(
        published_scheme(network, layer, dataset, 32, 16, 4), (book.highest, book.lowest), strict=True
    ):
        assert torch.equal(kept.response, found.response)
        for unit in (0, 5):
            for pixels, image, box in zip(
                kept.pixels[unit], found.image[unit], found.box[unit].tolist(), strict=True
            ):
                top, left, height, width = box
                assert torch.equal(pixels, dataset.images[image, :, top : top + height, left : left + width])


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer1.0.conv3", "layer3.0.conv3"])
def test_rearranged_it_is_within_1e_4_of_the_published_scheme(layer):
    network, dataset = bottlenecks(), images(6)
    book = mine_patches(network, layer, dataset, 32, 16, 4)
    ends = published_scheme(network, layer, dataset, 32, 16, 4)
    scale = torch.cat([kept.response.abs() for kept in ends], dim=1).amax(dim=1, keepdim=True)
    for kept, found in zip(ends, (book.highest, book.lowest), strict=True):
        assert ((kept.response - found.response).abs() / scale).max() < 1e-4
        assert not torch.equal(kept.response, found.response)  # it is a different sum
