"""One object that owns the parts of a Stable Diffusion: load, encode, denoise, sample.

    model = load_model("shapes-sd")
    images = model.sample(["a red circle left of a blue square"], steps=25)

Everything outside the object is float32 and in plain units (see `encoders`); inside, only U-Net and
autoencoder run in `dtype`. Symbols follow He et al., arXiv 2305.10722: z latents, t time step,
epsilon noise. All weights are frozen; gradients still flow to inputs. No safety checker is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.stable_diffusion import files, sampling, writer
from dsd_tutorial.stable_diffusion.checksums import (
    WEIGHTS,
    combined_sha256,
    folder_checksums,
    state_sha256,
    verify,
)
from dsd_tutorial.stable_diffusion.devices import pick_device, pick_dtype
from dsd_tutorial.stable_diffusion.encoders import Encoders
from dsd_tutorial.stable_diffusion.registry import resolve

PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler", "clip", "image_processor")


class StableDiffusion(Encoders):
    """A frozen text-to-image model with its parts by name.

    Attributes: vae, unet, text_encoder, tokenizer, scheduler (diffusers and transformers objects),
    clip (both towers, or None), image_processor (its `ImageSettings`, or None), name, entry (what
    the registry knows, or None), folder (where it was loaded from, or None), device, dtype.
    """

    def __init__(self, *, unet: Any, scheduler: Any, folder: Path | None = None, **parts: Any):
        super().__init__(**parts)
        self.unet = self._frozen(unet, self.dtype)
        self.scheduler, self.folder = scheduler, folder

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
        """Return the side, in pixels, of the pictures the U-Net was trained on."""
        return self.latent_shape[1] * self.vae_factor

    @property
    def is_embedded(self) -> bool:
        """Return whether this is the model that ships with the package."""
        return self.entry is not None and self.entry.kind == "embedded"

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

    def _levels(self, timesteps: Tensor | int, batch: int) -> tuple[Tensor, Tensor]:
        """Return sqrt(abar_t) and sqrt(1 - abar_t), each (batch, 1, 1, 1)."""
        steps = torch.as_tensor(timesteps, device=self.device).long().expand(batch)
        abar = self.scheduler.alphas_cumprod.to(self.device, torch.float32)[steps]
        return abar.sqrt().view(-1, 1, 1, 1), (1 - abar).sqrt().view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor | int) -> Tensor:
        """Return z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) e, (batch, 4, h, w); DSD step 1.

        `timesteps` is one int in 0..999 or a tensor (batch,).
        """
        signal, spread = self._levels(timesteps, len(latents))
        return signal * latents + spread * noise

    def predict_noise(
        self, noisy_latents: Tensor, timesteps: Tensor | int, context: Tensor
    ) -> Tensor:
        """Return the U-Net's estimate of the noise, (batch, 4, h, w), float32; no guidance.

        `context` (batch or 1, any length, d) comes from `encode_text` or from you. Where the U-Net
        predicts v = sqrt(abar) e - sqrt(1 - abar) z0 (SD 2.1 at 768 pixels), the noise is
        sqrt(abar) v + sqrt(1 - abar) z_t (Salimans and Ho, arXiv 2202.00512, appendix D).

        Raises:
            ValueError: the context's width or the latents' channels are not this model's.
        """
        output = self._unet(noisy_latents, timesteps, context)
        if self.prediction_type == "epsilon":
            return output
        signal, spread = self._levels(timesteps, len(noisy_latents))
        return signal * output + spread * noisy_latents.to(self.device)

    def _unet(self, latents: Tensor, timesteps: Tensor | int, context: Tensor) -> Tensor:
        """Return the raw output, (batch, 4, h, w), float32, after checking the shapes."""
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
        context = context.to(self.device, self.dtype).expand(batch, -1, -1)
        return self.unet(latents.to(self.device, self.dtype), steps, context).sample.float()

    def sample(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        embeddings: Tensor | None = None,
        n: int = 1,
        steps: int = 25,
        guidance: float | None = None,
        seed: int | Sequence[int] = 0,
        negative: str | Sequence[str] | Tensor | None = None,
        noise: Tensor | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        callback: sampling.Callback | None = None,
    ) -> Tensor:
        """Return images (prompts x n, 3, height, width) in [0, 1], prompt by prompt.

        Give `prompts` or `embeddings` (batch, any length, d). `guidance` None is the registry's
        scale for this model (7.5 if unknown), 1 is none. `seed` is one per image, or the first of
        consecutive ones. `negative` None is the empty prompt. `noise` (images, 4, h, w) replaces
        the seeded start. `callback(index, timestep, latents, output)` sees every step of every
        batch.

        Raises:
            ValueError: neither or both of prompts and embeddings; wrong counts or steps < 1.
        """
        if (prompts is None) == (embeddings is None):
            raise ValueError("sample needs either prompts or embeddings, not both and not neither")
        if n < 1 or not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            last = self.scheduler.config.num_train_timesteps
            raise ValueError(f"n={n}, steps={steps}: need n >= 1 and steps in 1..{last}")
        context = self.encode_text(prompts) if embeddings is None else embeddings
        context = context.detach().to(self.device).repeat_interleave(n, dim=0)
        seeds = sampling.seed_list(seed, len(context))
        if noise is None:
            noise = sampling.initial_noise(self.latent_shape, seeds)
        if guidance is None:
            guidance = self.entry.guidance if self.entry is not None else 7.5
        batch_size = batch_size or self._batch_size
        plan = sampling.Plan(steps, guidance, seeds, batch_size, progress, callback)
        with torch.no_grad():
            without = self._negative(negative, len(context))
            latents = sampling.denoise(
                self._unet, self.scheduler, noise.to(self.device), context, without, plan
            )
            return self.decode_latents(latents)

    def _negative(self, negative: str | Sequence[str] | Tensor | None, count: int) -> Tensor:
        """Return the states to be guided away from, (count, length, d)."""
        if not isinstance(negative, Tensor):
            negative = self.encode_text(negative if negative is not None else "")
        if len(negative) not in (1, count):
            raise ValueError(f"{len(negative)} negatives for {count} images: give 1 or {count}")
        return negative.to(self.device).expand(count, -1, -1)

    # -- other forms ---------------------------------------------------------------------------

    def pipeline(self) -> Any:
        """Return a diffusers StableDiffusionPipeline that shares these parts (import: seconds)."""
        with files.quiet():
            from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
                StableDiffusionPipeline,
            )

        parts = {name: getattr(self, name) for name in PARTS[:4]}
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        return StableDiffusionPipeline(
            **parts,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def save(
        self, folder: str | Path, *, dtype_unet: torch.dtype = torch.float16
    ) -> dict[str, str]:
        """Return file -> SHA-256 after writing a pipeline folder with clip/ and checksums.json.

        U-Net and autoencoder are stored in `dtype_unet` (diffusers loads them as float32 again),
        text encoder and CLIP in float32. Other files in the folder are left alone.
        """
        parts = {name: getattr(self, name) for name in PARTS}
        return writer.write_parts(parts, Path(folder), dtype_unet)


def load_model(
    name_or_path: str | Path = "shapes-sd",
    device: str | torch.device = "auto",
    dtype: torch.dtype | str | None = None,
    *,
    clip: str | Path | None = None,
    download: bool = False,
) -> StableDiffusion:
    """Return the model called `name_or_path`: a registered name, a folder, or a hub id.

    `device` "auto" is CUDA, else MPS, else the CPU. `dtype` None is float32, also where weights are
    stored in float16. `clip` is a folder or hub id with CLIP's towers; by default those in the
    model's folder, in a folder `<model>-clip` beside it, or the public CLIP of its text encoder if
    that is cached. The network is used only with `download=True`.

    Raises:
        UnknownModelError, MissingModelError, ChecksumError, IncompleteWeightsError, DeviceError:
            see docs/errors.md for the cure of each.
    """
    entry, folder = resolve(name_or_path)
    target, precision = pick_device(device), pick_dtype(dtype)
    if folder is None:
        folder = files.hub_folder(entry, download)
    else:
        files.require_complete(folder, entry)
    found = verify(folder, entry)
    towers = files.towers_for(entry, folder, clip, download)
    parts = files.read_parts(folder, towers)
    model = StableDiffusion(
        **parts, name=entry.name, entry=entry, folder=folder, device=target, dtype=precision
    )
    if found is not None:
        model.__dict__["checksums"] = found  # just computed: no need to read the files again
    return model
