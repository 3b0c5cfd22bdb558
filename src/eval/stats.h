/* stats.h - the statistics of eval: quantiles, bootstrap over chunks, t intervals. No I/O, no models. */
#ifndef ASH_EVAL_STATS_H
#define ASH_EVAL_STATS_H

#include "ashlar/eval.h"
#include "base/base.h"

/* Per-position figures of a measurement, chunk-major: n_chunks * per_chunk of each (kld, top1, dp may be NULL). */
typedef struct {
    uint32_t n_chunks, per_chunk;
    double *nll, *nll_ref;
    double *kld;
    double *dp;      /* p(actual) - p_ref(actual) */
    uint8_t *top1;   /* 1: same */
} ash_samples;
ash_status ash_samples_init(ash_samples *s, uint32_t n_chunks, uint32_t per_chunk, bool with_ref, ash_error *err);
void ash_samples_free(ash_samples *s);

/* q in [0, 1] of n ascending values, linear between order statistics. */
double ash_quantile_sorted(const double *v, size_t n, double q);
/* Two-sided 95 % quantile of Student's t with df degrees of freedom (df >= 1). */
double ash_t975(uint32_t df);
/* Mean and 95 % half-width (t) of n values; half is infinite for n < 2. */
void ash_mean_half(const double *v, size_t n, double *mean, double *half);
/* Fill every figure of `res` from the samples; intervals are 2.5 and 97.5 % points of a bootstrap over chunks
 * (1000 draws, seeded). chunk_nll and chunk_kld are allocated. */
ash_status ash_stats_result(ash_eval_result *res, const ash_samples *s, uint64_t seed, ash_error *err);

#endif
