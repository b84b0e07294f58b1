"""Writes the Iris data (Fisher 1936, as scikit-learn ships them) as a small partitioned dataset.

python examples/make_iris.py [FOLDER]        FOLDER is examples/iris where not given

150 flowers, one folder a species, lengths in centimetres. The species is not a column of the files:
it is the hive key of their folder, so the mixture never sees it and the labels can be compared with
it. The same packages write the same bytes each time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_iris

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
FILES = {"setosa": (50,), "versicolor": (50,), "virginica": (25, 25)}  # rows of each file
ROW_GROUP = 20  # rows at most, so that every file has several row groups


def iris_table() -> tuple[pa.Table, list[str]]:
    """The flowers in scikit-learn's order, and the species of each."""
    iris = load_iris()
    columns = {"flower": pa.array(range(len(iris.target)), pa.int64())}
    for name, values in zip(FEATURES, iris.data.T, strict=True):
        columns[name] = pa.array(values, pa.float64())
    return pa.table(columns), [str(iris.target_names[code]) for code in iris.target]


def write_iris(folder: Path) -> list[Path]:
    """Write the dataset into the folder and return its files, in the order of the flowers."""
    table, species = iris_table()
    written = []
    for name, sizes in FILES.items():
        start = species.index(name)
        for number, size in enumerate(sizes):
            path = folder / f"species={name}" / f"part-{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Uncompressed: no codec's version decides the bytes.
            pq.write_table(
                table.slice(start, size),
                path,
                compression="none",
                row_group_size=ROW_GROUP,
                write_page_checksum=True,
            )
            written.append(path)
            start += size
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "iris"
    for file in write_iris(target):
        print(file)
