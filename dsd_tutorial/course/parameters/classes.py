"""The parameters of every notebook, as classes: names, types, ranges and what they mean.

`PARAMETERS` maps notebooks to classes. Defaults live in the notebooks only.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from dsd_tutorial.course.parameters.model_layers import check_layers, model_layers
from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.registry import MissingModelError

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What the world of shapes holds out of all training; here as words, since its room needs torch.
DOMAINS = ("striped", "diamond", "heart", "cyan", "brown")


def _is_here(device: str) -> str:
    if device not in ("auto", "cpu"):  # only who asks for more waits for torch
        from dsd_tutorial.stable_diffusion.loading import pick_device

        pick_device(device)
    return device


def _is_computed(dtype: str, read: ValidationInfo) -> str:
    if dtype not in ("auto", "float32") and "device" in read.data:  # only who asks waits for torch
        from dsd_tutorial.stable_diffusion.loading import pick_device, pick_dtype

        pick_dtype(dtype, pick_device(read.data["device"]))
    return dtype


def _can_be_found(model: str) -> str:
    try:
        model_layers(model)
    except MissingModelError as error:  # pydantic explains ValueErrors only
        raise ValueError(str(error)) from None
    return model


def _says_something(text: str) -> str:
    if not any(sign.isprintable() and not sign.isspace() for sign in text):
        raise ValueError("it needs words, such as 'a blue object'")
    return text


def _of_the_model(*more: str) -> Callable[[str | list[str], ValidationInfo], str | list[str]]:
    """A validator: layers of the model that was read before, or a word of `more`."""

    def check(layers: str | list[str], read: ValidationInfo) -> str | list[str]:
        if "model" in read.data:  # else it was refused, which is said already
            check_layers(layers, model_layers(read.data["model"]), more)
        return layers

    return check


def _is_folder(name: str) -> bool:
    return bool(name.strip()) and expanded(name).is_dir()


def _holds_images(folder: str) -> str:
    files = expanded(folder).iterdir() if _is_folder(folder) else ()
    if not any(path.suffix.lower() in IMAGES for path in files):
        raise ValueError(f"no images ({', '.join(IMAGES)}) in the folder {folder!r}")
    return folder


def _empty_or_images(folder: str) -> str:
    return _holds_images(folder) if folder else folder


def _domain_or_images(domain: str) -> str:
    if domain in DOMAINS:
        return domain
    if not _is_folder(domain):
        known = ", ".join(DOMAINS)
        raise ValueError(f"neither a domain ({known}) nor a folder that is there")
    return _holds_images(domain)


def _shapes_or_folder(name: str) -> str:
    if name == "shapes":
        return name
    if not _is_folder(name):
        raise ValueError(f"there is no folder {name!r}")
    if not any(expanded(name).iterdir()):
        raise ValueError(f"the folder {name!r} is empty")
    return name


Words = Annotated[str, AfterValidator(_says_something)]
Layers = Annotated[str | list[str], Field(min_length=1)]
TimeSteps = Annotated[list[Annotated[int, Field(ge=0, le=999)]], Field(min_length=1, max_length=50)]
PositiveNumber = Annotated[float, Field(gt=0, le=1000)]
OwnImages = Annotated[str, AfterValidator(_empty_or_images)]


class Parameters(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1), AfterValidator(_can_be_found)] = Field(
        description="name, hub id or folder; `dsd-tutorial list` shows the names"
    )
    device: Annotated[str, Field(pattern=DEVICE), AfterValidator(_is_here)] = Field(
        description="auto, cpu, mps, cuda or cuda:N"
    )
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"], AfterValidator(_is_computed)
    ] = Field(description="precision of the U-Net; auto: what pays on the device")
    seed: int = Field(ge=0, le=2**32 - 1, description="of every random draw")


class OrientationParameters(Parameters):
    """Notebook 00: one image, sampled and taken apart."""

    prompt: Words = Field(min_length=1, description="the caption to draw")
    steps: int = Field(ge=1, le=1000, description="denoising steps")
    guidance: float = Field(ge=0, le=50, description="classifier-free guidance scale; 1 is none")
    n_images: int = Field(ge=2, le=64, description="images for each caption where they are counted")


class AttentionParameters(Parameters):
    """Notebook 01: from attention to a matching score."""

    n_items: int = Field(ge=8, le=2000, description="test items per task")
    n_validation: int = Field(ge=8, le=512, description="validation items per task, to choose by")
    steps: TimeSteps = Field(description="diffusion time steps of all scores, each 0..999")
    layers: Annotated[Layers, AfterValidator(_of_the_model("all", "last"))] = Field(
        description='where the logits are read: "all", "last" or names such as "up"'
    )
    word: Literal["circle", "square", "triangle", "star", "cross", "ring"] = Field(
        description="the shape whose heat map is drawn"
    )


class FewShotParameters(Parameters):
    """Notebook 02: what a few labelled examples teach."""

    task: Literal["comvg", "refcoco", "vqa", "winoground"] = Field(description="the matching task")
    dataset: Annotated[str, AfterValidator(_shapes_or_folder)] = Field(
        description='"shapes", or a folder with the task\'s benchmark or an items.jsonl of your own'
    )
    adapter: Literal["soft prompt", "attention prompt", "lora", "head weights"] = Field(
        description="what is learned beside the adapter made by hand"
    )
    shots: int = Field(ge=1, le=256, description="labelled items to learn from")
    seeds: int = Field(ge=1, le=20, description="how often the labelled items are drawn anew")
    steps: int = Field(ge=1, le=5000, description="training steps of what needs U-Net passes")
    lr: float = Field(ge=0, le=10, description="learning rate; 0: the adapter's own")
    layers: Annotated[Layers, AfterValidator(_of_the_model("chosen", "all", "last"))] = Field(
        description='"chosen" on validation, "all", "last" or names such as "up"'
    )
    time_steps: TimeSteps = Field(description="diffusion time steps that are read, each 0..999")
    error_weight: float = Field(ge=0, le=100, description="of the error term in the score")
    n_items: int = Field(ge=8, le=2000, description="test items")
    drawing_steps: int = Field(ge=1, le=1000, description="denoising steps of each drawing")


class ProjectionParameters(Parameters):
    """Notebook 03: from an image to a prompt in closed form."""

    references: OwnImages = Field(
        description="folder with images of your own to vary; empty: scenes of the shapes world"
    )
    method: Literal[
        "auto", "ridge", "gaussian", "mean_shift", "centered", "procrustes", "direct", "refined"
    ] = Field(description="alternative beside the truncated inverse; auto: best on validation")
    threshold: PositiveNumber | Literal["auto", "none"] = Field(
        description="singular values below it are cut"
    )
    length: PositiveNumber | Literal["auto"] = Field(
        description="of a converted text state; auto: as the text encoder's own"
    )
    copies: Annotated[int, Field(ge=1, le=1000)] | Literal["auto", "all"] = Field(
        description="positions of the prompt that the state fills"
    )
    n_references: int = Field(ge=4, le=500, description="reference images that are measured")
    guidance: PositiveNumber | Literal["auto"] = Field(
        description="classifier-free guidance scale; auto: the model's own"
    )
    steps: int = Field(ge=1, le=1000, description="denoising steps of every variation")


class EditingParameters(Parameters):
    """Notebook 04: words edit an image, images teach the model."""

    references: OwnImages = Field(
        description="folder with images of your own to edit; empty: scenes of the shapes world"
    )
    n_references: int = Field(
        ge=4, le=36, description="test references on which edits are measured"
    )
    text: Words = Field(
        min_length=1, max_length=300, description="the edit that the gallery's own row shows"
    )
    alpha: Annotated[float, Field(ge=0, le=10)] | Literal["auto"] = Field(
        description="weight of the words' own states beside the image; auto: best on validation"
    )
    domain: Annotated[str, AfterValidator(_domain_or_images)] = Field(
        description=f"what FT learns: {', '.join(DOMAINS)}, or a folder with images of your own"
    )
    n_images: int = Field(ge=4, le=10_000, description="images of the domain that FT learns from")
    ft_steps: int = Field(ge=1, le=100_000, description="training steps of FT")
    ft_lr: float = Field(gt=0, le=1, description="learning rate of FT")
    ct_steps: int = Field(ge=1, le=10_000, description="tuning steps of CT on one reference")
    lr: float = Field(ge=0, le=10, description="learning rate of CT; 0: chosen for each start")
    guidance: PositiveNumber | Literal["auto"] = Field(
        description="classifier-free guidance scale; auto: the model's own"
    )
    steps: int = Field(ge=1, le=1000, description="denoising steps of every image")


class LaterWorksParameters(Parameters):
    """Notebook 05: grounding, information, features, quality, retrieval."""

    n_items: int = Field(ge=6, le=2000, description="test phrases that are grounded")
    n_info: int = Field(ge=2, le=500, description="test scenes on which words are measured in nats")
    n_scenes: int = Field(
        ge=50, le=20_000,
        description="train scenes whose features are read; half as many of each other split",
    )  # fmt: skip
    drawing_steps: int = Field(ge=1, le=1000, description="denoising steps of every drawing")
    n_spoiled: int = Field(
        ge=16, le=2000, description="test images of known quality; half as many again to learn from"
    )
    n_texts: int = Field(ge=2, le=200, description="texts that an image is drawn and found for")


PARAMETERS: dict[str, type[Parameters]] = {
    "00_orientation": OrientationParameters,
    "01_attention_scores": AttentionParameters,
    "02_few_shot_prompt_learning": FewShotParameters,
    "03_closed_form_projection": ProjectionParameters,
    "04_editing_and_customization": EditingParameters,
    "05_what_came_after": LaterWorksParameters,
}
