"""Readings: what the cross-attention logits of one layer say about a caption, as one number.

    roles = roles_of(model, ["a red ring left of a blue square"])
    READINGS["direction"](logits, roles)          # (batch,): does the ring lie to the left?

The paper's score is the first, the log-sum-exp over tokens (He et al., arXiv 2305.10722): it asks
whether the image's pixels find anything in the caption. The others ask for structure (*ours*, but
for `word_log_sum_exp`, which pools as TransAgent does): where a word's logits are high, and whether
that is where the caption says. They read the mean of the heads' logits, since one head's map is
noisy. All that ask about words have a twin that reads the words' maps in place of their logits, as
"map_direction" does. A reading is 0 for a caption to which it does not apply. Which word is what
comes from `roles.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.attention.roles import Roles

SHARPNESS = 2.0  # of a word's map when its centre is taken, in its own standard deviations

Logits = Float[Tensor, "batch heads pixels tokens"]
PerText = Float[Tensor, " batch"]
Field = Float[Tensor, "batch things pixels"]


# -- fields: the logits of words over the pixels ------------------------------------------------


def _of(logits: Logits, weights: Float[Tensor, "batch things tokens"]) -> Field:
    return torch.einsum("bpt,bkt->bkp", logits[:, 0], weights)  # of one view, see `VIEWS`


def _present(weights: Float[Tensor, "batch things tokens"]) -> Float[Tensor, "batch things"]:
    return weights.sum(-1).round()


def _mean(values: Float[Tensor, "batch things"], present: Float[Tensor, "batch things"]) -> PerText:
    """Mean over the things that are there, 0 for none."""
    return (values * present).sum(-1) / present.sum(-1).clamp(min=1)


def _standard(field: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Mean 0 and standard deviation 1 over the pixels."""
    return (field - field.mean(-1, keepdim=True)) / (field.std(-1, keepdim=True) + 1e-6)


def _where(field: Field) -> Field:
    """A map over pixels that sums to 1: where the word's logits are highest."""
    return (SHARPNESS * _standard(field)).softmax(-1)


def _correlation(a: Float[Tensor, "*axes"], b: Float[Tensor, "*axes"]) -> Tensor:
    return (_standard(a) * _standard(b)).sum(-1) / (a.shape[-1] - 1)


def _log_mean_exp(field: Float[Tensor, "*axes"]) -> Tensor:
    return field.logsumexp(-1) - math.log(field.shape[-1])


def _centre(field: Field) -> Float[Tensor, "batch things 2"]:
    """Where the word lies, x and y from -1 to 1; the pixels are those of a square."""
    side = math.isqrt(field.shape[-1])
    if side * side != field.shape[-1]:
        raise ValueError(
            f"{field.shape[-1]} pixels are no square: direction and place are read on square "
            "images only; crop them, or choose another reading"
        )
    line = torch.linspace(-1, 1, side, device=field.device, dtype=field.dtype)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).view(-1, 2)
    return _where(field) @ grid


# -- readings ------------------------------------------------------------------------------------


def log_sum_exp_over_tokens(logits: Logits, roles: Roles) -> PerText:
    """Return the paper's score: log-sum-exp over all tokens, mean over pixels."""
    return logits.logsumexp(-1).mean((1, 2))


def mean_logit(logits: Logits, roles: Roles) -> PerText:
    """Return the attention-weighted mean of the logits, mean over pixels."""
    return (logits.softmax(-1) * logits).sum(-1).mean((1, 2))


def word_log_sum_exp(logits: Logits, roles: Roles) -> PerText:
    """Return the log-mean-exp over pixels of each noun and adjective, mean over these words."""
    words = torch.cat([roles.nouns, roles.adjectives], 1)
    return _mean(_log_mean_exp(_of(logits, words)), _present(words))


def noun_logit(logits: Logits, roles: Roles) -> PerText:
    """Return the mean logit of the nouns."""
    return _mean(_of(logits, roles.nouns).mean(-1), _present(roles.nouns))


def adjective_logit(logits: Logits, roles: Roles) -> PerText:
    """Return the mean logit of the adjectives."""
    return _mean(_of(logits, roles.adjectives).mean(-1), _present(roles.adjectives))


def peak(logits: Logits, roles: Roles) -> PerText:
    """Return how far a noun's highest logit stands above its mean: is there such a thing?"""
    field = _of(logits, roles.nouns)
    return _mean(field.amax(-1) - field.mean(-1), _present(roles.nouns))


def spread(logits: Logits, roles: Roles) -> PerText:
    """Return the standard deviation over pixels of the nouns' logits."""
    return _mean(_of(logits, roles.nouns).std(-1), _present(roles.nouns))


def apart(logits: Logits, roles: Roles) -> PerText:
    """Return minus the correlation of two nouns' maps: do they fall on different pixels?"""
    maps = _of(logits.softmax(-1), roles.nouns)
    return -_correlation(maps[:, 0], maps[:, 1]) * _present(roles.nouns).prod(-1)


def agreement(logits: Logits, roles: Roles) -> PerText:
    """Return how much higher noun and adjective reach together than each alone, over pixels."""
    noun, adjective = _of(logits, roles.nouns), _of(logits, roles.adjectives)
    gain = _log_mean_exp(noun + adjective) - _log_mean_exp(noun) - _log_mean_exp(adjective)
    return _mean(gain, _present(roles.nouns) * _present(roles.adjectives))


