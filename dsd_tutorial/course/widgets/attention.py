"""Attention to be explored: choose word, layer, head and time step, and see where the word looks.

    recorded = record_attention(model, image, text, steps=[100, 500, 900])
    recorded.still("circle")        # every layer at every step in one figure, without a kernel
    recorded.explore()              # the same with sliders, in a live notebook

All of it is recorded once, so that a slider answers at once and needs no U-Net. Exported pages and
runs without a browser have the still; the sliders only add the choice of a head.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.attention import observe
from dsd_tutorial.attention.heat import token_heat
from dsd_tutorial.attention.token_masks import Word, word_positions
from dsd_tutorial.course.figures import draw_image, figure, hottest, overlay_heat
from dsd_tutorial.course.widgets.browsing import browse
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


@dataclass(frozen=True)
class Recording:
    """Where each word of one caption looks in one image, by layer, time step and head.

    image (3, height, width); maps {layer: (steps, heads, pixels, words)} attention probabilities,
    the mean over a word's tokens; grid is the latent's (height, width).
    """

    image: Tensor
    text: str
    words: tuple[Word, ...]
    steps: tuple[int, ...]
    maps: dict[str, Tensor]
    grid: tuple[int, int]

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the names of the recorded layers, in forward order."""
        return tuple(self.maps)

    def heads(self, layer: str | None = None) -> int:
        """Return the number of heads of a layer; of all layers, the smallest."""
        return min(x.shape[1] for x in self._chosen(layer).values())

    def heat(
        self, word: Word, layer: str | None = None, head: int | None = None,
        step: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the heat map (h, w) of a word; None means the mean over layers, heads or steps.

        Raises ValueError, with what there is, for a word, layer, head or step not recorded.
        """
        column = self.words.index(_one_of("word", word, self.words))
        steps = self.steps if step is None else (_one_of("step", step, self.steps),)
        rows = [self.steps.index(s) for s in steps]
        if head is not None:
            _one_of("head", head, tuple(range(self.heads(layer))))
        parts = {}
        for name, maps in self._chosen(layer).items():
            kept = maps[rows].mean(0)  # (heads, pixels, words)
            kept = kept.mean(0) if head is None else kept[head]
            parts[name] = kept[None, :, column : column + 1]  # (1, pixels, 1)
        return token_heat(parts, self.grid)[0, 0]

    def _chosen(self, layer: str | None) -> dict[str, Tensor]:
        if layer is None:
            return self.maps
        return {layer: self.maps[_one_of("layer", layer, self.layers)]}

    def still(self, word: Word, *, mask: Tensor | None = None) -> None:
        """Show the maps of one word: a row for each time step, a column for each layer.

        The mean over heads; each map has a scale of its own. `mask` (H, W) outlines the object.
        """
        heats = {(t, x): self.heat(word, x, step=t) for t in self.steps for x in self.layers}
        spots = "; ".join(f"{x} at step {t} {hottest(heat)}" for (t, x), heat in heats.items())
        alt = f"Heat maps of the word {word!r} in {self.text!r} by time step and layer: {spots}."
        rows, columns = len(self.steps), len(self.layers)
        size = (min(1.25 * columns + 0.4, 11.0), 1.3 * rows + 0.3)
        with figure(alt=alt, rows=rows, columns=columns, size=size, squeeze=False) as (_, axes):
            for axis, ((t, name), heat) in zip(axes.flat, heats.items(), strict=True):
                overlay_heat(axis, self.image, heat, name if t == self.steps[0] else "", mask=mask)
            for line, t in zip(axes, self.steps, strict=True):
                line[0].set_ylabel(f"step {t}", fontsize=9)

    def explore(self, *, mask: Tensor | None = None) -> Any:
        """Return a widget with sliders for word, layer, head and time step; see `browse`."""

        def draw(axes: Any, word: Word, layer: Any, head: Any, step: Any) -> str:
            heat = self.heat(word, layer, head, step)
            where = f"{layer or 'all layers'}, " + ("all heads" if head is None else f"head {head}")
            where += ", all steps" if step is None else f", step {step}"
            draw_image(axes[0], self.image, textwrap.fill(self.text, 32))
            overlay_heat(axes[1], self.image, heat, f"{word}: {where}", mask=mask)
            return f"Where {word!r} of {self.text!r} looks, {where}: hottest {hottest(heat)}."

        return browse(
            draw, columns=2, size=(5.2, 2.8), word=[(str(word), word) for word in self.words],
            layer=_or_all("layers", self.layers), step=_or_all("steps", self.steps),
            head=lambda chosen: _or_all("heads", range(self.heads(chosen["layer"]))),
        )  # fmt: skip


def _or_all(what: str, entries: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"all {what}", None), *((str(entry), entry) for entry in entries)]


def _one_of(what: str, value: Any, allowed: tuple) -> Any:
    if value not in allowed:
        known = ", ".join(map(str, allowed))
        raise ValueError(f"{what} {value!r} was not recorded; there are {known}")
    return value


@torch.no_grad()
def record_attention(
    model: Any, image: Tensor, text: str, words: Sequence[Word] | None = None, *,
    steps: int | Sequence[int] = 4, layers: str | Sequence[str] | None = None, seed: int = 0,
) -> Recording:  # fmt: skip
    """Return the `Recording` of one image (3, height, width) under one caption.

    One U-Net pass per time step (as in `heat_maps`, whose noise it shares). `words` None is every
    word. Raises ValueError for words that the caption does not have.
    """
    wanted = tuple([w for w, _ in model.token_words(text)] if words is None else words)
    wanted = tuple(dict.fromkeys(wanted))
    places = [word_positions(model, text, word) for word in wanted]
    grid = time_grid(steps, model.scheduler.config.num_train_timesteps)

    def of_words(maps: Tensor) -> Tensor:  # (1, heads, pixels, tokens) -> (1, heads, pixels, words)
        return torch.stack([maps[..., at].mean(-1) for at in places], dim=-1).cpu()

    latent, prompts = model.encode_image(image[None]), model.encode_text([text])
    with observe(model, layers, maps=True, keep="all", reduce_maps=of_words) as seen:
        for i, t in enumerate(grid):
            e = shared_noise(latent.shape[1:], seed, i).to(latent)
            model.predict_noise(model.add_noise(latent, e, t), t, prompts)
    maps = {name: found[:, 0] for name, found in seen.maps.items()}
    return Recording(image.cpu(), text, wanted, grid, maps, tuple(latent.shape[-2:]))
