"""Figures of synthesised images: maxima beside minima, and images changed until a unit is off."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import pad

from .base import (
    ABSENCE,
    BRIGHTNESS,
    NEUTRAL,
    PRESENCE,
    WIDTH,
    companion_style,
    drawn_once,
    fixed_number,
    show_image,
    signed_limit,
    signed_map,
    signed_number,
    to_numpy,
    wrapped,
)

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def extremes(pairs, names: Sequence[str], title: str = "", poles: pd.DataFrame | None = None):
    """Two rows of pictures: what drives each unit up, below it what drives it down (the most extreme facet).

    Args:
        pairs: `RenderedPair`s.
        names: of the units.
        title: network and layer, for example.
        poles: of `visualization.pole_table` for these pairs: the titles then say where each pole lies among natural
            responses, and that of the figure for how many units it lies beyond all of them.
    """
    count = len(pairs)
    with companion_style():
        edge = min((WIDTH - 0.3) / count, 2.1)
        fig, axes = plt.subplots(2, count, figsize=(WIDTH, 2 * edge + 1.1), squeeze=False)
        for column, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            for row, (side, best) in enumerate(((pair.highest, "argmax"), (pair.lowest, "argmin"))):
                facet = int(getattr(to_numpy(side.response), best)())
                show_image(axes[row, column], side.image[facet])
                text = f"response {signed_number(float(side.response[facet]))}"
                if poles is not None:
                    text += f"\n{natural_place(poles.iloc[2 * column + row])}"
                axes[row, column].set_title(f"{wrapped(name, edge)}\n{text}" if row == 0 else text)
        for ax, word, colour in ((axes[0, 0], "maximum", PRESENCE), (axes[1, 0], "minimum", ABSENCE)):
            ax.set_ylabel(word, color=colour, fontsize=10)
        fig.suptitle(title if poles is None else f"{_beyond_all(poles)}\n({title})")
    return fig


def _beyond_all(poles: pd.DataFrame) -> str:
    """For how many units the poles lie beyond all natural responses, in words."""
    least = poles[poles["pole"] == "minimum"]["percentile"]
    most = poles[poles["pole"] == "maximum"]["percentile"]
    return (
        f"Minima lie below all real images for {(least == 0).sum()} of {len(least)} units, "
        f"maxima above all for {(most == 100).sum()}"
    )


def natural_place(pole) -> str:
    """Where a pole lies among natural responses, in words; see `visualization.pole_table` for its rows."""
    if 0 < pole["percentile"] < 100:
        return f"percentile {pole['percentile']:.1f}"
    distance = fixed_number(pole["distance"], 1, plus=True)
    return f"{'above' if pole['percentile'] else 'below'} all: {distance} sd"


def poles_and_patches(
    pairs, names: Sequence[str], captions: Sequence[str] = (), title: str = "", sheets=(), shown: int = 3
):
    """One column for each unit: its maximum above its minimum, and beside each the patches at the same end.

    Args:
        pairs: `RenderedPair`s.
        names: of the units.
        captions: one below each column, as its name and what confirms it; none by default.
        title: of the figure.
        sheets: for each pair the patches at both ends as `PatchBook.crops` gives them: (highest, lowest), each
            [patch, channel, height, width] in 0..1, most extreme first; none by default.
        shown: patches beside each pole.
    """
    with companion_style():
        left, gap, head, between = 0.25, 0.06, 0.5 if title else 0.25, 0.12  # inches
        column = (WIDTH - left) / len(pairs)
        small = (column - 2 * gap - 0.06) / (shown + 1)
        pole = shown * small if sheets else column - gap
        foot = 0.58 if captions else 0.05
        height = head + 2 * pole + between + foot
        fig = plt.figure(figsize=(WIDTH, height), layout="none")

        def axes(x: float, y: float, edge: float):
            """A square whose upper left corner lies at (x, y) inches from the figure's."""
            return fig.add_axes((x / WIDTH, 1 - (y + edge) / height, edge / WIDTH, edge / height))

        for place, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            x = left + place * column
            sides = (
                ("maximum", pair.highest, "argmax", PRESENCE),
                ("minimum", pair.lowest, "argmin", ABSENCE),
            )
            for row, (word, side, best, colour) in enumerate(sides):
                y = head + row * (pole + between)
                ax = axes(x, y, pole)
                show_image(ax, side.image[int(getattr(to_numpy(side.response), best)())])
                if place == 0:
                    ax.set_ylabel(word, color=colour, fontsize=10)
                if row == 0:
                    ax.set_title(name)
                elif captions:
                    ax.set_xlabel(wrapped(captions[place], column, 3))
                for number, patch in enumerate(sheets[place][row][:shown] if sheets else []):
                    show_image(axes(x + pole + gap, y + number * small + 0.01, small - 0.02), patch)
        if title:
            fig.suptitle(title, y=1 - 0.1 / height, va="top")
    return fig


