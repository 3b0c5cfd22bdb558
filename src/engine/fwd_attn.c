/* fwd_attn.c - the attention half of a layer: projections, head norms and rotation, K and V into the cache, attention over
 * the keys a token sees, output projection. */
#include "engine/fwd_int.h"
#include "kern/kv_block.h"

enum { ATTN_TILE = 32 /* query tokens of one attention job */ };

static void norm_heads(const ash_fwd *f, float *x, const float *w, int n_head, int hd) {
    for (int i = 0; i < n_head; i++) f->k->rmsnorm(x + i * hd, w, hd, f->m->hp.eps, x + i * hd);
}

/* A token's row of K or V into a plain cache, or made what a quantized one keeps of it until its block is full: halves. */
static void store(const ash_fwd *f, const ash_stage *s, const ash_kv_half *h, int64_t t, float *x) {
    const int hd = s->l->head_dim, n = s->l->n_head_kv;
    if (h->block) {
        if (h->form == ASH_KEYS_V4)
            for (int i = 0; i < n; i++) ash_hadamard(x + i * hd, hd);
        uint16_t tmp[128];
        for (int i = 0, m; i < n * hd; i += m) {
            m = ASH_MIN(128, n * hd - i);
            f->k->to_f16(x + i, tmp, m);
            f->k->from_f16(tmp, x + i, m);
        }
        if (h->fresh) memcpy(h->fresh + t * n * hd, x, (size_t)(n * hd) * sizeof *x);
        return;
    }
    const bool f16 = h->form == ASH_KEYS_F16;
    const size_t slot = (size_t)((s->pos0 + t) % s->kv->cap), row = (size_t)hd * (f16 ? 2 : 4);
    for (int i = 0; i < n; i++) {
        char *dst = h->p + ((size_t)i * (size_t)s->kv->cap + slot) * row;
        if (f16)
            f->k->to_f16(x + i * hd, (uint16_t *)(void *)dst, hd);
        else
            memcpy(dst, x + i * hd, row);
    }
}

/* Biases, head norms, rotation, K and V into the cache. */
static void kv_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const ash_hparams *hp = &f->m->hp;
    const int hd = l->head_dim, nq = l->n_head * hd, nkv = l->n_head_kv * hd,
              n_rot = l->rope == ASH_ROPE_NONE ? 0 : hp->rope[l->rope].n_rot;
    const ash_rope_fn rope = hp->rope_neox ? f->k->rope_neox : f->k->rope_norm;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        const float *cs = n_rot ? f->cs[l->rope] + t * n_rot : NULL;
        float *q = f->q + t * nq, *k = f->kk + t * nkv, *v = f->vv + t * nkv;
        if (l->bias[ASH_W_Q]) f->k->addto(q, l->bias[ASH_W_Q], nq);
        if (l->norm[ASH_N_Q]) norm_heads(f, q, l->norm[ASH_N_Q], l->n_head, hd);
        if (n_rot) rope(q, l->n_head, hd, n_rot, cs);
        if (l->kv_layer != s->il) continue;
        if (l->bias[ASH_W_K]) f->k->addto(k, l->bias[ASH_W_K], nkv);
        if (l->v_from_k) memcpy(v, k, (size_t)nkv * sizeof *v);
        if (l->bias[ASH_W_V]) f->k->addto(v, l->bias[ASH_W_V], nkv);
        if (l->v_norm) norm_heads(f, v, NULL, l->n_head_kv, hd);
        if (l->norm[ASH_N_K]) norm_heads(f, k, l->norm[ASH_N_K], l->n_head_kv, hd);
        if (n_rot) rope(k, l->n_head_kv, hd, n_rot, cs);
        store(f, s, &s->kv->k, t, k);
        store(f, s, &s->kv->v, t, v);
    }
}

/* ---- quantized layers ----
 * A token at position p sees halves of positions below 32 and from p / 64 * 64 on, blocks of all between: what it sees depends
 * on p only, not on batches. */
static bool quantized(const ash_kv *kv) { return kv->k.block || kv->v.block; }

static float *fresh_rows(const ash_stage *s, const ash_kv_half *h) {
    return h->fresh ? h->fresh : h == &s->kv->v ? s->f->vv : s->f->kk;
}

