"""Trains the small byte-pair tokenizer of shapes-sd on captions of the train split.

It pads with its end-of-text token, as Stable Diffusion 1.x does: the many EOS states behind a
caption are what SD-IPC later replaces (Ding et al., arXiv 2305.12716).
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from dsd_tutorial.saving import replacing_in
from dsd_tutorial.shapes.captions import caption
from dsd_tutorial.shapes.scene import random_scenes
from lab.training.data import CONTEXT_LENGTH

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(output: Path, *, vocab_size: int = 640, captions: int = 20_000, seed: int = 0):
    """The trained `CLIPTokenizer`, also written to `output`/tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    rng = random.Random(seed)
    texts = [caption(s, rng) for s in random_scenes(captions, seed, split="train")]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    vocab, merges = _vocabulary(bpe)
    tokenizer = CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        model_max_length=CONTEXT_LENGTH,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
    )
    with replacing_in(Path(output) / "tokenizer") as partial:
        tokenizer.save_pretrained(partial)
    return tokenizer


def _vocabulary(bpe) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in CLIP's order: bytes, bytes that end a word, merges, specials."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    letters = sorted(ByteLevel.alphabet())
    words = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    words = list(dict.fromkeys(words)) + [START, END]
    return {word: i for i, word in enumerate(words)}, merges