def at_two_contrasts(free, matched, names: Sequence[str], title: str = ""):
    """Four rows: maxima and minima of free synthesis, each above those that were held to one contrast.

    Args:
        free, matched: `RenderedPair`s of the same units.
        names: of the units.
        title: of the figure, for example network and layer.
    """
    count = len(free)
    with companion_style():
        edge = min((WIDTH - 0.9) / count, 1.7)
        size = (edge * count + 0.9, 4 * (edge + 0.25) + 0.9)
        fig, axes = plt.subplots(4, count, figsize=size, squeeze=False)
        for column, (one, other, name) in enumerate(zip(free, matched, names, strict=True)):
            shown = [
                side for sides in ((one.highest, other.highest), (one.lowest, other.lowest)) for side in sides
            ]
            for ax, side in zip(axes[:, column], shown, strict=True):
                show_image(ax, side.image[0], signed_number(float(side.response[0])))
            axes[0, column].set_title(f"{wrapped(name, edge)}\n{axes[0, column].get_title()}")
        for row, (word, colour) in enumerate((("maximum", PRESENCE),) * 2 + (("minimum", ABSENCE),) * 2):
            axes[row, 0].set_ylabel(f"{word}\n{'one contrast' if row % 2 else 'free'}", color=colour)
        fig.suptitle(title)
    return fig


def growing(pairs, frame: int):
    """One picture of an animation: the maxima of all units above their minima, as far as they have come.

    Args:
        pairs: `RenderedPair`s with `frames`.
        frame: which of them.

    Returns:
        [channel, height, width] in 0..1, maxima and minima framed by a margin of white.
    """
    rows = [
        [side.frames[frame, 0] for side in sides]
        for sides in zip(*((p.highest, p.lowest) for p in pairs), strict=True)
    ]
    return torch.cat(
        [torch.cat([pad(image, [3] * 4, value=1.0) for image in row], dim=2) for row in rows], dim=1
    )


def rendered_pair(pair):
    """All facets of one unit in a row: its maxima on the left, its minima on the right, with their responses.

    Args:
        pair: a `RenderedPair`.

    Returns:
        The figure.
    """
    facets = max(len(pair.highest.image), len(pair.lowest.image))
    edge = min((WIDTH - 0.3) / (2 * facets), 2.4)  # of a picture, inches
    with companion_style():
        fig = plt.figure(figsize=(2 * facets * edge + 0.3, edge + 0.95), layout="constrained")
        fig.suptitle(f"{pair.unit.name}, synthesised with {len(pair.highest.trajectory)} steps")
        sides = (("maximum", pair.highest, PRESENCE), ("minimum", pair.lowest, ABSENCE))
        for block, (word, side, colour) in zip(fig.subfigures(1, 2), sides, strict=True):
            block.suptitle(word, color=colour, fontweight="bold", fontsize=9)
            axes = block.subplots(1, facets, squeeze=False)[0]
            for ax in axes[len(side.image) :]:
                ax.set_visible(False)
            for ax, image, response in zip(axes, side.image, side.response, strict=False):
                show_image(ax, image)
                ax.set_xlabel(f"response {signed_number(float(response))}")
    return drawn_once(fig)


def rendered_pairs(pairs, real, names: Sequence[str] | None = None, title: str = "", poles=None):
    """One row for each unit: maximum, minimum, how the response developed, and where real images lie.

    Args:
        pairs: `RenderedPair`s of units of one layer.
        real: [image, channel] responses of that layer to real images.
        names: of the units; their addresses by default.
        title: network and layer, for example.
        poles: of `visualization.pole_table` for these pairs: the title then says how far beyond real images they lie.

    Returns:
        The figure, and the table of what it draws, see `pair_numbers`.
    """
    names = names or [pair.unit.name for pair in pairs]
    facets = max(len(side.image) for pair in pairs for side in (pair.highest, pair.lowest))
    with companion_style():
        ratios = [1] * 2 * facets + [1.5, 1.9]
        edge = (WIDTH - 1) / sum(ratios)  # of a picture, inches
        size = (WIDTH, 1.2 + max(edge + 0.35, 1.15) * len(pairs))
        fig, axes = plt.subplots(len(pairs), len(ratios), squeeze=False, width_ratios=ratios, figsize=size)
        for row, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            for first, side, colour in ((0, pair.highest, PRESENCE), (facets, pair.lowest, ABSENCE)):
                for ax in axes[row, first + len(side.image) : first + facets]:
                    ax.set_visible(False)
                for column in range(len(side.image)):
                    ax = axes[row, first + column]
                    show_image(ax, side.image[column], signed_number(float(side.response[column])))
                    ax.title.set_color(colour)
            axes[row, 0].set_ylabel(wrapped(name, max(edge, 1.0)))
            _trajectories(axes[row, -2], pair)
            _strip(axes[row, -1], pair, to_numpy(pair.unit.of(real)))
        for column, word, colour in ((0, "maximum", PRESENCE), (facets, "minimum", ABSENCE)):
            axes[0, column].set_title(f"{word}\n{axes[0, column].get_title()}", color=colour)
        axes[0, -2].set_title("response\nduring synthesis")
        axes[0, -1].set_title(f"responses to {len(real)} real images\n(dots; triangles: synthesised)")
        for ax in axes[:, -2:].flat:
            ax.locator_params(nbins=5)
        axes[-1, -2].set_xlabel("step")
        axes[-1, -1].set_xlabel("response\n(units of the layer)")
        fig.suptitle(title if poles is None else f"{_how_far(poles)}\n({title})")
    return fig, pair_numbers(pairs, real)


