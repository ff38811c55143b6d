"""Isolations: images in which only one box is left, and their prediction error (VGDiffZero, D.1).

Crop: what lies in the box, enlarged. Mask: the whole image, all outside the box painted over. Three
choices matter and are *ours*. A crop takes a square window, so that no end of a long box is lost
(the released code fits the short side and cuts the centre). A crop may have a margin, since things
in training images did not touch the edge. And what is painted over takes the colour of the
background, for black is itself a picture that some phrases fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsd_tutorial.attention import shared_rows
from dsd_tutorial.grounding.boxes import Boxes, border_color, box_masks, check_boxes, pixel_boxes
from dsd_tutorial.matching.batches import Batches, BatchSize
from dsd_tutorial.shapes.scene import check_known
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid
from dsd_tutorial.stable_diffusion.pixels import centre_crop, resize

FITS = {
    "square": "a square window around the box, with what lies beside it",
    "centre": "the box alone, its short side fitted and the centre cut out: the released way",
}
FILLS = ("background", "mean", "black")


def fill_color(image: Float[Tensor, "3 height width"], fill: str) -> Float[Tensor, 3]:
    """Return the colour that `fill`, one of `FILLS`, means for this image."""
    check_known("fill", fill, FILLS)
    if fill == "background":
        return border_color(image)
    return image.mean((1, 2)) if fill == "mean" else torch.zeros_like(image[:, 0, 0])


def crop_boxes(
    image: Float[Tensor, "3 height width"],
    boxes: Boxes,
    side: int,
    margin: float = 0.0,
    fit: str = "square",
) -> Float[Tensor, "boxes 3 {side} {side}"]:
    """Return what lies in each box as an image of its own; beyond the image lies its background.

    Args:
        image: In [0, 1].
        boxes: As fractions of the image.
        side: Pixels of the new images.
        margin: Width added on all four sides, as a share of the box's longer side; may be negative.
        fit: One of `FITS`.

    Raises:
        ValueError: Boxes outside [0, 1], an unknown fit, or a margin that leaves nothing.
    """
    check_known("fit", fit, FITS)
    if margin <= -0.5:
        raise ValueError(f"margin={margin} leaves nothing of a box: need more than -0.5")
    height, width = image.shape[-2:]
    found, color = [], border_color(image)[:, None, None]
    for left, top, right, bottom in pixel_boxes(check_boxes(boxes), height, width):
        grown = round(margin * max(right - left, bottom - top))
        left, top, right, bottom = left - grown, top - grown, right + grown, bottom + grown
        if fit == "square":
            longer = max(right - left, bottom - top)
            left, top = (left + right - longer) // 2, (top + bottom - longer) // 2
            right, bottom = left + longer, top + longer
        window = color.expand(3, bottom - top, right - left).clone()
        first, last = max(top, 0), min(bottom, height)
        start, end = max(left, 0), min(right, width)
        window[:, first - top : last - top, start - left : end - left] = image[
            :, first:last, start:end
        ]
        found.append(centre_crop(resize(window[None], side), side))
    return torch.cat(found)


def mask_boxes(
    image: Float[Tensor, "3 height width"],
    boxes: Boxes | Bool[Tensor, "boxes height width"],
    fill: str = "background",
) -> Float[Tensor, "boxes 3 height width"]:
    """Return the image once for each box, all that lies outside painted over.

    Args:
        image: In [0, 1].
        boxes: As fractions of the image; or which pixels are to be kept, for instance those of two
            boxes.
        fill: One of `FILLS`.

    Raises:
        ValueError: Boxes outside [0, 1], or an unknown fill.
    """
    keep = boxes if boxes.dtype == torch.bool else box_masks(check_boxes(boxes), *image.shape[-2:])
    color = fill_color(image, fill)[:, None, None].expand_as(image)
    return torch.where(keep[:, None].to(image.device), image[None], color[None])


@torch.no_grad()
def isolation_errors(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    steps: int | Sequence[int] = 10,
    seed: int = 0,
    own_noise: bool = False,
    batch_size: BatchSize = "auto",
) -> Float[Tensor, "images texts steps"]:
    """Return the mean squared error of the predicted noise, of each image under each text.

    Every image meets the same noise at a time step, and every text the same noisy image. With
    `own_noise` each image draws its own, as in the released code: then two images differ by their
    noises, too, and mostly by these.

    Args:
        model: A `StableDiffusion`.
        images: Isolated images, in [0, 1].
        texts: Phrases; "" is the empty prompt.
        steps: As in `time_grid`: middles of equal cells.
        seed: Of the noises.
        own_noise: Whether each image has noises of its own.
        batch_size: Rows per U-Net pass.

    Raises:
        ValueError: No text, or images that the model cannot encode.
    """
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts={texts!r}: give a list of at least one phrase")
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
    latents, prompts = model.encode_image(images), model.encode_text(list(texts))
    draws = range(len(images)) if own_noise else (0,)
    noise = torch.stack(
        [
            torch.cat([shared_noise(latents.shape[1:], seed, s, i) for s in range(len(grid))])
            for i in draws
        ]
    ).to(latents)  # (images or 1, steps, channels, h, w)
    shape = len(images), len(grid), len(texts)
    rows = torch.cartesian_prod(*(torch.arange(number) for number in shape)).view(-1, 3)
    errors = torch.zeros(len(rows))
    timesteps = torch.tensor(grid)

    def one(part: slice) -> Tensor:
        image, step, text = rows[part].unbind(1)
        e = noise[image if own_noise else torch.zeros_like(image), step]
        noisy = model.add_noise(latents[image.to(latents.device)], e, timesteps[step])
        with shared_rows(model.unet, image * len(grid) + step, text):
            eps = model.predict_noise(noisy, timesteps[step], prompts[text.to(prompts.device)])
        return (e - eps).square().mean((1, 2, 3)).cpu()

    for part, found in Batches(model, batch_size, latents[0, 0].numel()).run(len(rows), one):
        errors[part] = found
    return errors.view(shape).transpose(1, 2).contiguous()
