"""Entry points as a user would write them."""

import dask.array as da
import dask.bag as db


def one(size=4):
    return da.arange(size, chunks=2)


def several(size, *, factor=1):
    numbers = da.arange(size, chunks=2) * factor
    return {"numbers": numbers, "total": numbers.sum(), "words": db.from_sequence(["a", "b"], npartitions=2)}


def pair():
    return da.ones(2), da.zeros(2)


def configured(params, base):
    return base + params["offset"]


def missing_import():
    import lacking_module

    return lacking_module


def failing():
    raise ValueError("no pipeline today")


NOT_CALLABLE = 3
