"""Image trees."""

import io
import os
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
