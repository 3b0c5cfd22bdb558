/* hf_header.c - the GGUF header that a config.json leads to, without any weights: keys and the tensors that the mapping tables need. What only
 * the checkpoint knows (optional biases, keys of layers that share another's) is taken as the family publishes it. */
#include "convert/hf_int.h"

#include "gguf/gguf_int.h"

#include <stdio.h>

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcmp(s + n - k, with) == 0;
}

/* Whether a published checkpoint of this config has the row on layer il. */
static bool has_row(const ash_hf *h, const ash_hf_row *r, int64_t il) {
    int need = ash_hf_need_of(h, r, il);
    if (r->need == HF_UNTIED) return !h->p.tied;
    if (r->need == HF_KV) return true; /* Gemma 4's published files keep the keys and values that no layer reads */
    if (r->need == HF_V) return !(h->p.k_eq_v && h->p.full[il]);
    if (need != 0) return need > 0;
    if (strstr(r->gguf, "attn_output.bias")) return h->arch->kind != HF_QWEN2 && ash_hf_bool(h->cfg, "attention_bias", false);
    if (strstr(r->gguf, "attn_") && ends(r->gguf, ".bias")) return h->arch->kind == HF_QWEN2 || ash_hf_bool(h->cfg, "attention_bias", false);
    if (strstr(r->gguf, "ffn_") && ends(r->gguf, ".bias")) return ash_hf_bool(h->cfg, "mlp_bias", false);
    return false;
}

static ash_status declare(const ash_hf *h, const ash_hf_row *r, int64_t il, ash_dtype type, ash_gguf_writer *w, ash_error *err) {
    char name[160];
    uint64_t ne[ASH_GGUF_MAX_DIMS] = {1, 1, 1, 1};
    int n = 0, k = (int)strlen(r->shape);
    if (!ash_hf_name(name, sizeof name, r->gguf, il, 0)) return ash_fail(err, ASH_E_INTERNAL, "a tensor name does not fit");
    for (; n < k; n++) { /* letters are outermost first */
        int64_t d = ash_hf_dim(h, r->shape[k - 1 - n], il);
        if (d < 1) return ash_fail(err, ASH_E_FORMAT, "config.json gives tensor %s a dimension of %lld", name, (long long)d);
        ne[n] = (uint64_t)d;
    }
    if (r->op == HF_STACK) ne[n++] = (uint64_t)h->p.n_expert;
    return ash_gguf_add_tensor(w, name, ash_hf_keeps_f32(name, n) ? ASH_F32 : type, n, ne, err);
}

/* BF16 unless config.json says that the checkpoint is in something else. */
static ash_dtype stated_type(const ash_hf *h) {
    const char *t = ash_hf_str(h->cfg, "torch_dtype");
    if (!t) t = ash_hf_str(h->cfg, "dtype");
    if (!t) t = ash_hf_str(h->root, "torch_dtype");
    if (!t) t = ash_hf_str(h->root, "dtype");
    return t && strcmp(t, "float16") == 0 ? ASH_F16 : t && strcmp(t, "float32") == 0 ? ASH_F32 : ASH_BF16;
}

static ash_status tensors(ash_hf *h, ash_gguf_writer *w, ash_dtype type, ash_error *err) {
    const bool longrope = strcmp(h->p.rope_type, "longrope") == 0, part = h->arch->kind == HF_GEMMA4;
    uint64_t rot = (uint64_t)h->p.n_rot / 2, freqs = (uint64_t)(part ? h->p.head_dim_full : h->p.head_dim) / 2;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t il = 0; il < (pass ? h->p.n_layer : 1); il++)
            for (size_t g = 0; g < ASH_ARRAY_LEN(h->arch->groups) && h->arch->groups[g]; g++)
                for (const ash_hf_row *r = h->arch->groups[g]; r->hf; r++)
                    if ((strstr(r->hf, "%d") != NULL) == (pass == 1) && has_row(h, r, il)) ASH_TRY(declare(h, r, il, type, w, err));
    if (longrope && rot) {
        ASH_TRY(ash_gguf_add_tensor(w, "rope_factors_long.weight", ASH_F32, 1, &rot, err));
        ASH_TRY(ash_gguf_add_tensor(w, "rope_factors_short.weight", ASH_F32, 1, &rot, err));
    }
    if ((part || strcmp(h->p.rope_type, "llama3") == 0) && freqs) ASH_TRY(ash_gguf_add_tensor(w, "rope_freqs.weight", ASH_F32, 1, &freqs, err));
    return ASH_OK;
}

/* Frequency factors must be positive to be believed. */
static void fill(ash_gguf *g, const char *name) {
    const ash_gguf_tensor *t = ash_gguf_find_tensor(g, name);
    uint8_t *p = ash_gguf_hollow_data(g, name);
    const float one = 1;
    for (uint64_t i = 0; p && i < t->ne[0]; i++) memcpy(p + 4 * i, &one, 4);
}

static ash_status build(ash_gguf **g, ash_hf *h, const char *name, ash_error *err) {
    ash_gguf_writer *w = NULL;
    ash_buf b = {0};
    ash_status st;
    ASH_TRY_GOTO(ash_hf_config_load(h, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(ash_gguf_set_str(w, "general.architecture", h->arch->gguf, strlen(h->arch->gguf), err), done);
    ASH_TRY_GOTO(ash_gguf_set_str(w, "general.name", name, strlen(name), err), done);
    ASH_TRY_GOTO(ash_hf_config_keys(h, w, err), done);
    ASH_TRY_GOTO(tensors(h, w, stated_type(h), err), done);
    ASH_TRY_GOTO(ash_gguf_writer_header(w, &b, err), done);
    ASH_TRY_GOTO(ash_gguf_open_header(g, b.p, b.n, err), done);
    fill(*g, "rope_factors_long.weight");
    fill(*g, "rope_factors_short.weight");
    fill(*g, "rope_freqs.weight");
done:
    ash_buf_free(&b);
    ash_gguf_writer_free(w);
    return st;
}

ash_status ash_convert_header(ash_gguf **g, const char *path, ash_error *err) {
    const ash_convert_opts o = ash_convert_defaults();
    const char *slash = strrchr(path, '/'), *up = slash;
    ash_buf text = {0}, dir = {0};
    ash_hf h = {.o = &o};
    *g = NULL;
    if (slash) ash_buf_add(&dir, path, (size_t)(slash - path));
    else ash_buf_addc(&dir, '.');
    while (up && up > path && up[-1] != '/') up--; /* the folder names the model */
    char name[128];
    snprintf(name, sizeof name, "%.*s", up ? (int)ASH_MIN(slash - up, 100) : 5, up ? up : "model");
    ash_status st = ash_buf_ok(&dir) ? ash_file_read(path, ASH_HF_MAX_CONFIG, &text, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
    if (st == ASH_OK) st = ash_hf_json_parse(&h.root, text.p, text.n, path, err);
    if (st == ASH_OK && !json_is_object(h.root)) st = ash_fail(err, ASH_E_FORMAT, "%s is no JSON object", path);
    h.dir = dir.p;
    h.cfg = h.root;
    if (st == ASH_OK) st = build(g, &h, name, err);
    json_decref(h.root);
    ash_arena_free(&h.arena);
    ash_buf_free(&h.notes);
    ash_buf_free(&text);
    ash_buf_free(&dir);
    return st;
}
