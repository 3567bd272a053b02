"""Image folders and images in memory: what is broken is named, what is normalised can be undone."""

import os
from functools import partial
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from absence_utils.errors import InputError
from absence_utils.images.base import IDENTITY, IMAGENET, Normalisation, TensorImages, normalisation_of
from absence_utils.images.cache import stack_images
from absence_utils.images.folders import FolderImages, readable_classes
from absence_utils.images.load import load_images
from absence_utils.images.subsets import Subset, shuffle_images
from absence_utils.models.opening import open_model


@pytest.fixture
def folder(tmp_path):
    """Two classes, grey, palette, RGBA and CMYK images among them."""
    for number, (name, mode) in enumerate(
        [
            ("ant/a.jpg", "RGB"),
            ("ant/b.png", "RGBA"),
            ("bee/c.jpg", "CMYK"),
            ("bee/d.png", "P"),
            ("bee/e.JPEG", "L"),
        ]
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30), (10 * number, 100, 200)).convert(mode).save(path)
    return tmp_path / "photos"


class Rgb(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3)


def test_folder_yields_normalised_squares_in_order(folder):
    images = load_images(folder, Rgb(), size=16)
    assert len(images) == 5 and images.class_names == ["ant", "bee"]
    assert images.labels.tolist() == [0, 0, 1, 1, 1] and [images[i][1] for i in range(5)] == [0, 0, 1, 1, 1]
    assert images.membership.tolist() == [[True, False]] * 2 + [[False, True]] * 3
    image, _ = images[0]
    assert image.shape == (3, 16, 16) and image.dtype == torch.float32
    expected = (torch.tensor([0, 100, 200]) / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(image.mean((1, 2)), expected, atol=0.05, rtol=0)  # JPEG is not exact


def test_a_path_may_begin_at_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load_images("~/photos", Rgb())) == len(load_images(folder, Rgb()))


def test_hidden_files_and_folders_are_no_images(folder):
    for name in (".ipynb_checkpoints/a.png", "ant/._a.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not an image")
    images = load_images(folder, Rgb(), size=16)
    assert len(images) == 5 and images.class_names == ["ant", "bee"]


def test_grey_networks_get_one_channel(folder):
    image, _ = load_images(folder, Rgb(1), size=16)[0]
    assert image.shape == (1, 16, 16) and 0 <= image.min() and image.max() <= 1
    assert normalisation_of(Rgb(1)) == IDENTITY and normalisation_of(Rgb()) == IMAGENET
    own = Rgb()
    own.normalisation = Normalisation((0.5,), (0.5,))
    assert normalisation_of(own).mean == (0.5,)


