/* cmd_widen.c - `ashlar widen`: zero channels so that rows become multiples of a block, without changing the function. */
#include "cli.h"

#include "ashlar/bake.h"

#include <jansson.h>
#include <string.h>

static int64_t to = 256;

static const opt_def options[] = {{OPT_I64, 0, "to", "N", "Rows become multiples of N (default 256, the super-block of k- and i-quants).", &to},
                                  {OPT_END, 0, NULL, NULL, NULL, NULL}};

static int run(int argc, char **argv) {
    ash_error err = {0};
    ash_gguf *g = NULL;
    ash_widen *w = NULL;
    ash_bake_result r = {0};
    char a[32], b[32];
    (void)argc;
    if (to < 2 || to > 65536) return cli_usage("--to takes a block size such as 256");
    if (strcmp(argv[0], argv[1]) == 0) return cli_usage("the output would replace its own source");
    cli_catch_sigint();
    ash_status st = ash_gguf_open(&g, argv[0], &err);
    if (st == ASH_OK) st = ash_widen_new(&w, g, (uint32_t)to, &err);
    if (st == ASH_OK) {
        ash_bake_opts o = ash_bake_defaults();
        o.type = ASH_BAKE_FLOAT;
        o.widen = (uint32_t)to;
        o.n_threads = g_threads;
        o.progress = cli_progress();
        st = ash_bake(&r, g, argv[1], &o, &err);
        cli_progress_done();
    }
    int rc = 0;
    if (st != ASH_OK) {
        rc = cli_fail(&err, st);
    } else if (g_json) {
        json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:b, s:i, s:i}", "source", argv[0], "file", argv[1], "source_bytes", (json_int_t)ash_gguf_file_bytes(g), "bytes",
                              (json_int_t)r.file_bytes, "changed", (int)ash_widen_needed(w), "embedding_length", (int)ash_widen_n_embd(w), "head_count", (int)ash_widen_n_head(w));
        rc = cli_print_json(o);
    } else if (ash_widen_needed(w)) {
        printf("%s: %u columns, %u heads, %s (source %s)\n", argv[1], ash_widen_n_embd(w), ash_widen_n_head(w), cli_bytes(r.file_bytes, a), cli_bytes(ash_gguf_file_bytes(g), b));
    } else {
        printf("%s: rows already are multiples of %d; written without change of shape, %s\n", argv[1], (int)to, cli_bytes(r.file_bytes, a));
    }
    ash_bake_result_free(&r);
    ash_widen_free(w);
    ash_gguf_close(g);
    return rc;
}

const ash_cmd cmd_widen = {
    .name = "widen",
    .usage = "IN.gguf OUT.gguf [--to 256]",
    .summary = "Add zero channels so that k- and i-quants fit, without changing what the model computes.",
    .details = "k- and i-quants hold 256 weights per super-block; rows of 576 or 640 cannot use them. Zero channels make the rows long enough: norm weights "
               "take sqrt(n/n'), eps takes n/n', every KV group gets extra heads of zeros, and gemma's table takes sqrt(n/n'). Knows llama, qwen2, qwen3 "
               "and gemma3. Float matrices keep their type, quantized ones become F16.\n\n"
               "`ashlar quantize --widen` and recipes with `widen` do the same on the way, without the large file in between.",
    .opts = options,
    .min_args = 2,
    .max_args = 2,
    .json = true,
    .threads = true,
    .run = run};
