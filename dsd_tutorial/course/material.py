"""What a notebook works on: images or items of the shapes world or a folder, two ready inverses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dsd_tutorial.course.records import recorded_alternative
from dsd_tutorial.datasets import draw_items, read_dataset, read_images, split_by_image
from dsd_tutorial.projection import calibrate, choose_inverses, collect_pairs, reference_sets
from dsd_tutorial.shapes import (
    DOMAINS,
    Scene,
    domain_scenes,
    few_shot,
    make_task,
    render,
    validation_set,
)
from dsd_tutorial.shapes.tasks import Task
from dsd_tutorial.stable_diffusion import StableDiffusion

if TYPE_CHECKING:
    from dsd_tutorial.projection.references import Chosen

TEST_SHARE = 5  # one of so many images of a folder is for testing
MANY = 60  # scenes among which some are distinct
BENCHMARKS = {"refcoco": "refcocog", "vqa": "vqav2"}  # where a task's name is not its benchmark's


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images (n, 3, height, width), what they all show in words, and their scenes, if known."""

    images: Tensor
    text: str
    scenes: list[Scene] | None = None


def image_set(
    model: StableDiffusion,
    what: str,
    n: int,
    seed: int = 0,
    split: str = "test",
    *,
    distinct: bool = False,
) -> ImageSet:
    """Return `n` images, or fewer where a folder holds fewer or not so many are distinct.

    Of a folder every fifth image is for testing, and what was read is printed; a single image is
    for both.

    Args:
        model: at whose resolution.
        what: "old", single objects of the world that the embedded model was trained on; a name
            among `shapes.DOMAINS`; or a folder.
        n: how many.
        seed: of the scenes.
        split: "train", "validation" or "test"; of a folder "train", "test" or "all".
        distinct: no pair of colour and shape twice.
    """
    if what != "old" and what not in DOMAINS:
        own = read_images(what, model.resolution, most=n * (TEST_SHARE if split == "test" else 2))
        print(own)
        every = {"train": [i % TEST_SHARE > 0 for i in range(len(own.images))],
                 "test": [i % TEST_SHARE == 0 for i in range(len(own.images))]}  # fmt: skip
        chosen = every.get(split, [True] * len(own.images))
        images = own.images[chosen] if any(chosen) else own.images
        return ImageSet(images[:n], Path(what).expanduser().name.replace("_", " "))
    scenes = domain_scenes(what, MANY if distinct else n, seed, split)
    if distinct:
        scenes = list({(s.things[0].color, s.things[0].shape): s for s in scenes}.values())[:n]
    text = "an object" if what == "old" else DOMAINS[what][1]
    return ImageSet(render(scenes, model.resolution)[0], text, scenes)


def closed_forms(model: StableDiffusion, seed: int = 0) -> Chosen:
    """Return the two inverses of notebook 03: the paper's, truncated, and an alternative.

    The alternative is the one whose images were most faithful in results/projection.csv, or, where
    that is missing, the one closest to true EOS states on validation scenes.
    """
    validation = reference_sets(model, 100, "validation", seed + 2)["one"]
    known: Any = calibrate(model, seed=seed)
    pairs = collect_pairs(model, n=400, seed=seed + 1)
    return choose_inverses(
        model, known, pairs, validation, alternative=recorded_alternative(model), seed=seed
    )


VALIDATION = 32  # items: learners score them again and again while they fit


@dataclass(frozen=True, eq=False)
class FewShotItems:
    """Labelled items, drawn several times; items for choices; items to report on."""

    draws: list[Task]
    validation: Task
    test: Task


def few_shot_items(
    task: str, dataset: str, shots: int, draws: int, n_items: int, seed: int = 0
) -> FewShotItems:
    """Return the items of notebook 02; no image is in two of the three parts.

    Args:
        task: name of a matching task.
        dataset: "shapes", or a folder with the task's benchmark or an items.jsonl.
        shots: labelled items in each draw; fewer where a folder has fewer.
        draws: how often they are drawn.
        n_items: test items.
        seed: of the draws and the test items.
    """
    if dataset == "shapes":
        labelled = [few_shot(task, shots, seed + i) for i in range(draws)]
        test = make_task(task, n_items, seed=seed)
        return FewShotItems(labelled, validation_set(task, VALIDATION), test)
    folder = Path(dataset).expanduser()
    own = (folder / "items.jsonl").is_file()
    parts = split_by_image(read_dataset("folder" if own else BENCHMARKS.get(task, task), folder))

    def some(part: str, n: int, seed: int) -> Task:
        return draw_items(parts[part], min(n, len(parts[part].items)), seed=seed)

    labelled = [some("train", shots, seed + i) for i in range(draws)]
    return FewShotItems(labelled, some("validation", VALIDATION, 0), some("test", n_items, seed))
