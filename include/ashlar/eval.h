/* ashlar/eval.h - measuring models: perplexity, KL divergence to a reference, importance matrices, and
 * the knockout sweep.
 *
 * All of it works on windows ("chunks") of one text, is deterministic for a given seed, and reports 95 %
 * intervals. Divergence is always KL(reference || model) in nats, per scored position. */
#ifndef ASHLAR_EVAL_H
#define ASHLAR_EVAL_H

#include "ashlar/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A figure with its 95 % interval. */
typedef struct { double v, lo, hi; } ash_est;

/* ---- texts ---- */
typedef struct {
    ash_token *tokens;     /* owned; the whole text, BOS first if the model wants it */
    size_t n;
    bool add_bos;          /* each chunk's first token is read as `bos` */
    ash_token bos;
    uint64_t n_bytes;      /* of the text */
    char sha256[65];       /* of the text; "" when made from tokens */
} ash_eval_text;
/* Tokenize a file, or n bytes, with the model's vocabulary (special-token text is not parsed, as in
 * llama-perplexity). Free with ash_eval_text_free. */
ASH_API ash_status ash_eval_text_load(ash_eval_text *t, const ash_model *m, const char *path, ash_error *err);
ASH_API ash_status ash_eval_text_make(ash_eval_text *t, const ash_model *m, const char *s, size_t n, ash_error *err);
ASH_API void ash_eval_text_free(ash_eval_text *t);

/* ---- perplexity and KL divergence ----
 * llama-perplexity's windows: chunks of n_ctx tokens one after the other, each started afresh; scored are
 * the predictions made at positions n_ctx/2 .. n_ctx-2. */
typedef struct {
    uint32_t n_ctx;        /* 0: 512; at least 8 */
    uint32_t n_chunks;     /* 0: as many as the text gives */
    int n_threads;         /* 0: all usable processors */
    ash_precision precision; /* of the model under test; references are always exact */
    ash_kv_type cache_k, cache_v; /* KV cache of the model under test */
    const ash_adapter *const *adapters; /* LoRA adapters of the model under test; borrowed */
    const float *adapter_scales;
    int n_adapters;
    int cpu_level;         /* -1: best available */
    uint64_t seed;         /* of the bootstrap */
    uint64_t mem_bytes;    /* budget for activations and logits; 0: 512 MiB */
    ash_progress progress;
} ash_eval_opts;
ASH_API ash_eval_opts ash_eval_defaults(void);

typedef struct {
    uint32_t n_ctx, n_chunks;
    uint64_t n_scored;
    ash_est ppl;
    bool has_ref;          /* the rest is filled only then */
    ash_est ppl_ref;
    ash_est kld, kld_median, kld_p90, kld_p99, kld_p999;
    double kld_max;
    ash_est same_top1;     /* fraction of positions with the same most likely token */
    ash_est rms_dp;        /* root mean square change of the actual next token's probability */
    double *chunk_nll;     /* n_chunks means; owned (ash_eval_result_free) */
    double *chunk_kld;     /* n_chunks means, or NULL */
    double seconds;
} ash_eval_result;
ASH_API void ash_eval_result_free(ash_eval_result *r);

/* A reference: the final hidden states of the scored positions plus the model whose head turns them into
 * logits (own file format .aref), or a llama-perplexity base file of quantized log-probabilities. Immutable;
 * one computed reference serves any number of candidates. Holds a reference on the model. */
typedef struct ash_eval_ref ash_eval_ref;
ASH_API ash_status ash_eval_ref_compute(ash_eval_ref **r, ash_model *m, const ash_eval_text *t, const ash_eval_opts *o,
                                        ash_error *err);
ASH_API ash_status ash_eval_ref_save(const ash_eval_ref *r, const char *path, ash_error *err);
/* Opens either kind of file, told apart by its magic. An .aref needs its model: `m` when given, else the path
 * stored in the file; a model whose head differs from the stored hash is refused. */
ASH_API ash_status ash_eval_ref_open(ash_eval_ref **r, const char *path, ash_model *m, ash_error *err);
ASH_API void ash_eval_ref_free(ash_eval_ref *r);
ASH_API uint32_t ash_eval_ref_n_ctx(const ash_eval_ref *r);
ASH_API uint32_t ash_eval_ref_n_chunks(const ash_eval_ref *r);
ASH_API const char *ash_eval_ref_text_sha256(const ash_eval_ref *r); /* "" when not known */

/* Measure a model: on `t`, or with a reference on the reference's own tokens (t may then be NULL; if it is given
 * and its tokens differ, that is an error). With a reference, n_ctx comes from it and n_chunks is at most its. */
