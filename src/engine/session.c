/* session.c - one timeline: the tokens, their KV, the logits after the last. The caller hands over the prefix it wants;
 * what of the old timeline can stay is decided here and in kv.c, the rest is computed in batches by fwd.c. */
#include "ashlar/engine.h"
#include "engine/session_int.h"
#include "engine/size.h"
#include "model/adapter.h"

#include <math.h>

ash_session_opts ash_session_defaults(void) { return (ash_session_opts){.precision = ASH_PREC_FAST, .cpu_level = -1}; }

/* Adapters of the options, checked; *max_rank of all. */
static ash_status take_adapters(ash_session *s, const ash_session_opts *o, ash_error *err) {
    s->lora = ash_calloc((size_t)o->n_adapters, sizeof *s->lora);
    if (!s->lora) return ash_fail(err, ASH_E_NOMEM, "out of memory for %d adapters", o->n_adapters);
    for (int i = 0; i < o->n_adapters; i++) {
        if (o->adapters[i]->m != s->m) return ash_fail(err, ASH_E_USAGE, "adapter %d was loaded for another model", i + 1);
        s->lora[i] = (ash_lora_use){o->adapters[i], o->adapter_scales ? o->adapter_scales[i] : 1.0f};
    }
    return ASH_OK;
}

ash_status ash_session_new(ash_session **out, ash_model *m, const ash_session_opts *opts, ash_error *err) {
    *out = NULL;
    ash_status st;
    ash_session_opts o = opts ? *opts : ash_session_defaults();
    ash_session_need need;
    ASH_TRY(ash_session_measure(m, &o, &need, err));
    const bool fast = o.precision == ASH_PREC_FAST;

    ash_session *s = ash_calloc(1, sizeof *s);
    if (!s) return ash_fail(err, ASH_E_NOMEM, "out of memory for a session");
    s->m = ash_model_ref(m);
    s->n_ctx = o.n_ctx;
    s->n_batch = o.n_batch;
    s->head_tok = need.head_tok;
    s->bytes = need.total;
    ash_cpu_level level = o.cpu_level < 0 || o.cpu_level >= ASH_CPU_COUNT ? ash_cpu_detect() : (ash_cpu_level)o.cpu_level;
    s->k = ash_kern_get(level);
    ASH_TRY_GOTO(ash_pool_new(&s->pool, o.n_threads, err), fail);
    ASH_TRY_GOTO(ash_kvcache_init(&s->kv, m, &need.plan, err), fail);
    ASH_TRY_GOTO(take_adapters(s, &o, err), fail);
    s->tokens = ash_alloc((size_t)o.n_ctx * sizeof *s->tokens);
    s->logits = ash_alloc_aligned(need.logits, 64);
    s->mem = ash_alloc_aligned(need.fwd, 64);
    s->mm_mem = ash_alloc_aligned(need.mm * (uint64_t)o.n_threads, 64);
    s->attn_mem = ash_alloc_aligned(need.attn * (uint64_t)o.n_threads, 64);
    if (!s->tokens || !s->logits || !s->mem || !s->mm_mem || !s->attn_mem) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a session of %llu bytes", (unsigned long long)need.total);
        goto fail;
    }
    s->fwd = (ash_fwd){.m = m,
                       .k = s->k,
                       .pool = s->pool,
                       .mode = fast ? ASH_MM_FAST : ASH_MM_EXACT,
                       .lora = s->lora,
                       .n_lora = o.n_adapters,
                       .mm_scratch = s->mm_mem,
                       .mm_scratch_bytes = need.mm,
                       .attn_scratch = s->attn_mem,
                       .attn_scratch_bytes = need.attn};
    ash_fwd_place(&s->fwd, m, (int)o.n_batch, fast, need.max_rank, s->mem);
    *out = s;
    return ASH_OK;
fail:
    ash_session_free(s);
    return st;
}

