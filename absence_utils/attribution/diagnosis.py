"""Why is my map all negative? The bookkeeping of one prediction, against several baselines.

An attribution explains a difference. For a unit f, an image x and a baseline b,

    f(x) = f(b) + presence evidence - absence evidence + gap

with the evidence summed over the image. A map that is all negative, or empty, under a high response is no error: the
response is then what the baseline gave, minus what the image took away. Which of the terms carries a prediction
depends on the baseline, so the question is put to several, and where they disagree that is the answer.

What one prediction cannot tell: whether a response that comes from the baseline is an encoded absence or only a bias,
and whether negative evidence is part of a rule or interference. So no verdict says it; both need the concept to be
shown, see `counterfactuals`. Nor whether the response is high for this unit, for which its other responses are needed.
And no gradient finds evidence behind a rectifier that is shut along the whole path: diagnose the unit before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

from absence_utils.display import one_line
from absence_utils.errors import InputError, require_choice, require_shape
from absence_utils.images.base import Normalisation
from absence_utils.units import Unit

from .baselines import BASELINES, baseline_images
from .evidence import region_sums
from .methods import attribute

DIAGNOSIS_BASELINES = ("black", "mean", "strongly blurred")

# Thresholds of the verdict, all but the first as shares of the scale, see `diagnose`.
# Units of the layer: float32 rounds sums of numbers around 1 to about that.
SILENT = 1e-6
# As LOW, which a larger gap could cross. Integrated gradients keeps to a tenth of that, or warns.
GAP_SHARE = 0.1
# A response that small is a cancellation: with f(b) = 0, absence evidence takes 9/11 of the presence evidence or more.
LOW = 0.1
# A fifth: grey and blurred baselines show a little of every concept, and gaining or losing that is mostly less.
EVIDENCE = 0.2

VERDICTS = ("presence-driven", "baseline-driven", "outweighed", "held down", "silent", "undecided")
DEPENDS = "depends on the baseline"


@dataclass(frozen=True)
class Decomposition:
    """One prediction against one baseline; all but the last two in the units of the layer.

    response = baseline_response + presence - absence + gap.

    Attributes:
        baseline: its name.
        response: f(x), signed.
        baseline_response: f(b), signed.
        presence, absence: positive and negative evidence, both >= 0.
        gap: what the attribution misses of f(x) - f(b); minus `attribution.completeness_gap`.
        baseline_share: |f(b)| / (presence + absence + |f(b)|), 0 to 1: how much of the account is the baseline and
            not evidence; 0 if all are 0.
        verdict: one of `VERDICTS`, see `diagnose`.
    """

    baseline: str
    response: float
    baseline_response: float
    presence: float
    absence: float
    gap: float
    baseline_share: float
    verdict: str


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The accounts of one prediction.

    Attributes:
        unit: its name.
        rows: one `Decomposition` for each baseline, in the order asked for.
        maps: [baseline, channel, height, width], the attributions behind them, signed.
        verdict: over all baselines, see `diagnose`.
    """

    unit: str
    rows: tuple[Decomposition, ...]
    maps: Tensor
    verdict: str

    __repr__ = one_line

    def table(self) -> pd.DataFrame:
        """One row for each baseline, columns as in `Decomposition`."""
        return pd.DataFrame([asdict(row) for row in self.rows])


