"""`confirm` on planted units: the three decisions, folders, matched controls, and its command line."""

import numpy as np
import pytest
import torch
from helpers.planted_names import NAMES, noise_images, planted_donors, planted_network
from PIL import Image

from absence_utils import InputError, Unit, confirm
from absence_utils.insertion.decisions import CANNOT_TELL, ENCODES, NONE
from absence_utils.naming.confirmation import decide_effects, main, most_similar
from absence_utils.naming.effects import low_level_statistics
from absence_utils.naming.regression import MeanOver


def crops(name, each=16):
    concepts = planted_donors(each)
    return concepts.donors.take(np.flatnonzero(concepts.membership[:, NAMES.index(name)]))


def test_the_cross_silences_its_unit_and_stripes_do_not():
    unit, hosts = Unit(planted_network(), "2", 0), noise_images(40)
    found = confirm(unit, crops("cross"), hosts, controls=crops("stripes"))
    assert found.decision == ENCODES and (found.effects.high < -0.05).all() and found.needed == 0
    assert found.effects.control.tolist() == ["matched crops", "phase-scrambled", "mean colour"]
    assert "encodes an absence" in repr(found) and "16 images" in found.sentence
    assert confirm(unit, crops("stripes"), hosts).decision == NONE


def test_what_lowers_by_its_colour_alone_is_no_concept():
    assert confirm(Unit(planted_network(), "2", 1), crops("red"), noise_images(40)).decision == NONE


def test_a_concept_is_not_lower_than_itself():
    unit = Unit(planted_network(), "2", 0)
    found = confirm(unit, crops("cross"), noise_images(40).images, controls=crops("cross"))
    assert found.decision == NONE and found.effects.effect[0] == 0


def test_decisions_by_hand():
    clear, none, wide = (MeanOver(value, error, 9) for value, error in ((-1, 0.1), (0.0, 0.01), (-0.2, 0.2)))
    assert decide_effects({"a": clear, "b": clear}, 0.05, 10) == (ENCODES, 0)
    assert decide_effects({"a": clear, "b": none}, 0.05, 10) == (NONE, 0)
    decision, needed = decide_effects({"a": clear, "b": wide}, 0.05, 10)
    limit = 1.833113  # of Student's t with 9 degrees of freedom, one-sided 5%
    assert decision == CANNOT_TELL and needed == np.ceil(10 * (limit * 0.2 / 0.15) ** 2)


def test_controls_are_the_most_similar_ones():
    patches = torch.randn(5, 2, 8, 8) + torch.arange(5.0)[:, None, None, None]
    others = torch.cat([patches.flip(0), patches + 50])
    assert most_similar(patches, others).tolist() == [4, 3, 2, 1, 0]
    few = most_similar(patches, others[:2])
    assert sorted(np.bincount(few)) == [2, 3]  # fewer than images: each as seldom as possible
    assert low_level_statistics(patches).shape == (5, 4)


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"concept_images": crops("cross")[:5]}, "concept_images"),
        ({"concept_images": torch.zeros(8, 8)}, "concept_images"),
        ({"hosts": []}, "hosts"),
        ({"hosts": noise_images(2)}, "hosts"),
        ({"edge": 30}, "edge"),
        ({"read": "loud"}, "read"),
        ({"unit": Unit(planted_network(), "2", 2)}, "unit"),
        ({"controls": torch.zeros(8, 3, 8, 8)}, "controls"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, parameter):
    asked = {
        "unit": Unit(planted_network(), "2", 0),
        "concept_images": crops("cross"),
        "hosts": noise_images(20),
    }
    with pytest.raises(InputError) as raised:
        confirm(**asked | change)
    assert raised.value.parameter == parameter and raised.value.remedy


def test_the_figure_shows_every_control(tmp_path):
    found = confirm(Unit(planted_network(), "2", 0), crops("cross"), noise_images(20))
    found.pictures = {
        name: each[:, :1] for name, each in found.pictures.items()
    }  # two channels are no picture
    figure = found.show()
    text = [label.get_text() for ax in figure.subfigs[1].axes for label in ax.get_yticklabels()]
    assert text == found.effects.control.tolist()


def folder(path, count=6):
    """Rings, as a user would have them: pictures cut out of scenes."""
    from absence_utils.images.scenes import NORMALISATION
    from absence_utils.naming import scene_concepts

    glyphs = scene_concepts(40, 1)
    rings = glyphs.donors.take(np.flatnonzero(glyphs.membership[:, 2])[:count])
    (path / "rings").mkdir(parents=True)
    for number, pixels in enumerate(NORMALISATION.undo(rings)):
        Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(path / "rings" / f"{number}.png")
    return str(path)


def test_the_command_line(tmp_path, capsys):
    asked = [
        "--model",
        "concept_scenes",
        "--unit",
        "1",
        "--hosts",
        "concept_scenes",
        "--edge",
        "20",
        "--concept",
    ]
    figure = tmp_path / "ring.png"
    assert main([*asked, folder(tmp_path / "a", 12), "--figure", str(figure)]) == 0
    assert "logits:1 (signed): encodes an absence" in capsys.readouterr().out and figure.is_file()
    assert main([*asked, folder(tmp_path / "b", 3)]) == 1
    assert main([*asked, str(tmp_path / "nowhere")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(line.startswith("error: `concept_images`") for line in errors)
