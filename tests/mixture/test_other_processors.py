"""The core elsewhere: its calls are written down here and made again, on an ARM processor and
under sanitizers, which see every access beyond an array and every operation without a meaning.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hatch_build
from gmm_dask.mixture import core
from gmm_dask.mixture.core import arguments, explanations, groups, library
from tests.mixture.test_core import BIT_CASES, bits_of_case

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / hatch_build.CORE / "src"
FUNCTIONS = (
    "gmm_expect", "gmm_score", "gmm_look_at", "gmm_settle", "gmm_seed", "gmm_put_in_order",
    "gmm_explain", "gmm_find_two_best", "gmm_interpolate",
)  # fmt: skip
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
INTEGER = struct.Struct("<q")


class Calls:
    """Calls of the core, written down before they are made, and what they changed here."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []
        self._arrays: dict[int, np.ndarray[Any, Any]] = {}

    def address(self, array: np.ndarray[Any, Any] | None) -> int | None:
        found = library.address(array)
        if found is not None and array is not None:
            self._arrays[found] = array
        return found

    def call(self, function: str, *records: ctypes.Structure) -> None:
        parts = [INTEGER.pack(FUNCTIONS.index(function))]
        for record in records:
            pointers = [*self._pointers(record)]
            parts += [INTEGER.pack(ctypes.sizeof(record)), bytes(record)]
            parts.append(INTEGER.pack(len(pointers)))
            for place, array in pointers:
                parts += [INTEGER.pack(place), INTEGER.pack(array.nbytes), array.tobytes()]
        self.asked.append(b"".join(parts))
        library.call(function, *records)
        for record in records:
            pointers = [*self._pointers(record)]
            content = bytearray(bytes(record))
            for place, _ in pointers:
                content[place : place + 8] = bytes(8)
            self.answered += [bytes(content), *(array.tobytes() for _, array in pointers)]
        self._arrays.clear()

    def _pointers(self, record: ctypes.Structure) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        for name, type_ in record._fields_:  # type: ignore[misc]
            if type_ is ctypes.c_void_p and (value := getattr(record, name)) is not None:
                yield getattr(type(record), name).offset, self._arrays[value]


def built_for_aarch64(folder: Path) -> Path:
    """The core and the program that replays calls, for ARM's processors, without a library."""
    program = folder / "replay"
    sources = [SOURCES / "core.cpp", SOURCES / "level.cpp", Path(__file__).with_name("replay.cpp")]
    command = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl", "-static"]
    options = [*hatch_build.FLAGS, "-fno-sanitize=all", "-DLEVEL=aarch64", f"-I{SOURCES}"]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    subprocess.run(
        [*command, *options, *map(str, sources), "-o", str(program)], env=caches, check=True
    )
    return program


def calls_of(cases: Sequence[tuple[str, int, int, str]], monkeypatch: pytest.MonkeyPatch) -> Calls:
    """All calls that the mixtures of `test_core` take."""
    made = Calls()
    for module in (core, arguments, explanations, groups):
        monkeypatch.setattr(module, "address", made.address)
    for module in (core, explanations, groups):
        monkeypatch.setattr(module, "call", made.call)
    for case in cases:
        bits_of_case(*case)
    assert {call[:8] for call in made.asked} == {INTEGER.pack(i) for i in range(len(FUNCTIONS))}
    return made


def written(made: Calls, folder: Path) -> Path:
    """The calls as a file."""
    target = folder / "calls"
    target.write_bytes(INTEGER.pack(len(made.asked)) + b"".join(made.asked))
    return target


@pytest.mark.heavy
@pytest.mark.timeout(1500)
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-aarch64 (Debian: qemu-user-static)")
@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs ziglang")
@pytest.mark.skipif(library.level() < 3, reason="this processor has no fused multiply-add")
def test_an_arm_processor_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = calls_of(BIT_CASES, monkeypatch)
    asked, answered = written(made, tmp_path), tmp_path / "answers"
    assert EMULATOR is not None
    program = built_for_aarch64(tmp_path)
    subprocess.run([EMULATOR, program, asked, answered], check=True, timeout=1200)
    assert answered.read_bytes() == b"".join(made.answered)


# zig has no runtime for addresses: it traps at what has no meaning. GCC looks after both.
ZIG = [sys.executable, "-m", "ziglang", "c++"]
SANITIZERS = {
    "zig": (ZIG, ("-fsanitize=undefined", "-fsanitize-trap=undefined")),
    "g++": (["g++"], ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
}


@pytest.mark.heavy
@pytest.mark.timeout(1500)
@pytest.mark.skipif(library.level() not in (3, 4), reason="needs an x86-64 of 2013 or later")
@pytest.mark.parametrize("compiler", SANITIZERS)
def test_sanitizers_find_nothing(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every level of this processor; every seventh mixture has each shape, family and way."""
    command, options = SANITIZERS[compiler]
    is_there = find_spec("ziglang") if compiler == "zig" else shutil.which(compiler)
    if is_there is None:
        pytest.skip(f"needs {compiler}")
    made = calls_of(BIT_CASES[::7], monkeypatch)
    program, asked = tmp_path / "replay", written(made, tmp_path)
    target = hatch_build.TARGETS["linux-x86_64"]
    shared = [*command, *hatch_build.FLAGS, "-O1", *options, f"-I{SOURCES}"]
    sources = [
        (SOURCES / "core.cpp", "core", ()),
        (Path(__file__).with_name("replay.cpp"), "main", ()),
    ]
    for level, (zig, gcc) in target.levels:
        flag = zig if compiler == "zig" else gcc
        sources.append((SOURCES / "level.cpp", level, (f"-DLEVEL={level}", flag)))
    for source, name, flags in sources:
        to = tmp_path / f"{name}.o"
        subprocess.run([*shared, *flags, "-c", str(source), "-o", str(to)], check=True)
    objects = [str(tmp_path / f"{name}.o") for _, name, _ in sources]
    subprocess.run([*command, *options, *objects, "-o", str(program)], check=True)
    for level in range(2, library.level() + 1):
        answers = tmp_path / f"answers-{level}"
        subprocess.run([program, asked, answers, str(level)], check=True, timeout=1200)
        assert level == 2 or answers.read_bytes() == b"".join(made.answered)
