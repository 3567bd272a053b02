"""A copy of a network with weights drawn anew: what the architecture does by itself."""

from __future__ import annotations

import copy
import math
import re
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from absence_utils.errors import InputError
from absence_utils.units import reading, responses, to_network

from .wrappers import require_readable_form

SETTLING = (
    100  # passes in which the vectors of a spectral norm find drawn weights; the norm is then 1 to a percent
)
STATISTICS = {"running_mean": 0.0, "running_var": 1.0}  # of norms, as a fresh one has them
IDENTITY = {"weight": 1.0, "bias": 0.0, **STATISTICS}  # buffers of a frozen batch norm
HELD = re.compile(r"(.*_)?(weights?|bias|biases)")  # names of buffers that hold weights
SANE = (1e-7, 1e7)  # sd of a layer's outputs, about 1 for fresh weights; single precision has seven digits
ANSWERS_ALIKE = 1e-3  # of the largest value: the copy answers as the network does
TELLS_APART = 10  # steps of the precision by which outputs must differ between images


@torch.no_grad()
def random_copy(model: nn.Module, seed: int = 0, *, images: Tensor | None = None) -> nn.Module:
    """The same network with weights drawn anew, for a null: whatever it still shows was not learnt.

    Modules draw their own weights where they know how (`reset_parameters`, `_reset_parameters`), PyTorch's convolutions
    and linear layers from He's normal distribution, also under a weight or spectral norm, which keeps its promise.
    Norms, frozen ones as well, forget their statistics. What no module draws (class tokens, scales, buffers called
    weight or bias) is redrawn from a normal distribution with the mean and sd it had; a tensor whose values are all
    equal keeps them.

    Args:
        model: any network; it is not changed.
        seed: of the draws. The global random state is left as found.
        images: [image, channel, height, width], some that differ, normalised as the network expects. If given, the
            copy's answers are checked, and a warning names the layer from which on they are on no sane scale.

    Returns:
        A deep copy in eval mode, on the device of the network.

    Raises:
        InputError: the network cannot be copied, is scripted, compiled or quantised, or has no weights that can be
            drawn; its copy answers `images` as the network does, or with values that are not finite.
    """
    require_readable_form(model)
    twin = _copied(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        before = {name: (value, value.clone(), value._version) for name, value in twin.named_parameters()}
        for module in reversed(list(twin.modules())):  # children first: a parent may know better
            _reset(module)
            _draw_derived(module)
        for name, value in twin.named_parameters():
            old, copied, version = before.get(name, (None, None, None))
            drawn = value is not old or value._version != version or not torch.equal(value, copied)
            if not drawn and value.is_floating_point():
                _redraw(value)
        for module in twin.modules():
            _draw_buffers(module)
            _settle(module)
    twin.eval()
    _require_new_weights(model, twin)
    if images is not None:
        _check_answers(model, twin, images)
    return twin


def _copied(model: nn.Module) -> nn.Module:
    # The old norms keep a weight that a pass computed, with its graph, which deepcopy refuses.
    computed = [getattr(module, hook.name) for module in model.modules() for hook in _old_norms(module)]
    try:
        return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
    except Exception as error:
        problem = f"it cannot be copied ({type(error).__name__}: {error})"
        raise InputError("model", problem, "Give a network without live graphs.") from error


def _old_norms(module: nn.Module) -> list[SpectralNorm | WeightNorm]:
    """`nn.utils.spectral_norm` and `nn.utils.weight_norm` of a module; their successors are parametrisations."""
    return [
        hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (SpectralNorm, WeightNorm))
    ]


# -- draws


def _reset(module: nn.Module) -> None:
    """Let a module draw its own weights. PyTorch's convolutions and linear layers get He's scale afterwards.

    PyTorch's default for those two loses more than half of the signal in every layer: differences between images were
    7e-7 of the output of an untrained vgg19, which is rounding, and 0.1 with He's scale.
    """
    for name in ("reset_parameters", "_reset_parameters"):
        reset = getattr(module, name, None)
        if not callable(reset):
            continue
        try:
            reset()
        except Exception:  # it takes arguments of its own: what it leaves is redrawn by the caller
            continue
        stock = str(getattr(reset, "__module__", "")).startswith("torch.nn.")
        if stock and isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return


def _redraw(value: Tensor) -> Tensor:
    return value.normal_(value.mean().item(), value.std(correction=0).item())


def _fresh(module: nn.Module, value: Tensor) -> Tensor:
    """A draw for a weight that its module computes from other tensors."""
    value = value.detach().clone()
    if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and value.ndim > 1:
        return nn.init.kaiming_normal_(value, nonlinearity="relu")
    return _redraw(value)


