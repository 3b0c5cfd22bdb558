/* cmd_bench.c - `ashlar bench`: speed of a model on this machine: prefill, decode, load, first token, memory. */
#include "constrain.h"
#include "model_args.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/resource.h>
#endif
#include <time.h>

static int64_t n_prompt = 512, n_gen = 128, reps = 5, batch, depth, ctx;
static bool exact;
static const char *grammar_arg, *schema_arg;
static cli_weights weights;

static const opt_def options[] = {
    {OPT_I64, 'p', "prompt", "N", "Tokens of the prompt; 0 leaves prefill out.", &n_prompt},
    {OPT_I64, 'n', "gen", "N", "Tokens generated one by one; 0 leaves decode out.", &n_gen},
    {OPT_I64, 'd', "depth", "N", "Tokens in the context when decoding begins.", &depth},
    {OPT_I64, 'r', "reps", "N", "Repetitions; the median is reported.", &reps},
    {OPT_I64, 'b', "batch", "N", "Tokens per pass of the prefill (default: up to 512, as many as fit in little memory).", &batch},
    {OPT_I64, 'c', "ctx", "N", "Tokens of context the session is made for (default: as many as are used).", &ctx},
    CLI_WEIGHTS_OPTS(&weights),
    {OPT_FLAG, 0, "exact", NULL, "Float32 activations and KV cache instead of the everyday path.", &exact},
    {OPT_STR, 0, "grammar", "FILE", "Instead: what sampling by this GBNF grammar costs, over -n tokens that the model writes by it.", &grammar_arg},
    {OPT_STR, 0, "json-schema", "FILE|JSON", "The same for a JSON schema.", &schema_arg},
    CLI_CACHE_OPTIONS,
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int64_t n) {
    if (n < 1) return 0;
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

typedef struct {
    double load_ms, first_ms, *prefill, *decode;
} figures;

static ash_status load(const char *path, int64_t n_ctx, ash_model **mo, ash_session **so, ash_error *err) {
    ASH_TRY(ash_model_load(mo, path, err));
    ASH_TRY(cli_weights_place(&weights, *mo, err));
    ash_session_opts o = ash_session_defaults();
    ASH_TRY(cli_cache_types(&o.cache_k, &o.cache_v, err));
    o.n_ctx = (uint32_t)n_ctx;
    o.n_batch = (uint32_t)batch;
    o.n_threads = g_threads;
    o.precision = exact ? ASH_PREC_EXACT : ASH_PREC_FAST;
    return ash_session_new(so, *mo, &o, err);
}

/* Every repetition starts from an empty timeline; ids are arbitrary but fixed. */
static ash_status measure(const char *path, ash_model **mo, ash_session **so, figures *f, ash_error *err) {
    double t0 = now();
    const int64_t n_ids = n_prompt > depth ? n_prompt : depth;
    ASH_TRY(load(path, ctx ? ctx : n_ids + n_gen + 1, mo, so, err));
    f->load_ms = 1e3 * (now() - t0);
    ash_session *s = *so;
    const uint32_t V = (uint32_t)ash_model_n_vocab(*mo);
    ash_token *t = malloc((size_t)(n_ids + 1) * sizeof *t);
    if (!t) return ash_fail(err, ASH_E_NOMEM, "out of memory for %lld tokens", (long long)n_ids);
    uint32_t x = 12345;
    for (int64_t i = 0; i <= n_ids; i++) t[i] = (ash_token)((x = x * 1664525u + 1013904223u) % V);

    ash_status st = ash_session_sync(s, t, 1, NULL, err); /* the first token after start; also warms the file's pages */
    f->first_ms = 1e3 * (now() - t0);
    if (st == ASH_OK && n_prompt > 0) st = ash_session_rewind(s, 0, err);
    if (st == ASH_OK && n_prompt > 0) st = ash_session_sync(s, t, (size_t)n_prompt, NULL, err); /* warm-up, not counted */
    for (int64_t r = 0; r < reps && st == ASH_OK; r++) {
        if (n_prompt > 0) {
            st = ash_session_rewind(s, 0, err);
            double b = now();
            if (st == ASH_OK) st = ash_session_sync(s, t, (size_t)n_prompt, NULL, err);
            f->prefill[r] = (double)n_prompt / (now() - b);
        }
        if (n_gen > 0 && st == ASH_OK) { /* from an empty context, or from `depth` tokens, as llama-bench does */
            st = depth ? ash_session_sync(s, t, (size_t)depth, NULL, err) : ash_session_rewind(s, 0, err);
            double b = now();
            for (int64_t i = 0; i < n_gen && st == ASH_OK; i++) {
                x = x * 1664525u + 1013904223u;
                st = ash_session_append(s, (ash_token)(x % V), err);
            }
            f->decode[r] = (double)n_gen / (now() - b);
        }
    }
    free(t);
    return st;
}

static int report(const char *path, const ash_model *m, const ash_session *s, figures *f) {
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    uint64_t rss = (uint64_t)ru.ru_maxrss * 1024; /* kilobytes on Linux */
    int threads = g_threads ? g_threads : ash_cpu_count();
    double pre = median(f->prefill, n_prompt ? reps : 0), dec = median(f->decode, n_gen ? reps : 0);
    if (g_json) {
        json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "model", path, "arch",
                              ash_model_arch(m), "cpu", ash_cpu_model(), "level", ash_cpu_level_name(ash_cpu_detect()), "threads", threads,
                              "precision", exact ? "exact" : "fast", "n_prompt", (json_int_t)n_prompt, "n_gen", (json_int_t)n_gen, "reps",
                              (json_int_t)reps, "prefill_tps", pre, "decode_tps", dec, "load_ms", f->load_ms, "first_token_ms", f->first_ms,
                              "peak_rss_bytes", (json_int_t)rss, "session_bytes", (json_int_t)ash_session_bytes(s), "file_bytes",
                              (json_int_t)ash_gguf_file_bytes(ash_model_gguf(m)));
        return cli_print_json(j);
    }
    char a[32], b[32];
    printf("%s: %s, %d threads, %s, %s\n", path, ash_model_arch(m), threads, ash_cpu_level_name(ash_cpu_detect()), exact ? "exact" : "fast");
    if (n_prompt) printf("  prefill %5lld tokens  %10.1f tokens/s\n", (long long)n_prompt, pre);
    if (n_gen) printf("  decode  %5lld tokens  %10.1f tokens/s\n", (long long)n_gen, dec);
    printf("  load %.1f ms, first token after %.1f ms, session %s, peak memory %s\n", f->load_ms, f->first_ms, cli_bytes(ash_session_bytes(s), a),
           cli_bytes(rss, b));
    return 0;
}

