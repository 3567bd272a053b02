"""The pictures at the top of the exercises, static/exercise_NN.png: what their tasks draw once they are solved.

    python data/make_exercise_pictures.py        two minutes of one core

The cells of each exercise run in this process with the solutions that ship, up to the last one whose figure is shown.
No picture holds an answer that a check asks for.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from manifest import entry_of, write_entry  # noqa: E402
from PIL import Image  # noqa: E402

from absence_utils.paths import NOTEBOOKS, ROOT  # noqa: E402
from absence_utils.runner.run import find_notebook, read_notebook  # noqa: E402

EXERCISES = NOTEBOOKS / "exercises"
sys.path.insert(0, str(EXERCISES))
from solve import insert_solutions, solutions_of  # noqa: E402

# exercise -> cell whose figure is shown -> what stands above it
SHOWN = {
    "01": {
        "give-rectified": "Task 5, read after a ReLU: the five lowest patches",
        "show-repaired": "Task 6, read before it: the five lowest patches",
    },
    "02": {"give-unsigned": "Task 4: without a sign", "show-signed": "Task 5: with its sign"},
    "03": {"show-control": "Task 3: treatment and control"},
    "04": {"show-lowest": "Task 1: your minimum", "give-name": "Task 5: three minima, which concept?"},
    "07": {"give-places": "Task 3: is this a fair comparison?"},
    "09": {"give-predict": "Task 1: what carries each answer?"},
}
DPI = 130
GAP = 12  # px between two figures
COMMAND = "python data/make_exercise_pictures.py"


def figures_of(number: str) -> list[Image.Image]:
    """The figures of an exercise's cells, in their order, each under its line of `SHOWN`."""
    path, wanted, found = find_notebook(number, EXERCISES), SHOWN[number], []
    space = {"__name__": "exercise"}
    for cell in insert_solutions(read_notebook(path), solutions_of(path)).cells:
        if cell.cell_type != "code" or len(found) == len(wanted):
            continue
        exec(cell.source, space)
        if cell.id in wanted:
            figure, file = plt.gcf(), io.BytesIO()
            figure.suptitle(wanted[cell.id], fontsize=11, fontweight="bold")
            figure.savefig(file, dpi=DPI, metadata={"Software": None})
            found.append(Image.open(file).convert("RGB"))
        plt.close("all")
    return found


def stacked(figures: list[Image.Image]) -> Image.Image:
    """Figures below each other, each in the middle of the widest."""
    width = max(figure.width for figure in figures)
    height = sum(figure.height for figure in figures) + GAP * (len(figures) - 1)
    whole, top = Image.new("RGB", (width, height), "white"), 0
    for figure in figures:
        whole.paste(figure, ((width - figure.width) // 2, top))
        top += figure.height + GAP
    return whole


def main() -> None:
    torch.set_num_threads(1)
    os.environ.update(TQDM_DISABLE="1", ABSENCE_PROFILE="exercise")
    for number, cells in SHOWN.items():
        path = ROOT / "static" / f"exercise_{number}.png"
        stacked(figures_of(number)).save(path, optimize=True)
        facts = {"reference": "none: no table is drawn, the checks recompute the answers", "cells": [*cells]}
        origin = f"drawn by this project: exercise {find_notebook(number, EXERCISES).stem}, solved"
        write_entry(Path(ROOT, "static", "manifest.json"), entry_of(path, origin, COMMAND, facts))
        print(path.relative_to(ROOT), path.stat().st_size)


if __name__ == "__main__":
    main()
