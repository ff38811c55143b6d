"""Observing and altering cross-attention: what is reported is what the pass used."""

import copy
import gc
import weakref
from contextlib import ExitStack, nullcontext
from itertools import product

import pytest
import torch
from jaxtyping import TypeCheckError

from dsd_tutorial.attention import (
    NothingCaptured,
    Prefix,
    alter,
    choose_layers,
    cross_attention_layers,
    cross_attention_paths,
    logits,
    observe,
    token_mask,
    watching,
)
from dsd_tutorial.attention.logits import fused_kernel
from dsd_tutorial.attention.pooling import log_sum_exp
from dsd_tutorial.attention.processors import Listener, OpenAttnProcessor
from dsd_tutorial.attention.watching import check_masks

TEXTS = ["a red circle", "a blue square above a green star", "ring"]


@pytest.fixture(scope="module")
def inputs(tiny):
    numbers = torch.Generator().manual_seed(1)
    noisy = torch.randn(3, *tiny.latent_shape, generator=numbers)
    return noisy, 400, tiny.encode_text(TEXTS).detach()


@pytest.fixture
def own(tiny):
    """The tiny model with a U-Net of its own, free to be changed."""
    model = copy.copy(tiny)
    model.unet = copy.deepcopy(tiny.unet)
    return model


def by_hand(unet, name, inputs, scale=True):
    """Logits of one layer, recomputed from what goes into it: (batch, heads, pixels, tokens)."""
    attn, seen = choose_layers(unet, name)[name], {}
    handle = attn.register_forward_pre_hook(
        lambda m, args, kwargs: seen.update(x=args[0], c=kwargs["encoder_hidden_states"]),
        with_kwargs=True,
    )
    with torch.no_grad():
        unet(*inputs)
        handle.remove()
        q, k = attn.to_q(seen["x"]), attn.to_k(seen["c"])
    q, k = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k))
    return q @ k.mT / q.shape[-1] ** 0.5


def state(unet):
    """Everything a context manager could leave behind: hooks, processors, attributes."""
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called))
        for m in unet.modules()
    ]
    attributes = [sorted(vars(m)) for m in unet.modules()]
    listeners = [len(getattr(p, "listeners", ())) for p in unet.attn_processors.values()]
    return hooks, attributes, [id(p) for p in unet.attn_processors.values()], listeners


def test_names_are_in_forward_order_and_lead_to_the_modules(tiny):
    names = cross_attention_layers(tiny)
    assert names[0] == "down.0.0" and "mid.0" in names and names[-1] == "up.2.1"
    assert [n.split(".")[0] for n in names] == sorted(
        [n.split(".")[0] for n in names], key=["down", "mid", "up"].index
    )
    paths = cross_attention_paths(tiny.unet)
    assert paths["up.2.1"] == "up_blocks.2.attentions.1.transformer_blocks.0.attn2"
    assert list(choose_layers(tiny, "last")) == ["down.2.0", "mid.0", "up.2.1"]
    assert list(choose_layers(tiny, ["up.0", "mid"])) == ["mid.0", "up.0.0", "up.0.1"]


@pytest.mark.parametrize("layers", ["up.2.9", ["mid.0", "midd"], "attn2", [""]])
def test_unknown_layer_raises_with_the_nearest_names(tiny, layers):
    with pytest.raises(ValueError, match="unknown layer.*all: down.0.0"):
        choose_layers(tiny, layers)


