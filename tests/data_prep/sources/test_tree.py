"""Image trees."""

import io
import os
import resource
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifarfast.errors import UserError
from data_prep.sources.base import CIFAR10_CLASSES
from data_prep.sources.tree import Tree
from tests.data_prep.conftest import write_images


def encoded(mode: str = "RGB", size: tuple[int, int] = (32, 32), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_images(tmp_path / "tree")


def test_pixels_and_labels_follow_the_folders(tree: Path) -> None:
    (tree / "train" / ".hidden").write_text("ignored")
    (tree / "test" / "bird" / ".DS_Store").write_text("ignored")
    dataset = Tree("tree", tree).load()
    assert (dataset.kind, dataset.official, dataset.class_names) == ("cifar10", False, CIFAR10_CLASSES)
    assert dataset.train.labels.tolist() == [label for label in range(10) for _ in range(2)]
    for index, label in enumerate(dataset.train.labels):
        pixels = np.random.default_rng([int(label), index % 2]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        assert np.array_equal(dataset.train.images[index], pixels)


def test_other_names_are_a_custom_data_set(tmp_path: Path) -> None:
    names = [f"kind{i}" for i in range(10)]
    dataset = Tree("tree", write_images(tmp_path / "t", 1, names)).load()
    assert (dataset.kind, list(dataset.class_names)) == ("custom", names)


def test_jpeg_is_decoded_as_pillow_does(tree: Path) -> None:
    path = tree / "test" / "ship" / "5.JPG"
    Image.fromarray(np.full((32, 32, 3), (200, 30, 90), np.uint8)).save(path, "JPEG")
    with Image.open(path) as image:
        assert np.array_equal(Tree("tree", tree).load().test.images[18], np.asarray(image))


def test_digest_follows_names_sizes_and_times(tree: Path) -> None:
    source = Tree("tree", tree)
    digests = [source.digest()]
    assert source.digest() == digests[0]
    path = tree / "train" / "cat" / "0.png"
    os.utime(path, ns=(0, 12345))
    digests.append(source.digest())
    path.rename(path.with_name("7.png"))
    digests.append(source.digest())
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train/cat/9.png", encoded(size=(33, 32)), "9.png is 33x32 RGB, not 32x32 RGB"),
        ("train/cat/9.png", encoded("L"), "9.png is 32x32 L"),
        ("test/cat/9.png", encoded("RGBA"), "9.png is 32x32 RGBA"),
        ("test/cat/9.png", encoded("P"), "9.png is 32x32 P"),
        ("train/cat/9.png", encoded(size=(12_000, 12_000), mode="1"), "9.png cannot be read"),  # a warning of Pillow's
        ("train/cat/9.png", encoded()[:60], "9.png cannot be read"),
        ("train/cat/9.jpg", encoded(kind="JPEG")[:200], "9.jpg cannot be read"),
        ("train/cat/9.png", b"", "9.png cannot be read"),
        ("train/cat/9.png", encoded(kind="GIF", mode="P"), "9.png cannot be read"),
        ("train/cat/9.gif", b"", "9.gif is not a .png"),
        ("train/cat/more/9.png", encoded(), "more is not a .png"),
        ("train/readme.txt", b"", "readme.txt is not a class folder"),
    ],
)
def test_bad_files_are_named(name: str, content: bytes, message: str, tree: Path) -> None:
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        Tree("tree", tree).load()
    assert "\n" not in str(refused.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG of black pixels with these chunks between its header and its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(32 * 97)))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, chunk(b"IEND", b"")])


