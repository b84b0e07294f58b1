"""Vectors of one kind of float as values in compiled code: every row goes through the same code.

LLVM's own vectoriser runs the rows that are left over at the end of a loop through other code,
which may round differently, and gives up registers between two loops. Here the width is explicit:
a `Lanes` value of any width is cut into the registers the processor has. The kind is that of the
arrays: float64, or float32 in vectors of as many bytes, so of twice as many lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic, models, overload, register_model

Vector = Any  # a Lanes value, as annotations call it


def _has_avx512() -> bool:
    if config.CPU_NAME or config.CPU_FEATURES:
        return "+avx512f" in (config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("avx512f"))


# Of float64; of float32 there are twice as many of both in the same registers.
LANES = 8 if _has_avx512() else 4
ROWS = 4 * LANES
# Sums of ROWS lanes that fit into the registers, beside as many lanes of input and a factor.
SUMS = 4 if _has_avx512() else 2


class Lanes(types.Type):  # type: ignore[misc]
    """So many numbers of one kind, float64 or float32, side by side."""

    def __init__(self, width: int, kind: Any = types.float64) -> None:
        self.width, self.kind = width, kind
        super().__init__(f"Lanes({width} {kind})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, vector_of(lanes.kind, lanes.width))


def vector_of(kind: Any, width: int) -> Any:
    """LLVM's type of so many numbers."""
    element = ir.FloatType() if kind == types.float32 else ir.DoubleType()
    return ir.VectorType(element, width)


def kind_of(array: Any) -> Any:
    """Of the numbers in an array or a vector: float64 or float32."""
    kind = array.kind if isinstance(array, Lanes) else array.dtype
    if kind not in (types.float64, types.float32):
        raise TypeError(f"lanes are of float64 or float32, not of {kind}")
    return kind


def width_of(kind: Any, width: int) -> int:
    """Lanes of a kind in a vector of so many float64."""
    return width * types.float64.bitwidth // int(kind.bitwidth)


def integers(width: int, bits: int = 64) -> Any:
    """LLVM's type of so many integers."""
    return ir.VectorType(ir.IntType(bits), width)


def constant(kind: Any, value: float) -> Any:
    """A vector with one number in every lane, known when it is compiled."""
    return ir.Constant(kind, [value] * kind.count)


def converted(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """A vector's numbers as those of another kind."""
    wanted = vector_of(kind, value.type.count)
    if value.type == wanted:
        return value
    wider = kind == types.float64
    return builder.fpext(value, wanted) if wider else builder.fptrunc(value, wanted)


def spread(builder: Any, value: Any, width: int) -> Any:
    """A vector with one value in every lane."""
    kind = ir.VectorType(value.type, width)
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, constant(integers(width, 32), 0))


def _filler(width: int) -> Callable[..., Vector]:
    @intrinsic
    def fill(typing: Any, like: Any, value: Any) -> Any:
        kind = kind_of(like)
        lanes = Lanes(width_of(kind, width), kind)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = context.cast(builder, args[1], signature.args[1], kind)
            return spread(builder, number, lanes.width)

        return lanes(like, value), code

    return fill  # type: ignore[no-any-return]


rows = _filler(ROWS)  # one number in every lane, of the kind of an array
lanes = _filler(LANES)


def _counter(width: int) -> Callable[..., int]:
    @intrinsic
    def count(typing: Any, like: Any) -> Any:
        n = width_of(kind_of(like), width)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.get_constant(types.intp, n)

        return types.intp(like), code

    return count  # type: ignore[no-any-return]


n_rows = _counter(ROWS)  # in a vector of the kind of an array
n_lanes = _counter(LANES)


