// The E-step: one fused pass over tiles of rows, of which nothing of size n x k leaves a tile.
//
// Dempster, Laird, Rubin 1977; Bishop, PRML, equations 9.23 to 9.27, with x measured from the current means.
#pragma once

#include "densities.hpp"

namespace LEVEL {

// Rows are read in short bursts between much arithmetic: what comes next is asked for before.
template <class T> INLINE void fetch_early(const T *values, int64_t n) {
  for (int64_t i = 0; i < n; i += LINE_VALUES<T>) __builtin_prefetch(values + i);
}

template <class T> INLINE void load_weights(const Room<T> &m, const double *weights, int64_t t, int64_t count) {
  typedef Strip<T> S;
  if (!weights && t + ROWS<T> <= count) {
    for (int l = 0; l < ROWS<T>; l += S::size) store(m.weight + l, all<S>(T(1)));
    return;
  }
  for (int l = 0; l < ROWS<T>; l++)
    m.weight[l] = t + l >= count ? T(0) : weights ? T(weights[m.order[t + l]]) : T(1);
}

// lead = log-density of each row less `top`, and summed = weight over the sum of shares; 0 for rows of weight 0.
template <class T> INLINE void log_densities(const Room<T> &m) {
  typedef Strip<T> S;
  const S zero = all<S>(T(0));
  for (int l = 0; l < ROWS<T>; l += S::size) {
    const S w = load<S>(m.weight + l), sum = load<S>(m.summed + l);
    store(m.lead + l, where_greater(w, zero, load<S>(m.largest + l) + log_of(sum), zero));
    store(m.summed + l, where_greater(w, zero, w / sum, zero));
  }
}

// Add each row's weight times log-density to a place of its own, in float64.
template <class T> INLINE void add_log_likelihood(const Room<T> &m, double top, double *sum) {
  typedef Strip<double> S;
  constexpr int R = ROWS<T>;
  alignas(64) double w[R], v[R];
  for (int l = 0; l < R; l++) {
    w[l] = double(m.weight[l]);
    v[l] = double(m.lead[l]) + top;
  }
  for (int l = 0; l < R; l += S::size) store(sum + l, multiply_add(load<S>(w + l), load<S>(v + l), load<S>(sum + l)));
}

// Add what the block says of each component, or put its rows on the component's list.
template <class T> INLINE void add_block(const Mixture<T> &g, const Room<T> &m, gmm_sums &sums, int64_t t) {
  typedef Strip<T> S;
  constexpr int R = ROWS<T>;
  for (int64_t j = 0; j < g.k; j++) {
    T *resp = m.joint + j * R;
    if (!rows_greater(resp, T(0))) continue;
    for (int l = 0; l < R; l += S::size) store(resp + l, load<S>(resp + l) * load<S>(m.summed + l));
    add_folded(sums.sum_resp + j * SUM_LANES, folded(column(resp)));
    const uint64_t has_share = rows_greater(resp, T(0));
    if (g.in_lists && (g.has_matrices || __builtin_popcountll(has_share) * MANY <= R)) {
      const int64_t at = j * HELD + m.counts[j];
      m.counts[j] += append(m.order + t, resp, has_share, m.listed + at, m.shares + at);
      continue;
    }
    double *sum_x = (g.in_lists ? m.lanes_x : sums.sum_x) + j * g.d * SUM_LANES;
    if (g.has_matrices)
      add_products(m.x, m.mean + j * g.p, m.rest + j * g.p, resp, g.d, m.D, sum_x,
                   sums.sum_xx + j * g.d * g.d * SUM_LANES);
    else
      add_squares(m.x, m.mean + j * g.p, m.rest + j * g.p, resp, g.d, sum_x,
                  (g.in_lists ? m.lanes_xx : sums.sum_xx) + j * g.d * SUM_LANES);
  }
}

constexpr int NEAR_ROWS = 256;  // whose values are still in a near cache: unless rows are sorted, lists hold no others

template <class T>
INLINE void add_lists(const Mixture<T> &g, const Room<T> &m, gmm_sums &sums, const T *rows) {
  for (int64_t j = 0; g.in_lists && j < g.k; j++) {
    const int32_t *listed = m.listed + j * HELD;
    const T *shares = m.shares + j * HELD, *mean = m.mean + j * g.p, *rest = m.rest + j * g.p;
    double *sum_x = sums.sum_x + j * g.p;
    if (g.has_matrices)
      add_listed(rows, g.d, listed, shares, m.counts[j], mean, rest, m.V, m.listed_D, sum_x,
                 sums.sum_xx + (g.n_factors > 1 ? j : 0) * g.p * g.p);
    else
      add_listed_squares(rows, g.d, listed, shares, m.counts[j], mean, rest, sum_x, sums.sum_xx + j * g.p);
    m.counts[j] = 0;
  }
}

// Add what blocks left in lanes, where there are lists too.
template <class T> INLINE void add_lanes(const Mixture<T> &g, const Room<T> &m, gmm_sums &sums) {
  if (!g.in_lists || g.has_matrices) return;
  for (int64_t j = 0; j < g.k; j++)
    for (int64_t i = 0; i < g.d; i++) {
      sums.sum_x[j * g.p + i] += folded_lanes(m.lanes_x + (j * g.d + i) * SUM_LANES);
      sums.sum_xx[j * g.p + i] += folded_lanes(m.lanes_xx + (j * g.d + i) * SUM_LANES);
    }
}

INLINE double total(double *sum, int n) {
  for (int half = n / 2; half >= 1; half /= 2)
    for (int l = 0; l < half; l++) sum[l] += sum[l + half];
  return sum[0];
}

// Rows of X in the arithmetic T: add their statistics to the sums.
template <class T> static int expect_in(gmm_task &task, gmm_sums &sums) {
  constexpr int R = ROWS<T>;
  const Mixture<T> g(task);
  const bool copies_rows = sizeof(T) == 4 || task.has_float_rows;
  Arena arena;
  Room<T> m;
  m.take_from(arena, g, copies_rows);
  if (!arena.allocate()) return 1;
  m.take_from(arena, g, copies_rows);
  m.fill(g);
  Tally tally;
  double log_likelihood = 0.0;
  task.n_far = 0;
  for (int64_t start = 0, tile = 0; start < g.n; start += TILE_ROWS, tile++) {
    const int64_t count = g.n - start < TILE_ROWS ? g.n - start : TILE_ROWS;
    const T *rows = rows_of_task(task, start, count, m.tile);
    const double *weights = task.weights ? task.weights + start : nullptr;
    const bool is_screened = tally.is_worth(g, tile);
    arrange(g, m, rows, count, is_screened);
    alignas(64) double tile_sum[R] = {0.0};
    for (int64_t t = 0; t < count; t += R) {
      transpose(rows, g.d, m.order + t, g.d, m.x);
      if (!copies_rows && !is_screened) fetch_early(rows + (t + R) * g.d, R * g.d);
      load_weights(m, weights, t, count);
      Range likely = {0, 0};
      if (is_screened) {
        transpose(m.projected, g.n_directions, m.order + t, g.n_seen, m.y);
        likely = likely_of(m, t, count);
      }
      log_joints(g, m, likely, tally);
      note_far(task, g, m, rows_greater(m.largest, g.far_limit), start, t, count);
      shares_of(g, m);
      log_densities(m);
      add_log_likelihood(m, g.top, tile_sum);
      add_block(g, m, sums, t);
      if (!is_screened && (t + R) % NEAR_ROWS == 0) add_lists(g, m, sums, rows);
    }
    log_likelihood += total(tile_sum, R);
    add_lists(g, m, sums, rows);
  }
  add_lanes(g, m, sums);
  sums.log_likelihood = log_likelihood;
  return 0;
}

inline int expect(gmm_task &task, gmm_sums &sums) {
  return task.is_single ? expect_in<float>(task, sums) : expect_in<double>(task, sums);
}

// The same, with both triangles of what is symmetric, and no columns but the d of the rows.
inline int expect_whole(gmm_task &task, gmm_sums &sums) {
  const int failed = expect(task, sums);
  if (failed || (task.form != MATRICES && task.form != WHITE)) return failed;
  if (sums_in_lists(task.d)) {
    const int64_t p = filled_up(task.d, task.is_single ? LINE_VALUES<float> : LINE_VALUES<double>);
    mirror(sums.sum_xx, task.n_factors, p, 1);
    pull_together(sums.sum_xx, task.n_factors, p, task.d);
  } else {
    mirror(sums.sum_xx, task.k, task.d, SUM_LANES);
  }
  return 0;
}

}  // namespace LEVEL
