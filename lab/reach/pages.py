"""Every page of the book and every deck in Chromium, with the network cut; run by `make browser`.

It runs in the book's environment, where playwright is. Nothing here knows the course: pages are
files, and what is asked of them holds for any book.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from lab.reach.tools import chromium, node_package

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SLIDE = {"width": 1280, "height": 720}
PATIENCE = 180_000  # milliseconds; a busy machine is no fault of a page
LEAST_FONT = 11  # CSS pixels of any visible text on a narrow screen
LEAST_SCALE = 0.7  # of a figure's own size, at which its labels can still be read
GRAVE = ("serious", "critical")

# colours that are still on their way to those of the scheme are nobody's
SETTLED = """() => Promise.allSettled(document.getAnimations()
  .filter(x => x.effect.getComputedTiming().endTime < Infinity).map(x => x.finished))
  .then(() => null)"""
IMAGES = """() => [...document.images].map(x => ({
  alt: x.getAttribute('alt'), broken: x.complete && !x.naturalWidth, src: x.src.slice(0, 80),
  inHeader: !!x.closest('.navbar-brand, header')}))"""
SMALL = """least => {
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), box = walker.currentNode.parentElement;
    if (!text || !box.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const size = parseFloat(getComputedStyle(box).fontSize);
    if (size < least && box.getBoundingClientRect().width > 1)
      found.add(`${text.slice(0, 30)}: ${size}`);
  }
  return [...found];
}"""
BEYOND = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  for (const x of document.querySelectorAll('main article *')) {
    const box = x.getBoundingClientRect();
    if (box.right <= wide + 1 || !box.height) continue;
    let up = x.parentElement, kept = false;
    while (up && !kept) {
      kept = /auto|scroll|hidden/.test(getComputedStyle(up).overflowX); up = up.parentElement; }
    if (!kept) found.push(`${x.tagName}.${x.className}: ${Math.round(box.right)}`);
  }
  return found;
}"""
DRAWN = "() => [...document.querySelectorAll('figure img[src^=data]')].map(x => x.src)"
SCALES = """() => [...document.querySelectorAll('figure img[width]')].map(x => ({
  scale: x.getBoundingClientRect().width / x.getAttribute('width'), alt: x.alt.slice(0, 60)}))"""


@dataclass
class Report:
    """What was found on one page; `faults` is empty where all is well."""

    page: str
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@contextmanager
def started() -> Iterator[Browser]:
    """Yield the system's Chromium. Raises MissingTool where there is none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--allow-file-access-from-files"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path, report: Report, size: dict, **how: Any) -> Iterator[Page]:
    """Yield a page without a network; what it logs and asks for in vain goes into the report."""
    context = browser.new_context(viewport=size, **how)
    context.set_offline(True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    report.counts.setdefault("requests that left the folder", 0)

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:", "about:")):
            report.counts["requests that left the folder"] += 1
            report.faults.append(f"asks for {request.url}")

    page.on("request", asked)
    page.on("requestfailed", lambda x: report.faults.append(f"failed: {x.url[:120]}"))
    page.on("pageerror", lambda error: report.faults.append(f"script error: {error}"))
    page.on("console", lambda said: said.type == "error" and report.faults.append(said.text[:200]))
    page.goto(file.as_uri(), wait_until="load")
    try:
        yield page
    finally:
        context.close()


def axe(page: Page, where: str, report: Report) -> None:
    """Add the serious and critical violations that axe-core finds."""
    page.evaluate(SETTLED)
    page.add_script_tag(path=str(node_package("axe-core") / "axe.min.js"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    grave = [x for x in found if x["impact"] in GRAVE]
    report.counts["axe violations"] += len(grave)
    for violation in grave:
        nodes = [x["html"][:160] for x in violation["nodes"][:3]]
        report.faults.append(
            f"axe, {where}: {violation['id']} ({violation['impact']}), "
            f"{len(violation['nodes'])} times: {' | '.join(nodes)}"
        )


def images(page: Page, report: Report) -> None:
    """Add images that are broken, or without alternative text."""
    found = page.evaluate(IMAGES)
    report.counts["images"] = len(found)
    report.faults += [f"broken image: {x['src']}" for x in found if x["broken"]]
    report.faults += [f"no alt text: {x['src']}" for x in found if x["alt"] is None]
    report.faults += [
        f"alt text says nothing: {x['alt']!r}"
        for x in found
        if x["alt"] is not None and len(x["alt"]) < 10 and not x["inHeader"]
    ]


def narrow(page: Page, report: Report) -> None:
    """Add what a narrow screen cannot show, or nobody can read on it."""
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > NARROW["width"]:
        report.faults.append(f"{width} pixels wide on a narrow screen")
    report.faults += [f"too small: {text}" for text in page.evaluate(SMALL, LEAST_FONT)[:5]]


def visits(browser: Browser, file: Path, report: Report) -> Iterator[tuple[str, Page]]:
    """Yield a page in light, in dark and on a narrow screen, after adding what is wrong on any."""
    for scheme in ("light", "dark"):
        with opened(browser, file, report, WIDE, color_scheme=scheme) as page:
            images(page, report)
            axe(page, scheme, report)
            yield scheme, page
    with opened(browser, file, report, NARROW) as page:
        narrow(page, report)
        yield "narrow", page


def look_at_any(browser: Browser, file: Path) -> Report:
    """Return what is wrong with a page that is none of the book's, such as a sweep's report."""
    report = Report(file.name)
    for _ in visits(browser, file, report):
        pass
    return report


def look_at(browser: Browser, file: Path, folder: Path, name: str) -> Report:
    """Return what is wrong with one page of the book; keep pictures."""
    report = Report(name)
    for how, page in visits(browser, file, report):
        page.screenshot(path=folder / f"{name}-{how}.png", full_page=how != "dark")
        if how == "narrow":
            report.faults += [f"reaches beyond: {x}" for x in page.evaluate(BEYOND)[:5]]
            for x in page.evaluate(SCALES):
                if x["scale"] < LEAST_SCALE:
                    report.faults.append(f"figure at {x['scale']:.2f} of its size: {x['alt']}")
            continue
        theme = page.evaluate("document.documentElement.dataset.theme")
        if theme != how:
            report.faults.append(f"{how} is wanted, the page is {theme}")
        if how == "light":
            keep_images(page, folder / "figures", name, report)
            answers(page, report)
            solutions(page, report)
            links = page.locator("a[href*='glossary.html#term']")
            report.counts["glossary links"] = links.count()
    return report


def keep_images(page: Page, folder: Path, name: str, report: Report) -> None:
    """Keep a picture of each figure."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, source in enumerate(page.evaluate(DRAWN), 1):
        (folder / f"{name}-{number:02}.png").write_bytes(base64.b64decode(source.split(",")[1]))
        report.counts["figures"] = number


