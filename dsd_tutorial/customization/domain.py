"""What a small domain taught: prompts in the image tower, additions to keys and values.

W x becomes W x + D x with D = 0 at the start, for the key and value weights of cross-attention:
training D is training W (Ding et al., arXiv 2305.12716, train these weights; METHODS.md B.6), while
the model's own weights stay as they are, and leaving the block is all it takes to have the old
model back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.attention.layers import cross_attention_paths
from dsd_tutorial.customization import files
from dsd_tutorial.customization.deep_prompts import DeepPrompts
from dsd_tutorial.customization.tuning import Outcome, Tuning
from dsd_tutorial.projection import Inverse, load_inverse, save_inverse
from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.variation import states_to_edit, states_to_prompt

ALPHA = 0.7  # of the text's states in an editing prompt, unless told otherwise
INVERSE = "inverse.safetensors"
TARGETS = ("to_k", "to_v")


class KeyValues(nn.Module):
    """`added`: matrices (out, in), zero at the start, for keys and values of each cross-attention.

    Float32 whatever the U-Net's precision is.
    """

    def __init__(self, model: StableDiffusion):
        super().__init__()
        self.paths = {
            f"{path}.{target}".replace(".", "_"): f"{path}.{target}"
            for path in cross_attention_paths(model).values()
            for target in TARGETS
        }
        self.added = nn.ParameterDict()
        for name, path in self.paths.items():
            shape = model.unet.get_submodule(path).weight.shape
            self.added[name] = nn.Parameter(torch.zeros(shape, device=model.device))
        self._resting = False

    @contextmanager
    def active(self, model: StableDiffusion) -> Iterator[None]:
        """Yield; inside the block the U-Net works with the additions. Restored after errors too."""
        with ExitStack() as hooks:
            for name, path in self.paths.items():
                layer, adding = model.unet.get_submodule(path), self._adding(self.added[name])
                hooks.enter_context(layer.register_forward_hook(adding))
            yield

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Yield; inside the block, which is inside `active`, the U-Net is the old one."""
        self._resting = True
        try:
            yield
        finally:
            self._resting = False

    def _adding(self, added: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
            if self._resting:
                return out
            return out + F.linear(args[0], added.to(args[0].dtype)).to(out.dtype)

        return hook


@dataclass
class Domain(Outcome):
    """Deep visual prompts and key/value additions learned on some hundred images.

    The model itself is unchanged: `to_prompt` uses the prompts, and only inside `applied` does the
    U-Net use the additions. `settings` say what it was made with.
    """

    deep: DeepPrompts
    keys: KeyValues
    inverse: Inverse
    settings: dict[str, Any]
    tuning: Tuning = field(repr=False, default_factory=Tuning)
    module: nn.ModuleDict = field(init=False, repr=False)

    kind = "domain"

    def __post_init__(self) -> None:
        self.module = nn.ModuleDict({"deep": self.deep, "key_values": self.keys})

    @torch.no_grad()
    def to_prompt(
        self,
        model: StableDiffusion,
        images: Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        *,
        alpha: float = ALPHA,
        source_prompt: str | Sequence[str] | None = None,
    ) -> Float[Tensor, "images tokens states"]:
        """Return one prompt per image; with `text`, an editing prompt.

        `source_prompt` says what is to go, as `variation.edit_prompt` takes it. To be drawn with
        inside `applied(model)`. Raises ValueError for `source_prompt` without `text`.
        """
        if source_prompt and not text:
            raise ValueError(f"source_prompt={source_prompt!r} needs a text to replace it")
        h, copies = self.inverse(self.deep.encode(images)), self.inverse.copies
        if not text:
            return states_to_prompt(model, h, copies=copies)
        return states_to_edit(
            model, h, text, alpha=alpha, copies=copies, source_prompt=source_prompt
        )

    def applied(self, model: StableDiffusion) -> AbstractContextManager:
        """Return a context in which the U-Net of `model` works with what was learned."""
        return self.keys.active(model)

    def vary(
        self,
        model: StableDiffusion,
        images: Tensor | Sequence[Any],
        n: int = 4,
        text: str | Sequence[str] | None = None,
        *,
        alpha: float = ALPHA,
        source_prompt: str | Sequence[str] | None = None,
        **sampling: Any,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return `n` variations of each image, image by image, from the prompts of `to_prompt`.

        `sampling` as `model.sample` takes it: steps, guidance, seed, ...
        """
        prompts = self.to_prompt(model, images, text, alpha=alpha, source_prompt=source_prompt)
        with self.applied(model):
            return model.sample(embeddings=prompts, n=n, **sampling)

    def save(self, folder: str | Path) -> Path:
        """Return `folder` after writing custom.safetensors, custom.json, inverse.safetensors."""
        written = files.write(folder, self.deep.model, self)
        save_inverse(self.inverse, written / INVERSE)
        return written


def load_domain(model: StableDiffusion, folder: str | Path) -> Domain:
    """Return the `Domain` that `save` wrote, for `model`; it prompts and draws as it did.

    Raises:
        FileNotFoundError: a file is missing.
        CustomizationMismatch: it was learned on a model with other weights, or shapes disagree.
    """
    tensors, about = files.read(folder, (Domain.kind,), model)
    settings = about["settings"]
    deep, keys = DeepPrompts(model, settings["tokens"]), KeyValues(model)
    inverse = load_inverse(Path(folder) / INVERSE, model)
    domain = Domain(deep, keys, inverse, settings, files.recall(about["tuning"]))
    files.fill(domain.module, tensors, folder)
    return domain
