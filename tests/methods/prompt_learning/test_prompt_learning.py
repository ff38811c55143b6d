"""Adapters: every one begins at the zero-shot score, leaves no trace, and can be learned."""

import pytest
import torch

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.matching import Components, score
from dsd_tutorial.matching.cost import Cost, measure
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.prompt_learning import (
    Adapter,
    AttentionPrompt,
    HeadWeights,
    LoRA,
    Scoring,
    SoftPrompt,
    decisions,
    evaluate_items,
    item_components,
    pass_scores,
)
from dsd_tutorial.shapes.tasks import few_shot
from dsd_tutorial.stable_diffusion.checksums import state_sha256
from dsd_tutorial.stable_diffusion.noising import shared_noise

ONE = Scoring(time_steps=1)
BOTH = Scoring(time_steps=2, token_mask="words", error_weight=1.0)
MAKERS = {
    "soft, after": lambda m, s: SoftPrompt(m),
    "soft, before": lambda m, s: SoftPrompt(m, where="before"),
    "bias": lambda m, s: AttentionPrompt(m, prefix=0),
    "prefix": lambda m, s: AttentionPrompt(m, bias=False, prefix=3),
    "lora": lambda m, s: LoRA(m),
    "weights": lambda m, s: HeadWeights(m, s),
    "softmax": lambda m, s: HeadWeights(
        m, s, over=("step", "layer", "head"), kind="softmax", error=True
    ),
    "weights on lora": lambda m, s: HeadWeights(m, s, error=True, on=LoRA(m)),
}
PASSING = ["soft, after", "soft, before", "bias", "prefix", "lora"]


@pytest.fixture(scope="module")
def items():
    return few_shot("winoground", 1)


@pytest.fixture(scope="module")
def zero_shot(tiny, items):
    return {s: evaluate_items(tiny, items, None, s, progress=False) for s in (ONE, BOTH)}


def _of(table):
    """Components of some layers and steps, without the error term."""
    pairs, steps, layers, _ = table.shape
    names = tuple(f"up.{i}" for i in range(layers))
    return Components(
        {"all": table}, None, names, tuple(range(steps)), torch.zeros(pairs, 2, dtype=torch.long)
    )


def _nudge(adapter: Adapter, size: float = 0.3) -> Adapter:
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(size * torch.randn(p.shape, generator=numbers))
    adapter.project()
    return adapter


@pytest.mark.parametrize("name", MAKERS)
def test_every_adapter_starts_at_the_zero_shot_score(tiny, items, zero_shot, name):
    for scoring in (ONE, BOTH):
        got = evaluate_items(tiny, items, MAKERS[name](tiny, scoring), scoring, progress=False)
        # 1e-6 of what is subtracted: the error term is the difference of two norms of about 30
        room = 1e-6 if scoring is ONE else 3e-5
        torch.testing.assert_close(got, zero_shot[scoring], rtol=1e-6, atol=room)


@pytest.mark.parametrize("name", PASSING)
def test_what_was_learned_changes_the_score_and_leaves_no_trace(tiny, items, zero_shot, name):
    before = state_sha256(tiny.unet.state_dict())
    processors = dict(tiny.unet.attn_processors)
    adapter = _nudge(MAKERS[name](tiny, ONE))
    with pytest.raises(RuntimeError, match="stop"):
        with adapter.active(tiny):
            raise RuntimeError("stop")
    got = evaluate_items(tiny, items, adapter, ONE, progress=False)
    assert (got - zero_shot[ONE]).abs().min() > 1e-5
    assert torch.equal(evaluate_items(tiny, items, None, ONE, progress=False), zero_shot[ONE])
    assert tiny.unet.attn_processors == processors and not hasattr(tiny.unet, "peft_config")
    assert state_sha256(tiny.unet.state_dict()) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())
    assert not any(m._forward_hooks for m in tiny.text_encoder.modules())


