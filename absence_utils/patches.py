"""Mine the extreme patches of every unit of a layer in one pass over the images.

The published scheme is the default: square windows from the top left corner in steps of `stride` for as
long as they fit, every window a candidate. Pixels that no window reaches, right and bottom, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.fx
from torch import Tensor, nn

from .errors import InputError
from .models import model_fingerprint
from .patch_book import SIDES, Extremes, PatchBook, PatchPixels, Running, place_of
from .record import progress
from .units import feature_map, responses

__all__ = [
    "SIDES",
    "Extremes",
    "PatchBook",
    "PatchPixels",
    "batch_norm_sign",
    "empty_response",
    "mine_patches",
]
REGIONS = ("auto", "crop", "masked")
PIXELS_PER_BATCH = 2**18  # of one channel: larger batches no longer fit the caches of a CPU and are slower


def mine_patches(
    model: nn.Module,
    layer: str | None,
    dataset,
    patch: int = 48,
    stride: int = 16,
    k: int = 8,
    pool: str = "mean",
    *,
    region: str = "auto",
    per_image: int = 0,
    batch_size: int | None = None,
    part: range | None = None,
) -> PatchBook:
    """Find the k highest and the k lowest patches of every unit of `layer` in one pass over the images.

    Every image is decoded once; batches of patches run across images, and only as far as the layer. All
    batches have one shape (the last is filled up), because a library may round differently for another shape.

    Args:
        model: the network, read in eval mode and left as found.
        layer: as in `units.feature_map` (None: the output as it is, "logits": before a final rectification).
        dataset: yields (image [channel, height, width] normalised, label).
        patch, stride: side and step of the windows, px (paper: 48 and 16).
        k: patches kept at each end (paper: 8).
        pool: how a unit's response is pooled over space or tokens: "mean", "cls", "max", "min".
        region: "crop" scores the patch alone. "masked" scores a full-size image in which only the patch is
            visible and the rest is 0, the mean after normalisation. "auto" crops unless the layer has
            tokens or the network takes one image size only. The book records which it was.
        per_image: at most so many patches of one image for each unit and end; 0 takes all (published scheme).
        batch_size: patches in a forward pass; chosen by the size of the images if None.
        part: dataset indices to search, a range with step 1, for sharding; all if None.

    Returns:
        PatchBook with responses in the units of the layer, signed, before any nonlinearity after it.

    Raises:
        InputError: settings that make no sense, an image smaller than the patch, fewer patches than k (unless
            only a `part` is searched), a crop too small for the network, responses that are not finite.
    """
    part = _check(dataset, patch, stride, k, region, per_image, batch_size, part)
    first = torch.as_tensor(dataset[part.start][0])
    positions = len(_corners(first, patch, stride, part.start))
    with torch.inference_mode():
        region = _region(model, layer, first, patch, region)
        if batch_size is None:
            batch_size = max(1, PIXELS_PER_BATCH // (patch**2 if region == "crop" else first[0].numel()))
        batch_size = min(
            batch_size, positions * len(dataset)
        )  # of all images: parts run the same shape as the whole
        highest, lowest = Running(k, per_image), Running(k, per_image)
        for pixels, place in _batches(dataset, part, first, patch, stride, region, batch_size):
            response = responses(model, layer, pixels, pool)[: len(place)].float().T
            if not response.isfinite().all():
                raise InputError(
                    "model", f"responses of layer {layer} are not finite", "Check weights and images."
                )
            place = place.to(response.device)
            highest.add(response, place)
            lowest.add(-response, place)
    kept = highest.response.shape[1]
    if kept < k and len(part) == len(dataset):
        raise InputError(
            "k",
            f"there are {kept} patches to choose {k} from",
            f"Lower k, {'raise per_image (0: no limit)' if per_image else 'lower stride'}, or add images.",
        )
    return PatchBook(
        Extremes.of(highest.response, highest.place, patch),
        Extremes.of(-lowest.response, lowest.place, patch),
        layer=layer,
        patch=patch,
        stride=stride,
        k=k,
        pool=pool,
        region=region,
        per_image=per_image,
        fingerprint=getattr(dataset, "fingerprint", ""),
        network=model_fingerprint(model),
        covered=((part.start, part.stop),),
    )


def _check(dataset, patch, stride, k, region, per_image, batch_size, part) -> range:
    for name, value, least in (
        ("patch", patch, 1),
        ("stride", stride, 1),
        ("k", k, 1),
        ("per_image", per_image, 0),
        ("batch_size", 1 if batch_size is None else batch_size, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(
                name, f"{value!r} is not a whole number of at least {least}", "Give another number."
            )
    if region not in REGIONS:
        raise InputError("region", f"{region!r} is unknown", f"Choose from {', '.join(REGIONS)}.")
    if len(dataset) == 0:
        raise InputError("dataset", "it holds no images", "Give at least one image.")
    part = range(len(dataset)) if part is None else part
    if part.step != 1 or not len(part) or part.start < 0 or part.stop > len(dataset):
        raise InputError(
            "part", f"{part} is no part of {len(dataset)} images", "Give range(start, stop) inside it."
        )
    return part


def _corners(image: Tensor, patch: int, stride: int, number: int) -> Tensor:
    """[position, 2] top and left of every window of an image, row by row."""
    height, width = image.shape[-2:]
    if patch > min(height, width):
        raise InputError(
            "patch",
            f"{patch} px is larger than image {number}, {height} x {width} px",
            f"Choose at most {min(height, width)}.",
        )
    tops, lefts = (torch.arange(0, side - patch + 1, stride) for side in (height, width))
    return torch.cartesian_prod(tops, lefts)


def _batches(dataset, part, first, patch, stride, region, size) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (pixels [size, channel, height, width], place [n]); all but the first n rows are filling."""
    shape = first.shape if region == "masked" else (first.shape[0], patch, patch)
    pixels, places, filled = torch.zeros(size, *shape), [], 0
    for number in progress(part, "mining patches"):
        image = first if number == part.start else torch.as_tensor(dataset[number][0])
        if image.shape[0] != first.shape[0] or (region == "masked" and image.shape != first.shape):
            raise InputError(
                "dataset",
                f"image {number} has shape {tuple(image.shape)}, the first one of this part "
                f"{tuple(first.shape)}",
                "Load the images at one size.",
            )
        corners = _corners(image, patch, stride, number)
        while len(corners):
            now, corners = corners[: size - filled], corners[size - filled :]
            _show(pixels[filled : filled + len(now)], image, now, patch, region)
            places.append(place_of(torch.full((len(now),), number), now[:, 0], now[:, 1]))
            filled += len(now)
            if filled == size:
                yield pixels, torch.cat(places)
                places, filled = [], 0
    if filled:
        yield pixels, torch.cat(places)


