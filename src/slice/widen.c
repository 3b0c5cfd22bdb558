/* widen.c - zero channels until rows are a multiple of a block (see ashlar/slice.h for the algebra).
 *
 * Owns: which tensor takes which padding and which metadata changes. Works row by row on demand, so that
 * a quantizer can read widened rows straight from the source file. Knows nothing of quantization. */
#include "ashlar/slice.h"

#include "base/base.h"

#include <math.h>
#include <stdio.h>

typedef enum {
    PAD_NONE,  /* as it is */
    PAD_COLS,  /* cols n -> n2 (k, v, gate, up, tables, hidden norms) */
    PAD_ROWS,  /* rows n -> n2 (down) */
    PAD_HEADS_ROWS, /* rows by head groups, cols n -> n2 (q) */
    PAD_HEADS_COLS, /* cols by head groups, rows n -> n2 (attention output) */
    PAD_HEADS_VEC   /* a vector by head groups (q bias) */
} pad_kind;

typedef struct { pad_kind kind; float scale; } rule;

struct ash_widen {
    uint64_t n, n2;          /* hidden width */
    uint64_t kv, rep, rep2;  /* KV heads, query heads per KV head */
    uint64_t hd;             /* head size */
    char arch[32];
    float eps;
    bool has_eps, has_key_length, has_rope_dim, has_qk_norm, needed;
    size_t n_tensors;
    rule *rules;
};

/* "blk.3.attn_q.weight" -> "attn_q"; "output_norm.weight" -> "output_norm"; false for a bias. */
static bool leaf_of(const char *name, char leaf[64], bool *bias) {
    const char *end = strrchr(name, '.');
    if (!end) return false;
    *bias = strcmp(end, ".bias") == 0;
    if (!*bias && strcmp(end, ".weight") != 0) return false;
    const char *b = end;
    while (b > name && b[-1] != '.') b--;
    size_t n = (size_t)(end - b);
    if (n == 0 || n >= 64) return false;
    memcpy(leaf, b, n);
    leaf[n] = 0;
    return true;
}

static bool is_one_of(const char *s, const char *const *set, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(s, set[i]) == 0) return true;
    return false;
}

static ash_status rule_for(const ash_widen *w, const ash_gguf_tensor *t, rule *out, ash_error *err) {
    static const char *const hidden_norms[] = {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "output_norm"};
    static const char *const as_is[] = {"attn_q_norm", "attn_k_norm", "rope_freqs"};
    static const char *const cols[] = {"attn_k", "attn_v", "ffn_gate", "ffn_up"};
    char leaf[64];
    bool bias = false;
    bool gemma = strcmp(w->arch, "gemma3") == 0;
    if (!leaf_of(t->name, leaf, &bias) || t->n_dims > 2)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: widening has no rule for it", t->name);
    float shrink = (float)sqrt((double)w->n / (double)w->n2);
    uint64_t q_dim = w->kv * w->rep * w->hd;
    /* Q and K norms keep their width but share eps: scaled inputs make eps' = eps * n/n' right for them too */
    float qk = w->has_qk_norm ? shrink : 1;
    float s = strcmp(leaf, "attn_q") == 0 || strcmp(leaf, "attn_k") == 0 ? qk : 1;
    *out = (rule){PAD_NONE, s};
    uint64_t want0 = t->ne[0], want1 = t->ne[1];
    if (t->n_dims == 1 || t->ne[1] == 1) {
        if (is_one_of(leaf, hidden_norms, ASH_ARRAY_LEN(hidden_norms)) && !bias) {
            *out = (rule){PAD_COLS, gemma && strcmp(leaf, "output_norm") == 0 ? 1 : shrink};
            want0 = w->n;
        } else if (bias && strcmp(leaf, "attn_q") == 0) {
            *out = (rule){PAD_HEADS_VEC, s};
            want0 = q_dim;
        } else if (bias && (strcmp(leaf, "attn_output") == 0 || strcmp(leaf, "ffn_down") == 0)) {
            *out = (rule){PAD_COLS, 1};
            want0 = w->n;
        } else if (!(bias && is_one_of(leaf, cols, ASH_ARRAY_LEN(cols))) && !is_one_of(leaf, as_is, ASH_ARRAY_LEN(as_is))) {
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: widening has no rule for it", t->name);
        }
    } else if (strcmp(leaf, "attn_q") == 0) {
        *out = (rule){PAD_HEADS_ROWS, s};
        want0 = w->n, want1 = q_dim;
    } else if (strcmp(leaf, "attn_output") == 0) {
        *out = (rule){PAD_HEADS_COLS, 1};
        want0 = q_dim, want1 = w->n;
    } else if (is_one_of(leaf, cols, ASH_ARRAY_LEN(cols))) {
        *out = (rule){PAD_COLS, s};
        want0 = w->n;
    } else if (strcmp(leaf, "ffn_down") == 0) {
        *out = (rule){PAD_ROWS, 1};
        want1 = w->n;
    } else if (strcmp(leaf, "token_embd") == 0 || strcmp(leaf, "output") == 0) {
        *out = (rule){PAD_COLS, gemma ? shrink : 1};
        want0 = w->n;
    } else {
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: widening has no rule for it", t->name);
    }
    if (t->ne[0] != want0 || t->ne[1] != want1)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s: shape %llu x %llu does not fit the hyperparameters", t->name,
                        (unsigned long long)t->ne[0], (unsigned long long)t->ne[1]);
    return ASH_OK;
}

