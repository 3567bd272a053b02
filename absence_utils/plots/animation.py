"""Pictures that move: a WebP or GIF from a list of frames."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from absence_utils.errors import InputError, require_at_least, require_choice
from absence_utils.files import write_atomically

from .base import to_numpy

# From the best to the smallest: options of Pillow's writer, or the number of colours of a GIF.
SETTINGS = {
    ".webp": [{"quality": quality, "method": 6} for quality in (90, 75, 60, 45, 30)],
    ".gif": [256, 128, 64, 32, 16],
}


def save_animation(
    frames: Iterable,
    path: str | Path,
    *,
    duration: int = 150,
    loop: int = 0,
    enlarge: int = 1,
    most: int = 1_000_000,
) -> Path:
    """Write frames as an animation that is no larger than `most` bytes.

    Equal frames give equal files, byte for byte (with the same Pillow), and no one ever sees half of one. The
    quality is the best of five that fits.

    Args:
        frames: pixels [channel, height, width] in 0..1 (one channel or three), such as
            `RenderedPair.highest.image` or `Ladder.image`, or matplotlib figures; all of one size. Pillow
            joins neighbours that are equal into one frame that is shown for longer.
        path: ends in .webp or .gif. Its folder is made if it is not there.
        duration: of a frame, in ms.
        loop: how often it is shown, 0 for without end.
        enlarge: each pixel becomes so many in both directions.
        most: bytes.

    Returns:
        The path.

    Raises:
        InputError: no frames, frames of several sizes or of other shapes, another ending, a file that gets
            too large.
    """
    path = Path(path)
    require_choice("suffix", path.suffix.lower(), SETTINGS)
    for name, value, least in (("duration", duration, 1), ("loop", loop, 0), ("enlarge", enlarge, 1)):
        require_at_least(name, value, least)
    pictures = [_picture(frame, enlarge) for frame in frames]
    if not pictures:
        raise InputError("frames", "there are none", "Give at least one.")
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise InputError("frames", f"they have several sizes: {sizes}", "Give frames of one size.")
    for setting in SETTINGS[path.suffix.lower()]:
        content = _encoded(pictures, path.suffix.lower(), setting, duration, loop)
        if len(content) <= most:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return path
    problem = f"{len(pictures)} of {sizes[0]} px take {len(content):,} bytes"
    raise InputError("frames", f"{problem}, more than {most:,}", "Give fewer or smaller frames.")


def _encoded(pictures: list[Image.Image], suffix: str, setting, duration: int, loop: int) -> bytes:
    if suffix == ".gif":
        # One palette for all, of all frames together: palettes of their own make still parts flicker.
        palette = _beside(pictures).quantize(setting)
        pictures, setting = [picture.quantize(palette=palette) for picture in pictures], {"optimize": False}
    file = BytesIO()
    more = {"save_all": True, "append_images": pictures[1:], "duration": duration, "loop": loop}
    pictures[0].save(file, suffix[1:].upper(), **more, **setting)
    return file.getvalue()


def _beside(pictures: list[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures], axis=1))


def _picture(frame, enlarge: int) -> Image.Image:
    """One frame as an RGB picture."""
    if hasattr(frame, "canvas"):  # a figure, as it would be saved at its own resolution
        frame.canvas.draw()
        pixels = np.asarray(frame.canvas.buffer_rgba())[..., :3]
    else:
        values = to_numpy(frame)
        if values.ndim != 3 or values.shape[0] not in (1, 3) or not np.isfinite(values).all():
            wanted = "Give finite pixels [channel, height, width] in 0..1, with one channel or three."
            raise InputError(
                "frames", f"one has the shape {values.shape}, or values that are not finite", wanted
            )
        pixels = (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
        pixels = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1)))
