"""Few-shot, validation and test items that share no image.

In the code released with He et al., arXiv 2305.10722, the labelled few are 5 % of a list of items:
the same image may then be learned from and tested on. Here the images are divided first.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dsd_tutorial.datasets.images import ImageFile
from dsd_tutorial.shapes.tasks import Task

SHARES = {"train": 0.3, "validation": 0.2, "test": 0.5}


def split_by_image(
    task: Task, shares: Mapping[str, float] = SHARES, *, seed: int = 0
) -> dict[str, Task]:
    """A task for each part; their images are disjoint, and items that straddle two are left out.

    Args:
        task: of any kind.
        shares: share of the *images* of each part; an item of two images survives with the square
            of its part's share.
        seed: of the division.

    Raises:
        ValueError: the shares do not add up to 1, or a part got no item.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares {dict(shares)} must be positive and add up to 1")
    rng = random.Random(f"split {seed}")
    files = dict.fromkeys(_file(scene) for scene in task.scenes)
    part = {file: rng.choices(list(shares), list(shares.values()))[0] for file in files}
    found: dict[str, list] = {name: [] for name in shares}
    for item in task.items:
        parts = {part[_file(scene)] for scene in item.images}
        if len(parts) == 1:
            found[parts.pop()].append(item)
    empty = [name for name, items in found.items() if not items]
    if empty:
        raise ValueError(
            f"no item of {task.name} lies wholly in {', '.join(empty)}: give it a larger share of "
            f"the {len(files)} images, or read more items"
        )
    return {name: replace(task, items=tuple(items)) for name, items in found.items()}


def _file(scene: Any) -> Any:
    """What makes an image the same image: boxes of one file are one."""
    return scene.name if isinstance(scene, ImageFile) else scene


def draw_items(task: Task, n: int, *, seed: int = 0) -> Task:
    """`n` items of `task` at random; with one seed, fewer are the first of more.

    Raises:
        ValueError: n is out of range.
    """
    if not 1 <= n <= len(task.items):
        raise ValueError(f"n = {n}: {task.name} has 1 to {len(task.items)} items to draw from")
    order = random.Random(f"draw {seed}").sample(range(len(task.items)), len(task.items))
    return replace(task, items=tuple(task.items[i] for i in order[:n]))
