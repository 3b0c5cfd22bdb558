/* solve.c - multiple-choice knapsack: one option per unit, least damage within a budget of bytes.
 *
 *  1. Options that cost more and damage more than another are dropped; the rest are sorted by bytes.
 *  2. The lower convex hull of each unit gives the linear relaxation: a bound, and a feasible start.
 *  3. Dynamic programming over bytes beyond the minimum, in steps of the sizes' common divisor: exact. When there would
 *     be too many steps, they are coarser and rounded up (still feasible), and
 *  4. what rounding left over is spent by greedy promotions and pair exchanges.
 * Literature: Kellerer, Pferschy, Pisinger, "Knapsack Problems" (2004), chapter 11. */
#include "plan/plan_int.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_OPTS = 255 };
static const uint64_t MAX_TABLE = 256u << 20; /* bytes of choices remembered */
static const double MAX_WORK = 5e8;           /* option visits */

typedef struct { uint64_t bytes; double damage; int src; } opt;
typedef struct { opt *o; int n; } unit;
typedef struct { double slope; uint64_t d_bytes; double d_damage; size_t u; int to; } step; /* one hull edge */

typedef struct {
    unit *u;
    size_t n;
    opt *store;
    int *pos;        /* chosen index into u[i].o */
    uint64_t min_bytes;
} work;

static int by_bytes(const void *pa, const void *pb) {
    const opt *a = pa, *b = pb;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    if (a->damage != b->damage) return a->damage < b->damage ? -1 : 1;
    return a->src - b->src;
}

static int by_slope(const void *pa, const void *pb) {
    const step *a = pa, *b = pb;
    if (a->slope != b->slope) return a->slope > b->slope ? -1 : 1; /* most damage saved per byte first */
    if (a->u != b->u) return a->u < b->u ? -1 : 1;
    return a->to - b->to;
}

/* Sort and drop dominated options. */
static int prune(opt *o, int n) {
    qsort(o, (size_t)n, sizeof *o, by_bytes);
    int m = 0;
    for (int i = 0; i < n; i++)
        if (m == 0 || o[i].damage < o[m - 1].damage) o[m++] = o[i];
    return m;
}

/* Indices of the lower convex hull, left to right. */
static int hull(const unit *u, int *h) {
    int m = 0;
    for (int i = 0; i < u->n; i++) {
        while (m >= 2) {
            const opt *a = &u->o[h[m - 2]], *b = &u->o[h[m - 1]], *c = &u->o[i];
            double ab = (a->damage - b->damage) / (double)(b->bytes - a->bytes), bc = (b->damage - c->damage) / (double)(c->bytes - b->bytes);
            if (ab > bc) break;
            m--;
        }
        h[m++] = i;
    }
    return m;
}

/* Linear relaxation: take hull edges by slope; the one that does not fit gives the bound, later ones that do are taken. */
static ash_status relax(work *w, uint64_t slack, double *bound, ash_error *err) {
    size_t n_steps = 0, cap = 0;
    int h[MAX_OPTS + 1];
    for (size_t i = 0; i < w->n; i++) cap += (size_t)w->u[i].n;
    step *s = ash_alloc((cap + 1) * sizeof *s);
    if (!s) return ash_fail(err, ASH_E_NOMEM, "out of memory in the budget solver");
    double damage = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unit *u = &w->u[i];
        int m = hull(u, h);
        damage += u->o[0].damage;
        w->pos[i] = 0;
        for (int k = 1; k < m; k++) {
            const opt *a = &u->o[h[k - 1]], *b = &u->o[h[k]];
            s[n_steps++] = (step){(a->damage - b->damage) / (double)(b->bytes - a->bytes), b->bytes - a->bytes, a->damage - b->damage, i, h[k]};
        }
    }
    qsort(s, n_steps, sizeof *s, by_slope);
    bool open = true;
    *bound = damage;
    for (size_t k = 0; k < n_steps; k++) {
        if (s[k].d_bytes <= slack && open) {
            slack -= s[k].d_bytes;
            *bound -= s[k].d_damage;
            w->pos[s[k].u] = s[k].to;
        } else if (open) {
            *bound -= s[k].d_damage * ((double)slack / (double)s[k].d_bytes);
            open = false;
        }
    }
    ash_free(s);
    return ASH_OK;
}

