"""What the sliders of notebooks 01-03 show: each function draws one position into the figure it is given."""

from __future__ import annotations

from matplotlib.patches import Circle

from .base import ABSENCE, NEUTRAL, PRESENCE, show_image, to_numpy

MARK = "#e69f00"  # orange of Okabe and Ito's palette, as in plots.toys


def motion_position(fig, pairs, responses, steps, *, step) -> None:
    """Both frames above, the signed response of both units to every step below, this step marked.

    Args:
        fig: Figure or SubFigure.
        pairs: [step, frame=2, height, width].
        responses: [step, unit=2], signed.
        steps: [step] columns that the bar moves.
        step: the one that is drawn.
    """
    k, responses = list(steps).index(step), to_numpy(responses)
    grid = fig.add_gridspec(2, 2, height_ratios=[1, 1.3])
    for frame in range(2):
        ax = fig.add_subplot(grid[0, frame])
        show_image(ax, pairs[k][frame][None], f"frame {frame + 1}")
        ax.spines[:].set_visible(True)
    ax = fig.add_subplot(grid[1, :])
    for unit, (colour, marker) in enumerate(((PRESENCE, "o"), (NEUTRAL, "s"))):
        ax.plot(
            steps, responses[:, unit], color=colour, marker=marker, markersize=3, lw=1, label=f"unit {unit}"
        )
        ax.plot(
            step, responses[k, unit], color=colour, marker=marker, markersize=9, markeredgecolor=MARK, mew=2
        )
    _zero_line(ax)
    ax.set(xlabel="columns from frame 1 to frame 2", ylabel="response, signed", xticks=list(steps))
    signed_step = f"{step:+d}" if step else "0"
    ax.set_title(
        f"step {signed_step}; unit 0: {responses[k, 0]:+.4f}, unit 1: {responses[k, 1]:+.4f}", fontsize=8
    )
    ax.legend(frameon=False, loc="lower right", fontsize=7.5)


def green_position(fig, images, responses, greens, reds, names, *, green, red) -> None:
    """The image with its painted pixel, and both responses against the amount of green.

    Args:
        images: [green, red, rgb, height, width].
        responses: [green, red, class], signed.
        greens, reds: amounts in 0..1.
        names: [class].
        green, red: the mixture that is drawn.
    """
    k, m = list(greens).index(green), list(reds).index(red)
    top, below = fig.subplots(2, 1, height_ratios=[1, 1.1])
    show_image(top, images[k][m], f"pixel: green {green:g}, red {red:g}")
    height, width = images.shape[-2:]
    top.add_patch(Circle((width // 2, height // 2), 2.2, fill=False, edgecolor=MARK, linewidth=1.5))
    curves = to_numpy(responses)[:, m]
    for label, (name, colour) in enumerate(zip(names, (NEUTRAL, ABSENCE), strict=True)):
        below.plot(greens, curves[:, label], color=colour, lw=1.5, label=f"{name!r}")
        below.plot(
            green, curves[k, label], color=colour, marker="o", markersize=9, markeredgecolor=MARK, mew=2
        )
    _zero_line(below)
    below.set(xlabel="green of the ringed pixel", ylabel="response, signed")
    below.set_title(f"seen as {names[int(curves[k].argmax())]!r}")
    below.margins(y=0.25)  # for the legend, between the lines where they are apart
    below.legend(frameon=False, fontsize=7.5, loc="upper center")


def release_position(fig, images, responses, shares, unit: int, source: int, *, share, example) -> None:
    """The image with a share of its strokes removed, and the response of every class.

    Args:
        images: [share, image, 1, height, width].
        responses: [share, image, class], signed.
        shares: of the stroke pixels.
        unit, source: the class whose map chose the pixels, and the class of the images.
        share, example: the position that is drawn.
    """
    k, responses = list(shares).index(share), to_numpy(responses)
    now = responses[k, example]
    top, below = fig.subplots(2, 1, height_ratios=[1, 1])
    show_image(top, images[k][example], f"{share:.0%} removed: seen as {int(now.argmax())}")
    colours = [{unit: PRESENCE, source: ABSENCE}.get(label, "0.7") for label in range(len(now))]
    below.bar(range(len(now)), now, color=colours)
    _zero_line(below)
    every = responses[:, example]
    below.set(
        xlabel=f"class (red: {unit}, blue: {source})",
        ylabel="response, signed",
        xticks=range(len(now)),
        ylim=(1.05 * min(every.min(), 0), 1.05 * every.max()),
    )


def _zero_line(ax) -> None:
    ax.axhline(0, color="0.6", linewidth=0.8)
