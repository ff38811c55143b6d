"""Blocks of a page that a command writes, each between two marks that name it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def with_blocks(text: str, command: str, blocks: dict[str, str]) -> str:
    """`text` with each named block between its marks; ValueError where a mark is missing."""
    for name, block in blocks.items():
        marks = f"<!-- {name}: written by `{command}` -->", f"<!-- end of {name} -->"
        if any(text.count(mark) != 1 for mark in marks):
            raise ValueError(f"the page must hold each of {marks} once")
        before, rest = text.split(marks[0])
        text = f"{before}{marks[0]}\n{block}\n{marks[1]}{rest.split(marks[1])[1]}"
    return text


def write_blocks(page: str, command: str, blocks: dict[str, str]) -> None:
    """Write a page of the project anew, with these blocks in it."""
    path = ROOT / page
    text = with_blocks(path.read_text(encoding="utf-8"), command, blocks)
    path.write_text(text, encoding="utf-8", newline="\n")
