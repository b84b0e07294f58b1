// The mixture as the arithmetic sees it, and room for one tile of rows.
#pragma once

#include <stdlib.h>

#include "core.h"
#include "distances.hpp"
#include "linear.hpp"
#include "sums.hpp"

namespace LEVEL {

constexpr int TILE_ROWS = 2048;         // rows that are put into an order together
constexpr int HELD = TILE_ROWS + 16;    // of a list, which is written by whole registers
constexpr int SHIFT_ROWS = 16;          // rows that the shift is written down for, so that they fill whole registers
constexpr int CACHE_LINE = 64;

// What is known of the covariances, and so how distances and sums are taken; as FORMS of arguments.py.
enum Form {
  VARIANCES = 0,     // of each component and feature
  MATRICES = 1,      // of each component, or one of all
  ONE_VARIANCE = 2,  // of each component
  WHITE = 3,         // one matrix of all: rows are turned into its coordinates once, where that costs no digits
};

template <class T> struct Mixture {
  int64_t n, d, k, p;  // p is d filled up to whole lines
  Form form;
  bool has_matrices, in_lists;
  int64_t n_factors, n_directions, n_seen, n_screen_factors;
  const T *means, *rests, *factors, *log_weights;
  const T *centre, *directions, *screen_means, *biases, *screen_factors, *offsets;
  T least, far_limit;
  double top, worth;
  int64_t factor_size, screen_factor_size;  // packed

  explicit Mixture(const gmm_task &t)
      : n(t.n), d(t.d), k(t.k), p(filled_up(t.d, LINE_VALUES<T>)), form(Form(t.form)),
        has_matrices(t.form == MATRICES || t.form == WHITE), in_lists(sums_in_lists(t.d)), n_factors(t.n_factors), n_directions(t.n_directions),
        n_seen(t.n_seen), n_screen_factors(t.n_screen_factors), means((const T *)t.means), rests((const T *)t.rests),
        factors((const T *)t.factors), log_weights((const T *)t.log_weights), centre((const T *)t.centre),
        directions((const T *)t.directions), screen_means((const T *)t.screen_means), biases((const T *)t.biases),
        screen_factors((const T *)t.screen_factors), offsets((const T *)t.offsets), least(T(t.least)),
        far_limit(T(t.far_limit)), top(t.top), worth(t.worth),
        factor_size(has_matrices ? packed_size(t.d) : t.d), screen_factor_size(packed_size(t.n_seen)) {}
};

// Memory that is handed out in pieces which begin with a cache line. It is asked twice in the same order: first
// for the size, without memory, then for the pieces.
class Arena {
 public:
  template <class V> V *take(int64_t n) {
    const uintptr_t piece = at_;
    at_ += uintptr_t(filled_up(n * int64_t(sizeof(V)), CACHE_LINE));
    return (V *)piece;
  }
  int64_t size() const { return int64_t(at_ - base_); }
  bool allocate() {
    const int64_t bytes = size();
    memory_ = malloc(size_t(bytes + CACHE_LINE));
    if (!memory_) return false;
    base_ = at_ = uintptr_t(filled_up(int64_t(uintptr_t(memory_)), CACHE_LINE));
    return true;
  }
  Arena() = default;
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;
  ~Arena() { free(memory_); }