def test_no_cross_attention_is_an_error():
    with pytest.raises(ValueError, match="no cross-attention"):
        cross_attention_layers(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("fused", [True, False])
def test_scores_equal_a_computation_by_hand(tiny, inputs, fused):
    with torch.no_grad(), observe(tiny, fused=fused) as seen:
        tiny.predict_noise(*inputs)
    assert list(seen.scores) == cross_attention_layers(tiny)
    assert set(seen.path.values()) == {"fused" if fused else "explicit"}
    for name in ("down.0.0", "mid.0", "up.1.0"):
        want = by_hand(tiny.unet, name, inputs).logsumexp(-1)
        assert seen.scores[name].shape == want.shape
        torch.testing.assert_close(seen.scores[name], want, atol=1e-5, rtol=0)


def test_fused_and_explicit_scores_are_equal_and_the_pass_is_the_stock_one(tiny, inputs):
    with torch.no_grad():
        stock = tiny.predict_noise(*inputs)
        with observe(tiny) as fast:
            fast_out = tiny.predict_noise(*inputs)
        with observe(tiny, fused=False) as slow:
            slow_out = tiny.predict_noise(*inputs)
    assert torch.equal(slow_out, stock)  # hooks change nothing at all
    torch.testing.assert_close(fast_out, stock, atol=1e-5, rtol=0)
    for name in slow.scores:
        assert (fast.path[name], slow.path[name]) == ("fused", "explicit")
        torch.testing.assert_close(fast.scores[name], slow.scores[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "requested",
    [
        {"lam": 2.0},
        {"token_mask": torch.ones(32, dtype=torch.bool)},
        {"maps": True},
        {"logits": True},
        {"normalise": "mean"},
    ],
)
def test_what_the_kernel_does_not_know_takes_the_explicit_path(tiny, inputs, requested):
    with torch.no_grad(), observe(tiny, "mid.0", **requested) as seen:
        tiny.predict_noise(*inputs)
    assert seen.path == {"mid.0": "explicit"}


def test_without_a_kernel_the_explicit_path_gives_the_same(tiny, inputs, monkeypatch):
    with torch.no_grad(), observe(tiny, "mid.0") as fast:
        tiny.predict_noise(*inputs)
    monkeypatch.setattr("dsd_tutorial.attention.processors.fused_kernel", lambda *a: None)
    with torch.no_grad(), observe(tiny, "mid.0") as slow:
        tiny.predict_noise(*inputs)
    assert slow.path == {"mid.0": "explicit"}
    torch.testing.assert_close(fast.scores["mid.0"], slow.scores["mid.0"], atol=1e-4, rtol=0)


def test_unknown_devices_have_no_kernel_and_a_kernel_that_lies_is_refused(monkeypatch):
    assert fused_kernel("mps", torch.float32, 8) is None
    lie = lambda q, k, v, s: (q, torch.zeros(q.shape[:-1]))  # noqa: E731
    monkeypatch.setattr("dsd_tutorial.attention.logits._cpu_kernel", lie)
    assert fused_kernel.__wrapped__("cpu", torch.float32, 8) is None


def test_gradients_flow_on_the_explicit_path_only(tiny, inputs):
    noisy, t, context = inputs
    context = context.clone().requires_grad_()
    with observe(tiny, "up", grad=True) as seen:
        tiny.predict_noise(noisy, t, context)
    assert set(seen.path.values()) == {"explicit"}
    sum(x.mean() for x in seen.scores.values()).backward()
    assert context.grad.abs().sum() > 0
    with observe(tiny, "up") as plain:
        out = tiny.predict_noise(noisy, t, context)
    assert not any(x.requires_grad for x in plain.scores.values())
    assert out.requires_grad  # observing does not cut the pass itself
    with pytest.raises(RuntimeError, match="no_grad"), torch.no_grad():
        with observe(tiny, grad=True):
            tiny.predict_noise(*inputs)


def test_gradient_of_the_score_matches_finite_differences(tiny, inputs):
    noisy, t, context = inputs
    direction = torch.randn(context.shape, generator=torch.Generator().manual_seed(0))

    def value(c, grad=False):
        with observe(tiny, "mid", grad=grad, fused=False) as seen:
            tiny.predict_noise(noisy, t, c)
        return seen.scores["mid.0"].mean()

    leaf = context.clone().requires_grad_()
    value(leaf, grad=True).backward()
    slope = (value(context + 0.02 * direction) - value(context - 0.02 * direction)) / 0.04
    torch.testing.assert_close((leaf.grad * direction).sum(), slope, rtol=0.02, atol=1e-4)


def test_maps_are_the_softmax_of_the_logits(tiny, inputs):
    with torch.no_grad(), observe(tiny, "mid.0", maps=True, logits=True) as seen:
        tiny.predict_noise(*inputs)
    maps, logits = seen.maps["mid.0"], seen.logits["mid.0"]
    assert maps.shape == (3, 4, 16, tiny.context_length)
    torch.testing.assert_close(maps, logits.softmax(-1))
    torch.testing.assert_close(logits, by_hand(tiny.unet, "mid.0", inputs), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.scores["mid.0"], logits.logsumexp(-1))


def test_token_masks_shared_per_item_and_several_at_once(tiny, inputs):
    shared = torch.zeros(32, dtype=torch.bool)
    shared[1:4] = True
    own = torch.zeros(3, 32, dtype=torch.bool)
    for i, n in enumerate((2, 5, 9)):
        own[i, :n] = True
    with torch.no_grad(), observe(tiny, "mid.0", [None, shared, own], logits=True) as seen:
        tiny.predict_noise(*inputs)
    both, logits = seen.scores["mid.0"], seen.logits["mid.0"]
    assert both.shape == (3, 3, 4, 16)
    torch.testing.assert_close(both[0], logits.logsumexp(-1))
    mean_form = logits[..., 1:4].exp().mean(-1).log()
    torch.testing.assert_close(both[1], mean_form, atol=1e-5, rtol=0)
    mean_form = torch.stack(
        [logits[i, ..., :n].exp().mean(-1).log() for i, n in enumerate((2, 5, 9))]
    )
    torch.testing.assert_close(both[2], mean_form, atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalise", ["mean", "sum"])
def test_equal_logits_give_equal_scores_at_any_length_in_the_mean_form_only(normalise):
    logits = torch.full((4, 32), 1.7)
    mask = torch.arange(32) < torch.tensor([[1], [5], [12], [32]])
    scores = log_sum_exp(logits, 3.0, mask, normalise=normalise)
    assert bool(torch.allclose(scores, torch.tensor(1.7))) == (normalise == "mean")
    assert bool((scores[1:] > scores[:-1] + 0.1).all()) == (normalise == "sum")


def test_limits_in_lambda_are_mean_and_maximum_and_it_never_falls(tiny, inputs):
    mask = torch.arange(32) < 7
    rungs = [0.0, 1e-4, 0.1, 1.0, 3.0, 10.0, 1e4, float("inf")]
    scores = []
    for lam in rungs:
        with torch.no_grad(), observe(tiny, "up.0.0", mask, lam, logits=True) as seen:
            tiny.predict_noise(*inputs)
        scores.append(seen.scores["up.0.0"])
    logits = seen.logits["up.0.0"][..., :7]
    for at, want in ((0, logits.mean(-1)), (1, logits.mean(-1)), (-2, logits.amax(-1))):
        torch.testing.assert_close(scores[at], want, atol=1e-3, rtol=0)
    assert torch.equal(scores[-1], logits.amax(-1))
    ladder = torch.stack(scores)
    assert bool((ladder.diff(dim=0) >= -1e-5).all()) and bool((ladder[-1] > ladder[0]).all())


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"lam": -1.0}, "lam must be"),
        ({"lam": float("nan")}, "lam must be"),
        ({"normalise": "none"}, "normalise"),
        ({"keep": "first"}, "keep"),
        ({"token_mask": torch.ones(32)}, "must be bool"),
        ({"token_mask": torch.zeros(32, dtype=torch.bool)}, "keeps no token"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "down.7"}, "unknown layer"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(tiny, bad, match):
    before = state(tiny.unet)
    with pytest.raises((ValueError, TypeCheckError), match=match), observe(tiny, **bad):
        pytest.fail("the block must not be entered")
    assert state(tiny.unet) == before


def test_a_mask_of_another_size_says_so_and_nothing_is_left(tiny, inputs):
    before = state(tiny.unet)
    with pytest.raises(ValueError, match="does not fit a pass of 3 items x 32 tokens"):
        with torch.no_grad(), observe(tiny, token_mask=torch.ones(2, 32, dtype=torch.bool)):
            tiny.predict_noise(*inputs)
    assert state(tiny.unet) == before


def test_nothing_captured_is_an_error(tiny):
    with pytest.raises(NothingCaptured, match="up.2.1"), observe(tiny):
        pass


def test_an_error_inside_is_not_hidden_and_nothing_is_left(tiny, inputs):
    before = state(tiny.unet)
    with pytest.raises(KeyError, match="mine"), observe(tiny):
        raise KeyError("mine")
    with pytest.raises(ZeroDivisionError), alter(tiny, lambda x, name: 1 / 0):
        with observe(tiny, maps=True):
            tiny.predict_noise(*inputs)
    with pytest.raises(RuntimeError), observe(tiny):  # a context of the wrong width: fails midway
        tiny.unet(inputs[0], 3, torch.zeros(3, 32, 5))
    assert state(tiny.unet) == before


def test_nothing_is_left_and_what_was_seen_is_freed(tiny, inputs):
    before = state(tiny.unet)
    with torch.no_grad(), observe(tiny, maps=True) as seen, alter(tiny, lambda x, n: x + 1):
        tiny.predict_noise(*inputs)
    assert state(tiny.unet) == before
    ghosts = [weakref.ref(seen), weakref.ref(seen.maps["mid.0"])]
    del seen
    gc.collect()
    assert [ghost() for ghost in ghosts] == [None, None]


def test_several_passes_last_mean_all_and_reduction(tiny, inputs):
    noisy, _, context = inputs
    seen = {}
    for keep in ("last", "mean", "all"):
        with (
            torch.no_grad(),
            observe(
                tiny, "mid", keep=keep, maps=True, reduce_maps=lambda m: m[..., 2].mean(1)
            ) as seen[keep],
        ):
            for t in (10, 500, 900):
                tiny.predict_noise(noisy, t, context)
    scores = {keep: s.scores["mid.0"] for keep, s in seen.items()}
    assert scores["all"].shape == (3, 3, 4, 16) and seen["all"].calls == {"mid.0": 3}
    assert torch.equal(scores["last"], scores["all"][-1])
    torch.testing.assert_close(scores["mean"], scores["all"].mean(0))
    assert seen["mean"].maps["mid.0"].shape == (3, 16)
    with pytest.raises(RuntimeError, match="keep the batch the same"), torch.no_grad():
        with observe(tiny, keep="mean"):
            tiny.predict_noise(noisy, 10, context)
            tiny.predict_noise(noisy[:2], 10, context[:2])


def test_large_passes_are_pooled_some_rows_at_a_time(tiny, inputs, monkeypatch):
    mask, layer = torch.arange(32) % 3 > 0, "mid.0"
    with torch.no_grad(), observe(tiny, layer, mask, logits=True) as whole:
        tiny.predict_noise(*inputs)
    one, rows = whole.logits[layer][0].numel(), []

    def counted(logits, *args, **how):
        rows.append(len(logits))
        return log_sum_exp(logits, *args, **how)

    monkeypatch.setattr(watching, "log_sum_exp", counted)
    for held, want in ((1, [1, 1, 1]), (2 * one - 1, [1, 1, 1]), (2 * one, [2, 1]), (9 * one, [3])):
        rows.clear()
        monkeypatch.setattr(watching, "CHUNK", held)
        with torch.no_grad(), observe(tiny, layer, mask) as parts:
            tiny.predict_noise(*inputs)
        assert rows == want
        torch.testing.assert_close(parts.scores[layer], whole.scores[layer])
    rows.clear()
    monkeypatch.setattr(watching, "CHUNK", 1)
    with observe(tiny, layer, mask, grad=True):
        tiny.predict_noise(*inputs)
    assert rows == [3]  # what a graph holds is held either way


def test_lora_is_in_the_reported_logits(own, inputs):
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=r".*attn2\.(to_q|to_k)", init_lora_weights=False)
    with torch.no_grad(), observe(own) as bare:
        own.predict_noise(*inputs)
    own.unet.add_adapter(config)
    own.unet.eval()
    for fused in (True, False):
        with torch.no_grad(), observe(own, fused=fused) as seen:
            own.predict_noise(*inputs)
        for name in ("down.1.0", "mid.0"):
            want = by_hand(own.unet, name, inputs).logsumexp(-1)
            torch.testing.assert_close(seen.scores[name], want, atol=1e-4, rtol=0)
            assert (seen.scores[name] - bare.scores[name]).abs().max() > 0.01
    own.unet.disable_adapters()
    with torch.no_grad(), observe(own) as off:
        own.predict_noise(*inputs)
    torch.testing.assert_close(off.scores["mid.0"], bare.scores["mid.0"], atol=1e-4, rtol=0)


