"""New heads: signed outputs, everything else kept."""

import pytest
import torch
import torchvision
from helpers.toy_networks import additive_terms
from torch import nn

from absence_utils import InputError
from absence_utils.models.heads import new_head, two_class_network
from absence_utils.models.load import load_model


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["squeezenet1_0", "resnet18", "vgg11", "densenet121", "mobilenet_v3_small", "vit_b_16", "convnext_tiny", "swin_t"],
)  # fmt: skip
def test_torchvision_networks_get_two_outputs(name):
    with torch.device("meta"):
        model = new_head(torchvision.models.get_model(name, weights=None).eval())
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 2)


def test_only_the_head_is_new_and_its_outputs_have_a_sign():
    old = load_model("squeezenet1_1", seed=3)
    before = {name: value.clone() for name, value in old.state_dict().items()}
    new = new_head(old, seed=1)
    after = new.state_dict()
    assert [name for name in after if not (before[name].shape == after[name].shape)] == [
        "classifier.1.weight",
        "classifier.1.bias",
    ]
    assert all(torch.equal(before[name], after[name]) for name in after if "classifier" not in name)
    outputs = new(torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert (outputs < 0).any() and (outputs > 0).any()


def test_seed_decides_the_head_and_the_global_generator_is_left_alone():
    models = [nn.Sequential(nn.Linear(4, 3)) for _ in range(3)]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    heads = [new_head(model, seed=seed)[0].weight for model, seed in zip(models, (0, 0, 1), strict=True)]
    assert torch.rand(1) == expected
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_network_without_biases_stays_one():
    model = two_class_network(0, model="xresnet50")
    assert additive_terms(model) == [] and model.fc.weight.shape == (2, 2048)


def test_a_bias_where_the_old_head_had_none():
    old = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 3, bias=False))
    assert new_head(old)[2].bias is None
    assert new_head(old, bias=True)[2].bias.shape == (2,)
    assert new_head(nn.Sequential(nn.Linear(4, 3)))[0].bias is not None
    assert new_head(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False)), bias=True)[0].bias.shape == (2,)


def test_a_vision_transformer_takes_the_size_that_its_patches_tile():
    with pytest.raises(InputError, match="size.*30 px.*multiple of 16"):
        two_class_network(model="vit_b_16", size=30)
    with pytest.raises(InputError, match="model.*vit_x_7"):
        two_class_network(model="vit_x_7", size=32)


@pytest.mark.parametrize(("name", "channels", "size"), [("dense_xnet", 1, 14), ("small_xnet", 3, 64)])
def test_small_networks_by_name(name, channels, size):
    images = torch.rand(3, channels, size, size)
    first, again, other = (
        two_class_network(seed, model=name, size=size, channels=channels)(images) for seed in (0, 0, 1)
    )
    assert first.shape == (3, 2) and torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(InputError, match="weights"):
        two_class_network(model=name, weights="x.safetensors")


def test_bad_heads():
    with pytest.raises(InputError, match="classes"):
        new_head(nn.Linear(2, 2), 0)
    with pytest.raises(InputError, match="model.*no linear"):
        new_head(nn.Sequential(nn.ReLU()))
