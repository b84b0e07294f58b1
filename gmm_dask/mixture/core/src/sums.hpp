// Sums of r (x - m) and r (x - m)(x - m)^T, over the rows of a block or over the rows of a list.
#pragma once

#include "block.hpp"

namespace LEVEL {

constexpr int FEW_COLUMNS = 8;  // up to which sums are taken over rows in lanes; beyond, over rows in a list
constexpr int MANY = 2;          // a component with more than one in so many rows of a block is summed over all of them
constexpr int LIST_ROWS = 64;   // rows of a component that are weighted and multiplied at once

constexpr bool sums_in_lists(int64_t d) { return d > FEW_COLUMNS; }

// The four lines of a block in one column.
template <class T> struct Column {
  Line<T> a, b, c, d;
};
template <class T> INLINE Column<T> column(const T *p) {
  constexpr int V = LINE_VALUES<T>;
  typedef Line<T> L;
  return {load<L>(p), load<L>(p + V), load<L>(p + 2 * V), load<L>(p + 3 * V)};
}
template <class T> INLINE void store(T *p, Column<T> x) {
  constexpr int V = LINE_VALUES<T>;
  store(p, x.a);
  store(p + V, x.b);
  store(p + 2 * V, x.c);
  store(p + 3 * V, x.d);
}
template <class T> INLINE Column<T> operator*(Column<T> x, Column<T> y) {
  return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d};
}
template <class T> INLINE Line<T> folded(Column<T> x) { return (x.a + x.c) + (x.b + x.d); }
template <class T> INLINE Line<T> folded_product(Column<T> x, Column<T> y) {
  return multiply_add(x.d, y.d, multiply_add(x.c, y.c, multiply_add(x.b, y.b, x.a * y.a)));
}

// x - m; in float32 the mean is in two parts and has all its digits.
template <class P> INLINE P from_mean(P x, Register<typename P::value> mean, Register<typename P::value> rest) {
  return sizeof(typename P::value) == 4 ? (x - mean) - rest : x - mean;
}
template <class P> INLINE P from_mean(P x, P mean, P rest) {
  return sizeof(typename P::value) == 4 ? (x - mean) - rest : x - mean;
}
template <class T> INLINE Column<T> column_from_mean(const T *x, T mean, T rest) {
  const Register<T> m = broadcast(mean), e = broadcast(rest);
  const Column<T> v = column(x);
  return {from_mean(v.a, m, e), from_mean(v.b, m, e), from_mean(v.c, m, e), from_mean(v.d, m, e)};
}

// Add a block's r (x - m) (d, 8) and the lower triangle of r (x - m)(x - m)^T (d, d, 8); D is workspace.
template <class T>
INLINE void add_products(const T *x, const T *mean, const T *rest, const T *resp, int64_t d, T *D, double *sum_x,
                         double *sum_xx) {
  const Column<T> r = column(resp);
  for (int64_t a = 0; a < d; a++) {
    const Column<T> difference = column_from_mean(x + a * ROWS<T>, mean[a], rest[a]), weighted = r * difference;
    store(D + a * ROWS<T>, difference);
    add_folded(sum_x + a * SUM_LANES, folded(weighted));
    add_folded(sum_xx + (a * d + a) * SUM_LANES, folded_product(weighted, difference));
    double *to = sum_xx + a * d * SUM_LANES;
    for (int64_t b = 0; b < a; b++)
      add_folded(to + b * SUM_LANES, folded_product(weighted, column(D + b * ROWS<T>)));
  }
}

// Add a block's r (x - m) (d, 8) and r (x - m)^2 (d, 8).
template <class T>
INLINE void add_squares(const T *x, const T *mean, const T *rest, const T *resp, int64_t d, double *sum_x,
                        double *sum_xx) {
  const Column<T> r = column(resp);
  for (int64_t a = 0; a < d; a++) {
    const Column<T> difference = column_from_mean(x + a * ROWS<T>, mean[a], rest[a]), weighted = r * difference;
    add_folded(sum_x + a * SUM_LANES, folded(weighted));
    add_folded(sum_xx + a * SUM_LANES, folded_product(weighted, difference));
  }
}

