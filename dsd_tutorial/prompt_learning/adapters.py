"""What every learned thing has in common: a set of numbers that can be made active on a model.

    with adapter.active(model):
        score(model, images, texts)          # and components, heat maps, model.sample: all adapted

Inside the block the model's own weights are what they were; hooks and processors do the rest, and
are taken off when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.attention.token_masks import TOKEN_MASKS
from dsd_tutorial.matching import Components
from dsd_tutorial.stable_diffusion.checksums import state_sha256
from dsd_tutorial.stable_diffusion.noising import time_grid


@dataclass(frozen=True)
class Scoring:
    """The settings of a score that nothing is learned about.

    score = attention_weight * attention + error_weight * error, where
    error = ||e - eps(z_t, empty)|| - ||e - eps(z_t, text)||

    Attributes:
        time_steps: n for the middles of n equal cells, or a list of time steps.
        noises: Noises per time step.
        layers: As in `attention.observe`: names, None for all, "last" for the released code's.
        token_mask: "all", "words", "no_start", "no_padding" or "eos".
        lam: Lambda of the log-sum-exp over tokens.
        attention_weight: Of the attention score.
        error_weight: Of the error term.
        seed: Draws the noises.
    """

    time_steps: int | Sequence[int] = 4
    noises: int = 1
    layers: str | Sequence[str] | None = None
    token_mask: str = "all"
    lam: float = 1.0
    attention_weight: float = 1.0
    error_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("time_steps", "layers"):  # lists become tuples: a Scoring is a fixed thing
            value = getattr(self, name)
            if not isinstance(value, (int, str, type(None))):
                object.__setattr__(self, name, tuple(value))
        if self.token_mask not in TOKEN_MASKS:
            known = ", ".join(TOKEN_MASKS)
            raise ValueError(f"unknown token_mask {self.token_mask!r}; choose one of {known}")
        if self.attention_weight == 0 == self.error_weight:
            raise ValueError("attention_weight and error_weight are both 0: nothing is scored")

    def grid(self, model: Any) -> tuple[int, ...]:
        """Return the time steps as a list of numbers."""
        return time_grid(self.time_steps, model.scheduler.config.num_train_timesteps)

    def changed(self, **changes: Any) -> Scoring:
        """Return a copy with other values. Raises ValueError for a setting that is none of its."""
        strange = sorted(set(changes) - set(asdict(self)))
        if strange:
            known = ", ".join(asdict(self))
            raise ValueError(f"unknown setting {', '.join(strange)}; a scoring has {known}")
        return replace(self, **changes)


class Adapter(nn.Module):
    """What is learned from a few examples; this base class learns nothing: zero-shot DSD.

    Attributes:
        kind: Its name.
        lr: A learning rate that suits it.
        changes_text: Whether the prompt embeddings depend on it.
        cached: Whether it is fitted on cached components, without a U-Net pass per step.
        reads_error: Whether it needs the error term, whatever the scoring says.
        steps: How many steps `fit` takes.
        checks: How often `fit` looks at the validation items.
    """

    kind = "zero-shot"
    lr = 1e-2
    changes_text = False
    cached = False
    reads_error = False
    steps = 100
    checks = 5

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that build it anew, as plain values."""
        return {}

    @contextmanager
    def active(self, model: Any) -> Iterator[None]:
        """Yield; inside the block `model` works with the adapter. Restored after errors too."""
        yield

    def pool(self, parts: Components, scoring: Scoring) -> Float[Tensor, " pairs"]:
        """Return one score per pair, from components computed while the adapter was active.

        Here: the mean over heads, layers and steps, plus the error term by the weights of
        `scoring`, which is the zero-shot score of `matching`.

        Raises:
            ValueError: components without what the scoring reads.
        """
        return parts.select(scoring.token_mask).score(
            attention_weight=scoring.attention_weight, error_weight=scoring.error_weight
        )

    def needs_error(self, scoring: Scoring) -> bool:
        """Return whether the error term must be computed (one more pass per image)."""
        return scoring.error_weight != 0 or self.reads_error

    def learned(self) -> list[nn.Parameter]:
        """Return the parameters that fitting changes."""
        return [p for p in self.parameters() if p.requires_grad]

    def optimiser(self, lr: float) -> torch.optim.Optimizer:
        """Return what fits it: AdamW, as the released code does."""
        return torch.optim.AdamW(self.learned(), lr=lr, weight_decay=0.01)

    def project(self) -> None:
        """Bring the parameters back to where they may be, after a step of the optimiser."""

    @property
    def size(self) -> int:
        """How many numbers were learned, those of an adapter it stands on included."""
        return sum(p.numel() for p in self.parameters())


def plain_layers(layers: Any) -> Any:
    """Return a choice of layers as JSON has it: a list in place of any other sequence."""
    return layers if isinstance(layers, str | None) else list(layers)


@contextmanager
def unchanged(model: Any, parts: Sequence[str] = ("unet", "text_encoder")) -> Iterator[None]:
    """Yield, and check at the end that the weights of these parts are what they were.

    Raises:
        RuntimeError: the digest of a part's tensors is another, or a tensor came or went.
    """
    there = [name for name in parts if getattr(model, name) is not None]
    before = {name: state_sha256(getattr(model, name).state_dict()) for name in there}
    yield
    for name, digest in before.items():
        if state_sha256(getattr(model, name).state_dict()) != digest:
            raise RuntimeError(
                f"the weights of {name} changed while an adapter was fitted: only the adapter's "
                "own parameters may learn; load the model again"
            )
