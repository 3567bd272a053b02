"""Tables of a book of patches: what is drawn, what every unit's range says, what the patches show."""

from __future__ import annotations

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from absence_utils.errors import InputError
from absence_utils.units import full_name

from .book import SIDES, PatchBook, Patches, require_same
from .mining import batch_norm_sign, blank_patch_response
from .shape import response_shape


def patch_table(book: PatchBook, dataset, units: list[int], pairs: dict | None = None) -> pd.DataFrame:
    """One row for each patch of the chosen units, and one for each synthesised image in `pairs`.

    Args:
        units: numbers of the units.
        pairs: unit to `RenderedPair`, whose first facets are listed with rank 0; None for none.

    Returns:
        Columns unit, side ("highest", "lowest"), rank (1 is the most extreme patch, 0 is synthesised),
        response (signed, in the units of the layer), image (index), top, left (px) and label (the image's
        class or "").
    """
    rows, names = [], list(getattr(dataset, "class_names", []))
    labels = getattr(dataset, "labels", None)
    for unit in units:
        book.require_unit(unit)
        for side in SIDES:
            if pairs:
                response = getattr(pairs[unit], side).response[0].item()
                rows.append((unit, side, 0, response, None, None, None, ""))
            found: Patches = getattr(book, side)
            for rank, image in enumerate(found.image[unit].tolist()):
                top, left = found.box[unit, rank, :2].tolist()
                label = int(labels[image]) if labels is not None else -1
                name = names[label] if 0 <= label < len(names) else ""
                rows.append((unit, side, rank + 1, found.response[unit, rank].item(), image, top, left, name))
    columns = ["unit", "side", "rank", "response", "image", "top", "left", "label"]
    return pd.DataFrame(rows, columns=columns).astype({"image": "Int64", "top": "Int64", "left": "Int64"})


def range_table(book: PatchBook, model: nn.Module, dataset) -> pd.DataFrame:
    """How far each unit's patches reach above and below its response to an empty patch, and its skewness.

    Returns:
        One row a unit: highest, lowest (means over the k patches) and empty_patch, all in the units of the
        layer; the columns of `response_shape` after its first, of the book's random windows with these ends;
        batch_norm, the sign of a batch norm's scale directly behind the layer ("+", "-", "0", "none",
        "unknown": `batch_norm_sign`).

    Raises:
        InputError: the book has a random sample of fewer than three windows.
    """
    lowest, highest = (getattr(book, side).response.mean(dim=1) for side in reversed(SIDES))
    empty = blank_patch_response(model, dataset, book)
    sample = book.random
    shape = response_shape(sample.response.T, empty, ends=(lowest, highest), images=sample.image)
    sign, how = batch_norm_sign(model, book.layer)
    signs = [how] * book.units if sign is None else ["-0+"[int(value) + 1] for value in sign]
    columns = {"highest": highest, "lowest": lowest, "empty_patch": empty}
    table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    table.insert(0, "unit", range(book.units))
    return table.join(shape.drop(columns="blank")).assign(batch_norm=signs)


def unit_title(book: PatchBook, dataset, unit: int, batch_norm: str = "none") -> str:
    """Name of a unit for a reader: layer, number, class of a logit, sign of a batch norm behind it."""
    book.require_unit(unit)
    title = full_name(book.layer, unit, getattr(dataset, "class_names", []), book.units)
    turned = {"-": "negative (highest and lowest swap behind it)", "+": "positive", "0": "zero"}
    if batch_norm != "none":
        title += f" – scale of the batch norm behind it: {turned.get(batch_norm, batch_norm)}"
    return title


def compare_books(a: PatchBook, b: PatchBook) -> pd.DataFrame:
    """How far two books rank the same windows alike, for example of two precisions or of two networks.

    Returns:
        One row a unit: overlap_highest and overlap_lowest, the share in 0..1 of a's k patches that are among b's;
        rank_correlation, Spearman's, of the responses to the random sample (nan for a unit that never changes).

    Raises:
        InputError: the books are not about the same images, windows, k and random sample.
    """
    windows = ("units", "patch", "stride", "k", "reservoir", "seed", "fingerprint", "covered")
    require_same("b", a, b, windows, "Compare books of the same windows.")
    if len(a.random.image) < 2:
        raise InputError("a", "it has no random sample to rank", "Mine with a `reservoir` of at least 2.")
    columns = {}
    for side in SIDES:
        mine, theirs = getattr(a, side).place, getattr(b, side).place
        shared = (mine[:, :, None] == theirs[:, None, :]).any(dim=2)
        columns[f"overlap_{side}"] = shared.double().mean(dim=1).numpy()
    ranks = [torch.from_numpy(rankdata(book.random.response.numpy(), axis=1)) for book in (a, b)]
    first, second = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    product = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    return pd.DataFrame({"unit": range(a.units), **columns, "rank_correlation": product.numpy()})


def concept_coverage(extremes: Patches, masks: Tensor) -> Tensor:
    """How much of each concept the patches show: [unit, k, concept] in 0..1, 0 where the image lacks it.

    Args:
        masks: [image, concept, height, width] bool, where each concept is.
    """
    shares = torch.zeros(*extremes.image.shape, masks.shape[1])
    for unit, rank in torch.cartesian_prod(*map(torch.arange, extremes.image.shape)).tolist():
        mask = masks[extremes.image[unit, rank]]
        top, left, height, width = extremes.box[unit, rank].tolist()
        inside = mask[:, top : top + height, left : left + width].sum(dim=(1, 2))
        shares[unit, rank] = inside / mask.sum(dim=(1, 2)).clamp(min=1)
    return shares


def concept_enrichment(
    book: PatchBook, masks: Tensor, planted: Tensor, units: list[str], concepts: list[str]
):
    """Which concepts a unit's patches show more often, or less, than any patch does, beside what was planted.

    A patch shows a concept if more than half of the concept's pixels lie in it.

    Args:
        masks: [image, concept, height, width] bool, where each concept is.
        planted: [unit, concept] effect of adding the concept, negative for a planted absence.
        units, concepts: their names.

    Returns:
        One row for each unit, side and concept: planted; share of the k patches that show it; usual, the share of
        all windows that do; excess, their difference in percentage points.
    """
    windows = masks.float().unfold(2, book.patch, book.stride).unfold(3, book.patch, book.stride)
    inside = windows.sum(dim=(-2, -1)) / masks.sum(dim=(2, 3)).clamp(min=1)[..., None, None]
    usual = (inside > 0.5).float().mean(dim=(0, 2, 3)).tolist()
    rows = []
    for side in SIDES:
        shares = (concept_coverage(getattr(book, side), masks) > 0.5).float().mean(dim=1).tolist()
        for unit, effects, shown in zip(units, planted.tolist(), shares, strict=True):
            for concept, effect, share, base in zip(concepts, effects, shown, usual, strict=True):
                rows.append((unit, side, concept, effect, share, base, 100 * (share - base)))
    columns = ["unit", "side", "concept", "planted", "share", "usual", "excess"]
    return pd.DataFrame(rows, columns=columns)
