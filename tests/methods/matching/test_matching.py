"""The matching score: shared noise, invariances, token masks, the error term."""

import io
from itertools import product

import pytest
import torch
from tiny_model import tiny_model

from dsd_tutorial.attention import alter
from dsd_tutorial.attention.token_masks import TOKEN_MASKS, token_mask, word_positions
from dsd_tutorial.matching import Components, components, cost, pass_components, score
from dsd_tutorial.stable_diffusion.noising import shared_noise, time_grid

TEXTS = ["a red circle", "a blue square above a green star", "a pink heart", "a red circle"]
FAST = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_table_has_a_row_per_image_and_a_column_per_text(tiny, images):
    table = score(tiny, images, TEXTS, **FAST)
    assert table.shape == (3, 4) and table.dtype == torch.float32
    assert torch.isfinite(table).all() and not table.requires_grad
    assert table.std() > 0


def test_the_score_equals_the_definition_computed_by_hand(tiny, images):
    from dsd_tutorial.attention import observe

    z0 = tiny.encode_image(images[:1])
    total = 0.0
    with torch.no_grad():
        for i, t in enumerate((250, 750)):
            z_t = tiny.add_noise(z0, shared_noise(z0.shape[1:], 5, i), t)
            with observe(tiny, "last", logits=True) as seen:
                tiny.predict_noise(z_t, t, tiny.encode_text(TEXTS[:1]))
            layers = [x.logsumexp(-1).mean((-1, -2)) for x in seen.logits.values()]
            total += torch.stack(layers).mean() / 2
    got = score(tiny, images[:1], TEXTS[:1], layers="last", seed=5, **FAST)
    torch.testing.assert_close(got[0, 0], total, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", ["all", "words"])
def test_an_item_does_not_depend_on_its_batch(tiny, images, mask):
    settings = {"token_mask": mask, "error_weight": 1.0, **FAST}
    table = score(tiny, images, TEXTS, batch_size=32, **settings)
    for other in (1, 5):
        again = score(tiny, images, TEXTS, batch_size=other, **settings)
        torch.testing.assert_close(again, table, atol=2e-5, rtol=0)
    alone = score(tiny, images[2:], TEXTS[1:2], **settings)
    torch.testing.assert_close(alone[0, 0], table[2, 1], atol=2e-5, rtol=0)


def test_equal_texts_and_equal_images_get_equal_scores(tiny, images):
    table = score(tiny, torch.cat([images, images[:1]]), TEXTS, **FAST)
    assert torch.equal(table[:, 0], table[:, 3])
    torch.testing.assert_close(table[0], table[3], atol=1e-5, rtol=0)
    assert (table[:, 0] - table[:, 1]).abs().min() > 1e-4


def test_permuted_inputs_give_the_permuted_table(tiny, images):
    rows, columns = [2, 0, 1], [3, 1, 0, 2]
    table = score(tiny, images, TEXTS, token_mask="words", **FAST)
    moved = score(tiny, images[rows], [TEXTS[i] for i in columns], token_mask="words", **FAST)
    torch.testing.assert_close(moved, table[rows][:, columns], atol=2e-5, rtol=0)


def test_listed_pairs_equal_the_table(tiny, images):
    table = score(tiny, images, TEXTS, error_weight=0.5, **FAST)
    image, text = torch.tensor([[2], [0]]), torch.tensor([[1, 0], [3, 2]])
    pairs = torch.stack(torch.broadcast_tensors(image, text), -1).view(-1, 2)
    got = components(tiny, images, TEXTS, pairs, errors=True, **FAST).score(error_weight=0.5)
    torch.testing.assert_close(got.view(2, 2), table[image, text], atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="image index < 3"):
        components(tiny, images, TEXTS, [(3, 0)], **FAST)


def test_each_image_and_each_distinct_text_is_encoded_once(tiny, images, monkeypatch):
    seen = {"images": 0, "texts": [], "passes": 0}
    encode_image, encode_text, predict = tiny.encode_image, tiny.encode_text, tiny.predict_noise

    def count_images(x, *args):
        seen["images"] += len(x)
        return encode_image(x, *args)

    def count_texts(texts):
        seen["texts"] += list(texts)
        return encode_text(texts)

    def count_passes(noisy, t, context):
        seen["passes"] += len(noisy)
        return predict(noisy, t, context)

    monkeypatch.setattr(tiny, "encode_image", count_images)
    monkeypatch.setattr(tiny, "encode_text", count_texts)
    monkeypatch.setattr(tiny, "predict_noise", count_passes)
    score(tiny, images, TEXTS, noises=2, **FAST)
    assert seen["images"] == 3 and sorted(seen["texts"]) == sorted(set(TEXTS))
    assert seen["passes"] == 3 * 3 * 2 * 2  # images x distinct texts x steps x noises


def test_the_noise_depends_on_seed_step_and_count_alone():
    shape = (4, 8, 8)
    assert torch.equal(shared_noise(shape, 1, 2, 3), shared_noise(shape, 1, 2, 3))
    keys = [(s, i, j) for s in range(4) for i in range(4) for j in range(4)]
    draws = torch.stack([shared_noise(shape, *key).flatten() for key in keys])
    assert len(draws.unique(dim=0)) == len(keys)  # no two places share a noise
    assert abs(draws.mean()) < 0.02 and abs(draws.std() - 1) < 0.02
    off = torch.corrcoef(draws) - torch.eye(len(keys))
    assert off.abs().max() < 0.3  # 256 numbers each: standard error 0.06


def test_other_seeds_give_other_scores_and_the_same_seed_the_same(tiny, images):
    a, b, c = (score(tiny, images[:1], TEXTS[:2], seed=s, **FAST) for s in (0, 1, 0))
    assert torch.equal(a, c) and (a - b).abs().min() > 1e-5


def test_twice_the_noises_halve_the_variance_over_seeds(tiny, images):
    small, seeds = images[:1, :, :32, :32], range(100)
    how = {"steps": [900], "layers": "down.0.0", "progress": False}
    got = torch.tensor(
        [
            [score(tiny, small, TEXTS[:1], noises=n, seed=s, **how).item() for s in seeds]
            for n in (1, 2)
        ]
    )
    single, double = got.var(dim=1)
    assert 0.3 < double / single < 0.8  # expected 0.5, standard error 0.5 * sqrt(4 / 99) = 0.10


def test_noises_are_averaged_on_the_same_grid(tiny, images):
    """The first of two noises is the only one of one: the mean of both is what two give."""
    z0 = tiny.encode_image(images[:1])
    context = tiny.encode_text(TEXTS[:1])
    singles = []
    for j in range(2):
        z_t = tiny.add_noise(z0, shared_noise(z0.shape[1:], 0, 0, j), 500)
        singles.append(pass_components(tiny, z_t, 500, context)[0].mean())
    got = score(tiny, images[:1], TEXTS[:1], steps=1, noises=2, progress=False)[0, 0]
    torch.testing.assert_close(got, torch.stack(singles).mean(), atol=1e-5, rtol=0)


def test_a_meter_counts_items_and_the_seconds_of_its_own_block(tiny, monkeypatch):
    clock = iter([100.0, 101.0, 104.5, 108.0])
    monkeypatch.setattr(cost, "perf_counter", lambda: next(clock))
    noisy, context = torch.zeros(3, *tiny.latent_shape), tiny.encode_text(TEXTS[:3])
    with torch.no_grad(), cost.measure(tiny) as outer:
        tiny.unet(noisy[:2], 5, context[:2])
        with cost.measure(tiny) as inner:
            tiny.unet(sample=noisy, timestep=5, encoder_hidden_states=context)
    assert (inner.seconds, outer.seconds) == (3.5, 8.0)  # by the clock: 101 to 104.5, 100 to 108
    assert (inner.unet_passes, outer.unet_passes) == (3, 5)
    both = inner.cost(parameters=7) + outer.cost(labels=2)
    assert both.as_dict() == {"unet_passes": 8, "parameters": 7, "labels": 2, "seconds": 11.5}
    assert cost.Meter().cost() == cost.Cost() and cost.Cost().as_dict()["seconds"] == 0
    for name, value in both.as_dict().items():
        with pytest.raises(ValueError, match=f"from 0 up.*{name}"):
            cost.Cost(**{name: type(value)(-1)})


@pytest.mark.parametrize("texts", [1, 3])
def test_several_masks_keep_every_head_at_any_number_of_pairs(tiny, images, texts):
    how = {"steps": 1, "layers": "mid", "progress": False}
    both = components(tiny, images[:1], TEXTS[:texts], token_mask=["words", "eos"], **how)
    for name, table in both.by_reading.items():
        alone = components(tiny, images[:1], TEXTS[:texts], token_mask=name, **how)
        assert table.shape == (texts, 1, 1, 4)
        torch.testing.assert_close(table, alone.scores, atol=1e-5, rtol=0)


def test_components_carry_no_graph(images):
    model = tiny_model()
    for part in (model.unet, model.vae, model.text_encoder):
        part.requires_grad_()
    found = components(model, images[:1], TEXTS[:1], steps=1, errors=True, progress=False)
    assert not found.scores.requires_grad and not found.errors.requires_grad
    encoded = model.encode_text(TEXTS[:1])
    noisy = torch.zeros(1, *model.latent_shape)
    for grad in (False, True):
        for seen in pass_components(model, noisy, 300, encoded, grad=grad):
            assert seen.requires_grad is grad


def test_misshapen_images_and_pairs_are_refused(tiny, images, unchecked):
    for wrong in (images[0], images[:0], images[None]):
        with pytest.raises(ValueError, match="images must be"):
            components(tiny, wrong, TEXTS, progress=False)
    for pairs in (torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 1, 2), [[0, 4]], [[-1, 0]]):
        with pytest.raises(ValueError, match="pairs must be .pairs, 2. with image index < 3"):
            components(tiny, images, TEXTS, pairs, progress=False)


