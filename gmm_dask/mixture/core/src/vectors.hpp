// Registers of one processor level, and packs of registers.
//
// Every operation that rounds is written out, and the sources are compiled with -ffp-contract=off: a pack
// gives the same bits at every level that has fused multiply-add, however many registers it is cut into.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define REGISTER_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16
#endif

namespace LEVEL {

typedef double Doubles __attribute__((vector_size(REGISTER_BYTES)));
typedef float Floats __attribute__((vector_size(REGISTER_BYTES)));
typedef int64_t Longs __attribute__((vector_size(REGISTER_BYTES)));
typedef int32_t Ints __attribute__((vector_size(REGISTER_BYTES)));
typedef uint64_t ULongs __attribute__((vector_size(REGISTER_BYTES)));
typedef uint32_t UInts __attribute__((vector_size(REGISTER_BYTES)));
typedef double UnalignedDoubles __attribute__((vector_size(REGISTER_BYTES), aligned(8), may_alias));
typedef float UnalignedFloats __attribute__((vector_size(REGISTER_BYTES), aligned(4), may_alias));

template <class T> struct RegisterOf;
template <> struct RegisterOf<double> {
  typedef Doubles type;
  typedef UnalignedDoubles unaligned;
};
template <> struct RegisterOf<float> {
  typedef Floats type;
  typedef UnalignedFloats unaligned;
};
template <class T> using Register = typename RegisterOf<T>::type;
template <class T> constexpr int LANES_OF = REGISTER_BYTES / int(sizeof(T));

// ---- one register -----------------------------------------------------------------------------------

#if REGISTER_BYTES == 64

typedef __mmask8 MaskOfDoubles;
typedef __mmask16 MaskOfFloats;
INLINE Doubles broadcast(double x) { return _mm512_set1_pd(x); }
INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE MaskOfDoubles greater(Doubles a, Doubles b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
INLINE MaskOfFloats greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE Doubles where(MaskOfDoubles m, Doubles x, Doubles y) { return _mm512_mask_blend_pd(m, y, x); }
INLINE Floats where(MaskOfFloats m, Floats x, Floats y) { return _mm512_mask_blend_ps(m, y, x); }
INLINE uint32_t bits_of(MaskOfDoubles m) { return m; }
INLINE uint32_t bits_of(MaskOfFloats m) { return m; }

#elif REGISTER_BYTES == 32

typedef Longs MaskOfDoubles;
typedef Ints MaskOfFloats;
INLINE Doubles broadcast(double x) { return _mm256_set1_pd(x); }
INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
INLINE MaskOfDoubles greater(Doubles a, Doubles b) { return a > b; }
INLINE MaskOfFloats greater(Floats a, Floats b) { return a > b; }
INLINE Doubles where(MaskOfDoubles m, Doubles x, Doubles y) { return _mm256_blendv_pd(y, x, (__m256d)m); }
INLINE Floats where(MaskOfFloats m, Floats x, Floats y) { return _mm256_blendv_ps(y, x, (__m256)m); }
INLINE uint32_t bits_of(MaskOfDoubles m) { return uint32_t(_mm256_movemask_pd((__m256d)m)); }
INLINE uint32_t bits_of(MaskOfFloats m) { return uint32_t(_mm256_movemask_ps((__m256)m)); }

#else

typedef Longs MaskOfDoubles;
typedef Ints MaskOfFloats;
INLINE MaskOfDoubles greater(Doubles a, Doubles b) { return a > b; }
INLINE MaskOfFloats greater(Floats a, Floats b) { return a > b; }
INLINE Doubles where(MaskOfDoubles m, Doubles x, Doubles y) { return (Doubles)(((Longs)x & m) | ((Longs)y & ~m)); }
INLINE Floats where(MaskOfFloats m, Floats x, Floats y) { return (Floats)(((Ints)x & m) | ((Ints)y & ~m)); }
#if defined(__aarch64__)
INLINE Doubles broadcast(double x) { return (Doubles)vdupq_n_f64(x); }
INLINE Floats broadcast(float x) { return (Floats)vdupq_n_f32(x); }
INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
  return (Doubles)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE uint32_t bits_of(MaskOfDoubles m) { return uint32_t((m[0] & 1) | (m[1] & 2)); }
INLINE uint32_t bits_of(MaskOfFloats m) { return uint32_t((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8)); }
#else  // x86-64-v2 has no fused multiply-add: two roundings, and bits of its own
INLINE Doubles broadcast(double x) { return _mm_set1_pd(x); }
INLINE Floats broadcast(float x) { return _mm_set1_ps(x); }
INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return a * b + c; }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
INLINE uint32_t bits_of(MaskOfDoubles m) { return uint32_t(_mm_movemask_pd((__m128d)m)); }
INLINE uint32_t bits_of(MaskOfFloats m) { return uint32_t(_mm_movemask_ps((__m128)m)); }
#endif

#endif

INLINE Doubles load_unaligned(const double *p) { return *(const UnalignedDoubles *)p; }
INLINE Floats load_unaligned(const float *p) { return *(const UnalignedFloats *)p; }

// 2^s times x, where s is the low bits of a double (or float) that a large constant was added to.
INLINE Doubles scaled(Doubles x, Doubles s) { return (Doubles)((Longs)x + ((Longs)s << 52)); }
INLINE Floats scaled(Floats x, Floats s) { return (Floats)((Ints)x + ((Ints)s << 23)); }
INLINE Doubles mantissa(Doubles x) {
  return (Doubles)(((Longs)x & (Longs{} + 0xfffffffffffffll)) | (Longs{} + 0x3ff0000000000000ll));
}
INLINE Floats mantissa(Floats x) { return (Floats)(((Ints)x & (Ints{} + 0x7fffff)) | (Ints{} + 0x3f800000)); }
INLINE Doubles exponent(Doubles x) {
  const Longs shifted = (Longs)((ULongs)x >> 52) | (Longs{} + 0x4330000000000000ll);
  return (Doubles)shifted - broadcast(4503599627370496.0 + 1023.0);
}
INLINE Floats exponent(Floats x) {
  const Ints shifted = (Ints)((UInts)x >> 23) | (Ints{} + 0x4b000000);
  return (Floats)shifted - broadcast(8388608.0f + 127.0f);
}

// ---- packs ------------------------------------------------------------------------------------------

// N registers as one value. Loops over `r` have a constant length: they are unrolled and stay in registers.
template <class T, int N> struct Pack {
  typedef T value;
  static constexpr int size = N * LANES_OF<T>;
  Register<T> r[N];
};

#define EACH(N) _Pragma("GCC unroll 4") for (int i = 0; i < (N); i++)

template <class P> INLINE P load(const typename P::value *p) {
  typedef typename P::value T;
  P x;
  EACH(P::size / LANES_OF<T>) x.r[i] = *(const Register<T> *)(p + i * LANES_OF<T>);
  return x;
}
template <class P> INLINE P load_row(const typename P::value *p) {  // from any address
  typedef typename P::value T;
  P x;
  EACH(P::size / LANES_OF<T>) x.r[i] = load_unaligned(p + i * LANES_OF<T>);
  return x;
}
template <class P> INLINE P all(typename P::value value) {
  typedef typename P::value T;
  P x;
  EACH(P::size / LANES_OF<T>) x.r[i] = broadcast(value);
  return x;
}
template <class T, int N> INLINE void store(T *p, Pack<T, N> x) {
  EACH(N) *(Register<T> *)(p + i * LANES_OF<T>) = x.r[i];
}
template <class T, int N> INLINE Pack<T, N> operator+(Pack<T, N> x, Pack<T, N> y) {
  EACH(N) x.r[i] += y.r[i];
  return x;
}
template <class T, int N> INLINE Pack<T, N> operator-(Pack<T, N> x, Pack<T, N> y) {
  EACH(N) x.r[i] -= y.r[i];
  return x;
}
template <class T, int N> INLINE Pack<T, N> operator*(Pack<T, N> x, Pack<T, N> y) {
  EACH(N) x.r[i] *= y.r[i];
  return x;
}
template <class T, int N> INLINE Pack<T, N> operator/(Pack<T, N> x, Pack<T, N> y) {
  EACH(N) x.r[i] /= y.r[i];
  return x;
}
template <class T, int N> INLINE Pack<T, N> multiply_add(Pack<T, N> x, Pack<T, N> y, Pack<T, N> z) {
  EACH(N) z.r[i] = multiply_add(x.r[i], y.r[i], z.r[i]);
  return z;
}
// One number for all lanes stays one register.
template <class T, int N> INLINE Pack<T, N> operator+(Pack<T, N> x, Register<T> y) {
  EACH(N) x.r[i] += y;
  return x;
}
template <class T, int N> INLINE Pack<T, N> operator-(Pack<T, N> x, Register<T> y) {
  EACH(N) x.r[i] -= y;
  return x;
}
template <class T, int N> INLINE Pack<T, N> operator*(Pack<T, N> x, Register<T> y) {
  EACH(N) x.r[i] *= y;
  return x;
}
template <class T, int N> INLINE Pack<T, N> multiply_add(Pack<T, N> x, Register<T> y, Pack<T, N> z) {
  EACH(N) z.r[i] = multiply_add(x.r[i], y, z.r[i]);
  return z;
}
template <class T, int N> INLINE Pack<T, N> multiply_add(Pack<T, N> x, Register<T> y, Register<T> z) {
  EACH(N) x.r[i] = multiply_add(x.r[i], y, z);
  return x;
}
template <class T, int N>
INLINE Pack<T, N> where_greater(Pack<T, N> a, Pack<T, N> b, Pack<T, N> x, Pack<T, N> y) {
  EACH(N) x.r[i] = where(greater(a.r[i], b.r[i]), x.r[i], y.r[i]);
  return x;
}
template <class T, int N> INLINE Pack<T, N> larger(Pack<T, N> x, Pack<T, N> y) {
  return where_greater(x, y, x, y);
}
// A bit for each lane in which a > b; NaN is greater than nothing.
template <class T, int N> INLINE uint64_t bits_greater(Pack<T, N> a, Pack<T, N> b) {
  uint64_t bits = 0;
  EACH(N) bits |= uint64_t(bits_of(greater(a.r[i], b.r[i]))) << (i * LANES_OF<T>);
  return bits;
}
template <class T, int N> INLINE bool any_greater(Pack<T, N> a, Pack<T, N> b) {
  auto found = greater(a.r[0], b.r[0]);
  for (int i = 1; i < N; i++) found = decltype(found)(found | greater(a.r[i], b.r[i]));
  return bits_of(found) != 0;
}
template <class T, int N> INLINE Pack<T, N> scaled(Pack<T, N> x, Pack<T, N> s) {
  EACH(N) x.r[i] = scaled(x.r[i], s.r[i]);
  return x;
}
template <class T, int N> INLINE Pack<T, N> mantissa(Pack<T, N> x) {
  EACH(N) x.r[i] = mantissa(x.r[i]);
  return x;
}
template <class T, int N> INLINE Pack<T, N> exponent(Pack<T, N> x) {
  EACH(N) x.r[i] = exponent(x.r[i]);
  return x;
}

// ---- widths -----------------------------------------------------------------------------------------

// A line is a cache line at every level: the unit that sums are kept in, 8 doubles or 16 floats.
template <class T> using Line = Pack<T, 64 / REGISTER_BYTES>;
// A strip is what lane-wise work over the rows of a block is done in; its width changes no bit.
template <class T> using Strip = Pack<T, 4>;
// What the columns of a distance are summed in: as many registers as four sums leave room for.
#if REGISTER_BYTES == 32
template <class T> using Narrow = Pack<T, 2>;
#elif REGISTER_BYTES == 16 && !defined(__aarch64__)
template <class T> using Narrow = Pack<T, 2>;
#else
template <class T> using Narrow = Pack<T, 4>;
#endif

// ---- float32 sums into float64 ------------------------------------------------------------------------

INLINE void add_widened(double *to, Floats x) {
#if REGISTER_BYTES == 64
  *(Doubles *)to += (Doubles)_mm512_cvtps_pd(_mm512_castps512_ps256(x));
  *(Doubles *)(to + 8) += (Doubles)_mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
#elif REGISTER_BYTES == 32
  *(Doubles *)to += (Doubles)_mm256_cvtps_pd(_mm256_castps256_ps128(x));
  *(Doubles *)(to + 4) += (Doubles)_mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
#elif defined(__aarch64__)
  *(Doubles *)to += (Doubles)vcvt_f64_f32(vget_low_f32((float32x4_t)x));
  *(Doubles *)(to + 2) += (Doubles)vcvt_high_f64_f32((float32x4_t)x);
#else
  *(Doubles *)to += (Doubles)_mm_cvtps_pd(x);
  *(Doubles *)(to + 2) += (Doubles)_mm_cvtps_pd(_mm_movehl_ps(x, x));
#endif
}

// Add every lane to a place of its own.
template <int N> INLINE void add_to(double *to, Pack<double, N> x) { store(to, load<Pack<double, N>>(to) + x); }
template <int N> INLINE void add_to(double *to, Pack<float, N> x) {
  EACH(N) add_widened(to + i * LANES_OF<float>, x.r[i]);
}

// Add a line to 8 places: of 16 floats lanes i and i + 8 share one.
INLINE void add_folded(double *to, Line<double> x) { add_to(to, x); }
INLINE void add_folded(double *to, Line<float> x) {
#if REGISTER_BYTES == 64
  const __m256 sum = _mm256_add_ps(_mm512_castps512_ps256(x.r[0]), _mm512_extractf32x8_ps(x.r[0], 1));
  *(Doubles *)to += (Doubles)_mm512_cvtps_pd(sum);
#elif REGISTER_BYTES == 32
  add_widened(to, x.r[0] + x.r[1]);
#else
  add_widened(to, x.r[0] + x.r[2]);
  add_widened(to + 4, x.r[1] + x.r[3]);
#endif
}

// ---- a square of registers, transposed ------------------------------------------------------------------

template <int N, int S, class V, int... I> INLINE void exchange(V &a, V &b, std::integer_sequence<int, I...>) {
  const V low = __builtin_shufflevector(a, b, ((I & S) ? N + I - S : I)...);
  const V high = __builtin_shufflevector(a, b, ((I & S) ? N + I : I + S)...);
  a = low;
  b = high;
}
template <int N, int S, class V> INLINE void exchange_all(V *v) {
  _Pragma("GCC unroll 16") for (int i = 0; i < N; i++)
    if (!(i & S)) exchange<N, S>(v[i], v[i + S], std::make_integer_sequence<int, N>());
}
template <int N, class V> INLINE void transpose_square(V *v) {
  exchange_all<N, 1>(v);
  if constexpr (N > 2) exchange_all<N, 2>(v);
  if constexpr (N > 4) exchange_all<N, 4>(v);
  if constexpr (N > 8) exchange_all<N, 8>(v);
}

}  // namespace LEVEL
