"""Which precision is chosen, which is refused, and that rankings survive half of it."""

import pytest
import torch
from tiny_model import tiny_model

from dsd_tutorial.attention import choose_layers
from dsd_tutorial.matching import score
from dsd_tutorial.shapes import make_task
from dsd_tutorial.stable_diffusion import precision
from dsd_tutorial.stable_diffusion.precision import bfloat16_pays, pick_dtype
from dsd_tutorial.stable_diffusion.registry import DeviceError


def test_names_and_what_they_mean():
    assert pick_dtype(None) == pick_dtype("float32") == torch.float32
    assert pick_dtype("torch.bfloat16") == pick_dtype(torch.bfloat16) == torch.bfloat16
    with pytest.raises(ValueError, match="dtype 'double': need None, auto or one of float32"):
        pick_dtype("double")


@pytest.mark.parametrize("pays", [True, False])
def test_auto_on_a_cpu_is_bfloat16_where_that_pays(monkeypatch, pays):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: pays)
    assert pick_dtype("auto", "cpu") == (torch.bfloat16 if pays else torch.float32)
    assert pick_dtype("auto", "mps") == torch.float32


def test_it_pays_only_where_the_hardware_has_it_and_it_is_faster(monkeypatch):
    for amx, slow, want in ((False, 9.0, False), (True, 9.0, True), (True, 1.2, False)):
        bfloat16_pays.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        seconds = {torch.float32: slow, torch.bfloat16: 1.0}
        monkeypatch.setattr(precision, "_seconds", lambda x, s=seconds: s[x.dtype])
        assert bfloat16_pays() is want
    bfloat16_pays.cache_clear()


def test_a_card_without_bfloat16_takes_float16_and_refuses_the_other(monkeypatch):
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert pick_dtype("auto", "cuda") == (torch.bfloat16 if has else torch.float16)
    with pytest.raises(DeviceError, match="cuda does not compute in it; use float16 or float32"):
        pick_dtype("bfloat16", "cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_texts_are_read_before_they_are_rounded(tiny, dtype):
    """Keys and values are those of float32, rounded; rounding the text first gives others."""
    half = tiny_model(dtype=dtype)
    texts = tiny.encode_text(["a ring", "a star"])
    for ours, exact in zip(*(choose_layers(m).values() for m in (half, tiny)), strict=True):
        assert ours.to_q.weight.dtype == ours.to_out[0].weight.dtype == dtype
        for a, b in ((ours.to_k, exact.to_k), (ours.to_v, exact.to_v)):
            assert torch.equal(a.weight, b.weight)
            assert torch.equal(a(texts), b(texts).to(dtype))
            assert not torch.equal(a(texts), a(texts.to(dtype)))
    first = half.unet.down_blocks[0].attentions[0].transformer_blocks[0]
    assert first.attn1.to_k.weight.dtype == dtype


def test_rankings_survive_bfloat16(shapes_sd):
    """Ten items, three texts of each: a CPU without bfloat16 takes a third of a second for a pass.

    A thousand items of each task, whole: `python -m lab measure precision`.
    """
    from dsd_tutorial.stable_diffusion import load_model

    half = load_model("shapes-sd", device="cpu", dtype="bfloat16")
    assert half.dtype == half.unet.dtype == torch.bfloat16
    items, how = make_task("refcoco", 10), {"steps": [400], "progress": False}
    images = items.images(64)
    same = 0
    for i, item in enumerate(items.items):
        winners = [
            score(model, images[i : i + 1], item.texts[:3], error_weight=1.0, layers="last", **how)
            .argmax(1).item()
            for model in (shapes_sd, half)
        ]  # fmt: skip
        same += winners[0] == winners[1]
    assert same >= 9
