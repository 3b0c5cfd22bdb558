/* fit_size.c - finished files at sizes that the caller names: one of them, remembered by all that it depends on, and the search for the
 * smallest one whose measured divergence is small enough. A fit to a divergence and the front over many sizes are made of these. */
#include "bake/fit_int.h"
#include "plan/plan_int.h"

#include <math.h>
#include <unistd.h>

enum { MAX_STEPS = 10 };

/* Everything that decides the file and its figures. */
static void row_key(const fit *f, uint64_t budget, ash_plan_method method, char key[17]) {
    const ash_fit_opts *o = f->o;
    uint64_t types = 0;
    for (size_t i = 0; i < o->n_types; i++) types = types * 131 + (uint64_t)o->types[i] + 1;
    fit_key(key, "row 1 %s %llu %d %s %s %s %s %s %s %llu %d %d %llu %d", ash_version(), (unsigned long long)budget, (int)method,
            f->src_sha, f->ref_sha, f->calib.sha, f->test.sha, f->im_key, method == ASH_PLAN_DAMAGE && f->swept ? f->sweep_key : "",
            (unsigned long long)types, o->widen, (int)o->effort, (unsigned long long)o->seed, (int)fit_compensates(f));
}

static ash_status fresh(fit *f, uint64_t budget, const char *path, fit_meas *m, ash_error *err) {
    f->budget = budget;
    ASH_TRY(fit_refine(f, err));
    ASH_TRY(fit_make(f, m, err));
    ASH_TRY(fit_test_ref(f, err));
    return fit_measure_file(f, path, f->test_ref, "measure", m, err);
}

ash_status fit_at(fit *f, uint64_t budget, ash_plan_method method, const char *path, bool keep, fit_meas *m, bool *reused, ash_error *err) {
    char key[17];
    row_key(f, budget, method, key);
    *reused = fit_cache_get(f, key, m) && (!keep || access(path, R_OK) == 0);
    if (*reused) return ASH_OK;
    ash_fit_opts o = *f->o;
    const ash_fit_opts *saved = f->o;
    o.out = path;
    o.method = method;
    f->o = &o;
    ash_status st = fresh(f, budget, path, m, err);
    f->o = saved;
    if (st == ASH_OK) st = fit_cache_put(f, key, m, err);
    if (!keep) unlink(path);
    return st;
}

ash_status fit_range(const fit *f, uint64_t *least, uint64_t *most, ash_error *err) {
    *least = UINT64_MAX, *most = 0;
    for (int k = 0; k < 2; k++) {
        const ash_planner *p = f->pl[k];
        if (!p) continue;
        ash_solution s = {.bytes = p->o.fixed_bytes}, t = s;
        for (size_t u = 0; u < p->n; u++) {
            uint64_t lo = UINT64_MAX, hi = 0;
            double least_damage = INFINITY;
            for (int i = 0; i < p->u[u].pub.n_opts; i++) {
                const ash_plan_option *x = &p->u[u].opts[i];
                lo = ASH_MIN(lo, x->bytes);
                if (x->damage < least_damage || (x->damage == least_damage && x->bytes < hi)) least_damage = x->damage, hi = x->bytes;
            }
            s.bytes += lo, t.bytes += hi;
        }
        *least = ASH_MIN(*least, s.bytes), *most = ASH_MAX(*most, t.bytes);
    }
    return *most ? ASH_OK : ash_fail(err, ASH_E_INTERNAL, "a fit without a planner");
}

/* The budget whose plan predicts `damage`: where to begin. */
static uint64_t predicted_size(const fit *f, double damage, uint64_t lo, uint64_t hi, int *choice) {
    for (int i = 0; i < 20 && hi - lo > hi / 1000; i++) {
        uint64_t mid = lo + (hi - lo) / 2;
        double best = INFINITY;
        for (int k = 0; k < 2; k++) {
            ash_solution s;
            if (f->pl[k] && ash_planner_solve(f->pl[k], mid, choice, &s, NULL) == ASH_OK) best = fmin(best, s.damage);
        }
        if (best > damage)
            lo = mid;
        else
            hi = mid;
    }
    return hi;
}

