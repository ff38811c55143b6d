"""Editing: the mixture's positions and limits, SDEdit by hand, prompt-to-prompt's identities."""

import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_model

from dsd_tutorial.attention import observe
from dsd_tutorial.projection import calibrate, fit_inverse
from dsd_tutorial.shapes import alternatives
from dsd_tutorial.stable_diffusion import ClipImage, to_pil
from dsd_tutorial.stable_diffusion.sampling import initial_noise
from dsd_tutorial.variation import (
    edit,
    edit_prompt,
    edit_prompting,
    edit_sweep,
    image_to_prompt,
    nearest_text,
    prompt_to_prompt,
    sdedit,
    source_prompts,
    states_to_edit,
    states_to_prompt,
)
from dsd_tutorial.variation.img2img import img2img_pipeline
from dsd_tutorial.variation.prompt_to_prompt import _SharedMaps, align

TEXT = "a blue circle on a white background"
QUICK = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def inverse(tiny):
    return fit_inverse(tiny, calibration=calibrate(tiny, n=20, progress=False), copies=5)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def h(tiny, inverse, pictures):
    return inverse(tiny.encode_clip_image(pictures))


# -- SD-IPC: the prompt ------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 5, None, "all"])
@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_words_then_the_mixture_then_the_text_again(tiny, inverse, pictures, h, copies, alpha):
    prompt = edit_prompt(tiny, pictures, TEXT, inverse, alpha=alpha, copies=copies)
    words, p = tiny.encode_text(TEXT)[0], int(tiny.eos_positions(TEXT)[0])
    stop = {None: p + 5, "all": 32}.get(copies) or p + copies
    assert prompt.shape == (2, 32, 32)
    for i in range(2):
        assert torch.equal(prompt[i, :p], words[:p])
        torch.testing.assert_close(prompt[i, p:stop], h[i] + alpha * words[p:stop])
        assert torch.equal(prompt[i, stop:], words[stop:])


def test_without_words_and_without_alpha_it_is_the_image_prompt(tiny, inverse, pictures):
    for copies in (3, None, "all"):
        want = image_to_prompt(tiny, pictures, inverse, copies=copies)
        found = edit_prompt(tiny, pictures, "", inverse, alpha=0, copies=copies)
        torch.testing.assert_close(found, want)


def test_a_loud_text_is_its_caption_in_direction(tiny, inverse, pictures):
    """alpha to infinity: the mixed states point where the caption's point; alpha 0: at h_img."""
    words = tiny.encode_text(TEXT)[0]
    likeness = []
    for alpha in (0.0, 0.5, 1.0, 4.0, 1e4):
        prompt = edit_prompt(tiny, pictures, TEXT, inverse, alpha=alpha, copies="all")
        likeness.append(float(F.cosine_similarity(prompt, words[None], dim=-1).mean()))
    assert likeness == sorted(likeness) and likeness[-1] == pytest.approx(1, abs=1e-4)


