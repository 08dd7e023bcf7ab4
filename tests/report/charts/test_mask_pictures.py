"""Masks as pictures, read back pixel by pixel."""

import base64
import io

import numpy as np
from PIL import Image

from mbench.report.charts.mask_pictures import data_uri


def test_a_picture_tells_what_the_reference_keeps_too():
    first = np.array([[True, True, False, False], [True, True, False, False]])
    second = np.array([[True, False, True, False], [True, True, False, False]])
    picture = data_uri(first, second).removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        pixels = np.asarray(image.convert("RGBA"))
    blue, orange = (47, 120, 196, 255), (217, 119, 6, 255)
    assert [tuple(p) for p in pixels[0, :2]] == [blue, orange]
    assert (pixels[1, :2] == blue).all()
    assert (pixels[:, 2:, 3] == 0).all()