 private:
  void *memory_ = nullptr;
  uintptr_t base_ = 0, at_ = 0;  // numbers, for there is no memory the first time
};

// Room for a tile and for one block of it.
template <class T> struct Room {
  T *x, *joint, *D, *weight, *largest, *limit, *squares, *summed, *lead;  // of a block
  T *factors, *mean, *rest;                                               // packed; filled up to whole lines
  T *white, *white_means, *middle;                   // a block, the means (k, d), and where both are measured from
  T *y, *directions, *discriminants, *biases, *screen_factors, *projected, *shifted;  // of the screen
  T *tile, *V, *listed_D, *shares;
  int32_t *order, *guess, *placed, *ends, *listed;
  int64_t *counts;
  double *lanes_x, *lanes_xx;  // (k, d, 8): sums over blocks, beside those of lists where both are taken

  void take_from(Arena &arena, const Mixture<T> &g, bool copies_rows) {
    constexpr int R = ROWS<T>;
    const int64_t held = g.in_lists ? HELD : 0, screened = g.n_seen ? TILE_ROWS : 0;
    x = arena.take<T>(g.p * R);
    joint = arena.take<T>(g.k * R);
    D = arena.take<T>(g.p * R);
    for (T **each : {&weight, &largest, &limit, &squares, &summed, &lead}) *each = arena.take<T>(R);
    factors = arena.take<T>(g.has_matrices ? g.n_factors * g.factor_size : 0);
    const int64_t whitened = g.form == WHITE ? g.d : 0;
    white = arena.take<T>(whitened * R);
    white_means = arena.take<T>(whitened * g.k);
    middle = arena.take<T>(whitened);
    mean = arena.take<T>(g.k * g.p);
    rest = arena.take<T>(g.k * g.p);
    y = arena.take<T>(g.n_seen ? g.n_directions * R : 0);
    directions = arena.take<T>(g.d * g.n_directions);
    discriminants = arena.take<T>(filled_up(g.k, FOUR) * g.n_seen);
    biases = arena.take<T>(filled_up(g.k, FOUR));
    screen_factors = arena.take<T>(g.n_screen_factors * g.screen_factor_size);
    projected = arena.take<T>(screened * g.n_directions);
    shifted = arena.take<T>(g.n_seen ? 8 * g.d : 0);
    tile = arena.take<T>(copies_rows ? TILE_ROWS * g.d : 0);
    V = arena.take<T>(g.in_lists && g.has_matrices ? LIST_ROWS * g.p : 0);
    listed_D = arena.take<T>(g.in_lists && g.has_matrices ? LIST_ROWS * g.p : 0);
    shares = arena.take<T>(g.k * held);
    listed = arena.take<int32_t>(g.k * held);
    order = arena.take<int32_t>(HELD);
    guess = arena.take<int32_t>(TILE_ROWS);
    placed = arena.take<int32_t>(TILE_ROWS);
    ends = arena.take<int32_t>(g.k + 1);
    counts = arena.take<int64_t>(g.k);
    const int64_t lanes = g.in_lists && !g.has_matrices ? g.k * g.d * SUM_LANES : 0;
    lanes_x = arena.take<double>(lanes);
    lanes_xx = arena.take<double>(lanes);
  }

  void fill(const Mixture<T> &g) {
    if (g.has_matrices)
      for (int64_t j = 0; j < g.n_factors; j++) pack(g.factors + j * g.d * g.d, g.d, factors + j * g.factor_size);
    pack_fours(g.screen_means, g.k, g.n_seen, discriminants);
    for (int64_t j = 0; g.n_seen && j < filled_up(g.k, FOUR); j++)
      biases[j] = j < g.k ? g.biases[j] : -T(__builtin_inf());
    for (int64_t j = 0; g.n_seen && j < g.n_screen_factors; j++)
      pack(g.screen_factors + j * g.n_seen * g.n_seen, g.n_seen, screen_factors + j * g.screen_factor_size);
    for (int64_t i = 0; i < g.d * g.n_directions; i++) directions[i] = g.directions[i];
    for (int64_t j = 0; j < g.k; j++) {
      for (int64_t i = 0; i < g.p; i++) {
        mean[j * g.p + i] = i < g.d ? g.means[j * g.d + i] : T(0);
        rest[j * g.p + i] = i < g.d && g.rests ? g.rests[j * g.d + i] : T(0);
      }
      counts[j] = 0;
    }
    memset(x, 0, sizeof(T) * size_t(g.p * ROWS<T>));
    if (g.in_lists && !g.has_matrices) {
      memset(lanes_x, 0, sizeof(double) * size_t(g.k * g.d * SUM_LANES));
      memset(lanes_xx, 0, sizeof(double) * size_t(g.k * g.d * SUM_LANES));
    }
    if (g.form == WHITE) whiten_means(g);
  }

  // The means in the coordinates of the factor, from their middle.
  void whiten_means(const Mixture<T> &g) {
    for (int64_t i = 0; i < g.d; i++) {
      T sum = T(0);
      for (int64_t j = 0; j < g.k; j++) sum += g.means[j * g.d + i] / T(g.k);
      middle[i] = sum;
    }
    for (int64_t j = 0; j < g.k; j++)
      for (int64_t c = 0; c < g.d; c++) {
        T sum = T(0);
        for (int64_t i = 0; i <= c; i++) sum += (g.means[j * g.d + i] - middle[i]) * g.factors[i * g.d + c];
        white_means[j * g.d + c] = sum;
      }
  }
};

// Rows of a tile in the arithmetic's kind of float; in single precision less the shift, which is taken off in
// the rows' own precision: what all rows have in common costs no digits.
template <class T, class X>
INLINE const T *own_rows(const X *rows, int64_t count, int64_t d, const X *shift, T *tile) {
  if constexpr (sizeof(T) == 8 && sizeof(X) == 8) {
    return rows;
  } else if constexpr (sizeof(T) == 8) {
    for (int64_t i = 0; i < count * d; i++) tile[i] = T(rows[i]);
  } else {
    const int64_t period = SHIFT_ROWS * d;
    for (int64_t i = 0; i < count * d; i += period) {
      const int64_t n = count * d - i < period ? count * d - i : period;
      for (int64_t q = 0; q < n; q++) tile[i + q] = T(rows[i + q] - shift[q]);
    }
  }
  return tile;
}

// Rows of the task from `start` on, so that whoever reads them is compiled once for both kinds of float.
template <class T> static const T *rows_of_task(const gmm_task &task, int64_t start, int64_t count, T *tile) {
  const int64_t d = task.d;
  if (task.has_float_rows) return own_rows((const float *)task.X + start * d, count, d, (const float *)task.shift, tile);
  return own_rows((const double *)task.X + start * d, count, d, (const double *)task.shift, tile);
}

}  // namespace LEVEL
