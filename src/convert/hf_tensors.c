/* hf_tensors.c - from the shards' tensors to the GGUF's: every row of the mapping tables finds its sources, shapes are held
 * against config.json, tensors no row wants are refused by name, and rows stream through one slab in the output's order.
 *
 * Every transform is a choice of source rows (permutation, stacking), so that an output is written front to back while the
 * shards stay mapped; values change only in type, and by +1 for norms that are stored less 1. */
#include "convert/hf_int.h"

#include "tensor/f16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#ifndef _WIN32
#include <sys/mman.h>
#endif
#include <unistd.h>

typedef unsigned long long ull;

enum { SLAB = 4 << 20, MAX_SHARDS = 4096 };

typedef struct {
    char *name;
    const ash_st_tensor *t;
    bool used;
} source; /* name without prefixes */

typedef struct {
    char name[72];
    const ash_hf_row *row;     /* NULL: made here, values in gen */
    const ash_st_tensor **src; /* [n_src] */
    size_t n_src;
    const float *gen;
    int64_t head; /* rows per head, for HF_ROPE_* */
    int n_dims;   /* of the output, outermost first in `shape` */
    uint64_t shape[4];
    ash_dtype type;
} out_tensor;

struct ash_hf_plan {
    ash_hf *h;
    ash_st *shard[MAX_SHARDS];
    size_t n_shards;
    source *s;
    size_t n_s;
    out_tensor *out;
    size_t n_out, cap_out;
    uint64_t weights;
    ash_dtype type;
};

static ash_status oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory for the list of tensors"); }

/* ---- shards ---- */
static ash_status open_shard(ash_hf_plan *p, const char *file, ash_error *err) {
    ash_buf path = {0};
    ash_buf_addf(&path, "%s/%s", p->h->dir, file);
    if (!ash_buf_ok(&path)) return oom(err);
    ash_status st = p->n_shards == MAX_SHARDS ? ash_fail(err, ASH_E_LIMIT, "more than %d shards", MAX_SHARDS)
                                              : ash_st_open(&p->shard[p->n_shards], path.p, err);
    if (st == ASH_OK) p->n_shards++;
    ash_buf_free(&path);
    return st;
}