/* What is known of the target: the largest size above it, the smallest at or below, and log KLD there (NAN: not measured). */
typedef struct {
    uint64_t bad, good;
    double y_bad, y_good;
} bracket;

static void learn_size(bracket *b, uint64_t size, double kld, double target) {
    const double y = log(ASH_MAX(kld, 1e-3 * target));
    if (kld <= target) {
        if (!b->good || size < b->good) b->good = size, b->y_good = y;
    } else if (size > b->bad) {
        b->bad = size, b->y_bad = y;
    }
    if (b->good && b->bad >= b->good) b->bad = b->good - 1, b->y_bad = NAN; /* a larger file that is worse says nothing here */
}

/* log KLD is nearly a line over the bytes; the aim is a little below the target, and never outside what is known. From one point alone: a bit more per weight
 * changes the divergence by about a factor of four. */
static uint64_t next_size(const bracket *b, double aim, double weights) {
    if (isfinite(b->y_bad) && isfinite(b->y_good) && b->y_bad > b->y_good) {
        const double t = fmin(fmax((aim - b->y_good) / (b->y_bad - b->y_good), 0.05), 0.95);
        return b->good - (uint64_t)(t * (double)(b->good - b->bad));
    }
    const double at = (double)(b->good ? b->good : b->bad), y = b->good ? b->y_good : b->y_bad;
    const double by = (y - aim) / 1.4 * weights / 8 * (b->good ? 1 : 1.15);
    const uint64_t next = (uint64_t)(at + fmin(fmax(by, -0.3 * at), 0.3 * at));
    return b->good ? ASH_MAX(next, b->bad + 1) : next;
}

ash_status fit_search(fit *f, double kld, const fit_known *known, size_t n_known, fit_each make, void *ctx, uint64_t *budget, ash_error *err) {
    uint64_t least, most;
    ASH_TRY(fit_range(f, &least, &most, err));
    const ash_planner *p = f->pl[0] ? f->pl[0] : f->pl[1];
    int *choice = ash_alloc(ash_planner_n_units(p) * sizeof *choice);
    if (!choice) return ash_fail(err, ASH_E_NOMEM, "out of memory while looking for a size");
    ash_status st = ASH_OK;
    bracket b = {least - 1, 0, NAN, NAN};
    double weights = 0;
    for (size_t u = 0; u < p->n; u++) weights += (double)p->u[u].pub.n_weights;
    for (size_t i = 0; i < n_known; i++) learn_size(&b, known[i].budget, known[i].kld, kld);
    const double aim = log(0.99 * kld);
    for (int step = 0; step < MAX_STEPS; step++) {
        fit_meas m;
        if (b.good && (b.y_good >= log(0.98 * kld) || b.good - b.bad <= ASH_MAX(b.good / 400, 512))) break;
        uint64_t next;
        if (b.good || isfinite(b.y_bad)) next = next_size(&b, aim, weights);
        else next = predicted_size(f, fit_compensates(f) ? kld / 0.72 : kld, least, most, choice); /* rounding with moments takes about that off */
        next = next < least ? least : next > most ? most : next;
        if (next == b.good) break;
        ASH_TRY_GOTO(make(ctx, next, &m, err), done);
        learn_size(&b, next, m.kld.v, kld);
        if (!b.good && next >= most) {
            st = ash_fail(err, ASH_E_LIMIT, "no file of this model measures at or below %g nats: the largest, of %.1f MB, has %.4g", kld, (double)most / 1e6, m.kld.v);
            goto done;
        }
    }
    if (b.good) *budget = b.good;
    else st = ash_fail(err, ASH_E_LIMIT, "no file that measures at or below %g nats was found in %d steps", kld, MAX_STEPS);
done:
    ash_free(choice);
    return st;
}
