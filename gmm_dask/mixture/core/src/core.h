/* What Python hands over: pointers and sizes of C-contiguous arrays; see gmm_dask/mixture/core/library.py.
 *
 * Shapes are those of the fields' comments: n rows, d columns, k components, r directions of the screen,
 * s of them that separate (a multiple of 4). "Own" is the arithmetic's kind of float: float32 where
 * is_single, else float64. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int64_t n, d, k;
  int64_t is_single;      /* arithmetic in float32, with sums in float64 */
  int64_t form;           /* of the covariances: see Form in mixture.hpp */
  int64_t has_float_rows; /* X is float32 */
  const void *X;          /* (n, d) */
  const double *weights;  /* (n,) or NULL */
  /* the mixture */
  int64_t n_factors;       /* k, or 1 where all components share the factor */
  const void *means;       /* (k, d), own */
  const void *rests;       /* (k, d), own: what the means lack of their digits; NULL for none */
  const void *factors;     /* (n_factors, d, d) upper triangular, or (k, d) reciprocal standard deviations, own */
  const void *log_weights; /* (k,), own: log weight plus log of the density at the mean, less `top` */
  const void *shift;       /* (SHIFT_ROWS, d) as X: what rows are lessened by in single precision */
  double top;
  double far_limit; /* log-density at or below which a row is far */
  double least;     /* log of a responsibility that is nothing, in single precision */
  /* the screen; n_seen is 0 where there is none */
  int64_t n_directions, n_seen, n_screen_factors;
  const void *centre;         /* (d,), own */
  const void *directions;     /* (d, r), own; r fills whole lines */
  const void *screen_means;   /* (k, s), own */
  const void *biases;         /* (k,), own */
  const void *screen_factors; /* (n_screen_factors, s, s), own */
  const void *offsets;        /* (k, s), own */
  double worth;               /* part of the components that must be out of reach for the screen to pay */
  /* rows that are left to NumPy */
  int64_t *far; /* (most_far,): the first of them */
  int64_t most_far;
  int64_t n_far; /* out: all of them */
} gmm_task;

/* Sums over rows, 0 before. `in_lists` of them is said by gmm_sums_in_lists. */
typedef struct {
  double log_likelihood; /* out */
  double *sum_resp;      /* (k, 8) */
  double *sum_x;         /* in lists (k, p), p = d filled up to whole lines; else (k, d, 8) */
  double *sum_xx;        /* in lists (n_factors, p, p), of which (n_factors, d, d) come back at its
                            beginning, else (k, d, d, 8); without matrices as sum_x */
} gmm_sums;

typedef struct {
  int32_t *labels;              /* (n,) */
  double *log_density;          /* (n,) */
  double *max_responsibility;   /* (n,) */
  double *responsibilities;     /* (n, k) or NULL */
} gmm_scores;

typedef struct {
  int64_t n, d;
  int64_t has_float_rows;
  const void *X; /* (n, d) */
  double *moments; /* (4, d): mean, scatter, least, greatest */
  uint64_t salt;
  uint64_t *keys; /* (n,) or NULL */
} gmm_look;

/* Rows and the nearest of some centres, which move to the means of their rows before. */
typedef struct {
  int64_t n, d, k;
  int64_t n_sweeps;      /* of centres, at most; none moves a centre */
  double still;          /* of the columns' mean variance: squared movement of all centres that ends the sweeps */
  const double *X;       /* (n, d) */
  const double *weights; /* (n,) or NULL */
  double *centres;       /* (k, d) */
  int32_t *labels;       /* out (n,) */
  double *held;          /* out (k,): weight of the rows that are nearest to each */
  double *sums;          /* out (k, d): of weight times row */
} gmm_groups;

/* Rows that lie far from one another. */
typedef struct {
  int64_t n, d, k, n_trials;
  const double *X;       /* (n, d) */
  const double *weights; /* (n,) or NULL */
  const double *draws;   /* (1 + (k - 1) n_trials,) uniform in [0, 1) */
  int64_t *chosen;       /* out (k,) */
} gmm_seeds;

/* Values of a column: their order where there is room for it, else their variance about two means. */
typedef struct {
  int64_t n;
  const double *values;  /* (n,) */
  const double *weights; /* (n,) or NULL */
  int64_t *order;        /* out (n,) or NULL */
  double variance_within; /* out */
} gmm_column;

/* Rows and low-rank components; p is d filled up to whole lines of 8. */
typedef struct {
  int64_t n, d, k, q;
  int64_t has_float_rows;    /* X is float32 */
  const void *X;             /* (n, d) */
  const double *means;       /* (k, d) */
  const double *gains;       /* (k, q, p): means of the factors are gains times x - mean */
  const double *loadings;    /* (k, q, p) */
  const double *reciprocals; /* (k, p): 1 / standard deviation of the noise */
  const double *resp;        /* (n, k) or NULL */
  double *squares;           /* out (n, k) or NULL: squared distances */
  double *sum_x;             /* (k, d) or NULL: sums to add to */
  double *scatter;           /* (k, d, q + 1) or NULL: sums to add to */
} gmm_factors;

