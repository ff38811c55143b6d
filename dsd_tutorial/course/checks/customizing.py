"""The exercises on fine-tuning (notebook 04): what is inserted, and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dsd_tutorial.course.checks.exercise import Exercise, normal

# -- insert_prompts(tokens, prompts, old): (batch, 1 + old + patches, d), (n, d), int
#    -> (batch, 1 + n + patches, d) ---------------------------------------------------------------


def _parts(tokens: Tensor, prompts: Tensor, old: int) -> tuple[Tensor, Tensor, Tensor]:
    """(class token, prompts for every image, patches)."""
    many = prompts.expand(len(tokens), -1, -1)
    return tokens[:, :1], many, tokens[:, 1 + old :]


def _insert(tokens: Tensor, prompts: Tensor, old: int) -> Tensor:
    return torch.cat(_parts(tokens, prompts, old), 1)


def _overwrite(tokens: Tensor, prompts: Tensor, old: int) -> Tensor:
    written = tokens.clone()
    written[:, 1 : 1 + len(prompts)] = prompts
    return written


def _ordered(*order: int) -> Callable[[Tensor, Tensor, int], Tensor]:
    return lambda x, p, old: torch.cat([_parts(x, p, old)[i] for i in order], 1)


insert_prompts = Exercise(
    name="insert_prompts",
    hint="Count: how many tokens come in, how many must go out, and is every patch among them?",
    solution=_insert,
    cases=[
        (torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[7.0]]), 0),
        (normal(2, 6, 3), normal(2, 3, seed=1), 0),
        (normal(2, 8, 3, seed=2), normal(2, 3, seed=3), 2),
        (normal(3, 9, 4, seed=4), normal(3, 4, seed=5), 2),
    ],
    mistakes={
        "patches overwritten": (
            "Those tokens were part of the image, and no later layer gets them back: insert.",
            "Concatenate class token, prompts and patches: the sequence grows by n.",
            _overwrite,
            lambda x, p, old: _overwrite(torch.cat([x[:, :1], x[:, 1 + old :]], 1), p, 0),
        ),
        "old prompts left in": (
            "They are the prompts of the layer before: the sequence would grow at every layer.",
            "Drop positions 1 to old: the patches begin at 1 + old.",
            lambda x, p, old: _insert(x, p, 0),
            lambda x, p, old: torch.cat(
                [x[:, : 1 + old], p.expand(len(x), -1, -1), x[:, 1 + old :]], 1
            ),
        ),
        "before the class token": (
            "CLIP reads its answer at position 0, and it would read a prompt there.",
            "Keep the class token at position 0.",
            _ordered(1, 0, 2),
        ),
        "behind the patches": (
            "The next layer replaces what follows the class token: it would replace patches.",
            "Put the prompts between class token and patches.",
            _ordered(0, 2, 1),
        ),
        "added to the patches": (
            "A sum disturbs the patches it falls on, and brings no token of its own.",
            "Concatenate, do not add.",
            lambda x, p, old: torch.cat([x[:, :1], x[:, 1:] + p.mean(0)], 1),
        ),
        "class token lost": (
            "Position 0 holds what CLIP reads in the end.",
            "Begin with tokens[:, :1].",
            _ordered(1, 2),
        ),
    },
)


# -- trained(names): parameter names of a U-Net -> one bool each ----------------------------------


def _judged_wrongly(args: tuple[list[str]], got: Tensor, want: Tensor) -> str:
    """The first name that is judged wrongly, and how."""
    name, trained = next(
        (name, mine)
        for name, mine, right in zip(args[0], got.bool(), want, strict=True)
        if mine != right
    )
    said, true = ("is trained", "stays frozen") if trained else ("stays frozen", "is trained")
    return f"By your answer `{name}` {said}, but it {true}."


def _block(where: str) -> list[str]:
    """The names of one transformer block's parameters, as diffusers gives them."""
    parts = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    attention = [f"{attn}.{part}" for attn in ("attn1", "attn2") for part in parts]
    inside = ("norm2.weight", *attention, "ff.net.2.weight")
    return [f"{where}.proj_in.weight", *(f"{where}.transformer_blocks.0.{x}" for x in inside)]


NAMES = [
    "conv_in.weight",
    "time_embedding.linear_1.weight",
    *_block("down_blocks.0.attentions.0"),
    "down_blocks.0.resnets.0.conv1.weight",
    *_block("mid_block.attentions.0"),
    *_block("up_blocks.2.attentions.1"),
    "conv_out.bias",
]


def _named(*needed: str, but: Sequence[str] = ()) -> Callable[[list[str]], Tensor]:
    """Whether a name holds one of `needed` and none of `but`."""
    return lambda names: torch.tensor(
        [any(x in n for x in needed) and not any(x in n for x in but) for n in names]
    )


trained = Exercise(
    name="trained",
    hint="Print the names that contain `attn`. One number tells self-attention from "
    "cross-attention; which matrices read the prompt, and which the pixels?",
    solution=_named("attn2.to_k", "attn2.to_v"),
    evidence=_judged_wrongly,
    cases=[(NAMES,), (_block("up_blocks.0.attentions.0") + _block("mid_block.attentions.0"),)],
    mistakes={
        "self-attention trained too": (
            "attn1 never sees the prompt: trained, it changes how everything is drawn.",
            'Ask for "attn2.to_k" and "attn2.to_v", not only for "to_k" and "to_v".',
            _named("to_k", "to_v"),
        ),
        "self-attention instead of cross-attention": (
            "attn1 is pixels among themselves; the prompt enters in attn2.",
            'Ask for "attn2".',
            _named("attn1.to_k", "attn1.to_v"),
        ),
        "values forgotten": (
            "A key says where a token acts, a value what it adds: a new texture needs new values.",
            'Take "attn2.to_v" as well.',
            _named("attn2.to_k"),
        ),
        "keys forgotten": (
            "A value says what is said, a key says where a token is heard.",
            'Take "attn2.to_k" as well.',
            _named("attn2.to_v"),
        ),
        "queries trained too": (
            "Queries come from pixels: they know nothing of the prompt, and all captions use them.",
            "Leave to_q frozen.",
            _named("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        ),
        "all of cross-attention": (
            "Only keys and values read the prompt; more needs more images, and forgets more.",
            "Take to_k and to_v only.",
            _named("attn2"),
            _named("attn2", but=("to_q",)),
            _named("attn2", but=("bias",)),
        ),
        "the whole U-Net": (
            "A hundred images cannot set millions of weights: they would be learned by heart.",
            'Choose by name: "attn2.to_k" and "attn2.to_v".',
            lambda names: torch.ones(len(names), dtype=torch.bool),
        ),
    },
)
