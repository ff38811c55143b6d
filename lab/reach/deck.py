"""`make slides`: a reveal.js deck of each notebook, in build/slides, that needs no network.

Slides are what the notebooks' own metadata says (`lab.upkeep.slides`), with the figures of the last
`make run`. In a browser: S opens the speaker's notes, O the overview, F fills the screen; print
NAME.html?print-pdf to a PDF, or let `make slides ARGS=--pdf` do it.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shutil
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from dsd_tutorial.saving import write_text
from lab.reach.executed import NotExecuted, all_outputs
from lab.reach.tools import BUILD, HERE, MissingTool, node_package
from lab.upkeep.slides import Slide, is_figure, slides_of

SIZE = (1280, 720)
PNG = re.compile(r"data:image/png;base64,([^\"']+)")
TALL, ROWS = 0.6, 1000  # of a figure's width, and pixels
REVEAL = ("reset.css", "reveal.css", "reveal.js", "plugin/notes.js")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="deck.css">
</head>
<body>
<main class="reveal"><div class="slides">
{slides}
</div></main>
<script src="reveal/reveal.js"></script>
<script src="reveal/plugin/notes.js"></script>
<script>
Reveal.initialize({{
  width: {width}, height: {height}, margin: 0.02, center: false, display: "flex", hash: true,
  slideNumber: "c/t", transition: "none", pdfMaxPagesPerSlide: 1, plugins: [RevealNotes],
}});
</script>
</body>
</html>
"""
INDEX = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Slides</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto;
  padding: 0 1rem; color: #222; background: #fff }} a {{ color: #0b5394 }}</style></head>
<body><main><h1>Slides</h1>
<p>S opens the speaker's notes, O the overview, F fills the screen.</p>
<ul>
{links}
</ul></main></body></html>
"""


def as_html(markdown: str) -> str:
    """Return Markdown as HTML; links to notebooks lead to their decks."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return markdown2html_mistune(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.html)", markdown))


def code_html(source: str) -> str:
    """Return Python code as coloured HTML; the colours are in the style sheet."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    close = re.sub(r"\n{3,}", "\n\n", source)
    return highlight(close, PythonLexer(), HtmlFormatter(cssclass="code"))


def output_html(output: dict[str, Any]) -> str:
    """Return an output, a figure or printed text, as HTML."""
    if output["output_type"] == "stream":
        return f'<pre class="printed">{html.escape("".join(output["text"]).rstrip())}</pre>'
    return "".join(output["data"]["text/html"])


def is_tall(output: Mapping[str, Any]) -> bool:
    """Whether an output is a figure of many rows, which needs the height of the whole slide."""
    found = PNG.search("".join(output.get("data", {}).get("text/html", "")))
    if not found:
        return False
    width, height = Image.open(BytesIO(base64.b64decode(found[1]))).size
    return height > TALL * width and height > ROWS


def slide_html(slide: Slide) -> str:
    """Return one slide with its speaker's notes."""
    kind = "first" if slide.first else ("exercise" if slide.exercise else "plain")
    figures = [output for output in slide.outputs if is_figure(output)]
    if not slide.code and len(figures) == 1 and is_tall(figures[0]):
        kind += " tall"  # the figure stands beside the text, not below it
    level = "h1" if slide.first else "h2"
    title = as_html(re.sub(r"^(\d+)\.", r"\1\\.", slide.title)).strip()  # no list of one
    title = title.removeprefix("<p>").removesuffix("</p>")
    body = [f"<{level}>{title}</{level}>"]
    if slide.over:
        body.insert(0, f'<p class="over">{html.escape(slide.over)}</p>')
    body.append(f'<div class="said">{"".join(map(as_html, slide.said))}</div>')
    body += map(code_html, slide.code)
    body += map(output_html, slide.outputs)
    body.append(f'<aside class="notes">{"".join(map(as_html, slide.notes))}</aside>')
    return f'<section class="{kind}">\n' + "\n".join(body) + "\n</section>"


def style() -> str:
    """Return the style sheet, with the colours of code."""
    from pygments.formatters import HtmlFormatter

    own = (HERE / "deck.css").read_text(encoding="utf-8")
    return own + HtmlFormatter(style="xcode").get_style_defs(".code") + "\n"


def write_decks(executed: Path, output: Path) -> list[Path]:
    """Write a deck of each notebook, and the index; return the decks.

    Raises NotExecuted where a notebook was not run, MissingTool where reveal.js cannot be fetched.
    """
    found = all_outputs(executed)
    reveal = node_package("reveal.js")
    output.mkdir(parents=True, exist_ok=True)
    for name in REVEAL:
        target = output / "reveal" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(reveal / "dist" / name, target)
    shutil.copy(reveal / "LICENSE", output / "reveal" / "LICENSE")
    write_text(output / "deck.css", style())
    decks, links = [], []
    for notebook, outputs in found:
        slides = slides_of(json.loads(notebook.path.read_text(encoding="utf-8")), outputs)
        deck = output / f"{notebook.name}.html"
        write_text(deck, PAGE.format(
            title=html.escape(notebook.title), slides="\n".join(map(slide_html, slides)),
            width=SIZE[0], height=SIZE[1],
        ))  # fmt: skip
        links.append(f'<li><a href="{deck.name}">{html.escape(notebook.title)}</a></li>')
        decks.append(deck)
        print(f"{deck.name:36} {len(slides)} slides", flush=True)
    write_text(output / "index.html", INDEX.format(links="\n".join(links)))
    return decks


def main() -> int:
    """The exit status: 1 for a fault in a PDF, 2 where something is missing, said in one line."""
    parser = argparse.ArgumentParser(prog="make slides", description=__doc__)
    parser.add_argument("--executed", type=Path, default=BUILD, help="the folder of a run")
    parser.add_argument("--output", type=Path, default=BUILD / "slides")
    parser.add_argument("--pdf", action="store_true", help="print each deck to a PDF as well")
    given = parser.parse_args()
    try:
        decks = write_decks(given.executed.resolve(), given.output.resolve())
        if given.pdf:
            from lab.reach.browser import in_browser

            return in_browser("pdf", *decks)
    except (NotExecuted, MissingTool) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
