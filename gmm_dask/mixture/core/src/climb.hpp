// Many steps of EM for one small mixture: E-step, M-step and extrapolation without a way back to Python.
//
// The M-step is that of gmm_dask/mixture/estimate.py (Bishop, PRML, 9.24 to 9.26), and the extrapolation that of
// gmm_dask/fitting/acceleration.py (Walker and Ni 2011, algorithm AA), linear in covariances instead of in their logs.
#pragma once

#include "expectation.hpp"

namespace LEVEL {

constexpr int DEPTH = 6;             // steps that an extrapolation is made of
constexpr double RIDGE = 1e-8;       // of their mean square
constexpr double LONGEST = 0.7;      // standard deviations, and shares of spreads and weights, beyond EM's own step
constexpr double EPSILON = 2.220446049250313e-16;
constexpr double STARVED = 10 * EPSILON;  // part of the weight under which a component has no rows
constexpr double DOUBT = 16 * EPSILON;    // what rounding may leave of a variance, as in estimate.py
enum Family { FULL = 0, TIED = 1, DIAG = 2, SPHERICAL = 3 };
enum Ending { GOES_ON = 0, CONVERGED = 1, IN_TROUBLE = 2 };

INLINE double log_of_one(double x) {
  typedef Strip<double> S;
  alignas(64) double value[S::size];
  store(value, log_of(all<S>(x >= 1.0 ? x : 1.0 / x)));
  return x >= 1.0 ? value[0] : -value[0];
}
INLINE double exp_of_one(double x) {  // x <= 0
  typedef Strip<double> S;
  alignas(64) double value[S::size];
  store(value, exp_of(all<S>(x)));
  return value[0];
}

// C (d, d) = R^T R with R upper triangular, in place in the upper part; false where a pivot is rounding.
static bool cholesky_upper(double *C, int64_t d) {
  for (int64_t i = 0; i < d; i++) {
    double *row = C + i * d;
    if (!(row[i] > 16 * double(d) * EPSILON)) return false;
    const double root = __builtin_sqrt(row[i]);
    for (int64_t j = i; j < d; j++) row[j] /= root;
    for (int64_t a = i + 1; a < d; a++) {
      double *below = C + a * d;
      const double factor = row[a];
      for (int64_t j = a; j < d; j++) below[j] -= factor * row[j];
    }
  }
  return true;
}

// U (d, d) = R^-1 of the upper triangular R.
static void invert_upper(const double *R, int64_t d, double *U) {
  for (int64_t i = d - 1; i >= 0; i--) {
    double *row = U + i * d;
    const double pivot = 1.0 / R[i * d + i];
    for (int64_t j = 0; j < d; j++) row[j] = 0.0;
    for (int64_t q = i + 1; q < d; q++) {
      const double factor = R[i * d + q];
      for (int64_t j = q; j < d; j++) row[j] -= factor * U[q * d + j];
    }
    for (int64_t j = i + 1; j < d; j++) row[j] *= pivot;
    row[i] = pivot;
  }
}

// A mixture in one piece of memory: logs of weights (k,), means (k, d), covariances (c numbers).
struct Point {
  double *logs, *means, *covariances;
};

class Climb {
 public:
  Climb(gmm_task &task, gmm_climb &asked)
      : t_(task), c_(asked), k_(task.k), d_(task.d), family_(int(asked.family)),
        is_matrix_(asked.family == FULL || asked.family == TIED), in_lists_(sums_in_lists(task.d)),
        p_(filled_up(task.d, LINE_VALUES<double>)) {
    n_covariances_ = family_ == FULL || family_ == DIAG || family_ == SPHERICAL ? k_ : 1;
    size_ = is_matrix_ ? d_ * d_ : family_ == DIAG ? d_ : 1;
    n_factors_ = family_ == TIED ? 1 : k_;
    numbers_ = k_ + k_ * d_ + n_covariances_ * size_;
  }

  int run() {
    t_.form = family_ == DIAG ? VARIANCES : family_ == SPHERICAL ? ONE_VARIANCE : MATRICES;
    take();
    if (!arena_.allocate()) return 1;
    take();
    for (int64_t j = 0; j < k_; j++) x_.logs[j] = log_of_one(c_.weights[j]);
    memcpy(x_.means, c_.means, sizeof(double) * size_t(k_ * d_));
    memcpy(x_.covariances, c_.covariances, sizeof(double) * size_t(n_covariances_ * size_));
    copy(settled_, x_);
    const int failed = climb();
    for (int64_t j = 0; j < k_; j++) c_.weights[j] = exp_of_one(settled_.logs[j]);
    memcpy(c_.means, settled_.means, sizeof(double) * size_t(k_ * d_));
    memcpy(c_.covariances, settled_.covariances, sizeof(double) * size_t(n_covariances_ * size_));
    return failed;
  }

