/* sweep_stat.c - a unit's figure from its chunks. Chunks differ a lot in how much any knockout hurts them (relative standard
 * deviation 0.4 over chunks of 128 tokens, on SmolLM2 135M), and two thirds of that variance is common to all units. The probes
 * measure it on many chunks cheaply, so a unit's mean is estimated as (its mean / the probe's mean on the same chunks) times the
 * probe's mean on all its chunks: the ratio estimator of double sampling (Cochran, Sampling Techniques, 12.8). */
#include "eval/sweep_int.h"

#include <math.h>

/* y[0..n) with the probe x[0..n_all), n <= n_all. */
static bool ratio(const double *y, uint32_t n, const double *x, uint32_t n_all, double *mean, double *half) {
    double my = 0, mx = 0, all = 0, sd = 0, sx = 0;
    for (uint32_t i = 0; i < n; i++) my += y[i] / n, mx += x[i] / n;
    for (uint32_t i = 0; i < n_all; i++) all += x[i] / n_all;
    if (!(mx > 0) || !(all > 0)) return false;
    double r = my / mx;
    for (uint32_t i = 0; i < n; i++) sd += (y[i] - r * x[i]) * (y[i] - r * x[i]);
    for (uint32_t i = 0; i < n_all; i++) sx += (x[i] - all) * (x[i] - all);
    sd /= n - 1;
    sx /= n_all - 1;
    *mean = r * all;
    *half = ash_t975(n - 1) * sqrt(all / mx * (all / mx) * sd * (1.0 / n - 1.0 / n_all) + r * r * sx / n_all);
    return isfinite(*mean) && isfinite(*half);
}

void ash_sweep_stat(const ash_sweep_book *b, const ash_sweep_unit *u, uint32_t unit, int n_layer, double *mean, double *half) {
    const ash_sweep_state *s = &b->u[unit];
    ash_mean_half(s->kld, s->n, mean, half);
    if (!b->probed || s->n < 4 || s->n >= b->n_probe) return;
    int third = u->layer < 0 ? 0 : u->layer * ASH_SWEEP_PROBES / n_layer;
    double m, h;
    if (ratio(s->kld, s->n, b->probe + (size_t)third * b->n_probe, b->n_probe, &m, &h) && *mean > 0 && m > 0 && h / m < *half / *mean) *mean = m, *half = h;
}
