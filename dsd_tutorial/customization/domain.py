"""What a small domain taught, and how it is used: image prompts from a tower that has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsd_tutorial.customization import files
from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.key_values import KeyValues
from dsd_tutorial.customization.outcome import Outcome
from dsd_tutorial.customization.sequences import ALPHA
from dsd_tutorial.customization.tuning import Tuning
from dsd_tutorial.projection import Inverse, load_inverse, save_inverse
from dsd_tutorial.variation import states_to_edit, states_to_prompt

INVERSE = "inverse.safetensors"


@dataclass
class Domain(Outcome):
    """Deep visual prompts and key/value additions learned on some hundred pictures.

    The model itself is unchanged: `to_prompt` uses the prompts, and only inside `applied` does the
    U-Net use the additions. `settings` say what it was made with.
    """

    deep: DeepPrompts
    keys: KeyValues
    inverse: Inverse
    settings: dict[str, Any]
    tuning: Tuning = field(repr=False, default_factory=Tuning)

    kind = "domain"

    @torch.no_grad()
    def to_prompt(
        self,
        model: Any,
        images: Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        *,
        alpha: float = ALPHA,
        gone: str | Sequence[str] | None = None,
    ) -> Tensor:
        """Return one prompt per picture, (images, L, d); with `text`, an editing prompt.

        `gone` says what is to go, as `variation.edit_prompt` takes it. To be drawn with inside
        `applied(model)`. Raises ValueError for `gone` without `text`.
        """
        if gone and not text:
            raise ValueError(f"gone={gone!r} makes way for a text: give text as well")
        states, copies = self.inverse(self.deep.encode(images)), self.inverse.copies
        if not text:
            return states_to_prompt(model, states, copies=copies)
        return states_to_edit(model, states, text, alpha=alpha, copies=copies, source_prompt=gone)

    def applied(self, model: Any) -> AbstractContextManager:
        """Return a context in which the U-Net of `model` works with what was learned."""
        return self.keys.active(model)

    def vary(
        self,
        model: Any,
        images: Tensor | Sequence[Any],
        n: int = 4,
        text: str | Sequence[str] | None = None,
        *,
        alpha: float = ALPHA,
        gone: str | Sequence[str] | None = None,
        **sampling: Any,
    ) -> Tensor:
        """Return `n` variations of each picture, (images x n, 3, height, width).

        Picture by picture, from the prompts of `to_prompt`; `sampling` as `model.sample` takes
        it: steps, guidance, seed, ...
        """
        with self.applied(model):
            prompts = self.to_prompt(model, images, text, alpha=alpha, gone=gone)
            return model.sample(embeddings=prompts, n=n, **sampling)

    @property
    def module(self) -> nn.ModuleDict:
        """Return what is learned, by name."""
        return nn.ModuleDict({"deep": self.deep, "key_values": self.keys})

    def save(self, folder: str | Path) -> Path:
        """Return `folder` after writing custom.safetensors, custom.json, inverse.safetensors."""
        about = {"settings": self.settings, "tuning": files.record(self.tuning)}
        written = files.write(folder, self.kind, self.module.state_dict(), about, self.deep.model)
        save_inverse(self.inverse, written / INVERSE)
        return written


def load_domain(model: Any, folder: str | Path) -> Domain:
    """Return the `Domain` that `save` wrote, for `model`; it prompts and draws as it did.

    Raises:
        FileNotFoundError: a file is missing.
        CustomizationMismatch: it was learned on a model with other weights, or shapes disagree.
    """
    tensors, about = files.read(folder, (Domain.kind,), model)
    inverse = load_inverse(Path(folder) / INVERSE, model)
    domain = Domain(
        DeepPrompts(model, about["settings"]["tokens"]),
        KeyValues(model, about["settings"]["targets"]), inverse, about["settings"],
        files.recall(about["tuning"]),
    )  # fmt: skip
    module = domain.module
    files.check_shapes(tensors, {k: v.shape for k, v in module.state_dict().items()}, folder)
    module.load_state_dict(tensors)
    return domain