void ash_session_free(ash_session *s) {
    if (!s) return;
    ash_pool_free(s->pool);
    ash_kvcache_free(&s->kv);
    ash_free(s->tokens);
    ash_free(s->lora);
    ash_free(s->logits);
    ash_free(s->mem);
    ash_free(s->mm_mem);
    ash_free(s->attn_mem);
    ash_model_free(s->m);
    ash_free(s);
}

/* ---- computing ---- */
/* One batch: tokens[pos .. pos + n), KV already holding everything before. Only tokens from `first` on leave the last
 * layer; they alone pass the layers that store no K and V of their own at the end. Their residual streams are in fwd.x
 * afterwards. */
static void run_batch(ash_session *s, const ash_token *tokens, int pos, int n, int first) {
    ash_fwd *f = &s->fwd;
    const int L = s->m->hp.n_layer;
    ash_fwd_embed(f, tokens, pos, n);
    ash_fwd_ple_inputs(f, n);
    ash_fwd_rope(f, pos, n);
    for (int il = 0; il < L; il++) {
        int from = il >= s->m->hp.last_kv ? first : 0;
        ash_fwd_attn(f, il, &s->kv.layers[il], pos, n, from, il - 1);
        ash_fwd_ffn(f, il, n, from, true);
    }
    ash_fwd_flush(f, L - 1, ASH_AFTER_LAYER, n, first);
    if (s->kv.quantized)
        for (int il = 0; il < L; il++)
            if (s->m->layers[il].kv_lent) ash_fwd_kv_commit(f, il, &s->kv.layers[il], pos, n);
    ash_kvcache_grow(&s->kv, (size_t)n);
}

/* LongRoPE: a timeline of n tokens is rotated with one set of factors throughout, so crossing the original context, either
 * way, makes all keys anew. The result is then that of a fresh session, however the timeline came about. */
static void choose_rope(ash_session *s, size_t n) {
    const int after = s->m->hp.rope_long_after;
    const bool far = after && n > (size_t)after;
    if (far == s->fwd.rope_long) return;
    s->fwd.rope_long = far;
    ash_kvcache_clear(&s->kv);
}

/* From kv.n to the end of the timeline, then the last token's logits. */
static void catch_up(ash_session *s) {
    choose_rope(s, s->n_tokens);
    while (s->kv.n < s->n_tokens) {
        size_t pos = s->kv.n, n = ASH_MIN(s->n_tokens - pos, (size_t)s->n_batch);
        bool last = pos + n == s->n_tokens;
        run_batch(s, s->tokens + pos, (int)pos, (int)n, last ? (int)n - 1 : (int)n);
        if (last) ash_fwd_head(&s->fwd, (int)n - 1, 1, s->logits);
    }
    s->have_logits = true;
}

static ash_status check_generates(const ash_session *s, ash_error *err) {
    if (s->m->hp.causal) return ASH_OK;
    return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s makes embeddings, it does not predict tokens", ash_model_arch(s->m));
}

static ash_status check_tokens(const ash_session *s, const ash_token *t, size_t from, size_t n, ash_error *err) {
    for (size_t i = from; i < n; i++)
        if (t[i] < 0 || t[i] >= s->m->hp.n_vocab)
            return ash_fail_at(err, ASH_E_RANGE, i, "token %zu is id %d; the model has ids 0 to %d", i, t[i], s->m->hp.n_vocab - 1);
    return ASH_OK;
}

static ash_status check_length(const ash_session *s, size_t n, ash_error *err) {
    if (n > s->n_ctx) return ash_fail(err, ASH_E_LIMIT, "%zu tokens do not fit the context of %u", n, s->n_ctx);
    return ASH_OK;
}