def test_rescaled_states_have_the_length_of_the_images(tiny, inverse, pictures, h):
    p = int(tiny.eos_positions(TEXT)[0])
    short = edit_prompt(tiny, pictures, TEXT, inverse, copies=4, rescale=True)
    lengths = short[:, p : p + 4].norm(dim=-1)
    torch.testing.assert_close(lengths, h.norm(dim=-1)[:, None].expand(-1, 4))
    long = edit_prompt(tiny, pictures, TEXT, inverse, copies=4)[:, p : p + 4]
    torch.testing.assert_close(
        F.normalize(short[:, p : p + 4], dim=-1), F.normalize(long, dim=-1), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("neutral", ["a circle", "a picture with a white background shape"])
def test_a_neutral_text_leaves_the_difference(tiny, inverse, pictures, h, neutral):
    """By its distance from the end token; the text itself as neutral leaves the picture alone."""
    words, p = tiny.encode_text(TEXT)[0], int(tiny.eos_positions(TEXT)[0])
    off, q = tiny.encode_text(neutral)[0], int(tiny.eos_positions(neutral)[0])
    prompt = edit_prompt(tiny, pictures, TEXT, inverse, alpha=2, copies=3, neutral=neutral)
    want = h[:, None] + 2 * (words[p : p + 3] - off[q : q + 3])
    torch.testing.assert_close(prompt[:, p : p + 3], want)
    assert torch.equal(prompt[0, :p], words[:p])
    same = edit_prompt(tiny, pictures, TEXT, inverse, alpha=2, copies="all", neutral=TEXT)
    torch.testing.assert_close(same[:, p:], h[:, None].expand(-1, 32 - p, -1))


def test_without_words_the_end_state_is_edited_and_fills_an_image_prompt(
    tiny, inverse, pictures, h
):
    texts = [TEXT, "a star"]
    found = edit_prompt(tiny, pictures, texts, inverse, alpha=0.7, words=False, rescale=True)
    ends = tiny.eos_positions(texts)
    states = h + 0.7 * tiny.encode_text(texts)[torch.arange(2), ends]
    states = h.norm(dim=-1, keepdim=True) * F.normalize(states, dim=-1)
    torch.testing.assert_close(found, states_to_prompt(tiny, states, copies=5))
    plain = edit_prompt(tiny, pictures, TEXT, inverse, alpha=0, words=False)
    torch.testing.assert_close(plain, image_to_prompt(tiny, pictures, inverse))
    one = edit_prompt(tiny, pictures[:1], texts, inverse, words=False)
    assert one.shape == (2, 32, 32)
    by_text = edit_prompt(tiny, pictures, TEXT, inverse, words=False, neutral=TEXT, copies="all")
    torch.testing.assert_close(by_text, image_to_prompt(tiny, pictures, inverse, copies="all"))


def test_every_edit_may_have_a_neutral_text_of_its_own(tiny, inverse, pictures):
    texts, gone = [TEXT, "a star"], ["a red circle", "a picture of a square"]
    how = {"alpha": 1.0, "words": False, "rescale": True}
    both = edit_prompt(tiny, pictures, texts, inverse, neutral=gone, **how)
    for i in range(2):
        alone = edit_prompt(tiny, pictures[i], texts[i], inverse, neutral=gone[i], **how)
        torch.testing.assert_close(both[i : i + 1], alone)
    one_text = edit_prompt(tiny, pictures, TEXT, inverse, neutral=gone, **how)
    torch.testing.assert_close(one_text[:1], both[:1])
    with pytest.raises(ValueError, match="3 neutral texts for 2 edits"):
        edit_prompt(tiny, pictures, texts, inverse, neutral=["a"] * 3)


def test_what_goes_makes_way_and_where_nothing_goes_words_stand_in_front(tiny, inverse, pictures):
    texts, gone = [TEXT, "a star"], ["a red circle", ""]
    how = {"alpha": 1.5, "copies": 4}
    both = edit_prompt(tiny, pictures, texts, inverse, source_prompt=gone, **how)
    moved = {"neutral": gone[0], "rescale": True, "words": False}
    want = edit_prompt(tiny, pictures[:1], texts[0], inverse, **moved, **how)
    torch.testing.assert_close(both[:1], want)
    how["alpha"] = 0.0
    want = edit_prompt(tiny, pictures[1:], texts[1], inverse, **how)
    torch.testing.assert_close(both[1:], want)
    for one in range(2):  # alone as together
        alone = edit_prompt(
            tiny, pictures[one], texts[one], inverse, source_prompt=gone[one], alpha=1.5, copies=4
        )
        torch.testing.assert_close(both[one : one + 1], alone)


def test_nothing_that_comes_for_what_goes_is_the_picture(tiny, inverse, pictures):
    """The same text on both sides cancels out at any alpha."""
    for alpha in (0.0, 1.0, 9.0):
        found = edit_prompt(tiny, pictures, TEXT, inverse, source_prompt=TEXT, alpha=alpha)
        torch.testing.assert_close(found, image_to_prompt(tiny, pictures, inverse))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_prompt": ["a"] * 3}, "3 source prompts for 2 edits"),
        ({"source_prompt": "a star", "rescale": True}, "leave these out"),
        ({"source_prompt": "a star", "words": False}, "leave these out"),
        ({"source_prompt": "", "neutral": "an object"}, "leave these out"),
    ],
)
def test_what_cannot_go_together_with_gone(tiny, inverse, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        edit_prompt(tiny, pictures, TEXT, inverse, **options)


class Words:
    """Two texts of other lengths, with more positions than numbers per state."""

    def encode_text(self, texts):
        return torch.stack([torch.arange(27.0).view(9, 3) + 100 * len(text) for text in texts])

    def eos_positions(self, texts):
        return torch.tensor([len(text) for text in texts])


@pytest.mark.parametrize("texts", [["abc"], ["a", "abcdef"]])
def test_a_neutral_text_is_counted_from_its_end(unchecked, texts):
    ends, like = torch.tensor([2, 5]), torch.zeros(2, 9, 3)
    found = edit_prompting._shifted(Words(), texts, ends, like, 2)
    for i, end in enumerate(ends.tolist()):
        text = texts[i % len(texts)]
        states = Words().encode_text([text])[0]
        for at in range(9):
            source = min(max(at - end + len(text), 0), 8)
            assert torch.equal(found[i, at], states[source])


def test_the_nearest_text_is_clips_own_choice(tiny, pictures):
    texts = ["a red circle", "a star", "a blue square on a black background"]
    seen = F.normalize(tiny.encode_clip_image(pictures).embedding, dim=-1)
    said = F.normalize(tiny.encode_clip_text(texts), dim=-1)
    want = [texts[i] for i in (seen @ said.T).argmax(1)]
    assert nearest_text(tiny, pictures, texts) == want
    assert nearest_text(tiny, pictures, texts[1:2]) == texts[1:2] * len(pictures)
    with pytest.raises(ValueError, match="no texts"):
        nearest_text(tiny, pictures, [])


def test_texts_and_pictures_pair_up(tiny, inverse, pictures):
    texts = [TEXT, "a star"]
    both = edit_prompt(tiny, pictures, texts, inverse)
    for i in range(2):
        alone = edit_prompt(tiny, pictures[i], texts[i], inverse)
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-4)
    several = edit_prompt(tiny, pictures[:1], texts, inverse)
    torch.testing.assert_close(several[0], both[0], atol=1e-5, rtol=1e-4)
    listed = edit_prompt(tiny, [to_pil(x)[0] for x in pictures.split(1)], texts, inverse)
    torch.testing.assert_close(listed, both, atol=0.05, rtol=0)
    by_pil = edit_prompt(tiny, to_pil(pictures)[0], TEXT, inverse)
    torch.testing.assert_close(by_pil, both[:1], atol=0.05, rtol=0)  # a PIL picture has 256 values
    assert edit_prompt(tiny, pictures, "", inverse, copies=31).shape[1] == 32


