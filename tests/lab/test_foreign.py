"""The two models that others might have made: right topology, and the same code reads them right.

The notebooks on them are `make foreign`; here nothing starts a kernel.
"""

import pytest
import torch

from dsd_tutorial.attention import cross_attention_layers, observe
from dsd_tutorial.attention.token_masks import token_mask
from dsd_tutorial.course.claims import closed_form_lacks, end_without_closed_form
from dsd_tutorial.course.parameters.model_layers import model_layers
from dsd_tutorial.projection import text_weight
from dsd_tutorial.stable_diffusion import files, load_model
from dsd_tutorial.stable_diffusion.registry import (
    CLIP_BY_TEXT_WIDTH,
    REGISTRY,
    IncompleteWeightsError,
    resolve,
)
from lab.upkeep.foreign import MODELS, VOCABULARY, build, vocabulary

TEXTS = ["a red circle", "a blue square left of a green star"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> folder of each model, its CLIP beside it where it has one."""
    root = tmp_path_factory.mktemp("models")
    return {name: build(name, root) for name in MODELS}


@pytest.fixture(scope="module")
def models(folders):
    return {name: load_model(folder, device="cpu") for name, folder in folders.items()}


@pytest.fixture(params=list(MODELS))
def foreign(request, models):
    return models[request.param]


def test_the_same_files_come_out_again(folders, tmp_path):
    again = build("sd-1x", tmp_path)
    first = load_model(folders["sd-1x"], device="cpu")
    assert load_model(again, device="cpu").sha256 == first.sha256


def test_building_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    build("sd-2x", tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_vocabulary_has_the_real_size_and_ends():
    vocab, merges = vocabulary()
    assert len(vocab) == VOCABULARY == 49_408 and sorted(vocab.values()) == [*range(VOCABULARY)]
    assert len(set(merges)) == len(merges) == VOCABULARY - 514
    assert (vocab["!"], vocab["<|startoftext|>"], vocab["<|endoftext|>"]) == (0, 49_406, 49_407)


def test_sizes_and_parts(foreign):
    assert (foreign.resolution, foreign.vae_factor, foreign.latent_shape) == (64, 8, (4, 8, 8))
    assert foreign.context_length == 77 and len(foreign.tokenizer) == VOCABULARY
    assert foreign.vae.config.scaling_factor == 0.18215
    assert len(foreign.unet.config.block_out_channels) == 4
    assert not foreign.is_embedded and foreign.entry.kind == "folder"


def test_what_makes_the_first_a_1x(models, folders):
    one = models["sd-1x"]
    assert (one.prediction_type, type(one.scheduler).__name__) == ("epsilon", "PNDMScheduler")
    assert one.text_layer == "last" and not (folders["sd-1x"] / "clip").exists()
    assert one.clip is not None and one.image_processor.size == 224
    assert {layer.heads for layer in attention(one)} == {8}


def test_what_makes_the_second_a_2x(models):
    two = models["sd-2x"]
    assert two.prediction_type == "v_prediction" and two.unet.config.use_linear_projection
    assert two.text_layer == "penultimate" and two.clip is None
    assert {layer.heads for layer in attention(two)} == {2, 4, 8}
    kinds = {type(block.proj_in) for block in two.unet.modules() if hasattr(block, "proj_in")}
    assert kinds == {torch.nn.Linear}


def attention(model):
    return [module for name, module in model.unet.named_modules() if name.endswith("attn2")]


def test_layers_by_configuration_are_those_of_the_network(foreign):
    names = cross_attention_layers(foreign)
    assert len(names) == 16 and tuple(names) == model_layers(str(foreign.folder))


def test_end_tokens_and_padding(foreign):
    ids, ends = foreign.tokenize(TEXTS), foreign.eos_positions(TEXTS)
    padding = {"sd-1x": 49_407, "sd-2x": 0}[foreign.name]
    assert ends.tolist() == [4, 9]
    for row, end in zip(ids, ends, strict=True):
        assert (row[0], row[end]) == (49_406, 49_407) and (row[end + 1 :] == padding).all()
    assert [word for word, _ in foreign.token_words(TEXTS[0])] == ["a", "red", "circle"]


def test_masks_find_words_and_end_whatever_pads(foreign):
    words, ends = (token_mask(foreign, TEXTS, name) for name in ("words", "eos"))
    assert words.sum(1).tolist() == [3, 8] and ends.int().argmax(1).tolist() == [4, 9]


def test_clip_pools_at_the_end_token_though_its_configuration_says_2(models):
    """The published configurations do; the largest id is then the end."""
    one = models["sd-1x"]
    assert one.clip.config.text_config.eos_token_id == 2
    states = one.encode_text(TEXTS)[torch.arange(2), one.eos_positions(TEXTS)]
    projected = one.clip.text_projection(states)
    assert torch.allclose(one.encode_clip_text(TEXTS), projected, atol=1e-5)


def test_attention_is_caught_in_every_layer_and_changes_nothing(foreign):
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    context = foreign.encode_text(TEXTS)
    with torch.no_grad():
        plain = foreign.predict_noise(noisy, 500, context)
        with observe(foreign, maps=True) as seen:
            watched = foreign.predict_noise(noisy, 500, context)
    assert torch.allclose(plain, watched, atol=1e-4) and plain.isfinite().all()
    heads = [layer.heads for layer in attention(foreign)]
    assert sorted(m.shape[1] for m in seen.maps.values()) == sorted(heads)
    for maps in seen.maps.values():
        assert maps.shape[::3] == (2, 77)
        assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-4)
        assert maps.max() > 5 / 77, "even attention would make every check of it easy"


def test_the_raw_answer_becomes_noise(foreign):
    """The U-Net of a 2.x answers v; what `predict_noise` gives is epsilon for both."""
    z0, e = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t, context = 500, foreign.encode_text(TEXTS[:1])
    zt = foreign.add_noise(z0, e, t)
    with torch.no_grad():
        raw = foreign.unet(zt, t, context).sample
        noise = foreign.predict_noise(zt, t, context)
    abar = foreign.scheduler.alphas_cumprod[t]
    expected = raw if foreign.name == "sd-1x" else abar.sqrt() * raw + (1 - abar).sqrt() * zt
    assert torch.allclose(noise, expected, atol=1e-5)


def test_sampling_draws_pictures(foreign):
    images = foreign.sample(TEXTS, steps=2, guidance=2.0, progress=False)
    assert images.shape == (2, 3, 64, 64) and images.isfinite().all()


# -- the closed form -----------------------------------------------------------------------------


def test_the_closed_form_applies_to_the_first(models, capsys):
    assert closed_form_lacks(models["sd-1x"]) == ""
    assert text_weight(models["sd-1x"]).shape == (32, 32)
    end_without_closed_form(models["sd-1x"])
    assert capsys.readouterr().out == ""


def test_the_second_is_told_so_in_one_line(models, capsys):
    with pytest.raises(SystemExit) as ended:  # no notebook here: a program ends
        end_without_closed_form(models["sd-2x"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.count("\n") == 1
    assert "text layer 23 of 24" in said and "ends here" in said


def test_in_a_notebook_later_cells_do_nothing(models):
    """Also what IPython would not read as Python; none of them may count as failed."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    quiet = Config({"HistoryManager": {"enabled": False}})  # nothing in the home folder
    names = {"end": end_without_closed_form, "sd": models["sd-2x"]}
    shell = InteractiveShell(user_ns=names, config=quiet)
    try:
        InteractiveShell._instance = shell  # `get_ipython` asks for it
        assert shell.run_cell("end(sd)\nhere = 1").success
        for cell in ("later = 1", "1 / 0", "%%time\nlater = 1", "def f(:", "# nothing"):
            assert shell.run_cell(cell).success
        assert "here" in shell.user_ns and "later" not in shell.user_ns
    finally:
        InteractiveShell.clear_instance()


# -- where CLIP comes from -----------------------------------------------------------------------


def test_without_clip_the_line_names_the_place_for_it(folders, tmp_path):
    alone = tmp_path / "tuned"
    alone.symlink_to(folders["sd-1x"], target_is_directory=True)
    model = load_model(folders["sd-1x"], device="cpu")
    model.clip = None
    assert f"{folders['sd-1x']}-clip" in closed_form_lacks(model)
    beside = folders["sd-1x"].with_name("sd-1x-clip")
    assert files.clip_beside(alone) == beside  # a link is where it points


def test_a_clip_given_by_name_comes_before_the_one_beside(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no CLIP"):
        load_model(folders["sd-1x"], device="cpu", clip=tmp_path)


def test_a_broken_clip_beside_is_not_passed_over(folders, tmp_path):
    mine = build("sd-1x", tmp_path)
    files.clip_beside(mine).joinpath("config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no CLIP"):
        load_model(mine, device="cpu")


@pytest.mark.parametrize(("width", "name"), [(768, "sd-1.5"), (1024, "sd-2.1-base")])
def test_a_folder_of_real_size_asks_for_its_public_clip(tmp_path, monkeypatch, width, name):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text(f'{{"hidden_size": {width}}}')
    asked = []
    monkeypatch.setattr(files, "_cached_clip", lambda source, download: asked.append(source))
    files.towers_for(resolve(tmp_path)[0], tmp_path, None, False)
    assert asked == [REGISTRY[name].clip_repo] == [CLIP_BY_TEXT_WIDTH[width]]


def test_missing_tensors_are_found_here_too(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = build("sd-2x", tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, weights)
    with pytest.raises(IncompleteWeightsError, match="1 tensors"):
        load_model(folder, device="cpu")
