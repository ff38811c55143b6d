"""The weights that ship with the package: complete, small, quick, at home in plain diffusers."""

import time

import torch
from folder_checks import run_plain, text_towers_are_equal, weights

from dsd_tutorial.stable_diffusion import load_model

TEXTS = ["a red circle left of a blue square", ""]


def test_plain_diffusers_loads_and_samples(shapes_sd):
    run_plain(shapes_sd.folder)


def test_embedded_text_tower(shapes_sd):
    assert text_towers_are_equal(shapes_sd.folder)
    states = shapes_sd.clip.text_model(shapes_sd.tokenize(TEXTS)).last_hidden_state
    assert torch.allclose(states, shapes_sd.encode_text(TEXTS), atol=1e-5)


def test_embedded_model_is_what_the_course_says(shapes_sd):
    assert shapes_sd.is_embedded and shapes_sd.text_layer == "last"
    assert shapes_sd.resolution == 64 and shapes_sd.latent_shape == (4, 16, 16)
    assert shapes_sd.context_length == 32
    layers = [n for n, _ in shapes_sd.unet.named_modules() if n.endswith("attn2")]
    assert {name.split(".")[0] for name in layers} == {"down_blocks", "mid_block", "up_blocks"}
    ids = shapes_sd.tokenize("a red circle")[0]
    assert ids[-1] == shapes_sd.tokenizer.eos_token_id == shapes_sd.tokenizer.pad_token_id
    text = shapes_sd.clip.config.text_config
    assert text.hidden_size == text.projection_dim  # W_t is square, as in SD 1.x


def test_embedded_weights_are_small_and_load_fast(shapes_sd):
    sizes = [path.stat().st_size for _, path in weights(shapes_sd.folder)]
    assert sum(sizes) <= 60e6
    start = time.process_time()  # of this process: the machine may be busy
    load_model("shapes-sd", device="cpu")
    assert time.process_time() - start <= 2.0
