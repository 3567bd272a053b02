"""Mine the extreme patches of every unit of a layer in one pass over the images.

The published scheme is the default: square windows from the top left corner in steps of `stride` for as
long as they fit, every window a candidate. Pixels that no window reaches, right and bottom, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from itertools import chain

import torch
from torch import Tensor, nn

from absence_utils.errors import InputError, require_choice
from absence_utils.identity import code_of
from absence_utils.images.base import identity_of
from absence_utils.images.prefetch import prefetch_images
from absence_utils.layers.fuse import channels_last, fused, trace
from absence_utils.models.load import model_fingerprint
from absence_utils.progress import progress
from absence_utils.units import device_of, feature_map, pool_space

from .book import SETTINGS, SIDES, PatchBook, Patches, remember_images
from .shape import blank_response
from .topk import RunningSample, RunningTopK, window_key

REGIONS = ("auto", "crop", "masked")
FOUND = ("layer", "fingerprint", "images", "network", "code")  # what is no option of `mine_patches`
OPTIONS = tuple(name for name in SETTINGS if name not in FOUND)
CODE = ("patches", "models", "images", "units", "layers")  # what a package of this floor may import
PRECISIONS = ("float32", "bfloat16")
# Of one channel. On a CPU larger batches no longer fit the caches and are slower; a GPU wants many rows at once.
PIXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**21}


def images_per_batch(height: int, width: int, device: torch.device) -> int:
    """How many images or patches of this size a device likes in one forward pass, at least one."""
    return max(1, PIXELS_PER_BATCH.get(device.type, PIXELS_PER_BATCH["cuda"]) // (height * width))


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
    reservoir: int = 256,
    seed: int = 0,
    exact: bool = False,
    precision: str = "float32",
    workers: int = 1,
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
        patch, stride: side and step of the windows, px (release: 48 and 16).
        k: patches kept at each end (release: 8).
        pool: how a unit's response is pooled over space or tokens: "mean", "cls", "max", "min".
        region: "crop" scores the patch alone. "masked" scores a full-size image in which only the patch is
            visible and the rest is 0, the mean after normalisation. "auto" crops unless the layer has
            tokens or the network takes one image size only. The book records which it was.
        per_image: at most so many patches of one image for each unit and end; 0 takes all (published scheme).
        reservoir: windows in the random sample, the same for all units; seed: draws them.
        exact: True runs the network operation by operation as it is written: the responses are those of the
            published scheme with batches of the same shape, bit for bit. False, the default, folds batch norms
            into convolutions and stores maps channels last: up to twice as fast, and within 1e-4 of it, relative to
            the largest response of the unit.
        precision: "float32" (the network's own), or "bfloat16" to run under autocast; `patches.compare_books`
            reports how that changes the ranking.
        workers: threads that decode images while the network runs; 0 decodes in between.
        batch_size: patches in a forward pass; chosen by the size of the images if None.
        part: dataset indices to search, a range with step 1, for sharding; all if None.

    Returns:
        PatchBook with responses in the units of the layer, signed, before any nonlinearity after it.

    Raises:
        InputError: settings that make no sense, an image smaller than the patch, fewer patches than k (unless
            only a `part` is searched), a crop too small for the network, responses that are not finite.

    Example:
        >>> from absence_utils import load_images, load_model, mine_patches
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=6)
        >>> book = mine_patches(model, "block4", scenes, patch=24, stride=20, k=3)
        >>> book.lowest.response.shape, book.lowest.box.shape  # [unit, k], [unit, k, (top, left, height, width)]
        (torch.Size([64, 3]), torch.Size([64, 3, 4]))
    """
    how = {"patch": patch, "stride": stride, "k": k, "pool": pool, "region": region, "per_image": per_image}
    how |= {"reservoir": reservoir, "seed": seed, "exact": exact, "precision": precision}
    part = _check(dataset, how, workers, batch_size, part)
    remember_images(dataset)
    first = torch.as_tensor(dataset[part.start][0])
    settings = book_settings(model, layer, dataset, first=first, number=part.start, **how)
    batches = _Batches(dataset, part, first, settings, workers, batch_size, device_of(model))
    parts = _scan(model, settings, batches)
    book = PatchBook(**parts, **settings, covered=((part.start, part.stop),))
    if len(part) == len(dataset):
        require_k_patches(book)
    return book


