"""The table of edits: what is asked, when an edit is right, what is chosen, and that it goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dsd_tutorial.course.records import ResultsError
from dsd_tutorial.projection import calibrate, collect_pairs
from dsd_tutorial.projection.references import choose_inverses, reference_sets
from dsd_tutorial.shapes import Scene, Thing, random_scenes, render
from dsd_tutorial.shapes.captions import parse
from dsd_tutorial.shapes.judge import Verdict, judge
from dsd_tutorial.variation.edit_items import KINDS, Edit, make_edits
from lab.measuring import edit_methods
from lab.measuring.commands import measure as evaluate
from lab.measuring.edit_methods import EDITS, GRIDS, METHODS, ONE_SEED, EditSet
from lab.measuring.editing import EditingPlan, evaluate_editing

CIRCLE = Thing("circle", "red", 0.3, 0.5, 0.15)
SQUARE = Thing("square", "blue", 0.75, 0.5, 0.15)
ONE = Scene((CIRCLE,), "white")
BOTH = {"changed": True, "kept": True}
QUICK = {"n": 4, "seeds": 2, "steps": 2, "pairs": 60, "progress": False}
FEW = ("edit_truncated", "image_truncated", "words")


def read(*things: Thing, ground: str = "white") -> Verdict:
    return Verdict(Scene(things, ground), 1.0, ground)


def answer(kind: str, value, verdict: Verdict) -> dict[str, bool]:
    return dict(zip(("changed", "kept"), Edit(ONE, kind, value).judged(verdict), strict=True))


BLUE, OTHER = replace(CIRCLE, color="blue"), replace(CIRCLE, shape="square")


@pytest.mark.parametrize(
    ("kind", "value", "verdict", "wrong"),
    [
        ("color", "blue", read(BLUE), set()),
        ("color", "blue", read(replace(BLUE, x=0.7, radius=0.3)), set()),  # place and size are free
        ("color", "blue", read(CIRCLE), {"changed"}),
        ("color", "blue", read(replace(BLUE, shape="ring")), {"kept"}),
        ("color", "blue", read(BLUE, ground="gray"), {"kept"}),
        ("color", "blue", read(BLUE, SQUARE), {"kept"}),  # another object was not asked for
        ("shape", "square", read(OTHER), set()),
        ("shape", "square", read(replace(OTHER, color="blue")), {"kept"}),
        ("shape", "square", read(CIRCLE), {"changed"}),
        ("background", "pink", read(CIRCLE, ground="pink"), set()),
        ("background", "pink", read(CIRCLE), {"changed"}),
        ("background", "pink", read(BLUE, ground="pink"), {"kept"}),
        ("background", "pink", Verdict(None, 0.0, "pink"), {"kept"}),
        ("object", ("blue", "square"), read(CIRCLE, SQUARE), set()),
        ("object", ("blue", "square"), read(SQUARE, CIRCLE), set()),
        ("object", ("blue", "square"), read(SQUARE), {"changed", "kept"}),
        ("object", ("blue", "square"), read(CIRCLE), {"changed"}),
        ("object", ("blue", "square"), read(BLUE, SQUARE), {"kept"}),
        ("object", ("blue", "square"), read(CIRCLE, SQUARE, ground="gray"), {"kept"}),
        ("color", "blue", Verdict(None, 0.0, "white"), {"changed", "kept"}),
    ],
)
def test_an_edit_is_right_where_the_words_hold_and_the_rest_is_the_same(
    kind, value, verdict, wrong
):
    assert answer(kind, value, verdict) == {name: name not in wrong for name in BOTH}


def test_words_name_what_changes_and_nothing_else():
    edits = make_edits(random_scenes(40, 3, split="test", one_object_share=1.0), 0)
    assert [e.kind for e in edits] == list(KINDS) * 40
    for e in edits:
        old = e.reference.things[0]
        said = set(e.text.split())
        assert not said & {old.color, old.shape, e.reference.background}
        assert parse(e.text) == e.description and not e.description.true_of(e.reference)
        assert parse(e.source).true_of(e.reference)
        values = (e.value,) if isinstance(e.value, str) else e.value
        assert set(values) <= said & set(e.target.split())
    assert make_edits([e.reference for e in edits[::4]], 0) == edits
    assert make_edits([e.reference for e in edits[::4]], 1) != edits
    with pytest.raises(ValueError, match="one object each"):
        make_edits(random_scenes(2, 0, one_object_share=0.0))


def test_a_drawing_of_the_target_is_right_by_the_judge():
    """The reference itself keeps and changes nothing; what is asked, drawn, is read as right."""
    background = Edit(ONE, "background", "gray")
    pictures = render([ONE, replace(ONE, background="gray"), Scene((CIRCLE, SQUARE), "white")])[0]
    plain, gray, two = judge(pictures)
    added = Edit(ONE, "object", ("blue", "square"))
    assert added.judged(two) == (True, True) and added.judged(plain) == (False, True)
    assert background.judged(gray) == (True, True) and background.judged(plain) == (False, True)


@pytest.fixture(scope="module")
def edits(tiny):
    known = calibrate(tiny, n=30, progress=False)
    pairs = collect_pairs(tiny, n=60, progress=False)
    references = reference_sets(tiny, 4, "validation", 1)["one"]
    chosen = choose_inverses(tiny, known, pairs, references)
    return EditSet(references, chosen, EditingPlan(steps=2, guidance=1.0), 0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_from_the_noise_of_the_reference(edits, method):
    """A second draw is equal, another noise is not; parts are as the whole."""
    setting = GRIDS.get(method, (float("nan"),))[-1]
    rows = slice(4, 12)
    images = edits.draw(method, setting, rows, 0)
    assert images.shape == (8, 3, 64, 64)
    part = edits.draw(method, setting, slice(4, 8), 0)
    torch.testing.assert_close(part, images[:4], atol=1e-4, rtol=0)
    other = edits.draw(method, setting, slice(4, 8), 1)
    assert float((other - part).abs().max()) > 1e-3
    if method.startswith("image_"):
        assert torch.equal(images[0], images[3])


def test_a_run_writes_every_row_once_and_goes_on_after_an_interruption(tiny, tmp_path, monkeypatch):
    path, calls, draw = tmp_path / "editing.csv", [], EditSet.draw
    monkeypatch.setitem(edit_methods.GRIDS, "edit_truncated", (0.0, 1.0))

    def interrupted(edits, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(edits, *args)

    options = {**QUICK, "methods": FEW, "output": path, "cache": tmp_path / "cache"}
    monkeypatch.setattr(EditSet, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_editing(tiny, **options)
    items = path.with_name("editing_items.csv").read_text().splitlines()
    assert len(items) == 3  # the head and the two settings on validation
    table = evaluate_editing(tiny, **options)
    assert path.with_name("editing_items.csv").read_text().splitlines()[:3] == items
    # twice fine, two noises on test, one of the bound and the curve
    assert len(calls) == 3 + 2 + 2 + 2 + 1 + 1
    keys = ["method", "kind", "alpha", "metric"]
    assert not table.duplicated(keys).any() and (table.model_sha256 == tiny.sha256).all()
    spread = 1e-5 + 1e-5 * table.value.abs()  # tables hold six digits
    assert (table.low <= table.value + spread).all() and (table.value <= table.high + spread).all()
    for method in FEW:
        own = table[table.method == method]
        asked = {(k, m) for k in ("all", *KINDS) for m in ("changed", "kept", "joint")}
        assert asked <= set(zip(own.kind, own.metric, strict=True))
        assert own.alpha.isna().all() == (method not in GRIDS)
    gaps = table[table.metric.str.startswith("joint_minus_")]
    assert set(gaps.metric) == {"joint_minus_words", "joint_minus_image_truncated"}
    calls.clear()
    assert evaluate_editing(tiny, **options).equals(table) and not calls


def test_the_setting_is_chosen_on_validation_by_both(tiny, tmp_path, monkeypatch):
    """Alpha 1 changes more, alpha 0 keeps more, 0.5 does both most often: 0.5 is reported."""
    monkeypatch.setitem(edit_methods.GRIDS, "edit_truncated", (0.0, 0.5, 1.0))
    shares = {0.0: (0.25, 1.0), 0.5: (0.75, 0.75), 1.0: (1.0, 0.25)}

    def measured(edits, method, setting, seeds):
        count = len(edits.edits) * seeds
        return [list(np.arange(count) % 4 < 4 * share) for share in shares.get(setting, (1, 1))]

    monkeypatch.setattr(EditSet, "measure", measured)
    options = {**QUICK, "methods": ("edit_truncated", "caption"), "output": tmp_path / "e.csv"}
    options["cache"] = tmp_path / "cache"
    table = evaluate_editing(tiny, **options)

    def rows(metric, kind="all"):
        own = table[(table.method == "edit_truncated") & (table.kind == kind)]
        own = own[own.metric == metric]
        return dict(zip(own.alpha, own.value, strict=True))

    assert rows("chosen") == rows("best") == {0.5: 1.0}
    assert rows("validation_joint") == rows("joint") == {0.0: 0.25, 0.5: 0.75, 1.0: 0.25}
    assert rows("validation_changed")[1.0] == rows("validation_kept")[0.0] == 1
    assert [rows("joint", kind)[0.5] for kind in KINDS] == [1, 1, 1, 0]
    assert rows("joint_minus_caption") == {0.5: -0.25}
    with pytest.raises(ResultsError, match="copies 3"):
        evaluate_editing(tiny, **options, copies=3)


def test_what_cannot_be_measured_is_refused(tiny, tmp_path):
    for options, message in (
        ({"n": 3}, "n=3: Input should be greater than or equal to 4"),
        ({"seeds": 0}, "seeds=0: Input should be greater than 0"),
        ({"methods": ["magic"]}, "methods='magic': .*'edit_truncated', 'edit_alternative'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_editing(tiny, **{**QUICK, **options}, output=tmp_path / "x.csv")
    result = CliRunner().invoke(evaluate, ["editing", "--method", "magic"])
    assert result.exit_code == 2 and "methods='magic'" in result.output
    assert set(GRIDS) | set(ONE_SEED) | set(EDITS) <= set(METHODS) and not list(tmp_path.iterdir())
