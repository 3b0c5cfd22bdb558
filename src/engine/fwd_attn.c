/* fwd_attn.c - the attention half of a layer: projections, head norms and rotation, K and V into the cache, attention over
 * the keys a token sees, output projection. */
#include "engine/fwd_int.h"

enum { ATTN_TILE = 32 /* query tokens of one attention job */ };

static void norm_heads(const ash_fwd *f, float *x, const float *w, int n_head, int hd) {
    for (int i = 0; i < n_head; i++) f->k->rmsnorm(x + i * hd, w, hd, f->m->hp.eps, x + i * hd);
}

static void store(const ash_fwd *f, const float *x, int hd, char *dst) {
    if (f->kv_f16)
        f->k->to_f16(x, (uint16_t *)(void *)dst, hd);
    else
        memcpy(dst, x, (size_t)hd * sizeof(float));
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
    const size_t es = f->kv_f16 ? 2 : 4;
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
        const int64_t slot = (s->pos0 + t) % s->kv->cap;
        for (int i = 0; i < l->n_head_kv; i++) {
            size_t at = ((size_t)i * (size_t)s->kv->cap + (size_t)slot) * (size_t)hd * es;
            store(f, k + i * hd, hd, (char *)s->kv->k + at);
            store(f, v + i * hd, hd, (char *)s->kv->v + at);
        }
    }
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
    const int hd = l->head_dim, cap = s->kv->cap, kv_head = h0 / (l->n_head / l->n_head_kv);
    const size_t es = f->kv_f16 ? 2 : 4;
    int lo[ATTN_TILE] = {0}, hi[ATTN_TILE] = {0};
    for (int t = t0; t < t1; t++) keys_of(f, l, s->pos0 + t, s->pos0 + s->n_tok, &lo[t - t0], &hi[t - t0]);
    /* first position any of them sees, and how many from there: both ends only grow with the token */
    const int key0 = lo[0], n_keys = hi[t1 - t0 - 1] - key0, slot = key0 % cap, n1 = ASH_MIN(n_keys, cap - slot);
    for (int t = t0; t < t1; t++) lo[t - t0] -= key0, hi[t - t0] -= key0;
    const char *k = (const char *)s->kv->k + (size_t)kv_head * (size_t)cap * (size_t)hd * es;
    const char *v = (const char *)s->kv->v + (size_t)kv_head * (size_t)cap * (size_t)hd * es;
    size_t off = (size_t)slot * (size_t)hd * es;
    ash_attn a = {.f16 = f->kv_f16,
                  .hd = hd,
                  .n_seg = n_keys > n1 ? 2 : 1,
                  .seg = {{k + off, v + off, hd, hd, n1}, {k, v, hd, hd, n_keys - n1}},
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
    ash_attn_run(f->k, &a, f->attn_scratch + (size_t)ith * f->attn_scratch_bytes);
}

/* Few tokens: a job is a query head, to keep all threads busy. Many: a tile of tokens and a KV head with its group. */
static void attn_stage(void *ctx, int64_t b, int64_t e, int ith) {
    const ash_stage *s = ctx;
    const ash_layer *l = s->l;
    const int n = s->n_tok - s->first;
    for (int64_t i = b; i < e; i++) {
        if (n <= 4) {
            attend(s, s->first, s->n_tok, (int)i, 1, ith);
        } else {
            /* last tiles first: they see the most keys */
            int tiles = (n + ATTN_TILE - 1) / ATTN_TILE, tile = tiles - 1 - (int)(i / l->n_head_kv), kvh = (int)(i % l->n_head_kv);
            int group = l->n_head / l->n_head_kv, t0 = s->first + tile * ATTN_TILE;
            attend(s, t0, ASH_MIN(t0 + ATTN_TILE, s->n_tok), kvh * group, group, ith);
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

    s.first = first;
    int n = n_tok - first;
    if (n <= 0) return;
    int64_t jobs = n <= 4 ? l->n_head : (int64_t)((n + ATTN_TILE - 1) / ATTN_TILE) * l->n_head_kv;
    ash_pool_run(f->pool, jobs, 1, attn_stage, &s);
    if (ash_has_8bit(f, &l->w[ASH_W_O])) ash_stage_run(&s, quant_o_stage);
    const int K = l->w[ASH_W_O].K;
    ash_tap(f, il, ASH_TAP_O_IN, 0, f->o + (int64_t)first * K, n, K);
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_O}, (float *const[]){f->y}, 1, f->o, first, n_tok);
}
