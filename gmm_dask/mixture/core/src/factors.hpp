// Distances and sums of low-rank components; covariance/low_rank.py has the formulas in NumPy.
//
// Rows are measured from the component's mean. The arrays of a factor are lines of features: gains and
// loadings (q, p), with p = d filled up to whole lines by zeros.
#pragma once

#include "block.hpp"
#include "core.h"
#include "mixture.hpp"

namespace LEVEL {

constexpr int FEW_ROWS = 4;  // that share what is read of a factor

// As many sums as the registers hold, so that a row is read once for many factors; no bit depends on it.
#if REGISTER_BYTES == 64
constexpr int FEW_FACTORS = 6, FEW_LINES = 4;
#else
constexpr int FEW_FACTORS = 1, FEW_LINES = 1;
#endif

typedef Line<double> Features;
constexpr int FEATURES = LINE_VALUES<double>;
template <int LINES> using Wide = Pack<double, LINES * FEATURES / LANES_OF<double>>;

// The eight lanes of a line in one order at every level.
INLINE double total(Features x) {
  alignas(64) double v[FEATURES];
  store(v, x);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// A few rows of p places less the mean, and the means z (FEW_ROWS, q) of their factors.
struct FewRows {
  int64_t p, q;
  double *rows, *z;
};

template <class X> INLINE void put(const FewRows &few, int64_t place, const X *row, const double *mean, int64_t d) {
  double *to = few.rows + place * few.p;
  for (int64_t a = 0; a < d; a++) to[a] = double(row[a]) - mean[a];
}
INLINE void leave_out(const FewRows &few, int64_t place) {
  memset(few.rows + place * few.p, 0, size_t(few.p) * sizeof(double));
}

template <int N> INLINE void find_some(const FewRows &few, const double *gains, int64_t c) {
  const int64_t p = few.p;
  Features sum[FEW_ROWS][N];
  for (int r = 0; r < FEW_ROWS; r++)
    for (int i = 0; i < N; i++) sum[r][i] = all<Features>(0.0);
  for (int64_t a = 0; a < p; a += FEATURES) {
    Features x[FEW_ROWS];
    _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) x[r] = load<Features>(few.rows + r * p + a);
    _Pragma("GCC unroll 8") for (int i = 0; i < N; i++) {
      const Features gain = load<Features>(gains + (c + i) * p + a);
      _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) sum[r][i] = multiply_add(x[r], gain, sum[r][i]);
    }
  }
  for (int r = 0; r < FEW_ROWS; r++)
    for (int i = 0; i < N; i++) few.z[r * few.q + c + i] = total(sum[r][i]);
}

// Find the factors from c on, of which fewer are left than N + 1.
template <int N> INLINE void find_rest(const FewRows &few, const double *gains, int64_t c) {
  if constexpr (N > 0) few.q - c == N ? find_some<N>(few, gains, c) : find_rest<N - 1>(few, gains, c);
}

INLINE void find_factors(const FewRows &few, const double *gains) {
  int64_t c = 0;
  for (; c + FEW_FACTORS <= few.q; c += FEW_FACTORS) find_some<FEW_FACTORS>(few, gains, c);
  find_rest<FEW_FACTORS - 1>(few, gains, c);
}

// Add the squares, over the noise, of what the factors leave of some lines of features.
template <int LINES>
INLINE void add_left(const FewRows &few, const double *loadings, const double *reciprocals, int64_t a, Features *sum) {
  typedef Wide<LINES> W;
  constexpr int REGISTERS = FEATURES / LANES_OF<double>;
  W left[FEW_ROWS];
  _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) left[r] = load<W>(few.rows + r * few.p + a);
  for (int64_t c = 0; c < few.q; c++) {
    const W loading = load<W>(loadings + c * few.p + a);
    _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++)
      left[r] = multiply_add(loading, broadcast(-few.z[r * few.q + c]), left[r]);
  }
  const W reciprocal = load<W>(reciprocals + a);
  _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) {
    const W unit = left[r] * reciprocal;
    EACH(LINES * REGISTERS)
      sum[r].r[i % REGISTERS] = multiply_add(unit.r[i], unit.r[i], sum[r].r[i % REGISTERS]);
  }
}

// Squared distances of the few rows, (FEW_ROWS,).
INLINE void measure_few(const FewRows &few, const double *loadings, const double *reciprocals, double *squares) {
  Features sum[FEW_ROWS];
  for (int r = 0; r < FEW_ROWS; r++) sum[r] = all<Features>(0.0);
  int64_t a = 0;
  for (; a + FEW_LINES * FEATURES <= few.p; a += FEW_LINES * FEATURES)
    add_left<FEW_LINES>(few, loadings, reciprocals, a, sum);
  for (; a < few.p; a += FEATURES) add_left<1>(few, loadings, reciprocals, a, sum);
  for (int r = 0; r < FEW_ROWS; r++) {
    squares[r] = total(sum[r]);
    for (int64_t c = 0; c < few.q; c++) squares[r] += few.z[r * few.q + c] * few.z[r * few.q + c];
  }
}

struct FactorSpace {
  Arena arena;
  FewRows few;
  double *sums = nullptr;  // (q + 2, p)

