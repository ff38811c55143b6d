"""Layer names from a configuration are those of the U-Net itself, and wrong ones are refused."""

import json

import pytest

from dsd_tutorial.attention import cross_attention_layers
from dsd_tutorial.course.parameters.model_layers import check_layers, layer_names, model_layers
from dsd_tutorial.stable_diffusion.registry import EMBEDDED_FOLDER, MissingModelError

SHAPES = {
    "sd-1": dict(
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32,) * 4,
    ),
    "lists": dict(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 32),
        layers_per_block=(1, 2),
    ),
    "xl": dict(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32,) * 3,
        transformer_layers_per_block=[1, 2, 3],
    ),
    "no middle": dict(
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(32,),
        mid_block_type=None,
        layers_per_block=1,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_names_are_those_of_the_network(name):
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=16, attention_head_dim=4, **SHAPES[name])
    assert layer_names(dict(unet.config)) == cross_attention_layers(unet)


def test_the_embedded_model(shapes_sd):
    assert list(model_layers("shapes-sd")) == cross_attention_layers(shapes_sd)
    assert model_layers(str(EMBEDDED_FOLDER)) == model_layers("shapes-sd")


@pytest.mark.parametrize("layers", ["all", "last", "up", "up.1", "up.1.0", ["down", "mid.0"]])
def test_heads_of_names_and_names_are_taken(layers):
    check_layers(layers, ("down.0.0", "mid.0", "up.1.0"), ("all", "last"))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("nope", "all: all, last, down.0.0"),
        (["up", "nope"], "no layer 'nope'"),
        ("ALL", "nearest: all"),
        ("up.3", "nearest: up.1.0"),
        ("", "no layer ''"),
    ],
)
def test_anything_else_is_refused_with_the_nearest(layers, says):
    with pytest.raises(ValueError, match=says):
        check_layers(layers, ("down.0.0", "mid.0", "up.1.0"), ("all", "last"))


def test_a_folder_without_a_configuration_is_named(tmp_path):
    with pytest.raises(MissingModelError, match=r"unet/config\.json is missing"):
        model_layers(str(tmp_path))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"a": 1}))
    model_layers.cache_clear()
    with pytest.raises(MissingModelError, match="readable configuration"):
        model_layers(str(tmp_path))


def test_a_hub_model_that_is_not_here_is_said_with_the_command():
    with pytest.raises(MissingModelError, match="hf download owner/nobody-has-this"):
        model_layers("owner/nobody-has-this")
