/* meta.c - hyperparameters that no model has, vocabularies that do not go together or with their model, importance that is missing. */
#include "doctor/doctor_int.h"

#include "ashlar/eval.h"

#include <math.h>
#include <stdio.h>

typedef unsigned long long ull;

/* ---- numbers after the architecture's name ---- */
static void ranges(ash_doctor *d) {
    static const struct {
        const char *leaf;
        double lo, hi;
    } k[] = {{"rope.freq_base", 500, 1e9},
             {"rope.freq_base_swa", 500, 1e9},
             {"attention.layer_norm_rms_epsilon", 1e-9, 1e-3},
             {"attention.layer_norm_epsilon", 1e-14, 1e-3},
             {"context_length", 16, 1e8},
             {"rope.scaling.factor", 0.1, 1e4},
             {"final_logit_softcapping", 0.0, 1e4},
             {"attn_logit_softcapping", 0.0, 1e4},
             {"attention.scale", 0, 16},
             {"attention.sliding_window", 0, 1e8},
             {"expert_used_count", 0, 4096}};
    ash_str arch = {.p = "", .n = 0};
    if (!ash_gguf_get_str(d->g, "general.architecture", &arch)) {
        ash_doc_say(d, ASH_DOC_HPARAM, "general.architecture", "the key is missing");
        return;
    }
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
        char key[160];
        double v;
        snprintf(key, sizeof key, "%.*s.%s", (int)ASH_MIN(arch.n, 80), arch.p, k[i].leaf);
        if (ash_gguf_get_f64(d->g, key, &v) && !(v >= k[i].lo && v <= k[i].hi))
            ash_doc_say(d, ASH_DOC_HPARAM, key, "%g; models have %g to %g", v, k[i].lo, k[i].hi);
    }
}

/* ---- vocabulary ---- */
static uint64_t length_of(const ash_gguf *g, const char *key, bool *there) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    *there = kv && kv->type == ASH_GV_ARRAY;
    return *there ? kv->n : 0;
}

static void lists(ash_doctor *d, uint64_t n) {
    static const char *const k[] = {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
        bool there;
        const uint64_t m = length_of(d->g, k[i], &there);
        if (there && m != n) ash_doc_say(d, ASH_DOC_VOCAB_LISTS, k[i], "%llu entries for %llu tokens", (ull)m, (ull)n);
    }
    const ash_gguf_kv *scores = ash_gguf_find(d->g, "tokenizer.ggml.scores");
    uint64_t bad = 0;
    for (uint64_t i = 0; scores && scores->type == ASH_GV_ARRAY && i < scores->n; i++) {
        double v;
        if (ash_gguf_array_f64(scores, i, &v) && !isfinite(v)) bad++;
    }
    if (bad) ash_doc_say(d, ASH_DOC_VOCAB_LISTS, "tokenizer.ggml.scores", "%llu scores are not finite", (ull)bad);
    ash_str model = {.p = "", .n = 0};
    if (!scores || !ash_gguf_get_str(d->g, "tokenizer.ggml.model", &model) || model.n != 5 || memcmp(model.p, "llama", 5) != 0 ||
        scores->n < 512)
        return;
    double first, x = 0; /* text is cut by scores alone there: they cannot be all the same. The first tokens are no words. */
    uint64_t i = 300;
    for (bool ok = ash_gguf_array_f64(scores, 299, &first); ok && i < scores->n && ash_gguf_array_f64(scores, i, &x) && x == first;) i++;
    if (i == scores->n) ash_doc_say(d, ASH_DOC_VOCAB_LISTS, "tokenizer.ggml.scores", "the scores are all %g", first);
}

static void special_ids(ash_doctor *d, uint64_t n) {
    static const char *const k[] = {"bos", "eos", "unknown", "seperator", "padding", "cls", "mask", "eot", "eom"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++) {
        char key[80];
        int64_t v;
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", k[i]);
        if (ash_gguf_get_i64(d->g, key, &v) && (v < 0 || (uint64_t)v >= n) && v != 0xffffffff && v != -1)
            ash_doc_say(d, ASH_DOC_SPECIAL_ID, key, "%lld; the vocabulary has %llu tokens", (long long)v, (ull)n);
    }
}