static int cmp_str(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* model.safetensors.index.json: every shard once, and every tensor where it says. */
static ash_status open_index(ash_hf_plan *p, const json_t *index, ash_error *err) {
    const json_t *map = json_object_get(index, "weight_map");
    size_t n = json_object_size(map), k = 0;
    const char **file = ash_alloc((n + 1) * sizeof *file), *name;
    json_t *v;
    ash_status st = ASH_OK;
    if (!file) return oom(err);
    if (!n) st = ash_fail(err, ASH_E_FORMAT, "model.safetensors.index.json: weight_map is missing or empty");
    json_object_foreach((json_t *)map, name, v) {
        const char *f = json_string_value(v);
        if (st == ASH_OK && (!f || !*f || strchr(f, '/') || strchr(f, '\\') || *f == '.'))
            st = ash_fail(err, ASH_E_FORMAT, "model.safetensors.index.json: tensor %.100s is in no file of the folder", name);
        if (st == ASH_OK) file[k++] = f;
    }
    if (st == ASH_OK) qsort(file, k, sizeof *file, cmp_str);
    for (size_t i = 0; st == ASH_OK && i < k; i++)
        if (i == 0 || strcmp(file[i], file[i - 1]) != 0) {
            if (!ash_hf_exists(p->h->dir, file[i]))
                st = ash_fail(err, ASH_E_IO, "shard %.100s is missing", file[i]);
            else
                st = open_shard(p, file[i], err);
        }
    json_object_foreach((json_t *)map, name, v) {
        bool found = false;
        for (size_t i = 0; st == ASH_OK && !found && i < p->n_shards; i++) found = ash_st_find(p->shard[i], name) != NULL;
        if (st == ASH_OK && !found)
            st = ash_fail(err, ASH_E_FORMAT, "tensor %.100s of the index is not in shard %.100s", name, json_string_value(v));
    }
    ash_free(file);
    return st;
}

static bool starts(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* What other parts of the folder's model own, and what is computed. */
static bool needless(const char *name) {
    static const char *const heads[] = {
        "vision_tower.", "vision_model.", "multi_modal_projector.", "audio_tower.", "embed_vision.", "embed_audio.", "visual.",
        "pooler.",       "cls.",          "embeddings.position_ids"};
    static const char *const tails[] = {"rotary_emb.inv_freq", "self_attn.rotary_emb.cos_cached", "self_attn.rotary_emb.sin_cached",
                                        ".attn.rotary_emb.inv_freq"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(heads); i++)
        if (starts(name, heads[i])) return true;
    for (size_t i = 0; i < ASH_ARRAY_LEN(tails); i++) {
        size_t n = strlen(name), k = strlen(tails[i]);
        if (n >= k && strcmp(name + n - k, tails[i]) == 0) return true;
    }
    return false;
}

static const char *bare(const char *name) {
    static const char *const prefix[] = {"model.", "language_model.", "bert.", "base_model."};
    for (size_t i = 0; i < ASH_ARRAY_LEN(prefix);)
        if (starts(name, prefix[i])) {
            name += strlen(prefix[i]);
            i = 0;
        } else
            i++;
    return name;
}

static int cmp_source(const void *a, const void *b) { return strcmp(((const source *)a)->name, ((const source *)b)->name); }

static source *find(const ash_hf_plan *p, const char *name) {
    source key = {.name = (char *)name};
    return p->n_s ? bsearch(&key, p->s, p->n_s, sizeof *p->s, cmp_source) : NULL;
}

static ash_status collect(ash_hf_plan *p, ash_error *err) {
    json_t *index = NULL;
    ash_status st;
    if (p->h->adapter)
        st = open_shard(p, "adapter_model.safetensors", err);
    else if (ash_hf_exists(p->h->dir, "model.safetensors"))
        st = open_shard(p, "model.safetensors", err);
    else {
        st = ash_hf_json_file(&index, p->h->dir, "model.safetensors.index.json", ASH_HF_MAX_JSON, err);
        if (st == ASH_OK && !index) {
            bool torch = ash_hf_exists(p->h->dir, "pytorch_model.bin") || ash_hf_exists(p->h->dir, "pytorch_model.bin.index.json");
            st = ash_fail(err, ASH_E_IO, "%s holds no model.safetensors%s", p->h->dir,
                          torch ? "; pickled pytorch_model.bin files are not read, as they can run code" : "");
        }
        if (st == ASH_OK) st = open_index(p, index, err);
        json_decref(index);
    }
    const size_t main_shards = p->n_shards;
    for (int i = 0; st == ASH_OK && p->h->p.n_dense && !p->h->adapter && i < 2; i++) {
        char file[160];
        snprintf(file, sizeof file, "%s/model.safetensors", p->h->dense[i]);
        st = open_shard(p, file, err);
    }
    if (st != ASH_OK) return st;
    size_t n = 0;
    for (size_t i = 0; i < p->n_shards; i++) n += ash_st_count(p->shard[i]);
    p->s = ash_calloc(n + 1, sizeof *p->s);
    if (!p->s) return oom(err);
    for (size_t i = 0; i < p->n_shards; i++)
        for (size_t k = 0; k < ash_st_count(p->shard[i]); k++) {
            const ash_st_tensor *t = ash_st_at(p->shard[i], k);
            const char *name = bare(t->name);
            if (i >= main_shards) { /* of a module: 2_Dense, 3_Dense */
                static const char *const module[] = {"dense_2.linear.weight", "dense_3.linear.weight"};
                if (strcmp(t->name, "linear.weight") != 0)
                    return ash_fail(err, ASH_E_UNSUPPORTED, "%s holds tensor %.100s, where only linear.weight can be used", p->h->dense[i - main_shards], t->name);
                name = module[i - main_shards];
            }
            p->s[p->n_s++] = (source){.name = (char *)name, .t = t};
        }
    qsort(p->s, p->n_s, sizeof *p->s, cmp_source);
    for (size_t i = 1; i < p->n_s; i++)
        if (strcmp(p->s[i].name, p->s[i - 1].name) == 0 && !needless(p->s[i].name))
            return ash_fail(err, ASH_E_FORMAT, "tensors %.100s and %.100s are the same one", p->s[i - 1].t->name, p->s[i].t->name);
    return ASH_OK;
}

/* ---- rows of the tables ---- */
bool ash_hf_name(char *out, size_t n, const char *pattern, int64_t il, int64_t e) {
    size_t k = 0;
    for (; *pattern; pattern++) {
        if (pattern[0] == '%' && (pattern[1] == 'd' || pattern[1] == 'e')) {
            int m = snprintf(out + k, n - k, "%lld", (long long)(pattern[1] == 'd' ? il : e));
            if (m < 0 || (size_t)m >= n - k) return false;
            k += (size_t)m;
            pattern++;
        } else {
            if (k + 1 >= n) return false;
            out[k++] = *pattern;
        }
    }
    out[k] = 0;
    return true;
}

static bool ends(const char *s, const char *with) {
    size_t n = strlen(s), k = strlen(with);
    return n >= k && strcmp(s + n - k, with) == 0;
}

/* Vectors, norms, routers, position and type tables, and what is no ".weight" keep full precision. */
bool ash_hf_keeps_f32(const char *name, int n_dims) {
    if (ends(name, ".lora_a") || ends(name, ".lora_b")) return false;
    return n_dims < 2 || !ends(name, ".weight") || ends(name, "_norm.weight") || ends(name, "ffn_gate_inp.weight") ||
           strcmp(name, "position_embd.weight") == 0 || strcmp(name, "token_types.weight") == 0;
}

static out_tensor *add_out(ash_hf_plan *p, const char *pattern, int64_t il, ash_error *err) {
    if (p->n_out == p->cap_out) {
        size_t cap = p->cap_out ? 2 * p->cap_out : 256;
        out_tensor *q = ash_realloc(p->out, cap * sizeof *q);
        if (!q) return oom(err), NULL;
        p->out = q;
        p->cap_out = cap;
    }
    out_tensor *t = &p->out[p->n_out];
    *t = (out_tensor){.type = ASH_F32};
    if (!ash_hf_name(t->name, sizeof t->name, pattern, il, 0)) return ash_fail(err, ASH_E_INTERNAL, "a tensor name does not fit"), NULL;
    p->n_out++;
    return t;
}

static ash_status check_shape(const ash_hf_plan *p, const ash_st_tensor *t, const char *shape, int64_t il, ash_error *err) {
    char want[128] = "", is[256] = "";
    size_t n = strlen(shape), k = 0, m = 0;
    bool same = (size_t)t->n_dims == n;
    for (size_t i = 0; i < n; i++) {
        int64_t d = ash_hf_dim(p->h, shape[i], il);
        k += (size_t)snprintf(want + k, sizeof want - k, "%s%lld", i ? " x " : "", (long long)d);
        same = same && t->shape[i] == (uint64_t)d && d > 0;
    }
    same = same || (t->n_dims == 0 && strcmp(shape, "1") == 0); /* a scalar stands for a vector of one */
    for (int i = 0; i < t->n_dims; i++) m += (size_t)snprintf(is + m, sizeof is - m, "%s%llu", i ? " x " : "", (ull)t->shape[i]);
    if (!same) return ash_fail(err, ASH_E_FORMAT, "tensor %.100s is %s, config.json says %s", t->name, *is ? is : "a scalar", want);
    if (t->dtype != ASH_F32 && t->dtype != ASH_F16 && t->dtype != ASH_BF16 && t->dtype != ASH_F64)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %.100s holds %s, which is no float type that can be converted", t->name,
                        t->dtype_name);
    return ASH_OK;
}

int ash_hf_need_of(const ash_hf *h, const ash_hf_row *r, int64_t il) {
    switch (r->need) {
    case HF_REQ: return 1;
    case HF_OPT: return 0;
    case HF_UNTIED: return h->p.tied ? -1 : h->p.tied_said;
    case HF_DENSE: return ash_hf_is_moe(h, il) ? -1 : 1;
    case HF_MOE: return ash_hf_is_moe(h, il) ? 1 : -1;
    case HF_PLE: return h->p.n_ple ? 1 : -1;
    case HF_KV: return ash_hf_own_kv(h, il);
    case HF_V: return ash_hf_own_v(h, il);
    case HF_MOE_ALL: return h->p.moe_block ? 1 : -1;
    case HF_POOLED: return h->p.n_dense ? 1 : -1;
    }
    return -1;
}

static ash_status add_row(ash_hf_plan *p, const ash_hf_row *r, int64_t il, ash_error *err) {
    int need = ash_hf_need_of(p->h, r, il);
    int64_t n = r->op == HF_STACK ? p->h->p.n_expert : 1;
    char name[160];
    if (need < 0) return ASH_OK;
    const ash_st_tensor **src = NULL;
    for (int64_t e = 0; e < n; e++) {
        if (!ash_hf_name(name, sizeof name, r->hf, il, e)) return ash_fail(err, ASH_E_INTERNAL, "a tensor name does not fit");
        source *s = find(p, name);
        if (!s && need == 0 && e == 0) return ASH_OK;
        if (!s) return ash_fail(err, ASH_E_FORMAT, "tensor %s is missing", name);
        if (!src && !(src = ash_arena_alloc(&p->h->arena, (size_t)n * sizeof *src))) return oom(err);
        src[e] = s->t;
        s->used = true;
        ASH_TRY(check_shape(p, s->t, r->shape, il, err));
        if (s->t->dtype != src[0]->dtype)
            return ash_fail(err, ASH_E_FORMAT, "tensor %.100s holds %s, the first expert %s", s->t->name, s->t->dtype_name,
                            src[0]->dtype_name);
    }
    out_tensor *t = add_out(p, r->gguf, il, err);
    if (!t) return err ? err->code : ASH_E_NOMEM;
    t->row = r;
    t->src = src;
    t->n_src = (size_t)n;
    if (r->op == HF_STACK) t->shape[t->n_dims++] = (uint64_t)n;
    for (const char *c = r->shape; *c; c++) t->shape[t->n_dims++] = (uint64_t)ash_hf_dim(p->h, *c, il);
    t->head = ash_hf_head_dim(p->h, il);
    return ASH_OK;
}

/* An adapter's pair for one matrix: A is rank x columns, B is rows x rank and follows the matrix's order of rows. */
static ash_status add_pair(ash_hf_plan *p, const ash_hf_row *r, int64_t il, ash_error *err) {
    static const ash_hf_row plain = {"", "", "", HF_COPY, HF_OPT};
    char stem[160], name[200];
    if (strlen(r->shape) != 2 || r->op == HF_STACK || !ends(r->hf, ".weight") || !ash_hf_name(stem, sizeof stem, r->hf, il, 0))
        return ASH_OK;
    stem[strlen(stem) - 7] = 0;
    source *s[2];
    for (int k = 0; k < 2; k++) {
        snprintf(name, sizeof name, "%s.lora_%c.weight", stem, "AB"[k]);
        s[k] = find(p, name);
    }
    if (!s[0] && !s[1]) return ASH_OK;
    if (!s[0] || !s[1]) return ash_fail(err, ASH_E_FORMAT, "tensor %s.lora_%c.weight is missing", stem, s[0] ? 'B' : 'A');
    const ash_st_tensor *a = s[0]->t, *b = s[1]->t;
    uint64_t rows = (uint64_t)ash_hf_dim(p->h, r->shape[0], il), cols = (uint64_t)ash_hf_dim(p->h, r->shape[1], il), rank = a->shape[0];
    if (a->n_dims != 2 || b->n_dims != 2 || a->shape[1] != cols || b->shape[0] != rows || b->shape[1] != rank || rank < 1 ||
        rank > ASH_MIN(rows, cols))
        return ash_fail(err, ASH_E_FORMAT, "tensors %.100s.lora_A and .lora_B do not fit a matrix of %llu x %llu", stem, (ull)rows,
                        (ull)cols);
    for (int k = 0; k < 2; k++) {
        int dt = s[k]->t->dtype;
        if (dt != ASH_F32 && dt != ASH_F16 && dt != ASH_BF16 && dt != ASH_F64)
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %.100s holds %s, which is no float type", s[k]->t->name, s[k]->t->dtype_name);
        const ash_st_tensor **src = ash_arena_alloc(&p->h->arena, sizeof *src);
        snprintf(name, sizeof name, "%s.lora_%c", r->gguf, "ab"[k]);
        out_tensor *t = src ? add_out(p, name, il, err) : NULL;
        if (!t) return src && err ? err->code : oom(err);
        src[0] = s[k]->t;
        s[k]->used = true;
        t->row = k ? r : &plain;
        t->src = src;
        t->n_src = 1;
        t->n_dims = 2;
        t->shape[0] = k ? rows : rank;
        t->shape[1] = k ? rank : cols;
        t->head = ash_hf_head_dim(p->h, il);
    }
    return ASH_OK;
}

static ash_status add_made(ash_hf_plan *p, const char *name, float *v, int64_t n, ash_error *err) {
    out_tensor *t = add_out(p, name, 0, err);
    if (!t) return err ? err->code : ASH_E_NOMEM;
    t->gen = v;
    t->n_dims = 1;
    t->shape[0] = (uint64_t)n;
    return ASH_OK;
}

/* Frequency factors that files carry as tensors. */
static ash_status add_rope(ash_hf_plan *p, ash_error *err) {
    const ash_hf_params *q = &p->h->p;
    if (strcmp(q->rope_type, "longrope") == 0) {
        static const char *const key[] = {"long_factor", "short_factor"}, *const name[] = {"rope_factors_long.weight",
                                                                                           "rope_factors_short.weight"};
        const json_t *o = json_object_get(p->h->cfg, "rope_parameters");
        if (!json_is_object(o)) o = json_object_get(p->h->cfg, "rope_scaling");
        for (int k = 0; k < 2; k++) {
            const json_t *a = json_object_get(o, key[k]);
            int64_t n = q->n_rot / 2;
            float *v = ash_arena_alloc(&p->h->arena, (size_t)n * sizeof *v);
            if (!v) return oom(err);
            if (json_array_size(a) != (size_t)n)
                return ash_fail(err, ASH_E_FORMAT, "config.json: %s needs %lld numbers", key[k], (long long)n);
            for (int64_t i = 0; i < n; i++) {
                double x = json_number_value(json_array_get(a, (size_t)i));
                if (!(x > 0 && x < 1e30))
                    return ash_fail(err, ASH_E_FORMAT, "config.json: %s, entry %lld is not positive", key[k], (long long)i);
                v[i] = (float)x;
            }
            ASH_TRY(add_made(p, name[k], v, n, err));
        }
    }
    bool llama3 = strcmp(q->rope_type, "llama3") == 0, part = p->h->arch->kind == HF_GEMMA4;
    if (!llama3 && !part) return ASH_OK;
    int64_t d = part ? q->head_dim_full : q->head_dim, n = d / 2;
    float *v = ash_arena_alloc(&p->h->arena, (size_t)ASH_MAX(n, 1) * sizeof *v);
    if (!v) return oom(err);
    for (int64_t i = 0; i < n; i++)
        if (part)
            v[i] = (double)i < q->rotary * (double)n ? 1.0f : 1e30f; /* the rest does not turn */
        else { /* wavelengths beyond the old context are stretched, short ones kept, between them a blend; float32 throughout, as
                * the models were trained and other converters do */
            float wave = (float)(2 * M_PI) / (1.0f / powf((float)q->rope_base, (float)(2 * i) / (float)d)), old = (float)q->rope_orig;
            float low = (float)q->rope_low, high = (float)q->rope_high, factor = (float)q->rope_factor,
                  smooth = (old / wave - low) / (high - low);
            v[i] = wave < old / high ? 1 : wave > old / low ? factor : 1 / ((1 - smooth) / factor + smooth);
        }
    return add_made(p, "rope_freqs.weight", v, n, err);
}

static ash_status resolve(ash_hf_plan *p, ash_error *err) {
    ash_hf *h = p->h;
    for (int pass = 0; pass < 2; pass++) /* what belongs to no layer first */
        for (int64_t il = 0; il < (pass ? h->p.n_layer : 1); il++)
            for (size_t g = 0; g < ASH_ARRAY_LEN(h->arch->groups) && h->arch->groups[g]; g++)
                for (const ash_hf_row *r = h->arch->groups[g]; r->hf; r++)
                    if ((strstr(r->hf, "%d") != NULL) == (pass == 1))
                        ASH_TRY(h->adapter ? add_pair(p, r, il, err) : add_row(p, r, il, err));
    if (!h->adapter)
        ASH_TRY(add_rope(p, err));
    else if (!p->n_out)
        return ash_fail(err, ASH_E_FORMAT, "adapter_model.safetensors holds nothing for the matrices of a %s model", h->arch->gguf);
    size_t left = 0;
    for (size_t i = 0; i < p->n_s; i++) {
        const char *name = p->s[i].name;
        if (p->s[i].used) continue;
        if (needless(name))
            left++;
        else if (strcmp(name, "lm_head.weight") == 0 && h->p.tied)
            ash_hf_note(h, "lm_head.weight is tied to the embeddings and left out");
        else
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %.150s has no place in a %s file", p->s[i].t->name, h->arch->gguf);
    }
    if (left) ash_hf_note(h, "%zu tensors of other parts (vision, pooler, computed tables) are left out", left);
    return ASH_OK;
}

ash_status ash_hf_plan_new(ash_hf_plan **out, ash_hf *h, ash_error *err) {
    ash_hf_plan *p = *out = ash_calloc(1, sizeof *p);
    if (!p) return oom(err);
    p->h = h;
    ASH_TRY(collect(p, err));
    ASH_TRY(resolve(p, err));
    uint64_t bytes[ASH_DTYPE_MAX] = {0};
    p->type = ASH_F32;
    for (size_t i = 0; i < p->n_out; i++) {
        const out_tensor *t = &p->out[i];
        uint64_t n = 1;
        for (int d = 0; d < t->n_dims; d++)
            if (ash_mul_ovf(n, t->shape[d], &n)) return ash_fail(err, ASH_E_RANGE, "tensor %s: its size overflows", t->name);
        p->weights += n;
        if (ash_hf_keeps_f32(t->name, t->n_dims)) continue;
        bytes[t->src[0]->dtype] += n;
        if (bytes[t->src[0]->dtype] > bytes[p->type]) p->type = (ash_dtype)t->src[0]->dtype;
    }
    if (p->type == ASH_F64) p->type = ASH_F32;
    return ASH_OK;
}

void ash_hf_plan_free(ash_hf_plan *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n_shards; i++) ash_st_close(p->shard[i]);
    ash_free(p->s);
    ash_free(p->out);
    ash_free(p);
}

