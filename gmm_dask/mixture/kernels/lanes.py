"""Vectors of float64 as values in compiled code: every row goes through the same instructions.

LLVM's own vectoriser runs the rows that are left over at the end of a loop through other code,
which may round differently, and gives up registers between two loops. Here the width is explicit:
a `Lanes` value of any width is cut into the registers the processor has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic, models, register_model

Vector = Any  # a Lanes value, as annotations call it


def _has_avx512() -> bool:
    if config.CPU_NAME or config.CPU_FEATURES:
        return "+avx512f" in (config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("avx512f"))


# Four accumulators of ROWS lanes, ROWS lanes of input and one factor fit into the registers.
LANES = 8 if _has_avx512() else 4
ROWS = 4 * LANES if _has_avx512() else 2 * LANES


class Lanes(types.Type):  # type: ignore[misc]
    """So many float64 side by side."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _doubles(lanes.width))


def _doubles(width: int) -> Any:
    return ir.VectorType(ir.DoubleType(), width)


def _integers(width: int, bits: int = 64) -> Any:
    return ir.VectorType(ir.IntType(bits), width)


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _pointer(context: Any, builder: Any, array: tuple[Any, Any], index: tuple[Any, Any]) -> Any:
    """The address of an element of a C-ordered array, given as (type, value) pairs."""
    kind, value = index
    parts = cgutils.unpack_tuple(builder, value) if isinstance(kind, types.BaseTuple) else [value]
    kinds = list(kind) if isinstance(kind, types.BaseTuple) else [kind]
    parts = [context.cast(builder, p, k, types.intp) for p, k in zip(parts, kinds, strict=True)]
    made = context.make_array(array[0])(context, builder, array[1])
    return cgutils.get_item_pointer(context, builder, array[0], made, parts)


def _stored(array: Any, width: int) -> tuple[Any, int, str]:
    """How so many elements lie in memory: their vector, its alignment, and LLVM's word for it."""
    if array.dtype == types.float32:
        return ir.VectorType(ir.FloatType(), width), 4, f"v{width}f32"
    if array.dtype != types.float64:
        raise TypeError(f"lanes are loaded from float64 or float32, not {array.dtype}")
    return _doubles(width), 8, f"v{width}f64"


def _widened_load(builder: Any, value: Any) -> Any:
    wide = _doubles(value.type.count)
    return value if value.type == wide else builder.fpext(value, wide)


def _loader(width: int) -> Callable[..., Vector]:
    @intrinsic
    def load(typing: Any, array: Any, index: Any) -> Any:
        stored, align, _ = _stored(array, width)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
            at = builder.bitcast(at, stored.as_pointer())
            return _widened_load(builder, builder.load(at, align=align))

        return Lanes(width)(array, index), code

    return load  # type: ignore[no-any-return]


load_rows = _loader(ROWS)  # array[index : index + ROWS] along the last axis
load_lanes = _loader(LANES)


