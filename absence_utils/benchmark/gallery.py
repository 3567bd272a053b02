"""What the benchmark's notebook shows besides its scores: a gallery of rules, maps put to the faithfulness measure, and
the bookkeeping of predictions of hand-compiled networks."""

from __future__ import annotations

import pandas as pd
import torch

from absence_utils.attribution.counterfactuals import RESOLVED, counterfactual_effects, resolve_verdict
from absence_utils.attribution.diagnosis import diagnose
from absence_utils.attribution.methods import attribute
from absence_utils.errors import require_choice
from absence_utils.images.base import IDENTITY, Normalisation
from absence_utils.images.scenes import (
    CONCEPTS,
    NORMALISATION,
    RULES,
    Rule,
    draw_presence,
    render_scenes,
    rule_truth,
)
from absence_utils.images.worlds import World
from absence_utils.units import Unit
from absence_utils.visualization.budget import faint_contrast
from absence_utils.visualization.rendering import render_pairs

from .compiled import COMPILED, Compiled
from .faithfulness import Faithfulness, descending_score, faithfulness, oracle_map, random_map
from .networks import KIND_RULES, load_benchmark_network
from .tasks import BenchmarkTask

SMOOTHNESS = 4.0  # of the gallery's maxima and minima, as in notebook 04
SHOWN = (  # network, layer, concepts shown: predictions that end in different verdicts
    ("A", None, ("A",)),
    ("not B", None, ()),
    ("not B", None, ("B",)),
    ("A and not B", None, ("A",)),
    ("A and not B", None, ("A", "B")),
    ("A xor B", None, ("A", "B")),
    ("count below k", None, ("A",)),
    ("A left of B", None, ("A right", "B left")),
    ("only the bias", None, ("B",)),
    ("superposed decoy", None, ("B",)),
)


def scene_task(scenes: int = 256, steps: int = 160, seed: int = 0, kind: str = "rules") -> BenchmarkTask:
    """The outputs of a network trained on the rules of the concept scenes, in random scenes of theirs.

    Args:
        scenes: how many.
        steps: of synthesis.
        seed: of the network, see `networks.load_benchmark_network`.
        kind: "rules", or "twin" for the network whose rules ask for no absence.

    Raises:
        InputError: an unknown kind, or a seed that does not ship.
    """
    require_choice("kind", kind, KIND_RULES)
    rules = KIND_RULES[kind]
    presence = draw_presence(scenes, 600 + seed)
    return BenchmarkTask(
        load_benchmark_network(kind, seed), None, range(len(rules)), World(),
        render_scenes(presence, 600 + seed), rule_truth(presence, rules), load_benchmark_network("detector"), seed,
        steps=steps,
    )  # fmt: skip


def key_concept(rule: Rule) -> int:
    """Column of the concept that a rule turns on: the one that must be absent, or else the first that must be there."""
    return CONCEPTS.index((rule.absent or rule.present)[0])


