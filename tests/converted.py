"""Files in the layout of others, converted."""

import numpy as np

from lensfind.data import Store
from lensfind.prepare import prepare


def convert(name, input, tmp_path, **options) -> Store:
    prepare(source=name, input=input, output=tmp_path / "out", processes=1, rows_per_part=4, **options)
    return Store(tmp_path / "out")


def spot(size: int, sigma: float = 3.0, flux: float = 1.0) -> np.ndarray:
    r2 = ((np.indices((size, size)) - (size - 1) / 2) ** 2).sum(0)
    image = np.exp(-0.5 * r2 / sigma**2)
    return (flux * image / image.sum()).astype(np.float32)
