/* hf_modules.c - modules.json, by which sentence-transformers says what comes after the transformer: pooling, and in
 * EmbeddingGemma two matrices without bias (2_Dense, 3_Dense). Each module has a folder with a config.json of its own. */
#include "convert/hf_int.h"

#include <stdio.h>

static const char *leaf_of(const char *type) {
    const char *dot = type ? strrchr(type, '.') : NULL;
    return dot ? dot + 1 : type;
}

static ash_status module_config(const ash_hf *h, const char *sub, json_t **o, ash_error *err) {
    char name[256];
    if (!*sub || strstr(sub, "..") || *sub == '/' || snprintf(name, sizeof name, "%s/config.json", sub) >= (int)sizeof name)
        return ash_fail(err, ASH_E_FORMAT, "modules.json: the path of a module leaves the folder");
    return ash_hf_json_file(o, h->dir, name, ASH_HF_MAX_CONFIG, err);
}

/* Mean, first or last position. */
static ash_status pooling(ash_hf *h, const char *sub, ash_error *err) {
    static const struct {
        const char *key;
        int64_t id; /* value of pooling_type */
    } kinds[] = {{"pooling_mode_mean_tokens", 1}, {"pooling_mode_cls_token", 2}, {"pooling_mode_lasttoken", 3}};
    json_t *o = NULL;
    ASH_TRY(module_config(h, sub, &o, err));
    for (size_t i = 0; o && !h->p.pooling && i < ASH_ARRAY_LEN(kinds); i++)
        if (ash_hf_bool(o, kinds[i].key, false)) h->p.pooling = kinds[i].id;
    json_decref(o);
    return ASH_OK;
}

/* One of the two matrices, where it is one that a file can hold: no bias, no activation, sizes that fit. */
static ash_status dense(ash_hf *h, const char *sub, int *n, ash_error *err) {
    json_t *o = NULL;
    int64_t in = 0, out = 0;
    ASH_TRY(module_config(h, sub, &o, err));
    const json_t *a = json_object_get(o, "in_features"), *b = json_object_get(o, "out_features");
    const char *act = leaf_of(ash_hf_str(o, "activation_function"));
    bool fits = *n < 2 && ash_hf_int(a, &in) && ash_hf_int(b, &out) && !ash_hf_bool(o, "bias", true) && act && strcmp(act, "Identity") == 0 && out > 0 && out <= 1 << 20;
    fits = fits && (*n == 0 ? in == h->p.n_embd : in == h->p.n_dense && out == h->p.n_embd);
    fits = fits && snprintf(h->dense[*n], sizeof h->dense[*n], "%s", sub) < (int)sizeof h->dense[*n];
    if (fits && *n == 0) h->p.n_dense = out;
    *n = fits ? *n + 1 : 3;
    json_decref(o);
    return ASH_OK;
}

ash_status ash_hf_modules_load(ash_hf *h, ash_error *err) {
    json_t *mods = NULL, *m;
    size_t i;
    int n_dense = 0; /* 3: some that do not fit */
    bool pooled = false;
    ash_buf path = {0}, text = {0};
    if (!ash_hf_exists(h->dir, "modules.json")) return ASH_OK;
    ash_buf_addf(&path, "%s/modules.json", h->dir);
    if (!ash_buf_ok(&path)) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ash_status st = ash_file_read(path.p, ASH_HF_MAX_CONFIG, &text, err);
    if (st == ASH_OK) st = ash_hf_json_parse(&mods, text.p, text.n, "modules.json", err); /* a list, not an object */
    ash_buf_free(&path);
    ash_buf_free(&text);
    if (st != ASH_OK) return st;
    json_array_foreach(mods, i, m) {
        const char *leaf = leaf_of(ash_hf_str(m, "type")), *sub = ash_hf_str(m, "path");
        if (!leaf || st != ASH_OK) continue;
        if (strcmp(leaf, "Pooling") == 0) {
            if (sub && !pooled) st = pooling(h, sub, err);
            pooled = true;
        } else if (strcmp(leaf, "Dense") == 0 && sub && h->arch->kind == HF_GEMMA_EMB && n_dense < 3) {
            st = dense(h, sub, &n_dense, err);
        } else if (strcmp(leaf, "Transformer") != 0 && strcmp(leaf, "Normalize") != 0)
            ash_hf_note(h, "module %.40s of modules.json is left out: embeddings will differ from the original", leaf);
    }
    if (n_dense != 2) {
        if (n_dense)
            ash_hf_note(
                h, "the dense modules of modules.json are left out (not two without bias and activation that fit): embeddings will differ");
        h->p.n_dense = 0;
    }
    json_decref(mods);
    return st;
}
