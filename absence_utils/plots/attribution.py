"""Figures of signed attribution maps, and the absence matrix."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle
from scipy.ndimage import gaussian_filter

from absence_utils.attribution.maps import maps_table
from absence_utils.errors import InputError, require_at_least, require_shape

from .base import (
    SIGNED,
    WIDTH,
    bare,
    companion_style,
    drawn_once,
    show_image,
    signed_number,
    to_numpy,
    wrapped,
)

ACROSS = 6  # pictures beside each other
ANNOTATED = 12  # most columns of a matrix that have room for their numbers
KINDS = ("target", "non-target")


def smoothed(maps, smooth: float) -> np.ndarray:
    """Maps [..., height, width] under a Gaussian with sd `smooth` (a share of the longer side), for looking at.

    The sum is kept. Attributions of single pixels alternate in sign; what remains is the net evidence around a pixel.
    """
    maps = to_numpy(maps).astype(float)
    sd = smooth * max(maps.shape[-2:])
    return gaussian_filter(maps, (*[0] * (maps.ndim - 2), sd, sd))


def robust_limit(maps) -> float:
    """The magnitude that 99.5% of the values stay below: a few pixels can't stretch the colour scale."""
    return float(np.quantile(np.abs(maps), 0.995)) or 1.0


def signed_overlay(ax, pixels, values, limit: float):
    """Signed map [height, width] over a pale grey copy of its image [channel, height, width] in 0..1.

    Colour grows from transparent at 0 to full at +-limit, so that one sees what the evidence lies on.

    Returns:
        A mappable for the colour bar.
    """
    ax.imshow(overlay_colours(pixels, values, limit))
    bare(ax)
    return plt.cm.ScalarMappable(Normalize(-limit, limit), SIGNED)


def overlay_colours(pixels, values, limit: float) -> np.ndarray:
    """[height, width, RGB] in 0..1 of a signed map over a pale grey copy of its image, see `signed_overlay`."""
    pixels, values = to_numpy(pixels), np.clip(to_numpy(values) / limit, -1, 1)
    grey = 0.7 + 0.3 * pixels.mean(axis=0)[..., None]
    colours = plt.get_cmap(SIGNED)((np.sign(values) + 1) / 2 * 0.84 + 0.08)[..., :3]
    share = np.abs(values)[..., None] ** 0.8
    return grey * (1 - share) + colours * share