/* Blocks that the batch completes. Jobs: K and V, heads, blocks. */
static void quant_kv_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    const ash_fwd *f = s->f;
    const int hd = s->l->head_dim, n_head = s->l->n_head_kv, row = n_head * hd, nb = s->kv->cap / ASH_KV_BLOCK;
    const int b0 = s->pos0 / ASH_KV_BLOCK, n = (s->pos0 + s->n_tok) / ASH_KV_BLOCK - b0;
    float *x = (float *)(void *)(f->attn_scratch + (size_t)ith * f->attn_scratch_bytes); /* 32 rows of hd */
    for (int64_t i = b; i < e; i++) {
        const ash_kv_half *h = i / (n_head * (int64_t)n) ? &s->kv->v : &s->kv->k;
        const int head = (int)(i / n % n_head), blk = b0 + (int)(i % n);
        if (!h->block || blk < ASH_KV_SINK / ASH_KV_BLOCK) continue;
        for (int t = 0; t < ASH_KV_BLOCK; t++) {
            const int p = blk * ASH_KV_BLOCK + t;
            if (p < s->pos0)
                f->k->from_f16(h->tail + ((size_t)head * ASH_KV_SPAN + (size_t)(p % ASH_KV_SPAN)) * (size_t)hd, x + t * hd, hd);
            else
                memcpy(x + t * hd, fresh_rows(s, h) + (int64_t)(p - s->pos0) * row + head * hd, (size_t)hd * sizeof *x);
        }
        ash_kv_encode(f->k, h->form, x, hd, hd, (uint8_t *)h->p + ((size_t)head * (size_t)nb + (size_t)(blk % nb)) * h->block);
    }
}

void ash_fwd_kv_commit(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok) {
    const ash_layer *l = &f->m->layers[il];
    const ash_stage s = {.f = f, .l = l, .il = il, .kv = kv, .pos0 = pos0, .n_tok = n_tok};
    const size_t hd = (size_t)l->head_dim, row = (size_t)l->n_head_kv * hd;
    for (int i = 0; i < 2; i++) {
        const ash_kv_half *h = i ? &kv->v : &kv->k;
        if (!h->block) continue;
        for (int t = 0; t < n_tok; t++) {
            const int p = pos0 + t;
            const float *x = fresh_rows(&s, h) + (size_t)t * row;
            for (size_t g = 0; g < (size_t)l->n_head_kv; g++) {
                if (p < ASH_KV_SINK) f->k->to_f16(x + g * hd, h->sink + (g * ASH_KV_SINK + (size_t)p) * hd, (int64_t)hd);
                if (t >= n_tok - ASH_KV_SPAN) f->k->to_f16(x + g * hd, h->tail + (g * ASH_KV_SPAN + (size_t)(p % ASH_KV_SPAN)) * hd, (int64_t)hd);
            }
        }
    }
}

static void add_run(ash_keys *runs, int *n, ash_keys r) {
    if (r.n > 0) runs[(*n)++] = r;
}

/* Positions [a, e) held as halves at `old` + (position % of) rows, those of this batch as floats. */
static void half_runs(const ash_stage *s, const ash_kv_half *h, int head, const uint16_t *old, int of, int a, int e, ash_keys *runs, int *n) {
    const int hd = s->l->head_dim, row = s->l->n_head_kv * hd, mid = ASH_MIN(ASH_MAX(a, s->pos0), ASH_MAX(a, e));
    if (a < mid) add_run(runs, n, (ash_keys){ASH_KEYS_F16, old + ((size_t)head * (size_t)of + (size_t)(a % of)) * (size_t)hd, hd, mid - a, 0});
    if (mid < e)
        add_run(runs, n, (ash_keys){ASH_KEYS_F32, fresh_rows(s, h) + (int64_t)(mid - s->pos0) * row + head * hd, row, e - mid, 0});
}

