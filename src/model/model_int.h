/* model_int.h - a model as the engine sees it: hyperparameters and, per layer, matrices and vectors.
 *
 * Everything in which architectures differ is data here (filled by arch.c and hparams.c from the file), so that there is
 * one forward pass. Matrices stay in the file's mapping, in the file's types; vectors and rope factors are small float32
 * copies in the model's arena. Immutable after load. */
#ifndef ASH_MODEL_INT_H
#define ASH_MODEL_INT_H

#include "ashlar/model.h"
#include "base/base.h"
#include "kern/kern.h"

/* The matrices of a layer. Role, name in reports, tensor name after "blk.N.". */
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

/* The vectors of a layer; NULL where the architecture has none. */
#define ASH_NORM_LIST(X)                                                                                               \
    X(ATTN, "attn_norm")           /* n_embd, before attention */                                                      \
    X(Q, "attn_q_norm")            /* head_dim, on each query head before rope */                                      \
    X(K, "attn_k_norm")            /* head_dim, on each key head before rope */                                        \
    X(POST_ATTN, "post_attention_norm") /* n_embd, on the attention output before the residual add */                  \
    X(FFN, "ffn_norm")             /* n_embd */                                                                        \
    X(POST_FFN, "post_ffw_norm")   /* n_embd, on the FFN output before the residual add */

typedef enum {
#define X(id, name) ASH_N_##id,
    ASH_NORM_LIST(X)
#undef X
    ASH_N_COUNT
} ash_norm;

typedef enum { ASH_ACT_SILU, ASH_ACT_GELU /* tanh form */ } ash_act;

/* One way to rotate. Layers point at one of at most two. */
typedef struct {
    int n_rot;      /* rotated dims of a head, even */
    float base;
    float *freq;    /* n_rot/2 angles per position, all scaling and factors applied */
    float magnitude; /* multiplies cos and sin (YaRN), else 1 */
} ash_rope;

enum { ASH_ROPE_FULL = 0, ASH_ROPE_SWA = 1, ASH_ROPE_KINDS = 2 };

typedef struct {
    int n_layer, n_embd, n_vocab, n_ctx_train;
    float eps;
    float embd_scale;      /* 1, or sqrt(n_embd) */
    float attn_scale;      /* on q.k */
    float attn_softcap;    /* 0: none */
    float final_softcap;   /* 0: none */
    bool rope_neox;        /* half-split pairs; else adjacent */
    ash_act act;
    ash_rope rope[ASH_ROPE_KINDS];
    int n_rope;            /* kinds in use */
    /* maxima over layers, for scratch */
    int max_q, max_kv, max_ff, max_head, max_head_dim, max_window;
} ash_hparams;

typedef struct {
    ash_mat w[ASH_W_COUNT];
    const char *name[ASH_W_COUNT];      /* tensor names, owned by the gguf */
    const float *norm[ASH_N_COUNT];
    int n_head, n_head_kv, head_dim, n_ff;
    int window;                         /* keys a query sees, itself included; 0: all */
    int rope;                           /* index into hp.rope */
    int kv_layer;                       /* layer whose K and V are read; itself unless shared */
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
    const float *out_norm;
    bool tied;
    struct ash_model_lazy *lazy;        /* vocabulary, loaded on first use */
};

const ash_mat *ash_model_mat(const ash_model *m, int layer, ash_role role);
const char *ash_model_mat_name(const ash_model *m, int layer, ash_role role);
const ash_mat *ash_model_embd(const ash_model *m);
const ash_mat *ash_model_head(const ash_model *m);
const char *ash_model_role_name(ash_role role); /* "attn_q" */
static inline const ash_hparams *ash_model_hp(const ash_model *m) { return &m->hp; }

#endif
