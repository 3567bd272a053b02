"""The published insertion test and the controlled one on real networks and on random copies of them.

    python benchmarks/bench_published.py --networks networks.py --images DIR --out FOLDER --only resnet50:layer4.2.conv3
    python benchmarks/bench_published.py --out FOLDER --table data/measured/published_insertion.csv

The first command studies one case (a network, a layer and a pool) with its trained weights, then random copies. What
is finished lies in FOLDER, a table for each, and is not done again: a killed run goes on where it was. The second makes
the table of all that is there, and NAME_table.csv beside it, which reads as the paper's.

Patches come from the first third of the images, top images of the published test from all of them, as many units
drawn at random as asked for. The release takes patches from all images, and more units, images and windows.
"""

import argparse
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from make_measured import machine

from absence_utils.files import write_atomically
from absence_utils.images import shuffle_images, stack_images
from absence_utils.insertion.design import InsertionConfig
from absence_utils.insertion.protocols import controlled_protocol, split_in_thirds
from absence_utils.insertion.published import PUBLISHED, published_protocol, published_summary, share_interval
from absence_utils.insertion.scores import LEVEL, MAIN_CONTROL, select_score
from absence_utils.models.opening import open_model
from absence_utils.patches.mining import mine_patches
from absence_utils.units import dataset_responses, responses


@dataclass(frozen=True)
class Case:
    """A layer of a network, how it is pooled, and how much of it two cores can do.

    Attributes:
        units: of the trained network, and of all copies together.
        stride: of the windows, px: the release's 16 is 144 windows an image.
    """

    network: str
    layer: str
    pool: str = "mean"
    units: tuple[int, int] = (4, 4)
    copies: int = 2
    stride: int = 24

    def __str__(self) -> str:
        return f"{self.network}:{self.layer}:{self.pool}"


FACTS = ["network", "layer", "pool", "patch", "stride", "images", "windows", "top"]  # of a case
MLP = "encoder.layers.encoder_layer_11.mlp.3"
CASES = [  # in the order of what matters most: together an hour or two of one core
    Case("resnet50", "layer4.2.conv3", units=(8, 4)),
    *(Case("deit_tiny", MLP, pool, stride=88) for pool in ("min", "mean", "cls")),
    Case("resnet50", "layer1.2.conv3", units=(8, 8)),
    Case("googlenet", "inception4c"),
    Case("resnet50", "layer2.3.conv3"),
    Case("resnet50", "layer3.5.conv3"),
    Case("vgg16", "28"),
]


def study(net, case: Case, stack, units: np.ndarray, *, patch=48, top=100, hosts=16) -> pd.DataFrame:
    """Both tests on some units of a network: a row for each, with the columns of `Published.table` and of ours.

    Ours are controlled (absence score, in sd), suppressed (beyond 0.05 sd, false discovery rate 5%) and veto.
    """
    first, chosen_on, measured_on = split_in_thirds(len(stack))
    how = {"patch": patch, "stride": case.stride, "k": 8, "pool": case.pool}
    book = mine_patches(net, case.layer, stack, **how, part=first)
    own = dataset_responses(net, case.layer, stack, pool=case.pool).numpy()
    asked = {"units": units, "responses": own}
    setting = InsertionConfig(**how, images=min(top, len(stack)), pairs="one_random")
    table = published_protocol(net, case.layer, stack, book, setting, **asked).table()
    setting = InsertionConfig(**how, images=hosts, pairs="one")
    how = asked | {"redraws": 1, "top_share": 0.2, "control_units": 0}
    scores = controlled_protocol(net, case.layer, stack, book, chosen_on, measured_on, setting, **how).scores
    absence, veto = (
        select_score(scores, *name) for name in (("absence", MAIN_CONTROL), ("veto", "median images"))
    )
    ours = {"controlled": absence.value, "veto": veto.value}
    ours |= {"suppressed": ((absence.value > 0) & (absence.q_least < LEVEL)).astype(float)}
    return table.join(pd.DataFrame(ours), on="unit").assign(windows=book.windows, top=min(top, len(stack)))


