"""The settings of augmentation: three presets, and every number in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fastseg.values import Section, Share, Span

# What each preset sets; `none` changes nothing. The evidence is in nbs/01_data.ipynb, for flips in nbs/03_losses.ipynb.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {
        "flip": 0.0, "rotate": 0.0, "scale": (1.0, 1.0), "perspective": 0.0, "brightness": 0.0, "contrast": 0.0,
        "saturation": 0.0, "hue": 0.0, "grey": 0.0, "blur": 0.0, "blur_sigma": 1.5, "jpeg": 0.0, "jpeg_quality": 30.0,
        "erase": 0.0, "erase_area": (0.02, 0.15), "class_crop": 0.0, "class_crop_zoom": (1.2, 2.0),
        "class_crop_pixels": 48,
    },
    "flip": {"flip": 0.5},
    "light": {
        "flip": 0.5, "rotate": 10.0, "scale": (0.75, 1.5), "brightness": 0.2, "contrast": 0.2, "saturation": 0.2,
        "hue": 0.02,
    },
    "strong": {
        "flip": 0.5, "rotate": 20.0, "scale": (0.5, 2.0), "perspective": 0.15, "brightness": 0.4, "contrast": 0.4,
        "saturation": 0.4, "hue": 0.05, "grey": 0.1, "blur": 0.1, "jpeg": 0.2, "erase": 0.2, "class_crop": 0.3,
    },
}  # fmt: skip


def _number(key: str, about: str) -> Any:
    known = {name: values[key] for name, values in AUGMENTATIONS.items() if key in values}
    said = ", ".join(f"{name} {list(v) if isinstance(v, tuple) else v}" for name, v in known.items())
    return Field(None, description=f"{about} (null: the preset's: {said})")


class AugmentSettings(Section):
    preset: Literal[tuple(AUGMENTATIONS)] = Field("flip", description=f"each epoch's: {', '.join(AUGMENTATIONS)}")
    flip: Share | None = _number("flip", "share flipped left to right; the pairs of `mirror` change places")
    rotate: Annotated[float, Field(ge=0, le=180)] | None = _number("rotate", "turned by up to so many degrees")
    scale: Span | None = _number("scale", "zoomed between these factors, aspect kept")
    perspective: Annotated[float, Field(ge=0, lt=0.5)] | None = _number("perspective", "tilted by up to this")
    brightness: Share | None = _number("brightness", "changed by up to this share")
    contrast: Share | None = _number("contrast", "changed by up to this share")
    saturation: Share | None = _number("saturation", "changed by up to this share")
    hue: Annotated[float, Field(ge=0, le=0.5)] | None = _number("hue", "turned by up to this part of the circle")
    grey: Share | None = _number("grey", "share without colour")
    blur: Share | None = _number("blur", "share blurred")
    blur_sigma: Annotated[float, Field(gt=0, le=20)] | None = _number("blur_sigma", "largest sigma of a blur, pixels")
    jpeg: Share | None = _number("jpeg", "share with the blocks of a poor JPEG")
    jpeg_quality: Annotated[float, Field(ge=1, le=95)] | None = _number("jpeg_quality", "poorest quality of these")
    erase: Share | None = _number("erase", "share with a rectangle erased (255 in the mask)")
    erase_area: Span | None = _number("erase_area", "its share of the picture, from and to")
    class_crop: Share | None = _number("class_crop", "share cropped around a pixel of a class drawn by rarity")
    class_crop_zoom: Span | None = _number("class_crop_zoom", "zoom of these crops, from and to")
    class_crop_pixels: Annotated[int, Field(ge=1)] | None = _number("class_crop_pixels", "fewest pixels of that class")
    albumentations: str | None = Field(
        None, description="a pipeline serialised by albumentations (.yaml, .json), applied before all others"
    )

    @field_validator("erase_area")
    @classmethod
    def _within_the_picture(cls, value: Span | None) -> Span | None:
        if value and value[1] > 1:
            raise ValueError(f"{value[1]} is more than the whole picture; write shares of it, 1 at most")
        return value

    def resolved(self) -> AugmentSettings:
        """The same with every number set, as the preset has them."""
        numbers = {**AUGMENTATIONS["none"], **AUGMENTATIONS[self.preset]}
        return self.model_copy(update={key: v for key, v in numbers.items() if getattr(self, key) is None})

    def moves(self) -> bool:
        """Whether photographs are enlarged, so that they must be read larger than the network sees them."""
        n = self.resolved()
        return bool(n.rotate or n.perspective or n.class_crop or n.scale != (1.0, 1.0))

    def active(self) -> bool:
        """Whether any batch is changed."""
        n = self.resolved()
        keys = ("flip", "brightness", "contrast", "saturation", "hue", "grey", "blur", "jpeg", "erase")
        return self.moves() or self.albumentations is not None or any(getattr(n, key) for key in keys)
