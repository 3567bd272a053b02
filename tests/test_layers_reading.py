"""A reading is what the layer computes before its nonlinearity, on networks nobody has seen before, or a refusal."""

import copy
import gc
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.layers import reading as layers
from absence_utils.units import feature_map

# -- operations: what a network may write, and the definition it stands for


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x / (1 + torch.exp(-x))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = 1 / (1 + torch.exp(-x))
        return gradient * (s + x * s * (1 - s))


def own_slope(x):
    x[x < 0] *= 0.25
    return x


def rectify_half(x):
    """In place, through a view: the other half passes as it is."""
    x[:, : x.shape[1] // 2].clamp_(min=0)
    return x


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def silu(x):
    return x / (1 + (-x).exp())


def hardswish(x):
    return x * (x + 3).clamp(0, 6) / 6


def leaky(slope):
    return lambda x: torch.where(x > 0, x, slope * x)


# name: (how it is written, its definition, whether it never falls)
ACTIVATIONS = {
    "module": (nn.ReLU(), relu, True),
    "module in place": (nn.ReLU(inplace=True), relu, True),
    "function in place": (lambda x: F.relu_(x), relu, True),
    "third argument in place": (lambda x: F.leaky_relu(x, 0.1, True), leaky(0.1), True),
    "clamp in place": (lambda x: x.clamp_(min=0), relu, True),
    "masked in place": (own_slope, leaky(0.25), True),
    "maximum": (lambda x: torch.maximum(x, torch.zeros(())), relu, True),
    "times its gate": (lambda x: x * torch.sigmoid(x), silu, False),
    "gate in place": (lambda x: x.mul_(x.sigmoid()), silu, False),
    "autograd function": (Swish.apply, silu, False),
    "by hand": (lambda x: x * F.relu6(x + 3) / 6, hardswish, False),
    "tanh in place": (torch.tanh_, torch.tanh, True),
    "GELU": (nn.GELU(), lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2, False),
    "RReLU": (nn.RReLU().eval(), leaky((1 / 8 + 1 / 3) / 2), True),
    "scaled": (lambda x: 1.5 * F.relu(x), lambda x: 1.5 * relu(x), True),
    "aten": (lambda x: torch.ops.aten.relu(x), relu, True),
}
MOVES = {
    "slice": lambda x: x[..., 1:],
    "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "pad": lambda x: F.pad(x, (1, 0, 0, 1)),
    "turn": lambda x: x.transpose(2, 3).contiguous(),
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "flip": lambda x: x.flip(-1),
    "shuffle": lambda x: F.pixel_shuffle(
        F.pixel_unshuffle(x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2], 2), 2
    ),
}


@dataclass
class State:
    """What a layer returns, and what it is read as; None where it can only be refused."""

    value: Tensor
    reading: Tensor | None
    rises: bool = True
    behind: bool = False  # a nonlinearity, so that the reading is not what the layer returns


