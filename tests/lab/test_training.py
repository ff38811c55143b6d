"""The trainers: what they draw, that they resume, and that they refuse what does not fit."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from torch import nn

from dsd_tutorial.shapes.captions import parse
from lab.training.artifacts import load_part, load_tokenizer
from lab.training.autoencoder import train_autoencoder
from lab.training.clip import PLACE_LENGTH, contrastive_loss, place_code, train_clip
from lab.training.data import make_pool
from lab.training.loop import Ema, Loop, Options, TrainingDiverged, make_accelerator
from lab.training.tokenizer import train_tokenizer
from lab.training.unet import (
    HIGH_NOISE,
    HIGH_SHARE,
    draw_timesteps,
    eos_state_alone,
    parent_hashes,
    train_unet,
)

pytest.importorskip("accelerate", reason="the extra `train` is not installed")
from accelerate.state import AcceleratorState  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model folder whose stages were each trained for two tiny steps, and its options."""
    folder = tmp_path_factory.mktemp("model")
    common = dict(output=folder, steps=2, batch=4, lr=1e-3, pool=24, device="cpu", warmup=1)
    common |= dict(work=folder / "work", ema=0.9)
    train_tokenizer(folder, captions=600)
    train_autoencoder(Options(**common))
    train_clip(Options(**common))
    train_unet(Options(**common), widths=(16, 32, 32))
    return folder, common


def test_tokenizer_pads_with_its_end_token(trained):
    tokenizer = load_tokenizer(trained[0])
    ids = tokenizer("a red circle", padding="max_length", max_length=32).input_ids
    end = tokenizer.eos_token_id
    assert ids[0] == tokenizer.bos_token_id and ids[4:] == [end] * 28 and end not in ids[:4]
    assert tokenizer.decode(tokenizer("a striped heart").input_ids[1:-1]) == "a striped heart"


def test_text_tower_of_clip_is_the_text_encoder_bit_for_bit(trained):
    folder = trained[0]
    encoder, clip = load_part(folder, "text_encoder"), load_part(folder, "clip")
    ours = getattr(encoder, "text_model", encoder).state_dict()
    theirs = clip.text_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_pool_holds_train_scenes_and_true_captions(trained):
    tokenizer = load_tokenizer(trained[0])
    pool = make_pool(40, 3, tokenizer=tokenizer)
    assert {s.split for s in pool.scenes} == {"train"}
    index, tokens = pool.draw(64, torch.Generator().manual_seed(0))
    for i, row in zip(index.tolist(), tokens, strict=True):
        text = tokenizer.decode(row, skip_special_tokens=True).replace(" ,", ",")
        assert parse(text).true_of(pool.scenes[i]), text


def test_distinct_captions_are_distinct_and_too_many_are_refused(trained):
    pool = make_pool(200, 3, tokenizer=load_tokenizer(trained[0]))
    _, tokens = pool.draw_distinct(100, torch.Generator().manual_seed(0))
    assert len({tuple(row.tolist()) for row in tokens}) == 100
    with pytest.raises(RuntimeError, match="larger pool"):
        pool.draw_distinct(5000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("pays", "precision"), [(True, "bf16"), (False, "no")])
def test_half_precision_only_where_it_is_faster(monkeypatch, pays, precision):
    monkeypatch.setattr("dsd_tutorial.stable_diffusion.precision.bfloat16_pays", lambda: pays)
    AcceleratorState._reset_state(reset_partial_state=True)  # it is shared, and set once
    try:
        assert make_accelerator("cpu").mixed_precision == precision
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def run(steps: list[int], work) -> torch.Tensor:
        for stop in steps:
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 1)
            options = Options(
                output=tmp_path, steps=6, batch=1, lr=0.01, work=tmp_path / work, warmup=1, ema=0.9
            )
            loop = Loop("line", model, options, make_accelerator("cpu"))

            def loss(step, loop=loop, stop=stop):
                if loop.step == stop:
                    raise KeyboardInterrupt
                x = torch.randn(8, 3, generator=loop.generator)
                return (loop.model(x) - x.sum(1, keepdim=True)).pow(2).mean(), {}

            try:
                loop.run(loss)
            except KeyboardInterrupt:
                assert stop < 6
        return torch.cat([p.detach().flatten() for p in loop.ema.model.parameters()])

    assert torch.equal(run([99], "whole"), run([2, 4, 99], "parts"))


def test_ema_follows_slowly_and_starts_fast():
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema.update(model, step=0)  # decay 1/10 at the start
    assert torch.allclose(ema.model.weight, torch.full((2, 2), 0.9), atol=0.11)
    before = ema.model.weight.clone()
    with torch.no_grad():
        model.weight.fill_(5.0)
    ema.update(model, step=10**6)
    assert (ema.model.weight - before).abs().max() < 0.005


