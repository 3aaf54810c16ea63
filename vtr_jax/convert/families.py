"""Published families of CLIP that a bare weight file may be, with what to pass for each.

A weight file without a configuration does not say its activation or image settings. Shapes leave
few candidates; this table has their public settings. Source: open_clip 3.3.0, pretrained.py and
model_configs (preprocessing and quick_gelu of every tag). CLIPA (mean and deviation of ImageNet,
bilinear, squash) is not here: its towers pool otherwise than CLIP's and are rejected by name.
"""

from __future__ import annotations

import dataclasses

from vtr_jax.models.clip import ClipConfig
from vtr_jax.vocabulary import TOKENISER_VOCABULARY

Shape = tuple[int, int, int, int]  # patch size, width, layers, resolution of the image tower
_B32: Shape = (32, 768, 12, 224)
_B32_256: Shape = (32, 768, 12, 256)
_B16: Shape = (16, 768, 12, 224)
_B16_PLUS: Shape = (16, 896, 12, 240)
_L14: Shape = (14, 1024, 24, 224)
_L14_336: Shape = (14, 1024, 24, 336)
_H14: Shape = (14, 1280, 32, 224)
_H14_378: Shape = (14, 1280, 32, 378)
_G14: Shape = (14, 1408, 40, 224)
_BIGG14: Shape = (14, 1664, 48, 224)
_HALVES = "--image_mean=0.5,0.5,0.5 --image_std=0.5,0.5,0.5"
_SQUASH = "--resize_mode=squash"


@dataclasses.dataclass(frozen=True)
class Family:
    """Weights of one program and data set with equal settings.

    Attributes:
        name: as its authors call it.
        shapes: of the image towers it was published with.
        activation: of both towers.
        options: image settings that differ from OpenAI's, as options of `vtr convert`.
    """

    name: str
    shapes: tuple[Shape, ...]
    activation: str = "gelu"
    options: str = ""

    @property
    def arguments(self) -> str:
        """The options of `vtr convert` for these weights."""
        return f"--activation={self.activation} {self.options}".strip()


FAMILIES = (
    Family("OpenAI", (_B32, _B16, _L14, _L14_336), "quick_gelu"),
    Family("LAION-400M B/32", (_B32,), "quick_gelu"),
    Family("LAION-400M", (_B16, _B16_PLUS, _L14)),
    Family("LAION-2B", (_B32, _B16, _H14, _G14, _BIGG14)),
    Family("LAION-2B L/14", (_L14,), options=_HALVES),
    Family("DataComp and CommonPool", (_B32, _B32_256, _B16, _L14)),
    Family("DFN-2B", (_B16, _L14), "quick_gelu"),
    Family("DFN-2B L/14 39B", (_L14,)),
    Family("DFN-5B", (_H14, _H14_378), "quick_gelu", _SQUASH),
    Family("MetaCLIP", (_B32, _B16, _L14, _H14, _BIGG14), "quick_gelu"),
    Family("MetaCLIP H/14 altogether (v1.2)", (_H14,)),
)


def possible_families(clip: ClipConfig) -> tuple[Family, ...]:
    """Return the families that have towers of these sizes and CLIP's vocabulary."""
    vision = clip.vision
    shape = (vision.patch_size, vision.width, vision.layers, vision.image_resolution)
    if clip.text.vocab_size != TOKENISER_VOCABULARY:
        return ()
    return tuple(family for family in FAMILIES if shape in family.shapes)


def family_hint(clip: ClipConfig) -> str | None:
    """Return a sentence on which weights these may be and what to pass, None for unknown sizes."""
    families = possible_families(clip)
    if not families:
        return None
    by_arguments: dict[str, list[str]] = {}
    for family in families:
        by_arguments.setdefault(family.arguments, []).append(family.name)
    choices = "; ".join(
        f"{', '.join(names)}: {arguments}" for arguments, names in by_arguments.items()
    )
    return f"towers of this size were published as {choices}"
