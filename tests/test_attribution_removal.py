"""Removing pixels, on planted networks with a known answer and on digits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from absence_utils.attribution.evidence import absence_evidence
from absence_utils.attribution.methods import attribute
from absence_utils.attribution.removal import (
    TREATMENTS,
    removal_scores,
    removal_table,
    remove_pixels,
    remove_strokes,
)
from absence_utils.errors import InputError
from absence_utils.images.digits import digits
from absence_utils.models.training import accuracy, fit
from absence_utils.toys.digits import DigitsNet
from absence_utils.units import Unit


@given(st.integers(0, 2**31), st.integers(0, 25))
@settings(max_examples=30, deadline=None)
def test_removal_follows_its_definition(seed, count):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 2, 4, 5, generator=generator) + 0.1
    score = torch.randint(-3, 3, (3, 4, 5), generator=generator).float()  # with ties
    among = torch.rand(3, 4, 5, generator=generator) < 0.7
    result = remove_pixels(images, score, count, among=among, background=-1.0)
    for image, values, allowed, after in zip(images, score, among, result, strict=True):
        places = [(float(values[y, x]), y, x) for y in range(4) for x in range(5) if allowed[y, x]]
        gone = {(y, x) for _, y, x in sorted(places)[:count]}
        for y in range(4):
            for x in range(5):
                expected = torch.full((2,), -1.0) if (y, x) in gone else image[:, y, x]
                assert torch.equal(after[:, y, x], expected)


def test_removal_leaves_its_input_and_takes_a_count_for_each_image():
    images = torch.ones(2, 1, 2, 2)
    result = remove_pixels(images, torch.arange(8.0).view(2, 2, 2), torch.tensor([1, 3]))
    assert images.min() == 1 and result.flatten(1).sum(1).tolist() == [3, 1]


def planted():
    """Class 1 is suppressed by the left column: its logit is right - 2 * left, that of class 0 is left."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 1, 0], [-2, 1, -2, 1]]))
    return model


def test_planted_absence_flips_only_when_the_suppressor_goes():
    images = torch.ones(6, 1, 2, 2)
    table = removal_table(planted(), images, source=0, unit=1, shares=[0.0, 0.5], draws=200)
    rate = table.groupby(["treatment", "share"])["flipped"].mean()
    assert rate["most negative", 0.5] == 1 and rate["most positive", 0.5] == 0
    # both left pixels drawn: 1/6; one of each: left 1 against 1 - 2 does not flip
    assert rate["random", 0.5] == pytest.approx(1 / 6, abs=0.05)
    assert (rate.xs(0.0, level="share") == 0).all()
    assert (table["removed"] == table["share"] * 4).all() and len(table) == 6 * 3 * 2


def test_unrecognised_images_are_left_out_and_only_strokes_are_removed():
    images = torch.ones(3, 1, 2, 2)
    images[1, 0, :, 0] = 0  # no left column: seen as class 1
    table = removal_table(planted(), images, source=0, unit=1, shares=[0.5], draws=1)
    assert sorted(set(table["image"])) == [0, 2]
    images[0, 0, 0, 0] = 0
    left = remove_strokes(planted(), images[:1], 1, 0.34)
    assert list(left) == list(TREATMENTS)
    assert all(int((after > 0).sum()) == 2 for after in left.values())


def test_scores_mirror_each_other_and_draws_differ():
    images = torch.ones(2, 1, 2, 2)
    scores = removal_scores(planted(), images, 1, seed=0, draws=3)
    (negative,), (positive,) = scores["most negative"], scores["most positive"]
    torch.testing.assert_close(negative, torch.tensor([[-2.0, 1], [-2, 1]]).expand(2, 2, 2))
    assert torch.equal(positive, -negative)
    assert len({draw.numpy().tobytes() for draw in scores["random"]}) == 3
    again = removal_scores(planted(), images, 1, seed=0, draws=3)["random"]
    assert all(map(torch.equal, scores["random"], again))


def test_the_share_is_of_the_stroke_pixels():
    images = torch.ones(1, 1, 2, 2)
    images[0, 0, :, 1] = 0  # two stroke pixels, both on the left; the logits are 2 and -4: class 0
    table = removal_table(planted(), images, 0, 1, [0.5, 1.0], draws=1)
    assert table.groupby("share")["removed"].unique().map(list).to_dict() == {0.5: [1], 1.0: [2]}


def test_bad_input_is_named():
    images = torch.ones(2, 1, 2, 2)
    with pytest.raises(InputError, match="score"):
        remove_pixels(images, torch.zeros(2, 3, 3), 1)
    with pytest.raises(InputError, match="count"):
        remove_pixels(images, torch.zeros(2, 2, 2), -1)
    with pytest.raises(InputError, match="shares"):
        removal_table(planted(), images, 0, 1, [1.5])
    with pytest.raises(InputError, match="images"):
        removal_table(planted(), -images, 0, 1, [0.5])


@pytest.mark.slow
def test_digits_the_claim_of_the_notebook():
    """Held-out 8s become 3s when the most negative pixels go, and not with either control."""
    trained = []
    for seed in (0, 1):
        train, test = digits("train", fold=seed), digits("test", fold=seed)
        net = DigitsNet(8, seed)
        fit(net, train.images, train.labels, epochs=15, lr=0.02, seed=seed)
        trained.append((accuracy(net, test.images, test.labels), net, test))
    assert sum(share for share, _, _ in trained) / 2 > 0.98
    _, net, test = trained[0]
    eights = test.images[test.labels == 8]
    evidence = absence_evidence(attribute(Unit(net, channel=3), eights))
    assert evidence[..., :4].sum() / evidence.sum() > 0.6 > 0.55 > eights[..., :4].sum() / eights.sum()
    rate = removal_table(net, eights, 8, 3, [0.24]).groupby("treatment")["flipped"].mean()
    assert rate["most negative"] > 0.7 and rate["random"] < 0.25 and rate["most positive"] < 0.1