static bool get_arch_u64(const ash_gguf *g, const char *arch, const char *key, uint64_t *out) {
    char k[128];
    snprintf(k, sizeof k, "%s.%s", arch, key);
    return ash_gguf_get_u64(g, k, out);
}

ash_status ash_widen_new(ash_widen **out, const ash_gguf *g, uint32_t multiple, ash_error *err) {
    static const char *const known[] = {"llama", "qwen2", "qwen3", "gemma3"};
    *out = NULL;
    if (multiple < 2 || multiple > 65536) return ash_fail(err, ASH_E_USAGE, "rows cannot be widened to multiples of %u", multiple);
    ash_status st = ASH_OK;
    ash_str arch;
    ash_widen *w = ash_calloc(1, sizeof *w);
    if (!w) return ash_fail(err, ASH_E_NOMEM, "out of memory for a widening plan");
    if (!ash_gguf_get_str(g, "general.architecture", &arch) || arch.n == 0 || arch.n >= sizeof w->arch) {
        st = ash_fail(err, ASH_E_FORMAT, "%s: key general.architecture is missing", ash_gguf_path(g));
        goto done;
    }
    memcpy(w->arch, arch.p, arch.n);
    if (!is_one_of(w->arch, known, ASH_ARRAY_LEN(known))) {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s: widening knows llama, qwen2, qwen3 and gemma3 only", w->arch);
        goto done;
    }
    uint64_t heads = 0, layers = 0;
    if (!get_arch_u64(g, w->arch, "embedding_length", &w->n) || !get_arch_u64(g, w->arch, "attention.head_count", &heads) || w->n == 0 ||
        heads == 0 || w->n > 1u << 20 || heads > 1u << 16) {
        st = ash_fail(err, ASH_E_FORMAT, "%s.embedding_length or %s.attention.head_count is missing or absurd", w->arch, w->arch);
        goto done;
    }
    if (!get_arch_u64(g, w->arch, "attention.head_count_kv", &w->kv)) w->kv = heads;
    w->has_key_length = get_arch_u64(g, w->arch, "attention.key_length", &w->hd);
    if (!w->has_key_length) w->hd = w->n / heads;
    uint64_t rope_dim;
    w->has_rope_dim = get_arch_u64(g, w->arch, "rope.dimension_count", &rope_dim);
    if (w->kv == 0 || heads % w->kv || w->hd == 0 || w->hd > 1u << 16) {
        st = ash_fail(err, ASH_E_FORMAT, "%llu heads do not divide over %llu KV heads", (unsigned long long)heads, (unsigned long long)w->kv);
        goto done;
    }
    /* one gemma 3 size scales its attention by the hidden width instead of the head size; a wider model would change it */
    if (strcmp(w->arch, "gemma3") == 0 && get_arch_u64(g, w->arch, "block_count", &layers) && layers == 62) {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "gemma3 with 62 layers derives its attention scale from the hidden width: it cannot be widened");
        goto done;
    }
    w->n2 = (w->n + multiple - 1) / multiple * multiple;
    w->rep = w->rep2 = heads / w->kv;
    while ((w->kv * w->rep2 * w->hd) % multiple) w->rep2++; /* at most `multiple` steps */
    w->needed = w->n2 != w->n || w->rep2 != w->rep;
    double eps;
    char key[96];
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", w->arch);
    w->has_eps = ash_gguf_get_f64(g, key, &eps);
    w->eps = w->has_eps ? (float)(eps * (double)w->n / (double)w->n2) : 0;
    w->has_qk_norm = ash_gguf_find_tensor(g, "blk.0.attn_q_norm.weight") != NULL;
    w->n_tensors = ash_gguf_n_tensors(g);
    w->rules = ash_calloc(w->n_tensors + 1, sizeof *w->rules);
    if (!w->rules) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a widening plan");
        goto done;
    }
    for (size_t i = 0; i < w->n_tensors; i++) ASH_TRY_GOTO(rule_for(w, ash_gguf_tensor_at(g, i), &w->rules[i], err), done);