def _how_far(poles: pd.DataFrame) -> str:
    """How far beyond natural responses the poles lie, in words."""
    beyond = poles.groupby("pole")["beyond"].median()
    return (
        f"Free minima lie {beyond['minimum']:.1f} times, maxima {beyond['maximum']:.1f} times as far out as "
        "the 90% of real images in the middle"
    )


def _trajectories(ax, pair) -> None:
    for rendering, colour in ((pair.highest, PRESENCE), (pair.lowest, ABSENCE)):
        ax.plot(to_numpy(rendering.trajectory), color=colour, linewidth=0.8)
    ax.axhline(0, color=NEUTRAL, linewidth=0.5)


def _strip(ax, pair, real: np.ndarray) -> None:
    """Real responses as dots (their height means nothing) and quartile bar, synthesised ones as triangles."""
    height = (np.argsort(np.argsort(real)) * 0.618034) % 1 - 0.5  # even and the same in every run
    ax.scatter(real, 0.5 * height, s=2, color=NEUTRAL, alpha=0.35, linewidths=0)
    low, median, high = np.quantile(real, (0.25, 0.5, 0.75))
    ax.plot([low, high], [0, 0], color="black", linewidth=3, solid_capstyle="butt")
    ax.plot([median], [0], "|", color="white", markersize=8)
    for rendering, colour, marker in ((pair.highest, PRESENCE, ">"), (pair.lowest, ABSENCE, "<")):
        ax.scatter(
            to_numpy(rendering.response), np.zeros(len(rendering.response)), color=colour, marker=marker, s=30
        )
    ax.axvline(0, color=NEUTRAL, linewidth=0.5)
    ax.set_ylim(-0.55, 0.6)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.08)


def pair_numbers(pairs, real) -> pd.DataFrame:
    """What `rendered_pairs` draws: columns unit, quantity, facet, at (step or quantile), response."""
    rows = []
    for pair in pairs:
        name = pair.unit.name
        for sign, rendering in (("highest", pair.highest), ("lowest", pair.lowest)):
            for facet, value in enumerate(rendering.response.tolist()):
                rows.append((name, sign, facet, len(rendering.trajectory), value))
                for step, met in enumerate(rendering.trajectory[:, facet].tolist()):
                    rows.append((name, f"{sign} trajectory", facet, step, met))
        responses = to_numpy(pair.unit.of(real))
        rows += [(name, "real quantile", 0, q, float(np.quantile(responses, q))) for q in QUANTILES]
    return pd.DataFrame(rows, columns=["unit", "quantity", "facet", "at", "response"])


