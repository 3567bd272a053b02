"""The card of one unit in one call: what notebook 10 does step by step, for a notebook or a shell of your own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_utils.attribution.columns import matrix_columns
from absence_utils.errors import InputError, require_at_least, require_shape
from absence_utils.images.base import TensorImages, normalisation_of
from absence_utils.models.opening import LoadedModel
from absence_utils.models.random_weights import random_copy

from .cards import Card, CardOptions, collect_cards
from .study import about_study, auto_config, few_images, study_layer
from .validation import validate_model


def card(
    model: nn.Module | LoadedModel,
    layer: str | None,
    unit: int,
    images,
    options: CardOptions | None = None,
    *,
    patch: int = 0,
    stride: int = 0,
    k: int = 12,
    hosts: int = 192,
    random_copies: int = 4,
    null_units: int = 64,
    most: int = 64,
    seed: int = 0,
    place: str = "corners",
) -> Card:
    """Check the network, study the unit among others of its layer and against random weights, and gather its card.

    A notebook shows the card as a page; `card.show()` gives it as one figure.

    Args:
        model: a network, or what `open_model` returns.
        layer: its name; "logits" for the signed output, None for the output as it is.
        unit: channel of the layer.
        images: an image dataset (`load_images`, `LoadedModel.images`), 36 images or more, better 150; or a tensor
            [image, channel, height, width], normalised as the network expects.
        options: what goes onto the card; by default `CardOptions()` with synthesised images of the images' size.
        patch, stride, k, hosts, place: of the insertion experiment, see `auto_config`. Units that see the middle of an
            image alone need place="centre".
        random_copies, null_units: copies with random weights, and units studied in all of them together.
        most: units of the layer that are studied, this one among them; 0 for all.
        seed: of copies, images, patches and synthesis.

    Returns:
        A `Card`. With the defaults it takes minutes; most of it goes into the units that this one is compared with.

    Raises:
        InputError: what `validate_model` finds, too few images, a unit that does not exist.

    Example:
        >>> from absence_utils import card, load_images, load_model
        >>> from absence_utils.your_model import CardOptions
        >>> model = load_model("concept_scenes")
        >>> scenes = load_images("concept_scenes", model, limit=90)
        >>> quick = {"random_copies": 1, "null_units": 2, "most": 2, "k": 6, "hosts": 12}
        >>> card(model, "logits", 1, scenes, CardOptions(steps=2, maps=1, facets=1), **quick).title
        'logits, unit 1: not ring'
    """
    require_at_least("random_copies", random_copies, 1)
    network = model.model if isinstance(model, LoadedModel) else model
    dataset = _in_memory(network, images) if isinstance(images, Tensor) else images
    few = few_images(dataset)
    validate_model(network, layer, few).raise_for_failure()
    edge = min(dataset[0][0].shape[1:])
    setting = auto_config(len(dataset), edge, patch, stride, k=k, hosts=hosts, seed=seed, place=place)
    study = study_layer(
        network,
        layer,
        dataset,
        setting,
        [random_copy(network, seed + 1 + number, images=few) for number in range(random_copies)],
        units=[unit],
        most=most,
        null_units=null_units,
    )
    name = model.name if isinstance(model, LoadedModel) else type(network).__name__
    about = about_study(study, dataset, name)
    options = options or CardOptions(size=edge, seed=seed)
    (found,) = collect_cards(study, dataset, matrix_columns(dataset), [unit], options, about)
    return found


def _in_memory(network: nn.Module, images: Tensor) -> TensorImages:
    """A tensor as a dataset of one class without a name."""
    require_shape("images", images, "image", "channel", "height", "width")
    if not len(images):
        raise InputError("images", "there are none", "Give 36 or more.")
    labels = torch.zeros(len(images), dtype=torch.long)
    return TensorImages(images.detach().cpu(), labels, ["images"], normalisation=normalisation_of(network))
