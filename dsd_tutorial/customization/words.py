"""Textual Inversion: the reference image becomes a new word, learned before the text encoder.

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

from dsd_tutorial.customization.references import (
    Prompt,
    State,
    Tuned,
    one_vector,
    show,
    single_loss,
)
from dsd_tutorial.customization.tuning import Plan, tune
from dsd_tutorial.stable_diffusion import StableDiffusion

PLACE = "*"
# the grammar of the embedded model's world; neutral for photographs as well
SENTENCES = ("a *", "there is a *", "a picture of a *")
PACE = 0.1  # learning rate, in units of the root mean square of the encoder's own embeddings


@contextmanager
def reading(model: StableDiffusion, vector: State) -> Iterator[None]:
    """Yield; inside the block the text encoder reads `vector` at "*". Always restored.

    Raises ValueError where the tokenizer has no token for "*".
    """
    (place, *rest) = model.tokenizer(PLACE)["input_ids"][1:-1]
    if rest:
        raise ValueError(f"{model.name} spells {PLACE!r} with several tokens; one is needed")

    def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        here = (args[0] == place).view(*out.shape[:-1], 1)
        return torch.where(here, vector.to(out), out)

    with model.text_encoder.get_input_embeddings().register_forward_hook(hook):
        yield


class LearnedWord(Tuned):
    """A word for the reference. It stands where a text says "*", or "object"."""

    kind = "word"

    @property
    def vector(self) -> State:
        """Return the learned token embedding."""
        return self.module.get_parameter("word.vector").detach()

    @torch.no_grad()
    def prompt(self, model: StableDiffusion, text: str | None = None, **mixture: Any) -> Prompt:
        """Return the prompt of a text with the word in it; None: of the first neutral sentence.

        No states are mixed: `mixture` changes nothing.
        """
        with reading(model, self.vector):
            return model.encode_text(with_place(SENTENCES[0] if text is None else text))


def textual_inversion(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    *,
    word: str | None = None,
    steps: int = 30,
    lr: float | None = None,
    seed: int = 0,
    **plan: Any,
) -> LearnedWord:
    """Return the `LearnedWord` of one reference image, or of a few of one thing.

    `word` is what to start from, such as "circle" (of several tokens their mean, *ours*); None: a
    random vector as large as the encoder's embeddings are. `lr` None is a tenth of the root mean
    square of those embeddings. The rest as in `customize`, which with the same seed sees the same
    noises. Raises ValueError for a word without tokens, or settings out of range.
    """
    table = model.text_encoder.get_input_embeddings().weight.detach().float()
    size = float(table.square().mean().sqrt())
    module = one_vector("word", "vector", start_vector(model, word, table, seed))
    rates = {"word": PACE * size if lr is None else lr}
    planned = Plan(steps, rates, f"learning a word from {word or 'random'}", seed=seed, **plan)
    settings = {
        "word": word, "steps": steps, "lr": rates["word"], "batch_size": planned.batch_size,
        "seed": seed,
    }  # fmt: skip
    learned = LearnedWord(module, settings)

    def prompt(step: int) -> Prompt:
        return model.encode_text(SENTENCES[step % len(SENTENCES)])

    learned.tuning = tune(
        model, module, planned, *single_loss(planned.denoising(model, images), prompt),
        image=lambda: show(model, learned.prompt(model), seed),
        active=lambda: reading(model, module.get_parameter("word.vector")),
    )  # fmt: skip
    return learned


def with_place(text: str) -> str:
    """Return `text` with "*" where the word goes: as it is, or in place of "object".

    Raises ValueError where it says neither.
    """
    if PLACE not in text and "object" in text:
        text = text.replace("object", PLACE)
    if PLACE not in text:
        raise ValueError(f"where does the word go in {text!r}? Write {PLACE} there: 'a blue *'")
    return text


def start_vector(model: StableDiffusion, word: str | None, table: Tensor, seed: int) -> State:
    """Return the embedding to begin with, where `table` are the encoder's (words, states)."""
    if word is None:
        numbers = torch.Generator().manual_seed(seed)
        size = float(table.square().mean().sqrt())
        return (size * torch.randn(table.shape[1], generator=numbers)).to(table)
    ids = model.tokenizer(word)["input_ids"][1:-1]
    if not ids:
        raise ValueError(f"word={word!r} has no tokens: give one such as 'circle', or None")
    return table[torch.tensor(ids, device=table.device)].mean(0)