def gallery_rows(subject: BenchmarkTask) -> list[dict]:
    """One row for each rule, for `plots.benchmark.gallery`, with scenes that no row above it shows.

    The non-target scene shows the concept that must be absent; for rules without an absence it lacks the one they ask
    for. Of several scenes the first is taken. Maximum and minimum have the contrast of a faint scene, as in notebook
    04; the benchmark's methods synthesise freely.

    Returns:
        Dicts: rule; concept, its key one; planted, whether it asks for its absence; image (the non-target one),
        target_image, maximum, minimum and patch [channel, height, width] in 0..1; mask [height, width] bool of the
        concept in image; target_map and non_target_map [height, width] signed; and numbers: the responses (of images,
        maximum, minimum and patch, in logits), the net evidence of the target map and of the other map on the planted
        concept (NaN where none is planted), and the share of the concept that the lowest patch shows.
    """
    rows, used = [], set()
    units = [subject.unit(index) for index in range(len(RULES))]
    faint = faint_contrast(subject.model, subject.dataset)
    size = subject.images.shape[-1]
    pairs = render_pairs(units, subject.steps, size, subject.seed, contrast=faint, smoothness=SMOOTHNESS)
    for index, (name, rule) in enumerate(RULES.items()):
        column, unit = key_concept(rule), subject.unit(index)
        shown = subject.scenes.presence[:, column] == bool(rule.absent)
        target = _first(subject.target[:, index], used)
        non_target = _first(~subject.target[:, index] & shown, used)
        used |= {target, non_target}
        images, mask = subject.images[[target, non_target]], subject.scenes.masks[non_target, column]
        maps = attribute(unit, images, "integrated_gradients").sum(dim=1)
        pair, lowest, channel = pairs[index], subject.book.lowest, subject.units[index]
        image, (top, left, height, width) = lowest.image[channel, 0], lowest.box[channel, 0].tolist()
        window = (slice(top, top + height), slice(left, left + width))
        whole = subject.scenes.masks[image, column]
        numbers = {
            **dict(zip(("target_response", "response"), unit.response(images).tolist(), strict=True)),
            "target_evidence": float(maps[0].sum()),
            "on_concept": float(maps[1][mask].sum()) if rule.absent else float("nan"),
            "maximum_response": float(pair.highest.response[0]),
            "minimum_response": float(pair.lowest.response[0]),
            "patch_response": float(lowest.response[channel, 0]),
            "patch_shows": float(whole[window].sum() / whole.sum().clamp(min=1)),
        }
        rows.append({
            "rule": name, "concept": CONCEPTS[column], "planted": bool(rule.absent), "mask": mask,
            "image": subject.scenes.pixels[non_target], "target_image": subject.scenes.pixels[target],
            "target_map": maps[0], "non_target_map": maps[1],
            "maximum": pair.highest.image[0], "minimum": pair.lowest.image[0],
            "patch": subject.scenes.pixels[image][:, *window], "numbers": numbers,
        })  # fmt: skip
    return rows


def _first(fits: torch.Tensor, used: set[int]) -> int:
    """The first scene that fits and is not used yet; the first that fits where all are."""
    found = fits.nonzero()[:, 0].tolist()
    return next((scene for scene in found if scene not in used), found[0])


def _suppressed(subject: BenchmarkTask, rule: str, images: int):
    """Unit, non-target scenes in which the planted concept alone decides, its masks, target scenes, and the backgrounds
    of the former without any concept; as network input."""
    index, column = list(RULES).index(rule), key_concept(RULES[rule])
    target = subject.target[:, index]
    chosen = (~target & subject.scenes.presence[:, column]).nonzero()[:, 0]
    if RULES[rule].present:
        others = [CONCEPTS.index(name) for name in RULES[rule].present]
        chosen = chosen[subject.scenes.presence[chosen][:, others].all(dim=1)]
    targets = target.nonzero()[:, 0]
    count = min(images, len(chosen), len(targets))
    chosen, targets = chosen[:count], subject.images[targets[:count]]
    empty = torch.zeros(1, len(CONCEPTS), dtype=torch.bool)
    behind = torch.cat([render_scenes(empty, 600 + subject.seed, int(row)).pixels for row in chosen])
    masks = subject.scenes.masks[chosen]
    unit = Unit(subject.model, None, index)
    return unit, subject.images[chosen], masks, targets, NORMALISATION.apply(behind)


