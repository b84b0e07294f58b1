// A block of rows, held transposed: the values of one column lie side by side.
#pragma once

#include "vectors.hpp"

namespace LEVEL {

// Logical sizes are the same at every level, or sums would have other bits.
template <class T> constexpr int ROWS = 256 / int(sizeof(T));      // of a block
template <class T> constexpr int LINE_VALUES = 64 / int(sizeof(T));  // of a cache line
constexpr int SUM_LANES = 8;  // places that each sum over rows is kept in

constexpr int64_t filled_up(int64_t d, int64_t to) { return (d + to - 1) / to * to; }

// Columns c.. of the rows, as many as a register has lanes, of as many rows.
template <class T> INLINE void transpose_part(const T *const *row, int64_t c, T *x) {
  constexpr int L = LANES_OF<T>;
  Register<T> v[L];
  _Pragma("GCC unroll 16") for (int i = 0; i < L; i++) v[i] = load_unaligned(row[i] + c);
  transpose_square<L>(v);
  _Pragma("GCC unroll 16") for (int i = 0; i < L; i++) *(Register<T> *)(x + (c + i) * ROWS<T>) = v[i];
}

// Rows of few columns: a compiler makes good loops of a constant number of columns.
template <int D, class T> INLINE void transpose_few(const T *X, const int32_t *order, T *__restrict x) {
  constexpr int R = ROWS<T>;
  if (order[R - 1] - order[0] == R - 1) {  // side by side in memory
    const T *p = X + int64_t(order[0]) * D;
    for (int c = 0; c < D; c++)
      for (int l = 0; l < R; l++) x[c * R + l] = p[l * D + c];
    return;
  }
  for (int l = 0; l < R; l++) {
    const T *p = X + int64_t(order[l]) * D;
    for (int c = 0; c < D; c++) x[c * R + l] = p[c];
  }
}

// x (d, ROWS) of the rows order[0:ROWS] of X, which lie `stride` values apart.
template <class T> static void transpose(const T *X, int64_t stride, const int32_t *order, int64_t d, T *x) {
  constexpr int L = LANES_OF<T>, R = ROWS<T>;
  if (stride == d && d <= 3) {
    if (d == 1) transpose_few<1>(X, order, x);
    if (d == 2) transpose_few<2>(X, order, x);
    if (d == 3) transpose_few<3>(X, order, x);
    return;
  }
  for (int l = 0; l < R; l += L) {
    const T *row[L];
    for (int i = 0; i < L; i++) row[i] = X + int64_t(order[l + i]) * stride;
    int64_t c = 0;
    for (; c + L <= d; c += L) transpose_part(row, c, x + l);
    for (; c < d; c++)
      for (int i = 0; i < L; i++) x[c * R + l + i] = row[i][c];
  }
}

// A bit for each row of the block in which a value is greater than the limit.
template <class T> INLINE uint64_t rows_greater(const T *values, T limit) {
  typedef Strip<T> S;
  uint64_t bits = 0;
  for (int l = 0; l < ROWS<T>; l += S::size) bits |= bits_greater(load<S>(values + l), all<S>(limit)) << l;
  return bits;
}
template <class T> constexpr uint64_t ALL_ROWS = ROWS<T> == 64 ? ~uint64_t(0) : (uint64_t(1) << (ROWS<T> & 63)) - 1;

}  // namespace LEVEL
