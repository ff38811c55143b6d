"""Measures the embedded model and writes metrics.json and its model card.

Every figure is measured on scenes of the test split; guidance and number of steps are chosen on
validation scenes. The judge that scores images is a programme, not a network.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from typer import Option

from dsd_tutorial.matching.metrics import Interval, accuracy
from dsd_tutorial.saving import write_json
from dsd_tutorial.shapes.captions import Description, describe, full_description
from dsd_tutorial.shapes.judge import judge, matches
from dsd_tutorial.shapes.render import render
from dsd_tutorial.shapes.scene import Scene, random_scenes
from lab.measuring.card import write_card
from lab.measuring.plans import Plan, Seed
from lab.measuring.probes import image_probes, text_probes
from lab.measuring.runner import Item, Runner, measures
from lab.measuring.tables import Row

GUIDANCES = (3.0, 4.0, 6.0, 8.0, 10.0)
STEPS = (10, 20)
FIRST_STEPS = 20
CHUNK = 50


class ModelPlan(Plan):
    """How many prompts of each kind."""

    n: Annotated[int, Field(ge=10), Option(min=10, help="Prompts of each kind.")] = 500
    seed: Seed = 0


@measures("model", ModelPlan)
def evaluate_model(runner: Runner, plan: ModelPlan) -> dict[str, Any]:
    """Return all figures of the embedded model, written with the card to a folder.

    It is the option `output` (None: the model's). Each figure is {"value", "low", "high", "n"} with
    a 95 % Wilson interval.
    """
    n, seed = plan.n, plan.seed
    sd, few = runner.model, min(200, 2 * n)
    tried = few * (len(GUIDANCES) + len(STEPS) - 1)
    (sampling,) = runner.run(
        [Item({"figure": "sampling"}, lambda: [choose_sampling(sd, few, seed + 1)], tried)]
    )
    groups = {
        "autoencoder": (lambda: {"autoencoder_exact": autoencoder_exact(sd, n, seed + 2)}, 0),
        "clip": (
            lambda: {"clip_retrieval_r1_of_100": clip_retrieval(sd, max(1, n // 100), seed + 3)}, 0,
        ),
        "t2i": (lambda: text_to_image(sd, n, seed + 4, sampling), 2 * n),
        "text": (lambda: text_probes(sd, seed=seed + 5), 0),
        "image": (lambda: image_probes(sd, seed=seed + 6), 0),
    }  # fmt: skip

    def rows(figures: Mapping[str, Interval]) -> list[Row]:
        return [{"figure": name, **found.as_dict()} for name, found in figures.items()]

    found = runner.run(
        [Item({"figure": k}, lambda m=m: rows(m()), cost) for k, (m, cost) in groups.items()]
    )
    metrics = {row.pop("figure"): row for row in found}
    metrics |= {"sampling": sampling, "model_sha256": sd.sha256}
    output = Path(runner.options.output or sd.folder)
    write_json(output / "metrics.json", metrics)
    if (output / "unet" / "training.json").exists():
        write_card(output)
    return metrics


def prompt_set(n: int, split: str, seed: int) -> list[tuple[Scene, Description, str]]:
    """Return `n` one-object and `n` two-object scenes of `split`, each with a caption of it."""
    rng, made = random.Random(seed), []
    for share in (1.0, 0.0):
        for scene in random_scenes(n, seed, split=split, one_object_share=share):
            said = describe(scene, rng, partial=0.0)
            made.append((scene, said, rng.choice(said.phrasings())))
    return made


def draw_and_judge(model: Any, prompts: list, steps: int, guidance: float, seed: int) -> list:
    """Return one `Match` per prompt: what of it the generated image shows."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        part = prompts[start : start + CHUNK]
        seeds = [seed + start + i for i in range(len(part))]
        images = model.sample(
            [text for *_, text in part], steps=steps, guidance=guidance, seed=seeds, progress=False
        )
        verdicts = judge(images)
        found += [matches(v, said) for v, (_, said, _) in zip(verdicts, part, strict=True)]
    return found


def choose_sampling(model: Any, n: int, seed: int) -> dict[str, Any]:
    """Return guidance, then the number of steps, with most exact images on `n` validation prompts.

    {"guidance", "steps", "tried": [(guidance, steps, exact share), ...]}; of equally good numbers
    of steps the smallest wins.
    """
    prompts = prompt_set(n // 2, "validation", seed)
    tried: list[tuple[float, int, float]] = []

    def exact(guidance: float, steps: int) -> float:
        found = draw_and_judge(model, prompts, steps, guidance, seed)
        tried.append((guidance, steps, sum(m.exact for m in found) / len(found)))
        return tried[-1][2]

    guidance = max(GUIDANCES, key=lambda g: exact(g, FIRST_STEPS))
    known = {FIRST_STEPS: max(share for *_, share in tried)}
    shares = {s: known[s] if s in known else exact(guidance, s) for s in STEPS}
    steps = max(sorted(STEPS), key=lambda s: shares[s])
    return {"guidance": guidance, "steps": steps, "tried": tried}


def text_to_image(model: Any, n: int, seed: int, sampling: Mapping) -> dict[str, Interval]:
    """Return the t2i figures on `n` one-object and `n` two-object test prompts."""
    prompts = prompt_set(n, "test", seed)
    found = draw_and_judge(model, prompts, sampling["steps"], sampling["guidance"], seed)
    one, two = found[:n], found[n:]
    related = [m for m, (_, said, _) in zip(two, prompts[n:], strict=True) if said.relation]
    return {
        "t2i_background": accuracy([m.background for m in found if m.background is not None]),
        "t2i_objects": accuracy([m.objects for m in two]),
        "t2i_relation": accuracy([m.relation for m in related]),
        "t2i_exact": accuracy([m.exact for m in found]),
        "t2i_one_object": accuracy([m.objects for m in one]),
    }


def autoencoder_exact(model: Any, n: int, seed: int) -> Interval:
    """Return the share of reconstructed test scenes of which the judge reads everything.

    A thing between two named positions has none, and the judge may see it at either.
    """
    right = []
    for share in (1.0, 0.0):
        scenes = random_scenes(n, seed, split="test", one_object_share=share)
        for start in range(0, n, CHUNK):
            part = scenes[start : start + CHUNK]
            again = model.decode_latents(model.encode_image(render(part)[0]))
            for scene, verdict in zip(part, judge(again), strict=True):
                right.append(matches(verdict, full_description(scene)).exact)
    return accuracy(right)


def clip_retrieval(model: Any, groups: int, seed: int) -> Interval:
    """Return R@1 among 100 test scenes whose captions name everything, both directions together.

    The captions of a group are distinct, so that exactly one fits each image.
    """
    found = []
    for group in range(groups):
        scenes = {s.key(): s for s in random_scenes(300, seed + group, split="test")}
        part = list(scenes.values())[:100]
        image = model.encode_clip_image(render(part)[0]).embedding
        text = model.encode_clip_text([full_description(s).text() for s in part])
        table = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        target = torch.arange(len(part), device=table.device)
        found += (table.argmax(1) == target).tolist() + (table.argmax(0) == target).tolist()
    return accuracy(found)
