/* cmd_sweep.c - `ashlar sweep`: what each part of a model can lose. */
#include "cli.h"
#include "ranks.h"

#include "ashlar/eval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *calib, *types_arg = "IQ4_NL,Q5_0", *table_arg, *im_path, *unit = "tensor", *out_path;
static int64_t n_ctx = 32, min_chunks = 16, max_chunks = 2048, seed = 1, budget_mem = 512000000;
static double until = 0.2;
static bool dry_run;

static const opt_def options[] = {
    {OPT_STR, 0, "calib", "FILE", "Text to measure on (default: the wikitext-2 validation text that ships with the program).", &calib},
    {OPT_STR, 0, "text", "FILE", "The same as --calib.", &calib},
    {OPT_STR, 0, "types", "A,B", "Types to try on every matrix.", &types_arg},
    {OPT_STR, 0, "table-types", "A,B", "Types to try on the embedding and the head.", &table_arg},
    {OPT_STR, 0, "imatrix", "FILE", "Importance weights for the encoders (default: collected here from 32 chunks of the text).", &im_path},
    {OPT_STR, 0, "unit", "tensor|layer|class", "What is knocked down at a time.", &unit},
    {OPT_I64, 0, "ctx", "N", "Tokens per chunk.", &n_ctx},
    {OPT_F64, 0, "until", "R", "Stop a unit when its 95 % half-width is at most R times its mean.", &until},
    {OPT_I64, 0, "min-chunks", "N", "Fewest chunks per unit.", &min_chunks},
    {OPT_I64, 0, "max-chunks", "N", "Most chunks per unit.", &max_chunks},
    {OPT_BYTES, 0, "budget-mem", "BYTES", "Memory for activations; more goes to disk.", &budget_mem},
    {OPT_I64, 0, "seed", "N", "Seed of the choice of chunks and of tail samples.", &seed},
    {OPT_FLAG, 0, "estimate", NULL, "Print the estimate of time, memory and disk, and stop.", &dry_run},
    {OPT_STR, 'o', "output", "FILE", "Result (JSON). FILE.part keeps the checkpoint of an unfinished run.", &out_path},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static bool parse_types(const char *s, ash_dtype *out, size_t cap, size_t *n) {
    *n = 0;
    while (s && *s) {
        size_t k = strcspn(s, ",");
        char name[32];
        if (k == 0 || k >= sizeof name || *n == cap) return false;
        memcpy(name, s, k);
        name[k] = 0;
        if (!ash_dtype_parse(name, &out[(*n)++])) return false;
        s += k + (s[k] == ',');
    }
    return true;
}

static void print_rows(const ash_sweep_result *r) {
    printf("%-8s %-24s %-8s %11s %11s %6s %10s %10s\n", "layer", "matrix", "type", "KLD", "+-", "chunks", "rel. error", "bytes");
    for (size_t i = 0; i < r->n_rows; i++) {
        const ash_sweep_row *w = &r->rows[i];
        char layer[16] = "all", size[32];
        if (w->unit.layer >= 0) snprintf(layer, sizeof layer, "%d", (int)w->unit.layer);
        const char *role = w->unit.roles == ASH_ROLES_LAYER ? "all" : ash_role_name(__builtin_ctz(w->unit.roles)), *leaf = w->tensor ? w->tensor : role;
        char name[64];
        if (w->unit.layer >= 0 && w->tensor && strncmp(leaf, "blk.", 4) == 0 && strchr(leaf + 4, '.')) leaf = strchr(leaf + 4, '.') + 1;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(leaf, "."), leaf); /* a fused tensor has its own name */
        printf("%-8s %-24s %-8s %11.3e %11.1e %6u %10.3e %10s%s\n", layer, name, ash_dtype_name(w->unit.type), w->kld, w->half, w->n_chunks, w->rel_err,
               cli_bytes(w->bytes, size), w->widened ? " widened" : "");
    }
    printf("identity control %g, rounding floor %.1e, %u chunks of %u tokens, %.1f s\n", r->identity, r->noise_floor, r->n_chunks, r->n_ctx, r->seconds);
}

