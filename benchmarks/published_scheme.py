"""The published way to find extreme patches, written plainly: the yardstick for results, time and memory.

One image at a time; all its windows run through the whole network, where a hook reads the layer; the best patches so
far are kept as pixels for every unit, and sorted anew together with the windows of every image.
"""

import torch
from torch import nn


class Kept:
    """The k best of every unit: response [unit, k] and pixels [unit, k, channel, patch, patch]."""

    def __init__(self, k: int, sign: int):
        self.k, self.sign, self.response, self.pixels = k, sign, None, None

    def sort_in(self, response, pixels):
        """Response [unit, window] of windows [window, channel, patch, patch]."""
        pixels = pixels.expand(len(response), *pixels.shape)
        if self.response is not None:
            response = torch.cat((self.response, response), dim=1)
            pixels = torch.cat((self.pixels, pixels), dim=1)
        order = (self.sign * response).sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        self.response = response.gather(1, order)
        self.pixels = pixels[torch.arange(len(response))[:, None], order]


@torch.no_grad()
def published_scheme(model: nn.Module, layer: str, dataset, patch: int, stride: int, k: int):
    """(highest, lowest), each `Kept`; the response is the layer's output averaged over space."""
    model.eval()
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(lambda *args: seen.append(args[2].clone()))
    highest, lowest = Kept(k, 1), Kept(k, -1)
    for number in range(len(dataset)):
        image = dataset[number][0].to(next(model.parameters()).device)
        windows = image.unfold(1, patch, stride).unfold(2, patch, stride)
        windows = windows.permute(1, 2, 0, 3, 4).reshape(-1, len(image), patch, patch)
        model(windows)
        response = seen.pop().mean(dim=(2, 3)).T
        highest.sort_in(response, windows)
        lowest.sort_in(response, windows)
    hook.remove()
    return highest, lowest
