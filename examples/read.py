"""Reads what flights.yaml keeps, with an unmodified Dask Client: `python read.py [ADDRESS] [FOLDER]`.

ADDRESS is that of Mainstay's scheduler, or of the environment variable DASK_SCHEDULER_ADDRESS. With the FOLDER of the
Parquet files, the answers are checked against what pandas makes of them.
"""

import os
import sys

import pandas as pd
from distributed import Client


def main(address, folder=None):
    with Client(address) as client:
        print("datasets:", ", ".join(client.list_datasets()))
        flights = client.get_dataset("flights/flights")
        delays = client.get_dataset("flights/delays").compute().sort_index()
        print(f"\nflights: {len(flights):,} rows in {flights.npartitions} partitions, in the memory of the workers")
        print("\nArrival delays in minutes, by carrier and month:\n", delays.head(12).to_string(), sep="")

        # Something new: it runs on the workers, on the partitions that they hold.
        fastest = flights.groupby("dest").speed.mean().nlargest(5).compute()
        print("\nThe fastest ways from New York, in miles an hour:\n", fastest.round(1).to_string(), sep="")

    if folder:
        check(folder, delays, fastest)
        print("\npandas says the same.")


def check(folder, delays, fastest):
    """Compares with pandas on the same files."""
    table = pd.read_parquet(folder).dropna(subset=["dep_delay", "arr_delay"])
    expected = table.groupby(["carrier", "month"]).arr_delay.agg(flights="count", mean="mean", worst="max")
    pd.testing.assert_frame_equal(delays, expected.sort_index(), check_dtype=False, check_index_type=False)
    speed = (table.distance / table.air_time * 60).groupby(table.dest).mean().nlargest(5)
    pd.testing.assert_series_equal(fastest, speed, check_names=False, check_index_type=False)


if __name__ == "__main__":
    arguments = sys.argv[1:] or [os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")]
    main(*arguments)
