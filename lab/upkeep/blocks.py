"""Blocks of README.md that a command writes, each between two marks."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def with_block(text: str, marks: tuple[str, str], block: str) -> str:
    """`text` with what stands between `marks` replaced; ValueError where a mark is missing."""
    if any(text.count(mark) != 1 for mark in marks):
        raise ValueError(f"README.md must hold each of {marks} once")
    before, rest = text.split(marks[0])
    return f"{before}{marks[0]}\n{block}\n{marks[1]}{rest.split(marks[1])[1]}"


def replace_block(marks: tuple[str, str], block: str, root: Path = ROOT) -> None:
    """Put `block` between `marks` in README.md."""
    readme = root / "README.md"
    text = with_block(readme.read_text(encoding="utf-8"), marks, block)
    readme.write_text(text, encoding="utf-8", newline="\n")