@pytest.mark.parametrize("name", PASSING)
def test_gradients_reach_the_adapter_and_no_weight_of_the_model(tiny, items, name):
    adapter = MAKERS[name](tiny, BOTH)
    latents = tiny.encode_image(items.images(64))
    e = shared_noise(latents.shape[1:], 0, 0)
    pairs = item_pairs(items).flatten(0, 1)
    scores, eps = pass_scores(tiny, adapter, latents, items.texts, pairs, 500, e, BOTH)
    assert scores.shape == (4,) and eps.shape == (4, *latents.shape[1:])
    (scores * torch.tensor([1.0, -1.0, 2.0, 0.5])).sum().backward()
    touched = {n for n, p in adapter.named_parameters() if p.grad is not None and p.grad.any()}
    # at the start B = 0 and gate = 0, so that A, keys and values wait for the first step
    waiting = {"lora": "down", "prefix": ("key", "value")}.get(name, "nothing")
    assert touched == {n for n, _ in adapter.named_parameters() if not n.startswith(waiting)}
    assert all(p.grad is None for p in tiny.unet.parameters())


@pytest.mark.parametrize("name", ["soft, after", "soft, before", "bias", "prefix", "lora"])
def test_a_training_pass_scores_what_evaluation_scores(tiny, items, name):
    """The same (t, e), once through `pass_scores` with gradients, once through components."""
    scoring = Scoring(time_steps=[300], token_mask="no_start", error_weight=0.5)
    adapter = _nudge(MAKERS[name](tiny, scoring), 0.1)
    latents = tiny.encode_image(items.images(64))
    e = shared_noise(latents.shape[1:], scoring.seed, 0)
    pairs = item_pairs(items).flatten(0, 1)
    got, _ = pass_scores(tiny, adapter, latents, items.texts, pairs, 300, e, scoring)
    want = evaluate_items(tiny, items, adapter, scoring, progress=False)
    torch.testing.assert_close(got.view(1, 4).detach(), want, atol=3e-5, rtol=1e-5)


def test_active_serves_the_rest_of_the_package(tiny, items):
    adapter = _nudge(SoftPrompt(tiny))
    with adapter.active(tiny):
        inside = score(tiny, items.images(64), items.texts, steps=1, progress=False)
    want = evaluate_items(tiny, items, adapter, ONE, progress=False).view(2, 2)
    torch.testing.assert_close(inside, want, atol=1e-5, rtol=0)


def test_a_soft_prompt_changes_the_places_it_names_and_no_other(tiny):
    texts = ["a red circle", "a small blue square above a green star"]
    plain, ends = tiny.encode_text(texts), tiny.eos_positions(texts).tolist()
    for positions, n in (("start", 1), ("padding", 3), ("both", 3)):
        adapter = SoftPrompt(tiny, positions=positions, n=n)
        with torch.no_grad():
            for p in adapter.parameters():
                p.fill_(1.0)
        with adapter.active(tiny), torch.no_grad():
            moved = (tiny.encode_text(texts) - plain).abs().amax(-1) > 0.5  # (2, L)
        for row, end in zip(moved, ends, strict=True):
            want = {0} if positions != "padding" else set()
            want |= set(range(end + 1, end + 1 + n)) if positions != "start" else set()
            assert set(row.nonzero().flatten().tolist()) == want


def test_before_the_encoder_padding_cannot_reach_the_words_but_the_start_can(tiny):
    texts = ["a red circle above a star"]
    plain, end = tiny.encode_text(texts), int(tiny.eos_positions(texts)[0])
    for positions, reached in (("padding", False), ("start", True)):
        adapter = _nudge(SoftPrompt(tiny, where="before", positions=positions, n=2), 1.0)
        with adapter.active(tiny), torch.no_grad():
            change = (tiny.encode_text(texts) - plain).abs().amax(-1)[0]
        assert (change[1 : end + 1].max() > 1e-3) == reached
        assert change[end + 1] > 1e-3


def test_a_long_caption_uses_the_padding_it_has(tiny):
    adapter = SoftPrompt(tiny, positions="padding", n=20)
    ids = torch.full((1, 6), 5)
    ids[0, 4:] = 9  # end token at 4, one padding position behind it
    with torch.no_grad():
        adapter.residual["padding"].fill_(1.0)
    assert adapter.added(ids, eos=9).abs().amax(-1).tolist() == [[0, 0, 0, 0, 0, 1]]


def test_a_closed_gate_has_a_gradient_and_a_negative_one_is_brought_back(tiny):
    adapter = AttentionPrompt(tiny, bias=False, prefix=1)
    gate = next(iter(adapter.gate.values()))
    with torch.no_grad():
        gate.fill_(-2.0)
    adapter.project()
    assert torch.equal(gate, torch.zeros_like(gate))


