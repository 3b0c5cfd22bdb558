/* cmd_slice.c - `ashlar slice`: a model of some of the layers, with its controls: it loads and runs, and it is compared
 * with random drops of the same size. */
#include "cli.h"

#include "ashlar/slice.h"
#include "measure.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *keep, *out_path, *text_path, *ref_path, *ref_model;
static int64_t seed = 1, n_random = 3, n_ctx = 512, n_chunks = 8;
static bool no_hash;

static const opt_def options[] = {
    {OPT_STR, 'k', "keep", "RULE", "Layers to keep: numbers, ranges and words with commas between, see below.", &keep},
    {OPT_STR, 'o', "output", "FILE", "The slice.", &out_path},
    {OPT_STR, 0, "text", "FILE", "Measure the KL divergence to the whole model on this text, beside random drops of the same size.", &text_path},
    {OPT_STR, 0, "ref", "REF", "Measure it to this reference (a model or a reference file) instead.", &ref_path},
    {OPT_STR, 0, "ref-model", "GGUF", "Model of an .aref file, where it has moved.", &ref_model},
    {OPT_I64, 0, "random", "N", "Random drops to compare with (default 3).", &n_random},
    {OPT_I64, 0, "ctx", "N", "Tokens per chunk (default 512).", &n_ctx},
    {OPT_I64, 0, "chunks", "N", "Chunks to measure (default 8; 0: all).", &n_chunks},
    {OPT_I64, 0, "seed", "N", "Seed of random:N and of the drops.", &seed},
    {OPT_FLAG, 0, "no-hash", NULL, "Do not note the source's SHA-256 in the slice.", &no_hash},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

/* Sixteen tokens through the model; every number that comes out is finite. */
static ash_status try_run(const char *path, ash_error *err) {
    enum { N = 16 };
    ash_model *m = NULL;
    ash_session *s = NULL;
    ash_token t[N];
    float *e = NULL;
    ash_status st;
    ASH_TRY_GOTO(ash_model_load(&m, path, err), done);
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 64;
    o.n_threads = g_threads;
    ASH_TRY_GOTO(ash_session_new(&s, m, &o, err), done);
    for (int i = 0; i < N; i++) t[i] = (ash_token)((i * 37 + 5) % ash_model_n_vocab(m));
    const float *x;
    int32_t n = ash_model_generates(m) ? ash_model_n_vocab(m) : ash_model_n_embd(m);
    if (ash_model_generates(m)) {
        ASH_TRY_GOTO(ash_session_sync(s, t, N, NULL, err), done);
        x = ash_session_logits(s);
    } else {
        e = malloc((size_t)n * sizeof *e);
        if (!e) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for a vector");
            goto done;
        }
        ASH_TRY_GOTO(ash_session_embed(s, t, N, ASH_EMBED_AUTO, e, err), done);
        x = e;
    }
    for (int32_t i = 0; i < n; i++)
        if (!isfinite(x[i])) {
            st = ash_fail(err, ASH_E_FORMAT, "%s loads, but its output is not finite", path);
            break;
        }
done:
    free(e);
    ash_session_free(s);
    ash_model_free(m);
    return st;
}

static ash_status measure_file(const char *path, const ash_eval_text *t, const ash_eval_ref *ref, const ash_eval_opts *o, ash_est *kld, ash_error *err) {
    ash_model *m = NULL;
    ash_eval_result r = {0};
    ash_status st;
    ASH_TRY_GOTO(ash_model_load(&m, path, err), done);
    ASH_TRY_GOTO(ash_eval_measure(&r, m, t->tokens ? t : NULL, ref, o, err), done);
    *kld = r.kld;
done:
    ash_eval_result_free(&r);
    ash_model_free(m);
    return st;
}

typedef struct {
    uint32_t n_drops, beaten, n_chunks, n_ctx;
    ash_est slice, drop[64];
    char kept[64][160]; /* layers of each drop, for the report */
} comparison;

static void list_layers(char *buf, size_t cap, const uint32_t *l, uint32_t n) {
    size_t at = 0;
    buf[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = i;
        while (j + 1 < n && l[j + 1] == l[j] + 1) j++;
        int w = j > i ? snprintf(buf + at, cap - at, "%s%u-%u", at ? "," : "", l[i], l[j]) : snprintf(buf + at, cap - at, "%s%u", at ? "," : "", l[i]);
        if (w < 0 || at + (size_t)w >= cap) return;
        at += (size_t)w;
        i = j;
    }
}

