"""What all figures share: the look, signed maps, images."""

from __future__ import annotations

from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize

SIGNED = "RdBu_r"  # red: presence evidence, blue: absence evidence; distinct for colour-blind readers
PRESENCE, ABSENCE, NEUTRAL = "#b2182b", "#2166ac", "#555555"  # the ends of SIGNED, for lines and frames

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "image.interpolation": "nearest",
}


@contextmanager
def companion_style():
    """Context manager with the companion's look; every plot function draws inside it.

    The first figure of a kernel loads the backend, and Jupyter's one then switches interactive mode on. That must
    outlive the context: without it no later figure of the notebook is shown.
    """
    with plt.rc_context(STYLE):
        yield
        interactive = plt.isinteractive()
    plt.rcParams["interactive"] = interactive


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