def _draw_derived(module: nn.Module) -> None:
    """Draw weights under a parametrisation or an old norm: resetting the module writes to what is computed anew."""
    for name in getattr(module, "parametrizations", {}) if parametrize.is_parametrized(module) else ():
        try:
            setattr(module, name, _fresh(module, getattr(module, name)))
        except Exception:  # it cannot be inverted: the tensors it starts from are redrawn by the caller
            continue
    for norm in _old_norms(module):
        fresh = _fresh(module, getattr(module, norm.name))
        if isinstance(norm, SpectralNorm):
            getattr(module, f"{norm.name}_orig").copy_(fresh)
        else:
            getattr(module, f"{norm.name}_v").copy_(fresh)
            getattr(module, f"{norm.name}_g").copy_(torch.norm_except_dim(fresh, 2, norm.dim))


def _draw_buffers(module: nn.Module) -> None:
    buffers = dict(module.named_buffers(recurse=False))
    values = IDENTITY if IDENTITY.keys() <= buffers.keys() else STATISTICS
    for name, buffer in buffers.items():
        if name in values:
            buffer.fill_(values[name])
        elif HELD.fullmatch(name) and buffer.is_floating_point():
            _redraw(buffer)


def _settle(module: nn.Module) -> None:
    """Bring what is derived from the weights up to date, such as the singular vectors of a spectral norm."""
    for name, parametrization in getattr(module, "parametrizations", {}).items():
        parametrization.train()  # they follow the weights in training mode only
        for _ in range(SETTLING):
            getattr(module, name)
    for norm in _old_norms(module):
        for _ in range(SETTLING if isinstance(norm, SpectralNorm) else 0):
            norm.compute_weight(module, do_power_iteration=True)
        derived = (False,) if isinstance(norm, SpectralNorm) else ()
        setattr(module, norm.name, norm.compute_weight(module, *derived))


# -- checks of the copy

REGISTER = "Register all weights: nn.Parameter, or `register_buffer` with a name that ends in weight or bias."


def _require_new_weights(model: nn.Module, twin: nn.Module) -> None:
    old, new = _weights(model), _weights(twin)
    if all(torch.equal(value, new[name]) for name, value in old.items()):
        raise InputError("model", "it has no weight that could be drawn anew", REGISTER)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and what layers compute of them."""
    derived = {name: getattr(module, "weight", None) for name, module in model.named_modules()}
    tensors = {f"{name}.weight": value for name, value in derived.items() if isinstance(value, Tensor)}
    return {**dict(model.named_parameters()), **tensors}


def _check_answers(model: nn.Module, twin: nn.Module, images: Tensor) -> None:
    """Does the copy answer otherwise than the network, tell images apart, and keep its layers on a sane scale?

    Raises:
        InputError: it answers as the network does, or with values that are not finite.
    """
    scales, made = _layer_scales(twin, images)
    own = responses(model, None, images).float()
    for name, scale in scales.items():
        if not math.isfinite(scale):
            problem = f"values of {name!r} are not finite in its random copy"
            raise InputError(
                "model", problem, "Give that layer a `reset_parameters` that draws small weights."
            )
    if made.shape == own.shape and (made - own).abs().max() <= ANSWERS_ALIKE * own.abs().max():
        raise InputError("model", "its random copy answers as the network does", REGISTER)
    step = torch.finfo(to_network(twin, images).dtype).eps
    outside = {name: scale for name, scale in scales.items() if not SANE[0] <= scale <= SANE[1]}
    if outside:
        name, scale = next(iter(outside.items()))
        _warn(
            f"the outputs of {len(outside)} layers are on no sane scale, first of {name!r} with sd {scale:.1g}"
        )
    elif (made.amax(0) - made.amin(0)).max() <= TELLS_APART * step * made.abs().max():
        _warn("its outputs are the same for all images but for rounding")


def _warn(problem: str) -> None:
    advice = (
        "It is no fair null. Give the network a `reset_parameters` that draws weights as its training began."
    )
    warnings.warn(f"random copy: {problem}. {advice}", stacklevel=5)


def _layer_scales(model: nn.Module, images: Tensor) -> tuple[dict[str, float], Tensor]:
    """The sd of what each innermost module returns, in the order in which they run, and the answers [image, unit]."""
    scales: dict[str, float] = {}

    def measure(name):
        def hook(_module, _inputs, output):
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel() > 1:
                scales[name] = output.float().std().item()

        return hook

    leaves = {name: module for name, module in model.named_modules() if not next(module.children(), None)}
    hooks = [module.register_forward_hook(measure(name)) for name, module in leaves.items()]
    try:
        with reading(model):
            return scales, responses(model, None, images).float()
    finally:
        for hook in hooks:
            hook.remove()
