"""Compiles the core while the package is installed or a wheel is made: by $CXX, else by ziglang.

The library lies beside its sources in `gmm_dask/mixture/core`. Where there is no compiler the
package is installed without it, and NumPy's arithmetic is used; a fit says so.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = Path("gmm_dask/mixture/core")
GLIBC = "2.17"  # that of manylinux2014
# Bits must not depend on the compiler: no contraction of a * b + c, and never -ffast-math.
FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-math-errno"),
    *("-fno-exceptions", "-fno-rtti", "-fvisibility=hidden", "-Wall", "-Wextra"),
)


class Target(NamedTuple):  # hatchling runs this file outside of sys.modules: no dataclasses
    """What a library is built for.

    Parameters
    ----------
    system : {"linux", "darwin", "win32"}
    machine : {"x86_64", "aarch64"}
    triple : str
        As zig names the target.
    tag : str
        Of the wheel.
    """

    system: str
    machine: str
    triple: str
    tag: str

    @property
    def library(self) -> str:
        """File name of the library; `gmm_dask.mixture.core.library` looks for the same one."""
        machine = {("darwin", "aarch64"): "arm64", ("win32", "x86_64"): "amd64"}.get(
            (self.system, self.machine), self.machine
        )
        suffix = {"darwin": "dylib", "win32": "dll"}.get(self.system, "so")
        return f"_core-{self.system}-{machine}.{suffix}"

    @property
    def levels(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each processor level and the flags that ask for it, as zig and as GCC have them."""
        if self.machine == "aarch64":
            return (("aarch64", ()),)
        return tuple((f"v{n}", (f"-mcpu=x86_64_v{n}", f"-march=x86-64-v{n}")) for n in (2, 3, 4))


TARGETS = {
    "linux-x86_64": Target(
        "linux", "x86_64", f"x86_64-linux-gnu.{GLIBC}", "py3-none-manylinux_2_17_x86_64"
    ),
    "linux-aarch64": Target(
        "linux", "aarch64", f"aarch64-linux-gnu.{GLIBC}", "py3-none-manylinux_2_17_aarch64"
    ),
    "musl-x86_64": Target("linux", "x86_64", "x86_64-linux-musl", "py3-none-musllinux_1_2_x86_64"),
    "musl-aarch64": Target(
        "linux", "aarch64", "aarch64-linux-musl", "py3-none-musllinux_1_2_aarch64"
    ),
    "macos-x86_64": Target("darwin", "x86_64", "x86_64-macos.11.0", "py3-none-macosx_11_0_x86_64"),
    "macos-aarch64": Target(
        "darwin", "aarch64", "aarch64-macos.11.0", "py3-none-macosx_11_0_arm64"
    ),
    "windows-x86_64": Target("win32", "x86_64", "x86_64-windows-gnu", "py3-none-win_amd64"),
}


def native() -> str:
    """The name of the target that this Python runs on."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
    if system == "linux" and platform.libc_ver()[0] != "glibc":
        system = "musl"
    return f"{system}-{machine}"


def compiler_for(target: Target, *, is_native: bool) -> tuple[list[str], bool] | None:
    """The compiler's command for the target, and whether it is zig; None where there is none."""
    if os.environ.get("CXX") and is_native:
        return shlex.split(os.environ["CXX"]), False
    if find_spec("ziglang") is not None:
        command = [sys.executable, "-m", "ziglang", "c++", "-target", target.triple]
        return [*command, "-fno-sanitize=all"], True
    return None


def build(
    sources: Path, target: Target, library: Path, compiler: Sequence[str], *, is_zig: bool
) -> None:
    """Compile the sources once for each level, in a folder of their own, and link the library."""
    units = [("core", "core.cpp", ())]
    for level, flags in target.levels:
        chosen = flags[: 1 if is_zig else 2][-1:] if flags else ()
        small = ("-Os",) if level == "v2" else ()  # processors before 2013: a wheel is under 1 MB
        units.append((level, "level.cpp", (f"-DLEVEL={level}", *chosen, *small)))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        objects = [str(Path(folder) / f"{name}.o") for name, _, _ in units]

        def compiled(unit: tuple[str, str, tuple[str, ...]], to: str) -> None:
            _, source, flags = unit
            _run([*compiler, *FLAGS, *flags, "-c", str(sources / source), "-o", to], folder)

        list(pool.map(compiled, units, objects))
        # Nothing of libc++ is used; asked to link C++, zig would compile that first.
        linker = ["cc" if part == "c++" else part for part in compiler] if is_zig else [*compiler]
        linked = Path(folder) / target.library
        _run([*linker, "-shared", "-s", *objects, "-o", str(linked)], folder)
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(linked.read_bytes())


def _run(command: Sequence[str], cache: str) -> None:
    caches = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}  # there may be no home
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=caches | os.environ
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-4000:]}")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the library of one target: the native one, or that of $GMM_DASK_TARGET."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library unless it is newer than its sources; put it into the wheel."""
        if self.target_name != "wheel":
            return
        name = os.environ.get("GMM_DASK_TARGET") or native()
        target, root = TARGETS.get(name), Path(self.root)
        found = None if target is None else compiler_for(target, is_native=name == native())
        if target is None or found is None:
            self.app.display_warning(
                "gmm_dask is installed without its compiled core: there is neither $CXX nor "
                "ziglang for this platform. NumPy's arithmetic is used, many times slower."
            )
            return
        # Libraries for glibc and for musl have one name: those of other platforms lie apart.
        library = (root / CORE if name == native() else root / "build" / name) / target.library
        sources = root / CORE / "src"
        inputs = [*sources.iterdir(), Path(__file__)]
        newest = max(each.stat().st_mtime for each in inputs)
        if not library.exists() or library.stat().st_mtime < newest:
            build(sources, target, library, found[0], is_zig=found[1])
        if version != "editable":
            build_data["force_include"][str(library)] = str(CORE / target.library)
        build_data["pure_python"] = False
        build_data["tag"] = target.tag