def _show(target: Tensor, image: Tensor, corners: Tensor, patch: int, region: str) -> None:
    """Write the patches of `image` at `corners` into target [position, channel, height, width]."""
    if region == "crop":
        windows = image.unfold(1, patch, 1).unfold(2, patch, 1)  # a view [channel, top, left, height, width]
        target.copy_(windows[:, corners[:, 0], corners[:, 1]].transpose(0, 1))
        return
    target.zero_()
    for canvas, (top, left) in zip(target, corners.tolist(), strict=True):
        window = (slice(None), slice(top, top + patch), slice(left, left + patch))
        canvas[window] = image[window]


def _region(model: nn.Module, layer: str | None, image: Tensor, patch: int, region: str) -> str:
    """Settle "auto", and find out now rather than later whether the network takes what it will be given."""
    height, width = image.shape[-2:]
    whole, problem = _try(model, layer, image, height, width)
    if whole is None and region != "crop":
        raise InputError(
            "dataset",
            f"the network does not take images of {height} x {width} px ({problem})",
            "Load them at the size it was made for.",
        )
    if region == "masked" or (region == "auto" and whole.ndim == 3):  # [batch, channel, token]
        return "masked"
    crop, problem = _try(model, layer, image, patch, patch)
    if crop is not None:
        return "crop"
    # A network that takes no other size either, as one that flattens its maps, has to see full-size images.
    # One that does is convolutional, and the patch is too small for its layers.
    if region == "auto" and _try(model, layer, image, height + 32, width + 32)[0] is None:
        return "masked"
    raise InputError(
        "patch",
        f"crops of {patch} px are too small for the network at layer {layer} ({problem})",
        "Choose a larger patch, or region='masked'.",
    )


def _try(model: nn.Module, layer: str | None, image: Tensor, height: int, width: int):
    """(feature map of an empty image of that size, "") or (None, what the network said)."""
    try:
        return feature_map(model, layer, image.new_zeros(1, image.shape[0], height, width)), ""
    except InputError:
        raise
    except Exception as error:  # networks object to a size in any way they like
        return None, str(error).strip().partition("\n")[0]


def empty_response(model: nn.Module, dataset, book: PatchBook) -> Tensor:
    """Response of every unit to a patch that shows nothing, the mean after normalisation: [unit].

    The neutral point between presence and absence evidence: a lower response was pushed down by something.
    """
    image = torch.as_tensor(dataset[0][0])
    height, width = image.shape[-2:] if book.region == "masked" else (book.patch, book.patch)
    with torch.inference_mode():
        empty = image.new_zeros(1, image.shape[0], height, width)
        return responses(model, book.layer, empty, book.pool)[0].float().cpu()


def batch_norm_sign(model: nn.Module, layer: str | None) -> tuple[Tensor | None, str]:
    """Sign of the scale that a batch norm directly behind a convolution gives each of its units.

    Where it is negative the network goes on with the response turned round: highest becomes lowest.
    ResNet's convolutions are the case in point (`layer4.2.conv3`).

    Returns:
        (sign, how): sign [unit] of -1, 0, 1 with how "traced" (seen in the computation) or "by order" (the
        next module of the block is a batch norm of that size); None with "none" where none follows, else
        "unknown".
    """
    name = (layer or "").partition(":")[0]
    modules = dict(model.named_modules())
    if name not in modules or not isinstance(modules[name], nn.modules.conv._ConvNd):
        return None, "none"
    following, how = _next_modules(model, modules, name)
    norms = [module for module in following if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms or len(norms) < len(following) or norms[0].num_features != modules[name].out_channels:
        return None, "none" if how == "traced" else "unknown"
    weight = norms[0].weight
    return torch.ones(norms[0].num_features) if weight is None else weight.detach().sign().cpu(), how


def _next_modules(model: nn.Module, modules: dict, name: str) -> tuple[list, str]:
    """What takes the output of a module: by tracing, else its next sibling."""
    try:
        nodes = [node for node in torch.fx.symbolic_trace(model).graph.nodes if node.target == name]
    except Exception:  # many networks cannot be traced
        nodes = []
    if nodes:
        return [modules.get(user.target) for node in nodes for user in node.users], "traced"
    parent = name.rpartition(".")[0]
    siblings = list(modules[parent].named_children())
    place = [child for child, _ in siblings].index(name.rpartition(".")[2])
    return [module for _, module in siblings[place + 1 : place + 2]], "by order"
