"""The cases of the benchmark: each function times its ways in turn and returns rows.

`ratio` is the first way's seconds over this way's (fastest turns): how many times as fast. Passes
are items that went through the U-Net. What a way returns is compared too: `agreement` is the share
of images with the same winner as the first way's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch

import dsd_tutorial as dsd
from dsd_tutorial.matching import components, item_scores, learn_spreads, rank, score
from dsd_tutorial.matching.cost import measure
from dsd_tutorial.matching.items import item_pairs
from dsd_tutorial.shapes import make_task, random_scenes, render
from dsd_tutorial.shapes.tasks import VALIDATION_SEED
from lab.bench.released import released_scores
from lab.bench.sweeping import sweeps
from lab.bench.timing import Row, interleaved, timed_row

COLUMNS = (
    "case", "way", "device", "dtype", "cores", "batch", "seconds_min", "seconds_median",
    "repeats", "passes", "peak_mb", "ratio", "agreement", "versions",
)  # fmt: skip
STEPS = 10
BOTH = {"error_weight": 1.0, "layers": "last", "steps": STEPS, "progress": False}


@dataclass(frozen=True)
class Bench:
    """What all cases share: the model in each precision, and how often each way is timed."""

    models: Mapping[str, Any]
    repeats: int = 5

    @property
    def model(self) -> Any:
        return self.models["float32"]

    def rows(
        self, case: str, ways: Mapping[str, Callable[[], Any]], *, dtypes: Mapping[str, str] = {},
        batch: int | str = "", winners: Callable[[Any], Any] | None = None,
    ) -> list[Row]:  # fmt: skip
        """Return a row per way; `winners` makes what ways return comparable."""
        passes = {}
        for name, way in ways.items():
            with ExitStack() as stack:
                meters = [stack.enter_context(measure(model)) for model in self.models.values()]
                way()
            passes[name] = sum(meter.unet_passes for meter in meters)
        timed = interleaved(ways, self.repeats)
        first = next(iter(timed.values()))
        return [
            timed_row(
                case, name, way.seconds, device=str(self.model.device),
                dtype=dtypes.get(name, "float32"), batch=batch, passes=passes[name],
                ratio=first.fastest / way.fastest,
                agreement="" if winners is None else agreement(
                    winners(first.result), winners(way.result)
                ),
            )
            for name, way in timed.items()
        ]  # fmt: skip


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the share of equal winners."""
    return float((a == b).float().mean())


def one_image_ten_texts(bench: Bench) -> list[Row]:
    """1 image x 10 texts x 10 time steps, attention plus error: released way, `score`, `rank`."""
    items = make_task("refcoco", 1)
    image, texts = items.images(bench.model.resolution), list(items.items[0].texts)
    ways, dtypes = {}, {}
    known = make_task("refcoco", 16, "validation", VALIDATION_SEED)
    pairs = item_pairs(known)
    for name, model in bench.models.items():
        shown = known.images(model.resolution)
        spreads = _spreads(model, shown, known.texts, pairs.shape[1], pairs.flatten(0, 1))
        ways |= {
            f"released {name}": partial(released_scores, model, image, texts, steps=STEPS),
            f"score {name}": partial(score, model, image, texts, **BOTH),
            f"rank {name}": partial(rank, model, image, texts, spreads=spreads, **BOTH),
        }
        dtypes |= {f"{way} {name}": name for way in ("released", "score", "rank")}
    rows = bench.rows("1x10x10", ways, dtypes=dtypes, batch="auto", winners=_winner)
    released = min(r["seconds_min"] for r in rows if r["way"].startswith("released"))
    return [row | {"ratio": released / row["seconds_min"]} for row in rows]  # its best precision


def _winner(result: Any) -> torch.Tensor:
    return result.view(1, -1).argmax(1) if isinstance(result, torch.Tensor) else result.winner


