"""SD-IPC-FT: about a hundred pictures of a domain, some hundred steps, and the old world kept.

    domain = fit_domain(model, pictures, text="a striped object")
    domain.vary(model, others, 4)                         # variations of pictures it has not seen

Ding et al., arXiv 2305.12716 (METHODS.md B.6), train deep visual prompts in the image tower and the
key/value weights of cross-attention. The loss is *ours*: the error under the converted prompt of
the same picture (lightly cropped), plus the error under the editing prompt that names the class,
plus how far answers in the old world have moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.denoising import (
    CHECKING,
    TRAINING,
    Denoising,
    Draw,
    generator_of,
    training_pass,
)
from dsd_tutorial.customization.domain import Domain
from dsd_tutorial.customization.keeping import PICTURES, OldWorld, old_world
from dsd_tutorial.customization.key_values import TARGETS, KeyValues
from dsd_tutorial.customization.references import show
from dsd_tutorial.customization.sequences import ALPHA, Frame, edit_frame, image_frame
from dsd_tutorial.customization.tuning import Plan, Preview, tune
from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.projection.calibration import train_scenes
from dsd_tutorial.stable_diffusion import to_tensor

RATE = 1e-3  # of the key/value additions
DEEP_PACE = 10.0  # deep prompts learn so many times faster: their numbers are larger
CROP = 0.9  # least side of a crop, as a share of the picture's
HELD_BACK = 10  # of so many pictures one is not trained on, and decides which step was best


def fit_domain(
    model: Any,
    images: Tensor | Sequence[Any],
    *,
    text: str | Sequence[str],
    inverse: Inverse | None = None,
    tokens: int = 4,
    targets: Sequence[str] = TARGETS,
    steps: int = 400,
    lr: float = RATE,
    text_weight: float = 1.0,
    keep_weight: float = 1.0,
    keep_texts: Sequence[str] | None = None,
    keep_count: int = PICTURES,
    alpha: float = ALPHA,
    crop: float = CROP,
    batch_size: int = 8,
    time_steps: tuple[int, int] | None = None,
    seed: int = 0,
    check_every: int | None = None,
    preview: Preview | None = None,
    preview_every: int = 50,
    dtype: torch.dtype | str | None = None,
    gradient_checkpointing: bool = False,
    progress: bool = True,
) -> Domain:
    """Return the `Domain` learned from `images` (about a hundred); `model` itself stays as it is.

    text         what the editing prompt says: the class ("a striped object"), or one for each image
    inverse      None is the paper's; frozen, and gradients flow through it
    tokens       deep prompts per layer; 0 trains keys and values only
    targets      what is trained of cross-attention; the paper's: keys and values
    lr           of keys and values; deep prompts take ten times that. Both fall to zero
    text_weight, keep_weight    of the class text's error, and of forgetting (0: not looked at)
    keep_texts   captions of the old world, which the model draws for itself; None: of the shapes
                 world. For photographs give captions of photographs, or keep_weight=0
    keep_count   how many captions of the shapes world, where none are given
    alpha        of the text in the editing prompt
    crop         least side of the crop that the image tower sees; the U-Net learns the whole

    One image of ten is held back to decide which step was best. Ctrl-C ends it with the best so
    far. Raises ValueError for settings out of range, RuntimeError if other weights changed.
    """
    _check(images, text, text_weight, keep_weight, keep_count, crop)
    inverse = inverse or fit_inverse(model, progress=progress)
    images = to_tensor(images, None if isinstance(images, Tensor) else model.resolution)
    learning, held = _split(len(images))
    deep, keys = DeepPrompts(model, tokens, images=images[learning][:64]), KeyValues(model, targets)
    names = [text] * len(images) if isinstance(text, str) else list(text)
    settings = {
        "text": text if isinstance(text, str) else names, "tokens": tokens,
        "targets": list(targets), "steps": steps,
        "lr": lr, "text_weight": text_weight, "keep_weight": keep_weight, "alpha": alpha,
        "crop": crop, "batch_size": batch_size, "seed": seed, "images": len(images),
    }  # fmt: skip
    domain = Domain(deep, keys, inverse, settings)
    shared = {"batch_size": batch_size, "time_steps": time_steps, "seed": seed, "dtype": dtype}
    frames = (
        image_frame(model, inverse.copies),
        edit_frame(model, names, alpha=alpha, copies=inverse.copies),
    )
    learn = _Learning(domain, images, learning, frames, text_weight, crop, shared)
    check = _Learning(domain, images, held, frames, text_weight, 1.0, shared)
    if keep_weight:
        texts = keep_texts if keep_texts is not None else train_scenes(keep_count, seed)[1]
        learn.old = old_world(model, inverse, texts, keep_weight, shared, progress)
    plan = Plan(
        steps, {"deep": DEEP_PACE * lr, "key_values": lr}, decay=True, every=check_every,
        preview_every=preview_every, progress=progress, name="fitting the domain",
    )  # fmt: skip
    with training_pass(model, gradient_checkpointing):
        domain.tuning = tune(
            model, domain.module, plan, learn.loss, check.check,
            active=lambda: keys.active(model),
            picture=lambda: show(model, domain.to_prompt(model, images[held[:1]]), seed),
            preview=preview,
        )  # fmt: skip
    return domain


class _Learning:
    """The loss on some of the pictures: what the prompt says, what the text says, what is kept."""

    def __init__(
        self,
        domain: Domain,
        images: Tensor,
        rows: Tensor,
        frames: tuple[Frame, Frame],
        text_weight: float,
        crop: float,
        shared: dict[str, Any],
    ):
        model = domain.deep.model
        self.domain, self.images, self.rows = domain, images[rows].to(model.device), rows
        self.plain, self.edited = frames
        self.text_weight, self.crop = text_weight, crop
        with torch.no_grad():
            latents = model.encode_image(self.images)
        self.denoising = Denoising(model, latents, **shared)
        self.old: OldWorld | None = None

    def contexts(self, draw: Draw, pictures: Tensor) -> Tensor:
        """Return image prompts and then editing prompts, (batch or 2 batch, L, d)."""
        h = self.domain.inverse(self.domain.deep.encode(pictures))  # (batch, d)
        plain = self.plain(h)
        if not self.text_weight:
            return plain
        return torch.cat([plain, self.edited(h, self.rows[draw.index.cpu()])])

    def parts(self, draw: Draw, pictures: Tensor) -> dict[str, Tensor]:
        """Return the errors under image prompt and editing prompt, both under the same noise."""
        contexts = self.contexts(draw, pictures)
        twice = len(contexts) // len(draw.t)
        both = Draw(*(x.repeat(twice, *[1] * (x.ndim - 1)) for x in (draw.index, draw.t, draw.e)))
        errors = self.denoising.errors(contexts, both).view(twice, -1).mean(1)
        named = {"image": errors[0]}
        return named if twice == 1 else {**named, "text": self.text_weight * errors[1]}

    def loss(self, step: int) -> dict[str, Tensor]:
        draw = self.denoising.draw(step)
        pictures = random_crop(self.images[draw.index], self.crop, self.denoising.seed, step)
        found = self.parts(draw, pictures)
        return found if self.old is None else {**found, "kept": self.old.loss(step, self.domain)}

    def check(self) -> Tensor:
        draw = self.denoising.draw(0, CHECKING, 2 * self.denoising.batch_size)
        return torch.stack(list(self.parts(draw, self.images[draw.index]).values())).sum()


def random_crop(images: Tensor, least: float, seed: int, step: int) -> Tensor:
    """Return images (batch, 3, h, w) of which each shows a square crop, scaled to the old size.

    A crop's side is `least` to 1 of the picture's; at 1 the picture stays as it is.
    """
    if least == 1:
        return images
    numbers = generator_of(seed, TRAINING, step, 2)
    share = least + (1 - least) * torch.rand(len(images), generator=numbers)
    slack = (1 - share)[:, None] * (2 * torch.rand(len(images), 2, generator=numbers) - 1)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = share
    theta[:, :, 2] = slack
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def _split(count: int) -> tuple[Tensor, Tensor]:
    """Which pictures are trained on, and which decide; with few, all do both."""
    rows = torch.arange(count)
    if count < 2 * HELD_BACK:
        return rows, rows
    held = rows % HELD_BACK == HELD_BACK - 1
    return rows[~held], rows[held]


def _check(
    images: Any, text: Any, text_weight: float, keep_weight: float, keep_count: int, crop: float
) -> None:
    count = len(images)
    if not isinstance(text, str) and len(text) != count:
        raise ValueError(f"{len(text)} texts for {count} images: give one text, or one for each")
    if not (text_weight >= 0 and keep_weight >= 0 and 0.5 <= crop <= 1):
        raise ValueError(
            f"text_weight={text_weight}, keep_weight={keep_weight}, crop={crop}: need weights of "
            "0 or more and a crop of 0.5 to 1"
        )
    if keep_count < 1:
        raise ValueError(f"keep_count={keep_count}: need 1 or more; keep_weight=0 keeps nothing")
