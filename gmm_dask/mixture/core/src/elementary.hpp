// exp and log of packs: polynomials of our own, so that every level has the same bits.
#pragma once

#include "vectors.hpp"

namespace LEVEL {

constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
constexpr float SINGLE_LN2_HIGH = 0.693359375f, SINGLE_LN2_LOW = -2.12194440054690583e-04f;

// The polynomial with these coefficients, the highest power first (Horner's scheme).
template <class P> INLINE P polynomial(P x, P sum) {
  (void)x;
  return sum;
}
template <class P, class... More> INLINE P polynomial(P x, P sum, typename P::value coefficient, More... more) {
  return polynomial(x, multiply_add(sum, x, all<P>(coefficient)), more...);
}

// e^x for x <= 0, to 2 units in the last place; below the least normal power of e it is that power.
// x = n ln 2 + f, and e^f by its Taylor polynomial (Cody and Waite 1980, chapter 6).
template <int N> INLINE Pack<double, N> exp_of(Pack<double, N> x) {
  typedef Pack<double, N> P;
  const P lowest = all<P>(-708.0);
  x = where_greater(x, lowest, x, lowest);
  const Doubles shift = broadcast(6755399441055744.0);  // 1.5 * 2^52: what is added to it is rounded to an integer
  const P s = multiply_add(x, broadcast(1.4426950408889634), shift), n = s - shift;
  const P f = multiply_add(n, broadcast(-LN2_LOW), multiply_add(n, broadcast(-LN2_HIGH), x));
  const P first = multiply_add(f, broadcast(2.08767569878681e-09), broadcast(2.5052108385441720e-08));
  return scaled(polynomial(f, first, 2.7557319223985888e-07, 2.7557319223985893e-06, 2.4801587301587302e-05,
                           1.9841269841269841e-04, 1.3888888888888889e-03, 8.3333333333333332e-03,
                           4.1666666666666664e-02, 1.6666666666666666e-01, 0.5, 1.0, 1.0),
                s);
}
template <int N> INLINE Pack<float, N> exp_of(Pack<float, N> x) {
  typedef Pack<float, N> P;
  const P lowest = all<P>(-87.0f);
  x = where_greater(x, lowest, x, lowest);
  const Floats shift = broadcast(12582912.0f);  // 1.5 * 2^23
  const P s = multiply_add(x, broadcast(1.4426950408889634f), shift), n = s - shift;
  const P f = multiply_add(n, broadcast(-SINGLE_LN2_LOW), multiply_add(n, broadcast(-SINGLE_LN2_HIGH), x));
  const P first = multiply_add(f, broadcast(1.9841269841269841e-04f), broadcast(1.3888888888888889e-03f));
  return scaled(polynomial(f, first, 8.3333333333333332e-03f, 4.1666666666666664e-02f, 1.6666666666666666e-01f, 0.5f,
                           1.0f, 1.0f),
                s);
}

// log x for x >= 1, to 1 unit in the last place. x = 2^n (1 + f), s = f / (2 + f), and
// log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R(s^2))) (FDLIBM's e_log.c, Sun Microsystems 1993).
template <class P> INLINE P log_of(P x) {
  typedef typename P::value T;
  const P one = all<P>(T(1)), root2 = all<P>(T(1.4142135623730951));
  P m = mantissa(x), n = exponent(x);
  n = where_greater(m, root2, n + one, n);
  m = where_greater(m, root2, m * broadcast(T(0.5)), m);
  const P f = m - one, s = f / (f + broadcast(T(2))), z = s * s, half = (f * f) * broadcast(T(0.5));
  if constexpr (sizeof(T) == 8) {
    const P w = z * z;
    const P even = multiply_add(w, broadcast(1.531383769920937332e-01), broadcast(2.222219843214978396e-01));
    const P odd = multiply_add(w, broadcast(1.479819860511658591e-01), broadcast(1.818357216161805012e-01));
    const P rest = w * polynomial(w, even, 3.999999999940941908e-01) +
                   z * polynomial(w, odd, 2.857142874366239149e-01, 6.666666666666735130e-01);
    const P small = multiply_add(s, half + rest, n * broadcast(LN2_LOW));
    return n * broadcast(LN2_HIGH) - ((half - small) - f);
  } else {
    const P first = multiply_add(z, broadcast(0.2222222222222222f), broadcast(0.2857142857142857f));
    const P p = polynomial(z, first, 0.4f, 0.6666666666666666f);
    const P small = multiply_add(s, multiply_add(p, z, half), n * broadcast(SINGLE_LN2_LOW));
    return n * broadcast(SINGLE_LN2_HIGH) - ((half - small) - f);
  }
}

}  // namespace LEVEL
