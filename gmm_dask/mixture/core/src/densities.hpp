// Log densities and responsibilities of a block of rows.
#pragma once

#include "elementary.hpp"
#include "screen.hpp"

namespace LEVEL {

constexpr double OUT_OF_REACH = -42.0;       // log of a responsibility that is nothing in float64
constexpr double FAR = -1000.0;              // log-density from which squares may outweigh that
constexpr double FAR_OUT_OF_REACH = -150.0;  // and what is nothing from there on
constexpr double ROUNDED = 1.01;             // a bound is taken to be above a limit from here on

// Log responsibility down to which a component counts, for rows of this largest log joint.
template <int N> INLINE Pack<double, N> reach(Pack<double, N> largest, double) {
  typedef Pack<double, N> P;
  return where_greater(largest, all<P>(FAR), all<P>(OUT_OF_REACH), all<P>(FAR_OUT_OF_REACH));
}
template <int N> INLINE Pack<float, N> reach(Pack<float, N>, float least) { return all<Pack<float, N>>(least); }

struct Range {
  int64_t begin, end;
};

// The components that the block's rows of a sorted tile probably are of.
template <class T> INLINE Range likely_of(const Room<T> &m, int64_t t, int64_t count) {
  const int64_t last = t + ROWS<T> < count ? t + ROWS<T> - 1 : count - 1;
  return {m.guess[m.order[t]], m.guess[m.order[last]] + 1};
}

// Log joints of components j to j + N - 1 where no matrix is left in a distance: their rows are read once for all N.
template <Form FORM, int N, class T> INLINE void log_joints_of(const Mixture<T> &g, const Room<T> &m, int64_t j) {
  typedef Narrow<T> P;
  constexpr int R = ROWS<T>;
  const int64_t d = g.d;
  const T *x = FORM == WHITE ? m.white : m.x;
  const T *means = (FORM == WHITE ? m.white_means : g.means) + j * d, *factors = g.factors + j * d;
  for (int l = 0; l < R; l += P::size) {
    P sum[N];
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) sum[q] = all<P>(T(0));
    for (int64_t i = 0; i < d; i++) {
      const P value = load<P>(x + i * R + l);
      _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) {
        P z = value - broadcast(means[q * d + i]);
        if (FORM == VARIANCES) z = z * broadcast(factors[q * d + i]);
        sum[q] = multiply_add(z, z, sum[q]);
      }
    }
    P largest = load<P>(m.largest + l);
    _Pragma("GCC unroll 4") for (int q = 0; q < N; q++) {
      if (FORM == ONE_VARIANCE) sum[q] = (sum[q] * broadcast(factors[q * d])) * broadcast(factors[q * d]);
      const P log_joint = multiply_add(sum[q], broadcast(T(-0.5)), broadcast(g.log_weights[j + q]));
      store(m.joint + (j + q) * R + l, log_joint);
      largest = larger(log_joint, largest);
    }
    store(m.largest + l, largest);
  }
}

template <Form FORM, class T> static void log_joints_of_all(const Mixture<T> &g, const Room<T> &m) {
  typedef Strip<T> S;
  for (int l = 0; l < ROWS<T>; l += S::size) store(m.largest + l, all<S>(-T(__builtin_inf())));
  int64_t j = 0;
  for (; j + 4 <= g.k; j += 4) log_joints_of<FORM, 4>(g, m, j);
  if (g.k - j == 1) log_joints_of<FORM, 1>(g, m, j);
  if (g.k - j == 2) log_joints_of<FORM, 2>(g, m, j);
  if (g.k - j == 3) log_joints_of<FORM, 3>(g, m, j);
}

