// Which level this processor runs, and the functions of that level.
#include "core.h"

#define LEVELS_OF(level)                                      \
  int gmm_expect_##level(gmm_task *, gmm_sums *);             \
  int gmm_climb_all_##level(gmm_task *, gmm_climb *);          \
  int gmm_score_##level(gmm_task *, gmm_scores *);            \
  int gmm_look_at_##level(gmm_look *);                        \
  int gmm_settle_##level(gmm_groups *);                       \
  int gmm_seed_##level(gmm_seeds *);                          \
  int gmm_put_in_order_##level(gmm_column *);                 \
  int gmm_measure_low_rank_##level(gmm_factors *);            \
  int gmm_sum_low_rank_##level(gmm_factors *);                \
  int gmm_explain_##level(gmm_reasons *);                     \
  int gmm_find_two_best_##level(gmm_two_best *);              \
  int gmm_interpolate_##level(gmm_curve *);                   \
  void gmm_exp_log_##level(const double *, double *, double *, int64_t);

extern "C" {
#if defined(__x86_64__)
LEVELS_OF(v2)
LEVELS_OF(v3)
LEVELS_OF(v4)
#else
LEVELS_OF(aarch64)
#endif
}

namespace {

struct Functions {
  int level;
  int (*expect)(gmm_task *, gmm_sums *);
  int (*climb_all)(gmm_task *, gmm_climb *);
  int (*score)(gmm_task *, gmm_scores *);
  int (*look_at)(gmm_look *);
  int (*settle)(gmm_groups *);
  int (*seed)(gmm_seeds *);
  int (*put_in_order)(gmm_column *);
  int (*measure_factors)(gmm_factors *);
  int (*sum_factors)(gmm_factors *);
  int (*explain)(gmm_reasons *);
  int (*find_two_best)(gmm_two_best *);
  int (*interpolate)(gmm_curve *);
  void (*exp_log)(const double *, double *, double *, int64_t);
};

#define FUNCTIONS(number, level)                                                                     \
  {                                                                                                  \
    number, gmm_expect_##level, gmm_climb_all_##level, gmm_score_##level, gmm_look_at_##level,        \
        gmm_settle_##level, gmm_seed_##level, gmm_put_in_order_##level,                           \
        gmm_measure_low_rank_##level, gmm_sum_low_rank_##level, gmm_explain_##level,                 \
        gmm_find_two_best_##level, gmm_interpolate_##level, gmm_exp_log_##level                      \
  }

#if defined(__x86_64__)

const Functions ALL[] = {FUNCTIONS(4, v4), FUNCTIONS(3, v3), FUNCTIONS(2, v2)};

// The compiler's runtime asks cpuid and the operating system; __builtin_cpu_supports needs libgcc, so we ask.
int found_level() {
  unsigned a, b, c, d, features;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
  if (a < 7) return 2;
  __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
  const unsigned has_fma = 1u << 12, has_xsave = 1u << 27;
  if (!(c & has_xsave) || !(c & has_fma)) return 2;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  __asm__("cpuid" : "=a"(a), "=b"(features), "=c"(c), "=d"(d) : "a"(7), "c"(0));
  const unsigned avx2 = 1u << 5;
  const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // F, DQ, CD, BW, VL
  if ((low & 0x6) != 0x6 || !(features & avx2)) return 2;
  return (low & 0xe6) == 0xe6 && (features & avx512) == avx512 ? 4 : 3;
}

#else

const Functions ALL[] = {FUNCTIONS(8, aarch64)};
int found_level() { return 8; }

#endif

const Functions *functions_of(int level) {
  const int best = gmm_level();
  for (const Functions &each : ALL)
    if (each.level == (level ? level : best) && each.level <= best) return &each;
  return nullptr;
}

}  // namespace

extern "C" {

int gmm_level(void) {
  static int level = 0;  // the same whichever thread writes it
  if (!level) level = found_level();
  return level;
}

int gmm_expect(gmm_task *task, gmm_sums *sums, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->expect(task, sums) : 2;
}

int gmm_climb_all(gmm_task *task, gmm_climb *climb, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->climb_all(task, climb) : 2;
}

int gmm_score(gmm_task *task, gmm_scores *scores, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->score(task, scores) : 2;
}

int gmm_look_at(gmm_look *look, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->look_at(look) : 2;
}

int gmm_settle(gmm_groups *groups, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->settle(groups) : 2;
}

int gmm_seed(gmm_seeds *seeds, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->seed(seeds) : 2;
}

int gmm_put_in_order(gmm_column *column, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->put_in_order(column) : 2;
}

int gmm_measure_low_rank(gmm_factors *factors, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->measure_factors(factors) : 2;
}

int gmm_sum_low_rank(gmm_factors *factors, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->sum_factors(factors) : 2;
}

int gmm_explain(gmm_reasons *reasons, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->explain(reasons) : 2;
}

int gmm_find_two_best(gmm_two_best *two, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->find_two_best(two) : 2;
}

int gmm_interpolate(gmm_curve *curve, int level) {
  const Functions *chosen = functions_of(level);
  return chosen ? chosen->interpolate(curve) : 2;
}

int gmm_exp_log(const double *x, double *e, double *l, int64_t n, int level) {
  const Functions *chosen = functions_of(level);
  if (!chosen) return 2;
  chosen->exp_log(x, e, l, n);
  return 0;
}

int gmm_sums_in_lists(int64_t d, int64_t) { return d > 8; }
}
