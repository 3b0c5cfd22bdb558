/* rank.c - how much of a sweep was known beforehand: Spearman's rank correlation between measured sensitivities and a predictor that
 * needs no sweep, over the matrices of the blocks, with a bootstrap interval over matrices. */
#include "plan/plan_int.h"

#include <math.h>
#include <stdlib.h>

enum { DRAWS = 1000 };

typedef struct {
    double v;
    size_t at;
} keyed;

static int by_value(const void *a, const void *b) {
    double x = ((const keyed *)a)->v, y = ((const keyed *)b)->v;
    return x < y ? -1 : x > y;
}

/* Ranks of v[pick[i]]; equal values share the mean of theirs. k: scratch of n. */
static void ranks(const double *v, const size_t *pick, size_t n, keyed *k, double *out) {
    for (size_t i = 0; i < n; i++) k[i] = (keyed){v[pick[i]], i};
    qsort(k, n, sizeof *k, by_value);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && k[j].v == k[i].v;) j++;
        for (size_t q = i; q < j; q++) out[k[q].at] = 0.5 * (double)(i + j - 1);
    }
}

static double correlation(const double *a, const double *b, size_t n) {
    double ma = 0, mb = 0, ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) ma += a[i] / (double)n, mb += b[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        ab += (a[i] - ma) * (b[i] - mb);
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static int cmp_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

ash_status ash_planner_rank(const ash_planner *p, ash_predictor what, uint64_t seed, ash_plan_rank *r, ash_error *err) {
    *r = (ash_plan_rank){0};
    ash_status st = ASH_OK;
    const size_t cap = p->n + 1;
    double *v = ash_calloc(4 * cap + DRAWS, sizeof *v);
    size_t *pick = ash_calloc(cap, sizeof *pick), n = 0;
    keyed *k = ash_calloc(cap, sizeof *k);
    if (!v || !pick || !k) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a rank correlation");
        goto done;
    }
    double *seen = v, *said = v + cap, *ra = v + 2 * cap, *rb = v + 3 * cap, *draw = v + 4 * cap;
    for (size_t i = 0; i < p->n; i++) {
        const plan_unit *u = &p->u[i];
        if (!u->n_m || u->pub.layer < 0 || u->pub.role < 0 || (what == ASH_PREDICT_GRADIENT && !isfinite(u->fisher))) continue;
        double lk = 0, le = 0; /* log means over the types the sweep tried */
        for (int m = 0; m < u->n_m; m++) {
            lk += log(ASH_MAX(u->m[m].kld, 1e-12)) / u->n_m;
            le += log(u->m[m].err) / u->n_m;
        }
        seen[n] = lk;
        said[n] = what == ASH_PREDICT_GRADIENT ? u->fisher + le : log(ash_plan_typical(u->pub.role)) + (what == ASH_PREDICT_WEIGHTS ? le + u->prior : 0);
        n++;
    }
    r->n = n;
    if (n < 8) goto done;
    for (size_t i = 0; i < n; i++) pick[i] = i;
    ranks(seen, pick, n, k, ra);
    ranks(said, pick, n, k, rb);
    r->rho = correlation(ra, rb, n);
    ash_rng rng;
    ash_rng_seed(&rng, seed);
    for (int d = 0; d < DRAWS; d++) {
        for (size_t i = 0; i < n; i++) pick[i] = (size_t)ash_rng_below(&rng, n);
        ranks(seen, pick, n, k, ra);
        ranks(said, pick, n, k, rb);
        draw[d] = correlation(ra, rb, n);
    }
    qsort(draw, DRAWS, sizeof *draw, cmp_double);
    r->lo = draw[DRAWS * 25 / 1000];
    r->hi = draw[DRAWS * 975 / 1000];
done:
    ash_free(v);
    ash_free(pick);
    ash_free(k);
    return st;
}