def test_lora_added_inside_the_block_is_in_the_reported_logits(own, inputs):
    from peft import LoraConfig

    with torch.no_grad(), observe(own, "down.0.0") as seen:
        config = LoraConfig(r=2, target_modules=r".*attn2\.to_q", init_lora_weights=False)
        own.unet.add_adapter(config)
        own.predict_noise(*inputs)
    want = by_hand(own.unet, "down.0.0", inputs).logsumexp(-1)
    torch.testing.assert_close(seen.scores["down.0.0"], want, atol=1e-4, rtol=0)


def test_gradients_reach_lora_through_the_score(own, inputs):
    from peft import LoraConfig

    own.unet.add_adapter(LoraConfig(r=2, target_modules=r".*attn2\.(to_q|to_k)"))
    with observe(own, "up", grad=True) as seen:
        own.predict_noise(*inputs)
    sum(x.mean() for x in seen.scores.values()).backward()
    grads = [p.grad for n, p in own.unet.named_parameters() if "lora_B" in n and "up_blocks" in n]
    assert any(g is not None and g.abs().sum() > 0 for g in grads)


def add_bias(logits, name):
    return logits + torch.linspace(-2, 2, logits.shape[-1])


@pytest.mark.parametrize("outside", ["alter", "observe"])
@pytest.mark.parametrize("fused", [True, False])
def test_altered_logits_are_reported_whichever_block_is_outside(tiny, inputs, outside, fused):
    hidden = by_hand(tiny.unet, "down.0.0", inputs)  # the first layer's input is not yet altered
    with torch.no_grad():
        if outside == "alter":
            with alter(tiny, add_bias), observe(tiny, fused=fused) as seen:
                out = tiny.predict_noise(*inputs)
        else:
            with observe(tiny, fused=fused) as seen, alter(tiny, add_bias):
                out = tiny.predict_noise(*inputs)
        plain = tiny.predict_noise(*inputs)
    want = (hidden + torch.linspace(-2, 2, 32)).logsumexp(-1)
    torch.testing.assert_close(seen.scores["down.0.0"], want, atol=1e-5, rtol=0)
    assert (out - plain).abs().max() > 1e-6
    assert set(seen.path.values()) == {"explicit"}


