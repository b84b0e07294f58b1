// Why a row is unusual in its component, and what speaks for it and against another; reasons.py has the formulas.
//
// The rows of a tile are put into the order of their components, so that a block has rows of one of them. Every row
// is computed by itself: what stands beside it in a block changes no bit.
#pragma once

#include "climb.hpp"
#include "core.h"
#include "mixture.hpp"

namespace LEVEL {

constexpr int REASON_ROWS = ROWS<double>;  // of a block
constexpr int64_t TILE_VALUES = 1 << 14;   // of a tile, so that it stays in the cache
constexpr int64_t SEVERAL = 32;            // columns after which most values are not among the largest
typedef Narrow<double> Sum;

// Linear functions of a block: to_q (ROWS) = sum of coefficient[i * step + q * apart] * from_i over i in first .. last - 1.
template <int N>
INLINE void combine_some(const double *from, const double *coefficient, int64_t step, int64_t apart, int64_t first,
                         int64_t last, double *to) {
  for (int l = 0; l < REASON_ROWS; l += Sum::size) {
    Sum sum[N];
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) sum[q] = all<Sum>(0.0);
    const double *c = coefficient + first * step;
    for (int64_t i = first; i < last; i++, c += step) {
      const Sum t = load<Sum>(from + i * REASON_ROWS + l);
      _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) sum[q] = multiply_add(t, broadcast(c[q * apart]), sum[q]);
    }
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) store(to + q * REASON_ROWS + l, sum[q]);
  }
}
INLINE void combine(int64_t n, const double *from, const double *coefficient, int64_t step, int64_t apart,
                    int64_t first, int64_t last, double *to) {
  if (n >= 4) combine_some<4>(from, coefficient, step, apart, first, last, to);
  if (n == 3) combine_some<3>(from, coefficient, step, apart, first, last, to);
  if (n == 2) combine_some<2>(from, coefficient, step, apart, first, last, to);
  if (n == 1) combine_some<1>(from, coefficient, step, apart, first, last, to);
}

// What a component says of the values of some columns alone: a factor for each set of columns that rows have.
class Incomplete {
 public:
  void take(Arena &arena, int64_t d) {
    d_ = d;
    there_ = arena.take<int64_t>(d);
    lower_ = arena.take<double>(d * d);
    inverse_ = arena.take<double>(d * d);
    scale_ = arena.take<double>(d);
    y_ = arena.take<double>(d);
    spreads_ = arena.take<double>(d);
    logs_ = arena.take<double>(d);
    n_ = 0;
    component_ = -1;
  }
  const double *spreads() const { return spreads_; }
  const double *logs() const { return logs_; }

  // z-scores of the deviations D of a row into z, a row of REASON_ROWS apart; NaN where there is no value.
  void measure(const double *D, int64_t component, const double *covariance, double *z) {
    if (component != component_ || !is_known(D)) factor(D, component, covariance);
    for (int64_t c = 0; c < d_; c++) z[c * REASON_ROWS] = __builtin_nan("");
    for (int64_t a = 0; a < n_; a++) {
      double sum = 0.0;
      for (int64_t b = 0; b <= a; b++) sum += inverse_[a * d_ + b] * (D[there_[b] * REASON_ROWS] / scale_[b]);
      y_[a] = sum;
    }
    for (int64_t b = 0; b < n_; b++) {
      double sum = 0.0;
      for (int64_t a = b; a < n_; a++) sum += inverse_[a * d_ + b] * y_[a];
      z[there_[b] * REASON_ROWS] = sum * (spreads_[there_[b]] / scale_[b]);
    }
  }

 private:
  bool is_known(const double *D) const {
    int64_t at = 0;
    for (int64_t c = 0; c < d_; c++) {
      const bool expected = at < n_ && there_[at] == c, is_there = D[c * REASON_ROWS] == D[c * REASON_ROWS];
      if (expected != is_there) return false;
      at += expected;
    }
    return true;
  }

