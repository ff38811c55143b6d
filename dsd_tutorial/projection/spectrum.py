"""The singular values of a text projection, and where to cut them.

The inverse multiplies direction i by 1 / s_i. Directions with a small s_i carried almost nothing of
the text state to the projection; on the way back they carry almost nothing but noise, much louder.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from dsd_tutorial.projection.matrices import as_matrix
from dsd_tutorial.saving import replacing

VIT_L_14 = Path(__file__).resolve().parents[1] / "data" / "vit_l_14_singular_values.csv"
VIT_L_14_ORIGIN = (
    "singular values of text_projection.weight (768 x 768) of OpenAI CLIP ViT-L/14, the text "
    "encoder of Stable Diffusion 1.x; weights as in gligen/GLIGEN (MIT), CLIP (MIT)"
)


def singular_values(weight: Tensor) -> Tensor:
    """Return the singular values of a weight (d_proj, d), float64, largest first."""
    return torch.linalg.svdvals(as_matrix(weight))


def automatic_threshold(values: Tensor) -> float:
    """Return the threshold below which directions are cut: median(s) / sqrt(2).

    The half-power point *(ours)*: a direction is cut where inverting it would amplify power
    (length squared) more than twice as much as inverting the typical one. The rule scales with the
    weight, has nothing to tune, and the median does not feel how deep the useless tail goes. For
    ViT-L/14 it gives 0.30. That is no confirmation of the paper's 0.3: the rule was picked, among
    several that could be argued for, because it meets it.

    Raises ValueError for no values, for negative ones, or where half of them are zero.
    """
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    if not len(values) or bool((values < 0).any()):
        raise ValueError("need singular values: one or more numbers, none below zero")
    middle = float(values.quantile(0.5))
    if middle <= 1e-12 * float(values.max()):
        raise ValueError(
            "half of the singular values are zero, so their median says nothing: give a threshold"
        )
    return middle / 2**0.5


def kept(values: Tensor, threshold: float) -> int:
    """Return how many singular values are at least `threshold`: the rank of the cut inverse."""
    return int((torch.as_tensor(values) >= threshold).sum())


def energy_kept(weight: Tensor, embeddings: Tensor, threshold: float) -> float:
    """Return the share of the embeddings' squared length in the directions kept, in [0, 1].

    embeddings (batch, d_proj): images' or captions'. What is cut of an image is lost to its prompt.
    """
    u, s, _ = torch.linalg.svd(as_matrix(weight), full_matrices=False)
    rows = as_matrix(embeddings, "embeddings")
    return float(((rows @ u[:, s >= threshold]) ** 2).sum() / (rows**2).sum())


def vit_l_14_singular_values() -> Tensor:
    """Return the 768 singular values of the real ViT-L/14 text projection, float64, descending."""
    with open(VIT_L_14, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return torch.tensor([float(row["singular_value"]) for row in rows], dtype=torch.float64)


def write_singular_values(weight: Tensor, path: Path | str, origin: str) -> None:
    """Write the singular values of `weight` as a csv file whose first line says their origin.

    `vit_l_14_singular_values.csv` was made by this function with `VIT_L_14_ORIGIN`.
    """
    values = singular_values(weight).tolist()
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        file.write(f"# {origin}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "singular_value"])
        writer.writerows((i, f"{value:.9g}") for i, value in enumerate(values))
