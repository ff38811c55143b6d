"""The released way: what the code published with He et al., arXiv 2305.10722, does per pair.

Our own re-implementation (not their code), with its order of work and therefore its cost: one pair
at a time; at each time step the image goes through the autoencoder again, and image and prompts
through the U-Net as a doubled batch [empty, text]; each cross-attention layer makes its logits in
the open, of which the last layer of the down, mid and up path is read; in the end the attention
score plus the error term.

Left out is what that code gets wrong at no difference in cost: the latent is *sampled* anew at each
step, and the empty prompt's logits are averaged in. So the scores equal
`matching.score(layers="last", error_weight=1)`; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.attention import choose_layers, cross_attention_paths
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid


class ExplicitProcessor:
    """Attention whose logits are made in the open, all of them, and kept."""

    def __init__(self, keep: bool):
        self.keep, self.logits = keep, None

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return what diffusers' plain processor does."""
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        logits = attn.scale * (query @ key.transpose(-1, -2))  # (batch * heads, pixels, tokens)
        if self.keep:
            self.logits = logits
        mixed = attn.batch_to_head_dim(logits.softmax(-1) @ value)
        return attn.to_out[1](attn.to_out[0](mixed))


@torch.no_grad()
def released_scores(
    model: Any, image: Tensor, texts: Sequence[str], *, steps: int = 10, seed: int = 0,
    error_weight: float = 1.0,
) -> Tensor:  # fmt: skip
    """Return the scores of one image (1, 3, height, width) with each text, (texts,)."""
    kept = choose_layers(model, "last")
    layers = {name: model.unet.get_submodule(p) for name, p in cross_attention_paths(model).items()}
    before = {name: attn.processor for name, attn in layers.items()}
    for name, attn in layers.items():
        attn.set_processor(ExplicitProcessor(keep=name in kept))
    try:
        grid = time_grid(steps, model.scheduler.config.num_train_timesteps)
        found = [
            _pair(model, image, text, grid, seed, error_weight, list(kept.values()))
            for text in texts
        ]
    finally:
        for name, attn in layers.items():
            attn.set_processor(before[name])
    return torch.stack(found)


def _pair(
    model: Any, image: Tensor, text: str, grid: Sequence[int], seed: int, error_weight: float,
    layers: list[Any],
) -> Tensor:  # fmt: skip
    prompts = model.encode_text(["", text])
    total = torch.zeros(())
    for i, t in enumerate(grid):
        z0 = model.encode_image(image)
        e = shared_noise(z0.shape[1:], seed, i).to(z0.device)
        noisy = model.add_noise(z0, e, t)
        eps = model.predict_noise(torch.cat([noisy] * 2), t, prompts)
        pooled = [attn.processor.logits.float().logsumexp(-1).mean(-1) for attn in layers]
        read = torch.stack([each.view(2, -1)[1].mean() for each in pooled])  # those of the text
        empty, with_text = (e - eps).flatten(1).norm(dim=1)
        total += (read.mean() + error_weight * (empty - with_text)).cpu()
    return total / len(grid)
