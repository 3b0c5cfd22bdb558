/* lagrange.c - the classical allocator, as a baseline: every unit takes the option with the least damage + lambda * bytes, and lambda is
 * bisected until the bytes fit (Everett 1963; for quantizers Shoham and Gersho, "Efficient bit allocation for an arbitrary set of
 * quantizers", IEEE Trans. ASSP 36(9), 1988). Reaches only what lies on the lower convex hull; what that leaves over is spent by the
 * steepest promotions where `fill` says so. */
#include "plan/plan_int.h"

#include <math.h>

/* Every unit's best option at lambda; of equals the smaller. Returns the bytes; *value: sum of damage + lambda * bytes. */
static uint64_t pick(const ash_unit *u, size_t n, double lambda, int *choice, double *value) {
    uint64_t bytes = 0;
    *value = 0;
    for (size_t i = 0; i < n; i++) {
        const ash_option *o = u[i].opts;
        int best = 0;
        double least = o[0].damage + lambda * (double)o[0].bytes;
        for (int k = 1; k < u[i].n; k++) {
            double v = o[k].damage + lambda * (double)o[k].bytes;
            if (v < least || (v == least && o[k].bytes < o[best].bytes)) best = k, least = v;
        }
        choice[i] = best;
        bytes += o[best].bytes;
        *value += least;
    }
    return bytes;
}

/* The promotion that saves most damage per byte of those that still fit, until none does. */
static uint64_t spend(const ash_unit *u, size_t n, uint64_t budget, uint64_t bytes, int *choice) {
    for (;;) {
        double best = 0;
        size_t bi = 0;
        int bk = -1;
        for (size_t i = 0; i < n; i++) {
            const ash_option *o = u[i].opts, *c = &o[choice[i]];
            for (int k = 0; k < u[i].n; k++) {
                if (!(o[k].damage < c->damage) || (o[k].bytes > c->bytes && o[k].bytes - c->bytes > budget - bytes)) continue;
                double rate = o[k].bytes > c->bytes ? (c->damage - o[k].damage) / (double)(o[k].bytes - c->bytes) : INFINITY;
                if (bk < 0 || rate > best) best = rate, bi = i, bk = k;
            }
        }
        if (bk < 0) return bytes;
        bytes = bytes - u[bi].opts[choice[bi]].bytes + u[bi].opts[bk].bytes;
        choice[bi] = bk;
    }
}

ash_status ash_solve_lagrange(const ash_unit *u, size_t n, uint64_t budget, bool fill, int *choice, ash_solution *sol, ash_error *err) {
    *sol = (ash_solution){0};
    ASH_TRY(ash_solve_check(u, n, err));
    uint64_t least = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t b = u[i].opts[0].bytes;
        for (int k = 1; k < u[i].n; k++) b = ASH_MIN(b, u[i].opts[k].bytes);
        least += b;
    }
    if (least > budget) {
        sol->bytes = least;
        return ash_fail(err, ASH_E_LIMIT, "the budget of %llu bytes cannot be met: the smallest choice has %llu",
                        (unsigned long long)budget, (unsigned long long)least);
    }
    double lo = 0, hi = 1, value;
    if (pick(u, n, 0, choice, &value) <= budget)
        hi = 0;
    else {
        while (pick(u, n, hi, choice, &value) > budget && hi < 1e300) lo = hi, hi *= 2;
        while (lo == 0 && hi > 1e-300) { /* lambda may be of any scale: damages are */
            if (pick(u, n, hi / 2, choice, &value) > budget)
                lo = hi / 2;
            else
                hi /= 2;
        }
        for (int i = 0; i < 60; i++) {
            double mid = lo + (hi - lo) / 2;
            if (pick(u, n, mid, choice, &value) > budget)
                lo = mid;
            else
                hi = mid;
        }
    }
    sol->bytes = pick(u, n, hi, choice, &value);
    sol->bound = ASH_MAX(0, value - hi * (double)budget); /* duality: no choice within the budget is better */
    if (fill) sol->bytes = spend(u, n, budget, sol->bytes, choice);
    for (size_t i = 0; i < n; i++) sol->damage += u[i].opts[choice[i]].damage;
    sol->bound = ASH_MIN(sol->bound, sol->damage);
    return ASH_OK;
}
