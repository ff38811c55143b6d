"""The benchmark: the released way gives our scores where it is right; rows say what was timed."""

from statistics import median

import pandas as pd
import pytest
import torch

from dsd_tutorial.matching import score
from dsd_tutorial.matching.cost import measure
from lab.bench import cases, report
from lab.bench.cases import COLUMNS, Bench
from lab.bench.full_size import fill
from lab.bench.released import released_scores
from lab.bench.timing import interleaved
from lab.upkeep.blocks import ROOT, with_blocks

TEXTS = ["a red circle", "a blue square above a green star", "a pink heart"]


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_released_way_gives_our_scores_at_twice_the_passes(tiny, image):
    how = {"steps": 2, "seed": 3}
    before = dict(tiny.unet.attn_processors)
    with measure(tiny) as meter:
        found = released_scores(tiny, image, TEXTS, **how)
    want = score(tiny, image, TEXTS, layers="last", error_weight=1.0, progress=False, **how)[0]
    torch.testing.assert_close(found, want, atol=5e-5, rtol=0)
    assert meter.unet_passes == 3 * 2 * 2 and dict(tiny.unet.attn_processors) == before


def test_ways_take_turns():
    turns = []
    ways = {name: lambda name=name: turns.append(name) or name for name in ("a", "b")}
    timed = interleaved(ways, repeats=3)
    assert "".join(turns) == "ab" * 3 and timed["a"].result == "a"
    assert len(timed["b"].seconds) == 3 and timed["b"].fastest <= median(timed["b"].seconds)


def test_rows_hold_what_was_timed(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "BOTH", cases.BOTH | {"steps": 2})
    monkeypatch.setattr(cases, "STEPS", 2)
    monkeypatch.setattr(report, "REPEATS", 1)
    monkeypatch.setattr(report, "_models", lambda: {"float32": tiny})
    path = tmp_path / "benchmark.csv"
    for only in (["observe"], ["1x10x10"], ["observe"]):
        report.run_cases(only=only, output=path)
    rows = pd.read_csv(path)
    assert tuple(rows.columns) == COLUMNS and len(rows) == 3 + 4
    one = rows[rows["case"] == "1x10x10"].set_index("way")
    assert one.loc["released float32", "passes"] == 2 * 2 * 10
    assert one.loc["score float32", "passes"] == 2 * (10 + 1)
    assert one.loc["rank float32", "passes"] <= 2 * 10
    assert one.loc["released float32", "ratio"] == 1 and (one["agreement"] <= 1).all()
    said = report.lines(pd.read_csv(path, keep_default_na=False))
    assert said.count("\n") == 6 and "the released way, float32" in said
    with pytest.raises(ValueError, match="unknown case 'x'; choose from 1x10x10"):
        report.run_cases(only=["x"], output=path)


def test_pages_say_what_the_tables_hold():
    for page, found in report.blocks().items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert with_blocks(text, "make bench", found) == text, f"make bench: {page}"


def test_the_share_of_equal_winners():
    assert cases.agreement(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3])) == pytest.approx(2 / 3)


def test_random_weights_come_in_their_final_precision():
    with torch.device("meta"):
        part = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.GroupNorm(2, 8))
    part = part.to_empty(device="cpu")
    fill(part, torch.Generator().manual_seed(0), torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in part.parameters())
    assert part[0].weight.float().std() > 0.05 and (part[1].weight == 1).all()


def test_passes_of_every_model_are_counted(tiny):
    bench = Bench({"float32": tiny}, 1)
    context = tiny.encode_text(TEXTS)
    noisy = torch.zeros(3, *tiny.latent_shape)
    (row,) = bench.rows("c", {"way": lambda: tiny.predict_noise(noisy, 5, context)})
    assert row["passes"] == 3 and set(row) == set(COLUMNS)
