"""What turns texts and images into the tensors that a Stable Diffusion works on, and back.

Symbols follow Ding et al., arXiv 2305.12716: f_i pooled image state, W_i visual projection, h EOS
state, W_t text projection.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dsd_tutorial.stable_diffusion.pixels import ImageSettings, check_images, to_tensor
from dsd_tutorial.stable_diffusion.registry import CLIP_BY_TEXT_WIDTH, ModelEntry

Texts = str | Sequence[str]
AnyImages = Tensor | Sequence[Any]  # a tensor (images, 3, height, width) in [0, 1], or PIL images


class ClipImage(NamedTuple):
    """What CLIP's image tower says of a batch, neither part normalised."""

    pooled: Float[Tensor, "images states"]  # f_i, the pooled state after the tower's final norm
    embedding: Float[Tensor, "images width"]  # W_i f_i


class Encoders:
    """The frozen parts around the U-Net: autoencoder, text encoder, CLIP, tokenizer.

    Outside, everything is float32 and in plain units: images in [0, 1], latents already multiplied
    by the autoencoder's scaling factor, prompt embeddings as the U-Net reads them. Gradients flow
    to inputs, never to weights.
    """

    def __init__(
        self,
        *,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        clip: Any = None,
        image_processor: ImageSettings | None = None,
        name: str = "unnamed",
        entry: ModelEntry | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.dtype = torch.device(device), dtype
        # bfloat16 keeps eight bits: latents rounded so are other latents, and they are made once
        self.vae = self._frozen(vae, torch.float32 if dtype == torch.bfloat16 else dtype)
        # float32 whatever `dtype` is: small differences of prompt embeddings are ranked later
        self.text_encoder = self._frozen(text_encoder, torch.float32)
        self.clip = self._frozen(clip, torch.float32) if clip is not None else None
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.name, self.entry = name, entry
        self.folder: Path | None = None
        self._encoded: deque[tuple[list[str], Tensor]] = deque(maxlen=64)  # newest first

    def _frozen(self, part: nn.Module, dtype: torch.dtype | None = None) -> Any:
        # nn.Module's own `to`: the one of diffusers warns at any mention of a precision
        return nn.Module.to(part, self.device, dtype).eval().requires_grad_(False)

    @property
    def vae_factor(self) -> int:
        """Return how many pixels one latent cell covers in each direction."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def context_length(self) -> int:
        """Return the number of token positions (77 for SD 1.x and 2.x)."""
        return self.text_encoder.config.max_position_embeddings

    @property
    def text_layer(self) -> str:
        """Return which text layer the U-Net reads: "last" (SD 1.x) or "penultimate" (SD 2.x).

        SD 2.x ships its text encoder without the last layer (23 of 24), so `encode_text` is right
        for both; what differs is whether CLIP's text projection applies to these states.
        """
        if self.entry is not None and self.entry.kind != "folder":
            return self.entry.text_layer
        layers = self.text_encoder.config.num_hidden_layers
        whole = self.clip.config.text_config.num_hidden_layers if self.clip is not None else 24
        return "penultimate" if layers == whole - 1 else "last"

    @property
    def resolution(self) -> int:
        """Return the side, in pixels, of the images the model was trained on."""
        raise NotImplementedError

    # -- text ----------------------------------------------------------------------------------

    def tokenize(self, texts: Texts) -> Int64[Tensor, "texts tokens"]:
        """Return token ids, cut and padded to `context_length` as in training.

        SD 1.x and the embedded model pad with the end token. A text that does not fit is cut, with
        a warning: what was cut can make no difference to anything.
        """
        return self._ids(texts).to(self.device)

    def _ids(self, texts: Texts) -> Int64[Tensor, "texts tokens"]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = self.tokenizer(
            texts, padding="max_length", max_length=self.context_length, truncation=True
        )
        ids = torch.tensor(rows["input_ids"], dtype=torch.int64).view(-1, self.context_length)
        full = (ids[:, -2:-1] != self.tokenizer.eos_token_id).all(dim=1)
        for text in (texts[i] for i in full.nonzero().flatten().tolist()):
            if (length := len(self.tokenizer(text, verbose=False)["input_ids"])) > ids.shape[1]:
                cut = f"{length} tokens cut to the {ids.shape[1]} that {self.name} reads: {text!r}"
                warnings.warn(cut, stacklevel=3)
        return ids

    def eos_positions(self, texts: Texts) -> Int64[Tensor, "*texts"]:
        """Return the position of the first end token of each text."""
        return (self._ids(texts) == self.tokenizer.eos_token_id).int().argmax(1).to(self.device)

    def token_words(self, text: str) -> list[tuple[str, list[int]]]:
        """Return the words of `text` in order, each with the positions of the tokens that spell it.

        Position 0 is the start token. A word ends at a token whose spelling ends in "</w>".
        """
        end = int(self.eos_positions(text)[0])
        ids = self._ids(text)[0].tolist()
        words, spelling = [], []
        for position in range(1, end):
            spelling.append(position)
            token = self.tokenizer.convert_ids_to_tokens(ids[position])
            if token.endswith("</w>") or position == end - 1:
                word = self.tokenizer.decode([ids[p] for p in spelling]).strip()
                words.append((word, spelling))
                spelling = []
        return words

    def encode_text(self, texts: Texts) -> Float[Tensor, "texts tokens states"]:
        """Return the prompt embeddings: the states after the final norm, which the U-Net reads."""
        prompts = self.text_encoder(self.tokenize(texts)).last_hidden_state
        self._remember([texts] if isinstance(texts, str) else list(texts), prompts)
        return prompts

    def _remember(self, texts: list[str], prompts: Tensor) -> None:
        self._encoded.appendleft((texts, prompts.detach().mean(1)))  # (texts, states)

    def texts_of(self, prompts: Float[Tensor, "batch tokens states"]) -> list[str | None]:
        """Return the text that each row was encoded from, None where it cannot be known.

        Known are the last 64 calls of `encode_text`, by the mean state of each text. What `sample`
        guided away from counts as the empty text.
        """
        if not self._encoded:
            return [None] * len(prompts)
        texts = [text for call, _ in self._encoded for text in call]
        known = torch.cat([means for _, means in self._encoded])  # (texts, states)
        means = prompts.to(known).mean(1)[:, None]  # (batch, 1, states)
        same = torch.isclose(means, known, rtol=5e-3, atol=2e-3).all(-1)  # as half precision rounds
        newest = same.int().argmax(1).tolist()
        return [texts[i] if bool(row[i]) else None for i, row in zip(newest, same, strict=True)]

    def encode_clip_text(self, texts: Texts) -> Float[Tensor, "texts width"]:
        """Return W_t h, not normalised; h is the EOS state.

        Raises:
            ValueError: The model was loaded without CLIP.
        """
        clip = self._clip()
        return clip.text_projection(clip.text_model(self.tokenize(texts)).pooler_output)

    # -- images --------------------------------------------------------------------------------

    def encode_image(self, images: AnyImages) -> Float[Tensor, "images channels height width"]:
        """Return z0: the autoencoder's *mean* times its scaling factor.

        Nothing is sampled, so equal images give equal latents (DSD step 1). PIL images are resized
        and cropped to the model's resolution; tensors are taken at their own size.

        Raises:
            ValueError: Values outside [0, 1], or a side that no whole number of latents covers.
        """
        images = self._pixels(images, self.resolution)
        if any(side % self.vae_factor for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise ValueError(
                f"images of {height} x {width} pixels: both sides must be multiples of "
                f"{self.vae_factor}; to_tensor(images, {self.resolution}) fits them"
            )
        parts = [
            self.vae.encode(part).latent_dist.mean.float()
            for part in (2 * images - 1).to(self.vae.dtype).split(self._batch_size)
        ]
        return torch.cat(parts) * self.vae.config.scaling_factor

    def decode_latents(
        self, latents: Float[Tensor, "images channels h w"]
    ) -> Float[Tensor, "images 3 height width"]:
        """Return images in [0, 1] from scaled latents."""
        latents = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        parts = [self.vae.decode(part).sample.float() for part in latents.split(self._batch_size)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    def encode_clip_image(self, images: AnyImages, batch_size: int | None = None) -> ClipImage:
        """Return f_i as `.pooled` and W_i f_i as `.embedding`.

        Raises:
            ValueError: The model was loaded without CLIP.
        """
        clip, settings = self._clip(), self.image_processor or ImageSettings()
        images = self._pixels(images, settings.size)
        pooled = torch.cat(
            [
                clip.vision_model(settings(part)).pooler_output
                for part in images.split(batch_size or 4 * self._batch_size)
            ]
        )
        return ClipImage(pooled, clip.visual_projection(pooled))

    def _pixels(self, images: AnyImages, side: int) -> Float[Tensor, "images 3 height width"]:
        fitted = check_images(images) if isinstance(images, Tensor) else to_tensor(images, side)
        return fitted.to(self.device)

    def _clip(self) -> Any:
        if self.clip is None:
            width = self.text_encoder.config.hidden_size
            known = (self.entry and self.entry.clip_repo) or CLIP_BY_TEXT_WIDTH.get(width)
            name = known.repo_id if known else "the CLIP this model was trained with"
            command = f" Fetch it: {known.fetch_command}." if known else ""
            beside = f" Or put it into {self.folder}-clip." if self.folder is not None else ""
            raise ValueError(
                f"{self.name} was loaded without CLIP's image tower and projections.{command} "
                f"Then load_model({self.name!r}, clip=folder or hub id of {name}).{beside}"
            )
        return self.clip

    @property
    def _batch_size(self) -> int:
        """Return images per pass: 64 at 64 pixels and factor 4, 4 at 512 and factor 8."""
        return max(1, 2**14 // (self.resolution // self.vae_factor) ** 2)