class Operation(nn.Module):
    """One operation, its random parameters, and its definition."""

    def __init__(self, kind, option, channels, mixed):
        super().__init__()
        self.kind, self.option, self.layer = kind, option, None
        if kind == "convolution":
            self.layer = nn.Conv2d(channels, channels, 3, padding=1)
        elif kind == "norm":
            self.layer = nn.BatchNorm2d(channels)
            nn.init.normal_(self.layer.weight)
            nn.init.normal_(self.layer.bias)
            nn.init.normal_(self.layer.running_mean)
            nn.init.uniform_(self.layer.running_var, 0.5, 2)
        elif kind == "prelu":
            self.layer = nn.PReLU(channels)
            nn.init.uniform_(self.layer.weight, 0.1, 0.6)
        elif kind == "concatenate":
            self.layer = nn.Conv2d(channels, channels, 1)
        elif kind == "add" and not mixed:  # `relu(x) + x` would be one activation of x
            self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x, first):
        match self.kind:
            case "convolution" | "norm" | "prelu":
                return self.layer(x)
            case "activation":
                return ACTIVATIONS[self.option][0](x)
            case "half":
                return rectify_half(x)
            case "shift":  # a part, in place and through a view
                x[:, :2].add_(1.0)
                return x
            case "move":
                return MOVES[self.option](x)
            case "add":
                first = F.interpolate(first if self.layer is None else self.layer(first), x.shape[-2:])
                if self.option:
                    x += first
                    return x
                return x + first
            case "concatenate":
                return torch.cat([x[:, :-1], (self.layer(x) if self.option else x)[:, :1]], 1)
            case "factor":
                return x.mul_(2.0) if self.option else 2.0 * x
            case "largest":
                return F.max_pool2d(x, 2, 1)
            case "average":
                return F.avg_pool2d(x, 2, 1)

    def define(self, state: State, first: Tensor) -> State:
        """The same, from its definition, with plain calls that change nothing."""
        x, before = state.value, state.reading
        match self.kind:
            case "convolution":
                value = F.conv2d(x, self.layer.weight, self.layer.bias, padding=1)
                return State(value, value)
            case "norm":
                scale = self.layer.weight / (self.layer.running_var + self.layer.eps).sqrt()
                value = (x - self.layer.running_mean[:, None, None]) * scale[:, None, None]
                value = value + self.layer.bias[:, None, None]
                return State(value, value)
            case "prelu":
                return State(torch.where(x > 0, x, self.layer.weight[:, None, None] * x), x, True, True)
            case "activation":
                _, definition, rises = ACTIVATIONS[self.option]
                return State(definition(x), x, rises, True)
            case "half":
                count = x.shape[1] // 2
                return State(torch.cat([relu(x[:, :count]), x[:, count:]], 1), x, True, True)
            case "shift":
                value = torch.cat([x[:, :2] + 1, x[:, 2:]], 1)
                return State(value, value)
            case "move":
                move = MOVES[self.option]
                return State(move(x), None if before is None else move(before), state.rises, state.behind)
            case "add":
                if self.layer is not None:
                    first = F.conv2d(first, self.layer.weight, self.layer.bias)
                value = x + F.interpolate(first, x.shape[-2:])
                return State(value, value)
            case "concatenate":
                other = F.conv2d(x, self.layer.weight, self.layer.bias) if self.option else x
                behind = before if not self.option else other
                value = torch.cat([x[:, :-1], other[:, :1]], 1)
                if before is None:
                    return State(value, None, state.rises, state.behind)
                return State(value, torch.cat([before[:, :-1], behind[:, :1]], 1), state.rises, state.behind)
            case "largest":
                value = F.max_pool2d(x, 2, 1)
                known = before is not None and (state.rises or not state.behind)
                return State(value, F.max_pool2d(before, 2, 1) if known else None, state.rises, state.behind)
            case "factor":  # part of the nonlinearity, where there is one
                return State(2 * x, before if state.behind else 2 * x, state.rises, state.behind)
            case "average":
                value = F.avg_pool2d(x, 2, 1)
                return State(value, value)


class Generated(nn.Module):
    """Blocks of operations; sums take the value at the block's beginning."""

    def __init__(self, plan, channels=4):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(operations, channels) for operations in plan)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))

    def define(self, images):
        """{layer: its state}."""
        value = F.conv2d(images, self.stem.weight, self.stem.bias, padding=1)
        state, states = State(value, value), {}
        for number, block in enumerate(self.blocks):
            first = state.value
            for place, operation in enumerate(block.operations):
                state = states[f"blocks.{number}.operations.{place}"] = operation.define(state, first)
            states[f"blocks.{number}"] = state
        return states


class Block(nn.Module):
    def __init__(self, operations, channels):
        super().__init__()
        kinds = [kind for kind, _ in operations]
        self.operations = nn.ModuleList(
            Operation(kind, option, channels, "convolution" in kinds[:place])
            for place, (kind, option) in enumerate(operations)
        )

    def forward(self, x):
        first = x.clone()
        for operation in self.operations:
            x = operation(x, first)
        return x


OPERATIONS = st.one_of(
    st.just(("convolution", None)),
    st.just(("norm", None)),
    st.just(("prelu", None)),
    st.tuples(st.just("activation"), st.sampled_from(sorted(ACTIVATIONS))),
    st.tuples(st.just("activation"), st.sampled_from(sorted(ACTIVATIONS))),
    st.just(("half", None)),
    st.just(("shift", None)),
    st.tuples(st.just("move"), st.sampled_from(sorted(MOVES))),
    st.tuples(st.just("add"), st.booleans()),
    st.tuples(st.just("concatenate"), st.booleans()),
    st.just(("largest", None)),
    st.tuples(st.just("factor"), st.booleans()),
    st.just(("average", None)),
)
PLANS = st.lists(st.lists(OPERATIONS, min_size=1, max_size=4), min_size=1, max_size=2)


def read_every_layer(plan, seed) -> tuple[int, int]:
    """(layers read right, layers refused); a wrong one fails."""
    torch.manual_seed(seed)
    net = Generated(plan).double().eval()
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    read = refused = 0
    with torch.no_grad():
        expected = net.define(images)
        assert torch.allclose(net(images), expected[f"blocks.{len(plan) - 1}"].value.mean((2, 3)))
        for layer, state in expected.items():
            try:
                found = feature_map(net, layer, images)
            except InputError:
                refused += 1
                continue
            assert state.reading is not None, f"{layer}: read, and should have been refused"
            torch.testing.assert_close(found, state.reading, rtol=1e-8, atol=1e-8, msg=f"{layer} of {plan}")
            read += 1
    return read, refused


