/* fit_refine.c - from predicted to measured. The first plan is built and measured; then one group of matrices after the other is
 * promoted by one step, everything else equal, and the gain measured on the same tokens (so most of the noise cancels). The ratio of
 * measured to predicted gain corrects the planner for the group, the budget is solved anew, and the new plan is kept only if it
 * measures better. The number of candidates is fixed by the effort, never by the clock: the same inputs give the same file. */
#include "bake/fit_int.h"
#include "plan/plan_int.h"

#include <math.h>
#include <stdio.h>

typedef struct { const char *name; int32_t lo, hi; uint32_t roles; double log_f; /* correction that was learned */ } group;

enum { N_ROLE_GROUPS = 8, MAX_GROUPS = 16 };

/* Groups in order of what they could matter; the number written to g. */
static int make_groups(const fit *f, int level, group g[MAX_GROUPS]) {
    static const struct { const char *name; uint32_t roles; } by_role[] = {
        {"ffn_down", 1u << ASH_ROLE_DOWN | 1u << ASH_ROLE_EXP_DOWN}, {"attn_v", 1u << ASH_ROLE_V}, {"attn_output", 1u << ASH_ROLE_O},
        {"ffn_up", 1u << ASH_ROLE_UP | 1u << ASH_ROLE_EXP_UP}, {"ffn_gate", 1u << ASH_ROLE_GATE | 1u << ASH_ROLE_EXP_GATE},
        {"attn_q and attn_k", 1u << ASH_ROLE_Q | 1u << ASH_ROLE_K}, {"per-layer embeddings", 1u << ASH_ROLE_PLE_GATE | 1u << ASH_ROLE_PLE_OUT}};
    int n = 0;
    int32_t layers = ash_model_n_layer(f->model);
    g[n++] = (group){"tables", -1, -1, 1u << ASH_ROLE_EMBD | 1u << ASH_ROLE_OUTPUT | 1u << ASH_ROLE_PLE_TABLE | 1u << ASH_ROLE_PLE_IN, 0};
    for (size_t i = 0; i < ASH_ARRAY_LEN(by_role); i++) g[n++] = (group){by_role[i].name, 0, layers - 1, by_role[i].roles, 0};
    if (level >= 2) {
        static const char *const names[] = {"first sixth", "second sixth", "third sixth", "fourth sixth", "fifth sixth", "last sixth"};
        for (int k = 0; k < 6; k++)
            if (layers >= 6) g[n++] = (group){names[k], layers * k / 6, layers * (k + 1) / 6 - 1, ASH_ROLES_LAYER, 0};
    }
    return n;
}

static bool in_group(const group *g, const ash_plan_unit *u) {
    return u->layer >= g->lo && u->layer <= g->hi && u->role >= 0 && (g->roles >> u->role & 1);
}

/* The next option that is larger and at least a quarter less wrong; -1 at the top. */
static int promoted(const ash_plan_unit *u, int k) {
    int best = -1;
    for (int j = 0; j < u->n_opts; j++)
        if (u->opts[j].bytes > u->opts[k].bytes && u->opts[j].rel_err <= 0.75 * u->opts[k].rel_err && (best < 0 || u->opts[j].bytes < u->opts[best].bytes ||
            (u->opts[j].bytes == u->opts[best].bytes && u->opts[j].rel_err < u->opts[best].rel_err)))
            best = j;
    return best;
}

static ash_status measure_choice(fit *f, const ash_planner *p, const int *choice, const char *stage, bool adopt, fit_meas *m, ash_error *err) {
    ash_recipe *r;
    ASH_TRY(ash_planner_recipe(p, choice, &r, err));
    fit_cand c = {r, 0};
    ash_status st = fit_measure(f, &c, f->calib_ref, stage, adopt, m, err);
    ash_recipe_free(r);
    return st;
}

/* Mean and standard error of the gain a - b over their chunks. */
static void paired(const fit_meas *a, const fit_meas *b, double *gain, double *se) {
    uint32_t n = ASH_MIN(ASH_MIN(a->n_chunks, b->n_chunks), (uint32_t)FIT_MAX_CHUNKS);
    double s = 0, q = 0;
    for (uint32_t i = 0; i < n; i++) s += a->chunk[i] - b->chunk[i];
    *gain = n ? s / n : a->kld.v - b->kld.v;
    for (uint32_t i = 0; i < n; i++) q += (a->chunk[i] - b->chunk[i] - *gain) * (a->chunk[i] - b->chunk[i] - *gain);
    *se = n > 1 ? sqrt(q / (n - 1) / n) : fabs(*gain);
}

/* Multiply the planner's damages by `share` of the corrections (in log). */
static void correct(ash_planner *p, const group *g, int n_g, double share) {
    for (int k = 0; k < n_g; k++) ash_planner_scale(p, g[k].lo, g[k].hi, g[k].roles, exp(share * g[k].log_f));
}

