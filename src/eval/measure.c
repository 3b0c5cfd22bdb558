/* measure.c - perplexity and KL divergence. Logits exist for one block of positions at a time: hidden states go through
 * the head(s), every row is reduced to a handful of numbers, and the buffers are reused. */
#include "eval/ref.h"
#include "eval/stats.h"

#include <math.h>

static inline int32_t ordered(float x) { /* same order as the floats, as integers: max vectorises */
    int32_t b;
    memcpy(&b, &x, 4);
    return b ^ ((b >> 31) & 0x7fffffff);
}

static int64_t argmax(const float *x, int64_t n) {
    int32_t best = INT32_MIN;
    for (int64_t i = 0; i < n; i++) {
        int32_t v = ordered(x[i]);
        best = v > best ? v : best;
    }
    for (int64_t i = 0; i < n; i++)
        if (ordered(x[i]) == best) return i;
    return 0;
}

typedef struct {
    const ash_exec *e;
    const ash_eval_ref *ref;   /* NULL: perplexity only */
    uint32_t n_vocab;
    float *la, *lb;            /* reference and model logits of the block */
    const uint8_t *rows;       /* base-file rows of the block, decoded here into la */
    const ash_token *next;     /* [n] actual next tokens */
    ash_samples *s;
    size_t at;                 /* index of the block's first sample */
    uint8_t *base_out;         /* when writing a base file: encoded rows */
    size_t base_row;
} block_ctx;

static void block_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    block_ctx *b = ctx;
    const ash_kern *k = b->e->k;
    int64_t V = b->n_vocab;
    for (int64_t i = begin; i < end; i++) {
        const float *q = b->lb + i * V;
        size_t at = b->at + (size_t)i;
        double lse = k->lse(q, V);
        b->s->nll[at] = lse - q[b->next[i]];
        if (b->base_out) ash_base_row_encode(q, lse, b->n_vocab, b->base_out + (size_t)i * b->base_row);
        if (!b->ref) continue;
        float *p = b->la + i * V;
        if (b->rows) ash_base_row_decode(b->rows + (size_t)i * b->ref->row_bytes, b->n_vocab, p);
        double lse_p = k->lse(p, V);
        b->s->nll_ref[at] = b->rows ? -(double)ash_base_row_at(b->rows + (size_t)i * b->ref->row_bytes, (uint32_t)b->next[i]) : lse_p - p[b->next[i]];
        double d = k->kld(p, lse_p, q, lse, V);
        b->s->kld[at] = d > 0 ? d : 0; /* rounding may give -1e-9 for equal distributions */
        b->s->dp[at] = exp(-b->s->nll[at]) - exp(-b->s->nll_ref[at]);
        b->s->top1[at] = argmax(p, V) == argmax(q, V);
    }
}

/* Everything one measurement needs; blocks of `cap` positions. */
typedef struct {
    ash_exec e;
    ash_model *m;
    const ash_eval_ref *ref;
    const ash_token *tok;      /* unmodified tokens */
    uint32_t n_ctx, n_chunks, first, per;
    ash_samples s;
    float *la, *lb;
    void *scratch;
    int cap;
    ash_token *next;
    ash_outfile *base;
    uint8_t *base_rows;
} run;

static ash_status run_block(run *r, size_t at, int n, ash_error *err) {
    block_ctx b = {.e = &r->e, .ref = r->ref, .n_vocab = (uint32_t)r->m->hp.n_vocab, .la = r->la, .lb = r->lb, .next = r->next, .s = &r->s,
                   .at = at, .base_out = r->base_rows, .base_row = ash_base_row_bytes((uint32_t)r->m->hp.n_vocab)};
    for (int i = 0; i < n; i++) {
        size_t c = (at + (size_t)i) / r->per, k = (at + (size_t)i) % r->per;
        r->next[i] = r->tok[c * r->n_ctx + r->first + k + 1];
    }
    if (r->ref && r->ref->hidden)
        ash_head_logits(&r->e, r->ref->m, r->ref->hidden + at * r->ref->n_embd, n, r->la, r->scratch);
    else if (r->ref)
        b.rows = r->ref->rows + at * r->ref->row_bytes;
    ash_pool_run(r->e.pool, n, 1, block_part, &b);
    if (r->base) return ash_outfile_write(r->base, r->base_rows, (size_t)n * b.base_row, err);
    return ASH_OK;
}

/* 8-bit path, or a KV cache of another type: a session gives logits position by position. */
typedef struct { run *r; size_t at; int n; } fast_ctx;

