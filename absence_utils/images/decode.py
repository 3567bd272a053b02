"""One image file to a picture of 8 bits: turned as it asks, composed onto a background, scaled, and never cut off.

PIL alone shows an image of 16 bits as white, one of floats as black, and what lies under full transparency. What cannot
be scaled without a guess is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageOps

from absence_utils.errors import InputError

ORIENTATION, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 262, 0  # tags of EXIF and TIFF
DARK = 2**14  # whole numbers that stay below may be of 10, 12 or 14 bits
DEEP_COLOUR = re.compile(r"\b(LA|RGBA?|RGBX|CMYK)\w*;16")  # PIL keeps their upper 8 bits

TRAITS = {  # what is done to an image whose header shows it
    "turned": "turned as EXIF says",
    "composed": "with transparency, composed onto {background}",
    "deep": "of more than 8 bits, scaled to 8",
    "frames": "of several pictures, of which the first is used",
}


def require_reading(background: str, white: float) -> None:
    """Check `background` and `white` of `decode_image`.

    Raises:
        InputError: no such colour, or a white that is not a positive number or 0.
    """
    try:
        ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError):
        remedy = "Use a name such as 'white' or 'black', or '#808080'."
        raise InputError("background", f"{background!r} is not a colour", remedy) from None
    if isinstance(white, bool) or not isinstance(white, (int, float)) or not 0 <= white < float("inf"):
        remedy = "Give the value that is white, for example 4095, or 0 for what the kind of file says."
        raise InputError("white", f"{white!r} is not a value of pixels", remedy)


def decode_image(file: Path, mode: str, background: str = "white", white: float = 0) -> Image.Image:
    """The picture in a file as its author sees it, in 8 bits.

    Args:
        mode: "RGB" or "L", the PIL mode of the result.
        background: colour behind what is transparent.
        white: value of white in images of more than 8 bits (black is 0); 0 for 65535 in whole numbers and 1 in floats.

    Raises:
        ValueError: values beyond white or below 0, or so far below the usual white that they may have another.
        whatever PIL raises for a file that it cannot read.
    """
    # opened by handle: Pillow 13.0 maps uncompressed TIFFs that it opens by name into memory, and turns them wrongly
    with open(file, "rb") as handle, Image.open(handle) as image:
        kind, deep_colour = image.format, _is_deep_colour(image)
        inverted = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
        image.load()
        if _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        if _is_deep_grey(image):
            image = _scale_to_8_bits(image, 65535 if kind == "PPM" else white, inverted)
        elif deep_colour:
            _check_upper_bits(image, white)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, ImageColor.getrgb(background)[:3])
            image = Image.alpha_composite(ground, image)
        return image.convert(mode)


def image_traits(file: Path) -> set[str]:
    """Which of `TRAITS` a file has, from its header alone."""
    with Image.open(file) as image:
        present = {
            "turned": _orientation(image) != 1,
            "composed": image.has_transparency_data,
            "deep": _is_deep_grey(image) or _is_deep_colour(image),
            "frames": getattr(image, "n_frames", 1) > 1,
        }
    return {name for name, found in present.items() if found}


def _orientation(image: Image.Image) -> int:
    """1 (upright) to 8; a damaged header says nothing about how an image is to be turned."""
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of PNG would decode the image first
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _is_deep_colour(image: Image.Image) -> bool:
    return any(DEEP_COLOUR.search(str(tile)) for tile in image.tile)


def _scale_to_8_bits(image: Image.Image, white: float, inverted: bool) -> Image.Image:
    if image.has_transparency_data:
        raise ValueError("more than 8 bits with transparency: save it with 8 bits")
    values = np.asarray(image).astype(np.float64)
    low, high, full = values.min(), values.max(), white or (1 if image.mode == "F" else 65535)
    if not (low >= 0 and high <= full):  # so also nan
        raise ValueError(f"its values go from {low:.6g} to {high:.6g}, black is 0 and white is {full:g}: "
                         f"give load_images white={high:.6g}, or save it with 8 bits")  # fmt: skip
    if not white and image.mode != "F" and 0 < high < DARK:
        raise ValueError(f"its values end at {high:g} of 65535: give load_images white=4095 for 12 bits, white=16383 "
                         "for 14, white=65535 if it is dark, or save it with 8 bits")  # fmt: skip
    values = values * 255 / full
    return Image.fromarray((255 - values if inverted else values).round().astype(np.uint8))


def _check_upper_bits(image: Image.Image, white: float) -> None:
    high = int(np.asarray(image.convert("RGB")).max())
    if white not in (0, 65535) or not white and 0 < high < DARK >> 8:
        raise ValueError(f"its colours end near {high * 256} of 65535, and only the upper 8 of their 16 bits are read: "
                         "save it with 8 bits, or give load_images white=65535 if it is dark")  # fmt: skip