ASH_API ash_status ash_eval_measure(ash_eval_result *res, ash_model *m, const ash_eval_text *t, const ash_eval_ref *ref,
                                    const ash_eval_opts *o, ash_error *err);
/* Write llama-perplexity's --kl-divergence-base file. */
ASH_API ash_status ash_eval_save_base(ash_model *m, const ash_eval_text *t, const ash_eval_opts *o, const char *path, ash_error *err);

/* ---- importance matrix: mean squared input per weight column ---- */
typedef struct ash_imatrix ash_imatrix;
typedef struct {
    const char *name;      /* tensor name, e.g. "blk.0.attn_q.weight" */
    uint64_t n;            /* columns (x experts) */
    uint64_t n_mat;        /* 1, or the number of experts */
    const float *sum2;     /* n sums of squares */
    const float *counts;   /* n_mat rows seen */
} ash_imatrix_entry;
ASH_API ash_status ash_imatrix_load(ash_imatrix **im, const char *path, ash_error *err);
ASH_API ash_status ash_imatrix_load_mem(ash_imatrix **im, const void *p, size_t n, ash_error *err);
ASH_API ash_status ash_imatrix_save(const ash_imatrix *im, const char *path, ash_error *err);
ASH_API void ash_imatrix_free(ash_imatrix *im);
/* Collect over n_chunks chunks of n_ctx tokens of the text (every position counts), float32 activations.
 * `dataset` is the name stored in the file. */
ASH_API ash_status ash_imatrix_collect(ash_imatrix **im, ash_model *m, const ash_eval_text *t, const char *dataset,
                                       const ash_eval_opts *o, ash_error *err);
ASH_API size_t ash_imatrix_n(const ash_imatrix *im);
ASH_API ash_imatrix_entry ash_imatrix_at(const ash_imatrix *im, size_t i);
ASH_API uint32_t ash_imatrix_chunks(const ash_imatrix *im);
ASH_API uint32_t ash_imatrix_chunk_size(const ash_imatrix *im);
/* Matrices of the model that have no data: they never ran. Names are borrowed from the model; at most cap are written,
 * the full number is returned. */
ASH_API size_t ash_imatrix_dead(const ash_imatrix *im, const ash_model *m, const char **names, size_t cap);
/* Mean squared input per column: n floats, borrowed; NULL when the tensor is absent, has no counts, or n differs. */
ASH_API const float *ash_imatrix_weights(const ash_imatrix *im, const char *tensor, uint64_t n);
/* Rows that each of a tensor's n_mat matrices (experts) saw: n_mat floats, borrowed; NULL when absent or n_mat differs. */
ASH_API const float *ash_imatrix_counts(const ash_imatrix *im, const char *tensor, uint64_t n_mat);

/* One backward pass (seconds): how much every output of every block matrix matters to the next token's distribution, by the Fisher
 * information of `windows` windows of 32 tokens (0: 32), labels drawn from the model. An error dW of the matrix then costs, to second order,
 * 1/2 sum_i out_i sum_j in_j dW_ij^2 nats per token (docs/decisions/0010-output-sensitivities.md). Added to im's entries. Plain layers only, else
 * ASH_E_UNSUPPORTED (experts, fused matrices, shared keys, ...) and im is as before. */
ASH_API ash_status ash_imatrix_gradients(ash_imatrix *im, ash_model *m, const ash_eval_text *t, uint32_t windows, const ash_eval_opts *o, ash_error *err);
ASH_API bool ash_imatrix_has_gradients(const ash_imatrix *im);
/* in: n_in floats; out: n_out that sum to 1; borrowed. False where there are none. */
ASH_API bool ash_imatrix_sensitivity(const ash_imatrix *im, const char *tensor, uint64_t n_in, uint64_t n_out, const float **in, const float **out);

/* ---- knockout sweep ---- */
enum { ASH_ROLE_Q = 0, ASH_ROLE_K, ASH_ROLE_V, ASH_ROLE_O, ASH_ROLE_GATE, ASH_ROLE_UP, ASH_ROLE_DOWN, ASH_ROLE_N_LAYER,
       ASH_ROLE_EMBD = 7, /* token_embd (with the head when tied) */
       ASH_ROLE_OUTPUT = 8, /* output.weight of an untied model */
       ASH_ROLE_EXP_GATE = 9, ASH_ROLE_EXP_UP, ASH_ROLE_EXP_DOWN, /* the experts of a layer, all of them */
       ASH_ROLE_PLE_GATE = 12, ASH_ROLE_PLE_OUT, /* inp_gate, proj: a layer's stage of per-layer embeddings */
       ASH_ROLE_PLE_TABLE = 14, ASH_ROLE_PLE_IN, /* per_layer_token_embd, per_layer_model_proj */
       ASH_ROLE_COUNT = 16 };
