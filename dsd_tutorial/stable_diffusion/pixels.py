"""Pictures as tensors: (batch, 3, height, width), float32, in [0, 1]. No torchvision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.saving import write_json


def resize(images: Tensor, shortest: int) -> Tensor:
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


def centre_crop(images: Tensor, side: int) -> Tensor:
    """Return the central (batch, 3, side, side) part.

    Raises:
        ValueError: the images are smaller than `side`.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"cannot crop {side} pixels from images of {height} x {width}: resize")
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def to_tensor(pictures: Any, side: int | None = None) -> Tensor:
    """Return (batch, 3, height, width) in [0, 1] from PIL pictures, a tensor or a path, or a list.

    With `side`, each is resized to that shorter side and cropped to a centred square, so pictures
    of different sizes fit in one batch.

    Raises:
        TypeError: something in the list is not a picture.
        ValueError: sizes differ and `side` is not given, or values lie outside [0, 1].
    """
    single = not isinstance(pictures, Sequence) or isinstance(pictures, str)
    if isinstance(pictures, Tensor):
        images = [check_images(pictures if pictures.dim() == 4 else pictures[None])]
    else:
        images = [_one(picture) for picture in ([pictures] if single else pictures)]
    if side is not None:
        images = [centre_crop(resize(image, side), side) for image in images]
    sizes = {tuple(image.shape[-2:]) for image in images}
    if len(sizes) != 1:
        raise ValueError(f"pictures of different sizes {sorted(sizes)}: pass side=... to fit them")
    return torch.cat(images)


def _one(picture: Any) -> Tensor:
    import numpy as np
    from PIL import Image

    if isinstance(picture, Tensor):
        return check_images(picture if picture.dim() == 4 else picture[None])
    if isinstance(picture, str | Path):
        picture = Image.open(picture)
    if not isinstance(picture, Image.Image):
        kind = type(picture).__name__
        raise TypeError(f"not a picture: {kind}; give a PIL image, a path or a tensor in [0, 1]")
    values = torch.from_numpy(np.array(picture.convert("RGB")))  # (height, width, 3) bytes
    return values.permute(2, 0, 1)[None].float() / 255


def to_pil(images: Tensor) -> list[Any]:
    """Return PIL pictures from (batch, 3, height, width) or (3, height, width) in [0, 1]."""
    from PIL import Image

    images = check_images(images if images.dim() == 4 else images[None])
    rows = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in rows]


def check_images(images: Tensor) -> Tensor:
    """Return `images` as float32 after checking shape and range.

    Raises:
        ValueError: not (batch, 3, height, width), or values outside [0, 1] (bytes, [-1, 1], NaN).
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; need (batch, 3, height, width)")
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

    def __call__(self, images: Tensor) -> Tensor:
        """Return pixel values (batch, 3, crop, crop): resized, cropped, normalised."""
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
