"""From MLX's arrays to what the drawing libraries take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_numpy(array: Any) -> NDArray[np.float64]:
    """Numbers as float64: an MLX array of any dtype (bfloat16 too), NumPy's, or nested lists."""
    import numpy as np

    if isinstance(array, mx.array):
        array = np.array(array.astype(mx.float32))
    return np.asarray(array, dtype=np.float64)


def with_gaps(values: NDArray[np.float64]) -> NDArray[np.object_]:
    """`values` with None where there is no number: plotly leaves such a cell out."""
    import numpy as np

    given: NDArray[np.object_] = values.astype(object)
    given[~np.isfinite(values)] = None
    return given