def test_errors_are_averaged_over_noises(tiny, images):
    how = {"steps": [600], "errors": True, "progress": False}
    z0, e = (
        tiny.encode_image(images[:1]),
        [shared_noise(tiny.latent_shape, 0, 0, j) for j in (0, 1)],
    )
    with torch.no_grad():
        gaps = []
        for noise in e:
            noisy = tiny.add_noise(z0, noise, 600)
            eps = [tiny.predict_noise(noisy, 600, tiny.encode_text([x])) for x in ("", TEXTS[0])]
            gaps.append((noise - eps[0]).norm() - (noise - eps[1]).norm())
    found = components(tiny, images[:1], TEXTS[:1], noises=2, **how).errors
    torch.testing.assert_close(found[0, 0], torch.stack(gaps).mean(), atol=1e-5, rtol=0)


def test_a_long_list_of_texts_is_encoded_in_parts(tiny, images, monkeypatch):
    texts, asked = [f"a circle {'red ' * (i % 9)}{i}" for i in range(130)], [63, 64, 65, 128, 129]
    sizes, encode_text = [], tiny.encode_text

    def encode(part):
        sizes.append(len(part))
        return encode_text(part)

    how = {"steps": 1, "layers": "mid", "progress": False}
    monkeypatch.setattr(tiny, "encode_text", encode)
    found = components(tiny, images[:1], texts, [(0, i) for i in asked], **how).score()
    monkeypatch.undo()
    alone = score(tiny, images[:1], [texts[i] for i in asked], **how)[0]
    assert sizes == [64, 64, 2] and len(set(found.tolist())) == 5
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_one_mask_keeps_the_fused_kernel_in_reach(tiny, images, monkeypatch):
    from dsd_tutorial.matching import passes

    asked = []

    def observe(model, layers, masks, *rest, **how):
        asked.append(masks)
        return real_observe(model, layers, masks, *rest, **how)

    real_observe = passes.observe
    monkeypatch.setattr(passes, "observe", observe)
    for names in ("all", ["all"], "words", ["all", "words"]):
        components(tiny, images[:1], TEXTS[:1], steps=1, token_mask=names, progress=False)
    assert asked[0] is asked[1] is None and isinstance(asked[2], torch.Tensor)
    assert isinstance(asked[3], list) and len(asked[3]) == 2


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_bar_is_full_at_the_end(tiny, images, monkeypatch, size):
    from tqdm import auto

    bars = []

    class Bar(auto.tqdm):
        def __init__(self, **how):
            super().__init__(**{**how, "disable": False, "file": io.StringIO()})
            bars.append((self, how["disable"]))

    monkeypatch.setattr(auto, "tqdm", Bar)
    for progress in (True, False):
        how = {"steps": 2, "noises": 3, "layers": "mid", "batch_size": size, "progress": progress}
        score(tiny, images[:1], TEXTS[:3], **how)
        bar, hidden = bars.pop()
        assert bar.total == bar.n == 2 * 3 * 3 and hidden != progress  # steps x noises x pairs
        assert bar.desc.startswith(f"U-Net passes, {size} at once")