/* Rows, the component of each, and what columns say given the others; P is a component's precision. */
typedef struct {
  int64_t n, d, k, m; /* m columns are named for a row */
  int64_t has_float_rows;     /* X is float32 */
  const void *X;              /* (n, d); NaN is a missing value */
  const int64_t *components;  /* (n,) */
  const int64_t *others;      /* (n,) or NULL: the components that those are compared with */
  const double *means;        /* (k, d) */
  const double *spreads;      /* (k, d): 1 / sqrt(P_jj) */
  const double *logs;         /* (k, d): of the spreads */
  int64_t n_factors;          /* k, or 1 where all components share the factor */
  const double *factors;      /* (n_factors, d, d) upper triangular, U of P = U U^T, or NULL */
  const double *scaled;       /* the same, each row times its spread; of low rank (k, d): spread / variance of the noise */
  int64_t q;                  /* of low rank: factors that tie features together */
  const double *gains;        /* (k, q, d) or NULL: means of those factors are gains times x - mean */
  const double *loadings;     /* (k, q, d) or NULL */
  int64_t n_covariances;      /* k, or 1 where all components share it */
  const double *covariances;  /* (n_covariances, d, d), or NULL where no value is missing or columns are independent */
  int32_t *columns;           /* out (n, m): -1 where there is none */
  double *scores;             /* out (n, m) */
  double *expected;           /* out (n, m) */
  int32_t *label_columns;     /* out (n, m) or NULL */
  double *evidence;           /* out (n, m) or NULL */
} gmm_reasons;

/* The two largest of the k numbers of each row. */
typedef struct {
  int64_t n, k;
  const double *values; /* (n, k) */
  int64_t *first;       /* out (n,) */
  int64_t *second;      /* out (n,) */
} gmm_two_best;

/* Values to be found on a curve of straight lines. */
typedef struct {
  int64_t n, n_points;
  const double *values; /* (n,) */
  const double *x;      /* (n_points,), ascending */
  const double *y;      /* (n_points,) */
  double *found;        /* out (n,) */
} gmm_curve;

/* Steps of EM for small mixtures in float64: the task says which rows, and everything else is here. */
typedef struct {
  int64_t family;         /* 0 full, 1 tied, 2 diag, 3 spherical */
  int64_t n_steps;        /* passes at most */
  int64_t is_accelerated; /* extrapolate; a step that made it worse is taken back */
  double tol;             /* two changes of the log-likelihood in a row under this end the climb */
  const double *added;       /* to every covariance: (d, d) where they are matrices, else (d,) */
  const double *prior_scale; /* (d,): to every scatter */
  double prior_rows;         /* to the rows that a scatter is divided by */
  int64_t n_mixtures;     /* one after the other, each as if it were alone */
  double *weights;        /* in and out (n_mixtures, k), positive */
  double *means;          /* in and out (n_mixtures, k, d) */
  double *covariances;    /* in and out (n_mixtures, ...), in the shape of the family */
  double *sum_resp;       /* out (n_mixtures, k): of the last pass */
  double *log_likelihood; /* out (n_mixtures,): of the last pass that counts, so before the last M-step */
  int64_t *n_done;        /* out (n_mixtures,): passes */
  int64_t *ending;        /* out (n_mixtures,): 0 goes on, 1 converged, 2 a component is no density */
} gmm_climb;

/* Levels: 2, 3, 4 are x86-64-v2, v3 and v4; 8 is aarch64. 0 asks for the best that this processor runs.
 * The functions return 0, or 1 where there is no memory, or 2 where the level is none of this processor. */
__attribute__((visibility("default"))) int gmm_level(void);
__attribute__((visibility("default"))) int gmm_expect(gmm_task *task, gmm_sums *sums, int level);
__attribute__((visibility("default"))) int gmm_climb_all(gmm_task *task, gmm_climb *climb, int level);
__attribute__((visibility("default"))) int gmm_score(gmm_task *task, gmm_scores *scores, int level);
__attribute__((visibility("default"))) int gmm_look_at(gmm_look *look, int level);
__attribute__((visibility("default"))) int gmm_settle(gmm_groups *groups, int level);
__attribute__((visibility("default"))) int gmm_seed(gmm_seeds *seeds, int level);
__attribute__((visibility("default"))) int gmm_put_in_order(gmm_column *column, int level);
__attribute__((visibility("default"))) int gmm_measure_low_rank(gmm_factors *factors, int level);
__attribute__((visibility("default"))) int gmm_sum_low_rank(gmm_factors *factors, int level);
__attribute__((visibility("default"))) int gmm_explain(gmm_reasons *reasons, int level);
__attribute__((visibility("default"))) int gmm_find_two_best(gmm_two_best *two, int level);
__attribute__((visibility("default"))) int gmm_interpolate(gmm_curve *curve, int level);
__attribute__((visibility("default"))) int gmm_sums_in_lists(int64_t d, int64_t has_matrices);
/* For tests: e^x of x <= 0, and log of 1 - x. n is a multiple of 32. */
__attribute__((visibility("default"))) int gmm_exp_log(const double *x, double *e, double *l, int64_t n, int level);

#ifdef __cplusplus
}
#endif
