"""U-Net passes over rows: each row has its own image, text, time step and noise.

The U-Net takes one time step per row, so that all candidates *and* time steps of an image share a
batch; the empty prompt of the error term rides along. What depends on an image or a text alone is
computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dsd_tutorial.attention import (
    Roles,
    choose_layers,
    observe,
    readings_of,
    roles_of,
    shared_rows,
)
from dsd_tutorial.attention import token_mask as positions_of
from dsd_tutorial.attention.pooling import pool_pixels
from dsd_tutorial.matching.batches import Batches, BatchSize
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

PAIR, STEP, NOISE = 0, 1, 2  # columns of rows
NAN = float("nan")


def pass_components(
    model: Any,
    noisy: Float[Tensor, "batch channels height width"],
    timestep: int | Int[Tensor, " batch"],
    prompts: Float[Tensor, "batch tokens states"],
    *,
    layers: str | Sequence[str] | None = None,
    token_masks: Sequence[Tensor | None] = (None,),
    readings: Sequence[str] = (),
    roles: Roles | None = None,
    lam: float = 1.0,
    pooling: str = "mean",
    pooling_lam: float = 1.0,
    grad: bool = False,
) -> tuple[
    Float[Tensor, "readings batch layers heads"], Float[Tensor, "batch channels height width"]
]:
    """Return the components of one U-Net pass, token masks first, and its epsilon.

    With `grad` both carry gradients: learn a prompt, an attention edit or LoRA on this. The other
    arguments are those of `components`, the token masks as tensors; `timestep` one for all or one
    each; `roles` of the batch's texts where there are readings.
    """
    single = len(token_masks) <= 1  # keeps the fused kernel in reach
    masks = list(token_masks) if not single else token_masks[0] if token_masks else None

    def read(logits: Tensor, roles: Any = roles) -> Tensor:
        read = readings_of(logits.float(), roles.to(logits.device), readings)[..., None]
        return F.pad(read, (0, logits.shape[1] - 1), value=NAN)  # one for all heads

    with torch.set_grad_enabled(grad):
        with observe(
            model, layers, masks, lam, grad=grad, reduce_logits=read if readings else None
        ) as seen:
            eps = model.predict_noise(noisy, timestep, prompts)
        found = []
        for name, scores in seen.scores.items():
            pooled = pool_pixels(scores, pooling, pooling_lam)  # (masks?, batch, heads)
            rows = [pooled[None] if single else pooled] if token_masks else []
            found.append(torch.cat([*rows, seen.logits[name]] if readings else rows))
        most = max(x.shape[-1] for x in found)
        fill = [F.pad(x, (0, most - x.shape[-1]), value=NAN) for x in found]
    return torch.stack(fill, dim=-2), eps


class Encoded:
    """What stays the same over all passes, each image and each distinct text encoded once.

    Attributes:
        latents: (images, channels, height, width).
        texts: The distinct texts.
        prompts: Of the distinct texts, (texts, tokens, states).
        masks: Of each token mask (texts, tokens), or None.
        roles: Which tokens of the distinct texts play which part, where structure is read.
        empty: The prompt embeddings of the empty prompt where the error term is wanted, or None.
        pairs: (distinct pairs, 2), image and distinct text, sorted.
        place: (pairs,), the place of each pair among the distinct ones.
    """

    def __init__(
        self,
        model: Any,
        images: Tensor,
        texts: Sequence[str],
        pairs: Int[Tensor, "pairs 2"],
        token_masks: Sequence[str] = (),
        errors: bool = False,
        structure: bool = False,
    ):
        distinct = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(distinct)}
        number = torch.tensor([place[text] for text in texts])
        own = torch.stack([pairs[:, 0], number[pairs[:, 1]]], dim=1)
        self.pairs, self.place = own.unique(dim=0, return_inverse=True)
        prompts = [model.encode_text(distinct[i : i + 64]) for i in range(0, len(distinct), 64)]
        self.model, self.texts, self.prompts = model, distinct, torch.cat(prompts)
        self.masks = [positions_of(model, distinct, name) for name in token_masks]
        self.roles = roles_of(model, distinct) if structure else None
        self.empty = model.encode_text([""]) if errors else None
        self.latents = model.encode_image(images)


class Passes:
    """Runs rows (pair, time step, noise) through the U-Net, and says what was read of each.

    Pairs are the distinct ones of `once`; behind them, image by image, come the pairs of each image
    with the empty prompt.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        pairs: Image and text index.
        steps: As in `time_grid`.
        noises: Per time step.
        layers: As in `choose_layers`.
        token_masks: By name.
        readings: By name; without masks and readings nothing is observed.
        errors: Whether the distance of the predicted noise is computed.
        base: Whether that of the empty prompt is, too; texts that compete for one image share it.
        seed: Draws the noises.
        batch_size: Rows per U-Net pass, or "auto".
        **pooled: lam, pooling and pooling_lam, as in `pass_components`.
    """

    def __init__(
        self,
        model: Any,
        images: Tensor,
        texts: Sequence[str],
        pairs: Int[Tensor, "pairs 2"],
        *,
        steps: int | Sequence[int],
        noises: int = 1,
        layers: str | Sequence[str] | None = None,
        token_masks: Sequence[str] = (),
        readings: Sequence[str] = (),
        errors: bool = False,
        base: bool = True,
        seed: int = 0,
        batch_size: BatchSize = "auto",
        **pooled: Any,
    ):
        self.model, self.noises, self.errors, self.base = model, noises, errors, errors and base
        self.grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
        self.layers: dict[str, Any] = choose_layers(model, layers)
        self.heads = max(attn.heads for attn in self.layers.values())
        self.names = (*token_masks, *readings)
        self.how = {"layers": list(self.layers), "readings": tuple(readings), **pooled}
        self.given = pairs
        self.once = once = Encoded(
            model, images, texts, pairs, token_masks, errors=self.base, structure=bool(readings)
        )
        self.batches = Batches(model, batch_size, once.latents[0, 0].numel())
        places = [(i, j) for i in range(len(self.grid)) for j in range(noises)]
        noise = [shared_noise(once.latents.shape[1:], seed, *place) for place in places]
        self.noise = torch.cat(noise).unflatten(0, (-1, noises)).to(once.latents.device)
        every = torch.arange(len(once.latents))
        self.image = torch.cat([once.pairs[:, 0], every])
        self.text = torch.cat([once.pairs[:, 1], torch.full_like(every, -1)])

    def rows(
        self, pairs: Int[Tensor, " some"] | None = None, steps: Sequence[int] | None = None
    ) -> Int[Tensor, "rows 3"]:
        """Return the rows of these pairs at these places of the grid; None is all.

        All rows of a pair follow each other, and with the error term an image's empty prompt comes
        before its texts.
        """
        count = len(self.once.pairs)
        pairs = torch.arange(count) if pairs is None else pairs
        if self.base:
            pairs = torch.cat([count + self.image[pairs].unique(), pairs])
            order = self.image[pairs] * (len(self.once.texts) + 1) + self.text[pairs] + 1
            pairs = pairs[order.argsort()]
        each = torch.cartesian_prod(
            torch.tensor(range(len(self.grid)) if steps is None else steps),
            torch.arange(self.noises),
        )
        return torch.cat(
            [pairs.repeat_interleave(len(each))[:, None], each.repeat(len(pairs), 1)], dim=1
        )

    def run(
        self, rows: Int[Tensor, "rows 3"], bar: Any = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield, batch by batch, rows, their components and, with errors, their ||e - eps||.

        Components are (readings, rows, layers, heads), all on the CPU in float32. `bar` is a
        progress bar that counts rows.
        """
        for part, found in self.batches.run(len(rows), lambda part: self._pass(rows[part])):
            if bar is not None:
                bar.set_description(f"U-Net passes, {self.batches.size} at once", refresh=False)
                bar.update(part.stop - part.start)
            yield rows[part], *found

    def _pass(self, rows: Int[Tensor, "batch 3"]) -> tuple[Tensor, Tensor | None]:
        once, device = self.once, self.once.latents.device
        image, text = self.image[rows[:, PAIR]].to(device), self.text[rows[:, PAIR]]
        e = self.noise[rows[:, STEP].to(device), rows[:, NOISE].to(device)]
        t = torch.tensor(self.grid)[rows[:, STEP]]
        noisy = self.model.add_noise(once.latents[image], e, t)
        prompts = once.prompts[text.to(device)]
        if once.empty is not None:
            prompts[(text < 0).to(device)] = once.empty
        places = len(self.grid) * self.noises
        fields = image.cpu() * places + rows[:, STEP] * self.noises + rows[:, NOISE]
        with shared_rows(self.model.unet, fields, text):
            if not self.names:
                eps = self.model.predict_noise(noisy, t, prompts)
                seen = eps.new_zeros(0, len(rows), len(self.layers), self.heads)
            else:
                said = text.clamp(min=0)  # nobody reads what the empty prompts score
                seen, eps = pass_components(
                    self.model, noisy, t, prompts, **self.how,
                    token_masks=[None if mask is None else mask[said] for mask in once.masks],
                    roles=None if once.roles is None else once.roles[said],
                )  # fmt: skip
        return seen.float().cpu(), distance(e, eps).cpu() if self.errors else None


def distance(
    e: Float[Tensor, "#batch channels height width"],
    eps: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Return ||e - eps|| of each item, in float32."""
    return (e.float() - eps.float()).flatten(1).norm(dim=1)
