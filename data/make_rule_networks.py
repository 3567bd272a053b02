"""Train the networks on random rules and their twins: data/rule_networks/, with accuracies in data/manifest.json.

    make networks                                        all, side by side, an hour on two cores
    python data/make_rule_networks.py --only "plain/0"    one, into data/parts/, in a minute or two

Weights are kept in half precision; accuracies are those of what is kept.
"""

import argparse
from pathlib import Path

import torch
from manifest import entry_of, write_entry
from safetensors.torch import load_file, save_file

from absence_utils.benchmark.rule_networks import (
    FOLDER,
    WORLDS,
    detector_names,
    file_of,
    load_rule_network,
    network_names,
    output_accuracy,
    output_names,
    part_name,
    train_rule_network,
)
from absence_utils.paths import DATA

EVERY = [*network_names(), *network_names(twins=True), *detector_names()]


def part_of(name: str, parts: Path) -> Path:
    """The file of a single network."""
    return parts / f"{part_name(name)}.safetensors"


def train(name: str, parts: Path, **options) -> None:
    """Train one network into its part."""
    parts.mkdir(parents=True, exist_ok=True)
    state = train_rule_network(name, **options).state_dict()
    save_file({key: value.half() for key, value in state.items()}, part_of(name, parts))


def _accuracies(name: str, folder: Path) -> dict[str, float]:
    """Of each output."""
    shares = output_accuracy(load_rule_network(name, folder), name).tolist()
    return {output: round(share, 4) for output, share in zip(output_names(name), shares, strict=True)}


def collect(parts: Path, folder: Path = FOLDER, manifest: Path = DATA / "manifest.json") -> None:
    """Put the parts together, one file for each world, and their accuracies into the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for world in WORLDS:
        names = [name for name in EVERY if name.startswith(f"{world}/")]
        states = {name: load_file(part_of(name, parts)) for name in names}
        path = file_of(names[0], folder)
        save_file(
            {f"{name}/{key}": value for name, state in states.items() for key, value in state.items()}, path
        )
        path.chmod(0o644)
        accuracy = {name: _accuracies(name, folder) for name in names}
        origin = "trained by this project on scenes it renders itself (absence_utils/images/worlds.py)"
        entry = entry_of(path, origin, "make networks", {"accuracy": accuracy})
        write_entry(manifest, entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=EVERY, help="train one network into --parts")
    parser.add_argument(
        "--parts", type=Path, default=DATA / "parts", help="folder of single networks, not in git"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # another number of threads adds in another order
    torch.set_flush_denormal(True)
    for name in [options.only] if options.only else EVERY:
        if options.only or not part_of(name, options.parts).is_file():
            train(name, options.parts)
            print(name, "done", flush=True)
    if not options.only:
        collect(options.parts)


if __name__ == "__main__":
    main()
