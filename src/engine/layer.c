/* layer.c - layer.h on top of the forward pass: lays the caller's scratch out as the pass' buffers and runs its halves
 * without a pool. */
#include "engine/fwd.h"

ash_tap_point ash_role_tap(ash_role role) {
    switch (role) {
    case ASH_W_O: return ASH_TAP_O_IN;
    case ASH_W_GATE:
    case ASH_W_UP: return ASH_TAP_FFN_IN;
    case ASH_W_DOWN: return ASH_TAP_DOWN_IN;
    default: return ASH_TAP_ATTN_IN;
    }
}

static size_t pad16(size_t n) { return (n + 15) / 16 * 16; }
static size_t kv_floats(const ash_model *m, int n_tok) { return pad16((size_t)n_tok * (size_t)m->hp.max_kv); }
static size_t attn_floats(const ash_model *m, int n_tok) {
    return pad16(ash_attn_scratch_bytes(m->hp.max_head_dim, m->hp.max_head, n_tok) / sizeof(float) + 1);
}
/* Layers with matrices that are not packed need a block for unpacking them. */
static size_t mm_floats(const ash_model *m) {
    return m->hp.n_expert || m->hp.n_ple ? pad16(ash_mm_scratch_bytes(ash_fwd_widest(&m->hp)) / sizeof(float)) : 0;
}

size_t ash_layer_scratch_floats(const ash_model *m, int n_tok) {
    ash_fwd f;
    return (size_t)ash_fwd_place(&f, m, n_tok, false, 0, NULL) + 2 * kv_floats(m, n_tok) + attn_floats(m, n_tok) + mm_floats(m) + 16;
}

/* ---- the state: residual, ple, then K and V of each lending layer ---- */
static size_t x_floats(const ash_model *m, int n_tok) { return pad16((size_t)n_tok * (size_t)m->hp.n_embd); }
static size_t ple_floats(const ash_model *m, int n_tok) { return pad16((size_t)n_tok * (size_t)m->hp.n_layer * (size_t)m->hp.n_ple); }
static size_t lent_half(const ash_model *m, int il, int n_tok) {
    const ash_layer *l = &m->layers[il];
    return l->kv_lent ? pad16((size_t)n_tok * (size_t)l->n_head_kv * (size_t)l->head_dim) : 0;
}
static size_t lent_before(const ash_model *m, int il, int n_tok) {
    size_t at = 0;
    for (int i = 0; i < il; i++) at += 2 * lent_half(m, i, n_tok);
    return at;
}

size_t ash_layer_state_floats(const ash_model *m, int n_tok) {
    return x_floats(m, n_tok) + ple_floats(m, n_tok) + lent_before(m, m->hp.n_layer, n_tok);
}

void ash_layer_state_parts(const ash_model *m, int n_tok, size_t *ple, size_t *lent) {
    *ple = x_floats(m, n_tok);
    *lent = *ple + ple_floats(m, n_tok);
}

static ash_kv plain_kv(float *k, size_t half, int cap) {
    return (ash_kv){{.form = ASH_KEYS_F32, .p = (char *)k}, {.form = ASH_KEYS_F32, .p = (char *)(k + half)}, cap};
}

/* scratch: attention, K, V, unpacking, then the pass' buffers; x and ple are the state's. */
static ash_kv place(ash_fwd *f, const ash_model *m, const ash_kern *k, int layer, const float *const *packed, float *x, int n_tok,
                    float *scratch, ash_layer_tap tap, void *ctx) {
    scratch = (float *)(((uintptr_t)scratch + 63) / 64 * 64);
    *f = (ash_fwd){.m = m, .k = k, .mode = ASH_MM_PACKED, .packed = packed, .tap = tap, .tap_ctx = ctx};
    f->rope_long = m->hp.rope_long_after && n_tok > m->hp.rope_long_after;
    f->attn_scratch = (char *)scratch;
    scratch += attn_floats(m, n_tok);
    ash_kv kv = plain_kv(scratch, kv_floats(m, n_tok), n_tok);
    scratch += 2 * kv_floats(m, n_tok);
    f->mm_scratch = scratch;
    f->mm_scratch_bytes = mm_floats(m) * sizeof(float);
    ash_fwd_place(f, m, n_tok, false, 0, scratch + mm_floats(m));
    f->x = x;
    if (m->hp.n_ple) f->ple = x + x_floats(m, n_tok);
    const int src = m->layers[layer].kv_layer;
    if (m->layers[src].kv_lent) {
        float *lent = x + x_floats(m, n_tok) + ple_floats(m, n_tok) + lent_before(m, src, n_tok);
        kv = plain_kv(lent, lent_half(m, src, n_tok), n_tok);
    }
    return kv;
}

static void attn_half(ash_fwd *f, int layer, const ash_kv *kv, int n_tok) {
    if (layer == 0) ash_fwd_ple_inputs(f, n_tok);
    ash_fwd_rope(f, 0, n_tok);
    ash_fwd_attn(f, layer, kv, 0, n_tok, 0, -1);
}

void ash_layer_apply_attn(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                          float *scratch, ash_layer_tap tap, void *ctx) {
    ash_fwd f;
    ash_kv kv = place(&f, m, k, layer, packed, x, n_tok, scratch, tap, ctx);
    attn_half(&f, layer, &kv, n_tok);
    ash_fwd_flush(&f, layer, ASH_AFTER_ATTN, n_tok, 0);
}

void ash_layer_apply_from(const ash_model *m, const ash_kern *k, int layer, ash_layer_stage from, const float *const packed[ASH_W_COUNT],
                          float *x, int n_tok, float *scratch, ash_layer_tap tap, void *ctx) {
    ash_fwd f;
    ash_kv kv = place(&f, m, k, layer, packed, x, n_tok, scratch, tap, ctx);
    bool attn = from == ASH_STAGE_ATTN;
    if (attn) attn_half(&f, layer, &kv, n_tok);
    ash_fwd_ffn(&f, layer, n_tok, 0, attn);
    ash_fwd_flush(&f, layer, ASH_AFTER_LAYER, n_tok, 0);
}

void ash_layer_apply(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                     float *scratch, ash_layer_tap tap, void *ctx) {
    ash_layer_apply_from(m, k, layer, ASH_STAGE_ATTN, packed, x, n_tok, scratch, tap, ctx);
}

void ash_embed_tokens(const ash_model *m, const ash_kern *k, const ash_token *t, int n, float *x) {
    ash_fwd f = {.m = m, .k = k, .x = x, .ple = m->hp.n_ple ? x + x_floats(m, n) : NULL};
    ash_fwd_embed(&f, t, 0, n);
}

void ash_final_norm(const ash_model *m, const ash_kern *k, const float *x, int n_tok, float *y) {
    const int n = m->hp.n_embd;
    for (int64_t t = 0; t < n_tok; t++) {
        if (m->out_norm)
            k->rmsnorm(x + t * n, m->out_norm, n, m->hp.eps, y + t * n);
        else
            memmove(y + t * n, x + t * n, (size_t)n * sizeof *y);
    }
}
