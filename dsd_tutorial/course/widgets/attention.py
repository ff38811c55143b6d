"""An explorer of attention: choose word, layer, head and time step, and see where the word looks.

    seen = record_attention(model, image, text, steps=[100, 500, 900])
    still(seen, "circle")        # every layer at every step as one picture: nothing needs a kernel
    explorer(seen)               # the same with menus, in a live notebook

All of it is recorded once, so that a menu answers at once and needs no U-Net. Exported pages and
runs without a browser have the still picture; the explorer only adds the choice of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.attention import observe
from dsd_tutorial.attention.heatmaps import Word, token_heat
from dsd_tutorial.attention.token_masks import word_positions
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
        self,
        word: Word,
        layer: str | None = None,
        head: int | None = None,
        step: int | None = None,
    ) -> Tensor:
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


def _one_of(what: str, value: Any, allowed: tuple) -> Any:
    if value not in allowed:
        known = ", ".join(map(str, allowed))
        raise ValueError(f"{what} {value!r} was not recorded; there are {known}")
    return value


@torch.no_grad()
def record_attention(
    model: Any,
    image: Tensor,
    text: str,
    words: Sequence[Word] | None = None,
    *,
    steps: int | Sequence[int] = 4,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Recording:
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

    latent, context = model.encode_image(image[None]), model.encode_text([text])
    with observe(model, layers, maps=True, keep="all", reduce_maps=of_words) as seen:
        for i, t in enumerate(grid):
            e = shared_noise(latent.shape[1:], seed, i).to(latent)
            model.predict_noise(model.add_noise(latent, e, t), t, context)
    maps = {name: found[:, 0] for name, found in seen.maps.items()}
    return Recording(image.cpu(), text, wanted, grid, maps, tuple(latent.shape[-2:]))


def still(seen: Recording, word: Word, *, mask: Tensor | None = None) -> None:
    """Show the maps of one word as a picture: a row for each time step, a column for each layer.

    The mean over heads; each map has a colour scale of its own. `mask` (H, W) outlines the object.
    """
    from dsd_tutorial.course.figures import figure, overlay_heat

    spots = {(t, name): _spot(seen.heat(word, name, None, t))
             for t in seen.steps for name in seen.layers}  # fmt: skip
    alt = (
        f"Heat maps of the word {word!r} in {seen.text!r}, time steps {list(seen.steps)} by layers "
        f"{', '.join(seen.layers)}. Hottest spots: "
        + "; ".join(f"{name} at step {t} {spot}" for (t, name), spot in spots.items())
    )
    rows, columns = len(seen.steps), len(seen.layers)
    size = (min(1.25 * columns + 0.4, 11.0), 1.3 * rows + 0.3)
    with figure(alt=alt, rows=rows, columns=columns, size=size, squeeze=False) as (_, axes):
        for line, t in zip(axes, seen.steps, strict=True):
            for axis, name in zip(line, seen.layers, strict=True):
                title = name if t == seen.steps[0] else ""
                overlay_heat(axis, seen.image, seen.heat(word, name, None, t), title, mask=mask)
            line[0].set_ylabel(f"step {t}", fontsize=9)


def explorer(seen: Recording, *, mask: Tensor | None = None) -> Any:
    """Return a widget with menus for word, layer, head and time step (an ipywidgets VBox).

    Its parts, in order: the four menus in a row, then the picture as HTML with alt text.
    Raises ModuleNotFoundError, naming the remedy, where ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the explorer needs ipywidgets: pip install 'dsd-tutorial[notebooks]'; "
            "still(seen, word) draws the same maps without it"
        ) from error
    menus = _menus(ipywidgets, seen)
    picture = ipywidgets.HTML()

    def redraw(*_: Any) -> None:
        picture.value = _picture(seen, *(menu.value for menu in menus), mask)

    def fit_heads(change: dict[str, Any]) -> None:  # layers may differ in their number of heads
        menus[2].options = _head_options(seen, change["new"])

    menus[1].observe(fit_heads, names="value")
    for menu in menus:
        menu.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(menus), picture])


def _menus(ipywidgets: Any, seen: Recording) -> list[Any]:
    choices = {
        "word": [(str(word), word) for word in seen.words],
        "layer": [("all layers", None), *((name, name) for name in seen.layers)],
        "head": _head_options(seen, None),
        "step": [("all steps", None), *((str(t), t) for t in seen.steps)],
    }
    layout = ipywidgets.Layout(width="11.5em")
    style = {"description_width": "3em"}
    return [
        ipywidgets.Dropdown(description=name, options=options, layout=layout, style=style)
        for name, options in choices.items()
    ]


def _head_options(seen: Recording, layer: str | None) -> list[tuple[str, int | None]]:
    return [("all heads", None), *((str(i), i) for i in range(seen.heads(layer)))]


def _picture(
    seen: Recording, word: Word, layer: str | None, head: int | None, step: int | None, mask: Any
) -> str:
    import matplotlib.pyplot as plt

    from dsd_tutorial.course.figures import draw_image, overlay_heat
    from dsd_tutorial.course.figures.style import STYLE, to_html

    heat = seen.heat(word, layer, head, step)
    where = f"{layer or 'all layers'}, " + ("all heads" if head is None else f"head {head}")
    where += ", all steps" if step is None else f", step {step}"
    with plt.rc_context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.8), layout="constrained")
        draw_image(left, seen.image, seen.text)
        left.title.set_wrap(True)
        overlay_heat(right, seen.image, heat, f"{word}: {where}", mask=mask)
        alt = f"Where {word!r} of {seen.text!r} looks, {where}: hottest {_spot(heat)}."
        try:
            return to_html(fig, alt)
        finally:
            plt.close(fig)


def _spot(heat: Tensor) -> str:
    """Return where the hottest cell lies, in words."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    height, width = heat.shape
    down = ("top", "middle", "bottom")[min(3 * row // height, 2)]
    across = ("left", "center", "right")[min(3 * column // width, 2)]
    return f"{down} {across}"
