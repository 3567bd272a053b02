"""Checks of exercise 07: what a test of insertion must not do, on units whose answer is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import stats
from torch import Tensor

from absence_utils.insertion.paste import LOCATIONS
from absence_utils.insertion.scores import MIN_EFFECT
from absence_utils.plots.base import to_numpy

from .answers import (  # noqa: F401, the notebook prints with `print_numbers`
    Correct,
    WrongAnswer,
    answered,
    compare,
    print_numbers,
    print_t_test,
    same_items,
)
from .insertion_worlds import (  # noqa: F401, and takes its worlds from here
    HALF,
    Centred,
    CoinFlips,
    Inserted,
    Maps,
    centred_scenes,
    coin_flips,
    eight_units,
    linear_maps,
    mean,
    minimum,
)


def _absence(data: Inserted) -> np.ndarray:
    return (data.random - data.lowest).mean(axis=(1, 2)) / data.sd


def absence_score(absence, data: Inserted) -> Correct:
    """Absence scores [unit] of the eight units, in sd."""
    truth = _absence(data)
    before = (data.untouched - data.lowest).mean(axis=(1, 2)) / data.sd
    mistakes = [
        (-truth, "The sign is the wrong way round: the score is positive where the lowest patch suppresses."),
        (truth * data.sd, "That is in the units of each unit. Divide by `sd` to compare units."),
        (truth * data.sd / data.sd.mean(), "Divide by each unit's own sd, not by their mean."),
        (before, "That is before against after. A patch also covers part of what made the "
                 "image a top image: compare with the random patch at the same place."),
        (truth.mean(), "That is one number. Average over images and patches, not over units: axis=(1, 2)."),
    ]  # fmt: skip
    look = "Mean over images and patches of `random - lowest`, divided by `sd`: [unit]."
    compare("absence", absence, truth, mistakes=mistakes, look=look)
    count, significant = len(truth), int(data.significant.sum())
    return Correct(
        f"{(truth > 0).sum()} of {count} units have a positive score, and the t-test on all pairs is significant in "
        f"{significant}. Four of the eight inhibit nothing: the sign of the score can't tell which."
    )


def _both(drops: Tensor) -> tuple[int, float, float]:
    """The unit with the highest score where it was chosen, this score, and its score on fresh images and patches."""
    images, pairs = HALF
    scores = drops[:images, :pairs].mean(dim=(0, 1))
    best = int(scores.argmax())
    return best, float(scores[best]), float(drops[images:, pairs:, best].mean())


def chosen_and_tested(best, inflated, drops: Tensor) -> Correct:
    """The mistake: the unit with the highest score, and this score on the images and patches that chose it."""
    answered(best=best, inflated=inflated)
    images, pairs = HALF
    chosen_on = drops[:images, :pairs]
    scores, (truth, value, _) = chosen_on.mean(dim=(0, 1)), _both(drops)
    mistakes = [
        (int(scores.argmin()), "That is the unit with the lowest score: positive means suppressed."),
        (int(scores.abs().argmax()), "That is the largest size. The question is which unit is suppressed most."),
        (int(drops.mean(dim=(0, 1)).argmax()), "You took all images and patches. Choose on `chosen_on` alone."),
        (int(chosen_on.flatten().argmax()) % drops.shape[2],
         "That unit has the largest single drop. Average over images and patches first."),
    ]  # fmt: skip
    compare("best", best, truth, mistakes=mistakes, look="`argmax` of the mean over images and pairs.",
            tolerance=0)  # fmt: skip
    mistakes = [
        (
            float(drops[:, :, truth].mean()),
            "You averaged over everything. Use `chosen_on`, as for the choice.",
        ),
        (
            _both(drops)[2],
            "You know better already! First make the mistake: test where you chose.",
        ),
        (
            -value,
            "The sign is the wrong way round: `drops` are control minus treatment.",
        ),
    ]
    compare(
        "inflated",
        inflated,
        value,
        mistakes=mistakes,
        look="Mean of `chosen_on[:, :, best]`.",
    )
    p = stats.ttest_1samp(chosen_on[:, :, truth].flatten().numpy(), 0).pvalue
    return Correct(
        f"You made the mistake: unit {truth} looks suppressed by {value:.2f} sd, and a t-test over all "
        f"{images * pairs} inputs gives p = {p:.0e}. That is false: a coin said which patches are the treatment."
    )


def _alike(given, truth: Tensor) -> bool:
    """Whether an answer is these numbers; whatever is no array of numbers is not."""
    try:
        given = np.asarray(to_numpy(given), dtype=float)
    except (TypeError, ValueError):
        return False
    return given.shape == truth.shape and np.allclose(given, truth.numpy(), atol=1e-3)


def two_places(treated, control, centred: Centred) -> Correct:
    """The mistake: responses [image] to the ring in the middle and to the empty patch in a corner."""
    answered(treated=treated, control=control)
    at = {
        place: centred.response(centred.ring, place) for place in ("centre", "top left")
    }
    look = '`unit.response(insert_patches(images, patch, place))`; places are "centre" and "top left".'
    cornered = centred.response(centred.empty, "top left")
    swapped = _alike(control, at["centre"])
    mistakes = [(cornered, "The two are swapped: the ring in the centre is `treated`, the empty patch in the corner "
                           "`control`." if swapped else "That is the control, the empty patch in the corner."),
                (at["top left"], "That is the ring in the corner. Put it in the centre."),
                (centred.response(centred.empty, "centre"), "That is the empty patch. Treated is the ring."),
                (centred.unit.response(centred.images), "That is the response to the images as they are.")]  # fmt: skip
    compare("treated", treated, at["centre"], mistakes=mistakes, look=look)
    mistakes = [(centred.response(centred.empty, "centre"),
                 'You know better already! First make the mistake: put the control in the corner, "top left".'),
                (at["top left"], "That is the ring in the corner. The control is the empty patch."),
                (at["centre"], "That is the ring in the centre once more. The control is the empty patch."),
                (centred.unit.response(centred.images), "That is the response to the images as they are.")]  # fmt: skip
    compare("control", control, cornered, mistakes=mistakes, look=look)
    change = at["centre"] - cornered
    p = stats.ttest_1samp(change.numpy(), 0).pvalue
    return Correct(
        f'You made the mistake: the ring seems to lower "disc" by {centred.drop("centre", "top left"):.2f} sd '
        f"(paired t-test, p = {p:.0e}). That is false: what the patch in the middle did was to cover the disc."
    )


def pooled_by_minimum(top_drop, neutral_drop, maps: Maps) -> Correct:
    """The mistake: the drop of the minimum over positions on top images and on neutral ones."""
    answered(top_drop=top_drop, neutral_drop=neutral_drop)
    look = 'Pool each of ["random"] and ["lowest"] over positions first, subtract, then average.'
    for name, given, group in (
        ("top_drop", top_drop, maps.top),
        ("neutral_drop", neutral_drop, maps.neutral),
    ):
        truth = maps.drop(group, minimum)
        mistakes = [
            (maps.drop(group, mean), "You know better already! First make the mistake: pool by the minimum."),
            (maps.drop(group, lambda x: x.max(dim=-1).values), "That is the maximum over positions."),
            (float(minimum(group["random"] - group["lowest"]).mean()), "Pool first, subtract then."),
            (float(group["random"].min() - group["lowest"].min()),
             "That is the minimum over everything. Take it over positions, the last axis: one for each input."),
            (-truth, "The sign is the wrong way round: a drop is random minus lowest."),
        ]  # fmt: skip
        compare(name, given, truth, mistakes=mistakes, look=look)
    veto = maps.veto(minimum)
    return Correct(
        f"You made the mistake: the drop is {maps.drop(maps.top, minimum):.2f} on top images and "
        f"{maps.drop(maps.neutral, minimum):.2f} on neutral ones. It looks like a veto of "
        f"{veto / maps.sd_min:.1f} sd of the minimum. That is false: this unit is a weighted sum of pixels, "
        "and no pixel can veto another."
    )


# -- what answer cells print: the finding as it looks before anyone doubts it


def tested(drops: Tensor, unit) -> None:
    """Print the mean of `drops` [image, pair, unit] of one unit, in sd, with a t-test over all inputs."""
    if unit is not ...:
        print_t_test(drops[:, :, int(unit)])


def tested_pairs(treated, control, centred: Centred) -> None:
    """Print the mean of control minus treated [image], in sd, with a paired t-test."""
    if not any(given is ... for given in (treated, control)):
        print_t_test((control - treated) / centred.sd)


# -- the repairs, and the verdict


def repaired(clean, same_place, mean_veto, drops: Tensor, centred: Centred, maps: Maps,
             flips: CoinFlips) -> Correct:  # fmt: skip
    """The three repairs: fresh images and patches; treated and control in one place; the mean over positions."""
    answered(clean=clean, same_place=same_place, mean_veto=mean_veto)
    (images, pairs), (best, _, score) = HALF, _both(drops)
    fresh, at_best = drops[images:, pairs:], drops[:, :, best]
    mistakes = [
        (float(at_best[images:, :pairs].mean()),
         "The images are fresh, the patches are not. The coin's luck sits in the patches: take fresh ones, too."),
        (float(at_best[:images, pairs:].mean()), "The patches are fresh, the images are not. Take fresh ones, too."),
        (float(at_best.mean()), "What you chose on is still among it: use the rest alone."),
        (float(fresh.mean(dim=(0, 1)).max()),
         "You chose again, on the fresh half. The unit stays `best`; only the test is new."),
        (float(at_best[:images, :pairs].mean()), "Those are the images and patches that chose the unit."),
    ]  # fmt: skip
    look = "`drops` has images in its first axis, pairs of patches in its second; `chosen_on` took the first of each."
    compare("clean", clean, score, mistakes=mistakes, look=look, absolute=5e-3)
    truth = centred.drop("centre", "centre")
    before = centred.unit.response(centred.images)
    as_it_is = float((before - centred.response(centred.ring, "centre")).mean())
    mistakes = [
        (centred.drop("centre", "top left"), "That is still the comparison of two places."),
        (as_it_is / centred.sd,
         "That control is the image as it is: it shows the disc, and the ring covers it. Paste the empty patch there."),
        (truth * centred.sd, "Divide by `centred.sd`."),
        (-truth, "The sign is the wrong way round: control minus treated."),
    ]  # fmt: skip
    compare("same_place", same_place, truth, mistakes=mistakes, look="Put the empty patch in the centre as well.",
            absolute=0.02)  # fmt: skip
    mistakes = [
        (maps.veto(minimum), "That is still the minimum."),
        (maps.drop(maps.top, mean), "That is the drop on top images alone. A veto is what it has beyond neutral ones."),
        (maps.drop(maps.neutral, mean), "That is the drop on neutral images alone."),
        (maps.veto(lambda x: x.max(dim=-1).values), "The maximum is no repair: one position decides there, too."),
    ]  # fmt: skip
    compare("mean_veto", mean_veto, maps.veto(mean), mistakes=mistakes, look="Use the mean over positions.",
            absolute=5e-3)  # fmt: skip
    runs = np.array([_both(flips.drops(flip))[1:] for flip in range(40)])
    (chosen, again), spread = (
        runs.mean(axis=0).round(2) + 0.0,
        runs[:, 1].std(ddof=1),
    )  # no -0.00
    return Correct(
        f"On fresh images and patches {score:+.2f} sd (over 40 coins {again:+.2f} on average with a "
        f"scatter of {spread:.2f}, against {chosen:+.2f} where the unit was chosen); at the same place "
        f"{_where(same_place, centred)}; under the mean a veto of {abs(maps.veto(mean)):.4f}. "
        "Three findings, and none is left."
    )


def _where(same_place, centred: Centred) -> str:
    """What a right drop says of the disc: ring and control may share the centre, or, as well, a corner."""
    given = float(same_place)
    drops = {place: centred.drop(place, place) for place in LOCATIONS}
    place = min(drops, key=lambda place: abs(drops[place] - given))
    if abs(drops[place] - given) > 1e-3:  # a rounded answer: it could be any of them
        return f"{given:+.2f} sd, where both cover the disc, or neither does"
    if place == "centre":
        return f"{given:+.2f} sd, where the disc is covered in both"
    return f"{given:+.2f} sd in a corner, where the disc is in view in both (in the centre {drops['centre']:+.2f})"


def _numbers_of_units(vetoed, count: int):
    """The list of units in what NumPy and torch make of a comparison: a mask, or places as `where` returns them."""
    if isinstance(vetoed, (set, str)) or not isinstance(vetoed, Iterable):
        return vetoed
    array = np.asarray(
        to_numpy(vetoed)
    ).ravel()  # `where` gives a tuple of one array, `nonzero` a column
    if array.dtype != bool or not array.size:
        return array.tolist()
    if len(array) != count:
        raise WrongAnswer(
            f"`vetoed` is a mask of {len(array)} values, and there are {count} units."
        )
    return np.flatnonzero(array).tolist()


def verdict(veto, vetoed, data: Inserted) -> Correct:
    """Veto scores [unit] of the eight units, in sd, and which of them are vetoes: their numbers, or a mask [unit]."""
    answered(veto=veto, vetoed=vetoed)
    neutral = (data.neutral_random - data.neutral_lowest).mean(axis=(1, 2)) / data.sd
    absence = _absence(data)
    truth = absence - neutral
    mistakes = [
        (
            absence,
            "That is the absence score. Subtract that of the same patches on neutral images.",
        ),
        (neutral, "That is the score on neutral images alone."),
        (-truth, "The sign is the wrong way round: top minus neutral."),
        (truth * data.sd, "Divide by `sd`."),
        (absence + neutral, "Subtract the score on neutral images, do not add it."),
    ]
    compare(
        "veto",
        veto,
        truth,
        mistakes=mistakes,
        look="Absence score on top images minus that on neutral ones.",
    )
    every, vetoes = range(len(truth)), np.flatnonzero(data._is_veto).tolist()
    same_items(
        "vetoed", _numbers_of_units(vetoed, len(truth)), vetoes,
        missing="Whose score lies clearly above 0?",
        extra=f"A score within {MIN_EFFECT} sd of 0 does not count: "
        "filters that straddle the edge of a patch make as much.",
        mistakes=[(every, "That is what the t-test on all pairs says: all of them. Look at the veto scores."),
                  ([unit + 1 for unit in vetoes], "All are one too high: units are counted from 0.")],
    )  # fmt: skip
    additive = np.abs(truth[~data._is_veto]).max()
    return Correct(
        f"The t-test on all pairs called {data.significant.sum()} of {len(truth)} units. Four are vetoes, with scores "
        f"from {truth[data._is_veto].min():.2f} sd up; the other four stay within {additive:.2f} sd of 0."
    )