static uint64_t used(const work *w) {
    uint64_t b = 0;
    for (size_t i = 0; i < w->n; i++) b += w->u[i].o[w->pos[i]].bytes;
    return b;
}

static double total(const work *w) {
    double d = 0;
    for (size_t i = 0; i < w->n; i++) d += w->u[i].o[w->pos[i]].damage;
    return d;
}

/* Spend what is left: the best single promotion, then the best exchange of two units, until neither helps. */
static void polish(work *w, uint64_t budget) {
    for (int round = 0; round < 1000; round++) {
        uint64_t left = budget - used(w);
        double best = 0;
        size_t bi = 0, bj = 0;
        int bk = -1, bl = -1;
        for (size_t i = 0; i < w->n; i++) {
            const opt *c = &w->u[i].o[w->pos[i]];
            for (int k = 0; k < w->u[i].n; k++) {
                const opt *o = &w->u[i].o[k];
                double gain = c->damage - o->damage;
                if (o->bytes <= c->bytes + left && gain > best) best = gain, bi = i, bk = k, bl = -1;
            }
        }
        if (bk < 0 && w->n <= 2000)
            for (size_t i = 0; i < w->n; i++) { /* i gets better by using what j gives up */
                const opt *c = &w->u[i].o[w->pos[i]];
                for (int k = w->pos[i] + 1; k < w->u[i].n; k++) {
                    uint64_t need = w->u[i].o[k].bytes - c->bytes;
                    double gain = c->damage - w->u[i].o[k].damage;
                    for (size_t j = 0; j < w->n; j++) {
                        if (j == i) continue;
                        const opt *d = &w->u[j].o[w->pos[j]];
                        for (int l = w->pos[j] - 1; l >= 0; l--) {
                            const opt *e = &w->u[j].o[l];
                            double net = gain - (e->damage - d->damage);
                            if (net <= best) break; /* cheaper options of j only damage more */
                            if (d->bytes - e->bytes + left >= need) {
                                best = net, bi = i, bk = k, bj = j, bl = l;
                                break;
                            }
                        }
                    }
                }
            }
        if (bk < 0 || best <= 1e-15) return;
        w->pos[bi] = bk;
        if (bl >= 0) w->pos[bj] = bl;
    }
}

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t t = a % b;
        a = b, b = t;
    }
    return a;
}

/* best[c]: least damage of the units so far with at most c cells beyond their minima. */
static ash_status dp(work *w, uint64_t slack, bool *exact, ash_error *err) {
    uint64_t g = 0, range = 0, n_opts = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unit *u = &w->u[i];
        for (int k = 1; k < u->n; k++) g = gcd(g, u->o[k].bytes - u->o[0].bytes);
        range += u->o[u->n - 1].bytes - u->o[0].bytes;
        n_opts += (uint64_t)u->n;
    }
    *exact = true;
    if (g == 0) return ASH_OK; /* no unit has a choice */
    uint64_t cells = ASH_MIN(slack, range) / g;
    uint64_t limit = ASH_MIN(MAX_TABLE / w->n, (uint64_t)(MAX_WORK / (double)n_opts));
    limit = ASH_MAX(limit, 64);
    if (cells + 1 > limit) {
        *exact = false;
        g = ASH_MIN(slack, range) / (limit - 1) + 1;
        cells = ASH_MIN(slack, range) / g;
    }
    size_t m = (size_t)cells + 1;
    ash_status st = ASH_OK;
    double *a = ash_alloc(m * sizeof *a), *b = ash_alloc(m * sizeof *b);
    uint8_t *pick = ash_alloc(m * w->n);
    int *save = ash_alloc((w->n + 1) * sizeof *save);
    if (!a || !b || !pick || !save) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory in the budget solver");
        goto done;
    }
    for (size_t c = 0; c < m; c++) a[c] = 0;
    for (size_t i = 0; i < w->n; i++) {
        const unit *u = &w->u[i];
        uint8_t *p = pick + i * m;
        for (size_t c = 0; c < m; c++) b[c] = a[c] + u->o[0].damage, p[c] = 0;
        for (int k = 1; k < u->n; k++) {
            uint64_t extra = u->o[k].bytes - u->o[0].bytes, cost = extra / g + (extra % g != 0);
            if (cost >= m) break;
            double d = u->o[k].damage;
            for (size_t c = (size_t)cost; c < m; c++) {
                double v = a[c - cost] + d;
                if (v < b[c]) b[c] = v, p[c] = (uint8_t)k;
            }
        }
        double *t = a;
        a = b, b = t;
    }
    memcpy(save, w->pos, w->n * sizeof *save);
    double before = total(w);
    size_t c = m - 1;
    for (size_t i = w->n; i-- > 0;) {
        int k = pick[i * m + c];
        uint64_t extra = w->u[i].o[k].bytes - w->u[i].o[0].bytes;
        w->pos[i] = k;
        c -= (size_t)(extra / g + (extra % g != 0));
    }
    if (!*exact && total(w) > before) memcpy(w->pos, save, w->n * sizeof *save);
