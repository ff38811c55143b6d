"""Grounding by maps of the whole scene: where a phrase's words look, and where it helps.

The map of a thing is that of its words together: of "red" and of "circle", multiplied, so that it
is warm only where both look. A text encoder of CLIP's kind reads from left to right: in "the circle
left of the star" the state of "circle" was made before "star" was read, and its map cannot know
which circle is meant. Said from the other end, "a star right of a circle", it can.

The other map is of the prediction error: where in the scene does the phrase predict noise better
than the empty prompt does? It is the integrand of an information map (notebook 05, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention import heat_maps, read_sentence
from dsd_tutorial.attention.token_masks import Word
from dsd_tutorial.grounding.boxes import Boxes, area, box_masks, check_boxes
from dsd_tutorial.shapes.scene import check_known
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

JOIN = {
    "noun": "the map of the noun alone",
    "mean": "the mean over noun and adjectives",
    "product": "their geometric mean: warm where all of them are",
}
FINE = 64  # pixels a side at which heat is read


def thing_words(model: Any, text: str, thing: int = 0) -> list[Word]:
    """Return the words of a thing that `text` names, its noun first.

    Args:
        model: A `StableDiffusion`, whose tokenizer splits the text.
        text: A phrase.
        thing: Which of the things, in the order of the text; -1 is the last.

    Raises:
        ValueError: The text names no such thing.
    """
    words = [word for word, _ in model.token_words(text)]
    things = read_sentence(words).things
    if not -len(things) <= thing < len(things):
        named = ", ".join(words[t.noun] for t in things) or "none"
        raise ValueError(f"thing {thing} of {text!r}: the things it names are {named}")
    chosen = things[thing]
    places = [chosen.noun, *chosen.adjectives]
    lower = [word.lower() for word in words]
    return [(lower[i], lower[:i].count(lower[i])) for i in places]


def phrase_heat(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    thing: int = 0,
    join: str = "product",
    steps: int | Sequence[int] = 8,
    layers: str | Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> Float[Tensor, "images h w"]:
    """Return where a thing of each text looks in its image; every map sums to 1.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: A phrase for each image.
        thing: Which of the things that it names; -1 is the last.
        join: How the maps of noun and adjectives become one, a key of `JOIN`.
        steps: As in `time_grid`.
        layers: As in `choose_layers`.
        seed: Of the noises, which all images share.
        batch_size: Images per U-Net pass.

    Raises:
        ValueError: An unknown `join`, or a text that names no such thing.
    """
    check_known("join", join, JOIN)
    words = [thing_words(model, text, thing) for text in texts]
    found: Any = heat_maps(
        model, images, list(texts), words, steps=steps, layers=layers, seed=seed,
        batch_size=batch_size, progress=False,
    )  # fmt: skip
    return torch.stack(
        [joined([heat[w] for w in own], join) for heat, own in zip(found, words, strict=True)]
    )


def joined(maps: Sequence[Float[Tensor, "h w"]], join: str) -> Float[Tensor, "h w"]:
    """Return the maps of a thing's words, the noun's first, as one that sums to 1."""
    each = torch.stack([m / m.sum().clamp_min(1e-12) for m in maps])  # (words, h, w)
    if join == "noun":
        return each[0]
    if join == "mean":
        return each.mean(0)
    together = each.clamp_min(1e-12).log().mean(0).exp()
    return together / together.sum()


@torch.no_grad()
def gain_map(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    *,
    steps: int | Sequence[int] = 8,
    seed: int = 0,
    batch_size: int = 32,
) -> Float[Tensor, "images h w"]:
    """Return by how much each text lowers the squared error of its image's noise, by latent pixel.

    The error under the empty prompt minus that under the text, summed over channels and averaged
    over time steps; negative where the text misleads. Two passes for each image and time step;
    what is given is as in `phrase_heat`.

    Raises:
        ValueError: Images and texts differ in number.
    """
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images, {len(texts)} texts: give one each")
    grid, found = time_grid(steps, model.scheduler.config.num_train_timesteps), []
    for i in range(0, len(texts), batch_size):
        latents = model.encode_image(images[i : i + batch_size])
        prompts = model.encode_text([*texts[i : i + batch_size], *[""] * len(latents)])
        total = latents.new_zeros(len(latents), *latents.shape[-2:])
        for s, t in enumerate(grid):
            e = shared_noise(latents.shape[1:], seed, s).to(latents)
            noisy = model.add_noise(latents, e.expand_as(latents), t)
            eps = model.predict_noise(noisy.repeat(2, 1, 1, 1), t, prompts)
            far = (e - eps).square().sum(1)  # (texts, then empty prompts; h, w)
            total += far[len(latents) :] - far[: len(latents)]
        found.append(total / len(grid))
    return torch.cat(found)


def box_heat(
    heat: Float[Tensor, "h w"], boxes: Boxes, power: float = 0.5
) -> Float[Tensor, " boxes"]:
    """Return the heat in each box, divided by the box's area to the `power`.

    0 is the mass in the box, which the largest box wins; 1 is the mean density, which a small box
    in the middle of a thing wins; a number between the two rewards a box that fits (*ours*).
    """
    fine = F.interpolate(heat[None, None].float(), (FINE, FINE), mode="bilinear")[0, 0]
    inside = box_masks(check_boxes(boxes), FINE, FINE).to(fine)  # (boxes, fine, fine)
    mass = (inside * fine).sum((1, 2)) / fine.abs().sum().clamp_min(1e-12)
    return mass / area(boxes).to(mass) ** power
