/* slice.c - a model of some of the layers of another.
 *
 * Owns: what a layer's number is part of. That is tensor names, per-layer arrays of the metadata, the window pattern, the
 * count of layers that share keys, the attention scale some architectures derive from their depth, and the columns and rows
 * of per-layer embeddings. The written file is loaded and its layers are compared with what was meant. */
#include "ashlar/slice.h"

#include "ashlar/quant.h"
#include "model/arch.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const ash_model *m;
    const ash_gguf *g;
    const uint32_t *from;     /* [n] old numbers */
    uint32_t n, n_own;
    int *kv;                  /* [n] new number of the layer whose keys are read */
    int *to;                  /* [n_layer] new number of an old layer, -1: gone */
    bool *swa;                /* [n] */
    bool all;                 /* every layer is kept */
    char key[128];
    ash_slice_info info;
} slice;

static const char *arch_key(slice *s, const char *name) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->m->arch->name, name);
    return s->key;
}

static void free_slice(slice *s) {
    ash_free(s->kv);
    ash_free(s->to);
    ash_free(s->swa);
}

/* ---- which layer reads whose keys ---- */
static ash_status map_keys(slice *s, ash_error *err) {
    const ash_layer *layers = s->m->layers;
    int last[2] = {-1, -1}; /* last layer with keys of its own, without and with a window */
    for (uint32_t j = 0; j < s->n; j++) {
        uint32_t il = s->from[j];
        const ash_layer *l = &layers[il];
        bool w = s->swa[j] = l->window > 0;
        s->info.n_swa += w;
        s->info.n_full += !w;
        if (l->kv_layer == (int)il) {
            s->kv[j] = last[w] = (int)j;
            s->n_own = j + 1;
            continue;
        }
        const ash_layer *src = last[w] >= 0 ? &layers[s->from[last[w]]] : NULL;
        if (!src || src->head_dim != l->head_dim || src->n_head_kv != l->n_head_kv)
            return ash_fail(err, ASH_E_USAGE, "layer %u has no keys and values of its own and reads those of layer %d, and no layer that could stand in is kept", il,
                            l->kv_layer);
        s->kv[j] = last[w];
        s->info.n_shared++;
        s->info.n_retargeted += (int)s->from[last[w]] != l->kv_layer;
    }
    /* llama.cpp takes layer n - 2 for windowed readers and n - 1 for others, n being the count of layers with keys of their own */
    for (uint32_t j = s->n_own; j < s->n; j++)
        if (s->kv[j] != (int)s->n_own - (s->swa[j] ? 2 : 1) && !s->info.note[0])
            snprintf(s->info.note, sizeof s->info.note, "llama.cpp would take the keys of layer %d for layer %u, which reads those of layer %d", (int)s->n_own - (s->swa[j] ? 2 : 1), j,
                     s->kv[j]);
    return ASH_OK;
}

static ash_status init(slice *s, const ash_model *m, const uint32_t *layers, uint32_t n, ash_error *err) {
    const uint32_t n_layer = (uint32_t)m->hp.n_layer;
    *s = (slice){.m = m, .g = m->gguf, .from = layers, .n = n, .all = n == n_layer};
    s->info.n_from = n_layer;
    s->info.n_to = n;
    if (n == 0) return ash_fail(err, ASH_E_USAGE, "a slice keeps at least one layer");
    for (uint32_t j = 0; j < n; j++)
        if (layers[j] >= n_layer || (j && layers[j] <= layers[j - 1])) return ash_fail(err, ASH_E_USAGE, "layers of a slice are ascending and below %u", n_layer);
    s->kv = ash_calloc(n, sizeof *s->kv);
    s->to = ash_calloc(n_layer, sizeof *s->to);
    s->swa = ash_calloc(n, sizeof *s->swa);
    ash_status st = s->kv && s->to && s->swa ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a slice");
    if (st == ASH_OK) {
        for (uint32_t i = 0; i < n_layer; i++) s->to[i] = -1;
        for (uint32_t j = 0; j < n; j++) s->to[layers[j]] = (int)j;
        st = map_keys(s, err);
    }
    if (st != ASH_OK) {
        free_slice(s);
        *s = (slice){0};
    }
    return st;
}

ash_status ash_slice_check(const ash_model *m, const uint32_t *layers, uint32_t n, ash_slice_info *info, ash_error *err) {
    slice s;
    ASH_TRY(init(&s, m, layers, n, err));
    if (info) *info = s.info;
    free_slice(&s);
    return ASH_OK;
}

