"""How much work a study and its cards are worth: one word in the place of a dozen numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from absence_utils.models.random_weights import random_copy

from .cards import CardOptions
from .study import LayerStudy, auto_config, few_images, parse_units, study_layer

COARSE = 128  # px; networks of smaller images are driven by fine gratings, so that syntheses are smoothed
COARSE_STEPS = 64  # of their syntheses, at most: more steps make the same picture, with more contrast


@dataclass(frozen=True)
class Effort:
    """Attributes:
    hosts: most images that patches are pasted into.
    copies, null_units: copies with random weights, and units of them together.
    most: units studied where not all are asked for, evenly spread; a decision is corrected for them.
    card: what goes onto a card.
    """

    hosts: int = 192
    copies: int = 4
    null_units: int = 64
    most: int = 64
    card: CardOptions = CardOptions()

    def study(
        self,
        model: nn.Module,
        layer: str | None,
        dataset,
        *,
        patch: int = 0,
        unit: str = "auto",
        seed: int = 0,
    ) -> LayerStudy:
        """Study a layer with as much work: `study_layer` with as many images, units and copies with random weights.

        Args:
            model, layer, dataset: see `study_layer`.
            patch: edge of a patch in px, 0 for a quarter of the images' edge.
            unit: "auto" for `most` units of the layer, "all", or channels as "3, 14", and others up to `most`.
            seed: of images, patches and random weights.

        Raises:
            InputError: as `study_layer` and `parse_units`.
        """
        setting = auto_config(len(dataset), _edge(dataset), patch, hosts=self.hosts, seed=seed)
        few = few_images(dataset)
        copies = [random_copy(model, seed + 1 + number, images=few) for number in range(self.copies)]
        most = 0 if unit == "all" else self.most
        size = {"most": most, "null_units": self.null_units}
        return study_layer(model, layer, dataset, setting, copies, units=parse_units(unit), **size)

    def card_options(self, dataset, seed: int) -> CardOptions:
        """The card's options for the images of a dataset."""
        return self.card_for(_edge(dataset), seed)

    def card_for(self, edge: int, seed: int) -> CardOptions:
        """The card's options for images of `edge` px."""
        if edge >= COARSE:
            return replace(self.card, size=edge, seed=seed)
        steps = min(self.card.steps, COARSE_STEPS)
        return replace(self.card, size=edge, seed=seed, steps=steps, smoothness=10.0)


def _edge(dataset) -> int:
    """The shorter side of the images, px."""
    return min(dataset[0][0].shape[1:])


EFFORTS = {
    "full": Effort(),
    "atlas": Effort(card=CardOptions(steps=64, facets=1, maps=2, evidence_images=192)),
    "quick": Effort(48, 2, 8, 16, CardOptions(shown=3, steps=8, facets=1, maps=1, evidence_images=24)),
}