def test_contrastive_loss_is_log_n_for_equal_states_and_falls_for_matching_ones():
    n = 8
    same = torch.ones(n, 4)
    loss, _ = contrastive_loss(same, same, torch.tensor(1.0))
    assert loss.item() == pytest.approx(torch.log(torch.tensor(float(n))).item(), abs=1e-5)
    loss, right = contrastive_loss(torch.eye(n), torch.eye(n), torch.tensor(4.6))
    assert loss < 1e-3 and right == 1


def test_time_steps_cover_everything_with_more_weight_on_high_noise():
    t = draw_timesteps(40_000, torch.Generator().manual_seed(0))
    assert 0 <= t.min() and t.max() <= 999 and t.min() < 10 and t.max() > 990
    high = ((t >= HIGH_NOISE[0]) & (t < HIGH_NOISE[1])).float().mean().item()
    everywhere = (HIGH_NOISE[1] - HIGH_NOISE[0]) / 1000
    expected = HIGH_SHARE + (1 - HIGH_SHARE) * everywhere
    assert high == pytest.approx(expected, abs=0.02)


def test_the_end_state_stands_alone_at_its_length_and_repeats_itself():
    def draw(noise):
        return eos_state_alone(states, ends, empty, torch.Generator().manual_seed(1), noise)

    generator = torch.Generator().manual_seed(0)
    states, empty = (torch.randn(*s, generator=generator) for s in ((200, 12, 8), (12, 8)))
    ends = torch.randint(2, 12, (200,), generator=generator)
    own = states[torch.arange(200), ends]
    exact, noisy = draw(0.0), draw(1.0)
    assert torch.equal(exact[:, 0], empty[0].expand(200, 8))  # the start token stays
    copies = (exact - own[:, None]).norm(dim=-1)[:, 1:].lt(1e-5).sum(1)
    assert copies.min() == 4 and copies.max() == 11  # all but the start token
    for row, n in zip(noisy, copies.tolist(), strict=True):
        assert torch.equal(row[n + 1 :], empty[n + 1 :])
        assert torch.equal(row[1 : n + 1], row[1].expand(n, 8))
    torch.testing.assert_close(noisy[:, 1].norm(dim=-1), own.norm(dim=-1))
    cosine = torch.cosine_similarity(noisy[:, 1], own)
    assert cosine.max() > 0.99 and cosine.min() < 0.7  # from nearly right to quite off


def test_unet_refuses_weights_trained_on_other_parents(trained, tmp_path):
    folder, common = trained
    record = folder / "unet" / "training.json"
    kept = record.read_text()
    changed = json.loads(kept) | {"encoder_sha256": "0" * 64}
    record.write_text(json.dumps(changed))
    try:
        with pytest.raises(RuntimeError, match="another encoder"):
            train_unet(Options(**(common | {"init": folder, "work": tmp_path})))
    finally:
        record.write_text(kept)


def test_init_continues_from_the_written_weights(trained, tmp_path):
    folder, common = trained
    before = json.loads((folder / "unet" / "training.json").read_text())["samples"]
    record = train_unet(Options(**(common | {"init": folder, "work": tmp_path, "steps": 1})))
    assert record["samples"] == before + common["batch"]
    config = json.loads((folder / "unet" / "config.json").read_text())
    assert "_name_or_path" not in config, "a folder of the machine that trained it"


def test_refining_the_decoder_leaves_every_latent_as_it_was(trained, tmp_path):
    folder, common = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    hashes = parent_hashes(copy)
    before = load_part(copy, "vae").state_dict()
    train_autoencoder(Options(**(common | {"output": copy, "init": copy, "work": tmp_path})))
    after = load_part(copy, "vae").state_dict()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert "decoder" in changed and not changed & {"encoder", "quant_conv"}
    assert parent_hashes(copy) == hashes


def test_refining_the_image_tower_leaves_the_text_side_as_it_was(trained, tmp_path):
    folder, common = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    hashes = parent_hashes(copy)
    before = load_part(copy, "clip").state_dict()
    train_clip(
        Options(**(common | {"output": copy, "init": copy, "work": tmp_path})), image_side=True
    )
    after = load_part(copy, "clip").state_dict()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"vision_model", "visual_projection", "logit_scale"}
    assert parent_hashes(copy) == hashes  # the text encoder's file, byte for byte


