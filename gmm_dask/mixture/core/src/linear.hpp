// The largest of many linear functions of a row: the nearest of centres, the likeliest of components.
#pragma once

#include "block.hpp"

namespace LEVEL {

constexpr int FOUR = 4;  // functions that are looked at together

// Coefficients (k, d) in fours, value by value: packed[j / 4][i][j % 4]. The last four are filled up with zeros.
template <class T> static void pack_fours(const T *coefficients, int64_t k, int64_t d, T *packed) {
  for (int64_t j = 0; j < filled_up(k, FOUR); j++)
    for (int64_t i = 0; i < d; i++)
      packed[(j / FOUR * d + i) * FOUR + j % FOUR] = j < k ? coefficients[j * d + i] : T(0);
}

// Which of k functions, a multiple of 4, is the largest at each row of a block; the first of several.
//
// Those that fill up the last four have constants of -infinity.
template <class T>
INLINE void find_largest(const T *x, const T *packed, const T *constants, int64_t d, int64_t k, T *largest) {
  typedef Narrow<T> P;
  constexpr int R = ROWS<T>;
  for (int l = 0; l < R; l += P::size) {
    P best = all<P>(-T(__builtin_inf())), which = all<P>(T(0));
    for (int64_t j = 0; j < k; j += FOUR) {
      P z[FOUR];
      _Pragma("GCC unroll 4") for (int q = 0; q < FOUR; q++) z[q] = all<P>(constants[j + q]);
      const T *c = packed + j * d, *p = x + l;
      for (int64_t i = 0; i < d; i++, c += FOUR, p += R) {
        const P t = load<P>(p);
        _Pragma("GCC unroll 4") for (int q = 0; q < FOUR; q++) z[q] = multiply_add(t, broadcast(c[q]), z[q]);
      }
      _Pragma("GCC unroll 4") for (int q = 0; q < FOUR; q++) {
        which = where_greater(z[q], best, all<P>(T(j + q)), which);
        best = larger(z[q], best);
      }
    }
    store(largest + l, which);
  }
}

}  // namespace LEVEL