/* Both halves of a merge, and their join, must be tokens. */
static void merges(ash_doctor *d, const ash_vocab *v) {
    const ash_gguf_kv *kv = ash_gguf_find(d->g, "tokenizer.ggml.merges");
    uint64_t cur = 0, n = 0, bad = 0;
    ash_str s;
    char join[512];
    if (!kv || kv->type != ASH_GV_ARRAY || kv->elem_type != ASH_GV_STRING) return;
    for (; ash_gguf_array_str(kv, &cur, &s); n++) {
        const char *sp = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        if (!sp || s.n > sizeof join) {
            bad += !sp;
            continue;
        }
        const size_t a = (size_t)(sp - s.p), b = s.n - a - 1;
        memcpy(join, s.p, a);
        memcpy(join + a, sp + 1, b);
        bad += ash_vocab_find(v, s.p, a) < 0 || ash_vocab_find(v, sp + 1, b) < 0 || ash_vocab_find(v, join, a + b) < 0;
    }
    if (20 * bad > n)
        ash_doc_say(d, ASH_DOC_VOCAB_LISTS, "tokenizer.ggml.merges", "%llu of %llu merges name tokens that are not in the vocabulary",
                    (ull)bad, (ull)n);
}

static void twice(ash_doctor *d, const ash_vocab *v) {
    const int32_t n = ash_vocab_size(v);
    int32_t bad = 0, first = 0, empty = 0, first_empty = 0;
    for (int32_t i = 0; i < n; i++) {
        const ash_str s = ash_vocab_token_text(v, i);
        if (!s.n && !empty++) first_empty = i;
        const ash_token at = ash_vocab_find(v, s.p, s.n);
        if (s.n && at >= 0 && at != i && ash_vocab_token_type(v, i) == ASH_TOK_NORMAL && ash_vocab_token_type(v, at) == ASH_TOK_NORMAL &&
            !bad++)
            first = i;
    }
    if (bad) ash_doc_say(d, ASH_DOC_VOCAB_TWICE, "tokenizer.ggml.tokens", "%d tokens are there twice, the first is %d", bad, first);
    if (empty > 1) ash_doc_say(d, ASH_DOC_VOCAB_TWICE, "tokenizer.ggml.tokens", "%d tokens are empty, the first is %d", empty, first_empty);
}

/* ---- importance ---- */
/* Types so coarse that quantizers ask for an importance matrix. */
static bool needs_importance(ash_dtype t) {
    static const ash_dtype k[] = {ASH_IQ1_S, ASH_IQ1_M, ASH_IQ2_XXS, ASH_IQ2_XS, ASH_IQ2_S};
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++)
        if (t == k[i]) return true;
    return false;
}

/* llama-quantize writes how many matrices its importance file had; files that say nothing of it are left in peace. */
static void importance(ash_doctor *d) {
    uint64_t coarse = 0, quantized = 0, entries;
    const char *first = "";
    for (size_t i = 0; i < ash_gguf_n_tensors(d->g); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
        const ash_dtype_info *ty = ash_dtype_get((int)t->type);
        if (!doc_in_layer(t) || doc_is_vector(t) || !ty || !ty->quantized) continue;
        quantized++;
        if (needs_importance(t->type) && !coarse++) first = t->name;
    }
    if (coarse && ash_gguf_get_u64(d->g, "quantize.imatrix.entries_count", &entries) && entries < quantized)
        ash_doc_say(d, ASH_DOC_IMPORTANCE, first, "%llu matrices of types that need importance; it was there for %llu of %llu", (ull)coarse,
                    (ull)entries, (ull)quantized);
}