static int run(int argc, char **argv) {
    (void)argc;
    if (n_prompt < 0 || n_prompt > 1 << 24 || n_gen < 0 || n_gen > 1 << 24 || n_prompt + n_gen == 0)
        return cli_usage("-p and -n must be 0 to 16777216, and not both 0");
    if (depth < 0 || depth > 1 << 24) return cli_usage("--depth must be 0 to 16777216");
    if (reps < 1 || reps > 1000) return cli_usage("-r must be 1 to 1000");
    if (ctx && (ctx <= n_prompt || ctx <= depth + n_gen || ctx > 1 << 28))
        return cli_usage("--ctx must be more than -p and --depth with -n take, and at most 268435456");
    if (batch < 0 || batch > 65536) return cli_usage("--batch must be 1 to 65536");
    ash_error err = {0};
    ash_model *m = NULL;
    ash_session *s = NULL;
    if (grammar_arg || schema_arg) {
        ash_grammar *g = NULL;
        int rc = 0;
        if (n_gen < 1) return cli_usage("-n must be at least 1 with a grammar");
        ash_status st = cli_constraint(grammar_arg, schema_arg, false, &g, &err);
        if (st == ASH_OK) st = load(argv[0], ctx ? ctx : n_gen + 2, &m, &s, &err);
        if (st == ASH_OK) st = cli_bench_grammar(argv[0], m, s, g, n_gen, &rc, &err);
        if (st != ASH_OK) rc = cli_fail(&err, st);
        ash_grammar_free(g);
        ash_session_free(s);
        ash_model_free(m);
        return rc;
    }
    figures f = {.prefill = calloc((size_t)reps, sizeof(double)), .decode = calloc((size_t)reps, sizeof(double))};
    ash_status st = f.prefill && f.decode ? measure(argv[0], &m, &s, &f, &err) : ash_fail(&err, ASH_E_NOMEM, "out of memory");
    int rc = st == ASH_OK ? report(argv[0], m, s, &f) : cli_fail(&err, st);
    free(f.prefill);
    free(f.decode);
    ash_session_free(s);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_bench = {.name = "bench",
                           .usage = "MODEL [-p 512] [-n 128] [-r 5]",
                           .summary = "Measure prefill and decode speed, load time and memory of a model.",
                           .details = "Prefill is one prompt of -p tokens from an empty context, decode is -n tokens one by one, from an empty context or after --depth tokens. "
                                      "The median of -r repetitions is reported; load counts mapping and binding the file and making a session.\n\n"
                                      "With --grammar or --json-schema the model writes -n tokens by it, and every token is drawn twice from the same logits, "
                                      "with and without: what the grammar costs of a token's time, for three ways of sampling.",
                           .opts = options,
                           .min_args = 1,
                           .max_args = 1,
                           .json = true,
                           .threads = true,
                           .run = run};
