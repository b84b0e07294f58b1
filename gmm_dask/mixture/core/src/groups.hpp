// What a start needs of rows: rows far from one another, the nearest of some centres, and columns in order.
//
// Everything is computed value by value in one order, so that every level has the same bits.
#pragma once

#include "core.h"
#include "linear.hpp"
#include "mixture.hpp"
#include "sums.hpp"

namespace LEVEL {

// Numbers of the rows of a block that begins at `start`; lanes beyond the end repeat the last row.
INLINE void number_rows(int64_t start, int64_t n, int32_t *order) {
  const int64_t last = n - 1 - start;
  for (int l = 0; l < ROWS<double>; l++) order[l] = int32_t(l < last ? l : last);
}

// Rows of a start: the nearest centre of each, and the sums of those of each centre.
class Assignment {
 public:
  explicit Assignment(gmm_groups &asked) : g_(asked), k_(filled_up(asked.k, FOUR)) {}

  // Move the centres to the means of their rows, as often as asked for or until they stand still (Lloyd 1982).
  int run() {
    take();
    if (!arena_.allocate()) return 1;
    take();
    const double least = g_.n_sweeps ? g_.still * mean_variance() : 0.0;
    for (int64_t sweep = 0; sweep < g_.n_sweeps; sweep++) {
      label();
      if (moved() <= least) break;
    }
    label();
    return 0;
  }

 private:
  void take() {
    x_ = arena_.take<double>(g_.d * ROWS<double>);
    packed_ = arena_.take<double>(k_ * g_.d);
    halves_ = arena_.take<double>(k_);
    middle_ = arena_.take<double>(g_.d);
    distances_ = arena_.take<double>(g_.n_sweeps ? g_.n : 0);
  }

  double mean_variance() {
    double scatter = 0.0;
    for (int64_t i = 0; i < g_.d; i++) middle_[i] = 0.0;
    for (int64_t row = 0; row < g_.n; row++)
      for (int64_t i = 0; i < g_.d; i++) middle_[i] += g_.X[row * g_.d + i];
    for (int64_t i = 0; i < g_.d; i++) middle_[i] /= double(g_.n);
    for (int64_t row = 0; row < g_.n; row++) scatter += squared_distance(row, middle_);
    return scatter / double(g_.n * g_.d);
  }

  double squared_distance(int64_t row, const double *from) const {
    double sum = 0.0;
    for (int64_t i = 0; i < g_.d; i++) {
      const double z = g_.X[row * g_.d + i] - from[i];
      sum += z * z;
    }
    return sum;
  }

  void label() {
    constexpr int R = ROWS<double>;
    const int64_t d = g_.d;
    pack_fours(g_.centres, g_.k, d, packed_);
    for (int64_t j = 0; j < k_; j++) {
      halves_[j] = j < g_.k ? 0.0 : -__builtin_inf();
      for (int64_t i = 0; j < g_.k && i < d; i++) halves_[j] -= g_.centres[j * d + i] * g_.centres[j * d + i] / 2;
    }
    memset(g_.held, 0, sizeof(double) * size_t(g_.k));
    memset(g_.sums, 0, sizeof(double) * size_t(g_.k * d));
    alignas(64) double nearest[R];
    int32_t order[R];
    for (int64_t start = 0; start < g_.n; start += R) {
      const double *rows = g_.X + start * d;
      number_rows(start, g_.n, order);
      transpose(rows, d, order, d, x_);
      find_largest(x_, packed_, halves_, d, k_, nearest);  // of c x - c c / 2
      for (int64_t l = 0; l < R && start + l < g_.n; l++) {
        const int64_t j = int64_t(nearest[l]);
        g_.labels[start + l] = int32_t(j);
        const double weight = g_.weights ? g_.weights[start + l] : 1.0;
        double *__restrict sum = g_.sums + j * d;
        g_.held[j] += weight;
        for (int64_t i = 0; i < d; i++) sum[i] += weight * rows[l * d + i];
      }
    }
  }

  // Centres to the means of their rows; the sum of their squared ways.
  double moved() {
    double squares = 0.0;
    bool are_measured = false;
    for (int64_t j = 0; j < g_.k; j++)
      if (g_.held[j] == 0.0) {
        if (!are_measured) measure_rows();
        are_measured = true;
        const int64_t row = farthest();
        for (int64_t i = 0; i < g_.d; i++) g_.sums[j * g_.d + i] = g_.X[row * g_.d + i];
      }
    for (int64_t j = 0; j < g_.k; j++)
      for (int64_t i = 0; i < g_.d; i++) {
        const double held = g_.held[j], to = g_.sums[j * g_.d + i] / (held > 0.0 ? held : 1.0);
        const double way = to - g_.centres[j * g_.d + i];
        g_.centres[j * g_.d + i] = to;
        squares += way * way;
      }
    return squares;
  }

