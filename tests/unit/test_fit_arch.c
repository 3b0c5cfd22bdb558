/* test_fit_arch.c - what `fit` does, step by step, on a tiny model of every architecture that generates text: importance, sweep, plan for a
 * budget, bake, load, measure. The stages' own tests have the details; this one is that nothing is refused or forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <unistd.h>

#include "ashlar/bake.h"
#include "tiny.h"

static const float *weights(void *ctx, const char *tensor, uint64_t n) { return ash_imatrix_weights(ctx, tensor, n); }
static const float *counts(void *ctx, const char *tensor, uint64_t n) { return ash_imatrix_counts(ctx, tensor, n); }

static void must(ash_status st, const ash_error *e, const char *name, const char *what) {
    if (st != ASH_OK) fail_msg("%s: %s: %s", name, what, e->msg);
}

static void fit_one(const char *name) {
    const char *out = "test_fit_arch.gguf";
    ash_model *m = tiny_model(name), *got = NULL;
    ash_eval_text t = tiny_text(m, 24 * 40, 7);
    ash_error e = {0};
    ash_eval_opts eo = ash_eval_defaults();
    eo.n_ctx = 48, eo.n_chunks = 6, eo.n_threads = 2;
    ash_imatrix *im;
    must(ash_imatrix_collect(&im, m, &t, "tiny", &eo, &e), &e, name, "importance");
    const ash_dtype types[] = {ASH_Q4_0, ASH_Q8_0};
    ash_sweep_unit *u;
    size_t n;
    must(ash_sweep_units(&u, &n, m, 't', types, 2, types, 1, &e), &e, name, "units");
    ash_sweep_opts so = ash_sweep_defaults();
    so.n_ctx = 24, so.skip = 4, so.min_chunks = 4, so.max_chunks = 4, so.n_threads = 2;
    ash_sweep_result sw;
    must(ash_sweep_run(&sw, m, &t, im, u, n, &so, &e), &e, name, "sweep");
    assert_true(sw.identity == 0);
    ash_planner_opts po = ash_planner_defaults();
    po.importance = (ash_importance){.weights = weights, .ctx = im, .counts = counts};
    po.n_threads = 2;
    must(ash_bake_fixed_bytes(&po.fixed_bytes, m->gguf, 0, &e), &e, name, "fixed bytes");
    ash_planner *p;
    must(ash_planner_new(&p, m->gguf, &po, &e), &e, name, "planner");
    const char *dead[64];
    size_t n_dead = ash_imatrix_dead(im, m, dead, 64), n_measured = 0;
    assert_true(n_dead <= 64);
    for (size_t i = 0; i < n_dead; i++) ash_planner_dead(p, dead[i]);
    for (size_t i = 0; i < sw.n_rows; i++)
        if (sw.rows[i].rel_err > 0) must(ash_planner_measured(p, sw.rows[i].tensor, sw.rows[i].rel_err, sw.rows[i].kld, sw.rows[i].half, &e), &e, name, "measurement");
    ash_planner_calibrate(p, sw.noise_floor);
    const size_t nu = ash_planner_n_units(p);
    int *choice = ash_calloc(nu, sizeof *choice);
    uint64_t least = po.fixed_bytes, most = po.fixed_bytes;
    for (size_t i = 0; i < nu; i++) {
        ash_plan_unit x = ash_planner_unit(p, i);
        uint64_t lo = UINT64_MAX, hi = 0;
        bool is_dead = false;
        for (size_t k = 0; k < n_dead; k++) is_dead |= strcmp(dead[k], x.tensor) == 0;
        n_measured += x.measured;
        if (!x.measured && !is_dead) fail_msg("%s: %s was not measured", name, x.tensor);
        if (x.role < 0) fail_msg("%s: %s has no role", name, x.tensor);
        for (int k = 0; k < x.n_opts; k++) {
            lo = x.opts[k].bytes < lo ? x.opts[k].bytes : lo, hi = x.opts[k].bytes > hi ? x.opts[k].bytes : hi;
            if (is_dead) assert_true(x.opts[k].damage == 0);
            else assert_true(isfinite(x.opts[k].damage) && (x.opts[k].damage > 0) == (x.opts[k].rel_err > 0));
        }
        least += lo, most += hi;
    }
    assert_true(n_measured + n_dead >= nu);
    const uint64_t budget = least + (most - least) * 2 / 5;
    ash_solution sol;
    ash_recipe *r;
    must(ash_planner_solve(p, budget, choice, &sol, &e), &e, name, "solve");
    must(ash_planner_recipe(p, choice, &r, &e), &e, name, "recipe");
    ash_bake_opts bo = ash_bake_defaults();
    ash_bake_result br;
    bo.recipe = r, bo.importance = po.importance, bo.n_threads = 2;
    must(ash_bake(&br, m->gguf, out, &bo, &e), &e, name, "bake");
    assert_true(br.file_bytes <= budget && br.file_bytes == sol.bytes);
    must(ash_model_load(&got, out, &e), &e, name, "load");
    ash_eval_ref *ref;
    ash_eval_result res;
    must(ash_eval_ref_compute(&ref, m, &t, &eo, &e), &e, name, "reference");
    must(ash_eval_measure(&res, got, NULL, ref, &eo, &e), &e, name, "measure");
    if (!(res.kld.v > 0 && res.kld.v < 1)) fail_msg("%s: KLD %g", name, res.kld.v);
    unlink(out);
    ash_eval_result_free(&res);
    ash_eval_ref_free(ref);
    ash_model_free(got);
    ash_bake_result_free(&br);
    ash_recipe_free(r);
    ash_free(choice);
    ash_planner_free(p);
    ash_sweep_result_free(&sw);
    ash_sweep_units_free(u);
    ash_imatrix_free(im);
    ash_free(t.tokens);
    ash_model_free(m);
}

static void every_architecture(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "llama-tied", "mistral-swa", "mixtral", "qwen2", "qwen3", "qwen3-moe", "phi3", "phi3-longrope", "gemma2",
                                        "gemma3", "gemma4-dense", "gemma4-e", "gemma4-moe"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) fit_one(names[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_architecture)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