/* ---- metadata ---- */
/* A numeric or bool array under the architecture's name with a value for every layer. Rope sections are counted by dims. */
static bool per_layer(const slice *s, const ash_gguf_kv *kv) {
    size_t n = strlen(s->m->arch->name);
    if (kv->type != ASH_GV_ARRAY || kv->elem_type == ASH_GV_STRING || kv->elem_type == ASH_GV_ARRAY || kv->n < s->info.n_from) return false;
    if (kv->key.n <= n + 1 || memcmp(kv->key.p, s->m->arch->name, n) != 0 || kv->key.p[n] != '.') return false;
    return !(kv->key.n > n + 6 && memcmp(kv->key.p + n, ".rope.", 6) == 0);
}

static ash_status cut_array(slice *s, const ash_gguf_kv *kv, ash_gguf_writer *w, ash_error *err) {
    uint64_t size = kv->data_bytes / kv->n;
    uint8_t *p = ash_alloc((size_t)(s->n * size));
    char *key = ash_strndup(kv->key.p, kv->key.n);
    ash_status st = p && key ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a per-layer array");
    if (st == ASH_OK) {
        for (uint32_t j = 0; j < s->n; j++) memcpy(p + j * size, kv->data + s->from[j] * size, size);
        st = ash_gguf_set_array(w, key, kv->elem_type, p, s->n, err);
    }
    ash_free(p);
    ash_free(key);
    return st;
}

/* Windows follow from a period (every p-th layer is full) unless the file lists the layers. */
static ash_status set_pattern(slice *s, ash_gguf_writer *w, ash_error *err) {
    const ash_arch *a = s->m->arch;
    const ash_gguf_kv *kv = ash_gguf_find(s->g, arch_key(s, "attention.sliding_window_pattern"));
    if (!s->m->hp.max_window) return ASH_OK;
    if (s->info.n_swa == 0) { /* no window is left: none in the file, whatever the pattern says */
        if (strcmp(a->name, "gemma3") != 0 && !s->info.note[0])
            snprintf(s->info.note, sizeof s->info.note, "llama.cpp does not run a %s without any windowed layer, or gives its layers a window", a->name);
        return ash_gguf_set_u32(w, arch_key(s, "attention.sliding_window"), 0, err);
    }
    if (a->swa != ASH_SWA_PATTERN || (kv && kv->type == ASH_GV_ARRAY)) return ASH_OK;
    for (uint32_t p = 1; p <= ASH_MIN(s->n + 1, 1024u); p++) {
        bool fits = true;
        for (uint32_t j = 0; fits && j < s->n; j++) fits = (j % p < p - 1) == s->swa[j];
        if (!fits) continue;
        /* the architecture's own period needs no key, and fits the same layers wherever it fits */
        bool own = true;
        for (uint32_t j = 0; own && j < s->n; j++) own = ((int)j % a->swa_pattern < a->swa_pattern - 1) == s->swa[j];
        return own ? ash_gguf_unset(w, s->key) : ash_gguf_set_u32(w, s->key, p, err);
    }
    uint8_t *flags = ash_alloc(s->n);
    if (!flags) return ash_fail(err, ASH_E_NOMEM, "out of memory for a window pattern");
    for (uint32_t j = 0; j < s->n; j++) flags[j] = s->swa[j];
    ash_status st = ash_gguf_set_array(w, s->key, ASH_GV_BOOL, flags, s->n, err);
    ash_free(flags);
    if (!s->info.note[0]) snprintf(s->info.note, sizeof s->info.note, "windowed layers follow no period and are listed, which older readers of %s do not know", a->name);
    return st;
}

/* Only windowed layers are left: their sizes are the only ones, and keys of the other kind name shapes that are gone. */
static ash_status only_windowed(slice *s, ash_gguf_writer *w, ash_error *err) {
    static const char *const pairs[][2] = {{"attention.key_length", "attention.key_length_swa"},
                                           {"attention.value_length", "attention.value_length_swa"},
                                           {"rope.dimension_count", "rope.dimension_count_swa"}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(pairs); i++) {
        uint64_t v;
        if (!ash_gguf_get_u64(s->g, arch_key(s, pairs[i][1]), &v) || v > UINT32_MAX) continue;
        if (ash_gguf_find(s->g, arch_key(s, pairs[i][0]))) ASH_TRY(ash_gguf_set_u32(w, s->key, (uint32_t)v, err));
    }
    return ASH_OK;
}

static bool drops_full(const slice *s) { return s->info.n_full == 0 && s->m->arch->swa_rope_base > 0; }