def mine_alike(
    book: PatchBook,
    model: nn.Module,
    dataset,
    *,
    workers: int = 1,
    batch_size: int | None = None,
    part: range | None = None,
) -> PatchBook:
    """Mine another network as `book` was mined: same layer, windows, k, pooling, region, sample and precision.

    Args:
        book: whose settings are taken.
        model: the other network, with a layer of the same name.
        dataset, workers, batch_size, part: as for `mine_patches`.

    Returns:
        The book of that network.

    Raises:
        InputError: as `mine_patches`.

    Example:
        >>> from absence_utils import load_images, load_model, mine_patches
        >>> from absence_utils.patches import mine_alike
        >>> model, random = load_model("concept_scenes"), load_model("concept_scenes", "random")
        >>> scenes = load_images("concept_scenes", model, limit=4)
        >>> book = mine_patches(model, "block4", scenes, patch=24, stride=20, k=3)
        >>> mine_alike(book, random, scenes).settings == book.settings | {
        ...     "network": mine_alike(book, random, scenes).network
        ... }
        True
    """
    how = {name: getattr(book, name) for name in OPTIONS}
    return mine_patches(model, book.layer, dataset, **how, workers=workers, batch_size=batch_size, part=part)


def book_settings(model, layer, dataset, *, first: Tensor | None = None, number: int = 0, **how) -> dict:
    """What the book of these images and settings will say of itself, before anything is mined.

    Args:
        first: image `number` of the dataset, if it is decoded already.
        how: `mine_patches`' patch to precision; what is left out has the default of `mine_patches`.
    """
    defaults = {name: signature(mine_patches).parameters[name].default for name in OPTIONS}
    for name in how:
        if name not in defaults:
            raise InputError(name, "mining has no such setting", f"It has: {', '.join(OPTIONS)}.")
    how = defaults | how
    if first is None:
        _check(dataset, how, 0, None, None)
        first = torch.as_tensor(dataset[number][0])
    _corners(first, how["patch"], how["stride"], number)
    with torch.no_grad():
        how["region"] = _region(model, layer, first, how["patch"], how["region"])
    return how | {
        "layer": layer,
        "images": identity_of(dataset),
        "fingerprint": getattr(dataset, "fingerprint", ""),
        "network": model_fingerprint(model),
        "code": code_of(*CODE, network=model),
    }


def require_k_patches(book: PatchBook) -> None:
    """A book of a whole dataset has k patches at each end, or its settings are an error."""
    kept = book.highest.response.shape[1]
    if kept < book.k:
        raise InputError(
            "k",
            f"there are {kept} patches to choose {book.k} from",
            f"Lower k, {'raise per_image (0: no limit)' if book.per_image else 'lower stride'}, or add images.",
        )


def _scan(model: nn.Module, settings: dict, batches: _Batches) -> dict:
    """Run all batches as far as the layer, and keep what the book keeps."""
    layer, patch, k = (settings[name] for name in ("layer", "patch", "k"))
    highest, lowest = (RunningTopK(k, settings["per_image"]) for _ in SIDES)
    sample, windows = RunningSample(settings["reservoir"], settings["seed"]), 0
    exact, precision = settings["exact"], settings["precision"]
    with torch.no_grad():
        network = model if exact else fused(model, layer, batches.shape)
        for pixels, place in batches:
            if network is not model:
                pixels = channels_last(pixels)
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                features = feature_map(network, layer, pixels)
            if precision == "bfloat16":
                features = features.float()  # average in full precision
            response = pool_space(features, settings["pool"])[: len(place)].float().T.contiguous()
            if not response.isfinite().all():
                problem = f"responses of layer {layer} are not finite"
                raise InputError("model", problem, "Check weights and images.")
            where = place.to(response.device)
            highest.add(response, where)
            lowest.add(-response, where)
            sample.add(response, place)
            windows += len(place)
    return {
        "highest": Patches.of(highest.response, highest.place, patch),
        "lowest": Patches.of(-lowest.response, lowest.place, patch),
        "random": Patches.of(sample.response, sample.place, patch),
        "windows": windows,
    }


