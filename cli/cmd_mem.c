/* cmd_mem.c - `ashlar mem`: what a run of a model will take, before it takes it; and what other types of its tables would cost and save. */
#include "model_args.h"

#include "ashlar/quant.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t ctx, batch, in_use;
static bool exact, tables;

static const opt_def options[] = {
    {OPT_I64, 'c', "ctx", "N", "Tokens of context (default: the model's, at most 4096).", &ctx},
    {OPT_I64, 'b', "batch", "N", "Prompt tokens per forward pass (default: up to 512, as many as fit in little memory).", &batch},
    {OPT_I64, 0, "tokens", "N", "Tokens of the context in use (default: all of them).", &in_use},
    {OPT_FLAG, 0, "exact", NULL, "Float32 activations and KV cache instead of the everyday path.", &exact},
    CLI_CACHE_OPTIONS,
    {OPT_FLAG, 0, "tables", NULL, "Also what re-quantizing the embedding tables would save, and the error it would add (takes seconds).", &tables},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* Resident bytes of this process, 0 where unknown. */
static uint64_t resident_now(void) {
    unsigned long long size = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%llu %llu", &size, &rss) != 2) rss = 0;
    fclose(f);
    return rss * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- other types for the tables ---- */
enum { SAMPLE_ROWS = 192 };
static const ash_dtype k_types[] = {ASH_F16, ASH_Q8_0, ASH_Q6_K, ASH_Q5_0, ASH_Q5_K, ASH_Q4_K, ASH_IQ4_NL, ASH_Q3_K, ASH_IQ3_S, ASH_Q2_K};

typedef struct {
    ash_dtype type;
    uint64_t bytes;
    double error; /* squared error over squared values, of SAMPLE_ROWS rows */
} choice;

/* Error of storing t's values as `type`; < 0 where the type does not fit. */
static double sampled_error(const ash_gguf_tensor *t, ash_dtype type) {
    const uint64_t K = t->ne[0], rows = t->n_bytes / ash_dtype_row_bytes(t->type, K), step = rows > SAMPLE_ROWS ? rows / SAMPLE_ROWS : 1;
    float *x = malloc(2 * K * sizeof *x);
    void *enc = malloc(ash_dtype_row_bytes(type, K));
    double e2 = 0, x2 = 0;
    for (uint64_t r = 0; x && enc && r < rows; r += step) {
        float *y = x + K;
        if (!ash_dtype_decode(t->type, t->data + r * ash_dtype_row_bytes(t->type, K), x, K) || ash_quant_row(type, x, enc, K, NULL, NULL) != ASH_OK ||
            !ash_dtype_decode(type, enc, y, K)) {
            x2 = 0;
            break;
        }
        for (uint64_t i = 0; i < K; i++) {
            e2 += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
            x2 += (double)x[i] * x[i];
        }
    }
    free(x);
    free(enc);
    return x2 > 0 ? e2 / x2 : -1;
}

static int other_types(const ash_gguf_tensor *t, choice *out) {
    int n = 0;
    for (size_t i = 0; i < sizeof k_types / sizeof *k_types; i++) {
        const ash_dtype_info *d = ash_dtype_get((int)k_types[i]);
        if (t->ne[0] % (uint64_t)d->block_elems || ash_dtype_bpw(k_types[i]) >= ash_dtype_bpw(t->type) || !ash_quant_can(k_types[i])) continue;
        double e = sampled_error(t, k_types[i]);
        if (e >= 0) out[n++] = (choice){k_types[i], t->n_bytes / ash_dtype_row_bytes(t->type, t->ne[0]) * ash_dtype_row_bytes(k_types[i], t->ne[0]), e};
    }
    return n;
}

/* The embedding tables of a file, and whether every token reads all of one. */
static int find_tables(const ash_model *m, const ash_gguf_tensor *out[3], bool whole[3]) {
    static const char *const names[] = {"token_embd.weight", "per_layer_token_embd.weight", "output.weight"};
    int n = 0;
    for (int i = 0; i < 3; i++) {
        const ash_gguf_tensor *t = ash_gguf_find_tensor(ash_model_gguf(m), names[i]);
        if (!t) continue;
        whole[n] = i == 2 || (i == 0 && ash_model_tied(m) && ash_model_generates(m));
        out[n++] = t;
    }
    return n;
}

static json_t *tables_json(const ash_model *m) {
    const ash_gguf_tensor *t[3];
    bool whole[3];
    json_t *a = json_array();
    int n = find_tables(m, t, whole);
    for (int i = 0; i < n; i++) {
        choice c[sizeof k_types / sizeof *k_types];
        int k = other_types(t[i], c);
        json_t *o = json_pack("{s:s, s:s, s:I, s:b}", "tensor", t[i]->name, "type", ash_dtype_name(t[i]->type), "bytes", (json_int_t)t[i]->n_bytes, "read_whole", (int)whole[i]);
        json_t *list = json_array();
        for (int j = 0; j < k; j++)
            json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f}", "type", ash_dtype_name(c[j].type), "file_saved", (json_int_t)(t[i]->n_bytes - c[j].bytes),
                                                  "resident_saved", whole[i] ? (json_int_t)(t[i]->n_bytes - c[j].bytes) : (json_int_t)0, "relative_error", c[j].error));
        json_object_set_new(o, "other_types", list);
        json_array_append_new(a, o);
    }
    return a;
}