ash_dtype ash_hf_plan_type(const ash_hf_plan *p) { return p->type; }
uint64_t ash_hf_plan_weights(const ash_hf_plan *p) { return p->weights; }
size_t ash_hf_plan_count(const ash_hf_plan *p) { return p->n_out; }

ash_status ash_hf_plan_declare(ash_hf_plan *p, ash_gguf_writer *w, ash_dtype type, ash_error *err) {
    for (size_t i = 0; i < p->n_out; i++) {
        out_tensor *t = &p->out[i];
        uint64_t ne[4] = {1, 1, 1, 1};
        t->type = ash_hf_keeps_f32(t->name, t->n_dims) ? ASH_F32 : type;
        for (int d = 0; d < t->n_dims; d++) ne[d] = t->shape[t->n_dims - 1 - d];
        ASH_TRY(ash_gguf_add_tensor(w, t->name, t->type, t->n_dims, ne, err));
    }
    return ASH_OK;
}

/* ---- values ---- */
static float load(int dtype, const uint8_t *p) {
    uint16_t h;
    float f;
    double d;
    switch (dtype) {
    case ASH_F16: memcpy(&h, p, 2); return ash_f16_to_f32(h);
    case ASH_BF16: memcpy(&h, p, 2); return ash_bf16_to_f32(h);
    case ASH_F64: memcpy(&d, p, 8); return (float)d;
    default: memcpy(&f, p, 4); return f;
    }
}

