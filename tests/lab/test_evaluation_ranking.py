"""The table of rules that spare passes: what is replayed is what `rank` does."""

import pandas as pd
import pytest
import torch

from dsd_tutorial.matching import components, item_scores, learn_spreads, rank, ranking
from dsd_tutorial.matching.baselines.diffusion_classifier import DiffusionClassifier
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.shapes import make_task
from lab.measuring.ranking import best_schedule, evaluate_ranking, replay, rounds

STEPS = 5


@pytest.fixture(scope="module")
def scored(tiny):
    """Items, and the scores of their candidates by time step, error alone."""
    items = make_task("refcoco", 4)
    pairs = item_pairs(items)
    how = {"steps": STEPS, "errors": True, "layers": "mid", "progress": False}
    parts = components(tiny, items.images(64), items.texts, pairs.flatten(0, 1), **how)
    return items, parts, item_scores(parts, 10, attention_weight=0.0, error_weight=1.0)


@pytest.mark.parametrize("risk", [0.01, 0.3])
def test_the_replay_is_what_rank_does(tiny, scored, monkeypatch, risk):
    items, parts, scores = scored
    spreads = learn_spreads(scores, parts.steps)
    monkeypatch.setattr(ranking, "ROWS", 1)  # one time step a round, as in the replay
    found = rank(
        tiny, items.images(64), items.texts, item_pairs(items), risk=risk, spreads=spreads,
        attention_weight=0.0, error_weight=1.0, steps=STEPS, progress=False,
    )  # fmt: skip
    winner, share = replay(scores, spreads, risk)
    assert torch.equal(found.winner, winner)
    assert share * scores.numel() == pytest.approx(found.passes) and found.passes < scores.numel()


def test_rounds_are_those_of_the_diffusion_classifier(tiny, scored):
    items, parts, _ = scored
    squares = -(parts.errors - parts.errors.amax()).square()  # any numbers will do for the rule
    keep = {2: 4, 3: 2}
    winner, share = rounds(squares.view(4, 10, STEPS).double(), keep)
    assert share == (10 * 2 + 4 + 2 * 2) / (10 * STEPS)
    with measure(tiny) as meter:
        DiffusionClassifier(STEPS, keep=keep).score(tiny, items, progress=False)
    assert meter.unet_passes == round(share * 4 * 10 * STEPS)


def test_the_schedule_keeps_to_its_share():
    scores = torch.randn(30, 10, 8, generator=torch.Generator().manual_seed(0)).double()
    for share in (0.2, 0.5):
        keep = best_schedule(scores, share)
        assert rounds(scores, keep)[1] <= share
    with pytest.raises(ValueError):
        best_schedule(scores, 0.01)


def test_the_table_is_measured_once(tiny, tmp_path):
    plan = {"n_items": 3, "validation": 3, "steps": 2, "risks": (0.1,), "images": 6, "queries": 2}
    how = {"output": tmp_path / "ranking.csv", "cache": tmp_path, "progress": False}
    table = pd.read_csv(evaluate_ranking(tiny, **plan, **how))
    assert len(table) == 5 * 3 and (table["rule"] == "all").sum() == 5
    every = table[table["rule"] == "all"]
    assert (every["passes"] == 1).all() and (every["same_winner"] == 1).all()
    assert (every["loss"] == 0).all()
    with measure(tiny) as meter:
        evaluate_ranking(tiny, **plan, **how)
    assert meter.unet_passes == 0