/* The slice and n random ones of its size, each written beside it and removed again. */
static ash_status compare(comparison *c, ash_model *m, const char *model_path, uint32_t n, ash_error *err) {
    ash_eval_opts o = ash_eval_defaults();
    ash_eval_text t = {0};
    ash_eval_ref *ref = NULL;
    uint32_t *l = malloc(n * sizeof *l);
    size_t cap = strlen(out_path) + 32;
    char *tmp = malloc(cap);
    ash_status st = l && tmp ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a comparison");
    if (st != ASH_OK) goto done;
    snprintf(tmp, cap, "%s.random-drop", out_path);
    o.n_ctx = (uint32_t)n_ctx;
    o.n_chunks = (uint32_t)n_chunks;
    o.n_threads = g_threads;
    o.progress = cli_progress();
    ASH_TRY_GOTO(cli_ref_load(&ref, &t, m, text_path, NULL, ref_path ? ref_path : model_path, ref_model, &o, err), done);
    c->n_ctx = ash_eval_ref_n_ctx(ref);
    c->n_chunks = ash_eval_ref_n_chunks(ref);
    ASH_TRY_GOTO(measure_file(out_path, &t, ref, &o, &c->slice, err), done);
    for (; c->n_drops < n_random; c->n_drops++) {
        ASH_TRY_GOTO(ash_slice_random(m, n, (uint64_t)seed + 1000 + c->n_drops, l, err), done);
        list_layers(c->kept[c->n_drops], sizeof c->kept[0], l, n);
        ASH_TRY_GOTO(ash_slice_write(NULL, m, l, n, tmp, false, &o.progress, err), done);
        st = measure_file(tmp, &t, ref, &o, &c->drop[c->n_drops], err);
        remove(tmp);
        if (st != ASH_OK) goto done;
        c->beaten += c->slice.v < c->drop[c->n_drops].v;
    }
done:
    ash_eval_ref_free(ref);
    ash_eval_text_free(&t);
    free(l);
    free(tmp);
    return st;
}

static json_t *est(ash_est e) { return json_pack("{s:f, s:f, s:f}", "value", e.v, "lo", e.lo, "hi", e.hi); }

static int print_json(const ash_slice_info *i, const uint32_t *l, uint32_t n, bool ran, const comparison *c) {
    json_t *layers = json_array(), *drops = json_array();
    for (uint32_t k = 0; k < n; k++) json_array_append_new(layers, json_integer(l[k]));
    json_t *o = json_pack("{s:s, s:I, s:o, s:i, s:i, s:i, s:i, s:i, s:b, s:s, s:b}", "file", out_path, "bytes", (json_int_t)i->file_bytes, "layers", layers, "of",
                          (int)i->n_from, "windowed", (int)i->n_swa, "full", (int)i->n_full, "shared", (int)i->n_shared, "retargeted", (int)i->n_retargeted, "tables_f16",
                          (int)i->tables_f16, "note", i->note, "runs", (int)ran);
    if (c) {
        for (uint32_t k = 0; k < c->n_drops; k++) json_array_append_new(drops, json_pack("{s:s, s:o}", "kept", c->kept[k], "kld", est(c->drop[k])));
        json_object_set_new(o, "kld", est(c->slice));
        json_object_set_new(o, "random_drops", drops);
        json_object_set_new(o, "n_chunks", json_integer(c->n_chunks));
        json_object_set_new(o, "n_ctx", json_integer(c->n_ctx));
    } else {
        json_decref(drops);
    }
    return cli_print_json(o);
}

