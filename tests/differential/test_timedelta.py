"""The texts of durations that unit tests of Mainstay know: Dask says what is right."""

import pathlib
import re

from dask.utils import parse_timedelta

SOURCE = pathlib.Path(__file__).parents[2] / "src/dask/timedelta.rs"


def table(name):
    """The rows of a constant of that file, whose texts are written as in JSON."""
    text = re.search(rf"const {name}: .*?= &\[\n(.*?)\n    \];", SOURCE.read_text(), re.DOTALL)[1]
    return [eval(row.strip().rstrip(",")) for row in text.splitlines()]


def test_the_table_is_what_dask_gives():
    rows = table("AS_DASK")
    assert len(rows) > 40
    assert [(text, float(parse_timedelta(text))) for text, _ in rows] == rows


def test_dask_raises_at_what_is_refused():
    rows = table("REFUSED_BY_DASK")
    assert len(rows) > 30
    for text in rows:
        try:
            found = parse_timedelta(text)
        except Exception:
            continue
        raise AssertionError(f"{text!r} is {found}")
