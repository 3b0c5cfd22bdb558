/* model_int.h - a model as the engine sees it: hyperparameters and, per layer, matrices and vectors.
 *
 * Everything in which architectures differ is data here (filled by arch.c, hparams.c and bind.c from the file), so that
 * there is one forward pass. Matrices stay in the file's mapping, in the file's types; vectors and rope factors are small
 * float32 copies in the model's arena. Immutable after load. docs/decisions/0005-layer-data.md says why it is cut so. */
#ifndef ASH_MODEL_INT_H
#define ASH_MODEL_INT_H

#include "ashlar/model.h"
#include "base/base.h"
#include "kern/kern.h"

/* The matrices of a plain layer. Role, name in reports, tensor name after "blk.N.". A fused tensor (attn_qkv, or gate and
 * up in one ffn_up) is bound as row views: several roles then point into one tensor and share its name. */
#define ASH_ROLE_LIST(X)                                                                                               \
    X(Q, "attn_q")                                                                                                     \
    X(K, "attn_k")                                                                                                     \
    X(V, "attn_v")                                                                                                     \
    X(O, "attn_output")                                                                                                \
    X(GATE, "ffn_gate")                                                                                                \
    X(UP, "ffn_up")                                                                                                    \
    X(DOWN, "ffn_down")

typedef enum {
#define X(role, name) ASH_W_##role,
    ASH_ROLE_LIST(X)
#undef X
    ASH_W_COUNT
} ash_role;

/* The norms of a layer; NULL where the architecture has none. */
#define ASH_NORM_LIST(X)                                                                                               \
    X(ATTN, "attn_norm")           /* n_embd, before attention */                                                      \
    X(Q, "attn_q_norm")            /* head_dim, on each query head before rope */                                      \
    X(K, "attn_k_norm")            /* head_dim, on each key head before rope */                                        \
    X(POST_ATTN, "post_attention_norm") /* n_embd, on the attention output before the residual add */                  \
    X(OUT_ATTN, "attn_output_norm") /* n_embd, on the residual after the attention output was added */                 \
    X(FFN, "ffn_norm")             /* n_embd */                                                                        \
    X(POST_FFN, "post_ffw_norm")   /* n_embd, on the FFN output before the residual add */                             \
    X(OUT_FFN, "layer_output_norm") /* n_embd, on the residual after the FFN output was added */                       \
    X(POST_DENSE, "post_ffw_norm_1") /* n_embd, on the dense branch beside experts */                                  \
    X(PRE_EXP, "pre_ffw_norm_2")   /* n_embd, input of the experts beside a dense branch */                            \
    X(POST_EXP, "post_ffw_norm_2") /* n_embd, on the sum of the experts */                                             \
    X(PLE, "post_norm")            /* n_embd, on the output of the per-layer embedding stage */

typedef enum {
#define X(id, name) ASH_N_##id,
    ASH_NORM_LIST(X)
#undef X
    ASH_N_COUNT
} ash_norm;

typedef enum { ASH_ACT_SILU, ASH_ACT_GELU /* tanh form */, ASH_ACT_GELU_ERF } ash_act;

/* How the pooled vector of a text is made; the file's pooling_type keys use these numbers. */
typedef enum { ASH_POOL_NONE = 0, ASH_POOL_MEAN = 1, ASH_POOL_CLS = 2, ASH_POOL_LAST = 3 } ash_pool_kind;

/* One way to rotate. Layers point at one of at most two. */
typedef struct {
    int n_rot;        /* rotated dims of a head, even */
    float base;
    float *freq;      /* n_rot/2 angles per position, all scaling and factors applied */
    float *freq_long; /* the same for timelines longer than hp.rope_long_after, or NULL */
    float magnitude;  /* multiplies cos and sin (YaRN, longrope), else 1 */
} ash_rope;

enum { ASH_ROPE_FULL = 0, ASH_ROPE_SWA = 1, ASH_ROPE_KINDS = 2, ASH_ROPE_NONE = -1 };

typedef struct {
    int n_layer, n_embd, n_vocab, n_ctx_train;
    float eps;
    float embd_scale;      /* 1, or sqrt(n_embd) */
    float attn_scale;      /* on q.k */
    float attn_softcap;    /* 0: none */
    float final_softcap;   /* 0: none */
    bool rope_neox;        /* half-split pairs; else adjacent */
    bool layer_norm;       /* norms subtract the mean and have biases; else RMS norms */
    bool causal;           /* false: an encoder, every token sees both sides, no logits */
    ash_act act;
    ash_pool_kind pooling; /* NONE where the file does not say */
    ash_rope rope[ASH_ROPE_KINDS];
    int n_rope;            /* kinds in use */
    int rope_long_after;   /* positions of the original context; long factors beyond. 0: one set of factors */
    int n_pos;             /* learned positions; 0: none */
    int n_ple;             /* per-layer embedding width; 0: none */
    int n_expert, n_expert_used, n_ff_exp; /* 0: none */
    int last_kv;           /* last layer with K and V of its own: later ones need only the tokens asked for */
    /* maxima over layers, for scratch */
    int max_q, max_kv, max_ff, max_head, max_head_dim, max_window;
} ash_hparams;

