/* arch_table.c - every architecture in one table: does its golden model load, how far are its logits (or hidden states) from
 * the reference, is the greedy continuation the same, does any chunking of the prompt give the same bits, do its template and
 * its Hugging Face folder work. Exit code 1 when a row is outside the tolerances of the data.
 *
 *   arch_table [--json]      ASH_TEST_DATA as for the tests; ASH_GOLDEN: a fuller set, whose hf/ folders are converted, too */
#include "unit/golden.h"
#include "ashlar/convert.h"

typedef struct {
    const char *name;      /* folder */
    bool encoder;
    const char *tmpl;      /* a published template of the family in tests/data/templates, or NULL */
    /* results */
    char arch[32], error[256];
    bool missing, loads, ok;
    double rel, rms, fast_rel, fast_rms, cosine;
    size_t greedy, greedy_of;
    int chunking;          /* 1 same bits, 0 not, -1 does not apply */
    int templ, convert;    /* as chunking */
} row;

#define QWEN3 "Qwen-Qwen3-0.6B"
#define GEMMA4 "google-gemma-4-31B-it"
static const struct {
    const char *name, *tmpl;
} k_tmpl[] = {{"llama", "meta-llama-Llama-3.1-8B-Instruct"}, {"llama-tied", "meta-llama-Llama-3.2-3B-Instruct"},
              {"mistral-swa", "mistralai-Mistral-Nemo-Instruct-2407"}, {"qwen2", "Qwen-Qwen2.5-7B-Instruct"}, {"qwen3", QWEN3}, {"qwen3-moe", QWEN3},
              {"phi3", "microsoft-Phi-3.5-mini-instruct"}, {"phi3-longrope", "microsoft-Phi-3.5-mini-instruct"}, {"gemma2", "google-gemma-2-2b-it"},
              {"gemma4-e", GEMMA4}, {"gemma4-dense", GEMMA4}, {"gemma4-moe", GEMMA4}};

static ash_session *session(row *r, ash_model *m, ash_precision p, uint32_t batch, int threads) {
    ash_session_opts o = {.n_ctx = 128, .n_batch = batch, .n_threads = threads, .precision = p, .cpu_level = -1};
    ash_session *s = NULL;
    ash_error err = {0};
    if (ash_session_new(&s, m, &o, &err) != ASH_OK) snprintf(r->error, sizeof r->error, "%.200s", err.msg);
    return s;
}

/* Rows of a sequence: logits, or hidden states. */
static bool rows_of(row *r, ash_model *m, ash_precision p, uint32_t batch, int threads, const g_seq *t, size_t cols, float *out) {
    ash_session *s = session(r, m, p, batch, threads);
    ash_error err = {0};
    g_rows g = {out, cols};
    bool ok = s && (r->encoder ? ash_session_eval_hidden(s, t->t, t->n, 0, g_keep, &g, &err) : ash_session_eval_all(s, t->t, t->n, 0, g_keep, &g, &err)) == ASH_OK;
    if (s && !ok) snprintf(r->error, sizeof r->error, "%.200s", err.msg);
    ash_session_free(s);
    return ok;
}