  // Cholesky of the correlations, and the inverse of that: the squares of its columns are what the others leave open.
  void factor(const double *D, int64_t component, const double *covariance) {
    component_ = component;
    n_ = 0;
    for (int64_t c = 0; c < d_; c++)
      if (D[c * REASON_ROWS] == D[c * REASON_ROWS]) there_[n_++] = c;
    for (int64_t a = 0; a < n_; a++) scale_[a] = __builtin_sqrt(covariance[there_[a] * d_ + there_[a]]);
    for (int64_t a = 0; a < n_; a++) {
      double *row = lower_ + a * d_, *inverse = inverse_ + a * d_;
      for (int64_t b = 0; b <= a; b++) {
        const double *other = lower_ + b * d_;
        double left = covariance[there_[a] * d_ + there_[b]] / scale_[a] / scale_[b];
        for (int64_t c = 0; c < b; c++) left -= row[c] * other[c];
        row[b] = a == b ? __builtin_sqrt(left) : left / other[b];
      }
      for (int64_t c = 0; c < a; c++) inverse[c] = 0.0;
      for (int64_t b = 0; b < a; b++)
        for (int64_t c = 0; c <= b; c++) inverse[c] -= row[b] * inverse_[b * d_ + c];
      for (int64_t c = 0; c < a; c++) inverse[c] /= row[a];
      inverse[a] = 1.0 / row[a];
    }
    for (int64_t b = 0; b < n_; b++) {
      double squares = 0.0;
      for (int64_t a = b; a < n_; a++) squares += inverse_[a * d_ + b] * inverse_[a * d_ + b];
      spreads_[there_[b]] = scale_[b] / __builtin_sqrt(squares);
      logs_[there_[b]] = log_of_one(spreads_[there_[b]]);
    }
  }

  int64_t d_ = 0, n_ = 0, component_ = -1;
  int64_t *there_ = nullptr;  // columns with a value
  double *lower_ = nullptr, *inverse_ = nullptr, *scale_ = nullptr, *y_ = nullptr, *spreads_ = nullptr,
         *logs_ = nullptr;
};