static int sweep(char **argv, const ash_ranks *ranks) {
    const bool first = !ranks || ranks->rank == 0; /* of several processes: reads the checkpoint, collects importance, writes and prints */
    ash_error err = {0};
    ash_status st = ASH_OK;
    int code = 0;
    ash_model *m = NULL;
    ash_eval_text t = {0};
    ash_imatrix *im = NULL;
    ash_sweep_unit *u = NULL;
    ash_sweep_result r = {0};
    char *json = NULL, part[4200];
    size_t n = 0, n_types, n_tables, len;
    ash_dtype types[16], tables[16];
    if (!out_path && !dry_run) return cli_usage("-o FILE is needed");
    if (!parse_types(types_arg, types, 16, &n_types) || n_types == 0) return cli_usage("--types: \"%.60s\" is no list of types", types_arg);
    if (!parse_types(table_arg, tables, 16, &n_tables)) return cli_usage("--table-types: \"%.60s\" is no list of types", table_arg);
    if (strcmp(unit, "tensor") != 0 && strcmp(unit, "layer") != 0 && strcmp(unit, "class") != 0) return cli_usage("--unit is tensor, layer or class");
    if (n_ctx < 32 || n_ctx > 4096) return cli_usage("--ctx must be 32 to 4096");
    if (min_chunks < 2 || max_chunks < min_chunks || max_chunks > 4096) return cli_usage("--min-chunks and --max-chunks must be 2 to 4096, in this order");
    if (!(until > 0)) return cli_usage("--until must be above 0");
    if (budget_mem < 1 << 20) return cli_usage("--budget-mem must be at least 1 MiB");
    const char *path = calib ? calib : cli_data_file("wikitext2-valid.txt");
    if (!path) return cli_usage("the default text is not installed; give --calib FILE");
    if (out_path && snprintf(part, sizeof part, "%s.part", out_path) >= (int)sizeof part) return cli_usage("the output's path is too long");
    ash_sweep_opts o = ash_sweep_defaults();
    o.n_ctx = (uint32_t)n_ctx;
    o.min_chunks = (uint32_t)min_chunks;
    o.max_chunks = (uint32_t)max_chunks;
    o.until = until;
    o.n_threads = g_threads;
    o.seed = (uint64_t)seed;
    o.mem_bytes = (uint64_t)budget_mem;
    o.checkpoint = out_path && first ? part : NULL;
    o.ranks = ranks;
    o.progress = cli_progress();
    ASH_TRY_GOTO(ash_model_load(&m, argv[0], &err), done);
    if (out_path && !dry_run && first) ASH_TRY_GOTO(cli_out_check(out_path, &err), done);
    ASH_TRY_GOTO(ash_sweep_units(&u, &n, m, unit[0], types, n_types, tables, n_tables, &err), done);
    ash_sweep_cost c;
    if (first) ASH_TRY_GOTO(ash_sweep_estimate(&c, m, u, n, &o, &err), done);
    if (!dry_run) ASH_TRY_GOTO(ash_eval_text_load(&t, m, path, &err), done);
    if (!dry_run && im_path && first) ASH_TRY_GOTO(ash_imatrix_load(&im, im_path, &err), done);
    if (!dry_run && t.n < (size_t)n_ctx) {
        st = ash_fail(&err, ASH_E_FORMAT, "%s has %zu tokens, fewer than one chunk of %lld", path, t.n, (long long)n_ctx);
        goto done;
    }
    char mem[32], disk[32];
    if (first && (!g_json || dry_run)) {
        fprintf(stderr, "%zu units: about %.0f s, %s of memory, %s of disk\n", n, c.seconds, cli_bytes(c.mem_bytes, mem), cli_bytes(c.disk_bytes, disk));
        if (ranks) fprintf(stderr, "that is for one process like this one; %d share the work\n", ranks->n);
    }
    if (dry_run) goto done;
    if (!im && first) {
        ash_eval_opts eo = ash_eval_defaults();
        eo.n_chunks = 32;
        eo.n_ctx = (uint32_t)(t.n / 512 ? 512 : t.n < 8 ? 8 : t.n);
        eo.n_threads = g_threads;
        eo.progress = o.progress;
        ASH_TRY_GOTO(ash_imatrix_collect(&im, m, &t, path, &eo, &err), done);
    }
    ASH_TRY_GOTO(ash_sweep_run(&r, m, &t, im, u, n, &o, &err), done);
    if (!first) goto done;
    ASH_TRY_GOTO(ash_sweep_json(&r, m, &json, &len, &err), done);
    ASH_TRY_GOTO(cli_out_write(out_path, json, len, &err), done);
    unlink(part);
    cli_progress_done();
    if (g_json) puts(json);
    else print_rows(&r);
done:
    if (st != ASH_OK) code = cli_fail(&err, st);
    ash_text_free(json);
    ash_sweep_result_free(&r);
    ash_sweep_units_free(u);
    ash_imatrix_free(im);
    ash_eval_text_free(&t);
    ash_model_free(m);
    return code;
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    const ash_ranks *ranks;
    cli_catch_sigint();
    ash_status st = cli_ranks_open(&ranks, &err);
    return cli_ranks_close(st == ASH_OK ? sweep(argv, ranks) : cli_fail(&err, st));
}

const ash_cmd cmd_sweep = {
    .name = "sweep",
    .usage = "MODEL -o OUT.json [--types A,B]",
    .summary = "Measure what each part of a model loses in a smaller type",
    .details = "Knocks one unit at a time (by default one matrix of one layer) down to each type in memory and measures the KL divergence to the "
               "unmodified model, with a 95 % interval. Chunks of text are added until the interval is good enough. Identity must give exactly 0. "
               "Interrupted runs continue from OUT.json.part.\n\n"
               "Started by mpirun, the processes share the work: `mpirun -n 2 ashlar sweep ...` writes the file one process would, but for `seconds` "
               "(where the program was built with MPI).",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
