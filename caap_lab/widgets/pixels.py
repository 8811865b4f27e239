"""Photos as the small PNG files that widgets show."""

from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Pixels as PNG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()
