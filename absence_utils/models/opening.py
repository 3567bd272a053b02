"""Open any network, the user's own too: by name, or from a function in a module or a Python file.

The named function is executed, with all that its file does when imported: name only code that you trust. Weights are
data and are never executed: they are read with safetensors or with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread

import torch
import torchvision
from torch import nn

from absence_utils.errors import InputError, brief, require_at_least
from absence_utils.images.base import set_input_spec
from absence_utils.images.preprocessing import (
    PreparedFolder,
    Preprocessing,
    prepared_scenes,
    resolve_preprocessing,
)
from absence_utils.units import device_of

from .load import check_finite, fill_weights, load_model, read_weights
from .random_weights import random_copy
from .wrappers import require_built, require_readable_form, unwrapped


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network, and what happens to an image before the network sees it.

    Attributes:
        model: in eval mode, on its device; `normalisation_of` and `input_channels` know what it takes.
        preprocessing: see `images.preprocessing.Preprocessing`.
        name: the name or "module:function" it was opened by.
        by_name: it is one that `load_model` knows.
    """

    model: nn.Module
    preprocessing: Preprocessing
    name: str
    by_name: bool = False

    def untrained(self, seed: int = 0) -> nn.Module:
        """The network with random weights: built anew where it has a name, else a `random_copy`; on the same device."""
        if not self.by_name:
            return random_copy(self.model, seed)
        return load_model(self.name, "random", seed=seed, device=device_of(self.model))

    def images(
        self, source, *, limit: int = 0, seed: int = 0, broken: str = "raise",
        class_order: str = "numerical", background: str = "white", white: float = 0,
    ):  # fmt: skip
        """The image dataset called `source`, preprocessed for this network.

        Args:
            source: "concept_scenes" for rendered scenes, or the path of a folder with one folder for each class.
            limit, seed, broken, class_order, background, white: see `images.FolderImages`; for scenes `limit` is their
                number (512 for 0).

        Returns:
            An image dataset, see `images`; its `notes` say what became of the images. `stack_images` keeps its pixels
            as bytes: what a transform makes of an image comes back from there to half a grey level.
        """
        if not str(source):
            raise InputError("images", "it is empty", "Give 'concept_scenes' or the path of an image folder.")
        if str(source) == "concept_scenes":
            return prepared_scenes(self.preprocessing, limit, seed)
        reading = {"class_order": class_order, "background": background, "white": white}
        return PreparedFolder(source, self.preprocessing, limit=limit, seed=seed, broken=broken, **reading)


def open_model(
    name: str | nn.Module | Callable,
    weights: str | Path | None = None,
    *,
    preprocessing=None,
    size: int = 0,
    seed: int = 0,
    device="cpu",
) -> LoadedModel:
    """Open a network by name or by the function that makes it.

    Args:
        name: a torchvision classifier or "concept_scenes", as for `load_model`; "module:function" with a module that
            can be imported (also from the working directory), or "folder/file.py:function"; or a network. The
            function is called without arguments and returns a network or (network, preprocessing), within
            ABSENCE_MODEL_SECONDS of the environment (600; 0: no limit). It is executed: name only code that you trust.
            The function itself will do, too. The network is taken out of DataParallel, torch.compile and averaged
            weights.
        weights: as for `load_model`; for a function or a network a state dict (.safetensors, .pt, .pth; what
            wrappers put around it and before its names is taken off) to load, or "" to keep the weights it comes
            with. Never executed.
        preprocessing: in place of what the function returns: None for 224 px and `normalisation_of(model)`; a dict
            with some of mean, std (in units of pixels in 0..1), size, channels and resize (px of the shorter side
            before the crop); a torchvision transform, for example `weights.transforms()`, see
            `images.preprocessing.read_transform`; or a `Preprocessing`.
        size: px of the squares the network takes, where its preprocessing does not say; 0 for the size of
            torchvision's official weights of that name, else 224.
        seed: of random weights, and of whatever the function draws from torch's global generator.
        device: where the network goes.

    Raises:
        InputError: the module or the function is not found, the function fails or returns something else, the
            checkpoint does not fit, a network by name cannot take images of the size, weights are not finite, the
            preprocessing is not usable, the network is scripted, traced, compiled in part, quantised, or has lazy or
            empty parameters.

    Example:
        >>> from torch import nn
        >>> from absence_utils import open_model
        >>> def make_net():
        ...     return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> brought = open_model(make_net, preprocessing={"size": 32})
        >>> brought.model.training
        False
    """
    asked = bool(size)
    if isinstance(name, str) and not name.strip():
        remedy = "Give a torchvision name, 'concept_scenes', or 'file.py:function' for a network of your own."
        raise InputError("model", "it is empty", remedy)
    if isinstance(name, nn.Module):
        model, given, label = name, None, type(unwrapped(name)).__name__
    elif callable(name):
        label = f"{getattr(name, '__module__', '')}:{getattr(name, '__name__', 'function')}"
        with _time_limit(label):
            model, given = _call_factory(name, label, seed)
    elif isinstance(name, str) and ":" in name:
        model, given, label = *_build_from_path(name, seed), _without_folders(name)
    elif isinstance(name, str) and name.endswith(".py"):
        raise InputError("model", f"{name!r} names a file", f"Add the function: '{name}:make_net'.")
    else:
        model, given, label = load_model(name, weights, seed=seed), None, name
        size, weights = size or _usual_size(name), None
    model = unwrapped(model)
    require_readable_form(model)
    require_built(model)
    if weights:
        fill_weights(model, label, read_weights(label, str(weights), own=model.state_dict()))
    check_finite(model.state_dict())
    model = model.eval().to(device)
    ready = resolve_preprocessing(model, given if preprocessing is None else preprocessing, size)
    by_name = isinstance(name, str) and ":" not in name
    if asked and by_name:
        _require_size(model, ready)
    return LoadedModel(set_input_spec(model, ready.normalisation, ready.channels), ready, label, by_name)


