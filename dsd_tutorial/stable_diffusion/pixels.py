"""Images as tensors: (images, 3, height, width), float32, in [0, 1]. No torchvision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dsd_tutorial.saving import write_json

Images = Float[Tensor, "images 3 height width"]


def resize(images: Images, shortest: int) -> Float[Tensor, "images 3 new_height new_width"]:
    """Return images whose shorter side has `shortest` pixels; bicubic with anti-aliasing, as PIL.

    Values are clamped to [0, 1], since a cubic kernel overshoots at edges.
    """
    height, width = images.shape[-2:]
    if min(height, width) == shortest:
        return images
    # PIL's and CLIP's rule: the longer side is cut to a whole number, not rounded
    target = [shortest * side // min(height, width) for side in (height, width)]
    images = F.interpolate(images, target, mode="bicubic", antialias=True, align_corners=False)
    return images.clamp(0, 1)


def centre_crop(images: Images, side: int) -> Float[Tensor, "images 3 {side} {side}"]:
    """Return the central square.

    Raises:
        ValueError: The images are smaller than `side`.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"cannot crop {side} pixels from images of {height} x {width}: resize")
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def to_tensor(images: Any, side: int | None = None) -> Images:
    """Return images as one tensor in [0, 1].

    Args:
        images: A PIL image, a tensor, a path, or a list of these.
        side: Resize each to that shorter side and crop it to a centred square, so that images of
            different sizes fit in one batch.

    Raises:
        TypeError: Something in the list is not an image.
        ValueError: Sizes differ and `side` is not given, or values lie outside [0, 1].
    """
    single = not isinstance(images, Sequence) or isinstance(images, str)
    found = [_one(image) for image in ([images] if single else images)]
    if side is not None:
        found = [centre_crop(resize(image, side), side) for image in found]
    sizes = {tuple(image.shape[-2:]) for image in found}
    if len(sizes) != 1:
        raise ValueError(f"images of different sizes {sorted(sizes)}: pass side=... to fit them")
    return torch.cat(found)


def _one(image: Any) -> Images:
    if isinstance(image, Tensor):
        return check_images(image if image.dim() == 4 else image[None])
    if isinstance(image, str | Path):
        image = Image.open(image)
    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise TypeError(f"not an image: {kind}; give a PIL image, a path or a tensor in [0, 1]")
    values = torch.from_numpy(np.array(image.convert("RGB")))  # (height, width, 3) bytes
    return values.permute(2, 0, 1)[None].float() / 255


def to_pil(images: Images | Float[Tensor, "3 height width"]) -> list[Image.Image]:
    """Return PIL images from tensors in [0, 1]."""
    images = check_images(images if images.dim() == 4 else images[None])
    rows = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in rows]


def check_images(images: Tensor) -> Images:
    """Return `images` as float32 after checking shape and range.

    Raises:
        ValueError: Not (images, 3, height, width), or values outside [0, 1] (bytes, [-1, 1], NaN).
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; need (images, 3, height, width)"
        )
    images = images.float()
    if images.is_meta or not images.numel():
        return images
    low, high = images.min().item(), images.max().item()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN fails too
        raise ValueError(
            f"image values span [{low:.3g}, {high:.3g}]; need [0, 1]. Divide bytes by 255; "
            "map [-1, 1] by (x + 1) / 2."
        )
    return images


@dataclass(frozen=True)
class ImageSettings:
    """How CLIP wants its pixels: shorter side and centred crop (pixels), mean and deviation.

    Called on images in [0, 1] it returns the pixel values that the image tower reads. The defaults
    are those of OpenAI's CLIP, which Stable Diffusion 1.x uses.
    """

    size: int = 224
    crop: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, images: Images) -> Float[Tensor, "images 3 {self.crop} {self.crop}"]:
        """Return pixel values: resized, cropped, normalised."""
        images = centre_crop(resize(images, self.size), self.crop)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    @classmethod
    def read(cls, folder: Path) -> ImageSettings:
        """Return the settings in `folder`/preprocessor_config.json (old and new spellings)."""
        stored = json.loads((folder / "preprocessor_config.json").read_text())
        size, crop = stored["size"], stored["crop_size"]
        return cls(
            size=size if isinstance(size, int) else size["shortest_edge"],
            crop=crop if isinstance(crop, int) else crop["height"],
            mean=tuple(stored["image_mean"]),
            std=tuple(stored["image_std"]),
        )

    def write(self, folder: Path) -> None:
        """Write preprocessor_config.json as transformers' CLIPImageProcessor reads it."""
        stored = {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.size},
            "resample": 3,  # PIL's number for bicubic
            "do_center_crop": True,
            "crop_size": {"height": self.crop, "width": self.crop},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        write_json(folder / "preprocessor_config.json", stored)
