"""Compiled networks: rules written into the weights by hand, so that every right answer is known exactly.

A trained network can only be compared with what it was meant to learn. These are *compiled*: their weights are the
rule. Concepts are squares of lit pixels at fixed places that never overlap, so an image follows from a presence
vector, any two vectors that differ in one concept render to an exact counterfactual pair, and all vectors of a network
can be enumerated. All networks share one form,

    pixels -> concepts (mean over each mask, 0..1) -> hidden (the rule) -> relu -> output

and are read like this: in `hidden`, a row is a hidden unit and a column a concept. AND is `a + b - 1` rectified, NOT
is `1 - b`, and a veto is the rectified AND with a negative weight in `output`. The straight path from black to an image
may cross the kink of a rectifier but never runs along it, where rounding alone would decide about the gradient.

Two look like an absence and are none: "only the bias" and "superposed decoy". A method that reports them is wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.images.base import IDENTITY

SIZE, EDGE = 6, 2  # pixels: edge of an image, edge of a concept
CELLS = (0, 8, 2, 6, 4, 1, 7, 3, 5)  # of the 3 x 3 grid, row by row; far apart first: a blur mixes little
LETTERS = "ABCDEFGHI"


@dataclass(frozen=True, eq=False)
class Compiled:
    """A hand-compiled network with its inputs and its known answers.

    Attributes:
        model: in eval mode, without gradients of its own. Input [batch, 1, height, width] in 0..1, not normalised;
            output [batch, unit], signed. The layer `hidden`, where there is one, is read before its rectification.
        concepts: names, in the order of all concept axes.
        masks: [concept, height, width] bool, disjoint: the pixels that are lit where the concept is present.
        threshold: a unit, hidden or output, fires where its response is above it.
        capacity: the outputs keep to their rules while at most that many concepts are shown; None: always.
    """

    model: nn.Module
    concepts: tuple[str, ...]
    masks: Tensor
    threshold: float = 0.0
    capacity: int | None = None

    def render(self, presence: Tensor) -> Tensor:
        """Images of presence vectors: [batch, concept] bool -> [batch, 1, height, width], pixels 0 or 1.

        Raises:
            InputError: presence is not [batch, concept] bool.
        """
        count = len(self.concepts)
        if not isinstance(presence, Tensor) or presence.dtype != torch.bool or presence.ndim != 2:
            raise InputError("presence", "it is not a [batch, concept] tensor of bool", "Give truth values.")
        if presence.shape[1] != count:
            problem = f"{presence.shape[1]} columns for the {count} concepts {', '.join(self.concepts)}"
            raise InputError("presence", problem, "Give one column for each concept.")
        return torch.einsum("bc,chw->bhw", presence.float(), self.masks.float())[:, None]

    def present(self, *names: str) -> Tensor:
        """The presence vector of an image that shows these concepts and no other: [1, concept] bool.

        Raises:
            InputError: no such concept.
        """
        for name in names:
            require_choice("names", name, self.concepts)
        return torch.tensor([[concept in names for concept in self.concepts]])

    def pairs(self, concept: str) -> tuple[Tensor, Tensor]:
        """All exact counterfactual pairs of a concept, up to the capacity: images that show it, and the same without.

        Returns:
            Twice [pair, 1, height, width].

        Raises:
            InputError: no such concept.
        """
        require_choice("concept", concept, self.concepts)
        added = self.present(concept)
        every = torch.tensor(list(product([False, True], repeat=len(self.concepts))))
        fits = every.sum(dim=1) < (self.capacity or len(self.concepts))  # one more comes in
        hidden = every[fits & ~(every & added).any(dim=1)]
        return self.render(hidden | added), self.render(hidden)


# -- the networks


def a() -> Compiled:
    """A: fires where A is present; B is there for comparison and is not read. Output [batch, 1], 0 or 1."""
    return _compiled(("A", "B"), hidden=[[1, 0]], bias=[0], output=[[1]])


def not_b() -> Compiled:
    """Not B: fires unless B is present, whatever else is: a local absence. Output [batch, 1], 0 or 1."""
    return _compiled(("A", "B"), hidden=[[0, -1]], bias=[1], output=[[1]])


def a_and_not_b() -> Compiled:
    """A and not B as "A" minus "A and B": a veto, for B has nothing to take away where A is absent.

    Output [batch, 1], 0 or 1. The hidden units encode presences only; the absence arises in the negative weight
    of the output, where no rectifier hides it from gradients.
    """
    concepts = ("A", "B")
    hidden = [[1, 0],  # A
              [1, 1]]  # A and B  # fmt: skip
    return _compiled(concepts, hidden, bias=[0, -1], output=[[1, -1]])


def a_and_not_b_rectified() -> Compiled:
    """The same rule as relu(a - 2 b): where B is present, the rectifier is shut and passes no gradient at all.

    Output [batch, 1], 0 or 1: a veto no gradient sees. The hidden unit before the rectifier is additive, so there
    B is a local absence in plain view: the reason why this package reads units before their nonlinearity.
    """
    return _compiled(("A", "B"), hidden=[[1, -2]], bias=[0], output=[[1]])


def a_xor_b() -> Compiled:
    """A xor B as a + b minus twice "A and B": each concept vetoes the other.

    Output [batch, 1], 0 or 1. Adding A raises the output by 1 without B and lowers it by 1 with B, so the average
    effect is 0 although half of the contexts show an absence: averages over contexts hide it.
    """
    concepts = ("A", "B")
    hidden = [[1, 1],  # how many of A and B
              [1, 1]]  # A and B  # fmt: skip
    return _compiled(concepts, hidden, bias=[0, -1], output=[[1, -2]])


def count_below_k(k: int = 2, n: int = 4) -> Compiled:
    """Count below k: fires while fewer than k of n concepts are present.

    Output [batch, 1], 0 or 1: the rectified k - count minus the rectified k - 1 - count. A concept lowers it only as
    the k-th one, so at the output each is a veto, with effect -(n-1 choose k-1) / 2**(n-1); in the hidden units,
    which count down one by one, each is a local absence.

    Args:
        k: from 1 ("none of them") to n ("not all of them").
        n: number of concepts, 2 to 9.

    Raises:
        InputError: k or n out of range.
    """
    if not 2 <= n <= len(LETTERS):
        raise InputError("n", f"{n} concepts", f"Use 2 to {len(LETTERS)}: that many places the image has.")
    if not 1 <= k <= n:
        raise InputError("k", f"{k} of {n} concepts", f"Use 1 to {n}.")
    concepts = tuple(LETTERS[:n])
    hidden = [[-1] * n,  # k - count
              [-1] * n]  # k - 1 - count  # fmt: skip
    return _compiled(concepts, hidden, bias=[k, k - 1], output=[[1, -1]])


def a_left_of_b() -> Compiled:
    """A left of B: an opponent detector of order, after Hassenstein and Reichardt's motion detector (1956).

    Output [batch, 1]: 1 for A left and B right, -1 for A right and B left, 0 for both orders or none. One half
    detects the order, the mirrored half its opposite, and the output is their difference. Concepts are placements,
    so an image may show A at both places.
    """
    concepts = ("A left", "A right", "B left", "B right")
    hidden = [[1, 0, 0, 1],  # A left and B right
              [0, 1, 1, 0]]  # A right and B left  # fmt: skip
    # A above, B below, so that no placement covers another
    return _compiled(concepts, hidden, bias=[-1, -1], output=[[1, -1]], cells=(0, 2, 6, 8))


def only_the_bias() -> Compiled:
    """Only the bias: fires at 1 with nothing shown, as "not B" does, but no concept lowers it.

    Output [batch, 1]: 1 + a / 2. A response without evidence is not yet an absence: only showing B tells the two apart.
    """
    return _compiled(("A", "B"), hidden=[[0.5, 0]], bias=[1], output=[[1]])


def superposed_decoy() -> Compiled:
    """Superposed decoy: three concepts in a plane, 120 degrees apart, each read along its own direction.

    Output [batch, 3] for A, B and C: 1 for the concept itself minus 1/2 for each other one. An output above 1/4 tells
    its concept exactly while at most two are present; all three cancel to nothing. The rule of output A does not ask
    for B, yet B lowers it: interference (Elhage et al., Toy Models of Superposition, 2022), not an encoded absence. The
    change alone cannot tell. That A with B still gives 1/2, which is above 1/4, can.
    """
    concepts = ("A", "B", "C")
    directions = [[1, 0], [-1 / 2, 3**0.5 / 2], [-1 / 2, -(3**0.5) / 2]]  # [concept, axis of the plane]
    masks = _masks(CELLS[:3])
    model = _sequence(
        concepts=_linear(_means(masks)),
        plane=_linear([list(axis) for axis in zip(*directions, strict=True)]),
        readout=_linear(directions),
    )
    return Compiled(model, concepts, masks, threshold=1 / 4, capacity=2)


COMPILED: dict[str, Callable[[], Compiled]] = {
    "A": a,
    "not B": not_b,
    "A and not B": a_and_not_b,
    "A and not B, rectified": a_and_not_b_rectified,
    "A xor B": a_xor_b,
    "count below k": count_below_k,
    "A left of B": a_left_of_b,
    "only the bias": only_the_bias,
    "superposed decoy": superposed_decoy,
}


# -- how they are built


def _compiled(concepts, hidden, bias, output, cells=CELLS) -> Compiled:
    masks = _masks(cells[: len(concepts)])
    model = _sequence(
        concepts=_linear(_means(masks)), hidden=_linear(hidden, bias), relu=nn.ReLU(), output=_linear(output)
    )
    return Compiled(model, concepts, masks)


def _masks(cells: Sequence[int]) -> Tensor:
    masks = torch.zeros(len(cells), SIZE, SIZE, dtype=torch.bool)
    for mask, cell in zip(masks, cells, strict=True):
        top, left = (EDGE * place for place in divmod(cell, SIZE // EDGE))
        mask[top : top + EDGE, left : left + EDGE] = True
    return masks


def _means(masks: Tensor) -> list[list[float]]:
    """Weights that take the mean over each mask: [concept, pixel]."""
    return (masks.flatten(1) / EDGE**2).tolist()


def _linear(weight: Sequence[Sequence[float]], bias: Sequence[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    layer.weight.data = torch.tensor(weight, dtype=torch.float32)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=torch.float32)
    return layer


def _sequence(**layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(OrderedDict(flatten=nn.Flatten(), **layers)).eval().requires_grad_(False)
    model.normalisation = IDENTITY  # else a network without convolutions is taken for one of ImageNet's
    return model
