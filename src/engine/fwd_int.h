/* fwd_int.h - what the files of the forward pass share: the context of a stage and the few helpers every stage uses.
 * A stage does for a token all that can be done for it between two matrix products. */
#ifndef ASH_FWD_INT_H
#define ASH_FWD_INT_H

#include "engine/fwd.h"

enum { ASH_STAGE_GRAIN = 8 };

/* An output that waits in f->y: x += post(y + bias), then x = after(x), then x *= scale. */
typedef struct {
    const float *bias, *post, *after, *after_b; /* each may be NULL */
    float scale;
} ash_pending;

typedef struct {
    ash_fwd *f;
    const ash_layer *l;
    int il;
    const ash_pending *pend;    /* NULL: nothing waits */
    bool quant;                 /* fill f->a for the next product */
    const float *norm, *norm_b; /* NULL: h = x */
    const ash_kv *kv;
    int pos0, first, n_tok;
    const ash_token *tokens;
    int row0; /* moe.c: where the group of the expert starts in order[] */
    float *z; /* moe.c: sum of the experts */
} ash_stage;

/* fn over tokens [first, n_tok): it gets indices counted from `first`. */
static inline void ash_stage_run(const ash_stage *s, ash_pool_fn fn) {
    int64_t n = s->n_tok - s->first;
    if (n > 0) ash_pool_run(s->f->pool, n, ASH_STAGE_GRAIN, fn, (void *)(uintptr_t)s);
}

/* Row t of the 8-bit activations from K floats. */
static inline void ash_quant_row(ash_fwd *f, int64_t t, const float *x, int K) {
    f->k->quant8(x, K, f->a.q + t * f->a.ld_q, f->a.d + t * f->a.ld_d, f->a.b + t * f->a.ld_b);
}

static inline bool ash_has_8bit(const ash_fwd *f, const ash_mat *w) {
    return f->mode == ASH_MM_FAST && w->data && ash_dtype_i8_form(w->type).G > 0;
}

static inline void ash_tap(ash_fwd *f, int il, ash_tap_point p, int expert, const float *x, int n_rows, int K) {
    if (f->tap && n_rows > 0) f->tap(f->tap_ctx, il, p, expert, x, K, n_rows, K);
}

/* RMS or layer norm of a row, as the model has it. */
void ash_norm_row(const ash_fwd *f, const float *x, const float *w, const float *b, int n, float *y);
/* Add what waits for token t. */
void ash_add_pending(const ash_stage *s, int64_t t);
void ash_flush_stage(void *ctx, int64_t b, int64_t e, int ith);
/* Add what waits, normalise into f->h, quantize. */
void ash_norm_stage(void *ctx, int64_t b, int64_t e, int ith);

ash_pending ash_attn_output(const ash_layer *l);
ash_pending ash_ffn_output(const ash_layer *l);
/* What ends the layer: the per-layer embedding stage's output, or the FFN's. */
ash_pending ash_layer_output(const ash_layer *l);

/* One dispatch for all matrices that read the same input: n_rows rows of x, whose 8-bit form starts at row q_row of f->a. */
void ash_fwd_product(ash_fwd *f, const ash_mm_job *jobs, int n_jobs, const float *x, int q_row, int n_rows);
/* Matrices of layer il by role, those that it has, on rows [first, n_tok) of x; y[i] rows are as wide as the matrix has rows.
 * Adapters are added. */
void ash_fwd_products(ash_fwd *f, int il, const ash_role *roles, float *const *y, int n, const float *x, int first, int n_tok);

/* ple.c: x += the FFN's output; f->y = projection of gelu(gate x) * ple. */
void ash_ple_layer(ash_fwd *f, int il, int n_tok, int first);
/* moe.c: f->y = sum of the chosen experts of f->h (plus a normed dense branch that is in f->y already). */
void ash_moe_layer(ash_fwd *f, int il, int n_tok, int first);
/* lora.c: y += scale * B (A x) of every adapter that has this matrix. */
void ash_lora_add(ash_fwd *f, int il, ash_role role, const float *x, int n_rows, float *y);
void ash_lora_head(ash_fwd *f, const float *x, int n_rows, float *logits);

#endif
