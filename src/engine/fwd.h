/* fwd.h - the forward pass: one implementation of a layer over a batch of consecutive tokens of one sequence, used by
 * sessions (threads, the file's matrices) and by layer.h (one thread, float32 panels). What differs is data in ash_fwd. */
#ifndef ASH_FWD_H
#define ASH_FWD_H

#include "engine/layer.h"

/* K and V of one layer: [n_head_kv][cap][head_dim] halves or floats; position p lives in slot p % cap. */
typedef struct {
    void *k, *v;
    int cap;
} ash_kv;

typedef enum {
    ASH_MM_EXACT, /* float32 activations on the file's matrices */
    ASH_MM_FAST,  /* 8-bit activations where the matrix' type has an 8-bit form */
    ASH_MM_PACKED /* float32 panels handed in, calling thread only */
} ash_mm_mode;

typedef struct ash_fwd {
    const ash_model *m;
    const ash_kern *k;
    ash_pool *pool;                /* NULL: calling thread */
    ash_mm_mode mode;
    bool kv_f16;
    const float *const *packed;    /* ASH_MM_PACKED: by role, of the layer being run */
    ash_layer_tap tap;
    void *tap_ctx;

    /* buffers for n_tok tokens, row strides are the width of the row */
    float *x;                      /* residual stream, n_embd */
    float *h;                      /* normalised input, n_embd */
    float *y;                      /* output of O or down, n_embd */
    float *q, *kk, *vv, *o;        /* max_q, max_kv, max_kv, max_q; share memory with g, u */
    float *g, *u;                  /* max_ff */
    float *cs[ASH_ROPE_KINDS];     /* n_rot: (cos, sin) pairs per token */
    ash_act8 a;
    void *mm_scratch;
    size_t mm_scratch_bytes;       /* per thread */
    char *attn_scratch;
    size_t attn_scratch_bytes;     /* per thread */
} ash_fwd;

/* Floats of the buffers x .. cs for n_tok tokens, and of the 8-bit activations; then cut `mem` (64-byte aligned) into them. */
uint64_t ash_fwd_floats(const ash_model *m, int n_tok, bool act8);
void ash_fwd_place(ash_fwd *f, const ash_model *m, int n_tok, bool act8, float *mem);

/* Rotation tables of positions pos0 .. pos0 + n_tok - 1. */
void ash_fwd_rope(ash_fwd *f, int pos0, int n_tok);
/* Embedding of n tokens into f->x. */
void ash_fwd_embed(ash_fwd *f, const ash_token *t, int n);
/* Attention half of layer il for n_tok tokens from position pos0, K and V stored in kv. `pending`: the layer whose FFN
 * output waits in f->y (-1: none) and is added first. Only tokens from `first` on are carried past the K/V store (the
 * last layer of a prompt needs its last token only). Leaves the attention output, not yet added, in f->y. */
void ash_fwd_attn(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok, int first, int pending);
/* FFN half for tokens [first, n_tok). attn_pending: f->y holds the attention output of this layer. Leaves the FFN
 * output in f->y. */
void ash_fwd_ffn(ash_fwd *f, int il, int n_tok, int first, bool attn_pending);
/* Add what waits in f->y of tokens [first, n_tok): the post norm of layer il given by `norm`, then the residual. */
void ash_fwd_flush(ash_fwd *f, int il, ash_norm norm, int n_tok, int first);
/* Logits of tokens [first, first + n) of the residual stream, soft-capped. Uses f->h. */
void ash_fwd_head(ash_fwd *f, int first, int n, float *logits);

#endif
