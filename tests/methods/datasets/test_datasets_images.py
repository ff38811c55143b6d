"""Images of any stored mode become the same tensors; they are read only when needed."""

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.datasets import ImageFile, ImageTask, MissingDataError
from dsd_tutorial.datasets.images import to_rgb
from dsd_tutorial.shapes.task_items import Item


def stored(tmp_path, image, name="image.png", **how):
    image.save(tmp_path / name, **how)
    return ImageFile(name, tmp_path / name)


GREY = np.array([[0, 64], [128, 255]], dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16", "1"])
def test_every_mode_gives_the_same_grey(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = Image.fromarray(GREY).convert(mode)
    found = stored(tmp_path, image).open()
    assert found.mode == "RGB"
    want = GREY if mode != "1" else np.asarray(image.convert("L"))
    assert np.abs(np.asarray(found).astype(int) - want[..., None].astype(int)).max() <= 1


def test_deep_modes_and_cmyk_are_read():
    deep = Image.fromarray(GREY.astype(np.int32) * 257)  # what older Pillow makes of 16 bits
    assert deep.mode == "I" and np.array_equal(np.asarray(to_rgb(deep))[..., 1], GREY)
    values = GREY.astype(np.float32)
    for scale in (1.0, 255.0):
        grey = np.asarray(to_rgb(Image.fromarray(values / 255 * scale)))
        assert np.abs(grey[..., 0].astype(int) - GREY).max() <= 1
    assert to_rgb(Image.new("CMYK", (2, 2))).getpixel((0, 0)) == (255, 255, 255)


def test_what_is_transparent_becomes_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    found = stored(tmp_path, clear).open()
    assert found.getpixel((0, 0)) == (0, 0, 255) and found.getpixel((3, 3)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((1, 1), 1)
    found = stored(tmp_path, palette, "p.png", transparency=0).open()
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((1, 1)) == (200, 100, 0)


def test_a_turned_photograph_stands_upright(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    assert stored(tmp_path, image, "turned.jpg", exif=exif).open().size == (4, 8)


def test_whole_keeps_the_edges_and_crop_loses_them(tmp_path):
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, :8, 0] = 255  # red on the far left
    image = stored(tmp_path, Image.fromarray(wide))
    whole, crop = image.load(16), image.load(16, "crop")
    assert whole.shape == crop.shape == (1, 3, 16, 16) and whole.dtype == torch.float32
    assert whole[0, 0, :, 0].min() > 0.9 and crop[0, 0].max() < 0.05


def test_a_box_is_cut_out(tmp_path):
    values = np.zeros((10, 10, 3), np.uint8)
    values[2:5, 3:9] = 255
    path = stored(tmp_path, Image.fromarray(values)).path
    inside = ImageFile("a", path, (3.0, 2.0, 9.0, 5.0)).open()
    assert inside.size == (6, 3) and np.asarray(inside).min() == 255
    assert ImageFile("a", path, (-5.0, -5.0, 99.0, 99.0)).open().size == (10, 10)
    assert ImageFile("a", path, (9.9, 9.9, 9.9, 9.9)).open().size == (1, 1)


def test_pictures_are_read_late_and_faults_are_named(tmp_path):
    gone = ImageFile("gone", tmp_path / "gone.png")
    task = ImageTask("own", (Item((gone,), ("a", "b"), 0, "kind", 0),))
    assert task.texts == ("a", "b") and task.scenes == (gone,)
    with pytest.raises(MissingDataError, match="gone.png"):
        task.images(8)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="text.png cannot be read"):
        ImageFile("text", tmp_path / "text.png").open()


def test_a_picture_is_its_name_not_its_place(tmp_path):
    assert (
        ImageFile("a", tmp_path / "x") == ImageFile("a", tmp_path / "y") != ImageFile("b", tmp_path)
    )
    assert str(tmp_path) not in repr(ImageFile("a", tmp_path / "x"))


def test_tasks_of_nothing_or_of_mixed_forms_are_refused(tmp_path):
    a = ImageFile("a", tmp_path)
    mixed = (Item((a,), ("x", "y"), 0, "k", 0), Item((a,), ("x", "y", "z"), 0, "k", 0))
    with pytest.raises(ValueError, match="different forms"):
        ImageTask("own", mixed)
    with pytest.raises(ValueError, match="no items"):
        ImageTask("own", ())
