"""Train the network that ships in data/concept_scenes.safetensors and write its entry in data/manifest.json.

    python data/make_concept_scenes.py

Takes two to four minutes on one core. The same machine writes the same file; another processor may round
differently and end in slightly different weights with the same facts.
"""

import json

import torch
from manifest import entry_of, write_entry
from safetensors.torch import save_file

from absence_utils.benchmark.effects import average_causal_effect
from absence_utils.images.scenes import CONCEPTS, RULES, planted_effects, scene_dataset
from absence_utils.models.concept_net import ConceptNet, train_concept_net
from absence_utils.models.training import predict
from absence_utils.paths import DATA

SEED = 0
TEST_SCENES, TEST_SEED = 4000, 900  # never used in training
PAIRS, PAIRS_SEED = 400, 901
CLEAR = 0.25  # an effect on a hidden unit is clear beyond this many standard deviations of its response


def measure(net: ConceptNet) -> dict:
    """Facts of the manifest: accuracy, effects on the outputs, share of hidden units that encode absences."""
    test = scene_dataset(TEST_SCENES, TEST_SEED)
    right = ((predict(net, test.images) > 0) == test.membership).double().mean(dim=0)
    effects = [average_causal_effect(net, None, name, PAIRS, PAIRS_SEED) for name in CONCEPTS]
    mean = torch.stack([effect.mean for effect in effects], dim=1)
    error = torch.stack([effect.standard_error for effect in effects], dim=1)
    planted = planted_effects()
    hidden = [average_causal_effect(net, "block4", name, PAIRS, PAIRS_SEED, True) for name in CONCEPTS]
    hidden = torch.stack([effect.mean for effect in hidden], dim=1)  # [unit, concept]
    strongest = hidden.gather(1, hidden.abs().argmax(dim=1, keepdim=True))[:, 0]
    tables = {
        "effect_in_logits": mean, "effect_standard_error": error, "effect_of_a_perfect_network": planted,
    }  # fmt: skip
    return {
        "test_scenes": TEST_SCENES,
        "accuracy": {rule: round(value, 5) for rule, value in zip(RULES, right.tolist(), strict=True)},
        "pairs": PAIRS,
        **{
            key: {
                rule: {name: round(value, 2) for name, value in zip(CONCEPTS, row, strict=True)}
                for rule, row in zip(RULES, table.tolist(), strict=True)
            }
            for key, table in tables.items()
        },
        "planted_absences_weakest_effect": round(mean[planted < 0].max().item(), 2),
        "unplanted_strongest_effect": round(mean[planted == 0].abs().max().item(), 2),
        "block4_units": len(hidden),
        "block4_share_with_a_clear_absence": round((hidden < -CLEAR).any(dim=1).double().mean().item(), 3),
        "block4_share_whose_strongest_effect_is_a_clear_absence": round(
            (strongest < -CLEAR).double().mean().item(), 3
        ),
        "clear": f"more than {CLEAR} standard deviations of the unit's response",
    }


def main() -> None:
    torch.set_num_threads(1)  # another number of threads adds in another order
    torch.set_flush_denormal(True)
    net = train_concept_net(seed=SEED)
    file = DATA / "concept_scenes.safetensors"
    save_file(net.state_dict(), file)
    file.chmod(0o644)
    origin = "trained by this project on scenes it renders itself (absence_utils/images/scenes.py)"
    entry = entry_of(file, origin, "python data/make_concept_scenes.py", measure(net))
    write_entry(DATA / "manifest.json", entry)
    print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main()
