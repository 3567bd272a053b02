"""The benchmark as files, so that a method in any framework can be scored: images, masks, exact pairs, weights, truth.

A zip with the same bytes on every run. Its README is the data card.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from absence_utils.errors import InputError
from absence_utils.files import write_atomically
from absence_utils.images.scenes import NORMALISATION, Scenes
from absence_utils.models.concept_net import ConceptNet

from .rule_networks import (
    CHANNELS,
    COLUMNS,
    TWIN,
    WORLDS,
    file_of,
    network_names,
    output_names,
)
from .rules import OUTPUTS
from .running import BenchmarkConfig, scenes_of
from .truth import truth_table

VERSION = "1.0"
PAIRS, PAIR_SEED = 16, 500  # of each concept and world
STAMP = (2026, 1, 1, 0, 0, 0)  # of every file in the archive

CARD = """# Which method finds which absence? Version {version}

{networks} small networks with rules drawn at random, and as many twins whose rules ask for no absence, in {worlds}
worlds of rendered scenes. {absences} pairs of an output and a concept are absences: the concept's presence lowers the
output. Say for every output and concept how strongly that is so, and score the answers.

## Files

- `networks/WORLD.safetensors`: weights in half precision; a tensor is called "NETWORK/layer.weight". A network is
  called "WORLD/number", its twin "WORLD/number twin", and "WORLD/detector" tells the seven concepts apart.
- `networks.json`: layers in their order (`fc` of a detector has seven outputs), input normalisation, and the concepts
  of each world.
- `worlds/WORLD.npz`: `pixels` uint8 [scene, height, width, channel]; `presence` bool [scene, concept]; `masks` packed
  bits of `mask_shape`, [scene, concept, height, width] (numpy.unpackbits); `place` [scene, concept, (row, column)], px;
  `with` and `without`: uint8 [concept, pair, height, width, channel], the same scene with and without that one concept.
- `answers_template.csv`: network, layer, unit, concept, value; fill in the value. Positive: the concept's presence
  lowers the unit. Empty: the method says nothing. Only the order within a network counts, and for false alarms that
  over all networks, so give values in standard deviations of the unit over the scenes if you can.
- `truth.csv`, `rules.json`: what is planted, and the rule of every output. No method may look at them.
- `checksums.json`: sha256 of every file.

## How it was made

Everything is rendered and trained by this project's own scripts. The crops and backgrounds of the worlds "photographs",
"natural" and "natural together" come from photographs that installed Python packages bring along. Pixels are rounded to
8 bits here; divide by 255 and normalise with the mean and spread in `networks.json`. Scenes were not used in training.

## What it does not say

Concepts are small and few, networks have four blocks, and an absence is planted by a rule. A method that fails here is
not to be trusted elsewhere; one that succeeds has passed the easiest case. In `truth.csv` "depends" (exclusive-or) and
"unclear" (a rule that was not learnt) count neither way.

## Scoring

    python -m absence_utils.benchmark score answers.csv --name "my method"
"""


def write_archive(path: Path, networks: int = 0) -> str:
    """Write the archive.

    Args:
        path: a .zip, whole or not at all.
        networks: how many of each world; all if 0.

    Returns:
        A sentence with the archive's size and sha256.

    Raises:
        InputError: another suffix.
    """
    if path.suffix != ".zip":
        raise InputError("file", f"{path.name!r} is no .zip", "Give a name that ends in .zip.")
    names = [name for name in network_names() if not networks or int(name.partition("/")[2]) < networks]
    files = archive_files(names)
    files["checksums.json"] = _json(
        {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    content = _zipped(files)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return f"{path}: version {VERSION}, {len(content) / 1e6:.0f} MB, {len(files)} files, sha256 {digest}"


def archive_files(names: list[str]) -> dict[str, bytes]:
    """Name to content of everything but the checksums.

    Args:
        names: of the networks; their twins and their worlds come with them.
    """
    every = [name for own in names for name in (own, own + TWIN)]
    truth = pd.concat([truth_table(name) for name in every], ignore_index=True)
    worlds = [world for world in WORLDS if any(name.startswith(f"{world}/") for name in names)]
    card = CARD.format(version=VERSION, networks=len(names), worlds=len(worlds),
                       absences=int((truth.truth == "absence").sum()))  # fmt: skip
    files = {
        "README.md": card.encode(),
        "networks.json": _json(_networks(worlds)),
        "rules.json": _json({name: output_names(name) for name in every}),
        "truth.csv": _csv(truth),
        "answers_template.csv": _csv(truth.drop(columns="truth").assign(value="")),
    }
    for world in worlds:
        weights = file_of(f"{world}/0")
        files[f"worlds/{weights.stem}.npz"] = _world(world)
        files[f"networks/{weights.name}"] = weights.read_bytes()
    return files


def _networks(worlds: list[str]) -> dict:
    layers = ConceptNet(OUTPUTS, COLUMNS, CHANNELS).named_children()
    return {
        "version": VERSION,
        "normalisation": {"mean": NORMALISATION.mean, "spread": NORMALISATION.std},
        "layers": {name: repr(layer) for name, layer in layers},
        "concepts": {world: WORLDS[world].names for world in worlds},  # the outputs of a detector, too
    }


def _world(name: str) -> bytes:
    world = WORLDS[name]
    scenes = scenes_of(world, BenchmarkConfig.scenes)
    halves = [world.pairs(concept, PAIRS, PAIR_SEED) for concept in world.names]
    arrays = {
        "pixels": _bytes(scenes), "presence": scenes.presence.numpy(), "masks": np.packbits(scenes.masks.numpy()),
        "mask_shape": np.array(scenes.masks.shape), "place": scenes.place.numpy(),
        "with": np.stack([_bytes(shown) for shown, _ in halves]),
        "without": np.stack([_bytes(hidden) for _, hidden in halves]),
    }  # fmt: skip
    return _zipped(
        {f"{key}.npy": _npy(array) for key, array in arrays.items()}
    )  # numpy.savez writes the time, too


def _zipped(files: dict[str, bytes]) -> bytes:
    """The same bytes on every run."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, np.ascontiguousarray(array))
    return target.getvalue()


def _bytes(scenes: Scenes) -> np.ndarray:
    """[scene, height, width, channel] in 8 bits."""
    return (scenes.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
