"""Textual Inversion: the reference becomes a new word, learned in front of the text encoder.

Gal et al., arXiv 2208.01618: a token embedding is the only thing learned; it stands for "*" in
neutral sentences, and the noise-prediction loss on the reference moves it. It is what tuning a
converted prompt is compared with: no closed form, and text around the word from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dsd_tutorial.customization.denoising import Denoising, training_pass
from dsd_tutorial.customization.references import show, single_loss
from dsd_tutorial.customization.sequences import ALPHA
from dsd_tutorial.customization.tuned import Tuned
from dsd_tutorial.customization.tuning import Plan, Preview, tune

PLACE = "*"
# the grammar of the embedded model's world; neutral for photographs as well
SENTENCES = ("a *", "there is a *", "a picture of a *")
PACE = 0.1  # learning rate, in units of the root mean square of the encoder's own embeddings


class Word(nn.Module):
    """vector (d_token,): what the text encoder reads in place of "*"."""

    def __init__(self, vector: Tensor):
        super().__init__()
        self.vector = nn.Parameter(vector.detach().clone().float())

    @contextmanager
    def known(self, model: Any) -> Iterator[None]:
        """Yield; inside the block the text encoder reads the word at "*". Always restored."""
        place = place_id(model)

        def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
            here = (args[0] == place).view(*out.shape[:-1], 1)
            return torch.where(here, self.vector.to(out), out)

        handle = model.text_encoder.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


class LearnedWord(Tuned):
    """A word for the reference. Wherever a text says "*", or "object", it speaks of it."""

    kind = "word"

    @property
    def vector(self) -> Tensor:
        """Return the learned token embedding, (d_token,)."""
        return self.module["word"].vector.detach()

    @torch.no_grad()
    def prompt(self, model: Any, text: str | None = None) -> Tensor:
        with self.module["word"].known(model):
            return model.encode_text(with_place(SENTENCES[0] if text is None else text))

    def edit_prompt(
        self, model: Any, text: str, alpha: float = ALPHA, *, gone: str | None = None
    ) -> Tensor:
        """Return the prompt of `text` with the word in it: no states are mixed.

        `alpha` and `gone` are there for the sake of the others and change nothing.
        """
        return self.prompt(model, text)


def textual_inversion(
    model: Any,
    images: Tensor | Sequence[Any],
    *,
    word: str | None = None,
    steps: int = 30,
    lr: float | None = None,
    batch_size: int = 8,
    time_steps: tuple[int, int] | None = None,
    seed: int = 0,
    at: Sequence[int] = (),
    check_every: int | None = None,
    preview: Preview | None = None,
    preview_every: int = 10,
    dtype: torch.dtype | str | None = None,
    gradient_checkpointing: bool = False,
    progress: bool = True,
) -> LearnedWord:
    """Return the `LearnedWord` of one reference picture, or of a few of one thing.

    word    to start from, such as "circle" (of several tokens their mean, *ours*); None: a random
            vector as large as the encoder's embeddings are
    lr      None: a tenth of the root mean square of those embeddings

    The rest as in `customize`, which with the same seed sees the same noises.
    Raises ValueError for a word without tokens, or settings out of range.
    """
    table = model.text_encoder.get_input_embeddings().weight.detach().float()
    size = float(table.square().mean().sqrt())
    learned = Word(start_vector(model, word, table, size, seed))
    settings = {
        "word": word, "steps": steps, "lr": PACE * size if lr is None else lr,
        "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    custom = LearnedWord(nn.ModuleDict({"word": learned}), settings)
    with torch.no_grad():
        latents = model.encode_image(images)
    denoising = Denoising(
        model, latents, batch_size=batch_size, time_steps=time_steps, seed=seed, dtype=dtype
    )
    plan = Plan(
        steps, {"word": settings["lr"]}, every=check_every, at=tuple(at),
        preview_every=preview_every, progress=progress,
        name=f"learning a word from {word or 'random'}",
    )  # fmt: skip

    def context(step: int) -> Tensor:
        return model.encode_text(SENTENCES[step % len(SENTENCES)])

    with training_pass(model, gradient_checkpointing):
        custom.tuning = tune(
            model, custom.module, plan, *single_loss(denoising, context),
            active=lambda: learned.known(model),
            picture=lambda: show(model, custom.prompt(model), seed), preview=preview,
        )  # fmt: skip
    return custom


def place_id(model: Any) -> int:
    """Return the token id of "*". Raises ValueError where the tokenizer has no such token."""
    ids = model.tokenizer(PLACE)["input_ids"][1:-1]
    if len(ids) != 1:
        raise ValueError(f"{model.name} spells {PLACE!r} with {len(ids)} tokens; one is needed")
    return ids[0]


def with_place(text: str) -> str:
    """Return `text` with "*" where the word goes: as it is, or in place of "object".

    Raises ValueError where it says neither.
    """
    if PLACE not in text and "object" in text:
        text = text.replace("object", PLACE)
    if PLACE not in text:
        raise ValueError(f"where does the word go in {text!r}? Write {PLACE} there: 'a blue *'")
    return text


def start_vector(model: Any, word: str | None, table: Tensor, size: float, seed: int) -> Tensor:
    """Return the embedding (d_token,) to begin with."""
    if word is None:
        numbers = torch.Generator().manual_seed(seed)
        return (size * torch.randn(table.shape[1], generator=numbers)).to(table)
    ids = model.tokenizer(word)["input_ids"][1:-1]
    if not ids:
        raise ValueError(f"word={word!r} has no tokens: give one such as 'circle', or None")
    return table[torch.tensor(ids, device=table.device)].mean(0)