static ash_status set_metadata(slice *s, ash_gguf_writer *w, const char *sha, ash_error *err) {
    const ash_arch *a = s->m->arch;
    ASH_TRY(ash_gguf_copy_kv(w, s->g, err));
    if (s->all) return ASH_OK;
    for (size_t i = 0; i < ash_gguf_n_kv(s->g); i++)
        if (per_layer(s, ash_gguf_kv_at(s->g, i))) ASH_TRY(cut_array(s, ash_gguf_kv_at(s->g, i), w, err));
    ASH_TRY(ash_gguf_set_u32(w, arch_key(s, "block_count"), s->n, err));
    ASH_TRY(set_pattern(s, w, err));
    if (ash_gguf_find(s->g, arch_key(s, "attention.shared_kv_layers"))) ASH_TRY(ash_gguf_set_u32(w, s->key, s->info.n_shared, err));
    if (a->wide_attn_layers && ((int)s->info.n_from == a->wide_attn_layers || (int)s->n == a->wide_attn_layers) &&
        !ash_gguf_find(s->g, arch_key(s, "attention.scale"))) {
        ASH_TRY(ash_gguf_set_f32(w, s->key, s->m->hp.attn_scale, err));
        if (!s->info.note[0]) snprintf(s->info.note, sizeof s->info.note, "llama.cpp derives the attention scale of %s from the number of layers and will take another", a->name);
    }
    if (drops_full(s)) ASH_TRY(only_windowed(s, w, err));
    ASH_TRY(ash_gguf_set_array(w, "ashlar.slice.layers", ASH_GV_U32, s->from, s->n, err));
    if (s->info.n_shared) ASH_TRY(ash_gguf_set_array(w, "ashlar.slice.kv_source", ASH_GV_I32, s->kv, s->n, err));
    return *sha ? ash_gguf_set_str(w, "ashlar.slice.source_sha256", sha, strlen(sha), err) : ASH_OK;
}

/* ---- tensors ---- */
typedef enum { T_COPY, T_DROP, T_COLS, T_ROWS } how;

/* "blk.12.attn_q.weight" -> 12 and ".attn_q.weight" */
static bool block_of(const char *name, long *il, const char **rest) {
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return false;
    char *end;
    *il = strtol(name + 4, &end, 10);
    *rest = end;
    return *end == '.';
}

static how place(const slice *s, const ash_gguf_tensor *t, char name[96], uint64_t ne[ASH_GGUF_MAX_DIMS]) {
    long il;
    const char *rest;
    memcpy(ne, t->ne, sizeof t->ne);
    snprintf(name, 96, "%s", t->name);
    if (s->all) return T_COPY;
    if (block_of(t->name, &il, &rest)) {
        if (il < 0 || il >= (long)s->info.n_from || s->to[il] < 0) return T_DROP;
        snprintf(name, 96, "blk.%d%s", s->to[il], rest);
        return T_COPY;
    }
    if (strcmp(t->name, "rope_freqs.weight") == 0 && drops_full(s)) return T_DROP; /* of full layers only */
    uint64_t wide = (uint64_t)s->m->hp.n_ple * s->n;
    if (wide && strcmp(t->name, "per_layer_token_embd.weight") == 0) return ne[0] = wide, T_COLS;
    if (wide && strcmp(t->name, "per_layer_model_proj.weight") == 0) return ne[1] = wide, T_ROWS;
    return T_COPY;
}

/* Columns of a layer begin and end at blocks; else the table is decoded and kept in 16 bits. */
static ash_dtype cols_type(const slice *s, const ash_gguf_tensor *t) {
    const ash_dtype_info *d = ash_dtype_get((int)t->type);
    return s->m->hp.n_ple % (int)d->block_elems == 0 ? t->type : ASH_F16;
}

static ash_status write_cols(const slice *s, const ash_gguf_tensor *t, ash_gguf_writer *w, ash_error *err) {
    const uint64_t p = (uint64_t)s->m->hp.n_ple, row = ash_dtype_row_bytes(t->type, t->ne[0]);
    const ash_dtype to = cols_type(s, t);
    const uint64_t out = ash_dtype_row_bytes(to, p * s->n), group = to == t->type ? ash_dtype_row_bytes(t->type, p) : 0;
    ash_status st = ASH_OK;
    uint8_t *b = ash_alloc(out);
    float *x = group ? NULL : ash_alloc(t->ne[0] * sizeof *x);
    if (!b || (!group && !x)) st = ash_fail(err, ASH_E_NOMEM, "out of memory for a row of %s", t->name);
    for (uint64_t r = 0; st == ASH_OK && r < t->ne[1]; r++) {
        const uint8_t *src = t->data + r * row;
        if (group) {
            for (uint32_t j = 0; j < s->n; j++) memcpy(b + j * group, src + s->from[j] * group, group);
        } else if (!ash_dtype_decode(t->type, src, x, t->ne[0])) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: type %s cannot be decoded", t->name, ash_dtype_name(t->type));
        } else {
            for (uint32_t j = 0; j < s->n; j++) memmove(x + j * p, x + s->from[j] * p, p * sizeof *x); /* from[j] >= j */
            st = ash_quant_row(to, x, b, p * s->n, NULL, err);
        }
        if (st == ASH_OK) st = ash_gguf_writer_data(w, b, out, err);
    }
    ash_free(b);
    ash_free(x);
    return st;
}