ash_status ash_session_sync(ash_session *s, const ash_token *tokens, size_t n, size_t *reused, ash_error *err) {
    if (n < 1) return ash_fail(err, ASH_E_USAGE, "a timeline needs at least one token");
    ASH_TRY(check_generates(s, err));
    ASH_TRY(check_length(s, n, err));
    size_t same = 0, most = ASH_MIN(n, s->n_tokens);
    while (same < most && s->tokens[same] == tokens[same]) same++;
    ASH_TRY(check_tokens(s, tokens, same, n, err));
    if (same == n && n == s->n_tokens && s->have_logits) {
        if (reused) *reused = n;
        return ASH_OK;
    }
    choose_rope(s, n);
    size_t base = ash_kvcache_back(&s->kv, ASH_MIN(same, n - 1), same);
    memmove(s->tokens + same, tokens + same, (n - same) * sizeof *tokens);
    s->n_tokens = n;
    if (reused) *reused = base;
    catch_up(s);
    return ASH_OK;
}

ash_status ash_session_append(ash_session *s, ash_token t, ash_error *err) {
    ASH_TRY(check_generates(s, err));
    ASH_TRY(check_length(s, s->n_tokens + 1, err));
    ASH_TRY(check_tokens(s, &t, 0, 1, err));
    s->tokens[s->n_tokens++] = t;
    catch_up(s);
    return ASH_OK;
}

ash_status ash_session_rewind(ash_session *s, size_t n, ash_error *err) {
    if (n > s->n_tokens) return ash_fail(err, ASH_E_RANGE, "cannot rewind to %zu tokens: there are %zu", n, s->n_tokens);
    if (n == s->n_tokens) return ASH_OK;
    ash_kvcache_back(&s->kv, n, n);
    s->n_tokens = n;
    s->have_logits = false;
    return ASH_OK;
}

ash_status ash_session_mark(ash_session *s, ash_error *err) {
    if (s->kv.n != s->n_tokens) return ash_fail(err, ASH_E_STATE, "the timeline was rewound and is not computed yet");
    ash_kvcache_mark(&s->kv);
    return ASH_OK;
}

/* All positions >= first of a fresh timeline: logits, or hidden states. */
static ash_status eval(ash_session *s, const ash_token *tokens, size_t n, size_t first, bool hidden, ash_logits_sink sink, void *ctx,
                       ash_error *err) {
    ASH_TRY(check_length(s, n, err));
    ASH_TRY(check_tokens(s, tokens, 0, n, err));
    ash_kvcache_clear(&s->kv);
    choose_rope(s, n);
    s->n_tokens = 0;
    s->have_logits = false;
    const size_t cols = (size_t)(hidden ? s->m->hp.n_embd : s->m->hp.n_vocab);
    ash_status st = ASH_OK;
    for (size_t pos = 0; pos < n && st == ASH_OK;) {
        int nb = (int)ASH_MIN(n - pos, (size_t)s->n_batch);
        int from = first > pos ? (int)ASH_MIN(first - pos, (size_t)nb) : 0;
        run_batch(s, tokens + pos, (int)pos, nb, from);
        if (hidden) ash_fwd_hidden(&s->fwd, from, nb - from);
        for (int t = from; t < nb && st == ASH_OK;) {
            int c = hidden ? nb - t : ASH_MIN(nb - t, s->head_tok);
            if (!hidden) ash_fwd_head(&s->fwd, t, c, s->logits);
            const float *rows = hidden ? s->fwd.h + (size_t)t * cols : s->logits;
            for (int i = 0; i < c && st == ASH_OK; i++) st = sink(ctx, pos + (size_t)(t + i), rows + (size_t)i * cols, err);
            t += c;
        }
        pos += (size_t)nb;
    }
    ash_kvcache_clear(&s->kv);
    return st;
}

ash_status ash_session_eval_all(ash_session *s, const ash_token *tokens, size_t n, size_t first, ash_logits_sink sink, void *ctx,
                                ash_error *err) {
    ASH_TRY(check_generates(s, err));
    return eval(s, tokens, n, first, false, sink, ctx, err);
}

ash_status ash_session_eval_hidden(ash_session *s, const ash_token *tokens, size_t n, size_t first, ash_logits_sink sink, void *ctx,
                                   ash_error *err) {
    return eval(s, tokens, n, first, true, sink, ctx, err);
}

