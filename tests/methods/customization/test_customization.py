"""Tuning on a reference and on a domain: where it starts, what it keeps, how it ends."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from tiny_model import tiny_model

from dsd_tutorial.customization import (
    CustomizationMismatch,
    customize,
    fit_domain,
    fitting,
    load_custom,
    load_domain,
    references,
    textual_inversion,
    words,
)
from dsd_tutorial.customization.tuning import Plan, Tuning
from dsd_tutorial.customization.words import reading, with_place
from dsd_tutorial.projection import eos_states, fit_inverse
from dsd_tutorial.shapes import random_scenes, render
from dsd_tutorial.stable_diffusion import to_pil
from dsd_tutorial.stable_diffusion.checksums import state_sha256
from dsd_tutorial.variation import image_to_prompt, states_to_prompt

QUICK = {"batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def inverse(tiny):
    return fit_inverse(tiny, progress=False)


@pytest.fixture(scope="module")
def pictures():
    return render(random_scenes(4, 3, one_object_share=1.0))[0]


@pytest.fixture(scope="module")
def tuned(tiny, inverse, pictures):
    """Six steps on one picture, keys and values too."""
    return customize(
        tiny, pictures[:1], inverse=inverse, what="prompt_kv", rank=2, steps=6, at=(0, 3),
        check_every=1, **QUICK,
    )  # fmt: skip


@pytest.fixture(scope="module")
def domain(tiny, inverse, pictures):
    texts = ["a red circle", "a star", "a ring", "a cross"]
    return fit_domain(
        tiny, pictures, text=texts, inverse=inverse, tokens=2, steps=3, check_every=1,
        keep_texts=["a red circle", "a blue star"], **QUICK,
    )  # fmt: skip


# -- one reference -----------------------------------------------------------------------------


def test_no_steps_are_the_closed_form_itself(tiny, inverse, pictures):
    custom = customize(tiny, pictures[:1], inverse=inverse, steps=0, **QUICK)
    torch.testing.assert_close(custom.prompt(tiny), image_to_prompt(tiny, pictures[:1], inverse))
    assert custom.parameters == 32 and len(custom.history) == 1


def test_starts_are_where_they_should_be(tiny, inverse, pictures):
    text = customize(
        tiny, pictures[:1], start="text", text="a star", inverse=inverse, steps=0, **QUICK
    )
    torch.testing.assert_close(text.state, eos_states(tiny, ["a star"])[0])
    random = [
        customize(tiny, pictures[:1], start="random", inverse=inverse, steps=0, seed=s, **QUICK)
        for s in (0, 0, 1)
    ]
    assert float(random[0].state.norm()) == pytest.approx(inverse.length, rel=1e-5)
    assert torch.equal(random[0].state, random[1].state)
    assert not torch.equal(random[0].state, random[2].state)
    few = customize(tiny, pictures, inverse=inverse, steps=0, **QUICK)
    mean = inverse(tiny.encode_clip_image(pictures)).mean(0)
    torch.testing.assert_close(few.state, inverse.length * mean / mean.norm())


def test_tuning_lowers_the_error_and_keeps_the_best(tuned):
    checked = tuned.history["checked"].tolist()
    assert checked[-1] < checked[0] and tuned.tuning.best == min(checked)
    assert checked[tuned.tuning.best_step] == tuned.tuning.best
    assert tuned.history["step"].tolist() == list(range(7)) and tuned.tuning.stopped == "end"
    assert tuned.parameters == 32 + sum(p.numel() for p in tuned.module["lora"].parameters())
    assert tuned.seconds > 0 and tuned.peak_memory > 0 and tuned.tuning.unet_passes > 6 * 2


def test_a_kept_state_is_that_of_a_shorter_run(tiny, inverse, pictures, tuned):
    short = customize(
        tiny, pictures[:1], inverse=inverse, what="prompt_kv", rank=2, steps=3, at=(3,), **QUICK
    )
    for name, value in short.at(3).module.state_dict().items():
        torch.testing.assert_close(tuned.at(3).module.state_dict()[name], value)
    start = image_to_prompt(tiny, pictures[:1], inverse)
    torch.testing.assert_close(tuned.at(0).prompt(tiny), start)
    with pytest.raises(ValueError, match=r"only at \[0, 3\]"):
        tuned.at(2)


def test_what_was_learned_works_inside_its_block_only(tiny, tuned):
    z, context = torch.randn(1, *tiny.latent_shape), tiny.encode_text("a star")
    before = tiny.predict_noise(z, 700, context)
    with tuned.applied(tiny):
        assert not torch.equal(tiny.predict_noise(z, 700, context), before)
    assert torch.equal(tiny.predict_noise(z, 700, context), before)
    images = tuned.draw(tiny, 2, "a blue object", steps=1, progress=False)
    assert images.shape == (2, 3, 64, 64)


def test_files_give_the_same_numbers_and_refuse_other_models(tiny, tuned, tmp_path):
    found = load_custom(tiny, tuned.save(tiny, tmp_path / "it"))
    assert torch.equal(found.state, tuned.state) and found.settings == tuned.settings
    for a, b in zip(found.module.parameters(), tuned.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert found.history["checked"].tolist() == tuned.history["checked"].tolist()
    assert found.seconds == tuned.seconds
    with pytest.raises(CustomizationMismatch, match="load that one, or tune anew"):
        load_custom(tiny_model(seed=1), tmp_path / "it")
    with pytest.raises(CustomizationMismatch, match="load_custom what customize"):
        load_domain(tiny, tmp_path / "it")
    about = json.loads((tmp_path / "it" / "custom.json").read_text())
    about["settings"]["rank"] = 3
    (tmp_path / "it" / "custom.json").write_text(json.dumps(about))
    with pytest.raises(CustomizationMismatch, match="lora.down"):
        load_custom(tiny, tmp_path / "it")
    with pytest.raises(FileNotFoundError, match="tune and save first"):
        load_custom(tiny, tmp_path / "nowhere")


def test_ctrl_c_keeps_the_best_and_restores_the_model(tiny, inverse, pictures):
    shown = []

    def preview(step, picture):
        shown.append((step, tuple(picture.shape)))
        if step == 2:
            raise KeyboardInterrupt

    hooks = {name: type(p) for name, p in tiny.unet.attn_processors.items()}
    custom = customize(
        tiny, pictures[:1], inverse=inverse, steps=50, check_every=1, preview=preview,
        preview_every=1, **QUICK,
    )  # fmt: skip
    assert custom.tuning.stopped == "interrupted" and [s for s, _ in shown] == [0, 1, 2]
    assert shown[0][1] == (3, 64, 64)
    checked = custom.history["checked"].tolist()
    assert len(checked) == 3 and custom.tuning.best == min(checked)
    assert {name: type(p) for name, p in tiny.unet.attn_processors.items()} == hooks


def test_a_changed_weight_is_noticed(inverse, pictures):
    model = tiny_model()

    def spoil(step, picture):
        model.clip.visual_projection.weight.data += 1

    with pytest.raises(RuntimeError, match="the weights of clip changed"):
        customize(model, pictures[:1], inverse=inverse, steps=0, preview=spoil, **QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "nowhere"}, {"what": "everything"}, {"start": "text"}, {"steps": -1},
        {"lr": -1.0}, {"at": (5,), "steps": 3}, {"check_every": 0}, {"lr": math.nan},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(tiny, inverse, pictures, wrong):
    with pytest.raises(ValueError, match=r"choose one of|needs the text|need steps"):
        customize(tiny, pictures[:1], inverse=inverse, **{**QUICK, **wrong})


# -- a word ------------------------------------------------------------------------------------


def test_a_word_that_says_what_another_says_is_that_word(tiny):
    table = tiny.text_encoder.get_input_embeddings().weight
    plain = tiny.encode_text("a blue circle")
    with reading(tiny, table[tiny.tokenizer("circle")["input_ids"][1]]):
        torch.testing.assert_close(tiny.encode_text("a blue *"), plain)
    assert not torch.allclose(tiny.encode_text("a blue *"), plain)


def test_learning_a_word(tiny, pictures, tmp_path):
    learned = textual_inversion(
        tiny, pictures[:1], word="circle", steps=3, at=(0,), check_every=1, **QUICK
    )
    torch.testing.assert_close(learned.at(0).prompt(tiny), tiny.encode_text("a circle"))
    assert learned.parameters == 32 and not torch.equal(learned.vector, learned.at(0).vector)
    edited = learned.prompt(tiny, "a blue object", alpha=2.0)
    assert torch.equal(edited, learned.prompt(tiny, "a blue *"))
    found = load_custom(tiny, learned.save(tiny, tmp_path))
    assert torch.equal(found.vector, learned.vector) and found.kind == "word"
    start = textual_inversion(tiny, pictures[:1], steps=0, seed=3, **QUICK).vector
    assert torch.equal(
        start, textual_inversion(tiny, pictures[1:2], steps=0, seed=3, **QUICK).vector
    )
    with pytest.raises(ValueError, match="where does the word go"):
        with_place("on a pink background")


# -- a domain ----------------------------------------------------------------------------------


def test_fitting_a_domain_leaves_the_model_alone(tiny, domain, inverse, pictures):
    fresh = tiny_model()
    for part in ("unet", "text_encoder", "clip", "vae"):
        ours, was = (getattr(m, part).state_dict() for m in (tiny, fresh))
        assert state_sha256(ours) == state_sha256(was), part
    assert not any(p.requires_grad for p in tiny.unet.parameters())
    assert {"image", "text", "kept", "checked"} <= set(domain.history) and domain.seconds > 0
    assert domain.parameters == 2 * 2 * 48 + sum(p.numel() for p in domain.keys.parameters())
    assert all(float(p.detach().abs().max()) > 0 for p in domain.keys.parameters())
    stock = image_to_prompt(tiny, pictures, inverse)
    assert not torch.allclose(domain.to_prompt(tiny, pictures), stock)


def test_a_domain_on_disk_prompts_and_draws_the_same(tiny, domain, pictures, tmp_path):
    found = load_domain(tiny, domain.save(tmp_path))
    how = {"n": 1, "steps": 2, "progress": False}
    for text in (None, "a blue star"):
        prompts = [d.to_prompt(tiny, pictures, text) for d in (domain, found)]
        assert torch.equal(*prompts)
    off = ["a red star", "a square"]
    texts = {"text": "a blue star", "source_prompt": off, "alpha": 1.0}
    moved = domain.to_prompt(tiny, pictures[:2], **texts)
    states = domain.inverse(domain.deep.encode(pictures[:2])).detach()
    want = states + eos_states(tiny, ["a blue star"]) - eos_states(tiny, off)
    want = states.norm(dim=-1, keepdim=True) * F.normalize(want, dim=-1)
    torch.testing.assert_close(moved, states_to_prompt(tiny, want, copies=domain.inverse.copies))
    with pytest.raises(ValueError, match="needs a text to replace it"):
        domain.to_prompt(tiny, pictures, source_prompt="a star")
    images = [d.vary(tiny, pictures[:2], **how) for d in (domain, found)]
    assert torch.equal(*images)
    assert not torch.equal(images[0], tiny.sample(embeddings=prompts[0][:2], **how))
    assert found.settings == domain.settings
    with pytest.raises(CustomizationMismatch, match="load that one"):
        load_domain(tiny_model(seed=1), tmp_path)


def test_nothing_is_forgotten_before_anything_is_learned(tiny, inverse, pictures):
    fresh = fit_domain(
        tiny, pictures, text="a star", inverse=inverse, tokens=0, steps=0, keep_weight=2.0,
        keep_count=1, **QUICK,
    )  # fmt: skip
    plan = Plan(0, {}, batch_size=4, progress=False)
    old = fitting._OldWorld(fresh, plan, ["a red circle", "a star"])
    with fresh.applied(tiny):
        assert float(old.loss(1).detach()) < 1e-10
        with torch.no_grad():
            for added in fresh.keys.parameters():
                added += 0.1
        assert float(old.loss(1).detach()) > 1e-5


def test_as_much_of_the_old_world_is_drawn_as_asked_for(tiny, inverse, pictures, monkeypatch):
    drawn, sample = [], type(tiny).sample

    def spied(self, texts=None, **options):
        drawn.append(texts)
        return sample(self, texts, **options)

    monkeypatch.setattr(type(tiny), "sample", spied)
    fit_domain(
        tiny, pictures, text="a star", inverse=inverse, tokens=0, steps=0, keep_count=3, **QUICK
    )
    assert [len(set(texts)) for texts in drawn] == [3]
    with pytest.raises(ValueError, match="keep_count=0.*keep_weight=0"):
        fit_domain(tiny, pictures, text="a star", inverse=inverse, keep_count=0, **QUICK)


def test_a_domain_is_fitted_by_the_plan_that_is_written(tiny, inverse, pictures, monkeypatch):
    plans, shown = [], []

    def tune(model, module, plan, loss, check, image, active):
        plans.append((plan, set(module), image()))
        return Tuning()

    monkeypatch.setattr(fitting, "tune", tune)
    monkeypatch.setattr(fitting, "show", lambda model, prompt, seed: shown.append((prompt, seed)))
    how = {
        "inverse": inverse,
        "tokens": 2,
        "keep_weight": 0.0,
        "text": "a star",
        "seed": 6,
        **QUICK,
    }
    found = fit_domain(tiny, pictures, steps=7, lr=0.02, check_every=3, preview_every=4, **how)
    (plan, parts, _), ((prompt, seed),) = plans[0], shown
    assert (plan.steps, plan.decay, plan.check_every, plan.preview_every) == (7, True, 3, 4)
    assert plan.rates == {"deep": 0.2, "key_values": 0.02} and parts == set(plan.rates)
    assert not plan.progress and prompt.shape == (1, 32, 32) and seed == 6
    assert found.settings["lr"] == 0.02 and found.settings["images"] == 4
    for weight in ("text_weight", "keep_weight"):  # none is allowed, less is not
        fit_domain(tiny, pictures, steps=0, **{**how, weight: 0.0})
        with pytest.raises(ValueError, match=f"{weight}=-0.1"):
            fit_domain(tiny, pictures, steps=0, **{**how, weight: -0.1})
    for crop in (0.5, 1.0):
        fit_domain(tiny, pictures, steps=0, crop=crop, **how)
    for crop in (0.4, 1.1):
        with pytest.raises(ValueError, match=f"crop={crop}"):
            fit_domain(tiny, pictures, steps=0, crop=crop, **how)


def test_what_was_tuned_says_what_made_it_and_not_how_it_went(tuned):
    assert "settings={'what': 'prompt_kv'" in repr(tuned) and "tuning=" not in repr(tuned)


def test_one_picture_of_ten_is_held_back_where_there_are_enough():
    for count in (1, 9, 19):
        learning, held = fitting._split(count)
        assert learning.tolist() == held.tolist() == list(range(count))
    for count in (20, 25, 100):
        learning, held = fitting._split(count)
        assert held.tolist() == list(range(9, count, 10))
        assert sorted([*learning.tolist(), *held.tolist()]) == list(range(count))


def test_one_text_for_each_picture_or_one_for_all(tiny, inverse, pictures):
    with pytest.raises(ValueError, match="2 texts for 4 images"):
        fit_domain(tiny, pictures, text=["a star", "a ring"], inverse=inverse, **QUICK)
    with pytest.raises(ValueError, match="crop=2"):
        fit_domain(tiny, pictures, text="a star", inverse=inverse, crop=2.0, **QUICK)


# -- what is planned, and what is given -----------------------------------------------------------


@pytest.fixture
def plans(monkeypatch):
    """The plans that would have been carried out."""
    found = []

    def tune(model, module, plan, *_, **__):
        found.append((plan, module))
        return Tuning()

    for room in (fitting, references, words):
        monkeypatch.setattr(room, "tune", tune)
    return found


def test_rates_are_in_proportion_to_the_state(tiny, inverse, pictures, plans):
    how = {"inverse": inverse, "what": "prompt_kv", **QUICK}
    custom = customize(tiny, pictures[:1], **how)
    usual = references.PACE * float(custom.state.square().mean().sqrt())
    assert plans[-1][0].rates == pytest.approx({"state": usual, "lora": references.LORA_RATE})
    customize(tiny, pictures[:1], lr=3 * usual, **how)
    assert plans[-1][0].rates == pytest.approx(
        {"state": 3 * usual, "lora": 3 * references.LORA_RATE}
    )


def test_a_word_is_learned_at_a_tenth_of_the_size_of_embeddings(tiny, pictures, plans):
    table = tiny.text_encoder.get_input_embeddings().weight
    size = float(table.square().mean().sqrt())
    for word in ("circle", None):
        learned = textual_inversion(tiny, pictures[:1], word=word, **QUICK)
        plan = plans[-1][0]
        assert plan.rates["word"] == pytest.approx(words.PACE * size)
        assert plan.name.endswith(word or "random")
    many = torch.stack([
        words.start_vector(tiny, None, table, seed) for seed in range(40)
    ])  # fmt: skip
    assert float(many.std()) == pytest.approx(size, rel=0.1)
    assert textual_inversion(tiny, pictures[:1], lr=0.5, **QUICK).settings["lr"] == 0.5
    assert learned.settings["word"] is None


def test_an_inverse_that_is_given_is_the_one_that_is_used(
    tiny, inverse, pictures, plans, monkeypatch
):
    for room in (fitting, references):
        monkeypatch.setattr(room, "fit_inverse", lambda *a, **k: pytest.fail("fitted again"))
    customize(tiny, pictures[:1], inverse=inverse, **QUICK)
    how = {"inverse": inverse, "tokens": 1, "keep_weight": 0.0, **QUICK}
    assert fit_domain(tiny, pictures, text="a star", **how).inverse is inverse
    for room in (fitting, references):
        monkeypatch.setattr(room, "fit_inverse", lambda *a, **k: inverse)
    assert customize(tiny, pictures[:1], **QUICK).settings["copies"] == inverse.copies


def test_pictures_and_tensors_are_learned_alike_and_the_text_is_kept(
    tiny, inverse, pictures, plans
):
    how = {"inverse": inverse, "tokens": 1, "keep_weight": 0.0, **QUICK}
    shown = [to_pil(picture)[0] for picture in pictures]
    a, b = (fit_domain(tiny, x, text="a star", **how) for x in (pictures, shown))
    torch.testing.assert_close(a.deep.prompts, b.deep.prompts, atol=0.02, rtol=0)
    assert a.settings["text"] == "a star" and "Tuning" not in repr(a)
    texts = ["a star", "a ring", "a star", "a ring"]
    assert fit_domain(tiny, pictures, text=texts, **how).settings["text"] == texts
    fit_domain(tiny, pictures, text="a star", keep_count=1, **how)


def test_pictures_of_another_size_are_brought_to_the_models(
    tiny, inverse, pictures, plans, monkeypatch
):
    real, sides = fitting.to_tensor, []

    def to_tensor(images, side):
        sides.append(side)
        return real(images, side)

    monkeypatch.setattr(fitting, "to_tensor", to_tensor)
    how = {"inverse": inverse, "tokens": 1, "keep_weight": 0.0, **QUICK}
    for images in (pictures, [picture.resize((90, 70)) for picture in to_pil(pictures)]):
        fit_domain(tiny, images, text="a star", **how)
    assert sides == [None, tiny.resolution]


def test_a_preview_is_drawn_without_a_word(tiny, capfd):
    picture = references.show(tiny, tiny.encode_text(["a star"]), 0)
    assert picture.shape == (3, 64, 64) and not capfd.readouterr().err


def test_half_of_the_old_world_is_asked_by_caption(tiny, domain, inverse):
    plan = Plan(0, {}, batch_size=6, progress=False)
    world = fitting._OldWorld(domain, plan, ["a star", "a ring", "a cross"])
    asked = []

    def answer(noisy, t, context):
        asked.append(context)
        return torch.zeros(len(t), *tiny.latent_shape)

    world.denoising.answer = answer
    world.loss(0)
    rows = world.denoising.draw(0).index
    assert torch.equal(asked[0][:3], world.captions[rows[:3]])
    assert torch.equal(asked[0][3:], world.prompts[rows[3:]])


def test_the_texts_error_counts_as_much_as_asked(tiny, inverse, pictures, monkeypatch):
    found = []

    def tune(model, module, plan, loss, check, **_):
        with torch.no_grad():
            found.append((loss(0), float(check())))
            learning = loss.__self__
            learning.denoising.errors = lambda context, draw: torch.full((len(draw.t),), 2.0)
            assert float(loss(0)["text"]) == 2.0 * learning.text_weight
        return Tuning()

    monkeypatch.setattr(fitting, "tune", tune)
    how = {"inverse": inverse, "tokens": 1, "keep_weight": 0.0, "crop": 1.0, **QUICK}
    for weight in (1.0, 3.0):
        fit_domain(tiny, pictures, text="a star", text_weight=weight, **how)
    (once, _), (thrice, _) = found
    assert float(thrice["image"]) == pytest.approx(float(once["image"]))
    assert float(thrice["text"]) == pytest.approx(3 * float(once["text"]))
    assert float(once["image"]) != pytest.approx(float(once["text"]))


def test_of_several_pictures_the_mean_direction_is_taken(tiny, inverse, pictures):
    seen = inverse(tiny.encode_clip_image(pictures[:2]))
    start = references.start_state(tiny, pictures[:2], "closed_form", None, inverse, 0)
    want = inverse.length * F.normalize(seen.mean(0), dim=0)
    torch.testing.assert_close(start, want)
    assert float(start.norm()) == pytest.approx(inverse.length, rel=1e-5)
    alone = references.start_state(tiny, pictures[:1], "closed_form", None, inverse, 0)
    torch.testing.assert_close(alone, inverse(tiny.encode_clip_image(pictures[:1]))[0])


def test_four_pictures_are_drawn_unless_told_otherwise(tiny, inverse, pictures, plans):
    how = {"steps": 1, "progress": False}
    custom = customize(tiny, pictures[:1], inverse=inverse, **QUICK)
    assert len(custom.draw(tiny, **how)) == 4
    domain = fit_domain(
        tiny, pictures, text="a star", inverse=inverse, tokens=1, keep_weight=0.0, **QUICK
    )
    assert len(domain.vary(tiny, pictures[:1], **how)) == 4


def test_the_word_goes_where_it_is_said():
    assert with_place("a blue *") == "a blue *"
    assert with_place("an object") == "an *"
    assert with_place("* on an object") == "* on an object"
    with pytest.raises(ValueError, match="where does the word go"):
        with_place("a star")


def test_prompts_keep_no_graph(tiny, inverse, pictures, plans):
    custom = customize(tiny, pictures[:1], inverse=inverse, **QUICK)
    domain = fit_domain(
        tiny, pictures, text="a star", inverse=inverse, tokens=1, keep_weight=0.0, **QUICK
    )
    word = textual_inversion(tiny, pictures[:1], word="circle", **QUICK)
    for prompt in (custom.prompt(tiny), domain.to_prompt(tiny, pictures), word.prompt(tiny)):
        assert not prompt.requires_grad
