// What a start needs of rows: the nearest of some centres, distances from candidates, and columns in order.
//
// Everything is computed value by value in one order, so that every level has the same bits.
#pragma once

#include "core.h"
#include "linear.hpp"
#include "mixture.hpp"

namespace LEVEL {

// Numbers of the rows of a block that begins at `start`; lanes beyond the end repeat the last row.
INLINE void number_rows(int64_t start, int64_t n, int32_t *order) {
  const int64_t last = n - 1 - start;
  for (int l = 0; l < ROWS<double>; l++) order[l] = int32_t(l < last ? l : last);
}

// Label rows by their nearest centres, and add up the rows of each.
static int assign(gmm_groups &g) {
  constexpr int R = ROWS<double>;
  const int64_t k = filled_up(g.k, FOUR), d = g.d;
  Arena arena;
  double *x = nullptr, *packed = nullptr, *halves = nullptr;
  for (int time = 0; time < 2; time++) {
    x = arena.take<double>(d * R);
    packed = arena.take<double>(k * d);
    halves = arena.take<double>(k);
    if (!time && !arena.allocate()) return 1;
  }
  pack_fours(g.centres, g.k, d, packed);
  for (int64_t j = 0; j < k; j++) {
    halves[j] = j < g.k ? 0.0 : -__builtin_inf();
    for (int64_t i = 0; j < g.k && i < d; i++) halves[j] -= g.centres[j * d + i] * g.centres[j * d + i] / 2;
  }
  alignas(64) double nearest[R];
  int32_t order[R];
  for (int64_t start = 0; start < g.n; start += R) {
    const double *rows = g.X + start * d;
    number_rows(start, g.n, order);
    transpose(rows, d, order, d, x);
    find_largest(x, packed, halves, d, k, nearest);  // of c x - c c / 2
    for (int64_t l = 0; l < R && start + l < g.n; l++) {
      const int64_t j = int64_t(nearest[l]);
      g.labels[start + l] = int32_t(j);
      const double weight = g.weights ? g.weights[start + l] : 1.0;
      double *__restrict sum = g.sums + j * d;
      g.held[j] += weight;
      for (int64_t i = 0; i < d; i++) sum[i] += weight * rows[l * d + i];
    }
  }
  return 0;
}

// Squared distances of rows from each centre, or those before where they are less.
static int measure(gmm_distances &g) {
  typedef Strip<double> S;
  constexpr int R = ROWS<double>;
  Arena arena;
  double *x = arena.take<double>(g.d * R);
  if (!arena.allocate()) return 1;
  x = arena.take<double>(g.d * R);
  int32_t order[R];
  alignas(64) double found[R];
  for (int64_t start = 0; start < g.n; start += R) {
    const int64_t count = g.n - start < R ? g.n - start : R;
    number_rows(start, g.n, order);
    transpose(g.X + start * g.d, g.d, order, g.d, x);
    for (int64_t j = 0; j < g.k; j++) {
      const double *centre = g.centres + j * g.d;
      for (int l = 0; l < R; l += S::size) {
        S sum = all<S>(0.0);
        for (int64_t i = 0; i < g.d; i++) {
          const S z = load<S>(x + i * R + l) - broadcast(centre[i]);
          sum = multiply_add(z, z, sum);
        }
        store(found + l, sum);
      }
      double *to = g.squares + j * g.n + start;
      for (int64_t l = 0; l < count; l++) {
        const double before = g.before ? g.before[start + l] : __builtin_inf();
        to[l] = found[l] < before ? found[l] : before;
      }
    }
  }
  return 0;
}

// ---- columns in order ---------------------------------------------------------------------------------

constexpr int DIGIT_BITS = 11, DIGITS = 6;  // of a key of 64 bits
constexpr int64_t DIGIT_VALUES = 1 << DIGIT_BITS;

// An integer that stands in the order of the numbers, NaN last.
INLINE uint64_t sort_key(double value) {
  if (value != value) return ~uint64_t(0);
  value += 0.0;  // -0 equals 0
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

// A value's key, and its place among all.
struct Placed {
  uint64_t key;
  int64_t place;
};

// Sort by the keys, equal ones by their places: by each digit in turn, the least first (Knuth, TAOCP 3, 5.2.5).
static Placed *sorted(Placed *from, Placed *to, int64_t n, int64_t *counts) {
  memset(counts, 0, sizeof(int64_t) * DIGITS * DIGIT_VALUES);
  for (int64_t i = 0; i < n; i++)
    for (int digit = 0; digit < DIGITS; digit++)
      counts[digit * DIGIT_VALUES + int64_t(from[i].key >> (digit * DIGIT_BITS) & (DIGIT_VALUES - 1))]++;
  for (int digit = 0; digit < DIGITS; digit++) {
    int64_t *ends = counts + digit * DIGIT_VALUES, end = 0;
    const int shift = digit * DIGIT_BITS;
    if (n && ends[from[0].key >> shift & (DIGIT_VALUES - 1)] == n) continue;  // all have the same digit
    for (int64_t value = 0; value < DIGIT_VALUES; value++) {
      const int64_t count = ends[value];
      ends[value] = end;
      end += count;
    }
    for (int64_t i = 0; i < n; i++) to[ends[from[i].key >> shift & (DIGIT_VALUES - 1)]++] = from[i];
    Placed *swapped = from;
    from = to;
    to = swapped;
  }
  return from;
}

// The least variance about two means, one of the values up to some place in their order and one of the rest.
static double variance_within(const Placed *order, const gmm_column &c) {
  double total = 0.0, first = 0.0, scatter = 0.0, largest = 0.0, lower = 0.0, sum = 0.0;
  const auto weight = [&](int64_t i) { return c.weights ? c.weights[order[i].place] : 1.0; };
  for (int64_t i = 0; i < c.n; i++) total += weight(i);
  for (int64_t i = 0; i < c.n; i++) first += weight(i) * c.values[order[i].place];
  const double mean = first / total;
  for (int64_t i = 0; i < c.n; i++) {
    const double w = weight(i), x = c.values[order[i].place] - mean;
    scatter += w * x * x;
    lower += w;
    sum += w * x;
    const double upper = total - lower;
    if (i + 1 == c.n || !(upper > 0.0)) continue;
    const double between = sum * sum * (total / (lower * upper));  // 1 / lower + 1 / upper
    largest = between > largest ? between : largest;
  }
  return (scatter - largest) / total;
}

static int put_in_order(gmm_column &c) {
  Arena arena;
  Placed *one = nullptr, *other = nullptr;
  int64_t *counts = nullptr;
  for (int time = 0; time < 2; time++) {
    one = arena.take<Placed>(c.n);
    other = arena.take<Placed>(c.n);
    counts = arena.take<int64_t>(DIGITS * DIGIT_VALUES);
    if (!time && !arena.allocate()) return 1;
  }
  for (int64_t i = 0; i < c.n; i++) one[i] = {sort_key(c.values[i]), i};
  const Placed *found = sorted(one, other, c.n, counts);
  for (int64_t i = 0; c.order && i < c.n; i++) c.order[i] = found[i].place;
  if (!c.order) c.variance_within = variance_within(found, c);
  return 0;
}

}  // namespace LEVEL
