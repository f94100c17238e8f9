"""Reading any picture the way the network wants it: 32x32, RGB."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cifarfast.errors import UserError
from cifarfast.files import check_plain

# Not all that Pillow opens: EPS would start Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000")
_SIZE = (32, 32)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """The first frame of an image file, (32, 32, 3).

    Turned as its EXIF orientation says, laid on white where it is transparent, its central square cut out and
    resized bicubically with antialiasing. An image of 32x32 RGB comes out as it is.

    Raises:
        UserError: it cannot be read, or has more pixels than Pillow takes for a decompression bomb.
    """
    try:
        check_plain(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata: pixels that cannot be read are an error
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                square = _square(_rgb(ImageOps.exif_transpose(image)))
                return np.asarray(square.resize(_SIZE, Image.Resampling.BICUBIC))
    except OSError as error:
        reason = error.strerror or "not an image that can be read"
    except Exception as error:  # noqa: BLE001 (Pillow raises many kinds for damaged files)
        reason = str(error)
    raise UserError(f"{path} cannot be read as an image ({reason}): replace it or leave it out") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would clip at 255
        wide = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        wide += 128  # 257 is odd, so this rounds to the nearest without a tie
        wide //= 257
        return Image.fromarray(wide.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known scale")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))
