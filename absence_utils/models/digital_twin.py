"""Digital twins: networks that predict what recorded neurons answer, as one network that this package can read.

A twin has a core that all recordings share and a readout for each of them. It is called as
`model(images, data_key=...)` and predicts a firing rate, most often by ELU(x) + 1, which never goes below 0. Two things
follow. Suppression is squeezed between the response to the blank and 0. And the gradient is the response itself
wherever x is below 0: the better a neuron is suppressed, the weaker is the signal that says by what. The inverse takes
the response back to x, where suppression counts as excitation does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_utils.errors import InputError, brief, require_at_least, require_choice
from absence_utils.images.base import Normalisation, set_input_spec
from absence_utils.units import to_network

UNDO = ("elu+1", "nothing")


class DigitalTwin(nn.Module):
    """A digital twin, or an ensemble of twins, of the neurons of one recording: images to responses [batch, neuron].

    Several networks give the mean of their responses; a network that gives a response for each frame
    [batch, frame, neuron], the mean over frames. Then `undo` takes the mean back before the nonlinearity. This is a
    monotone change of scale: the same images are the most and the least exciting ones.

    Images are normalised by the mean grey, which is the blank: 0. They are squares of the longer edge of `size`, of
    which the twins see the centre, or have that size. (Synthesised images and those of `open_model` are squares.)
    The networks are taken as they are, in eval mode; nothing is copied.

    Args:
        models: one network or several, each called as `model(images, data_key=data_key)` with images
            [batch, channel, height, width], or [batch, channel, frame, height, width] for `frames` above 1.
        data_key: which readout.
        size: edge of the images that the networks take, or (height, width), px.
        mean, std: by which their images were normalised, for pixels in 0..1 (of 0..255: divided by 255); a number,
            or one for each channel.
        undo: "elu+1" where the networks end in ELU(x) + 1: the response is x, see `undo_elu`. "nothing" leaves it,
            and of a rate nothing below 0 can be seen.
        channels: of an image: 1 for grey, 2 for two colours of light, 3 for RGB.
        frames: of a clip. The frames of a channel stand side by side on the channel axis:
            images [batch, channel * frame, height, width], which is `clips.flatten(1, 2)`.
        mask: [height, width] in 0..1, the neurons' receptive field: outside it the networks see the blank.

    Attributes:
        field: [edge, edge], the mask with zeros where the square exceeds `size`.
        preprocessing: what `open_model` wants beside a network of still images, as a dict.
        signed_output: whether the output is read as it is where the signed output is asked for (layer "logits").

    Raises:
        InputError: names the parameter: no networks, an unknown data key, networks that fail on a blank image or
            differ in their number of neurons, a mask that does not fit, responses below 0 with "elu+1".
    """

    def __init__(
        self,
        models: nn.Module | Sequence[nn.Module],
        data_key: str | None,
        *,
        size: int | tuple[int, int],
        mean: float | Sequence[float],
        std: float | Sequence[float],
        undo: str,
        channels: int = 1,
        frames: int = 1,
        mask: Tensor | None = None,
    ):
        super().__init__()
        models = [models] if isinstance(models, nn.Module) else list(models)
        if not models or not all(isinstance(model, nn.Module) for model in models):
            kinds = ", ".join(type(model).__name__ for model in models) or "there are none"
            raise InputError("models", kinds, "Give an nn.Module, or a list of them for an ensemble.")
        require_choice("undo", undo, UNDO)
        require_at_least("channels", channels, 1)
        require_at_least("frames", frames, 1)
        self.height, self.width = (size, size) if isinstance(size, int) else size
        require_at_least("size", min(self.height, self.width), 1)
        self.models = nn.ModuleList(models)
        self.data_key, self.channels, self.frames = data_key, channels, frames
        self.signed_output = undo == "elu+1"
        means, stds = (_for_channels(name, each, channels) for name, each in (("mean", mean), ("std", std)))
        normalisation = Normalisation(
            *(tuple(v for v in each for _ in range(frames)) for each in (means, stds))
        )
        set_input_spec(self, normalisation, channels * frames)
        edge = max(self.height, self.width)
        self.preprocessing = {"mean": means, "std": stds, "size": edge, "resize": edge, "channels": channels}
        self.register_buffer("field", self._padded(_checked_mask(mask, self.height, self.width)))
        # Buffers are part of a network's fingerprint: the same weights with another readout are another network.
        settings = repr((data_key, undo, channels, frames, self.height, self.width))
        self.register_buffer("settings", torch.tensor(list(settings.encode()), dtype=torch.uint8))
        self.eval()._try_models()

    def forward(self, images: Tensor) -> Tensor:
        """Images [batch, channel * frame, height, width], normalised, to responses [batch, neuron]."""
        expected, edge = self.channels * self.frames, len(self.field)
        sizes = ((self.height, self.width), (edge, edge))
        if images.ndim != 4 or images.shape[1] != expected or tuple(images.shape[2:]) not in sizes:
            # No InputError: who tries sizes (`mine_patches`, `render_pair`) takes any other error for "not this one".
            known = " or ".join(f"[batch, {expected}, {h}, {w}]" for h, w in dict.fromkeys(sizes))
            raise ValueError(f"the twin takes images {known}, and got {tuple(images.shape)}")
        seen = self._centre(self.view(images))
        if self.frames > 1:
            seen = seen.unflatten(1, (self.channels, self.frames))
        responses = torch.stack([self._responses(model, seen) for model in self.models]).mean(0)
        return undo_elu(responses) if self.signed_output else responses

    def view(self, images: Tensor) -> Tensor:
        """Images [..., height, width], normalised, as the twin sees them: the blank outside mask and size."""
        whole = images.shape[-2:] == self.field.shape
        return images * (self.field if whole else self._centre(self.field)).to(images)

    def _responses(self, model: nn.Module, images: Tensor) -> Tensor:
        responses = model(images, data_key=self.data_key)
        return responses.mean(1) if responses.ndim == 3 else responses

    def _margins(self) -> tuple[int, int]:
        edge = max(self.height, self.width)
        return (edge - self.height) // 2, (edge - self.width) // 2

    def _padded(self, mask: Tensor) -> Tensor:
        (top, left), edge = self._margins(), max(mask.shape)
        return F.pad(mask, (left, edge - self.width - left, top, edge - self.height - top))

    def _centre(self, images: Tensor) -> Tensor:
        if images.shape[-2:] == (self.height, self.width):
            return images
        top, left = self._margins()
        return images[..., top : top + self.height, left : left + self.width]

    @torch.no_grad()
    def _try_models(self) -> None:
        """Send the blank through each network, so that what does not fit is an error now."""
        shape = (1, self.channels, self.frames, self.height, self.width)
        blank = to_network(self, torch.zeros(shape if self.frames > 1 else shape[:2] + shape[3:]))
        neurons = []
        for number, model in enumerate(self.models):
            try:
                found = model(blank, data_key=self.data_key)
            except Exception as error:  # a network of someone else's may raise anything
                if isinstance(error, KeyError) and error.args == (self.data_key,):
                    raise _unknown_key(self.data_key, model) from error
                problem = (
                    f"number {number} fails on a blank {tuple(blank.shape)} with data_key={self.data_key!r}"
                )
                remedy = "It is called as model(images, data_key=...): check `size`, `channels` and `frames`."
                raise InputError("models", f"{problem} ({brief(str(error), 160)})", remedy) from error
            if not isinstance(found, Tensor) or found.ndim not in (2, 3) or len(found) != 1:
                what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                remedy = "Wrap it so that it returns [batch, neuron] or [batch, frame, neuron]."
                raise InputError("models", f"number {number} returns {what} for one image", remedy)
            neurons.append(found.shape[-1])
        if len(set(neurons)) > 1:
            problem = f"they have {', '.join(map(str, neurons))} neurons for data_key={self.data_key!r}"
            raise InputError("models", problem, "Give networks that were trained on the same recording.")
        self(blank.flatten(1, -3))  # says whether responses are below the floor


def undo_elu(responses: Tensor) -> Tensor:
    """The exact inverse of ELU(x) + 1: log(y) for y below 1, y - 1 above.

    ELU(x) + 1 is exp(x) below 0. Its gradient there is the response itself, so that what suppresses a suppressed
    neuron hardly shows, and the inverse divides by just that. But a response that was rounded to 0 is lost: from the
    precision of the numbers on (x = -15.9 in single, -36.0 in double) the inverse stays there, without gradient.

    Args:
        responses: any shape, 0 or more.

    Raises:
        InputError: values below 0, which ELU(x) + 1 never gives.
    """
    if (responses < 0).any():
        problem = f"'elu+1', but a response is {responses.min().item():.4g}, below the floor of ELU(x) + 1, which is 0"
        raise InputError("undo", problem, "Give 'nothing' for networks that end otherwise.")
    least = torch.finfo(responses.dtype).eps
    return torch.where(responses > 1, responses - 1, responses.clamp(min=least).log())


def _for_channels(name: str, values, channels: int) -> tuple[float, ...]:
    values = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),) * channels
    if len(values) != channels:
        raise InputError(
            name, f"{len(values)} values for {channels} channels", "Give a number, or one for each."
        )
    if not all(0 <= value <= 1 for value in values) or name == "std" and 0 in values:
        problem = f"{values} is not of pixels in 0..1"
        raise InputError(name, problem, "Divide by 255 what was measured on grey levels; a std is above 0.")
    return values


def _checked_mask(mask: Tensor | None, height: int, width: int) -> Tensor:
    if mask is None:
        return torch.ones(height, width)
    mask = torch.as_tensor(mask).detach().float().cpu()
    if mask.shape != (height, width):
        remedy = f"Give [{height}, {width}], the size of the images."
        raise InputError("mask", f"it has shape {tuple(mask.shape)}", remedy)
    if not (mask >= 0).all() or not (mask <= 1).all() or not mask.any():
        problem = f"its values lie in {mask.min().item():.4g}..{mask.max().item():.4g}"
        raise InputError(
            "mask", problem, "Use 1 inside the receptive field, 0 outside, between them at its edge."
        )
    return mask


def _unknown_key(data_key, model: nn.Module) -> InputError:
    readout = getattr(model, "readout", None)
    known = ", ".join(map(repr, readout.keys())) if isinstance(readout, nn.ModuleDict) else ""
    remedy = f"Its readouts are {known}." if known else "Give the key of one of its readouts."
    return InputError("data_key", f"the network has no readout {data_key!r}", remedy)