/* Measure every group's promotion from the current plan; the correction goes into g. */
static ash_status learn(fit *f, ash_planner *p, const int *choice, const fit_meas *base, group *g, int n_g, ash_error *err) {
    size_t n = ash_planner_n_units(p);
    int *try = ash_alloc(n * sizeof *try);
    double factor[MAX_GROUPS], w[MAX_GROUPS], sum = 0, sw = 0;
    ash_status st = ASH_OK;
    if (!try) return ash_fail(err, ASH_E_NOMEM, "out of memory while refining");
    for (int k = 0; k < n_g; k++) {
        double predicted = 0, total = 0;
        bool any = false;
        w[k] = 0;
        g[k].log_f = 0;
        for (size_t u = 0; u < n; u++) {
            ash_plan_unit x = ash_planner_unit(p, u);
            int up = in_group(&g[k], &x) ? promoted(&x, choice[u]) : -1;
            try[u] = up >= 0 ? up : choice[u];
            if (up >= 0) any = true, predicted += x.opts[choice[u]].damage - x.opts[up].damage;
            total += x.opts[try[u]].damage;
        }
        if (!any || predicted < 0.01 * base->kld.v) continue; /* too little to see, and so too little to matter */
        fit_meas m;
        char stage[64], label[64];
        snprintf(stage, sizeof stage, "refine: %s", g[k].name);
        ASH_TRY_GOTO(measure_choice(f, p, try, stage, false, &m, err), done);
        snprintf(label, sizeof label, "%s one step better", g[k].name);
        fit_check(f, label, total, &m);
        double gain, se;
        paired(base, &m, &gain, &se);
        double ratio = fmax(gain, 0.1 * predicted) / predicted, rel = se / predicted;
        factor[k] = log(fmin(fmax(ratio, 0.2), 5));
        w[k] = 1 / (0.15 * 0.15 + rel * rel / (ratio * ratio)); /* the sum rule itself is good to about 15 % */
        sum += w[k] * factor[k], sw += w[k];
    }
    for (int k = 0; k < n_g; k++) {
        if (w[k] <= 0) continue;
        double mean = sum / sw, prior = 1 / (0.4 * 0.4);
        double fk = (w[k] * factor[k] + prior * mean) / (w[k] + prior);
        /* depth bands refine what the roles have said already: only their deviation from the mean counts */
        g[k].log_f = k < N_ROLE_GROUPS ? fk : 0.5 * (fk - mean);
    }
done:
    ash_free(try);
    return st;
}

/* Verify planner `which` at its best choice; on return choice, predicted and m are its. */
static ash_status verify(fit *f, int which, int *choice, double *predicted, fit_meas *m, bool adopt, ash_error *err) {
    ash_solution s;
    ASH_TRY(ash_planner_solve_by(f->pl[which], f->o->method, f->budget, choice, &s, err));
    *predicted = ash_planner_total(f->pl[which], choice).damage;
    ASH_TRY(measure_choice(f, f->pl[which], choice, "verify", adopt, m, err));
    fit_check(f, which ? "first plan, widened" : "first plan", *predicted, m);
    return ASH_OK;
}

/* Solve with the planner as it is now; the new plan replaces c and base when it measures better. */
static ash_status try_corrected(fit *f, ash_planner *p, int *c, int *next, fit_meas *base, const char *label, bool *better, ash_error *err) {
    const size_t n = ash_planner_n_units(p);
    ash_solution s;
    fit_meas m;
    *better = false;
    ASH_TRY(ash_planner_solve(p, f->budget, next, &s, err));
    if (memcmp(next, c, n * sizeof *c) == 0) return ASH_OK;
    ASH_TRY(measure_choice(f, p, next, "refine: new plan", false, &m, err));
    fit_check(f, label, s.damage, &m);
    if (m.kld.v >= base->kld.v) return ASH_OK;
    *better = true;
    memcpy(c, next, n * sizeof *c);
    f->predicted = s.damage;
    return measure_choice(f, p, c, "refine: new plan", true, base, err);
}

/* Without a sweep, far below four bits, damages do not add up and the table of sensitivities misleads: a plan that trusts it less and two random mixes are measured
 * too, and the best stays. (The controls of the proof are drawn with other seeds.) */
