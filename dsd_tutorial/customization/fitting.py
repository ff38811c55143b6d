"""SD-IPC-FT: about a hundred images of a domain, some hundred steps, and the old world kept.

    domain = fit_domain(model, images, text="a striped object")
    domain.vary(model, others, 4)                         # variations of images it has not seen

Ding et al., arXiv 2305.12716 (METHODS.md B.6), train deep visual prompts in the image tower and the
key/value weights of cross-attention. The loss is *ours*: the error under the converted prompt of
the same image (lightly cropped), plus the error under the editing prompt that names the class,
plus how far answers in the old world have moved.

For the last the model draws captions of the old world before fitting, as in DreamBooth's prior
preservation (Ruiz et al., arXiv 2208.12242). Its answers to these images, under the caption and
under the image prompt, are held to what the frozen model answers to the same noise: a difference
that is zero at the start, so that nothing is paid before something is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.denoising import CHECKING, TRAINING, Draw, generator_of
from dsd_tutorial.customization.domain import ALPHA, Domain, KeyValues
from dsd_tutorial.customization.references import show
from dsd_tutorial.customization.tuning import Plan, tune
from dsd_tutorial.projection import Inverse, fit_inverse
from dsd_tutorial.projection.calibration import train_scenes
from dsd_tutorial.stable_diffusion import StableDiffusion, to_tensor
from dsd_tutorial.variation import states_to_edit, states_to_prompt

RATE = 1e-3  # of the key/value additions
DEEP_PACE = 10.0  # deep prompts learn so many times faster: their numbers are larger
CROP = 0.9  # least side of a crop, as a share of the image's
HELD_BACK = 10  # of so many images one is not trained on, and decides which step was best
OLD_IMAGES = 48  # of the old world, unless told otherwise
OLD_STEPS = 10  # denoising steps of each


def fit_domain(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    *,
    text: str | Sequence[str],
    inverse: Inverse | None = None,
    tokens: int = 4,
    steps: int = 400,
    lr: float = RATE,
    text_weight: float = 1.0,
    keep_weight: float = 1.0,
    keep_texts: Sequence[str] | None = None,
    keep_count: int = OLD_IMAGES,
    alpha: float = ALPHA,
    crop: float = CROP,
    seed: int = 0,
    **plan: Any,
) -> Domain:
    """Return the `Domain` learned from `images`; `model` itself stays as it is.

    One image of ten is held back to decide which step was best. Ctrl-C ends it with the best so
    far.

    Args:
        model: which draws the domain badly.
        images: of the domain, about a hundred.
        text: what the editing prompt says: the class ("a striped object"), or one for each image.
        inverse: None is the paper's; frozen, and gradients flow through it.
        tokens: deep prompts per layer; 0 trains keys and values only.
        steps: of training.
        lr: of keys and values; deep prompts take ten times that. Both fall to zero.
        text_weight: of the error under the editing prompt; 0 leaves it out.
        keep_weight: of forgetting; 0 leaves it out.
        keep_texts: captions of the old world, which the model draws for itself; None: of the shapes
            world. For photographs give captions of photographs, or keep_weight=0.
        keep_count: how many captions of the shapes world, where none are given.
        alpha: of the text in the editing prompt.
        crop: least side of the crop that the image tower sees; the U-Net learns the whole.
        seed: of all draws.
        **plan: batch_size, time_steps, check_every, preview, ..., as `Plan` takes them.

    Raises:
        ValueError: settings out of range.
        RuntimeError: other weights changed.
    """
    _check(images, text, text_weight, keep_weight, keep_count, crop)
    rates = {"deep": DEEP_PACE * lr, "key_values": lr}
    plan = {"name": "fitting the domain", "preview_every": 50, "seed": seed, **plan}
    planned = Plan(steps, rates, decay=True, **plan)
    inverse = inverse or fit_inverse(model, progress=planned.progress)
    images = to_tensor(images, None if isinstance(images, Tensor) else model.resolution)
    learning, held = _split(len(images))
    deep, keys = DeepPrompts(model, tokens, images=images[learning][:64]), KeyValues(model)
    texts = [text] * len(images) if isinstance(text, str) else list(text)
    settings = {
        "text": text if isinstance(text, str) else texts, "tokens": tokens,
        "steps": steps, "lr": lr, "text_weight": text_weight, "keep_weight": keep_weight,
        "alpha": alpha, "crop": crop, "batch_size": planned.batch_size, "seed": seed,
        "images": len(images),
    }  # fmt: skip
    domain = Domain(deep, keys, inverse, settings)
    learn, check = (
        _Learning(domain, planned, images[rows], [texts[i] for i in rows.tolist()])
        for rows in (learning, held)
    )
    if keep_weight:
        captions = train_scenes(keep_count, seed)[1] if keep_texts is None else list(keep_texts)
        learn.old_world = _OldWorld(domain, planned, captions)
    domain.tuning = tune(
        model, domain.module, planned, learn.loss, check.check,
        image=lambda: show(model, domain.to_prompt(model, images[held[:1]]), seed),
        active=lambda: keys.active(model),
    )  # fmt: skip
    return domain


class _Learning:
    """The loss on some of the images: what their prompts say, what the texts say, what is kept."""

    old_world: _OldWorld | None = None

    def __init__(self, domain: Domain, plan: Plan, images: Tensor, texts: list[str]):
        self.domain, self.model, self.texts = domain, domain.deep.model, texts
        self.images = images.to(self.model.device)
        self.denoising = plan.denoising(self.model, self.images)
        self.text_weight: float = domain.settings["text_weight"]

    def _prompts(self, draw: Draw, images: Tensor) -> Float[Tensor, "prompts tokens states"]:
        """Image prompts and, where their error counts, editing prompts behind them."""
        h, copies = self.domain.inverse(self.domain.deep.encode(images)), self.domain.inverse.copies
        prompts = states_to_prompt(self.model, h, copies=copies)
        if not self.text_weight:
            return prompts
        texts, alpha = [self.texts[i] for i in draw.index.tolist()], self.domain.settings["alpha"]
        edits = states_to_edit(self.model, h, texts, alpha=alpha, copies=copies)
        return torch.cat([prompts, edits])

    def _parts(self, draw: Draw, images: Tensor) -> dict[str, Tensor]:
        """The errors under image prompt and editing prompt, both under the same noise."""
        prompts = self._prompts(draw, images)
        twice = len(prompts) // len(draw.t)
        both = Draw(*(x.repeat(twice, *[1] * (x.ndim - 1)) for x in (draw.index, draw.t, draw.e)))
        errors = self.denoising.errors(prompts, both).view(twice, -1).mean(1)
        named = {"image": errors[0]}
        return named if twice == 1 else {**named, "text": self.text_weight * errors[1]}

    def loss(self, step: int) -> dict[str, Tensor]:
        draw, crop = self.denoising.draw(step), self.domain.settings["crop"]
        images = random_crop(self.images[draw.index], crop, self.denoising.seed, step)
        parts = self._parts(draw, images)
        return {**parts, "kept": self.old_world.loss(step)} if self.old_world else parts

    def check(self) -> Tensor:
        draw = self.denoising.draw(0, CHECKING, 2 * self.denoising.batch_size)
        return torch.stack(list(self._parts(draw, self.images[draw.index]).values())).sum()


class _OldWorld:
    """Images that the model itself draws of captions; `loss` says how far its answers moved."""

    def __init__(self, domain: Domain, plan: Plan, captions: Sequence[str]):
        self.domain, model, inverse = domain, domain.deep.model, domain.inverse
        how = {"steps": OLD_STEPS, "seed": plan.seed, "progress": plan.progress}
        with torch.no_grad():
            self.images = model.sample(captions, **how)
            self.captions = model.encode_text(captions)
            self.denoising = plan.denoising(model, self.images)
            h = inverse(model.encode_clip_image(self.images))
            self.prompts = states_to_prompt(model, h, copies=inverse.copies)  # as they were

    def loss(self, step: int) -> Tensor:
        """Return weight * mean squared change of the answers to one batch, a scalar.

        Half of the batch is answered under its caption, half under its image prompt.
        """
        domain, draw = self.domain, self.denoising.draw(step)
        noisy, half = self.denoising.noisy(draw), len(draw.t) // 2
        captions, rows = self.captions[draw.index[:half]], draw.index[half:]
        with torch.no_grad(), domain.keys.resting():
            before = torch.cat([captions, self.prompts[rows]])
            right = self.denoising.answer(noisy, draw.t, before)
        h, copies = domain.inverse(domain.deep.encode(self.images[rows])), domain.inverse.copies
        now = states_to_prompt(domain.deep.model, h, copies=copies)
        answer = self.denoising.answer(noisy, draw.t, torch.cat([captions, now]))
        return domain.settings["keep_weight"] * (answer - right).square().mean()


def random_crop(
    images: Float[Tensor, "batch 3 height width"], least: float, seed: int, step: int
) -> Float[Tensor, "batch 3 height width"]:
    """Return images of which each shows a square crop, scaled to the old size.

    A crop's side is `least` to 1 of the image's; at 1 the image stays as it is.
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


def _split(count: int) -> tuple[Int[Tensor, "*learning"], Int[Tensor, "*held"]]:
    """Which images are trained on, and which decide; with few, all do both."""
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
