"""Orders of rows that are still numbers: numpy sorts them without holding anybody up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def words(column: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Rows of 16 bytes as two numbers each, which order as the bytes do."""
    pairs = np.ascontiguousarray(column).view(">u8").astype("u8").reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def sorted_by(*columns: Any) -> NDArray[np.intp]:
    """Places of the rows, by the first column, where that is equal by the second, and so on."""
    order: NDArray[np.intp] = np.lexsort([np.asarray(one) for one in reversed(columns)])
    return order