static void check_sequence(row *r, ash_model *m, json_t *q) {
    g_seq t = g_ints(json_object_get(q, "tokens")), greedy = g_ints(json_object_get(q, "greedy"));
    const size_t cols = (size_t)(r->encoder ? ash_model_n_embd(m) : ash_model_n_vocab(m)), n = t.n * cols;
    float *want = g_floats(r->name, json_string_value(json_object_get(q, r->encoder ? "hidden_file" : "logits_file")), n);
    float *got = calloc(n, sizeof *got), *other = calloc(n, sizeof *other);
    if (rows_of(r, m, ASH_PREC_EXACT, 0, 1, &t, cols, got)) {
        g_diff d = g_compare(got, want, t.n, cols);
        r->rel = fmax(r->rel, d.rel), r->rms = fmax(r->rms, d.rms);
        static const uint32_t batches[] = {1, 7, 16};
        for (size_t b = 0; !r->encoder && b < ASH_ARRAY_LEN(batches); b++)
            if (!rows_of(r, m, ASH_PREC_EXACT, batches[b], 2, &t, cols, other) || memcmp(got, other, n * sizeof *got) != 0) r->chunking = 0;
    }
    if (rows_of(r, m, ASH_PREC_FAST, 0, 2, &t, cols, other)) {
        g_diff d = g_compare(other, want, t.n, cols);
        r->fast_rel = fmax(r->fast_rel, d.rel), r->fast_rms = fmax(r->fast_rms, d.rms);
    }
    ash_error err = {0};
    ash_session *s = session(r, m, ASH_PREC_EXACT, 0, 1);
    if (s && !r->encoder && ash_session_sync(s, t.t, t.n, NULL, &err) == ASH_OK) {
        r->greedy_of += greedy.n;
        for (size_t i = 0; i < greedy.n && g_argmax(ash_session_logits(s), cols) == greedy.t[i]; i++) {
            r->greedy++;
            if (ash_session_append(s, greedy.t[i], &err) != ASH_OK) break;
        }
    }
    if (s && r->encoder) {
        float *vec = g_floats(r->name, json_string_value(json_object_get(q, "embedding_file")), cols), *v = calloc(cols, sizeof *v);
        double dot = 0;
        if (ash_session_embed(s, t.t, t.n, ASH_EMBED_AUTO, v, &err) == ASH_OK)
            for (size_t i = 0; i < cols; i++) dot += (double)v[i] * (double)vec[i];
        r->cosine = fmin(r->cosine, dot);
        free(vec), free(v);
    }
    ash_session_free(s);
    free(want), free(got), free(other), free(t.t), free(greedy.t);
}

/* The family's template takes a plain conversation. */
static void check_template(row *r) {
    r->templ = -1;
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_tmpl); i++)
        if (strcmp(k_tmpl[i].name, r->name) == 0) r->tmpl = k_tmpl[i].tmpl;
    char p[600];
    const char *data = getenv("ASH_TEST_DATA");
    snprintf(p, sizeof p, "%s/templates/%s.jinja", data ? data : "tests/data", r->tmpl ? r->tmpl : "");
    ash_buf src = {0};
    ash_error err = {0};
    if (!r->tmpl || ash_file_read(p, 1 << 20, &src, &err) != ASH_OK) return;
    static const ash_chat_msg msgs[] = {{"user", "How tall is it?"}, {"assistant", "Ten metres."}, {"user", "And how wide?"}};
    ash_tmpl *t = NULL;
    char *out = NULL;
    size_t n = 0;
    r->templ = ash_tmpl_parse(&t, src.p, src.n, &err) == ASH_OK && ash_tmpl_render(t, msgs, 3, true, "<s>", "</s>", &out, &n, &err) == ASH_OK &&
               strstr(out, msgs[2].content) != NULL;
    if (!r->templ) snprintf(r->error, sizeof r->error, "template: %.200s", err.msg);
    ash_text_free(out);
    ash_tmpl_free(t);
    ash_buf_free(&src);
}

/* The hf/ folder beside the model, where there is one, becomes a file that gives the same bits. */
static void check_convert(row *r, ash_model *m, json_t *q) {
    r->convert = -1;
    if (!g_exists(r->name, "hf/model.safetensors")) return;
    char dir[600];
    const char *out = "arch_table.tmp.gguf";
    ash_error err = {0};
    ash_model *c = NULL;
    ash_convert_opts o = ash_convert_defaults();
    g_seq t = g_ints(json_object_get(q, "tokens"));
    const size_t cols = (size_t)(r->encoder ? ash_model_n_embd(m) : ash_model_n_vocab(m));
    float *a = calloc(t.n * cols, sizeof *a), *b = calloc(t.n * cols, sizeof *b);
    r->convert = ash_convert(NULL, g_path(dir, sizeof dir, r->name, "hf"), out, &o, &err) == ASH_OK && ash_model_load(&c, out, &err) == ASH_OK &&
                 rows_of(r, m, ASH_PREC_EXACT, 0, 1, &t, cols, a) && rows_of(r, c, ASH_PREC_EXACT, 0, 1, &t, cols, b);
    if (r->convert) {
        g_diff d = g_compare(b, a, t.n, cols); /* the last bits of some rope factors differ (see the data's README) */
        r->convert = d.rel <= 1e-6;
    } else if (!*r->error) {
        snprintf(r->error, sizeof r->error, "convert: %.200s", err.msg);
    }
    free(a), free(b), free(t.t);
    ash_model_free(c);
    unlink(out);
}

