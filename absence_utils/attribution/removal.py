"""Take something out of images and see what the network makes of the rest."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_shape
from absence_utils.models.training import predict
from absence_utils.units import Unit

from .methods import attribute

TREATMENTS = ("most negative", "random", "most positive")


def remove_pixels(
    images: Tensor,
    score: Tensor,
    count: int | Tensor,
    *,
    among: Tensor | None = None,
    background: float = 0.0,
) -> Tensor:
    """Set the `count` pixels of lowest score to the background.

    Args:
        images: [batch, channel, height, width].
        score: [batch, height, width]. A signed attribution map removes what speaks against the unit first,
            its negative what speaks for it. Of equal scores the one further up, then further left, goes
            first.
        count: how many pixels of each image, one number or [batch].
        among: bool [batch, height, width], the only pixels that may be removed; all by default.
        background: value that means "nothing there", in the units of the images.

    Returns:
        A new tensor like `images`. Where fewer than `count` pixels may be removed, all of those are.

    Raises:
        InputError: shapes that disagree, a negative count.
    """
    space = (len(images), *images.shape[-2:])
    for name, values in (("score", score), ("among", among)):
        if values is not None:
            require_shape(name, values, *space)
    count = torch.as_tensor(count).expand(len(images))
    if (count < 0).any():
        raise InputError("count", f"{int(count.min())} pixels", "Use 0 or more.")
    allowed = torch.ones_like(score, dtype=torch.bool) if among is None else among
    rank = score.masked_fill(~allowed, float("inf")).flatten(1).argsort(dim=1, stable=True).argsort(dim=1)
    gone = (rank.view(space) < count[:, None, None].to(rank.device)) & allowed
    return images.masked_fill(gone[:, None], background)


def removal_scores(
    model: nn.Module, images: Tensor, unit: int, seed: int, draws: int
) -> dict[str, list[Tensor]]:
    """What each treatment removes first: treatment -> scores [batch, height, width] for `remove_pixels`.

    The attribution is input x gradient: for a network without biases the same as integrated gradients from
    an empty image. "random" has `draws` scores, the others one.
    """
    attribution = attribute(Unit(model, channel=unit), images, "input_x_gradient").sum(1)
    generator = torch.Generator().manual_seed(seed)
    chance = [torch.rand(attribution.shape, generator=generator).to(attribution) for _ in range(draws)]
    return dict(zip(TREATMENTS, ([attribution], chance, [-attribution]), strict=True))


def _strokes(images: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Stroke pixels [batch, height, width], those above the background, and how many the share makes."""
    if not 0 <= share <= 1:
        raise InputError("shares", f"{share} is outside 0..1", "Give shares of the stroke pixels.")
    strokes = (images > 0).any(dim=1)
    return strokes, (share * strokes.sum(dim=(1, 2))).round().long()


def remove_strokes(
    model: nn.Module, images: Tensor, unit: int, share: float, *, seed: int = 0
) -> dict[str, Tensor]:
    """Images [batch, 1, height, width] after each of `TREATMENTS`, one random draw: treatment -> images."""
    strokes, count = _strokes(images, share)
    scores = removal_scores(model, images, unit, seed, draws=1)
    return {name: remove_pixels(images, way, count, among=strokes) for name, (way,) in scores.items()}


def removal_table(
    model: nn.Module,
    images: Tensor,
    source: int,
    unit: int,
    shares: list[float],
    *,
    seed: int = 0,
    draws: int = 20,
) -> pd.DataFrame:
    """Remove stroke pixels from images of class `source` and ask whether the network now sees class `unit`.

    Three treatments remove the same number of stroke pixels from the same images: the most negative and the
    most positive ones of the attribution of class `unit` (see `removal_scores`), and random ones, drawn
    `draws` times. Images that the network does not recognise as `source` to begin with are left out.

    Args:
        images: [n, 1, height, width], background 0, all of class `source`, held out from training.
        shares: of the stroke pixels of each image, in 0..1; their number is rounded.

    Returns:
        One row for each image, treatment and share: image (index), treatment, share, removed (pixels),
        flipped (1 if the network sees `unit`, 0 if not; for random the mean over draws).

    Raises:
        InputError: a share outside 0..1, or no image that the network recognises.
    """
    index = (predict(model, images).argmax(1) == source).nonzero()[:, 0]
    if len(index) == 0:
        raise InputError("images", f"the network recognises none as {source}", "Train it, or pass others.")
    images = images[index]
    rows = []
    scores = removal_scores(model, images, unit, seed, draws)
    for share in shares:
        strokes, count = _strokes(images, share)
        for treatment, ways in scores.items():
            left = torch.cat([remove_pixels(images, way, count, among=strokes) for way in ways])
            flipped = (predict(model, left).argmax(1) == unit).float().view(len(ways), -1).mean(0)
            record = {"image": index, "treatment": treatment, "share": share, "removed": count.cpu()}
            rows.append(pd.DataFrame({**record, "flipped": flipped}))
    return pd.concat(rows, ignore_index=True)