/* Positions [key0, hi) of a KV head as runs, for queries of the span that p is in. */
static int runs_of(const ash_stage *s, const ash_kv_half *h, int head, int key0, int hi, int p, ash_keys *runs) {
    const int hd = s->l->head_dim, cap = s->kv->cap;
    int n = 0;
    if (!h->block) {
        const size_t row = (size_t)hd * (h->form == ASH_KEYS_F16 ? 2 : 4);
        const char *base = h->p + (size_t)head * (size_t)cap * row;
        const int slot = key0 % cap, n1 = ASH_MIN(hi - key0, cap - slot);
        add_run(runs, &n, (ash_keys){h->form, base + (size_t)slot * row, hd, n1, 0});
        add_run(runs, &n, (ash_keys){h->form, base, hd, hi - key0 - n1, 0});
        return n;
    }
    const int nb = cap / ASH_KV_BLOCK, span = p / ASH_KV_SPAN * ASH_KV_SPAN;
    half_runs(s, h, head, h->sink, ASH_KV_SINK, key0, ASH_MIN(hi, ASH_KV_SINK), runs, &n);
    for (int a = ASH_MAX(key0, ASH_KV_SINK), e; a < span; a = e) {
        const int blk = a / ASH_KV_BLOCK, slot = blk % nb;
        e = ASH_MIN(span, (blk - slot + nb) * ASH_KV_BLOCK);
        add_run(runs, &n, (ash_keys){h->form, h->p + ((size_t)head * (size_t)nb + (size_t)slot) * h->block, (int64_t)h->block, e - a, a % ASH_KV_BLOCK});
    }
    half_runs(s, h, head, h->tail, ASH_KV_SPAN, ASH_MAX(key0, ASH_MAX(span, ASH_KV_SINK)), hi, runs, &n);
    return n;
}

/* Positions [lo, hi) that the token at position p sees, of a timeline whose last computed position is n - 1. An encoder's
 * window is symmetric: half of it on either side. */
static void keys_of(const ash_fwd *f, const ash_layer *l, int p, int n, int *lo, int *hi) {
    if (f->m->hp.causal) {
        *lo = l->window ? ASH_MAX(0, p - l->window + 1) : 0;
        *hi = p + 1;
    } else {
        *lo = l->window ? ASH_MAX(0, p - l->window / 2) : 0;
        *hi = l->window ? ASH_MIN(n, p + l->window / 2 + 1) : n;
    }
}

/* One job: tokens [t0, t1) of the batch, `group` query heads from head h0 on, all on one KV head. */
static void attend(const ash_stage *s, int t0, int t1, int h0, int group, int ith) {
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int hd = l->head_dim, kv_head = h0 / (l->n_head / l->n_head_kv);
    int lo[ATTN_TILE] = {0}, hi[ATTN_TILE] = {0};
    for (int t = t0; t < t1; t++) keys_of(f, l, s->pos0 + t, s->pos0 + s->n_tok, &lo[t - t0], &hi[t - t0]);
    /* first position any of them sees, and the end: both only grow with the token */
    const int key0 = lo[0], end = hi[t1 - t0 - 1];
    for (int t = t0; t < t1; t++) lo[t - t0] -= key0, hi[t - t0] -= key0;
    ash_attn a = {.hd = hd,
                  .group = group,
                  .n_q = t1 - t0,
                  .q = f->q + ((int64_t)t0 * l->n_head + h0) * hd,
                  .ldq = (int64_t)l->n_head * hd,
                  .out = f->o + ((int64_t)t0 * l->n_head + h0) * hd,
                  .ldo = (int64_t)l->n_head * hd,
                  .lo = lo,
                  .hi = hi,
                  .scale = f->m->hp.attn_scale,
                  .cap = f->m->hp.attn_softcap};
    a.n_k = runs_of(s, &s->kv->k, kv_head, key0, end, s->pos0 + t0, a.k);
    a.n_v = runs_of(s, &s->kv->v, kv_head, key0, end, s->pos0 + t0, a.v);
    ash_attn_run(f->k, &a, f->attn_scratch + (size_t)ith * f->attn_scratch_bytes);
    if (s->kv->v.form != ASH_KEYS_V4) return;
    for (int t = 0; t < a.n_q; t++)
        for (int i = 0; i < group; i++) ash_hadamard(a.out + t * a.ldo + i * hd, hd);
}

