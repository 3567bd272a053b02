"""torchvision's classifiers with random weights: every layer that can be named is read right or refused."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from absence_utils.errors import InputError
from absence_utils.layers.network import first_tensor, layer_names
from absence_utils.units import feature_map

ACTIVATIONS = (F.relu, F.relu6, F.silu, F.hardswish, F.gelu, torch.sigmoid, F.hardsigmoid)
NETWORKS = ("squeezenet1_1", "resnet18")  # one of each family: run the file
SIZES = {
    "inception_v3": 96,
    "vit_b_16": 224,
    "vit_b_32": 224,
    "vit_l_16": 224,
    "vit_l_32": 224,
    "vit_h_14": 224,
}


def returned_by(model: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """What every layer returned at each of its calls, copied before anything could overwrite it."""
    kept, hooks = {}, []

    def keep(name):
        return lambda module, given, out: kept.setdefault(name, []).append(first_tensor(out).clone())

    for name, module in model.named_modules():
        hooks.append(module.register_forward_hook(keep(name)))
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return kept


def explained(reading: Tensor, output: Tensor) -> Tensor:
    """[channel] truth of "what was returned is the reading, or a known activation of it"."""
    candidates = (reading, *(activation(reading) for activation in ACTIVATIONS))
    off = [(candidate - output).transpose(0, 1).flatten(1).abs().amax(dim=1) for candidate in candidates]
    return torch.stack(off).amin(dim=0) <= 1e-4 * output.abs().amax()


def read_every_layer(name: str, size: int) -> tuple[int, list[str]]:
    """(number of layers read right, layers refused); a wrong one fails."""
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = get_model(name, weights=None, num_classes=5, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # a fresh batch norm does nothing
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    images, right, refused = torch.randn(2, 3, size, size), 0, []
    outputs = returned_by(model, images)
    for layer in layer_names(model):
        calls = outputs.get(layer, [])
        for call, output in enumerate(calls):
            address = layer if len(calls) == 1 else f"{layer}:{call}"
            try:
                with torch.no_grad():
                    found = feature_map(model, address, images)
            except InputError as error:
                refused.append(f"{address}: {error}")
                continue
            assert found.shape[0] == 2
            axis = next(axis for axis in (1, 2, 3) if output.movedim(axis, 1).shape == found.shape)
            good = explained(found, output.movedim(axis, 1))
            assert good.all(), f"{address}: {int((~good).sum())} of {len(good)} channels are read wrong"
            expected = channels_of(model.get_submodule(layer))
            assert expected in (None, found.shape[1]), f"{address}: {found.shape[1]} units, not {expected}"
            right += 1
    return right, refused


def channels_of(module: nn.Module) -> int | None:
    """Where the layer itself says how many channels it gives."""
    for attribute in ("out_channels", "out_features", "num_features"):
        if isinstance(getattr(module, attribute, None), int):
            return getattr(module, attribute)
    return module.normalized_shape[0] if isinstance(module, nn.LayerNorm) else None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*averages rectified values")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_read_right_or_refused(name):
    right, refused = read_every_layer(name, 64)
    assert right > 30 and not refused, refused


if __name__ == "__main__":  # all of torchvision: python tests/test_layers_torchvision.py resnet50 vgg16 ...
    for name in sys.argv[1:]:
        right, refused = read_every_layer(name, SIZES.get(name, 64))
        print(name, right, "read right,", len(refused), "refused", *refused[:3], sep="  ", flush=True)