template <class X> class Explaining {
 public:
  explicit Explaining(gmm_reasons &asked) : a(asked), d(asked.d), m(asked.m) {}

  int explain() {
    tile_rows_ = TILE_VALUES / d < 8 * REASON_ROWS ? 8 * REASON_ROWS : TILE_VALUES / d;
    if (!take()) return 1;
    for (int64_t start = 0; start < a.n; start += tile_rows_) {
      start_ = start;
      n_ = a.n - start < tile_rows_ ? a.n - start : tile_rows_;
      const X *rows = (const X *)a.X + start * d;
      for (int64_t i = 0; i < n_ * d; i++) rows_[i] = double(rows[i]);  // in the order in which they lie in memory
      each_block(a.components + start, false);
      if (a.others) each_block(a.others + start, true);
    }
    return 0;
  }

 private:
  bool take() {
    const int64_t wide = d > a.q ? d : a.q;
    for (int time = 0; time < 2; time++) {
      ends_ = arena_.take<int64_t>(a.k + 1);
      order_ = arena_.take<int64_t>(tile_rows_);
      rows_ = arena_.take<double>(tile_rows_ * d);
      D_ = arena_.take<double>(d * REASON_ROWS);
      y_ = arena_.take<double>((wide + 4) * REASON_ROWS);
      z_ = arena_.take<double>((d + 4) * REASON_ROWS);
      values_ = arena_.take<double>(d * REASON_ROWS);
      best_ = arena_.take<double>(m * REASON_ROWS);
      which_ = arena_.take<double>(m * REASON_ROWS);
      surprise_ = arena_.take<double>(a.others ? tile_rows_ * d : 0);
      if (a.covariances) incomplete_.take(arena_, d);
      if (!time && !arena_.allocate()) return false;
    }
    return true;
  }

  // Go through the tile component by component.
  void each_block(const int64_t *components, bool is_other) {
    for (int64_t j = 0; j <= a.k; j++) ends_[j] = 0;
    for (int64_t i = 0; i < n_; i++) ends_[components[i] + 1]++;
    for (int64_t j = 0; j < a.k; j++) ends_[j + 1] += ends_[j];
    for (int64_t i = 0; i < n_; i++) order_[ends_[components[i]]++] = i;
    for (int64_t j = 0, first = 0; j < a.k; first = ends_[j++])
      for (; first < ends_[j]; first += REASON_ROWS) {
        const int64_t count = ends_[j] - first < REASON_ROWS ? ends_[j] - first : REASON_ROWS;
        whole_block(j, order_ + first, count, is_other);
      }
  }

  void whole_block(int64_t j, const int64_t *order, int64_t count, bool is_other) {
    const double *mean = a.means + j * d;
    for (int64_t l = 0; l < REASON_ROWS; l++) {
      const double *row = rows_ + order[l < count ? l : 0] * d;
      for (int64_t c = 0; c < d; c++) D_[c * REASON_ROWS + l] = row[c] - mean[c];
    }
    measure(j);
    finish(order, count, a.spreads + j * d, a.logs + j * d, is_other);
    if (!a.covariances) return;
    const double *covariance = a.covariances + (a.n_covariances == 1 ? 0 : j * d * d);
    for (int64_t l = 0; l < count; l++) {  // again, what has values missing
      bool is_whole = true;
      for (int64_t c = 0; c < d; c++) is_whole &= D_[c * REASON_ROWS + l] == D_[c * REASON_ROWS + l];
      if (is_whole) continue;
      incomplete_.measure(D_ + l, j, covariance, z_);
      finish(order + l, 1, incomplete_.spreads(), incomplete_.logs(), is_other);
    }
  }

  // z-scores of the deviations of a block from component j.
  void measure(int64_t j) {
    constexpr int R = REASON_ROWS;
    if (a.loadings) {
      const double *gains = a.gains + j * a.q * d, *loadings = a.loadings + j * a.q * d, *scaled = a.scaled + j * d;
      for (int64_t c = 0; c < a.q; c += 4) combine(a.q - c, D_, gains + c * d, 1, d, 0, d, y_ + c * R);
      for (int64_t c = 0; c < d; c += 4) combine(d - c, y_, loadings + c, d, 1, 0, a.q, z_ + c * R);
      for (int64_t c = 0; c < d; c++)
        for (int l = 0; l < R; l++) z_[c * R + l] = (D_[c * R + l] - z_[c * R + l]) * scaled[c];
    } else if (a.factors) {
      const int64_t at = a.n_factors == 1 ? 0 : j * d * d;
      for (int64_t c = 0; c < d; c += 4) {
        const int64_t last = c + 4 < d ? c + 4 : d;
        combine(d - c, D_, a.factors + at + c, d, 1, 0, last, y_ + c * R);
      }
      for (int64_t c = 0; c < d; c += 4) combine(d - c, y_, a.scaled + at + c * d, 1, d, c, d, z_ + c * R);
    } else {
      const double *spreads = a.spreads + j * d;
      for (int64_t c = 0; c < d; c++)
        for (int l = 0; l < R; l++) z_[c * R + l] = D_[c * R + l] / spreads[c];
    }
  }

  // What is asked for of the first rows of a block, whose z-scores are known.
  void finish(const int64_t *order, int64_t count, const double *spreads, const double *logs, bool is_other) {
    is_other ? compare(order, count, logs) : name(order, count, spreads, logs);
  }

  void name(const int64_t *order, int64_t count, const double *spreads, const double *logs) {
    constexpr int R = REASON_ROWS;
    for (int64_t i = 0; i < d * R; i++) values_[i] = z_[i] < 0.0 ? -z_[i] : z_[i];
    find_foremost();
    for (int64_t l = 0; l < count; l++) {
      const int64_t row = start_ + order[l];
      const double *x = rows_ + order[l] * d;
      for (int64_t r = 0; r < m; r++) {
        const int64_t c = int64_t(which_[r * R + l]);
        const double z = c < 0 ? __builtin_nan("") : z_[c * R + l];
        a.columns[row * m + r] = int32_t(c);
        a.scores[row * m + r] = z;
        a.expected[row * m + r] = c < 0 ? z : x[c] - z * spreads[c];
      }
      double *surprise = surprise_ + order[l] * d;
      for (int64_t c = 0; a.others && c < d; c++) surprise[c] = z_[c * R + l] * z_[c * R + l] * 0.5 + logs[c];
    }
  }

  void compare(const int64_t *order, int64_t count, const double *logs) {
    constexpr int R = REASON_ROWS;
    for (int64_t l = 0; l < count; l++) {
      const double *surprise = surprise_ + order[l] * d;
      for (int64_t c = 0; c < d; c++)
        values_[c * R + l] = (z_[c * R + l] * z_[c * R + l] * 0.5 + logs[c]) - surprise[c];
    }
    find_foremost();
    for (int64_t l = 0; l < count; l++) {
      const int64_t row = start_ + order[l];
      for (int64_t r = 0; r < m; r++) {
        const int64_t c = int64_t(which_[r * R + l]);
        a.label_columns[row * m + r] = int32_t(c);
        a.evidence[row * m + r] = c < 0 ? __builtin_nan("") : values_[c * R + l];
      }
    }
  }

  // The m largest values of each row, the first of equal ones first; -1 where only NaN and -infinity are left.
  void find_foremost() {
    typedef Line<double> P;
    constexpr int R = REASON_ROWS;
    const P lowest = all<P>(-__builtin_inf()), none = all<P>(-1.0);
    for (int l = 0; l < R; l += P::size) {
      for (int64_t r = 0; r < m; r++) {
        store(best_ + r * R + l, lowest);
        store(which_ + r * R + l, none);
      }
      for (int64_t c = 0; c < d; c++) {
        const P value = load<P>(values_ + c * R + l);
        P moving = value, from = all<P>(double(c));
        if (c >= SEVERAL && !any_greater(value, load<P>(best_ + (m - 1) * R + l))) continue;
        for (int64_t r = 0; r < m; r++) {  // what is smaller moves down a rank
          const P held = load<P>(best_ + r * R + l), which = load<P>(which_ + r * R + l);
          store(best_ + r * R + l, where_greater(value, held, moving, held));
          store(which_ + r * R + l, where_greater(value, held, from, which));
          moving = where_greater(value, held, held, moving);
          from = where_greater(value, held, which, from);
        }
      }
    }
  }

  gmm_reasons &a;
  const int64_t d, m;
  int64_t tile_rows_ = 0, start_ = 0, n_ = 0;  // of a tile: its first row, and how many it has
  Arena arena_;
  Incomplete incomplete_;
  int64_t *ends_ = nullptr, *order_ = nullptr;
  double *rows_ = nullptr;                                                 // (rows of a tile, d)
  double *D_ = nullptr, *y_ = nullptr, *z_ = nullptr, *values_ = nullptr;  // of a block: (d, ROWS)
  double *best_ = nullptr, *which_ = nullptr;                              // (m, ROWS)
  double *surprise_ = nullptr;  // (rows of a tile, d): -log of the density of each value given the others
};

