"""Fit an adapter to a handful of labelled items, and keep the step that validation likes best.

    fitted = fit(model, SoftPrompt(model), "comvg", shots=16, scoring=Scoring(token_mask="words"))
    fitted.history                                       # a data frame, row 0 is zero-shot
    scores = fitted.scores(model, make_task("comvg", 300))

Loss and margin follow He et al., arXiv 2305.10722 (`objectives`); all pairs of a step share one
(t, e), so that a candidate cannot win by an easier noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching import Components
from dsd_tutorial.matching.cost import Cost, Memory, measure
from dsd_tutorial.prompt_learning import files
from dsd_tutorial.prompt_learning.adapters import Adapter, Scoring, unchanged
from dsd_tutorial.prompt_learning.loop import Loop
from dsd_tutorial.prompt_learning.objectives import headline, loss_function
from dsd_tutorial.prompt_learning.scoring import evaluate_items
from dsd_tutorial.prompt_learning.sources import Cached, Passes
from dsd_tutorial.prompt_learning.weights import HeadWeights
from dsd_tutorial.shapes.tasks import Task, few_shot, validation_set

LOOKED_AT = 32  # validation items, which are scored anew every few steps


@dataclass
class Fit:
    """A fitted adapter, and how it came about.

    Attributes:
        adapter: With the parameters of `best_step`.
        scoring: How components become a score.
        history: One row per step: step, loss, accuracy (running), validation_accuracy,
            validation_loss, unet_passes so far.
        best_step: 0: nothing beat zero-shot on validation.
        accuracy: On the validation items at `best_step`; None without validation.
        loss: Likewise.
        zero_shot: Accuracy on the few-shot items and on the validation items before any step.
        scale: The zero-shot spread that losses and margins are counted in.
        stopped: "end" or "interrupted".
        cost: U-Net passes (validation included), parameters, labels (few-shot and validation
            items), seconds.
        peak_memory: Bytes of the process (CPU) or of the allocator (CUDA) at the most.
    """

    adapter: Adapter
    scoring: Scoring
    history: pd.DataFrame
    best_step: int
    accuracy: float | None
    loss: float | None
    zero_shot: tuple[float, float | None]
    scale: float
    stopped: str
    cost: Cost
    peak_memory: int

    def scores(self, model: Any, items: Task, **settings: Any) -> Float[Tensor, "items pairs"]:
        """Return the scores of other items, with settings as in `evaluate_items`."""
        return evaluate_items(model, items, self.adapter, self.scoring, **settings)

    def save(self, model: Any, folder: str | Path) -> Path:
        """Return the folder after writing adapter and scoring to it; `files.load` reads them."""
        return files.save(self.adapter, model, folder, self.scoring)


def fit(
    model: Any,
    adapter: Adapter,
    task: str | Task,
    *,
    shots: int = 16,
    steps: int | None = None,
    loss: Literal["hinge", "infonce"] = "hinge",
    margin: float = 1.0,
    lr: float | None = None,
    diffusion_weight: float = 0.0,
    seed: int = 0,
    scoring: Scoring | None = None,
    validation: Task | Literal[False] | None = None,
    check_every: int | None = None,
    batch_pairs: int = 32,
    negatives: int | None = 3,
    parts: tuple[Components, Components | None] | None = None,
    progress: bool = True,
) -> Fit:
    """Return the `Fit` of `adapter`, which is changed in place, to a few labelled items.

    Ctrl-C ends it with the best so far.

    Args:
        model: A `StableDiffusion`; it stays as it is.
        adapter: What is learned.
        task: A task's name: the few-shot items of `seed`; or a `Task`, whose items are all used.
        shots: How many items, where the task is a name.
        steps: None is the adapter's own number.
        loss: "hinge" on the hardest negative, or "infonce"; both in zero-shot spreads.
        margin: Of the hinge, in zero-shot spreads (so 0.1, the released code's, asks for little).
        lr: Learning rate; None is the adapter's own.
        diffusion_weight: Of the noise error on right pairs, so that the model keeps drawing.
        seed: Draws items, batches and noises.
        scoring: How components become a score; None has its defaults.
        validation: Items; None is the first `LOOKED_AT` of the task's fixed validation set, False
            is none at all.
        check_every: Steps from one look at validation to the next; None is the adapter's own.
        batch_pairs: Pairs per U-Net pass, about.
        negatives: Drawn per step from a long list of candidates; None takes all.
        parts: (few-shot, validation) components computed before, for cached adapters.
        progress: Whether a progress bar is shown.

    Raises:
        ValueError: settings out of range.
        RuntimeError: the model's own weights were changed, or the loss is no number.
    """
    scoring = scoring or Scoring()
    items = few_shot(task, shots, seed) if isinstance(task, str) else task
    if validation is None:
        validation = validation_set(items.name, LOOKED_AT)
    known = validation or None
    steps = adapter.steps if steps is None else steps
    if steps < 0 or batch_pairs < 1 or (negatives is not None and negatives < 1):
        raise ValueError(
            f"steps={steps}, batch_pairs={batch_pairs}, negatives={negatives}: too small"
        )
    objective = loss_function(loss, margin)
    every = check_every or max(1, steps // adapter.checks)
    memory = Memory(model.device)
    with measure(model) as meter, unchanged(model):
        if isinstance(adapter, HeadWeights):
            source = Cached(model, adapter, items, known, scoring, parts, progress)
        else:
            source = Passes(
                model, adapter, items, known, scoring, seed=seed, batch_pairs=batch_pairs,
                negatives=negatives, drawing=diffusion_weight != 0, progress=progress,
            )  # fmt: skip
        loop = Loop(
            adapter, source, objective, steps, every, adapter.lr if lr is None else lr,
            diffusion_weight, meter, memory,
        )  # fmt: skip
        loop.run(headline(items, source.start), progress)
    labels = len(items.items) + (len(known.items) if known else 0)
    return _summary(
        loop, scoring, source.scale, meter.cost(adapter.size, labels), known is not None
    )


def _summary(loop: Loop, scoring: Scoring, scale: float, cost: Cost, checked: bool) -> Fit:
    history = pd.DataFrame(loop.rows)
    first = history.iloc[0]
    return Fit(
        adapter=loop.adapter,
        scoring=scoring,
        history=history,
        best_step=loop.best_step,
        accuracy=loop.best[0] if checked else None,
        loss=-loop.best[1] if checked else None,
        zero_shot=(
            float(first["accuracy"]),
            float(first["validation_accuracy"]) if checked else None,
        ),
        scale=scale,
        stopped=loop.stopped,
        cost=cost,
        peak_memory=loop.memory.peak,
    )
