/* task_pair.c - what tasks' counts say: Wilson's interval, McNemar's exact test, a paired bootstrap. */
#include "ashlar/task.h"

#include "base/base.h"

#include <math.h>
#include <stdlib.h>

enum { DRAWS = 2000 };

/* E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927). */
ash_est ash_wilson(size_t k, size_t n) {
    if (n == 0) return (ash_est){0, 0, 1};
    const double z = 1.959964, m = (double)n, p = (double)k / m, d = 1 + z * z / m;
    const double mid = (p + z * z / (2 * m)) / d, half = z * sqrt(p * (1 - p) / m + z * z / (4 * m * m)) / d;
    return (ash_est){p, fmax(0, mid - half), fmin(1, mid + half)};
}

double ash_binomial_p(size_t a, size_t b) {
    const size_t n = a + b, k = ASH_MIN(a, b);
    if (n == 0) return 1;
    double sum = 0, log_half = -(double)n * log(2.0);
    for (size_t i = 0; i <= k; i++) sum += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) + log_half);
    return fmin(1, 2 * sum);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

ash_status ash_task_compare(ash_task_pair *p, const ash_task_result *a, const ash_task_result *b, uint64_t seed, ash_error *err) {
    *p = (ash_task_pair){0};
    if (a->n != b->n || a->n == 0) return ash_fail(err, ASH_E_USAGE, "results of %zu and %zu items cannot be paired", a->n, b->n);
    const size_t n = p->n = a->n;
    for (size_t i = 0; i < n; i++) {
        p->both += a->correct[i] && b->correct[i];
        p->neither += !a->correct[i] && !b->correct[i];
        p->only_a += a->correct[i] && !b->correct[i];
        p->only_b += !a->correct[i] && b->correct[i];
    }
    p->p = ash_binomial_p(p->only_a, p->only_b);
    double *d = ash_alloc(DRAWS * sizeof *d);
    if (!d) return ash_fail(err, ASH_E_NOMEM, "out of memory for a bootstrap");
    ash_rng r;
    ash_rng_seed(&r, seed);
    for (int k = 0; k < DRAWS; k++) {
        int64_t sum = 0;
        for (size_t i = 0; i < n; i++) {
            size_t j = (size_t)ash_rng_below(&r, n);
            sum += (int64_t)a->correct[j] - (int64_t)b->correct[j];
        }
        d[k] = (double)sum / (double)n;
    }
    qsort(d, DRAWS, sizeof *d, by_value);
    p->difference = (ash_est){((double)p->only_a - (double)p->only_b) / (double)n, d[DRAWS * 25 / 1000], d[DRAWS - 1 - DRAWS * 25 / 1000]};
    ash_free(d);
    return ASH_OK;
}
