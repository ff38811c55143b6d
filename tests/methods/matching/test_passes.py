"""Batches over candidates and time steps: what is shared, what is halved, what Ctrl-C leaves."""

import pytest
import torch
from real_sizes import real_model

from dsd_tutorial.matching import TextPrior, batches, components, score
from dsd_tutorial.matching.passes import Passes

TEXTS = ["a red circle", "a blue square above a green star", "a pink heart"]
HOW = {"steps": [100, 700], "noises": 2, "layers": ["mid", "up.2"], "progress": False}
PAIRS = [(1, 2), (0, 0), (1, 0), (0, 1), (1, 2)]


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sizes(tiny, monkeypatch):
    """The rows of each pass, in order."""
    seen, predict = [], tiny.predict_noise

    def count(noisy, t, context):
        seen.append(len(noisy))
        return predict(noisy, t, context)

    monkeypatch.setattr(tiny, "predict_noise", count)
    return seen


def same(a, b, at=slice(None)):
    for name, table in a.by_reading.items():
        torch.testing.assert_close(
            table[at], b.by_reading[name][at], atol=3e-5, rtol=0, equal_nan=True
        )
    torch.testing.assert_close(a.errors[at], b.errors[at], atol=3e-5, rtol=0)


def test_candidates_steps_and_the_empty_prompt_share_a_batch(tiny, images, sizes):
    """One pass over everything equals one time step alone, row by row."""
    how = HOW | {"token_mask": ["all", "words"], "readings": ["spread"], "errors": True}
    together = components(tiny, images, TEXTS, PAIRS, **how)
    assert sizes == [(4 + 2) * 2 * 2]  # (distinct pairs + empty prompts) x steps x noises
    for size in (1, 7):
        same(components(tiny, images, TEXTS, PAIRS, batch_size=size, **how), together)
    first = components(tiny, images, TEXTS, PAIRS, **how | {"steps": [100]})  # the same noises
    torch.testing.assert_close(first.scores[:, 0], together.scores[:, 0], atol=3e-5, rtol=0)
    torch.testing.assert_close(first.errors[:, 0], together.errors[:, 0], atol=3e-5, rtol=0)


def test_every_image_step_and_noise_is_a_field_of_its_own(tiny, images):
    """None is taken for another, where rows that are alike are computed once."""
    how = HOW | {"steps": [100, 500, 900], "errors": True}
    same(components(tiny, images, TEXTS[:2], batch_size=1, **how),
         components(tiny, images, TEXTS[:2], **how))  # fmt: skip


def test_rows_go_pair_by_pair_and_the_empty_prompt_first(tiny, images):
    passes = Passes(tiny, images, TEXTS, torch.tensor(PAIRS), steps=2, errors=True)
    order = [(passes.image[p].item(), passes.text[p].item()) for p in passes.rows()[:, 0]]
    assert order[::2] == order[1::2] == [(0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 2)]
    assert passes.rows()[:, 1].tolist() == [0, 1] * 6
    assert passes.rows().shape == (12, 3)
    some = passes.rows(torch.tensor([2, 3]), steps=[1])  # pairs of image 1 alone
    assert some[:, 0].tolist() == [5, 2, 3] and set(some[:, 1].tolist()) == {1}


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_run_twice(
    tiny, images, sizes, monkeypatch
):
    want = components(tiny, images, TEXTS, errors=True, **HOW)
    full = tiny.predict_noise

    def small_memory(noisy, t, context):
        if len(noisy) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return full(noisy, t, context)

    monkeypatch.setattr(tiny, "predict_noise", small_memory)
    for size in ("auto", 16):
        sizes.clear()
        same(components(tiny, images, TEXTS, errors=True, batch_size=size, **HOW), want)
        assert sum(sizes) == 8 * 2 * 2 and max(sizes) <= 5
    monkeypatch.setattr(tiny, "predict_noise", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score(tiny, images, TEXTS, **HOW)


def test_other_errors_and_a_single_row_that_does_not_fit_come_through(tiny, images, monkeypatch):
    for error in (torch.OutOfMemoryError("out of memory"), RuntimeError("shapes differ")):

        def fail(noisy, t, context, error=error):
            raise error

        monkeypatch.setattr(tiny, "predict_noise", fail)
        with pytest.raises(type(error), match=str(error)):
            score(tiny, images, TEXTS, **HOW)


def test_what_is_known_survives_an_interrupt(tiny, images, press):
    prior = TextPrior(images[:1])
    how = HOW | {"batch_size": 6, "prior": prior}
    want = components(tiny, images, TEXTS, errors=True, **how)
    press(4)
    with pytest.raises(KeyboardInterrupt):
        components(tiny, images, TEXTS, errors=True, **how)
    press(4)
    with pytest.warns(UserWarning, match="interrupted"):
        found = components(tiny, images, TEXTS, errors=True, partial=True, **how)
    known = found.score().isfinite()  # 18 rows: 4 of the empty prompt, 3 pairs, half a pair
    assert known.tolist() == [True] * 3 + [False] * 3
    same(found, want, slice(0, 3))
    assert found.score(torch.ones(3, 4)).isnan().tolist() == [False] * 3 + [True] * 3
    press(4)
    with pytest.warns(UserWarning, match="interrupted"):
        table = score(tiny, images, TEXTS, error_weight=1.0, partial=True, **how)
    assert table.isnan().tolist() == [[False] * 3, [True] * 3]


def test_auto_suits_model_and_memory(tiny, monkeypatch):
    assert batches.Batches(tiny).size == 128 and batches.Batches(tiny, "auto", 64**2).size == 32
    real = real_model("sd-1.5")
    real.device = torch.device("cpu")
    assert batches.Batches(real).size == 1
    monkeypatch.setattr(batches, "free_memory", lambda device: 40 * batches.row_bytes(tiny, 256))
    assert batches.Batches(tiny).size == 16
    monkeypatch.setattr(batches, "free_memory", lambda device: 0)
    assert batches.Batches(tiny).size == 1


def test_auto_grows_where_that_is_quick_and_shrinks_where_it_is_slow(tiny, monkeypatch):
    sized = batches.Batches(tiny)
    for seconds, want in ((0.01, 128), (60.0, 64), (1.0, 64)):  # on a CPU it never grows
        sized._adapt(seconds)
        assert sized.size == want
    monkeypatch.setattr(sized.model, "device", torch.device("cuda"))
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**12)
    sized._adapt(0.01)
    assert sized.size == 128
    for bad in (0, -3, "all"):
        with pytest.raises(ValueError, match="batch_size must be at least 1, or 'auto'"):
            batches.Batches(tiny, bad)