  bool make(const gmm_factors &f) {
    few.q = f.q;
    few.p = filled_up(f.d, FEATURES);
    for (int time = 0; time < 2; time++) {
      few.rows = arena.take<double>(FEW_ROWS * few.p);
      few.z = arena.take<double>(FEW_ROWS * few.q);
      sums = arena.take<double>((few.q + 2) * few.p);
      if (!time && !arena.allocate()) return false;
    }
    memset(few.rows, 0, size_t(FEW_ROWS * few.p) * sizeof(double));
    return true;
  }
};

// Squared distances of rows: what the factors leave of them, and the squares of the factors.
template <class X> static int measure_factors(const gmm_factors &f) {
  FactorSpace space;
  if (!space.make(f)) return 1;
  const FewRows &few = space.few;
  const int64_t p = few.p, q = few.q;
  for (int64_t j = 0; j < f.k; j++)
    for (int64_t start = 0; start < f.n; start += FEW_ROWS) {
      const int64_t count = f.n - start < FEW_ROWS ? f.n - start : FEW_ROWS;
      for (int64_t r = 0; r < FEW_ROWS; r++)
        r < count ? put(few, r, (const X *)f.X + (start + r) * f.d, f.means + j * f.d, f.d) : leave_out(few, r);
      find_factors(few, f.gains + j * q * p);
      double squares[FEW_ROWS];
      measure_few(few, f.loadings + j * q * p, f.reciprocals + j * p, squares);
      for (int64_t r = 0; r < count; r++) f.squares[(start + r) * f.k + j] = squares[r];
    }
  return 0;
}

// Add r x z^T, r x and r x^2 of some lines of features of the few rows x; z comes times the shares r.
template <int LINES> INLINE void add_lines(const FewRows &few, const double *shares, int64_t a, double *sums) {
  typedef Wide<LINES> W;
  const int64_t p = few.p, q = few.q;
  W x[FEW_ROWS];
  _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) x[r] = load<W>(few.rows + r * p + a);
  for (int64_t c = 0; c < q; c++) {
    W sum = load<W>(sums + c * p + a);
    _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++)
      sum = multiply_add(x[r], broadcast(few.z[r * q + c]), sum);
    store(sums + c * p + a, sum);
  }
  W sum = load<W>(sums + q * p + a), squares = load<W>(sums + (q + 1) * p + a);
  _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++) {
    const W weighted = x[r] * broadcast(shares[r]);
    sum = sum + weighted;
    squares = multiply_add(weighted, x[r], squares);
  }
  store(sums + q * p + a, sum);
  store(sums + (q + 1) * p + a, squares);
}

INLINE void add_few(const FewRows &few, const double *shares, double *sums) {
  for (int r = 0; r < FEW_ROWS; r++)
    for (int64_t c = 0; c < few.q; c++) few.z[r * few.q + c] *= shares[r];
  int64_t a = 0;
  for (; a + FEW_LINES * FEATURES <= few.p; a += FEW_LINES * FEATURES) add_lines<FEW_LINES>(few, shares, a, sums);
  for (; a < few.p; a += FEATURES) add_lines<1>(few, shares, a, sums);
}

// Add the sums of one component: r x, and its scatter, which is r x z^T and r x^2 in a last column.
template <class X> INLINE void sum_component(const gmm_factors &f, int64_t j, const FactorSpace &space) {
  const FewRows &few = space.few;
  const int64_t p = few.p, q = few.q;
  memset(space.sums, 0, size_t((q + 2) * p) * sizeof(double));
  double shares[FEW_ROWS];
  int64_t held = 0;
  for (int64_t i = 0; i <= f.n; i++) {
    const bool is_end = i == f.n;
    if (!is_end && f.resp[i * f.k + j] > 0.0) {
      shares[held] = f.resp[i * f.k + j];
      put(few, held++, (const X *)f.X + i * f.d, f.means + j * f.d, f.d);
    }
    if (held < FEW_ROWS && !(is_end && held)) continue;
    for (; held < FEW_ROWS; held++) {
      shares[held] = 0.0;
      leave_out(few, held);
    }
    find_factors(few, f.gains + j * q * p);
    add_few(few, shares, space.sums);
    held = 0;
  }
  double *sum_x = f.sum_x + j * f.d, *scatter = f.scatter + j * f.d * (q + 1);
  for (int64_t a = 0; a < f.d; a++) {
    for (int64_t c = 0; c < q; c++) scatter[a * (q + 1) + c] += space.sums[c * p + a];
    sum_x[a] += space.sums[q * p + a];
    scatter[a * (q + 1) + q] += space.sums[(q + 1) * p + a];
  }
}

template <class X> static int sum_factors(const gmm_factors &f) {
  FactorSpace space;
  if (!space.make(f)) return 1;
  for (int64_t j = 0; j < f.k; j++) sum_component<X>(f, j, space);
  return 0;
}

inline int measure_factors(const gmm_factors &f) {
  return f.has_float_rows ? measure_factors<float>(f) : measure_factors<double>(f);
}

inline int sum_factors(const gmm_factors &f) {
  return f.has_float_rows ? sum_factors<float>(f) : sum_factors<double>(f);
}

}  // namespace LEVEL
