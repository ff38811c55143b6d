"""Choosing and weighing readings, against the same in NumPy and SciPy: no U-Net is run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from dsd_tutorial.matching import Components
from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.prompt_learning import choose_readings, fit_readings, reading_sums
from dsd_tutorial.prompt_learning.reading_sums import LATE, ReadingSet, ReadingWeights
from dsd_tutorial.prompt_learning.reading_weights import simplest
from dsd_tutorial.shapes import few_shot

NAMES = ("log_sum_exp", "direction", "peak", "binding")
HOW = {"layers": ("x",), "steps": (500,), "progress": False}
N = 40


@pytest.fixture(scope="module")
def items():
    return few_shot("comvg", N)


def values_of(items, seed):
    """Readings (items, candidates): some know the answer a little, one nothing; of many sizes."""
    numbers = np.random.default_rng(seed)
    right = np.eye(2)[[item.correct for item in items.items]]
    noise = numbers.normal(size=(4, N, 2))
    signal, size = np.array([0.6, 0.9, 0.0, 0.4]), np.array([1.0, 20.0, 0.05, 3.0])
    found = size[:, None, None] * (signal[:, None, None] * right + noise)
    found[3] += 50 * numbers.normal(size=(N, 1))  # what an item adds to all its candidates
    return torch.from_numpy(found).float()


def parts_of(values, names=NAMES):
    """Components of one layer, step and head that hold these values."""
    pairs = torch.zeros(values[0].numel(), 2).long()
    return Components(
        {n: x.reshape(-1, 1, 1, 1) for n, x in zip(names, values, strict=True)}, None, ("x",),
        (500,), pairs,
    )  # fmt: skip


def won(scores, items):
    right = np.array([item.correct for item in items.items])
    return scores[np.arange(N), right] > scores[np.arange(N), 1 - right]


@pytest.mark.parametrize("seed", range(6))
def test_a_sum_is_picked_one_reading_after_the_other(tiny, items, seed):
    values = values_of(items, seed)
    found = choose_readings(tiny, items, readings=NAMES, parts=parts_of(values), most=6, **HOW)
    units = {}
    for name, x in zip(NAMES, values.double().numpy(), strict=True):
        units[name] = x / (x - x.mean(1, keepdims=True)).std(ddof=1)
    total, picks, reached = np.zeros((N, 2)), [], []
    for _ in range(6):
        best = max(NAMES, key=lambda name: won(total + units[name], items).mean())
        total = total + units[best]
        hits = won(total, items)
        picks.append(best)
        reached.append((hits.mean(), hits.std() / N**0.5))
    top, error = max(reached)
    shortest = min(i for i, (value, _) in enumerate(reached) if value >= top - error)
    weights = {name: picks[: shortest + 1].count(name) for name in picks[: shortest + 1]}
    assert {name: w for (name, _), w in found.table().items()} == weights
    want = sum(w * units[name] for name, w in weights.items())
    got = found.score(parts_of(values)).view(N, 2)
    assert torch.allclose(got, torch.from_numpy(want).float(), rtol=1e-4, atol=1e-3)
    assert 0 <= found.cost.seconds < 60


def test_what_does_not_differ_within_an_item_is_never_picked(tiny, items):
    same = torch.arange(float(N))[:, None].expand(N, 2)
    parts = parts_of(torch.stack([same, values_of(items, 0)[2]]), NAMES[:2])
    assert choose_readings(tiny, items, readings=NAMES[:2], parts=parts, **HOW).readings == (
        NAMES[1],
    )


def by_hand(values, items, start, penalty):
    """The least -log likelihood + penalty |w - start|^2 / 2, in units of the spread, by SciPy."""
    right = [item.correct for item in items.items]

    def loss(w):
        scores = values @ w
        chosen = scores[np.arange(len(right)), right]
        return (logsumexp(scores, axis=1) - chosen).sum() + penalty / 2 * ((w - start) ** 2).sum()

    return minimize(loss, start, tol=1e-10).x


@pytest.mark.parametrize("penalty", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("begun", [False, True])
def test_weights_are_those_of_a_penalised_conditional_logit(tiny, items, penalty, begun):
    values = torch.cat([values_of(items, 3), torch.arange(float(N))[None, :, None].expand(1, N, 2)])
    names = (*NAMES, "spread")  # the last says nothing within an item
    parts, keys = parts_of(values, names), tuple((name, "x") for name in names)
    reads = ReadingSet(names, ("x",), (500,), (500,))
    start = ReadingWeights(
        reads, None, keys, torch.tensor([1.0, 0.5, 0.0, 2.0, 3.0]),
        torch.tensor([1.0, 10.0, 1.0, 4.0, 2.0]),
    )  # fmt: skip
    found = fit_readings(
        tiny, items, readings=names, parts=parts, penalty=penalty, start=start if begun else None,
        **HOW,
    )  # fmt: skip
    x = np.moveaxis(values.double().numpy(), 0, -1)  # (items, candidates, features)
    scale = (x - x.mean(1, keepdims=True)).reshape(-1, 5).std(0, ddof=1)
    scale[4] = 1.0
    first = (start.weights / start.scale).double().numpy() * scale if begun else np.zeros(5)
    assert np.allclose(found.scale, scale, rtol=1e-5)
    assert np.allclose(found.weights, by_hand(x / scale, items, first, penalty), atol=2e-3)
    assert 0 <= found.cost.seconds < 60


def test_validation_judges_in_the_units_of_the_fit(tiny, items):
    """With many seeds, so that a choice in other units would be another one."""
    for seed in range(4):
        parts, known = (parts_of(values_of(items, seed + k)) for k in (0, 50))
        how = {"readings": NAMES, "parts": parts, **HOW}
        fits = [fit_readings(tiny, items, penalty=x, **how) for x in (300.0, 30.0, 3.0, 0.3)]
        hits = [item_hits(items, fitted.score(known)) for fitted in fits]
        found = fit_readings(
            tiny, items, penalty=(300.0, 30.0, 3.0, 0.3), validation=(items, known), **how
        )
        assert torch.allclose(found.weights, fits[simplest(hits)].weights, atol=1e-5)


def test_the_simplest_of_very_few_items():
    assert simplest([np.zeros(1), np.ones(1)]) == 1  # nothing is known of the error of one
    assert simplest([np.array([1, 0]), np.array([1, 1])]) == 0  # half, and an error of a half
    assert simplest([np.zeros(2), np.ones(2)]) == 1


def test_layers_are_the_last_on_the_way_up(monkeypatch):
    names = ["down.0", "mid.0", *(f"up.{i}" for i in range(5))]
    monkeypatch.setattr(reading_sums, "cross_attention_layers", lambda model: names)
    found = ReadingSet.of(SimpleNamespace(), ["peak"], None, [1], None)
    assert found.layers == ("up.2", "up.3", "up.4") and LATE == 3
    assert found.error_steps == (1,) and not found.by_step


def test_a_head_is_its_mean_over_time_steps_and_a_missing_one_is_none():
    scores = torch.rand(6, 3, 2, 4)
    scores[:, :, 1, 2:] = float("nan")  # the second layer has two heads
    parts = Components({"all": scores}, None, ("x", "y"), (1, 2, 3), torch.zeros(6, 2).long())
    columns = ReadingSet(("heads",), ("x", "y"), (1, 2, 3), ()).columns(parts)
    want = [*(f"x {h}" for h in range(4)), *(f"y {h}" for h in range(2))]
    assert [where for _, where in columns] == want
    for (_, where), x in columns.items():
        layer, head = where.split()
        torch.testing.assert_close(x, scores[:, :, "xy".index(layer), int(head)].mean(1))
