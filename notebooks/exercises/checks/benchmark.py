"""Checks of exercise 09: accounts of single predictions, and how not to score explanation methods."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from absence_utils.attribution.diagnosis import Diagnosis, diagnose
from absence_utils.attribution.methods import attribute
from absence_utils.benchmark.compiled import COMPILED
from absence_utils.benchmark.effects import planted_signs
from absence_utils.benchmark.gallery import scene_task
from absence_utils.benchmark.maps import edges, gradient_sign, of_each_unit
from absence_utils.benchmark.methods import method_of_maps
from absence_utils.benchmark.tasks import BenchmarkTask
from absence_utils.images.scenes import CONCEPTS, RULES
from absence_utils.plots.base import to_numpy
from absence_utils.units import Unit

from .answers import (  # noqa: F401, the notebook prints with `print_numbers`
    Correct,
    WrongAnswer,
    answered,
    choose,
    compare,
    print_numbers,
)

# name: (network, concepts that the image shows)
CASES = {
    "A, shows A": ("A", ("A",)),
    "not B, shows nothing": ("not B", ()),
    "not B, shows B": ("not B", ("B",)),
    "A and not B, shows A and B": ("A and not B", ("A", "B")),
}
TWINS = ("not B", "only the bias")  # two networks that answer 1 to an empty image


# -- the account of one prediction


def image_of(case: str) -> Tensor:
    """[channel=1, height, width] image of one of `CASES`."""
    name, shown = CASES[case]
    compiled = COMPILED[name]()
    return compiled.render(compiled.present(*shown))[0]


def account_of(case: str) -> Diagnosis:
    """The account of one of `CASES`."""
    return diagnose(Unit(COMPILED[CASES[case][0]]().model), image_of(case))


def _shown_once_answered(*values) -> None:
    if any(value is ... for value in values):
        raise WrongAnswer("There is nothing to show yet: answer the task above first.")


def _named(words) -> dict:
    return {f"case_{number}": word for number, word in enumerate(words, start=1)}


def accounts(*words) -> pd.DataFrame:
    """The accounts of `CASES` against black, as `pictures.account_bars` draws them.

    Args:
        words: predictions of the verdicts; as long as one is open, the accounts are not shown.

    Raises:
        WrongAnswer: a prediction is missing.
    """
    _shown_once_answered(*words)
    rows = []
    for case in CASES:
        found = account_of(case)
        black = found.table().iloc[0]
        rows.append({"case": case, "verdict": found.verdict} | {
            column: black[column] for column in ("baseline_response", "presence", "absence", "response")
        })  # fmt: skip
    return pd.DataFrame(rows)


def _why_not(case: str) -> dict[str, str]:
    """Verdict -> why it is not that of this case, by its account against black."""
    row = account_of(case).rows[0]
    terms = (
        f"the response is {row.response:g}, the baseline gives {row.baseline_response:g}, presence evidence "
        f"{row.presence:g}, absence evidence {row.absence:g}"
    )
    reasons = {
        "presence-driven": "a response is presence-driven if it is there and evidence seen in the image carries it",
        "baseline-driven": "a response is baseline-driven if it is there though hardly anything seen speaks for it",
        "outweighed": "outweighed means that absence evidence takes away what something in the image speaks for",
        "held down": "held down means that the response is gone and hardly anything in the image speaks for it",
        "silent": "silent means that hardly anything speaks for the unit and nothing that is seen holds it down",
    }
    return {
        word: f"{case}: not {word!r}. Here {terms}; and {reason}."
        for word, reason in reasons.items()
        if word != row.verdict
    }


def predictions(*words) -> Correct:
    """Verdicts of `CASES`, in their order: each one of the first five of `diagnosis.VERDICTS`."""
    answered(**_named(words))
    for (name, word), case in zip(_named(words).items(), CASES, strict=True):
        choose(name, word, account_of(case).verdict, _why_not(case))
    gone = account_of("not B, shows B").rows[0]
    return Correct(
        f"The map of 'not B, shows B' is all negative ({-gone.absence:g} in all, nothing positive), and nothing is "
        f"wrong with it: the black image answers {gone.baseline_response:g}, and B takes it away."
    )


def _effect(name: str) -> float:
    """Change of the response when B comes into the empty image."""
    compiled = COMPILED[name]()
    images = compiled.render(torch.cat((compiled.present(), compiled.present("B"))))
    without, shown = compiled.model(images)[:, 0].tolist()
    return shown - without


def _single(value):
    """The number in an array that holds one alone, as a network answers to one image; else the value as it is."""
    array = np.asarray(to_numpy(value))
    return (
        array.item()
        if array.size == 1 and array.ndim and array.dtype != object
        else value
    )


def put_it_in(effect_not_b, effect_bias, encodes) -> Correct:
    """Change of the response of each of `TWINS` when B is shown, and which of them encodes its absence."""
    given = {"effect_not_b": _single(effect_not_b), "effect_bias": _single(effect_bias)}
    answered(**given, encodes=encodes)
    for (variable, value), name in zip(given.items(), TWINS, strict=True):
        compiled = COMPILED[name]()
        empty, with_a = (
            float(compiled.model(compiled.render(compiled.present(*shown)))[0, 0])
            for shown in ((), ("A",))
        )
        truth = _effect(name)
        mistakes = [
            (-truth, "The sign is the wrong way round: with B minus without."),
            (
                truth + empty,
                "That is the response to an image with B. Subtract the one without.",
            ),
            (with_a - empty, "That is the effect of A. Show B."),
        ]
        compare(
            variable,
            value,
            truth,
            mistakes=mistakes,
            look="With B minus without, from an empty image.",
        )
    because = {
        TWINS[
            1
        ]: "Showing B changes nothing there. A response without evidence is not yet an absence.",
        "both": "Only one of them changes when B is shown (definition 2.1 of the paper).",
        "neither": "One of them falls when B is shown: that is an encoded absence (definition 2.1 of the paper).",
    }
    choose("encodes", encodes, TWINS[0], because)
    return Correct(
        "Two maps without any evidence, one verdict, and only showing the concept tells the two apart."
    )


# -- scoring methods

METHODS = {
    "integrated gradients": lambda unit, images: attribute(
        unit, images, "integrated_gradients", steps=16
    ).sum(dim=1),
    "gradient sign": gradient_sign,
    "edge detector": edges,
}


def subject(kind: str, seed: int = 0, images: int = 24) -> BenchmarkTask:
    """All outputs of the benchmark network of a kind ("rules" or "twin"); maps look at the first `images` scenes."""
    return replace(scene_task(192, 1, seed, kind), images_for_maps=images)


_of_each_unit = lru_cache(32)(
    of_each_unit
)  # one object for one function: its maps are then computed once


def on_targets(function, who: BenchmarkTask) -> Tensor:
    """What a map (unit, images) -> [image, height, width] says on target inputs: [unit, concept], NaN for nothing."""
    return method_of_maps(_of_each_unit(function), "target").concepts(who)


def on_non_targets(function, who: BenchmarkTask) -> Tensor:
    """The same on non-target inputs."""
    return method_of_maps(_of_each_unit(function), "non-target").concepts(who)


def planted() -> Tensor:
    """Which absences are planted: [unit, concept] bool."""
    return planted_signs("rules") < 0


def auroc(said: Tensor) -> float:
    """How often a planted absence ranks above any other pair of unit and concept; NaN (it says nothing) counts half."""
    said, absent = torch.as_tensor(said).double(), planted()
    gaps = said[absent][:, None] - said[~absent]
    return float(torch.where(gaps.isnan(), 0.5, (gaps.sign() + 1) / 2).mean())


def table(said) -> pd.DataFrame:
    """What a method says [unit, concept], with names.

    Raises:
        WrongAnswer: it is a placeholder.
    """
    _shown_once_answered(said)
    return pd.DataFrame(said.numpy(), list(RULES), CONCEPTS)


def print_scores(**said) -> None:
    """Print the AUROC of what methods say [unit, concept], see `auroc`; a placeholder is left out."""
    absent = planted()
    for name, values in said.items():
        if values is ...:
            continue
        values = torch.as_tensor(np.asarray(values, dtype=float))
        if values.shape != absent.shape:
            print(
                f"{name}: shape {tuple(values.shape)}, not [unit, concept] {tuple(absent.shape)}"
            )
            continue
        print(f"{name}: AUROC {auroc(values):.2f} (by chance 0.50)")


def _filled(said):
    """[unit, concept] with 0 for NaN: to be compared, as a check refuses what is not finite."""
    known = isinstance(said, (Tensor, np.ndarray, pd.DataFrame))
    return np.nan_to_num(np.asarray(said, dtype=float)) if known else said


def _said(who: BenchmarkTask, name: str, target: bool, change=None) -> Tensor:
    key = (METHODS[name], target, change)
    if key not in who.memory:
        function = (
            METHODS[name]
            if change is None
            else lambda *given: change(METHODS[name](*given))
        )
        who.memory[key] = (on_targets if target else on_non_targets)(function, who)
    return who.memory[key]


def on_its_own_class(said, silent, who: BenchmarkTask) -> Correct:
    """The mistake: what integrated gradients say on target inputs, and of how many absences they say nothing."""
    answered(said=said, silent=silent)
    name, absent = "integrated gradients", planted()
    truth = _said(who, name, True)
    mistakes = [
        (_filled(_said(who, name, False)), "You know better already! First make the mistake: use `on_targets`."),
        (_filled(_said(who, "edge detector", True)), 'That is the edge detector. Use METHODS["integrated gradients"].'),
    ]  # fmt: skip
    look = "`on_targets(METHODS[name], rules)`."
    compare("said", _filled(said), _filled(truth), mistakes=mistakes, look=look)
    count = int(truth[absent].isnan().sum())
    mistakes = [
        (
            int((~truth[absent].isnan()).sum()),
            "Those are the planted absences of which it says something.",
        ),
    ]
    compare("silent", silent, count, mistakes=mistakes, look="`said[absent].isnan()`.")
    edge = auroc(_said(who, "edge detector", True))
    return Correct(
        f"You made the mistake: AUROC {auroc(truth):.2f}, no better than an edge detector ({edge:.2f} on the same "
        "target inputs); attribution seems to find no absence. That is false: of "
        f"{count} planted absences it could say nothing, since a target input never shows what must be absent."
    )


def without_sign(unsigned, winner, who: BenchmarkTask) -> Correct:
    """The mistake: what absolute integrated gradients say on non-target inputs, and who wins."""
    answered(unsigned=unsigned, winner=winner)
    name = "integrated gradients"
    truth, signed = _said(who, name, False, torch.abs), _said(who, name, False)
    mistakes = [
        (_filled(signed), "You know better already! First make the mistake: take `.abs()` of the map."),
        (_filled(signed.abs()), "Those are absolute values of what it says. Take them of the map, pixel by pixel."),
        (_filled(_said(who, name, True, torch.abs)), "Those are target inputs. Use `on_non_targets`."),
        (_filled(-truth), "With a minus every pixel speaks against the unit. Take `.abs()` as plots do."),
    ]  # fmt: skip
    look = "A map method: `lambda unit, images: METHODS[name](unit, images).abs()`."
    compare("unsigned", _filled(unsigned), _filled(truth), mistakes=mistakes, look=look)
    found, edge = auroc(truth), auroc(_said(who, "edge detector", False))
    best, other = ("edge detector", name) if edge > found else (name, "edge detector")
    choose(
        "winner",
        winner,
        best,
        {other: f"AUROC {found:.2f} of the unsigned map, {edge:.2f} of the edges."},
    )
    return Correct(
        f"You made the mistake: AUROC {found:.2f} against {edge:.2f}: something that has never seen the network wins. "
        "That is false: without a sign, what suppresses a unit most looks like what drives it most, and ranks last."
    )


def signed_on_others(signed, finds, who: BenchmarkTask) -> Correct:
    """The repair: signed maps on non-target inputs, and how many of the planted absences they call."""
    answered(signed=signed, finds=finds)
    name, absent = "integrated gradients", planted()
    truth = _said(who, name, False)
    mistakes = [
        (_filled(_said(who, name, True)), "Those are target inputs still."),
        (_filled(_said(who, name, False, torch.abs)), "That map is unsigned still."),
        (
            _filled(-truth),
            "The sign is the wrong way round: positive says that the concept lowers the unit.",
        ),
    ]
    compare(
        "signed",
        _filled(signed),
        _filled(truth),
        mistakes=mistakes,
        look="`on_non_targets`, and the map as it is.",
    )
    called = int((truth[absent] > 0).sum())
    mistakes = [
        (
            int((truth > 0).sum()),
            "Those are all pairs that it calls. Count the planted absences among them.",
        ),
        (int((truth[absent] < 0).sum()), "Positive says absence."),
    ]
    compare("finds", finds, called, mistakes=mistakes, look="`signed[absent] > 0`.")
    edge = auroc(_said(who, "edge detector", False))
    return Correct(
        f"{called} of {int(absent.sum())} planted absences, AUROC {auroc(truth):.2f} against {edge:.2f} of the edges: "
        "the same maps as before, asked where the answer can be seen, and with their sign."
    )


def thresholds(on_rules: dict[str, Tensor]) -> dict[str, float]:
    """For each method the value at which it calls every planted absence."""
    return {name: float(said[planted()].min()) for name, said in on_rules.items()}


def false_alarms(
    alarms, wolf, on_rules: dict[str, Tensor], on_twin: dict[str, Tensor]
) -> Correct:
    """Share of the twin's pairs called at the threshold, method -> 0..1, and which method calls most."""
    answered(alarms=alarms, wolf=wolf)
    if not isinstance(alarms, dict) or set(alarms) != set(on_twin):
        raise WrongAnswer(
            f"`alarms` should be a dict with the keys {', '.join(map(repr, on_twin))}."
        )
    limits, absent = thresholds(on_rules), planted()
    shares = {
        name: float((said >= limits[name]).double().mean())
        for name, said in on_twin.items()
    }
    for name, said in on_twin.items():
        own, limit = on_rules[name], limits[name]
        mistakes = [
            (float((said > 0).double().mean()),
             f"{name}: you called everything above 0. Use the threshold at which it finds the planted absences."),
            (float((own >= limit).double().mean()), f"{name}: that is the network with absences. Use the twin."),
            (float((own[~absent] >= limit).double().mean()),
             f"{name}: those are false alarms on the network itself. Use the twin, in which every call is false."),
            (float((said[absent] >= limit).double().mean()),
             f"{name}: count all pairs of the twin. None of them is an absence."),
            (int((said >= limit).sum()), f"{name}: that is a number of pairs. Give their share."),
            (float((said[~said.isnan()] >= limit).double().mean()),
             f"{name}: pairs of which it says nothing are pairs too; they are not called."),
        ]  # fmt: skip
        compare(f'alarms["{name}"]', alarms[name], shares[name], mistakes=mistakes,
                look="The mean of `on_twin[name] >= limits[name]`.", share=True)  # fmt: skip
    worst = max(shares, key=shares.get)
    because = {
        name: f"{name} calls {share:.0%}."
        for name, share in shares.items()
        if name != worst
    }
    choose("wolf", wolf, worst, because)
    listed = "; ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Correct(
        f"False alarms: {listed}. To find the planted absences the {worst} has to call {shares[worst]:.0%} of pairs "
        "that hold none: its AUROC is above chance, and a call of it means little."
    )
