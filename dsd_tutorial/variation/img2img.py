"""SDEdit: noise the image itself part of the way, and let the words take it back.

Meng et al., arXiv 2108.01073, as diffusers' image-to-image pipeline has it: what is kept is what
survives the noise (places, large areas of colour), where SD-IPC keeps what CLIP says of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.stable_diffusion import StableDiffusion, to_tensor
from dsd_tutorial.stable_diffusion.files import quiet
from dsd_tutorial.stable_diffusion.sampling import seed_list


def img2img_pipeline(model: StableDiffusion) -> Any:
    """Return a diffusers StableDiffusionImg2ImgPipeline around the parts of `model`.

    Nothing is loaded or downloaded. It has no text encoder: give it `prompt_embeds` from
    `model.encode_text`, which knows the model's own length and stays float32 beside a U-Net in half
    precision. Importing diffusers' pipelines takes seconds.
    """
    with quiet():
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import (
            StableDiffusionImg2ImgPipeline,
        )

        absent: dict[str, Any] = dict.fromkeys(
            ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
        )
        pipeline = StableDiffusionImg2ImgPipeline(
            vae=model.vae,
            unet=model.unet,
            scheduler=type(model.scheduler).from_config(model.scheduler.config),
            requires_safety_checker=False,
            **absent,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sdedit(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    text: str | Sequence[str] | Float[Tensor, "prompts tokens states"],
    *,
    strength: float = 0.7,
    steps: int = 25,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Float[Tensor, "images 3 height width"]:
    """Return the images redrawn under `text`, in [0, 1].

    The latents are the autoencoder's means, not samples: equal seeds give equal images.

    Args:
        model: Its U-Net takes the noise off.
        images: Tensors in [0, 1], PIL images or paths; resized and cropped to the model's
            resolution.
        text: One for all images, one each, or prompts from anywhere.
        strength: The share of `steps` that is taken, rounded down, above 0: near 0 the image stays,
            at 1 hardly anything of it is left. The cost falls with it.
        steps: Denoising steps of the whole way.
        guidance: None is the model's own.
        seed: One per image, or the first of consecutive ones: the noise of `model.sample`.
        batch_size: Images per pass.
        progress: Show a progress bar.

    Raises:
        ValueError: A strength outside (0, 1] or too small for a single step, a guidance below 1, or
            texts that do not pair up with the images.
    """
    latents = model.encode_image(to_tensor(images, model.resolution))  # (images, 4, h, w)
    context = text if isinstance(text, Tensor) else model.encode_text(text)
    guidance = model.guidance if guidance is None else guidance
    empty = model.encode_text("")
    taken = _check(strength, steps, guidance)
    if len(context) not in (1, len(latents)) or context.shape[1] != empty.shape[1]:
        raise ValueError(
            f"prompts {tuple(context.shape)} for {len(latents)} images: need one for all or one "
            f"each, of {empty.shape[1]} positions"
        )
    context = context.to(model.device).expand(len(latents), -1, -1)
    seeds = seed_list(seed, len(latents))
    pipeline, size = img2img_pipeline(model), batch_size or model._batch_size
    starts, done = range(0, len(latents), size), []
    with tqdm(total=taken * len(starts), desc="image to image", disable=not progress) as bar:

        def update(pipe: Any, index: int, timestep: Any, tensors: dict) -> dict:
            bar.update()
            return tensors

        for start in starts:
            model.batches_sampled += 1  # other images, though their prompts may be the same
            rows = slice(start, start + size)
            found = pipeline(
                prompt_embeds=context[rows],
                negative_prompt_embeds=empty.expand(len(context[rows]), -1, -1),
                image=latents[rows],
                strength=strength,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(s) for s in seeds[rows]],
                output_type="latent",
                callback_on_step_end=update,
            )
            done.append(found.images)
    return model.decode_latents(torch.cat(done))


def _check(strength: float, steps: int, guidance: float) -> int:
    """How many steps are taken, as the pipeline counts them."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength}: need a number above 0, up to 1")
    taken = min(int(steps * strength), steps)
    if taken < 1:
        raise ValueError(
            f"strength {strength} of {steps} steps is less than one step: raise either "
            f"(strength >= {1 / max(steps, 1):.3g}, or steps >= {int(-(-1 // strength))})"
        )
    if guidance < 1:
        raise ValueError(f"guidance {guidance}: the pipeline takes 1 (none) or more")
    return taken
