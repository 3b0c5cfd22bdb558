/* stats.c - figures with intervals from per-position samples. The chunk is the unit that is resampled: positions
 * within one are correlated, chunks nearly are not. */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

enum { N_BOOT = 1000 };

ash_status ash_samples_init(ash_samples *s, uint32_t n_chunks, uint32_t per_chunk, bool with_ref, ash_error *err) {
    *s = (ash_samples){.n_chunks = n_chunks, .per_chunk = per_chunk};
    size_t n = (size_t)n_chunks * per_chunk;
    s->nll = ash_calloc(n, sizeof *s->nll);
    if (with_ref) {
        s->nll_ref = ash_calloc(n, sizeof *s->nll_ref);
        s->kld = ash_calloc(n, sizeof *s->kld);
        s->dp = ash_calloc(n, sizeof *s->dp);
        s->top1 = ash_calloc(n, 1);
    }
    if (!s->nll || (with_ref && (!s->nll_ref || !s->kld || !s->dp || !s->top1))) {
        ash_samples_free(s);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for %zu samples", n);
    }
    return ASH_OK;
}

void ash_samples_free(ash_samples *s) {
    ash_free(s->nll);
    ash_free(s->nll_ref);
    ash_free(s->kld);
    ash_free(s->dp);
    ash_free(s->top1);
    *s = (ash_samples){0};
}

double ash_quantile_sorted(const double *v, size_t n, double q) {
    if (n == 0) return NAN;
    double p = q * (double)(n - 1);
    size_t i = (size_t)p;
    if (i + 1 >= n) return v[n - 1];
    return v[i] + (p - (double)i) * (v[i + 1] - v[i]);
}