done:
    if (st == ASH_OK) *out = w;
    else ash_widen_free(w);
    return st;
}

void ash_widen_free(ash_widen *w) {
    if (!w) return;
    ash_free(w->rules);
    ash_free(w);
}

bool ash_widen_needed(const ash_widen *w) { return w && w->needed; }
uint32_t ash_widen_n_embd(const ash_widen *w) { return (uint32_t)w->n2; }
uint32_t ash_widen_n_head(const ash_widen *w) { return (uint32_t)(w->kv * w->rep2); }

void ash_widen_shape(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t ne[ASH_GGUF_MAX_DIMS]) {
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
    memcpy(ne, t->ne, sizeof t->ne);
    if (!w) return;
    switch (w->rules[i].kind) {
    case PAD_NONE: break;
    case PAD_COLS: ne[0] = w->n2; break;
    case PAD_ROWS: ne[1] = w->n2; break;
    case PAD_HEADS_ROWS: ne[0] = w->n2, ne[1] = w->kv * w->rep2 * w->hd; break;
    case PAD_HEADS_COLS: ne[0] = w->kv * w->rep2 * w->hd, ne[1] = w->n2; break;
    case PAD_HEADS_VEC: ne[0] = w->kv * w->rep2 * w->hd; break;
    }
}

int64_t ash_widen_source_row(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t row) {
    if (!w) return (int64_t)row;
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
    switch (w->rules[i].kind) {
    case PAD_ROWS:
    case PAD_HEADS_COLS: return row < t->ne[1] ? (int64_t)row : -1;
    case PAD_HEADS_ROWS: {
        uint64_t group = row / (w->rep2 * w->hd), in = row % (w->rep2 * w->hd);
        return in < w->rep * w->hd ? (int64_t)(group * w->rep * w->hd + in) : -1;
    }
    default: return (int64_t)row; /* rows are not padded */
    }
}

/* Copy src (source columns) into the places they have in a widened row, times s; fill the rest. */
static void spread(const ash_widen *w, pad_kind k, uint64_t n_src, const float *src, float *dst, float s, float fill) {
    if (k == PAD_HEADS_COLS || k == PAD_HEADS_VEC) {
        uint64_t a = w->rep * w->hd, b = w->rep2 * w->hd;
        for (uint64_t gr = 0; gr < w->kv; gr++) {
            for (uint64_t j = 0; j < a; j++) dst[gr * b + j] = src[gr * a + j] * s;
            for (uint64_t j = a; j < b; j++) dst[gr * b + j] = fill;
        }
        return;
    }
    uint64_t n2 = k == PAD_COLS || k == PAD_HEADS_ROWS ? w->n2 : n_src;
    for (uint64_t j = 0; j < n_src; j++) dst[j] = src[j] * s;
    for (uint64_t j = n_src; j < n2; j++) dst[j] = fill;
}