def test_time_grids():
    assert time_grid(1) == (500,) and time_grid(2) == (250, 750)
    assert time_grid([900, 3]) == (900, 3)
    assert time_grid(1000) == tuple(range(1000))
    for bad in (0, 1001, [], [1000], [-1]):
        with pytest.raises(ValueError, match="step"):
            time_grid(bad)


def test_components_hold_the_score_by_mask_step_layer_and_head(tiny, images):
    masks = ["all", "words", "no_start", "no_padding", "eos"]
    assert set(masks) == set(TOKEN_MASKS)
    parts = components(tiny, images[:2], TEXTS[:2], token_mask=masks, errors=True, **FAST)
    assert parts.scores.shape == (4, 2, len(parts.layers), 4)
    assert parts.errors.shape == (4, 2) and parts.pairs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    for mask in masks:
        alone = score(tiny, images[:2], TEXTS[:2], token_mask=mask, **FAST)
        torch.testing.assert_close(parts.select(mask).score().view(2, 2), alone, atol=1e-4, rtol=0)
    one = score(tiny, images[:2], TEXTS[:2], layers="mid.0", **FAST)
    at = parts.layers.index("mid.0")
    torch.testing.assert_close(
        parts.by_reading["all"][:, :, at].mean((1, 2)).view(2, 2), one, atol=1e-4, rtol=0
    )


