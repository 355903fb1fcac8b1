"""How images look and what a model says of them: `kennel drift` compares callers' with those that training keeps."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...core.decoding import FORMATS, ImageError, decode
from ...core.decoding.containers import without_metadata
from ...core.predictor import Predictor
from ...serving.invocation import classify
from ...serving.request import Options

# Of two samples of so many, a difference of 0.1 is significant at 1%: half of what is called drift.
REFERENCE_IMAGES = 500
_SIDE = 256  # pixels of the longer side at which an image is measured; a smaller one is measured as it is
_BLANK = 4.0  # of 255: with a smaller standard deviation of its grey values there is nothing to see in an image


def look(data: bytes, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an image file and of the answer to it; an ImageError says why there are none.

    Grey values that are all multiplied change the brightness alone: a darker picture is not taken for a blurred one.
    """
    image = decode(data, target_size=_SIDE)
    with Image.open(io.BytesIO(without_metadata(data)[1]), formats=FORMATS) as original:  # the other may be reduced
        found = {"aspect": image.width / image.height, "size": (original.width * original.height) ** 0.5}
    image.thumbnail((_SIDE, _SIDE))
    grey = np.asarray(image.convert("L"), np.float64)
    mean, deviation = grey.mean(), grey.std()
    laplacian = np.diff(grey, 2, axis=0)[:, 1:-1] + np.diff(grey, 2, axis=1)[1:-1]
    found |= {"brightness": mean / 255, "contrast": deviation / mean if mean else 0, "blank": deviation < _BLANK}
    found |= {"sharpness": laplacian.std() / deviation if deviation and laplacian.size else 0}
    found |= {"unknown": not answer["known"]} if "known" in answer else {}
    found |= {"confidence": answer["predictions"][0]["probability"]}
    # Wherever a figure is computed it is to be the same number.
    return {"predicted": answer["predictions"][0]["label"], **{name: float(f"{found[name]:.4g}") for name in found}}


def reference(predictor: Predictor, paths: Sequence[Path], threads: int) -> list[dict[str, Any]]:
    """Return the figures of the first images as the endpoint sees them; one that it would refuse is left out."""

    def read(path: Path) -> dict[str, Any] | None:
        try:
            return look(data := path.read_bytes(), json.loads(classify(predictor, data, Options(top_k=1)).body))
        except (ImageError, OSError, KeyError):
            return None

    with ThreadPoolExecutor(threads) as pool:
        return [found for found in pool.map(read, paths[:REFERENCE_IMAGES]) if found]
