"""One frame to image bytes and back."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vtr_jax.data.frame_store.settings import StoreSettings


def encode_frame(frame: np.ndarray, settings: StoreSettings) -> bytes:
    """Encodes one frame, uint8 [R,R,3], as the store's settings say.

    JPEG keeps colour at full resolution (4:4:4): thin coloured edges are where subsampling hurts.
    """
    image = Image.fromarray(frame)
    encoded = io.BytesIO()
    if settings.encoding == "png":
        image.save(encoded, format="PNG")
    else:
        image.save(encoded, format="JPEG", quality=settings.jpeg_quality, subsampling=0)
    return encoded.getvalue()


def decode_frame(encoded: bytes) -> np.ndarray:
    """Decodes one stored frame to uint8 [R,R,3]; equal to what the input pipeline decodes.

    Raises OSError where the bytes are no image.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))