def test_weights_over_layers_and_heads(tiny, images):
    parts = components(tiny, images[:1], TEXTS[:3], **FAST)
    layers, heads = parts.scores.shape[2:]
    uniform = torch.full((layers, heads), 1 / (layers * heads))
    torch.testing.assert_close(parts.score(uniform), parts.score(), atol=1e-5, rtol=0)
    single = torch.zeros(layers, heads)
    single[1, 2] = 1
    torch.testing.assert_close(parts.score(single), parts.scores[:, :, 1, 2].mean(1))


def test_layers_with_unequal_head_counts_are_padded_and_ignored():
    nan = float("nan")
    scores = torch.tensor([[[[1.0, 3.0], [4.0, nan]]]])  # 1 pair, 1 step, 2 layers, 2 and 1 heads
    parts = Components({"all": scores}, None, ("a", "b"), (500,), torch.zeros(1, 2).long())
    assert parts.score().item() == 3.0  # mean of 2 and 4
    assert parts.score(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).item() == 4.0


def test_selected_layers_and_steps_come_in_the_order_asked_for():
    numbers = torch.Generator().manual_seed(0)
    scores, errors = torch.randn(5, 3, 2, 4, generator=numbers), torch.randn(5, 3)
    pairs, steps, layers = torch.zeros(5, 2).long(), (100, 500, 900), ("a", "b")
    parts = Components({"all": scores, "words": -scores}, errors, layers, steps, pairs)
    for some_steps, some_layers in product((steps, (900, 100), (500,)), (layers, ("b", "a"), "b")):
        at = [steps.index(t) for t in some_steps], [layers.index(x) for x in some_layers]
        found = parts.select(None, some_layers, some_steps)
        assert (found.steps, found.layers) == (some_steps, tuple(some_layers))
        assert torch.equal(found.scores, scores[:, at[0]][:, :, at[1]])
        assert torch.equal(found.errors, errors[:, at[0]])
        assert torch.equal(found.by_reading["words"], -found.scores)
    words = parts.select("words")
    assert words.layers == layers and list(words.by_reading) == ["words"]
    bare = Components({"all": scores}, None, layers, steps, pairs)
    assert bare.select(steps=[500]).errors is None
    for wrong in ({"reading": "eos"}, {"layers": ["c"]}, {"steps": [100, 7]}):
        with pytest.raises(ValueError, match="^components of .*, not ('eos'|'c'|7)$"):
            parts.select(**wrong)


