/* hf_int.h - what the files of src/convert share: the folder, its hyperparameters, the tables' types.
 *
 * Words used here: "HF" is the folder as Hugging Face's transformers writes it; a row of a mapping table says which HF
 * tensor becomes which GGUF tensor and what happens to its values on the way; a shape is a string with one letter per
 * dimension, outermost first, as HF stores it (letters: ash_hf_dim). */
#ifndef ASH_HF_INT_H
#define ASH_HF_INT_H

#include "ashlar/convert.h"
#include "ashlar/gguf.h"
#include "base/base.h"
#include "gguf/safetensors.h"

#include <jansson.h>

/* ---- JSON from outside (hf_json.c). Numbers are read as doubles: real folders hold integers beyond 64 bits. ---- */
enum { ASH_HF_MAX_JSON = 256 << 20, ASH_HF_MAX_CONFIG = 16 << 20 };
ash_status ash_hf_json_parse(json_t **out, const char *p, size_t n, const char *what, ash_error *err);
/* *out NULL and ASH_OK when the file does not exist. */
ash_status ash_hf_json_file(json_t **out, const char *dir, const char *name, uint64_t limit, ash_error *err);
bool ash_hf_exists(const char *dir, const char *name);
/* First of the names "a|b|c" that is in the object and not null; NULL if none is. */
const json_t *ash_hf_get(const json_t *o, const char *names);
bool ash_hf_int(const json_t *v, int64_t *out); /* a whole number within 2^53 */
bool ash_hf_bool(const json_t *o, const char *name, bool dflt);
const char *ash_hf_str(const json_t *o, const char *name); /* NULL if absent or no string */

/* ---- architectures ---- */
typedef enum {
    HF_LLAMA,
    HF_MISTRAL,
    HF_MIXTRAL,
    HF_QWEN2,
    HF_QWEN3,
    HF_QWEN3MOE,
    HF_PHI3,
    HF_GEMMA2,
    HF_GEMMA3,
    HF_GEMMA_EMB,
    HF_GEMMA4,
    HF_BERT,
    HF_NOMIC,
    HF_KINDS
} ash_hf_kind;
#define HF_BIT(k) (1u << HF_##k)
#define HF_LLAMAS (HF_BIT(LLAMA) | HF_BIT(MISTRAL) | HF_BIT(MIXTRAL))
#define HF_QWENS (HF_BIT(QWEN2) | HF_BIT(QWEN3) | HF_BIT(QWEN3MOE))
#define HF_GEMMA3S (HF_BIT(GEMMA3) | HF_BIT(GEMMA_EMB))
#define HF_GEMMAS (HF_BIT(GEMMA2) | HF_GEMMA3S | HF_BIT(GEMMA4))
#define HF_BERTS (HF_BIT(BERT) | HF_BIT(NOMIC))
#define HF_DECODERS (HF_LLAMAS | HF_QWENS | HF_BIT(PHI3) | HF_GEMMAS)
#define HF_ALL (HF_DECODERS | HF_BERTS)

typedef enum {
    HF_COPY,
    HF_NORM,   /* RMS norm weight: 1 is added where the architecture stores it less 1 */
    HF_ROPE_Q, /* rows of each head from halves to pairs, where the architecture's GGUF wants pairs */
    HF_ROPE_K,
    HF_STACK /* one tensor per expert (%e in the name) into one with a leading dimension */
} ash_hf_op;

typedef enum {
    HF_REQ,
    HF_OPT,
    HF_UNTIED, /* required unless tied; when tied it is a copy of the table and left out */
    HF_DENSE,  /* required on layers without experts, impossible on others */
    HF_MOE,    /* required on layers with experts, impossible on others */
    HF_PLE,    /* required with per-layer embeddings */
    HF_KV,     /* required on layers that compute their own K and V, else optional */
    HF_V,      /* the same, where V is not the K projection */
    HF_MOE_ALL, /* required if the model has experts beside the dense part */
    HF_POOLED   /* required with matrices after pooling (modules.json) */
} ash_hf_need;

typedef struct {
    const char *hf, *gguf; /* %d: layer, %e: expert */
    const char *shape;
    ash_hf_op op;
    ash_hf_need need;
} ash_hf_row;

enum {
    HF_F_PERMUTE = 1, /* rope in pairs: q and k rows are reordered */
    HF_F_NORM1 = 2,   /* norm weights are stored less 1 */
    HF_F_TIED = 4     /* tied embeddings unless config.json says otherwise */
};

typedef struct {
    ash_hf_kind kind;
    const char *hf, *gguf; /* architectures[0], general.architecture */
    unsigned flags;
    const ash_hf_row *groups[8]; /* each ends with hf == NULL */
} ash_hf_arch;

const ash_hf_arch *ash_hf_arch_at(int i); /* NULL at the end */

enum { ASH_HF_MAX_LAYERS = 4096, ASH_HF_MAX_EXPERTS = 4096 };

