"""The README's picture: what the embedded model drew, and where one word looked while it drew.

`python -m lab.upkeep.picture` writes docs/picture.png and the block in README.md between the two
marks, alt text included. The prompts are fixed and every seed is 0: nothing was picked.
"""

import sys
import textwrap

from lab.upkeep.blocks import ROOT, write_blocks

TARGET = ROOT / "docs" / "picture.png"
PROMPTS = (  # prompt, the word to follow
    ("a red circle left of a blue square on a gray background", "square"),
    ("a yellow star above a green cross on a black background", "star"),
    ("a large purple ring in the center on a white background", "ring"),
    ("an orange triangle right of a red ring on a pink background", "triangle"),
    ("a green square below a purple circle on a white background", "circle"),
)


def draw() -> str:
    """The alt text of the picture just written to docs/picture.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from dsd_tutorial.attention import observe
    from dsd_tutorial.course.figures import draw_image, overlay_heat
    from dsd_tutorial.course.figures.style import DPI, STYLE
    from dsd_tutorial.stable_diffusion import load_model

    model = load_model("shapes-sd")
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(2, len(PROMPTS), figsize=(9.6, 4.5), layout="constrained")
        for (prompt, word), (top, bottom) in zip(PROMPTS, axes.T, strict=True):
            with observe(model, heat=True) as seen:
                image = model.sample([prompt], progress=False)[0]
            draw_image(top, image)
            top.set_title("\n".join(textwrap.wrap(prompt, 24)), fontsize=8)
            overlay_heat(bottom, image, seen.heat_map(word)[0], f"where “{word}” looks")
        fig.savefig(TARGET, dpi=DPI, metadata={"Software": None})
    return (
        "Pictures drawn by the model that ships with the course, and under each a heat map of "
        + ("one word of its prompt: " + "; ".join(f"{word} in “{text}”" for text, word in PROMPTS))
    )


def main() -> int:
    """The exit status."""
    alt = draw()
    below = "Drawn by the small Stable Diffusion in this repository; below, one word's attention."
    block = f"![{alt}](docs/{TARGET.name})\n*{below}*"
    write_blocks("README.md", "make picture", {"picture": block})
    return 0


if __name__ == "__main__":
    sys.exit(main())