/* ---- one vector for a text ---- */
typedef struct {
    float *out;
    int n_embd;
} pool_ctx;

static ash_status add_state(void *ctx, size_t pos, const float *h, ash_error *err) {
    (void)pos, (void)err;
    pool_ctx *p = ctx;
    for (int i = 0; i < p->n_embd; i++) p->out[i] += h[i];
    return ASH_OK;
}

static ash_status keep_first(void *ctx, size_t pos, const float *h, ash_error *err) {
    (void)err;
    pool_ctx *p = ctx;
    if (pos == 0) memcpy(p->out, h, (size_t)p->n_embd * sizeof *h);
    return ASH_OK;
}

/* y = W x; rows are decoded one by one into `row`. */
static ash_status times(const ash_mat *w, const float *x, float *row, float *y, ash_error *err) {
    for (int64_t r = 0; r < w->n_rows; r++) {
        double sum = 0;
        if (!ash_dtype_decode(w->type, w->data + (size_t)r * w->row_bytes, row, (uint64_t)w->K))
            return ash_fail(err, ASH_E_UNSUPPORTED, "%s cannot be decoded", ash_dtype_name(w->type));
        for (int i = 0; i < w->K; i++) sum += (double)row[i] * (double)x[i];
        y[r] = (float)sum;
    }
    return ASH_OK;
}

/* The two matrices after pooling (EmbeddingGemma), where the file has them. Without biases, so the vector's length is of no matter. */
static ash_status after_pooling(const ash_model *m, float *v, ash_error *err) {
    if (!m->dense_2.data) return ASH_OK;
    const size_t n = (size_t)m->dense_2.n_rows, e = (size_t)m->dense_2.K;
    float *mid = ash_alloc((n + ASH_MAX(n, e)) * sizeof *mid);
    if (!mid) return ash_fail(err, ASH_E_NOMEM, "out of memory for an embedding");
    ash_status st = times(&m->dense_2, v, mid + n, mid, err);
    if (st == ASH_OK) st = times(&m->dense_3, mid, mid + n, v, err);
    ash_free(mid);
    return st;
}

ash_status ash_session_embed(ash_session *s, const ash_token *tokens, size_t n, ash_embed_pooling pooling, float *out, ash_error *err) {
    const int e = s->m->hp.n_embd;
    if (n < 1) return ash_fail(err, ASH_E_USAGE, "an embedding needs at least one token");
    if (pooling == ASH_EMBED_AUTO) {
        ash_pool_kind k = s->m->hp.pooling;
        pooling = k == ASH_POOL_CLS ? ASH_EMBED_FIRST : k == ASH_POOL_LAST ? ASH_EMBED_LAST : ASH_EMBED_MEAN;
    }
    pool_ctx p = {out, e};
    memset(out, 0, (size_t)e * sizeof *out);
    ASH_TRY(eval(s, tokens, n, pooling == ASH_EMBED_LAST ? n - 1 : 0, true, pooling == ASH_EMBED_FIRST ? keep_first : add_state, &p, err));
    ASH_TRY(after_pooling(s->m, out, err));
    double sq = 0;
    for (int i = 0; i < e; i++) sq += (double)out[i] * (double)out[i];
    const double inv = sq > 0 ? 1.0 / sqrt(sq) : 0; /* the mean's 1/n goes the same way */
    for (int i = 0; i < e; i++) out[i] = (float)((double)out[i] * inv);
    return ASH_OK;
}

/* ---- looking ---- */
uint64_t ash_session_bytes(const ash_session *s) { return s->bytes; }
uint32_t ash_session_n_ctx(const ash_session *s) { return s->n_ctx; }
size_t ash_session_n_tokens(const ash_session *s) { return s->n_tokens; }
const ash_token *ash_session_tokens(const ash_session *s) { return s->tokens; }
const float *ash_session_logits(const ash_session *s) { return s->have_logits ? s->logits : NULL; }