/* Queries of one job see the same blocks: cut where a span ends. */
static void attend_spans(const ash_stage *s, int t0, int t1, int h0, int group, int ith) {
    for (int t = t0, e; t < t1; t = e) {
        e = t1;
        if (quantized(s->kv)) e = ASH_MIN(t1, ((s->pos0 + t) / ASH_KV_SPAN + 1) * ASH_KV_SPAN - s->pos0);
        attend(s, t, e, h0, group, ith);
    }
}

/* Few tokens: a job is a query head, to keep all threads busy. Many: a tile of tokens and a KV head with its group. */
static void attn_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    const ash_layer *l = s->l;
    const int n = s->n_tok - s->first;
    for (int64_t i = b; i < e; i++) {
        if (n <= 4) {
            attend_spans(s, s->first, s->n_tok, (int)i, 1, ith);
        } else {
            /* last tiles first: they see the most keys */
            int tiles = (n + ATTN_TILE - 1) / ATTN_TILE, tile = tiles - 1 - (int)(i / l->n_head_kv), kvh = (int)(i % l->n_head_kv);
            int group = l->n_head / l->n_head_kv, t0 = s->first + tile * ATTN_TILE;
            attend_spans(s, t0, ASH_MIN(t0 + ATTN_TILE, s->n_tok), kvh * group, group, ith);
        }
    }
}

static void quant_o_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int K = s->l->w[ASH_W_O].K;
    for (int64_t t = s->first + b; t < s->first + e; t++) ash_quant_row(s->f, t, s->f->o + t * K, K);
}

void ash_fwd_attn(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok, int first, int pending) {
    const ash_layer *l = &f->m->layers[il];
    const int e = f->m->hp.n_embd;
    ash_pending p = {0};
    ash_stage s = {
        .f = f, .l = l, .il = il, .kv = kv, .pos0 = pos0, .n_tok = n_tok, .norm = l->norm[ASH_N_ATTN], .norm_b = l->norm_b[ASH_N_ATTN]};
    if (pending >= 0) p = ash_layer_output(&f->m->layers[pending]), s.pend = &p;
    s.quant = ash_has_8bit(f, &l->w[ASH_W_Q]) || ash_has_8bit(f, &l->w[ASH_W_K]) || ash_has_8bit(f, &l->w[ASH_W_V]);
    const bool shared = l->kv_layer != il;
    if (shared) s.first = first; /* nobody asks this layer for the other tokens' K and V */
    ash_stage_run(&s, ash_norm_stage);
    ash_tap(f, il, ASH_TAP_ATTN_IN, 0, f->h + (int64_t)s.first * e, n_tok - s.first, e);
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_Q, ASH_W_K, ASH_W_V}, (float *const[]){f->q, f->kk, f->vv}, shared ? 1 : 3, f->h,
                     s.first, n_tok);
    ash_stage_run(&s, kv_stage);
    const bool own_blocks = !shared && quantized(kv);
    if (own_blocks)
        ash_pool_run(f->pool, 2 * (int64_t)l->n_head_kv * ((pos0 + n_tok) / ASH_KV_BLOCK - pos0 / ASH_KV_BLOCK), 1, quant_kv_stage, &s);

    s.first = first;
    int n = n_tok - first;
    if (n <= 0) {
        if (own_blocks && !l->kv_lent) ash_fwd_kv_commit(f, il, kv, pos0, n_tok);
        return;
    }
    int64_t jobs = n <= 4 ? l->n_head : (int64_t)((n + ATTN_TILE - 1) / ATTN_TILE) * l->n_head_kv;
    ash_pool_run(f->pool, jobs, 1, attn_stage, &s);
    if (own_blocks && !l->kv_lent) ash_fwd_kv_commit(f, il, kv, pos0, n_tok);
    if (ash_has_8bit(f, &l->w[ASH_W_O])) ash_stage_run(&s, quant_o_stage);
    const int K = l->w[ASH_W_O].K;
    ash_tap(f, il, ASH_TAP_O_IN, 0, f->o + (int64_t)first * K, n, K);
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_O}, (float *const[]){f->y}, 1, f->o, first, n_tok);
}
