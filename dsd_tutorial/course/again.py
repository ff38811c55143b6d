"""Rows of stored tables, measured again: from the same scenes and noises, item by item."""

from __future__ import annotations

from typing import Any

from dsd_tutorial.course.records import read_results
from dsd_tutorial.shapes import domain_scenes, judge
from dsd_tutorial.variation import kept, make_edits


def measured_again(name: str, model: Any, most: int | None = None) -> tuple[list[bool], list[bool]]:
    """Return which items were right when a row of `results/` was measured, and which are now.

    Empty lists for another model than the one that the table was measured on.

    Args:
        name: "editing", images of full captions after an edit of the colour; or "customization",
            images of captions of the old world before anything was learned.
        model: what the notebook has loaded.
        most: of the first so many items alone.
    """
    if not model.is_embedded:
        return [], []
    column = {"method": "caption", "split": "test"}
    if name == "customization":
        column = {"method": "before", "metric": "old_by_caption"}
    row = read_results(f"{name}_items", model, **column).iloc[0]
    settings = dict(part.split(" ", 1) for part in row.settings.split(", "))
    n, seed = int(settings["n"]), int(settings["seed"])
    how: dict[str, Any] = {"progress": False}
    if settings["guidance"] != "None":
        how["guidance"] = float(settings["guidance"])
    if name == "editing":
        edits = make_edits(domain_scenes("old", n, seed + 12, "test"), seed)
        places = [i for i, edit in enumerate(edits) if edit.kind == "color"][:most]
        seeds = [seed + i // (len(edits) // n) for i in places]
        texts = [edits[i].target for i in places]
        images = model.sample(texts, steps=int(settings["steps"]), seed=seeds, **how)
        now = [all(edits[i].judged(v)) for i, v in zip(places, judge(images), strict=True)]
        return [row.changed[i] == row.kept[i] == "x" for i in places], now
    scenes = domain_scenes("old", 2 * n, seed + 51, "test")[:most]
    texts = [edit.source for edit in make_edits(scenes)[::4]]
    images = model.sample(texts, steps=int(settings["sampling"]), seed=seed + 60_000, **how)
    now = [kept(v, s)["faithful"] == 1 for v, s in zip(judge(images), scenes, strict=True)]
    then = [float(value) == 1 for value in row["values"].strip("[]").split()]
    return then[: len(scenes)], now
