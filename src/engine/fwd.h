/* fwd.h - the forward pass: one implementation of a layer over a batch of consecutive tokens of one sequence, used by
 * sessions (threads, the file's matrices) and by layer.h (one thread, float32 panels). What differs is data in ash_fwd. */
#ifndef ASH_FWD_H
#define ASH_FWD_H

#include "engine/layer.h"

/* K or V of one layer; kv.h says how quantized ones are kept. */
typedef struct {
    ash_keys_form form;
    char *p;        /* plain: [n_head_kv][cap][head_dim], position q in slot q % cap; quantized: [n_head_kv][cap / 32] blocks */
    size_t block;   /* quantized: bytes of a block; 0: plain */
    uint16_t *sink; /* quantized: [n_head_kv][32][head_dim] halves of positions below 32 */
    uint16_t *tail; /* quantized: [n_head_kv][64][head_dim] halves of the last 64 positions, q in slot q % 64 */
    float *fresh;   /* quantized and lent: the batch's rows [n_batch][n_head_kv * head_dim]; NULL: they are in ash_fwd.kk, .vv */
} ash_kv_half;
typedef struct {
    ash_kv_half k, v;
    int cap;
} ash_kv;
enum { ASH_KV_SINK = 32, ASH_KV_SPAN = 64 };

typedef enum {
    ASH_MM_EXACT, /* float32 activations on the file's matrices */
    ASH_MM_FAST,  /* 8-bit activations where the matrix' type has an 8-bit form */
    ASH_MM_PACKED /* float32 panels handed in, calling thread only */
} ash_mm_mode;

/* Experts of a batch; the memory is shared with q .. u. Rows of x, y, g, u are the tokens of one expert, or, for a single
 * token, its experts. */
typedef struct {
    float *x, *y;                  /* n_embd */
    float *g, *u;                  /* n_ff_exp */
    float *z;                      /* n_embd: sum of the experts where a dense branch stands beside them */
    float *p;                      /* n_expert: router probabilities */
    float *weight;                 /* n_expert_used per token, by ascending expert */
    int32_t *expert;               /* the same */
    int32_t *order;                /* token * n_expert_used + place, grouped by expert, tokens ascending */
    int32_t *start;                /* n_expert + 1: the groups */
} ash_moe_bufs;

/* A LoRA adapter in use: every product of a matrix it has gets scale * B (A x) added. */
typedef struct {
    const struct ash_adapter *a;
    float scale;
} ash_lora_use;

typedef struct ash_fwd {
    const ash_model *m;
    const ash_kern *k;
    ash_pool *pool;                /* NULL: calling thread */
    ash_mm_mode mode;
    const float *const *packed;    /* ASH_MM_PACKED: by role, of the layer being run */
    ash_layer_tap tap;
    void *tap_ctx;
    const ash_lora_use *lora;
    int n_lora;
    bool rope_long;                /* the timeline is beyond the original context: long factors */

    /* buffers for n_tok tokens, row strides are the width of the row */
    float *x;                      /* residual stream, n_embd */
    float *h;                      /* normalised input, n_embd */
    float *y;                      /* output of O or down, n_embd */
    float *q, *kk, *vv, *o;        /* max_q, max_kv, max_kv, max_q; share memory with g, u */
    float *g, *u;                  /* max_ff */
    float *cs[ASH_ROPE_KINDS];     /* n_rot: (cos, sin) pairs per token */
    float *ple, *ple_tmp;          /* n_layer * n_ple: inputs of the per-layer embedding stages; ple_tmp as g, u */
    float *lora_t, *lora_y;        /* max rank; widest output */
    ash_moe_bufs moe;
    ash_act8 a;
    void *mm_scratch;
    size_t mm_scratch_bytes;       /* per thread */
    char *attn_scratch;
    size_t attn_scratch_bytes;     /* per thread */
} ash_fwd;

/* Floats of the buffers x .. moe and of the 8-bit activations for n_tok tokens and adapters up to max_rank; with `mem`
 * (64-byte aligned, or NULL to count only) they are cut from it. */
uint64_t ash_fwd_place(ash_fwd *f, const ash_model *m, int n_tok, bool act8, int max_rank, float *mem);
/* Widest input row of any product: what scratch and 8-bit activations are made for. */
int ash_fwd_widest(const ash_hparams *hp);

/* Rotation tables of positions pos0 .. pos0 + n_tok - 1. */
void ash_fwd_rope(ash_fwd *f, int pos0, int n_tok);
/* Embedding of n tokens at positions pos0.. into f->x, and their rows of the per-layer embeddings into f->ple. */
void ash_fwd_embed(ash_fwd *f, const ash_token *t, int pos0, int n);
/* Complete f->ple from f->x as embedded, before layer 0. Nothing to do for most models. */
void ash_fwd_ple_inputs(ash_fwd *f, int n_tok);
/* Attention half of layer il for n_tok tokens from position pos0, K and V stored in kv. `pending`: the layer whose output
 * waits in f->y (-1: none) and is added first. Only tokens from `first` on are carried past the K/V store (the
 * last layers of a prompt need its last token only). Leaves the attention output, not yet added, in f->y. */
void ash_fwd_attn(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok, int first, int pending);
/* The batch's last rows of a quantized layer into its sink and tail. ash_fwd_attn does it for layers that lend to none; for
 * the others it is done when the whole batch has passed. */
void ash_fwd_kv_commit(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok);
/* FFN half, and the per-layer embedding stage where there is one, for tokens [first, n_tok). attn_pending: f->y holds the
 * attention output of this layer. Leaves the last output, not yet added, in f->y. */
void ash_fwd_ffn(ash_fwd *f, int il, int n_tok, int first, bool attn_pending);
/* Add what waits in f->y of tokens [first, n_tok): layer il's attention output, or what ends the layer. */
typedef enum { ASH_AFTER_ATTN, ASH_AFTER_LAYER } ash_flush;
void ash_fwd_flush(ash_fwd *f, int il, ash_flush what, int n_tok, int first);
/* Final-normed states of tokens [first, first + n) of the residual stream, in f->h. */
void ash_fwd_hidden(ash_fwd *f, int first, int n);
/* Logits of tokens [first, first + n) of the residual stream, soft-capped. Uses f->h. */
void ash_fwd_head(ash_fwd *f, int first, int n, float *logits);

#endif
