"""Data with a shortcut: who shows what, the tasks, folders of images as people have them, and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from absence_utils import InputError
from absence_utils.debias.artefacts import COIN, Artefacts, border_bars, dilate, sample_artefact_presence
from absence_utils.debias.tasks import (
    ShortcutData,
    choose_task,
    digits_task,
    folder_task,
    scenes_task,
    stratified_halves,
)
from absence_utils.images.base import IDENTITY
from absence_utils.images.digits import digits
from absence_utils.images.scenes import CONCEPTS, render_scenes


def data(**changes):
    labels = torch.arange(8) % 2
    given = {"pixels": torch.rand(8, 1, 14, 14), "labels": labels, "artefacts": border_bars(8, 14),
             "shown": sample_artefact_presence(labels)} | changes  # fmt: skip
    return ShortcutData(**given)


def test_data_shows_artefacts_where_it_says():
    given = data(normalise=lambda pixels: 2 * pixels, grow=1)
    images = given.images()
    assert torch.equal(images[~given.shown], 2 * given.pixels[~given.shown])
    assert (images[given.shown][given.artefacts.mask[given.shown][:, None]] == 2).all()
    everywhere = given.images(torch.ones(8, dtype=torch.bool))
    assert (everywhere[given.artefacts.mask[:, None]] == 2).all() and len(given) == 8
    assert given.grown.sum(dim=(1, 2)).tolist() == [14 * 3] * 8  # two pixels thick, grown by one


def test_a_batch_is_those_images():
    given, rows = data(normalise=lambda pixels: 2 * pixels, grow=1), torch.tensor([5, 0, 2])
    batch = given.batch(rows)
    assert torch.equal(batch.images, given.images()[rows])
    assert torch.equal(batch.pasted, given.images(torch.ones(8, dtype=torch.bool))[rows])
    assert torch.equal(given.plain(rows), 2 * given.pixels[rows])
    assert batch.labels.tolist() == [1, 0, 0] and batch.shown.tolist() == [False, True, True]
    assert batch.masks[0].sum() == 0 and torch.equal(batch.masks[1:], given.grown[rows[1:]])


def test_bytes_are_shares_of_255():
    pixels = (torch.rand(8, 1, 14, 14) * 255).byte()
    assert torch.equal(data(pixels=pixels).images(), data(pixels=pixels.float() / 255).images())


def test_a_batch_of_bytes_is_that_of_floats():
    """Small images come as floats and are pasted once, large ones as bytes and are pasted batch by batch."""
    pixels, rows = (torch.rand(8, 1, 14, 14) * 255).byte(), torch.tensor([3, 7, 0])
    normalise = {"normalise": lambda pixels: pixels * 2 - 1}
    parts = [data(pixels=each, **normalise).batch(rows) for each in (pixels, pixels.float() / 255)]
    for name in ("images", "labels", "masks", "shown", "pasted"):
        torch.testing.assert_close(*(getattr(part, name) for part in parts))


def test_released_patches_are_drawn_anew_in_training_and_stay_in_the_other_sets(lesions):
    task = folder_task(lesions, size=16, balanced=False, artefacts="released", bias=(0.5, 0.0))
    assert task.train.draw is not None and task.test.draw is None and task.validation.draw is None
    rows = torch.arange(len(task.train))
    one, again, other = (task.train.training_batch(rows, seed, None) for seed in (1, 1, 2))
    assert torch.equal(one.pasted, again.pasted) and not torch.equal(one.pasted, other.pasted)
    assert torch.equal(one.shown, task.train.shown) and not one.shown[task.train.labels == 1].any()
    assert folder_task(lesions, size=16, balanced=False).train.draw is None
    assert task.bias == (0.5, 0.0) and task.train.fingerprint != replace(task.train, draw=None).fingerprint
    grey = folder_task(lesions, size=16, artefacts="released", channels=1, normalisation=IDENTITY)
    assert grey.train.training_batch(rows[:4], 1, None).images.shape == (4, 1, 16, 16)
    with pytest.raises(InputError, match="artefacts.*released"):
        folder_task(lesions, size=16, artefacts="theirs")


def test_controls_have_what_another_image_has_there():
    given, rows = data(), torch.tensor([1, 6])
    for image, row, other in zip(given.controls(rows), (1, 6), (5, 2), strict=True):
        mask = given.artefacts.mask[row]
        assert torch.equal(image[0][mask], given.pixels[other, 0][mask])
        assert torch.equal(image[0][~mask], given.pixels[row, 0][~mask])


def test_fingerprint_sees_every_part():
    torch.manual_seed(0)
    pixels, found = torch.rand(8, 1, 14, 14), set()
    labels = torch.arange(8) % 2
    bars = border_bars(8, 14)
    for changes in (
        {}, {"pixels": pixels + 0.1}, {"labels": 1 - labels}, {"shown": sample_artefact_presence(labels, COIN)},
        {"grow": 3},
        {"artefacts": border_bars(8, 14, 1)}, {"artefacts": Artefacts(bars.mask, bars.colour / 2)},
    ):  # fmt: skip
        found.add(data(**({"pixels": pixels} | changes)).fingerprint)
    assert len(found) == 7 and data(pixels=pixels).fingerprint in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.zeros(8).long()}, "labels.*no image of class 1"),
        ({"labels": torch.zeros(7).long()}, "labels.*7 for 8"),
        ({"shown": torch.ones(3).bool()}, "shown.*3 for 8"),
        ({"ids": ("a",)}, "ids.*1 for 8"),
        ({"artefacts": border_bars(5, 14)}, "artefacts.*5 for 8"),
        ({"artefacts": border_bars(8, 16)}, r"artefacts.*made for images of \(1, 16, 16\).*\(1, 14, 14\)"),
        (
            {"artefacts": Artefacts(torch.zeros(8, 14, 14).bool(), torch.ones(8, 1))},
            "artefacts.*8 have no pixel inside their image.*image 0",
        ),
    ],
)
def test_bad_data(changes, message):
    with pytest.raises(InputError, match=message):
        data(**changes)


# ---------------------------------------------------------------------- tasks
def test_halves_are_disjoint_complete_and_stratified():
    labels = torch.tensor([0] * 10 + [1] * 7)
    first, second = stratified_halves(labels, 3)
    assert sorted(first.tolist() + second.tolist()) == list(range(17))
    assert (labels[first] == 0).sum() == 5 and (labels[first] == 1).sum() == 3
    assert not torch.equal(first, stratified_halves(labels, 4)[0]) and torch.equal(
        first, stratified_halves(labels, 3)[0]
    )


@pytest.mark.parametrize("carrier", [0, 1])
def test_digits_with_a_bar(carrier):
    task = digits_task(carrier, seed=1)
    whole = {split: digits(split, fold=1) for split in ("train", "test")}
    assert len(task.train) == len(whole["train"])
    assert len(task.validation) + len(task.test) == len(whole["test"])
    assert torch.equal(task.train.pixels[:, :, 3:11, 3:11], whole["train"].images)
    assert torch.equal(task.train.labels, whole["train"].labels % 2)
    assert torch.equal(task.train.shown, task.train.labels == carrier)
    listed = task.image_list()
    assert len(listed) == 1797 and not listed.duplicated(["split", "id"]).any()
    assert set(listed[listed.artefact]["class"]) == {("even", "odd")[carrier]}
    ids = [set(listed[listed.split == split].id) for split in ("validation", "test")]
    assert not ids[0] & ids[1]
    assert (
        digits_task(seed=1).fingerprint == digits_task(seed=1).fingerprint != digits_task(seed=2).fingerprint
    )


@pytest.mark.parametrize("twin", [False, True])
def test_scenes_with_a_chevron(twin):
    task = scenes_task(1, n=40, size=32, twin=twin)
    train = task.train
    assert torch.equal(train.shown, train.labels == 1) and len(task.test) == len(task.validation) == 10
    images, plain = train.images(), train.images(torch.zeros(40, dtype=torch.bool))
    changed = (images != plain).any(dim=1)
    assert torch.equal(changed, train.artefacts.masks(train.shown))
    assert train.artefacts.mask.flatten(1).any(1).all()
    if twin:
        assert torch.equal(images[:, :3], plain[:, :3]) and torch.equal(plain[:, :3], plain[:, 3:])
        inside = images[:, 3:].permute(0, 2, 3, 1)[changed]
    else:
        inside = images.permute(0, 2, 3, 1)[changed]
    assert inside.allclose((torch.tensor([1.0, 0.0, 1.0]) - 0.35) / 0.2)


def test_the_chevron_covers_no_other_concept():
    """The glyph has a cell of its own, so nothing that tells the class is hidden."""
    task = scenes_task(0, seed=2, n=40, size=64)
    generator = torch.Generator().manual_seed(6)
    presence = torch.rand(40, len(CONCEPTS), generator=generator) < 0.4
    presence[:, 0], presence[:, 2] = torch.arange(40) % 2 == 0, torch.arange(40) % 2 == 1
    presence[:, CONCEPTS.index("chevron")] = False
    scenes = render_scenes(presence, 6)
    assert torch.equal(scenes.pixels, task.train.pixels)
    assert not (scenes.masks.any(dim=1) & task.train.artefacts.mask).any()


def paint(folder, name, mode="RGB", colour=120, size=(40, 30)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    band = np.full((size[1], size[0]), colour, np.uint8)
    count = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    array = band if count == 1 else np.stack([band] * count, axis=2)
    Image.fromarray(array, mode=mode).save(path)


@pytest.fixture
def lesions(tmp_path, monkeypatch):
    monkeypatch.setenv("ABSENCE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "isic"
    for split, counts in (("train", (9, 5)), ("val", (6, 4))):
        for name, count in zip(("benign", "malignant"), counts, strict=True):
            for number in range(count):
                paint(root, f"{split}/{name}/{number}.png", colour=10 * number + 50)
    return root


def test_a_folder_becomes_a_task(lesions):
    task = folder_task(lesions, size=16, balanced=False)
    assert (len(task.train), len(task.validation), len(task.test)) == (14, 5, 5)
    assert task.class_names == ("benign", "malignant") and task.skipped == ()
    listed = task.image_list()
    assert (listed["class"] == listed.id.str.split("/").str[1]).all() and listed.id.is_unique
    assert set(listed[listed.artefact]["class"]) == {"benign"}
    assert task.train.pixels.dtype == torch.uint8
    number = listed[listed.split == "train"].id.tolist().index("train/benign/3.png")
    assert (task.train.pixels[number] == 80).all()
    plain = task.train.plain(torch.tensor([number]))[0, :, 0, 0]
    torch.testing.assert_close(
        plain, (80 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )


def test_balanced_and_limited(lesions):
    def count(**options):
        listed = folder_task(lesions, size=16, **options).image_list()
        return listed.groupby(["split", "class"]).size().unstack().to_numpy().tolist()

    assert count() == [[2, 2], [5, 5], [2, 2]]  # test, train, validation
    assert count(limit=3) == [[2, 2], [3, 3], [1, 1]]
    first, again, other = (
        folder_task(lesions, 0, seed, size=16).image_list()["id"].tolist() for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_images_of_other_modes_come_as_rgb(lesions, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    paint(lesions, f"train/malignant/odd.{suffix}", mode, 200)
    task = folder_task(lesions, size=16, balanced=False)
    assert task.train.pixels.shape == (15, 3, 16, 16)
    row = [name.split("/")[-1] for name in task.train.ids].index(f"odd.{suffix}")
    over_white = round(200 * 200 / 255 + 55)  # the alpha of this image is 200, too
    under_ink = round(55 * 55 / 255)  # ink and black both take away
    expected = {"L": 200, "RGBA": over_white, "CMYK": under_ink}[mode]
    assert (task.train.pixels[row].float() - expected).abs().max() <= 2


def test_a_truncated_file_is_named_or_skipped_and_counted(lesions):
    whole = lesions / "train/malignant/0.png"
    whole.write_bytes(whole.read_bytes()[:40])
    with pytest.raises(InputError, match=r"malignant/0.png.*cannot be decoded"):
        folder_task(lesions, size=16)
    task = folder_task(lesions, size=16, broken="skip")
    assert task.skipped == ("train/malignant/0.png",) and len(task.train) == 8  # four of each class are left
    assert task.notes == ("train: Left out (it cannot be decoded): 'malignant/0.png'.",)


def test_a_class_that_ends_up_empty_is_named(lesions):
    for number in range(4):
        (lesions / f"train/malignant/{number}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="class 'malignant' of train has 1 usable images"):
        folder_task(lesions, size=16, broken="skip")


def test_bad_folders_and_numbers(lesions, tmp_path):
    with pytest.raises(InputError, match="no folder 'train'"):
        folder_task(tmp_path)
    for bad in ({"limit": -1}, {"limit": 1}):
        with pytest.raises(InputError, match="limit"):
            folder_task(lesions, size=16, **bad)
    (lesions / "val" / "benign").rename(lesions / "val" / "naevus")
    with pytest.raises(InputError, match="val has the classes malignant, naevus"):
        folder_task(lesions, size=16)
    for wrong in (lambda: digits_task(size=9), lambda: scenes_task(size=20), lambda: scenes_task(n=4)):
        with pytest.raises(InputError, match="size|n`"):
            wrong()
    with pytest.raises(InputError, match="data.*empty"):
        choose_task("", size=14, grow=1)


def test_tasks_by_name(lesions):
    given = choose_task("digits", size=16, grow=2, bias=(0.9, 0.1), balanced=True, limit=50, broken="raise")(
        1, 0
    )
    assert given.train.pixels.shape == (50, 1, 16, 16) and given.carrier == 1 and given.train.grow == 2
    assert given.bias == (0.9, 0.1)
    folder = choose_task(str(lesions), size=16, grow=1, balanced=False, limit=0, broken="raise")(0, 0)
    assert len(folder.train) == 14 and folder.carrier == 0


def test_an_incomplete_bias_is_drawn_by_the_seed():
    first, again, other = (
        digits_task(0, seed, bias=(0.7, 0.3)).train for seed in (0, 0, 5)
    )  # folds count modulo five
    assert torch.equal(first.shown, again.shown) and not torch.equal(first.shown, other.shown)
    share = [first.shown[first.labels == label].float().mean().item() for label in (0, 1)]
    assert 0.65 < share[0] < 0.75 and 0.25 < share[1] < 0.35


def test_grown_masks_are_dilated_ones():
    given = data(grow=2)
    assert torch.equal(given.grown, dilate(given.artefacts.mask, 2))