def diagnose(
    unit: Unit,
    image: Tensor,
    baselines: Sequence[str] | Mapping[str, Tensor] = DIAGNOSIS_BASELINES,
    method: str | Callable = "integrated_gradients",
    *,
    normalisation: Normalisation | None = None,
    regions: int | None = 4,
    **options,
) -> Diagnosis:
    """Say where the response to one image comes from: its evidence, its absence evidence or the baseline.

    The verdict on one baseline weighs all terms against the scale S = presence + absence + |f(b)|, so multiplying the
    unit by a positive number changes nothing. The first line that holds is the verdict:

    - silent: S and |f(x)| <= SILENT, nothing speaks for or against the unit
    - undecided: |gap| > GAP_SHARE S, the attribution explains something else than the response
    - presence-driven: f(x) > LOW S, presence >= f(b); the response is there, and most of what speaks for it is seen
    - baseline-driven: f(x) > LOW S, presence < f(b); it is there although little or nothing speaks for it: it comes
      from the baseline (an encoded absence, or only a bias)
    - outweighed: presence > EVIDENCE S, and absence >= presence - LOW S; something speaks for the unit, and absence
      evidence (an encoded absence, or interference) outweighs it
    - held down: absence > EVIDENCE S and >= presence - LOW S; hardly anything speaks for the unit, and absence
      evidence (likewise) takes what the baseline gave, or goes below it
    - silent: otherwise; the response is low for lack of evidence, and no absence evidence is seen that is the reason

    Over all baselines: "undecided" if one is; else the common verdict; else "depends on the baseline". What is in
    brackets above is told apart by showing concepts: `counterfactual_effects`, then `resolve_verdict`.

    Args:
        unit: any unit, read before its nonlinearity (`Unit.signed` for an output that ends in one).
        image: [channel, height, width] or a batch of one, normalised as the network expects.
        baselines: names out of `attribution.BASELINES`, see `attribution.baseline_images`; or {name: [channel, height,
            width]} of your own, normalised as well.
        method: see `attribution.attribute`; one that is not complete soon gives "undecided".
        normalisation: of the image, which says what black is; by default the network's own.
        regions: evidence is summed over that many squares along the longer side before its sign is read, see
            `attribution.region_sums`: single pixels of one object alternate in sign. None: every value by itself.
        options: of the method, and batch_size.

    Returns:
        A `Diagnosis`; nothing in it needs gradients, and the network is left as found.

    Raises:
        InputError: more than one image; no or unknown baselines, or of the wrong shape; a normalisation with another
            number of channels; a response or evidence that is not finite; what `attribute` refuses.

    Source: the account is the completeness axiom of Sundararajan, Taly and Yan (Axiomatic attribution for deep nets,
    2017), absence evidence the paper's. The rules of the verdict are this package's own.
    """
    images = _one_image(image)
    if "baseline" in options:
        raise InputError("baseline", "a diagnosis needs several", "Give `baselines`, a sequence or a dict.")
    given = _baselines(unit, images, baselines, normalisation)
    references = torch.cat(list(given.values()))
    with torch.no_grad():
        read = unit.response(torch.cat([images, references]))
    response, *at_baseline = read.double().tolist()
    rows, maps = [], []
    for name, reference, start in zip(given, references, at_baseline, strict=True):
        signed = attribute(unit, images, method, baseline=reference, **options)
        evidence = signed if regions is None else region_sums(signed, regions)
        evidence = evidence.double()
        presence, absence = float(evidence.clamp(min=0).sum()), float(evidence.clamp(max=0).neg().sum())
        rows.append(decompose(name, response, start, presence, absence))
        maps.append(signed)
    return Diagnosis(unit.name, tuple(rows), torch.cat(maps), _overall([row.verdict for row in rows]))


def decompose(
    baseline: str, response: float, baseline_response: float, presence: float, absence: float
) -> Decomposition:
    """Fill in gap, share and verdict of one baseline by the rules of `diagnose`; numbers in the units of the layer.

    Raises:
        InputError: presence or absence is negative, or a number is not finite.
    """
    numbers = (response, baseline_response, presence, absence)
    if not all(math.isfinite(number) for number in numbers) or min(presence, absence) < 0:
        problem = f"response, baseline response, presence and absence are {numbers}"
        remedy = (
            "All must be finite, and evidence >= 0: look for NaN in the image, the baseline and the network."
        )
        raise InputError("image", problem, remedy)
    gap = response - baseline_response - presence + absence
    scale = presence + absence + abs(baseline_response)
    share = abs(baseline_response) / scale if scale else 0.0
    outweighed = absence >= presence - LOW * scale
    if max(scale, abs(response)) <= SILENT:
        verdict = "silent"
    elif abs(gap) > GAP_SHARE * scale:
        verdict = "undecided"
    elif response > LOW * scale:
        verdict = "presence-driven" if presence >= baseline_response else "baseline-driven"
    elif outweighed and presence > EVIDENCE * scale:
        verdict = "outweighed"
    elif outweighed and absence > EVIDENCE * scale:
        verdict = "held down"
    else:
        verdict = "silent"
    return Decomposition(baseline, response, baseline_response, presence, absence, gap, share, verdict)


def _overall(verdicts: list[str]) -> str:
    if "undecided" in verdicts:
        return "undecided"
    return verdicts[0] if len(set(verdicts)) == 1 else DEPENDS


def _one_image(image: Tensor) -> Tensor:
    """[1, channel, height, width]."""
    if isinstance(image, Tensor) and image.ndim == 3:
        image = image[None]
    require_shape("image", image, 1, "channel", "height", "width")
    return image


def _baselines(
    unit: Unit, images: Tensor, baselines, normalisation: Normalisation | None
) -> dict[str, Tensor]:
    """{name: [1, channel, height, width]}."""
    if isinstance(baselines, str) or not baselines:
        raise InputError("baselines", f"got {baselines!r}", f"Give one or more of {', '.join(BASELINES)}.")
    if isinstance(baselines, Mapping):
        for name, given in baselines.items():
            if not isinstance(given, Tensor) or given.shape not in (images.shape, images.shape[1:]):
                shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
                problem = f"{name!r} is {shape}, the image {tuple(images.shape[1:])}"
                raise InputError("baselines", problem, "Give [channel, height, width] for each name.")
        return {name: given.detach().to(images).view_as(images) for name, given in baselines.items()}
    for name in baselines:
        require_choice("baselines", name, BASELINES)
    return {name: baseline_images(unit, images, name, normalisation) for name in baselines}
