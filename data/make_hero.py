"""The digit of the start page, static/hero.json: an 8 that loses the strokes that keep it from being a 3.

    python data/make_hero.py        ten seconds

The network, the split and the training are those of notebook 03, seed 0. Which 8 is shown follows a rule, so that
nobody chose it for its looks: of the held-out 8s that the network recognises, the one that takes the median number of
removed pixels until the network sees a 3 (those that never get there count as the slowest; equals keep their order).
"""

import argparse
import json

import torch
from manifest import entry_of, write_entry

from absence_utils.files import write_atomically
from absence_utils.images.digits import digits
from absence_utils.models import accuracy, fit
from absence_utils.paths import ROOT
from absence_utils.toys.digits import DigitsNet, class_maps, progressive_removal

COMMAND = "python data/make_hero.py"
HERO = ROOT / "static" / "hero.json"
UNIT, SOURCE, SEED, EPOCHS, LR = 3, 8, 0, 15, 0.02  # as in notebook 03
MOST = 0.28  # of the stroke pixels, the largest share of notebook 03
RULE = (
    "of the held-out 8s that the network recognises, the one that takes the median number of removed pixels "
    "until the network sees a 3"
)


def one_by_one(network: DigitsNet, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Remove the stroke pixels of one image [1, 1, height, width] one after the other, up to the share MOST.

    Returns:
        images [removed, height, width] and responses [removed, class], signed, from none removed on.
    """
    strokes = int((image > 0).sum())
    shares = [removed / strokes for removed in range(int(MOST * strokes) + 1)]
    left, responses = progressive_removal(network, image, UNIT, shares)
    return left[:, 0, 0], responses[:, 0]


def median_example(turns: list[int | None]) -> int:
    """Position of the median of the numbers of removed pixels, None last, equals in their order."""
    order = sorted(
        range(len(turns)), key=lambda place: float("inf") if turns[place] is None else turns[place]
    )
    return order[len(order) // 2]


def hero() -> tuple[dict, dict]:
    """What the start page shows, and the facts behind it."""
    train, test = (digits(split, "sklearn", fold=SEED) for split in ("train", "test"))
    network = DigitsNet(train.images.shape[-1], SEED)
    fit(network, train.images, train.labels, epochs=EPOCHS, lr=LR, seed=SEED)
    _, maps, halves = class_maps([network], [test], SOURCE, UNIT)
    examples = []
    for image, signed in zip(test.images[test.labels == SOURCE], maps, strict=True):
        images, responses = one_by_one(network, image[None])
        seen = responses.argmax(1).tolist()
        if seen[0] == SOURCE:
            turn = seen.index(UNIT) if UNIT in seen else None
            examples.append((turn, images, responses, seen, signed))
    turn, images, responses, seen, signed = examples[median_example([example[0] for example in examples])]
    gone = [(before > after).nonzero()[0].tolist() for before, after in zip(images, images[1:], strict=False)]
    shown = {
        "unit": UNIT,
        "source": SOURCE,
        "pixels": [[round(float(pixel), 4) for pixel in row] for row in images[0]],  # 0..1, background 0
        "map": [[round(float(pixel), 3) for pixel in row] for row in signed],  # of the unit, signed
        "removed": gone,  # row and column of each pixel, in the order of removal
        "responses": [[round(float(value), 2) for value in row] for row in responses],  # [removed, class]
        "seen": seen,  # class with the highest response, for each number of removed pixels
    }
    numbers = [example[0] for example in examples]
    facts = {
        "rule": RULE,
        "seed": SEED,
        "test_accuracy": round(accuracy(network, test.images, test.labels), 4),
        "candidates": len(examples),
        "turn_into_3": sum(number is not None for number in numbers),
        "pixels_until_3": turn,
        "absence_evidence_on_the_left": round(float(halves["absence evidence on the left"].iloc[0]), 3),
        "test_images": test.fingerprint,
    }
    return shown, facts


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    torch.set_num_threads(1)
    shown, facts = hero()
    write_atomically(HERO, json.dumps(shown).encode() + b"\n")
    origin = "computed by this project from scikit-learn's digits (UCI ML, CC BY 4.0): an image of 8x8 pixels"
    write_entry(HERO.parent / "manifest.json", entry_of(HERO, origin, COMMAND, facts))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
