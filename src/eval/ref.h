/* ref.h - references in memory and in files. .aref: docs/formats/aref.md. Base file: llama-perplexity's
 * --kl-divergence-base, layout found from a file written by it:
 *   "_logits_", u32 n_ctx, u32 n_vocab, u32 n_chunk, i32 token[n_chunk * n_ctx], then per scored position
 *   (n_ctx/2 .. n_ctx-2 of each chunk): f32 scale, f32 min, u16 code[n_vocab rounded up to even];
 *   log-probability = min + scale * code; min = max(lowest, highest - 16), scale = (highest - min) / 65535. */
#ifndef ASH_EVAL_REF_H
#define ASH_EVAL_REF_H

#include "eval/exec.h"

struct ash_eval_ref {
    uint32_t n_ctx, first, n_chunks, n_embd, n_vocab;
    ash_token *tok;          /* [n_chunks][n_ctx], as in the text (BOS not put in) */
    bool add_bos;
    ash_token bos;
    char text_sha256[65];
    /* either hidden states and their model ... */
    ash_model *m;
    float *hidden;           /* [n_chunks * per][n_embd] */
    char *model_path;        /* from the file */
    uint64_t head_hash;
    /* ... or rows of a base file */
    ash_map map;
    const uint8_t *rows;
    size_t row_bytes;
};

static inline uint32_t ash_ref_per_chunk(const ash_eval_ref *r) { return r->n_ctx - 1 - r->first; }

/* Parse bytes; nothing in them is trusted. The .aref parser fills everything but `m`. The base parser keeps pointers
 * into p. Both need ash_eval_ref_free afterwards, also on failure. */
ash_status ash_aref_parse(ash_eval_ref *r, const void *p, size_t n, ash_error *err);
ash_status ash_base_parse(ash_eval_ref *r, const void *p, size_t n, ash_error *err);
/* Bytes of one row of a base file. */
size_t ash_base_row_bytes(uint32_t n_vocab);
/* Codes of one row from logits, and back to log-probabilities. Where the range was cut at 16 below the top, code 0 means "that or
 * less": tens of thousands of such entries at the floor would add a thousandth of mass and 0.006 of divergence that is not there, so
 * they become -200, as good as never. ash_base_row_at gives one entry as stored. */
void ash_base_row_encode(const float *logits, double lse, uint32_t n_vocab, uint8_t *row);
void ash_base_row_decode(const uint8_t *row, uint32_t n_vocab, float *logp);
float ash_base_row_at(const uint8_t *row, uint32_t i);
void ash_ref_clear(ash_eval_ref *r);

#endif
