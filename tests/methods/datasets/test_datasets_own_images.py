"""A folder of one's own images: all that can be read is read, the rest is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.datasets import images
from dsd_tutorial.datasets.own import read_images


def halves(width=80, height=60):
    """An image that is red above and blue below."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = (255, 0, 0)
    pixels[height // 2 :] = (0, 0, 255)
    return Image.fromarray(pixels)


def test_wrong_files_are_named_and_the_others_read(tmp_path):
    halves().save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden").write_text("not worth a word")
    (tmp_path / "folder").mkdir()
    mine = read_images(tmp_path, 16)
    assert mine.names == ("a.png",) and mine.images.shape == (1, 3, 16, 16)
    assert set(mine.skipped) == {"broken.jpg", "cut.png", "notes.txt"}
    assert "notes.txt (no image that Pillow can read)" in str(mine)


def test_every_mode_gives_the_same_numbers(tmp_path):
    grey = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (40, 1))
    for mode in ("L", "RGB", "RGBA", "P", "LA"):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{mode}.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    mine = read_images(tmp_path, 20)
    assert len(mine.names) == 6 and not mine.skipped
    for image in mine.images[1:]:
        torch.testing.assert_close(image, mine.images[0], atol=0.02, rtol=0)


def test_transparent_becomes_white_also_in_a_large_picture(tmp_path):
    for side in (20, 500):
        Image.new("RGBA", (side, side), (255, 0, 0, 0)).save(tmp_path / f"{side}.png")
    assert (read_images(tmp_path, 16).images > 0.99).all()


def test_a_huge_picture_is_reduced_before_it_becomes_numbers(tmp_path, monkeypatch):
    seen = []
    real = images.to_rgb
    monkeypatch.setattr(images, "to_rgb", lambda p: seen.append(p.size) or real(p))
    halves(3000, 2000).save(tmp_path / "huge.png")
    halves(3000, 2000).save(tmp_path / "huge.jpg")
    mine = read_images(tmp_path, 16)
    assert all(max(size) < 200 for size in seen)
    for image in mine.images:
        assert image[0, :6].mean() > 0.9 and image[2, 10:].mean() > 0.9


def test_a_bomb_is_skipped(tmp_path, monkeypatch):
    halves().save(tmp_path / "a.png")
    halves(400, 400).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    mine = read_images(tmp_path, 16)
    assert mine.names == ("a.png",) and "too large" in mine.skipped["bomb.png"]


def test_a_photograph_held_on_its_side_stands_upright_in_any_size(tmp_path):
    for side in (40, 400):
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        halves(side, side).save(tmp_path / f"{side}.jpg", exif=exif)
    for image in read_images(tmp_path, 16).images:
        assert image[2, :6].mean() > 0.8 and image[0, 10:].mean() > 0.8


def test_no_more_than_asked_for(tmp_path):
    for i in range(5):
        halves().save(tmp_path / f"{i}.png")
    mine = read_images(tmp_path, 8, most=2)
    assert mine.names == ("0.png", "1.png") and "3 more not read" in str(mine)


def test_a_folder_without_any_says_why(tmp_path):
    with pytest.raises(ValueError, match="it is empty"):
        read_images(tmp_path, 8)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="a.txt: no image"):
        read_images(tmp_path, 8)
    with pytest.raises(ValueError, match="no folder"):
        read_images(tmp_path / "none", 8)
