"""Does a suppression depend on what else is in the image? Asked on the same image, with and without the trigger.

    context = [effect of a lowest patch where the trigger is] - [its effect on the same image, trigger taken out]

The trigger is the part of a top image that the unit owes most of its response to; it is taken out by a fill that is
like it in colour and contrast. A unit that adds up local evidence has a context of 0, and one that saturates (a maximum
over positions, a presence detector) a negative one: where the trigger is, the rest no longer matters. A veto is
positive. That a mean over space of one layer's map is additive is architecture and no finding: beyond the reach of a
patch nothing can change there.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.images.cache import stack_images
from absence_utils.layers.fuse import channels_last, fused
from absence_utils.patches.book import PatchBook
from absence_utils.patches.mining import images_per_batch
from absence_utils.stats import crossed_t_interval, fdr_adjust
from absence_utils.units import READINGS, Unit, device_of, feature_map, hand_on, pool_space, to_network

from .decisions import LEVEL, in_sd, one_sided_p
from .design import InsertionConfig, chosen_units
from .execution import empty_bank
from .paste import CORNERS, insert_patches, paste_corners
from .published import check_book, extreme_patches, shared_random_patches

STEPS = 4  # of the path along which the trigger is looked for
LEAST = 0.05  # sd; filters that straddle an edge make contexts of about 0.01 sd
TRIGGER = 0.5  # sd that a unit loses without its trigger; one that loses less is active unless suppressed


def context_effects(
    model: nn.Module,
    layer: str | None,
    dataset,
    book: PatchBook,
    hosts: range,
    setting: InsertionConfig,
    responses: dict[str, np.ndarray],
    units=None,
    images: int = 24,
) -> pd.DataFrame:
    """Effect of each unit's lowest patches with and without its trigger, and their difference.

    Args:
        model, layer: see `units.feature_map`.
        dataset: images in random order.
        book: extreme patches of images that are not in `hosts`.
        hosts: numbers of the images that are measured; the unit's highest `images` of them are pasted into.
        setting: patch, stride, k and pool are those of the book.
        responses: reading to [image, unit] of untouched images.
        units: channels; all if None.
        images: top images of a unit.

    Returns:
        A row for each unit and reading: unit, reading, trigger (what the unit loses without it, sd), on and off
        (effects with the trigger and without it, in sd as in `hosts.host_effects`, a positive one is suppression),
        context (on - off), low, high (95%), q (that the context is beyond `LEAST`, adjusted over units), ranks (the
        same difference on the scale of ranks among untouched images, 0..1), found (q below 5%, and the change
        of scale leaves the sign). A unit with a trigger below `TRIGGER` is not asked: NaN, and not found.
    """
    stack = stack_images(dataset)
    check_book(book, setting, stack)
    signed = responses["signed"]
    units = chosen_units(units, signed.shape[1])
    bank, network = empty_bank(stack, setting.patch), fused(model, layer, tuple(stack.take([0]).shape[1:]))
    lowest = extreme_patches(bank, stack, book, units)["lowest"]
    windows = bank.add_windows(stack, book.random.image, book.random.box)
    controls = shared_random_patches(bank, stack, book, setting)[0]
    hosts = np.asarray(hosts)
    measured = {read: [] for read in responses}
    for slot, unit in enumerate(units):
        top = hosts[np.argsort(-signed[hosts, unit], kind="stable")[:images]]
        row = np.arange(len(top)) % setting.k
        with_patch, control = bank.pixels[lowest[slot, row]], bank.pixels[controls[row]]
        fills = bank.pixels[windows[_indifferent(book.random.response[unit])]]
        inputs = _four_versions(network, layer, int(unit), stack, top, with_patch, control, fills, setting)
        for read, values in _read(network, layer, inputs, int(unit), setting.pool).items():
            if read in measured:
                measured[read].append(values.reshape(4, len(top)))
    tables = []
    for read in responses:
        usual = responses[read][hosts][:, units]
        tables.append(_table(np.stack(measured[read]), usual, units, setting.k, read))
    return pd.concat(tables, ignore_index=True).sort_values("unit", kind="stable", ignore_index=True)


def _indifferent(response: Tensor) -> np.ndarray:
    """Numbers of the middle third of random windows: what neither drives the unit nor suppresses it may fill a gap.

    A fill that shows the suppressor itself made a context of "not ring", which has none.
    """
    order = np.argsort(response.numpy(), kind="stable")
    return order[len(order) // 3 : max(len(order) // 3 + 1, 2 * len(order) // 3)]


def _four_versions(model, layer, unit, stack, top, with_patch, control, fills, setting) -> Tensor:
    """[4 x image, ...]: lowest patch and control with the trigger there, then both with the trigger taken out."""
    images = stack.take(top)
    window = evidence_window(model, layer, unit, images, setting.patch, setting.pool)
    side = setting.patch
    own = torch.stack([image[:, top : top + side, left : left + side]
                       for image, (top, left) in zip(images, window.tolist(), strict=True)])  # fmt: skip
    emptied = insert_patches(images, fills[_nearest(own, fills)], window)
    corner = _farthest_corner(images, window, setting.patch)
    return torch.cat([
        insert_patches(base, patch, corner) for base in (images, emptied) for patch in (with_patch, control)
    ])  # fmt: skip


def evidence_window(
    model: nn.Module, layer: str | None, unit: int, images: Tensor, side: int, pool: str = "mean"
) -> Tensor:
    """Upper left pixel [image, (top, left)] of the square of `side` px with most presence evidence for a unit.

    Evidence is that of integrated gradients from the mean colour, in a few steps, positive and negative parts alike. A
    single gradient would see nothing in a unit that has saturated.
    """
    inputs = channels_last(to_network(model, images))
    evidence = _evidence(lambda part: pool_space(feature_map(model, layer, part), pool)[:, unit], inputs)
    sums = F.avg_pool2d(evidence, side, stride=1)
    best = sums.flatten(1).argmax(dim=1).cpu()
    return torch.stack((best // sums.shape[3], best % sums.shape[3]), dim=1)


def evidence_masks(
    unit: Unit, images: Tensor, share: float = 0.5, *, smooth: int = 5, grow: int = 2, feather: int = 2
) -> Tensor:
    """Where the trigger of a unit lies: the smallest part of each image that holds a share of its evidence.

    Evidence as in `evidence_window`, averaged over squares, in which the two sides of an edge cancel; then its
    positive part.

    Args:
        unit: whose evidence is taken.
        images: [image, channel, height, width], normalised as the network expects.
        share: of the positive evidence, above 0, below 1.
        smooth: edge of the squares, an odd number of px.
        grow: px by which the mask is grown on all sides.
        feather: px over which it falls to 0 around that.

    Returns:
        [image, height, width] on the CPU, 1 on the trigger and 0 elsewhere, for `visualization.conditional_pair`.
        An image without positive evidence has an empty one.

    Raises:
        InputError: a share that is none, an even number of px to smooth over.
    """
    if not 0 < share < 1:
        raise InputError("share", f"{share}", "Use a number above 0 and below 1.")
    if smooth % 2 == 0:
        raise InputError("smooth", f"{smooth} px", "Use an odd number.")
    inputs = to_network(unit.model, images)
    found = F.avg_pool2d(_evidence(unit.response, inputs), smooth, 1, smooth // 2).clamp(min=0).cpu()
    falling, order = found.flatten(1).sort(dim=1, descending=True)
    before = falling.cumsum(dim=1) - falling  # what larger evidence holds
    chosen = (before < share * falling.sum(dim=1, keepdim=True)) & (falling > 0)
    mask = torch.zeros_like(falling).scatter(1, order, chosen.float()).view_as(found)
    mask = F.max_pool2d(mask, 2 * (grow + feather) + 1, 1, grow + feather)
    return F.avg_pool2d(mask, 2 * feather + 1, 1, feather, count_include_pad=False)[:, 0]


def _evidence(respond, inputs: Tensor) -> Tensor:
    """[image, 1, height, width] signed evidence of integrated gradients from the mean colour, in a few steps."""
    slope = torch.zeros_like(inputs)
    for step in range(STEPS):
        with torch.enable_grad():
            part = (inputs * (step + 0.5) / STEPS).detach().requires_grad_(True)
            slope += torch.autograd.grad(respond(part).sum(), part)[0] / STEPS
    return (slope * inputs).detach().sum(dim=1, keepdim=True).float()


def _nearest(patches: Tensor, others: Tensor) -> Tensor:
    """For each patch the one of the others that is most like it in mean colour and contrast."""

    def about(pixels: Tensor) -> Tensor:
        return torch.cat((pixels.mean(dim=(2, 3)), pixels.std(dim=(1, 2, 3))[:, None]), dim=1)

    return torch.cdist(about(patches), about(others)).argmin(dim=1)


def _farthest_corner(images: Tensor, window: Tensor, side: int) -> Tensor:
    """[image, (top, left)] of the corner that is farthest from the window."""
    places = [
        paste_corners(images, (side, side), torch.full((len(images),), place)) for place in range(CORNERS)
    ]
    at = torch.stack(places, dim=1)  # [image, corner, 2]
    apart = (at - window[:, None]).abs().amax(dim=2)
    return at[torch.arange(len(images)), apart.argmax(dim=1)]


@torch.no_grad()
def _read(model, layer, inputs: Tensor, unit: int, pool: str) -> dict[str, np.ndarray]:
    found = {read: [] for read in READINGS}
    for part in inputs.split(images_per_batch(*inputs.shape[2:], device_of(model))):
        maps = feature_map(model, layer, channels_last(to_network(model, part)))
        for read, values in zip(READINGS, (maps, hand_on(maps, layer)), strict=True):
            found[read].append(pool_space(values[:, [unit]], pool)[:, 0].float().cpu().numpy())
    return {read: np.concatenate(parts) for read, parts in found.items()}


def _table(values: np.ndarray, usual: np.ndarray, units, k: int, read: str) -> pd.DataFrame:
    """Rows of one reading from [unit, version, image] responses and those of untouched images [image, unit]."""
    spread = usual.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = values / np.where(spread > 0, spread, np.nan)[:, None, None]
    ranked = np.stack([
        np.searchsorted(np.sort(own), each) / len(own) for own, each in zip(usual.T, values, strict=True)
    ])  # fmt: skip
    on, off = scaled[:, 1] - scaled[:, 0], scaled[:, 3] - scaled[:, 2]
    trigger = (scaled[:, 1] - scaled[:, 3]).mean(axis=1)
    patch = np.arange(values.shape[2]) % k == np.arange(k)[:, None]
    crossed = np.where(patch.T, (on - off)[..., None], np.nan)  # [unit, image, patch], one patch an image
    found = crossed_t_interval(crossed)
    rows = pd.DataFrame({"value": found.value, "error": found.standard_error, "df": found.df})
    ranks = (ranked[:, 1] - ranked[:, 0] - ranked[:, 3] + ranked[:, 2]).mean(axis=1)
    asked = trigger >= TRIGGER  # what is left without a trigger is how far the unit can fall at all
    q = fdr_adjust(np.where(asked, one_sided_p(rows, LEAST), np.nan))
    table = pd.DataFrame({
        "unit": units, "reading": read,
        "trigger": trigger, "on": on.mean(axis=1), "off": off.mean(axis=1),
        "context": found.value, "low": found.low, "high": found.high,
        "q": q, "ranks": ranks, "found": (q < LEVEL) & (ranks > 0),
    })  # fmt: skip
    table.loc[~asked, ["context", "low", "high", "ranks"]] = np.nan
    return table


def describe_context(row: pd.Series) -> str:
    """A row of `context_effects` in a sentence."""
    if np.isnan(row["trigger"]):
        return "Context could not be asked: the unit hardly changes."
    if row["trigger"] < TRIGGER:
        return (
            "Context could not be asked: no part of its top images is a trigger. The one they owe most to, taken out, "
            f"moves it by {in_sd(row['trigger'])} only."
        )
    interval = f"95% interval {row['low']:.2f} to {row['high']:.2f}".replace("-", "−")
    with_and_without = (
        f"a lowest patch lowers it by {in_sd(row['on'])} where its trigger is and by {in_sd(row['off'])} on the same "
        f"images without it (difference {in_sd(row['context'])}, {interval})"
    )
    return (
        f"It depends on context: {with_and_without}."
        if row["found"]
        else f"No context shown: {with_and_without}."
    )
