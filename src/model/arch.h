/* arch.h - the architecture table: what differs between architectures, as data. A new architecture whose layer is made
 * of the parts named here is one row (docs/howto/add-architecture.md). */
#ifndef ASH_ARCH_H
#define ASH_ARCH_H

#include "model/model_int.h"

typedef enum {
    ASH_SWA_NONE,    /* the file's window key is an error if set */
    ASH_SWA_ALL,     /* a window key, where present, holds for every layer (mistral) */
    ASH_SWA_PATTERN, /* every swa_pattern-th layer is full (il % n == n - 1); the file may override the pattern */
    ASH_SWA_LISTED   /* the file says layer by layer */
} ash_swa_kind;

struct ash_arch {
    const char *name;        /* general.architecture */
    const char *title;       /* for people */
    bool rope_neox;          /* half-split pairs */
    bool no_rope;            /* learned positions instead */
    bool qk_norm;            /* attn_q_norm, attn_k_norm per head */
    bool v_norm;             /* RMS norm without weight on V heads */
    bool v_optional;         /* a layer without attn_v takes its K projection */
    bool qkv_bias;           /* biases of Q, K, V are needed (elsewhere they are taken where the file has them) */
    bool post_norm;          /* post_attention_norm, post_ffw_norm */
    bool out_norm;           /* norms sit on the residual after each add, none before, none at the end (BERT) */
    bool layer_norm;         /* norms are layer norms with biases */
    bool plain_ffn;          /* act(up) -> down, no gate */
    bool encoder;            /* bidirectional, no logits */
    bool pooled_dense;       /* the file may have two matrices that are applied to the pooled vector */
    bool token_types;        /* row 0 of token_types and token_embd_norm at the input */
    bool embd_sqrt;          /* embedding times sqrt(n_embd) */
    bool experts;            /* may have experts: softmax, top-k, renormalised */
    bool ple;                /* may have per-layer embeddings */
    bool layer_scale;        /* layer_output_scale is needed */
    ash_act act;
    ash_swa_kind swa;
    int swa_pattern;
    float swa_rope_base;     /* windowed layers' base without a key; 0: as the full layers */
    bool swa_rope_unscaled;  /* rope scaling and factors hold for full layers only */
    int wide_attn_layers;    /* models with this many layers scale by 1/sqrt(n_embd/n_head); 0: none */
    float attn_scale;        /* on q.k without a key; 0: 1/sqrt(head_dim) */
};

const ash_arch *ash_arch_find(const char *name, size_t n);
/* "llama, qwen3, gemma3" for messages; returns buf. */
const char *ash_arch_names(char *buf, size_t cap);

/* Fill m->hp and the layers' shapes from the keys; checks every value's range. hparams.c */
ash_status ash_hparams_read(ash_model *m, ash_error *err);
/* Bind every tensor with its shape checked; a tensor of the file that nothing asked for is an error. bind.c */
ash_status ash_bind_tensors(ash_model *m, ash_error *err);
/* Rope factors: after the tensors are known. rope.c */
ash_status ash_rope_init(ash_model *m, ash_error *err);

#endif