def run(case: Case, networks: Path, images: Path, out: Path, limit: int, patch: int) -> None:
    """Study the network and its copies, each into a file of its own unless that is there."""
    for copy in range(case.copies + 1):
        weights = f"random {copy}" if copy else "trained"
        path = out / f"{case}:{patch}:{weights}.csv".replace(":", " ")
        if path.is_file():
            continue
        start = process_time()
        opened = open_model(f"{networks}:{case.network}")
        stack = stack_images(shuffle_images(opened.images(str(images), limit=limit), 0))
        net = opened.untrained(copy) if copy else opened.model
        with torch.no_grad():
            channels = responses(net, case.layer, stack.take([0]), case.pool).shape[1]
        count = case.units[1] // case.copies if copy else case.units[0]
        table = study(
            net, case, stack, np.random.default_rng(copy).permutation(channels)[:count], patch=patch
        )
        facts = {"network": case.network, "layer": case.layer, "pool": case.pool, "patch": patch}
        facts |= {"stride": case.stride, "images": len(stack), "weights": weights}
        seconds = round(process_time() - start)
        write_atomically(path, table.assign(**facts, core_seconds=seconds).to_csv(index=False).encode())
        print(f"{path.name}: {seconds} s of one core", file=sys.stderr, flush=True)


def tabulate(out: Path) -> pd.DataFrame:
    """All that is in the folder: a row for each case, trained or random copies, and quantity, with its interval."""
    units = pd.concat([pd.read_csv(path) for path in sorted(out.glob("*.csv"))], ignore_index=True)
    copies = units.weights.str.startswith("random")
    units["weights"], units["copies"] = units.weights.where(~copies, "random"), units.weights.where(copies)
    groups = []
    for facts, rows in units.groupby([*FACTS, "weights"], sort=False):
        summary = published_summary(
            rows.drop(columns=[*FACTS, "weights", "copies", "core_seconds", "t", "p"])
        )
        controlled = rows.suppressed.notna()
        summary.loc["suppressed"] = share_interval(rows.suppressed[controlled].astype(bool))
        about = dict(zip([*FACTS, "weights"], facts, strict=True))
        about |= {
            "copies": rows.copies.nunique(),
            "units": len(rows),
            "units_controlled": int(controlled.sum()),
        }
        seconds = rows.groupby("copies", dropna=False).core_seconds.first().sum()
        groups.append(summary.reset_index().assign(**about, core_minutes=round(seconds / 60, 1)))
    table = pd.concat(groups, ignore_index=True)
    names = [name for name in table if name not in ("quantity", "value", "low", "high")]
    table = table[[*names, "quantity", "value", "low", "high"]]
    command = "python benchmarks/bench_published.py --networks FILE --images DIR --out FOLDER"
    return table.round(4).assign(command=command, machine=machine(), date=f"{date.today()}")


def as_in_the_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `tabulate` as the paper has it: a row for each case and kind of weights, conditions as columns.

    A condition is "mean ± sd" over images, both averaged over units; a share in percent and a score in sd have their
    95% intervals over units.
    """
    about = ["network", "layer", "pool", "patch", "images", "weights", "copies", "units"]
    rows = []
    for facts, part in table.groupby(about, sort=False):
        found, row = part.set_index("quantity"), dict(zip(about, facts, strict=True))
        for name in PUBLISHED:
            row[name] = f"{found.value[f'mean, {name}']:.3g} ± {found.value[f'sd, {name}']:.2g}"
        ends = found[["value", "low", "high"]]
        for name in ("significant", "lower"):
            row[f"{name} (%)"] = "{:.0f} [{:.0f}, {:.0f}]".format(*100 * ends.loc[name])
        row["absence score, controlled (sd)"] = "{:.2f} [{:.2f}, {:.2f}]".format(*ends.loc["controlled"])
        rows.append(row | part[["command", "machine", "date"]].iloc[0].to_dict())
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="file with a function for each network")
    parser.add_argument("--images", type=Path, help="folder with one folder of images for each class")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is finished")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="cases that begin so, as resnet50:layer4.2.conv3"
    )
    parser.add_argument("--limit", type=int, default=300, help="images")
    parser.add_argument(
        "--patch", type=int, default=48, help="edge of the patches, px (the release: 48 and 64)"
    )
    parser.add_argument("--table", type=Path, help="write the tables of all that is finished, run nothing")
    options = parser.parse_args()
    if options.table:
        table = tabulate(options.out)
        short = options.table.with_stem(f"{options.table.stem}_table")
        for path, content in ((options.table, table), (short, as_in_the_paper(table))):
            write_atomically(path, content.to_csv(index=False, lineterminator="\n").encode())
        return
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if str(case).startswith(tuple(options.only)):
            run(case, options.networks, options.images, options.out, options.limit, options.patch)


if __name__ == "__main__":
    main()
