"""Deep visual prompts: learned vectors that CLIP's image tower finds among its patches.

Before every layer `tokens` learned vectors are put between class token and patches, and behind it
they are taken out again, so each layer sees its own:

    [class, patches]  ->  [class, prompts of this layer, patches]  ->  layer  ->  [class, patches]

They are inserted and overwrite nothing: every patch goes through every layer (Ding et al.,
arXiv 2305.12716; METHODS.md B.6). The tower's own forward runs, with two hooks on each layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dsd_tutorial.stable_diffusion import ClipImage

GREYS = 5  # even pictures from black to white, where no others are given


class DeepPrompts(nn.Module):
    """`prompts` (layers, tokens, d_vision), float32, for the image tower of `model`.

    They begin as what patches are anyway: the mean state, before each layer, of `tokens` patches
    spread over the picture, over `images` (None: even pictures from black to white). A tower knows
    such tokens and hears little new in them (*ours*); zeros or small random numbers are no smaller
    to it, since each layer begins with a norm. With `tokens=0` it is the stock tower.

    Raises ValueError for a negative number of tokens or more than there are patches, and for a
    model without CLIP.
    """

    def __init__(self, model: Any, tokens: int = 4, *, images: Tensor | None = None):
        super().__init__()
        self.model, self.tokens = model, tokens  # not a module: nothing of it is registered here
        patches = self._tower.embeddings.num_patches
        if not 0 <= tokens <= patches:
            raise ValueError(f"tokens={tokens}: need 0 (none) to {patches}, one for each patch")
        self.prompts = nn.Parameter(self._patch_states(images))

    @property
    def _tower(self) -> Any:
        return self.model._clip().vision_model

    @property
    def _layers(self) -> Sequence[nn.Module]:
        return self._tower.encoder.layers

    @torch.no_grad()
    def _patch_states(self, images: Tensor | None) -> Tensor:
        """Mean states of evenly chosen patches before each layer, (layers, tokens, d_vision)."""
        if images is None:
            side = (self.model.image_processor.size,) * 2 if self.model.image_processor else ()
            greys = torch.linspace(0, 1, GREYS)
            images = greys.view(-1, 1, 1, 1).expand(-1, 3, *(side or (224, 224)))
        seen: list[Tensor] = []
        handles = [
            layer.register_forward_pre_hook(
                lambda module, args, kwargs: seen.append(_states(args, kwargs).mean(0)),
                with_kwargs=True,
            )
            for layer in self._layers
        ]
        try:
            self.model.encode_clip_image(images, batch_size=len(images))
        finally:
            for handle in handles:
                handle.remove()
        count = seen[0].shape[0] - 1  # patches
        places = torch.arange(self.tokens) * count // max(self.tokens, 1) + count // (
            2 * max(self.tokens, 1)
        )
        return torch.stack([states[1 + places] for states in seen]).float()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Yield; inside the block the tower of `model` works with the prompts. Always restored."""
        handles = []
        try:
            for layer, prompts in zip(self._layers, self.prompts, strict=True):
                handles.append(
                    layer.register_forward_pre_hook(self._put_in(prompts), with_kwargs=True)
                )
                handles.append(layer.register_forward_hook(self._take_out))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _put_in(self, prompts: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            states = _states(args, kwargs)  # (batch, 1 + patches, d)
            own = prompts.to(states).expand(len(states), -1, -1)
            longer = torch.cat([states[:, :1], own, states[:, 1:]], 1)
            if args:
                return (longer, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": longer}

        return hook

    def _take_out(self, module: nn.Module, args: tuple, out: Any) -> Any:
        states = out[0] if isinstance(out, tuple) else out
        kept = torch.cat([states[:, :1], states[:, 1 + self.tokens :]], 1)
        return (kept, *out[1:]) if isinstance(out, tuple) else kept

    def encode(self, images: Tensor | Sequence[Any]) -> ClipImage:
        """Return what `model.encode_clip_image` gives with the prompts in place; differentiable."""
        with self.active():
            return self.model.encode_clip_image(images)

    def pooled(self, images: Tensor | Sequence[Any]) -> Tensor:
        """Return f_i with the prompts in place, (batch, d_vision)."""
        return self.encode(images).pooled

    def embedding(self, images: Tensor | Sequence[Any]) -> Tensor:
        """Return W_i f_i with the prompts in place, (batch, d_proj)."""
        return self.encode(images).embedding


def _states(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
