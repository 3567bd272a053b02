"""Sort images of the ISIC archive into the folders that notebook 08 reads.

    isic image download --collections ID --limit 0 downloaded/
    python -m absence_utils.debias.isic downloaded/ isic/

makes isic/train and isic/val with benign and malignant in each, from the images and the metadata.csv in downloaded/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from absence_utils.errors import InputError

DIAGNOSIS = ("diagnosis_1", "benign_malignant")  # the archive's column now, and earlier
CLASSES = ("benign", "malignant")
SUFFIXES = (".jpg", ".jpeg", ".png")


def sort_images(downloaded: Path, out: Path, val_share: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Link every image that is called benign or malignant into `out`/train or val/CLASS.

    All images of a patient (of a lesion, where the patient is not known) fall into one split, so that no lesion is
    both learnt and asked for.

    Args:
        downloaded: folder with the images and metadata.csv, as `isic image download` makes it.
        out: a folder that does not exist yet. Files are hard links where the file system allows it, else copies.
        val_share: share of the patients that goes to val, above 0 and below 1.
        seed: of that draw.

    Returns:
        Columns split, class, images: what was linked; class "left out" counts other diagnoses and missing files.

    Raises:
        InputError: no metadata.csv, one without the columns, an existing `out`, or a class without images.
    """
    table = downloaded / "metadata.csv"
    if not table.is_file():
        problem = f"no metadata.csv in {downloaded.name!r}"
        raise InputError("downloaded", problem, "Run `isic image download` first.")
    if out.exists():
        raise InputError("out", f"{out.name!r} is there already", "Give a new folder.")
    if not 0 < val_share < 1:
        raise InputError("val_share", f"{val_share}", "Use a share above 0 and below 1.")
    rows = pd.read_csv(table, low_memory=False)
    column = next((name for name in DIAGNOSIS if name in rows), None)
    if column is None or "isic_id" not in rows:
        problem = "metadata.csv has no isic_id or diagnosis"
        raise InputError("downloaded", problem, f"It needs {DIAGNOSIS[0]}.")
    rows["class"] = rows[column].astype(str).str.lower()
    files = {path.stem: path for path in downloaded.iterdir() if path.suffix.lower() in SUFFIXES}
    usable = rows["class"].isin(CLASSES) & rows.isic_id.isin(files)
    left_out, rows = int((~usable).sum()), rows[usable]
    missing = set(CLASSES) - set(rows["class"])
    if missing:
        raise InputError("downloaded", f"no {sorted(missing)[0]} image", "Download images of both classes.")
    owner = rows.isic_id
    for name in ("lesion_id", "patient_id"):
        if name in rows:
            owner = rows[name].fillna(owner)
    owners = np.sort(owner.unique())
    held = np.random.default_rng(seed).permutation(owners)[: max(1, round(val_share * len(owners)))]
    rows = rows.assign(split=np.where(owner.isin(held), "val", "train"))
    for row in rows[["isic_id", "split", "class"]].itertuples(index=False):
        target = out / row[1] / row[2] / files[row[0]].name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(files[row[0]], target)
        except OSError:
            target.write_bytes(files[row[0]].read_bytes())
    counts = rows.groupby(["split", "class"]).size().rename("images").reset_index()
    counts.loc[len(counts)] = ("", "left out", left_out)
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Command line, see the top of this module."""
    about = sort_images.__doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m absence_utils.debias.isic", description=about)
    parser.add_argument("downloaded", type=Path, help="folder that `isic image download` made")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument(
        "--val-share", type=float, default=0.2, help="share of the patients for val (default 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        print(sort_images(**vars(options)).to_string(index=False))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