static void entry(ash_doctor *d, const ash_gguf_tensor *t, const ash_imatrix_entry *e) {
    uint64_t bad = 0, zero = 0, empty = 0;
    if (e->n != t->ne[0] * e->n_mat || e->n_mat != t->ne[2]) {
        ash_doc_say(d, ASH_DOC_IMATRIX, t->name, "%llu columns of %llu matrices; the tensor has %llu of %llu",
                    (ull)(e->n_mat ? e->n / e->n_mat : e->n), (ull)e->n_mat, (ull)t->ne[0], (ull)t->ne[2]);
        return;
    }
    for (uint64_t i = 0; i < e->n; i++) {
        if (!isfinite(e->sum2[i]) || e->sum2[i] < 0)
            bad++;
        else
            zero += e->sum2[i] == 0.0f;
    }
    for (uint64_t i = 0; i < e->n_mat; i++) empty += !(e->counts[i] > 0);
    if (bad)
        ash_doc_say(d, ASH_DOC_IMATRIX, t->name, "%llu of %llu sums are negative or not finite", (ull)bad, (ull)e->n);
    else if (empty == e->n_mat)
        ash_doc_say(d, ASH_DOC_IMATRIX, t->name, "nothing went through it");
    else if (2 * zero > e->n && !empty)
        ash_doc_say(d, ASH_DOC_IMATRIX, t->name, "%llu of %llu columns have no importance", (ull)zero, (ull)e->n);
}

/* A given importance matrix: every matrix of the layers that runs must have an entry of its own shape. */
static ash_status imatrix(ash_doctor *d, ash_error *err) {
    ash_imatrix *im;
    ash_error e = {0};
    const ash_status st = ash_imatrix_load(&im, d->o.imatrix, &e);
    if (st == ASH_E_IO || st == ASH_E_NOMEM) return err ? *err = e, st : st;
    if (st != ASH_OK) {
        ash_doc_say(d, ASH_DOC_IMATRIX, "", "%s", e.msg);
        return ASH_OK;
    }
    for (size_t i = 0; i < ash_imatrix_n(im); i++) {
        const ash_imatrix_entry x = ash_imatrix_at(im, i);
        const ash_gguf_tensor *t = ash_gguf_find_tensor(d->g, x.name);
        if (t)
            entry(d, t, &x);
        else
            ash_doc_say(d, ASH_DOC_IMATRIX, x.name, "the model has no such tensor");
    }
    if (d->model) {
        const char *names[64];
        const size_t n = ash_imatrix_dead(im, d->model, names, ASH_ARRAY_LEN(names));
        for (size_t i = 0; i < ASH_MIN(n, ASH_ARRAY_LEN(names)); i++) {
            bool known = false; /* entries of zeros are told of already */
            for (size_t k = 0; k < d->n && !known; k++) known = d->f[k].check == ASH_DOC_IMATRIX && strcmp(d->f[k].where, names[i]) == 0;
            if (!known) ash_doc_say(d, ASH_DOC_IMATRIX, names[i], "no importance for it");
        }
    }
    ash_imatrix_free(im);
    return ASH_OK;
}

ash_status ash_doc_meta(ash_doctor *d, ash_error *err) {
    ash_vocab *v = NULL;
    ash_error e = {0};
    bool there;
    ranges(d);
    importance(d);
    if (d->o.imatrix) ASH_TRY(imatrix(d, err));
    const uint64_t n = length_of(d->g, "tokenizer.ggml.tokens", &there);
    if (!there) {
        if (!d->part) ash_doc_say(d, ASH_DOC_NO_VOCAB, "", "the file has no tokenizer.ggml.tokens");
        return ASH_OK;
    }
    const ash_gguf_tensor *embd = ash_gguf_find_tensor(d->g, "token_embd.weight");
    if (embd && embd->ne[1] != n)
        ash_doc_say(d, ASH_DOC_VOCAB_SIZE, "tokenizer.ggml.tokens", "%llu tokens, the embedding has %llu rows", (ull)n, (ull)embd->ne[1]);
    lists(d, n);
    special_ids(d, n);
    ash_status st = ash_vocab_load(&v, d->g, &e);
    if (st == ASH_E_NOMEM) return ash_fail(err, st, "%s", e.msg);
    if (st != ASH_OK) {
        ash_doc_say(d, ASH_DOC_VOCAB, "", "%s", e.msg);
        return ASH_OK;
    }
    merges(d, v);
    twice(d, v);
    st = ash_doc_chat(d, v, err);
    ash_vocab_free(v);
    return st;
}
