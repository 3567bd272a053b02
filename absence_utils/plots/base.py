"""What all figures share: the look and the width, signed maps, images, points with intervals."""

from __future__ import annotations

import textwrap

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize

SIGNED = "RdBu_r"  # red: presence evidence, blue: absence evidence; distinct for colour-blind readers
BRIGHTNESS = "PuOr_r"  # of changed pixels: orange is brighter, purple darker; red and blue are for evidence
PRESENCE, ABSENCE, NEUTRAL = "#b2182b", "#2166ac", "#555555"  # the ends of SIGNED, for lines and frames
MARK = "#e69f00"  # orange of Okabe and Ito's palette: neither end of the signed map
ORANGE = "#e08214"  # for what is compared with the black or blue
CHARACTERS = 15  # of 9 pt in an inch, on average
WIDTH = 7.5  # inches: every figure is drawn for a page of this width, so that its text has the size it says

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "image.interpolation": "nearest",
}


def companion_style():
    """Context manager with the companion's look; every plot function draws inside it."""
    # Loads the backend. Inside the context the notebook's backend would switch to interactive drawing, leaving would
    # switch it off again, and a notebook would show its first figure only.
    plt.draw_if_interactive()
    return plt.rc_context(STYLE)


def drawn_once(figure):
    """The figure, for functions whose result is looked at: a notebook draws it as the value of its cell.

    Without this the notebook's backend would draw it a second time at the end of the cell. In a loop write
    `display(...)` around the call.
    """
    if "inline" in matplotlib.get_backend():
        plt.close(figure)
    return figure


def to_numpy(values) -> np.ndarray:
    """Array from a tensor on any device, with or without gradient, or from anything array-like."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def signed_limit(*maps) -> float:
    """Largest magnitude over all maps, the limit that makes their colours comparable; never 0."""
    largest = max(float(np.abs(to_numpy(values)).max(initial=0.0)) for values in maps)
    return largest or 1.0


def signed_map(ax, values, limit: float | None = None, cmap: str = SIGNED):
    """Draw a signed map [height, width], white at 0, the same scale on both sides.

    Args:
        limit: value at full colour; the map's largest magnitude by default. Pass one limit to compare maps.

    Returns:
        The image, for a colour bar.
    """
    values = to_numpy(values)
    limit = limit or signed_limit(values)
    image = ax.imshow(values, cmap=cmap, norm=Normalize(-limit, limit))
    bare(ax)
    return image


def show_image(ax, pixels, title: str = "") -> None:
    """Draw pixels [channel, height, width] in 0..1; one channel is drawn in grey."""
    pixels = to_numpy(pixels)
    if pixels.shape[0] == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(np.clip(pixels.transpose(1, 2, 0), 0, 1))
    bare(ax)
    ax.set_title(title)


def bare(ax) -> None:
    """No ticks and no frame: pixel coordinates say nothing here."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def frame_axes(ax) -> None:
    """A thin grey frame, so that a white map has an edge."""
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.6")


def zero_line(ax) -> None:
    """A thin line at y = 0."""
    ax.axhline(0, color="0.6", linewidth=0.8)


def interval_points(ax, value, at, low, high, *, vertical: bool = False, **look):
    """Points with their intervals: along x at the heights `at`, or along y if `vertical`. NaN limits leave the point.

    Returns:
        The container of `errorbar`, whose options `look` are.
    """
    value, low, high = (np.atleast_1d(np.asarray(each, float)) for each in (value, low, high))
    error = np.nan_to_num(np.stack([value - low, high - value])).clip(0)
    look = {"fmt": "o", "markersize": 4, "linewidth": 1.2} | look
    if vertical:
        return ax.errorbar(at, value, yerr=error, **look)
    return ax.errorbar(value, at, xerr=error, **look)


def name_rows(ax, names, **text) -> None:
    """Names at the heights 0, 1, ... from the top."""
    ax.set_yticks(range(len(names)), names, **text)
    ax.set_ylim(len(names) - 0.4, -0.6)


def legend_below(fig, ax, ncols: int, **more) -> None:
    """What is drawn in `ax`, as a legend below all axes of the figure: above them stands the title."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=ncols, frameon=False, **more)


def signed_number(value: float) -> str:
    """Three digits or all before the point, with a sign that can be seen: "+12.0", "−0.0450", "−2,604"."""
    text = f"{value:+,.0f}" if abs(value) >= 999.5 else f"{value:+#.3g}".rstrip(".")
    return text.replace("-", "−")


def wrapped(text: str, inches: float, lines: int = 4) -> str:
    """Text in 9 pt broken into lines of so many inches, shortened to `lines` of them; its own breaks stay."""
    across = max(1, int(CHARACTERS * inches))
    parts = [part for line in text.split("\n") for part in textwrap.wrap(line, across) or [""]]
    return "\n".join(
        parts if len(parts) <= lines else [*parts[: lines - 1], f"{parts[lines - 1][: across - 2]} …"]
    )


def fixed_number(value: float, digits: int, plus: bool = False) -> str:
    """With so many digits behind the point and a minus that can be seen: "0.06", "−1.5"; "+0.06" if `plus`."""
    return f"{value:{'+' * plus}.{digits}f}".replace("-", "−")
