"""Rows that are alike are computed once, and nobody can tell."""

import pytest
import torch

from dsd_tutorial.attention import shared_rows
from dsd_tutorial.attention.sharing import before_text
from dsd_tutorial.matching import pass_components

TEXTS = ["a red circle", "a blue square", "a pink heart"]


@pytest.fixture
def batch(tiny):
    """Six rows: two noisy latents at two time steps, three texts."""
    numbers = torch.Generator().manual_seed(0)
    noisy, t = torch.randn(2, *tiny.latent_shape, generator=numbers), torch.tensor([100, 800])
    fields, texts = torch.tensor([1, 0, 1, 0, 0, 1]), torch.tensor([2, 2, 0, 0, 1, 1])
    return fields, texts, (noisy[fields], t[fields], tiny.encode_text(TEXTS)[texts])


def test_the_result_is_that_of_the_plain_pass(tiny, batch):
    fields, texts, row = batch
    want, eps = pass_components(tiny, *row)
    with shared_rows(tiny.unet, fields, texts):
        got, same = pass_components(tiny, *row)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)
    torch.testing.assert_close(same, eps, atol=2e-5, rtol=0)


def test_distinct_rows_alone_go_through(tiny, batch):
    fields, texts, row = batch
    seen, hooks = {}, []
    parts = {"conv_in": tiny.unet.conv_in, "self": before_text(tiny.unet)[-1]}
    parts |= {"key": tiny.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k}
    parts |= {"later": tiny.unet.mid_block.resnets[0]}
    with torch.no_grad(), shared_rows(tiny.unet, fields, texts):
        for name, part in parts.items():
            hook = lambda m, args, name=name: seen.update({name: len(args[0])})  # noqa: E731
            hooks.append(part.register_forward_pre_hook(hook))
        tiny.predict_noise(*row)
    for hook in hooks:
        hook.remove()
    assert seen == {"conv_in": 2, "self": 2, "key": 3, "later": 6}


def test_what_stands_before_the_first_text(tiny):
    parts = before_text(tiny.unet)
    block = tiny.unet.down_blocks[0]
    inner = block.attentions[0].transformer_blocks[0]
    assert parts[0] is tiny.unet.conv_in and parts[1] is block.resnets[0]
    assert parts[-1] is inner.attn1 and inner.attn2 not in parts
    with torch.no_grad():  # another text changes the output of none of them
        noisy, outputs = torch.randn(1, *tiny.latent_shape), []
        for text in TEXTS[:2]:
            seen = []
            hooks = [p.register_forward_hook(lambda m, a, y, s=seen: s.append(y)) for p in parts]
            tiny.predict_noise(noisy, 500, tiny.encode_text([text]))
            outputs.append(seen)
            for hook in hooks:
                hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_hooks_are_taken_off_after_an_error(tiny, batch):
    fields, texts, _ = batch
    with pytest.raises(ZeroDivisionError), shared_rows(tiny.unet, fields, texts):
        _ = 1 / 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())


def test_rows_that_differ_are_left_alone(tiny):
    with shared_rows(tiny.unet, torch.arange(4), torch.arange(4)):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.unet.modules())


def test_texts_are_shared_where_no_two_noisy_images_are_alike(tiny, batch):
    _, texts, row = batch
    seen, key = [], tiny.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    with torch.no_grad(), shared_rows(tiny.unet, torch.arange(6), texts):
        hook = key.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
        tiny.predict_noise(*row)
    hook.remove()
    assert seen == [3]


def test_a_first_block_without_attention_is_before_every_text():
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), block_out_channels=(8, 16),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=2,
        norm_num_groups=4, attention_head_dim=2, cross_attention_dim=12,
    )  # fmt: skip
    first, second = unet.down_blocks
    attention = second.attentions[0]
    assert before_text(unet) == [
        unet.conv_in, *first.resnets, *first.downsamplers, second.resnets[0], attention.norm,
        attention.proj_in, attention.transformer_blocks[0].norm1,
        attention.transformer_blocks[0].attn1,
    ]  # fmt: skip