def test_places_are_told_apart_by_their_code():
    code = place_code(4, 32)
    assert code.norm(dim=1).mean() == pytest.approx(PLACE_LENGTH)
    apart = torch.cdist(code, code) + 9 * torch.eye(16)
    assert apart.min() > 0.1 * PLACE_LENGTH


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"pool": 0}])
def test_bad_options_are_named(bad, tmp_path):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Options(**({"output": tmp_path, "steps": 1, "batch": 1, "lr": 1.0} | bad))


def test_missing_parts_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="train autoencoder"):
        load_part(tmp_path, "vae")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"lr": math.inf}, "lr=inf"),
        ({"lr": math.nan}, "lr=nan"),
        ({"lr": 1e6}, "less than or equal to 10"),
        ({"ema": 2.0}, "ema=2.0"),
        ({"ema": -1.0}, "ema=-1.0"),
        ({"ema": math.nan}, "ema=nan"),
        ({"minutes": 0.0}, "minutes=0.0"),
        ({"minutes": -1.0}, "minutes=-1.0"),
        ({"minutes": math.nan}, "minutes=nan"),
        ({"minutes": math.inf}, "minutes=inf"),
        ({"pool": 1, "batch": 2}, "at least one batch"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**40}, "seed="),
        ({"weight_decay": math.nan}, "weight_decay"),
    ],
)
def test_options_that_would_ruin_weights_are_refused(tmp_path, bad, says):
    with pytest.raises(ValueError, match=says):
        Options(**({"output": tmp_path, "steps": 1, "batch": 1, "lr": 1.0} | bad))


def line_loop(folder, **options):
    """A loop that fits a line, and its loss."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    chosen = {"steps": 20, "batch": 1, "lr": 1e-2, "warmup": 1, "checkpoint_every": 5}
    chosen |= {"output": folder, "work": folder} | options
    loop = Loop("line", model, Options(**chosen), make_accelerator("cpu"))

    def loss(step):
        x = torch.randn(64, 3, generator=loop.generator)
        return (loop.model(x).float() - x.sum(-1, keepdim=True)).pow(2).mean(), {}

    return loop, loss


def test_training_stops_at_the_last_good_checkpoint(tmp_path):
    loop, loss = line_loop(tmp_path)

    def breaks(step):
        value, shown = loss(step)
        return value * (math.nan if step == 12 else 1.0), shown

    with pytest.raises(TrainingDiverged, match=r"step 15 .*holds the last good ones.*lower --lr"):
        loop.run(breaks)
    again, loss = line_loop(tmp_path)
    assert again.step == 10  # and it goes on from there
    again.run(loss)
    assert again.step == 20


def test_a_model_that_got_worse_is_refused_and_one_that_got_better_is_not(tmp_path):
    loop, loss = line_loop(tmp_path / "a", lr=10.0, steps=2, init=tmp_path)
    with torch.no_grad():  # a good model, which goes on at too high a rate
        loop.raw.weight.fill_(1.01)
        loop.raw.bias.zero_()
    with pytest.raises(TrainingDiverged, match="it was .* at the start"):
        loop.run(loss)
    loop, loss = line_loop(tmp_path / "b", lr=0.1, steps=60)
    loop.run(loss)


def test_a_checkpoint_that_holds_nan_is_named(tmp_path):
    loop, _ = line_loop(tmp_path)
    loop.save()
    state = torch.load(tmp_path / "line.pt", weights_only=True)
    state["model"]["weight"][0, 0] = math.nan
    torch.save(state, tmp_path / "line.pt")
    with pytest.raises(TrainingDiverged, match=r"line\.pt .*--no-resume"):
        line_loop(tmp_path)


def test_measuring_changes_no_training_step(tmp_path):
    """The losses before and after are measured beside the run: its random draws stay the same."""
    loop, loss = line_loop(tmp_path)
    weights, generator = loop.raw.weight.clone(), loop.generator.get_state()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = loop._measure(loss, loop.raw), loop._measure(loss, loop.raw)
    assert first == second and torch.equal(torch.rand(1), expected)
    assert torch.equal(loop.raw.weight, weights)
    assert torch.equal(loop.generator.get_state(), generator)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e9])
def test_weights_that_are_not_finite_are_never_written(tiny, tmp_path, value):
    import copy

    tiny.save(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    spoiled = copy.copy(tiny)
    spoiled.unet = copy.deepcopy(tiny.unet)
    with torch.no_grad():
        next(spoiled.unet.parameters()).view(-1)[0] = value  # 1e9 is none in float16
    with pytest.raises(ValueError, match="not finite in float16.*as it was before"):
        spoiled.save(tmp_path)
    assert {p: p.read_bytes() for p in before if "unet" in p.parts} == {
        p: b for p, b in before.items() if "unet" in p.parts
    }
