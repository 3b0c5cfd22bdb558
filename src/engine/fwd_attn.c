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
    if (a < mid) add_run(runs, n, (ash_keys){ASH_KEYS_F16, old + ((size_t)head * (size_t)of + (size_t)(a % of)) * (size_t)hd, hd, mid - a});
    if (mid < e)
        add_run(runs, n, (ash_keys){ASH_KEYS_F32, fresh_rows(s, h) + (int64_t)(mid - s->pos0) * row + head * hd, row, e - mid});
}

/* Positions [key0, hi) of a KV head as runs, for queries of the span that p is in; key0 is a multiple of 32 where a half is
 * quantized. */
static int runs_of(const ash_stage *s, const ash_kv_half *h, int head, int key0, int hi, int p, ash_keys *runs) {
    const int hd = s->l->head_dim, cap = s->kv->cap;
    int n = 0;
    if (!h->block) {
        const size_t row = (size_t)hd * (h->form == ASH_KEYS_F16 ? 2 : 4);
        const char *base = h->p + (size_t)head * (size_t)cap * row;
        const int slot = key0 % cap, n1 = ASH_MIN(hi - key0, cap - slot);
        add_run(runs, &n, (ash_keys){h->form, base + (size_t)slot * row, hd, n1});
        add_run(runs, &n, (ash_keys){h->form, base, hd, hi - key0 - n1});
        return n;
    }
    const int nb = cap / ASH_KV_BLOCK, span = p / ASH_KV_SPAN * ASH_KV_SPAN;
    half_runs(s, h, head, h->sink, ASH_KV_SINK, key0, ASH_MIN(hi, ASH_KV_SINK), runs, &n);
    for (int a = ASH_MAX(key0, ASH_KV_SINK), e; a < span; a = e) {
        const int blk = a / ASH_KV_BLOCK, slot = blk % nb;
        e = ASH_MIN(span, (blk - slot + nb) * ASH_KV_BLOCK);
        add_run(runs, &n, (ash_keys){h->form, h->p + ((size_t)head * (size_t)nb + (size_t)slot) * h->block, 0, e - a});
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

/* Attention of tokens [t0, t1) of the batch for `group` query heads from head h0 on, all on one KV head. */
typedef struct {
    ash_attn a;
    int lo[ATTN_TILE], hi[ATTN_TILE];
} task;

static void task_of(task *k, const ash_stage *s, int t0, int t1, int h0, int group) {
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int hd = l->head_dim, kv_head = h0 / (l->n_head / l->n_head_kv);
    for (int t = t0; t < t1; t++) keys_of(f, l, s->pos0 + t, s->pos0 + s->n_tok, &k->lo[t - t0], &k->hi[t - t0]);
    /* first position any of them sees, and the end: both only grow with the token */
    const int key0 = quantized(s->kv) ? k->lo[0] - k->lo[0] % ASH_KV_BLOCK : k->lo[0], end = k->hi[t1 - t0 - 1];
    for (int t = t0; t < t1; t++) k->lo[t - t0] -= key0, k->hi[t - t0] -= key0;
    k->a = (ash_attn){.hd = hd,
                      .group = group,
                      .n_q = t1 - t0,
                      .q = f->q + ((int64_t)t0 * l->n_head + h0) * hd,
                      .ldq = (int64_t)l->n_head * hd,
                      .out = f->o + ((int64_t)t0 * l->n_head + h0) * hd,
                      .ldo = (int64_t)l->n_head * hd,
                      .lo = k->lo,
                      .hi = k->hi,
                      .scale = f->m->hp.attn_scale,
                      .cap = f->m->hp.attn_softcap};
    k->a.n_k = runs_of(s, &s->kv->k, kv_head, key0, end, s->pos0 + t0, k->a.k);
    k->a.n_v = runs_of(s, &s->kv->v, kv_head, key0, end, s->pos0 + t0, k->a.v);
}

static void turn_back(const ash_stage *s, const ash_attn *a) {
    if (s->kv->v.form != ASH_KEYS_V4) return;
    for (int t = 0; t < a->n_q; t++)
        for (int i = 0; i < a->group; i++) ash_hadamard(a->out + t * a->ldo + i * a->hd, a->hd);
}

/* End of the tokens from t0 on that one task can take, at most t1: queries of one task see the same blocks. */
static int span_end(const ash_stage *s, int t0, int t1) {
    return quantized(s->kv) ? ASH_MIN(t1, ((s->pos0 + t0) / ASH_KV_SPAN + 1) * ASH_KV_SPAN - s->pos0) : t1;
}

static void attend(const ash_stage *s, int t0, int t1, int h0, int group, int ith) {
    task k;
    for (int t = t0, e; t < t1; t = e) {
        e = span_end(s, t, t1);
        task_of(&k, s, t, e, h0, group);
        ash_attn_run(s->f->k, &k.a, s->f->attn_scratch + (size_t)ith * s->f->attn_scratch_bytes);
        turn_back(s, &k.a);
    }
}

/* Jobs: query heads, or KV heads with their group, or tiles of tokens times KV heads. */
static void head_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    for (int64_t h = b; h < e; h++) attend(s, s->first, s->n_tok, (int)h, 1, ith);
}

static void group_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    const int group = s->l->n_head / s->l->n_head_kv;
    for (int64_t h = b; h < e; h++) attend(s, s->first, s->n_tok, (int)h * group, group, ith);
}

