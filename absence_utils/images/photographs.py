"""Three photographs that come with installed packages: crops of them as concepts, regions without these as backgrounds.

They are read from scikit-learn and matplotlib as installed; none of their pixels is part of this project.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from absence_utils.errors import InputError

FILES = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
CROPS = {  # concept: photograph, centre (x, y) and half the edge, px of the photograph
    "face": ("portrait", 263, 206, 82),
    "stars": ("portrait", 52, 88, 52),
    "emblem": ("portrait", 262, 58, 48),
    "medals": ("portrait", 388, 508, 50),
    "roof": ("china", 206, 98, 76),
    "windows": ("china", 219, 208, 52),
    "dahlia": ("flower", 307, 222, 132),
}
REGIONS = (  # photograph, left, top, right, bottom: none of them shows a concept
    ("china", 380, 0, 560, 290),
    ("china", 395, 300, 640, 427),
    ("flower", 0, 0, 160, 427),
    ("flower", 445, 0, 640, 380),
    ("portrait", 380, 0, 510, 290),
)
EDGE = 32  # px, edge of a crop as it is kept: about the largest at which it is painted


@cache
def photograph(name: str) -> np.ndarray:
    """[height, width, channel] float32 in 0..1.

    Raises:
        InputError: the package is installed without its pictures.
    """
    package, inside = FILES[name]
    path = Path(find_spec(package).origin).parent / inside
    if not path.is_file():
        raise InputError(
            "backgrounds", f"{package} is installed without {path.name}", f"Reinstall {package}."
        )
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255


@cache
def crop(concept: str) -> np.ndarray:
    """[EDGE, EDGE, channel] of a concept, shrunk without aliasing."""
    name, x, y, half = CROPS[concept]
    pixels = photograph(name)[max(0, y - half) : y + half, max(0, x - half) : x + half]
    return _resized(pixels, EDGE)


def background(draw: np.ndarray, size: int) -> np.ndarray:
    """Squares of the regions without a concept, some mirrored, of varied scale and brightness.

    Args:
        draw: [scene, 6] in 0..1: region, scale, x, y, mirror, brightness.
        size: px.

    Returns:
        [scene, channel, size, size].
    """
    found = np.empty((len(draw), 3, size, size), dtype=np.float32)
    for number, (which, scale, x, y, mirror, light) in enumerate(draw):
        name, left, top, right, bottom = REGIONS[int(which * len(REGIONS))]
        most = min(right - left, bottom - top)
        edge = int(most * (0.5 + 0.5 * scale))
        left += int(x * (right - left - edge))
        top += int(y * (bottom - top - edge))
        pixels = _resized(photograph(name)[top : top + edge, left : left + edge], size)
        pixels = pixels[:, ::-1] if mirror < 0.5 else pixels
        found[number] = ((0.5 + 0.5 * light) * pixels).transpose(2, 0, 1)
    return found


def _resized(pixels: np.ndarray, edge: int) -> np.ndarray:
    """[edge, edge, channel] by PIL's filter, which averages over what it leaves out."""
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., channel])).resize(
            (edge, edge), Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(each, dtype=np.float32) for each in channels], axis=-1)
