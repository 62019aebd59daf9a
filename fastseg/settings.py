"""The tree of settings: what each key means, its default, and what is impossible, found before anything loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fastseg.augmentations import AugmentSettings
from fastseg.errors import InputError
from fastseg.hierarchy import PASCAL_PART, Hierarchy
from fastseg.loss_settings import LOSSES, CrossEntropySettings, IoUSettings, LossSettings, as_losses, check_loss
from fastseg.search_settings import SearchSettings
from fastseg.values import Rate, Section, Size

# What smp 0.5–0.6 asks of height and width; None takes any size. `test_config.py` holds it against smp's classes.
ARCHITECTURES: dict[str, int | None] = {
    "Unet": None, "UnetPlusPlus": 32, "MAnet": 32, "Linknet": 32, "FPN": 32, "PSPNet": 8, "DeepLabV3": 8,
    "DeepLabV3Plus": 16, "PAN": 16, "UPerNet": 32, "Segformer": 32, "DPT": 16,
}  # fmt: skip
# These pool to one pixel before a BatchNorm, which cannot train on one photograph.
POOLED_BATCHNORM = ("DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet")
# PAN halves its deepest features three times more.
SMALLEST = {"PAN": 128}


class SampleSettings(Section):
    """The embedded drawn people, used where `data.root` is not set."""

    train: int = Field(576, ge=1, description="photographs to train on")
    valid: int = Field(96, ge=1, description="photographs to validate on")
    size: Size = Field((375, 500), description="height x width of most photographs, pixels")
    seed: int = Field(0, ge=0, description="another seed draws other people")


class DataSettings(Section):
    root: str | list[str] | None = Field(
        None, description="folder in the Pascal-Part layout, or a list of them; none: the embedded sample"
    )

    @field_validator("root")
    @classmethod
    def _folders_that_differ(cls, value: Any) -> Any:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError(f"{value!r}; name one folder, or several that differ")
        return value

    images: str = Field("JPEGImages", description="folder of photographs under root")
    masks: str = Field("gt_masks", description="folder of masks (.npy or .png class ids) under root")
    train_ids: str = Field("train_id.txt", description="ids to train on, one a line")
    valid_ids: str = Field("val_id.txt", description="ids to validate on")
    size: Size = Field((128, 128), description="height x width the network sees, pixels")
    resize: Literal["squish", "crop", "pad"] = Field(
        "squish", description="how a photograph is brought to that size: squish (aspect given up), pad (kept, in the "
        "middle, 255 around), crop (random parts in training, padded in validation)")  # fmt: skip
    limit: int | None = Field(None, ge=1, description="train on the first N ids only")
    limit_valid: int | None = Field(None, ge=1, description="validate on the first N ids only")
    allow_leak: bool = Field(False, description="train although photographs stand in both lists; metrics.json says so")
    cache: Literal[False, True, "device"] = Field(
        False,
        description="true: frames once made are mapped from the user's cache folder; device: and kept in its memory",
    )
    workers: int | None = Field(None, ge=0, description="reading processes; null: what suits the machine and the cache")
    sample: SampleSettings = Field(SampleSettings(), description="the embedded sample, where root is none")


class ModelSettings(Section):
    arch: Literal[tuple(ARCHITECTURES)] = Field("FPN", description=f"decoder: {', '.join(ARCHITECTURES)}")
    encoder: str = Field("timm-tf_efficientnet_lite0", description="any encoder of segmentation_models_pytorch")
    weights: str = Field("imagenet", description="encoder weights: imagenet, none, or a .safetensors / .pth file")
    auxiliary: float = Field(
        0.0, ge=0, description="weight of smp's auxiliary head, which learns what classes a photograph holds; 0: none"
    )
    args: dict[str, Any] = Field({}, description="further arguments of the architecture's constructor")

    @field_validator("weights", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return "none" if value is None else value


class TrainSettings(Section):
    epochs: int = Field(10, ge=0, description="epochs with all layers training")
    frozen_epochs: int = Field(0, ge=0, description="epochs before them with the encoder frozen (BatchNorm trains)")
    lr: Rate = Field(
        (2e-3, 1e-2), description="peak learning rate; [encoder, decoder] for two; auto asks lr_find"
    )
    encoder_lr: float | None = Field(None, gt=0, description="the encoder's rate as a factor of lr, where that is one")
    schedule: Literal["one_cycle", "cosine", "poly", "constant"] = Field(
        "one_cycle", description="course of the rate: one_cycle, or after a warm-up cosine, poly, constant"
    )
    warmup: float | None = Field(
        None, ge=0, lt=1, description="share of the steps in which the rate rises (null: one_cycle 0.25, others 0.05)"
    )
    batch_size: int = Field(8, ge=1, description="photographs in a step")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up before a step")
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of averaged weights, scored and kept, as 0.999")
    optimizer: Literal["adam", "sgd", "rmsprop", "ranger"] = Field("adam", description="fastai's optimisers")
    weight_decay: float = Field(0.01, ge=0, description="decoupled, as in AdamW; none on norms and biases")
    seed: int = Field(0, ge=0, description="everything random is a function of it")
    deterministic: bool = Field(False, description="only arithmetic that repeats itself exactly on a GPU, too; slower")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="arithmetic of the network in training: fp32, fp16, bf16; auto: bf16 on a GPU that has it"
    )
    channels_last: bool | None = Field(None, description="memory format; null: what is faster on the device")
    compile: bool = Field(False, description="torch.compile the network in place; time an epoch without it, too")
    keep: Literal["best", "last"] = Field("best", description="weights to keep: of the best epoch, or last")
    monitor: str | None = Field(
        None, description="column of history.csv that says what is best (null: the deepest miou); of losses the lowest"
    )
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without improvement in that column")
    save_minutes: float | None = Field(
        10.0, gt=0, description="minutes between checkpoints within an epoch; null: after epochs only"
    )


def _with_csv(value: Any) -> Any:
    """One name or several → a list that begins with csv, which every run writes."""
    names = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(["csv", *names])) if isinstance(names, (list, tuple)) else names


class Settings(Section):
    """All that a run depends on; immutable: change it by `load_config` with overrides, or `model_copy`."""

    name: str = Field("run", pattern=r"^[\w.-]+$", description="ends the run folder's name")
    hierarchy: dict[str, Any] = Field(PASCAL_PART, description="the class tree: leaf name: id, or group name: {…}")
    mirror: list[tuple[str, str]] = Field([], description="pairs of leaves that a horizontal flip exchanges")
    data: DataSettings = Field(DataSettings(), description="files on disk and what the network sees of them")
    augment: AugmentSettings = Field(AugmentSettings(), description="random changes to the training photographs")
    model: ModelSettings = Field(ModelSettings(), description="the network, from segmentation_models_pytorch")
    loss: Annotated[list[LossSettings], BeforeValidator(as_losses)] = Field(
        [CrossEntropySettings(), IoUSettings()], min_length=1, description=f"summed: {', '.join(LOSSES)}"
    )
    train: TrainSettings = Field(TrainSettings(), description="the schedule")
    track: Annotated[list[Literal["csv", "tensorboard", "wandb"]], BeforeValidator(_with_csv)] = Field(
        ["csv"], description="where scores go during a run: csv (history.csv, always), tensorboard, wandb"
    )
    track_pictures: int = Field(1, ge=0, description="epochs from picture to picture in tensorboard and wandb; 0: none")
    live: list[Literal["curves", "prediction"]] = Field(
        ["curves"], description="in a notebook drawn anew after each epoch: curves, prediction (of one photograph)"
    )
    search: SearchSettings = Field(SearchSettings(), description="what `fastseg search` tries, and how long")
    out: str = Field("runs", description="folder that run folders are made in")

    @field_validator("hierarchy", mode="before")
    @classmethod
    def _tree(cls, value: Any) -> Any:
        return Hierarchy(value).tree

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        tree = self.classes()
        check_size(self.data.size, self.model)
        if self.augment.albumentations and self.data.cache == "device":
            raise InputError("augment.albumentations works on the CPU, not on frames in a device's memory; "
                             "set data.cache to true")  # fmt: skip
        if self.train.batch_size == 1 and self.model.arch in POOLED_BATCHNORM:
            raise InputError(
                f"train.batch_size: 1 cannot train {self.model.arch}, whose BatchNorm sees one pixel a "
                "photograph; use 2 or more, or model.arch=FPN"
            )
        if self.train.encoder_lr is not None and isinstance(self.train.lr, tuple):
            raise InputError("train.encoder_lr: train.lr has a rate of its own for the encoder; give one of the two")
        if self.train.epochs + self.train.frozen_epochs == 0:
            raise InputError("train.epochs: 0, and no train.frozen_epochs either; set one to 1 or more")
        for i, loss in enumerate(self.loss):
            check_loss(loss, tree, f"loss.{i}")
        if self.augment.resolved().flip and (sided := _unmirrored(tree)):
            pair = ", ".join(sided)
            raise InputError(f"augment.flip: would take {sided[0]} for {sided[1]}; add the pair to mirror, as in "
                             f"mirror=[[{pair}]], or set augment.flip=0")  # fmt: skip
        return self

    def classes(self) -> Hierarchy:
        """The class tree."""
        return Hierarchy(self.hierarchy, self.mirror)

    @property
    def head(self) -> Literal["leaves", "nodes"]:
        """What the network's channels are: a softmax over the leaves, or with tree_min a sigmoid for every node."""
        return "nodes" if any(loss.name == "tree_min" for loss in self.loss) else "leaves"