  void measure_rows() {
    for (int64_t row = 0; row < g_.n; row++)
      distances_[row] = squared_distance(row, g_.centres + g_.labels[row] * g_.d);
  }

  // The row that is farthest from its centre, the first of several; each is told once.
  int64_t farthest() {
    int64_t found = 0;
    for (int64_t row = 1; row < g_.n; row++)
      if (distances_[row] > distances_[found]) found = row;
    distances_[found] = -1.0;
    return found;
  }

  gmm_groups &g_;
  const int64_t k_;
  Arena arena_;
  double *x_, *packed_, *halves_, *middle_, *distances_;
};

static int settle(gmm_groups &groups) { return Assignment(groups).run(); }

// k rows far from one another: each the best of some that are drawn by squared distance from those before it
// (Arthur and Vassilvitskii 2007, the greedy form of section 5).
class Seeds {
 public:
  explicit Seeds(gmm_seeds &asked) : g_(asked) {}

  int run() {
    take();
    if (!arena_.allocate()) return 1;
    take();
    const double *draw = g_.draws;
    for (int64_t i = 0; i < g_.n; i++) distances_[i] = 1.0;
    add_up();
    g_.chosen[0] = drawn(*draw++);
    for (int64_t i = 0; i < g_.n; i++) distances_[i] = __builtin_inf();
    measure(g_.chosen, 1);
    take_over(left_);
    for (int64_t j = 1; j < g_.k; j++) {
      add_up();
      for (int64_t t = 0; t < g_.n_trials; t++) tried_[t] = drawn(*draw++);
      measure(tried_, g_.n_trials);
      int64_t best = 0;
      double least = __builtin_inf();
      for (int64_t t = 0; t < g_.n_trials; t++) {
        const double sum = total(left_ + t * g_.n);
        if (sum < least) {
          least = sum;
          best = t;
        }
      }
      g_.chosen[j] = tried_[best];
      take_over(left_ + best * g_.n);
    }
    return 0;
  }

 private:
  void take() {
    x_ = arena_.take<double>(g_.d * ROWS<double>);
    distances_ = arena_.take<double>(g_.n);
    upto_ = arena_.take<double>(g_.n);
    left_ = arena_.take<double>(g_.n * g_.n_trials);
    tried_ = arena_.take<int64_t>(g_.n_trials);
  }

  void take_over(const double *left) { memcpy(distances_, left, sizeof(double) * size_t(g_.n)); }

  // Masses of the rows up to each, by which rows are drawn.
  void add_up() {
    double sum = 0.0;
    for (int64_t i = 0; i < g_.n; i++) {
      sum += g_.weights ? g_.weights[i] * distances_[i] : distances_[i];
      upto_[i] = sum;
    }
  }

  // The first row up to which there is more than this share of all mass.
  int64_t drawn(double share) const {
    const double place = share * upto_[g_.n - 1];
    int64_t low = 0, high = g_.n - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (upto_[middle] > place) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  double total(const double *left) const {
    double sums[SUM_LANES] = {0.0};
    for (int64_t i = 0; i < g_.n; i += SUM_LANES)
      for (int64_t l = 0; l < SUM_LANES && i + l < g_.n; l++)
        sums[l] += g_.weights ? g_.weights[i + l] * left[i + l] : left[i + l];
    return folded_lanes(sums);
  }

  // Squared distances of rows from some of them, at most what they were before, (n_rows, n).
  void measure(const int64_t *from, int64_t n_rows) {
    typedef Strip<double> S;
    constexpr int R = ROWS<double>;
    int32_t order[R];
    alignas(64) double found[R];
    for (int64_t start = 0; start < g_.n; start += R) {
      const int64_t count = g_.n - start < R ? g_.n - start : R;
      number_rows(start, g_.n, order);
      transpose(g_.X + start * g_.d, g_.d, order, g_.d, x_);
      for (int64_t t = 0; t < n_rows; t++) {
        const double *centre = g_.X + from[t] * g_.d;
        for (int l = 0; l < R; l += S::size) {
          S sum = all<S>(0.0);
          for (int64_t i = 0; i < g_.d; i++) {
            const S z = load<S>(x_ + i * R + l) - broadcast(centre[i]);
            sum = multiply_add(z, z, sum);
          }
          store(found + l, sum);
        }
        double *to = left_ + t * g_.n + start;
        const double *before = distances_ + start;
        for (int64_t l = 0; l < count; l++) to[l] = found[l] < before[l] ? found[l] : before[l];
      }
    }
  }

  gmm_seeds &g_;
  Arena arena_;
  double *x_, *distances_, *upto_, *left_;
  int64_t *tried_;
};

static int seed(gmm_seeds &seeds) { return Seeds(seeds).run(); }

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
