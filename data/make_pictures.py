"""The pictures of docs/pictures.md: free synthesis beside synthesis at one contrast, static/pictures_*.png.

    python data/make_pictures.py scenes                                             two minutes of one core
    python data/make_pictures.py googlenet --weights torchvision --images FOLDER    three to twenty minutes each
    python data/make_pictures.py resnet50 --model networks.py:resnet50 --images FOLDER

FOLDER holds ImageNet's validation images in class folders; only their contrast is measured. Units are the middle ones
of equal parts of the layer. The contrast is that of a faint image (the 5th percentile). Weights and images stay where
they are; only the pictures are of this project.
"""

import argparse
import json

import torch
from manifest import entry_of, write_entry

from absence_utils import Unit, open_model
from absence_utils.images import RULES
from absence_utils.models import model_fingerprint
from absence_utils.paths import ROOT
from absence_utils.plots.visualization import at_two_contrasts
from absence_utils.units import dataset_responses
from absence_utils.visualization import faint_contrast, render_pairs

STATIC = ROOT / "static"
LAYERS = {  # layer, px of the images, units
    "squeezenet1_0": ("features.12.expand3x3", 160, 4),
    "googlenet": ("inception4c", 160, 4),
    "resnet50": ("layer3.2.conv3", 160, 4),
    "vgg16": ("24", 128, 4),
    "deit_tiny": ("encoder.layers.encoder_layer_9.mlp", 224, 4),
}
CONTRAST_IMAGES = 128


def middles(count: int, parts: int) -> list[int]:
    """The middle unit of each part of a layer: 64, 192, 320, 448 of 512."""
    return [count * (2 * part + 1) // (2 * parts) for part in range(parts)]


def draw(name: str, title: str, units: list[Unit], names: list[str], dataset, facts: dict, **options) -> None:
    """Both ways for some units of a layer, as static/pictures_NAME.png, with its entry."""
    contrast = faint_contrast(units[0].model, dataset, most=CONTRAST_IMAGES)
    free = render_pairs(units, seed=0, **options)
    matched = render_pairs(units, seed=0, contrast=contrast, **options)
    path = STATIC / f"pictures_{name}.png"
    at_two_contrasts(free, matched, names, title).savefig(path, metadata={"Software": None})
    reached = {
        unit.name: [
            round(float(side.response[0]), 3) for pair in both for side in (pair.highest, pair.lowest)
        ]
        for unit, *both in zip(units, free, matched, strict=True)
    }
    facts = {
        **facts,
        "contrast": round(contrast, 4),
        **options,
        "free max, min, at one contrast max, min": reached,
    }
    command = f"python data/make_pictures.py {name.partition('_')[0] if name.startswith('scenes') else name}"
    write_entry(STATIC / "manifest.json", entry_of(path, "drawn by this project", command, facts))
    print(json.dumps(facts), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", choices=["scenes", *LAYERS])
    parser.add_argument("--model", default="")
    parser.add_argument("--weights", default="")
    parser.add_argument("--images", default="")
    parser.add_argument("--steps", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if given.network == "scenes":
        opened = open_model("concept_scenes", "", seed=0)
        dataset, facts = opened.images("concept_scenes"), {"weights": model_fingerprint(opened.model)}
        for layer, channels in (("logits", list(range(len(RULES)))), ("block4", middles(64, 6))):
            units = [Unit(opened.model, layer, channel) for channel in channels]
            names = list(RULES) if layer == "logits" else [f"unit {channel}" for channel in channels]
            draw(f"scenes_{layer}", f"Concept scenes, {layer}", units, names, dataset, facts,
                 steps=192, size=64, smoothness=4.0)  # fmt: skip
        return
    layer, size, count = LAYERS[given.network]
    opened = open_model(given.model or given.network, given.weights, seed=0)
    dataset = opened.images(given.images, limit=CONTRAST_IMAGES, seed=0, broken="skip")
    channels = middles(dataset_responses(opened.model, layer, [dataset[0], dataset[1]]).shape[1], count)
    units = [Unit(opened.model, layer, channel) for channel in channels]
    facts = {"weights": model_fingerprint(opened.model), "images": dataset.fingerprint}
    names = [f"unit {channel}" for channel in channels]
    draw(
        given.network, f"{given.network}, {layer}", units, names, dataset, facts, steps=given.steps, size=size
    )


if __name__ == "__main__":
    main()