static void tables_text(const ash_model *m) {
    const ash_gguf_tensor *t[3];
    bool whole[3];
    char a[32], b[32], d[32];
    int n = find_tables(m, t, whole);
    printf("\nother types for the tables    file saved  resident saved  relative error\n");
    for (int i = 0; i < n; i++) {
        choice c[sizeof k_types / sizeof *k_types];
        int k = other_types(t[i], c);
        printf("%s, %s, %s, %s\n", t[i]->name, ash_dtype_name(t[i]->type), cli_bytes(t[i]->n_bytes, a), whole[i] ? "read whole for every token" : "rows looked up");
        for (int j = 0; j < k; j++)
            printf("  %-26s %11s %15s %14.2f %%\n", ash_dtype_name(c[j].type), cli_bytes(t[i]->n_bytes - c[j].bytes, b),
                   whole[i] ? cli_bytes(t[i]->n_bytes - c[j].bytes, d) : "nothing", 100 * sqrt(c[j].error));
        if (!k) printf("  no smaller type fits its rows\n");
    }
}

/* ---- the estimate ---- */
static int print(const char *path, const ash_model *m, const ash_mem *e, uint64_t program, uint64_t loaded, uint64_t tokens) {
    const uint64_t file = ash_gguf_file_bytes(ash_model_gguf(m)), total = program + loaded + e->resident;
    if (g_json) {
        json_t *o = json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "model", path, "n_ctx", (int)e->n_ctx, "n_batch",
                              (int)e->n_batch, "tokens", (json_int_t)tokens, "resident_bytes", (json_int_t)total, "program_bytes", (json_int_t)program, "metadata_and_tokenizer_bytes",
                              (json_int_t)loaded, "live_bytes", (json_int_t)e->live, "lookup_bytes", (json_int_t)e->lookup, "lookup_touched_bytes", (json_int_t)e->lookup_touched,
                              "kv_bytes", (json_int_t)e->kv, "kv_used_bytes", (json_int_t)e->kv_used, "snapshot_bytes", (json_int_t)e->snapshots, "scratch_bytes",
                              (json_int_t)e->scratch, "scratch_used_bytes", (json_int_t)e->scratch_used, "session_heap_bytes", (json_int_t)e->heap, "file_bytes", (json_int_t)file);
        if (o && tables) json_object_set_new(o, "tables", tables_json(m));
        return cli_print_json(o);
    }
    const struct {
        const char *what;
        uint64_t resident, taken;
        const char *kind;
    } rows[] = {{"weights read for every token", e->live, e->live, "mapped"},
                {"lookup tables", e->lookup_touched, e->lookup, "mapped, rows read at random"},
                {"KV cache", e->kv_used, e->kv, "heap"},
                {"window snapshots", 0, e->snapshots, "heap, filled as the turns of a chat end"},
                {"activations, logits, scratch", e->scratch_used, e->scratch, "heap"},
                {"metadata and tokenizer", loaded, loaded, "heap and mapped"},
                {"program and libraries", program, program, "mapped"}};
    char a[32], b[32];
    printf("%s, %s: %u tokens of context, %llu in use, batches of %u\n\n", path, ash_model_arch(m), e->n_ctx, (unsigned long long)tokens, e->n_batch);
    printf("%-30s %10s %10s\n", "", "resident", "at most");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].taken) printf("%-30s %10s %10s   %s\n", rows[i].what, cli_bytes(rows[i].resident, a), cli_bytes(rows[i].taken, b), rows[i].kind);
    printf("%-30s %10s\n", "in all", cli_bytes(total, a));
    if (tables) tables_text(m);
    return 0;
}

static int run(int argc, char **argv) {
    (void)argc;
    if (ctx < 0 || ctx > 1 << 28) return cli_usage("--ctx must be 1 to 268435456");
    if (batch < 0 || batch > 65536) return cli_usage("--batch must be 1 to 65536");
    if (in_use < 0 || (ctx && in_use > ctx)) return cli_usage("--tokens must be 1 to the tokens of context");
    ash_error err = {0};
    ash_status st;
    ash_model *m = NULL;
    ash_mem e;
    int rc = 0;
    const uint64_t program = resident_now();
    ASH_TRY_GOTO(ash_model_load(&m, argv[0], &err), done);
    if (!ash_model_vocab(m, &err)) /* its memory is measured, not estimated */
        fprintf(stderr, "ashlar mem: without a tokenizer: %s\n", err.msg);
    const uint64_t now = resident_now(), loaded = now > program ? now - program : 0;
    ash_session_opts o = ash_session_defaults();
    ASH_TRY_GOTO(cli_cache_types(&o.cache_k, &o.cache_v, &err), done);
    o.n_ctx = (uint32_t)ctx;
    o.n_batch = (uint32_t)batch;
    o.n_threads = g_threads;
    o.precision = exact ? ASH_PREC_EXACT : ASH_PREC_FAST;
    ASH_TRY_GOTO(ash_mem_estimate(m, &o, in_use ? (uint64_t)in_use : UINT64_MAX, &e, &err), done);
    rc = print(argv[0], m, &e, program, loaded, in_use && (uint64_t)in_use < e.n_ctx ? (uint64_t)in_use : e.n_ctx);
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_mem = {
    .name = "mem",
    .usage = "MODEL [--ctx N]",
    .summary = "Say what running a model will take in memory, before it does",
    .details = "Resident is what a run holds in memory once --tokens tokens are in use and each was another one (the worst case for tables of which only rows "
               "are read); `at most` adds what is reserved or mapped and not yet touched. Weights are always mapped from the file: the system may drop and reread "
               "their pages, but a run is only fast when those read for every token stay.\n\n"
               "--tables compares, for the embedding tables, the bytes that a smaller type would save in the file and in memory, with the error it adds "
               "(root mean square over the values', of 192 rows, without an importance matrix). A table that is only looked up costs no memory worth saving.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