def test_what_does_not_fit_an_edit_is_named(tiny, inverse, pictures):
    for options, message in (
        ({"alpha": -0.1}, "0 .image alone"),
        ({"alpha": float("nan")}, "0 .image alone"),
        ({"copies": 0}, "1 to 31"),
        ({"copies": "most"}, "1 to 31"),
    ):
        with pytest.raises(ValueError, match=message):
            edit_prompt(tiny, pictures, TEXT, inverse, **options)
    with pytest.raises(ValueError, match="do not pair up"):
        edit_prompt(tiny, pictures, [TEXT] * 3, inverse)
    with pytest.raises(ValueError, match="no alphas"):
        edit_sweep(tiny, pictures, TEXT, [], inverse)


def test_edits_are_the_pictures_of_their_prompts(tiny, inverse, pictures):
    found = edit(tiny, pictures, TEXT, inverse, n=2, seed=[4, 5, 4, 5], **QUICK)
    assert found.shape == (4, 3, 64, 64)
    prompts = edit_prompt(tiny, pictures, TEXT, inverse)
    want = tiny.sample(embeddings=prompts[1:], seed=5, **QUICK)
    torch.testing.assert_close(found[3:], want, atol=1e-4, rtol=0)


def test_a_sweep_changes_alpha_and_nothing_else(tiny, inverse, pictures):
    found = edit_sweep(tiny, pictures, TEXT, [0.0, 0.7], inverse, seed=8, **QUICK)
    assert found.shape == (2, 2, 3, 64, 64)
    for i, alpha in enumerate((0.0, 0.7)):
        want = edit(tiny, pictures, TEXT, inverse, alpha=alpha, seed=8, **QUICK)
        torch.testing.assert_close(found[i], want, atol=1e-4, rtol=0)
    assert float((found[0] - found[1]).abs().max()) > 1e-4


