"""Sorting the archive's images: by diagnosis, patients in one split, nothing half done."""

import pandas as pd
import pytest

from absence_utils import InputError
from absence_utils.debias.isic import main, sort_images


@pytest.fixture
def downloaded(tmp_path):
    folder = tmp_path / "downloaded"
    folder.mkdir()
    rows = []
    for number in range(60):
        name = f"ISIC_{number:07d}"
        diagnosis = ("Benign", "Malignant", "Indeterminate")[number % 3 if number < 45 else number % 2]
        patient = f"IP_{number // 4}" if number % 5 else None
        rows.append((name, diagnosis, patient, f"IL_{number // 2}"))
        if number != 1:
            (folder / f"{name}.jpg").write_bytes(name.encode())
    table = pd.DataFrame(rows, columns=["isic_id", "diagnosis_1", "patient_id", "lesion_id"])
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


def test_images_go_where_their_diagnosis_says(downloaded, tmp_path):
    out = tmp_path / "isic"
    counts = sort_images(downloaded, out)
    table = pd.read_csv(downloaded / "metadata.csv").set_index("isic_id")
    seen = {}
    for path in out.rglob("*.jpg"):
        split, name = path.relative_to(out).parts[:2]
        assert table.diagnosis_1[path.stem].lower() == name and path.read_bytes() == path.stem.encode()
        seen[path.stem] = split
    assert set(seen) == set(table.index[table.diagnosis_1 != "Indeterminate"]) - {"ISIC_0000001"}
    assert counts.images.sum() == 60 and counts.images.iloc[-1] == 60 - len(seen)
    owner = table.patient_id.fillna(table.lesion_id)[list(seen)]
    splits = pd.Series(seen).groupby(owner).nunique()
    assert (splits == 1).all() and set(seen.values()) == {"train", "val"}
    assert list(seen.values()).count("val") < 0.4 * len(seen)  # a fifth of the patients
    again = sort_images(downloaded, tmp_path / "again")
    other = sort_images(downloaded, tmp_path / "other", 0.5, seed=1)
    assert again.equals(counts) and not other.equals(counts)


def test_the_earlier_column_and_the_command_line(downloaded, tmp_path, capsys):
    table = pd.read_csv(downloaded / "metadata.csv").rename(columns={"diagnosis_1": "benign_malignant"})
    table.drop(columns=["patient_id", "lesion_id"]).to_csv(downloaded / "metadata.csv", index=False)
    assert main([str(downloaded), str(tmp_path / "isic"), "--val-share", "0.3"]) == 0
    assert "left out" in capsys.readouterr().out
    assert main([str(downloaded), str(tmp_path / "isic")]) == 1
    assert "`out`" in capsys.readouterr().err


def test_bad_input(downloaded, tmp_path):
    out = tmp_path / "isic"
    with pytest.raises(InputError, match="val_share"):
        sort_images(downloaded, out, 1.0)
    with pytest.raises(InputError, match="metadata.csv"):
        sort_images(tmp_path, out)
    table = pd.read_csv(downloaded / "metadata.csv")
    table[table.diagnosis_1 != "Malignant"].to_csv(downloaded / "metadata.csv", index=False)
    with pytest.raises(InputError, match="no malignant image"):
        sort_images(downloaded, out)
    table.drop(columns="diagnosis_1").to_csv(downloaded / "metadata.csv", index=False)
    with pytest.raises(InputError, match="isic_id or diagnosis"):
        sort_images(downloaded, out)
    assert not out.exists()