 private:
  int climb() {
    double last = -__builtin_inf();
    bool is_ahead = false;
    int calm = 0;
    *c_.ending = GOES_ON;
    *c_.n_done = 0;
    while (*c_.n_done < c_.n_steps) {
      if (!factor(x_)) {
        if (!is_ahead) return end(IN_TROUBLE);
        step_back(is_ahead);
        continue;
      }
      if (expect_all()) return 1;
      ++*c_.n_done;
      const double found = sums_.log_likelihood;
      if (t_.n_far || !(found - found == 0.0)) {
        if (!is_ahead) return end(IN_TROUBLE);
        step_back(is_ahead);
        continue;
      }
      if (is_ahead && !(found >= last)) {
        step_back(is_ahead);
        continue;
      }
      *c_.log_likelihood = found;
      if (!maximise(x_, settled_)) return end(IN_TROUBLE);
      calm = __builtin_fabs(found - last) < c_.tol ? calm + 1 : 0;
      last = found;
      if (calm > 1) return end(CONVERGED);
      is_ahead = c_.is_accelerated && extrapolate();
      if (!is_ahead) copy(x_, settled_);
    }
    return factor(settled_) ? 0 : end(IN_TROUBLE);
  }

  int end(Ending ending) {
    *c_.ending = ending;
    return 0;
  }

  void step_back(bool &is_ahead) {
    copy(x_, settled_);
    is_ahead = false;
    n_kept_ = 0;
  }

  void take() {
    x_ = point();
    settled_ = point();
    for (Point &each : images_) each = point();
    for (int i = 0; i < DEPTH; i++) {
      starts_[i] = arena_.take<double>(numbers_);
      ends_[i] = arena_.take<double>(numbers_);
    }
    step_ = arena_.take<double>(numbers_);
    factors_ = arena_.take<double>(is_matrix_ ? n_factors_ * d_ * d_ : k_ * d_);
    reference_ = point();
    frame_ = arena_.take<double>(is_matrix_ ? n_factors_ * d_ * d_ : k_ * d_);
    log_weights_ = arena_.take<double>(k_);
    work_ = arena_.take<double>(3 * d_ * d_);
    scale_ = arena_.take<double>(d_);
    scatter_ = arena_.take<double>(d_ * d_);
    sum_resp_ = arena_.take<double>(k_ * SUM_LANES);
    sum_x_ = arena_.take<double>(size_x());
    sum_xx_ = arena_.take<double>(size_xx());
  }
  Point point() {
    double *all = arena_.take<double>(numbers_);
    return {all, all + k_, all + k_ + k_ * d_};
  }
  int64_t size_x() const { return in_lists_ ? k_ * p_ : k_ * d_ * SUM_LANES; }
  int64_t size_xx() const {
    if (!is_matrix_) return size_x();
    return in_lists_ ? n_factors_ * p_ * p_ : k_ * d_ * d_ * SUM_LANES;
  }
  void copy(Point to, Point from) { memcpy(to.logs, from.logs, sizeof(double) * size_t(numbers_)); }

  // Factors of the precisions and log weights times densities at the means; false where there are none.
  bool factor(Point x) {
    double log_det = 0.0;
    for (int64_t j = 0; j < k_; j++) {
      if (is_matrix_ && (j == 0 || family_ == FULL)) {
        double *R = work_, *U = factors_ + j * d_ * d_;
        const double *S = x.covariances + j * d_ * d_;
        for (int64_t i = 0; i < d_; i++) {
          if (!(S[i * d_ + i] > 0.0) || S[i * d_ + i] > 1e300) return false;
          scale_[i] = 1.0 / __builtin_sqrt(S[i * d_ + i]);
        }
        for (int64_t i = 0; i < d_; i++)
          for (int64_t q = 0; q < d_; q++) R[i * d_ + q] = S[i * d_ + q] * scale_[i] * scale_[q];
        if (!cholesky_upper(R, d_)) return false;
        invert_upper(R, d_, U);
        log_det = 0.0;
        for (int64_t i = 0; i < d_; i++) {
          for (int64_t q = i; q < d_; q++) U[i * d_ + q] *= scale_[i];
          log_det += log_of_one(U[i * d_ + i]);
        }
      } else if (!is_matrix_) {
        log_det = 0.0;
        for (int64_t i = 0; i < d_; i++) {
          const double v = family_ == DIAG ? x.covariances[j * d_ + i] : x.covariances[j];
          if (!(v > 0.0) || v > 1e300) return false;
          factors_[j * d_ + i] = 1.0 / __builtin_sqrt(v);
          if (family_ == DIAG || i == 0) log_det += log_of_one(factors_[j * d_ + i]);
        }
        if (family_ == SPHERICAL) log_det *= double(d_);
      }
      log_weights_[j] = x.logs[j] + log_det - 0.5 * double(d_) * 1.8378770664093453;
    }
    return true;
  }

