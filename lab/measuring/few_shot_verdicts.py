"""What the few-shot tables say: which items were right, which adapter was chosen, what it beats.

few_shot_bars.csv is computed from the single items, few_shot_choice.csv from the validation items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dsd_tutorial.course.records import ResultsError
from dsd_tutorial.matching.metrics import Interval, accuracy, paired_test, seeds_difference
from dsd_tutorial.shapes.tasks import TASKS, make_task
from lab.measuring.few_shot_methods import BY_PASSES, CACHED, METHODS, ON_CLIP, ZERO_SHOT
from lab.measuring.tables import HIT

ADAPTERS = (*CACHED, *BY_PASSES)  # among them is the chosen one
# what a method reads; where nothing is said: attention, and with "_error" in its name both
_READS = {
    **dict.fromkeys(ON_CLIP, "clip"),
    "random": "none",
    "clip": "clip",
    "released": "both",
    "error": "error",
    "diffusion_classifier": "error",
    "step_weights": "error",
}
READS = {
    name: _READS.get(name, "both" if name.endswith("_error") else "attention") for name in METHODS
}
# kinds of items whose candidates have the same words or things, in another relation or binding
RELATION_AND_BINDING = {"comvg": ("relation", "bindings"), "winoground": ("objects", "colors")}


def hits_of(
    items: pd.DataFrame, task: str, method: str, shots: int, seeds: Sequence[int] | None = None
) -> np.ndarray:
    """Return what a method got right, (seeds, items) of 0 and 1, as the metrics take them.

    Args:
        items: the table few_shot_items.csv.
        task: name of the task.
        method: name of the method; one that learns nothing has a single row, repeated for `seeds`.
        shots: labelled items it learned from.
        seeds: None are all that the table has, in order.

    Raises:
        ResultsError: a row is missing.
    """
    rows = items[(items.task == task) & (items.method == method) & (items.shots == shots)]
    found: dict[int, str] = {
        int(seed): hits for seed, hits in zip(rows.seed, rows.hits, strict=True)
    }
    wanted = sorted(found) if seeds is None else list(seeds)
    if method in ZERO_SHOT and found:
        found = dict.fromkeys(wanted, next(iter(found.values())))
    missing = [seed for seed in wanted if seed not in found]
    if missing or not wanted:
        raise ResultsError(
            f"few_shot_items.csv has no {method} on {task} at {shots} shots with seeds "
            f"{missing or 'at all'}: `python -m lab measure few-shot` measures it"
        )
    return np.array([[letter == HIT for letter in found[seed]] for seed in wanted], dtype=int)


def interval_of(hits: np.ndarray) -> Interval:
    """Return the accuracy of hits (seeds, items), by Wilson or, over seeds, by bootstrap."""
    if len(hits) == 1:
        return accuracy(hits[0])
    return seeds_difference(hits, np.zeros_like(hits))


def chosen_adapter(choice: pd.DataFrame, shots: int, seeds: Sequence[int]) -> str | None:
    """Return the one adapter for all tasks: the best mean cross-fitted accuracy; None without rows.

    `choice` is the table few_shot_choice.csv. The mean is over its tasks and `seeds`; methods that
    lack one of them are no candidates.
    """
    rows = choice[(choice.shots == shots) & choice.seed.isin(list(seeds))]
    whole = rows.task.nunique() * len(seeds)
    means = rows.groupby("method").accuracy.agg(["mean", "size"])
    means = means[means["size"] == whole]["mean"]
    return None if means.empty else str(means.idxmax())


def _best(
    items: pd.DataFrame, task: str, methods: Sequence[str], shots: int, seeds: Sequence[int]
) -> str | None:
    rows = items[(items.task == task) & (items.shots == shots) & items.seed.isin(list(seeds))]
    reached = {}
    for method in methods:
        own = rows[rows.method == method]
        if len(own) == len(seeds):
            reached[method] = own["validation"].mean(), own["margin"].mean()
    return max(reached, key=reached.__getitem__) if reached else None


def verdicts(
    items: pd.DataFrame, choice: pd.DataFrame, shots: int, seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of few_shot_bars.csv: an adapter minus a rival, on the same items.

    The rivals of the chosen adapter (`chosen`, one for all tasks): on every task zero-shot DSD
    (with or without the error term, whichever validation prefers) and the plain error; on relation
    and binding items CLIP zero-shot and CoOp. The other adapters follow, against zero-shot DSD;
    weights over readings also against what they start from, CLIP and the error alone, and with maps
    among them against those without; prompts and LoRA on attention alone against the score that
    they start at. A comparison is passed when the whole interval lies above 0. `p_value` is the
    sign test over items, each by its mean over seeds. What was not measured yet is left out.
    """
    chosen = chosen_adapter(choice, shots, seeds)
    for task in (name for name in TASKS if (items.task == name).any()):
        zero_shot = _best(items, task, ("attention", "attention_error"), 0, [0])
        kinds = RELATION_AND_BINDING.get(task)
        to_zero_shot = ("zero-shot DSD", zero_shot, 0, None)
        to_start = [("the log-sum-exp it starts at", "log_sum_exp_short", 0, None)]
        to_clip = [("CLIP zero-shot, relation and binding", "clip", 0, kinds)] if kinds else []
        rivals = [to_zero_shot, ("the plain error", "error", 0, None), *to_clip]
        if kinds:
            rivals += [(f"{shots}-shot CoOp, relation and binding", "coop", shots, kinds)]
        more = {
            "readings": [("attention, zero-shot", "attention", 0, None), *to_clip],
            "readings_maps": [("the same without maps", "readings", shots, None)],
            "readings_error": [
                ("attention and error, zero-shot", "attention_error", 0, None),
                ("the plain error", "error", 0, None),
                (f"{shots}-shot weights of the error", "step_weights", shots, None),
            ],
            **dict.fromkeys(("soft_prompt", "attention_prompt", "lora"), to_start),
        }
        for adapter in sorted(ADAPTERS, key=lambda name: name != chosen):
            own = rivals if adapter == chosen else [to_zero_shot]
            own += [rival for rival in more.get(adapter, []) if rival not in own]
            for comparison, rival, their_shots, which in own:
                if rival is None:
                    continue
                try:
                    ours = hits_of(items, task, adapter, shots, seeds)
                    theirs = hits_of(items, task, rival, their_shots, seeds)
                except ResultsError:
                    continue
                about = {"task": task, "comparison": comparison, "adapter": adapter}
                about |= {"chosen": adapter == chosen, "rival": rival}
                yield {**about, **_compare(ours, theirs, task, which)}


def _compare(a: np.ndarray, b: np.ndarray, task: str, kinds: Sequence[str] | None) -> dict:
    """Return the columns from `value` on, of a - b (seeds, items) on items of these kinds."""
    if kinds is not None:
        used = np.isin(make_task(task, a.shape[1]).kinds, kinds)
        a, b = a[:, used], b[:, used]
    gap = seeds_difference(a, b)
    return {
        "value": gap.value, "low": gap.low, "high": gap.high, "n": gap.n, "seeds": len(a),
        "p_value": paired_test(a.mean(0), b.mean(0)).p_value, "passed": bool(gap.low > 0),
    }  # fmt: skip
