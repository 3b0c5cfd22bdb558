/* ashlar/engine.h - sessions: one timeline of tokens that owns KV and logits; and sampling. */
#ifndef ASHLAR_ENGINE_H
#define ASHLAR_ENGINE_H

#include "ashlar/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ash_session ash_session; /* one thread at a time */

typedef enum {
    ASH_PREC_EXACT = 0, /* float32 activations, float32 KV */
    ASH_PREC_FAST = 1   /* 8-bit activations per 32 values, float16 KV: the everyday path */
} ash_precision;

/* How keys and values are kept. Quantized ones (about 8.5 and 4.5 bits) keep the first 32 and the current 64 positions in
 * float16; docs/formats/kv-cache.md. */
typedef enum {
    ASH_KV_AUTO = 0, /* as the precision says */
    ASH_KV_F32 = 1,
    ASH_KV_F16 = 2,
    ASH_KV_Q8_0 = 3,
    ASH_KV_Q4_0 = 4
} ash_kv_type;
ASH_API const char *ash_kv_type_name(ash_kv_type t);             /* "auto", "f32", "f16", "q8_0", "q4_0" */
ASH_API bool ash_kv_type_parse(const char *s, ash_kv_type *t);   /* false: no such name */

typedef struct {
    uint32_t n_ctx;            /* 0: the model's training context, at most 4096 */
    uint32_t n_batch;          /* tokens per forward pass; 0: the largest of 512, 256, 128, 64 whose activations fit in 16 MiB */
    int n_threads;             /* 0: all usable processors */
    ash_precision precision;
    int cpu_level;             /* -1: best available; else an ash_cpu_level, clamped */
    uint64_t snapshot_bytes;   /* budget for sliding-window snapshots; 0: 64 MiB */
    const ash_adapter *const *adapters; /* LoRA adapters of this model, all applied; they must outlive the session */
    const float *adapter_scales;        /* one each; NULL: 1 */
    int n_adapters;            /* at most 64 */
    ash_kv_type cache_k, cache_v; /* of keys and of values; encoders keep none */
} ash_session_opts;
ASH_API ash_session_opts ash_session_defaults(void);

/* All memory is taken here; sync and eval allocate nothing. ASH_E_LIMIT names the size asked for. */
ASH_API ash_status ash_session_new(ash_session **s, ash_model *m, const ash_session_opts *o, ash_error *err);
ASH_API void ash_session_free(ash_session *s);
ASH_API uint64_t ash_session_bytes(const ash_session *s); /* KV + scratch */
ASH_API uint32_t ash_session_n_ctx(const ash_session *s);

/* What a run takes, in bytes, with `tokens` tokens of the timeline in use (each another token of the vocabulary: the worst case for lookup
 * tables). Not counted: the program itself, the file's metadata and the tokenizer, which are there after loading. */
typedef struct {
    uint32_t n_ctx, n_batch;   /* as resolved */
    uint64_t live;             /* weights read for every token: mapped, resident once tokens flow */
    uint64_t lookup;           /* tables of which rows are looked up: mapped */
    uint64_t lookup_touched;   /* their pages in use */
    uint64_t kv, kv_used;      /* KV cache: taken, and pages in use */
    uint64_t snapshots;        /* of sliding windows: touched as a chat's turns end, not by a single answer */
    uint64_t scratch, scratch_used; /* activations of a batch, logits, threads' scratch */
    uint64_t resident;         /* live, and what is touched or used of the others */
    uint64_t heap;             /* allocated by the session, used or not */
} ash_mem;
ASH_API ash_status ash_mem_estimate(const ash_model *m, const ash_session_opts *o, uint64_t tokens, ash_mem *out, ash_error *err);

/* Make the timeline equal to tokens[0..n): reuses the longest common prefix it can still stand on
 * (KV, or a sliding-window snapshot), computes the rest in batches. Afterwards ash_session_logits is
 * for the last token. ASH_E_LIMIT when n > n_ctx, ASH_E_RANGE for a bad id; the timeline is then
 * unchanged. `reused` (may be NULL) gets the number of tokens not recomputed. n >= 1. */
ASH_API ash_status ash_session_sync(ash_session *s, const ash_token *tokens, size_t n, size_t *reused, ash_error *err);
/* Append one token. */
ASH_API ash_status ash_session_append(ash_session *s, ash_token t, ash_error *err);
/* Forget all after the first n tokens (as far as the window allows; sync rebuilds if not). Logits are NULL until the
 * next sync or append. */
