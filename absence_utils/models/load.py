"""Networks by name, with weights from a file, from torchvision, or drawn at random.

Weights are data, see `checkpoint`: they are read with safetensors or with `weights_only=True`, never unpickled.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.paths import DATA

from .checkpoint import read_checkpoint, require_plain_tensors
from .wrappers import without_prefixes

SCENES_WEIGHTS = DATA / "concept_scenes.safetensors"


def load_model(
    name: str | nn.Module, weights: str | Path | None = None, *, seed: int = 0, device="cpu", **options
) -> nn.Module:
    """Return a network in eval mode.

    Args:
        name: a torchvision classifier ("resnet50"), "concept_scenes" for the network that ships with this project,
            "xresnet50" for the ResNet-50 without biases (`xdnn.XResNet50`), or a network, which passes through
            unchanged but for eval mode.
        weights: path of a .safetensors, .pt or .pth state dict; "torchvision" for the official weights
            ("torchvision:IMAGENET1K_V1" picks a version); None or "" for random weights ("concept_scenes": its own;
            "random" draws them there too).
        seed: of the random weights. The global random state is left as found.
        device: where the network goes.
        options: passed to the network's constructor, for example `num_classes=10`. Without it the number of classes
            is taken from the weights file.

    Returns:
        The network, `requires_grad` as its constructor left it.

    Raises:
        InputError: unknown name, no such file, a file that is not a state dict, weights that do not fit the network
            or are not finite, official weights that can't be fetched.

    Example:
        >>> from absence_utils import load_model
        >>> load_model("concept_scenes").training  # the small network that ships with this project
        False
        >>> load_model("squeezenet1_0", num_classes=10, seed=1).num_classes  # random weights
        10
    """
    if isinstance(name, nn.Module):
        if weights:
            problem = "given beside a network"
            raise InputError("weights", problem, "Load them into the network, or give its name.")
        return name.eval().to(device)
    if not isinstance(name, str):
        problem = f"{name!r} is not a name or a network"
        raise InputError("model", problem, "Give a torchvision name or a Module.")
    weights = str(weights or "")
    if name == "concept_scenes" and not weights:
        weights = str(SCENES_WEIGHTS)
    state = None if weights in ("", "random") else read_weights(name, weights)
    model = _build(name, seed, state, options)
    if state is not None:
        fill_weights(model, name, state)
    return model.eval().to(device)


def _build(name: str, seed: int, state: dict | None, options: dict) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "concept_scenes":
            from .concept_net import ConceptNet  # the renderer is not needed for other networks

            return ConceptNet(**options)
        if name == "xresnet50":
            from .xdnn import XResNet50

            if state is not None and "num_classes" not in options and "fc.weight" in state:
                options = options | {"num_classes": state["fc.weight"].shape[0]}
            return XResNet50(**options)
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "concept_scenes", "xresnet50"], n=4, cutoff=0.5)
            problem = f"{name!r} is neither 'concept_scenes' nor a torchvision classifier"
            raise InputError("model", problem, f"Nearest names: {', '.join(near or known[:8])}.")
        if name in (
            "googlenet",
            "inception_v3",
        ):  # they warn unless told, and have auxiliary heads in the file
            options = {"init_weights": True, "aux_logits": state is not None} | options
        if state is not None and "num_classes" not in options:
            options = options | _classes_in(name, state, options)
        return torchvision.models.get_model(name, weights=None, **options)


def _classes_in(name: str, state: dict[str, Tensor], options: dict) -> dict:
    """`num_classes` as the last layer of the weights file has it, where that differs from the network's default."""
    with torch.device("meta"):
        usual = torchvision.models.get_model(name, weights=None, **options).state_dict()
    last = [key for key in usual if "aux" not in key.lower()][-1]
    if last in state and state[last].ndim and state[last].shape[0] != usual[last].shape[0]:
        return {"num_classes": state[last].shape[0]}
    return {}


def read_weights(name: str, weights: str, own: Collection[str] | None = None) -> dict[str, Tensor]:
    """A finite state dict from a file or from torchvision.

    What is around it is taken off: "state_dict" and the like, and prefixes of wrappers, see
    `wrappers.without_prefixes`, as many as the keys `own` of the network ask for.
    """
    if weights == "torchvision" or weights.startswith("torchvision:"):
        state = _official(name, weights.partition(":")[2])
    else:
        state = read_checkpoint(os.path.expanduser(weights))
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        problem = "the file holds no state dict"
        raise InputError("weights", problem, "Save `model.state_dict()`, best with safetensors.")
    require_plain_tensors(state)
    state = without_prefixes(state, own)
    check_finite(state)
    return state


def check_finite(state: dict) -> None:
    """Refuse weights that are not finite.

    Raises:
        InputError: a tensor of the state dict has such a value; names the first.
    """
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        problem = f"{len(bad)} of {len(tensors)} tensors have values that are not finite, first {bad[0]!r}"
        raise InputError("weights", problem, "Use a checkpoint from before training diverged.")


def _official(name: str, version: str) -> dict:
    try:
        available = torchvision.models.get_model_weights(name)
    except ValueError as error:
        problem = f"torchvision has none for {name!r}"
        raise InputError("weights", problem, "Give the path of a file.") from error
    if version:
        require_choice("weights", version, available.__members__)
    chosen = available[version] if version else available.DEFAULT
    try:
        return chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        file = chosen.url.rsplit("/", 1)[1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            "weights",
            f"the official weights of {name!r} cannot be fetched ({error})",
            f"On a machine with a network fetch {chosen.url}; put {file} into {folder}, or pass its path.",
        ) from error


def fill_weights(model: nn.Module, name: str, state: dict[str, Tensor]) -> None:
    """Load a state dict of `read_weights` into the network; InputError with the first names where it does not fit."""
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    surplus = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    found = [
        f"{len(keys)} {what} (first {keys[0]!r})"
        for keys, what in ((missing, "missing"), (surplus, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    if found:
        problem = f"they do not fit {name!r}: tensors {', '.join(found)}"
        raise InputError("weights", problem, _remedy(missing, surplus))
    model.load_state_dict(state, strict=False)  # num_batches_tracked may be absent


def _remedy(missing: list[str], surplus: list[str]) -> str:
    """What to do about names that do not fit: where they differ by one beginning alone, say by which."""
    for longer, shorter, whose in ((surplus, missing, "checkpoint"), (missing, surplus, "network")):
        ends = [key for key in shorter if longer and longer[0].endswith(key)]
        prefix = longer[0].removesuffix(max(ends, key=len)) if ends else ""
        if prefix and len({key.removeprefix(prefix) for key in longer} & set(shorter)) == len(missing):
            return f"They fit but for the prefix {prefix!r} in the {whose}: save or build it without."
    return "Give the network that was trained."


def tensor_hash(value: Tensor) -> str:
    """sha256 of a tensor's bytes."""
    content = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy()).hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """sha256 of the network's weights and buffers, names included, for the record."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        # a copy: a single value may have any stride and still be called contiguous
        values = value.detach().cpu().clone(memory_format=torch.contiguous_format).view(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
