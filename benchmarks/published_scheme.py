"""Mining as the authors release it (visinf/what-is-missing, imagenet/utils.py): the yardstick of time and memory.

One image at a time: all its windows run through the whole network, where a hook reads the layer. The k highest and
the k lowest windows of this image are found first; then they are merged with the k kept so far, so that 2k candidates
of a unit are compared. What is kept are pixels, for every unit.
"""

import torch
from torch import nn


class Kept:
    """The k best of every unit: response [unit, k] and pixels [unit, k, channel, patch, patch]."""

    def __init__(self, k: int, largest: bool):
        self.k, self.largest, self.response, self.pixels = k, largest, None, None

    def merge(self, response, windows):
        """Response [window, unit] of windows [window, channel, patch, patch], all of one image."""
        response, window = response.topk(self.k, dim=0, largest=self.largest)
        response, pixels = response.T, windows[window.T]
        if self.response is not None:
            response = torch.cat((self.response, response), dim=1)
            pixels = torch.cat((self.pixels, pixels), dim=1)
            response, order = response.topk(self.k, dim=1, largest=self.largest)
            pixels = pixels[torch.arange(len(order), device=order.device)[:, None], order]
        self.response, self.pixels = response, pixels


@torch.no_grad()
def published_scheme(model: nn.Module, layer: str, dataset, patch: int, stride: int, k: int):
    """(highest, lowest), each `Kept`; the response is the layer's output averaged over space.

    An image has k windows or more.
    """
    model.eval()
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda *args: seen.append(args[2].mean(dim=(2, 3)))
    )
    highest, lowest = Kept(k, True), Kept(k, False)
    for number in range(len(dataset)):
        image = dataset[number][0].to(next(model.parameters()).device)
        windows = image.unfold(1, patch, stride).unfold(2, patch, stride)
        windows = windows.permute(1, 2, 0, 3, 4).reshape(-1, len(image), patch, patch)
        model(windows)
        response = seen.pop()
        highest.merge(response, windows)
        lowest.merge(response, windows)
    hook.remove()
    return highest, lowest
