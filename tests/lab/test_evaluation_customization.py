"""The table of customisation: what counts, what is compared with what, and that it goes on."""

from dataclasses import replace
from functools import partial

import pytest

from dsd_tutorial.course.records import ResultsError
from dsd_tutorial.customization import fit_domain
from dsd_tutorial.matching.metrics import paired_difference
from dsd_tutorial.shapes import (
    HELD_OUT_COLORS,
    HELD_OUT_SHAPES,
    HELD_OUT_TEXTURES,
    Scene,
    Thing,
    render,
)
from lab.measuring import custom_domains, custom_references, customization
from lab.measuring.custom_domains import ATTRIBUTES, DOMAINS, domain_scenes, merit, shares
from lab.measuring.custom_references import WAYS, Way
from lab.measuring.customization import CustomizationPlan, Tables, evaluate_customization
from lab.measuring.runner import Options, Runner


def test_fidelity_asks_for_everything_in_one_picture():
    scene = Scene((Thing("circle", "red", 0.5, 0.5, 0.28),), "gray")
    others = [
        scene,
        replace(scene, background="pink"),
        replace(scene, things=(replace(scene.things[0], color="blue"),)),
        replace(scene, things=(replace(scene.things[0], texture="striped"),)),
    ]
    found = shares(render(others)[0][None], [scene])
    assert found == {
        "fidelity": [0.25], "shape": [1.0], "color": [0.75], "texture": [0.75],
        "background": [0.75],
    }  # fmt: skip
    assert merit(found) == pytest.approx((1 + 3 * 0.75) / 4)
    assert set(found) == {"fidelity", *ATTRIBUTES}


def test_domains_hold_what_no_training_picture_holds():
    for name in DOMAINS:
        for split in ("train", "test"):
            scenes = domain_scenes(name, 20, 0, split)
            new = [
                (t.shape in HELD_OUT_SHAPES)
                + (t.color in HELD_OUT_COLORS)
                + (t.texture in HELD_OUT_TEXTURES)
                for s in scenes
                for t in s.things
            ]
            assert new == [1] * 20 and {s.split for s in scenes} == {split}
    old = [t for s in domain_scenes("old", 20, 0, "test") for t in s.things]
    assert all(t.texture == "plain" and t.color not in HELD_OUT_COLORS for t in old)


def tables_of(tiny, folder, n=4):
    plan = CustomizationPlan(n=n, seeds=1, images=1)
    options = Options(output=folder / "x.csv", cache=folder)
    return Tables(Runner("customization", tiny, plan, options))


def test_tables_keep_items_and_compare_them_in_pairs(tiny, tmp_path):
    a, b = [1.0, 0.5, 1.0], [0.0, 0.5, 0.25]
    about, ours, theirs = {"metric": "fidelity", "steps": 30}, {"method": "ours"}, "theirs"
    table = tables_of(tiny, tmp_path)
    table.add([about | ours | {"values": a, "seconds": 2.5, "parameters": 7}])
    table.add(
        [about | {"method": theirs, "values": b}, about | {"metric": "lr", "value": 3.0} | ours]
    )
    again = tables_of(tiny, tmp_path)
    again.add([about | ours | {"values": [0.0] * 3}])  # there already: stays as it is
    keys = [(name, "fidelity", 30) for name in ("ours", "theirs", "nobody")]
    again.compare([
        (ours | {"metric": "gap", "steps": 30}, keys[0], keys[1]),
        (ours | {"metric": "nothing", "steps": 30}, keys[0], keys[2]),
    ])  # fmt: skip
    row = again.frame().set_index(["method", "metric"]).loc[("ours", "gap")]
    want = paired_difference(a, b)
    assert [row.value, row.low, row.high] == pytest.approx([want.value, want.low, want.high], 1e-5)
    assert again.number("ours", "fidelity", 30) == pytest.approx(2.5 / 3, 1e-5)
    assert again.number("ours", "lr", 30) == 3 and len(again.frame()) == 4 and row.steps == 30
    (tmp_path / "x.csv").unlink()
    assert len(tables_of(tiny, tmp_path).frame()) == 2  # what is measured is reported anew
    with pytest.raises(ResultsError, match="other"):
        tables_of(tiny, tmp_path, n=5)