def test_two_loras_at_once_are_refused(tiny):
    a, b = LoRA(tiny), LoRA(tiny)
    with a.active(tiny), pytest.raises(RuntimeError, match="active already"):
        with b.active(tiny):
            pass


def test_lora_counts_its_numbers(tiny):
    adapter = LoRA(tiny, rank=2, targets=["to_k"], layers="mid.0")
    assert adapter.size == 2 * (32 + 64)  # A (2, 32) from the text, B (64, 2) into the layer
    assert set(adapter.config()) == {"rank", "alpha", "targets", "layers", "seed"}


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda m: SoftPrompt(m, where="during"), "before"),
        (lambda m: SoftPrompt(m, positions="end"), "start, padding, both"),
        (lambda m: SoftPrompt(m, n=31), "1 to 30"),
        (lambda m: AttentionPrompt(m, bias=False, prefix=0), "prefix >= 1"),
        (lambda m: LoRA(m, rank=0), "rank >= 1"),
        (lambda m: LoRA(m, targets=["to_z"]), "to_q"),
        (lambda m: HeadWeights(m, ONE, over=["pixel"]), "step, layer, head"),
        (lambda m: Scoring(token_mask="verbs"), "no_padding"),
        (lambda m: Scoring(attention_weight=0), "nothing is scored"),
        (lambda m: Scoring().changed(beta=1), "error_weight"),
    ],
)
def test_a_wrong_setting_is_answered_with_the_allowed_ones(tiny, unchecked, make, words):
    with pytest.raises(ValueError, match=words):
        make(tiny)


def test_scores_are_rows_of_the_task(tiny, items, zero_shot):
    parts = item_components(tiny, items, None, BOTH, progress=False)
    torch.testing.assert_close(
        parts.score(error_weight=1.0).view(1, 4), zero_shot[BOTH], atol=1e-6, rtol=0
    )
    assert items.accuracy(zero_shot[BOTH].flatten())["group"].shape == (1,)
    rows, positive = decisions(zero_shot[BOTH], items.shape, [items.items[0].correct])
    assert rows.shape == (4, 2) and positive.shape == (4,)


def test_weights_refuse_components_of_other_layers(tiny):
    adapter = HeadWeights(tiny, Scoring(time_steps=2, layers="mid"))
    with pytest.raises(ValueError, match=r"mid\.0"):
        adapter.pool(_of(torch.zeros(3, 2, 7, 4)), ONE)


def test_a_meter_counts_items_and_costs_add_up(tiny, items):
    with measure(tiny) as meter:
        evaluate_items(tiny, items, None, BOTH, progress=False)
    assert meter.unet_passes == (4 + 2) * 2  # four pairs and two empty prompts, two time steps
    total = meter.cost(labels=16) + Cost(parameters=3, labels=4)
    assert (total.parameters, total.labels) == (3, 20) and total.seconds > 0
    assert list(total.as_dict()) == ["unet_passes", "parameters", "labels", "seconds"]
    with pytest.raises(ValueError, match="labels"):
        Cost(labels=-1)


@pytest.mark.parametrize("name", MAKERS)
def test_adapters_know_positions_from_widths(short, items, name):
    adapter = MAKERS[name](short, ONE)
    plain = evaluate_items(short, items, None, ONE, progress=False)
    got = evaluate_items(short, items, adapter, ONE, progress=False)
    torch.testing.assert_close(got, plain, rtol=1e-6, atol=1e-6)
    if name == "bias":
        assert {tuple(p.shape) for p in adapter.parameters()} == {(4, 24)}
    if name == "prefix":
        assert {len(p) for p in adapter.gate.values()} == {4}
        assert {tuple(p.shape[:2]) for p in adapter.key.values()} == {(4, 3)}


def test_soft_prompts_fill_all_padding_there_can_be(tiny, short):
    for model in (tiny, short):
        most = model.context_length - 2
        assert SoftPrompt(model, n=most).residual["padding"].shape == (most, 32)
        assert SoftPrompt(model, n=1).residual["padding"].shape == (1, 32)
        for n in (0, most + 1):
            with pytest.raises(ValueError, match=f"n={n}: a context has 1 to {most}"):
                SoftPrompt(model, n=n)


