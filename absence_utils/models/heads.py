"""A new last layer for a network that was trained for other classes."""

from __future__ import annotations

import re

import torch
from torch import nn

from absence_utils.errors import InputError, require_at_least

from .load import load_model
from .xdnn import DenseXNet, SmallXNet


def two_class_network(
    seed: int = 0,
    *,
    model: str = "dense_xnet",
    weights: str = "",
    size: int = 14,
    channels: int = 3,
    head_bias: bool = False,
    device="cpu",
) -> nn.Module:
    """A network with two outputs, to be trained.

    Args:
        seed: of all weights that are not loaded.
        model: "dense_xnet" (`xdnn.DenseXNet`, grey images), "small_xnet" (`xdnn.SmallXNet`), or a name that
            `load_model` takes, which gets a new head.
        weights: see `load_model`; "" for random ones. The two small networks have none.
        size: edge of the images, px, for "dense_xnet" and torchvision's vision transformers.
        channels: of the images, for "small_xnet".
        head_bias: the new head has a bias even where the network's own has none; then input x gradient of a network
            without biases explains its logits up to that bias.
        device: where it goes.

    Raises:
        InputError: weights for a network that has none, an unknown name, or a size that a transformer's patches do not
            tile.
    """
    if model in ("dense_xnet", "small_xnet"):
        if weights:
            raise InputError("weights", f"{model} has none to load", "Leave it empty.")
        halvings = max(1, (size // 16).bit_length())  # down to about 8 px before the last average
        small = SmallXNet(channels, width=16, halvings=halvings, seed=seed)
        return (DenseXNet(size, seed=seed) if model == "dense_xnet" else small).to(device)
    patch = re.fullmatch(r"vit_[blh]_(\d+)", model)
    if patch and size % int(patch[1]):
        problem = f"patches of {model!r} do not tile images of {size} px"
        raise InputError("size", problem, f"Use a multiple of {patch[1]}.")
    fitted = {"image_size": size} if patch else {}
    return new_head(load_model(model, weights, seed=seed, **fitted), seed=seed, bias=head_bias).to(device)


def new_head(model: nn.Module, classes: int = 2, seed: int = 0, *, bias: bool = False) -> nn.Module:
    """Replace the network's last linear or convolutional layer by a new one with random weights, in place.

    A rectification behind that layer (SqueezeNet has one) is taken out: outputs are to have a sign. Everything before
    the layer stays as it is.

    Args:
        model: a classifier whose last layer, in the order of its modules, makes its output, as torchvision's do.
        classes: number of outputs.
        seed: of the new weights; the global random state is left as found.
        bias: the new layer has one even if the old one had none.

    Returns:
        The same network.

    Raises:
        InputError: it has no such layer.
    """
    require_at_least("classes", classes, 1)
    names = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if not names:
        raise InputError("model", "it has no linear or convolutional layer", "Give a classifier.")
    order = [name for name, _ in model.named_modules()]
    for name in order[order.index(names[-1]) + 1 :]:
        if isinstance(model.get_submodule(name), nn.ReLU):
            _replace(model, name, nn.Identity())
    old = model.get_submodule(names[-1])
    biased = bias or old.bias is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, classes, bias=biased)
        else:
            new = nn.Conv2d(old.in_channels, classes, old.kernel_size, old.stride, old.padding, bias=biased)
    _replace(model, names[-1], new.to(old.weight))
    return model


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)
