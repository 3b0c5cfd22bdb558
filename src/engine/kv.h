/* kv.h - the KV cache of a session: per layer all of n_ctx positions (full attention) or a ring of window + batch
 * positions (sliding window), and snapshots of the windows at turn boundaries.
 *
 * Positions below `n` are computed. A ring holds the positions from `lo` on; it can stand on a prefix of b tokens when
 * the window of position b lies in [lo, b). Going back further needs a snapshot, or a start from 0.
 *
 * K and V are plain (f32, f16) or in quantized blocks of 32 positions (kern/kv_block.h). A token at position p sees positions
 * below 32 and from p / 64 * 64 on as halves, those between from blocks. So the halves of the first 32 positions (sink) and of
 * the last 64 (tail, from `tail_lo` on) are kept, and one can go back to where the tail reaches, or to a multiple of 64. */
#ifndef ASH_KV_H
#define ASH_KV_H

#include "ashlar/engine.h"
#include "engine/fwd.h"

typedef struct {
    size_t n;        /* taken after n tokens; 0: free */
    uint64_t stamp;  /* age */
    char *mem;
} ash_snapshot;

/* What a cache is made for. The types are resolved: not ASH_KV_AUTO. */
typedef struct {
    uint32_t n_ctx, n_batch;
    ash_kv_type k, v;
    uint64_t snapshot_bytes; /* budget */
} ash_kv_plan;

typedef struct {
    const ash_model *m;
    ash_kv_plan plan;
    bool quantized;          /* K or V is */
    ash_kv *layers;          /* of layers that share, a copy of the source's entry */
    void *mem;
    size_t n;                /* positions computed */
    size_t lo;               /* first position the rings hold */
    size_t tail_lo;          /* first position the tails hold */
    int ring;                /* capacity of the rings; 0: no windowed layer */
    int window;              /* the widest */
    ash_snapshot *snaps;
    int n_snaps;
    size_t snap_bytes;
    void *snap_mem;
    uint64_t stamp;
} ash_kvcache;

/* Bytes of KV without and with snapshots. */
uint64_t ash_kvcache_bytes(const ash_model *m, const ash_kv_plan *p);
ash_status ash_kvcache_init(ash_kvcache *c, const ash_model *m, const ash_kv_plan *p, ash_error *err);
void ash_kvcache_free(ash_kvcache *c);
/* Called after positions [n, n + added) are stored. */
void ash_kvcache_grow(ash_kvcache *c, size_t added);
/* Most tokens, at most `limit`, that the cache can stand on when the first `same` tokens are unchanged (same >= limit);
 * goes there. */
size_t ash_kvcache_back(ash_kvcache *c, size_t limit, size_t same);
void ash_kvcache_clear(ash_kvcache *c);
/* Keep the windows as they are now; the oldest snapshot makes room. */
void ash_kvcache_mark(ash_kvcache *c);

/* What must be kept of a cache to go on from position c->n: one call per piece, in a fixed order that depends on c->n, c->lo,
 * c->tail_lo, the model and the types only. */
typedef void (*ash_kv_piece)(void *ctx, void *p, size_t n);
void ash_kvcache_pieces(const ash_kvcache *c, ash_kv_piece fn, void *ctx);

#endif