def test_only_chosen_layers_are_altered_and_edits_nest(tiny, inputs):
    def double(logits, name):
        return 2 * logits

    with torch.no_grad(), observe(tiny, "down", logits=True) as seen:
        with alter(tiny, add_bias, layers="down.0.0") as outer:
            with alter(tiny, double, layers="down.0.0"):
                tiny.predict_noise(*inputs)
    assert outer == ["down.0.0"]
    hidden = by_hand(tiny.unet, "down.0.0", inputs)
    want = 2 * (hidden + torch.linspace(-2, 2, 32))
    torch.testing.assert_close(seen.logits["down.0.0"], want, atol=1e-4, rtol=0)


def test_observers_nest_and_each_gets_what_it_asked_for(tiny, inputs):
    mask = torch.arange(32) < 3
    for first, second in (((mask,), ()), ((), (mask,))):
        requested = [{"token_mask": m[0]} if m else {} for m in (first, second)]
        with torch.no_grad(), observe(tiny, "mid", **requested[0]) as a:
            with observe(tiny, "mid", **requested[1]) as b:
                tiny.predict_noise(*inputs)
        logits = by_hand(tiny.unet, "mid.0", inputs)
        for seen, m in ((a, first), (b, second)):
            want = log_sum_exp(logits, 1.0, *m)
            torch.testing.assert_close(seen.scores["mid.0"], want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stock", ["AttnProcessor", "AttnProcessor2_0"])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"upcast_attention": True}])
@pytest.mark.parametrize("masked", [0, 1, 12])
def test_our_processor_returns_the_stock_tensor(stock, options, masked):
    """Without a mask, with one for all pixels, and with one of its own for each."""
    from diffusers.models import attention_processor as stocks

    torch.manual_seed(0)
    attn = stocks.Attention(16, 24, heads=2, dim_head=8, **options).eval()
    x, text, mask = torch.randn(2, 12, 16), torch.randn(2, 7, 24), None
    if masked:
        mask = torch.zeros(2, masked, 7)
        mask[0, :, 4:], mask[1, ::2, 1:2] = -10000.0, -10000.0
    attn.set_processor(getattr(stocks, stock)())
    told = []
    listeners = [Listener(told.append, fusable) for fusable in (True, False)]
    with torch.no_grad():
        want = attn(x, text, attention_mask=mask)
        for edits, heard in product([(), (lambda x, n: x,)], [[], listeners[:1], listeners]):
            attn.set_processor(OpenAttnProcessor("here", edits, (), heard))
            got = attn(x, text, attention_mask=mask)
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    fused = [isinstance(record, torch.Tensor) for record in told]
    assert fused == [not masked, False, False, False, False, False]


def test_unaltered_unet_through_our_processor_equals_the_stock_one(tiny, inputs):
    with torch.no_grad():
        stock = tiny.predict_noise(*inputs)
        with alter(tiny, lambda logits, name: logits):
            ours = tiny.predict_noise(*inputs)
    assert (ours - stock).abs().max() <= 1e-5


def test_an_attention_mask_is_in_the_reported_logits(tiny, inputs):
    keep = torch.ones(3, 32)
    keep[:, 5:] = 0
    noisy, t, context = inputs
    seen = {}
    for fused in (True, False):
        with torch.no_grad(), observe(tiny, fused=fused) as seen[fused]:
            tiny.unet(noisy, t, context, encoder_attention_mask=keep)
    with torch.no_grad(), observe(tiny) as short:
        tiny.unet(noisy, t, context[:, :5])
    for fused in (True, False):
        for name, want in short.scores.items():
            torch.testing.assert_close(seen[fused].scores[name], want, atol=1e-4, rtol=0)


def prefixes(model, gate, n=2, seed=3):
    numbers = torch.Generator().manual_seed(seed)
    out = {}
    for name, attn in choose_layers(model).items():
        shape = (attn.heads, n, attn.to_k.out_features // attn.heads)
        out[name] = Prefix(
            torch.randn(shape, generator=numbers), torch.randn(shape, generator=numbers), gate
        )
    return out


def test_a_closed_prefix_changes_nothing_and_has_a_finite_gradient(tiny, inputs):
    mask = torch.arange(32) < 6
    gate = torch.zeros((), requires_grad=True)
    with observe(tiny, token_mask=[None, mask]) as plain:
        stock = tiny.predict_noise(*inputs)
    with alter(tiny, prefix=prefixes(tiny, gate)):
        with observe(tiny, token_mask=[None, mask], grad=True) as seen:
            out = tiny.predict_noise(*inputs)
    torch.testing.assert_close(out, stock, atol=1e-5, rtol=0)
    for name, want in plain.scores.items():
        torch.testing.assert_close(seen.scores[name], want, atol=1e-4, rtol=0)
    (out.square().mean() + sum(x.mean() for x in seen.scores.values())).backward()
    assert torch.isfinite(gate.grad) and gate.grad > 0


def test_an_open_prefix_is_like_further_tokens(tiny, inputs):
    gate, layer = torch.tensor(0.3), "down.0.0"
    one = {layer: prefixes(tiny, gate)[layer]}
    with torch.no_grad(), alter(tiny, prefix=one):
        with observe(tiny, layer, maps=True, logits=True) as seen:
            tiny.predict_noise(*inputs)
    attn = choose_layers(tiny, layer)[layer]
    got = {}
    handle = attn.to_q.register_forward_hook(lambda m, a, out: got.update(q=out))
    with torch.no_grad():
        tiny.predict_noise(*inputs)
    handle.remove()
    q = got["q"].unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    extra = q @ one[layer].key.mT * attn.scale + gate.log()
    joined = torch.cat([seen.logits[layer], extra], dim=-1)
    torch.testing.assert_close(seen.maps[layer], joined.softmax(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.scores[layer], joined.logsumexp(-1), atol=1e-5, rtol=0)


def test_prefixes_of_two_blocks_are_one_of_both(tiny, inputs):
    gates = torch.tensor([0.5, 2.0, 0.1])
    first, second = (prefixes(tiny, gate, len(gate), len(gate)) for gate in gates.split([2, 1]))
    both = {
        name: Prefix(*(torch.cat([getattr(x, part) for x in (one, second[name])], -2)
                       for part in ("key", "value")), gates)
        for name, one in first.items()
    }  # fmt: skip
    with torch.no_grad():
        with alter(tiny, prefix=both), observe(tiny) as joined:
            want = tiny.predict_noise(*inputs)
        with alter(tiny, prefix=first), alter(tiny, prefix=second), observe(tiny) as nested:
            got = tiny.predict_noise(*inputs)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert (want - tiny.predict_noise(*inputs)).abs().max() > 1e-3
    for name, scores in joined.scores.items():
        torch.testing.assert_close(nested.scores[name], scores, atol=1e-5, rtol=0)


def test_wrong_edits_and_strangers_are_refused(tiny, inputs):
    with pytest.raises(ValueError, match="keep .batch, heads, pixels, tokens"):
        with alter(tiny, lambda x, n: x[..., :3]):
            tiny.predict_noise(*inputs)
    with pytest.raises(ValueError, match="nothing to do"), alter(tiny):
        pass
    with pytest.raises(ValueError, match="prefix for"):
        with alter(tiny, add_bias, layers="mid", prefix=prefixes(tiny, torch.ones(()))):
            pass


def test_a_processor_whose_logits_cannot_be_known_is_refused(own, inputs):
    class Mystery:
        def __call__(self, attn, hidden_states, **kwargs):
            return hidden_states

    choose_layers(own)["mid.0"].set_processor(Mystery())
    with pytest.raises(RuntimeError, match="Mystery"), observe(own):
        own.predict_noise(*inputs)
    with pytest.raises(RuntimeError, match="Mystery"), alter(own, add_bias):
        pass


def test_names_of_stable_diffusion_2_at_real_size_and_under_peft(own):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        big = UNet2DConditionModel(
            sample_size=64, attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024
        )
    names = cross_attention_layers(big)
    assert len(names) == 16 and names[6] == "mid.0" and names[-1] == "up.3.2"
    assert list(choose_layers(big, "last")) == ["down.2.1", "mid.0", "up.3.2"]
    assert [a.heads for a in choose_layers(big, "down").values()] == [5, 5, 10, 10, 20, 20]
    bare = cross_attention_layers(own)
    wrapped = get_peft_model(own.unet, LoraConfig(r=2, target_modules=["to_q"]))
    assert cross_attention_layers(wrapped) == bare


@pytest.mark.parametrize("fused", [True, False])
def test_reduced_precision_passes_are_scored_in_float32(tiny, inputs, fused):
    with torch.no_grad(), observe(tiny, "down.0.0") as exact:
        tiny.predict_noise(*inputs)
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16),
        observe(tiny, "down.0.0", fused=fused, maps=not fused) as seen,
    ):
        tiny.predict_noise(*inputs)
    got, want = seen.scores["down.0.0"], exact.scores["down.0.0"]
    assert got.dtype == torch.float32
    assert 0 < (got - want).abs().max() < 0.05  # bfloat16 Q and K, nothing worse


def test_reduced_maps_carry_no_graph_unless_asked_for(tiny, inputs):
    seen = []

    def reduce_maps(maps):
        seen.append(maps.requires_grad)
        return maps.mean(1)

    noisy = torch.randn(1, *tiny.latent_shape, generator=torch.Generator().manual_seed(0))
    context = tiny.encode_text("a star").detach().requires_grad_()
    for grad, told in product((False, True), repeat=2):  # by hooks, or by our own processor
        around = alter(tiny, lambda x, name: x, layers="mid") if told else nullcontext()
        how = {"maps": True, "grad": grad, "reduce_maps": reduce_maps}
        with around, observe(tiny, "mid", **how) as found:
            tiny.predict_noise(noisy, 400, context)
        assert seen.pop() is grad and found.maps["mid.0"].requires_grad is grad
        assert found.scores["mid.0"].requires_grad is grad


def test_every_mask_of_a_list_is_checked():
    good = torch.ones(5, dtype=torch.bool)
    check_masks([None, good, None])
    for bad in (torch.zeros(5, dtype=torch.bool), torch.ones(5), good[None, None]):
        for masks in (bad, [None, bad], [good, None, bad], (bad, good)):
            with pytest.raises(ValueError, match="token_mask"):
                check_masks(masks)


def test_a_third_number_where_an_attention_holds_two_transformer_blocks():
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attn2 = torch.nn.Identity()

    def unet(blocks):
        attention = torch.nn.Module()
        attention.transformer_blocks = torch.nn.ModuleList([Inner() for _ in range(blocks)])
        mid, whole = torch.nn.Module(), torch.nn.Module()
        mid.attentions, whole.mid_block = torch.nn.ModuleList([attention]), mid
        return whole

    for blocks, names in ((1, ["mid.0"]), (2, ["mid.0.0", "mid.0.1"])):
        assert cross_attention_layers(unet(blocks)) == names


def test_what_the_cuda_kernel_pads_is_cut(monkeypatch):
    """By a stand-in, since the kernel itself needs a GPU: the pixels come back in 32s."""
    query = torch.randn(2, 3, 9, 4)

    def kernel(q, k, v, bias, wants_partition, *, scale):
        assert bias is None and wants_partition is True and scale == 0.5
        return q + 1, torch.arange(32.0).expand(2, 3, -1), "seed", "offset"

    monkeypatch.setattr(
        torch.ops.aten, "_scaled_dot_product_efficient_attention", kernel, raising=False
    )
    out, lse = logits._cuda_kernel(query, query, query, 0.5)
    assert torch.equal(out, query + 1) and torch.equal(lse, torch.arange(9.0).expand(2, 3, -1))


# -- what is said, what is left behind, what a layer may be called with --------------------------


def test_unknown_layers_are_answered_with_three_near_ones_if_any_are_near(tiny):
    with pytest.raises(ValueError, match="unknown layer") as caught:
        choose_layers(tiny, "up.2.9")
    near = str(caught.value).split("nearest: ")[1].split(";")[0].split(", ")
    assert len(near) == 3 and all(name.startswith("up") for name in near)
    with pytest.raises(ValueError, match="unknown layer '§'; all: "):
        choose_layers(tiny, "§")


def test_a_prefix_alone_alters_the_layers_it_names(tiny):
    name, attn = next(iter(choose_layers(tiny).items()))
    width = attn.to_k.out_features // attn.heads
    prefix = Prefix(
        *(torch.zeros(attn.heads, 1, width) for _ in range(2)), torch.zeros(attn.heads, 1)
    )
    with alter(tiny, prefix={name: prefix}) as altered:
        assert altered == [name]


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, TypeError, NotImplementedError])
def test_a_kernel_that_fails_or_differs_is_not_used(error, monkeypatch):
    def failing(*_):
        raise error("moved")

    def shifted(query, key, value, scale):
        return value, logits.scaled_logits(query, key, scale).logsumexp(-1) + 0.05

    try:
        for kernel in (failing, shifted):
            logits.fused_kernel.cache_clear()
            monkeypatch.setattr(logits, "_cpu_kernel", kernel)
            assert logits.fused_kernel("cpu", torch.float32, 8) is None
    finally:
        logits.fused_kernel.cache_clear()