static size_t width(int dtype) { return dtype == ASH_F64 ? 8 : dtype == ASH_F32 ? 4 : 2; }

/* n values into dst. Counts what float16 had to clip; false at a NaN or infinity. */
static bool convert(int from, const uint8_t *src, ash_dtype to, uint8_t *dst, uint64_t n, float add, uint64_t *clipped) {
    size_t a = width(from), b = width((int)to);
    for (uint64_t i = 0; i < n; i++, src += a, dst += b) {
        float f = load(from, src);
        if (add != 0) f += add; /* not always: -0 is to stay */
        if (!isfinite(f)) return false;
        if (to == ASH_F32)
            memcpy(dst, &f, 4);
        else {
            if (to == ASH_F16 && fabsf(f) >= 65520.0f) {
                f = copysignf(65504.0f, f);
                ++*clipped;
            }
            uint16_t h = to == ASH_F16 ? ash_f32_to_f16(f) : ash_f32_to_bf16(f);
            memcpy(dst, &h, 2);
        }
    }
    return true;
}

/* Source row of output row r. Heads from halves to pairs: row 2i + j of a head was row i + j * d/2. */
static uint64_t row_from(const ash_hf_plan *p, const out_tensor *t, uint64_t r) {
    ash_hf_op op = t->row->op;
    if (!(p->h->arch->flags & HF_F_PERMUTE) || (op != HF_ROPE_Q && op != HF_ROPE_K)) return r;
    uint64_t d = (uint64_t)t->head, j = r % d;
    return r - j + j / 2 + (j & 1) * (d / 2);
}

