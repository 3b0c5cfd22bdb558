/* cmd_logits.c - `ashlar logits`: the logits of every position for given token ids, as raw float32. */
#include "model_args.h"

#include <stdlib.h>
#include <string.h>

static const char *tokens_arg, *out_arg;
static bool fast;
static int64_t batch;
static opt_list lora_args;

static const opt_def options[] = {
    {OPT_STR, 0, "tokens", "IDS", "Token ids, separated by commas; nothing is added to them.", &tokens_arg},
    {OPT_STR, 'o', "output", "FILE", "Where the float32 values go: positions x vocabulary, little-endian.", &out_arg},
    {OPT_FLAG, 0, "fast", NULL, "Use 8-bit activations and a float16 KV cache, as `run` does.", &fast},
    {OPT_I64, 'b', "batch", "N", "Tokens per pass; the result does not depend on it.", &batch},
    CLI_LORA_OPT(&lora_args),
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

typedef struct {
    cli_out out;
    size_t n_vocab;
} sink_ctx;

static ash_status write_row(void *ctx, size_t pos, const float *logits, ash_error *err) {
    (void)pos;
    sink_ctx *s = ctx;
    if (fwrite(logits, sizeof *logits, s->n_vocab, s->out.f) == s->n_vocab) return ASH_OK;
    return cli_out_failed(&s->out, err);
}

static int run(int argc, char **argv) {
    (void)argc;
    if (!tokens_arg) return cli_usage("--tokens is needed, e.g. --tokens 1,2,3");
    if (!out_arg) return cli_usage("-o FILE is needed");
    if (batch < 0 || batch > 65536) return cli_usage("--batch must be 1 to 65536");
    ash_token *t = NULL;
    long n = cli_parse_tokens(tokens_arg, &t);
    if (n < 1) return cli_usage("--tokens takes ids separated by commas, e.g. 1,2,3");

    ash_error err = {0};
    ash_model *m = NULL;
    ash_session *s = NULL;
    cli_loras loras = {.n = 0};
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = (uint32_t)n;
    o.n_batch = (uint32_t)batch;
    o.n_threads = g_threads;
    o.precision = fast ? ASH_PREC_FAST : ASH_PREC_EXACT;
    ash_status st = n > 1 << 24 ? ash_fail(&err, ASH_E_LIMIT, "%ld tokens are too many", n) : ash_model_load(&m, argv[0], &err);
    if (st == ASH_OK) st = cli_loras_load(&loras, &lora_args, m, &o, &err);
    if (st == ASH_OK) st = ash_session_new(&s, m, &o, &err);
    sink_ctx c = {.n_vocab = m ? (size_t)ash_model_n_vocab(m) : 0};
    if (st == ASH_OK) st = cli_out_open(&c.out, out_arg, &err);
    if (st == ASH_OK) st = ash_session_eval_all(s, t, (size_t)n, 0, write_row, &c, &err);
    st = cli_out_close(&c.out, st, &err);
    if (st == ASH_OK && g_json)
        printf("{\"tokens\": %ld, \"n_vocab\": %d, \"precision\": \"%s\"}\n", n, ash_model_n_vocab(m), fast ? "fast" : "exact");
    int rc = st == ASH_OK ? 0 : cli_fail(&err, st);
    free(t);
    ash_session_free(s);
    cli_loras_free(&loras);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_logits = {.name = "logits",
                            .usage = "MODEL --tokens IDS -o FILE",
                            .summary = "Write the logits of every position for given token ids.",
                            .details = "The file holds n x n_vocab float32 values, little-endian, one row per token, the final soft-cap applied. "
                                       "Ids are taken as given: no BOS is added. Activations and KV cache are float32 unless --fast is given.",
                            .opts = options,
                            .min_args = 1,
                            .max_args = 1,
                            .json = true,
                            .threads = true,
                            .run = run};
