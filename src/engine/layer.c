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

size_t ash_layer_scratch_floats(const ash_model *m, int n_tok) {
    return (size_t)ash_fwd_floats(m, n_tok, false) + 2 * kv_floats(m, n_tok) + attn_floats(m, n_tok) + 16;
}

/* scratch: attention, K, V, then the pass' buffers. f->x is replaced by the caller's. */
static ash_kv place(ash_fwd *f, const ash_model *m, const ash_kern *k, const float *const *packed, float *x, int n_tok, float *scratch,
                    ash_layer_tap tap, void *ctx) {
    scratch = (float *)(((uintptr_t)scratch + 63) / 64 * 64);
    *f = (ash_fwd){.m = m, .k = k, .mode = ASH_MM_PACKED, .packed = packed, .tap = tap, .tap_ctx = ctx};
    f->attn_scratch = (char *)scratch;
    ash_kv kv = {scratch + attn_floats(m, n_tok), scratch + attn_floats(m, n_tok) + kv_floats(m, n_tok), n_tok};
    ash_fwd_place(f, m, n_tok, false, scratch + attn_floats(m, n_tok) + 2 * kv_floats(m, n_tok));
    f->x = x;
    return kv;
}

void ash_layer_apply_attn(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                          float *scratch, ash_layer_tap tap, void *ctx) {
    ash_fwd f;
    ash_kv kv = place(&f, m, k, packed, x, n_tok, scratch, tap, ctx);
    ash_fwd_rope(&f, 0, n_tok);
    ash_fwd_attn(&f, layer, &kv, 0, n_tok, 0, -1);
    ash_fwd_flush(&f, layer, ASH_N_POST_ATTN, n_tok, 0);
}

void ash_layer_apply_from(const ash_model *m, const ash_kern *k, int layer, ash_layer_stage from, const float *const packed[ASH_W_COUNT],
                          float *x, int n_tok, float *scratch, ash_layer_tap tap, void *ctx) {
    ash_fwd f;
    ash_kv kv = place(&f, m, k, packed, x, n_tok, scratch, tap, ctx);
    bool attn = from == ASH_STAGE_ATTN;
    if (attn) {
        ash_fwd_rope(&f, 0, n_tok);
        ash_fwd_attn(&f, layer, &kv, 0, n_tok, 0, -1);
    }
    ash_fwd_ffn(&f, layer, n_tok, 0, attn);
    ash_fwd_flush(&f, layer, ASH_N_POST_FFN, n_tok, 0);
}

void ash_layer_apply(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                     float *scratch, ash_layer_tap tap, void *ctx) {
    ash_layer_apply_from(m, k, layer, ASH_STAGE_ATTN, packed, x, n_tok, scratch, tap, ctx);
}

void ash_embed_tokens(const ash_model *m, const ash_kern *k, const ash_token *t, int n, float *x) {
    ash_fwd f = {.m = m, .k = k, .x = x};
    ash_fwd_embed(&f, t, n);
}

void ash_final_norm(const ash_model *m, const ash_kern *k, const float *x, int n_tok, float *y) {
    const int n = m->hp.n_embd;
    for (int64_t t = 0; t < n_tok; t++) k->rmsnorm(x + t * n, m->out_norm, n, m->hp.eps, y + t * n);
}
