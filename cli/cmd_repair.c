/* cmd_repair.c - `ashlar repair`: a LoRA adapter that wins back part of what quantizing lost. */
#include "cli.h"

#include "ashlar/eval.h"
#include "ashlar/repair.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static const char *original, *imatrix_path, *sweep_path, *out;
static double percent;
static int64_t size, max_rank, seed = 1;

static const opt_def options[] = {
    {OPT_STR, 0, "of", "ORIGINAL", "The model that QUANTIZED was made from.", &original},
    {OPT_STR, 'o', "output", "FILE", "The adapter to write (GGUF).", &out},
    {OPT_F64, 0, "percent", "P", "Bytes to spend, in percent of QUANTIZED (default 2).", &percent},
    {OPT_BYTES, 0, "size", "BYTES", "Bytes to spend.", &size},
    {OPT_STR, 0, "imatrix", "FILE", "Importance matrix (`ashlar imatrix`): errors count by what the inputs are like. Much better with one.",
     &imatrix_path},
    {OPT_STR, 0, "sweep", "FILE", "Result of `ashlar sweep --json`: what each matrix can lose, for dividing the bytes among them.",
     &sweep_path},
    {OPT_I64, 0, "max-rank", "N", "Highest rank of one matrix (default 64).", &max_rank},
    {OPT_I64, 0, "seed", "N", "Seed of the random start.", &seed},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* What the sweep's row nearest in error says, on a straight line through it: the corrections are small. Matrices it did not measure take
 * the mean of those that it did. */
static double swept(void *ctx, const char *tensor, double e) {
    const ash_plan_sweep *s = ctx;
    const ash_plan_sweep_row *best = NULL;
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const ash_plan_sweep_row *r = &s->rows[i];
        if (!(r->rel_err > 0) || !(r->kld > 0)) continue;
        sum += r->kld / r->rel_err;
        n++;
        if (strcmp(r->tensor, tensor) == 0 && (!best || fabs(log(r->rel_err / (e + 1e-12))) < fabs(log(best->rel_err / (e + 1e-12)))))
            best = r;
    }
    return best ? best->kld / best->rel_err * e : n ? sum / (double)n * e : e;
}

static int print(const ash_repair_result *r) {
    char a[32];
    size_t touched = 0;
    double rank = 0;
    for (size_t i = 0; i < r->n; i++) touched += r->t[i].rank > 0, rank += r->t[i].rank;
    if (g_json) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:f, s:f}", "file", out, "bytes", (json_int_t)r->file_bytes, "tensor_bytes",
                              (json_int_t)r->tensor_bytes, "damage", r->damage, "damage_after", r->damage_after);
        json_t *t = json_array();
        for (size_t i = 0; i < r->n; i++) {
            const ash_repair_tensor *x = &r->t[i];
            json_array_append_new(t, json_pack("{s:s, s:i, s:I, s:f, s:f}", "tensor", x->tensor, "rank", x->rank, "bytes",
                                               (json_int_t)x->bytes, "rel_err", x->rel_err, "rel_err_after", x->rel_err_after));
        }
        if (!o || !t || json_object_set_new(o, "tensors", t) != 0) return cli_fail(NULL, ASH_E_INTERNAL);
        return cli_print_json(o);
    }
    printf("%s: %s, %zu of %zu matrices corrected, mean rank %.1f; predicted damage %.3g -> %.3g (%.1f %% won back)\n", out,
           cli_bytes(r->file_bytes, a), touched, r->n, touched ? rank / (double)touched : 0, r->damage, r->damage_after,
           r->damage > 0 ? 100 * (1 - r->damage_after / r->damage) : 0);
    return 0;
}

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_gguf *g = NULL, *q = NULL;
    ash_imatrix *im = NULL;
    ash_plan_sweep sw = {0};
    ash_repair_result r = {0};
    ash_repair_opts o = ash_repair_defaults();
    ash_status st;
    (void)argc;
    if (!original || !out) return cli_usage("give the original with --of and the file to write with -o");
    if (size && percent != 0) return cli_usage("give --size or --percent, not both");
    if (percent == 0) percent = 2;
    if (!(percent > 0 && percent <= 100)) return cli_usage("--percent takes a number above 0, at most 100");
    if (size < 0 || max_rank < 0 || max_rank > 1024) return cli_usage("--max-rank takes 1 to 1024, --size a number of bytes");
    cli_catch_sigint();
    st = ash_gguf_open(&q, argv[0], &err);
    if (st == ASH_OK) st = ash_gguf_open(&g, original, &err);
    if (st == ASH_OK) st = cli_out_check(out, &err);
    if (st == ASH_OK && imatrix_path) st = ash_imatrix_load(&im, imatrix_path, &err);
    if (st == ASH_OK && sweep_path) st = ash_plan_sweep_load(&sw, sweep_path, &err);
    if (st == ASH_OK) {
        o.budget_bytes = size ? (uint64_t)size : (uint64_t)((double)ash_gguf_file_bytes(q) * percent / 100);
        o.max_rank = (int)max_rank;
        if (im) o.importance = ash_plan_importance(im);
        if (sw.n) o.damage = swept, o.damage_ctx = &sw;
        o.seed = (uint64_t)seed;
        o.n_threads = g_threads;
        o.progress = cli_progress();
        st = ash_repair(&r, g, q, out, &o, &err);
        cli_progress_done();
    }
    int rc = st == ASH_OK ? print(&r) : cli_fail(&err, st);
    ash_repair_result_free(&r);
    ash_plan_sweep_free(&sw);
    ash_imatrix_free(im);
    ash_gguf_close(q);
    ash_gguf_close(g);
    return rc;
}

const ash_cmd cmd_repair = {
    .name = "repair",
    .usage = "QUANTIZED.gguf --of ORIGINAL.gguf -o ADAPTER.gguf",
    .summary = "Win back part of what quantizing lost: a low-rank correction as a LoRA adapter.",
    .details = "The error that quantizing left in each matrix of the blocks is approximated by few directions, those that matter most for "
               "the inputs the importance "
               "matrix saw, and the bytes go where they win most. The adapter is a standard GGUF LoRA: `ashlar run QUANTIZED --lora "
               "ADAPTER`, and llama.cpp's --lora.\n\n"
               "Better types for the same bytes win more (docs/decisions/0009-repair.md has figures): compare with `ashlar fit --size` of the sum.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
