"""Batch, channel and token axes are known: from the calls, from passes of two sizes, or by a word of the user."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.attribution.methods import attribute
from absence_utils.errors import InputError
from absence_utils.layers.reading import declare_axes
from absence_utils.units import Unit, feature_map, layout_of


class Encoder(nn.Module):
    """A vision transformer, its tokens or its images first, with special tokens before and behind the patches."""

    def __init__(self, before=1, behind=0, patch=8, width=16, batch_first=True):
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.before = nn.Parameter(torch.randn(before, width))
        self.behind = nn.Parameter(torch.randn(behind, width))
        layers = [nn.TransformerEncoderLayer(width, 2, 32, batch_first=batch_first) for _ in range(2)]
        self.blocks, self.head = nn.Sequential(*layers), nn.Linear(width, 4)
        self.batch_first = batch_first

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        special = (self.before.expand(len(x), -1, -1), tokens, self.behind.expand(len(x), -1, -1))
        tokens = torch.cat(special, 1)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        return self.head(self.blocks(tokens).mean(1 if self.batch_first else 0))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    before=st.integers(0, 5),
    behind=st.integers(0, 4),
    batch=st.integers(1, 21),
    width=st.sampled_from([4, 16, 20]),
    batch_first=st.booleans(),
)
def test_tokens_are_laid_out_whatever_the_sizes(before, behind, batch, width, batch_first):
    """Numbers of tokens, channels and images may be equal: lengths tell nothing."""
    torch.manual_seed(0)
    net = Encoder(before, behind, 8, width, batch_first).eval()
    images = torch.randn(batch, 3, 32, 24)
    found = feature_map(net, "blocks.1", images).detach()
    assert found.shape == (batch, width, before + 12 + behind)
    layout = layout_of(net, "blocks.1", images)
    assert layout.grid == (4, 3, before)
    kept = []
    net.blocks[1].register_forward_hook(lambda module, given, out: kept.append(out.detach()))
    net(images)
    by_hand = kept[0] if batch_first else kept[0].transpose(0, 1)
    torch.testing.assert_close(found, by_hand.transpose(1, 2))
    places = by_hand[:, before : before + 12].transpose(1, 2).reshape(batch, width, 4, 3)
    torch.testing.assert_close(layout.places(kept[0]), places)


def test_gradcam_of_a_transformer_looks_at_its_patches_alone():
    torch.manual_seed(1)
    net, images = Encoder(before=2, behind=3).eval(), torch.randn(2, 3, 32, 32)
    found = attribute(Unit(net, None, 1), images, "gradcam", cam_layer="blocks.0").sum(1)
    values = net.embed(images).flatten(2).transpose(1, 2)
    special = (net.before.expand(2, -1, -1), values, net.behind.expand(2, -1, -1))
    tokens = net.blocks[0](torch.cat(special, 1)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(net.blocks[1](tokens).mean(1))[:, 1].sum(), tokens)
    maps = (tokens * gradient[:, 2:18].mean(1, keepdim=True)).sum(-1)[:, 2:18].reshape(2, 4, 4)
    cells = found.unflatten(1, (4, 8)).unflatten(3, (4, 8)).mean((2, 4)) * 64
    assert torch.corrcoef(torch.stack([cells.flatten(), maps.detach().flatten()]))[0, 1] > 0.9


def test_a_grid_of_tokens_can_be_named():
    net, images = Encoder(before=1, behind=4).eval(), torch.randn(2, 3, 32, 32)
    found = layout_of(net, "blocks.0", images)
    assert found.grid == (4, 4, 1)
    declare_axes(net, "blocks.0", grid=(2, 8, 3))  # as if they were ordered otherwise
    assert layout_of(net, "blocks.0", images).grid == (2, 8, 3)
    declare_axes(net, "blocks.0", grid=(4, 4, 6))
    with pytest.raises(InputError, match="grid.*21 tokens"):
        layout_of(net, "blocks.0", images)


class Norm(nn.Module):
    """A norm over channel, height and width: its shape does not say which is which."""

    def __init__(self, shape):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, shape[0], 3, padding=1), nn.LayerNorm(shape)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3))


def test_a_norm_over_maps_has_the_channels_of_its_convolution():
    net, images = Norm([32, 32, 32]), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(feature_map(net, "norm", images), net.norm(net.conv(images)))


class Mixer(nn.Module):
    """An order of axes that no call tells: [batch, height, channel, width]."""

    def __init__(self, fixed):
        super().__init__()
        self.conv, self.fixed, self.out = nn.Conv2d(3, 6, 1), fixed, nn.Identity()

    def forward(self, x):
        if self.fixed and x.shape[-1] != 8:
            raise ValueError("8 px only")
        return self.out(torch.stack(self.conv(x).unbind(2), 1)).mean((1, 3))


def test_axes_that_no_call_tells_are_found_by_another_size_or_asked_for():
    images = torch.randn(2, 3, 8, 8)
    net = Mixer(fixed=False)
    expected = net.conv(images)
    torch.testing.assert_close(feature_map(net, "out", images), expected)
    net = Mixer(fixed=True)
    expected = net.conv(images)
    with pytest.raises(InputError, match=r"has the channels.*declare_axes\(model, 'out', channel=axis\)"):
        feature_map(net, "out", images)
    declare_axes(net, "out", channel=2)
    torch.testing.assert_close(feature_map(net, "out", images), expected)


class Squeezed(nn.Module):
    def __init__(self, last=4):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, last, 3), last

    def forward(self, x):
        return self.conv(x).mean((2, 3), keepdim=True).squeeze()


def test_a_network_that_squeezes_the_batch_axis_is_refused_with_the_line_to_write():
    for count in (1, 3):
        with pytest.raises(InputError, match=r"drops the batch axis.*x\.flatten\(1\)"):
            feature_map(Squeezed(), None, torch.randn(count, 3, 8, 8))


class One(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)).view(1, -1)


def test_a_network_for_one_image_at_a_time_is_refused():
    with pytest.raises(InputError, match="no batch axis|two images in a batch"):
        feature_map(One(), None, torch.randn(1, 3, 8, 8))


class Overwriting(nn.Module):
    """Normalises its images in place, and ends in a rectifier that works in place, too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x -= 0.5
        return F.relu_(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("layer", [None, "logits", "conv"])
def test_the_second_call_gives_what_the_first_gave_and_images_stay(layer):
    net, images = Overwriting(), torch.randn(2, 3, 8, 8)
    before = images.clone()
    first = feature_map(net, layer, images)
    assert torch.equal(images, before)
    assert torch.equal(feature_map(net, layer, images), first)


class Several(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, 4, 3), wrap

    def forward(self, x):
        logits = self.conv(x).mean((2, 3))
        return self.wrap(logits)


@pytest.mark.parametrize(
    "wrap, taken",
    [
        (lambda y: {"features": y * 0, "logits": y}, "'logits'"),
        (lambda y: {"only": y}, ""),
        (lambda y: (y, y * 0), "number 0"),
        (lambda y: y, ""),
    ],
)
def test_of_several_outputs_the_logits_are_read_and_named(wrap, taken):
    net, images = Several(wrap), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(feature_map(net, None, images), net.conv(images).mean((2, 3)))
    assert layout_of(net, None, images).taken == taken
