"""Blocks of a page that a command writes, each between two marks."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def with_block(text: str, marks: tuple[str, str], block: str) -> str:
    """`text` with what stands between `marks` replaced; ValueError where a mark is missing."""
    if any(text.count(mark) != 1 for mark in marks):
        raise ValueError(f"the page must hold each of {marks} once")
    before, rest = text.split(marks[0])
    return f"{before}{marks[0]}\n{block}\n{marks[1]}{rest.split(marks[1])[1]}"


def with_blocks(text: str, module: str, blocks: dict[str, str]) -> str:
    """`text` with each named block between the marks that name it and the module that writes it."""
    for name, block in blocks.items():
        marks = f"<!-- {name}: written by `python -m {module}` -->", f"<!-- end of {name} -->"
        text = with_block(text, marks, block)
    return text


def replace_block(marks: tuple[str, str], block: str, page: str = "README.md") -> None:
    """Put `block` between `marks` in a page of the project."""
    path = ROOT / page
    text = with_block(path.read_text(encoding="utf-8"), marks, block)
    path.write_text(text, encoding="utf-8", newline="\n")
