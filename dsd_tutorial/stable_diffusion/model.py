"""One object that owns the parts of a Stable Diffusion: encode, denoise, sample.

    model = load_model("shapes-sd")
    images = model.sample(["a red circle left of a blue square"], steps=25)

Everything outside the object is float32 and in plain units (see `encoders`); inside, only the U-Net
(and beside float16 the autoencoder) runs in `dtype`. Symbols follow He et al., arXiv 2305.10722:
z latents, t time step, epsilon noise. All weights are frozen; gradients still flow to inputs. No
safety checker is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.stable_diffusion import sampling, writer
from dsd_tutorial.stable_diffusion.checksums import (
    WEIGHTS,
    combined_sha256,
    folder_checksums,
    state_sha256,
)
from dsd_tutorial.stable_diffusion.encoders import Encoders
from dsd_tutorial.stable_diffusion.precision import cast_unet, text_projections

PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler", "clip", "image_processor")
Steps = int | Num[Tensor, ""] | Num[Tensor, " batch"]
Latents = Float[Tensor, "batch channels height width"]
Levels = Float[Tensor, "batch 1 1 1"]


class StableDiffusion(Encoders):
    """A frozen text-to-image model with its parts by name.

    Attributes:
        vae, unet, text_encoder, tokenizer, scheduler: Objects of diffusers and transformers.
        clip: Both towers, or None.
        image_processor: The `ImageSettings` of CLIP, or None.
        name: What it is called.
        entry: What the registry knows of it, or None.
        folder: Where it was loaded from, or None.
        device, dtype: Where the parts are, and in which precision the U-Net runs.
        batches_sampled: How many batches of images `sample` has begun.
    """

    def __init__(self, *, unet: Any, scheduler: Any, folder: Path | None = None, **parts: Any):
        super().__init__(**parts)
        cast_unet(unet, self.dtype)
        self.unet = self._frozen(unet)
        self.scheduler, self.folder = scheduler, folder
        self.batches_sampled = 0

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.unet.parameters()) / 1e6
        latents = " x ".join(map(str, self.latent_shape))
        return (
            f"StableDiffusion({self.name!r}: {self.resolution} pixels, latents {latents}, "
            f"{self.context_length} tokens, U-Net {millions:.1f} M parameters, {self.device}, "
            f"{str(self.dtype).removeprefix('torch.')})"
        )

    # -- what it is ----------------------------------------------------------------------------

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of one image's latents."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def resolution(self) -> int:
        """Return the side, in pixels, of the images the U-Net was trained on."""
        return self.latent_shape[1] * self.vae_factor

    @property
    def is_embedded(self) -> bool:
        """Return whether this is the model that ships with the package."""
        return self.entry is not None and self.entry.kind == "embedded"

    @property
    def guidance(self) -> float:
        """Return the guidance scale by default: the registry's, 7.5 if it knows none."""
        return self.entry.guidance if self.entry is not None else 7.5

    @property
    def prediction_type(self) -> str:
        """Return what the raw U-Net answers: "epsilon" or "v_prediction"."""
        return self.scheduler.config.get("prediction_type", "epsilon")

    @cached_property
    def checksums(self) -> dict[str, str]:
        """Return weights file -> SHA-256; for a model in memory, part -> digest of its tensors."""
        if self.folder is not None:
            return folder_checksums(self.folder)
        parts = {name: getattr(self, name) for name in WEIGHTS}
        return {n: state_sha256(p.state_dict()) for n, p in parts.items() if p is not None}

    @property
    def sha256(self) -> str:
        """Return one digest over all weights files: SHA-256 of the sorted lines "digest  path"."""
        return combined_sha256(self.checksums)

    # -- diffusion -----------------------------------------------------------------------------

    def noise_levels(self, timesteps: Steps, batch: int) -> tuple[Levels, Levels]:
        """Return sqrt(abar_t) and sqrt(1 - abar_t) for each of `batch` images."""
        steps = torch.as_tensor(timesteps, device=self.device).long().expand(batch)
        abar = self.scheduler.alphas_cumprod.to(self.device, torch.float32)[steps]
        return abar.sqrt().view(-1, 1, 1, 1), (1 - abar).sqrt().view(-1, 1, 1, 1)

    def add_noise(self, latents: Latents, noise: Latents, timesteps: Steps) -> Latents:
        """Return z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e; DSD step 1.

        `timesteps` is one for all or one each, in 0..999.
        """
        signal, spread = self.noise_levels(timesteps, len(latents))
        return signal * latents + spread * noise

    def predict_noise(self, noisy_latents: Tensor, timesteps: Steps, context: Tensor) -> Latents:
        """Return the U-Net's estimate of the noise, float32; no guidance.

        Where the U-Net predicts v = sqrt(abar) e - sqrt(1 - abar) z0 (SD 2.1 at 768 pixels), the
        noise is sqrt(abar) v + sqrt(1 - abar) z_t (Salimans and Ho, arXiv 2202.00512, appendix D).

        Args:
            noisy_latents: z_t, (batch, channels, height, width).
            timesteps: One for all or one each.
            context: Prompt embeddings (batch or 1, any length, states), from `encode_text` or from
                you.

        Raises:
            ValueError: The context's width or the latents' channels are not this model's.
        """
        output = self._unet(noisy_latents, timesteps, context)
        if self.prediction_type == "epsilon":
            return output
        signal, spread = self.noise_levels(timesteps, len(noisy_latents))
        return signal * output + spread * noisy_latents.to(self.device)

    def _unet(self, latents: Tensor, timesteps: Steps, context: Tensor) -> Latents:
        """Return the raw output, float32, after checking the shapes."""
        batch, width = len(latents), self.unet.config.cross_attention_dim
        if context.dim() != 3 or context.shape[-1] != width or len(context) not in (1, batch):
            raise ValueError(
                f"context {tuple(context.shape)}: need ({batch} or 1, length, {width}), as "
                f"{self.name}'s encode_text returns"
            )
        if latents.dim() != 4 or latents.shape[1] != self.latent_shape[0]:
            raise ValueError(
                f"latents {tuple(latents.shape)}: need (batch, {self.latent_shape[0]}, h, w), as "
                "encode_image returns"
            )
        steps = torch.as_tensor(timesteps, device=self.device).expand(batch)
        reader = next(text_projections(self.unet))  # in float32, unless the U-Net was swapped
        context = context.to(self.device, reader.weight.dtype).expand(batch, -1, -1)
        return self.unet(latents.to(self.device, self.dtype), steps, context).sample.float()

    @torch.no_grad()
    def sample(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        embeddings: Float[Tensor, "prompts _ states"] | None = None,
        n: int = 1,
        steps: int = 25,
        guidance: float | None = None,
        seed: int | Sequence[int] = 0,
        negative: str | Sequence[str] | Float[Tensor, "_ _ states"] | None = None,
        noise: Latents | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        callback: sampling.Callback | None = None,
    ) -> Float[Tensor, "images 3 image_height image_width"]:
        """Return n images in [0, 1] of each prompt, prompt by prompt.

        Args:
            prompts: Texts.
            embeddings: Prompt embeddings in their place.
            n: Images per prompt.
            steps: Time steps of the scheduler.
            guidance: The guidance scale; None is `self.guidance`, 1 is none.
            seed: One per image, or the first of consecutive ones.
            negative: What to be guided away from; None is the empty prompt.
            noise: Start of each image, in place of the seeded one.
            batch_size: Images per U-Net pass.
            progress: Whether to show a progress bar.
            callback: `callback(index, timestep, latents, output)` sees every step of every batch.

        Raises:
            ValueError: Neither or both of prompts and embeddings; wrong counts or steps < 1.
        """
        if n < 1 or not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            last = self.scheduler.config.num_train_timesteps
            raise ValueError(f"n={n}, steps={steps}: need n >= 1 and steps in 1..{last}")
        if prompts is not None and embeddings is None:
            context = self.encode_text(prompts)
        elif embeddings is not None and prompts is None:
            context = embeddings
        else:
            raise ValueError("sample needs either prompts or embeddings, not both and not neither")
        context = context.to(self.device).repeat_interleave(n, dim=0)
        seeds = sampling.seed_list(seed, len(context))
        noise = sampling.initial_noise(self.latent_shape, seeds) if noise is None else noise
        without = self._negative(negative, len(context))
        scale = self.guidance if guidance is None else guidance
        size = batch_size or self._batch_size
        starts = range(0, len(context), size)
        latents = []
        with tqdm(total=steps * len(starts), desc="sampling", disable=not progress) as bar:

            def after_step(*step: Any) -> None:
                if callback is not None:
                    callback(*step)
                bar.update()

            for start in starts:
                self.batches_sampled += 1
                rows = slice(start, start + size)
                latents.append(
                    sampling.denoise(
                        self._unet,
                        self.scheduler,
                        noise[rows].to(self.device),
                        context[rows],
                        without[rows],
                        steps=steps,
                        guidance=scale,
                        seeds=seeds[rows],
                        callback=after_step,
                    )
                )
        return self.decode_latents(torch.cat(latents))

    def _negative(
        self, negative: str | Sequence[str] | Tensor | None, count: int
    ) -> Float[Tensor, "{count} _ states"]:
        """Return the prompt embeddings to be guided away from."""
        if not isinstance(negative, Tensor):
            negative = self.encode_text(negative if negative is not None else "")
        if len(negative) not in (1, count):
            raise ValueError(f"{len(negative)} negatives for {count} images: give 1 or {count}")
        self._remember([""] * len(negative), negative)  # so that no heat map counts these rows
        return negative.to(self.device).expand(count, -1, -1)

    def save(
        self, folder: str | Path, *, dtype_unet: torch.dtype = torch.float16
    ) -> dict[str, str]:
        """Return file -> SHA-256 after writing a pipeline folder with clip/ and checksums.json.

        U-Net and autoencoder are stored in `dtype_unet` (diffusers loads them as float32 again),
        text encoder and CLIP in float32. Other files in the folder are left alone.
        """
        parts = {name: getattr(self, name) for name in PARTS}
        return writer.write_parts(parts, Path(folder), dtype_unet)