def test_limit_draws_with_the_seed_and_keeps_the_order(folder):
    drawn = [load_images(folder, Rgb(), size=8, limit=3, seed=seed).files for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and any(files != drawn[0] for files in drawn[2:])
    assert all(files == sorted(files) and len(files) == 3 for files in drawn)
    assert len(load_images(folder, Rgb(), size=8, limit=99)) == 5


def test_one_truncated_file_among_many_is_named_and_skipped_only_on_request(folder):
    whole = Image.effect_noise((64, 64), 80).convert("RGB")
    whole.save(folder / "ant" / "z.jpg")
    content = (folder / "ant" / "z.jpg").read_bytes()
    (folder / "ant" / "z.jpg").write_bytes(content[: len(content) // 2])
    (folder / "bee" / "text.png").write_text("not an image")
    images = load_images(folder, Rgb(), size=16)
    with pytest.raises(InputError, match=r"`images`.*'ant/z.jpg' cannot be decoded.*broken='skip'"):
        [images[i] for i in range(len(images))]
    skipping = load_images(folder, Rgb(), size=16, broken="skip")
    assert skipping.skipped == ["ant/z.jpg", "bee/text.png"] and len(skipping) == 5
    assert all(skipping[i][0].shape == (3, 16, 16) for i in range(5)) and len(skipping.membership) == 5


def test_bad_folders_are_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep" / "a" / "b").mkdir(parents=True)
    (folder / "cow").mkdir()
    cases = {
        "`images`.*there is no folder": lambda: load_images(tmp_path / "no", Rgb()),
        "`images`.*no images in it": lambda: load_images(tmp_path / "empty", Rgb()),
        "`images`.*no images in class folders": lambda: load_images(tmp_path / "deep", Rgb()),
        "`images`.*1 class folders hold no image.*'cow'": lambda: load_images(folder, Rgb()),
        "`images`.*empty": lambda: load_images("", Rgb()),
        "`broken`.*'ignore'": lambda: load_images(folder, Rgb(), broken="ignore"),
        "`size`: 0.*1 or more": lambda: load_images(folder, Rgb(), size=0),
        "`limit`.*-1": lambda: load_images(folder, Rgb(), limit=-1),
        "`labels`.*1 for 2": lambda: TensorImages(torch.zeros(2, 1, 4, 4), torch.zeros(1), ["a"]),
    }
    for message, call in cases.items():
        with pytest.raises(InputError, match=message):
            call()


def test_a_folder_of_images_alone_is_one_class(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            Image.new("RGB", (9, 9)).save(tmp_path / name)
    images = load_images(tmp_path, Rgb(), size=8)
    assert [file.name for file in images.files] == ["a.jpg", "b.png"]
    assert images.class_names == [tmp_path.name] and images.labels.tolist() == [0, 0]
    assert images.membership.shape == (2, 1) and images[1][0].shape == (3, 8, 8)


def test_fingerprints_tell_inputs_apart(folder):
    before = load_images(folder, Rgb()).fingerprint
    assert before == load_images(folder, Rgb()).fingerprint != load_images(folder, Rgb(), limit=2).fingerprint
    (folder / "ant" / "b.png").write_bytes((folder / "ant" / "a.jpg").read_bytes())
    assert load_images(folder, Rgb()).fingerprint != before
    images = [TensorImages(torch.full((1, 1, 2, 2), v), torch.tensor([0]), ["a"]) for v in (0.0, 0.0, 1.0)]
    assert images[0].fingerprint == images[1].fingerprint != images[2].fingerprint


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("image size", {"size": 9}),
        ("normalisation", {"normalisation": Normalisation((0.5,) * 3, (0.25,) * 3)}),
        ("reading", {"channels": 1}),
        ("reading", {"background": "black"}),
        ("images", {"limit": 1}),
    ],
)
def test_identity_of_a_folder_names_what_differs(folder, part, change):
    how = {"normalisation": IMAGENET, "size": 8}
    one, other = FolderImages(folder, **how), FolderImages(folder, **how | change)
    differing = [name for name in one.identity if one.identity[name] != other.identity[name]]
    assert differing == [part] and one.fingerprint != other.fingerprint


def test_other_contents_of_the_same_size_and_time_are_other_images(folder):
    file = folder / "ant" / "b.png"
    before, content = FolderImages(folder, IMAGENET).identity, bytearray(file.read_bytes())
    times = file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = FolderImages(folder, IMAGENET).identity
    assert [name for name in before if before[name] != after[name]] == ["images"]


def test_a_file_that_went_away_is_named(folder):
    images = FolderImages(folder, IMAGENET)
    (folder / "ant" / "b.png").unlink()
    with pytest.raises(InputError, match="images.*b.png.*cannot be read"):
        images.fingerprint  # noqa: B018


def test_identity_in_memory_sees_values_truth_and_normalisation():
    values, labels = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
    sets = [
        TensorImages(values, labels, ["a", "b"]),
        TensorImages(values + 1, labels, ["a", "b"]),
        TensorImages(values.view(2, 1, 2, 8), labels, ["a", "b"]),
        TensorImages(values, 1 - labels, ["a", "b"]),
        TensorImages(values, labels, ["b", "a"]),
        TensorImages(values, labels, ["a", "b"], normalisation=Normalisation((0.5,), (1.0,))),
    ]
    assert len({images.fingerprint for images in sets}) == len(sets)
    parts = [Subset(images, [1]).identity for images in sets]
    assert len({str(part) for part in parts}) == len(sets) and Subset([1, 2], [0]).fingerprint == ""


def odd_folder(root):
    """Numbered folders with an image of every kind that is named; 0/x.png is plain."""
    for name in ("0/x.png", "2/x.png", "10/x.png", "0/.hidden/x.png", "beside.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(root / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(root / "0" / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 6)).save(root / "0" / "clear.png")
    Image.fromarray(np.full((6, 8), 65535, np.uint16)).save(root / "2" / "deep.png")
    Image.new("L", (8, 6)).save(
        root / "2" / "pages.tif", save_all=True, append_images=[Image.new("L", (8, 6))]
    )
    Image.new("1", (13500, 13500)).save(root / "2" / "bomb.png")  # 182 million pixels in 22 kB
    (root / "2" / "text.png").write_text("no image")
    (root / "2" / "notes.txt").write_text("no image either")
    (root / "10" / "gone.png").symlink_to(root / "nothing")
    (root / "10" / "again").symlink_to(root / "10")
    return root


def test_notes_name_all_that_was_left_out_renumbered_turned_composed_or_scaled(tmp_path):
    images = load_images(odd_folder(tmp_path), Rgb(), size=4, broken="skip")
    assert images.class_names == ["0", "2", "10"] and images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert all(images[index][0].shape == (3, 4, 4) for index in range(len(images)))
    assert sorted(images.skipped) == ["0/.hidden", "10/gone.png", "2/bomb.png", "2/text.png", "beside.png"]
    assert images.notes == [
        "Class folders in numerical order (0, 2, 10, ...), not in that of their letters (0, 10, 2, ...): see "
        "`class_order`.",
        "Left out (it lies beside the class folders): 'beside.png'.",
        "Left out (its link leads nowhere: No such file or directory): '10/gone.png'.",
        "Left out (it cannot be decoded): '2/bomb.png' and 1 more.",
        "Left out (hidden, or left by a tool): '0/.hidden'.",
        "Left out (a link to what is counted already): '10/again'.",
        "Left out (files that are no images by their name): .txt 1.",
        "1 image turned as EXIF says: '0/turned.jpg'.",
        "1 image with transparency, composed onto white: '0/clear.png'.",
        "1 image of more than 8 bits, scaled to 8: '2/deep.png'.",
        "1 image of several pictures, of which the first is used: '2/pages.tif'.",
    ]
    assert str(images) == f"folder {tmp_path.name}: 7 images of 3 classes, 5 left out"
    assert shuffle_images(images).notes == images.notes == stack_images(Subset(images, [0]), tmp_path).notes


def test_a_plain_folder_has_no_notes(folder):
    (folder / "ant" / "b.png").unlink()  # it has an alpha channel
    images = load_images(folder, Rgb())
    assert (images.notes, images.skipped, str(images)) == ([], [], "folder photos: 4 images of 2 classes")


def test_without_skip_the_first_image_that_cannot_be_used_is_named_at_once(tmp_path):
    root = odd_folder(tmp_path)
    with pytest.raises(InputError, match=r"'beside.png' cannot be used.*beside.*1 more.*broken='skip'"):
        load_images(root, Rgb())
    (root / "beside.png").unlink()
    with pytest.raises(InputError, match="'10/gone.png' cannot be used: its link leads nowhere"):
        load_images(root, Rgb())
    (root / "10" / "gone.png").unlink()
    images = load_images(root, Rgb(), size=4)
    assert any("turned as EXIF says" in note for note in images.notes)  # whatever else lies there
    (bomb,) = [index for index, file in enumerate(images.files) if file.name == "bomb.png"]
    with pytest.raises(
        InputError, match="'2/bomb.png' cannot be decoded .*limit.*Left out already: '0/.hidden'"
    ):
        images[bomb]


def test_whatever_a_decoder_raises_names_the_file(folder, monkeypatch):
    def fail(*_, **__):
        raise KeyError

    monkeypatch.setattr("absence_utils.images.folders.decode_image", fail)
    with pytest.raises(InputError, match=r"'ant/a.jpg' cannot be decoded \(KeyError\)"):
        load_images(folder, Rgb())[0]


def test_class_order_decides_labels_names_and_fingerprint(tmp_path):
    for name in ("0", "1", "2", "10"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), int(name)).save(tmp_path / name / "x.png")
    numerical, alphabetical = (
        load_images(tmp_path, Rgb(1), size=4, class_order=order) for order in ("numerical", "alphabetical")
    )
    assert [round(255 * numerical[i][0].max().item()) for i in range(4)] == [0, 1, 2, 10]
    assert numerical.class_names == ["0", "1", "2", "10"] and len(numerical.notes) == 1
    assert alphabetical.class_names == sorted(numerical.class_names) and alphabetical.notes == []
    for images in (numerical, alphabetical):
        assert all(images.class_names[label] == file.parent.name
                   for label, file in zip(images.labels, images.files, strict=True))  # fmt: skip
    assert numerical.fingerprint != alphabetical.fingerprint
    drawn = [  # the same files with other labels
        [
            load_images(tmp_path, Rgb(1), class_order=order, limit=2, seed=seed)
            for order in ("numerical", "alphabetical")
        ]
        for seed in range(9)
    ]
    same = [pair for pair in drawn if pair[0].files == pair[1].files]
    assert same and all(a.fingerprint != b.fingerprint for a, b in same)
    with pytest.raises(InputError, match="`class_order`.*'letters'"):
        load_images(tmp_path, Rgb(1), class_order="letters")


@pytest.mark.parametrize("how", [{"background": "black"}, {"white": 4095}])
def test_how_files_are_read_is_part_of_fingerprint_and_cache(how, tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    Image.new("LA", (4, 4)).save(root / "clear.png")
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(root / "deep.png")
    base = {"size": 4, "background": "white", "white": 65535}
    opened = open_model(Rgb(1), size=4)
    for make in (partial(load_images, model=Rgb(1), **base), partial(opened.images, white=65535)):
        first, second = make(root), make(root, **how)
        assert first.fingerprint != second.fingerprint
        stacks = [stack_images(images, tmp_path / "cache") for images in (first, second)]
        for images, stack in zip((first, second), stacks, strict=True):
            assert torch.equal(stack.take([0, 1]), torch.stack([images[0][0], images[1][0]]))
        assert not torch.equal(stacks[0].take([0, 1]), stacks[1].take([0, 1]))
    with pytest.raises(InputError, match="`background`.*'blak'"):
        load_images(root, Rgb(1), background="blak")


@pytest.mark.slow
@given(st.floats(0, 1), st.floats(-1, 1), st.floats(0.1, 3))
def test_normalisation_is_undone_exactly(pixel, mean, std):
    pixels = torch.full((2, 1, 3, 3), pixel, dtype=torch.float64)
    normalisation = Normalisation((mean,), (std,))
    torch.testing.assert_close(normalisation.undo(normalisation.apply(pixels)), pixels)
    assert normalisation.undo(normalisation.apply(pixels + 5)).max() == 1


def test_imagenet_s_own_folders_get_readable_names_and_no_other_thousand(monkeypatch):
    folders = [f"n{i:08d}" for i in range(1000)]
    assert readable_classes(folders) == folders and readable_classes(folders[:10]) == folders[:10]
    monkeypatch.setattr("absence_utils.images.folders.WNIDS", sha256(" ".join(folders).encode()).hexdigest())
    assert readable_classes(folders)[:2] == ["tench", "goldfish"]
    assert readable_classes(folders[:999]) == folders[:999]


def test_real_folder(real):
    images = FolderImages(real / "imagenet" / "val", IMAGENET)
    assert len(images) == 1000 and images.class_names[207] == "golden retriever"
    assert images[207][0].shape == (3, 224, 224)


def test_real_squeezenet_accuracy(real):
    from absence_utils.models.load import load_model
    from absence_utils.units import responses

    net = load_model("squeezenet1_0", real / "models" / "squeezenet1_0-imagenet.safetensors")
    images = load_images(real / "imagenet" / "val", net, limit=200)
    with torch.inference_mode():
        batches = [torch.stack([images[i][0] for i in range(k, k + 50)]) for k in range(0, 200, 50)]
        top1 = torch.cat([responses(net, "logits", batch).argmax(1) for batch in batches])
    # 60.5% on all 1,000 images; three standard errors of 200 draws are 10 points
    assert 0.50 < (top1 == images.labels).float().mean() < 0.71


def test_what_grows_with_images_times_classes_is_made_when_asked_for(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}" / "a.png")
    dataset = FolderImages(tmp_path, IDENTITY, size=8)
    dataset.notes, dataset.fingerprint, dataset[0]  # noqa: B018
    assert "membership" not in vars(dataset)
    assert (
        torch.equal(dataset.membership, torch.eye(5, dtype=bool)) and dataset.membership is dataset.membership
    )
