"""The parameters of every notebook, as classes: names, types, ranges and what they mean.

`PARAMETERS` maps notebooks to classes. Defaults live in the notebooks only.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from dsd_tutorial.course.parameters.model_layers import check_layers, model_layers
from dsd_tutorial.saving import expanded
from dsd_tutorial.stable_diffusion.registry import DeviceError, MissingModelError

DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What the world of shapes holds out of all training; here as words, since its room needs torch.
DOMAINS = ("striped", "diamond", "heart", "cyan", "brown")

TimeStep = Annotated[int, Field(ge=0, le=999)]
PositiveNumber = Annotated[float, Field(gt=0, le=1000)]


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures in a folder, by name; none where there is no such folder."""
    found = expanded(folder)
    files = found.iterdir() if found.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() in PICTURES)


def _pictures_in(folder: str) -> str:
    """`folder`, if there are pictures in it; raises ValueError otherwise."""
    if not picture_files(folder):
        raise ValueError(f"no pictures ({', '.join(PICTURES)}) in the folder {folder!r}")
    return folder


def _says_something(text: str) -> str:
    """`text`, if anything in it can be seen; raises ValueError for blanks and invisible signs."""
    if not any(sign.isprintable() and not sign.isspace() for sign in text):
        raise ValueError("it needs words, such as 'a blue object'")
    return text


def _of_the_model(
    layers: str | list[str], read: ValidationInfo, more: tuple[str, ...]
) -> str | list[str]:
    """`layers`, if the model that was read before has them; raises ValueError otherwise."""
    if "model" in read.data:  # else it was refused, which is said already
        check_layers(layers, model_layers(read.data["model"]), more)
    return layers


Words = Annotated[str, AfterValidator(_says_something)]


class Parameters(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        min_length=1, description="name, hub id or folder; `dsd-tutorial list` shows the names"
    )
    device: str = Field(pattern=DEVICE, description="auto, cpu, mps, cuda or cuda:N")
    seed: int = Field(ge=0, le=2**32 - 1, description="of every random draw")

    @field_validator("device")
    @classmethod
    def _is_here(cls, name: str) -> str:
        if name not in ("auto", "cpu"):  # only who asks for more waits for torch
            from dsd_tutorial.stable_diffusion.loading import pick_device

            try:
                pick_device(name)
            except DeviceError as error:
                raise ValueError(str(error)) from None
        return name

    @field_validator("model")
    @classmethod
    def _can_be_found(cls, name: str) -> str:
        try:
            model_layers(name)
        except MissingModelError as error:  # pydantic explains ValueErrors only
            raise ValueError(str(error)) from None
        return name


class OrientationParameters(Parameters):
    """Notebook 00: one picture, sampled and taken apart."""

    prompt: Words = Field(min_length=1, description="the caption to draw")
    steps: int = Field(ge=1, le=1000, description="denoising steps")
    guidance: float = Field(ge=0, le=50, description="classifier-free guidance scale; 1 is none")
    n_images: int = Field(
        ge=2, le=64, description="pictures for each caption where they are counted"
    )


class AttentionParameters(Parameters):
    """Notebook 01: from attention to a matching score."""

    n_items: int = Field(ge=8, le=2000, description="test items per task")
    steps: list[TimeStep] = Field(
        min_length=1, max_length=50, description="diffusion time steps to look at, each 0..999"
    )
    noises: int = Field(ge=1, le=64, description="noises per time step")
    layers: str | list[str] = Field(
        min_length=1, description='layers of the untuned score: "all", "last" or names such as "up"'
    )
    token_mask: Literal["all", "words", "no_start", "no_padding"] = Field(
        description="which tokens enter the untuned score"
    )
    lam: float = Field(ge=1e-6, le=1e6, description="inverse temperature of log-sum-exp pooling")
    word: Literal["circle", "square", "triangle", "star", "cross", "ring"] = Field(
        description="the shape whose heat map is drawn"
    )

    @field_validator("layers")
    @classmethod
    def _layers_are_there(cls, layers: str | list[str], read: ValidationInfo) -> str | list[str]:
        return _of_the_model(layers, read, ("all", "last"))


