"""Rows of the few-shot table are what notebooks get by the same functions."""

import numpy as np
import pytest
import torch

from dsd_tutorial.course import read_results
from dsd_tutorial.matching.items import item_hits
from dsd_tutorial.prompt_learning import reading_components
from dsd_tutorial.shapes import make_task
from dsd_tutorial.stable_diffusion.noising import time_grid

ITEMS = {"winoground": 12, "comvg": 20}


@pytest.mark.parametrize("task", ITEMS)
def test_attention_in_the_table_is_attention_in_a_notebook(shapes_sd, task):
    """The sum that the row names, computed anew for the first test items."""
    row = read_results("few_shot_items", shapes_sd, task=task, method="attention").iloc[0]
    picked = {name: int(count) for count, name in (x.split() for x in row.chosen.split(", "))}
    grid, items = time_grid(6, 1000), make_task(task, ITEMS[task])
    parts = reading_components(shapes_sd, items, list(picked), steps=grid, progress=False)
    whole = make_task(task, len(row.hits))
    assert whole.items[: len(items.items)] == items.items
    total = torch.zeros(len(parts.pairs))
    for name, count in picked.items():
        read = parts.select(name, steps=grid[1:4]).score()
        by_item = read.view(len(items.items), -1)
        total += count * read / (by_item - by_item.mean(1, keepdim=True)).std()
    stored = np.array([hit == "x" for hit in row.hits[: len(items.items)]])
    # the units of several readings are those of the validation items, and here of these
    assert (item_hits(items, total) == stored).mean() >= (1 if len(picked) == 1 else 0.9)
