"""Fit an adapter to a handful of labelled items, and keep the step that validation likes best.

    fitted = fit(model, SoftPrompt(model), "comvg", shots=16, token_mask="words")
    fitted.history                                       # a data frame, row 0 is zero-shot
    scores = fitted.scores(model, make_task("comvg", 300))

Loss and margin follow He et al., arXiv 2305.10722 (`objectives`); all pairs of a step share one
(t, e), so that a candidate cannot win by an easier noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.parts import Components
from dsd_tutorial.prompt_learning import files
from dsd_tutorial.prompt_learning.adapters import Adapter
from dsd_tutorial.prompt_learning.guards import Memory, unchanged
from dsd_tutorial.prompt_learning.loop import Loop
from dsd_tutorial.prompt_learning.objectives import headline, loss_function
from dsd_tutorial.prompt_learning.scoring import Scoring, evaluate_items
from dsd_tutorial.prompt_learning.sources import Cached, Passes
from dsd_tutorial.shapes.tasks import few_shot, validation_set

if TYPE_CHECKING:
    import pandas as pd

STEPS = {True: 300, False: 100}  # on cached components, with U-Net passes
CHECKS = {True: 60, False: 5}  # how often validation is asked


@dataclass
class Fit:
    """A fitted adapter, and how it came about.

    adapter          with the parameters of `best_step` (0: nothing beat zero-shot on validation)
    accuracy, loss   on the validation items at `best_step`; None without validation
    zero_shot        (accuracy on the few-shot items, on the validation items) before any step
    history          one row per step: step, loss, accuracy (running), validation_accuracy,
                     validation_loss, unet_passes so far
    scale            the zero-shot spread that losses and margins are counted in
    stopped          "end", "patience" or "interrupted"
    cost             U-Net passes (validation included), parameters, labels (few-shot and
                     validation items), seconds
    peak_memory      bytes of the process (CPU) or of the allocator (CUDA) at the most
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

    def scores(self, model: Any, items: Any, **how: Any) -> Tensor:
        """Return the scores of other items, (items, images * texts), as `evaluate_items` does."""
        return evaluate_items(model, items, self.adapter, self.scoring, **how)

    def save(self, model: Any, folder: str | Path) -> Path:
        """Return the folder after writing adapter and scoring to it; `files.load` reads them."""
        return files.save(self.adapter, model, folder, self.scoring)


def fit(
    model: Any,
    adapter: Adapter,
    task: Any,
    *,
    shots: int = 16,
    steps: int | None = None,
    loss: Literal["hinge", "infonce"] = "hinge",
    margin: float = 1.0,
    temperature: float = 1.0,
    lr: float | None = None,
    weight_decay: float = 0.01,
    diffusion_weight: float = 0.0,
    seed: int = 0,
    scoring: Scoring | None = None,
    validation: Any = None,
    check_every: int | None = None,
    patience: int | None = None,
    batch_pairs: int = 32,
    negatives: int | None = 3,
    parts: tuple[Components, Components | None] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Fit:
    """Return the `Fit` of `adapter` (changed in place) to `shots` labelled items of `task`.

    task         a task's name: the few-shot items of `seed`; or a `Task`, whose items are all used
    loss         "hinge" on the hardest negative with `margin`, or "infonce" with `temperature`;
                 both in zero-shot spreads (so margin 0.1, the released code's, asks for little)
    diffusion_weight    of the noise error on right pairs, so that the model keeps drawing
    scoring      with `settings` (time_steps, layers, token_mask, error_weight, ...) the score
    validation   a `Task`; None is the fixed validation set of the task, False is none at all
    check_every, patience    steps between checks, and checks without gain before it stops
    parts        (few-shot, validation) components computed before, for cached adapters
    negatives    drawn per step from a long list of candidates; None takes all

    Ctrl-C ends it with the best so far. Raises ValueError for settings out of range, and
    RuntimeError if the model's own weights were changed or the loss is no number.
    """
    scoring = (scoring or Scoring()).changed(**settings)
    items, validation = _data(task, shots, seed, validation)
    steps = STEPS[adapter.cached] if steps is None else steps
    if steps < 0 or batch_pairs < 1 or (negatives is not None and negatives < 1):
        raise ValueError(
            f"steps={steps}, batch_pairs={batch_pairs}, negatives={negatives}: too small"
        )
    objective = loss_function(loss, margin, temperature)
    every = check_every or max(1, steps // CHECKS[adapter.cached])
    rate, memory = adapter.lr if lr is None else lr, Memory(model.device)
    with measure(model) as meter, unchanged(model):
        if adapter.cached:
            source = Cached(model, adapter, items, validation, scoring, parts, progress)
        else:
            source = Passes(
                model, adapter, items, validation, scoring, seed=seed, batch_pairs=batch_pairs,
                negatives=negatives, drawing=diffusion_weight != 0, progress=progress,
            )  # fmt: skip
        loop = Loop(
            adapter, source, objective, steps, every, patience, rate, weight_decay,
            diffusion_weight, meter, memory,
        )  # fmt: skip
        loop.run(headline(items, source.start), progress)
    labels = len(items.items) + (0 if validation is None else len(validation.items))
    return _summary(loop, scoring, meter.cost(adapter.size, labels), validation is not None)


def _data(task: Any, shots: int, seed: int, validation: Any) -> tuple[Any, Any | None]:
    """Return the labelled items and the validation items, or None."""
    items = few_shot(task, shots, seed) if isinstance(task, str) else task
    if validation is None:
        validation = validation_set(items.name)
    return items, None if validation is False else validation


def _summary(loop: Loop, scoring: Scoring, cost: Cost, checked: bool) -> Fit:
    import pandas as pd

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
        scale=loop.source.scale,
        stopped=loop.stopped,
        cost=cost,
        peak_memory=loop.memory.peak,
    )
