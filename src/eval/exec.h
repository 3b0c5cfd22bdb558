/* exec.h - what the measurements share: threads and kernels, a batched float32 forward pass over many chunks with
 * each layer's weights packed once, and blocks of head logits. */
#ifndef ASH_EVAL_EXEC_H
#define ASH_EVAL_EXEC_H

#include "ashlar/eval.h"
#include "engine/layer.h"

typedef struct {
    const ash_kern *k;
    ash_pool *pool;
    int n_threads;
} ash_exec;
ash_status ash_exec_init(ash_exec *e, int n_threads, int cpu_level, ash_error *err);
void ash_exec_free(ash_exec *e);

/* Watches the forward pass: `tap` gets the matrices' inputs of chunk c with context tap_ctx + c * tap_stride;
 * layer_done runs after each layer, alone, with the number of chunks in the group. */
typedef struct {
    ash_layer_tap tap;
    void *tap_ctx;
    size_t tap_stride;
    void (*layer_done)(void *ctx, int layer, uint32_t n_chunks);
    void *done_ctx;
} ash_watch;

/* Tokens of n_chunks windows [chunk][n_ctx], BOS put in place where the text wants it. NULL when out of memory. */
ash_token *ash_chunk_tokens(const ash_token *t, uint32_t n_ctx, uint32_t n_chunks, bool add_bos, ash_token bos);

/* hidden[(chunk * (end - first) + i) * n_embd] = final-normed state at position first + i. Every chunk is a sequence
 * of its own. hidden may be NULL (only watching). `done`/`total` of the progress count layers. */
typedef struct {
    const ash_model *m;
    const ash_token *tok; /* [n_chunks][n_ctx] */
    uint32_t n_chunks, n_ctx, first, end;
    const ash_watch *watch;
    const ash_progress *progress; /* NULL: none */
    const char *stage;
    double done0, total;          /* progress: this call's layers start at done0 of total */
} ash_fwd_job;
ash_status ash_fwd_chunks(const ash_exec *e, const ash_fwd_job *j, float *hidden, ash_error *err);
/* Bytes ash_fwd_chunks takes for n_chunks at once. */
uint64_t ash_fwd_bytes(const ash_exec *e, const ash_model *m, uint32_t n_ctx, uint32_t n_chunks);

/* Head: logits[n_pos][ld] (ld = n_vocab) of n_pos hidden states, soft-cap applied. scratch: ash_head_scratch_bytes. */
size_t ash_head_scratch_bytes(const ash_exec *e, const ash_model *m);
void ash_head_logits(const ash_exec *e, const ash_model *m, const float *hidden, int n_pos, float *logits, void *scratch);
/* Positions per block so that `n_bufs` buffers of logits stay within about `bytes`. */
int ash_head_block(const ash_model *m, int n_bufs, uint64_t bytes);
/* Hash of the head: type, shape, bytes, and the final soft-cap. */
uint64_t ash_head_hash(const ash_model *m);

/* n_ctx and n_chunks that a text gives under these options. */
ash_status ash_eval_windows(const ash_eval_text *t, const ash_eval_opts *o, uint32_t *n_ctx, uint32_t *n_chunks, ash_error *err);
/* Chunks to take through the layers together within a memory budget: at least one per thread. */
uint32_t ash_chunks_per_group(const ash_exec *e, const ash_model *m, uint32_t n_ctx, uint32_t n_chunks, uint64_t budget);

/* Report progress; ASH_E_CANCELLED when the caller wants to stop. */
ash_status ash_progress_at(const ash_progress *p, const char *stage, double done, double total, const char *note, ash_error *err);

#endif