@pytest.fixture
def short(monkeypatch):
    """Ways of one step each, and grids of one or two."""
    for name, way in WAYS.items():
        at = tuple(sorted({min(s, 1) for s in way.at}))
        changed = Way(way.start, at, way.what, way.inverse, tuple({min(s, 1) for s in way.edits}))
        monkeypatch.setitem(WAYS, name, changed)
    monkeypatch.setattr(custom_references, "STEPS", 1)
    monkeypatch.setattr(custom_references, "PACES", (1.0,))
    monkeypatch.setattr(custom_references, "ALPHAS", (0.5,))
    monkeypatch.setattr(customization, "TRIED_ON", 2)
    monkeypatch.setattr(custom_domains, "RATES", (1e-3, 2e-3))
    monkeypatch.setattr(custom_domains, "TRIED_ON", 2)
    monkeypatch.setattr(custom_domains, "fit_domain", partial(fit_domain, keep_count=2))
    return {
        "n": 4, "seeds": 1, "images": 3, "ft": 1, "batch": 1, "sampling": 1,
        "progress": False,
    }  # fmt: skip


def test_ct_is_measured_once_and_goes_on(tiny, tmp_path, short, monkeypatch):
    path, ways = tmp_path / "customization.csv", ["closed_form", "closed_form_kv", "word"]
    options = {**short, "parts": ("ct",), "output": path, "cache": tmp_path}
    first = evaluate_customization(tiny, ways=ways[:1], **options)
    calls, real = [], custom_references.customize
    monkeypatch.setattr(
        custom_references, "customize", lambda *a, **k: calls.append(k["what"]) or real(*a, **k)
    )
    table = evaluate_customization(tiny, ways=ways, **options)
    assert set(calls) == {"prompt_kv"}  # what was tuned before is not tuned again
    assert table.iloc[: len(first)].equals(first)
    assert not table.duplicated(["method", "metric", "steps"]).any()
    rows = table.set_index(["method", "metric", "steps"])
    for name, steps in (("closed_form", (0, 1)), ("closed_form_kv", (1,)), ("word", (0, 1))):
        for step in steps:
            assert {"fidelity", *ATTRIBUTES} <= set(rows.loc[name].xs(step, level="steps").index)
        assert (name, "lr_chosen", 1) in rows.index and (name, "edit_joint", 1) in rows.index
    assert ("closed_form", "difference_to_start", 1) in rows.index
    error = rows.value.xs("error", level="metric")["closed_form"]
    saved = rows.value["closed_form", "error_below_start", 1]
    assert saved == pytest.approx(error[0] - error[1], abs=1e-4)
    assert ("word", "difference_to_closed_form", 1) in rows.index
    assert ("closed_form_kv", "difference_to_untuned", 1) in rows.index
    sizes = rows.parameters.xs(("fidelity", 1), level=("metric", "steps"))
    assert sizes["closed_form"] == sizes["word"] == 32 < sizes["closed_form_kv"]
    assert rows.loc[("closed_form", "fidelity", 1)].seconds > 0
    assert (table.n[table.metric == "fidelity"] == 4).all()
    assert (table.model_sha256 == tiny.sha256).all()
    with pytest.raises(ResultsError, match="seeds 2"):
        evaluate_customization(tiny, **{**options, "seeds": 2})


def test_ft_is_measured_before_and_after(tiny, tmp_path, short):
    path = tmp_path / "customization.csv"
    options = {**short, "parts": ("ft",), "output": path, "domains": ["striped"]}
    options["cache"] = tmp_path
    table = evaluate_customization(tiny, **options)
    rows = table.set_index(["method", "metric", "steps"])
    for key in (
        ("before_striped", "fidelity", 0), ("ft_striped", "fidelity", 1), ("ft_striped", "gain", 1),
        ("ceiling_striped", "fidelity", 0), ("before", "old_by_caption", 0),
        ("ft_striped", "old_by_image", 1), ("ft_striped", "change_of_old_by_caption", 1),
        ("ft_striped", "lr_chosen", 1), ("ft_striped", "peak_memory_mib", 1),
    ):  # fmt: skip
        assert key in rows.index, key
    assert rows.loc[("ft_striped", "fidelity", 1)].parameters > 1000
    tried = {
        lr: rows.loc[("ft_striped", f"validation_at_lr_{lr:g}", 1)].value for lr in (1e-3, 2e-3)
    }
    assert tried[rows.loc[("ft_striped", "lr_chosen", 1)].value] == max(tried.values())
    assert rows.loc[("before", "old_by_image", 0)].n == 8
    assert evaluate_customization(tiny, **options).equals(table)


@pytest.mark.parametrize("wrong", [{"parts": ("xt",)}, {"ways": ["far"]}, {"n": 3}, {"images": 0}])
def test_what_cannot_be_measured_is_refused(tiny, tmp_path, wrong):
    with pytest.raises(ValueError, match=r"=('xt'|'far'|3|0): Input should be"):
        evaluate_customization(tiny, output=tmp_path / "x.csv", progress=False, **wrong)