static ash_status try_others(fit *f, ash_planner *p, int *c, int *next, fit_meas *base, ash_error *err) {
    static const char *const labels[] = {"all roles alike", "random mix tried instead", "random mix tried instead"};
    const size_t n = ash_planner_n_units(p);
    const int32_t last = ash_model_n_layer(f->model) - 1;
    for (int i = 0; i < 3; i++) {
        ash_solution s;
        fit_meas m;
        ash_status st;
        if (i == 0) {
            for (int r = 0; r < ASH_ROLE_N_LAYER; r++) ash_planner_scale(p, 0, last, 1u << r, ash_plan_typical(ASH_ROLE_UP) / ash_plan_typical(r));
            st = ash_planner_solve(p, f->budget, next, &s, err);
            for (int r = 0; r < ASH_ROLE_N_LAYER; r++) ash_planner_scale(p, 0, last, 1u << r, ash_plan_typical(r) / ash_plan_typical(ASH_ROLE_UP));
        } else {
            st = ash_planner_random(p, f->budget, f->o->seed * 7919u + (uint64_t)i, next, &s, err);
            if (st == ASH_E_LIMIT) return ASH_OK; /* no freedom at this size */
        }
        if (st != ASH_OK) return st;
        if (memcmp(next, c, n * sizeof *c) == 0) continue;
        s = ash_planner_total(p, next);
        ASH_TRY(measure_choice(f, p, next, "verify: others", false, &m, err));
        fit_check(f, labels[i], s.damage, &m);
        if (m.kld.v >= base->kld.v) continue;
        memcpy(c, next, n * sizeof *c);
        f->predicted = s.damage;
        ASH_TRY(measure_choice(f, p, c, "verify: others", true, base, err));
    }
    return ASH_OK;
}

ash_status fit_refine(fit *f, ash_error *err) {
    fit_effort e = fit_effort_of(f->o);
    ash_status st = ASH_OK;
    double pred[2] = {INFINITY, INFINITY};
    int *choice[2] = {NULL, NULL}, *next = NULL;
    fit_meas m[2];
    size_t n = ash_planner_n_units(f->pl[0] ? f->pl[0] : f->pl[1]);
    ash_error why = {0};
    /* nothing of an earlier size */
    ash_free(f->choice);
    f->choice = NULL;
    f->r->report.n_checks = f->r->report.n_notes = 0;
    for (int k = 0; k < 2; k++) {
        ash_solution s;
        if (f->pl[k]) ash_planner_unscale(f->pl[k]);
        if (!(choice[k] = ash_alloc(n * sizeof **choice))) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory while refining");
            goto done;
        }
        if (!f->pl[k]) continue;
        st = ash_planner_solve_by(f->pl[k], f->o->method, f->budget, choice[k], &s, &why);
        if (st == ASH_OK) pred[k] = s.damage;
        else if (st != ASH_E_LIMIT) {
            if (err) *err = why;
            goto done;
        }
    }
    if (!isfinite(pred[0]) && !isfinite(pred[1])) {
        if (err) *err = why;
        st = ASH_E_LIMIT;
        goto done;
    }
    f->which = pred[1] < pred[0];
    if (f->o->method != ASH_PLAN_DAMAGE && !isfinite(pred[1 - f->which])) { /* nothing to choose from, nothing to learn */
        f->predicted = ash_planner_total(f->pl[f->which], choice[f->which]).damage;
        f->measured = NAN;
        f->choice = choice[f->which];
        choice[f->which] = NULL;
        st = ASH_OK; /* the other planner may have had none */
        goto done;
    }
    bool close = pred[1 - f->which] < 1.3 * pred[f->which];
    ASH_TRY_GOTO(verify(f, f->which, choice[f->which], &pred[f->which], &m[f->which], true, err), done);
    if (close) {
        int other = 1 - f->which;
        ASH_TRY_GOTO(verify(f, other, choice[other], &pred[other], &m[other], false, err), done);
        if (m[other].kld.v < m[f->which].kld.v) {
            f->which = other;
            ASH_TRY_GOTO(measure_choice(f, f->pl[other], choice[other], "verify", true, &m[other], err), done);
        }
    }
    ash_planner *p = f->pl[f->which];
    int *c = choice[f->which];
    fit_meas *base = &m[f->which];
    f->predicted = pred[f->which];
    if (!(next = ash_alloc(n * sizeof *next))) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while refining");
        goto done;
    }
    if (!f->swept && f->o->method == ASH_PLAN_DAMAGE && base->kld.v > 0.25) ASH_TRY_GOTO(try_others(f, p, c, next, base, err), done);
    for (int round = 0; round < e.groups; round++) {
        group g[MAX_GROUPS];
        const int n_g = make_groups(f, e.groups, g);
        bool better = false;
        ASH_TRY_GOTO(learn(f, p, c, base, g, n_g, err), done);
        correct(p, g, n_g, 1);
        ASH_TRY_GOTO(try_corrected(f, p, c, next, base, "refined plan", &better, err), done);
        if (!better) { /* gains do not add up as far as that: half way */
            correct(p, g, n_g, -0.5);
            ASH_TRY_GOTO(try_corrected(f, p, c, next, base, "refined plan, half the correction", &better, err), done);
        }
        if (!better) break;
    }
    f->measured = base->kld.v;
    f->choice = c;
    choice[f->which] = NULL;
done:
    ash_free(choice[0]);
    ash_free(choice[1]);
    ash_free(next);
    return st;
}
