/* size.h - what a session of given options takes: resolved options and bytes by purpose. One place, so that what
 * `ashlar mem` says and what ash_session_new allocates cannot differ. */
#ifndef ASH_SIZE_H
#define ASH_SIZE_H

#include "engine/kv.h"

typedef struct {
    uint32_t n_ctx, n_batch;
    int n_threads, max_rank;
    int head_tok;           /* rows of logits computed at once */
    ash_kv_plan plan;
    uint64_t kv, snapshots; /* the cache for n_ctx positions; snapshots of its windows */
    uint64_t fwd;           /* activations of a batch */
    uint64_t logits;        /* head_tok rows */
    uint64_t mm, attn;      /* scratch of one thread */
    uint64_t total;
} ash_session_need;

/* Fills the zeros of *o with their defaults and adds up. ASH_E_LIMIT, ASH_E_USAGE for what cannot be. */
ash_status ash_session_measure(const ash_model *m, ash_session_opts *o, ash_session_need *need, ash_error *err);

#endif
