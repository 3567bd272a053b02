"""The opening picture, static/opening.png and static/opening.webp: GoogLeNet's maxima and minima, patches and names.

    python data/make_opening_picture.py --weights torchvision --images FOLDER        a download of your own; 15 minutes
    python data/make_opening_picture.py --model networks.py:googlenet --images FOLDER

FOLDER holds ImageNet's validation images in class folders. The units are the middle ones of the quarters of the layer:
nobody chose them for their looks. Both poles have the contrast of a faint image (the 5th percentile). A name stands
below a unit if one was confirmed (notebook 11). The weights and the images stay where they are; only the pictures are
of this project. With `--patches` the highest and lowest patches stand beside each pole. The picture that ships has
none, because photographs do not ship.
"""

import argparse
import json

import torch
from make_pictures import STATIC, middles
from manifest import entry_of, write_entry

from absence_utils import Unit, mine_patches, name_absence, open_model
from absence_utils.images import shuffle_images
from absence_utils.images.subsets import Subset
from absence_utils.models import model_fingerprint
from absence_utils.naming import find_concepts
from absence_utils.plots.animation import save_animation
from absence_utils.plots.visualization import growing, poles_and_patches
from absence_utils.units import dataset_responses
from absence_utils.visualization import faint_contrast, pole_table, render_pairs

COMMAND = "python data/make_opening_picture.py --weights torchvision --images FOLDER"
SIZE, PATCH, FRAMES = 160, 48, 24


def caption(named, unit: int) -> str:
    """What was confirmed of a unit: its name, and how far below its scrambled copy it lowers the unit."""
    rows = named.confirmed[(named.confirmed["unit"] == unit) & (named.confirmed["reading"] == "signed")]
    if rows.empty:
        return "no name confirmed"
    row = rows.iloc[0]
    return f"silenced by: {row['name']}\n{row['absolute']:+.2f} sd".replace("-", "\N{MINUS SIGN}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="googlenet")
    parser.add_argument("--weights", default="")
    parser.add_argument("--layer", default="inception4c")
    parser.add_argument("--images", required=True)
    parser.add_argument(
        "--limit", type=int, default=600, help="images that are named and searched for patches"
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--patches", action="store_true", help="beside each pole the patches at the same end")
    given = parser.parse_args()
    torch.set_num_threads(1)
    opened = open_model(given.model, given.weights, seed=0)
    net = opened.model
    dataset = shuffle_images(opened.images(given.images, limit=given.limit, seed=0, broken="skip"), 0)
    few = Subset(dataset, torch.arange(min(256, len(dataset))))
    real = dataset_responses(net, given.layer, few)
    channels = middles(real.shape[1], 4)
    units = [Unit(net, given.layer, channel) for channel in channels]
    frames = sorted({round(given.steps * (number / (FRAMES - 1)) ** 2) for number in range(FRAMES)})
    contrast = faint_contrast(net, few)
    pairs = render_pairs(units, given.steps, SIZE, 0, contrast=contrast, frames=frames)
    STATIC.mkdir(exist_ok=True)
    moving = save_animation([growing(pairs, frame) for frame in range(len(frames))] + [growing(pairs, -1)] * 8,
                            STATIC / "opening.webp")  # fmt: skip
    sheets = []
    if given.patches:
        book = mine_patches(net, given.layer, dataset, patch=PATCH, stride=PATCH // 2, k=3, per_image=1)
        sheets = [book.crops(dataset, channel) for channel in channels]
    named = name_absence(
        net, given.layer, dataset, find_concepts(dataset, "imagenet", seed=1), seed=0, repeat=False
    )
    captions = [caption(named, channel) for channel in channels]
    names = [f"unit {channel}" for channel in channels]
    figure = poles_and_patches(pairs, names, captions, f"GoogLeNet, {given.layer}", sheets)
    still = STATIC / "opening.png"
    figure.savefig(still, dpi=160, metadata={"Software": None})
    table = pole_table(pairs, real)
    facts = {
        "reference": "none: made from a network and images that do not ship",
        "network": "GoogLeNet, trained on ImageNet", "layer": given.layer, "units": channels,
        "weights": model_fingerprint(net), "images": dataset.fingerprint, "limit": given.limit,
        "steps": given.steps, "contrast": round(contrast, 4), "names": captions,
        "poles": json.loads(table.round(3).to_json(orient="records")),
    }  # fmt: skip
    for path in (still, moving):
        write_entry(STATIC / "manifest.json", entry_of(path, "drawn by this project", COMMAND, facts))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
