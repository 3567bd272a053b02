"""Five slides for the opening and the end of a class, static/slides.pdf: `python data/make_slides.py` (a minute).

Every picture is made here from networks and images of this project; numbers are computed here, or read from the tables
of data/reference. `--png FOLDER` writes each slide as a picture, too, to look at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from manifest import entry_of, write_entry  # noqa: E402
from matplotlib.backends.backend_pdf import PdfPages  # noqa: E402

from absence_utils import Unit, attribute, load_model  # noqa: E402
from absence_utils.attribution import remove_strokes  # noqa: E402
from absence_utils.images import RULES  # noqa: E402
from absence_utils.images.digits import digits  # noqa: E402
from absence_utils.models import fit, predict  # noqa: E402
from absence_utils.paths import ROOT  # noqa: E402
from absence_utils.plots.base import (  # noqa: E402
    ABSENCE,
    MARK,
    PRESENCE,
    frame_axes,
    show_image,
    signed_map,
    signed_number,
)
from absence_utils.toys import DigitsNet, MotionDetector  # noqa: E402
from absence_utils.visualization import render_pairs  # noqa: E402

SLIDES = ROOT / "static" / "slides.pdf"
REFERENCE = ROOT / "data" / "reference"
COMMAND = "python data/make_slides.py"
SIZE = (40 / 3, 7.5)  # inches, 16:9
LOOK = {
    "font.size": 20,
    "axes.titlesize": 20,
    "axes.labelsize": 20,
    "xtick.labelsize": 20,
    "ytick.labelsize": 20,
    "legend.fontsize": 20,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
}
SHARE = 0.24  # of an 8's stroke pixels, as exercise 03
BOX = """\
maps = attribute(unit, non_target_images)
minimum = minimise(absence(unit), unit)"""


def slide(number: int, title: str, below: str = ""):
    """An empty slide with its title, a line at the foot and its number."""
    fig = plt.figure(figsize=SIZE)
    fig.text(0.05, 0.93, title, fontsize=32, fontweight="bold", va="top", linespacing=1.15)
    fig.text(0.05, 0.06, below, fontsize=22, va="bottom", linespacing=1.3)
    fig.text(0.95, 0.025, f"{number} / 5", fontsize=16, color="0.4", ha="right", va="bottom")
    return fig


def picture(fig, at, title: str = "", under: str = "", colour: str = "black"):
    """Axes for a picture at (left, bottom, width, height) of the slide, a line above it and one below."""
    ax = fig.add_axes(at)
    ax.set_title(title, pad=10)
    ax.set_xlabel(under, labelpad=10, fontsize=24, color=colour, fontweight="bold")
    return ax


def the_question():
    """An alarm that sounds when nothing is pressed, as two rows over time."""
    fig = slide(
        1,
        "An alarm that sounds when nothing is pressed",
        "Whoever studies only the moments when it sounds finds nothing in common.\n"
        "A neuron can be such an alarm. Which explanation would find the pedal?",
    )
    ax = fig.add_axes((0.23, 0.33, 0.71, 0.42))
    pressed = [(0, 14), (20, 12), (41, 21), (70, 30)]  # seconds: start, length
    ends = [start + length for start, length in pressed]
    silent = [(end, start - end) for end, (start, _) in zip(ends, pressed[1:], strict=False)]
    ax.broken_barh(pressed, (1.15, 0.7), color="0.6")
    ax.broken_barh(silent, (0.15, 0.7), color=MARK)
    ax.set_yticks([1.5, 0.5], ["pedal pressed", "alarm sounds"])
    ax.tick_params(axis="y", length=0, labelsize=24)
    ax.set(xlim=(0, 100), ylim=(0, 2), xlabel="seconds of a train's journey")
    ax.spines["left"].set_visible(False)
    return fig


def the_motion_detector():
    """Unit 0 of the detector on three motions: response before and after a ReLU."""
    motions = {"left to right": (2, 3), "standing": (2, 2), "right to left": (3, 2)}
    detector, responses = MotionDetector(), {}
    pairs = {name: torch.zeros(1, 2, 6, 6) for name in motions}
    for name, columns in motions.items():
        for frame, column in enumerate(columns):
            pairs[name][0, frame, :, column] = 1
        responses[name] = detector(pairs[name])[0, 0].item()
    low = min(responses, key=responses.get)
    fig = slide(
        2,
        f"A motion detector encodes\nthe absence of “{low}”",
        f"After a ReLU, “standing” and “{low}” are the same 0:\nread a unit before its nonlinearity.",
    )
    for index, (name, response) in enumerate(responses.items()):
        left = 0.06 + 0.31 * index
        colour = PRESENCE if response > 0 else ABSENCE if response < 0 else "0.35"
        fig.text(left + 0.135, 0.745, name, fontsize=24, ha="center", va="center")
        for frame in range(2):
            at = (left + 0.14 * frame, 0.45, 0.13, 0.13 * 16 / 9)
            ax = picture(fig, at, under=f"frame {frame + 1}")
            show_image(ax, pairs[name][0, frame][None])
            frame_axes(ax)
            ax.xaxis.label.set(fontsize=18, fontweight="normal", color="0.35")
        fig.text(left + 0.135, 0.305, f"response {signed_number(response) if response else 0}",
                 fontsize=26, fontweight="bold", ha="center", color=colour)  # fmt: skip
        fig.text(left + 0.135, 0.24, f"after a ReLU {max(response, 0):.3g}",
                 fontsize=22, ha="center", color="0.35")  # fmt: skip
    return fig, {"responses of unit 0": {name: round(value, 4) for name, value in responses.items()}}


def trained_digits():
    """The network of exercise 03 and the held-out 8s."""
    train, test = digits("train"), digits("test")
    network = DigitsNet(seed=0)
    fit(network, train.images, train.labels, epochs=15, lr=0.02, seed=0)
    return network.requires_grad_(False), test.images[test.labels == 8]


def the_two_extensions(network, eights):
    """The two lines of code, each with a picture that it makes."""
    unit = list(RULES).index("not ring")
    scenes = load_model("concept_scenes").requires_grad_(False)
    (pair,) = render_pairs([Unit(scenes, "logits", unit)], 192, 64, seed=0, smoothness=4.0)
    fig = slide(3, "Two small extensions, two lines of code")
    fig.text(0.05, 0.8, "Whatever pulls a unit down is a concept whose absence it encodes.", fontsize=24)
    box = {"boxstyle": "round,pad=0.6", "facecolor": "0.95", "edgecolor": "0.7"}
    fig.text(0.065, 0.675, BOX, family="monospace", fontsize=24, va="center", linespacing=1.6, bbox=box)
    rows = (
        ("1  Attribute on non-target images:\n    in an 8, blue speaks against a 3.", 0.05),
        ("2  Minimise instead of maximise:\n    rings lower the unit “not ring”.", 0.52),
    )
    for words, left in rows:
        fig.text(left, 0.55, words, fontsize=22, va="top", linespacing=1.25)
    edge = 0.17
    eight = attribute(Unit(network, channel=3), eights[:1])[0, 0]
    ax = picture(fig, (0.06, 0.08, edge, edge * 16 / 9), "an 8")
    show_image(ax, eights[0], "an 8")
    ax = picture(fig, (0.27, 0.08, edge, edge * 16 / 9))
    signed_map(ax, eight)
    ax.set_title("its map for “3”")
    frame_axes(ax)
    for left, side, name in ((0.53, pair.highest, "maximum"), (0.74, pair.lowest, "minimum")):
        ax = picture(fig, (left, 0.08, edge, edge * 16 / 9))
        show_image(ax, side.image[0], name)
    facts = {"responses of 'not ring', maximum and minimum": [
        round(float(side.response[0]), 2) for side in (pair.highest, pair.lowest)
    ]}  # fmt: skip
    return fig, facts


def an_8_becomes_a_3(network, eights):
    """One 8, its map, and both treatments; the shares are those of the reference."""
    table = pd.read_csv(REFERENCE / "03_removal.csv").set_index(["treatment", "share"]).rate
    rates = {name: float(table[name, SHARE]) for name in ("most negative", "random")}
    treated = remove_strokes(network, eights, unit=3, share=SHARE)
    seen = {name: predict(network, treated[name]).argmax(1) for name in rates}
    before = predict(network, eights).argmax(1)
    # The first 8 that behaves as most do; the shares on the slide are those of all of them.
    (kept,) = torch.where((before == 8) & (seen["most negative"] == 3) & (seen["random"] == 8))
    k = int(kept[0])
    fig = slide(
        4,
        "A 3 is an 8 with its left strokes missing",
        f"Of the held-out 8s, {rates['most negative']:.0%} become a 3 "
        f"when their most negative\n"
        f"stroke pixels ({SHARE:.0%}) go, and {rates['random']:.0%} when as many random ones go.",
    )
    shown = [
        ("an 8", eights[k], f"seen as {before[k]}", "black"),
        ("map for “3”", None, "blue: against", ABSENCE),
        ("blue removed", treated["most negative"][k], f"seen as {seen['most negative'][k]}", ABSENCE),
        ("random removed", treated["random"][k], f"seen as {seen['random'][k]}", "0.35"),
    ]
    edge = 0.2
    for index, (title, image, under, colour) in enumerate(shown):
        ax = picture(fig, (0.05 + 0.235 * index, 0.37, edge, edge * 16 / 9), "", under, colour)
        if image is None:
            signed_map(ax, attribute(Unit(network, channel=3), eights[k : k + 1])[0, 0])
            frame_axes(ax)
        else:
            show_image(ax, image)
        ax.set_title(title, pad=10, fontsize=22)
    return fig, {"rates of turning into a 3": rates, "share removed": SHARE, "8 shown": k}


def candidates_are_not_proofs():
    """Units flagged by the published test and by the veto score, on units whose answer is known."""
    table = pd.read_csv(REFERENCE / "07_verdicts.csv")
    kinds = {"additive units": "inhibit nothing", "veto units": "are vetoes"}
    tests = {"published": ("published test", MARK), "vetoed": ("veto score, with controls", "black")}
    flagged = table[table.network.isin(kinds)].astype({"vetoed": float})
    flagged = 100 * flagged.groupby("network")[list(tests)].mean()
    counts = table.network.value_counts()
    fig = slide(
        5,
        f"Candidates are not proofs. Without controls\n"
        f"a test flags {flagged.published['additive units']:.0f}% of units that inhibit nothing",
        "A map and a minimum propose. Put the concept in, compare with a control,\n"
        "and ask so that the answer can be “no”.",
    )
    ax = fig.add_axes((0.22, 0.36, 0.72, 0.32))
    for offset, (column, (name, colour)) in enumerate(tests.items()):
        places = [row + 0.36 * offset for row in range(len(kinds))]
        bars = ax.barh(places, [flagged[column][kind] for kind in kinds], 0.32, color=colour, label=name)
        ax.bar_label(bars, [f"{flagged[column][kind]:.0f}%" for kind in kinds], padding=8, fontsize=22)
    ax.set_yticks(
        [row + 0.18 for row in range(len(kinds))],
        [f"{counts[kind]} units\n{words}" for kind, words in kinds.items()],
    )
    ax.set(xlim=(0, 108), xticks=[0, 50, 100], xlabel="units flagged (%)")
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    fig.legend(*ax.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.21, 0.775), ncols=2,
               frameon=False, columnspacing=1.5)  # fmt: skip
    return fig, {"units flagged in percent": flagged.round(2).to_dict()}


def all_slides() -> tuple[list, dict]:
    """The figures of the five slides, in order, and what was measured for them."""
    network, eights = trained_digits()
    facts = {"reference": "none: the tables it reads are in its facts", "pages": 5}
    figures = [the_question()]
    for figure, found in (
        the_motion_detector(),
        the_two_extensions(network, eights),
        an_8_becomes_a_3(network, eights),
        candidates_are_not_proofs(),
    ):
        figures.append(figure)
        facts |= found
    return figures, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--png", type=Path, help="folder for a picture of each slide")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with plt.rc_context(LOOK):
        figures, facts = all_slides()
        metadata = {"Title": "What is missing? Five slides", "CreationDate": None, "Producer": None}
        with PdfPages(SLIDES, metadata=metadata) as pdf:
            for number, figure in enumerate(figures, 1):
                pdf.savefig(figure)
                if given.png:
                    given.png.mkdir(parents=True, exist_ok=True)
                    figure.savefig(given.png / f"slide_{number}.png", dpi=100)
    write_entry(ROOT / "static" / "manifest.json", entry_of(SLIDES, "drawn by this project", COMMAND, facts))
    print(SLIDES.relative_to(ROOT), SLIDES.stat().st_size, facts)


if __name__ == "__main__":
    main()