def exif(content: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG", exif=b"Exif\0\0" + content)
    return file.getvalue()


BOMB = zlib.compress(bytes(1 << 26), 9)


@pytest.mark.parametrize(
    "content",
    [
        png(size=(2**31 - 1, 2**31 - 1)),
        png(size=(60_000, 60_000)),
        png(size=(12_000, 12_000)),
        png(chunk(b"zTXt", b"key\0\0" + BOMB)),
        png(chunk(b"iTXt", b"key\0\1\0\0\0" + BOMB)),
        png(chunk(b"iCCP", b"name\0\0" + BOMB)),
        png(struct.pack(">I", 2**31 - 1) + b"tEXt"),
        png(struct.pack(">I", 2**32 - 1) + b"IDAT"),
        png() + bytes(1 << 20),
        exif(b"II*\0\xff\xff\xff\xff"),
        exif(b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 1000),
        b"P6 32 32 255 " + bytes(3072),
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n(mark) (w) file\n",
    ],
    ids=lambda content: content[:50].decode("latin1").encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bombs_and_disguises_are_refused_before_they_cost_anything(content: bytes, suffix: str, tree: Path) -> None:
    (tree / "train" / "cat" / f"9.{suffix}").write_bytes(content)
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"9.{suffix} (cannot be read|is |has )"):
        Tree("tree", tree).load()
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def animated(frames: int) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.new("RGB", (32, 32), (0, 0, frame)) for frame in range(frames)]
    first.save(file, "PNG", save_all=True, append_images=others)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("9.png", png()),
        ("9.png", png(chunk(b"tEXt", b"key\0" + b"<script>" * 1000))),
        ("9.png", animated(200)),
        ("9.jpg", exif(b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")),  # orientation 6: not followed
    ],
)
def test_what_is_beside_the_pixels_is_passed_over(name: str, content: bytes, tree: Path) -> None:
    (tree / "train" / "cat" / name).write_bytes(content)
    images = Tree("tree", tree).load().train.images
    assert images.shape == (21, 32, 32, 3)
    assert not images[8].any()


@pytest.mark.parametrize("at", [-13, -17, -21])
def test_a_changed_byte_of_a_png_is_noticed_where_decoding_would_not(at: int, tree: Path) -> None:
    content = bytearray(png())
    content[at] ^= 1  # in the checksum of the pixels, of the compressed stream, in the stream's last bits
    (tree / "train" / "cat" / "9.png").write_bytes(content)
    with pytest.raises(UserError, match=r"9\.png cannot be read"):
        Tree("tree", tree).load()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["pipe", "device", "socket", "dangling link", "link to itself", "link to a folder"])
def test_what_is_no_plain_file_is_never_opened(what: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree / "train" / "cat" / "9.png"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(path.parent)  # such a path may have about 100 characters
            server.bind(path.name)
    else:
        targets: dict[str, str | Path] = {
            "device": "/dev/zero",
            "dangling link": "nowhere",
            "link to itself": path,
            "link to a folder": tree,
        }
        path.symlink_to(targets[what])
    for use in (Tree("tree", tree).load, Tree("tree", tree).digest):
        with pytest.raises(UserError, match=r"9.png is not a .png"):
            use()


def test_a_link_to_a_file_that_is_no_image_shows_nothing_of_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret")
    (tree / "train" / "cat" / "9.png").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"9\.png cannot be read as an image") as refused:
        Tree("tree", tree).load()
    assert "the secret" not in str(refused.value)


STRANGE = [b"\x1b]0;title\x07", b"two\nlines", b"not UTF-8 \xff", "\u202etac".encode(), b"\x7f" * 50, b"e" * 101]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_of_classes_are_refused(name: bytes, tree: Path) -> None:
    for split in ("train", "test"):
        (tree / split / "cat").rename(os.fsdecode(os.fsencode(tree / split) + b"/" + name))
    with pytest.raises(UserError, match="is no name for a class") as refused:
        Tree("tree", tree).load()
    assert str(refused.value).isprintable()


def test_markup_is_a_name_like_any_other(tree: Path) -> None:
    for split in ("train", "test"):
        (tree / split / "cat").rename(tree / split / "<img src=x onerror=alert(1)>")
    assert "<img src=x onerror=alert(1)>" in Tree("tree", tree).load().class_names


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_of_files_are_escaped(name: bytes, tree: Path) -> None:
    folder = os.fsencode(tree / "train" / "cat")
    Path(os.fsdecode(folder + b"/" + name + b".png")).write_bytes(png())
    assert len(Tree("tree", tree).load().train.images) == 21
    assert Tree("tree", tree).digest() == Tree("tree", tree).digest()
    Path(os.fsdecode(folder + b"/" + name + b".png")).write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read") as refused:
        Tree("tree", tree).load()
    assert str(refused.value).isprintable()


def test_an_empty_class(tree: Path) -> None:
    for path in (tree / "test" / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="dog holds no images"):
        Tree("tree", tree).load()


def test_other_than_ten_classes_or_different_ones(tree: Path) -> None:
    (tree / "test" / "dog").rename(tree / "test" / "wolf")
    with pytest.raises(UserError, match="dog, wolf is in one only"):
        Tree("tree", tree).load()
    (tree / "train" / "extra").mkdir()
    with pytest.raises(UserError, match="train has 11 class folders"):
        Tree("tree", tree).load()
