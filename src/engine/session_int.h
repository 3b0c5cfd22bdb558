/* session_int.h - a session's insides, for session.c and session_file.c, and the parser of session files, for its fuzz target. */
#ifndef ASH_SESSION_INT_H
#define ASH_SESSION_INT_H

#include "engine/kv.h"

struct ash_session {
    ash_model *m;
    const ash_kern *k;
    ash_pool *pool;
    ash_fwd fwd;
    ash_kvcache kv;
    uint32_t n_ctx, n_batch;
    ash_token *tokens; /* n_ctx */
    size_t n_tokens;   /* the timeline; kv.n <= n_tokens of it are computed */
    float *logits;     /* head_tok rows; row 0 is the last token's */
    int head_tok;
    bool have_logits;
    ash_lora_use *lora;
    float *mem; /* fwd's buffers */
    void *mm_mem, *attn_mem;
    uint64_t bytes;
};

/* Header of a session file (docs/formats/session.md); pointers are into the file. */
typedef struct {
    uint32_t key_type, value_type, precision, rope_long, n_snaps;
    uint64_t model, n, lo, tail_lo, snap_bytes;
    const uint8_t *tokens; /* n little-endian int32 */
    const uint8_t *data;   /* cache, then snapshots */
    uint64_t data_bytes;
} ash_session_head;
/* Everything that can be checked without a model: lengths, checksum, ranges. */
ash_status ash_session_parse(ash_session_head *h, const void *p, size_t n, ash_error *err);

#endif