// Append the rows of a block that have a share, and their shares; how many there are.
template <class T>
INLINE int64_t append(const int32_t *order, const T *resp, uint64_t has_share, int32_t *rows, T *shares) {
  int64_t n = 0;
#if REGISTER_BYTES == 64
  constexpr int L = LANES_OF<T>;
  for (int l = 0; l < ROWS<T>; l += L) {
    const uint32_t bits = uint32_t(has_share >> l) & ((1u << L) - 1);
    if constexpr (sizeof(T) == 4) {
      const __mmask16 m = __mmask16(bits);
      _mm512_storeu_ps(shares + n, _mm512_maskz_compress_ps(m, *(const Floats *)(resp + l)));
      _mm512_storeu_si512(rows + n, _mm512_maskz_compress_epi32(m, _mm512_loadu_si512(order + l)));
    } else {
      const __mmask8 m = __mmask8(bits);
      _mm512_storeu_pd(shares + n, _mm512_maskz_compress_pd(m, *(const Doubles *)(resp + l)));
      _mm256_storeu_si256((__m256i *)(rows + n),
                          _mm256_maskz_compress_epi32(m, _mm256_loadu_si256((const __m256i *)(order + l))));
    }
    n += __builtin_popcount(bits);
  }
#else
  for (int l = 0; l < ROWS<T>; l++) {  // without a branch: what has no share is written over
    rows[n] = order[l];
    shares[n] = resp[l];
    n += int64_t(has_share >> l & 1);
  }
#endif
  return n;
}

// Features a to a + N - 1 of D by a pack of features of V from c on, summed over n rows.
//
// V and D lie in panels: the rows of a line of features stand one after the other, so that what is multiplied here
// is read from the first cache in the order of memory, however many features there are.
template <int N, class P>
INLINE void add_corner(const typename P::value *V, const typename P::value *D, int64_t p, int64_t n, int64_t a,
                       int64_t c, double *sum_xx) {
  typedef typename P::value T;
  constexpr int W = LINE_VALUES<T>, LANES = LANES_OF<T>, REGISTERS = P::size / LANES;
  P sum[N];
  _Pragma("GCC unroll 8") for (int q = 0; q < N; q++) sum[q] = all<P>(T(0));
  const T *w = D + a / W * W * n + a % W;
  const T *v[REGISTERS];
  EACH(REGISTERS) v[i] = V + (c + i * LANES) / W * W * n + (c + i * LANES) % W;
  for (int64_t row = 0; row < n * W; row += W) {
    P t;
    EACH(REGISTERS) t.r[i] = *(const Register<T> *)(v[i] + row);
    _Pragma("GCC unroll 8") for (int q = 0; q < N; q++) sum[q] = multiply_add(t, broadcast(w[row + q]), sum[q]);
  }
  _Pragma("GCC unroll 8") for (int q = 0; q < N; q++) add_to(sum_xx + (a + q) * p + c, sum[q]);
}

// Add r (x - m) (p,) and the lower triangle of r (x - m)(x - m)^T (p, p) of the listed rows of X (., d).
//
// p is d filled up to whole lines, as mean and rest are. V and D (p / line, LIST_ROWS, line) are workspace:
// r (x - m) and x - m.
template <class T>
static void add_listed(const T *X, int64_t d, const int32_t *rows, const T *shares, int64_t count, const T *mean,
                       const T *rest, T *V, T *D, double *sum_x, double *sum_xx) {
  typedef Line<T> L;
  constexpr int W = LINE_VALUES<T>;
  const int64_t p = filled_up(d, W);
  for (int64_t start = 0; start < count; start += LIST_ROWS) {
    const int64_t n = count - start < LIST_ROWS ? count - start : LIST_ROWS;
    for (int64_t c = 0; c < p; c += W) {
      const L m = load<L>(mean + c), e = load<L>(rest + c);
      L sum = all<L>(T(0));
      for (int64_t i = 0; i < n; i++) {
        const T *row = X + int64_t(rows[start + i]) * d + c;
        alignas(64) T end_of_row[W];
        if (d - c < W) {
          for (int64_t j = 0; j < W; j++) end_of_row[j] = j < d - c ? row[j] : T(0);
          row = end_of_row;
        }
        const L difference = from_mean(load_row<L>(row), m, e), weighted = difference * broadcast(shares[start + i]);
        store(D + c * n + i * W, difference);
        store(V + c * n + i * W, weighted);
        sum = sum + weighted;
      }
      add_to(sum_x + c, sum);
    }
    for (int64_t a = 0; a < d; a += 8) {
      const int64_t end = ((a + 7) / W + 1) * W;
      int64_t c = 0;
#if REGISTER_BYTES == 64
      for (; c + 2 * W <= end; c += 2 * W) add_corner<8, Pack<T, 2>>(V, D, p, n, a, c, sum_xx);
      if (c < end) add_corner<8, Pack<T, 1>>(V, D, p, n, a, c, sum_xx);
#else
      for (; c < end; c += Narrow<T>::size) {
        add_corner<4, Narrow<T>>(V, D, p, n, a, c, sum_xx);
        add_corner<4, Narrow<T>>(V, D, p, n, a + 4, c, sum_xx);
      }
#endif
    }
  }
}

