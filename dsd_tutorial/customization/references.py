"""SD-IPC-CT: a converted prompt, tuned for some thirty steps on the image it came from.

    custom = customize(model, image)                      # 30 steps from the closed form
    custom.draw(model, 4)                                 # and what it draws

Ding et al., arXiv 2305.12716 (METHODS.md B.7): the state h_img starts where the closed form puts
it, and the noise-prediction loss on the reference image moves it. What is tuned beside it, the
learning rates and the time steps are *ours*.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsd_tutorial.customization import files
from dsd_tutorial.customization.denoising import CHECKING, Denoising
from dsd_tutorial.customization.domain import TARGETS
from dsd_tutorial.customization.tuning import Outcome, Plan, Tuning, tune
from dsd_tutorial.projection import Inverse, eos_states, fit_inverse
from dsd_tutorial.prompt_learning import LoRA
from dsd_tutorial.stable_diffusion import StableDiffusion
from dsd_tutorial.variation import states_to_edit, states_to_prompt

STARTS = ("closed_form", "text", "random")
WHATS = ("prompt", "prompt_kv")
PACE = 0.05  # learning rate of a state, in units of its root mean square coordinate
LORA_RATE = 2e-3
FIXED = 16  # fixed noises that decide which step was best
PREVIEW_STEPS = 10  # denoising steps of a preview

Prompt = Float[Tensor, "1 tokens states"]
State = Float[Tensor, "*states"]


@dataclass
class Tuned(Outcome, ABC):
    """Learned numbers (`module`), what made them (`settings`), and how it went (`tuning`)."""

    module: nn.ModuleDict
    settings: dict[str, Any]
    tuning: Tuning = field(repr=False, default_factory=Tuning)

    kind = "tuned"

    @abstractmethod
    def prompt(self, model: StableDiffusion, text: str | None = None, **mixture: Any) -> Prompt:
        """Return the prompt of the reference image; with `text`, changed as it says.

        `mixture`: alpha, and what the text replaces, as `variation.states_to_edit` takes them.
        """

    def applied(self, model: StableDiffusion) -> AbstractContextManager:
        """Return a context in which `model` draws with what was added to it, if anything was."""
        return nullcontext()

    def draw(
        self, model: StableDiffusion, n: int = 4, text: str | None = None, **sampling: Any
    ) -> Float[Tensor, "images 3 height width"]:
        """Return `n` images; `sampling` as `model.sample` takes it."""
        with self.applied(model):
            return model.sample(embeddings=self.prompt(model, text), n=n, **sampling)

    def at(self, step: int) -> Tuned:
        """Return the state that was kept at `step`. Raises ValueError where none was."""
        if step not in self.tuning.snapshots:
            raise ValueError(
                f"no state was kept at step {step}, only at {sorted(self.tuning.snapshots)}: name "
                "it in at=(...) when tuning"
            )
        module = copy.deepcopy(self.module)
        module.load_state_dict(self.tuning.snapshots[step])
        return replace(self, module=module)

    def save(self, model: StableDiffusion, folder: str | Path) -> Path:
        """Return `folder` after writing custom.safetensors and custom.json to it."""
        return files.write(folder, model, self)


def one_vector(part: str, name: str, vector: State) -> nn.ModuleDict:
    """Return a module that learns one vector, float32, which is called part.name on disk."""
    learned = nn.Parameter(vector.detach().clone().float())
    return nn.ModuleDict({part: nn.ParameterDict({name: learned})})


class Custom(Tuned):
    """A text state tuned on a reference image, and low-rank additions to keys and values if chosen.

    It fills the positions of a prompt that the closed form would (`settings["copies"]`).
    """

    kind = "custom"

    @property
    def state(self) -> State:
        """Return h."""
        return self.module.get_parameter("state.h").detach()

    def prompt(self, model: StableDiffusion, text: str | None = None, **mixture: Any) -> Prompt:
        """Return the image prompt of the tuned state; with `text`, an editing prompt."""
        h, copies = self.state[None], self.settings["copies"]
        if text is None:
            return states_to_prompt(model, h, copies=copies)
        return states_to_edit(model, h, text, copies=copies, **mixture)

    def applied(self, model: StableDiffusion) -> AbstractContextManager:
        """Return a context in which `model` draws with the LoRA, if there is one."""
        lora = self.module["lora"] if "lora" in self.module else None
        return lora.active(model) if isinstance(lora, LoRA) else nullcontext()


def customize(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    *,
    start: str = "closed_form",
    text: str | None = None,
    inverse: Inverse | None = None,
    what: str = "prompt",
    rank: int = 4,
    steps: int = 30,
    lr: float | None = None,
    seed: int = 0,
    **plan: Any,
) -> Custom:
    """Return the `Custom` of one reference image, or of a few of one thing.

    The same seed shows every start the same noises. Ctrl-C ends it with the best so far.

    Args:
        model: stays as it is.
        images: of the reference.
        start: "closed_form", h_img (of several images the mean direction, at the calibrated
            length); "text", the EOS state of `text`; "random", a random direction, same length.
        text: to start from.
        inverse: None is the paper's; it also says how many positions h fills.
        what: "prompt", or "prompt_kv", which also tunes keys and values of cross-attention.
        rank: of the LoRA on keys and values.
        steps: of tuning.
        lr: of the state; None: 1/20 of its root mean square. That of LoRA stays in proportion.
        seed: of all draws.
        **plan: batch_size, time_steps, at, check_every, preview, ..., as `Plan` takes them.

    Raises:
        ValueError: unknown start or what, start="text" without text, or settings out of range.
    """
    for name, value, allowed in (("start", start, STARTS), ("what", what, WHATS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(allowed)}")
    inverse = inverse or fit_inverse(model, progress=plan.get("progress", True))
    h = start_state(model, images, start, text, inverse, seed)
    module = one_vector("state", "h", h)
    rate = float(PACE * h.square().mean().sqrt())
    rates = {"state": rate if lr is None else lr}
    if what == "prompt_kv":
        module["lora"] = LoRA(model, rank=rank, targets=TARGETS, seed=seed)
        rates["lora"] = LORA_RATE * rates["state"] / rate
    name = f"tuning from {start.replace('_', ' ')}"
    planned = Plan(steps, rates, name, seed=seed, **plan)
    settings = {
        "what": what, "start": start, "copies": inverse.copies, "text": text, "rank": rank,
        "steps": steps, "lr": rates["state"], "batch_size": planned.batch_size, "seed": seed,
    }  # fmt: skip
    custom, state = Custom(module, settings), module.get_parameter("state.h")

    def prompt(step: int) -> Prompt:
        return states_to_prompt(model, state[None], copies=inverse.copies)

    custom.tuning = tune(
        model, module, planned, *single_loss(planned.denoising(model, images), prompt),
        image=lambda: show(model, custom.prompt(model), seed),
        active=lambda: custom.applied(model),
    )  # fmt: skip
    return custom


def single_loss(
    denoising: Denoising, prompt: Callable[[int], Prompt]
) -> tuple[Callable[[int], dict[str, Tensor]], Callable[[], Tensor]]:
    """Return (loss, check) for `tune`: mean errors under the prompt of a step."""
    fixed = denoising.draw(0, CHECKING, FIXED)

    def loss(step: int) -> dict[str, Tensor]:
        return {"error": denoising.errors(prompt(step), denoising.draw(step)).mean()}

    return loss, lambda: denoising.errors(prompt(0), fixed).mean()


def show(model: StableDiffusion, prompt: Prompt, seed: int) -> Float[Tensor, "3 height width"]:
    """Return one quickly drawn image of a prompt."""
    return model.sample(embeddings=prompt, steps=PREVIEW_STEPS, seed=seed, progress=False)[0]


def start_state(
    model: StableDiffusion,
    images: Tensor | Sequence[Any],
    start: str,
    text: str | None,
    inverse: Inverse,
    seed: int,
) -> State:
    """Return the text state that tuning begins with."""
    if start == "text":
        if not text:
            raise ValueError("start='text' needs the text to start from, such as text='a circle'")
        return eos_states(model, [text])[0]
    if start == "random":
        numbers = torch.Generator().manual_seed(seed)
        h = torch.randn(model.unet.config.cross_attention_dim, generator=numbers)
        return inverse.length * F.normalize(h, dim=0).to(model.device)
    h = inverse(model.encode_clip_image(images))  # (images, states)
    return h[0] if len(h) == 1 else inverse.length * F.normalize(h.mean(0), dim=0)


def load_custom(model: StableDiffusion, folder: str | Path) -> Tuned:
    """Return what `customize` or `textual_inversion` made and `.save` wrote, for `model`.

    Raises FileNotFoundError, and `CustomizationMismatch` where it was learned on other weights.
    """
    from dsd_tutorial.customization.words import LearnedWord

    tensors, about = files.read(folder, (Custom.kind, LearnedWord.kind), model)
    settings = about["settings"]
    kind, part, name = Custom, "state", "h"
    if about["kind"] == LearnedWord.kind:
        kind, part, name = LearnedWord, "word", "vector"
    module = one_vector(part, name, tensors[f"{part}.{name}"])
    if settings.get("what") == "prompt_kv":
        module["lora"] = LoRA(model, rank=settings["rank"], targets=TARGETS, seed=settings["seed"])
    files.fill(module, tensors, folder)
    return kind(module.to(model.device), settings, files.recall(about["tuning"]))
