// What a mixture says of each row: label, log-density, largest responsibility. Always in float64.
//
// Every row goes through the same operations whatever rows stand beside it: its scores have the same bits alone.
#pragma once

#include "densities.hpp"

namespace LEVEL {

// The component of the largest log joint; of equals the first, and they came in another order.
INLINE void nearest(const Mixture<double> &g, const Room<double> &m, double *found) {
  typedef Strip<double> S;
  for (int l = 0; l < ROWS<double>; l += S::size) {
    S best = all<S>(-__builtin_inf()), label = all<S>(0.0);
    for (int64_t j = 0; j < g.k; j++) {
      const S log_joint = load<S>(m.joint + j * ROWS<double> + l);
      label = where_greater(log_joint, best, all<S>(double(j)), label);
      best = larger(log_joint, best);
    }
    store(found + l, label);
  }
}

static int score(gmm_task &task, gmm_scores &scores) {
  typedef Strip<double> S;
  constexpr int R = ROWS<double>;
  const Mixture<double> g(task);
  Arena arena;
  Room<double> m;
  m.take_from(arena, g, task.has_float_rows != 0);
  if (!arena.allocate()) return 1;
  m.take_from(arena, g, task.has_float_rows != 0);
  m.fill(g);
  Tally tally;
  task.n_far = 0;
  alignas(64) double label[R], density[R], share[R];
  for (int64_t start = 0, tile = 0; start < g.n; start += TILE_ROWS, tile++) {
    const int64_t count = g.n - start < TILE_ROWS ? g.n - start : TILE_ROWS;
    const double *rows = rows_of_task(task, start, count, m.tile);
    const bool is_screened = tally.is_worth(g, tile);
    arrange(g, m, rows, count, is_screened);
    for (int64_t t = 0; t < count; t += R) {
      transpose(rows, g.d, m.order + t, g.d, m.x);
      Range likely = {0, 0};
      if (is_screened) {
        transpose(m.projected, g.n_directions, m.order + t, g.n_seen, m.y);
        likely = likely_of(m, t, count);
      }
      log_joints(g, m, likely, tally);
      note_far(task, g, m, rows_greater(m.largest, g.far_limit), start, t, count);
      nearest(g, m, label);
      shares_of(g, m);
      for (int l = 0; l < R; l += S::size) {
        const S sum = load<S>(m.summed + l);
        store(density + l, load<S>(m.largest + l) + log_of(sum));
        store(share + l, all<S>(1.0) / sum);
      }
      for (int64_t l = 0; l < R && t + l < count; l++) {
        const int64_t row = start + m.order[t + l];
        scores.labels[row] = int32_t(label[l]);
        scores.log_density[row] = density[l];
        scores.max_responsibility[row] = share[l];
        for (int64_t j = 0; scores.responsibilities && j < g.k; j++)
          scores.responsibilities[row * g.k + j] = m.joint[j * R + l] * share[l];
      }
    }
  }
  return 0;
}

}  // namespace LEVEL