double ash_t975(uint32_t df) {
    static const double t[31] = {INFINITY, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                 2.201,    2.179,  2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080,
                                 2.074,    2.069,  2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    if (df <= 30) return t[df];
    /* Cornish-Fisher expansion around the normal quantile: better than 1e-3 from df = 30 on. */
    double z = 1.959964, d = df;
    return z + (z * z * z + z) / (4 * d) + (5 * pow(z, 5) + 16 * z * z * z + 3 * z) / (96 * d * d);
}

void ash_mean_half(const double *v, size_t n, double *mean, double *half) {
    double m = 0, s2 = 0;
    for (size_t i = 0; i < n; i++) m += v[i];
    if (n) m /= (double)n;
    for (size_t i = 0; i < n; i++) s2 += (v[i] - m) * (v[i] - m);
    *mean = m;
    *half = n < 2 ? INFINITY : ash_t975((uint32_t)(n - 1)) * sqrt(s2 / (double)(n - 1) / (double)n);
}

static int cmp_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct { double v; uint32_t chunk; } tagged;

static int cmp_tagged(const void *a, const void *b) {
    const tagged *x = a, *y = b;
    if (x->v != y->v) return x->v > y->v ? 1 : -1;
    return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

static ash_est interval(double v, double *boot) {
    qsort(boot, N_BOOT, sizeof *boot, cmp_double);
    return (ash_est){v, ash_quantile_sorted(boot, N_BOOT, 0.025), ash_quantile_sorted(boot, N_BOOT, 0.975)};
}

/* Weighted quantiles (ascending q) of sorted values with integer weights per chunk; the same interpolation as the
 * unweighted one would give on the expanded sample. */
static void weighted_quantiles(const tagged *v, size_t n, const uint32_t *w, size_t total, const double *q, int nq, double *out) {
    int k = 0;
    size_t seen = 0; /* expanded samples before v[i] */
    double last = n ? v[0].v : NAN;
    size_t lo_rank = nq ? (size_t)(q[0] * (double)(total - 1)) : 0;
    bool have_lo = false;
    double lo_val = 0;
    for (size_t i = 0; i < n && k < nq; i++) {
        size_t c = w[v[i].chunk];
        if (!c) continue;
        last = v[i].v;
        while (k < nq) {
            double p = q[k] * (double)(total - 1);
            if (!have_lo) {
                if (lo_rank >= seen + c) break;
                lo_val = last;
                have_lo = true;
            }
            size_t hi_rank = ASH_MIN(lo_rank + 1, total - 1);
            if (hi_rank >= seen + c) break;
            out[k] = lo_val + (p - (double)lo_rank) * (last - lo_val);
            k++;
            have_lo = false;
            if (k < nq) lo_rank = (size_t)(q[k] * (double)(total - 1));
        }
        seen += c;
    }
    for (; k < nq; k++) out[k] = last;
}

enum { B_PPL, B_PPL_REF, B_KLD, B_MED, B_P90, B_P99, B_P999, B_TOP1, B_DP, B_N };
static const double QS[4] = {0.5, 0.9, 0.99, 0.999};

ash_status ash_stats_result(ash_eval_result *res, const ash_samples *s, uint64_t seed, ash_error *err) {
    ash_status st = ASH_OK;
    const uint32_t C = s->n_chunks, P = s->per_chunk;
    const size_t n = (size_t)C * P;
    const bool ref = s->kld != NULL;
    double *boot = ash_calloc((size_t)B_N * N_BOOT, sizeof *boot);
    double *sums = ash_calloc((size_t)C * 5, sizeof *sums); /* per chunk: nll, nll_ref, kld, top1, dp^2 */
    uint32_t *w = ash_calloc(C ? C : 1, sizeof *w);
    tagged *tv = ref ? ash_calloc(n ? n : 1, sizeof *tv) : NULL;
    res->chunk_nll = ash_calloc(C ? C : 1, sizeof *res->chunk_nll);
    res->chunk_kld = ref ? ash_calloc(C ? C : 1, sizeof *res->chunk_kld) : NULL;
    if (!boot || !sums || !w || !res->chunk_nll || (ref && (!tv || !res->chunk_kld))) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the statistics of %zu positions", n);
        goto done;
    }
    if (n == 0) {
        st = ash_fail(err, ASH_E_RANGE, "nothing was scored");
        goto done;
    }
    for (uint32_t c = 0; c < C; c++) {
        double *a = sums + (size_t)c * 5;
        for (uint32_t i = 0; i < P; i++) {
            size_t k = (size_t)c * P + i;
            a[0] += s->nll[k];
            if (!ref) continue;
            a[1] += s->nll_ref[k];
            a[2] += s->kld[k];
            a[3] += s->top1[k];
            a[4] += s->dp[k] * s->dp[k];
            tv[k] = (tagged){s->kld[k], c};
        }
        res->chunk_nll[c] = a[0] / P;
        if (ref) res->chunk_kld[c] = a[2] / P;
    }
    if (ref) qsort(tv, n, sizeof *tv, cmp_tagged);
    ash_rng rng;
    ash_rng_seed(&rng, seed);
    double point[B_N] = {0};
    for (int b = -1; b < N_BOOT; b++) { /* -1: the sample itself */
        for (uint32_t c = 0; c < C; c++) w[c] = b < 0;
        for (uint32_t c = 0; b >= 0 && c < C; c++) w[ash_rng_below(&rng, C)]++;
        double t[5] = {0};
        for (uint32_t c = 0; c < C; c++)
            for (int k = 0; k < 5; k++) t[k] += w[c] * sums[(size_t)c * 5 + k];
        double v[B_N] = {[B_PPL] = exp(t[0] / (double)n)};
        if (ref) {
            v[B_PPL_REF] = exp(t[1] / (double)n);
            v[B_KLD] = t[2] / (double)n;
            v[B_TOP1] = t[3] / (double)n;
            v[B_DP] = sqrt(t[4] / (double)n);
            weighted_quantiles(tv, n, w, n, QS, 4, v + B_MED);
        }
        for (int k = 0; k < B_N; k++) {
            if (b < 0) point[k] = v[k];
            else boot[(size_t)k * N_BOOT + (size_t)b] = v[k];
        }
    }
    ash_est e[B_N];
    for (int k = 0; k < B_N; k++) e[k] = interval(point[k], boot + (size_t)k * N_BOOT);
    res->n_chunks = C;
    res->n_scored = n;
    res->ppl = e[B_PPL];
    res->has_ref = ref;
    if (ref) {
        res->ppl_ref = e[B_PPL_REF];
        res->kld = e[B_KLD];
        res->kld_median = e[B_MED];
        res->kld_p90 = e[B_P90];
        res->kld_p99 = e[B_P99];
        res->kld_p999 = e[B_P999];
        res->kld_max = tv[n - 1].v;
        res->same_top1 = e[B_TOP1];
        res->rms_dp = e[B_DP];
    }
done:
    ash_free(boot);
    ash_free(sums);
    ash_free(w);
    ash_free(tv);
    if (st != ASH_OK) ash_eval_result_free(res);
    return st;
}

void ash_eval_result_free(ash_eval_result *r) {
    if (!r) return;
    ash_free(r->chunk_nll);
    ash_free(r->chunk_kld);
    r->chunk_nll = r->chunk_kld = NULL;
}
