import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from cifarfast.errors import UserError
from cifarfast.image_files import read_image

Pixels = npt.NDArray[np.uint8]

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
GRAY = RANDOM.integers(0, 256, (32, 32), dtype=np.uint8)
WIDE = RANDOM.integers(0, 65536, (32, 32), dtype=np.uint16)
ALPHA = RANDOM.integers(0, 256, (32, 32), dtype=np.uint8)
INDEX = RANDOM.integers(0, 200, (32, 32), dtype=np.uint8)
PALETTE = RANDOM.integers(0, 256, (200, 3), dtype=np.uint8)
OPACITY = RANDOM.integers(0, 256, 200, dtype=np.uint8)


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def _palette() -> Image.Image:
    image = Image.frombytes("P", (32, 32), INDEX.tobytes())
    image.putpalette(PALETTE.tobytes())
    return image


def _on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[..., None] / 255
    return np.asarray((colours * share + 255 * (1 - share)).round(), np.uint8)


def _three(gray: Pixels) -> Pixels:
    return np.stack([gray] * 3, axis=-1)


def _cmyk() -> Pixels:
    return np.concatenate([PIXELS, GRAY[..., None]], axis=-1)


CASES: dict[str, tuple[Callable[[], Image.Image], str, dict[str, object], Pixels]] = {
    "RGB": (lambda: Image.fromarray(PIXELS), "png", {}, PIXELS),
    "1": (lambda: Image.fromarray(GRAY > 127), "png", {}, _three(np.where(GRAY > 127, 255, 0).astype(np.uint8))),
    "L": (lambda: Image.fromarray(GRAY), "png", {}, _three(GRAY)),
    "L, one shade transparent": (
        lambda: Image.fromarray(GRAY), "png", {"transparency": 7}, _three(np.where(GRAY == 7, 255, GRAY)),
    ),
    "LA": (
        lambda: Image.fromarray(np.stack([GRAY, ALPHA], axis=-1)), "png", {}, _on_white(_three(GRAY), ALPHA),
    ),
    "P": (_palette, "png", {}, PALETTE[INDEX]),
    "P of a GIF": (_palette, "gif", {}, PALETTE[INDEX]),
    "P, one colour transparent": (
        _palette, "gif", {"transparency": 7}, np.where(INDEX[..., None] == 7, 255, PALETTE[INDEX]).astype(np.uint8),
    ),
    "P, colours of some opacity": (
        _palette, "png", {"transparency": OPACITY.tobytes()}, _on_white(PALETTE[INDEX], OPACITY[INDEX]),
    ),
    "RGBA": (lambda: Image.fromarray(np.dstack([PIXELS, ALPHA])), "png", {}, _on_white(PIXELS, ALPHA)),
    "RGB, one colour transparent": (
        lambda: Image.fromarray(PIXELS), "png", {"transparency": tuple(map(int, PIXELS[3, 4]))},
        np.where((PIXELS[3, 4] == PIXELS).all(-1, keepdims=True), 255, PIXELS).astype(np.uint8),
    ),
    "CMYK": (
        lambda: Image.frombytes("CMYK", (32, 32), _cmyk().tobytes()), "tif", {},
        np.asarray(((255.0 - PIXELS) * (255.0 - GRAY[..., None]) / 255).round(), np.uint8),
    ),
    "I;16": (lambda: Image.fromarray(WIDE), "png", {}, _three((WIDE / 257).round().astype(np.uint8))),
    "I;16 of a TIFF": (lambda: Image.fromarray(WIDE), "tif", {}, _three((WIDE / 257).round().astype(np.uint8))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_mode_is_converted(case: str, tmp_path: Path) -> None:
    make, suffix, options, expected = CASES[case]
    found = read_image(_saved(make(), tmp_path / f"a.{suffix}", **options))
    assert np.abs(found.astype(int) - expected).max() <= (1 if "A" in case or "opacity" in case or "C" in case else 0)


def test_sixteen_bits_a_channel_lose_the_lower_eight(tmp_path: Path) -> None:
    wide = RANDOM.integers(0, 65536, (32, 32, 3), dtype=np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), wide[..., ::-1])  # OpenCV has blue first
    assert np.array_equal(read_image(tmp_path / "a.png"), wide >> 8)


# Where the first row and the first column of the stored pixels are when it is seen (EXIF 2.32, tag 274), as what
# makes of the picture as it is seen the pixels that are stored.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda seen: seen,  # top, left
    2: lambda seen: seen[:, ::-1],  # top, right
    3: lambda seen: seen[::-1, ::-1],  # bottom, right
    4: lambda seen: seen[::-1],  # bottom, left
    5: lambda seen: seen.swapaxes(0, 1),  # left, top
    6: lambda seen: seen[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda seen: seen[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda seen: seen[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_orientation_is_heeded(orientation: int, suffix: str, tmp_path: Path) -> None:
    wide = np.concatenate([PIXELS[:, :5], PIXELS, PIXELS[:, :5]], axis=1)  # whose centre is cut out
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](wide)))
    assert np.array_equal(read_image(_saved(stored, tmp_path / f"a.{suffix}", exif=exif, **options)), PIXELS)


@pytest.mark.parametrize("case", ["1", "L", "P, colours of some opacity", "RGBA", "I;16"])
def test_every_mode_is_turned(case: str, tmp_path: Path) -> None:
    make, suffix, options, _ = CASES[case]
    exif = Image.Exif()
    exif[274] = 6
    plain = read_image(_saved(make(), tmp_path / f"a.{suffix}", **options))
    turned = read_image(_saved(make(), tmp_path / f"b.{suffix}", exif=exif, **options))
    assert np.array_equal(turned, np.rot90(plain, -1))  # clockwise


@pytest.mark.parametrize("size", [(100, 100), (20, 20), (61, 100), (100, 1)])
def test_the_centre_is_resized_with_antialiasing(size: tuple[int, int], tmp_path: Path) -> None:
    height, width = size
    pixels = RANDOM.integers(64, 192, (height, width, 3), dtype=np.uint8)  # never cut off at 0 or 255
    side = min(size)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)[None].double()
    expected = F.interpolate(square, size=(32, 32), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    found = torch.from_numpy(read_image(_saved(Image.fromarray(pixels), tmp_path / "a.png")).astype(float))
    assert (found - expected).abs().max() < 1.6  # Pillow rounds between the two directions


def test_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("blue", "red", "white")]
    for suffix in ("gif", "png", "webp", "tif"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = _saved(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
        assert (read_image(path) == (0, 0, 255)).all(), suffix


def test_a_remark_about_metadata_is_no_reason(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\0" + b"\x01" * 20
    path = _saved(Image.new("RGB", (32, 32), "red"), tmp_path / "a.jpg", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as image:
        image.getexif().get(274)
    assert np.abs(read_image(path).astype(int) - (255, 0, 0)).max() <= 2


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no image")
    _saved(Image.fromarray(PIXELS), tmp_path / "script.eps")
    _saved(Image.fromarray(PIXELS), tmp_path / "other.pcx")  # which Pillow would open
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "cut.png").write_bytes(_saved(Image.fromarray(PIXELS), tmp_path / "a.png").read_bytes()[:2000])
    _saved(Image.fromarray(np.ones((32, 32), np.float32)), tmp_path / "float.tif")
    _saved(Image.new("1", (200, 200)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    for name, reason in {
        ".": "it is not a plain file",
        "missing": "No such file",
        "text": "not an image",
        "script.eps": "not an image",
        "other.pcx": "not an image",
        "pipe": "it is not a plain file",
        "cut.png": "not an image",
        "float.tif": "floating-point numbers",
        "bomb.png": "could be decompression bomb",
    }.items():
        path = tmp_path / name
        with pytest.raises(UserError, match=rf"{re.escape(str(path))} cannot be read as an image \(.*{reason}"):
            read_image(path)
