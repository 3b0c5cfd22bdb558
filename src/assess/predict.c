/* predict.c - the KLD of every stock recipe from the weights alone: samples of every matrix are encoded in every type the recipes use, and the planner's
 * typical sensitivities turn the errors into nats (docs/plan.md). No forward pass.
 *
 * The interval is what the same prediction missed by on files that were measured (docs/assess.md has the table): a factor either way. */
#include "assess/assess_int.h"

#include "ashlar/quant.h"

#include <math.h>

enum { SAMPLE = 2048 }; /* weights per matrix */

static size_t types_in_use(const ash_assess *a, ash_dtype out[ASH_DTYPE_MAX], ash_error *err, ash_status *st) {
    bool seen[ASH_DTYPE_MAX] = {0};
    size_t n = 0;
    for (size_t p = 0; p < a->n_recipes; p++) {
        ash_recipe *r;
        if (!a->recipes[p].possible || !a->recipes[p].general) continue;
        if ((*st = ash_preset_recipe(&r, p, a->g, 0, a->o.importance, err)) != ASH_OK) return 0;
        for (size_t i = 0; i < ash_recipe_n_rules(r); i++) {
            int t = ash_recipe_rule_at(r, i).type;
            if (t < 0 || seen[t] || !ash_quant_can((ash_dtype)t)) continue;
            seen[t] = true;
            out[n++] = (ash_dtype)t;
        }
        ash_recipe_free(r);
    }
    return n;
}

/* The planner's damage of a recipe; < 0 when a type was not sampled. */
static double damage_of(const ash_planner *p, const ash_recipe *r) {
    double sum = 0;
    for (size_t i = 0; i < ash_planner_n_units(p); i++) {
        const ash_plan_unit u = ash_planner_unit(p, i);
        const int64_t k = ash_recipe_find(r, u.tensor);
        if (k < 0) continue; /* left as it is */
        const int want = ash_recipe_rule_at(r, (size_t)k).type;
        int o = 0;
        while (o < u.n_opts && (int)u.opts[o].type != want) o++;
        if (o == u.n_opts) return -1;
        sum += u.opts[o].damage;
    }
    return sum;
}

ash_status ash_assess_predict(ash_assess *a, ash_error *err) {
    ash_dtype types[ASH_DTYPE_MAX];
    ash_planner *p = NULL;
    ash_status st = ASH_OK;
    ash_planner_opts o = ash_planner_defaults();
    o.n_types = types_in_use(a, types, err, &st);
    if (st != ASH_OK || !o.n_types) return st;
    o.types = types;
    o.importance = a->o.weights;
    o.n_threads = a->o.n_threads;
    o.progress = a->o.progress;
    o.sample = SAMPLE;
    ASH_TRY(ash_planner_new(&p, a->g, &o, err));
    for (size_t i = 0; i < a->n_recipes && st == ASH_OK; i++) {
        ash_assess_recipe *r = &a->recipes[i];
        ash_recipe *recipe;
        if (!r->possible || !r->general) continue;
        st = ash_preset_recipe(&recipe, i, a->g, 0, a->o.importance, err);
        if (st != ASH_OK) break;
        const double sum = damage_of(p, recipe), d = sum * ASH_ASSESS_BIAS;
        r->predicted = sum >= 0;
        r->kld = d;
        r->kld_lo = d / ASH_ASSESS_MISS;
        r->kld_hi = d * ASH_ASSESS_MISS;
        ash_recipe_free(recipe);
    }
    ash_planner_free(p);
    return st;
}
