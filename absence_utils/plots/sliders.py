"""Sliders where there is a front end, and a picture of a few of their positions where there is none."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from io import BytesIO

import matplotlib.pyplot as plt

from absence_utils.errors import InputError

from .base import WIDTH, companion_style


def has_front_end() -> bool:
    """Whether somebody sits before this kernel who can move a slider.

    Front ends (JupyterLab, notebook, VS Code) let a cell ask for input; papermill, nbclient and nbconvert do not. The
    strict runner sets ABSENCE_PROFILE besides.
    """
    if os.environ.get("ABSENCE_PROFILE"):
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def sliders(
    draw: Callable, *fixed, positions: int | Sequence = 3, height: float = 3.2, **ranges: Sequence
) -> None:
    """Show what `draw` draws, with a slider for each range; without a front end, a few positions side by side.

    What is saved is one output that holds the widget and the picture, and the picture alone in a headless run: an
    executed notebook and a site made of it have no widget that waits for a kernel.

    Args:
        draw: called as draw(figure, *fixed, **values); draws into a Figure or a SubFigure, returns nothing.
        fixed: networks, images and whatever else does not move.
        positions: values of the first range that the picture shows, or how many, evenly spread; the others stay at
            their first value.
        height: of the picture in inches.
        ranges: name -> values of that slider, in order. The first starts in the middle, the others at their first.

    Raises:
        InputError: no range, an empty one, no position, or one that the first slider does not have.
    """
    if not ranges or not all(len(values) for values in ranges.values()):
        problem = "a slider without values"
        raise InputError("ranges", problem, "Give name=[value, ...] with one value or more.")
    first, *others = ranges
    shown, rest = _shown(ranges[first], positions), {name: ranges[name][0] for name in others}
    with companion_style():
        still = plt.figure(
            figsize=(WIDTH, height)
        )  # stays open, so that a kernel shows it at the end of the cell
        for part, value in zip(still.subfigures(1, len(shown), squeeze=False)[0], shown, strict=True):
            draw(part, *fixed, **{first: value}, **rest)
    if has_front_end():
        png = BytesIO()
        still.savefig(png, format="png", metadata={"Software": None})
        plt.close(still)
        _display_live(draw, fixed, (WIDTH / 2, height), ranges, png.getvalue())


def _shown(values: Sequence, positions: int | Sequence) -> list:
    """The values of the first slider that the picture shows."""
    if isinstance(positions, int):
        count = min(positions, len(values))
        positions = [values[round(k * (len(values) - 1) / max(count - 1, 1))] for k in range(count)]
    strange = [value for value in positions if value not in values]
    if strange or not len(positions):
        problem = f"the first slider has no {strange[0]!r}" if strange else "no position to show"
        raise InputError("positions", problem, f"Use some of {', '.join(map(str, values))}, or how many.")
    return list(positions)


def _display_live(draw, fixed, size, ranges, png: bytes) -> None:
    import ipywidgets
    from IPython.display import display

    def redraw(**values):
        with companion_style():
            fig = plt.figure(figsize=size)
            draw(fig, *fixed, **values)
        display(fig)
        plt.close(fig)

    controls = {
        name: ipywidgets.SelectionSlider(
            options=[(f"{value:g}" if isinstance(value, float) else str(value), value) for value in values],
            value=values[len(values) // 2 if name == next(iter(ranges)) else 0],
            description=name.replace("_", " "),
        )
        for name, values in ranges.items()
    }
    box = ipywidgets.VBox([*controls.values(), ipywidgets.interactive_output(redraw, controls)])
    bundle = box._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle  # with or without metadata
    display({**bundle, "image/png": base64.b64encode(png).decode()}, raw=True)
