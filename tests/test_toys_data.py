"""Generated data: what they promise, and the same again from the same seed."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_utils.errors import InputError
from absence_utils.images.digits import MNIST_FILES, digits
from absence_utils.patches.mining import mine_patches
from absence_utils.toys.green_pixel import COLOURS, PALETTES, colour_mask, green_pixel_images
from absence_utils.toys.motion import MotionDetector, motion_sequences


def bar_columns(frame):
    assert (frame == frame[0]).all()  # bars are as high as the image
    return frame[0].nonzero()[:, 0].tolist()


def test_bars_move_by_one_column_a_frame():
    sequences = motion_sequences()
    one, two = ([bar_columns(frame) for frame in frames] for frames in sequences.frames)
    assert one == [[0], [1], [2], [3], [4]]
    assert two == [[5, 6], [4, 7], [3, 8], [2, 9], [1, 10]]  # the columns of the release
    assert not sequences.leftward[0].any()
    assert [bar_columns(frame) for frame in sequences.leftward[1]] == [[5], [4], [3], [2], [1]]
    assert bar_columns(motion_sequences(2, 4).frames[1, 1]) == [0, 3]  # as far apart as four columns allow


def test_pairs_are_consecutive_frames_with_their_class():
    sequences = motion_sequences()
    pairs = sequences.pairs()
    assert pairs.images.shape == (8, 2, 12, 12) and pairs.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert sequences.first_pairs() == [0, 4]
    for index, (sequence, frame) in enumerate([(s, t) for s in (0, 1) for t in range(4)]):
        assert torch.equal(pairs.images[index], sequences.frames[sequence, frame : frame + 2])
        assert torch.equal(sequences.leftward_pairs()[index], sequences.leftward[sequence, frame : frame + 2])


def test_extreme_patches_of_the_detector():
    sequences = motion_sequences()
    pairs, leftward = sequences.pairs(), sequences.leftward_pairs()
    count = 8 * 7 * 7
    book = mine_patches(MotionDetector(), None, pairs, patch=6, stride=1, k=count)
    torch.testing.assert_close(book.highest.response[:, 0], torch.tensor([1 / 7, 1 / 7]))
    torch.testing.assert_close(book.lowest.response[:, 0], torch.tensor([-1 / 7, 0.0]))
    for side, wanted in (("highest", False), ("lowest", True)):  # every tie, not the one that is drawn
        found = getattr(book, side)
        ties = int((found.response[0] == found.response[0, 0]).sum())
        assert 0 < ties < count
        for image, (top, left, height, width) in zip(found.image[0][:ties], found.box[0][:ties], strict=True):
            crop = leftward[image, :, top : top + height, left : left + width]
            assert crop.flatten(1).any(dim=1).all() == wanted


@pytest.mark.parametrize("frames", [1, 7])
def test_motion_refuses_too_few_or_too_many_frames(frames):
    with pytest.raises(InputError, match="frames"):
        motion_sequences(frames)


@given(st.integers(0, 2**31), st.integers(2, 12), st.sampled_from(list(PALETTES)))
@settings(max_examples=20, deadline=None)
def test_green_pixel_images_hold_what_they_promise(seed, n, palette):
    data = green_pixel_images(n, seed, palette=palette)
    known = {tuple(map(float, colour)) for colour in PALETTES[palette].values()}
    for image, label in data:
        pixels = [tuple(pixel) for pixel in image.flatten(1).T.tolist() if any(pixel)]
        assert 8 <= len(pixels) <= 12 and set(pixels) <= known
        assert pixels.count(COLOURS["green"]) == (1 if label == 0 else 0)
    assert colour_mask(data.images, "green").sum(dim=(1, 2)).tolist() == (data.labels == 0).long().tolist()
    again = green_pixel_images(n, seed, palette=palette)
    assert (
        again.fingerprint == data.fingerprint != green_pixel_images(n, seed + 1, palette=palette).fingerprint
    )


def test_every_colour_of_a_palette_is_drawn():
    for palette, colours in PALETTES.items():
        drawn = (
            green_pixel_images(100, 0, palette=palette).images.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
        )
        assert set(map(tuple, drawn.tolist())) == {(0.0, 0.0, 0.0), *colours.values()}


def test_green_pixel_counts_do_not_tell_the_classes_apart():
    data = green_pixel_images(4000, 0)
    coloured = (data.images > 0).any(1).sum(dim=(1, 2)).float()
    assert set(coloured.tolist()) == {8, 9, 10, 11, 12}
    assert (
        abs(coloured[data.labels == 0].mean() - coloured[data.labels == 1].mean())
        < 4 * 2**0.5 / 2000**0.5 * 2**0.5
    )


def test_only_green_has_more_green_than_red_and_blue():
    assert [name for name, (r, g, b) in COLOURS.items() if g > r + b] == ["green"]
    assert len(COLOURS) == 9


@pytest.mark.parametrize(
    ("options", "parameter"),
    [({"n": 1}, "n"), ({"coloured": (5, 4)}, "coloured"), ({"palette": "x"}, "palette")],
)
def test_green_pixel_refuses_nonsense(options, parameter):
    with pytest.raises(InputError, match=parameter):
        green_pixel_images(**{"n": 4, "seed": 0, **options})
    with pytest.raises(InputError, match="colour"):
        colour_mask(torch.zeros(1, 3, 2, 2), "mauve")


@pytest.mark.slow
def test_every_digit_is_held_out_once():
    tests = [digits("test", fold=fold) for fold in range(5)]
    rows = torch.cat([data.images.flatten(1) for data in tests])
    assert sum(map(len, tests)) == 1797
    everything = torch.cat([digits(split).images.flatten(1) for split in ("train", "test")])
    assert torch.equal(rows.unique(dim=0), everything.unique(dim=0))
    for fold, test in enumerate(tests):
        seen = {row.numpy().tobytes() for row in digits("train", fold=fold).images}
        assert not any(image.numpy().tobytes() in seen for image in test.images)
        assert test.labels.bincount().min() >= 34  # stratified
    assert digits("test", fold=6).fingerprint == tests[1].fingerprint
    assert rows.min() == 0 and rows.max() == 1


def test_limit_keeps_so_many():
    assert len(digits("train", limit=100)) == 100 and len(digits("train", limit=10**6)) == len(
        digits("train")
    )


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"split": "val"}, "split"),
        ({"dataset": "svhn"}, "dataset"),
        ({"limit": -1}, "limit"),
        ({"folds": 1}, "folds"),
    ],
)
def test_digits_refuse_nonsense(arguments, parameter):
    with pytest.raises(InputError, match=parameter):
        digits(**{"split": "train", **arguments})


def write_idx(path, values):
    head = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def test_mnist_is_read_from_files_that_are_there(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    for name in MNIST_FILES:
        write_idx(raw / name, pixels if "images" in name else np.arange(5))
    data = digits("test", "mnist", root=tmp_path)
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(data.images[:, 0].numpy(), pixels / 255, atol=1e-6)


def test_mnist_that_cannot_be_had_says_which_files_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.mnist.MNIST.mirrors", ["http://localhost:9/"])
    with pytest.raises(InputError, match="`dataset`.*cannot be downloaded") as error:
        digits("train", "mnist", root=tmp_path)
    assert all(name in str(error.value) for name in MNIST_FILES) and str(tmp_path) in str(error.value)
