"""The table of grounding, on a tiny model: its rows, their passes, and that it goes on."""

import numpy as np
import pandas as pd
import pytest

from dsd_tutorial.shapes import EXPRESSIONS, referring_expressions
from lab.measuring.grounding import BLOCK, FATES, Said, evaluate_grounding, fate

BOXED = {
    "random", "clip", "attention", "gain", "error", "error_base", "pairs", "crop", "mask",
    "crop_base", "mask_base", "own_noise", "tight_crop", "centre_crop", "black", "overwritten",
}  # fmt: skip


TRAPS = {"own_noise", "tight_crop", "centre_crop", "black", "overwritten"}


@pytest.fixture(scope="module")
def table(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounding")
    how = {
        "n_items": 3, "traps": 2, "steps": 2, "layers": ("mid.0",), "heat_steps": (500,),
        "gain_steps": (500,), "cache": folder / "cache", "progress": False,
        "output": folder / "grounding.csv",
    }  # fmt: skip
    path = evaluate_grounding(tiny, **how)
    first = path.read_bytes()
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:  # everything lies in the cache
        patch.setattr("lab.measuring.grounding.isolation_errors", None)
        assert evaluate_grounding(tiny, **how).read_bytes() == first
    return pd.read_csv(path)


def test_every_method_has_a_row_for_each_kind(table):
    for kind in ("all", *EXPRESSIONS):
        own = table[table.kind == kind]
        assert set(own[own.proposals == "boxes"].method) >= BOXED - TRAPS
    assert set(table[table.proposals == "grid"].method) == {"random", "clip", "attention", "gain"}
    whole = table[(table.kind == "all") & (table.proposals == "boxes")].set_index("method")
    assert set(whole.index) == BOXED
    assert whole.n["error"] == 3 and whole.n["own_noise"] == 2
    assert whole.passes["own_noise"] == pytest.approx(_passes(2)) and whole.to_error["error"] == 0
    assert whole.passes["error"] == pytest.approx(_passes(3))
    assert whole.passes["error_base"] == 2 * whole.passes["error"]
    assert ((table.value >= table.low - 1e-9) & (table.value <= table.high)).all()


def test_every_wrong_choice_is_of_one_sort(table):
    boxed = table[table.proposals == "boxes"].set_index(["method", "kind"])
    for method in BOXED - TRAPS:
        right = [boxed.value[method, kind] for kind in ("attribute", "held_out")]
        wrong = [boxed.value[method, fate] for fate in FATES]
        assert np.mean(right) + sum(wrong) == pytest.approx(1)
        assert boxed.n[method, FATES[0]] == 2


def test_fates_are_told_by_what_is_shared():
    for e in referring_expressions(12, "test", kinds=["attribute"]):
        told = [fate(e, i) for i in range(len(e.scene.things) + 1)]
        assert told[e.target] == "" and told[-1] == "no thing's box"
        for i, thing in enumerate(e.scene.things):
            if i != e.target:
                shared = thing.shape == e.scene.things[e.target].shape
                assert told[i] == ("another color" if shared else "another shape")


def _passes(n):
    """Two isolations and two time steps of every thing and of three distractors."""
    things = [len(e.scene.things) for e in referring_expressions(BLOCK, "test")[:n]]
    return sum(2 * 2 * (k + 3) for k in things) / n


def test_wordings_are_those_of_the_training_captions():
    e = referring_expressions(2, "test")[1]
    said = Said.of(e)
    assert said.parts[0].startswith("a") and e.said.relation in said.whole
    assert said.whole.startswith(said.parts[0]) and said.turned.endswith(said.parts[0])
