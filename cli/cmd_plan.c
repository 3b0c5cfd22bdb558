/* cmd_plan.c - `ashlar plan`: a recipe for a budget, from a sweep (or from typical sensitivities), without building anything. */
#include "cli.h"
#include "model_args.h"

#include "ashlar/fit.h"

#include <stdlib.h>
#include <string.h>

static int64_t size, ram, ctx = 2048, widen_to;
static double bpw;
static const char *out, *imatrix_path, *sweep_path, *types, *method;
static ash_plan_method how;

static const opt_def options[] = {
    {OPT_BYTES, 0, "size", "BYTES", "Budget: size of the whole file.", &size},
    {OPT_F64, 0, "bpw", "BITS", "Budget: bits per weight of the whole file.", &bpw},
    {OPT_BYTES, 0, "ram", "BYTES", "Budget: memory of a running model, weights plus context (--ctx) plus scratch.", &ram},
    {OPT_I64, 0, "ctx", "N", "With --ram: tokens of context to make room for (default 2048).", &ctx},
    {OPT_STR, 0, "sweep", "FILE", "What each matrix can lose: the JSON of `ashlar sweep --json`. Without it, typical sensitivities are used.", &sweep_path},
    {OPT_STR, 0, "imatrix", "FILE", "Importance matrix: weights the encoding errors.", &imatrix_path},
    {OPT_STR, 0, "allow-types", "LIST", "Types to choose from, separated by commas (default: the standard types).", &types},
    {OPT_STR, 0, "method", "NAME", "What the plan minimises: damage (default), or a baseline that knows no sensitivities: lagrange (importance-weighted squared error), lagrange-rel (weights times relative error).", &method},
    {OPT_I64, 0, "widen", "N", "Plan for rows widened to multiples of N (256 for k-quants).", &widen_to},
    {OPT_STR, 'o', "output", "FILE", "Write the recipe (JSON) here; without it, it goes to standard output.", &out},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static ash_status plan(const char *path, ash_recipe **recipe, ash_solution *sol, uint64_t *budget, ash_dtype *list, size_t n_list, ash_error *err) {
    ash_gguf *g = NULL;
    ash_model *m = NULL;
    ash_imatrix *im = NULL;
    ash_planner *p = NULL;
    ash_plan_sweep sw = {0};
    int *choice = NULL;
    ash_planner_opts o = ash_planner_defaults();
    ash_budget_kind kind = size > 0 ? ASH_BUDGET_SIZE : bpw > 0 ? ASH_BUDGET_BPW : ASH_BUDGET_RAM;
    ash_status st = ash_gguf_open(&g, path, err);
    if (st == ASH_OK && kind == ASH_BUDGET_RAM) st = ash_model_load(&m, path, err);
    if (st == ASH_OK) st = ash_fit_budget(budget, g, m, kind, size > 0 ? (double)size : bpw > 0 ? bpw : (double)ram, (uint32_t)ctx, err);
    if (st == ASH_OK && imatrix_path) st = ash_imatrix_load(&im, imatrix_path, err);
    if (st == ASH_OK && sweep_path) st = ash_plan_sweep_load(&sw, sweep_path, err);
    o.types = n_list ? list : NULL;
    o.n_types = n_list;
    o.widen = (uint32_t)widen_to;
    if (im) o.importance = ash_plan_importance(im);
    o.lookup_free = kind == ASH_BUDGET_RAM;
    o.n_threads = g_threads;
    o.progress = cli_progress();
    if (st == ASH_OK) st = ash_bake_fixed_bytes(&o.fixed_bytes, g, o.widen, err);
    if (st == ASH_OK) st = ash_planner_new(&p, g, &o, err);
    for (size_t i = 0; i < sw.n && st == ASH_OK; i++) st = ash_planner_measured(p, sw.rows[i].tensor, sw.rows[i].rel_err, sw.rows[i].kld, sw.rows[i].half, err);
    if (st == ASH_OK) {
        if (sw.n) ash_planner_calibrate(p, sw.noise_floor);
        ash_plan_rank w = {0}, h = {0}, gr = {0};
        if (sw.n) st = ash_planner_rank(p, ASH_PREDICT_WEIGHTS, 1, &w, err);
        if (sw.n && st == ASH_OK) st = ash_planner_rank(p, ASH_PREDICT_HEADER, 1, &h, err);
        if (sw.n && st == ASH_OK) st = ash_planner_rank(p, ASH_PREDICT_GRADIENT, 1, &gr, err);
        if (w.n >= 8 && st == ASH_OK) {
            cli_progress_done();
            fprintf(stderr, "what could be said without the sweep: rank correlation over %zu matrices %.2f (95 %%: %.2f to %.2f) from weights%s, %.2f (%.2f to %.2f) from the header\n", w.n, w.rho,
                    w.lo, w.hi, im ? " and importance" : "", h.rho, h.lo, h.hi);
            if (gr.n >= 8) fprintf(stderr, "with a backward pass (gradients beside the importance): %.2f (%.2f to %.2f)\n", gr.rho, gr.lo, gr.hi);
        }
    }
    if (st == ASH_OK) {
        choice = malloc(ash_planner_n_units(p) * sizeof *choice);
        st = choice ? ash_planner_solve_by(p, how, *budget, choice, sol, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a plan");
    }
    if (st == ASH_OK) st = ash_planner_recipe(p, choice, recipe, err);
    if (st == ASH_OK) {
        ash_recipe_info i = ash_recipe_get_info(*recipe);
        i.budget_bytes = *budget;
        st = ash_recipe_set_info(*recipe, &i, err);
    }
    cli_progress_done();
    free(choice);
    ash_plan_sweep_free(&sw);
    ash_planner_free(p);
    ash_imatrix_free(im);
    ash_model_free(m);
    ash_gguf_close(g);
    return st;
}

static int run(int argc, char **argv) {
    static ash_dtype list[ASH_DTYPE_MAX];
    ash_error err = {0};
    ash_recipe *r = NULL;
    ash_solution sol = {0};
    uint64_t budget = 0;
    int n_list = 0;
    char a[32], b[32];
    (void)argc;
    if ((size > 0) + (bpw > 0) + (ram > 0) != 1) return cli_usage("give one budget: --size, --bpw or --ram");
    if (ctx < 1 || ctx > 1 << 20) return cli_usage("--ctx takes 1 to 1048576");
    if (widen_to < 0 || widen_to == 1 || widen_to > 65536) return cli_usage("--widen takes a block size such as 256");
    if (types && (n_list = cli_parse_types("--allow-types", types, list, ASH_DTYPE_MAX)) < 0) return 2;
    if (method && !ash_plan_method_parse(method, &how)) return cli_usage("--method is damage, lagrange or lagrange-rel, not \"%.40s\"", method);
    cli_catch_sigint();
    ash_status st = plan(argv[0], &r, &sol, &budget, list, (size_t)n_list, &err);
    if (st == ASH_OK && out) st = ash_recipe_save(r, out, &err);
    if (st == ASH_OK && (!out || g_json)) {
        char *s;
        size_t n;
        st = ash_recipe_json(r, &s, &n, &err);
        if (st == ASH_OK) {
            fwrite(s, 1, n, stdout);
            ash_recipe_text_free(s);
        }
    }
    if (st == ASH_OK && out && !g_json && how != ASH_PLAN_DAMAGE)
        printf("%s: %s of %s, %s error %.6g (bound %.6g)\n", out, cli_bytes(sol.bytes, a), cli_bytes(budget, b), how == ASH_PLAN_LAGRANGE ? "weighted squared" : "relative", sol.damage, sol.bound);
    else if (st == ASH_OK && out && !g_json)
        printf("%s: %s of %s, predicted KLD %.4g%s (bound %.4g)\n", out, cli_bytes(sol.bytes, a), cli_bytes(budget, b), sol.damage, sweep_path ? "" : " from typical sensitivities", sol.bound);
    ash_recipe_free(r);
    return st == ASH_OK ? 0 : cli_fail(&err, st);
}

const ash_cmd cmd_plan = {
    .name = "plan",
    .usage = "MODEL --size BYTES [--sweep SWEEP.json] [-o RECIPE.json]",
    .summary = "Choose a type per matrix for a budget; writes a recipe for `ashlar quantize`.",
    .details = "Encodes a sample of every matrix in every allowed type, turns the errors into predicted damage with the sweep's measurements, and solves for the "
               "least total damage within the budget. Sizes are exact, header included. `ashlar fit` does this and verifies it; docs/plan.md has the formulas.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