@intrinsic
def load_columns(typing: Any, array: Any, index: Any, count: Any) -> Any:
    """LANES elements of which those from `count` on are 0 and not read."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        n = context.cast(builder, args[2], kinds[2], types.int64)
        return _load_some(builder, kinds[0], at, n)

    return Lanes(LANES)(array, index, count), code


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write all lanes from array[index] on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        at = _pointer(context, builder, (kinds[0], args[0]), (kinds[1], args[1]))
        builder.store(args[2], builder.bitcast(at, args[2].type.as_pointer()), align=8)
        return context.get_dummy_value()

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
                builder.shuffle_vector(a, b, ir.Constant(_integers(n, 32), each))
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
        for lane in range(LANES):
            row = builder.load(element("rows", number("start", lane)))
            at = element("X", row, number("column"))
            loaded.append(_load_some(builder, kinds["X"], at, number("count")))
        for i, vector in enumerate(_transposed(builder, loaded)):
            at = element("x", number("column", i), number("at"))
            builder.store(vector, builder.bitcast(at, vector.type.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(X, rows, start, column, count, x, at), code


def _load_some(builder: Any, array: Any, at: Any, count: Any) -> Any:
    """LANES elements from an address on, of which those from `count` on are 0 and not read."""
    stored, align, word = _stored(array, LANES)
    at = builder.bitcast(at, stored.as_pointer())
    n = _spread(builder, count, LANES)
    mask = builder.icmp_signed("<", ir.Constant(_integers(LANES), list(range(LANES))), n)
    kind = ir.FunctionType(stored, [at.type, ir.IntType(32), mask.type, stored])
    load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.{word}.p0")
    arguments = [at, ir.Constant(ir.IntType(32), align), mask, _constant(stored, 0.0)]
    return _widened_load(builder, builder.call(load, arguments))


def _spread(builder: Any, value: Any, width: int) -> Any:
    kind = ir.VectorType(value.type, width)
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, _constant(_integers(width, 32), 0))


def _filler(width: int) -> Callable[..., Vector]:
    @intrinsic
    def fill(typing: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.cast(builder, args[0], signature.args[0], types.float64)
            return _spread(builder, number, width)

        return Lanes(width)(value), code

    return fill  # type: ignore[no-any-return]


rows = _filler(ROWS)  # one number in every lane
lanes = _filler(LANES)


def _elementwise(build: Callable[..., Any], n_arguments: int) -> Callable[..., Vector]:
    """A function of vectors of one width; numbers among the arguments stand in every lane."""

    def typed(arguments: tuple[Any, ...]) -> Any:
        width = next(a.width for a in arguments if isinstance(a, Lanes))

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = []
            for kind, value in zip(signature.args, args, strict=True):
                if not isinstance(kind, Lanes):
                    number = context.cast(builder, value, kind, types.float64)
                    value = _spread(builder, number, width)
                values.append(value)
            return build(builder, *values)

        return Lanes(width)(*arguments), code

    def one(typing: Any, a: Any) -> Any:
        return typed((a,))

    def two(typing: Any, a: Any, b: Any) -> Any:
        return typed((a, b))

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return typed((a, b, c))

    def four(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return typed((a, b, c, d))

    return intrinsic((one, two, three, four)[n_arguments - 1])  # type: ignore[no-any-return]


def _builtin(name: str, n_arguments: int) -> Callable[..., Vector]:
    def build(builder: Any, *values: Any) -> Any:
        kind = values[0].type
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [kind] * n_arguments),
            f"llvm.{name}.v{kind.count}f64",
        )
        return builder.call(function, values)

    return _elementwise(build, n_arguments)


add = _elementwise(lambda builder, a, b: builder.fadd(a, b), 2)
subtract = _elementwise(lambda builder, a, b: builder.fsub(a, b), 2)
multiply = _elementwise(lambda builder, a, b: builder.fmul(a, b), 2)
divide = _elementwise(lambda builder, a, b: builder.fdiv(a, b), 2)
multiply_add = _builtin("fmuladd", 3)  # a * b + c
square_root = _builtin("sqrt", 1)


def _where_greater(builder: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), x, y)


where_greater = _elementwise(_where_greater, 4)  # x where a > b, else y; NaN is not greater
larger = _elementwise(lambda builder, a, b: _where_greater(builder, a, b, a, b), 2)


def _scaled(builder: Any, x: Any, shifted: Any) -> Any:
    integers = _integers(x.type.count)
    bits = builder.shl(builder.bitcast(shifted, integers), _constant(integers, 52))
    return builder.bitcast(builder.add(builder.bitcast(x, integers), bits), x.type)


def _mantissa(builder: Any, x: Any) -> Any:
    integers = _integers(x.type.count)
    bits = builder.and_(builder.bitcast(x, integers), _constant(integers, (1 << 52) - 1))
    return builder.bitcast(builder.or_(bits, _constant(integers, 1023 << 52)), x.type)


def _exponent(builder: Any, x: Any) -> Any:
    integers = _integers(x.type.count)
    bits = builder.lshr(builder.bitcast(x, integers), _constant(integers, 52))
    # The bits of 2^52 plus a small integer are those of the integer with this in front.
    bits = builder.or_(bits, _constant(integers, 0x433 << 52))
    return builder.fsub(builder.bitcast(bits, x.type), _constant(x.type, 2.0**52 + 1023))


scaled = _elementwise(_scaled, 2)  # x 2^n of x and n + 1.5 * 2^52, both normal numbers
mantissa = _elementwise(_mantissa, 1)  # of a positive normal number, in [1, 2)
exponent = _elementwise(_exponent, 1)


def _any(compare: Callable[[Any, Any, Any], Any]) -> Callable[..., bool]:
    @intrinsic
    def any_lane(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            mask = compare(builder, *args)
            bits = builder.bitcast(mask, ir.IntType(mask.type.count))
            return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

        return types.boolean(a, b), code

    return any_lane  # type: ignore[no-any-return]


any_greater = _any(lambda builder, a, b: builder.fcmp_ordered(">", a, b))  # NaN is not greater
any_within = _any(lambda builder, a, b: builder.fcmp_unordered("<=", a, b))  # NaN is within


def _halved(builder: Any, x: Any, width: int) -> Any:
    """The first half of the lanes plus the second, until so many are left."""
    while (half := x.type.count // 2) >= width:
        first = ir.Constant(_integers(half, 32), list(range(half)))
        second = ir.Constant(_integers(half, 32), list(range(half, 2 * half)))
        x = builder.fadd(builder.shuffle_vector(x, x, first), builder.shuffle_vector(x, x, second))
    return x


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum of all lanes."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = _halved(builder, args[0], 1)
        return builder.extract_element(one, ir.Constant(ir.IntType(32), 0))

    return types.float64(x), code


@intrinsic
def bits_greater(typing: Any, a: Any, b: Any) -> Any:
    """Bit i tells whether a > b in lane i; at most 64 lanes."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = builder.fcmp_ordered(">", *args)
        bits = builder.bitcast(mask, ir.IntType(mask.type.count))
        return bits if mask.type.count == 64 else builder.zext(bits, ir.IntType(64))

    return types.uint64(a, b), code


@intrinsic
def folded(typing: Any, x: Any) -> Any:
    """ROWS lanes added up to LANES of them, in halves."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _halved(builder, args[0], LANES)

    return Lanes(LANES)(x), code
