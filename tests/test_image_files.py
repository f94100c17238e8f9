from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarfast.errors import UserError
from cifarfast.image_files import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_an_image_of_the_right_size_stays_as_it_is(tmp_path: Path) -> None:
    assert np.array_equal(read_image(_saved(Image.fromarray(PIXELS), tmp_path / "a.png")), PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 60), 65535, np.uint16))
    else:
        image = Image.new("RGB", (60, 40), "white").convert(mode)
    found = read_image(_saved(image, tmp_path / "a.tif"))
    assert found.shape == (32, 32, 3)
    assert (found == 255).all()


def test_transparent_is_white(tmp_path: Path) -> None:
    assert (read_image(_saved(Image.new("RGBA", (50, 50), (9, 9, 9, 0)), tmp_path / "a.png")) == 255).all()


def test_orientation_is_heeded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = read_image(_saved(Image.fromarray(PIXELS), tmp_path / "a.png", exif=exif))
    assert np.array_equal(found, PIXELS[::-1, ::-1])


def test_the_centre_and_the_first_frame(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    path = _saved(wide, tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (300, 100), "white")])
    assert (read_image(path) == (0, 0, 255)).all()


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no image")
    bomb = _saved(Image.new("1", (200, 200)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    for path in (tmp_path, tmp_path / "missing", tmp_path / "text", bomb):
        with pytest.raises(UserError, match="cannot be read as an image") as refusal:
            read_image(path)
        assert str(path) in str(refusal.value)