bool ash_widen_row(const ash_widen *w, const ash_gguf *g, size_t i, uint64_t row, float *dst, float *scratch) {
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
    uint64_t bytes = ash_dtype_row_bytes(t->type, t->ne[0]);
    if (bytes == 0) return false;
    if (!w) return ash_dtype_decode(t->type, t->data + row * bytes, dst, t->ne[0]);
    int64_t src = ash_widen_source_row(w, g, i, row);
    if (src < 0) {
        uint64_t ne[ASH_GGUF_MAX_DIMS];
        ash_widen_shape(w, g, i, ne);
        memset(dst, 0, ne[0] * sizeof *dst);
        return true;
    }
    if (!ash_dtype_decode(t->type, t->data + (uint64_t)src * bytes, scratch, t->ne[0])) return false;
    spread(w, w->rules[i].kind, t->ne[0], scratch, dst, w->rules[i].scale, 0);
    return true;
}

void ash_widen_crop(const ash_widen *w, const ash_gguf *g, size_t i, const float *wide, float *narrow) {
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
    if (!w) {
        memcpy(narrow, wide, t->ne[0] * sizeof *narrow);
        return;
    }
    pad_kind k = w->rules[i].kind;
    float s = 1.0f / w->rules[i].scale;
    if (k == PAD_HEADS_COLS || k == PAD_HEADS_VEC) {
        uint64_t a = w->rep * w->hd, b = w->rep2 * w->hd;
        for (uint64_t gr = 0; gr < w->kv; gr++)
            for (uint64_t j = 0; j < a; j++) narrow[gr * a + j] = wide[gr * b + j] * s;
        return;
    }
    for (uint64_t j = 0; j < t->ne[0]; j++) narrow[j] = wide[j] * s;
}

void ash_widen_spread(const ash_widen *w, const ash_gguf *g, size_t i, const float *imp, float *wide) {
    const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
    if (!w) {
        memcpy(wide, imp, t->ne[0] * sizeof *wide);
        return;
    }
    /* Zero columns meet zero inputs; a trace of weight keeps an encoder's sums away from 0/0. */
    double sum = 0;
    for (uint64_t j = 0; j < t->ne[0]; j++) sum += imp[j];
    float trace = sum > 0 ? (float)(1e-4 * sum / (double)t->ne[0]) : 1.0f;
    spread(w, w->rules[i].kind, t->ne[0], imp, wide, 1, trace);
}

ash_status ash_widen_kv(const ash_widen *w, const ash_gguf *g, ash_gguf_writer *out, ash_error *err) {
    (void)g;
    if (!w || !w->needed) return ASH_OK;
    char k[128];
    snprintf(k, sizeof k, "%s.embedding_length", w->arch);
    ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)w->n2, err));
    snprintf(k, sizeof k, "%s.attention.head_count", w->arch);
    ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)(w->kv * w->rep2), err));
    snprintf(k, sizeof k, "%s.attention.head_count_kv", w->arch);
    ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)w->kv, err));
    if (w->has_eps) {
        snprintf(k, sizeof k, "%s.attention.layer_norm_rms_epsilon", w->arch);
        ASH_TRY(ash_gguf_set_f32(out, k, w->eps, err));
    }
    if (!w->has_key_length) {
        snprintf(k, sizeof k, "%s.attention.key_length", w->arch);
        ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)w->hd, err));
        snprintf(k, sizeof k, "%s.attention.value_length", w->arch);
        ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)w->hd, err));
        if (!w->has_rope_dim) {
            snprintf(k, sizeof k, "%s.rope.dimension_count", w->arch);
            ASH_TRY(ash_gguf_set_u32(out, k, (uint32_t)w->hd, err));
        }
    }
    return ASH_OK;
}