# -- SDEdit ------------------------------------------------------------------------------------


def by_hand(model, picture, text, strength, steps, guidance, seed):
    """SDEdit in a few lines: noise to the first step taken, then DDIM."""
    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[steps - int(steps * strength) :]
    noise = initial_noise(model.latent_shape, [seed])
    latents = model.add_noise(model.encode_image(picture), noise, int(times[0]))
    context, empty = model.encode_text(text), model.encode_text("")
    with torch.no_grad():
        for t in times:
            without, with_text = (model._unet(latents, t, c) for c in (empty, context))
            output = without + guidance * (with_text - without)
            latents = scheduler.step(output, t, latents).prev_sample
        return model.decode_latents(latents)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sdedit_is_noise_and_the_way_back(pictures, kind, guidance):
    model = tiny_model(prediction_type=kind)
    found = sdedit(
        model, pictures, TEXT, strength=0.6, steps=5, guidance=guidance, seed=3, progress=False
    )
    assert found.shape == (2, 3, 64, 64)
    want = by_hand(model, pictures[1:], TEXT, 0.6, 5, guidance, 4)
    torch.testing.assert_close(found[1:], want, atol=1e-4, rtol=0)


def test_sdedit_goes_by_its_seed_and_little_strength_keeps_the_picture(tiny, pictures):
    known = tiny.decode_latents(tiny.encode_image(pictures))
    options = {"steps": 20, "guidance": 1.0, "progress": False}

    def redrawn(strength=0.05, text=TEXT, seed=2, **more):
        return sdedit(tiny, pictures, text, strength=strength, seed=seed, **options, **more)

    a = redrawn()
    assert torch.equal(redrawn(), a) and torch.equal(redrawn(text=tiny.encode_text(TEXT)), a)
    assert float((redrawn(seed=9) - a).abs().max()) > 1e-3
    torch.testing.assert_close(redrawn(batch_size=1), a, atol=1e-4, rtol=0)
    away = [float((redrawn(s) - known).square().mean()) for s in (0.05, 0.25, 0.5)]
    assert away == sorted(away) and away[0] < 0.5 * away[2]


def test_sdedit_takes_any_size_and_says_what_is_wrong(tiny, pictures):
    large = F.interpolate(pictures, (96, 128))
    assert sdedit(tiny, to_pil(large), TEXT, strength=0.5, **QUICK).shape == (2, 3, 64, 64)
    for options, message in (
        ({"strength": 0}, "above 0"),
        ({"strength": 1.2}, "up to 1"),
        ({"strength": 0.3, "steps": 2}, "steps >= 4"),
        ({"guidance": 0.5}, "1 .none. or more"),
    ):
        with pytest.raises(ValueError, match=message):
            sdedit(tiny, pictures, TEXT, **{**QUICK, **options})
    with pytest.raises(ValueError, match="one for all or one each"):
        sdedit(tiny, pictures, [TEXT] * 3, **QUICK)
    with pytest.raises(ValueError, match="of 32 positions"):
        sdedit(tiny, pictures, tiny.encode_text(TEXT)[:, :9], **QUICK)


def test_the_pipeline_is_the_parts_of_the_model_and_says_nothing(tiny, capsys):
    pipeline = img2img_pipeline(tiny)
    assert pipeline.unet is tiny.unet and pipeline.vae is tiny.vae and pipeline.tokenizer is None
    assert pipeline.config.requires_safety_checker is False
    assert type(pipeline.scheduler) is type(tiny.scheduler)
    assert pipeline._progress_bar_config == {"disable": True}
    assert capsys.readouterr() == ("", "")


# -- prompt-to-prompt --------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 6])
def test_shared_maps_by_hand(rows):
    """Of two pairs, [..., sources, targets]: new tokens keep their share, others take the old."""
    numbers = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 3, 5, 4, generator=numbers)
    aligned = torch.tensor([[0, 2, -1, 3], [1, -1, -1, 0]])
    maps = _SharedMaps(aligned, until=2)
    found = maps(logits, "any")
    assert torch.equal(found[:-2], logits[:-2])
    own, source = logits[-2:].softmax(-1), logits[-4:-2].softmax(-1)
    for pair in range(2):
        for token, old in enumerate(aligned[pair].tolist()):
            want = own[pair, ..., token] if old < 0 else source[pair, ..., old]
            torch.testing.assert_close(found[pair - 2, ..., token].exp(), want)
    for index, alters in ((0, True), (1, False), (2, False)):
        maps.count(index, "timestep", "latents")
        assert torch.equal(maps(logits, "any"), logits) != alters