inline int explain(gmm_reasons &asked) {
  return asked.has_float_rows ? Explaining<float>(asked).explain() : Explaining<double>(asked).explain();
}

// The two largest of k numbers of each row, the first of equal ones first; of more than one number.
inline int find_two_best(gmm_two_best &two) {
  for (int64_t i = 0; i < two.n; i++) {
    const double *values = two.values + i * two.k;
    int64_t first = values[1] > values[0], second = 1 - first;
    double most = values[first], next = values[second];
    for (int64_t j = 2; j < two.k; j++) {  // without a jump, which nothing could foretell
      const double value = values[j];
      const bool is_first = value > most, is_second = value > next;
      second = is_first ? first : is_second ? j : second;
      next = is_first ? most : is_second ? value : next;
      first = is_first ? j : first;
      most = is_first ? value : most;
    }
    two.first[i] = first;
    two.second[i] = second;
  }
  return 0;
}

// Values between the points of a curve, whose x ascend: as np.interp has them.
//
// Points that are not beyond a value are counted for many values at once: searching for each is slower up to
// some hundreds of points.
inline int interpolate(gmm_curve &curve) {
  typedef Strip<double> S;
  const double *x = curve.x, *y = curve.y;
  const int64_t last = curve.n_points - 1;
  alignas(64) double at[S::size], count[S::size];
  for (int64_t start = 0; start < curve.n; start += S::size) {
    const int64_t n = curve.n - start < S::size ? curve.n - start : S::size;
    for (int64_t l = 0; l < S::size; l++) at[l] = curve.values[start + (l < n ? l : 0)];
    S found = all<S>(-1.0);
    for (int64_t p = 0; p <= last; p++)
      found = where_greater(all<S>(x[p]), load<S>(at), found, found + broadcast(1.0));
    store(count, found);
    for (int64_t l = 0; l < n; l++) {
      const int64_t j = count[l] > 0.0 ? int64_t(count[l]) : 0, next = j < last ? j + 1 : j;
      const bool is_between = j < last && x[j] < at[l];
      const double value = is_between ? (y[next] - y[j]) / (x[next] - x[j]) * (at[l] - x[j]) + y[j] : y[j];
      curve.found[start + l] = at[l] == at[l] ? value : at[l];
    }
  }
  return 0;
}

}  // namespace LEVEL
