// The screen: in the few directions that separate the components most, components out of reach are found early.
#pragma once

#include "mixture.hpp"

namespace LEVEL {

constexpr int AGAIN = 32;  // tiles after which a screen that did not pay is tried once more

// Of the components that were looked at in a tile, how many were out of reach.
struct Tally {
  int64_t looked_at = 0, out_of_reach = 0;

  // Whether to screen the next tile: the last one screened gained by it, or it is time to look.
  template <class T> bool is_worth(const Mixture<T> &g, int64_t tile) {
    if (!g.n_seen) return false;
    const bool gained = double(out_of_reach) >= g.worth * double(looked_at);
    if (gained || tile % AGAIN == 0) {
      looked_at = out_of_reach = 0;
      return true;
    }
    return false;
  }
};

// projected (count, r) = (X - centre) directions, 8 rows at a time.
template <class T> static void project(const Mixture<T> &g, const Room<T> &m, const T *X, int64_t count) {
#if REGISTER_BYTES == 64
  typedef Pack<T, 1> P;
#else
  typedef Narrow<T> P;
#endif
  const int64_t d = g.d, r = g.n_directions;
  T *D = m.shifted, *projected = m.projected;
  for (int64_t t = 0; t < count; t += 8) {
    const int64_t n = count - t < 8 ? count - t : 8;
    for (int64_t p = 0; p < 8; p++)
      for (int64_t i = 0; i < d; i++) D[p * d + i] = p < n ? X[(t + p) * d + i] - g.centre[i] : T(0);
    for (int64_t c = 0; c < r; c += P::size)
      for (int64_t p = 0; p < 8; p += 4) {
        P sum[4];
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++) sum[q] = all<P>(T(0));
        const T *E = D + p * d;
        for (int64_t i = 0; i < d; i++) {
          const P v = load<P>(m.directions + i * r + c);
          _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++)
            sum[q] = multiply_add(v, broadcast(E[q * d + i]), sum[q]);
        }
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++) store(projected + (t + p + q) * r + c, sum[q]);
      }
  }
}

// Sort the rows of a tile by the component that they are probably of: the linear discriminant rule.
template <class T> static void sort_by_guess(const Mixture<T> &g, const Room<T> &m, int64_t count) {
  constexpr int R = ROWS<T>;
  alignas(64) T found[R];
  for (int64_t j = 0; j <= g.k; j++) m.ends[j] = 0;
  for (int64_t t = 0; t < count; t += R) {
    transpose(m.projected, g.n_directions, m.order + t, g.n_seen, m.y);
    find_largest(m.y, m.discriminants, m.biases, g.n_seen, filled_up(g.k, FOUR), found);
    for (int i = 0; i < R; i++) m.guess[t + i] = int32_t(found[i]);
  }
  for (int64_t t = 0; t < count; t++) m.ends[m.guess[t] + 1]++;
  for (int64_t j = 0; j < g.k; j++) m.ends[j + 1] += m.ends[j];
  for (int64_t t = 0; t < count; t++) m.placed[m.ends[m.guess[t]]++] = int32_t(t);
  for (int64_t t = 0; t < count; t++) m.order[t] = m.placed[t];
}

// Number the rows of a tile, sorted where it is screened; lanes beyond its end repeat the last row.
template <class T>
INLINE void arrange(const Mixture<T> &g, const Room<T> &m, const T *rows, int64_t count, bool is_screened) {
  for (int64_t t = 0; t < HELD; t++) m.order[t] = int32_t(t < count ? t : count - 1);
  if (!is_screened) return;
  project(g, m, rows, count);
  sort_by_guess(g, m, count);
}

}  // namespace LEVEL
