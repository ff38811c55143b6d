"""CoOp: a learned context before the caption (Zhou et al., arXiv 2109.01134), for matching.

    start token | v_1 ... v_m | caption | end token        v: (m, d), learned

v starts as the token embeddings of a template ("a picture of"), so the score starts at that
template's. CLIP is frozen. The original places classes behind the context; here captions stand
there and the loss is over an item's candidates (*ours*).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsd_tutorial.matching.baselines.clip import (
    clip_image_embeddings,
    clip_text_embeddings,
    cosines,
    towers,
)
from dsd_tutorial.matching.baselines.method import Method
from dsd_tutorial.matching.items import decision_loss, merit
from dsd_tutorial.shapes.tasks import Task


@contextmanager
def learned_context(model: Any, context: Float[Tensor, "positions width"]) -> Iterator[None]:
    """Put `context` on positions 1 to m of CLIP's token embeddings, inside the block.

    transformers' text tower takes no embeddings as input; a hook on its table does.
    """
    m = len(context)

    def put_in(table: Any, ids: tuple, states: Tensor) -> Tensor:
        put = context.to(states).expand(len(states), -1, -1)
        return torch.cat([states[:, :1], put, states[:, 1 + m :]], dim=1)  # (batch, L, d)

    handle = towers(model).text_model.embeddings.token_embedding.register_forward_hook(put_in)
    try:
        yield
    finally:
        handle.remove()


def trained(
    start: Float[Tensor, "rows width"],
    loss: Callable[[Tensor], Tensor],
    merit_of: Callable[[Tensor], tuple[float, float]],
    *,
    steps: int,
    lr: float,
    check_every: int,
    fade: bool,
    name: str,
    progress: bool,
) -> Float[Tensor, "rows width"]:
    """Return what AdamW makes of `start`, at the step with the most merit, the start included.

    `fade` lowers the learning rate to zero by a cosine. Ctrl-C ends the training and keeps the best
    so far.
    """
    from tqdm.auto import tqdm

    rows, kept, best = start.clone().requires_grad_(), start, (-1.0, 0.0)
    optimizer = torch.optim.AdamW([rows], lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    try:
        for step in (bar := tqdm(range(steps + 1), name, disable=not progress)):
            if step % check_every == 0 or step == steps:
                with torch.no_grad():
                    reached = merit_of(rows)
                bar.set_postfix(validation=f"{reached[0]:.2f}")
                if reached > best:
                    best, kept = reached, rows.detach().clone()
            if step < steps:
                optimizer.zero_grad()
                loss(rows).backward()
                optimizer.step()
                if fade:
                    schedule.step()
    except KeyboardInterrupt:
        print(f"stopped: the best {name} so far is kept (validation {best[0]:.2f})")
    return kept


class CoOp(Method):
    """A context of as many vectors as `template` has tokens; unfitted, the template itself.

    The step that does best on the validation items is kept.
    """

    name = "coop"
    needs = "both"

    def __init__(
        self,
        template: str = "a picture of",
        *,
        steps: int = 100,
        lr: float = 2e-3,
        batch_items: int = 16,
        check_every: int = 10,
    ):
        if not template.strip():
            raise ValueError("template is empty: CoOp learns the vectors of its words; give some")
        for name, value in {"batch_items": batch_items, "check_every": check_every}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if steps < 0 or lr <= 0:
            raise ValueError(f"steps={steps}, lr={lr}: need steps >= 0 and lr > 0")
        self.template, self.steps, self.lr = template.strip(), steps, lr
        self.batch_items, self.check_every = batch_items, check_every
        self.context: Tensor | None = None

    def start(self, model: Any) -> Float[Tensor, "positions width"]:
        """Return the token embeddings of the template."""
        end = int(model.eos_positions(self.template)[0])
        ids = model.tokenize(self.template)[0, 1:end]
        return towers(model).text_model.embeddings.token_embedding.weight[ids].detach().clone()

    def _cosines(
        self, model: Any, items: Task, images: Float[Tensor, "scenes width"], context: Tensor
    ) -> Float[Tensor, "items pairs"]:
        with learned_context(model, context):
            texts = clip_text_embeddings(model, [f"{self.template} {t}" for t in items.texts])
        return cosines(images, texts, items)

    def _score(self, model: Any, items: Task, seed: int, progress: bool) -> Tensor:
        context = self.start(model) if self.context is None else self.context
        return self._cosines(model, items, clip_image_embeddings(model, items), context)

    def _fit(self, model: Any, items: Task, validation: Task, seed: int, progress: bool) -> int:
        batches, known = self._batches(model, items, seed), clip_image_embeddings(model, validation)
        self.context = trained(
            self.start(model),
            lambda context: self._loss(model, *next(batches), context),
            lambda context: merit(self._cosines(model, validation, known, context), validation),
            steps=self.steps, lr=self.lr, check_every=self.check_every, fade=True, name="context",
            progress=progress,
        )  # fmt: skip
        return self.context.numel()

    def _loss(self, model: Any, items: Task, images: Tensor, context: Tensor) -> Tensor:
        sharpness = towers(model).logit_scale.exp()
        return decision_loss(sharpness * self._cosines(model, items, images, context), items)

    def _batches(self, model: Any, items: Task, seed: int) -> Iterator[tuple[Task, Tensor]]:
        """Yield batches of items with their images' embeddings, every item once per round."""
        known = dict(zip(items.scenes, clip_image_embeddings(model, items), strict=True))
        numbers = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(items.items), generator=numbers)
            for part in order.split(self.batch_items):
                batch = replace(items, items=tuple(items.items[i] for i in part.tolist()))
                yield batch, torch.stack([known[scene] for scene in batch.scenes])
