"""The map of the house in docs/architecture.md: rooms and their imports, and walks with line links.

`python -m lab.upkeep.house` writes the blocks between the marks. The arrows are those that the
modules really import, without the ones that follow from others; the lines are where each function
begins today. A test holds the page to both.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from lab.upkeep.blocks import ROOT, write_blocks

PAGE, COMMAND = "docs/architecture.md", "python -m lab.upkeep.house"
WINGS = {
    "lab": "lab/, the laboratory",
    "course": "dsd_tutorial/course/, the course",
    "methods": "dsd_tutorial/, the methods",
}
COURSE = (  # what the one box of the course says
    "parameters, claims, checks, quizzes, figures, widgets, records, running, start, grading"
)
# (title, what happens, (file, function, what it does) from the call down to the tensor operation)
WALKS = (
    (
        "An image on its way to a score",
        "`score(model, images, texts)`",
        (
            ("matching/scoring.py", "score", "the mean of components, (images, texts)"),
            ("matching/scoring.py", "components", "encodes once, gathers what passes say"),
            ("matching/passes.py", "Passes.run", "batches of pairs and time steps"),
            ("matching/passes.py", "pass_components", "one U-Net pass, watched"),
            ("attention/watching.py", "Request.score", "the logits of one layer, masked"),
            ("attention/pooling.py", "log_sum_exp", "over tokens, at inverse temperature lambda"),
        ),
    ),
    (
        "A labelled item on its way to a fitted weight",
        "`fit(model, HeadWeights(...), task)`",
        (
            ("prompt_learning/fit.py", "fit", "items, validation, objective, loop"),
            ("prompt_learning/loop.py", "Loop._step", "one loss, one optimiser step"),
            ("prompt_learning/sources.py", "Cached.batch", "components that were computed once"),
            ("prompt_learning/weights.py", "HeadWeights.pool", "their weighted mean: the score"),
            ("prompt_learning/objectives.py", "hinge", "the hardest negative must stay below"),
        ),
    ),
    (
        "An image on its way to its variation",
        "`vary(model, images, n, inverse)`",
        (
            ("variation/varying.py", "vary", "one prompt for each image, then samples"),
            ("variation/prompting.py", "image_to_prompt", "the EOS state where a caption had its"),
            ("projection/inverse.py", "Inverse.__call__", "embedding times the pseudo-inverse"),
            ("stable_diffusion/model.py", "StableDiffusion.sample", "from prompt to pixels"),
            ("stable_diffusion/sampling.py", "denoise", "the scheduler's loop, with guidance"),
            ("stable_diffusion/model.py", "StableDiffusion._unet", "one pass of the U-Net"),
        ),
    ),
)


def wing(room: str) -> str:
    """Return the wing that a room belongs to."""
    if room.startswith("lab."):
        return "lab"
    is_course = room.startswith("dsd_tutorial.course") or room.endswith((".cli", ".doctor"))
    return "course" if is_course else "methods"


def room_of(module: str) -> str | None:
    """Return the room of a module: its folder or file right below its wing; None for a wing."""
    parts = module.split(".")
    depth = 3 if parts[:2] == ["dsd_tutorial", "course"] else 2
    return ".".join(parts[:depth]) if len(parts) >= depth else None


def arrows() -> dict[str, set[str]]:
    """Return {room: rooms it imports}, the course as one room, without arrows implied by others."""
    import grimp

    graph = grimp.build_graph("dsd_tutorial", "lab", exclude_type_checking_imports=True)
    found: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        here = _drawn(module)
        if here is None:
            continue
        found.setdefault(here, set())
        for other in graph.find_modules_directly_imported_by(module):
            there = _drawn(other)
            if there not in (None, here):
                found[here].add(there)

    @cache
    def reach(room: str) -> set[str]:
        return found[room].union(*map(reach, found[room]))

    return {
        room: {r for r in to if not any(r in reach(other) for other in to - {r})}
        for room, to in found.items()
    }


def _drawn(module: str) -> str | None:
    """Return the box that a module is drawn in; helpers that everybody uses have none."""
    room = room_of(module)
    if room is None or room.endswith((".saving", ".lazy", ".checked", ".__main__")):
        return None
    return "dsd_tutorial.course" if wing(room) == "course" else room


def short(room: str) -> str:
    return room.rsplit(".", 1)[-1]


def picture() -> str:
    """Return the map as a mermaid diagram, which GitHub and JupyterLab draw."""
    found = arrows()
    lines = ["```mermaid", "graph TD"]
    for name, title in WINGS.items():
        lines.append(f'  subgraph {name}_wing["{title}"]')
        for room in sorted(room for room in found if wing(room) == name):
            lines.append(f'    {short(room)}["{COURSE if name == "course" else short(room)}"]')
        lines.append("  end")
    for room in sorted(found):
        lines += [f"  {short(room)} --> {short(other)}" for other in sorted(found[room])]
    return "\n".join([*lines, "```"])


def line_of(file: str, function: str) -> int:
    """Return the line on which `Class.method` or `function` begins. ValueError if it is not there.

    The path of the file is that below the package.
    """
    body = ast.parse((ROOT / "dsd_tutorial" / file).read_text(encoding="utf-8")).body
    for name in function.split("."):
        node = next((n for n in body if getattr(n, "name", None) == name), None)
        if node is None:
            raise ValueError(f"{file} has no {function}: the walk in lab/upkeep/house.py is old")
        body = getattr(node, "body", [])
    return node.lineno


def walks() -> Iterator[str]:
    """Yield the lines of the three walks."""
    for title, call, steps in WALKS:
        yield f"### {title}\n\n{call}\n"
        for i, (file, function, what) in enumerate(steps, 1):
            link = f"../dsd_tutorial/{file}#L{line_of(file, function)}"
            yield f"{i}. [`{function}`]({link}) in {file}: {what}"
        yield ""


def blocks() -> dict[str, str]:
    """Return the blocks of the page as they must be today."""
    return {"map": picture(), "walks": "\n".join(walks()).rstrip()}


if __name__ == "__main__":
    write_blocks(PAGE, COMMAND, blocks())
    print(f"wrote {PAGE}")