done:
    ash_free(a);
    ash_free(b);
    ash_free(pick);
    ash_free(save);
    return st;
}

ash_status ash_solve_check(const ash_unit *units, size_t n, ash_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (units[i].n < 1 || units[i].n > MAX_OPTS) return ash_fail(err, ASH_E_USAGE, "unit %zu has %d options; 1 to %d are possible", i, units[i].n, MAX_OPTS);
        for (int k = 0; k < units[i].n; k++)
            if (!(units[i].opts[k].damage >= 0) || !isfinite(units[i].opts[k].damage) || units[i].opts[k].bytes > UINT64_MAX / 4 / n)
                return ash_fail(err, ASH_E_USAGE, "unit %zu, option %d: its damage or size is not a usable number", i, k);
    }
    return ASH_OK;
}

ash_status ash_solve(const ash_unit *units, size_t n, uint64_t budget, int *choice, ash_solution *sol, ash_error *err) {
    *sol = (ash_solution){0};
    if (n == 0) return sol->exact = true, ASH_OK;
    ash_status st = ASH_OK;
    size_t n_opts = 0, at = 0;
    ASH_TRY(ash_solve_check(units, n, err));
    for (size_t i = 0; i < n; i++) n_opts += (size_t)units[i].n;
    work w = {.n = n};
    w.u = ash_alloc(n * sizeof *w.u);
    w.store = ash_alloc(n_opts * sizeof *w.store);
    w.pos = ash_alloc(n * sizeof *w.pos);
    if (!w.u || !w.store || !w.pos) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory in the budget solver");
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        w.u[i].o = w.store + at;
        for (int k = 0; k < units[i].n; k++) w.u[i].o[k] = (opt){units[i].opts[k].bytes, units[i].opts[k].damage, k};
        w.u[i].n = prune(w.u[i].o, units[i].n);
        w.min_bytes += w.u[i].o[0].bytes;
        at += (size_t)units[i].n;
    }
    if (w.min_bytes > budget) {
        sol->bytes = w.min_bytes;
        st = ash_fail(err, ASH_E_LIMIT, "the budget of %llu bytes cannot be met: the smallest choice has %llu", (unsigned long long)budget,
                      (unsigned long long)w.min_bytes);
        goto done;
    }
    ASH_TRY_GOTO(relax(&w, budget - w.min_bytes, &sol->bound, err), done);
    ASH_TRY_GOTO(dp(&w, budget - w.min_bytes, &sol->exact, err), done);
    if (!sol->exact) polish(&w, budget);
    sol->bytes = used(&w);
    sol->damage = total(&w);
    if (sol->bound > sol->damage) sol->bound = sol->damage; /* rounding of sums */
    for (size_t i = 0; i < n; i++) choice[i] = w.u[i].o[w.pos[i]].src;
done:
    ash_free(w.u);
    ash_free(w.store);
    ash_free(w.pos);
    return st;
}
