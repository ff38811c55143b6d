"""The table of precisions: the same numbers beside themselves, others where they are rounded."""

import pandas as pd
import pytest
import torch

from dsd_tutorial.shapes import TASKS
from lab.measuring.precision import COLUMNS, READS, beside, evaluate_precision

WHERE = {"n_items": 4, "time_steps": (300,), "progress": False}


def measured(tiny, folder, dtype):
    path = evaluate_precision(
        tiny, dtype=dtype, output=folder / f"{dtype}.csv", cache=folder / "cache", **WHERE
    )
    return pd.read_csv(path)


def test_a_precision_beside_itself_changes_nothing(tiny, tmp_path):
    table = measured(tiny, tmp_path, "float32")
    assert [*table.columns][: len(COLUMNS)] == [*COLUMNS]
    assert {*zip(table.task, table.reads, strict=True)} == {(t, r) for t in TASKS for r in READS}
    assert (table.same_winner == 1).all() and (table.same_order == 1).all()
    assert (table.change == 0).all() and (table.accuracy == table.accuracy_float32).all()
    assert (table.n == 4).all()


def test_half_precision_is_another_unet_and_the_given_one_stays(tiny, tmp_path):
    before = {name: x.clone() for name, x in tiny.unet.state_dict().items()}
    half = beside(tiny, "bfloat16")
    assert half.dtype == torch.bfloat16 != tiny.dtype and half.vae is tiny.vae
    assert next(half.unet.parameters()).dtype == torch.bfloat16
    noisy, prompts = torch.randn(1, *tiny.latent_shape), tiny.encode_text(["a red circle"])
    with torch.no_grad():
        full, other = (m.predict_noise(noisy, 500, prompts) for m in (tiny, half))
    assert other.dtype == torch.float32 and 0 < (full - other).norm() / full.norm() < 0.05
    assert all(torch.equal(x, before[name]) for name, x in tiny.unet.state_dict().items())
    with pytest.raises(ValueError, match="dtype 'float8'"):
        beside(tiny, "float8")