def _check(dataset, how: dict, workers: int, batch_size: int | None, part: range | None) -> range:
    numbers = how | {"workers": workers, "batch_size": 1 if batch_size is None else batch_size}
    least = dict.fromkeys(("patch", "stride", "k", "batch_size"), 1)
    least |= dict.fromkeys(("per_image", "reservoir", "seed", "workers"), 0)
    for name, smallest in least.items():
        value = numbers[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            problem = f"{value!r} is not a whole number of at least {smallest}"
            raise InputError(name, problem, "Give another number.")
    require_choice("region", how["region"], REGIONS)
    require_choice("precision", how["precision"], PRECISIONS)
    if not isinstance(how["exact"], bool):
        raise InputError("exact", f"{how['exact']!r} is unknown", "Use True or False.")
    if len(dataset) == 0:
        raise InputError("dataset", "it holds no images", "Give at least one image.")
    part = range(len(dataset)) if part is None else part
    if part.step != 1 or not len(part) or part.start < 0 or part.stop > len(dataset):
        problem = f"{part} is no part of {len(dataset)} images"
        raise InputError("part", problem, "Give range(start, stop) inside it.")
    return part


def _corners(image: Tensor, patch: int, stride: int, number: int) -> Tensor:
    """[position, 2] top and left of every window of an image, row by row."""
    height, width = image.shape[-2:]
    if patch > min(height, width):
        problem = f"{patch} px is larger than image {number}, {height} x {width} px"
        raise InputError("patch", problem, f"Choose at most {min(height, width)}.")
    tops, lefts = (torch.arange(0, side - patch + 1, stride) for side in (height, width))
    return torch.cartesian_prod(tops, lefts)


class _Batches:
    """Iterate over (pixels [size, channel, height, width], place [n]); all but the first n rows are filling.

    The pixels lie on the device of the network: an image goes there once, not once in every window that shows it.
    """

    def __init__(self, dataset, part, first: Tensor, settings: dict, workers: int, size: int | None, device):
        self.dataset, self.part, self.first, self.workers = dataset, part, first, workers
        self.patch, self.stride, self.region = (settings[name] for name in ("patch", "stride", "region"))
        self.device = device
        masked = self.region == "masked"
        self.shape = tuple(first.shape) if masked else (first.shape[0], self.patch, self.patch)
        size = size or images_per_batch(*self.shape[1:], device)
        positions = len(_corners(first, self.patch, self.stride, part.start))
        # Of all images: parts run the same shape as the whole.
        self.size = min(size, positions * len(dataset))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        pixels = torch.zeros(self.size, *self.shape, device=self.device)
        places, filled = [], 0
        for number, image in self._images():
            corners = _corners(image, self.patch, self.stride, number)
            image = image.to(self.device)
            while len(corners):
                now, corners = corners[: self.size - filled], corners[self.size - filled :]
                _show(pixels[filled : filled + len(now)], image, now, self.patch, self.region)
                places.append(window_key(torch.full((len(now),), number), now[:, 0], now[:, 1]))
                filled += len(now)
                if filled == self.size:
                    yield pixels, torch.cat(places)
                    places, filled = [], 0
        if filled:
            yield pixels, torch.cat(places)

    def _images(self) -> Iterator[tuple[int, Tensor]]:
        rest = range(self.part.start + 1, self.part.stop)
        following = prefetch_images(self.dataset, rest, self.workers)
        for number, image in progress(
            chain([(self.part.start, self.first)], following), "mining patches", len(self.part)
        ):
            if image.shape[0] != self.shape[0] or (self.region == "masked" and image.shape != self.shape):
                raise InputError(
                    "dataset",
                    f"image {number} has shape {tuple(image.shape)}, the first one of this part "
                    f"{tuple(self.first.shape)}",
                    "Load the images at one size.",
                )
            yield number, image


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


def blank_patch_response(model: nn.Module, dataset, book: PatchBook) -> Tensor:
    """Response of every unit to a patch that shows nothing, the mean after normalisation: [unit].

    The neutral point between presence and absence evidence: a lower response was pushed down by something.
    """
    image = torch.as_tensor(dataset[0][0])
    height, width = image.shape[-2:] if book.region == "masked" else (book.patch, book.patch)
    return blank_response(model, book.layer, image[:, :height, :width], book.pool)


def batch_norm_sign(model: nn.Module, layer: str | None) -> tuple[Tensor | None, str]:
    """Sign of the scale that a batch norm directly behind a convolution gives each of its units.

    Where it is negative the network continues with the response turned round: highest becomes lowest.
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
    graph = trace(model)
    nodes = [] if graph is None else [node for node in graph.nodes if node.target == name]
    if nodes:
        return [modules.get(user.target) for node in nodes for user in node.users], "traced"
    parent = name.rpartition(".")[0]
    siblings = list(modules[parent].named_children())
    place = [child for child, _ in siblings].index(name.rpartition(".")[2])
    return [module for _, module in siblings[place + 1 : place + 2]], "by order"
