"""The five slides: five wide pages, small, and with the numbers of the reference as it is."""

import json
import re

import make_slides
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from absence_utils.paths import ROOT

PDF = make_slides.SLIDES.read_bytes()
(ENTRY,) = [
    entry
    for entry in json.loads((ROOT / "static" / "manifest.json").read_text())["files"]
    if entry["path"] == "static/slides.pdf"
]


def test_five_pages_of_16_to_9_in_less_than_a_megabyte():
    boxes = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", PDF)
    assert len(re.findall(rb"/Type /Page\b", PDF)) == len(boxes) == ENTRY["facts"]["pages"] == 5
    assert all(abs(float(width) / float(height) - 16 / 9) < 1e-3 for width, height in boxes)
    assert len(PDF) < 1_000_000


def test_numbers_on_the_slides_are_those_of_the_reference():
    """Rounded as the slides show them: run data/make_slides.py when one of them moved."""
    facts, share = ENTRY["facts"], make_slides.SHARE
    removal = pd.read_csv(make_slides.REFERENCE / "03_removal.csv").set_index(["treatment", "share"]).rate
    for name, rate in facts["rates of turning into a 3"].items():
        assert f"{rate:.0%}" == f"{removal[name, share]:.0%}"
    verdicts = pd.read_csv(make_slides.REFERENCE / "07_verdicts.csv")
    for column, kinds in facts["units flagged in percent"].items():
        for kind, percent in kinds.items():
            assert (
                f"{percent:.0f}"
                == f"{100 * verdicts[verdicts.network == kind][column].astype(float).mean():.0f}"
            )


@pytest.mark.slow
def test_text_is_large_and_inside_the_slide():
    with plt.rc_context(make_slides.LOOK):
        figures, facts = make_slides.all_slides()
        assert facts["8 shown"] == ENTRY["facts"]["8 shown"]
        for number, figure in enumerate(figures, 1):
            figure.canvas.draw()
            texts = [
                text for text in figure.findobj(plt.Text) if text.get_text().strip() and text.get_visible()
            ]
            assert len(texts) > 3 and min(text.get_fontsize() for text in texts) >= 16
            for text in texts:
                box = text.get_window_extent()
                inside = (
                    box.x0 >= 0
                    and box.y0 >= 0
                    and box.x1 <= figure.bbox.width
                    and box.y1 <= figure.bbox.height
                )
                assert inside, f"slide {number}: {text.get_text()}"
            plt.close(figure)


def test_the_box_is_code_of_the_package():
    """The two lines name functions that the package has."""
    import absence_utils

    names = set(re.findall(r"(\w+)\(", make_slides.BOX))
    assert names == {"attribute", "minimise", "absence"}
    assert {name for name in names if not hasattr(absence_utils, name)} <= {"minimise", "absence"}
    from absence_utils.visualization import absence, minimise

    assert callable(absence) and callable(minimise)