@pytest.mark.filterwarnings("ignore:.*averages rectified values")
@settings(deadline=None, max_examples=60, derandomize=True)
@given(plan=PLANS, seed=st.integers(0, 1000))
def test_generated_networks_are_read_right_or_refused(plan, seed):
    read_every_layer(plan, seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*averages rectified values")
@settings(deadline=None, max_examples=150, derandomize=True)
@given(plan=PLANS, seed=st.integers(0, 1000))
def test_many_more_generated_networks(plan, seed):
    read_every_layer(plan, seed)


def test_the_largest_of_values_that_fall_and_rise_is_refused():
    """The largest of swished values need not be where the largest value was."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.MaxPool2d(2)).eval()
    with pytest.raises(InputError, match=r"'2' before its nonlinearity.*largest.*Read '0'"):
        feature_map(net, "2", torch.randn(2, 3, 8, 8))
    feature_map(nn.Sequential(net[0], nn.ReLU(), net[2]), "2", torch.randn(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_cannot_be_followed_is_refused():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), torch.jit.script(nn.ReLU())

        def forward(self, x):
            return self.relu(self.conv(x))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Scripted()

        def forward(self, x):
            return self.inner(x)

    with pytest.raises(InputError, match="cannot be followed, as in a scripted part.*Read 'inner.conv'"):
        feature_map(Block(), "inner", torch.randn(2, 3, 8, 8))


def test_every_pass_can_be_checked(monkeypatch):
    """A reading that is overwritten behind the reader's back is found out."""
    net, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)), torch.randn(3, 3, 8, 8)
    monkeypatch.setattr(layers, "check_every_pass", True)
    expected = net[0](images)
    torch.testing.assert_close(feature_map(net, "1", images), expected)
    (known,) = layers._plans[net].values()
    ((job,),) = known.at.values()
    assert job.copy
    object.__setattr__(job, "copy", False)  # as a reader would that keeps what is overwritten
    with pytest.raises(InputError, match="what was read of '1' was overwritten"):
        feature_map(net, "1", images - 5)


def test_what_a_trial_found_out_is_forgotten_when_the_network_changes():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        feature_map(net, "logits", images)
        net[4] = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
        expected = net[4][0](net[:4](images))
        assert expected.min() < 0
        torch.testing.assert_close(feature_map(net, "logits", images), expected)


class Keeping(nn.Module):
    """Keeps its maps, as for a class activation map, and a window that it makes at the first pass."""

    def __init__(self):
        super().__init__()
        self.conv, self.maps, self.window = nn.Conv2d(3, 4, 3), None, None

    def forward(self, x):
        maps = self.conv(x)
        if self.window is None:
            self.window = torch.ones(maps.shape[-2:])
        self.maps = {"last": [maps * self.window]}
        return self.maps["last"][0].mean((2, 3))


def test_no_graph_is_left_in_what_a_network_keeps():
    net, images = Keeping(), torch.randn(2, 3, 8, 8)
    feature_map(net, None, images.requires_grad_()).sum().backward()
    assert net.maps is None and net.window is not None
    copy.deepcopy(net)
    with torch.no_grad():
        net(images)
    kept = net.maps
    feature_map(net, None, images)
    assert net.maps is kept


@pytest.mark.parametrize("rectify", [F.relu, lambda x: x * torch.sigmoid(x), lambda x: x.clamp_(min=0)])
def test_two_values_are_enough_to_find_a_nonlinearity(rectify):
    """With so few numbers a draw may show nothing: all below zero, or none exchanged."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(3, 1), nn.Identity()

        def forward(self, x):
            return self.out(rectify(self.fc(x.flatten(1))))

    for seed in range(20):
        torch.manual_seed(seed)
        net, images = Small(), torch.randn(2, 3, 1, 1)
        torch.testing.assert_close(feature_map(net, "out", images), net.fc(images.flatten(1)))


@pytest.mark.parametrize("gradients", [False, True])
def test_what_was_recorded_is_let_go(gradients):
    """A plan that kept the whole recorded pass would cost a network's activations for every layer read."""
    net = nn.Sequential(nn.Conv2d(3, 17, 1), nn.Tanh(), nn.Conv2d(17, 4, 1), nn.ReLU(inplace=True)).eval()
    with torch.set_grad_enabled(gradients):
        feature_map(net, "3", torch.randn(1, 3, 13, 11))
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    assert not [one for one in tensors if one.shape == (2, 17, 13, 11)]
    (plan,) = layers._plans[net].values()
    assert all(step.value.tensor.grad_fn is None for step in plan.steps)
