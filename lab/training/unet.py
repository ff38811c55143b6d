"""Trains the U-Net on frozen latents and frozen text states, as latent diffusion does.

The network predicts v = sqrt(abar) e - sqrt(1 - abar) z0 (Salimans and Ho, arXiv 2202.00512), as
Stable Diffusion 2.1 does. What an object is and where it goes is decided at high noise, and there
the loss on e alone hardly sees it: an error in z0 counts with the signal-to-noise ratio, a few
thousandths, while in v it counts fully. For the same reason most time steps are drawn from the
noisy side, and the weight of nearly clean steps is capped (min-SNR, arXiv 2303.09556).
Cross-attention learns in coordinates in which all that the text says has the same scale
(whitening.py).

In some examples the EOS state stands alone for the caption, a little off (`eos_state_alone`). Most
of Stable Diffusion's 77 positions hold padding that repeats the EOS state, so its U-Net learns to
read it; captions of this world fill half of the sequence, and a U-Net trained on them alone reads
words only. Without it there is nothing for SD-IPC to replace (Ding et al., arXiv 2305.12716).
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from dsd_tutorial.saving import file_sha256, replacing
from dsd_tutorial.shapes.captions import caption
from dsd_tutorial.shapes.scene import random_scenes
from dsd_tutorial.stable_diffusion.checksums import state_sha256
from dsd_tutorial.stable_diffusion.registry import END_SHARE
from lab.training.artifacts import ENCODER, load_part, load_tokenizer, make_scheduler, write_unet
from lab.training.clip import TEXT_WIDTH
from lab.training.data import Pool, make_pool, tokenize
from lab.training.loop import Loop, Options, in_bfloat16, make_accelerator
from lab.training.whitening import change_coordinates, whitening

WIDTHS = (32, 96, 192)
HEADS = 4
EMPTY_SHARE = 0.1  # captions replaced by the empty one, for classifier-free guidance
END_NOISE = 1.0  # its largest noise a dimension, where the states' own spread is about 0.85
WEIGHT_LIMIT = 5.0  # of an error in z0, which plain v-prediction weights by SNR + 1
HIGH_NOISE = (950, 1000)  # where layout and identity are decided: that share is drawn from here
HIGH_SHARE = 0.6
ONE_OBJECT_SHARE = 0.2  # two objects are the harder half
STATES = 4096  # captions whose text states say how the states are spread


def build_unet(widths: tuple[int, ...] = WIDTHS):
    """An untrained UNet2DConditionModel with cross-attention at all three resolutions."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,  # in diffusers this is the number of heads
        norm_num_groups=16,
    )


def train_unet(options: Options, widths: tuple[int, ...] = WIDTHS) -> dict:
    """Trains and writes <output>/unet with its record; returns the record.

    `options.init` is a model folder whose U-Net is continued without optimiser state. Raises
    RuntimeError where the autoencoder or CLIP is not the one that U-Net was trained with.
    """
    accelerator = make_accelerator(options.device)
    device = accelerator.device
    torch.manual_seed(options.seed)
    parents = parent_hashes(options.output)
    unet, done = _start(options, widths, parents)
    unet = unet.to(device)
    if device.type == "cpu":
        from diffusers.models.attention_processor import AttnProcessor

        unet.set_attn_processor(AttnProcessor())  # sdpa's backward is slow on CPU
    tokenizer = load_tokenizer(options.output)
    encoder = load_part(options.output, "text_encoder").to(device)
    # each process draws from a pool of its own
    share = options.pool // accelerator.num_processes
    seed = options.seed + 13 + accelerator.process_index
    whiten, back = whitening(some_states(encoder, tokenizer, min(STATES, 16 * options.pool)))
    change_coordinates(unet, back)
    pool = make_pool(
        share, seed, tokenizer=tokenizer, device=device, one_object_share=ONE_OBJECT_SHARE
    )
    latents = cached_latents(options, pool, seed, device)
    loop = Loop("unet", unet, options, accelerator)
    loss = Denoising(loop, pool, latents, encoder, whiten, options)
    trained = loop.run(loss)
    change_coordinates(trained, whiten)
    record = {
        **parents,
        "parameters": sum(p.numel() for p in trained.parameters()),
        "seed": options.seed,
        "samples": done + loop.step * options.batch * accelerator.num_processes,
        "steps_of_this_run": loop.step,
        "batch": options.batch,
        "lr": options.lr,
        "optimizer": options.optimizer,
        "minutes_of_this_run": round(loop.elapsed / 60, 1),
        "loss": loop.history[-1]["loss"] if loop.history else None,
    }
    if accelerator.is_main_process:
        write_unet(trained, options.output, record)
    return record


