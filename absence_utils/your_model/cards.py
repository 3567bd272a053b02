"""The signed unit card: everything this package can say of one unit, gathered once, to be drawn as a page or a picture.

`collect_cards` computes, `plots.your_model` draws, `html` writes pages. Both signs get the same effort: as many patches
and images, the same seed and budget for the synthesised ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from absence_utils.attribution.baselines import DESCRIPTIONS
from absence_utils.attribution.columns import Columns
from absence_utils.attribution.maps import Maps, draw_maps
from absence_utils.attribution.matrix import absence_matrix
from absence_utils.attribution.screening import (
    Screening,
    TargetSplit,
    screen,
    target_split,
    top_absence_inputs,
    top_target_inputs,
)
from absence_utils.display import one_line
from absence_utils.errors import InputError
from absence_utils.images.subsets import Subset
from absence_utils.insertion.context import describe_context
from absence_utils.insertion.decisions import CANNOT_TELL, ENCODES, NONE, describe_decision
from absence_utils.patches.shape import describe_shape
from absence_utils.units import Unit, full_name
from absence_utils.visualization.budget import FAINT, faint_contrast
from absence_utils.visualization.rendering import RenderedPair, render_pair

from .labels import image_labels, patch_labels
from .offer import Naming
from .study import LayerStudy

SIDES = ("highest", "lowest")
HEADLINES = {  # by decision: on the signed reading, and on what is passed on
    ENCODES: ("Encodes an absence", "passes it on"),
    NONE: ("Encodes no absence of {} or more", "passes none on"),
    CANNOT_TELL: ("One cannot tell whether it encodes an absence", "cannot tell whether it passes one on"),
}
LEAST_BLUR = 1.5  # px: below that single pixels show, whose signs alternate
CONTRAST_IMAGES = 64  # images whose contrast the synthesised ones are held to
FEWEST_IN_CLASS = 3  # images of a class whose mean is worth showing


@dataclass(frozen=True, eq=False)
class CardOptions:
    """How much goes into one card.

    Attributes:
        shown: patches and images at each end.
        steps, size, facets, smoothness: of the synthesised pair, see `rendering.render_pair`; 0 facets for none.
        maps: inputs of each kind with attribution maps; 0 for none.
        method, baseline: of the maps, see `attribution.attribute`.
        smooth: Gaussian under which maps are drawn, a share of the image's edge, see `Card.smooth`.
        evidence_images: images screened for evidence by class, evenly drawn; 0 for none (then there are no maps).
        seed: of the synthesis.
        contrast_quantile: the synthesised pair has this quantile of the images' contrast, in 0..1.

    Raises:
        InputError: a single image to draw maps from.
    """

    shown: int = 6
    steps: int = 128
    size: int = 64
    facets: int = 1
    smoothness: float = 0.0
    maps: int = 3
    method: str = "integrated_gradients"
    baseline: str = "zero"
    smooth: float = 0.03
    evidence_images: int = 256
    seed: int = 0
    contrast_quantile: float = FAINT

    def __post_init__(self):
        if self.maps and self.evidence_images == 1:
            problem = "a single image cannot show a target and a non-target input"
            raise InputError("evidence_images", problem, "Give 2 or more, or 0 for no maps.")


@dataclass(frozen=True, eq=False)
class Extreme:
    """Pictures at one end of a unit, most extreme first.

    Attributes:
        pixels: [picture, channel, height, width] in 0..1.
        response: [picture] in the units of the layer.
        label: what each shows, "" where that is not known, see `labels`.
    """

    pixels: Tensor
    response: list[float]
    label: list[str]

    __repr__ = one_line


@dataclass(frozen=True, eq=False)
class Evidence:
    """Signed maps of a unit on target and on non-target inputs, and the classes that suppress it.

    Attributes:
        target, other: maps of the inputs with the most presence evidence (target) and absence evidence (non-target).
        split: what separates the two.
        classes: a row for each class or concept: name, images, absence (mean absence evidence, in sd of the unit's
            response; for things that share images the excess over images without them), response (mean, in the units
            of the layer), own (it is the class of the unit). Most absence first; empty where there is one class only.
        contrast: whether `absence` is such an excess.
    """

    target: Maps
    other: Maps
    split: str
    classes: pd.DataFrame
    contrast: bool

    __repr__ = one_line


@dataclass(frozen=True, eq=False)
class Card:
    """All that is known of a unit.

    Attributes:
        unit, title: address, and a name for readers.
        decisions: the unit's rows of `LayerStudy.decisions`, indexed by reading; `sentence` says them in words.
        context: the unit's rows of `LayerStudy.context`, empty where it was not asked for.
        naming: what was tested of names; None where nothing was.
        responses: [image] to all images, in the units of the layer.
        pair: synthesised maximum and minimum; None if not asked for.
        patches, images: side ("highest", "lowest") to `Extreme`.
        evidence: maps and classes; None if not asked for.
        effects: the unit's rows of `LayerStudy.effects`.
        shape, copies: the unit's row of `LayerStudy.shape`, and all of `LayerStudy.copies`.
        about: what was studied, in words, for the card's foot: name to value.
    """

    unit: Unit
    title: str
    decisions: pd.DataFrame
    context: pd.DataFrame
    responses: np.ndarray
    pair: RenderedPair | None
    patches: dict[str, Extreme]
    images: dict[str, Extreme]
    evidence: Evidence | None
    effects: pd.DataFrame
    shape: pd.Series
    copies: pd.DataFrame
    effort: CardOptions
    about: dict[str, str] = field(default_factory=dict)
    patch: int = 0
    naming: Naming | None = None

    def __repr__(self) -> str:
        return f"Card of {self.title}: {self.headline}"

    def _repr_html_(self) -> str:
        from .html import card_frame

        return card_frame(self)

    def show(self):
        """The whole card as one figure."""
        from absence_utils.plots.your_model import show_card

        return show_card(self)

    @property
    def confirmation(self) -> str:
        """What was tested of a name, in a line; "" where nothing was."""
        return self.naming.line if self.naming else ""

    @property
    def channel(self) -> int:
        return self.unit.channel

    @property
    def smooth(self) -> float:
        """Gaussian under which the maps are drawn, as a share of the edge: that of the effort, at least 1.5 px."""
        edge = max(self.evidence.target.signed.shape[-2:])
        return max(self.effort.smooth, LEAST_BLUR / edge)

    @property
    def about_maps(self) -> str:
        """How the maps were made and how far they add up, in words."""
        gap = max(float(maps.gap.abs().max()) for maps in (self.evidence.target, self.evidence.other))
        method, baseline = self.effort.method.replace("_", " "), DESCRIPTIONS[self.effort.baseline]
        return f"{method} against the baseline {self.effort.baseline!r} ({baseline}), completeness gap up to {gap:.1%}"

    @property
    def headline(self) -> str:
        """What is missing, or the decision, in a few words: the answer of the card."""
        return self.confirmation or self._decided()

    @property
    def sentences(self) -> list[str]:
        """The decision where the headline is a name, then each reading, then what is known of the context."""
        decided = self._decided()
        parts = (
            [f"By its own lowest patches: {decided[0].lower()}{decided[1:]}."] if self.confirmation else []
        )
        parts += [describe_decision(row, self.patch) for _, row in self.decisions.iterrows()]
        if len(self.context):
            parts.append(describe_context(self.context.iloc[0]))
        return parts

    @property
    def sentence(self) -> str:
        """All `sentences` in a row."""
        return " ".join(self.sentences)

    def _decided(self) -> str:
        """The decision in a few words, both readings. A veto is an absence even where its mean over images is small."""
        own, *passed = self.decisions["decision"]
        first = HEADLINES[own][0].format(f"{self.decisions['delta'].iloc[0]:g} sd")
        if len(self.context) and self.context["found"].iloc[0]:
            first = "Encodes an absence that depends on context"
        return ", ".join([first, *(HEADLINES[each][1] for each in passed)])

    @property
    def poles(self) -> dict[str, float]:
        """Side to how far the furthest synthesised image is from the blank, in sd of real images, signed."""
        ends = {"highest": self.pair.highest.response.max(), "lowest": self.pair.lowest.response.min()}
        return {side: float((end - self.shape["blank"]) / self.shape["sd"]) for side, end in ends.items()}

    @property
    def shape_line(self) -> str:
        """The shape of its response to images, and how far the synthesised poles are from the blank."""
        line = describe_shape(self.shape, self.copies)
        if not self.pair or np.isnan(self.shape["sd"]):
            return line
        low, high = (f"{self.poles[side]:+.1f}".replace("-", "−") for side in ("lowest", "highest"))
        return f"{line} The synthesised minimum and maximum lie {low} and {high} sd from it."

    @property
    def short_ends(self) -> list[str]:
        """The sides at which some real image goes beyond every synthesised one."""
        highest, lowest = self.pair.highest.response.max(), self.pair.lowest.response.min()
        beyond = {"highest": highest < self.responses.max(), "lowest": lowest > self.responses.min()}
        return [side for side, falls_short in beyond.items() if falls_short]


def collect_cards(
    study: LayerStudy,
    dataset,
    columns: Columns,
    units: Sequence[int],
    effort: CardOptions,
    about: dict[str, str] | None = None,
    named: dict[int, Naming] | None = None,
) -> Iterator[Card]:
    """Cards of some units of a studied layer, one after the other.

    Args:
        study: of the layer; the units must be among those studied.
        dataset: the images as they were given to `study_layer`.
        columns: what the images show, see `attribution.columns.matrix_columns`.
        units: channels.
        effort: see `CardOptions`.
        about: for the foot of every card.
        named: unit to what a test of names says, the first line of its card, see `offer.offer_names`.

    Returns:
        An iterator of `Card`: each is made when it is asked for.

    Raises:
        InputError: a unit that was not studied.
    """
    missing = sorted(set(units) - set(study.units))
    if missing:
        remedy = f"Study it, or choose among {study.units}."
        raise InputError("units", f"unit {missing[0]} was not studied", remedy)
    return _collect(study, dataset, columns, list(units), effort, about or {}, named or {})


def _collect(
    study: LayerStudy, dataset, columns: Columns, channels: list[int], effort: CardOptions, about, named
):
    units = [Unit(study.model, study.layer, int(channel), pool=study.setting.pool) for channel in channels]
    count = min(effort.evidence_images, len(dataset)) if effort.maps else 0
    if count:
        chosen = torch.linspace(0, len(dataset) - 1, count).round().long()
        few, shown = Subset(dataset, chosen), replace(columns, membership=columns.membership[chosen])
        screened = screen(units, few, baseline=effort.baseline)
    synthesis = (effort.steps, effort.size, effort.seed, effort.facets)
    if effort.facets:
        contrast = faint_contrast(study.model, dataset, effort.contrast_quantile, CONTRAST_IMAGES)
        look = {"smoothness": effort.smoothness, "contrast": contrast}
    for position, unit in enumerate(units):
        channel = unit.channel
        pair = render_pair(unit, *synthesis, **look) if effort.facets else None
        yield Card(
            unit=unit,
            title=card_title(study, channel),
            decisions=_of(study.decisions, channel).set_index("reading", drop=False),
            context=_of(study.context, channel),
            responses=study.responses[:, channel],
            pair=pair,
            patches=_patches(study, channel, effort.shown),
            images=_images(study, channel, effort.shown),
            evidence=_evidence(unit, position, screened, few, shown, effort) if count else None,
            effects=_of(study.effects, channel),
            shape=study.shape.loc[channel],
            copies=study.copies,
            effort=effort,
            about=about,
            patch=study.setting.patch,
            naming=named.get(channel),
        )


def _of(table: pd.DataFrame, channel: int) -> pd.DataFrame:
    return table[table["unit"] == channel].reset_index(drop=True)


def card_title(study: LayerStudy, channel: int) -> str:
    """Layer and channel; for an output of a network with the dataset's classes the class's name, too."""
    names = getattr(study.images, "class_names", [])
    return full_name(study.layer, channel, names, study.responses.shape[1])


def _patches(study: LayerStudy, channel: int, shown: int) -> dict[str, Extreme]:
    pixels = study.book.crops(study.images, channel)
    sides = {}
    for side, crops in zip(SIDES, pixels, strict=True):
        found = getattr(study.book, side)
        sides[side] = Extreme(
            crops[:shown],
            found.response[channel, :shown].tolist(),
            patch_labels(study.images, found, channel, shown),
        )
    return sides


def _images(study: LayerStudy, channel: int, shown: int) -> dict[str, Extreme]:
    own = study.responses[:, channel]
    order = np.argsort(own, kind="stable")
    normalisation = study.images.normalisation
    sides = {}
    for side, chosen in (("highest", order[::-1][:shown].copy()), ("lowest", order[:shown])):
        pixels = study.images.take(chosen)
        sides[side] = Extreme(
            normalisation.undo(pixels) if normalisation else pixels,
            own[chosen].tolist(),
            image_labels(study.images, chosen.tolist()),
        )
    return sides


def _evidence(unit: Unit, position: int, screening: Screening, few, columns: Columns, effort: CardOptions):
    responses = screening.response[:, position]
    split: TargetSplit = target_split(unit, few, responses, outputs=screening.outputs)
    inputs = (
        top_target_inputs(screening.presence[:, position], split, effort.maps),
        top_absence_inputs(screening.absence[:, position], split, effort.maps),
    )
    target, other = (
        draw_maps(unit, few, chosen, columns, effort.method, baseline=effort.baseline) for chosen in inputs
    )
    classes = _classes(screening, position, responses, columns)
    classes["own"] = [split.by == f"class '{name}'" for name in classes["name"]]
    return Evidence(target, other, split.by, classes, columns.overlap)


def _classes(screening: Screening, position: int, responses: Tensor, columns: Columns) -> pd.DataFrame:
    """What suppresses the unit, class by class; classes with too few images are left out, where others have more."""
    matrix = absence_matrix(screening, columns.membership, columns.names, contrast=columns.overlap)
    member = torch.as_tensor(columns.membership).bool()
    table = pd.DataFrame({
        "name": columns.names,
        "images": member.sum(dim=0).numpy(),
        "response": [responses[inside].mean().item() if inside.any() else np.nan for inside in member.T],
    })  # fmt: skip
    table.insert(2, "absence", table["name"].map(matrix.iloc[position]).astype(float))
    if len(table) == 1:
        return table.iloc[:0]
    least = min(FEWEST_IN_CLASS, table["images"].max())
    table = table[table["images"] >= least]
    return table.sort_values("absence", ascending=False, kind="stable", ignore_index=True)


def card_numbers(card: Card) -> pd.DataFrame:
    """The numbers on a card, one a row: panel, item, value, low, high (NaN where there is no interval)."""
    rows = [
        (f"effect, {row.reading}", row.control, row.value, row.low, row.high)
        for row in card.effects.itertuples()
    ]
    rows += [
        (f"context, {row.reading}", "on - off", row.context, row.low, row.high)
        for row in card.context.dropna(subset=["context"]).itertuples()
    ]
    if card.naming:
        rows += [
            ("concept put in", row.concept, row.effect, row.low, row.high)
            for row in card.naming.concepts.itertuples()
        ]
    quantiles = {"lowest": 0, "median": 0.5, "highest": 1}
    rows += [
        ("response", f"{name} of the images", float(np.quantile(card.responses, at)), np.nan, np.nan)
        for name, at in quantiles.items()
    ]
    rows += _shape_numbers(card)
    for side in SIDES:
        for what, found in (("patch", card.patches), ("image", card.images)):
            rows += [
                (f"{side} {what}", str(rank + 1), response, np.nan, np.nan)
                for rank, response in enumerate(found[side].response)
            ]
        if card.pair:
            facets = getattr(card.pair, side).response.tolist()
            rows += [
                (f"synthesised, {side}", str(n + 1), value, np.nan, np.nan) for n, value in enumerate(facets)
            ]
    if card.evidence:
        for kind, maps in (("target", card.evidence.target), ("non-target", card.evidence.other)):
            name = f"completeness gap, {kind} input"
            rows += [(name, str(rank + 1), gap, np.nan, np.nan) for rank, gap in enumerate(maps.gap.tolist())]
        shown = card.evidence.classes[["name", "absence"]].itertuples(index=False)
        rows += [("absence evidence by class", name, value, np.nan, np.nan) for name, value in shown]
    table = pd.DataFrame(rows, columns=["panel", "item", "value", "low", "high"])
    table.insert(0, "unit", card.channel)
    return table


def _shape_numbers(card: Card) -> list[tuple]:
    """Rows of the shape of the response; of random copies median, 5th and 95th percentile of their units."""
    shape, panel, none = card.shape, "shape of the response", (np.nan, np.nan)
    own = {"skewness": (shape["skewness_low"], shape["skewness_high"]), "share_below": none}
    rows = []
    for name, interval in own.items():
        low, middle, high = card.copies[name].quantile([0.05, 0.5, 0.95])
        item = name.replace("_", " ")
        rows += [(panel, item, shape[name], *interval), (panel, f"{item}, random copies", middle, low, high)]
        rows.append((panel, f"{item}, percentile among random copies", shape[f"{name}_percentile"], *none))
    marks = {"blank": "blank", "sd": "sd", "blank_percentile": "blank, percentile of the images"}
    marks |= {"p5_sd": "5th percentile from the blank, sd", "p95_sd": "95th percentile from the blank, sd"}
    marks |= {"lowest_sd": "lowest from the blank, sd", "highest_sd": "highest from the blank, sd"}
    return rows + [(panel, item, shape[name], *none) for name, item in marks.items()]
