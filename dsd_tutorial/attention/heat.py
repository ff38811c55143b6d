"""Where a word looks: attention averaged over heads, U-Net passes and layers, as in DAAM.

Tang et al., arXiv 2210.04885. `observe(model, heat=True)` keeps one running mean per layer for each
batch of prompts, never single passes. An attention map alone proves little: draw the same map for
shuffled words, another image and an untrained network beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention.token_masks import Word, word_positions

Size = int | tuple[int, int] | None
UNKNOWN = (
    "the text of a prompt cannot be known unless its embeddings come from this model's encode_text"
)


@dataclass
class BatchHeat:
    """The attention of one batch of prompts: the mean over the passes that read it."""

    prompts: Float[Tensor, "batch tokens states"]
    grid: tuple[int, int]  # height and width of the latents
    sampled: int  # the model's `batches_sampled` at the time
    means: dict[str, Tensor] = field(default_factory=dict)  # layer -> (batch, pixels, tokens)
    passes: dict[str, int] = field(default_factory=dict)

    def add(self, layer: str, maps: Float[Tensor, "batch heads pixels tokens"]) -> None:
        """Take the maps of one more pass into the layer's mean."""
        new = maps.mean(1)  # (batch, pixels, tokens)
        old = self.means.get(layer)
        self.passes[layer] = passes = self.passes.get(layer, 0) + 1
        self.means[layer] = new if old is None else old + (new - old) / passes

    def at(self, row: int, positions: list[int], size: Size) -> Float[Tensor, "height width"]:
        """Return the map of the tokens at `positions` of one prompt, as large as `token_heat`."""
        maps = {layer: mean[row : row + 1, :, positions] for layer, mean in self.means.items()}
        return token_heat(maps, self.grid, size)[0].mean(0)


class HeatRecorder:
    """Sorts what is observed by the prompts that the U-Net read, and finds words in them."""

    def __init__(self, model: Any):
        self.model = model
        self.batches: list[BatchHeat] = []
        self.current: BatchHeat | None = None

    def begin_pass(self, unet: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Hook of the U-Net: find the batch that this pass belongs to, or open a new one."""
        latents, prompts = (
            args[place] if len(args) > place else kwargs[name]
            for place, name in ((0, "sample"), (2, "encoder_hidden_states"))
        )
        sampled = self.model.batches_sampled
        for batch in reversed(self.batches):
            if batch.sampled != sampled:
                break
            if torch.equal(batch.prompts, prompts):
                self.current = batch
                return
        height, width = latents.shape[-2:]
        self.current = BatchHeat(prompts.detach().clone(), (height, width), sampled)
        self.batches.append(self.current)

    def add(self, layer: str, maps: Float[Tensor, "batch heads pixels tokens"]) -> None:
        """Take the maps of a layer in the current pass; a layer run by itself has no prompts."""
        if self.current is not None:
            self.current.add(layer, maps.detach())

    def heat_map(self, word: Word, size: Size = None) -> Float[Tensor, "images height width"]:
        """Return the maps of the images whose prompt has the word; see `Observation.heat_map`."""
        if not self.batches:
            raise ValueError("no heat was recorded: run the model inside observe(model, heat=True)")
        found, reasons = [], []
        for batch in self.batches:
            pixels = tuple(side * self.model.vae_factor for side in batch.grid)
            for row, text in enumerate(self.model.texts_of(batch.prompts)):
                if not text:
                    reasons += [UNKNOWN] * (text is None)
                    continue
                try:
                    positions = word_positions(self.model, text, word)
                except ValueError as error:
                    reasons.append(str(error))
                    continue
                found.append(batch.at(row, positions, size or pixels))
        if not found:
            why = "; ".join(dict.fromkeys(reasons)) or "the prompt is empty"
            raise ValueError(f"heat_map({word!r}): {why}")
        return torch.stack(found)


def token_heat(
    layer_maps: dict[str, Tensor], grid: Sequence[int], size: Size = None
) -> Float[Tensor, "batch tokens height width"]:
    """Return the mean over the layers' maps, each (batch, pixels, tokens), as images.

    `grid` is the latent's (height, width); every layer is enlarged to it (bicubic, cut at zero),
    and the result to `size` where given.
    """
    height, width = grid
    total = torch.zeros(())
    for maps in layer_maps.values():
        batch, pixels, tokens = maps.shape
        rows, columns = _layer_grid(pixels, height, width)
        maps = maps.float().transpose(1, 2).reshape(batch, tokens, rows, columns)
        total = total.to(maps.device) + _resize(maps, (height, width))
    mean = total / len(layer_maps)
    return mean if size is None else _resize(mean, (size, size) if isinstance(size, int) else size)


def _layer_grid(pixels: int, height: int, width: int) -> tuple[int, int]:
    rows, columns = height, width
    while rows * columns > pixels:
        rows, columns = -(-rows // 2), -(-columns // 2)  # a stride of two rounds up
    if rows * columns != pixels:
        raise ValueError(f"a layer of {pixels} pixels does not halve from {height} x {width}")
    return rows, columns


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode="bicubic", align_corners=False).clamp(min=0)