  int expect_all() {
    memset(sum_resp_, 0, sizeof(double) * size_t(k_ * SUM_LANES));
    memset(sum_x_, 0, sizeof(double) * size_t(size_x()));
    memset(sum_xx_, 0, sizeof(double) * size_t(size_xx()));
    sums_ = {0.0, sum_resp_, sum_x_, sum_xx_};
    t_.means = x_.means;
    t_.factors = factors_;
    t_.n_factors = n_factors_;
    t_.log_weights = log_weights_;
    return expect(t_, sums_);
  }

  double of_feature(const double *sums, int64_t j, int64_t i) const {
    return in_lists_ ? sums[j * p_ + i] : folded_lanes(sums + (j * d_ + i) * SUM_LANES);
  }
  // Of component j, or of all where they share it; q <= i.
  double sum_xx(int64_t j, int64_t i, int64_t q) const {
    if (in_lists_) return sum_xx_[(j * p_ + i) * p_ + q];
    return folded_lanes(sum_xx_ + ((j * d_ + i) * d_ + q) * SUM_LANES);
  }

  // The M-step from the sums about the means of `from`; false where a component has no rows.
  bool maximise(Point from, Point to) {
    double total = 0.0;
    for (int64_t j = 0; j < k_; j++) {
      c_.sum_resp[j] = folded_lanes(sum_resp_ + j * SUM_LANES);
      total += c_.sum_resp[j];
    }
    if (family_ == TIED) memset(scatter_, 0, sizeof(double) * size_t(d_ * d_));
    for (int64_t j = 0; j < k_; j++) {
      const double rows = c_.sum_resp[j];
      if (!(rows > STARVED * total)) return false;
      to.logs[j] = log_of_one(rows / total);
      double *delta = scale_;
      for (int64_t i = 0; i < d_; i++) {
        delta[i] = of_feature(sum_x_, j, i) / rows;
        to.means[j * d_ + i] = from.means[j * d_ + i] + delta[i];
      }
      const double counted = rows + c_.prior_rows, doubt = DOUBT * double(d_) * rows;
      if (is_matrix_) {
        double *S = family_ == FULL ? to.covariances + j * d_ * d_ : scatter_;
        for (int64_t i = 0; i < d_; i++)
          for (int64_t q = 0; q <= i; q++) {
            double v = (in_lists_ && family_ == TIED ? 0.0 : sum_xx(j, i, q)) - rows * delta[i] * delta[q];
            if (i == q) v += doubt * delta[i] * delta[i];
            if (family_ == TIED) {
              S[i * d_ + q] += v;
              continue;
            }
            if (i == q) v += c_.prior_scale[i];
            S[i * d_ + q] = v / counted + c_.added[i * d_ + q];
            S[q * d_ + i] = S[i * d_ + q];
          }
        continue;
      }
      double sum = 0.0, scale = 0.0, added = 0.0;
      for (int64_t i = 0; i < d_; i++) {
        const double v = of_feature(sum_xx_, j, i) - rows * delta[i] * delta[i] + doubt * delta[i] * delta[i];
        if (family_ == DIAG) to.covariances[j * d_ + i] = (v + c_.prior_scale[i]) / counted + c_.added[i];
        sum += v;
        scale += c_.prior_scale[i];
        added += c_.added[i];
      }
      if (family_ == SPHERICAL) to.covariances[j] = (sum + scale) / counted / double(d_) + added / double(d_);
    }
    if (family_ != TIED) return true;
    const double counted = total + c_.prior_rows;
    for (int64_t i = 0; i < d_; i++)
      for (int64_t q = 0; q <= i; q++) {
        double v = scatter_[i * d_ + q] + (in_lists_ ? sum_xx(0, i, q) : 0.0);
        if (i == q) v += c_.prior_scale[i];
        v = v / counted + c_.added[i * d_ + q];
        to.covariances[i * d_ + q] = to.covariances[q * d_ + i] = v;
      }
    return true;
  }