class FewShotParameters(Parameters):
    """Notebook 02: what a few labelled examples teach."""

    task: Literal["comvg", "refcoco", "vqa", "winoground"] = Field(description="the matching task")
    dataset: str = Field(
        description='"shapes", or a folder with the task\'s benchmark or an items.jsonl of your own'
    )
    adapter: Literal["soft prompt", "attention prompt", "lora", "head weights"] = Field(
        description="what is learned beside the adapter made by hand"
    )
    shots: int = Field(ge=1, le=256, description="labelled items to learn from")
    seeds: int = Field(ge=1, le=20, description="how often the labelled items are drawn anew")
    steps: int = Field(ge=1, le=5000, description="training steps of what needs U-Net passes")
    lr: float = Field(ge=0, le=10, description="learning rate; 0: the adapter's own")
    layers: str | list[str] = Field(
        min_length=1, description='"chosen" on validation, "all", "last" or names such as "up"'
    )
    time_steps: list[TimeStep] = Field(
        min_length=1, max_length=50, description="diffusion time steps that are read, each 0..999"
    )
    error_weight: float = Field(ge=0, le=100, description="of the error term in the score")
    n_items: int = Field(ge=8, le=2000, description="test items")
    drawing_steps: int = Field(ge=1, le=1000, description="denoising steps of each drawing")

    @field_validator("dataset")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name == "shapes":
            return name
        if not name.strip() or not expanded(name).is_dir():
            raise ValueError(f"there is no folder {name!r}")
        if not any(expanded(name).iterdir()):
            raise ValueError(f"the folder {name!r} is empty")
        return name

    @field_validator("layers")
    @classmethod
    def _layers_are_there(cls, layers: str | list[str], read: ValidationInfo) -> str | list[str]:
        return _of_the_model(layers, read, ("chosen", "all", "last"))


class ProjectionParameters(Parameters):
    """Notebook 03: from an image to a prompt in closed form."""

    references: str = Field(
        description="folder with pictures of your own to vary; empty: scenes of the shapes world"
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
    n_references: int = Field(ge=4, le=500, description="reference pictures that are measured")
    guidance: PositiveNumber | Literal["auto"] = Field(
        description="classifier-free guidance scale; auto: the model's own"
    )
    steps: int = Field(ge=1, le=1000, description="denoising steps of every variation")

    @field_validator("references")
    @classmethod
    def _holds_pictures(cls, folder: str) -> str:
        return _pictures_in(folder) if folder else folder


class EditingParameters(Parameters):
    """Notebook 04: words edit a picture, pictures teach the model."""

    references: str = Field(
        description="folder with pictures of your own to edit; empty: scenes of the shapes world"
    )
    n_references: int = Field(
        ge=4, le=36, description="test references on which edits are measured"
    )
    text: Words = Field(
        min_length=1, max_length=300, description="the edit that the gallery's own row asks for"
    )
    alpha: Annotated[float, Field(ge=0, le=10)] | Literal["auto"] = Field(
        description="how loudly the words' own states join the image; auto: best on validation"
    )
    domain: str = Field(
        description=f"what FT learns: {', '.join(DOMAINS)}, or a folder with pictures of your own"
    )
    n_images: int = Field(ge=4, le=10_000, description="pictures of the domain that FT learns from")
    ft_steps: int = Field(ge=1, le=100_000, description="training steps of FT")
    ft_lr: float = Field(gt=0, le=1, description="learning rate of FT")
    ct_steps: int = Field(ge=1, le=10_000, description="tuning steps of CT on one reference")
    lr: float = Field(ge=0, le=10, description="learning rate of CT; 0: chosen for each start")
    guidance: PositiveNumber | Literal["auto"] = Field(
        description="classifier-free guidance scale; auto: the model's own"
    )
    steps: int = Field(ge=1, le=1000, description="denoising steps of every picture")

    @field_validator("references")
    @classmethod
    def _holds_pictures(cls, folder: str) -> str:
        return _pictures_in(folder) if folder else folder

    @field_validator("domain")
    @classmethod
    def _is_known(cls, domain: str) -> str:
        if domain in DOMAINS:
            return domain
        if not domain.strip() or not expanded(domain).is_dir():
            known = ", ".join(DOMAINS)
            raise ValueError(f"neither a domain ({known}) nor a folder that is there")
        return _pictures_in(domain)


PARAMETERS: dict[str, type[Parameters]] = {
    "00_orientation": OrientationParameters,
    "01_attention_scores": AttentionParameters,
    "02_few_shot_prompt_learning": FewShotParameters,
    "03_closed_form_projection": ProjectionParameters,
    "04_editing_and_customization": EditingParameters,
}