static ash_status fast_sink(void *ctx, size_t pos, const float *logits, ash_error *err) {
    fast_ctx *f = ctx;
    run *r = f->r;
    if (pos < r->first || pos >= r->n_ctx - 1) return ASH_OK;
    memcpy(r->lb + (size_t)f->n * (size_t)r->m->hp.n_vocab, logits, (size_t)r->m->hp.n_vocab * sizeof(float));
    if (++f->n == r->cap || pos == r->n_ctx - 2) {
        ASH_TRY(run_block(r, f->at, f->n, err));
        f->at += (size_t)f->n;
        f->n = 0;
    }
    return ASH_OK;
}

static ash_status run_session(run *r, const ash_token *tok, const ash_eval_opts *o, ash_error *err) {
    ash_session_opts so = ash_session_defaults();
    so.n_ctx = r->n_ctx;
    so.n_batch = ASH_MIN(r->n_ctx, 512u);
    so.n_threads = r->e.n_threads;
    so.cpu_level = o->cpu_level;
    so.precision = o->precision;
    so.cache_k = o->cache_k;
    so.cache_v = o->cache_v;
    so.adapters = o->adapters;
    so.adapter_scales = o->adapter_scales;
    so.n_adapters = o->n_adapters;
    ash_session *s = NULL;
    ASH_TRY(ash_session_new(&s, r->m, &so, err));
    ash_status st = ASH_OK;
    for (uint32_t c = 0; c < r->n_chunks && st == ASH_OK; c++) {
        st = ash_progress_at(&o->progress, "eval", c, r->n_chunks, NULL, err);
        fast_ctx f = {r, (size_t)c * r->per, 0};
        if (st == ASH_OK) st = ash_session_eval_all(s, tok + (size_t)c * r->n_ctx, r->n_ctx, r->first, fast_sink, &f, err);
    }
    ash_session_free(s);
    return st;
}

static ash_status run_exact(run *r, const ash_token *tok, const ash_eval_opts *o, ash_error *err) {
    ash_status st = ASH_OK;
    uint32_t g = ash_chunks_per_group(&r->e, r->m, r->n_ctx, r->n_chunks, o->mem_bytes ? o->mem_bytes : 512ull << 20);
    size_t E = (size_t)r->m->hp.n_embd;
    double L = r->m->hp.n_layer, H = ASH_MAX(1.0, L / 4); /* the head's share of the progress */
    uint32_t groups = (r->n_chunks + g - 1) / g;
    float *hidden = ash_alloc_aligned((size_t)g * r->per * E * sizeof(float), 64);
    if (!hidden) return ash_fail(err, ASH_E_NOMEM, "out of memory for %u chunks", g);
    for (uint32_t i = 0, c = 0; i < groups; i++, c += g) {
        uint32_t nc = ASH_MIN(g, r->n_chunks - c);
        ash_fwd_job j = {.m = r->m, .tok = tok + (size_t)c * r->n_ctx, .n_chunks = nc, .n_ctx = r->n_ctx, .first = r->first,
                         .end = r->n_ctx - 1, .progress = &o->progress, .stage = "eval", .done0 = i * (L + H), .total = groups * (L + H)};
        ASH_TRY_GOTO(ash_fwd_chunks(&r->e, &j, hidden, err), done);
        size_t n = (size_t)nc * r->per;
        for (size_t p = 0; p < n; p += (size_t)r->cap) {
            int k = (int)ASH_MIN((size_t)r->cap, n - p);
            ash_head_logits(&r->e, r->m, hidden + p * E, k, r->lb, r->scratch);
            ASH_TRY_GOTO(run_block(r, (size_t)c * r->per + p, k, err), done);
            ASH_TRY_GOTO(ash_progress_at(&o->progress, "eval", i * (L + H) + L + H * (double)p / (double)n, groups * (L + H), NULL, err), done);
        }
    }
done:
    ash_free(hidden);
    return st;
}

