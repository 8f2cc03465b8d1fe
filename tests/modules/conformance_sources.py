"""An entrypoint."""

import dask.array as da


def build(stop, step=1, params=None):
    numbers = da.arange(0, stop, step, chunks=2) + params["offset"]
    return {"numbers": numbers, "mean": numbers.mean()}