static void print_text(const ash_slice_info *i, const uint32_t *l, uint32_t n, const comparison *c) {
    char b[64], kept[160];
    list_layers(kept, sizeof kept, l, n);
    printf("%s: %u of %u layers (%s), %s\n", out_path, i->n_to, i->n_from, kept, cli_bytes(i->file_bytes, b));
    if (i->n_swa) printf("  %u with a window, %u without\n", i->n_swa, i->n_full);
    if (i->n_shared) printf("  %u read another layer's keys and values, %u of them another's than before\n", i->n_shared, i->n_retargeted);
    if (i->tables_f16) printf("  the per-layer embedding is F16 now: its blocks spanned layers\n");
    if (i->note[0]) printf("  note: %s\n", i->note);
    printf("  loads and runs: 16 tokens, all numbers finite\n");
    if (!c) return;
    printf("  KL divergence to %s, %u chunks of %u tokens, 95 %% intervals:\n", ref_path ? ref_path : "the whole model", c->n_chunks, c->n_ctx);
    printf("    %-14s %s\n", "this slice", cli_est(c->slice, b));
    for (uint32_t k = 0; k < c->n_drops; k++) {
        char name[32];
        snprintf(name, sizeof name, "random drop %u", k + 1);
        printf("    %-14s %s  keeps %s\n", name, cli_est(c->drop[k], b), c->kept[k]);
    }
    if (c->n_drops) printf("  better than %u of %u random drops of the same size\n", c->beaten, c->n_drops);
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    ash_status st;
    ash_model *m = NULL;
    uint32_t *l = NULL, n = 0;
    ash_slice_info info = {0};
    comparison *c = NULL;
    int rc = 0;
    if (!keep) return cli_usage("--keep says which layers");
    if (!out_path) return cli_usage("-o says where the slice goes");
    if (strcmp(argv[0], out_path) == 0) return cli_usage("the output would replace its own source");
    if (n_random < 0 || n_random > 64) return cli_usage("--random must be 0 to 64");
    if (n_ctx < 8 || n_ctx > 1 << 20) return cli_usage("--ctx must be 8 to 1048576");
    if (n_chunks < 0 || n_chunks > 1 << 22) return cli_usage("--chunks must be 0 (all) to 4194304");
    if (ref_model && !ref_path) return cli_usage("--ref-model goes with --ref");
    cli_catch_sigint();
    ash_progress p = cli_progress();
    ASH_TRY_GOTO(ash_model_load(&m, argv[0], &err), done);
    ASH_TRY_GOTO(ash_layers_parse(&l, &n, m, (uint32_t)ash_model_n_layer(m), keep, (uint64_t)seed, &err), done);
    ASH_TRY_GOTO(ash_slice_write(&info, m, l, n, out_path, !no_hash, &p, &err), done);
    ASH_TRY_GOTO(try_run(out_path, &err), done);
    if ((text_path || ref_path) && !ash_model_generates(m)) {
        st = ash_fail(&err, ASH_E_UNSUPPORTED, "the slice is written, but an encoder has no KL divergence to compare");
        goto done;
    }
    if (text_path || ref_path) {
        c = calloc(1, sizeof *c);
        if (!c) {
            st = ash_fail(&err, ASH_E_NOMEM, "out of memory for a comparison");
            goto done;
        }
        ASH_TRY_GOTO(compare(c, m, argv[0], n, &err), done);
    }
    cli_progress_done();
    if (g_json) rc = print_json(&info, l, n, true, c);
    else print_text(&info, l, n, c);
done:
    if (st != ASH_OK) rc = cli_fail(&err, st);
    free(c);
    ash_layers_free(l);
    ash_model_free(m);
    return rc;
}

const ash_cmd cmd_slice = {
    .name = "slice",
    .usage = "MODEL --keep RULE -o OUT [--text FILE]",
    .summary = "A model of some of the layers, and how it compares with random drops",
    .details = "RULE is a list of terms with commas between, read from left to right: 3, 10-20, 10- (to the end), all, swa (layers with a sliding window), full, even, "
               "odd, own (with keys and values of their own), shared, first:N, last:N, every:N, random:N. \"!\" before a term takes its layers out again; a rule that "
               "begins with one starts from all layers: --keep '!30-40'.\n\n"
               "Rewritten: layer numbers, every per-layer array of the metadata, the window pattern, the count of layers that share keys, columns and projection rows of "
               "per-layer embeddings. A layer that reads the keys of a dropped one takes the nearest one of its kind before it, which is said; where there is none, the "
               "slice is refused. The slice is loaded, compared layer by layer with what was meant, and run.\n\n"
               "With --text or --ref its KL divergence is printed beside that of random drops of the same size: only a slice that beats them says something about its "
               "layers. They are written beside the output, one at a time, and removed.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
