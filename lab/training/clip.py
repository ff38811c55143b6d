"""Trains the small CLIP: two towers, two projections, the plain symmetric contrastive loss.

As in Radford et al., arXiv 2103.00020. Captions of a batch are random and distinct; nothing is
mined, so that comparisons with this CLIP are fair. `hard_negatives=True` is a named ablation that
puts both orders of each two-object caption into the batch.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dsd_tutorial.shapes.captions import full_description
from lab.training.artifacts import load_part, load_tokenizer, write_clip
from lab.training.data import CONTEXT_LENGTH, Pool, make_pool, tokenize
from lab.training.loop import Loop, Options, make_accelerator

TEXT_WIDTH = 128  # also the projection's, as in Stable Diffusion 1.x
VISION_WIDTH = 160  # wider than the projection, as in the original
PLACE_WORDS = ("left", "right", "top", "bottom", "above", "below", "over", "under")
PLACE_LENGTH, WORD_LENGTH = 2.5, 0.8  # a patch's embedding is about 3.4 long, a word's 0.4
SCALE_LIMIT = 4.6052  # log 100, as in the original


def build_clip(tokenizer):
    """An untrained CLIPModel: text 4 layers of 128, image 4 layers of 160 on 8 x 8 patches."""
    from transformers import CLIPConfig, CLIPModel

    text = dict(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=CONTEXT_LENGTH,
        projection_dim=TEXT_WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = dict(
        hidden_size=VISION_WIDTH, intermediate_size=4 * VISION_WIDTH, num_hidden_layers=4,
        num_attention_heads=5, image_size=64, patch_size=8, projection_dim=TEXT_WIDTH,
    )  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH)
    # sdpa's backward is slow on CPU; eager is 1.5-2 times faster there
    config._attn_implementation = "eager"
    return CLIPModel(config)


@torch.no_grad()
def strengthen_places(clip, tokenizer) -> None:
    """Adds a code of the patch's row and column, and lengthens the embeddings of place words.

    Left and right look and read almost alike at first, while a batch can mostly be told apart by
    colour and shape. Each tower then sees nothing to match in the other, and both settle on *side*
    without saying which one: 53 % of opposite captions told apart after 2,650 steps. With stronger
    places it is learned within a few hundred.
    """
    positions = clip.vision_model.embeddings.position_embedding.weight
    side = round((len(positions) - 1) ** 0.5)
    positions[1:] += place_code(side, positions.shape[1]).to(positions)
    words = clip.text_model.embeddings.token_embedding.weight
    ids = tokenizer.convert_tokens_to_ids([f"{word}</w>" for word in PLACE_WORDS])
    noise = torch.randn(len(ids), words.shape[1], generator=torch.Generator().manual_seed(1))
    words[ids] += (WORD_LENGTH / words.shape[1] ** 0.5 * noise).to(words)


def place_code(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (side * side, width), centred, of mean length
    `PLACE_LENGTH` (as in Beyer et al., arXiv 2205.01580, there in place of a learned code).
    """
    angles = torch.pi / 2 * 100.0 ** -(torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    x, y = x.flatten()[:, None] * angles, y.flatten()[:, None] * angles
    code = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)
    code = code - code.mean(0)
    return code * PLACE_LENGTH / code.norm(dim=1).mean()


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy over the batch, and the share of images that find their caption.

    `image` (n, d); `text` (m, d) with m >= n: row i of both belong together, further texts are
    extra negatives for the images.
    """
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = log_scale.float().exp() * image @ text.T
    target = torch.arange(len(image), device=image.device)
    back = logits[:, : len(image)].T
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(back, target)) / 2
    return loss, (logits.argmax(1) == target).float().mean()


def train_clip(
    options: Options, hard_negatives: bool = False, image_side: bool = False
) -> dict[str, float]:
    """Trains and writes <output>/clip and <output>/text_encoder; returns the last figures.

    `options.init` is a model folder whose CLIP goes on. With `image_side` its image side alone
    does, against its text side as it is (as in LiT, Zhai et al., arXiv 2111.07991), so that a U-Net
    that reads the text tower stays valid. Raises ValueError for `image_side` without `init`.
    """
    if image_side and options.init is None:
        raise ValueError("image_side trains a CLIP further: give its folder with --init")
    accelerator = make_accelerator(options.device)
    tokenizer = load_tokenizer(options.output)
    torch.manual_seed(options.seed)
    clip = build_clip(tokenizer) if options.init is None else load_part(options.init, "clip")
    clip.set_attn_implementation("eager")  # the backward of sdpa is slow on CPU
    clip.train().to(accelerator.device)
    if not image_side:
        strengthen_places(clip, tokenizer)
    for name, parameter in clip.named_parameters():
        parameter.requires_grad_(not (image_side and name.startswith("text_")))
    pool = make_pool(options.pool, options.seed + 7, tokenizer=tokenizer, device=accelerator.device)
    loop = Loop("image_side" if image_side else "clip", clip, options, accelerator)
    forward = torch.compile(clip) if options.compile else clip
    rng = random.Random(options.seed)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        index, tokens = pool.draw_distinct(options.batch, loop.generator)
        if hard_negatives:
            tokens = torch.cat([tokens, _swapped(pool, index, tokenizer, rng)])
        pixels = pool.batch_images(index) * 2 - 1  # as the image processor has it
        out = forward(input_ids=tokens, pixel_values=pixels)
        with torch.no_grad():
            clip.logit_scale.clamp_(max=SCALE_LIMIT)
        loss, right = contrastive_loss(out.image_embeds, out.text_embeds, clip.logit_scale)
        return loss, {"right": right, "scale": clip.logit_scale.detach().exp()}

    trained = loop.run(step_loss)
    if accelerator.is_main_process:
        write_clip(trained, options.output)
    return loop.history[-1] if loop.history else {}


def _swapped(pool: Pool, index: Tensor, tokenizer, rng: random.Random) -> Tensor:
    """False captions: the full description with its two things exchanged, tokenised."""
    texts = []
    for i in index.tolist():
        said = full_description(pool.scenes[i], background=rng.random() < 0.5)
        if said.relation:
            texts.append(replace(said, things=said.things[::-1]).text())
    return tokenize(tokenizer, texts).to(index.device)