// Add r (x - m) and r (x - m)^2 of N lines of the n listed rows from column c on; rows of even and of odd places apart.
template <int N, class T>
INLINE void add_squares_of_lines(const T *X, int64_t d, int64_t c, const int32_t *rows, const T *shares, int64_t n,
                                 const T *mean, const T *rest, double *sum_x, double *sum_xx) {
  typedef Line<T> L;
  constexpr int W = LINE_VALUES<T>;
  L m[N], e[N], sum[2][N], squares[2][N];
  for (int q = 0; q < N; q++) {
    m[q] = load<L>(mean + c + q * W);
    e[q] = load<L>(rest + c + q * W);
    sum[0][q] = sum[1][q] = squares[0][q] = squares[1][q] = all<L>(T(0));
  }
  const bool is_short = d - c < N * W;  // then N is 1
  alignas(64) T end_of_row[W] = {T(0)};
  const auto add = [&](int64_t i, int at) __attribute__((always_inline)) {
    const T *row = X + int64_t(rows[i]) * d + c;
    if (is_short) {
      for (int64_t j = 0; j < d - c; j++) end_of_row[j] = row[j];
      row = end_of_row;
    }
    const Register<T> share = broadcast(shares[i]);
    _Pragma("GCC unroll 2") for (int q = 0; q < N; q++) {
      const L difference = from_mean(load_row<L>(row + q * W), m[q], e[q]), weighted = difference * share;
      sum[at][q] = sum[at][q] + weighted;
      squares[at][q] = multiply_add(weighted, difference, squares[at][q]);
    }
  };
  int64_t i = 0;
  for (; i + 2 <= n; i += 2) {
    add(i, 0);
    add(i + 1, 1);
  }
  if (i < n) add(i, 0);
  for (int q = 0; q < N; q++) {
    add_to(sum_x + c + q * W, sum[0][q] + sum[1][q]);
    add_to(sum_xx + c + q * W, squares[0][q] + squares[1][q]);
  }
}

// Add r (x - m) (p,) and r (x - m)^2 (p,) of the listed rows of X (., d).
template <class T>
static void add_listed_squares(const T *X, int64_t d, const int32_t *rows, const T *shares, int64_t count,
                               const T *mean, const T *rest, double *sum_x, double *sum_xx) {
  constexpr int W = LINE_VALUES<T>;
  for (int64_t start = 0; start < count; start += LIST_ROWS) {
    const int64_t n = count - start < LIST_ROWS ? count - start : LIST_ROWS;
    int64_t c = 0;
    for (; c + 2 * W <= d; c += 2 * W)
      add_squares_of_lines<2>(X, d, c, rows + start, shares + start, n, mean, rest, sum_x, sum_xx);
    for (; c < d; c += W)
      add_squares_of_lines<1>(X, d, c, rows + start, shares + start, n, mean, rest, sum_x, sum_xx);
  }
}

// The lanes of a sum, in one order at every level.
INLINE double folded_lanes(const double *p) {
  return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

// Write the lower triangle of each of n matrices (p, p), of `width` numbers to an element, into the upper one too.
static inline void mirror(double *matrices, int64_t n, int64_t p, int64_t width) {
  constexpr int64_t B = 8;  // a side of the squares that are turned at once, so that they stay in the cache
  for (int64_t j = 0; j < n; j++) {
    double *matrix = matrices + j * p * p * width;
    for (int64_t a = 0; a < p; a += B)
      for (int64_t b = 0; b <= a; b += B)
        for (int64_t i = a; i < p && i < a + B; i++)
          for (int64_t q = b; q < i && q < b + B; q++)
            for (int64_t l = 0; l < width; l++) matrix[(q * p + i) * width + l] = matrix[(i * p + q) * width + l];
  }
}

// Move the first d rows and columns of n matrices (p, p) together: they become n matrices (d, d).
static inline void pull_together(double *matrices, int64_t n, int64_t p, int64_t d) {
  for (int64_t j = 0; d < p && j < n; j++)
    for (int64_t a = 0; a < d; a++)
      memmove(matrices + (j * d + a) * d, matrices + (j * p + a) * p, size_t(d) * sizeof(double));
}

}  // namespace LEVEL
