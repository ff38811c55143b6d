"""Pictures in, tensors out: range, shape, and the same pixels that CLIP's own processor makes."""

import numpy as np
import pytest
import torch
from PIL import Image

from dsd_tutorial.stable_diffusion.pixels import (
    ImageSettings,
    check_images,
    resize,
    to_pil,
    to_tensor,
)


def smooth_image(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a smooth random image (blurred noise), as photographs are."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def test_round_trip_with_pil():
    original = smooth_image(48, 64)
    images = to_tensor(original)
    assert images.shape == (1, 3, 48, 64) and images.dtype == torch.float32
    assert np.array_equal(np.array(to_pil(images)[0]), np.array(original))


def test_pictures_of_different_sizes_need_a_side():
    pair = [smooth_image(48, 64), smooth_image(80, 50)]
    with pytest.raises(ValueError, match="side="):
        to_tensor(pair)
    assert to_tensor(pair, 32).shape == (2, 3, 32, 32)


def test_a_path_is_a_picture(tmp_path):
    smooth_image(20, 20).save(tmp_path / "p.png")
    assert to_tensor(str(tmp_path / "p.png")).shape == (1, 3, 20, 20)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8) * 255, r"need \[0, 1\].*255"),
        (torch.rand(2, 3, 8, 8) * 2 - 1, r"\(x \+ 1\) / 2"),
        (torch.full((1, 3, 8, 8), float("nan")), "nan"),
        (torch.rand(3, 8, 8), r"need \(images, 3"),
        (torch.rand(2, 8, 8, 3), r"need \(images, 3"),
    ],
)
def test_wrong_images_say_what_is_wrong(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images)


def test_something_else_is_no_picture():
    with pytest.raises(TypeError, match="not an image: int"):
        to_tensor([3])


def test_resize_keeps_a_constant_and_the_range():
    assert torch.allclose(resize(torch.full((1, 3, 40, 60), 0.3), 16), torch.tensor(0.3))
    edges = torch.zeros(1, 3, 40, 40)
    edges[..., 20:] = 1
    small = resize(edges, 17)
    assert small.min() >= 0 and small.max() <= 1


@pytest.mark.parametrize("size", [(90, 70), (64, 64), (300, 201), (40, 47)])
def test_same_pixels_as_the_processor_of_clip(size):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    settings = ImageSettings(size=64, crop=56)
    theirs = module.CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
    )
    expected = theirs(smooth_image(*size), return_tensors="pt")["pixel_values"]
    ours = settings(to_tensor(smooth_image(*size)))
    # they round to bytes after resizing: half a byte, over the deviation
    assert (ours - expected).abs().max() <= 1.01 / 255 / min(settings.std)


def test_settings_survive_the_disk_and_transformers(tmp_path):
    settings = ImageSettings(size=70, crop=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    settings.write(tmp_path)
    assert ImageSettings.read(tmp_path) == settings
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    theirs = module.CLIPImageProcessorPil.from_pretrained(str(tmp_path))
    assert theirs.size["shortest_edge"] == 70 and theirs.crop_size["height"] == 64
    assert tuple(theirs.image_mean) == settings.mean


def test_the_old_spelling_of_sizes_is_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": 224, "crop_size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}'
    )
    assert ImageSettings.read(tmp_path).size == 224
