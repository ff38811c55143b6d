"""The table of projection: what is asked, what counts as kept, and that it goes on."""

from dataclasses import replace

import pytest
import torch

from dsd_tutorial.projection import calibrate, collect_pairs
from dsd_tutorial.projection.references import References, choose_inverses, cosines, reference_sets
from dsd_tutorial.shapes import Scene, Thing, random_scenes, render
from dsd_tutorial.shapes.judge import Verdict
from dsd_tutorial.variation.fidelity import ATTRIBUTES, diversity, fidelity, kept
from lab.measuring.projection import DRAWN, JUDGED, ONE_SEED, evaluate_projection

ONE = Scene((Thing("circle", "red", 0.5, 0.5, 0.15),), "gray")
TWO = Scene(
    (Thing("star", "blue", 0.25, 0.5, 0.18), Thing("ring", "red", 0.75, 0.5, 0.18)), "white"
)


def changed(scene: Scene, **values) -> Verdict:
    things = (replace(scene.things[0], **values), *scene.things[1:])
    return Verdict(Scene(things, scene.background), 1.0, scene.background)


@pytest.mark.parametrize(
    ("verdict", "lost"),
    [
        (changed(ONE), set()),
        (changed(ONE, shape="star"), {"shape", "objects"}),
        (changed(ONE, color="blue"), {"color", "objects"}),
        (changed(ONE, radius=0.3), {"size"}),
        (changed(ONE, x=0.2), {"position"}),
        (changed(ONE, texture="striped"), {"texture"}),
        (Verdict(replace(ONE, background="pink"), 1.0, "pink"), {"background"}),
        (Verdict(TWO, 1.0, "gray"), set(ATTRIBUTES) - {"background", "relation"}),
        (Verdict(None, 0.0, "gray"), set(ATTRIBUTES) - {"background", "relation"}),
    ],
)
def test_what_is_kept_of_one_object(verdict, lost):
    found = kept(verdict, ONE)
    assert found.pop("faithful") == (not lost & {"objects", "background", "texture"})
    assert {name for name, value in found.items() if value == 0} == lost - {"faithful"}
    assert found["relation"] != found["relation"]  # NaN: one object has none


def test_what_is_kept_of_two_objects():
    same = kept(Verdict(TWO, 1.0, "white"), TWO)
    assert [same[k] for k in ("objects", "relation", "count")] == [1, 1, 1]
    exchanged = Scene((replace(TWO.things[0], x=0.75), replace(TWO.things[1], x=0.25)), "white")
    found = kept(Verdict(exchanged, 1.0, "white"), TWO)
    assert (found["objects"], found["relation"]) == (1, 0)
    colors = Scene(
        (replace(TWO.things[0], color="red"), replace(TWO.things[1], color="blue")), "white"
    )
    found = kept(Verdict(colors, 1.0, "white"), TWO)
    assert (found["color"], found["shape"], found["objects"], found["relation"]) == (1, 1, 0, 0)
    assert found["size"] != found["size"] and found["position"] != found["position"]


def test_the_reference_itself_keeps_everything_and_another_nothing():
    scenes = [ONE, TWO, Scene((Thing("cross", "green", 0.3, 0.7, 0.28, "striped"),), "black")]
    images = render(scenes)[0][:, None]
    same = fidelity(images, scenes)
    assert set(same) == set(ATTRIBUTES)
    assert all(bool((v[~v.isnan()] == 1).all()) for v in same.values())
    half = fidelity(torch.cat([images, images.roll(1, 0)], 1), scenes)
    assert half["objects"].tolist() == [0.5] * 3 and half["background"].tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="for 2 references"):
        fidelity(images, scenes[:2])


def test_diversity_is_zero_for_equal_pictures_and_counts_pairs():
    black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    images = torch.stack([torch.cat([black] * 3), torch.cat([black, black, white])])
    assert diversity(images).tolist() == pytest.approx([0, 2 / 3])
    with pytest.raises(ValueError, match="2 or more seeds"):
        diversity(images[:, :1])


def test_references_are_held_out_and_captions_leave_things_unsaid(tiny):
    sets = reference_sets(tiny, 12, "test", 0)
    assert {name: len(found.scenes) for name, found in sets.items()} == {
        "one": 12, "two": 3, "striped": 3,
    }  # fmt: skip
    assert all(s.split == "test" for found in sets.values() for s in found.scenes)
    assert all(len(s.things) == 2 and s.relation for s in sets["two"].scenes)
    said = " ".join(text for found in sets.values() for text in found.captions).split()
    assert not set(said) & {"small", "large", "striped", "top", "bottom", "center"}
    first = sets["striped"].scenes[0].things[0]
    assert first.texture == "striped" and first.color in sets["striped"].captions[0]


def test_the_best_on_validation_is_chosen(tiny):
    known = calibrate(tiny, n=30, progress=False)
    pairs = collect_pairs(tiny, n=60, progress=False)
    validation = References(random_scenes(10, 5, split="validation"), tiny)
    chosen = choose_inverses(tiny, known, pairs, validation)
    best = float(cosines(chosen.alternative, validation).mean())
    assert chosen.alternative.method != "truncated" == chosen.truncated.method
    for name, inverse in chosen.inverses.items():
        merit = float(cosines(inverse, validation).mean())
        assert merit <= best + 1e-9 or name == "truncated"
    automatic = float(cosines(chosen.inverses["truncated"], validation).mean())
    assert float(cosines(chosen.truncated, validation).mean()) >= automatic - 1e-9


def test_a_run_writes_every_row_once_and_goes_on_after_an_interruption(tiny, tmp_path, monkeypatch):
    path = tmp_path / "projection.csv"
    options = {"n": 4, "seeds": 2, "steps": 1, "output": path, "progress": False}
    options["cache"] = tmp_path / "cache"
    calls, sample = [], type(tiny).sample

    def interrupted(model, *args, **more):
        calls.append(len(more["embeddings"]))
        if len(calls) == 20:  # behind the choice of the alternative, amid the drawing
            raise KeyboardInterrupt
        return sample(model, *args, **more)

    monkeypatch.setattr(type(tiny), "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_projection(tiny, **options)
    before = path.read_text().splitlines()
    assert len(before) > 10
    table = evaluate_projection(tiny, **options)
    after = path.read_text().splitlines()
    assert after[: len(before)] == before and not table.duplicated(["method", "metric"]).any()
    drawn = {"one": DRAWN, "two": DRAWN[:4], "striped": DRAWN[:4]}
    for name, (attributes, prefix) in JUDGED.items():
        for method in drawn[name]:
            have = set(table[table.method == method].metric)
            assert {prefix + a for a in attributes} - {"position"} <= have, (name, method)
            assert ("diversity" in have) is (method not in ONE_SEED)
    assert {"retrieval_r1", "cosine", "threshold"} <= set(table[table.method == "truncated"].metric)
    spread = 1e-5 + 1e-5 * table.value.abs()  # tables hold six digits
    assert (table.low <= table.value + spread).all() and (table.value <= table.high + spread).all()
    assert (table.model_sha256 == tiny.sha256).all() and (table.milliseconds >= 0).all()
    calls.clear()
    again = evaluate_projection(tiny, **options)
    assert not calls and again.equals(table)  # nothing is drawn twice


def test_too_little_to_measure_is_refused(tiny, tmp_path):
    for options, says in (({"n": 3}, "n=3: .* equal to 4"), ({"seeds": 0}, "seeds=0: .* than 0")):
        with pytest.raises(ValueError, match=says):
            evaluate_projection(tiny, output=tmp_path / "x.csv", progress=False, **options)
