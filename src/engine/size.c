/* size.c - see size.h; and the estimate of a run's memory, ash_mem_estimate. */
#include "engine/size.h"
#include "model/adapter.h"

#include <unistd.h>

enum {
    DEFAULT_CTX = 4096,
    MAX_BATCH = 512,
    MIN_BATCH = 64,             /* below this, unpacking weights costs more than using them */
    ACTIVATION_BYTES = 16 << 20, /* the default batch is the largest of 512, 256, 128, 64 whose activations fit here */
    HEAD_BYTES = 32 << 20,
    HEAD_TOK = 64,
    MAX_ADAPTERS = 64
};

static uint64_t round64(uint64_t n) { return (n + 63) / 64 * 64; }

static uint32_t default_batch(const ash_model *m, bool fast, int max_rank) {
    uint32_t n = MAX_BATCH;
    ash_fwd f;
    while (n > MIN_BATCH && ash_fwd_place(&f, m, (int)n, fast, max_rank, NULL) * sizeof(float) > ACTIVATION_BYTES) n /= 2;
    return n;
}

/* Encoders keep nothing from batch to batch, so there is nothing to quantize. */
static ash_kv_plan kv_plan(const ash_model *m, const ash_session_opts *o) {
    const ash_kv_type plain = o->precision == ASH_PREC_FAST ? ASH_KV_F16 : ASH_KV_F32;
    const bool as_asked = m->hp.causal;
    return (ash_kv_plan){.n_ctx = o->n_ctx,
                         .n_batch = o->n_batch,
                         .k = as_asked && o->cache_k != ASH_KV_AUTO ? o->cache_k : plain,
                         .v = as_asked && o->cache_v != ASH_KV_AUTO ? o->cache_v : plain,
                         .snapshot_bytes = o->snapshot_bytes};
}

ash_status ash_session_measure(const ash_model *m, ash_session_opts *o, ash_session_need *need, ash_error *err) {
    const ash_hparams *hp = &m->hp;
    const bool fast = o->precision == ASH_PREC_FAST;
    ash_session_need n = {0};
    if (o->n_adapters < 0 || o->n_adapters > MAX_ADAPTERS)
        return ash_fail(err, ASH_E_USAGE, "%d adapters; at most %d are possible", o->n_adapters, (int)MAX_ADAPTERS);
    for (int i = 0; i < o->n_adapters; i++) n.max_rank = ASH_MAX(n.max_rank, o->adapters[i]->max_rank);

    if (!o->n_ctx) o->n_ctx = (uint32_t)ASH_MIN(hp->n_ctx_train, DEFAULT_CTX);
    if (!o->n_batch) o->n_batch = default_batch(m, fast, n.max_rank);
    if (!hp->causal) o->n_batch = o->n_ctx; /* every token sees all others */
    o->n_batch = ASH_MIN(o->n_batch, o->n_ctx);
    if (!o->n_threads) o->n_threads = ash_cpu_count();
    if (!o->snapshot_bytes) o->snapshot_bytes = 64u << 20;
    if (o->n_ctx > (1u << 28) || o->n_batch > (1u << 20))
        return ash_fail(err, ASH_E_LIMIT, "a context of %u tokens in batches of %u is too large", o->n_ctx, o->n_batch);
    if ((unsigned)o->cache_k > ASH_KV_Q4_0 || (unsigned)o->cache_v > ASH_KV_Q4_0)
        return ash_fail(err, ASH_E_USAGE, "cache types %d and %d: there are none of these numbers", (int)o->cache_k, (int)o->cache_v);
    if (o->n_threads < 1 || o->n_threads > 1024)
        return ash_fail(err, ASH_E_USAGE, "%d threads asked for; 1 to 1024 are possible", o->n_threads);
    if (hp->n_pos && o->n_ctx > (uint32_t)hp->n_pos)
        return ash_fail(err, ASH_E_LIMIT, "a context of %u tokens: the model has %d positions", o->n_ctx, hp->n_pos);

    ash_fwd f;
    const uint64_t row_bytes = (uint64_t)hp->n_vocab * sizeof(float);
    n.n_ctx = o->n_ctx;
    n.n_batch = o->n_batch;
    n.n_threads = o->n_threads;
    n.plan = kv_plan(m, o);
    ash_kv_plan bare = n.plan;
    bare.snapshot_bytes = 0;
    n.kv = ash_kvcache_bytes(m, &bare);
    n.snapshots = ash_kvcache_bytes(m, &n.plan) - n.kv;
    n.fwd = ash_fwd_place(&f, m, (int)o->n_batch, fast, n.max_rank, NULL) * sizeof(float);
    n.head_tok = (int)ASH_MIN(ASH_MAX(HEAD_BYTES / row_bytes, 1), (uint64_t)ASH_MIN((uint32_t)HEAD_TOK, o->n_batch));
    n.logits = row_bytes * (uint64_t)n.head_tok;
    n.mm = round64(ash_mm_scratch_bytes(ASH_MAX(ash_fwd_widest(hp), n.max_rank)));
    n.attn = round64(ash_attn_scratch_bytes(hp->max_head_dim, hp->max_head, (int)o->n_ctx));
    n.total = n.kv + n.snapshots + n.fwd + n.logits + (n.mm + n.attn) * (uint64_t)o->n_threads + (uint64_t)o->n_ctx * sizeof(ash_token);
    const uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (n.total > ram)
        return ash_fail(err, ASH_E_LIMIT, "a session of %u tokens of context needs %llu bytes, the machine has %llu", o->n_ctx,
                        (unsigned long long)n.total, (unsigned long long)ram);
    *need = n;
    return ASH_OK;
}

/* ---- what a run takes ---- */
ash_status ash_mem_estimate(const ash_model *m, const ash_session_opts *opts, uint64_t tokens, ash_mem *out, ash_error *err) {
    ash_session_opts o = opts ? *opts : ash_session_defaults();
    ash_session_need n;
    ASH_TRY(ash_session_measure(m, &o, &n, err));
    tokens = ASH_MIN(tokens, n.n_ctx);
    ash_kv_plan used = n.plan; /* of a context of just these tokens: the positions they touch */
    used.n_ctx = (uint32_t)ASH_MAX(tokens, 1);
    used.n_batch = ASH_MIN(used.n_batch, used.n_ctx);
    used.snapshot_bytes = 0;
    const uint64_t rows = ASH_MIN(tokens, n.n_batch), threads = (uint64_t)n.n_threads;
    ash_mem e = {.n_ctx = n.n_ctx, .n_batch = n.n_batch, .kv = n.kv, .snapshots = n.snapshots};
    ash_model_weight_bytes(m, &e.live, &e.lookup);
    e.lookup_touched = ash_model_lookup_touched(m, tokens);
    e.kv_used = ASH_MIN(ash_kvcache_bytes(m, &used), n.kv);
    e.scratch = n.fwd + n.logits + (n.mm + n.attn) * threads + n.n_ctx * sizeof(ash_token);
    e.scratch_used = n.fwd / n.n_batch * rows + n.logits / (uint64_t)n.head_tok + (n.mm + n.attn / n.n_ctx * tokens) * threads + tokens * sizeof(ash_token);
    e.resident = e.live + e.lookup_touched + e.kv_used + e.scratch_used;
    e.heap = n.kv + n.snapshots + e.scratch;
    *out = e;
    return ASH_OK;
}
