"""Input x gradient: the cheapest signed attribution, one backward pass. Needs no captum."""

from __future__ import annotations

import torch
from torch import Tensor


def input_x_gradient(
    outputs: Tensor, images: Tensor, chosen: int | Tensor, *, create_graph: bool = False
) -> Tensor:
    """images x gradient of one output of each image, signed: positive is presence, negative absence evidence.

    Complete to first order only; for a network without biases it equals integrated gradients from an empty image.
    Seen from a baseline the input is the difference to it: make outputs from `baseline + change`, give `change`.

    Args:
        outputs: [batch, output], made from `images`. Their graph is kept, for other outputs.
        images: [batch, channel, height, width] that require a gradient.
        chosen: number of the output, one for all or [batch].
        create_graph: whether the result can be differentiated, as for a penalty in training.

    Returns:
        [batch, channel, height, width].
    """
    picked = outputs[:, chosen] if isinstance(chosen, int) else outputs.gather(1, chosen[:, None])
    (gradient,) = torch.autograd.grad(picked.sum(), images, retain_graph=True, create_graph=create_graph)
    return images * gradient if create_graph else images.detach() * gradient