def positions(model, text, word):
    return [p for w, ps in model.token_words(text) for p in ps if w == word]


def test_words_are_aligned_by_what_they_are(tiny):
    source = "a red circle on a white background"
    changed = align(tiny, source, "a blue circle on a white background")
    assert changed.tolist() == list(range(32))  # blue looks where red looked
    longer = "a red circle and a blue square on a white background"
    found = align(tiny, source, longer)
    for word in ("red", "circle", "white", "background"):
        want = positions(tiny, source, word)
        assert found[positions(tiny, longer, word)].tolist() == want
    assert (found[positions(tiny, longer, "square")] == -1).all()
    p, q = (int(tiny.eos_positions(text)[0]) for text in (source, longer))
    assert found[q:].tolist() == list(range(p, p + 32 - q))
    back = align(tiny, longer, source)  # the padding that the longer text has no room for is new
    assert back[0] == 0 and back[p : p + 32 - q].tolist() == list(range(q, 32))
    assert (back[p + 32 - q :] == -1).all()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equal_texts_give_equal_pictures_and_the_source_is_left_alone(tiny, guidance):
    options = {"guidance": guidance, "seed": 5, **QUICK}
    same = prompt_to_prompt(tiny, TEXT, TEXT, share=1, **options)
    torch.testing.assert_close(same[0], same[1], atol=1e-4, rtol=0)
    other = prompt_to_prompt(tiny, TEXT, "a red star", share=1, **options)
    plain = tiny.sample([TEXT, "a red star"], guidance=guidance, seed=[5, 5], **QUICK)
    torch.testing.assert_close(other[0], plain[0], atol=1e-4, rtol=0)
    assert float((other[1] - plain[1]).abs().max()) > 1e-3
    alone = prompt_to_prompt(tiny, TEXT, "a red star", share=0, **options)
    torch.testing.assert_close(alone, plain, atol=1e-4, rtol=0)


def test_the_target_attends_as_the_source_while_it_is_told_to(tiny):
    """Aligned tokens have the source's maps in the first half of the steps, and not after it."""
    target = "a red circle on a white background"
    with observe(tiny, "mid", maps=True, keep="all") as seen:
        prompt_to_prompt(tiny, TEXT, target, share=0.5, steps=2, guidance=1.0, progress=False)
    maps = seen.maps["mid.0"]  # (steps, [source, target], heads, pixels, tokens)
    torch.testing.assert_close(maps[0, 0], maps[0, 1], atol=1e-5, rtol=1e-4)
    assert float((maps[1, 0] - maps[1, 1]).abs().max()) > 1e-4


def test_new_words_keep_their_own_share_beside_the_old_ones(tiny):
    target = "a blue circle and a star on a white background"
    with observe(tiny, "mid", maps=True, keep="all") as seen:
        prompt_to_prompt(tiny, TEXT, target, share=1, steps=1, guidance=1.0, progress=False)
    source, edited = seen.maps["mid.0"][0]
    aligned = align(tiny, TEXT, target)
    old = aligned >= 0
    torch.testing.assert_close(edited.sum(-1), torch.ones_like(edited[..., 0]))
    ratio = edited[..., old] / source[..., aligned[old]]  # one factor per pixel: the row's sum
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), atol=1e-4, rtol=1e-3)


def test_many_pairs_go_side_by_side(tiny):
    sources, targets = [TEXT, "a star", "a ring"], ["a red star", "a red star", "a ring"]
    options = {"share": 0.5, "guidance": 2.0, **QUICK}
    many = prompt_to_prompt(tiny, sources, targets, seed=3, batch_size=4, **options)
    assert many.shape == (3, 2, 3, 64, 64)
    for i in (0, 2):
        alone = prompt_to_prompt(tiny, sources[i], targets[i], seed=3 + i, **options)
        torch.testing.assert_close(many[i], alone, atol=1e-4, rtol=0)
    for wrong, message in (
        ((TEXT, TEXT, {"share": 1.1}), "plain sampling"),
        ((TEXT, TEXT, {"share": -0.1}), "plain sampling"),
        ((sources, targets[:2], {}), "3 sources and 2 targets"),
    ):
        with pytest.raises(ValueError, match=message):
            prompt_to_prompt(tiny, *wrong[:2], **{**options, **wrong[2]})