static void check(row *r) {
    r->chunking = r->encoder ? -1 : 1;
    r->cosine = 1;
    r->missing = !g_exists(r->name, "model.gguf");
    if (r->missing) return;
    char p[600];
    ash_error err = {0};
    ash_model *m = NULL;
    r->loads = ash_model_load(&m, g_path(p, sizeof p, r->name, "model.gguf"), &err) == ASH_OK;
    if (!r->loads) {
        snprintf(r->error, sizeof r->error, "%.200s", err.msg);
        return;
    }
    snprintf(r->arch, sizeof r->arch, "%s", ash_model_arch(m));
    json_t *cases = g_cases(r->name), *seqs = json_object_get(cases, "sequences");
    for (size_t i = 0; i < json_array_size(seqs); i++) check_sequence(r, m, json_array_get(seqs, i));
    check_template(r);
    check_convert(r, m, json_array_get(seqs, 0));
    const double loose = strcmp(r->name, "gemma4-e") == 0 ? 2 : 1;
    r->ok = !*r->error && r->rel <= 1e-4 && r->rms <= 2e-5 && r->fast_rel <= 5e-3 * loose && r->fast_rms <= 2e-3 * loose && r->greedy == r->greedy_of &&
            r->cosine >= 0.99999 && r->chunking != 0 && r->templ != 0 && r->convert != 0;
    json_decref(cases);
    ash_model_free(m);
}

static const char *word(int v) { return v < 0 ? "-" : v ? "yes" : "NO"; }

static void print_row(const row *r) {
    char greedy[32] = "-";
    if (!r->encoder) snprintf(greedy, sizeof greedy, "%zu/%zu", r->greedy, r->greedy_of);
    if (r->missing) printf("%-16s no data\n", r->name);
    else if (!r->loads) printf("%-16s does not load: %s\n", r->name, r->error);
    else
        printf("%-16s %-16s %8.1e %8.1e %8.1e %8.1e  %-7s %-9s %-9s %-8s %s%s\n", r->name, r->arch, r->rel, r->rms, r->fast_rel, r->fast_rms, greedy,
               word(r->chunking), word(r->templ), word(r->convert), r->ok ? "ok" : "FAIL ", r->error);
}

static json_t *yes_no(int v) { return v < 0 ? json_null() : json_boolean(v); }

static json_t *row_json(const row *r) {
    json_t *o = json_object();
    json_object_set_new(o, "case", json_string(r->name));
    json_object_set_new(o, "data", json_boolean(!r->missing));
    if (r->missing) return o;
    json_object_set_new(o, "load", json_boolean(r->loads));
    if (*r->error) json_object_set_new(o, "error", json_string(r->error));
    json_object_set_new(o, "ok", json_boolean(r->ok));
    if (!r->loads) return o;
    json_object_set_new(o, "architecture", json_string(r->arch));
    json_object_set_new(o, "of", json_string(r->encoder ? "hidden states" : "logits"));
    json_object_set_new(o, "rel", json_real(r->rel));
    json_object_set_new(o, "rms", json_real(r->rms));
    json_object_set_new(o, "fast_rel", json_real(r->fast_rel));
    json_object_set_new(o, "fast_rms", json_real(r->fast_rms));
    if (!r->encoder) json_object_set_new(o, "greedy_equal", json_boolean(r->greedy == r->greedy_of));
    else json_object_set_new(o, "cosine", json_real(r->cosine));
    json_object_set_new(o, "chunking_equal", yes_no(r->chunking));
    json_object_set_new(o, "template", yes_no(r->templ));
    json_object_set_new(o, "convert_equal", yes_no(r->convert));
    return o;
}

int main(int argc, char **argv) {
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
    row rows[] = {
#define G_LM(n) {.name = n},
#define G_ENC(n) {.name = n, .encoder = true},
#include "unit/golden_cases.inc"
#undef G_LM
#undef G_ENC
    };
    json_t *all = json_array();
    int bad = 0;
    if (!json)
        printf("%-16s %-16s %8s %8s %8s %8s  %-7s %-9s %-9s %-8s\n", "model", "architecture", "rel", "rms", "fast rel", "fast rms", "greedy", "chunking",
               "template", "convert");
    for (size_t i = 0; i < ASH_ARRAY_LEN(rows); i++) {
        check(&rows[i]);
        bad += !rows[i].missing && !rows[i].ok;
        if (json) json_array_append_new(all, row_json(&rows[i]));
        else print_row(&rows[i]);
    }
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(4));
        putchar('\n');
    }
    json_decref(all);
    return bad != 0;
}
