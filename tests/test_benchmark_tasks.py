"""What a method sees: windows by loops, responses, and that nothing is computed twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.benchmark_units import bright_task

from absence_utils.benchmark.methods import METHODS
from absence_utils.benchmark.tasks import WINDOW, square_around
from absence_utils.errors import InputError
from absence_utils.images.scenes import NORMALISATION
from absence_utils.models.concept_net import ConceptNet


@pytest.fixture(scope="module")
def subject():
    return bright_task(64, images_for_maps=8)


def test_responses_are_means_of_red_and_their_spread(subject):
    red = NORMALISATION.apply(subject.scenes.pixels)[:, 0].double().mean(dim=(1, 2))
    torch.testing.assert_close(subject.response, torch.stack((red, -red), dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(subject.spread, red.std().expand(2), rtol=1e-5, atol=1e-6)
    assert subject.response.dtype == torch.float64 and subject.concepts == subject.world.names


def test_only_the_chosen_units_are_read(subject):
    other = replace(subject, units=[1], memory={})
    torch.testing.assert_close(other.read(subject.images[:4])[:, 0], subject.response[:4, 1])
    assert other.unit(0).channel == 1


def test_a_unit_that_never_changes_has_no_zero_spread():
    task = bright_task(8)
    with torch.no_grad():
        task.model.block4.weight.zero_()
    task.__dict__.pop("response"), task.__dict__.pop("spread", None)
    assert (task.spread > 0).all()


def test_half_of_the_windows_lie_around_a_concept_and_show_it(subject):
    windows, masks = subject.windows, subject.scenes.masks[:8]
    shown = [(s, c) for s in range(8) for c in range(7) if masks[s, c].any()]
    assert len(windows) == 2 * len(shown)
    for number, (scene, concept) in enumerate(shown):
        assert windows.scene[number] == windows.scene[number + len(shown)] == scene
        assert windows.shows[number, concept]
        rows, columns = np.nonzero(masks[scene, concept].numpy())
        top, left = windows.corner[number].tolist()
        assert top <= rows.min() and rows.max() < top + WINDOW
        assert left <= columns.min() and columns.max() < left + WINDOW


def test_a_window_shows_a_concept_if_more_than_half_of_its_pixels_are_inside(subject):
    windows, masks = subject.windows, subject.scenes.masks
    assert 0 <= windows.corner.min() and windows.corner.max() == 64 - WINDOW  # both borders are within reach
    partly = 0
    for number in range(len(windows)):
        scene, (top, left) = int(windows.scene[number]), windows.corner[number].tolist()
        for concept in range(7):
            whole = masks[scene, concept].sum().item()
            inside = sum(
                bool(masks[scene, concept, row, column])
                for row in range(top, top + WINDOW) for column in range(left, left + WINDOW)
            ) if whole else 0  # fmt: skip
            assert bool(windows.shows[number, concept]) == (whole > 0 and inside > whole / 2)
            partly += 0 < inside < whole
    assert partly > 20, "both cases are among them"


def test_windows_are_cut_where_they_lie(subject):
    cut = subject.windows.cut(subject.images)
    for number in (0, len(cut) - 1):
        scene, (top, left) = int(subject.windows.scene[number]), subject.windows.corner[number].tolist()
        assert torch.equal(cut[number], subject.images[scene, :, top : top + WINDOW, left : left + WINDOW])
    assert torch.equal(subject.windows.cut(subject.images[:, 0]), cut[:, 0])


def test_other_seeds_give_other_windows_anywhere_and_the_same_around_concepts(subject):
    other = bright_task(64, images_for_maps=8, seed=1).windows
    half = len(other) // 2
    assert torch.equal(other.corner[:half], subject.windows.corner[:half])
    assert not torch.equal(other.corner[half:], subject.windows.corner[half:])


@pytest.mark.parametrize(
    ("rows", "columns", "corner"),
    [((20, 29), (30, 39), (13, 23)), ((0, 5), (58, 64), (0, 40)), ((10, 34), (10, 34), (10, 10))],
)
def test_the_square_around_a_mask_stays_inside(rows, columns, corner):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    assert square_around(mask) == corner


def test_maps_are_drawn_once_for_each_function_on_the_first_scenes(subject):
    calls = []

    def method(task, images):
        calls.append(len(images))
        return torch.ones(2, len(images), 64, 64)

    first, again = subject.maps(method), subject.maps(method)
    assert calls == [8] and first is again and first.dtype == torch.float64
    assert subject.maps(lambda task, images: torch.zeros(2, 8, 64, 64)).sum() == 0


def test_a_unit_that_is_dead_on_noise_has_no_synthesised_image(subject):
    class Dead(torch.nn.Module):
        def forward(self, images):
            red = images[:, 0].mean(dim=(1, 2))
            return torch.stack((red, 0 * red), dim=1)

    task = replace(subject, model=Dead().eval(), detector=ConceptNet(7).eval(), steps=1, memory={})
    assert [pair is None for pair in task.pairs] == [False, True]
    found = METHODS["minimisation"].concepts(task)
    assert found.isnan().all(dim=1).tolist() == [False, True] and not found[0].isnan().any()


def test_bad_settings_of_synthesis_are_still_refused(subject):
    with pytest.raises(InputError, match="steps"):
        _ = replace(subject, steps=0, memory={}).pairs
