"""The pixel statistics that CLIP's preprocessing normalises by."""

from __future__ import annotations

import numpy as np

PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