def adjective_at_noun(logits: Logits, roles: Roles) -> PerText:
    """Return an adjective's logit where its noun is, above its mean over the image."""
    where, adjective = _where(_of(logits, roles.nouns)), _of(logits, roles.adjectives)
    there = (where * adjective).sum(-1) - adjective.mean(-1)
    return _mean(there, _present(roles.nouns) * _present(roles.adjectives))


def binding(logits: Logits, roles: Roles) -> PerText:
    """Return an adjective's logit at its own noun minus at the other noun, mean over both."""
    where, adjective = _where(_of(logits, roles.nouns)), _of(logits, roles.adjectives)
    own, other = (where * adjective).sum(-1), (where.flip(1) * adjective).sum(-1)
    both = _present(roles.nouns).prod(-1, keepdim=True)
    return _mean(own - other, _present(roles.adjectives) * both)


def direction(logits: Logits, roles: Roles) -> PerText:
    """Return how far the first noun lies from the second in the direction that is said."""
    centres = _centre(_of(logits, roles.nouns))
    return ((centres[:, 0] - centres[:, 1]) * roles.direction).sum(-1)


def place(logits: Logits, roles: Roles) -> PerText:
    """Return minus the squared distance of a noun from the place where it is said to be."""
    said = roles.place.isfinite().all(-1).float()
    centre = _centre(_of(logits, roles.nouns) + _of(logits, roles.adjectives))
    far = (centre - roles.place.nan_to_num()).square().sum(-1)
    return _mean(-far, said * _present(roles.nouns))


def size(logits: Logits, roles: Roles) -> PerText:
    """Return the entropy of a noun's map, minus half of the most there can be, signed by the size.

    A large thing has a wide map.
    """
    where = _where(_of(logits, roles.nouns))
    entropy = -torch.special.xlogy(where, where).sum(-1) / math.log(where.shape[-1])
    return _mean((entropy - 0.5) * roles.size, _present(roles.nouns))


def ground(logits: Logits, roles: Roles) -> PerText:
    """Return the mean logit of the background's adjective."""
    return _of(logits, roles.ground[:, None])[:, 0].mean(-1)


def ground_apart(logits: Logits, roles: Roles) -> PerText:
    """Return minus the correlation of the background's adjective and the first noun."""
    field, noun = _of(logits, roles.ground[:, None])[:, 0], _of(logits, roles.nouns)[:, 0]
    there = _present(roles.ground[:, None])[:, 0] * _present(roles.nouns)[:, 0]
    return -_correlation(field, noun) * there


# -- all of them by name -------------------------------------------------------------------------

# What a reading reads: the logits of every head, their mean over the heads, or that of the
# log-probabilities, the logarithm of the attention maps.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "heads": lambda logits: logits,
    "mean": lambda logits: logits.mean(1, keepdim=True),
    "maps": lambda logits: logits.log_softmax(-1).mean(1, keepdim=True),
}


@dataclass(frozen=True)
class Reading:
    """A reading of the logits: what is computed, and from which view of them."""

    of: Callable[[Tensor, Roles], Tensor]
    view: str = "mean"

    def __call__(self, logits: Logits, roles: Roles) -> PerText:
        """Return one number for each text of the batch."""
        return self.of(VIEWS[self.view](logits), roles)


OF_LOGITS = {
    "log_sum_exp": Reading(log_sum_exp_over_tokens, "heads"),
    "mean_logit": Reading(mean_logit, "heads"),
    "word_log_sum_exp": Reading(word_log_sum_exp),
    "noun_logit": Reading(noun_logit),
    "adjective_logit": Reading(adjective_logit),
    "peak": Reading(peak),
    "spread": Reading(spread),
    "apart": Reading(apart),
    "agreement": Reading(agreement),
    "adjective_at_noun": Reading(adjective_at_noun),
    "binding": Reading(binding),
    "direction": Reading(direction),
    "place": Reading(place),
    "size": Reading(size),
    "ground": Reading(ground),
    "ground_apart": Reading(ground_apart),
}
# A pixel's logits are high or low for all tokens alike, so a noun's highest logits need not lie on
# the thing; its share of the attention is free of that. `apart` reads maps as it is; of all tokens
# together, maps say nothing.
OF_MAPS = {
    f"map_{name.removesuffix('_logit')}": Reading(reading.of, "maps")
    for name, reading in OF_LOGITS.items()
    if reading.view == "mean" and name != "apart"
}
READINGS = OF_LOGITS | OF_MAPS


def readings_of(
    logits: Logits, roles: Roles, names: Sequence[str]
) -> Float[Tensor, "readings batch"]:
    """Return several readings of the logits of one layer.

    Raises:
        ValueError: an unknown reading.
    """
    check_readings(names)
    chosen = [READINGS[name] for name in names]
    views = {view: VIEWS[view](logits) for view in {r.view for r in chosen}}  # once for all
    return torch.stack([r.of(views[r.view], roles) for r in chosen])


def check_readings(names: Sequence[str]) -> None:
    """Raise ValueError for a reading that there is none of, or for none at all."""
    unknown = [name for name in names if name not in READINGS]
    if unknown or not names:
        what = f"unknown reading {unknown[0]!r}" if unknown else "no reading is named"
        raise ValueError(f"{what}; choose from {', '.join(READINGS)}")
