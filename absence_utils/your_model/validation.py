"""Is a network fit to be asked what it encodes by absence? Checked before anything is computed from it.

Nothing is assumed of the network but that it is an `nn.Module`. Every check runs even where others fail, none raises,
and each failure says what to do. The checks themselves are in `network_checks` and `layer_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.models.load import tensor_hash
from absence_utils.models.wrappers import unreadable_form

from .checks import CheckContext, Row, Unreadable, reason
from .layer_checks import LAYER_CHECKS
from .network_checks import NETWORK_CHECKS

MOST = 16  # images that are used
NOT_CHECKED = "not checked"
CHECKS = {**NETWORK_CHECKS, **LAYER_CHECKS}


@dataclass(frozen=True)
class Validation:
    """What `validate_model` or `validate_inputs` found.

    Attributes:
        subject: what was checked, such as "layer block4".
        table: a row for each check: check, passed, found, remedy (what to do; empty where nothing is to be done). One
            that passed and has a remedy is a note.
    """

    subject: str
    table: pd.DataFrame
    parameter: str = "model"  # to blame for a failure

    @property
    def ok(self) -> bool:
        """All checks passed."""
        return bool(self.table["passed"].all())

    @property
    def notes(self) -> list[str]:
        """What a record of results should say: which of several outputs is read."""
        found = self.table.loc[self.table["check"] == "layer's shape", "found"]
        return [f"{self.subject}: {text}" for text in found if "of several outputs" in text]

    def raise_for_failure(self) -> Validation:
        """Return self if all checks passed.

        Raises:
            InputError: names every failed check, what was found and what to do.
        """
        if self.ok:
            return self
        failed = self.table[~self.table["passed"]]
        failed = failed[~failed["found"].str.startswith(NOT_CHECKED)]  # never alone: another check says why
        problems = "; ".join(f"{row.check}: {row.found}" for row in failed.itertuples())
        remedies = dict.fromkeys(
            row.remedy for row in failed.itertuples() if row.remedy
        )  # each once, in order
        problem = f"{len(failed)} of {len(self.table)} checks of {self.subject} failed: {problems}"
        about_layer = failed["check"].str.startswith("layer").all()
        raise InputError("layer" if about_layer else self.parameter, problem, " ".join(remedies))

    def __str__(self) -> str:
        width = max(map(len, self.table["check"]))
        lines = []
        for row in self.table.itertuples():
            mark = "FAIL" if not row.passed else "note" if row.remedy else "ok  "
            lines.append(f"{mark}  {row.check:<{width}}  {row.found}")
            if row.remedy:
                lines.append(f"{'':6}{'':<{width}}  -> {row.remedy}")
        failed = int((~self.table["passed"]).sum())
        verdict = "all checks passed" if self.ok else f"{failed} of {len(self.table)} checks failed"
        return "\n".join([f"{self.subject[0].upper()}{self.subject[1:]}: {verdict}", *lines])


def validate_model(model: nn.Module, layer: str | None, images: Tensor) -> Validation:
    """Check that units of a layer can be read, synthesised and attributed.

    the network is in a form that can be read (not scripted, traced, compiled or quantised: nothing else is checked
    then); weights finite; eval mode; hooks that were there change no gradient; the pass takes these images; the same
    input gives the same output (to 1e-6 of its largest value), also alone and in a batch (to 1e-3); gradients reach
    the image from every unit that depends on it; the layer's shape, with a batch and a channel axis; the layer runs
    once in a pass; responses are finite and differ between images; they can fall below zero; the network is left as
    it was found.

    Args:
        model: any network. Hooks, training flags, gradients, buffers and the global random state are left as found.
        layer: a layer's name, None for the output, "logits" for the signed output, see `units.feature_map`.
        images: [image, channel, height, width], normalised as the network expects. At least two that differ; the
            first 16 are used. Signs are also looked for in noise and in negatives of these images.

    Returns:
        A Validation. It takes the time of ten to thirty forward passes of the images.

    Raises:
        InputError: `model` is not a network, or there are no two finite images that differ.

    Example:
        >>> from absence_utils import load_images, load_model, validate_model
        >>> import torch
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=4)
        >>> images = torch.stack([image for image, _ in scenes])
        >>> validate_model(model, "block4", images).ok
        True
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", f"a {type(model).__name__}", "Give an nn.Module; `open_model` makes one.")
    images, form = _usable(images), unreadable_form(model)
    subject = f"layer {layer or 'output'}"
    if form:
        return Validation(subject, make_table([Row("readable form", False, *form)]))
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        context, rows = (
            CheckContext(model, layer, images),
            [Row("readable form", True, "eager, floating point", "")],
        )
        with preserve_state(model) as changed:
            for name, check in CHECKS.items():
                try:
                    found = check(context)
                except Unreadable as error:
                    found = False, f"{NOT_CHECKED}, {error}", ""
                except Exception as error:  # a network of someone else's may raise anything
                    found = False, f"the check failed ({reason(error)})", "See the other checks."
                rows.append(Row(name, *found))
        rows.append(Row("left as found", *_left_as_found(changed)))
    return Validation(subject, make_table(rows))


def make_table(rows: list[Row]) -> pd.DataFrame:
    """The table of a `Validation`."""
    return pd.DataFrame(rows, columns=Row._fields).astype({"passed": bool})


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[list[str]]:
    """Put buffers and modes back after some passes, also after an exception.

    Returns:
        A list, which at the end holds the names of all that the passes changed.
    """
    before, changed = _state(model), []
    modules = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    modes = [(module, module.training) for module in modules]
    buffers = [
        (module, key, value, value.detach().clone())
        for module in modules
        for key, value in module.named_buffers(recurse=False)
    ]
    try:
        yield changed
    finally:
        after = _state(model)
        changed += [name for name in {**before, **after} if before.get(name) != after.get(name)]
        with torch.no_grad():
            for module, key, value, kept in buffers:
                module._buffers[key] = value.copy_(kept)
        for module, training in modes:
            module.training = training


def _state(model: nn.Module) -> dict[str, object]:
    """The hash of every weight and buffer, the mode of every module and the number of its hooks, by name."""
    values = [*model.named_parameters(), *model.named_buffers()]
    state: dict[str, object] = {repr(name): tensor_hash(value) for name, value in values}
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"the hooks of {name!r}"] = sum(map(len, hooks))
        state[f"the mode of {name!r}"] = module.training
    return state


def _left_as_found(changed: list[str]) -> tuple[bool, str, str]:
    if not changed:
        return True, "weights, buffers, hooks, modes", ""
    found = f"a forward pass changes {', '.join(changed[:3])}" + ", ..." * (len(changed) > 3)
    remedy = (
        "Let the forward pass change nothing in eval mode; results would depend on what was asked before."
    )
    return False, found, remedy


def _usable(images: Tensor) -> Tensor:
    remedy = "Give a few, [image, channel, height, width], normalised as the network expects."
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        what = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise InputError("images", what, remedy)
    images = images[:MOST].detach().clone()
    if not images.isfinite().all():
        raise InputError("images", "not all values are finite", remedy)
    if len(images) < 2 or (images == images[:1]).all():
        raise InputError("images", "there are no two that differ", remedy)
    return images
