"""Entrypoints."""

import dask.array as da


def build(stop, step=1, params=None):
    numbers = da.arange(0, stop, step, chunks=2) + params["offset"]
    return {"numbers": numbers, "mean": numbers.mean()}


def of_inputs(array, frame, bag, later, plain, nested, by):
    import dask

    @dask.delayed
    def count(bag, frame, later, plain, nested):
        return len(bag) + len(frame) + later + plain["limit"] + nested["all"][0]

    return array * by, count(bag, frame, later, plain, nested)
