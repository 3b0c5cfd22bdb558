/* cmd_embed.c - `ashlar embed`: one vector per text, as numbers, JSON or raw float32. */
#include "model_args.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *tokens_arg, *out_arg, *pool_arg;
static bool fast;
static opt_list lora_args;

static const opt_def options[] = {
    {OPT_STR, 0, "tokens", "IDS", "Embed these token ids, separated by commas, instead of a text; nothing is added to them.", &tokens_arg},
    {OPT_STR, 'o', "output", "FILE", "Write the vectors there as raw float32, little-endian, one row per text.", &out_arg},
    {OPT_STR, 0, "pool", "HOW", "mean, cls (the first token) or last. Default: as the file says, else mean.", &pool_arg},
    {OPT_FLAG, 0, "fast", NULL, "Use 8-bit activations on quantized weights, as `run` does.", &fast},
    CLI_LORA_OPT(&lora_args),
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

typedef struct {
    ash_token *t;
    size_t n;
} ids;

static bool parse_pool(ash_embed_pooling *p) {
    static const struct {
        const char *name;
        ash_embed_pooling p;
    } names[] = {{"mean", ASH_EMBED_MEAN}, {"cls", ASH_EMBED_FIRST}, {"first", ASH_EMBED_FIRST}, {"last", ASH_EMBED_LAST}};
    *p = ASH_EMBED_AUTO;
    if (!pool_arg) return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(pool_arg, names[i].name) == 0) return *p = names[i].p, true;
    return false;
}

static void print_text(const float *v, int n) {
    for (int i = 0; i < n; i++) printf("%s%.9g", i ? " " : "", (double)v[i]);
    putchar('\n');
}

static void print_json(const float *v, int n, size_t n_tokens, bool first) {
    printf("%s\n  {\"n_tokens\": %zu, \"embedding\": [", first ? "" : ",", n_tokens);
    for (int i = 0; i < n; i++) {
        if (isfinite(v[i])) printf("%s%.9g", i ? ", " : "", (double)v[i]);
        else printf("%snull", i ? ", " : "");
    }
    fputs("]}", stdout);
}

/* All texts through one session; vectors go to the file or to standard output. */
static ash_status embed_all(ash_model *m, const ids *in, int n_in, ash_embed_pooling pool, ash_error *err) {
    ash_status st = ASH_OK;
    ash_session *s = NULL;
    cli_loras loras = {.n = 0};
    cli_out out = {0};
    const int e = ash_model_n_embd(m);
    size_t longest = 1;
    for (int i = 0; i < n_in; i++) longest = in[i].n > longest ? in[i].n : longest;
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = (uint32_t)longest;
    o.n_threads = g_threads;
    o.precision = fast ? ASH_PREC_FAST : ASH_PREC_EXACT;
    float *v = malloc((size_t)e * sizeof *v);
    if (!v) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    if (longest > 1u << 24) st = ash_fail(err, ASH_E_LIMIT, "%zu tokens are too many", longest);
    if (st == ASH_OK) st = cli_loras_load(&loras, &lora_args, m, &o, err);
    if (st == ASH_OK) st = ash_session_new(&s, m, &o, err);
    if (st == ASH_OK && out_arg) st = cli_out_open(&out, out_arg, err);
    if (st == ASH_OK && g_json) printf("{\"n_embd\": %d, \"embeddings\": [", e);
    for (int i = 0; st == ASH_OK && i < n_in; i++) {
        st = ash_session_embed(s, in[i].t, in[i].n, pool, v, err);
        if (st != ASH_OK) break;
        if (out_arg && fwrite(v, sizeof *v, (size_t)e, out.f) != (size_t)e) st = cli_out_failed(&out, err);
        if (g_json) print_json(v, e, in[i].n, i == 0);
        else if (!out_arg) print_text(v, e);
    }
    if (g_json && st == ASH_OK) puts("\n]}");
    if (out_arg) st = cli_out_close(&out, st, err);
    free(v);
    ash_session_free(s);
    cli_loras_free(&loras);
    return st;
}

static int run(int argc, char **argv) {
    ash_embed_pooling pool;
    if (!tokens_arg == (argc < 2)) return cli_usage("give either texts or --tokens IDS");
    if (!parse_pool(&pool)) return cli_usage("--pool is mean, cls or last");
    const int n_in = tokens_arg ? 1 : argc - 1;
    ash_error err = {0};
    ash_model *m = NULL;
    ids *in = calloc((size_t)n_in, sizeof *in);
    if (!in) return cli_fail(NULL, ASH_E_NOMEM);
    if (tokens_arg) {
        long n = cli_parse_tokens(tokens_arg, &in[0].t);
        if (n < 1) return free(in), cli_usage("--tokens takes ids separated by commas, e.g. 1,2,3");
        in[0].n = (size_t)n;
    }
    ash_status st = ash_model_load(&m, argv[0], &err);
    const ash_vocab *v = NULL;
    if (st == ASH_OK && !tokens_arg && !(v = ash_model_vocab(m, &err))) st = err.code;
    for (int i = 0; st == ASH_OK && !tokens_arg && i < n_in; i++)
        st = ash_tokenize(v, argv[i + 1], strlen(argv[i + 1]), ASH_TOKENIZE_BOS | ASH_TOKENIZE_EOS, &in[i].t, &in[i].n, &err);
    if (st == ASH_OK) st = embed_all(m, in, n_in, pool, &err);
    int rc = st == ASH_OK ? 0 : cli_fail(&err, st);
    for (int i = 0; i < n_in; i++) {
        if (tokens_arg) free(in[i].t);
        else ash_tokens_free(in[i].t);
    }
    free(in);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_embed = {.name = "embed",
                           .usage = "MODEL TEXT... | MODEL --tokens IDS",
                           .summary = "Turn texts into vectors.",
                           .details = "Prints one vector of length 1 per text: the model's final hidden states, pooled as its file says (mean over the tokens where it "
                                      "says nothing). Encoders such as BERT, MiniLM or EmbeddingGemma are made for this; any other model works, too. Texts get the "
                                      "special tokens that the vocabulary asks for. Float32 throughout unless --fast is given.",
                           .opts = options,
                           .min_args = 1,
                           .max_args = -1,
                           .json = true,
                           .threads = true,
                           .run = run};
