"""Deep visual prompts: learned vectors that CLIP's image tower finds among its patches.

Before every layer `tokens` learned vectors are put between class token and patches, and behind it
they are taken out again, so each layer sees its own:

    [class, patches]  ->  [class, prompts of this layer, patches]  ->  layer  ->  [class, patches]

They are inserted and overwrite nothing: every patch goes through every layer (Ding et al.,
arXiv 2305.12716; METHODS.md B.6). The tower's own forward runs, with two hooks on each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.stable_diffusion import ClipImage, StableDiffusion

GREYS = 5  # even images from black to white, where no others are given


class DeepPrompts(nn.Module):
    """`prompts` (layers, tokens, states), float32, for the image tower of `model`.

    They begin as what patches are anyway: the mean hidden states, before each layer, of patches
    spread over the image. A tower that knows such tokens is hardly disturbed by more (*ours*);
    zeros or small random numbers are no smaller to it, since each layer begins with a norm.

    Args:
        model: with CLIP, whose image tower takes the prompts.
        tokens: prompts per layer; 0 is the stock tower.
        images: over which hidden states are averaged; None: even images from black to white.

    Raises:
        ValueError: a negative number of tokens or more than there are patches; no CLIP.
    """

    def __init__(
        self,
        model: StableDiffusion,
        tokens: int = 4,
        *,
        images: Float[Tensor, "images 3 height width"] | None = None,
    ):
        super().__init__()
        self.model, self.tokens = model, tokens  # not a module: nothing of it is registered here
        patches = self._tower.embeddings.num_patches
        if not 0 <= tokens <= patches:
            raise ValueError(f"tokens={tokens}: need 0 (none) to {patches}, one for each patch")
        self.prompts = nn.Parameter(self._patch_states(images))

    @property
    def _tower(self) -> Any:
        return self.model._clip().vision_model

    @torch.no_grad()
    def _patch_states(self, images: Tensor | None) -> Float[Tensor, "layers tokens states"]:
        """Mean hidden states of evenly chosen patches before each layer."""
        if images is None:
            side = self.model.image_processor.size if self.model.image_processor else 224
            images = torch.linspace(0, 1, GREYS).view(-1, 1, 1, 1).expand(-1, 3, side, side)
        means: list[Tensor] = []  # of each layer, (1 + patches, states)

        def look(layer: nn.Module, args: tuple, kwargs: dict) -> None:
            means.append(_hidden_states(args, kwargs).mean(0))

        with ExitStack() as hooks:
            for layer in self._tower.encoder.layers:
                hooks.enter_context(layer.register_forward_pre_hook(look, with_kwargs=True))
            self.model.encode_clip_image(images, batch_size=len(images))
        patches, cells = len(means[0]) - 1, max(self.tokens, 1)
        places = torch.arange(self.tokens) * patches // cells + patches // (2 * cells)
        return torch.stack([states[1 + places] for states in means]).float()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Yield; inside the block the tower of `model` works with the prompts. Always restored."""
        with ExitStack() as hooks:
            for layer, prompts in zip(self._tower.encoder.layers, self.prompts, strict=True):
                insert = self._insert(prompts)
                hooks.enter_context(layer.register_forward_pre_hook(insert, with_kwargs=True))
                hooks.enter_context(layer.register_forward_hook(self._take_out))
            yield

    def _insert(self, prompts: Float[Tensor, "tokens states"]) -> Callable[..., Any]:
        def hook(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            states = _hidden_states(args, kwargs)  # (images, 1 + patches, states)
            own = prompts.to(states).expand(len(states), -1, -1)
            longer = torch.cat([states[:, :1], own, states[:, 1:]], 1)
            if args:
                return (longer, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": longer}

        return hook

    def _take_out(self, layer: Any, args: tuple, out: Any) -> Any:
        states = out[0] if isinstance(out, tuple) else out
        kept = torch.cat([states[:, :1], states[:, 1 + self.tokens :]], 1)
        return (kept, *out[1:]) if isinstance(out, tuple) else kept

    def encode(self, images: Tensor | Sequence[Any]) -> ClipImage:
        """Return what `model.encode_clip_image` gives with the prompts in place; differentiable."""
        with self.active():
            return self.model.encode_clip_image(images)


def _hidden_states(args: tuple, kwargs: dict) -> Float[Tensor, "images tokens states"]:
    return args[0] if args else kwargs["hidden_states"]
