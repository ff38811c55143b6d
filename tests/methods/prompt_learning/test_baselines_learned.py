"""CoOp, Tip-Adapter and the probe: where they start, what they learn, what they leave alone."""

import pytest
import torch

from dsd_tutorial.matching.items import decision_loss, merit
from dsd_tutorial.prompt_learning.coop import CoOp, learned_context
from dsd_tutorial.prompt_learning.methods import make_method
from dsd_tutorial.prompt_learning.pair_adapters import LinearProbe, TipAdapter, TunedTipAdapter
from dsd_tutorial.shapes.tasks import few_shot, make_task
from dsd_tutorial.stable_diffusion.checksums import state_sha256


@pytest.fixture(scope="module")
def items():
    return few_shot("comvg", 8)


@pytest.fixture(scope="module")
def validation():
    return make_task("comvg", 6, split="validation")


@pytest.mark.parametrize("template", ["a picture of", "there is", "striped"])
def test_coop_starts_at_the_score_of_its_template(tiny, items, template):
    from torch.nn.functional import cosine_similarity

    coop = CoOp(template, steps=0)
    with torch.no_grad():
        images = tiny.encode_clip_image(items.images()).embedding
        texts = tiny.encode_clip_text([f"{template} {text}" for text in items.texts])
        table = cosine_similarity(images[:, None], texts[None], dim=-1)
    want = table[items.pairs()].view(len(items.items), -1)
    torch.testing.assert_close(coop.score(tiny, items)[0], want, atol=1e-6, rtol=0)
    coop.fit(tiny, items, items, progress=False)  # no step: the start itself, put in by the hook
    assert coop.context is not None
    torch.testing.assert_close(coop.score(tiny, items)[0], want, atol=1e-6, rtol=0)


def test_the_context_replaces_its_positions_and_nothing_else(tiny):
    table = tiny.clip.text_model.embeddings.token_embedding
    ids = tiny.tokenize(["a red circle", "a picture of a star"])
    plain, context = table(ids), torch.randn(3, 32)
    with learned_context(tiny, context):
        changed = table(ids)
    torch.testing.assert_close(changed[:, 1:4], context.expand(2, 3, 32))
    assert torch.equal(changed[:, 4:], plain[:, 4:]) and torch.equal(changed[:, 0], plain[:, 0])
    with pytest.raises(KeyError), learned_context(tiny, context):
        raise KeyError
    assert torch.equal(table(ids), plain) and not table._forward_hooks


def test_coop_learns_and_leaves_the_model_alone(tiny, items):
    before = state_sha256(tiny.clip.state_dict())
    start, coop = CoOp(), CoOp(steps=30, lr=2e-2, batch_items=3)
    cost = coop.fit(tiny, items, items, seed=1, progress=False)
    first, last = (decision_loss(10 * m.score(tiny, items)[0], items) for m in (start, coop))
    assert last < first
    assert merit(coop.score(tiny, items)[0], items) > merit(start.score(tiny, items)[0], items)
    assert state_sha256(tiny.clip.state_dict()) == before and cost.unet_passes == 0
    again = CoOp(steps=30, lr=2e-2, batch_items=3)
    again.fit(tiny, items, items, seed=1, progress=False)
    assert torch.equal(again.context, coop.context)
    again.fit(tiny, items, items, seed=2, progress=False)
    assert not torch.equal(again.context, coop.context)


def test_coop_is_never_worse_than_its_start_on_validation(tiny, items, validation):
    coop = CoOp(steps=5, lr=1.0, check_every=1)  # far too fast: it falls apart
    coop.fit(tiny, items, validation, progress=False)
    start = merit(CoOp().score(tiny, validation)[0], validation)
    # within an ulp of the sums: the start is scored in another batch
    assert merit(coop.score(tiny, validation)[0], validation)[0] >= start[0]


def test_an_interrupt_keeps_the_best_so_far(tiny, items, validation, monkeypatch, capsys):
    coop, learn = CoOp(steps=9, check_every=1), CoOp._loss
    calls = []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(self, *args)

    monkeypatch.setattr(CoOp, "_loss", interrupted)
    coop.fit(tiny, items, validation, progress=False)
    assert len(calls) == 3 and "best context so far" in capsys.readouterr().out
    assert torch.isfinite(coop.score(tiny, validation)[0]).all()


def test_an_empty_cache_weight_is_clip_alone(tiny, items, validation):
    tip = TipAdapter()
    tip.fit(tiny, items, validation, progress=False)
    tip.alpha = 0.0
    clip, _ = make_method("clip").score(tiny, validation)
    scale = tiny.clip.logit_scale.exp()
    torch.testing.assert_close(tip.score(tiny, validation)[0], scale * clip, atol=1e-4, rtol=0)


@pytest.mark.parametrize("task", ["comvg", "refcoco", "winoground"])
def test_the_cache_knows_its_own_pairs(tiny, task):
    few = few_shot(task, 6)
    tip = TipAdapter()
    tip.fit(tiny, few, few, progress=False)
    tip.alpha, tip.beta = 1e6, 50.0  # the nearest cached pair alone decides
    reached = few.accuracy(tip.score(tiny, few)[0].flatten())
    assert all(hit.all() for hit in reached.values())
    assert len(tip.keys) == 6 * few.shape[0] * few.shape[1]


def test_tip_is_never_worse_than_clip_on_validation(tiny, items, validation):
    clip = merit(make_method("clip").score(tiny, validation)[0], validation)[0]
    for kind in (TipAdapter, lambda: TunedTipAdapter(steps=4)):
        tip = kind()
        tip.fit(tiny, items, validation, progress=False)
        assert merit(tip.score(tiny, validation)[0], validation)[0] >= clip


def test_tuning_moves_the_keys_towards_fewer_errors(tiny, items):
    plain, tuned = TipAdapter(), TunedTipAdapter(steps=40, lr=1e-2)
    for method in (plain, tuned):
        method.fit(tiny, items, items, progress=False)
    assert tuned.keys.shape == plain.keys.shape and not tuned.keys.requires_grad
    assert merit(tuned.score(tiny, items)[0], items) >= merit(plain.score(tiny, items)[0], items)


def test_the_probe_separates_what_it_has_seen(tiny):
    items = few_shot("comvg", 4)  # 8 rows of 64 features: separable, if the two sides differ at all
    probe = LinearProbe()
    cost = probe.fit(tiny, items, items, progress=False)
    assert merit(probe.score(tiny, items)[0], items)[0] == 1.0
    assert cost.parameters == 2 * 32 + 1 and probe.strength in (0.001, 0.01, 0.1, 1.0)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"lr": 0.0}, {"batch_items": 0}, {"template": " "}])
def test_settings_of_coop_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CoOp(**bad)