/* Hyperparameters under one name each, whatever config.json calls them. Absent numbers are 0. */
typedef struct {
    int64_t n_layer, n_ctx, n_embd, n_ff, n_head, n_kv, head_dim, n_vocab, window;
    int64_t n_expert, n_used, n_ff_exp, n_types;
    int64_t head_dim_full, n_kv_full, n_shared, n_ple; /* gemma4: full-attention layers; shared KV layers; per-layer embedding width */
    int64_t pooling, n_dense; /* modules.json: pooling_type, 0: not said; rows of the first matrix after pooling, 0: none */
    int64_t rope_orig, n_rot, sparse_step, bos, eos, pad, sep, cls, mask, unk;
    double rms_eps, ln_eps, rope_base, rope_base_swa, rope_factor, attn_factor, beta_fast, beta_slow;
    double softcap_attn, softcap_final, rope_low, rope_high, rotary;
    char rope_type[24];
    bool has_head_dim, tied, tied_said, moe_block, double_wide, k_eq_v;
    uint8_t *full;  /* [n_layer] 1: full attention */
    uint8_t *dense; /* [n_layer] 1: no experts on this layer (models with experts) */
} ash_hf_params;

typedef struct {
    const char *dir;
    const ash_convert_opts *o;
    ash_arena arena;
    json_t *root, *cfg;      /* config.json, and its part about text (cfg is borrowed from root) */
    const ash_hf_arch *arch; /* NULL: vocabulary only and no config.json */
    ash_hf_params p;
    char dense[2][128]; /* folders of those matrices */
    ash_buf notes;
    bool adapter; /* dir holds a LoRA adapter, config.json is the base model's */
} ash_hf;

void ash_hf_note(ash_hf *h, const char *fmt, ...) ASH_PRINTF(2, 3);

/* ---- config.json (hf_config.c) ---- */
ash_status ash_hf_config_load(ash_hf *h, ash_error *err);
ash_status ash_hf_config_keys(ash_hf *h, ash_gguf_writer *w, ash_error *err);
/* Size of the dimension `c` on layer il. Letters: V words, D model width, F feed-forward, G two F, X expert feed-forward,
 * Y two X, Q all query heads, K all key heads, H one head, W Q + two K, E experts, P per-layer width, L layers x P,
 * C positions, T token types, Z three D, A rows of the first matrix after pooling, 1 one. */
int64_t ash_hf_dim(const ash_hf *h, char c, int64_t il);
/* hf_modules.c: what comes after the transformer, into p.pooling, p.n_dense, dense. */
ash_status ash_hf_modules_load(ash_hf *h, ash_error *err);
int64_t ash_hf_head_dim(const ash_hf *h, int64_t il);
bool ash_hf_own_kv(const ash_hf *h, int64_t il);
bool ash_hf_own_v(const ash_hf *h, int64_t il);
bool ash_hf_is_moe(const ash_hf *h, int64_t il);

/* ---- tensors (hf_tensors.c) ---- */
typedef struct ash_hf_plan ash_hf_plan;
ash_status ash_hf_plan_new(ash_hf_plan **p, ash_hf *h, ash_error *err); /* opens the shards, resolves every row */
void ash_hf_plan_free(ash_hf_plan *p);
ash_dtype ash_hf_plan_type(const ash_hf_plan *p); /* type of most matrix bytes in the source */
ash_status ash_hf_plan_declare(ash_hf_plan *p, ash_gguf_writer *w, ash_dtype type, ash_error *err);
ash_status ash_hf_plan_write(ash_hf_plan *p, ash_gguf_writer *w, const char *stage, ash_error *err);
uint64_t ash_hf_plan_weights(const ash_hf_plan *p);
size_t ash_hf_plan_count(const ash_hf_plan *p);
/* Whether the row must be there (1), may be (0), or cannot be (-1) on this layer. */
int ash_hf_need_of(const ash_hf *h, const ash_hf_row *r, int64_t il);
bool ash_hf_keeps_f32(const char *name, int n_dims);
/* "layers.%d.x" with the numbers put in; false when it does not fit. */
bool ash_hf_name(char *out, size_t n, const char *pattern, int64_t il, int64_t e);

/* ---- tokenizers (hf_tokenizer.c and its parts) ---- */
enum { TT_NORMAL = 1, TT_UNKNOWN = 2, TT_CONTROL = 3, TT_USER = 4, TT_UNUSED = 5, TT_BYTE = 6 };

typedef struct {
    const char *model; /* tokenizer.ggml.model */
    const char *pre;   /* tokenizer.ggml.pre, NULL: none */
    int64_t n, cap;
    ash_str *text; /* [cap]; p NULL: no token of this id yet */
    int32_t *type;
    float *score;
    bool scores, merges_wanted;
    ash_str *merges;
    uint64_t n_merges;
    int no_space_prefix;   /* 1: tokenizer.ggml.add_space_prefix is false */
    int lowercase;         /* WordPiece: -1 unknown, else 0 or 1 */
    ash_str charsmap;      /* Unigram: precompiled normalisation */
    bool drop_extra_space; /* Unigram: runs of spaces become one */
} ash_hf_vocab;

ash_status ash_hf_tokenizer(ash_hf *h, ash_gguf_writer *w, ash_convert_result *r, ash_error *err);
/* Room for ids below n (at most 2^24). */
ash_status ash_hf_vocab_grow(ash_hf *h, ash_hf_vocab *v, int64_t n, ash_error *err);
/* tokenizer.model (hf_spm.c): pieces, scores, types, and what its normalizer says. */
ash_status ash_hf_spm_parse(ash_hf *h, ash_hf_vocab *v, const void *p, size_t n, ash_error *err);
/* Which pre-tokenizer a tokenizer.json describes (hf_pretok.c): a name for tokenizer.ggml.pre. Unknown: ASH_E_UNSUPPORTED. */
ash_status ash_hf_pretok(const json_t *tokenizer, const char **name, ash_error *err);

#endif
