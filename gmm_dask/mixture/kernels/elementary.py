"""Exponential and logarithm of vectors, to about one unit in the last place."""

from __future__ import annotations

from gmm_dask.mixture.kernels.compiling import loop
from gmm_dask.mixture.kernels.lanes import (
    Vector,
    add,
    by_kind,
    divide,
    exponent,
    mantissa,
    multiply,
    multiply_add,
    scaled,
    subtract,
    where_greater,
)

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: a product with n is exact
LN2_LOW = 1.90821492927058770002e-10
ROUNDING = 1.5 * 2.0**52  # a number added to this is rounded to an integer, in its last bits
ROOT_2 = 1.4142135623730951
LOWEST = -708.0  # exp of this is the least that is no denormal number
SINGLE_LN2_HIGH = 0.693359375  # 10 bits
SINGLE_LN2_LOW = -2.12194440054690583e-04
SINGLE_ROUNDING = 1.5 * 2.0**23
SINGLE_LOWEST = -87.0


@loop
def exp_double(x: Vector) -> Vector:
    """e^x of x <= 0, and e^LOWEST below that."""
    x = where_greater(x, LOWEST, x, LOWEST)
    shifted = multiply_add(x, LOG2_E, ROUNDING)
    n = subtract(shifted, ROUNDING)
    f = multiply_add(n, -LN2_LOW, multiply_add(n, -LN2_HIGH, x))
    p = multiply_add(f, 2.08767569878681e-09, 2.5052108385441720e-08)  # 1 / 12!, 1 / 11!, ...
    p = multiply_add(p, f, 2.7557319223985888e-07)
    p = multiply_add(p, f, 2.7557319223985893e-06)
    p = multiply_add(p, f, 2.4801587301587302e-05)
    p = multiply_add(p, f, 1.9841269841269841e-04)
    p = multiply_add(p, f, 1.3888888888888889e-03)
    p = multiply_add(p, f, 8.3333333333333332e-03)
    p = multiply_add(p, f, 4.1666666666666664e-02)
    p = multiply_add(p, f, 1.6666666666666666e-01)
    p = multiply_add(p, f, 0.5)
    p = multiply_add(p, f, 1.0)
    p = multiply_add(p, f, 1.0)
    return scaled(p, shifted)


@loop
def exp_single(x: Vector) -> Vector:
    """The same of float32, and e^SINGLE_LOWEST below that."""
    x = where_greater(x, SINGLE_LOWEST, x, SINGLE_LOWEST)
    shifted = multiply_add(x, LOG2_E, SINGLE_ROUNDING)
    n = subtract(shifted, SINGLE_ROUNDING)
    f = multiply_add(n, -SINGLE_LN2_LOW, multiply_add(n, -SINGLE_LN2_HIGH, x))
    p = multiply_add(f, 1.9841269841269841e-04, 1.3888888888888889e-03)  # 1 / 7!, 1 / 6!, ...
    p = multiply_add(p, f, 8.3333333333333332e-03)
    p = multiply_add(p, f, 4.1666666666666664e-02)
    p = multiply_add(p, f, 1.6666666666666666e-01)
    p = multiply_add(p, f, 0.5)
    p = multiply_add(p, f, 1.0)
    p = multiply_add(p, f, 1.0)
    return scaled(p, shifted)


@loop
def log_double(x: Vector) -> Vector:
    """Natural logarithm of x >= 1.

    Notes
    -----
    The rational approximation of FreeBSD's e_log.c (Sun Microsystems 1993).
    """
    m, n = mantissa(x), exponent(x)
    n = where_greater(m, ROOT_2, add(n, 1.0), n)
    m = where_greater(m, ROOT_2, multiply(m, 0.5), m)
    f = subtract(m, 1.0)
    s = divide(f, add(f, 2.0))
    z = multiply(s, s)
    w = multiply(z, z)
    even = multiply_add(w, 1.531383769920937332e-01, 2.222219843214978396e-01)
    even = multiply(w, multiply_add(w, even, 3.999999999940941908e-01))
    odd = multiply_add(w, 1.479819860511658591e-01, 1.818357216161805012e-01)
    odd = multiply_add(w, multiply_add(w, odd, 2.857142874366239149e-01), 6.666666666666735130e-01)
    odd = multiply(z, odd)
    half = multiply(multiply(f, f), 0.5)
    small = multiply_add(s, add(half, add(even, odd)), multiply(n, LN2_LOW))
    return subtract(multiply(n, LN2_HIGH), subtract(subtract(half, small), f))


@loop
def log_single(x: Vector) -> Vector:
    """The same of float32: the series of 2 artanh((m - 1) / (m + 1)) up to the ninth power."""
    m, n = mantissa(x), exponent(x)
    n = where_greater(m, ROOT_2, add(n, 1.0), n)
    m = where_greater(m, ROOT_2, multiply(m, 0.5), m)
    f = subtract(m, 1.0)
    s = divide(f, add(f, 2.0))
    z = multiply(s, s)
    p = multiply_add(z, 0.2222222222222222, 0.2857142857142857)  # 2 / 9, 2 / 7, ...
    p = multiply_add(p, z, 0.4)
    p = multiply_add(p, z, 0.6666666666666666)
    half = multiply(multiply(f, f), 0.5)
    small = multiply_add(s, multiply_add(p, z, half), multiply(n, SINGLE_LN2_LOW))
    return subtract(multiply(n, SINGLE_LN2_HIGH), subtract(subtract(half, small), f))


exp = by_kind(exp_double, exp_single)  # e^x of x <= 0
log = by_kind(log_double, log_single)  # of x >= 1
