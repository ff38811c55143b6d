"""SD-IPC-CT: a converted prompt, tuned for some thirty steps on the picture it came from.

    custom = customize(model, picture)                    # 30 steps from the closed form
    custom.draw(model, 4)                                 # and what it draws

Ding et al., arXiv 2305.12716 (METHODS.md B.7): the state h_img starts where the closed form puts
it, and the noise-prediction loss on the reference moves it. What is tuned beside it, the learning
rates and the time steps are *ours*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsd_tutorial.customization import files
from dsd_tutorial.customization.denoising import CHECKING, Denoising, training_pass
from dsd_tutorial.customization.sequences import ALPHA, image_frame
from dsd_tutorial.customization.tuned import Tuned
from dsd_tutorial.customization.tuning import Plan, Preview, tune
from dsd_tutorial.projection import Inverse, eos_states, fit_inverse
from dsd_tutorial.prompt_learning import LoRA
from dsd_tutorial.variation import states_to_edit

STARTS = ("closed_form", "text", "random")
WHATS = ("prompt", "prompt_kv")
PACE = 0.05  # learning rate of a state, in units of its root mean square coordinate
LORA_RATE = 2e-3
FIXED = 16  # fixed noises that decide which step was best
PREVIEW_STEPS = 10  # denoising steps of a preview


class State(nn.Module):
    """h (d,): one text state."""

    def __init__(self, h: Tensor):
        super().__init__()
        self.h = nn.Parameter(h.detach().clone().float())


class Custom(Tuned):
    """A text state tuned on a reference, and low-rank additions to keys and values if asked for.

    It fills the positions of a prompt that the closed form would (`settings["copies"]`).
    """

    kind = "custom"

    @property
    def state(self) -> Tensor:
        """Return h, (d,)."""
        return self.module["state"].h.detach()

    def prompt(self, model: Any, text: str | None = None) -> Tensor:
        if text is not None:
            return self.edit_prompt(model, text)
        return image_frame(model, self.settings["copies"])(self.state[None])

    def edit_prompt(
        self, model: Any, text: str, alpha: float = ALPHA, *, gone: str | None = None
    ) -> Tensor:
        how = {"alpha": alpha, "copies": self.settings["copies"], "source_prompt": gone}
        return states_to_edit(model, self.state[None], text, **how)

    def applied(self, model: Any) -> AbstractContextManager:
        return self.module["lora"].active(model) if "lora" in self.module else nullcontext()


def customize(
    model: Any,
    images: Tensor | Sequence[Any],
    *,
    start: Literal["closed_form", "text", "random"] = "closed_form",
    text: str | None = None,
    inverse: Inverse | None = None,
    what: Literal["prompt", "prompt_kv"] = "prompt",
    rank: int = 4,
    steps: int = 30,
    lr: float | None = None,
    batch_size: int = 8,
    time_steps: tuple[int, int] | None = None,
    seed: int = 0,
    at: Sequence[int] = (),
    check_every: int | None = None,
    preview: Preview | None = None,
    preview_every: int = 10,
    dtype: torch.dtype | str | None = None,
    gradient_checkpointing: bool = False,
    progress: bool = True,
) -> Custom:
    """Return the `Custom` of one reference picture, or of a few of one thing.

    start       "closed_form": h_img (of several pictures the mean direction, at the calibrated
                length); "text": the end state of `text`; "random": a random direction, same length
    inverse     None is the paper's; it also says how many positions h fills
    what        "prompt_kv" also tunes keys and values of cross-attention, by LoRA of `rank`
    lr          of the state; None: 1/20 of its root mean square. That of LoRA stays in proportion
    time_steps  (first, end) to draw from; None: `usual_time_steps`
    at          steps whose state is kept for `Custom.at`
    preview     called as preview(step, picture (3, height, width)) every `preview_every` steps

    The same seed shows every start the same noises. Ctrl-C ends it with the best so far.
    Raises ValueError for unknown words, start="text" without text, or settings out of range.
    """
    check_words(start, what, text)
    inverse = inverse or fit_inverse(model, progress=progress)
    with torch.no_grad():
        latents = model.encode_image(images)
        seen = inverse(model.encode_clip_image(images)) if start == "closed_form" else None
        h = start_state(model, start, seen, text, inverse.length, seed)
    module = nn.ModuleDict({"state": State(h)})
    rate = float(PACE * h.square().mean().sqrt())
    rates = {"state": rate if lr is None else lr}
    if what == "prompt_kv":
        module["lora"] = LoRA(model, rank=rank, targets=("to_k", "to_v"), seed=seed)
        rates["lora"] = LORA_RATE * rates["state"] / rate
    frame, state = image_frame(model, inverse.copies), module["state"]
    settings = {
        "what": what, "start": start, "copies": inverse.copies, "text": text, "rank": rank,
        "steps": steps, "lr": rates["state"], "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    custom = Custom(module, settings)
    denoising = Denoising(
        model, latents, batch_size=batch_size, time_steps=time_steps, seed=seed, dtype=dtype
    )
    plan = Plan(
        steps, rates, every=check_every, at=tuple(at), preview_every=preview_every,
        progress=progress, name=f"tuning from {start.replace('_', ' ')}",
    )  # fmt: skip
    with training_pass(model, gradient_checkpointing):
        custom.tuning = tune(
            model, module, plan, *single_loss(denoising, lambda step: frame(state.h[None])),
            active=lambda: custom.applied(model),
            picture=lambda: show(model, custom.prompt(model), seed), preview=preview,
        )  # fmt: skip
    return custom


def single_loss(
    denoising: Denoising, context: Callable[[int], Tensor]
) -> tuple[Callable[[int], dict[str, Tensor]], Callable[[], Tensor]]:
    """Return (loss, check) for `tune`: mean errors under the prompt `context(step)`, (1, L, d)."""
    fixed = denoising.draw(0, CHECKING, FIXED)

    def loss(step: int) -> dict[str, Tensor]:
        return {"error": denoising.errors(context(step), denoising.draw(step)).mean()}

    return loss, lambda: denoising.errors(context(0), fixed).mean()


def show(model: Any, prompt: Tensor, seed: int) -> Tensor:
    """Return one quickly drawn picture of a prompt (1, L, d): (3, height, width)."""
    return model.sample(embeddings=prompt, steps=PREVIEW_STEPS, seed=seed, progress=False)[0]


def check_words(start: str, what: str, text: str | None) -> None:
    """Raises ValueError for an unknown start or what, and for start="text" without text."""
    for name, value, allowed in (("start", start, STARTS), ("what", what, WHATS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(allowed)}")
    if start == "text" and not text:
        raise ValueError("start='text' needs the text to start from, such as text='a circle'")


def start_state(
    model: Any, start: str, seen: Tensor | None, text: str | None, length: float, seed: int
) -> Tensor:
    """Return the state (d,) that tuning begins with; `seen` are h_img (pictures, d)."""
    if start == "text":
        return eos_states(model, [text])[0]
    if start == "random":
        numbers = torch.Generator().manual_seed(seed)
        h = torch.randn(model.unet.config.cross_attention_dim, generator=numbers)
        return length * F.normalize(h, dim=0).to(model.device)
    return seen[0] if len(seen) == 1 else length * F.normalize(seen.mean(0), dim=0)


def load_custom(model: Any, folder: Any) -> Tuned:
    """Return what `customize` or `textual_inversion` made and `.save` wrote, for `model`.

    Raises FileNotFoundError, and `CustomizationMismatch` where it was learned on other weights.
    """
    from dsd_tutorial.customization.words import LearnedWord, Word

    tensors, about = files.read(folder, (Custom.kind, LearnedWord.kind), model)
    settings, tuning = about["settings"], files.recall(about["tuning"])
    if about["kind"] == LearnedWord.kind:
        kind, module = LearnedWord, nn.ModuleDict({"word": Word(tensors["word.vector"])})
    else:
        kind, module = Custom, nn.ModuleDict({"state": State(tensors["state.h"])})
        if settings["what"] == "prompt_kv":
            module["lora"] = LoRA(
                model, rank=settings["rank"], targets=("to_k", "to_v"), seed=settings["seed"]
            )
    files.check_shapes(tensors, {k: v.shape for k, v in module.state_dict().items()}, folder)
    module.load_state_dict(tensors)
    return kind(module.to(model.device), settings, tuning)