def _spreads(model: Any, images: Any, texts: Any, candidates: int, pairs: Any = None) -> Any:
    how = {k: v for k, v in BOTH.items() if k != "error_weight"}
    parts = components(model, images, texts, pairs, errors=True, **how)
    return learn_spreads(item_scores(parts, candidates, error_weight=1.0), parts.steps)


def hundred_images(bench: Bench) -> list[Row]:
    """100 images for one text, attention plus error: retrieval."""
    known = render(random_scenes(140, 7), bench.model.resolution)[0]
    items = make_task("comvg", 1)
    text = [items.items[0].texts[0]]
    images = torch.cat([items.images(bench.model.resolution)[:1], known[:99]])
    spreads = _spreads(bench.model, known[99:], text, len(known) - 99)
    ways = {
        "score": lambda: score(bench.model, images, text, **BOTH).T,
        "rank": partial(rank, bench.model, images, text, spreads=spreads, **BOTH),
    }
    return bench.rows("100x1x10", ways, batch="auto", winners=_winner)


def observing(bench: Bench, rows: int = 32) -> list[Row]:
    """One pass of 32 rows: plain, observed, and with maps; and a score's share outside the U-Net.

    For "outside" the first way is all of `score`, the second its U-Net passes alone: 1 - 1 / ratio.
    """
    model, numbers = bench.model, torch.Generator().manual_seed(0)
    noisy = torch.randn(rows, *model.latent_shape, generator=numbers)
    prompts = model.encode_text(["a red circle left of a blue square"]).expand(rows, -1, -1)

    def watched(**how: Any) -> Any:
        with torch.no_grad(), dsd.observe(model, **how):
            return model.predict_noise(noisy, 500, prompts)

    ways = {
        "plain": lambda: torch.no_grad()(model.predict_noise)(noisy, 500, prompts),
        "observe": watched,
        "maps": partial(watched, maps=True),
        "maps, streamed": partial(watched, maps=True, reduce_maps=lambda maps: maps.mean(1)),
    }
    return bench.rows("observe", ways, batch=rows)


def other_ways_to_compute(bench: Bench, rows: int = 32) -> list[Row]:
    """One plain pass of 32 rows, and what is said to make it faster, in each precision.

    Inference mode, weights and latents with channels last, and `torch.compile` (compiled before
    the clock starts; a row of its own says how long that takes).
    """
    from torch._inductor import config as inductor

    numbers = torch.Generator().manual_seed(0)
    many = Bench(bench.models, 4 * bench.repeats)  # differences are small
    found = []
    for dtype, model in bench.models.items():
        latents = torch.randn(rows, *model.latent_shape, generator=numbers).to(model.dtype)
        steps = torch.full((rows,), 500)
        prompts = model.encode_text(["a red circle left of a blue square"]).to(model.dtype)
        prompts, last = prompts.expand(rows, -1, -1), torch.channels_last
        channels_last = deepcopy(model.unet).to(memory_format=last)
        compiled = torch.compile(deepcopy(model.unet))

        def forward(unet: Any, latents: Any, *, s: Any = steps, p: Any = prompts) -> Any:
            with torch.no_grad():
                return unet(latents, s, p).sample

        began = perf_counter()
        with inductor.patch(force_disable_caches=True):  # what it costs the first time
            forward(compiled, latents)
        compiling = perf_counter() - began
        ways = {
            f"plain {dtype}": partial(forward, model.unet, latents),
            f"inference mode {dtype}": partial(
                torch.inference_mode()(forward), model.unet, latents
            ),
            f"channels last {dtype}": partial(
                forward, channels_last, latents.to(memory_format=last)
            ),
            f"torch.compile {dtype}": partial(forward, compiled, latents),
        }
        timed = many.rows("one pass", ways, dtypes=dict.fromkeys(ways, dtype), batch=rows)
        timed = [row | {"passes": rows} for row in timed]  # copies of the U-Net are not counted
        first = {"way": f"torch.compile {dtype}, first pass", "ratio": "", "repeats": 1}
        seconds = {"seconds_min": compiling, "seconds_median": compiling}
        found += [*timed, timed[-1] | first | seconds]
    return found