static void tile_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    const ash_layer *l = s->l;
    const int n = s->n_tok - s->first, group = l->n_head / l->n_head_kv;
    for (int64_t i = b; i < e; i++) {
        /* last tiles first: they see the most keys */
        const int tiles = (n + ATTN_TILE - 1) / ATTN_TILE, tile = tiles - 1 - (int)(i / l->n_head_kv), kvh = (int)(i % l->n_head_kv);
        const int t0 = s->first + tile * ATTN_TILE;
        attend(s, t0, ASH_MIN(t0 + ATTN_TILE, s->n_tok), kvh * group, group, ith);
    }
}

/* ---- few tokens, many keys: scores in parts of the keys, weights by row, outputs in parts of the dimensions ---- */
enum { FEW_TOKENS = 4, MANY_KEYS = 256, KEY_PART = 256 };

typedef struct {
    const ash_stage *s;
    int t0, t1, group;
    int parts;           /* of a KV head */
    ash_attn_scores sc;  /* the first KV head's */
} split;

static void split_task(const split *p, task *k, ash_attn_scores *sc, int kv_head) {
    task_of(k, p->s, p->t0, p->t1, kv_head * p->group, p->group);
    *sc = p->sc;
    sc->s += (size_t)kv_head * (size_t)((p->t1 - p->t0) * p->group) * sc->pitch;
}
static char *scratch_of(const split *p, int ith) { return p->s->f->attn_scratch + (size_t)ith * p->s->f->attn_scratch_bytes; }

static void score_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const split *p = ctx;
    task k;
    ash_attn_scores sc;
    for (int64_t i = b; i < e; i++) {
        const int j = p->sc.base + (int)(i % p->parts) * KEY_PART;
        split_task(p, &k, &sc, (int)(i / p->parts));
        ash_attn_score(p->s->f->k, &k.a, &sc, j, j + KEY_PART, scratch_of(p, ith));
    }
}

static void weigh_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const split *p = ctx;
    const int rows = (p->t1 - p->t0) * p->group;
    task k;
    ash_attn_scores sc;
    for (int64_t i = b; i < e; i++) {
        split_task(p, &k, &sc, (int)(i / rows));
        ash_attn_weigh(p->s->f->k, &k.a, &sc, (int)(i % rows));
    }
}

static void sum_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const split *p = ctx;
    const int width = p->s->l->head_dim / p->parts;
    task k;
    ash_attn_scores sc;
    for (int64_t i = b; i < e; i++) {
        const int d = (int)(i % p->parts) * width;
        split_task(p, &k, &sc, (int)(i / p->parts));
        ash_attn_sum(p->s->f->k, &k.a, &sc, d, d + width, scratch_of(p, ith));
    }
}

static void attend_split(ash_stage *s) {
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int threads = ash_pool_threads(f->pool), n_kv = l->n_head_kv;
    split p = {.s = s, .group = l->n_head / n_kv};
    task k;
    for (p.t0 = s->first; p.t0 < s->n_tok; p.t0 = p.t1) {
        p.t1 = span_end(s, p.t0, s->n_tok);
        task_of(&k, s, p.t0, p.t1, 0, p.group);
        p.sc = ash_attn_shape(&k.a);
        p.sc.s = ash_attn_shared(f->attn_scratch, l->head_dim, p.group);
        p.parts = (p.sc.end - p.sc.base + KEY_PART - 1) / KEY_PART;
        ash_pool_run(f->pool, (int64_t)n_kv * p.parts, 1, score_stage, &p);
        ash_pool_run(f->pool, (int64_t)(p.t1 - p.t0) * l->n_head, 1, weigh_stage, &p);
        for (p.parts = 1; n_kv * p.parts < 2 * threads && l->head_dim % (64 * p.parts) == 0;) p.parts *= 2;
        ash_pool_run(f->pool, (int64_t)n_kv * p.parts, 1, sum_stage, &p);
        for (int h = 0; h < n_kv; h++) {
            task_of(&k, s, p.t0, p.t1, h * p.group, p.group);
            turn_back(s, &k.a);
        }
    }
}

static void run_attention(ash_stage *s) {
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int n = s->n_tok - s->first, threads = ash_pool_threads(f->pool), group = l->n_head / l->n_head_kv;
    int lo, hi;
    keys_of(f, l, s->pos0 + s->first, s->pos0 + s->n_tok, &lo, &hi);
    /* what the scores of all heads take (ash_attn_scratch_bytes was asked for all heads' rows of one token) */
    const bool fits = n == 1 || (size_t)n * (size_t)l->n_head * (size_t)(hi - lo + 128) <= 65536;
    if (n > FEW_TOKENS)
        ash_pool_run(f->pool, (int64_t)((n + ATTN_TILE - 1) / ATTN_TILE) * l->n_head_kv, 1, tile_stage, s);
    else if (threads == 1 || l->n_head_kv % threads == 0 || l->n_head_kv >= 8 * threads)
        ash_pool_run(f->pool, l->n_head_kv, 1, group_stage, s);
    else if (hi - lo >= MANY_KEYS && fits && n * group <= ASH_ATTN_ROWS)
        attend_split(s);
    else
        ash_pool_run(f->pool, l->n_head, 1, head_stage, s);
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
    run_attention(&s);
    if (own_blocks && !l->kv_lent) ash_fwd_kv_commit(f, il, kv, pos0, n_tok);
    if (ash_has_8bit(f, &l->w[ASH_W_O])) ash_stage_run(&s, quant_o_stage);
    const int K = l->w[ASH_W_O].K;
    ash_tap(f, il, ASH_TAP_O_IN, 0, f->o + (int64_t)first * K, n, K);
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_O}, (float *const[]){f->y}, 1, f->o, first, n_tok);
}