def contrast_curves(curve: pd.DataFrame, poles: pd.DataFrame, natural, names: Sequence[str], title: str = ""):
    """One panel for each unit: its response to both poles as their contrast grows from the blank.

    Args:
        curve: of `visualization.contrast_curve`.
        poles: of `visualization.pole_table`, for the same units in the same order.
        natural: [image] contrast of natural images.
        names: of the units.
        title: network and layer, for example.

    The grey band lies between the 5th and 95th percentile of the responses to natural images, the dotted line is
    their median contrast. Left of it the poles have less contrast than a natural image, right of it more. The title
    counts the poles that are outside the band at that line.
    """
    units = list(dict.fromkeys(curve["unit"]))
    middle = float(np.median(to_numpy(natural)))
    outside = {"minimum": 0, "maximum": 0}
    with companion_style():
        columns = min(len(units), 5)
        rows = -(-len(units) // columns)
        fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.9 + 2 * rows), squeeze=False, sharex=True)
        for ax, unit, name in zip(axes.flat, units, names, strict=False):
            of_unit = poles[poles["unit"] == unit].iloc[0]
            ax.axhspan(of_unit["low"], of_unit["high"], color=NEUTRAL, alpha=0.25, linewidth=0)
            for pole, colour in (("maximum", PRESENCE), ("minimum", ABSENCE)):
                line = curve[(curve["unit"] == unit) & (curve["pole"] == pole)]
                ax.plot(line["contrast"], line["response"], color=colour, label=pole)
                at_middle = np.interp(middle, line["contrast"], line["response"])
                outside[pole] += bool(
                    at_middle > of_unit["high"] if pole == "maximum" else at_middle < of_unit["low"]
                )
            ax.axvline(middle, color="black", linewidth=0.8, linestyle=":")
            ax.set_title(wrapped(name, WIDTH / columns - 0.35))
            ax.locator_params(axis="x", nbins=3)
            ax.locator_params(axis="y", nbins=6)
        for ax in list(axes.flat)[len(units) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("response\n(units of the layer)")
        fig.supxlabel("contrast: RMS distance from the blank (pixel range 0..1)", fontsize=9)
        fig.suptitle(
            f"At the contrast of a real image (dotted), {outside['minimum']} of {len(units)} minima (blue) and "
            f"{outside['maximum']} of {len(units)} maxima (red)\nare outside the responses to real images "
            f"(grey: 90% of them; {title})"
        )
    return fig


def suppressions(found, names: Sequence[str] | None = None, title: str = ""):
    """One column for each unit: the image that activates it, the same switched off, the change, the response.

    Args:
        found: `Suppression`s.
        names: of the units; their addresses by default.
        title: network and layer, for example.

    The dotted line is the response that counts as off. The change is drawn as its mean over colour channels,
    one scale for all: orange is brighter, purple is darker.

    Returns:
        The figure, and the table of what it draws but for the pixels, see `suppression_numbers`.
    """
    names = names or [item.unit.name for item in found]
    changes = [to_numpy(item.change).mean(axis=0) for item in found]
    limit = np.quantile(np.abs(changes), 0.995) or signed_limit(*changes)
    off, largest = sum(item.after <= item.target for item in found), max(item.size for item in found)
    with companion_style():
        edge = min((WIDTH - 0.7) / len(found), 1.7)  # of a picture, inches
        size, ratios = (WIDTH, 3 * edge + 3.5), [edge, edge, edge, 1.1]
        fig, axes = plt.subplots(4, len(found), figsize=size, squeeze=False, height_ratios=ratios)
        for column, (item, name, change) in enumerate(zip(found, names, changes, strict=True)):
            label = f"{wrapped(name, edge)}\n{signed_number(item.before)}"
            show_image(axes[0, column], item.original, label)
            show_image(axes[1, column], item.image, signed_number(item.after))
            drawn = signed_map(axes[2, column], change, limit, BRIGHTNESS)
            axes[2, column].set_title(f"{item.size:.2%}")
            curve = axes[3, column]
            curve.plot(to_numpy(item.trajectory), color="black", linewidth=0.9)
            curve.axhline(0, color=NEUTRAL, linewidth=0.5)
            curve.axhline(item.target, color="black", linewidth=0.8, linestyle=":")
            curve.set_xlabel("step")
            curve.locator_params(nbins=4)
            if column:  # the same scale for all, so that the pictures need no room for its numbers
                curve.sharey(axes[3, 0])
                curve.tick_params(labelleft=False)
        labels = ("before", "after", "change\n(mean size)", "response\n(dotted: off)")
        for ax, word in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(word)
        fig.suptitle(
            f"{off} of {len(found)} units are switched off by a mean change of at most {largest:.2%} "
            f"of the pixel range\n(number above a picture: response; {title})"
        )
        bar = fig.colorbar(drawn, ax=axes, location="bottom", shrink=0.45, aspect=30, pad=0.01)
        bar.ax.locator_params(nbins=5)
        bar.set_label("change of a pixel: darker (purple), brighter (orange); pixel range 0..1")
    return fig, suppression_numbers(found)


def suppression_numbers(found) -> pd.DataFrame:
    """What `suppressions` draws but for the pixels: columns unit, quantity, step, value."""
    rows = []
    for item in found:
        name = item.unit.name
        rows += [(name, "before", 0, item.before), (name, "after", len(item.trajectory), item.after),
                 (name, "mean absolute change", len(item.trajectory), item.size)]  # fmt: skip
        rows += [(name, "trajectory", step, value) for step, value in enumerate(item.trajectory.tolist())]
    return pd.DataFrame(rows, columns=["unit", "quantity", "step", "value"])