static ash_status write_one(ash_hf_plan *p, const out_tensor *t, ash_gguf_writer *w, uint8_t *slab, ash_error *err) {
    if (t->gen) return ash_gguf_writer_data(w, t->gen, (size_t)t->shape[0] * 4, err);
    const ash_hf_row *r = t->row;
    bool rope = r->op == HF_ROPE_Q || r->op == HF_ROPE_K;
    int from = t->src[0]->dtype;
    uint64_t n = t->shape[t->n_dims - 1], rows = 1, clipped = 0;
    for (int d = 0; d + 1 < t->n_dims; d++) rows *= t->shape[d];
    if (t->n_dims == 1 && rope) rows = n, n = 1; /* a bias: its elements are the rows */
    uint64_t per = rows / t->n_src;              /* rows of one source */
    float add = r->op == HF_NORM && p->h->arch->flags & HF_F_NORM1 ? 1.0f : 0.0f;
    size_t a = width(from), b = width((int)t->type);
    bool copy = from == (int)t->type && add == 0;
    uint64_t fit = ASH_MAX(1, SLAB / 4 / n); /* rows in a slab */
    for (uint64_t i = 0; i < rows;) {
        uint64_t m = ASH_MIN(fit, rows - i);
        for (uint64_t k = 0; k < m && n <= SLAB / 4; k++) {
            const uint8_t *src = t->src[(i + k) / per]->data + row_from(p, t, (i + k) % per) * n * a;
            if (copy)
                memcpy(slab + k * n * b, src, (size_t)n * b);
            else if (!convert(from, src, t->type, slab + k * n * b, n, add, &clipped))
                return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: row %llu holds a NaN or infinity", t->src[(i + k) / per]->name,
                                (ull)((i + k) % per));
        }
        if (n <= SLAB / 4)
            ASH_TRY(ash_gguf_writer_data(w, slab, (size_t)(m * n * b), err));
        else /* rows longer than a slab, one by one in pieces */
            for (uint64_t c = 0; c < n;) {
                uint64_t k = ASH_MIN(n - c, (uint64_t)SLAB / 4);
                const uint8_t *src = t->src[i / per]->data + (row_from(p, t, i % per) * n + c) * a;
                if (!convert(from, src, t->type, slab, k, add, &clipped))
                    return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: row %llu holds a NaN or infinity", t->src[i / per]->name,
                                    (ull)(i % per));
                ASH_TRY(ash_gguf_writer_data(w, slab, (size_t)(k * b), err));
                c += k;
            }
        i += m;
    }
    if (clipped) ash_hf_note(p->h, "%s: %llu weights beyond float16 were clipped (--type bf16 keeps them)", t->name, (ull)clipped);
    return ASH_OK;
}