  // A mixture as a vector about the reference, in which a length is a change of the log-likelihood (Fisher's metric).
  void encode(Point x, double *vector) {
    for (int64_t j = 0; j < k_; j++) {
      const double root = __builtin_sqrt(exp_of_one(reference_.logs[j]));
      vector[j] = root * (x.logs[j] - reference_.logs[j]);
      const double *U = frame_ + (family_ == TIED ? 0 : j) * (is_matrix_ ? d_ * d_ : d_);
      double *moved = vector + k_ + j * d_;
      for (int64_t i = 0; i < d_; i++) moved[i] = 0.0;
      for (int64_t i = 0; i < d_; i++) {
        const double by = root * (x.means[j * d_ + i] - reference_.means[j * d_ + i]);
        if (is_matrix_)
          for (int64_t q = i; q < d_; q++) moved[q] += by * U[i * d_ + q];
        else
          moved[i] = by * U[i];
      }
      if (family_ == TIED && j) continue;
      const double half = family_ == TIED ? 1.0 : root;
      double *to = vector + k_ + k_ * d_ + j * size_;
      const double *S = x.covariances + j * size_, *of = reference_.covariances + j * size_;
      if (!is_matrix_) {
        const double each = half * __builtin_sqrt(0.5 * (family_ == DIAG ? 1.0 : double(d_)));
        for (int64_t i = 0; i < size_; i++) to[i] = each * (S[i] - of[i]) * U[i] * U[i];
        continue;
      }
      // U^T (S - S0) U; every number below the diagonal counts twice, by half each.
      double *V = work_;
      for (int64_t i = 0; i < d_; i++) {
        for (int64_t q = 0; q < d_; q++) V[i * d_ + q] = 0.0;
        for (int64_t a = 0; a < d_; a++) {
          const double by = S[i * d_ + a] - of[i * d_ + a];
          for (int64_t q = a; q < d_; q++) V[i * d_ + q] += by * U[a * d_ + q];
        }
      }
      const double each = half * 0.7071067811865476;
      for (int64_t i = 0; i < d_ * d_; i++) to[i] = 0.0;
      for (int64_t a = 0; a < d_; a++)
        for (int64_t i = a; i < d_; i++) {
          const double by = each * U[a * d_ + i];
          for (int64_t q = 0; q < d_; q++) to[i * d_ + q] += by * V[a * d_ + q];
        }
    }
  }