def scene_faithfulness(
    subject: BenchmarkTask, rule: str, images: int, seed: int = 0, shares=(0.01, 0.02, 0.05, 0.1, 0.2)
) -> dict[str, dict[str, Faithfulness]]:
    """Faithfulness of several maps of one rule's logit under both fills: map to {fill: result}.

    Maps: the mask of the concept whose absence is planted, grown by 2 px ("oracle"); integrated gradients; input x
    gradient; noise; and the absolute values of integrated gradients, which name no absence and must score 0.

    Args:
        subject: outputs of a network on the rules.
        rule: name of a rule with an absence.
        images: number of non-target scenes that show the concept, and of target scenes.
        seed: of noise and ties.
        shares: of the pixels, see `faithfulness.faithfulness`.
    """
    unit, inputs, masks, targets, behind = _suppressed(subject, rule, images)
    masks = masks[:, key_concept(RULES[rule])]
    gradients = {
        name: attribute(unit, inputs, name).sum(dim=1)
        for name in ("integrated_gradients", "input_x_gradient")
    }
    maps = {
        "oracle": oracle_map(masks, rim=2),
        "integrated gradients": gradients["integrated_gradients"],
        "input x gradient": gradients["input_x_gradient"],
        "random": random_map(masks.shape, seed),
        "absolute values": gradients["integrated_gradients"].abs(),
    }
    spread = float(subject.spread[list(RULES).index(rule)])
    return {
        name: {
            fill: faithfulness(unit, values, inputs, targets, spread, background=behind,
                               shares=shares, fill=fill, seed=seed)
            for fill in ("background", "inpaint")
        }
        for name, values in maps.items()
    }  # fmt: skip


def descending_example(subject: BenchmarkTask, rule: str, images: int, seed: int = 0) -> dict[str, float]:
    """Mean `faithfulness.descending_score` in sd of three maps: the mask of the planted suppressor ("oracle"), noise,
    and the mask of what speaks for the rule, which has nothing on the suppressor ("disc only")."""
    unit, inputs, masks, _, behind = _suppressed(subject, rule, images)
    speaking = masks[:, CONCEPTS.index(RULES[rule].present[0])]
    maps = {
        "oracle": oracle_map(masks[:, key_concept(RULES[rule])], rim=2),
        "random": random_map(speaking.shape, seed),
        f"{RULES[rule].present[0]} only": oracle_map(speaking, 1),
    }
    spread = float(subject.spread[list(RULES).index(rule)])
    return {
        name: float(descending_score(unit, values, inputs, spread, background=behind, seed=seed).mean())
        for name, values in maps.items()
    }


def faithfulness_table(results: dict[str, dict[str, Faithfulness]]) -> pd.DataFrame:
    """Score with 95% interval over images for each map and fill: columns map, fill, score, low, high, images."""
    rows = []
    for name, fills in results.items():
        for fill, found in fills.items():
            score = found.summary()["score"]
            rows.append((name, fill, *score, len(found.score)))
    return pd.DataFrame(rows, columns=["map", "fill", "score", "low", "high", "images"])


def after_showing(compiled: Compiled, unit: Unit, verdict: str, shown: tuple[str, ...]) -> str:
    """What a verdict on an image with these concepts turns out to be once concepts are shown; "" where none is needed.

    A response from the baseline is asked about the concepts that the image lacks, one held down about those it shows,
    each in all exact pairs there are.
    """
    if verdict not in RESOLVED:
        return ""
    asked = [name for name in compiled.concepts if (name in shown) != (verdict == "baseline-driven")]
    pairs = {name: compiled.pairs(name) for name in asked}
    return resolve_verdict(verdict, counterfactual_effects(unit, pairs, compiled.threshold))


def compiled_diagnoses(normalisation: Normalisation = IDENTITY) -> pd.DataFrame:
    """The bookkeeping of `SHOWN`, and what showing concepts makes of it.

    Columns case, baseline_response, presence, absence, response (all against black), verdict (over all baselines),
    after_showing (see `after_showing`).
    """
    rows = []
    for name, layer, concepts in SHOWN:
        compiled = COMPILED[name]()
        unit, image = Unit(compiled.model, layer, 0), compiled.render(compiled.present(*concepts))[0]
        found = diagnose(unit, image, normalisation=normalisation)
        black = found.table().iloc[0]
        rows.append({
            "case": f"{name}: shows {' + '.join(concepts) or 'nothing'}",
            **{column: black[column] for column in ("baseline_response", "presence", "absence", "response")},
            "verdict": found.verdict,
            "after_showing": after_showing(compiled, unit, found.verdict, concepts),
        })  # fmt: skip
    return pd.DataFrame(rows)
