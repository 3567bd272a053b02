"""One file to a picture of 8 bits: whatever its depth, transparency or orientation, as its author saw it."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor, ImageFile
from PIL.PngImagePlugin import PngInfo

from absence_utils import InputError
from absence_utils.images.decode import decode_image, image_traits, require_reading

WEDGE = np.linspace(0, 1, 24 * 32).reshape(24, 32)  # black at the upper left, white at the lower right


def pixels(file, mode="L", **how):
    return np.asarray(decode_image(file, mode, **how)).astype(float)


def save(path, values, **how):
    Image.fromarray(values).save(path, **how)
    return path


def save_16_bit_png(path, values):
    """Colours [height, width, 3] of 16 bits, which PIL reads and cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


DEEP = {
    "16 bits, PNG": (65535, np.uint16, "png", {}),
    "16 bits, TIFF": (65535, np.uint16, "tif", {}),
    "16 bits, compressed TIFF": (65535, np.uint16, "tif", {"compression": "tiff_lzw"}),
    "32 bits, TIFF": (65535, np.int32, "tif", {}),
    "floats": (1, np.float32, "tiff", {}),
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_more_than_8_bits_are_scaled_and_not_clipped(kind, mode, tmp_path):
    white, dtype, suffix, how = DEEP[kind]
    file = save(tmp_path / f"deep.{suffix}", (WEDGE * white).astype(dtype), **how)
    found = pixels(file, mode)
    expected = WEDGE * 255 if mode == "L" else (WEDGE * 255)[:, :, None]
    assert np.abs(found - expected).max() <= 0.51 and image_traits(file) == {"deep"}


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_portable_grey_maps_say_what_white_is(bits, tmp_path):
    white = 2**bits - 1
    values = (WEDGE * white).round().astype(">u2" if bits > 8 else "u1")
    (tmp_path / "a.pgm").write_bytes(b"P5 32 24 %d\n" % white + values.tobytes())
    assert np.abs(pixels(tmp_path / "a.pgm") - WEDGE * 255).max() <= 0.51 + 255 / white / 2


def test_a_dark_grey_map_is_dark_since_it_says_what_white_is(tmp_path):
    values = (WEDGE * 6000).round()
    (tmp_path / "a.pgm").write_bytes(b"P5 32 24 65535\n" + values.astype(">u2").tobytes())
    for white in (0, 4095, 65535):
        assert np.abs(pixels(tmp_path / "a.pgm", white=white) - values / 257).max() <= 0.51


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_read_with_their_white_and_refused_without(bits, tmp_path):
    white = 2**bits - 1
    file = save(tmp_path / "a.png", (WEDGE * white).round().astype(np.uint16))
    assert np.abs(pixels(file, white=white) - WEDGE * 255).max() <= 0.51 + 255 / white / 2
    with pytest.raises(ValueError, match=f"end at {white} of 65535.*white=4095.*white=65535 if it is dark"):
        decode_image(file, "L")
    assert np.abs(pixels(file, white=65535) - WEDGE * 255 * white / 65535).max() <= 0.51


@pytest.mark.parametrize("kind", ["too bright", "negative", "no number", "signed", "endless"])
def test_values_that_would_be_clipped_are_refused(kind, tmp_path):
    values = {"too bright": WEDGE * 255, "negative": WEDGE - 0.5, "no number": WEDGE * np.nan}
    values = {name: array.astype(np.float32) for name, array in values.items()}
    values |= {"signed": (WEDGE * 100 - 50).astype(np.int32), "endless": (WEDGE * 1e6).astype(np.int32)}
    with pytest.raises(ValueError, match="its values go from .* to .*, black is 0 and white is .*white="):
        decode_image(save(tmp_path / "a.tif", values[kind]), "RGB")
    if kind in ("too bright", "endless"):
        white = 255 if kind == "too bright" else 10**6
        assert np.abs(pixels(tmp_path / "a.tif", white=white) - WEDGE * 255).max() <= 0.51


def test_a_black_image_of_16_bits_is_black(tmp_path):
    assert pixels(save(tmp_path / "a.png", np.zeros((4, 4), np.uint16))).max() == 0


def test_a_tiff_whose_white_is_zero_is_no_negative(tmp_path):
    save(tmp_path / "a.tif", (65535 - WEDGE * 65535).astype(np.uint16), tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0 and image.mode == "I;16"
    assert np.abs(pixels(tmp_path / "a.tif") - WEDGE * 255).max() <= 0.51


def test_colours_of_16_bits(tmp_path):
    colours = np.stack([WEDGE, WEDGE**2, 1 - WEDGE], axis=2)
    file = save_16_bit_png(tmp_path / "a.png", (colours * 65535).round())
    assert np.abs(pixels(file, "RGB") - colours * 255).max() <= 1 and image_traits(file) == {"deep"}
    dim = save_16_bit_png(tmp_path / "b.png", (colours * 4095).round())
    with pytest.raises(ValueError, match="only the upper 8 of their 16 bits.*white=65535 if it is dark"):
        decode_image(dim, "RGB")
    with pytest.raises(ValueError, match="only the upper 8"):
        decode_image(dim, "RGB", white=4095)
    assert pixels(dim, "RGB", white=65535).max() == 15


@settings(max_examples=40, deadline=None)
@given(
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    alpha=st.integers(0, 255),
    background=st.sampled_from(["white", "black", "#3080c0"]),
)
def test_transparency_is_composed_onto_the_background(tmp_path_factory, colour, alpha, background):
    file = tmp_path_factory.getbasetemp() / "alpha.png"
    Image.new("RGBA", (2, 2), (*colour, alpha)).save(file)
    behind = np.array(ImageColor.getrgb(background))
    expected = np.array(colour) * alpha / 255 + behind * (1 - alpha / 255)
    assert np.abs(pixels(file, "RGB", background=background) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["LA", "P", "RGB"])
def test_every_kind_of_transparency_shows_the_background(kind, tmp_path):
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (2, 0, 4, 2))
    if kind == "RGB":  # one colour that is transparent
        image = Image.new("RGB", (4, 2), (9, 9, 9))
        image.paste((0, 0, 0), (2, 0, 4, 2))
        image.save(tmp_path / "a.png", transparency=(9, 9, 9))
    else:
        (image.quantize(4) if kind == "P" else image.convert("LA")).save(tmp_path / "a.png")
    for mode in ("L", "RGB"):
        found = pixels(tmp_path / "a.png", mode)
        assert found[:, :2].min() == 255 and found[:, 2:].max() == 0
    assert image_traits(tmp_path / "a.png") == {"composed"}


def test_opaque_images_are_left_alone(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    image.convert("RGBA").save(tmp_path / "a.png")
    image.save(tmp_path / "b.png")
    assert (pixels(tmp_path / "a.png", "RGB") == colours).all() and image_traits(tmp_path / "b.png") == set()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_images_are_turned_as_exif_says(orientation, suffix, tmp_path):
    """What a camera stores for each orientation, from the picture it saw: the eight symmetries of a square."""
    seen = (np.kron(np.array([[0, 80, 160], [40, 120, 240]]), np.ones((16, 16)))).astype(np.uint8)
    stored = {
        1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.T, 6: np.rot90(seen),
        7: np.rot90(seen.T, 2), 8: np.rot90(seen, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / f"a.{suffix}", np.ascontiguousarray(stored), exif=exif)
    found = pixels(file)
    assert found.shape == seen.shape and np.abs(found - seen).max() < 12  # JPEG is not exact
    assert image_traits(file) == ({"turned"} if orientation > 1 else set())


def test_the_header_is_read_without_decoding(tmp_path, monkeypatch):
    decoded, exif = [], Image.Exif()
    exif[0x0112] = 3
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image))
    for suffix in ("png", "jpg", "tif", "webp"):
        assert image_traits(save(tmp_path / f"a.{suffix}", np.zeros((9, 9, 3), np.uint8))) == set()
        assert image_traits(save(tmp_path / f"b.{suffix}", np.zeros((9, 9, 3), np.uint8), exif=exif)) == {
            "turned"
        }
    assert not decoded


def test_deep_images_are_turned_as_well(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = save(tmp_path / "a.png", np.rot90((WEDGE * 65535).astype(np.uint16)).copy(), exif=exif)
    assert np.abs(pixels(file) - WEDGE * 255).max() <= 0.51 and image_traits(file) == {"deep", "turned"}


def test_a_damaged_header_turns_nothing(tmp_path):
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n      4\nno numbers")  # as ImageMagick writes it
    file = save(tmp_path / "a.png", np.zeros((8, 6), np.uint8), pnginfo=text)
    with Image.open(file) as image, pytest.raises(ValueError):
        image.getexif()
    assert pixels(file).shape == (8, 6) and image_traits(file) == set()


def test_of_several_pictures_the_first_is_read_and_it_is_said(tmp_path):
    first, second = Image.new("L", (8, 8), 30), Image.new("L", (8, 8), 200)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    assert pixels(tmp_path / "a.tif").max() == 30 and image_traits(tmp_path / "a.tif") == {"frames"}


def test_a_bad_background_or_white_is_named():
    require_reading("#80808040", 4095)
    for background in ("whit", 3, None):
        with pytest.raises(InputError, match="`background`.*'white'"):
            require_reading(background, 0)
    for white in (-1, "4095", float("nan"), True):
        with pytest.raises(InputError, match="`white`.*4095"):
            require_reading("white", white)
