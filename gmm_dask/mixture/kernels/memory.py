"""Vectors from arrays and into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gmm_dask.mixture.kernels.lanes import (
    LANES,
    ROWS,
    Lanes,
    Vector,
    constant,
    converted,
    integers,
    kind_of,
    spread,
    vector_of,
    width_of,
)


def _pointer(context: Any, builder: Any, array: tuple[Any, Any], index: tuple[Any, Any]) -> Any:
    """The address of an element of a C-ordered array, given as (type, value) pairs."""
    kind, value = index
    parts = cgutils.unpack_tuple(builder, value) if isinstance(kind, types.BaseTuple) else [value]
    kinds = list(kind) if isinstance(kind, types.BaseTuple) else [kind]
    parts = [context.cast(builder, p, k, types.intp) for p, k in zip(parts, kinds, strict=True)]
    made = context.make_array(array[0])(context, builder, array[1])
    return cgutils.get_item_pointer(context, builder, array[0], made, parts)


def _loader(width: int) -> Callable[..., Vector]:
    @intrinsic
    def load(typing: Any, array: Any, index: Any) -> Any:
        kind = kind_of(array)
        lanes = Lanes(width_of(kind, width), kind)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
            at = builder.bitcast(at, vector_of(kind, lanes.width).as_pointer())
            return builder.load(at, align=kind.bitwidth // 8)

        return lanes(array, index), code

    return load  # type: ignore[no-any-return]


load_rows = _loader(ROWS)  # array[index : index + ROWS] along the last axis, of its kind
load_lanes = _loader(LANES)


@intrinsic
def load_whole(typing: Any, array: Any, index: Any, like: Any) -> Any:
    """LANES elements, as numbers of the kind that another array holds."""
    kind = kind_of(like)
    lanes = Lanes(width_of(kind, LANES), kind)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        at = builder.bitcast(at, vector_of(kind_of(array), lanes.width).as_pointer())
        value = builder.load(at, align=kind_of(array).bitwidth // 8)
        return converted(context, builder, value, kind)

    return lanes(array, index, like), code


@intrinsic
def load_columns(typing: Any, array: Any, index: Any, count: Any, like: Any) -> Any:
    """The same, of which those from `count` on are 0 and not read."""
    kind = kind_of(like)
    lanes = Lanes(width_of(kind, LANES), kind)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        n = context.cast(builder, args[2], kinds[2], types.int64)
        value = _load_some(builder, kind_of(array), lanes.width, at, n)
        return converted(context, builder, value, kind)

    return lanes(array, index, count, like), code


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write all lanes from array[index] on, as numbers of its kind."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        stored = converted(context, builder, args[2], kind)
        at = builder.bitcast(at, stored.type.as_pointer())
        builder.store(stored, at, align=kind.bitwidth // 8)
        return context.get_dummy_value()

    kind = kind_of(array)
    return types.void(array, index, value), code


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """As many vectors as each has lanes: lane i of vector j becomes lane j of vector i."""
    n, step = len(vectors), 1
    while step < n:
        for i in (i for i in range(n) if not i & step):
            a, b = vectors[i], vectors[i + step]
            low = [lane if not lane & step else n + lane - step for lane in range(n)]
            high = [lane + step if not lane & step else n + lane for lane in range(n)]
            vectors[i], vectors[i + step] = (
                builder.shuffle_vector(a, b, ir.Constant(integers(n, 32), each))
                for each in (low, high)
            )
        step *= 2
    return vectors


@intrinsic
def transpose_square(
    typing: Any, X: Any, rows: Any, start: Any, column: Any, count: Any, x: Any, at: Any
) -> Any:
    """X[rows[start + l], column + i] to x[column + i, at + l], for LANES lanes l and columns i.

    Columns from `count` on are not read and become 0.
    """
    kind = kind_of(x)
    n = width_of(kind, LANES)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = dict(
            zip(("X", "rows", "start", "column", "count", "x", "at"), signature.args, strict=True)
        )
        values = dict(zip(kinds, args, strict=True))

        def number(name: str, more: int = 0) -> Any:
            value = context.cast(builder, values[name], kinds[name], types.intp)
            return builder.add(value, ir.Constant(value.type, more))

        def element(name: str, *index: Any) -> Any:
            made = context.make_array(kinds[name])(context, builder, values[name])
            return cgutils.get_item_pointer(context, builder, kinds[name], made, index)

        loaded = []
        for lane in range(n):
            row = builder.load(element("rows", number("start", lane)))
            at = element("X", row, number("column"))
            some = _load_some(builder, kind_of(X), n, at, number("count"))
            loaded.append(converted(context, builder, some, kind))
        for i, vector in enumerate(_transposed(builder, loaded)):
            at = element("x", number("column", i), number("at"))
            at = builder.bitcast(at, vector.type.as_pointer())
            builder.store(vector, at, align=kind.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(X, rows, start, column, count, x, at), code


def _splitter(n_columns: int) -> Callable[..., None]:
    @intrinsic
    def split(typing: Any, X: Any, row: Any, x: Any, at: Any) -> Any:
        kind = kind_of(x)
        n = width_of(kind, LANES)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds, zero = signature.args, ir.Constant(ir.IntType(64), 0)
            row, lane = (context.cast(builder, args[i], kinds[i], types.intp) for i in (1, 3))
            made = context.make_array(kinds[0])(context, builder, args[0])
            start = cgutils.get_item_pointer(context, builder, kinds[0], made, (row, zero))
            whole = vector_of(kind_of(X), n * n_columns)
            start = builder.bitcast(start, whole.as_pointer())
            values = builder.load(start, align=kind_of(X).bitwidth // 8)
            made = context.make_array(kinds[2])(context, builder, args[2])
            for i in range(n_columns):
                places = ir.Constant(integers(n, 32), [i + n_columns * j for j in range(n)])
                column = builder.shuffle_vector(values, values, places)
                column = converted(context, builder, column, kind)
                index = (ir.Constant(zero.type, i), lane)
                end = cgutils.get_item_pointer(context, builder, kinds[2], made, index)
                end = builder.bitcast(end, column.type.as_pointer())
                builder.store(column, end, align=kind.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(X, row, x, at), code

    return split  # type: ignore[no-any-return]


# LANES whole rows of so many columns, from X[row] on, to the columns x[:, at : at + LANES].
split_2, split_3 = _splitter(2), _splitter(3)


def _load_some(builder: Any, kind: Any, width: int, at: Any, count: Any) -> Any:
    """So many elements from an address on, of which those from `count` on are 0 and not read."""
    stored = vector_of(kind, width)
    at = builder.bitcast(at, stored.as_pointer())
    n = spread(builder, count, width)
    mask = builder.icmp_signed("<", ir.Constant(integers(width), list(range(width))), n)
    function = ir.FunctionType(stored, [at.type, ir.IntType(32), mask.type, stored])
    name = f"llvm.masked.load.v{width}f{kind.bitwidth}.p0"
    load = cgutils.get_or_insert_function(builder.module, function, name)
    align = ir.Constant(ir.IntType(32), kind.bitwidth // 8)
    return builder.call(load, [at, align, mask, constant(stored, 0.0)])


@intrinsic
def accumulate(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Add all lanes, as float64, to array[index] and what follows."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        added = converted(context, builder, args[2], types.float64)
        at = builder.bitcast(at, added.type.as_pointer())
        builder.store(builder.fadd(builder.load(at, align=8), added), at, align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), code