@intrinsic
def doubled(typing: Any, x: Any) -> Any:
    """The same numbers as float64."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return converted(context, builder, args[0], types.float64)

    return Lanes(x.width)(x), code


def _elementwise(build: Callable[..., Any], n_arguments: int) -> Callable[..., Vector]:
    """A function of vectors of one width; numbers among the arguments stand in every lane."""

    def typed(arguments: tuple[Any, ...]) -> Any:
        lanes = next(a for a in arguments if isinstance(a, Lanes))

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = []
            for kind, value in zip(signature.args, args, strict=True):
                if not isinstance(kind, Lanes):
                    number = context.cast(builder, value, kind, lanes.kind)
                    value = spread(builder, number, lanes.width)
                values.append(value)
            return build(builder, *values)

        return lanes(*arguments), code

    def one(typing: Any, a: Any) -> Any:
        return typed((a,))

    def two(typing: Any, a: Any, b: Any) -> Any:
        return typed((a, b))

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return typed((a, b, c))

    def four(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return typed((a, b, c, d))

    return intrinsic((one, two, three, four)[n_arguments - 1])  # type: ignore[no-any-return]


class _Format(NamedTuple):
    """How a float is laid out: its bits, those of the mantissa, and the exponent of 1."""

    bits: int
    mantissa: int
    bias: int


def _format(vector: Any) -> _Format:
    return _Format(64, 52, 1023) if vector.element == ir.DoubleType() else _Format(32, 23, 127)


def _called(name: str, builder: Any, *values: Any) -> Any:
    kind = values[0].type
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(values)),
        f"llvm.{name}.v{kind.count}f{_format(kind).bits}",
    )
    return builder.call(function, values)


_fused = partial(_called, "fmuladd")
add = _elementwise(lambda builder, a, b: builder.fadd(a, b), 2)
subtract = _elementwise(lambda builder, a, b: builder.fsub(a, b), 2)
multiply = _elementwise(lambda builder, a, b: builder.fmul(a, b), 2)
divide = _elementwise(lambda builder, a, b: builder.fdiv(a, b), 2)
multiply_add = _elementwise(_fused, 3)  # a * b + c
square_root = _elementwise(partial(_called, "sqrt"), 1)


def _where_greater(builder: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), x, y)


where_greater = _elementwise(_where_greater, 4)  # x where a > b, else y; NaN is not greater
larger = _elementwise(lambda builder, a, b: _where_greater(builder, a, b, a, b), 2)


def _scaled(builder: Any, x: Any, shifted: Any) -> Any:
    form = _format(x.type)
    whole = integers(x.type.count, form.bits)
    bits = builder.shl(builder.bitcast(shifted, whole), constant(whole, form.mantissa))
    return builder.bitcast(builder.add(builder.bitcast(x, whole), bits), x.type)


def _mantissa(builder: Any, x: Any) -> Any:
    form = _format(x.type)
    whole = integers(x.type.count, form.bits)
    kept = constant(whole, (1 << form.mantissa) - 1)
    bits = builder.and_(builder.bitcast(x, whole), kept)
    one = constant(whole, form.bias << form.mantissa)
    return builder.bitcast(builder.or_(bits, one), x.type)


def _exponent(builder: Any, x: Any) -> Any:
    form = _format(x.type)
    whole = integers(x.type.count, form.bits)
    bits = builder.lshr(builder.bitcast(x, whole), constant(whole, form.mantissa))
    # The bits of 2^52 (2^23) plus a small integer are those of the integer with this in front.
    front = (form.bias + form.mantissa) << form.mantissa
    bits = builder.or_(bits, constant(whole, front))
    shift = constant(x.type, 2.0**form.mantissa + form.bias)
    return builder.fsub(builder.bitcast(bits, x.type), shift)


scaled = _elementwise(_scaled, 2)  # x 2^n of x and n + 1.5 * 2^52 (2^23), both normal numbers
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
        first = ir.Constant(integers(half, 32), list(range(half)))
        second = ir.Constant(integers(half, 32), list(range(half, 2 * half)))
        x = builder.fadd(builder.shuffle_vector(x, x, first), builder.shuffle_vector(x, x, second))
    return x


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """The sum of all lanes."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = _halved(builder, args[0], 1)
        return builder.extract_element(one, ir.Constant(ir.IntType(32), 0))

    return x.kind(x), code


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
    """ROWS lanes added up to LANES of them, in halves; LANES are those of float64."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _halved(builder, args[0], LANES)

    return Lanes(LANES, x.kind)(x), code


@intrinsic
def folded_product(typing: Any, a: Any, b: Any) -> Any:
    """The same of a product; in float32 one register after another, by fused additions."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if a.kind == types.float64:
            return _halved(builder, builder.fmul(*args), LANES)
        width, summed = width_of(a.kind, LANES), None
        for start in range(0, a.width, width):
            chosen = ir.Constant(integers(width, 32), list(range(start, start + width)))
            x, y = (builder.shuffle_vector(each, each, chosen) for each in args)
            summed = builder.fmul(x, y) if summed is None else _fused(builder, x, y, summed)
        return _halved(builder, summed, LANES)

    return Lanes(LANES, a.kind)(a, b), code


def by_kind(double: Callable[..., Any], single: Callable[..., Any]) -> Callable[..., Any]:
    """A function for compiled code: one of two, by the kind of its first argument."""

    def chosen(first: Any, *others: Any) -> Any:
        raise TypeError("only compiled code tells the kinds apart")

    def choose(first, *others):  # type: ignore[no-untyped-def]  # numba compares signatures
        function = single if kind_of(first) == types.float32 else double
        return lambda first, *others: function(first, *others)

    overload(chosen)(choose)
    return chosen