def test_prompts_carry_no_graph(inverse, pictures):
    """Of a model that learns too, so that drawing from a prompt keeps nothing alive."""
    model = tiny_model()
    for part in (model.text_encoder, model.clip, model.unet, model.vae):
        part.requires_grad_()
    found = [
        image_to_prompt(model, pictures, inverse),
        edit_prompt(model, pictures, TEXT, inverse),
        sdedit(model, pictures[:1], TEXT, strength=0.5, **QUICK),
    ]
    assert not any(prompt.requires_grad for prompt in found)


def test_prompts_of_states_carry_the_gradient_of_their_states(tiny, h):
    """Which `customization` tunes."""
    h = h.clone().requires_grad_()
    for prompt in (states_to_prompt(tiny, h), states_to_edit(tiny, h, TEXT)):
        (slope,) = torch.autograd.grad(prompt.sum(), h)
        assert bool((slope != 0).all())


# -- ends of ranges, and axes of another length --------------------------------------------------


def test_the_nearest_text_is_that_of_the_largest_cosine(tiny):
    numbers = torch.Generator().manual_seed(2)
    images = torch.rand(6, 3, 64, 64, generator=numbers)
    texts = [f"a {c} {s}" for c in ("red", "blue", "green") for s in ("ring", "star", "cross")]
    seen = F.normalize(tiny.encode_clip_image(images).embedding, dim=1)
    said = F.normalize(tiny.encode_clip_text(texts), dim=1)
    want = [texts[i] for i in (seen @ said.T).argmax(1).tolist()]
    assert nearest_text(tiny, images, texts) == want


def test_a_long_embedding_is_no_nearer(tiny, monkeypatch):
    rows = torch.tensor([[10.0, 10.0], [0.1, 0.0]])
    monkeypatch.setattr(type(tiny), "encode_clip_text", lambda self, texts: rows)
    seen = ClipImage(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    monkeypatch.setattr(type(tiny), "encode_clip_image", lambda self, images: seen)
    assert nearest_text(tiny, torch.zeros(1, 3, 64, 64), ["long", "right"]) == ["right"]


def test_prompts_of_any_number_of_positions(short):
    """Where positions and numbers per state differ, none is taken for the other."""
    known = short.context_length
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inverse = fit_inverse(short, calibration=calibrate(short, n=20, progress=False))
    for copies in (1, "all"):
        prompt = edit_prompt(short, images, "a red star", inverse, copies=copies)
        assert prompt.shape[:2] == (1, known)
    states = torch.cat([short.encode_text(t) for t in ("a red star", "a blue ring")])
    how = {"steps": 1, "seed": 0, "progress": False}
    assert prompt_to_prompt(short, "a red star", "a blue ring", **how).shape == (2, 3, 64, 64)
    assert sdedit(short, images, states[:1], strength=1, **how).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match=f"of {known} positions"):
        sdedit(short, images, states[:1, :5], strength=1, **how)


def test_image_to_image_takes_the_usual_guidance_where_the_model_names_none(tiny):
    assert tiny.entry is None
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    how = {"strength": 1.0, "steps": 2, "seed": 0, "progress": False}
    usual = sdedit(tiny, image, "a red star", **how)
    torch.testing.assert_close(usual, sdedit(tiny, image, "a red star", guidance=7.5, **how))


def test_what_a_text_replaces_is_its_nearest_alternative(tiny, pictures):
    texts = ["a blue object", "a star"]
    found = source_prompts(tiny, pictures, texts)
    for picture, text, source in zip(pictures, texts, found, strict=True):
        choices = alternatives(text)
        assert source in choices and len(choices) > 1
        assert [source] == nearest_text(tiny, picture[None], choices)
    with pytest.raises(ValueError, match="zip"):
        source_prompts(tiny, pictures, texts[:1])