static ash_status write_tensor(const slice *s, const ash_gguf_tensor *t, how h, ash_gguf_writer *w, ash_error *err) {
    if (h == T_COLS) return write_cols(s, t, w, err);
    if (h == T_ROWS) {
        const uint64_t rows = (uint64_t)s->m->hp.n_ple, bytes = rows * ash_dtype_row_bytes(t->type, t->ne[0]);
        for (uint32_t j = 0; j < s->n; j++) ASH_TRY(ash_gguf_writer_data(w, t->data + s->from[j] * bytes, bytes, err));
        return ASH_OK;
    }
    return ash_gguf_writer_data(w, t->data, t->n_bytes, err);
}

/* ---- the file ---- */
/* The written file, read as a model, has the layers that were meant. */
static ash_status compare(const slice *s, const char *path, ash_error *err) {
    ash_model *r = NULL;
    ASH_TRY(ash_model_load(&r, path, err));
    ash_status st = r->hp.n_layer == (int)s->n ? ASH_OK : ash_fail(err, ASH_E_INTERNAL, "%s: %d layers, not %u", path, r->hp.n_layer, s->n);
    if (st == ASH_OK && r->hp.attn_scale != s->m->hp.attn_scale) st = ash_fail(err, ASH_E_INTERNAL, "%s: the attention scale changed", path);
    for (uint32_t j = 0; st == ASH_OK && j < s->n; j++) {
        const ash_layer *a = &s->m->layers[s->from[j]], *b = &r->layers[j];
        const ash_rope *ra = a->rope == ASH_ROPE_NONE ? NULL : &s->m->hp.rope[a->rope], *rb = b->rope == ASH_ROPE_NONE ? NULL : &r->hp.rope[b->rope];
        if (a->window != b->window || a->n_ff != b->n_ff || a->head_dim != b->head_dim || a->n_head != b->n_head || a->n_head_kv != b->n_head_kv ||
            a->out_scale != b->out_scale || b->kv_layer != s->kv[j] || a->v_from_k != b->v_from_k || !ra != !rb ||
            (ra && (ra->n_rot != rb->n_rot || memcmp(ra->freq, rb->freq, (size_t)ra->n_rot / 2 * sizeof *ra->freq) != 0)))
            st = ash_fail(err, ASH_E_INTERNAL, "%s: layer %u is not what layer %u was", path, j, s->from[j]);
    }
    ash_model_free(r);
    if (st != ASH_OK) remove(path);
    return st;
}

ash_status ash_slice_write(ash_slice_info *info, const ash_model *m, const uint32_t *layers, uint32_t n, const char *out, bool hash,
                           const ash_progress *progress, ash_error *err) {
    slice s;
    ash_gguf_writer *w = NULL;
    char name[96], sha[65] = "";
    uint64_t ne[ASH_GGUF_MAX_DIMS];
    ASH_TRY(init(&s, m, layers, n, err));
    ash_status st;
    if (hash && *ash_gguf_path(s.g)) ASH_TRY_GOTO(ash_sha256_file(ash_gguf_path(s.g), sha, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(set_metadata(&s, w, sha, err), done);
    const size_t n_t = ash_gguf_n_tensors(s.g);
    for (size_t i = 0; i < n_t; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(s.g, i);
        how h = place(&s, t, name, ne);
        ash_dtype type = h == T_COLS ? cols_type(&s, t) : t->type;
        s.info.tables_f16 |= h == T_COLS && type != t->type;
        if (h != T_DROP) ASH_TRY_GOTO(ash_gguf_add_tensor(w, name, type, t->n_dims, ne, err), done);
    }
    s.info.file_bytes = ash_gguf_writer_bytes(w);
    ASH_TRY_GOTO(ash_gguf_writer_begin(w, out, err), done);
    for (size_t i = 0; i < n_t; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(s.g, i);
        how h = place(&s, t, name, ne);
        if (h != T_DROP) ASH_TRY_GOTO(write_tensor(&s, t, h, w, err), done);
        if (progress && progress->fn && !progress->fn(progress->ctx, "slice", (double)(i + 1), (double)n_t, NULL)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled");
            goto done;
        }
    }
    ASH_TRY_GOTO(ash_gguf_writer_finish(w, err), done);
    ASH_TRY_GOTO(compare(&s, out, err), done);
    if (info) *info = s.info;
done:
    ash_gguf_writer_free(w);
    free_slice(&s);
    return st;
}