ASH_API ash_status ash_session_rewind(ash_session *s, size_t n, ash_error *err);
/* Mark a turn boundary here: a snapshot of the windows is kept within the budget (oldest dropped). */
ASH_API ash_status ash_session_mark(ash_session *s, ash_error *err);
ASH_API size_t ash_session_n_tokens(const ash_session *s);
ASH_API const ash_token *ash_session_tokens(const ash_session *s);
/* n_vocab logits after the last token, final soft-cap applied. Borrowed until the next call on s. */
ASH_API const float *ash_session_logits(const ash_session *s);

/* The timeline with its KV and its latest snapshots in a file (docs/formats/session.md), written beside and renamed; and back,
 * into any session of the same model, adapters, precision and cache types whose context holds it. Afterwards logits are NULL until
 * the next sync or append. A file that is damaged (ASH_E_FORMAT) or was made otherwise (ASH_E_STATE, ASH_E_LIMIT) leaves the
 * session as it was. */
ASH_API ash_status ash_session_save(const ash_session *s, const char *path, ash_error *err);
ASH_API ash_status ash_session_load(ash_session *s, const char *path, ash_error *err);

/* All-positions evaluation of a fresh timeline (used by logits and eval): tokens[0..n) from position
 * 0, calling sink for each position >= first with its logits (n_vocab). Sessions's timeline is lost. */
typedef ash_status (*ash_logits_sink)(void *ctx, size_t pos, const float *logits, ash_error *err);
ASH_API ash_status ash_session_eval_all(ash_session *s, const ash_token *tokens, size_t n, size_t first,
                                        ash_logits_sink sink, void *ctx, ash_error *err);

/* ---- embeddings: of encoders, and of any other model whose hidden states are wanted ---- */
/* The final-normed hidden state (n_embd floats) of each position >= first of a fresh timeline. Session's timeline is lost. */
ASH_API ash_status ash_session_eval_hidden(ash_session *s, const ash_token *tokens, size_t n, size_t first,
                                           ash_logits_sink sink, void *ctx, ash_error *err);
typedef enum {
    ASH_EMBED_AUTO = 0, /* as the file says; mean where it does not */
    ASH_EMBED_MEAN,     /* mean over all positions */
    ASH_EMBED_FIRST,    /* the first token's state (CLS) */
    ASH_EMBED_LAST      /* the last token's */
} ash_embed_pooling;
/* out[n_embd]: one vector for the text, of length 1. */
ASH_API ash_status ash_session_embed(ash_session *s, const ash_token *tokens, size_t n, ash_embed_pooling pooling, float *out, ash_error *err);

/* ---- sampling: llama.cpp's chain order: logit bias, penalties, top-k, top-p, min-p, temperature, draw ---- */
typedef struct { ash_token token; float bias; } ash_logit_bias;
typedef struct {
    float temperature;         /* <= 0: greedy */
    int32_t top_k;             /* <= 0: off */
    float top_p;               /* >= 1: off */
    float min_p;               /* <= 0: off */
    float repeat_penalty;      /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    int32_t penalty_last_n;    /* tokens looked back; -1: all; 0: off */
    uint64_t seed;
    const ash_logit_bias *bias; /* borrowed for the sampler's life */
    size_t n_bias;
} ash_sampler_opts;
/* Defaults, overridden by the file's general.sampling.* keys when g is not NULL. */
ASH_API ash_sampler_opts ash_sampler_defaults(const ash_gguf *g);
typedef struct ash_sampler ash_sampler;
ASH_API ash_status ash_sampler_new(ash_sampler **s, const ash_sampler_opts *o, int32_t n_vocab, ash_error *err);
ASH_API void ash_sampler_free(ash_sampler *s);
ASH_API void ash_sampler_accept(ash_sampler *s, ash_token t); /* history for the penalties */
ASH_API ash_token ash_sampler_pick(ash_sampler *s, const float *logits); /* does not accept */
/* From now on pick draws among the tokens that the matcher (ashlar/grammar.h, borrowed; NULL: none) allows, chosen before all
 * other steps; -1 when there is none, or ash_matcher_error says why. The caller tells the matcher what it took. */
struct ash_matcher;
ASH_API void ash_sampler_constrain(ash_sampler *s, struct ash_matcher *m);

#ifdef __cplusplus
}
#endif
#endif