def answers(page: Page, report: Report) -> None:
    """Answer each question of a quiz, by mouse and by keyboard, and read the verdicts."""
    for question in page.locator("[role=group][aria-label^=Question]").all():
        verdicts = []
        for number, choice in enumerate(question.locator("details").all()):
            summary = choice.locator("summary")
            if number % 2:
                summary.focus()
                page.keyboard.press("Enter")
            else:
                summary.click()
            verdicts.append(choice.locator("strong").first.inner_text())
        report.counts["questions"] += 1
        if sum("Right" in verdict for verdict in verdicts) != 1 or len(verdicts) < 3:
            report.faults.append(f"a question answers {verdicts}")


def solutions(page: Page, report: Report) -> None:
    """Look whether solutions are folded, and open on a click."""
    for solution in page.locator("details.hide").all():
        code = solution.locator("pre").first
        report.counts["solutions"] += 1
        if code.is_visible():
            report.faults.append("a solution is not folded")
        solution.locator("summary").click()
        if not code.is_visible():
            report.faults.append("a solution does not open")


def search(browser: Browser, book: Path, words: str) -> Report:
    """Return whether the book's own search finds words offline."""
    report = Report(f"search for {words}")
    with opened(browser, book / "index.html", report, WIDE) as page:
        page.goto(f"{(book / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
        page.wait_for_selector("#search-results li a")
        report.counts["results"] = page.locator("#search-results li").count()
    return report


def book(folder: Path, output: Path) -> Iterator[Report]:
    """Yield a report of every page of the book, and of its search."""
    with started() as browser:
        for file in sorted(folder.rglob("*.html")):
            name = re.sub(r"\W+", "-", str(file.relative_to(folder).with_suffix("")))
            yield look_at(browser, file, output, name)
        for words in ("log-sum-exp", "pseudo-inverse", "fit_inverse"):
            yield search(browser, folder, words)


OVERFLOW = """() => {
  const slide = Reveal.getCurrentSlide(), low = slide.getBoundingClientRect();
  return [...slide.querySelectorAll(':scope > *:not(aside)')].filter(x => {
    const box = x.getBoundingClientRect();
    const tiny = x.matches('figure') && box.height < 150;
    const cut = [x, ...x.querySelectorAll('pre')].some(y => y.scrollWidth > y.clientWidth + 1);
    return tiny || cut || box.bottom > low.bottom + 1 || box.right > low.right + 1;
  }).map(x => x.tagName + ' ' + x.textContent.slice(0, 40));
}"""


def decks(folder: Path, output: Path) -> Iterator[Report]:
    """Yield a report of every deck: each slide fits, none asks for anything; keep pictures."""
    with started() as browser:
        for file in sorted(folder.glob("[0-9]*.html")):
            report = Report(f"slides {file.stem}")
            with opened(browser, file, report, SLIDE) as page:
                page.wait_for_function("window.Reveal && Reveal.isReady()")
                report.counts["slides"] = page.evaluate("Reveal.getTotalSlides()")
                for number in range(1, report.counts["slides"] + 1):
                    over = page.evaluate(OVERFLOW)
                    report.faults += [f"slide {number} is too full: {x}" for x in over]
                    page.screenshot(path=output / f"{file.stem}-{number:02}.png")
                    page.keyboard.press("ArrowRight")
                images(page, report)
                axe(page, "slides", report)
            yield report


def pdf(files: list[Path]) -> Iterator[Report]:
    """Print decks to PDF, one page for each slide; yield a report of each."""
    with started() as browser:
        for file in files:
            report, printed = Report(f"pdf {file.stem}"), file.with_suffix(".pdf")
            with opened(browser, file, report, SLIDE) as page:
                page.goto(file.as_uri() + "?print-pdf")
                page.wait_for_selector(".pdf-page")
                report.counts["slides"] = page.locator(".pdf-page").count()
                page.pdf(path=printed, prefer_css_page_size=True, print_background=True)
            pages = len(re.findall(rb"/Type\s*/Page[^s]", printed.read_bytes()))
            report.counts["pages"] = pages
            if pages != report.counts["slides"]:
                report.faults.append(f"{pages} pages of {report.counts['slides']} slides")
            yield report