class Denoising:
    """The loss of one step: v-prediction on a random batch, its weight in z0 capped."""

    def __init__(self, loop: Loop, pool: Pool, latents: Tensor, encoder, whiten: Tensor, options):
        self.loop, self.pool, self.latents, self.encoder = loop, pool, latents, encoder
        self.whiten = whiten.to(latents.device)
        self.batch, device = options.batch, latents.device
        self.alphas = make_scheduler().alphas_cumprod.to(device)
        tokenizer = load_tokenizer(options.output)
        self.empty, self.end = tokenize(tokenizer, [""]).to(device), tokenizer.eos_token_id
        self.unet = torch.compile(loop.model) if options.compile else loop.model

    def __call__(self, step: int) -> tuple[Tensor, dict]:
        generator, device = self.loop.generator, self.latents.device
        index, tokens = self.pool.draw(self.batch, generator)
        t = draw_timesteps(self.batch, generator).to(device)
        noise = torch.randn(self.batch, *self.latents.shape[1:], generator=generator).to(device)
        with torch.no_grad():
            context = self._context(tokens, generator) @ self.whiten
        abar = self.alphas[t].view(-1, 1, 1, 1)
        clean = self.latents[index].float()
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        v = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        each = (self.unet(noisy, t, context).sample.float() - v).pow(2).mean((1, 2, 3))
        in_z0 = 1 / (1 - abar).flatten()  # SNR + 1
        loss = (each * in_z0.clamp(max=WEIGHT_LIMIT) / in_z0).mean()
        return loss, {"mse": each.detach().mean()}

    def _context(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """What the U-Net reads (n, L, d): captions, EOS states alone, or the empty prompt."""
        states = self.encoder(torch.cat([tokens, self.empty])).last_hidden_state.float()
        states, empty = states[:-1], states[-1]
        ends = (tokens == self.end).int().argmax(1)
        alone = eos_state_alone(states, ends, empty, generator)
        which = torch.rand(len(tokens), 1, 1, generator=generator).to(states.device)
        states = torch.where(which < EMPTY_SHARE + END_SHARE, alone, states)
        return torch.where(which < EMPTY_SHARE, empty, states)


def eos_state_alone(
    states: Tensor,
    ends: Tensor,
    empty: Tensor,
    generator: torch.Generator,
    noise: float = END_NOISE,
) -> Tensor:
    """Prompts (n, L, d) in which copies of the EOS state, made noisy, follow the start token.

    4 to L - 1 copies of the state at `ends` (n,), all alike; behind them the padding of the empty
    prompt, `empty` (L, d). The noise is normal, up to `noise` a dimension (uniformly drawn for each
    prompt), and the state's length is kept: what an inverse of CLIP's projection returns is a state
    of the right length and not quite the right direction.
    """
    n, length, width = states.shape
    state = states[torch.arange(n, device=states.device), ends]
    amount = noise * torch.rand(n, 1, generator=generator)
    off = state + (amount * torch.randn(n, width, generator=generator)).to(state)
    off = off * (state.norm(dim=-1, keepdim=True) / off.norm(dim=-1, keepdim=True))
    copies = torch.randint(4, length, (n, 1), generator=generator).to(states.device)
    position = torch.arange(length, device=states.device)
    filled = (position >= 1) & (position <= copies)
    return torch.where(filled[..., None], off[:, None], empty)


def draw_timesteps(n: int, generator: torch.Generator) -> Tensor:
    """Time steps (n,): a share `HIGH_SHARE` from `HIGH_NOISE`, the others from all 1,000."""
    everywhere = torch.randint(0, 1000, (n,), generator=generator)
    high = torch.randint(*HIGH_NOISE, (n,), generator=generator)
    return torch.where(torch.rand(n, generator=generator) < HIGH_SHARE, high, everywhere)


def cached_latents(options: Options, pool: Pool, seed: int, device) -> Tensor:
    """`encode_pool` of the model's autoencoder, kept in the work folder for the next start."""
    key = parent_hashes(options.output)["encoder_sha256"][:12]
    file = options.work / f"latents-{key}-{seed}-{len(pool)}-{ONE_OBJECT_SHARE}.pt"
    if file.exists():
        pool.images = pool.images[:0]
        return torch.load(file, map_location="cpu", weights_only=True).to(device)
    latents = encode_pool(load_part(options.output, "vae").to(device), pool)
    with replacing(file) as partial:
        torch.save(latents, partial)
    return latents


@torch.no_grad()
def encode_pool(vae, pool: Pool) -> Tensor:
    """Scaled mean latents (n, 4, h, w) of every image of the pool, in half precision."""
    scale, parts = vae.config.scaling_factor, []
    every = torch.arange(len(pool), device=pool.images.device)
    for index in tqdm(every.split(256), desc="encoding", unit_scale=256):
        with torch.autocast(index.device.type, torch.bfloat16, enabled=in_bfloat16(index.device)):
            mean = vae.encode(pool.batch_images(index) * 2 - 1).latent_dist.mean
        parts.append((mean.float() * scale).half())
    pool.images = pool.images[:0]  # the images are not needed again
    return torch.cat(parts)


@torch.no_grad()
def some_states(encoder, tokenizer, n: int) -> Tensor:
    """Text states (n, L, d) of random training captions, the same in every process."""
    rng = random.Random(0)
    scenes = random_scenes(n, 0, split="train", one_object_share=ONE_OBJECT_SHARE)
    tokens = tokenize(tokenizer, [caption(scene, rng) for scene in scenes])
    device = next(encoder.parameters()).device
    return torch.cat([encoder(part.to(device)).last_hidden_state for part in tokens.split(256)])


def parent_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of what the U-Net is trained on: the encoder's tensors and the text encoder's file.

    The decoder is left out: it may be refined later without touching a latent.
    """
    vae = load_part(folder, "vae")
    encoder = {k: v for k, v in vae.state_dict().items() if k.startswith(ENCODER)}
    encoder["scaling_factor"] = torch.tensor(vae.config.scaling_factor)
    return {
        "encoder_sha256": state_sha256(encoder),
        "text_encoder_sha256": file_sha256(folder / "text_encoder" / "model.safetensors"),
    }


def _start(options: Options, widths: tuple[int, ...], parents: dict) -> tuple:
    """The U-Net to train and how many samples it has already seen."""
    if options.init is None:
        return build_unet(widths), 0
    record = json.loads((options.init / "unet" / "training.json").read_text())
    for name, ours in parents.items():
        if record[name] != ours:
            raise RuntimeError(
                f"{options.init}: its U-Net was trained with another {name.removesuffix('_sha256')}"
                f" ({record[name][:12]}, here {ours[:12]}); train from scratch without --init, or"
                " point --output at the folder that holds the matching one"
            )
    return load_part(options.init, "unet").requires_grad_(True).train(), record["samples"]
