// Squared Mahalanobis distances of a block of rows.
#pragma once

#include "block.hpp"

namespace LEVEL {

// Rows of a block that are left together once all of them are out of reach; no result depends on it.
template <class T> constexpr int PART = REGISTER_BYTES == 64 ? ROWS<T> : ROWS<T> / 2;

// Add the squares of columns c to c + N - 1 of U^T D to `squares`, for the rows from `from` on.
//
// `u` is the factor's part of these columns, packed: u[i * N + q] = U[i, c + q]. The new columns D = x - mean
// are noted as they come. For a bound D is the projected block y itself, and the sums begin at -offset.
template <int N, bool IS_BOUND, class T>
INLINE void add_columns(const T *x, const T *mean, const T *u, int64_t c, T *D, T *squares, int from) {
  typedef Narrow<T> P;
  constexpr int R = ROWS<T>;
  for (int l = from; l < from + PART<T>; l += P::size) {
    P z[N];
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) z[q] = all<P>(IS_BOUND ? -mean[c + q] : T(0));
    const T *v = u, *p = (IS_BOUND ? x : D) + l;
    for (int64_t i = 0; i < c; i++, v += N, p += R) {
      const P t = load<P>(p);
      _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) z[q] = multiply_add(t, broadcast(v[q]), z[q]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < N; i++) {  // the triangle at the diagonal
      P t = load<P>(x + (c + i) * R + l);
      if (!IS_BOUND) {
        t = t - broadcast(mean[c + i]);
        store(D + (c + i) * R + l, t);
      }
      _Pragma("GCC unroll 4") for (int q = i; q < N; q++) z[q] = multiply_add(t, broadcast(v[i * N + q]), z[q]);
    }
    P sum = c ? load<P>(squares + l) : all<P>(T(0));
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) sum = multiply_add(z[q], z[q], sum);
    store(squares + l, sum);
  }
}

// Whether a row of the part has a square under its limit.
template <class T> INLINE bool any_under(const T *limit, const T *squares) {
  typedef Strip<T> S;
  bool found = false;
  for (int l = 0; l < PART<T>; l += S::size) found |= any_greater(load<S>(limit + l), load<S>(squares + l));
  return found;
}

// Whether every row of the part has a square over its limit; NaN is over nothing.
template <class T> INLINE bool all_over(const T *squares, const T *limit) {
  typedef Strip<T> S;
  constexpr uint64_t every = S::size == 64 ? ~uint64_t(0) : (uint64_t(1) << (S::size & 63)) - 1;
  bool found = true;
  for (int l = 0; l < PART<T>; l += S::size)
    found &= bits_greater(load<S>(squares + l), load<S>(limit + l)) == every;
  return found;
}

// squares = |U^T (x - mean)|^2 for a part of the rows.
//
// The sum over the first columns is the distance in the first features alone and never more than the whole:
// once every row is over its limit the rest is left, and `squares` is a lower bound.
template <class T>
INLINE void of_matrix(const T *x, const T *mean, const T *packed, int64_t d, const T *limit, T *D, T *squares,
                      int from) {
  const T *u = packed;
  int64_t c = 0;
  for (; c + 4 <= d; c += 4) {
    add_columns<4, false>(x, mean, u, c, D, squares, from);
    u += 4 * (c + 4);
    if (c + 4 == d || !any_under(limit + from, squares + from)) return;
  }
  if (d - c == 1) add_columns<1, false>(x, mean, u, c, D, squares, from);
  if (d - c == 2) add_columns<2, false>(x, mean, u, c, D, squares, from);
  if (d - c == 3) add_columns<3, false>(x, mean, u, c, D, squares, from);
}

// Columns c to c + N - 1 of U^T D, for all rows of a block; `u` as for add_columns.
template <int N, class T> INLINE void whiten_columns(const T *D, const T *u, int64_t c, T *white) {
  typedef Narrow<T> P;
  constexpr int R = ROWS<T>;
  for (int l = 0; l < R; l += P::size) {
    P z[N];
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) z[q] = all<P>(T(0));
    for (int64_t i = 0; i < c; i++) {
      const P t = load<P>(D + i * R + l);
      _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) z[q] = multiply_add(t, broadcast(u[i * N + q]), z[q]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < N; i++) {
      const P t = load<P>(D + (c + i) * R + l);
      _Pragma("GCC unroll 4") for (int q = i; q < N; q++)
        z[q] = multiply_add(t, broadcast(u[(c + i) * N + q]), z[q]);
    }
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) store(white + (c + q) * R + l, z[q]);
  }
}

// white (d, ROWS) = U^T (x - middle); D is workspace.
template <class T>
static void whiten(const T *x, const T *middle, const T *packed, int64_t d, T *D, T *white) {
  typedef Strip<T> S;
  constexpr int R = ROWS<T>;
  for (int64_t i = 0; i < d; i++)
    for (int l = 0; l < R; l += S::size) store(D + i * R + l, load<S>(x + i * R + l) - broadcast(middle[i]));
  const T *u = packed;
  int64_t c = 0;
  for (; c + 4 <= d; c += 4) {
    whiten_columns<4>(D, u, c, white);
    u += 4 * (c + 4);
  }
  if (d - c == 1) whiten_columns<1>(D, u, c, white);
  if (d - c == 2) whiten_columns<2>(D, u, c, white);
  if (d - c == 3) whiten_columns<3>(D, u, c, white);
}

// squares = |U^T y - offset|^2 of projected rows; true once every row of the part is over its limit.
template <class T>
INLINE bool is_out_of_reach(const T *y, const T *offset, const T *packed, int64_t s, const T *limit, T *squares,
                            int from) {
  const T *u = packed;
  for (int64_t c = 0; c < s; c += 4) {
    add_columns<4, true>(y, offset, u, c, (T *)nullptr, squares, from);
    u += 4 * (c + 4);
    if (all_over(squares + from, limit + from)) return true;
  }
  return false;
}

// A triangular factor, packed by groups of four columns, of which the last has d % 4.
inline int64_t packed_size(int64_t d) {
  int64_t size = 0, c = 0;
  for (; c + 4 <= d; c += 4) size += 4 * (c + 4);
  return filled_up(size + (d - c) * d, 16);
}
template <class T> static void pack(const T *U, int64_t d, T *u) {
  for (int64_t c = 0; c < d; c += 4) {
    const int64_t n = d - c < 4 ? d - c : 4;
    for (int64_t i = 0; i < c + n; i++)
      for (int64_t q = 0; q < n; q++) *u++ = U[i * d + c + q];
  }
}

}  // namespace LEVEL