def _require_size(model: nn.Module, ready: Preprocessing) -> None:
    """Refuse a size that the network cannot take, before anything is made of it."""
    device = device_of(model)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(torch.zeros(1, ready.channels, ready.size, ready.size, device=device))
    except Exception as error:  # a network of someone else's may raise anything
        problem = f"the network cannot take images of {ready.size} px ({brief(str(error), 160)})"
        raise InputError(
            "image_size", problem, "Give 0, for the size that it was made for, or another."
        ) from error


def _without_folders(name: str) -> str:
    """ "folder/file.py:function" as "file.py:function": the record says which file, not whose machine."""
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).name if place.endswith('.py') else place}:{attribute}"


def _usual_size(name: str) -> int:
    """px that torchvision's official weights of that name were evaluated at."""
    if name == "concept_scenes":
        return 64
    try:
        return torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    except ValueError:  # xresnet50
        return 224


# -- the function that makes a network


def _build_from_path(name: str, seed: int) -> tuple[nn.Module, object]:
    """Call the named function: (network, preprocessing or None)."""
    with _importable(name), _time_limit(name):
        return _call_factory(import_function(name), name, seed)


def import_function(name: str, parameter: str = "model") -> Callable:
    """The function of a name "module:function" or "folder/file.py:function"; its file is run.

    Args:
        name: of a module that is installed or in the working directory, or the path of a file.
        parameter: what errors call it.

    Raises:
        InputError: no such file, module or function; code that fails when it is imported.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(
            parameter, f"{name!r} names no function", "Give module:function or file.py:function."
        )
    file = _file(name)
    if file and not os.path.isfile(file):
        raise InputError(parameter, f"there is no file {brief(str(file))}", "Give the path of a Python file.")
    with _importable(name):
        try:
            module = _import_file(file) if file else importlib.import_module(place)
        except (Exception, SystemExit) as error:
            raise InputError(
                parameter,
                f"{place!r} cannot be imported ({type(error).__name__}: {str(error).partition(chr(10))[0]})",
                "Make it run by itself first. A module is installed or in the working directory; a file is given as "
                f"'folder/file.py:{attribute}'.",
            ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        own = [
            key for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]  # fmt: skip
        remedy = f"It has {', '.join(own)}." if own else "Define it there."
        raise InputError(parameter, f"{place!r} has no function {attribute!r}", remedy)
    return function


def _file(name: str) -> Path | None:
    place, _, _ = name.rpartition(":")
    return Path(os.path.expanduser(place)) if place.endswith(".py") else None


def _call_factory(function: Callable, name: str, seed: int) -> tuple[nn.Module, object]:
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = function()
    except (Exception, SystemExit) as error:
        problem = f"{name!r} failed ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        remedy = "It is called without arguments: make it run by itself first."
        raise InputError("model", problem, remedy) from error
    model, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        parts = ", ".join(type(part).__name__ for part in made) if isinstance(made, tuple) else ""
        what = f"({parts})" if parts else type(made).__name__
        remedy = "Return an nn.Module, or (nn.Module, preprocessing)."
        raise InputError("model", f"{name!r} returned {what}", remedy)
    return model, given


class _TooLong(BaseException):
    """The time is up. No Exception, so that no `except` of the user's code takes it for its own."""


@contextmanager
def _time_limit(name: str) -> Iterator[None]:
    """End the user's code with an InputError after ABSENCE_MODEL_SECONDS (600; 0 for never).

    By an alarm, which reaches the main thread alone, between two steps of Python; elsewhere there is no limit.
    """
    seconds = _seconds()
    if not seconds or not hasattr(signal, "SIGALRM") or current_thread() is not main_thread():
        yield
        return

    def ring(*_):
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TooLong:
        problem = f"{name!r} has not returned after {seconds:g} s"
        remedy = "Make it run by itself first, or set ABSENCE_MODEL_SECONDS to more seconds (0: no limit)."
        raise InputError("model", problem, remedy) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def _seconds() -> float:
    given = os.environ.get("ABSENCE_MODEL_SECONDS", "600")
    try:
        require_at_least("ABSENCE_MODEL_SECONDS", float(given), 0)
        return min(float(given), 1e8)  # what a timer takes
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        remedy = "Give a number of seconds, 0 for no limit."
        raise InputError("ABSENCE_MODEL_SECONDS", f"{given!r} is no number", remedy) from None


@contextmanager
def _importable(name: str) -> Iterator[None]:
    """Find modules beside the file, or in the working directory, while it is imported and its function runs."""
    file = _file(name)
    entry = str((file.parent if file else Path.cwd()).resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _import_file(path: Path):
    tag = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"{path.stem}_{tag}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