def show_maps(images, maps, *, normalisation=None, titles: Sequence[str] = (), smooth: float = 0.03):
    """Images and below each its signed map, all on one scale: red raises the response, blue lowers it.

    Args:
        images: [image, channel, height, width], as they were given to `attribute`, or pixels in 0..1.
        maps: [image, channel, height, width] signed, as `attribute` gives them, or summed over channels
            [image, height, width].
        normalisation: of the images, as `dataset.normalisation`, to show their true colours. Without it images beyond
            0..1 are stretched to fill that range, all alike, and the figure says so.
        titles: one for each image.
        smooth: sd of the Gaussian under which maps are drawn, a share of the longer side; 0 for none.

    Returns:
        The figure; full colour is what 99.5% of the values stay below.

    Raises:
        InputError: no images, or maps or titles that do not fit them.

    Example:
        >>> import torch
        >>> from absence_utils import show_maps
        >>> figure = show_maps(torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8), titles=["a disc", "a ring"])
        >>> len(figure.axes)  # two images, two maps, the colour bar
        5
    """
    images, maps = to_numpy(images), to_numpy(maps)
    require_shape("images", images, "image", "channel", "height", "width")
    require_at_least("images", len(images), 1)
    if maps.ndim == 4:
        maps = maps.sum(axis=1)
    require_shape("maps", maps, len(images), *images.shape[-2:])
    if titles and len(titles) != len(images):
        raise InputError("titles", f"{len(titles)} for {len(images)} images", "Give one for each image.")
    if not smooth >= 0:
        raise InputError("smooth", f"{smooth}", "Use a share of the image's longer side, 0 for none.")
    note = "red raises the response, blue lowers it"
    if normalisation is not None:
        images = to_numpy(normalisation.undo(torch.as_tensor(images)))
    elif images.min() < 0 or images.max() > 1:
        images = (images - images.min()) / (images.max() - images.min())
        note += "\n(colours of the images stretched to 0..1; `normalisation` shows the true ones)"
    maps = smoothed(maps, smooth)
    limit = robust_limit(maps)
    columns = min(len(images), ACROSS)
    blocks = -(-len(images) // columns)
    edge = min((WIDTH - 0.9) / columns, 1.6)  # of a picture, inches
    with companion_style():
        size = (max(columns * edge + 0.9, 3.5), blocks * (2 * edge + 0.3) + 0.5)
        figure, axes = plt.subplots(2 * blocks, columns, figsize=size, squeeze=False, layout="constrained")
        figure.suptitle(note, fontsize=9)
        for ax in axes.flat:
            ax.axis("off")
        for number, (pixels, signed) in enumerate(zip(images, maps, strict=True)):
            row, column = divmod(number, columns)
            show_image(axes[2 * row, column], pixels, titles[number] if titles else "")
            scale = signed_overlay(axes[2 * row + 1, column], pixels, signed, limit)
        for ax in [ax for ax in axes.flat if not ax.images]:
            ax.remove()
        bar = figure.colorbar(scale, ax=figure.axes, shrink=min(1, 1.6 / size[1]), ticks=[-limit, 0, limit])
        bar.ax.set_yticklabels([f"−{limit:.2g}", "0", f"{limit:.2g}"])
        bar.set_label("evidence per pixel")
    return drawn_once(figure)


def target_against_non_target(rows: Sequence[tuple], method: str = "", smooth: float = 0.03):
    """For each unit its top target inputs with their maps, beside the non-target inputs with most absence evidence.

    Args:
        rows: (label, target maps, non-target maps, what split them) for each unit; the maps are those of
            `attribution.draw_maps`.
        method: how the maps were made, for the title.
        smooth: see `smoothed`.

    Returns:
        The figure, and the table of its numbers (`attribution.maps_table` of all). One scale for each unit, printed at
        its colour bar. The title has the share of absence evidence in all evidence of the maps of either kind.
    """
    table = pd.concat(
        [maps_table(row[0], kind, row[side]) for row in rows for side, kind in enumerate(KINDS, 1)],
        ignore_index=True,
    )
    widths = [max(1, *(len(row[side].pixels) for row in rows)) for side in (1, 2)]
    edge = min((WIDTH - 1.3) / sum(widths), 1.5)  # of a picture, inches
    share = _absence_share(table)
    with companion_style():
        figure = plt.figure(figsize=(WIDTH, 0.7 + (2 * edge + 1.15) * len(rows)), layout="constrained")
        figure.suptitle(
            f"Absence evidence (blue) is {share['non-target']:.0%} of all evidence on these non-target inputs, "
            f"{share['target']:.0%} on the target ones\n({method or 'signed maps'}; net evidence under a Gaussian of "
            f"{smooth:.0%} of the image's edge; red: for the unit)"
        )
        for part, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
            _unit_block(part, widths, smooth, edge, *row)
    return figure, table


def _absence_share(table: pd.DataFrame) -> pd.Series:
    """Absence evidence as a share of all evidence, mean over the inputs of each kind; 0 where there is none."""
    absence, presence = table["absence evidence"], table["presence evidence"]
    return (absence / (absence + presence).where(lambda both: both > 0, 1.0)).groupby(table["input"]).mean()


def _unit_block(figure, widths, smooth, edge, label, targets, others, split) -> None:
    names = ("target inputs, highest response", "non-target inputs, most absence evidence")
    maps = [smoothed(side.signed, smooth) for side in (targets, others)]
    limit = robust_limit(np.concatenate(maps))
    how = "by class" if split.startswith("class") else f"by {split}"
    figure.suptitle(f"{label} (target inputs {how})", fontweight="bold")
    *blocks, scale_block = figure.subfigures(1, 3, width_ratios=(*widths, 0.8 / edge), wspace=0.02)
    captions = [[wrapped(text, edge, 2) for text in side.captions] for side in (targets, others)]
    lines = max(text.count("\n") for own in captions for text in own)  # for all, so that pictures align
    sides = zip(blocks, widths, names, (targets, others), maps, captions, strict=True)
    for block, width, name, side, signed, texts in sides:
        block.suptitle(wrapped(name, width * edge), fontsize=9)
        axes = block.subplots(2, width, squeeze=False)
        for column, (image_axis, map_axis) in enumerate(axes.T):
            if column >= len(side.pixels):
                image_axis.axis("off"), map_axis.axis("off")
                continue
            blank = "\n" * (lines - texts[column].count("\n"))
            show_image(image_axis, side.pixels[column], blank + texts[column])
            scale = signed_overlay(map_axis, side.pixels[column], signed[column], limit)
            map_axis.set_xlabel(f"response {signed_number(float(side.response[column]))}")
    bar = figure.colorbar(scale, cax=scale_block.add_axes((0.05, 0.15, 0.15, 0.55)), ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"−{limit:.2g}", "0", f"{limit:.2g}"])
    bar.set_label("evidence per pixel")


