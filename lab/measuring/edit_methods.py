"""The ways to edit that are compared, each from the same references, words and noise.

A setting is what a method is turned by: alpha for SD-IPC's edits, the strength of SDEdit, the share
of steps of prompt-to-prompt. Bounds have none (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dsd_tutorial.projection.references import Chosen, References
from dsd_tutorial.shapes.judge import judge
from dsd_tutorial.variation import (
    edit_prompt,
    image_to_prompt,
    prompt_to_prompt,
    sdedit,
    source_prompts,
)
from dsd_tutorial.variation.edit_items import KINDS, Edit, make_edits

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
DIFFERENCES = (1.0, 1.5, 2.0, 2.5, 3.0)  # alpha where only the difference to a neutral text counts
REPLACING = (0.5, 0.75, 1.0, 1.5, 2.0)  # alpha where the old value is taken off
STRENGTHS = (0.5, 0.7, 0.9)
SHARES = (0.3, 0.6, 0.9)
METHODS = (
    "edit_truncated",  # SD-IPC's edit, with the paper's truncated inverse
    "edit_alternative",  # the same with the best other inverse
    # that inverse; only the difference to a neutral text is added, and the length restored (ours)
    "edit_difference",
    "edit_state",  # the same in the EOS state alone, without the words' own states (ours)
    # the same, but what is taken off is what CLIP says of the image: a red object for a blue object
    "edit_replace",
    # the same where something is to go; where an object is only added, the words stand in front,
    # the image alone behind them: the paper's formula at alpha 0 (ours)
    "edit_both",
    "sdedit",  # SDEdit with the words of the edit
    "image_truncated",  # the image alone, truncated inverse: how often `changed` comes by itself
    "image_alternative",  # the same with the best other inverse
    "words",  # the words of the edit alone: how often `kept` comes by itself
    "caption",  # a caption of what is wanted, without the image: an upper bound
    "sdedit_caption",  # SDEdit with that caption: it is told what to keep
    "prompt_to_prompt",  # from the reference's true caption to that caption, without the image
)
NEAREST = "nearest"  # of the edit's values, by CLIP
_OURS = {"neutral": "an object", "rescale": True}
EDITS = {  # method -> inverse, options of edit_prompt
    "edit_truncated": ("truncated", {}),
    "edit_alternative": ("alternative", {}),
    "edit_difference": ("alternative", _OURS),
    "edit_state": ("alternative", {**_OURS, "words": False}),
    "edit_replace": ("alternative", {**_OURS, "words": False, "neutral": NEAREST}),
    "edit_both": ("alternative", {"source_prompt": NEAREST}),
}
GRIDS = {
    "edit_truncated": ALPHAS,
    "edit_alternative": ALPHAS,
    "edit_difference": DIFFERENCES,
    "edit_state": DIFFERENCES,
    "edit_replace": REPLACING,
    "edit_both": REPLACING,
    "sdedit": STRENGTHS,
    "sdedit_caption": STRENGTHS,
    "prompt_to_prompt": SHARES,
}
ONE_SEED = ("words", "caption", "sdedit_caption", "prompt_to_prompt")  # bounds
PART = 8 * len(KINDS)  # edits drawn at once: whole references


@dataclass(frozen=True, eq=False)
class EditSet:
    """References of one split, their edits, and everything with which images are drawn."""

    references: References
    chosen: Chosen
    plan: Any  # an `EditingPlan`
    seed: int

    @cached_property
    def edits(self) -> list[Edit]:
        """One of every kind for each reference, reference by reference."""
        return make_edits(self.references.scenes, self.seed)

    @cached_property
    def replaced(self) -> list[str]:
        """What each edit replaces, in words, as CLIP sees the reference."""
        images = self.references.images.repeat_interleave(len(KINDS), 0)
        return source_prompts(self.references.model, images, [edit.text for edit in self.edits])

    @torch.no_grad()
    def draw(self, method: str, setting: float, rows: slice, number: int) -> Tensor:
        """Return images (edits, 3, height, width) of the edits in `rows`, whole references.

        `number` counts the noises. All edits of a reference start from one noise, in all methods:
        what differs between two images of it is what was requested, or the method.
        """
        model, edits = self.references.model, self.edits[rows]
        which = range(len(self.edits))[rows]
        places = [i // len(KINDS) for i in which]  # of the references
        seeds = [self.seed + 10_000 * number + place for place in places]
        shared = {"steps": self.plan.steps, "guidance": self.plan.guidance, "progress": False}
        words, targets = [e.text for e in edits], [e.target for e in edits]
        if method.startswith("image_"):
            return self._images_alone(method, places, seeds, shared)
        if method == "prompt_to_prompt":
            pairs = ([e.source for e in edits], targets)
            return prompt_to_prompt(model, *pairs, share=setting, seed=seeds, **shared)[:, 1]
        images = self.references.images[places]
        if method.startswith("sdedit"):
            texts = targets if method == "sdedit_caption" else words
            return sdedit(model, images, texts, strength=setting, seed=seeds, **shared)
        if method in ("words", "caption"):
            prompts = model.encode_text(words if method == "words" else targets)
        else:
            name, own = EDITS[method]
            inverse, options = getattr(self.chosen, name), {"copies": self.plan.copies, **own}
            if options.get("source_prompt") == NEAREST:
                options["source_prompt"] = self.replaced[rows]
            elif options.get("neutral") == NEAREST:
                options["neutral"] = [text or _OURS["neutral"] for text in self.replaced[rows]]
            prompts = edit_prompt(model, images, words, inverse, alpha=setting, **options)
        return model.sample(embeddings=prompts, seed=seeds, **shared)

    def _images_alone(
        self, method: str, places: Sequence[int], seeds: Sequence[int], shared: dict[str, Any]
    ) -> Tensor:
        """One variation of each reference, the same for all its edits."""
        inverse, each = getattr(self.chosen, method.removeprefix("image_")), len(KINDS)
        images = self.references.images[list(places[::each])]
        prompts = image_to_prompt(self.references.model, images, inverse, copies=self.plan.copies)
        drawn = self.references.model.sample(embeddings=prompts, seed=seeds[::each], **shared)
        return drawn.repeat_interleave(each, 0)

    def measure(self, method: str, setting: float, seeds: int) -> tuple[list[bool], list[bool]]:
        """Return what is changed and what is kept, noise by noise, edit by edit."""
        changed, kept = [], []
        for number in range(seeds):
            for start in range(0, len(self.edits), PART):
                rows = slice(start, start + PART)
                images = self.draw(method, setting, rows, number)
                for edit, verdict in zip(self.edits[rows], judge(images), strict=True):
                    answer = edit.judged(verdict)
                    changed.append(answer[0])
                    kept.append(answer[1])
        return changed, kept