def _unmirrored(tree: Hierarchy) -> tuple[str, str] | None:
    """A left leaf and its right twin, by their names, that the tree does not list as each other's mirror image."""
    paired = {tree.leaves[leaf] for pair in tree.mirror for leaf in pair}
    for name in tree.leaves:
        twin = name.lower().replace("left", "right")
        other = next((leaf for leaf in tree.leaves if leaf.lower() == twin and leaf != name), None)
        if other and not {name, other} <= paired:
            return name, other
    return None


def fitting_size(size: Sequence[int], model: ModelSettings) -> Size:
    """The size nearest to one, height x width, that an architecture takes."""
    stride = _stride(model)
    least = -(-SMALLEST.get(model.arch, 1) // stride) * stride
    high, wide = (max(least, round(side / stride) * stride) for side in size)
    return high, wide


def _stride(model: ModelSettings) -> int:
    stride = ARCHITECTURES[model.arch]
    if stride is None:
        return 1
    stride = int(model.args.get("encoder_output_stride", stride))
    return min(stride, 2 ** int(model.args.get("encoder_depth", 5)))


def check_size(size: Size, model: ModelSettings, key: str = "data.size") -> None:
    """Raise `InputError` where an architecture does not take a size, height x width."""
    if min(size) < SMALLEST.get(model.arch, 1):
        raise InputError(f"{key}: {size[0]}x{size[1]}; {model.arch} needs {SMALLEST[model.arch]} pixels a side")
    if fitting_size(size, model) != tuple(size):
        near = "x".join(str(side) for side in fitting_size(size, model))
        raise InputError(
            f"{key}: {size[0]}x{size[1]}; {model.arch} needs height and width divisible by {_stride(model)}: "
            f"use {near}, or Unet, which takes any size"
        )