def methods_compared(label: str, compared: dict[str, dict], smooth: float = 0.03):
    """The same inputs under several methods, each with its completeness gap.

    Args:
        label: of the unit.
        compared: {"target": {method: maps}, "non-target": {method: maps}}, maps of `attribution.draw_maps`, whose
            first input is drawn.
        smooth: see `smoothed`.

    Returns:
        The figure, and the table of its numbers: `attribution.maps_table` with a column `method`. Every map has its own
        symmetric scale, given below it, since smooth and sharp maps of equal sum differ in height. The title counts
        the methods that find more absence evidence on the second input than on the first.
    """
    table = pd.concat(
        [
            maps_table(label, kind, maps).assign(method=method)
            for kind, by_method in compared.items()
            for method, maps in by_method.items()
        ],
        ignore_index=True,
    )
    first, second = (
        table[table["input"] == kind].groupby("method")["absence evidence"].first() for kind in compared
    )
    methods = list(next(iter(compared.values())))
    columns = len(methods) + 1
    edge = (WIDTH - 0.2) / columns  # of a picture, inches
    with companion_style():
        size = (WIDTH, 1.0 + (edge + 0.7) * len(compared))
        figure, axes = plt.subplots(len(compared), columns, figsize=size, squeeze=False, layout="constrained")
        figure.suptitle(
            f"{(second > first).sum()} of {len(methods)} methods find more absence evidence (blue) on the non-target "
            f"input of “{label}”\n(gap: the map's sum against the change it is to explain; "
            "scale: value per pixel at full colour)"
        )
        for ax, method in zip(axes[0, 1:], methods, strict=True):
            ax.set_title(wrapped(method.replace("_", " "), edge))
        for row, (kind, by_method) in zip(axes, compared.items(), strict=True):
            shown = by_method[methods[0]]
            show_image(row[0], shown.pixels[0], kind)
            caption = wrapped(shown.captions[0], edge, 3)
            row[0].set_xlabel(f"{caption}\nresponse {signed_number(float(shown.response[0]))}")
            for ax, method in zip(row[1:], methods, strict=True):
                maps = by_method[method]
                signed = smoothed(maps.signed[0], smooth)
                limit = robust_limit(signed)
                signed_overlay(ax, maps.pixels[0], signed, limit)
                ax.set_xlabel(f"gap {_percent(maps.gap[0])}\nscale \u00b1{limit:.2g}")
    return figure, table


def _percent(share) -> str:
    share = float(share)
    if not np.isfinite(share):
        return "undefined"
    return "< 1%" if abs(share) < 0.01 else f"{100 * share:+.0f}%".replace("-", "−")


def absence_heatmap(
    matrix: pd.DataFrame, outlined: Sequence[tuple[int, int]] = (), title: str = "", subject="class"
):
    """The absence matrix: rows units, columns classes of the input, in sd of each unit's response. Blue = absence.

    Args:
        matrix: as `screening.absence_matrix` returns it.
        outlined: (row, column) of cells where an absence was planted.
        title: in place of what the function says itself: how many outlined cells lead their row, or the largest entry.
        subject: what the columns are, for the axis.

    Returns:
        The figure.
    """
    rows, columns = matrix.shape
    values = matrix.to_numpy(dtype=float)
    limit = np.abs(values).max() or 1.0
    with companion_style():
        figure, ax = plt.subplots(figsize=(WIDTH, 2.3 + 0.42 * rows), layout="constrained")
        sns.heatmap(
            matrix,
            ax=ax,
            cmap=SIGNED.removesuffix("_r") if values.min() < 0 else "Blues",
            vmin=-limit if values.min() < 0 else 0,
            vmax=limit,
            annot=_signed_texts(values, ".2f" if limit < 10 else ".0f") if columns <= ANNOTATED else None,
            fmt="",
            linewidths=0.5,
            cbar_kws={"label": "absence evidence\n(sd of the unit's response)"},
        )
        look = {"fill": False, "edgecolor": "black", "linewidth": 2.5}
        for row, column in outlined:
            ax.add_patch(Rectangle((column, row), 1, 1, clip_on=False, **look))
        if outlined:
            planted = Patch(label="planted absence", **look)
            ax.legend(handles=[planted], loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
        figure.suptitle(title or _matrix_claim(matrix, outlined))
        ax.set_xlabel(f"{subject} of the input")
        ax.set_ylabel("unit")
        ax.tick_params(axis="y", rotation=0)
        ax.tick_params(axis="x", rotation=0 if columns <= 8 else 60)
        if columns > 8:
            plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return figure


def _signed_texts(values: np.ndarray, how: str) -> np.ndarray:
    """Numbers as texts with a true minus, none for -0.00."""
    texts = [format(value, how) for value in values.ravel()]
    shown = [text.replace("-", "−" if float(text) else "") for text in texts]
    return np.array(shown).reshape(values.shape)


def _matrix_claim(matrix: pd.DataFrame, outlined: Sequence[tuple[int, int]]) -> str:
    """How many outlined cells are the largest of their row, or where the largest entry is."""
    values = matrix.to_numpy(dtype=float)
    if np.isnan(values).all():
        return "No column has inputs of both kinds"
    if outlined:
        leading = sum(bool(values[row, column] == np.nanmax(values[row])) for row, column in outlined)
        return f"{leading} of {len(outlined)} planted absences carry the most absence evidence of their row"
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    where = f"“{matrix.index[row]}” on “{matrix.columns[column]}”"
    return f"Most absence evidence: {values[row, column]:.2f} sd, {where}"
