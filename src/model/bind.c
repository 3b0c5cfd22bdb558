/* bind.c - a layer's tensors from the file, every shape checked. Fused tensors become row views, experts banks. A tensor of
 * the file that nothing here asked for is an error: leaving it out would give wrong results without a word. */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>

/* Bound so far, to find the tensors nobody asked for. */
typedef struct {
    ash_model *m;
    bool *bound; /* by tensor index */
} binder;

static const ash_gguf_tensor *find(binder *b, const char *name, bool needed, ash_error *err) {
    const ash_gguf_tensor *t = ash_gguf_find_tensor(b->m->gguf, name);
    if (!t) {
        if (needed) ash_fail(err, ASH_E_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    b->bound[t - ash_gguf_tensor_at(b->m->gguf, 0)] = true;
    return t;
}

/* "blk.IL.NAME" */
static const char *in_layer(char *buf, size_t cap, int il, const char *name, const char *tail) {
    snprintf(buf, cap, "blk.%d.%s%s", il, name, tail);
    return buf;
}

static bool in_file(const binder *b, const char *name) { return ash_gguf_find_tensor(b->m->gguf, name) != NULL; }

/* n_mat matrices of n_rows x n_cols one after the other (1: a plain matrix); *out is the first. */
static ash_status bind_stack(binder *b, const char *name, int64_t n_rows, int64_t n_cols, int64_t n_mat, ash_mat *out,
                             const char **out_name, ash_error *err) {
    const ash_gguf_tensor *t = find(b, name, true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims > (n_mat > 1 ? 3 : 2) || t->ne[0] != (uint64_t)n_cols || t->ne[1] != (uint64_t)n_rows || t->ne[2] != (uint64_t)n_mat)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s is %llu x %llu x %llu in %d dims; %lld x %lld x %lld is expected", name,
                        (unsigned long long)t->ne[2], (unsigned long long)t->ne[1], (unsigned long long)t->ne[0], t->n_dims,
                        (long long)n_mat, (long long)n_rows, (long long)n_cols);
    const ash_dtype_info *d = ash_dtype_get(t->type);
    uint64_t rb = d ? ash_dtype_row_bytes(t->type, t->ne[0]) : 0;
    bool number = d && (d->quantized || t->type == ASH_F32 || t->type == ASH_F16 || t->type == ASH_BF16);
    if (!rb || !number || t->n_bytes != rb * t->ne[1] * t->ne[2])
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: type %s is no weight type", name, ash_dtype_name(t->type));
    *out = (ash_mat){t->type, t->data, (size_t)rb, n_rows, (int)n_cols};
    if (out_name) *out_name = t->name;
    return ASH_OK;
}

static ash_status bind_mat(binder *b, const char *name, int64_t n_rows, int64_t n_cols, ash_mat *out, const char **out_name,
                           ash_error *err) {
    return bind_stack(b, name, n_rows, n_cols, 1, out, out_name, err);
}

/* Rows [row0, row0 + n) of a matrix. */
static ash_mat rows_of(ash_mat w, int64_t row0, int64_t n) {
    w.data += (size_t)row0 * w.row_bytes;
    w.n_rows = n;
    return w;
}

/* A vector as aligned float32: in place when it is, else a copy in the arena. */
static ash_status bind_vec(binder *b, const char *name, int64_t n, const float **out, ash_error *err) {
    const ash_gguf_tensor *t = find(b, name, true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims != 1 || t->ne[0] != (uint64_t)n)
        return ash_fail(err, ASH_E_FORMAT, "tensor %s has %llu values in %d dims; %lld are expected", name, (unsigned long long)t->ne[0],
                        t->n_dims, (long long)n);
    if (t->type == ASH_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
        *out = (const float *)(const void *)t->data;
        return ASH_OK;
    }
    if (t->type != ASH_F32 && t->type != ASH_F16 && t->type != ASH_BF16)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: a vector of type %s is not supported", name, ash_dtype_name(t->type));
    float *p = ash_arena_alloc(&b->m->arena, (size_t)n * sizeof(float));
    if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for tensor %s", name);
    if (!ash_dtype_decode(t->type, t->data, p, (uint64_t)n)) return ash_fail(err, ASH_E_INTERNAL, "tensor %s cannot be decoded", name);
    *out = p;
    return ASH_OK;
}

/* The bias of a matrix where the file has one. */
static ash_status bind_bias(binder *b, int il, const char *name, bool needed, int64_t n, const float **out, ash_error *err) {
    char full[96];
    in_layer(full, sizeof full, il, name, ".bias");
    return needed || in_file(b, full) ? bind_vec(b, full, n, out, err) : ASH_OK;
}

static const char *const k_role_names[ASH_W_COUNT] = {
#define X(role, name) name,
    ASH_ROLE_LIST(X)
#undef X
};
static const char *const k_norm_names[ASH_N_COUNT] = {
#define X(id, name) name,
    ASH_NORM_LIST(X)
#undef X
};
const char *ash_model_role_name(ash_role role) { return k_role_names[role]; }

static ash_status bind_role(binder *b, int il, ash_role r, int64_t rows, int64_t cols, bool bias_needed, ash_error *err) {
    char name[96];
    ash_layer *l = &b->m->layers[il];
    ASH_TRY(bind_mat(b, in_layer(name, sizeof name, il, k_role_names[r], ".weight"), rows, cols, &l->w[r], &l->name[r], err));
    return bind_bias(b, il, k_role_names[r], bias_needed, rows, &l->bias[r], err);
}

static ash_status bind_attention(binder *b, int il, ash_error *err) {
    const ash_arch *a = b->m->arch;
    ash_layer *l = &b->m->layers[il];
    const int64_t e = b->m->hp.n_embd, q = (int64_t)l->n_head * l->head_dim, kv = (int64_t)l->n_head_kv * l->head_dim;
    char name[96];
    ASH_TRY(bind_role(b, il, ASH_W_O, e, q, false, err));
    if (in_file(b, in_layer(name, sizeof name, il, "attn_qkv", ".weight"))) { /* rows of q, then k, then v */
        ash_mat w;
        const char *fused;
        const float *bias = NULL;
        ASH_TRY(bind_mat(b, name, q + 2 * kv, e, &w, &fused, err));
        ASH_TRY(bind_bias(b, il, "attn_qkv", a->qkv_bias, q + 2 * kv, &bias, err));
        const int64_t first[3] = {0, q, q + kv}, n[3] = {q, kv, kv};
        for (int i = 0; i < 3; i++) {
            l->w[ASH_W_Q + i] = rows_of(w, first[i], n[i]);
            l->name[ASH_W_Q + i] = fused;
            l->bias[ASH_W_Q + i] = bias ? bias + first[i] : NULL;
        }
        return ASH_OK;
    }
    ASH_TRY(bind_role(b, il, ASH_W_Q, q, e, a->qkv_bias, err));
    const bool own = l->kv_layer == il; /* where not, the file may have them all the same; they are dead */
    for (int r = ASH_W_K; r <= ASH_W_V; r++) {
        bool there = in_file(b, in_layer(name, sizeof name, il, k_role_names[r], ".weight"));
        if (!there && (!own || (r == ASH_W_V && a->v_optional))) continue;
        ASH_TRY(bind_role(b, il, (ash_role)r, kv, e, a->qkv_bias, err));
    }
    l->v_from_k = own && !l->w[ASH_W_V].data;
    return ASH_OK;
}

static ash_status bind_dense(binder *b, int il, ash_error *err) {
    ash_layer *l = &b->m->layers[il];
    const int64_t e = b->m->hp.n_embd, ff = l->n_ff;
    char name[96];
    ASH_TRY(bind_role(b, il, ASH_W_DOWN, e, ff, false, err));
    if (!b->m->arch->plain_ffn && !in_file(b, in_layer(name, sizeof name, il, "ffn_gate", ".weight"))) { /* rows of gate, then up */
        const ash_gguf_tensor *t = ash_gguf_find_tensor(b->m->gguf, in_layer(name, sizeof name, il, "ffn_up", ".weight"));
        if (!t || t->ne[1] == (uint64_t)ff) return ash_fail(err, ASH_E_FORMAT, "tensor blk.%d.ffn_gate.weight is missing", il);
        ash_mat w;
        const float *bias = NULL;
        ASH_TRY(bind_mat(b, name, 2 * ff, e, &w, &l->name[ASH_W_UP], err));
        ASH_TRY(bind_bias(b, il, "ffn_up", false, 2 * ff, &bias, err));
        l->w[ASH_W_GATE] = rows_of(w, 0, ff);
        l->w[ASH_W_UP] = rows_of(w, ff, ff);
        l->name[ASH_W_GATE] = l->name[ASH_W_UP];
        if (bias) l->bias[ASH_W_GATE] = bias, l->bias[ASH_W_UP] = bias + ff;
        return ASH_OK;
    }
    if (!b->m->arch->plain_ffn) ASH_TRY(bind_role(b, il, ASH_W_GATE, ff, e, false, err));
    return bind_role(b, il, ASH_W_UP, ff, e, false, err);
}

static ash_status bind_bank(binder *b, int il, const char *what, int64_t rows, int64_t cols, ash_bank *out, ash_error *err) {
    char name[96];
    ASH_TRY(bind_stack(b, in_layer(name, sizeof name, il, what, ".weight"), rows, cols, b->m->hp.n_expert, &out->w, &out->name, err));
    out->stride = (size_t)rows * out->w.row_bytes;
    return ASH_OK;
}

/* Experts. With a dense branch beside them (Gemma 4) they and the router read the residual through norms of their own. */
static ash_status bind_experts(binder *b, int il, ash_error *err) {
    ash_model *m = b->m;
    ash_layer *l = &m->layers[il];
    const int64_t e = m->hp.n_embd, ff = m->hp.n_ff_exp;
    char name[96];
    ash_moe *x = ash_arena_alloc(&m->arena, sizeof *x);
    if (!x) return ash_fail(err, ASH_E_NOMEM, "out of memory for the experts of layer %d", il);
    *x = (ash_moe){.n_ff = (int)ff, .in_scale = 1.0f / sqrtf((float)e)};
    l->moe = x;
    ASH_TRY(bind_mat(b, in_layer(name, sizeof name, il, "ffn_gate_inp", ".weight"), m->hp.n_expert, e, &x->router, &x->router_name, err));
    if (in_file(b, in_layer(name, sizeof name, il, "ffn_gate_inp", ".scale"))) ASH_TRY(bind_vec(b, name, e, &x->router_scale, err));
    if (in_file(b, in_layer(name, sizeof name, il, "ffn_down_exps", ".scale")))
        ASH_TRY(bind_vec(b, name, m->hp.n_expert, &x->down_scale, err));
    ASH_TRY(bind_bank(b, il, "ffn_down_exps", e, ff, &x->down, err));
    if (!in_file(b, in_layer(name, sizeof name, il, "ffn_gate_up_exps", ".weight"))) {
        ASH_TRY(bind_bank(b, il, "ffn_gate_exps", ff, e, &x->gate, err));
        return bind_bank(b, il, "ffn_up_exps", ff, e, &x->up, err);
    }
    ASH_TRY(bind_bank(b, il, "ffn_gate_up_exps", 2 * ff, e, &x->gate, err)); /* rows of gate, then up, of each expert */
    x->up = x->gate;
    x->gate.w = rows_of(x->gate.w, 0, ff);
    x->up.w = rows_of(x->up.w, ff, ff);
    return ASH_OK;
}

static ash_status bind_norms(binder *b, int il, ash_error *err) {
    const ash_model *m = b->m;
    const ash_arch *a = m->arch;
    ash_layer *l = &b->m->layers[il];
    const bool pre = !a->out_norm, own = l->kv_layer == il, both = l->moe && l->w[ASH_W_DOWN].data;
    const bool has[ASH_N_COUNT] = {[ASH_N_ATTN] = pre,
                                   [ASH_N_Q] = a->qk_norm,
                                   [ASH_N_K] = a->qk_norm && own,
                                   [ASH_N_POST_ATTN] = a->post_norm,
                                   [ASH_N_OUT_ATTN] = a->out_norm,
                                   [ASH_N_FFN] = pre,
                                   [ASH_N_POST_FFN] = a->post_norm,
                                   [ASH_N_OUT_FFN] = a->out_norm,
                                   [ASH_N_POST_DENSE] = both,
                                   [ASH_N_PRE_EXP] = both,
                                   [ASH_N_POST_EXP] = both,
                                   [ASH_N_PLE] = m->hp.n_ple > 0};
    char name[96];
    for (int i = 0; i < ASH_N_COUNT; i++) {
        int64_t n = i == ASH_N_Q || i == ASH_N_K ? l->head_dim : m->hp.n_embd;
        in_layer(name, sizeof name, il, k_norm_names[i], ".weight");
        if (!has[i] && !(i == ASH_N_K && a->qk_norm && in_file(b, name))) continue;
        ASH_TRY(bind_vec(b, name, n, &l->norm[i], err));
        if (a->layer_norm) ASH_TRY(bind_bias(b, il, k_norm_names[i], true, n, &l->norm_b[i], err));
    }
    return ASH_OK;
}

static ash_status bind_layer(binder *b, int il, ash_error *err) {
    const ash_model *m = b->m;
    ash_layer *l = &b->m->layers[il];
    char name[96];
    ASH_TRY(bind_attention(b, il, err));
    if (m->hp.n_expert && in_file(b, in_layer(name, sizeof name, il, "ffn_gate_inp", ".weight"))) ASH_TRY(bind_experts(b, il, err));
    if (!l->moe || in_file(b, in_layer(name, sizeof name, il, "ffn_down", ".weight"))) ASH_TRY(bind_dense(b, il, err));
    ASH_TRY(bind_norms(b, il, err));
    if (m->hp.n_ple) {
        ASH_TRY(bind_mat(b, in_layer(name, sizeof name, il, "inp_gate", ".weight"), m->hp.n_ple, m->hp.n_embd, &l->ple_gate,
                         &l->ple_gate_name, err));
        ASH_TRY(bind_mat(b, in_layer(name, sizeof name, il, "proj", ".weight"), m->hp.n_embd, m->hp.n_ple, &l->ple_proj, &l->ple_proj_name,
                         err));
    }
    if (m->arch->layer_scale) {
        const float *s;
        ASH_TRY(bind_vec(b, in_layer(name, sizeof name, il, "layer_output_scale", ".weight"), 1, &s, err));
        l->out_scale = *s;
    }
    return ASH_OK;
}

/* Rows that a table of the file has, at least one. */
static int64_t table_rows(const binder *b, const char *name) {
    const ash_gguf_tensor *t = ash_gguf_find_tensor(b->m->gguf, name);
    return t && t->ne[1] >= 1 && t->ne[1] <= INT32_MAX ? (int64_t)t->ne[1] : 1;
}

/* Beside the token's row: types and learned positions (BERT), per-layer embeddings (Gemma 4 E). */
static ash_status bind_input(binder *b, ash_error *err) {
    ash_model *m = b->m;
    ash_hparams *hp = &m->hp;
    const int64_t e = hp->n_embd, wide = (int64_t)hp->n_ple * hp->n_layer;
    if (m->arch->token_types) {
        ASH_TRY(bind_mat(b, "token_types.weight", table_rows(b, "token_types.weight"), e, &m->type_embd, NULL, err));
        ASH_TRY(bind_vec(b, "token_embd_norm.weight", e, &m->embd_norm, err));
        ASH_TRY(bind_vec(b, "token_embd_norm.bias", e, &m->embd_norm_b, err));
    }
    if (m->arch->no_rope) {
        ASH_TRY(bind_mat(b, "position_embd.weight", table_rows(b, "position_embd.weight"), e, &m->pos_embd, NULL, err));
        hp->n_pos = (int)m->pos_embd.n_rows;
        hp->n_ctx_train = ASH_MIN(hp->n_ctx_train, hp->n_pos);
    }
    if (!hp->n_ple) return ASH_OK;
    ASH_TRY(bind_mat(b, "per_layer_token_embd.weight", hp->n_vocab, wide, &m->ple_embd, NULL, err));
    ASH_TRY(bind_mat(b, "per_layer_model_proj.weight", wide, e, &m->ple_proj, &m->ple_proj_name, err));
    return bind_vec(b, "per_layer_proj_norm.weight", hp->n_ple, &m->ple_norm, err);
}

static ash_status bind_all(binder *b, ash_error *err) {
    ash_model *m = b->m;
    const ash_gguf_tensor *t = find(b, "token_embd.weight", true, err);
    if (!t) return ASH_E_FORMAT;
    if (t->n_dims != 2 || t->ne[1] < 1 || t->ne[1] > INT32_MAX)
        return ash_fail(err, ASH_E_FORMAT, "tensor token_embd.weight must have two dims and at most 2^31 rows");
    m->hp.n_vocab = (int)t->ne[1];
    ASH_TRY(bind_mat(b, "token_embd.weight", m->hp.n_vocab, m->hp.n_embd, &m->embd, &m->embd_name, err));
    m->tied = !m->arch->encoder && !in_file(b, "output.weight");
    m->head = m->embd;
    m->head_name = m->embd_name;
    if (!m->arch->encoder && !m->tied) ASH_TRY(bind_mat(b, "output.weight", m->hp.n_vocab, m->hp.n_embd, &m->head, &m->head_name, err));
    ASH_TRY(bind_input(b, err));
    if (!m->arch->out_norm) ASH_TRY(bind_vec(b, "output_norm.weight", m->hp.n_embd, &m->out_norm, err));
    if (m->arch->pooled_dense && in_file(b, "dense_2.weight")) {
        const int64_t n = table_rows(b, "dense_2.weight");
        ASH_TRY(bind_mat(b, "dense_2.weight", n, m->hp.n_embd, &m->dense_2, NULL, err));
        ASH_TRY(bind_mat(b, "dense_3.weight", m->hp.n_embd, n, &m->dense_3, NULL, err));
    }
    for (int il = 0; il < m->hp.n_layer; il++) ASH_TRY(bind_layer(b, il, err));
    if (m->hp.n_rope) { /* read by rope.c */
        find(b, "rope_freqs.weight", false, NULL);
        find(b, "rope_factors_short.weight", false, NULL);
        find(b, "rope_factors_long.weight", false, NULL);
    }
    for (size_t i = 0; i < ash_gguf_n_tensors(m->gguf); i++)
        if (!b->bound[i])
            return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s is not known to architecture %s", ash_gguf_tensor_at(m->gguf, i)->name,
                            m->arch->name);
    return ASH_OK;
}

ash_status ash_bind_tensors(ash_model *m, ash_error *err) {
    binder b = {m, ash_calloc(ash_gguf_n_tensors(m->gguf), sizeof *b.bound)};
    if (!b.bound) return ash_fail(err, ASH_E_NOMEM, "out of memory for the tensor list");
    ash_status st = bind_all(&b, err);
    ash_free(b.bound);
    return st;
}