def outside(bench: Bench) -> list[Row]:
    """`score` of 1 x 10 x 10 beside its U-Net passes alone."""
    from dsd_tutorial.matching.passes import Passes

    items = make_task("refcoco", 1)
    image, texts = items.images(bench.model.resolution), list(items.items[0].texts)
    pairs = torch.cartesian_prod(torch.tensor([0]), torch.arange(len(texts)))
    passes = Passes(
        bench.model, image, texts, pairs, steps=STEPS, layers="last", token_masks=("all",),
        errors=True,
    )  # fmt: skip

    @torch.no_grad()
    def alone() -> None:
        for _ in passes.run(passes.rows()):
            pass

    ways = {
        "score": partial(score, bench.model, image, texts, **BOTH),
        "U-Net passes alone": alone,
    }
    return bench.rows("outside the U-Net", ways, batch="auto")


def projection_and_variation(bench: Bench) -> list[Row]:
    """The closed form, 30 steps on a reference, four variations of an image."""
    model = bench.model
    image = render(random_scenes(1, 5), model.resolution)[0]
    inverse = dsd.fit_inverse(model, progress=False)
    alone = Bench(bench.models, max(3, bench.repeats // 2))
    return [
        *bench.rows("fit the inverse", {
            "fit_inverse": lambda: dsd.fit_inverse(model, progress=False)
        }),
        *bench.rows("invert an image", {
            "image_to_prompt": lambda: dsd.image_to_prompt(model, image, inverse)
        }),
        *alone.rows("tune on a reference, 30 steps", {
            "customize": lambda: dsd.customize(
                model, image, inverse=inverse, steps=30, progress=False
            )
        }),
        *alone.rows("four variations", {
            "vary": lambda: dsd.vary(model, image, 4, inverse, progress=False)
        }),
    ]  # fmt: skip


def starting(bench: Bench) -> list[Row]:
    """Fresh interpreters: the import, and the first score of a notebook."""
    first = (
        "import dsd_tutorial as dsd, torch; sd = dsd.load_model();"
        "dsd.score(sd, torch.rand(1, 3, 64, 64), ['a red circle'], steps=1, progress=False)"
    )

    def fresh(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"TQDM": "0"})

    ways = {"import": partial(fresh, "import dsd_tutorial"), "first score": partial(fresh, first)}
    few = Bench(bench.models, min(3, bench.repeats))
    return few.rows("start", ways)


def growth(bench: Bench) -> list[Row]:
    """`score` as candidates, time steps and the image's side grow, one at a time."""
    words = list(dict.fromkeys(make_task("refcoco", 12).texts))
    rows = []
    few = Bench(bench.models, min(3, bench.repeats))
    cases = {
        "candidates": [(n, STEPS // 2, 64) for n in (1, 3, 10, 30, 90)],
        "time steps": [(3, n, 64) for n in (1, 3, 10, 30, 100)],
        "image side": [(3, 3, side) for side in (32, 64, 128, 192)],
    }
    for what, sizes in cases.items():
        for texts, steps, side in sizes:
            image = render(random_scenes(1, 5), side)[0]
            how = BOTH | {"steps": steps}
            way = partial(score, bench.model, image, words[:texts], **how)
            name = f"{texts} x {steps} x {side}"
            rows += few.rows(f"growth: {what}", {name: way}, batch="auto")
    return rows


QUICK: dict[str, Callable[[Bench], list[Row]]] = {
    "1x10x10": one_image_ten_texts,
    "observe": observing,
    "outside": outside,
    "projection": projection_and_variation,
    "start": starting,
}
ALL = QUICK | {
    "100x1": hundred_images,
    "growth": growth,
    "one pass": other_ways_to_compute,
    "sweeps": sweeps,
}
