// Distances and sums of one low-rank component; covariance/low_rank.py has the formulas in NumPy.
//
// Rows are measured from the component's mean. The arrays of a factor are lines of features: gains and
// loadings (q, p), with p = d filled up to whole lines by zeros.
#pragma once

#include "block.hpp"
#include "core.h"
#include "mixture.hpp"

namespace LEVEL {

constexpr int FEW_ROWS = 4;  // that share what is read of a factor

typedef Line<double> Features;
constexpr int FEATURES = LINE_VALUES<double>;

// The eight lanes of a line in one order at every level.
INLINE double total(Features x) {
  alignas(64) double v[FEATURES];
  store(v, x);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// A few rows of d features in p places, and the means z (FEW_ROWS, q) of their factors.
struct FewRows {
  int64_t d, p, q;
  double *rows, *z;
};

INLINE void put(const FewRows &few, int64_t place, const double *row, double scale) {
  for (int64_t a = 0; a < few.d; a++) few.rows[place * few.p + a] = row[a] * scale;
}
INLINE void leave_out(const FewRows &few, int64_t place) {
  memset(few.rows + place * few.p, 0, size_t(few.p) * sizeof(double));
}

INLINE void find_factors(const FewRows &few, const double *gains) {
  for (int64_t c = 0; c < few.q; c++) {
    Features sum[FEW_ROWS];
    for (int r = 0; r < FEW_ROWS; r++) sum[r] = all<Features>(0.0);
    for (int64_t a = 0; a < few.p; a += FEATURES) {
      const Features gain = load<Features>(gains + c * few.p + a);
      _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++)
        sum[r] = multiply_add(load<Features>(few.rows + r * few.p + a), gain, sum[r]);
    }
    for (int r = 0; r < FEW_ROWS; r++) few.z[r * few.q + c] = total(sum[r]);
  }
}

struct FactorSpace {
  Arena arena;
  FewRows few;
  double *sums = nullptr;  // (q + 1, p)

  bool make(const gmm_factors &f) {
    few.d = f.d;
    few.q = f.q;
    few.p = filled_up(f.d, FEATURES);
    for (int time = 0; time < 2; time++) {
      few.rows = arena.take<double>(FEW_ROWS * few.p);
      few.z = arena.take<double>(FEW_ROWS * few.q);
      sums = arena.take<double>((few.q + 1) * few.p);
      if (!time && !arena.allocate()) return false;
    }
    memset(few.rows, 0, size_t(FEW_ROWS * few.p) * sizeof(double));
    return true;
  }
};

// Squared distances of rows: what the factors leave of them, and the squares of the factors.
static int measure_factors(gmm_factors &f) {
  FactorSpace space;
  if (!space.make(f)) return 1;
  FewRows &few = space.few;
  for (int64_t start = 0; start < f.n; start += FEW_ROWS) {
    const int64_t count = f.n - start < FEW_ROWS ? f.n - start : FEW_ROWS;
    for (int64_t r = 0; r < FEW_ROWS; r++)
      r < count ? put(few, r, f.D + (start + r) * f.d, 1.0) : leave_out(few, r);
    find_factors(few, f.gains);
    Features sum[FEW_ROWS];
    for (int r = 0; r < FEW_ROWS; r++) sum[r] = all<Features>(0.0);
    for (int64_t a = 0; a < few.p; a += FEATURES) {
      Features left[FEW_ROWS];
      for (int r = 0; r < FEW_ROWS; r++) left[r] = load<Features>(few.rows + r * few.p + a);
      for (int64_t c = 0; c < f.q; c++) {
        const Features loading = load<Features>(f.loadings + c * few.p + a);
        _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++)
          left[r] = multiply_add(loading, broadcast(-few.z[r * f.q + c]), left[r]);
      }
      const Features reciprocal = load<Features>(f.reciprocals + a);
      for (int r = 0; r < FEW_ROWS; r++) {
        const Features unit = left[r] * reciprocal;
        sum[r] = multiply_add(unit, unit, sum[r]);
      }
    }
    for (int64_t r = 0; r < count; r++) {
      double squares = total(sum[r]);
      for (int64_t c = 0; c < f.q; c++) squares += few.z[r * f.q + c] * few.z[r * f.q + c];
      f.squares[start + r] = squares;
    }
  }
  return 0;
}

// Add r x z^T and r x^2 of a few rows, which come times the roots of their shares.
INLINE void add_factors(const FewRows &few, double *sums) {
  const int64_t p = few.p, q = few.q;
  for (int64_t a = 0; a < p; a += FEATURES) {
    Features x[FEW_ROWS];
    for (int r = 0; r < FEW_ROWS; r++) x[r] = load<Features>(few.rows + r * p + a);
    for (int64_t c = 0; c < q; c++) {
      Features sum = load<Features>(sums + c * p + a);
      _Pragma("GCC unroll 4") for (int r = 0; r < FEW_ROWS; r++)
        sum = multiply_add(x[r], broadcast(few.z[r * q + c]), sum);
      store(sums + c * p + a, sum);
    }
    Features sum = load<Features>(sums + q * p + a);
    for (int r = 0; r < FEW_ROWS; r++) sum = multiply_add(x[r], x[r], sum);
    store(sums + q * p + a, sum);
  }
}

// Add the scatter of rows with shares: r x z^T, and r x^2 in a last column.
static int sum_factors(gmm_factors &f) {
  FactorSpace space;
  if (!space.make(f)) return 1;
  FewRows &few = space.few;
  memset(space.sums, 0, size_t((f.q + 1) * few.p) * sizeof(double));
  int64_t held = 0;
  for (int64_t i = 0; i <= f.n; i++) {
    const bool is_end = i == f.n;
    if (!is_end && f.roots[i] > 0.0) put(few, held++, f.D + i * f.d, f.roots[i]);
    if (held < FEW_ROWS && !(is_end && held)) continue;
    while (held < FEW_ROWS) leave_out(few, held++);
    find_factors(few, f.gains);
    add_factors(few, space.sums);
    held = 0;
  }
  for (int64_t a = 0; a < f.d; a++)
    for (int64_t c = 0; c <= f.q; c++) f.scatter[a * (f.q + 1) + c] += space.sums[c * few.p + a];
  return 0;
}

}  // namespace LEVEL
