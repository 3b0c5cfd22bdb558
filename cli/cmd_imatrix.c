/* cmd_imatrix.c - `ashlar imatrix`: collect an importance matrix, or show one. */
#include "cli.h"

#include "ashlar/eval.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *text_path, *out_path;
static int64_t n_ctx = 512, n_chunks;
static bool grad;

static const opt_def options[] = {
    {OPT_STR, 0, "text", "FILE", "Calibration text (default: the wikitext-2 validation text that ships with the program).", &text_path},
    {OPT_STR, 'o', "output", "FILE", "Where to write the importance matrix (GGUF).", &out_path},
    {OPT_I64, 0, "ctx", "N", "Tokens per chunk.", &n_ctx},
    {OPT_I64, 0, "chunks", "N", "Chunks to read (default: all).", &n_chunks},
    {OPT_FLAG, 0, "grad", NULL, "Also the sensitivity of every output, by one backward pass (seconds): plans without a sweep know more.", &grad},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    ash_status st = ASH_OK;
    int code = 0;
    ash_model *m = NULL;
    ash_eval_text t = {0};
    ash_imatrix *im = NULL;
    const char **dead = NULL;
    ash_eval_opts o = ash_eval_defaults();
    if (!out_path) return cli_usage("-o FILE is needed");
    if (n_ctx < 8 || n_ctx > 1 << 20) return cli_usage("--ctx must be 8 to 1048576");
    if (n_chunks < 0 || n_chunks > 1 << 22) return cli_usage("--chunks must be 0 (all) to 4194304");
    const char *path = text_path ? text_path : cli_data_file("wikitext2-valid.txt");
    if (!path) return cli_usage("the default text is not installed; give --text FILE");
    cli_catch_sigint();
    o.n_ctx = (uint32_t)n_ctx;
    o.n_chunks = (uint32_t)n_chunks;
    o.n_threads = g_threads;
    o.progress = cli_progress();
    ASH_TRY_GOTO(ash_model_load(&m, argv[0], &err), done);
    ASH_TRY_GOTO(cli_out_check(out_path, &err), done);
    ASH_TRY_GOTO(ash_eval_text_load(&t, m, path, &err), done);
    ASH_TRY_GOTO(ash_imatrix_collect(&im, m, &t, path, &o, &err), done);
    if (grad) ASH_TRY_GOTO(ash_imatrix_gradients(im, m, &t, 0, &o, &err), done);
    ASH_TRY_GOTO(ash_imatrix_save(im, out_path, &err), done);
    cli_progress_done();
    size_t n_dead = ash_imatrix_dead(im, m, NULL, 0);
    dead = calloc(n_dead + 1, sizeof *dead);
    if (dead) n_dead = ash_imatrix_dead(im, m, dead, n_dead);
    else n_dead = 0;
    if (g_json) {
        json_t *j = json_object(), *live = json_array(), *gone = json_array();
        for (size_t i = 0; i < ash_imatrix_n(im); i++) {
            ash_imatrix_entry e = ash_imatrix_at(im, i);
            json_array_append_new(live, json_pack("{s:s, s:I, s:f}", "tensor", e.name, "columns", (json_int_t)e.n, "count", (double)e.counts[0]));
        }
        for (size_t i = 0; i < n_dead; i++) json_array_append_new(gone, json_string(dead[i]));
        json_object_set_new(j, "output", json_string(out_path));
        json_object_set_new(j, "text_sha256", json_string(t.sha256));
        json_object_set_new(j, "n_chunks", json_integer(ash_imatrix_chunks(im)));
        json_object_set_new(j, "n_ctx", json_integer(ash_imatrix_chunk_size(im)));
        json_object_set_new(j, "live", live);
        json_object_set_new(j, "dead", gone);
        code = cli_print_json(j);
    } else {
        printf("%s: %zu tensors live over %u chunks of %u tokens", out_path, ash_imatrix_n(im), ash_imatrix_chunks(im), ash_imatrix_chunk_size(im));
        printf(n_dead ? ", %zu dead (never run):\n" : ", none dead\n", n_dead);
        for (size_t i = 0; i < n_dead; i++) printf("  %s\n", dead[i]);
    }
done:
    if (st != ASH_OK) code = cli_fail(&err, st);
    free(dead);
    ash_imatrix_free(im);
    ash_eval_text_free(&t);
    ash_model_free(m);
    return code;
}

const ash_cmd cmd_imatrix = {
    .name = "imatrix",
    .usage = "MODEL -o FILE [--text FILE]",
    .summary = "Collect how strongly each weight column is used",
    .details = "Runs the model over a text with float32 activations and writes the sums of squared inputs of every matrix, with counts, as the standard "
               "GGUF importance matrix that llama-quantize accepts too. Matrices that never ran are listed as dead.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