def test_one_word_is_a_caption(tiny):
    mask = token_mask(tiny, ["red"], "words")
    assert mask.sum() >= 1
    with pytest.raises(ValueError, match="has no words"):
        token_mask(tiny, ["red", ""], "words")


@pytest.mark.parametrize(("batch", "rows"), [(3, 1), (2, 2), (3, 3)])
def test_scores_do_not_depend_on_how_many_rows_are_pooled_at_a_time(tiny, batch, rows, monkeypatch):
    texts = ["a red circle", "a blue star", "a green ring"][:batch]
    mask = token_mask(tiny, texts[:rows], "words")
    latents = torch.randn(batch, *tiny.latent_shape, generator=torch.Generator().manual_seed(0))

    def scores():
        with torch.no_grad(), observe(tiny, token_mask=mask) as seen:
            tiny.predict_noise(latents, 500, tiny.encode_text(texts))
        return seen.scores

    whole = scores()
    monkeypatch.setattr(watching, "CHUNK", 1)
    for name, found in scores().items():
        torch.testing.assert_close(found, whole[name])


def test_a_pass_that_fails_leaves_nothing_and_the_next_one_counts_once(tiny, monkeypatch):
    latents = torch.randn(1, *tiny.latent_shape, generator=torch.Generator().manual_seed(0))
    text = tiny.encode_text(["a red circle"])
    layers = choose_layers(tiny)
    last = list(layers.values())[-1]

    def broken(*_):
        raise OverflowError("a pass that fails")

    for edit in (None, lambda logits, name: logits):
        with ExitStack() as stack:
            if edit is not None:
                stack.enter_context(alter(tiny, edit))
            seen = stack.enter_context(observe(tiny, logits=True))
            with monkeypatch.context() as patch:
                patch.setattr(last.to_out[0] if edit else last.to_v, "forward", broken)
                with torch.no_grad(), pytest.raises(OverflowError):
                    tiny.predict_noise(latents, 500, text)
            if edit is None:
                assert list(layers)[-1] not in seen.scores
            seen.scores.clear(), seen.calls.clear()
            with torch.no_grad():
                tiny.predict_noise(latents, 500, text)
            assert set(seen.calls.values()) == {1} and list(seen.calls) == list(layers)
    assert not any(getattr(attn.processor, "listeners", ()) for attn in layers.values())


def test_a_layer_may_be_called_by_position(tiny):
    name, attn = next(iter(choose_layers(tiny).items()))
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, attn.to_q.in_features, generator=numbers)
    text = tiny.encode_text(["a red circle"])
    mask = torch.zeros(1, 1, text.shape[1])
    mask[..., 4:] = -1e4

    def scores(*arguments, **named):
        with torch.no_grad(), observe(tiny, layers=name, logits=True) as seen:
            attn(x, *arguments, **named)
        return seen.scores[name]

    torch.testing.assert_close(scores(text), scores(encoder_hidden_states=text))
    masked = scores(encoder_hidden_states=text, attention_mask=mask)
    torch.testing.assert_close(scores(text, mask), masked)
    assert not torch.allclose(masked, scores(text))
