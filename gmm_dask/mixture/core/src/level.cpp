// Everything once for one processor level; it is compiled several times, with LEVEL naming the level.
#include "climb.hpp"
#include "expectation.hpp"
#include "factors.hpp"
#include "groups.hpp"
#include "look.hpp"
#include "reasons.hpp"
#include "scores.hpp"

#define CONCATENATED(a, b) a##b
#define NAME(function, level) CONCATENATED(function, level)

extern "C" {

int NAME(gmm_expect_, LEVEL)(gmm_task *task, gmm_sums *sums) { return LEVEL::expect_whole(*task, *sums); }

int NAME(gmm_climb_all_, LEVEL)(gmm_task *task, gmm_climb *asked) { return LEVEL::climb(*task, *asked); }

int NAME(gmm_score_, LEVEL)(gmm_task *task, gmm_scores *scores) { return LEVEL::score(*task, *scores); }

int NAME(gmm_look_at_, LEVEL)(gmm_look *look) { return LEVEL::look_at(*look); }

int NAME(gmm_settle_, LEVEL)(gmm_groups *groups) { return LEVEL::settle(*groups); }

int NAME(gmm_seed_, LEVEL)(gmm_seeds *seeds) { return LEVEL::seed(*seeds); }

int NAME(gmm_put_in_order_, LEVEL)(gmm_column *column) { return LEVEL::put_in_order(*column); }

int NAME(gmm_measure_low_rank_, LEVEL)(gmm_factors *factors) { return LEVEL::measure_factors(*factors); }

int NAME(gmm_sum_low_rank_, LEVEL)(gmm_factors *factors) { return LEVEL::sum_factors(*factors); }

int NAME(gmm_explain_, LEVEL)(gmm_reasons *reasons) { return LEVEL::explain(*reasons); }

int NAME(gmm_find_two_best_, LEVEL)(gmm_two_best *two) { return LEVEL::find_two_best(*two); }

int NAME(gmm_interpolate_, LEVEL)(gmm_curve *curve) { return LEVEL::interpolate(*curve); }

void NAME(gmm_exp_log_, LEVEL)(const double *x, double *e, double *l, int64_t n) {
  typedef LEVEL::Strip<double> S;
  for (int64_t i = 0; i + S::size <= n; i += S::size) {
    const S value = LEVEL::load_row<S>(x + i);
    alignas(64) double exps[S::size], logs[S::size];
    LEVEL::store(exps, LEVEL::exp_of(value));
    LEVEL::store(logs, LEVEL::log_of(LEVEL::all<S>(1.0) - value));
    memcpy(e + i, exps, sizeof exps);
    memcpy(l + i, logs, sizeof logs);
  }
}
}
