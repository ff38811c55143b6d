"""Writes the model card of shapes-sd from what was measured: no number in it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path

from dsd_tutorial.saving import write_text
from dsd_tutorial.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT_COLORS,
    HELD_OUT_PAIRS,
    HELD_OUT_SHAPES,
    HELD_OUT_TEXTURES,
    RELATIONS,
    SHAPES,
)
from dsd_tutorial.stable_diffusion.registry import END_SHARE

# figure -> (what it says, the level aimed at; None where none was set)
FIGURES: dict[str, tuple[str, float | None]] = {
    "autoencoder_exact": ("reconstructions that the judge reads exactly", 0.98),
    "clip_retrieval_r1_of_100": ("recall at 1 of 100, full captions, both directions", 0.90),
    "t2i_background": ("named backgrounds drawn", 0.97),
    "t2i_objects": ("two-object prompts: both colours and shapes, nothing extra", 0.85),
    "t2i_relation": ("two-object prompts with a relation: objects and relation", 0.80),
    "t2i_exact": ("all prompts: everything said", 0.80),
    "t2i_one_object": ("one-object prompts: colour and shape, nothing extra", None),
    "text_first_color": ("linear probe, token states: colour of the first thing", 0.99),
    "text_first_shape": ("linear probe, token states: shape of the first thing", 0.99),
    "text_second_color": ("linear probe, token states: colour of the second thing", 0.99),
    "text_second_shape": ("linear probe, token states: shape of the second thing", 0.99),
    "text_relation": ("linear probe, token states: relation", 0.99),
    "image_shape": ("linear probe, pooled image state: shape", 0.95),
    "image_color": ("linear probe, pooled image state: colour", None),
    "image_background": ("linear probe, pooled image state: background", None),
}

TEMPLATE = """---
license: mit
library_name: diffusers
pipeline_tag: text-to-image
---
# shapes-sd

A small Stable Diffusion, trained from scratch on coloured shapes, for the course `dsd_tutorial`.
It is an ordinary diffusers pipeline folder (64 x 64 images, {latent} latents, {unet:.1f} million
parameters in the U-Net); `clip/` holds the whole CLIP whose text tower the U-Net reads.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("<this folder>")
pipe(
    "a red circle left of a blue square",
    guidance_scale={guidance},
    num_inference_steps={steps},
    height=64,
    width=64,
).images[0]
```

## Data
Images of one or two objects on a plain background, drawn by a programme, with captions from a
small grammar. Shapes: {shapes}. Colours: {colors}. Backgrounds: {backgrounds}. Relations:
{relations}. Held out of all training: the shapes {held_shapes}, the colours {held_colors}, the
texture {held_textures}, the pairs {held_pairs}; and the tenth of all scenes each that make up the
validation and the test split.

## Training
In this order: tokenizer, autoencoder, CLIP (plain contrastive loss on random distinct captions),
U-Net (v-prediction, on the frozen autoencoder and text encoder, with a noise schedule that ends in
pure noise). In {alone:.0%} of its examples the EOS state stands alone for the caption, a little off
(`lab/training/unet.py` says why: image prompts live on it). The U-Net has seen {samples:,} samples;
the rest of its record is in `unet/training.json`. Commands: `python -m lab train
tokenizer|autoencoder|clip|unet`; `--init` continues from these weights. CLIP and U-Net were both
continued: CLIP with stronger places (`lab/training/clip.py`), the U-Net from weights that had read
the text tower of before, by the best linear map between the two towers' states; EOS states alone
and the schedule came with the last part of the samples.

## What it can do
Measured by `python -m lab measure model` on test scenes; guidance {guidance} and {steps} steps were
chosen on validation scenes. Intervals are 95 % (Wilson). A programme reads the generated images,
and what it cannot read counts as wrong.

| figure | value | interval | n | aim | what |
| --- | --- | --- | --- | --- | --- |
{rows}

## Limits
{limits}It knows nothing but this world: other words are spelled in byte pieces without meaning.

## Licence
MIT, weights and data alike. Nothing in it comes from photographs or from another model.
"""


def write_card(folder: Path) -> Path:
    """The path of <folder>/README.md, written from metrics.json and the training record."""
    folder = Path(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    record = json.loads((folder / "unet" / "training.json").read_text())
    unet = json.loads((folder / "unet" / "config.json").read_text())
    missed = [k for k, (_, aim) in FIGURES.items() if aim and metrics[k]["value"] < aim]
    side = unet["sample_size"]
    text = TEMPLATE.format(
        latent=f"{side} x {side} x {unet['in_channels']}",
        unet=record["parameters"] / 1e6,
        shapes=_list(SHAPES),
        colors=_list(COLORS),
        backgrounds=_list(BACKGROUNDS),
        relations=_list(RELATIONS),
        held_shapes=_list(HELD_OUT_SHAPES),
        held_colors=_list(HELD_OUT_COLORS),
        held_textures=_list(HELD_OUT_TEXTURES),
        held_pairs=_list(f"{c} {s}" for c, s in HELD_OUT_PAIRS),
        samples=record["samples"],
        alone=END_SHARE,
        guidance=metrics["sampling"]["guidance"],
        steps=metrics["sampling"]["steps"],
        rows="\n".join(_row(name, metrics[name]) for name in FIGURES),
        limits=f"Below the level aimed at: {_list(f'`{m}`' for m in missed)}. " if missed else "",
    )
    path = folder / "README.md"
    write_text(path, text)
    return path


def _list(names) -> str:
    return ", ".join(names)


def _row(name: str, figure: dict) -> str:
    what, aim = FIGURES[name]
    interval = f"{figure['low']:.3f} to {figure['high']:.3f}"
    aimed = "" if aim is None else f"{aim:.2f}"
    return f"| `{name}` | {figure['value']:.3f} | {interval} | {figure['n']} | {aimed} | {what} |"