/* The pages of a tensor that is written are not wanted again: what stays resident is one tensor, however large the shards. */
static void let_go(const out_tensor *t) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < t->n_src; i++) {
        uintptr_t b = ((uintptr_t)t->src[i]->data + page - 1) / page * page,
                  e = ((uintptr_t)t->src[i]->data + t->src[i]->n_bytes) / page * page;
        if (e > b) madvise((void *)b, e - b, MADV_DONTNEED);
    }
}

ash_status ash_hf_plan_write(ash_hf_plan *p, ash_gguf_writer *w, const char *stage, ash_error *err) {
    const ash_progress *pr = &p->h->o->progress;
    uint8_t *slab = ash_alloc(SLAB);
    ash_status st = slab ? ASH_OK : oom(err);
    for (size_t i = 0; st == ASH_OK && i < p->n_out; i++) {
        if (pr->fn && !pr->fn(pr->ctx, stage, (double)i, (double)p->n_out, p->out[i].name))
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled; nothing was written");
        if (st == ASH_OK) st = write_one(p, &p->out[i], w, slab, err);
        let_go(&p->out[i]);
    }
    if (st == ASH_OK && pr->fn) pr->fn(pr->ctx, stage, (double)p->n_out, (double)p->n_out, NULL);
    ash_free(slab);
    return st;
}
