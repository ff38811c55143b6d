"""The evaluation of the embedded model: an oracle must get everything, a liar nothing."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dsd_tutorial.shapes.captions import parse
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import INVERSE, Scene, Thing, place_pair
from lab.measuring import model as evaluation
from lab.measuring.card import FIGURES, write_card
from lab.measuring.probes import probe


def draw(text: str, rng: random.Random, lie: bool = False) -> Scene:
    """A scene of which `text` is true, or, as a lie, one with the opposite relation."""
    said = parse(text)
    relation = said.relation or "above"
    relation = INVERSE[relation] if lie else relation
    places = place_pair(rng, relation) if len(said.things) == 2 else [_lone(said.things[0])]
    things = [Thing(p.shape, p.color, *place) for p, place in zip(said.things, places, strict=True)]
    return Scene(tuple(things), said.background or "white")


def _lone(phrase) -> tuple[float, float, float]:
    words = phrase.position or "in the center"
    x = 0.35 if "left" in words else 0.65 if "right" in words else 0.5
    y = 0.35 if "top" in words else 0.65 if "bottom" in words else 0.5
    return x, y, {"small": 0.15, "large": 0.29}.get(phrase.size, 0.21)


class Oracle:
    """Draws what the caption says; `lie` turns relations around."""

    def __init__(self, lie: bool = False):
        self.lie, self.asked = lie, []

    def sample(self, texts, *, steps, guidance, seed, progress):
        self.asked.append((guidance, steps))
        pairs = zip(texts, seed, strict=True)
        return render([draw(t, random.Random(s), self.lie) for t, s in pairs])[0]

    def encode_image(self, images):
        return images

    def decode_latents(self, latents):
        return latents


CHOSEN = {"guidance": 2.0, "steps": 5}


def test_an_oracle_gets_everything_and_a_liar_no_relation():
    figures = evaluation.text_to_image(Oracle(), 40, 0, CHOSEN)
    assert all(f.value >= 0.97 for f in figures.values()), figures
    lies = evaluation.text_to_image(Oracle(lie=True), 40, 0, CHOSEN)
    assert lies["t2i_objects"].value >= 0.95 and lies["t2i_relation"].value == 0
    assert lies["t2i_exact"].value < 0.7


def test_a_perfect_autoencoder_is_read_exactly():
    assert evaluation.autoencoder_exact(Oracle(), 60, 0).value >= 0.98


def test_prompts_are_true_and_splits_do_not_meet():
    test, validation = (evaluation.prompt_set(50, s, 0) for s in ("test", "validation"))
    for scene, said, text in test:
        assert scene.split == "test" and said.true_of(scene) and parse(text) == said
    assert not {s.key() for s, *_ in test} & {s.key() for s, *_ in validation}


def test_sampling_is_chosen_by_exact_pictures(monkeypatch):
    class Picky(Oracle):
        def sample(self, texts, *, steps, guidance, seed, progress):
            self.lie = not (guidance == 3.0 and steps >= 20)
            return super().sample(
                texts, steps=steps, guidance=guidance, seed=seed, progress=progress
            )

    chosen = evaluation.choose_sampling(Picky(), 20, 0)
    assert (chosen["guidance"], chosen["steps"]) == (3.0, 20)
    assert len(chosen["tried"]) == len(evaluation.GUIDANCES) + len(evaluation.STEPS) - 1


def test_retrieval_is_one_for_equal_embeddings_and_chance_for_random_ones():
    class Towers:
        def __init__(self, shared: bool):
            self.shared = shared

        def encode_clip_image(self, images):
            self.rows = torch.randn(len(images), 64, generator=torch.Generator().manual_seed(1))
            return SimpleNamespace(embedding=self.rows)

        def encode_clip_text(self, texts):
            other = torch.randn(len(texts), 64, generator=torch.Generator().manual_seed(2))
            return self.rows * 3 if self.shared else other

    assert evaluation.clip_retrieval(Towers(True), 1, 0).value == 1
    assert evaluation.clip_retrieval(Towers(False), 2, 0).value < 0.06


def test_a_probe_reads_what_is_there_and_nothing_else():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(900, 12, generator=rng)
    labels = ["yes" if v > 0 else "no" for v in x[:, 3]]
    assert probe(x[:600], labels[:600], x[600:], labels[600:]).value > 0.95
    noise = torch.randn(900, 12, generator=rng)
    assert probe(noise[:600], labels[:600], noise[600:], labels[600:]).value < 0.62


def test_the_card_shows_every_figure_and_names_what_is_missed(tmp_path):
    (tmp_path / "unet").mkdir()
    record = {"parameters": 9_000_000, "samples": 1234}
    (tmp_path / "unet" / "training.json").write_text(json.dumps(record))
    config = {"sample_size": 16, "in_channels": 4}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    figure = {"value": 0.99, "low": 0.98, "high": 1.0, "n": 10}
    metrics = {name: figure for name in FIGURES} | {"sampling": CHOSEN}
    metrics["t2i_exact"] = figure | {"value": 0.5}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = write_card(tmp_path).read_text()
    assert all(f"`{name}`" in text for name in FIGURES)
    assert "Below the level aimed at: `t2i_exact`." in text and "1,234" in text


def test_draw_helper_is_an_oracle():
    for scene, said, text in evaluation.prompt_set(100, "test", 3):
        assert said.true_of(draw(text, random.Random(0))), (text, scene)
        if said.relation:
            assert not said.true_of(draw(text, random.Random(0), lie=True))


@pytest.mark.parametrize("name", ["autoencoder_exact", "clip_retrieval_r1_of_100", "t2i_exact"])
def test_shipped_metrics_belong_to_the_shipped_weights(shapes_sd, name):
    metrics = json.loads((shapes_sd.folder / "metrics.json").read_text())
    assert metrics["model_sha256"] == shapes_sd.sha256, (
        "the weights changed after they were measured: run `python -m lab measure model`"
    )
    figure = metrics[name]
    assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] >= 500
    assert replace(shapes_sd.entry, guidance=metrics["sampling"]["guidance"]) == shapes_sd.entry
