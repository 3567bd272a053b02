"""Animations: as many frames as given, small, equal for equal frames, never half written."""

import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from absence_utils.errors import InputError
from absence_utils.plots.animation import save_animation

BOTH = pytest.mark.parametrize("suffix", [".webp", ".gif"])


def frames(count=5, height=12, width=16):
    """From black to white, red on the left."""
    pixels = torch.linspace(0, 1, count)[:, None, None, None].expand(count, 3, height, width).clone()
    pixels[:, 0, :, : width // 2] = 1
    return pixels


@BOTH
def test_frames_size_loop_and_duration_are_as_asked(suffix, tmp_path):
    path = save_animation(frames(), tmp_path / "new" / f"ladder{suffix}", duration=70, loop=3, enlarge=2)
    with Image.open(path) as picture:
        assert picture.n_frames == 5 and picture.size == (32, 24)
        assert picture.info["loop"] == 3
        for number, frame in enumerate(frames()):
            picture.seek(number)
            picture.load()
            assert picture.info["duration"] == 70
            shown = np.asarray(picture.convert("RGB")).astype(int)[::2, ::2]
            assert np.abs(shown - 255 * frame.permute(1, 2, 0).numpy()).mean() < 12
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@BOTH
def test_equal_frames_give_equal_files(suffix, tmp_path):
    one, other = (save_animation(frames(), tmp_path / f"{name}{suffix}") for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert save_animation(frames(4), tmp_path / f"c{suffix}").read_bytes() != one.read_bytes()


@BOTH
def test_the_quality_falls_until_the_file_is_small_enough(suffix, tmp_path):
    noise = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    whole = save_animation(noise, tmp_path / f"whole{suffix}").stat().st_size
    limit = whole * 3 // 4
    assert save_animation(noise, tmp_path / f"small{suffix}", most=limit).stat().st_size <= limit
    with pytest.raises(InputError, match="`frames`: 4 of .48, 48. px take .* more than 100"):
        save_animation(noise, tmp_path / f"none{suffix}", most=100)
    assert not (tmp_path / f"none{suffix}").exists()


def test_takes_figures_and_grey_frames(tmp_path):
    figures = []
    for level in range(3):
        fig, ax = plt.subplots(figsize=(1, 0.8), dpi=50)
        ax.barh([0], [level])
        ax.set_xlim(0, 2)
        figures.append(fig)
    with Image.open(save_animation(figures, tmp_path / "bars.webp")) as picture:
        assert picture.size == (50, 40) and picture.n_frames == 3
    with Image.open(save_animation(frames()[:, :1], tmp_path / "grey.gif")) as picture:
        assert picture.n_frames == 5


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_animation(frames(), tmp_path / "ladder.webp")
    old = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_animation(frames(3), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


def test_bad_input_names_the_parameter(tmp_path):
    with pytest.raises(InputError, match="`frames`: there are none"):
        save_animation([], tmp_path / "a.webp")
    with pytest.raises(InputError, match="`suffix`: '.mp4' is not known"):
        save_animation(frames(), tmp_path / "a.mp4")
    with pytest.raises(InputError, match="`frames`: they have several sizes"):
        save_animation([*frames(1), *frames(1, 20)], tmp_path / "a.gif")
    with pytest.raises(InputError, match="`frames`: one has the shape"):
        save_animation(torch.zeros(2, 12, 16), tmp_path / "a.gif")
    with pytest.raises(InputError, match="not finite"):
        save_animation(torch.full((1, 3, 4, 4), torch.nan), tmp_path / "a.gif")
    with pytest.raises(InputError, match="`enlarge`: 0"):
        save_animation(frames(), tmp_path / "a.gif", enlarge=0)
    assert list(tmp_path.iterdir()) == []