/* A bank of experts: matrix e of a role is w[role] with its data moved by e * stride bytes. */
typedef struct {
    ash_mat w;        /* expert 0 */
    size_t stride;
    const char *name; /* the 3-dim tensor it is a part of */
} ash_bank;

typedef struct {
    ash_mat router;              /* n_expert x n_embd */
    const char *router_name;
    const float *router_scale;   /* n_embd: the router reads unweighted RMS norm(residual) * in_scale * this; NULL: the experts' input */
    float in_scale;
    ash_bank gate, up, down;
    const float *down_scale;     /* n_expert factors on the outputs, or NULL */
    int n_ff;
} ash_moe;

typedef struct {
    ash_mat w[ASH_W_COUNT];             /* data NULL: the layer has none */
    const char *name[ASH_W_COUNT];      /* tensor names, owned by the gguf */
    const float *bias[ASH_W_COUNT];     /* or NULL */
    const float *norm[ASH_N_COUNT];
    const float *norm_b[ASH_N_COUNT];   /* with hp.layer_norm */
    ash_moe *moe;                       /* experts instead of, or beside, the dense matrices; or NULL */
    ash_mat ple_gate, ple_proj;         /* with hp.n_ple */
    const char *ple_gate_name, *ple_proj_name;
    float out_scale;                    /* multiplies the residual leaving the layer */
    int n_head, n_head_kv, head_dim, n_ff;
    int window;                         /* keys a query sees, itself included (encoders: window/2 on either side); 0: all */
    int rope;                           /* index into hp.rope, or ASH_ROPE_NONE */
    int kv_layer;                       /* layer whose K and V are read; itself unless shared */
    bool kv_lent;                       /* another layer reads this one's K and V */
    bool v_norm;                        /* V heads get an RMS norm without weight */
    bool v_from_k;                      /* V is the K projection before norm and rope */
} ash_layer;

typedef struct ash_arch ash_arch;       /* a row of the architecture table, arch.h */

struct ash_model {
    _Atomic int refs;
    ash_gguf *gguf;
    ash_arena arena;
    const ash_arch *arch;
    ash_hparams hp;
    ash_layer *layers;
    ash_mat embd, head;                 /* the same tensor when tied */
    const char *embd_name, *head_name;
    const float *out_norm;              /* NULL where layers end with a norm of their own */
    ash_mat pos_embd, type_embd;        /* encoders: added to the token's row; data NULL: none */
    const float *embd_norm, *embd_norm_b; /* layer norm after that, or NULL */
    ash_mat dense_2, dense_3;           /* encoders: applied to the pooled vector, n_embd -> n -> n_embd; data NULL: none */
    ash_mat ple_embd, ple_proj;         /* with hp.n_ple: n_vocab and n_embd -> n_layer * n_ple, layer-major rows */
    const char *ple_proj_name;
    const float *ple_norm;              /* n_ple */
    bool tied;
    struct ash_model_lazy *lazy;        /* vocabulary, loaded on first use */
};

/* The same from an open file, which the model owns from here on, also on failure. */
ash_status ash_model_load_gguf(ash_model **m, ash_gguf *g, ash_error *err);
const ash_mat *ash_model_mat(const ash_model *m, int layer, ash_role role);
const char *ash_model_mat_name(const ash_model *m, int layer, ash_role role);
const ash_mat *ash_model_embd(const ash_model *m);
const ash_mat *ash_model_head(const ash_model *m);
const char *ash_model_role_name(ash_role role); /* "attn_q" */
/* place.c: pages of the lookup tables that `tokens` distinct tokens at positions 0.. touch, in bytes. */
uint64_t ash_model_lookup_touched(const ash_model *m, uint64_t tokens);
/* After binding: lookup tables are read at random. */
void ash_model_advise(const ash_model *m);
/* Let the pages around a row of a large lookup table go, so that a run does not hold every row it met. For one row the kernel maps whatever of its
 * neighbourhood is cached: 64 KiB, since Linux 6.18 the whole large folio, up to 2 MiB. They stay in the file's cache. No-op for other matrices. Any thread. */
void ash_model_forget_row(const ash_model *m, const ash_mat *w, ash_token row);
static inline const ash_hparams *ash_model_hp(const ash_model *m) { return &m->hp; }
/* Expert e of a bank. */
static inline ash_mat ash_bank_at(const ash_bank *b, int e) {
    ash_mat w = b->w;
    w.data += (size_t)e * b->stride;
    return w;
}
/* Whether every layer is seven separate matrices without biases, experts, shared keys or stages beside attention and a
 * gated FFN, all layers of one shape: what eval/delta.c repeats. `why` (may be NULL) gets what is not, for a sentence:
 * "layer 3 has experts". */
bool ash_model_plain(const ash_model *m, char *why, size_t cap);

#endif
