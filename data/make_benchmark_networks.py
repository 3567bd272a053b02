"""Train the networks of the benchmark: data/benchmark_networks.safetensors, and its entry in data/manifest.json.

    python data/make_benchmark_networks.py

Five networks on the scenes' rules, five twins without any absence, one detector of concepts: each two to three minutes
of one core. `--only rules/3` trains one into data/parts/, so that several can run side by side; without `--only`,
parts that are there are used.
"""

import argparse
from pathlib import Path

import torch
from manifest import entry_of, write_entry
from safetensors.torch import load_file, save_file

from absence_utils.benchmark.networks import KINDS, SEEDS
from absence_utils.images.scenes import NORMALISATION, draw_presence, render_scenes
from absence_utils.models.concept_net import ConceptNet, train_concept_net
from absence_utils.models.training import predict
from absence_utils.paths import DATA

# Seed of the first network: none shares its start or its scenes with data/concept_scenes.safetensors.
FIRST = 100
TEST_SCENES, TEST_SEED = 2000, 910  # never used in training
ALL = [f"{kind}/{seed}" for kind in KINDS for seed in range(1 if kind == "detector" else SEEDS)]


def train(name: str):
    """The network called "kind/seed"; each kind and seed has a start and scenes of its own."""
    kind, _, seed = name.partition("/")
    own = FIRST + 10 * int(seed) + 2 * list(KINDS).index(kind)
    return train_concept_net(8000, 10, seed=own, targets=KINDS[kind][2])


def accuracy(name: str, net) -> dict:
    """Share of test scenes on which the sign of each output is right."""
    outputs, truth, _ = KINDS[name.partition("/")[0]]
    presence = draw_presence(TEST_SCENES, TEST_SEED)
    logits = predict(net, NORMALISATION.apply(render_scenes(presence, TEST_SEED).pixels))
    right = ((logits > 0) == truth(presence)).double().mean(dim=0)
    return {output: round(value, 5) for output, value in zip(outputs, right.tolist(), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=ALL, help="train one network into --parts")
    parser.add_argument(
        "--parts", type=Path, default=DATA / "parts", help="folder of single networks, not in git"
    )
    options = parser.parse_args()
    options.parts.mkdir(exist_ok=True)
    torch.set_num_threads(1)  # another number of threads adds in another order
    torch.set_flush_denormal(True)
    for name in [options.only] if options.only else ALL:
        part = options.parts / f"{name.replace('/', '-')}.safetensors"
        if not part.is_file():
            save_file(train(name).state_dict(), part)
            print(name, "done", flush=True)
    if options.only:
        return
    tensors, facts = {}, {}
    for name in ALL:
        state = load_file(options.parts / f"{name.replace('/', '-')}.safetensors")
        tensors |= {f"{name}/{key}": value for key, value in state.items()}
        net = ConceptNet(len(KINDS[name.partition("/")[0]][0]))
        net.load_state_dict(state)
        facts[name] = accuracy(name, net)
    path = DATA / "benchmark_networks.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)
    origin = "trained by this project on scenes it renders itself (absence_utils/images/scenes.py)"
    facts = {"test_scenes": TEST_SCENES, "accuracy": facts}
    entry = entry_of(path, origin, "python data/make_benchmark_networks.py", facts)
    write_entry(DATA / "manifest.json", entry)


if __name__ == "__main__":
    main()