  // Remember the step from x to what the M-step made of it, and go farther; false where that says nothing.
  bool extrapolate() {
    if (n_kept_ == 0) {
      copy(reference_, x_);
      memcpy(frame_, factors_, sizeof(double) * size_t(is_matrix_ ? n_factors_ * d_ * d_ : k_ * d_));
    }
    if (n_kept_ == DEPTH) {
      rotate();
      n_kept_--;
    }
    copy(images_[n_kept_], settled_);
    encode(x_, starts_[n_kept_]);
    encode(settled_, ends_[n_kept_]);
    n_kept_++;
    const int m = n_kept_ - 1;
    if (m < 1) return false;
    double normal[DEPTH][DEPTH], right[DEPTH], trace = 0.0;
    for (int a = 0; a < m; a++) {
      right[a] = product(a, m, true);
      for (int b = 0; b <= a; b++) normal[a][b] = normal[b][a] = product(a, b, false);
      trace += normal[a][a];
    }
    const double ridge = RIDGE * trace / m;
    if (!(ridge > 0.0)) return false;
    for (int a = 0; a < m; a++) normal[a][a] += ridge;
    if (!solve(normal, right, m)) return false;
    return go_ahead(right, m);
  }
  void rotate() {
    Point first = images_[0];
    double *start = starts_[0], *end = ends_[0];
    for (int i = 0; i + 1 < DEPTH; i++) {
      images_[i] = images_[i + 1];
      starts_[i] = starts_[i + 1];
      ends_[i] = ends_[i + 1];
    }
    images_[DEPTH - 1] = first;
    starts_[DEPTH - 1] = start;
    ends_[DEPTH - 1] = end;
  }
  double residual(int i, int64_t q) const { return ends_[i][q] - starts_[i][q]; }
  // Of differences of residuals a and b; or of difference a and residual b.
  double product(int a, int b, bool is_residual) const {
    double sum = 0.0;
    for (int64_t q = 0; q < numbers_; q++) {
      const double one = residual(a + 1, q) - residual(a, q);
      sum += one * (is_residual ? residual(b, q) : residual(b + 1, q) - residual(b, q));
    }
    return sum;
  }
  // Gauss, for a symmetric positive definite matrix; the solution replaces `right`.
  static bool solve(double (&A)[DEPTH][DEPTH], double (&right)[DEPTH], int m) {
    for (int i = 0; i < m; i++) {
      if (!(A[i][i] > 0.0)) return false;
      for (int a = i + 1; a < m; a++) {
        const double factor = A[a][i] / A[i][i];
        for (int q = i; q < m; q++) A[a][q] -= factor * A[i][q];
        right[a] -= factor * right[i];
      }
    }
    for (int i = m - 1; i >= 0; i--) {
      for (int q = i + 1; q < m; q++) right[i] -= A[i][q] * right[q];
      right[i] /= A[i][i];
    }
    return true;
  }
  bool go_ahead(const double *shares, int m) {
    double reach = 0.0;
    for (int64_t q = 0; q < numbers_; q++) {
      double by = 0.0;
      for (int i = 0; i < m; i++) by += shares[i] * (ends_[i + 1][q] - ends_[i][q]);
      step_[q] = by;
    }
    for (int64_t q = 0; q < numbers_; q++) {
      const double long_ = __builtin_fabs(step_[q]) / root_of(q);
      if (!(long_ <= reach)) reach = long_;
    }
    if (!(reach - reach == 0.0)) return false;
    const double part = reach > LONGEST ? LONGEST / reach : 1.0;
    double top = -__builtin_inf(), sum = 0.0;
    for (int64_t q = 0; q < numbers_; q++) {
      double value = settled_.logs[q];
      for (int i = 0; i < m; i++) value -= part * shares[i] * (images_[i + 1].logs[q] - images_[i].logs[q]);
      x_.logs[q] = value;
      if (q < k_ && value > top) top = value;
    }
    for (int64_t j = 0; j < k_; j++) sum += exp_of_one(x_.logs[j] - top);
    const double total = top + log_of_one(sum);
    for (int64_t j = 0; j < k_; j++) x_.logs[j] -= total;
    return true;
  }
  // What the number q of a vector was multiplied by: the root of the weight that it describes.
  double root_of(int64_t q) const {
    int64_t j = q < k_ ? q : q < k_ + k_ * d_ ? (q - k_) / d_ : family_ == TIED ? -1 : (q - k_ - k_ * d_) / size_;
    return j < 0 ? 1.0 : __builtin_sqrt(exp_of_one(reference_.logs[j]));
  }

  gmm_task &t_;
  gmm_climb &c_;
  const int64_t k_, d_;
  const int family_;
  const bool is_matrix_, in_lists_;
  const int64_t p_;
  int64_t n_covariances_, size_, n_factors_, numbers_;
  int n_kept_ = 0;
  Arena arena_;
  Point x_, settled_, reference_, images_[DEPTH];
  double *starts_[DEPTH], *ends_[DEPTH];
  double *step_, *factors_, *frame_, *log_weights_, *work_, *scale_, *scatter_, *sum_resp_, *sum_x_, *sum_xx_;
  gmm_sums sums_;
};

inline int climb(gmm_task &task, gmm_climb &asked) {
  const int64_t size = asked.family == SPHERICAL ? 1 : asked.family == DIAG ? task.d : task.d * task.d;
  const int64_t n_covariances = asked.family == TIED ? size : task.k * size;
  gmm_climb one = asked;
  for (int64_t i = 0; i < asked.n_mixtures; i++) {
    one.weights = asked.weights + i * task.k;
    one.means = asked.means + i * task.k * task.d;
    one.covariances = asked.covariances + i * n_covariances;
    one.sum_resp = asked.sum_resp + i * task.k;
    one.log_likelihood = asked.log_likelihood + i;
    one.n_done = asked.n_done + i;
    one.ending = asked.ending + i;
    if (Climb(task, one).run()) return 1;
  }
  return 0;
}

}  // namespace LEVEL
