"""How much work a study and its cards are worth: one word in the place of a dozen numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .cards import CardOptions

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

    def card_for(self, edge: int, seed: int) -> CardOptions:
        """The card's options for images of `edge` px."""
        if edge >= COARSE:
            return replace(self.card, size=edge, seed=seed)
        steps = min(self.card.steps, COARSE_STEPS)
        return replace(self.card, size=edge, seed=seed, steps=steps, smoothness=10.0)


EFFORTS = {
    "full": Effort(),
    "atlas": Effort(card=CardOptions(steps=64, facets=1, maps=2, evidence_images=192)),
    "quick": Effort(48, 2, 8, 16, CardOptions(shown=3, steps=8, facets=1, maps=1, evidence_images=24)),
}