def test_weights_on_another_adapter_leave_it_as_it_is(tiny):
    assert HeadWeights(tiny, ONE).changes_text is False
    for below, changes in ((LoRA(tiny), False), (SoftPrompt(tiny), True)):
        adapter = HeadWeights(tiny, ONE, on=below)
        assert adapter.changes_text is changes
        assert [id(p) for p in adapter.learned()] == [id(adapter.theta)]
        assert not any(p.requires_grad for p in below.parameters())
        assert adapter.size == adapter.theta.numel() + below.size


def test_layers_with_fewer_heads_count_as_much_as_others():
    """What a layer has no head for is NaN, and is no part of its mean."""
    parts = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    parts[:, :, 1, 3:] = float("nan")
    layers = [parts[:, :, 0], parts[:, :, 1, :3], parts[:, :, 2], parts[:, :, 3]]
    want = torch.stack([layer.mean((1, -1)) for layer in layers]).mean(0)
    scoring = Scoring(time_steps=2, attention_weight=1.0)
    torch.testing.assert_close(Adapter().pool(_of(parts), scoring), want)


def test_a_prefix_starts_near_states_of_the_empty_text(tiny):
    """Near one of all but the first, at a tenth of their spread; the gate hides it at first."""
    prompt = AttentionPrompt(tiny, prefix=200)
    name, attn = next(iter(choose_layers(tiny).items()))
    with torch.no_grad():
        states = attn.to_k(tiny.encode_text([""]))[0]  # (L, heads * d_head)
    start = prompt.key[name.replace(".", "_")].detach().transpose(0, 1).flatten(1)
    far = torch.cdist(start, states) / start.shape[1] ** 0.5 / states.std()
    assert 0.05 < float(far.min(1).values.mean()) < 0.15
    nearest = set(far.argmin(1).tolist())
    assert 0 not in nearest and 1 in nearest


def test_an_attention_prompt_says_what_it_was_made_with_and_adds_its_bias(tiny):
    assert AttentionPrompt(tiny, layers="up").config()["layers"] == "up"
    assert AttentionPrompt(tiny, layers=("up", "mid")).config()["layers"] == ["up", "mid"]
    assert AttentionPrompt(tiny).config()["layers"] is None
    prompt = AttentionPrompt(tiny, bias=True)
    with torch.no_grad():
        next(iter(prompt.bias.values()))[1, 3] = 2.0
    changed = prompt._edit(torch.zeros(2, 4, 5, 32), next(iter(choose_layers(tiny))))
    assert float(changed.sum()) == 2 * 5 * 2.0 and bool((changed[:, 1, :, 3] == 2).all())


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_soft_prompt_adds_its_own_row_at_each_place(tiny, where):
    prompt = SoftPrompt(tiny, where=where, n=3)
    with torch.no_grad():
        for row in prompt.residual.values():
            row.copy_(torch.arange(1.0, row.numel() + 1).view_as(row))
    eos = tiny.tokenizer.eos_token_id
    ids = torch.full((1, 10), eos)
    ids[0, :4] = torch.tensor([1, 2, 3, 4])
    added = prompt.added(ids, eos)[0]
    rows = prompt.residual["padding"].detach()
    torch.testing.assert_close(added[5:8], rows)  # behind the end token at 4
    torch.testing.assert_close(added[0], prompt.residual["start"].detach().view(-1))
    assert not added[1:5].any() and not added[8:].any()
    if where == "before":
        table = tiny.text_encoder.get_input_embeddings()
        plain = table(ids)
        with prompt.active(tiny):
            torch.testing.assert_close(table(ids), plain + added)


@pytest.mark.parametrize("had", [False, True])
def test_what_others_said_of_their_adapters_stays(tiny, had, monkeypatch):
    if had:
        monkeypatch.setattr(tiny.unet, "peft_config", {}, raising=False)
    LoRA(tiny)
    assert hasattr(tiny.unet, "peft_config") == had


@pytest.mark.parametrize("where", ["after", "before"])
def test_a_soft_prompt_knows_its_places_however_the_encoder_is_called(tiny, where):
    adapter, ids = SoftPrompt(tiny, where=where), tiny.tokenize(["a red circle", "a star"])
    embed = tiny.text_encoder.get_input_embeddings()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        with adapter.active(tiny):
            plain, named = tiny.text_encoder(ids), tiny.text_encoder(input_ids=ids)
            assert torch.equal(plain.last_hidden_state, named.last_hidden_state)
            assert torch.equal(embed(ids), embed(input=ids))
