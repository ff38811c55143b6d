"""The map of the house as a picture; docs/architecture.md draws it by a script, Mermaid."""

from __future__ import annotations

from lab.upkeep.house import arrows, short

WIDTH, HEIGHT, BOX = 880, 78, (150, 34)


def levels(found: dict[str, set[str]]) -> dict[str, int]:
    """Return how far each room is from those that import nothing."""

    def level(room: str) -> int:
        return 1 + max((level(below) for below in found[room]), default=-1)

    return {room: level(room) for room in found}


def svg() -> str:
    """Return the picture: a box for each room, lower ones below, an arrow for each import."""
    found = arrows()
    depth = levels(found)
    top = max(depth.values())
    places = {}
    for row in range(top + 1):
        rooms = sorted(room for room, at in depth.items() if at == row)
        for i, room in enumerate(rooms):
            places[room] = (WIDTH * (i + 0.5) / len(rooms), HEIGHT * (top - row) + 30)
    lines = [
        f'<path d="M{x1:.0f} {y1 + BOX[1] / 2:.0f}L{x2:.0f} {y2 - BOX[1] / 2 - 2:.0f}" '
        'stroke="#51585f" stroke-width="1.3" marker-end="url(#tip)"/>'
        for room, to in sorted(found.items())
        for below in sorted(to)
        for (x1, y1), (x2, y2) in [(places[room], places[below])]
    ]
    boxes = [
        f'<rect x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}" width="{BOX[0]}" '
        f'height="{BOX[1]}" rx="5" fill="{_colour(room)}" stroke="#51585f"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{short(room)}</text>'
        for room, (x, y) in sorted(places.items())
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * top + 60}" '
        f'width="{WIDTH}" height="{HEIGHT * top + 60}" font-family="sans-serif" font-size="14">'
        '<rect width="100%" height="100%" fill="#fff"/><defs><marker id="tip" markerWidth="8" '
        'markerHeight="8" refX="7" refY="4" orient="auto"><path d="M0 0L8 4L0 8z" fill="#51585f"/>'
        "</marker></defs>"
    )
    return "\n".join([head, *lines, *boxes, "</svg>"])


def alt() -> str:
    """Return the map in words."""
    told = sorted(
        f"{short(room)} imports {', '.join(sorted(map(short, to)))}"
        for room, to in arrows().items()
        if to
    )
    return f"Map of the rooms, lower ones below: {'; '.join(told)}."


def _colour(room: str) -> str:
    if room.startswith("lab."):
        return "#fbe3c0"
    return "#d6e8f5" if room.endswith(".course") else "#dff0e4"
