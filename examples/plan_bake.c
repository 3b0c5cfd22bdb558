/* plan_bake.c - plan.h, bake.h: a recipe for a size without a sweep, by typical sensitivities and real encoding errors; then the file.
 * usage: plan_bake MODEL OUT PERCENT     of the model's size */
#include "example.h"

#include "ashlar/bake.h"
#include "ashlar/plan.h"

int main(int argc, char **argv) {
    ARGS(3, "MODEL OUT PERCENT");
    ash_gguf *g;
    OK(ash_gguf_open(&g, argv[1], &err));
    ash_planner_opts po = ash_planner_defaults();
    OK(ash_bake_fixed_bytes(&po.fixed_bytes, g, 0, &err)); /* header, norms: what no choice changes */
    ash_planner *p;
    OK(ash_planner_new(&p, g, &po, &err)); /* encodes samples of every matrix in every type */
    ash_planner_calibrate(p, 0);           /* ash_planner_measured before this, where there is a sweep */

    const uint64_t budget = (uint64_t)((double)ash_gguf_file_bytes(g) * atof(argv[3]) / 100);
    int *choice = calloc(ash_planner_n_units(p), sizeof *choice);
    ash_solution sol;
    ash_recipe *r;
    OK(ash_planner_solve(p, budget, choice, &sol, &err)); /* a knapsack: least damage within the bytes */
    printf("%llu of %llu bytes, predicted damage %.4f nats%s\n", (unsigned long long)sol.bytes, (unsigned long long)budget, sol.damage,
           sol.exact ? ", optimal" : "");
    OK(ash_planner_recipe(p, choice, &r, &err));

    ash_bake_opts bo = ash_bake_defaults();
    ash_bake_result done;
    bo.type = ASH_BAKE_RECIPE;
    bo.recipe = r;
    OK(ash_bake(&done, g, argv[2], &bo, &err));
    for (size_t i = 0; i < done.n && i < 12; i++)
        if (done.t[i].is_matrix) printf("%-28s %s -> %s\n", done.t[i].name, ash_dtype_name(done.t[i].from), ash_dtype_name(done.t[i].to));
    printf("written: %llu bytes, %.2f bits per weight\n", (unsigned long long)done.file_bytes, done.bpw);
    ash_bake_result_free(&done);
    ash_recipe_free(r);
    free(choice);
    ash_planner_free(p);
    ash_gguf_close(g);
}