def test_what_is_missing_makes_only_what_needs_it_unknown():
    nan = float("nan")
    scores, errors = torch.rand(3, 2, 2, 4), torch.rand(3, 2)
    scores[1, 0, 1], errors[2, 1] = nan, nan  # a layer of one pair, the error of another
    pairs = torch.zeros(3, 2).long()
    parts = Components({"all": scores}, errors, ("a", "b"), (100, 500), pairs)
    for weights in (None, torch.ones(2, 4)):
        assert parts.score(weights).isnan().tolist() == [False, True, False]
        assert parts.score(weights, error_weight=1.0).isnan().tolist() == [False, True, True]
    torch.testing.assert_close(parts.by_step()[0], scores[0].mean((1, 2)))  # attention alone
    alone = parts.score(attention_weight=0.0, error_weight=2.0)
    assert torch.equal(alone[:2], 2 * errors[:2].mean(1)) and alone[2].isnan()


def test_the_error_term_by_hand_and_its_weight(tiny, images):
    z0 = tiny.encode_image(images[:1])
    e = shared_noise(z0.shape[1:], 0, 0)
    z_t = tiny.add_noise(z0, e, 500)
    with torch.no_grad():
        eps = [tiny.predict_noise(z_t, 500, tiny.encode_text([text])) for text in ("", TEXTS[1])]
    want = (e - eps[0]).norm() - (e - eps[1]).norm()
    how = {"steps": 1, "progress": False}
    parts = components(tiny, images[:1], TEXTS[1:2], errors=True, **how)
    torch.testing.assert_close(parts.errors[0, 0], want, atol=1e-5, rtol=0)
    both = score(tiny, images[:1], TEXTS[1:2], error_weight=2.0, **how)[0, 0]
    torch.testing.assert_close(both, parts.score()[0] + 2 * want, atol=1e-5, rtol=0)
    only = parts.score(attention_weight=0.0, error_weight=1.0)
    torch.testing.assert_close(only[0], want, atol=1e-5, rtol=0)
    empty = components(tiny, images[:1], [""], errors=True, **how)
    assert abs(empty.errors.item()) < 1e-5
    with pytest.raises(ValueError, match="errors=True"):
        components(tiny, images[:1], TEXTS[:1], **how).score(error_weight=1.0)


def test_pooling_over_pixels_runs_from_mean_to_maximum(tiny, images):
    one = {"steps": 1, "progress": False}
    ladder = [score(tiny, images, TEXTS, **one)]
    for lam in (0.1, 1.0, 10.0):
        ladder.append(score(tiny, images, TEXTS, pooling="lse", pooling_lam=lam, **one))
    ladder.append(score(tiny, images, TEXTS, pooling="max", **one))
    assert bool((torch.stack(ladder).diff(dim=0) > -1e-6).all())
    assert bool((ladder[-1] > ladder[0]).all())


