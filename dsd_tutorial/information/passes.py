"""The information of texts about images, from a model's passes with and without each text.

    found = information(model, images, ["a red circle"])                # caption against no caption
    found = information(model, images, ["a red circle"], given="a circle")    # what "red" adds
    found.map()          # nats at each latent pixel, (pairs, height, width)

All texts of an image are read under the same noise at the same level, and what several pairs need
(the empty prompt, the layers before the first text is read) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.attention import shared_rows
from dsd_tutorial.information.estimates import Information, Integrands, integrands
from dsd_tutorial.information.levels import Levels, level_grid, trapezoid
from dsd_tutorial.matching.batches import Batches, BatchSize
from dsd_tutorial.stable_diffusion import shared_noise

Denoiser = Callable[[Tensor, float], Tensor]  # (z, a) -> the predicted noise


@torch.no_grad()
def information(
    model: Any,
    images: Float[Tensor, "images 3 height width"],
    texts: Sequence[str],
    given: str | Sequence[str] = "",
    *,
    pairs: Int[Tensor, "pairs 2"] | Sequence[tuple[int, int]] | None = None,
    levels: Levels | int | Sequence[int] = 12,
    noises: int = 1,
    seed: int | Sequence[int] = 0,
    batch_size: BatchSize = "auto",
    progress: bool = True,
) -> Information:
    """Return what each text says about its image beyond what is given.

    The cost is (distinct texts and givens of an image) x levels x noises U-Net passes, summed over
    images. Noises are those of `matching.score` for the same seed and place in the list of steps:
    one seed lets images be compared, one for each keeps the error of a mean over images small.

    Args:
        model: A `StableDiffusion`.
        images: In [0, 1].
        texts: Captions.
        given: What stands in the place of the text on the other side, for all or for each text: ""
            for nothing, the caption without a word for what that word adds.
        pairs: Image and text index; None pairs image i with text i.
        levels: `Levels` with time steps, or as in `level_grid`.
        noises: Per level, averaged.
        seed: Of the noises, one for all images or one for each.
        batch_size: Rows per U-Net pass, or "auto".
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: texts, givens or pairs that do not fit, or levels without time steps.
    """
    grid = levels if isinstance(levels, Levels) else level_grid(model, levels)
    if grid.steps is None:
        raise ValueError(
            f"{grid} has no time steps: a model knows its own levels only; pass "
            "level_grid(model, n), or logistic_levels(n, model=model)"
        )
    seeds = [seed] * len(images) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds for {len(images)} images: give one, or one each")
    run = _Run(model, grid, noises, seeds, Batches(model, batch_size))
    pairs = _pairs(pairs, len(images), len(texts))
    givens = [given] * len(texts) if isinstance(given, str) else list(given)
    if len(givens) != len(texts):
        raise ValueError(f"{len(givens)} givens for {len(texts)} texts: give one, or one each")
    distinct = list(dict.fromkeys((*texts, *givens)))
    place = {text: i for i, text in enumerate(distinct)}
    sides = torch.tensor([[place[g], place[t]] for g, t in zip(givens, texts, strict=True)])
    starts = range(0, len(distinct), 64)
    prompts = torch.cat([model.encode_text(distinct[i : i + 64]) for i in starts])
    order = pairs[:, 0].argsort(stable=True)
    wanted = torch.cat([pairs[order, :1], sides[pairs[order, 1]]], 1)  # image, without, under
    found: list[Integrands] = []
    total = _rows(wanted) * run.places
    with tqdm(total=total, desc="U-Net passes", disable=not progress, leave=False) as bar:
        for part in _groups(wanted, max(1, run.batches.size // run.places)):
            found.append(run.part(images, prompts, part, bar))
    back = order.argsort()
    standard, orthogonal, errors = (torch.cat(x)[back] for x in zip(*found, strict=True))
    return Information(standard, orthogonal, errors, grid)


class _Run:
    """The passes of some images under all levels and noises."""

    def __init__(self, model: Any, levels: Levels, noises: int, seeds: list[int], batches: Batches):
        if noises < 1:
            raise ValueError(f"noises must be at least 1, not {noises}")
        self.model, self.levels, self.noises, self.batches = model, levels, noises, batches
        self.seeds, self.places = seeds, len(levels) * noises
        self.steps = torch.tensor(levels.steps).repeat_interleave(noises)  # (places,)

    def part(
        self, images: Tensor, prompts: Tensor, wanted: Int[Tensor, "pairs 3"], bar: Any
    ) -> Integrands:
        """Return the integrands of these pairs, (pairs, levels, ...), the mean over the noises."""
        shown, image = wanted[:, 0].unique(return_inverse=True)
        latents = self.model.encode_image(images[shown])
        seeds = [self.seeds[i] for i in shown.tolist()]
        noise_of = {seed: self._noise(seed, latents) for seed in dict.fromkeys(seeds)}
        noise = torch.stack([noise_of[seed] for seed in seeds])  # (images, places, ...)
        sides = torch.stack([image.repeat(2), wanted[:, 1:].T.flatten()], 1)
        rows, where = sides.unique(dim=0, return_inverse=True)  # (rows, 2) image and text
        of, at = (x.flatten() for x in torch.meshgrid(
            torch.arange(len(rows)), torch.arange(self.places), indexing="ij"
        ))  # fmt: skip

        def predict(part: slice) -> Tensor:
            t, place = self.steps[at[part]], at[part].to(latents.device)
            which, text = rows[of[part]].to(latents.device).T
            noisy = self.model.add_noise(latents[which], noise[which, place], t)
            bar.update(len(t))
            fields = rows[of[part], 0] * self.places + at[part]
            with shared_rows(self.model.unet, fields, rows[of[part], 1]):
                return self.model.predict_noise(noisy, t, prompts[text])

        eps = torch.cat([x for _, x in self.batches.run(len(of), predict)])
        without, under = where.view(2, -1)
        eps = eps.unflatten(0, (len(rows), self.places))
        found = [
            integrands(noise[i], eps[a], eps[b])
            for i, a, b in zip(image.tolist(), without.tolist(), under.tolist(), strict=True)
        ]
        return Integrands(*(self._means(torch.stack(x)) for x in zip(*found, strict=True)))

    def _noise(self, seed: int, latents: Tensor) -> Float[Tensor, "places channels height width"]:
        places = [(i, j) for i in range(len(self.levels)) for j in range(self.noises)]
        return torch.cat([shared_noise(latents.shape[1:], seed, *x) for x in places]).to(latents)

    def _means(self, found: Tensor) -> Tensor:
        """Return the means over the noises, on the CPU."""
        return found.unflatten(1, (len(self.levels), self.noises)).mean(2).float().cpu()


def decompose(
    without: Denoiser,
    under: Denoiser,
    x: Float[Tensor, "rows channels ..."],
    levels: Levels | Float[Tensor, " levels"],
    *,
    noises: int = 1,
    seed: int = 0,
) -> Information:
    """Return the information of any two denoisers at any levels, each x under its own noises.

    Args:
        without: (z, a) -> the predicted noise, z of the shape of `x`, without the text.
        under: The same under the text.
        x: Noise-free data.
        levels: `Levels`, or the log-SNR of a grid, which gets trapezoid weights.
        noises: Per level, averaged.
        seed: Of the noises.
    """
    if isinstance(levels, Tensor):
        levels = Levels(levels.double(), trapezoid(levels))
    numbers = torch.Generator(x.device).manual_seed(seed)
    found = []
    for a in levels.log_snr.tolist():
        signal, spread = (float(torch.tensor(s * a).sigmoid().sqrt()) for s in (1.0, -1.0))
        each = []
        for _ in range(noises):
            e = torch.randn(x.shape, generator=numbers, dtype=x.dtype, device=x.device)
            z = signal * x + spread * e
            each.append(integrands(e, without(z, a), under(z, a)))
        found.append(Integrands(*(torch.stack(y).mean(0) for y in zip(*each, strict=True))))
    standard, orthogonal, errors = (torch.stack(y, 1) for y in zip(*found, strict=True))
    return Information(standard, orthogonal, errors, levels)


def _pairs(pairs: Any, images: int, texts: int) -> Int[Tensor, "pairs 2"]:
    if pairs is None:
        if images != texts:
            raise ValueError(
                f"{images} images and {texts} texts: give one text for each image, or say which "
                "belong together by pairs=[(image, text), ...]"
            )
        return torch.arange(images)[:, None].expand(-1, 2)
    pairs = torch.as_tensor(pairs).cpu().long()
    limit = torch.tensor([images, texts])
    if pairs.ndim != 2 or pairs.shape[1] != 2 or bool(((pairs < 0) | (pairs >= limit)).any()):
        raise ValueError(f"pairs must be (pairs, 2): image below {images}, text below {texts}")
    return pairs


def _rows(wanted: Int[Tensor, "pairs 3"]) -> int:
    """Return how many distinct (image, text) are predicted."""
    return len(torch.cat([wanted[:, :2], wanted[:, ::2]]).unique(dim=0))


def _groups(wanted: Int[Tensor, "pairs 3"], most: int) -> Iterator[Int[Tensor, "some 3"]]:
    """Yield the pairs of one image after another, as many images as `most` rows hold."""
    part: list[Tensor] = []
    for image in wanted[:, 0].unique():
        own = wanted[wanted[:, 0] == image]
        if part and _rows(torch.cat([*part, own])) > most:
            yield torch.cat(part)
            part = []
        part.append(own)
    if part:
        yield torch.cat(part)