// joint (k, ROWS) = log weight times density of each component, and the largest of each row, by matrices.
//
// The likely components come first, for they bound what the others can be. Where a component is out of reach of all
// rows of a part of the block, an upper bound is written: no share is made of it.
template <class T>
INLINE void log_joints_of_matrices(const Mixture<T> &g, const Room<T> &m, Range likely, Tally &tally) {
  typedef Strip<T> S;
  constexpr int R = ROWS<T>, EVERY_PART = (1 << R / PART<T>) - 1;
  const int64_t n_likely = likely.end - likely.begin, d = g.d;
  const bool is_limited = d > 4;
  for (int l = 0; l < R; l += S::size) store(m.largest + l, all<S>(-T(__builtin_inf())));
  for (int64_t place = 0; place < n_likely + g.k; place++) {
    const bool is_other = place >= n_likely;
    const int64_t j = is_other ? place - n_likely : likely.begin + place;
    if (is_other && likely.begin <= j && j < likely.end) continue;
    const bool looks = n_likely && is_other;
    const T log_weight = g.log_weights[j];
    T *joint = m.joint + j * R;
    if (is_limited || looks)
      for (int l = 0; l < R; l += S::size) {
        const S top = load<S>(m.largest + l);
        store(m.limit + l, (all<S>(log_weight) - top - reach(top, g.least)) * broadcast(T(2)));
      }
    int out = 0;
    if (looks) {
      for (int l = 0; l < R; l += S::size) store(m.lead + l, load<S>(m.limit + l) * broadcast(T(ROUNDED)));
      const T *factor = m.screen_factors + (g.n_screen_factors > 1 ? j : 0) * g.screen_factor_size;
      for (int h = 0; h < R; h += PART<T>)
        out |= is_out_of_reach(m.y, g.offsets + j * g.n_seen, factor, g.n_seen, m.lead, m.squares, h) << h / PART<T>;
      tally.looked_at++;
      tally.out_of_reach += out == EVERY_PART;
    }
    for (int h = 0; h < R; h += PART<T>) {
      const bool is_reached = !(out >> h / PART<T> & 1);
      if (is_reached)
        of_matrix(m.x, g.means + j * d, m.factors + (g.n_factors > 1 ? j : 0) * g.factor_size, d, m.limit, m.D,
                  m.squares, h);
      for (int l = h; l < h + PART<T>; l += S::size) {
        const S log_joint = multiply_add(load<S>(m.squares + l), broadcast(T(-0.5)), broadcast(log_weight));
        store(joint + l, log_joint);
        if (is_reached) store(m.largest + l, larger(log_joint, load<S>(m.largest + l)));
      }
    }
  }
}

// Never inlined, as what follows it: the library would have it several times.
template <class T>
static __attribute__((noinline)) void log_joints(const Mixture<T> &g, const Room<T> &m, Range likely, Tally &tally) {
  if (g.form == MATRICES) {
    log_joints_of_matrices(g, m, likely, tally);
  } else if (g.form == VARIANCES) {
    log_joints_of_all<VARIANCES>(g, m);
  } else if (g.form == ONE_VARIANCE) {
    log_joints_of_all<ONE_VARIANCE>(g, m);
  } else {
    whiten(m.x, m.middle, m.factors, g.d, m.D, m.white);
    log_joints_of_all<WHITE>(g, m);
  }
}

// Turn log joints into densities in units of the largest of each row, and sum them up.
template <class T> static __attribute__((noinline)) void shares_of(const Mixture<T> &g, const Room<T> &m) {
  typedef Strip<T> S;
  for (int l = 0; l < ROWS<T>; l += S::size) {
    const S top = load<S>(m.largest + l), least = reach(top, g.least), none = all<S>(T(0));
    S sum = none;
    for (int64_t j = 0; j < g.k; j++) {
      T *at = m.joint + j * ROWS<T> + l;
      const S difference = load<S>(at) - top;
      if (any_greater(difference, least)) {
        const S share = where_greater(difference, least, exp_of(difference), none);
        sum = sum + share;
        store(at, share);
      } else {
        store(at, none);
      }
    }
    store(m.summed + l, sum);
  }
}

// Note the rows of the block whose densities say nothing: they are left to NumPy.
//
// Their lanes of x become 0: nothing of them is added, and 0 times infinity would be.
template <class T>
INLINE void note_far(gmm_task &task, const Mixture<T> &g, const Room<T> &m, uint64_t near, int64_t start, int64_t t,
                     int64_t count) {
  if (near == ALL_ROWS<T>) return;
  for (int l = 0; l < ROWS<T>; l++) {
    if (near >> l & 1) continue;
    for (int64_t i = 0; i < g.d; i++) m.x[i * ROWS<T> + l] = T(0);
    m.weight[l] = T(0);
    if (t + l >= count) continue;
    if (task.n_far < task.most_far) task.far[task.n_far] = start + m.order[t + l];
    task.n_far++;
  }
}

}  // namespace LEVEL