def test_lambda_runs_from_mean_to_maximum_in_the_score(tiny, images):
    how = {"token_mask": "words", "steps": 1, "progress": False}
    rungs = [
        score(tiny, images, TEXTS, lam=lam, **how) for lam in (0.0, 0.01, 1.0, 30.0, float("inf"))
    ]
    assert bool((torch.stack(rungs).diff(dim=0) >= -1e-5).all())
    torch.testing.assert_close(rungs[0], rungs[1], atol=1e-2, rtol=0)


def test_token_masks_by_name(tiny):
    texts = ["a red circle", "a pink heart"]
    ends = tiny.eos_positions(texts).tolist()
    for text, end, row in zip(texts, ends, range(2), strict=True):
        places = {n: token_mask(tiny, texts, n) for n in TOKEN_MASKS if n != "all"}
        kept = {n: m[row].nonzero()[:, 0].tolist() for n, m in places.items()}
        assert kept["words"] == [p for _, at in tiny.token_words(text) for p in at]
        assert kept["words"] == list(range(1, end)) and kept["eos"] == [end]
        assert kept["no_padding"] == list(range(end + 1))
        assert kept["no_start"] == list(range(1, tiny.context_length))
    assert token_mask(tiny, texts, "all") is None
    with pytest.raises(ValueError, match="has no words"):
        token_mask(tiny, ["a", ""], "words")
    with pytest.raises(ValueError, match="choose one of all, words"):
        token_mask(tiny, texts, "nouns")


def test_word_positions(tiny):
    text = "a red circle left of a hexagon"
    words = dict(tiny.token_words(text))
    assert word_positions(tiny, text, "circle") == words["circle"]
    assert word_positions(tiny, text, "Red circle") == words["red"] + words["circle"]
    assert len(word_positions(tiny, text, "hexagon")) > 1  # several tokens, one word
    both = word_positions(tiny, text, "a")
    assert both == word_positions(tiny, text, ("a", 0)) + word_positions(tiny, text, ("a", 1))
    for missing in ("square", "circle red", ("a", 2), ""):
        with pytest.raises(ValueError, match="its words are 'a', 'red', 'circle'"):
            word_positions(tiny, text, missing)


def test_a_learned_context_gets_its_gradient(tiny, images):
    context = tiny.encode_text(TEXTS[:3]).detach().requires_grad_()
    noisy = torch.randn(3, *tiny.latent_shape, generator=torch.Generator().manual_seed(0))
    parts, eps = pass_components(tiny, noisy, 300, context, grad=True, layers="up")
    assert parts.shape == (1, 3, 6, 4)
    parts.mean().backward()
    assert context.grad.abs().sum() > 0 and eps.requires_grad


def test_nothing_is_left_on_the_unet(tiny, images):
    processors = {k: id(v) for k, v in tiny.unet.attn_processors.items()}
    score(tiny, images[:1], TEXTS[:1], **FAST)
    with pytest.raises(ZeroDivisionError), alter(tiny, lambda x, name: 1 / 0, layers="up"):
        score(tiny, images[:1], TEXTS[:1], **FAST)
    assert {k: id(v) for k, v in tiny.unet.attn_processors.items()} == processors
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"token_mask": "nouns"}, "token_mask"),
        ({"pooling": "median"}, "pooling"),
        ({"steps": 0}, "steps"),
        ({"layers": "up.9"}, "unknown layer"),
        ({"noises": 0}, "noises"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"texts": "one text"}, "list of captions"),
        ({"texts": []}, "N > 0"),
    ],
)
def test_settings_out_of_range_are_refused(tiny, images, bad, match):
    texts = bad.pop("texts", TEXTS)
    with pytest.raises(ValueError, match=match):
        score(tiny, images, texts, progress=False, **bad)
