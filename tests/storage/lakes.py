"""Places for files: a folder of this machine, and a bucket of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tests.object_service import files


class Lake(Protocol):
    """A place for files: a folder, or a bucket."""

    root: str

    def put(self, *names: str, content: bytes = b"PAR1") -> None: ...


class FolderLake:
    def __init__(self, folder: Path) -> None:
        self.root = str(folder)

    def put(self, *names: str, content: bytes = b"PAR1") -> None:
        for name in names:
            file = Path(self.root, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


class BucketLake:
    def __init__(self, bucket: str) -> None:
        self.root = f"s3://{bucket}"

    def put(self, *names: str, content: bytes = b"PAR1") -> None:
        bucket = self.root.removeprefix("s3://")
        for name in names:
            files().call_s3("put_object", Bucket=bucket, Key=name, Body=content)