static ash_status run_all(run *r, const ash_eval_opts *o, bool add_bos, ash_token bos, ash_error *err) {
    ash_status st = ASH_OK;
    size_t V = (size_t)r->m->hp.n_vocab;
    r->per = r->n_ctx - 1 - r->first;
    r->cap = ash_head_block(r->m, r->ref ? 2 : 1, 128ull << 20);
    ash_token *tok = ash_chunk_tokens(r->tok, r->n_ctx, r->n_chunks, add_bos, bos);
    if (!tok) return ash_fail(err, ASH_E_NOMEM, "out of memory for %u chunks", r->n_chunks);
    ASH_TRY_GOTO(ash_exec_init(&r->e, o->n_threads, o->cpu_level, err), done);
    ASH_TRY_GOTO(ash_samples_init(&r->s, r->n_chunks, r->per, r->ref != NULL, err), done);
    size_t sb = ash_head_scratch_bytes(&r->e, r->m);
    if (r->ref && r->ref->m) sb = ASH_MAX(sb, ash_head_scratch_bytes(&r->e, r->ref->m));
    r->scratch = ash_alloc_aligned(sb, 64);
    r->lb = ash_alloc_aligned((size_t)r->cap * V * sizeof(float), 64);
    r->la = r->ref ? ash_alloc_aligned((size_t)r->cap * V * sizeof(float), 64) : NULL;
    r->next = ash_calloc((size_t)r->cap, sizeof *r->next);
    r->base_rows = r->base ? ash_alloc((size_t)r->cap * ash_base_row_bytes((uint32_t)V)) : NULL;
    if (!r->scratch || !r->lb || !r->next || (r->ref && !r->la) || (r->base && !r->base_rows)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the logits of %d positions", r->cap);
        goto done;
    }
    const bool session = o->precision == ASH_PREC_FAST || o->cache_k != ASH_KV_AUTO || o->cache_v != ASH_KV_AUTO || o->n_adapters > 0;
    st = session ? run_session(r, tok, o, err) : run_exact(r, tok, o, err);
done:
    ash_free(tok);
    ash_free(r->scratch);
    ash_free(r->lb);
    ash_free(r->la);
    ash_free(r->next);
    ash_free(r->base_rows);
    ash_exec_free(&r->e);
    return st;
}

ash_status ash_eval_measure(ash_eval_result *res, ash_model *m, const ash_eval_text *t, const ash_eval_ref *ref, const ash_eval_opts *o,
                            ash_error *err) {
    *res = (ash_eval_result){0};
    double t0 = ash_now();
    run r = {.m = m, .ref = ref};
    bool add_bos;
    ash_token bos;
    if (ref) {
        if ((uint32_t)m->hp.n_vocab != ref->n_vocab)
            return ash_fail(err, ASH_E_FORMAT, "the model has %d tokens in its vocabulary, the reference %u", m->hp.n_vocab, ref->n_vocab);
        r.n_ctx = ref->n_ctx;
        r.n_chunks = o->n_chunks && o->n_chunks < ref->n_chunks ? o->n_chunks : ref->n_chunks;
        r.first = ref->first;
        r.tok = ref->tok;
        add_bos = ref->add_bos;
        bos = ref->bos;
        if (ref->rows) { /* a base file does not say whether its chunks start with BOS: the model does */
            const ash_vocab *v = ash_model_vocab(m, NULL);
            add_bos = v && ash_vocab_add_bos(v);
            bos = v ? ash_vocab_bos(v) : -1;
        }
        if (t && (t->n < (size_t)r.n_ctx * r.n_chunks || memcmp(t->tokens, ref->tok, (size_t)r.n_ctx * r.n_chunks * sizeof *ref->tok) != 0))
            return ash_fail(err, ASH_E_FORMAT, "the text is not the one the reference was made from (or the tokenizers differ)");
    } else {
        if (!t) return ash_fail(err, ASH_E_USAGE, "neither a text nor a reference was given");
        ASH_TRY(ash_eval_windows(t, o, &r.n_ctx, &r.n_chunks, err));
        r.first = r.n_ctx / 2;
        r.tok = t->tokens;
        add_bos = t->add_bos;
        bos = t->bos;
    }
    ash_status st = run_all(&r, o, add_bos, bos, err);
    if (st == ASH_OK) st = ash_stats_result(res, &r.s, o->seed, err);
    if (st == ASH_OK) {
        res->n_ctx = r.n_ctx;
        res->seconds = ash_now() - t0;
    }
    ash_samples_free(&r.s);
    return st;
}

ash_status ash_eval_save_base(ash_model *m, const ash_eval_text *t, const ash_eval_opts *o, const char *path, ash_error *err) {
    run r = {.m = m, .tok = t->tokens};
    ASH_TRY(ash_eval_windows(t, o, &r.n_ctx, &r.n_chunks, err));
    r.first = r.n_ctx / 2;
    ASH_TRY(ash_outfile_open(&r.base, path, err));
    uint32_t head[3] = {r.n_ctx, (uint32_t)m->hp.n_vocab, r.n_chunks};
    ash_status st = ash_outfile_write(r.base, "_logits_", 8, err);
    if (st == ASH_OK) st = ash_outfile_write(r.base, head, sizeof head, err);
    if (st == ASH_OK) st = ash_outfile_write(r.base, r.tok, (size_t)r.n_ctx * r.n_chunks * sizeof *r.tok, err);
    if (st == ASH_OK) st = run_all(&r, o, t->add_bos, t->bos, err);
    if (st == ASH_OK) st = ash_outfile_commit(&r.base, err);
    else ash_outfile_abort(r.base);
    ash_samples_free(&r.s);
    return st;
}