ASH_API const char *ash_role_name(int role); /* "attn_q" ... "token_embd", "output" */
ASH_API int ash_role_parse(const char *s, size_t n); /* -1 when unknown */
#define ASH_ROLES_LAYER 0x3e7fu /* all matrices of a layer */

/* One variant: these matrices go through decode(encode(w)) of `type`, all else stays. */
typedef struct {
    int32_t layer;         /* -1: every layer */
    uint32_t roles;        /* bits 1 << ASH_ROLE_*; those of no layer only alone and with layer -1. A fused tensor: all its roles */
    ash_dtype type;        /* ASH_F32 is the identity control: must give exactly 0 */
} ash_sweep_unit;

typedef struct {
    ash_sweep_unit unit;
    const char *tensor;    /* its name where the unit is one tensor, else NULL; borrowed from the model */
    double kld, half;      /* mean and 95 % half-width */
    uint32_t n_chunks;
    double rel_err;        /* sum imp * err^2 / sum imp * w^2 over the matrices */
    uint64_t bytes;        /* of these matrices in `type`, rows widened to whole blocks where needed */
    bool widened;          /* some row is no multiple of the block: zero-padded */
    bool dead;             /* never runs */
} ash_sweep_row;

typedef struct {
    uint32_t n_ctx;        /* 0: 32 */
    uint32_t skip;         /* positions not scored at each chunk's start; 0: 8 */
    uint32_t min_chunks;   /* 0: 16 */
    uint32_t max_chunks;   /* 0: 2048; never more than the text has */
    double until;          /* stop a variant when half <= until * mean; 0: 0.2 */
    int n_threads;
    int cpu_level;
    uint64_t seed;
    uint64_t mem_bytes;    /* activation budget; 0: 512 MB */
    const char *checkpoint;/* file to continue from and to keep; NULL: none */
    const char *spill_dir; /* where activations go that exceed the budget; NULL: "." */
    const ash_ranks *ranks;/* processes that share the work, NULL: this one alone. All call ash_sweep_run with the same model, text, units
                            * and options and all get the result one process would get; importance and checkpoint are rank 0's */
    ash_progress progress;
} ash_sweep_opts;
ASH_API ash_sweep_opts ash_sweep_defaults(void);

typedef struct {
    ash_sweep_row *rows;   /* in the order asked for */
    size_t n_rows;
    double noise_floor;    /* KLD that rounding alone gives: identity through the kernels, without the shortcut */
    double identity;       /* KLD of the identity control: exactly 0, or the sweep fails */
    uint32_t n_chunks, n_ctx, n_scored; /* chunks used at most; scored positions per chunk */
    double seconds;
    char text_sha256[65];
} ash_sweep_result;
ASH_API void ash_sweep_result_free(ash_sweep_result *r);

/* Cost before it starts: one layer of the model is timed on this machine (and its encoders, and its head), which takes a second or
 * two; how many chunks units will need is what SmolLM2 135M took. */
typedef struct {
    double seconds;
    uint64_t mem_bytes, disk_bytes;
    double macs;           /* multiply-accumulates of all variants */
    double forward_rate;   /* measured: multiply-accumulates per second of a float32 forward pass over these threads */
    double head_rate;      /* positions per second through the head and its softmax */
    double encode_rate;    /* weights per second through the units' types, on average */
    double chunks;         /* expected per unit */
} ash_sweep_cost;
ASH_API ash_status ash_sweep_estimate(ash_sweep_cost *c, const ash_model *m, const ash_sweep_unit *units, size_t n,
                                      const ash_sweep_opts *o, ash_error *err);
/* Every matrix of the model x types (tensor units), in layer order; free with ash_sweep_units_free. `grain`: 't'ensor,
 * 'l'ayer or 'c'lass. */
ASH_API ash_status ash_sweep_units(ash_sweep_unit **u, size_t *n, const ash_model *m, char grain, const ash_dtype *types,
                                   size_t n_types, const ash_dtype *table_types, size_t n_table_types, ash_error *err);
ASH_API void ash_sweep_units_free(ash_sweep_unit *u);
/* Run. `im` may be NULL (no importance weights). With a checkpoint of the same job it continues from there; the
 * final result is the same as without the interruption. */
ASH_API ash_status ash_sweep_run(ash_sweep_result *res, ash_model *m, const ash_eval_text *t, const ash_imatrix *im,
                                 const ash_sweep_unit *units, size_t n, const ash_sweep_opts *o, ash_error *err);
/* Result as JSON (docs/formats/sweep.md); *out NUL-terminated, free with ash_text_free. */
ASH_API ash_status ash_sweep_json(const ash_sweep_result *r, const ash_model *m, char **out, size_t *n_out, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
