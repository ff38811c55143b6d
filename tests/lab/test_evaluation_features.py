"""The table of what features know: its parts, what is chosen where, and that it resumes."""

import pandas as pd
import pytest
import torch

from dsd_tutorial.features import VALUES
from dsd_tutorial.shapes import Scene, Thing, render
from lab.measuring import features, features_steering
from lab.measuring.features_steering import requests
from lab.measuring.runner import Cache

SMALL = {
    "train": 40, "n": 16, "steps": 1, "seeds": 2, "units": (24,), "k": (2, 4), "fit_steps": 20,
    "images": 16, "sampling": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    how = {"output": folder / "features.csv", "cache": folder / "cache", "progress": False} | SMALL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_steering, "STRENGTHS", (1.0,))
        path = features.evaluate_features(tiny, **how)
    return path, pd.read_csv(path), how


def test_every_block_is_probed_and_the_latents_beside_it(measured):
    _, table, _ = measured
    probes = table[(table.part == "probes") & (table.measure == "accuracy")]
    blocks = ["latents", "down.0", "down.1", "down.2", "mid", "up.0", "up.1", "up.2"]
    assert [b for b in dict.fromkeys(probes.block) if b != "place"] == blocks
    assert len(probes) == 1 + len(blocks) * sum(map(len, features.KINDS.values()))
    assert (probes.n == 16).all() and probes.value.between(0, 1).all()
    assert (probes.low <= probes.value).all() and (probes.value <= probes.high).all()
    assert probes.chosen.str.startswith("C ").all()


def test_units_are_read_where_validation_says(measured):
    _, table, _ = measured
    cell = features.best_cell(table)
    others = table[table.part != "probes"]
    assert set(zip(others.block, others.step, strict=True)) == {cell}
    means = {}
    for block in dict.fromkeys(table.block[(table.part == "probes")]):
        if block not in ("latents", "place"):
            rows = table[
                (table.block == block) & (table.measure == "validation")
                & (table.method == "region")
            ]  # fmt: skip
            means[block] = rows.value.mean()
    assert means[cell[0]] == pytest.approx(max(means.values()))


@pytest.mark.parametrize("part", ["units", "positions"])
def test_every_family_of_units_stands_beside_neurons(measured, part):
    _, table, _ = measured
    units = table[table.part == part].set_index(["method", "measure", "attribute"]).value
    families = ["neurons", "neurons level", "pca", "pca level", "rotation", "rotation level"]
    families += ["untrained", "untrained level", "sae", "sae level", "sae seed 1"]
    families += ["sae 3", "neurons 3", "linear level"]
    for name in families:
        parts = [units[name, "f1", a] for a in ("shape", "color", "relation", "background")]
        weights = [6, 6, 4, 4]
        mean = sum(w * p for w, p in zip(weights, parts, strict=True)) / len(VALUES)
        assert units[name, "f1", "all"] == pytest.approx(mean, abs=1e-5)
        for rival in ("neurons", "neurons level"):
            gap = units[name, f"above {rival}", "all"]
            theirs = units[rival, "f1", "all"]
            assert gap == pytest.approx(units[name, "f1", "all"] - theirs, abs=1e-5)


def test_steering_stands_beside_its_controls(measured):
    _, table, _ = measured
    rows = table[table.part == "steering"].set_index(["method", "measure", "attribute"])
    for attribute, n in (("shape", 6), ("color", 6), ("background", 4), ("all", 16)):
        for method in features_steering.METHODS:
            rival = "random there" if method.endswith("there") else "random"
            if method in ("none", rival):
                continue
            gap = rows.loc[(method, f"above {rival}", attribute)]
            shares = [rows.value[m, "share", attribute] for m in (method, rival)]
            assert gap.value == pytest.approx(shares[0] - shares[1], abs=1e-5)
            assert gap.n == n and gap.low <= gap.value <= gap.high
    ways = rows.loc[(slice(None), "share", "all"), :].droplevel([1, 2])[["strength", "from_step"]]
    way = {method: tuple(row) for method, row in ways.iterrows()}
    assert ways.loc["none"].isna().all() and way["other"] == way["random"] == way["unit"]
    assert way["random there"] == way["unit there"] and way["mean"] == (1.0, 500)


def test_places_are_those_of_the_judged_scene():
    scene = Scene((Thing("circle", "red", 0.3, 0.5, 0.2),), "white")
    images, masks = render([scene], 64)
    images = torch.cat([images, torch.rand(1, 3, 64, 64)])
    there = features_steering.places_of(images, ["color", "shape"])
    overlap = (there[0] & masks[0].any(0)).sum() / (there[0] | masks[0].any(0)).sum()
    assert overlap > 0.9 and not there[1].any()
    behind = features_steering.places_of(images, ["background"] * 2)
    assert torch.equal(behind[0], ~there[0]) and not behind[1].any()


def test_a_second_run_computes_nothing(measured, tiny, monkeypatch):
    path, table, how = measured

    def fail(*args, **more):
        raise AssertionError("computed again")

    path.unlink()
    monkeypatch.setattr(features, "collect", fail)
    monkeypatch.setattr(tiny, "sample", fail)
    again = features.evaluate_features(tiny, **how)
    pd.testing.assert_frame_equal(pd.read_csv(again), table)


def test_positions_are_drawn_from_every_scene_and_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PLACES", 5)
    plan = features.FeaturesPlan(**SMALL)
    pooled = features.Pooled(tiny, plan, Cache(tmp_path, "x"))
    places = pooled.positions("test", "up.2", 500)
    _, counts = places.scene.unique(return_counts=True)
    assert len(counts) == 2 * plan.n and (counts == 5).all()
    assert places.labels.any(1).all()
    again = pooled.positions("test", "up.2", 500)
    assert all(
        torch.equal(x, y) for x, y in zip(vars(places).values(), vars(again).values(), strict=True)
    )


def test_prompts_leave_the_wanted_attribute_unsaid():
    made = requests(64, 0)
    wanted = [value for value, *_ in made]
    assert set(wanted) == {v for v in VALUES if v[0] != "relation"}
    assert made == requests(64, 0) and made != requests(64, 1)
    for (attribute, value), (same, other), text in made:
        assert same == attribute and other != value
        assert value not in text.split() and other not in text.split()


def test_rows_of_splits_are_their_own(tiny, tmp_path):
    plan = features.FeaturesPlan(**SMALL)
    pooled = features.Pooled(tiny, plan, Cache(tmp_path, "x"))
    a, b = (pooled.places(s, "mid", 500) for s in ("validation", "test"))
    assert len(a.features) == len(b.features) == 16 * 2 + 16 * 3
    assert a.scene.max() == 31 and not torch.equal(a.features[:5], b.features[:5])
    relation = [i for i, (name, _) in enumerate(VALUES) if name == "relation"]
    assert (a.labels[:, relation].sum(1)[32:].view(16, 3) == torch.tensor([1, 1, 0])).all()
