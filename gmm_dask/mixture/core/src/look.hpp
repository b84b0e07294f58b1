// The first look at rows: moments of the columns, and keys that rows are drawn by.
//
// Values of a tile are taken as they lie, row after row, in groups of rows: what belongs to a column stands in every
// group at the same places, so that whole registers are added whatever the number of columns.
#pragma once

#include "core.h"
#include "mixture.hpp"

namespace LEVEL {

constexpr int64_t LOOK_VALUES = 1 << 13, LEAST_LOOK_ROWS = 16;  // a tile stays in the cache; wide rows have so many
constexpr int64_t GROUP_VALUES = 128;                           // of a group at least

// What keys are multiplied by: odd, of bits without a pattern (Steele, Lea, Flood 2014: SplitMix).
constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15u, FIRST = 0xBF58476D1CE4E5B9u, SECOND = 0x94D049BB133111EBu;

// Running moments about the mean: those of each tile are merged (Chan, Golub, LeVeque 1983).
struct Moments {
  int64_t d, group;
  double *about, *sums, *squares, *low, *high;  // (group,)
  double *moments;                              // (4, d)

  void add(const double *values, int64_t n_values, int64_t seen) {
    // About the first row: the mean of equal values is then exactly that value.
    for (int64_t i = 0; i < group; i++) {
      about[i] = values[i % d];
      sums[i] = squares[i] = 0.0;
    }
    for (int64_t at = 0; at < n_values; at += group) {
      const int64_t m = n_values - at < group ? n_values - at : group;
      const double *x = values + at;
      for (int64_t i = 0; i < m; i++) {
        sums[i] += x[i] - about[i];
        low[i] = x[i] < low[i] ? x[i] : low[i];
        high[i] = x[i] > high[i] ? x[i] : high[i];
      }
    }
    const double n = double(n_values / d);
    for (int64_t j = 0; j < d; j++) {
      double offset = 0.0;
      for (int64_t i = j; i < group; i += d) offset += sums[i];
      for (int64_t i = j; i < group; i += d) {
        about[i] += offset / n;
        sums[i] = 0.0;
      }
    }
    for (int64_t at = 0; at < n_values; at += group) {
      const int64_t m = n_values - at < group ? n_values - at : group;
      const double *x = values + at;
      for (int64_t i = 0; i < m; i++) {
        const double D = x[i] - about[i];
        sums[i] += D;
        squares[i] += D * D;
      }
    }
    merge(n, double(seen));
  }

  void merge(double n, double seen) {
    const double share = n / (seen + n);
    for (int64_t j = 0; j < d; j++) {
      double left = 0.0, scatter = 0.0;
      for (int64_t i = j; i < group; i += d) {
        left += sums[i];
        scatter += squares[i];
      }
      left /= n;  // what rounding left of the mean
      const double mean = about[j] + left, delta = seen > 0 ? mean - moments[j] : 0.0;
      moments[j] = seen > 0 ? moments[j] + delta * share : mean;
      const double own = scatter - n * left * left;
      moments[d + j] += (own > 0.0 || own != own ? own : 0.0) + seen * share * delta * delta;
    }
  }

  void finish() {
    for (int64_t j = 0; j < d; j++) {
      double least = __builtin_inf(), greatest = -__builtin_inf();
      for (int64_t i = j; i < group; i += d) {
        least = low[i] < least ? low[i] : least;
        greatest = high[i] > greatest ? high[i] : greatest;
      }
      moments[2 * d + j] = least;
      moments[3 * d + j] = greatest;
    }
  }
};

// The keys of rows, as gmm_dask/sampling has them: a difference in any bit of a value stays one.
INLINE void hash_rows(const double *values, int64_t n, int64_t d, uint64_t salt, uint64_t *keys) {
  for (int64_t i = 0; i < n; i++) {
    uint64_t key = salt;
    for (int64_t j = 0; j < d; j++) {
      uint64_t bits;
      memcpy(&bits, values + i * d + j, sizeof bits);
      key = (key ^ bits) * GOLDEN;
      key ^= key >> 32;
    }
    key += GOLDEN;
    key = (key ^ (key >> 30)) * FIRST;
    key = (key ^ (key >> 27)) * SECOND;
    keys[i] = key ^ (key >> 31);
  }
}

template <class X> static int look_at(gmm_look &look) {
  const int64_t d = look.d, group = filled_up(GROUP_VALUES, d);
  const int64_t tile_rows = LOOK_VALUES / d > LEAST_LOOK_ROWS ? LOOK_VALUES / d : LEAST_LOOK_ROWS;
  Arena arena;
  Moments m = {d, group, nullptr, nullptr, nullptr, nullptr, nullptr, look.moments};
  double *tile = nullptr;
  for (int time = 0; time < 2; time++) {
    tile = arena.take<double>(tile_rows * d);
    for (double **each : {&m.about, &m.sums, &m.squares, &m.low, &m.high}) *each = arena.take<double>(group);
    if (!time && !arena.allocate()) return 1;
  }
  for (int64_t i = 0; i < group; i++) {
    m.low[i] = __builtin_inf();
    m.high[i] = -__builtin_inf();
  }
  for (int64_t j = 0; j < 2 * d; j++) look.moments[j] = 0.0;
  for (int64_t start = 0; start < look.n; start += tile_rows) {
    const int64_t n = look.n - start < tile_rows ? look.n - start : tile_rows;
    const X *rows = (const X *)look.X + start * d;
    for (int64_t i = 0; i < n * d; i++) tile[i] = double(rows[i]) + 0.0;  // -0 becomes 0, which has the same key
    m.add(tile, n * d, start);
    if (look.keys) hash_rows(tile, n, d, look.salt, look.keys + start);
  }
  m.finish();
  return 0;
}

inline int look_at(gmm_look &look) { return look.has_float_rows ? look_at<float>(look) : look_at<double>(look); }

}  // namespace LEVEL
