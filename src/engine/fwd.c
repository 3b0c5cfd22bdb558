/* fwd.c - the one forward pass. A layer is a few stages over tokens (norm, rope, activation: element-wise and cheap)
 * between matrix products; each stage does for a token all that can be done for it, so that a single token passes
 * with one dispatch per product and one for attention. Nothing here allocates, and no token's value depends on which
 * other tokens are in the batch: stages and kernels work token by token in a fixed order. */
#include "engine/fwd.h"

#include <math.h>

enum { ATTN_TILE = 32 /* query tokens of one attention job */, STAGE_GRAIN = 8 };

/* ---- buffers ---- */
static uint64_t pad16(uint64_t n) { return (n + 15) / 16 * 16; } /* 64-byte rows of floats */

static int widest_input(const ash_hparams *hp) { return ASH_MAX(hp->n_embd, ASH_MAX(hp->max_q, hp->max_ff)); }

typedef struct {
    uint64_t x, h, y, work, cs[ASH_ROPE_KINDS], q8, d8, b8; /* floats per buffer */
} sizes;

static sizes measure(const ash_model *m, uint64_t n, bool act8) {
    const ash_hparams *hp = &m->hp;
    uint64_t attn = pad16(n * (uint64_t)hp->max_q) * 2 + pad16(n * (uint64_t)hp->max_kv) * 2, ffn = pad16(n * (uint64_t)hp->max_ff) * 2;
    uint64_t w = (uint64_t)(widest_input(hp) + 31) / 32 * 32;
    sizes s = {.x = pad16(n * (uint64_t)hp->n_embd), .work = ASH_MAX(attn, ffn)};
    s.h = s.y = s.x;
    for (int i = 0; i < hp->n_rope; i++) s.cs[i] = pad16(n * (uint64_t)hp->rope[i].n_rot);
    if (act8) s.q8 = pad16(n * w / 4), s.d8 = pad16(n * w / 32), s.b8 = pad16(n * w / 32);
    return s;
}

/* n_tok and every dimension are at most 2^28 and 2^20: no overflow in 64 bits */
uint64_t ash_fwd_floats(const ash_model *m, int n_tok, bool act8) {
    sizes s = measure(m, (uint64_t)n_tok, act8);
    return s.x + s.h + s.y + s.work + s.cs[0] + s.cs[1] + s.q8 + s.d8 + s.b8;
}

void ash_fwd_place(ash_fwd *f, const ash_model *m, int n_tok, bool act8, float *mem) {
    const ash_hparams *hp = &m->hp;
    sizes s = measure(m, (uint64_t)n_tok, act8);
    uint64_t n = (uint64_t)n_tok;
    f->x = mem, mem += s.x;
    f->h = mem, mem += s.h;
    f->y = mem, mem += s.y;
    f->q = mem;
    f->o = f->q + pad16(n * (uint64_t)hp->max_q);
    f->kk = f->o + pad16(n * (uint64_t)hp->max_q);
    f->vv = f->kk + pad16(n * (uint64_t)hp->max_kv);
    f->g = mem;
    f->u = f->g + pad16(n * (uint64_t)hp->max_ff);
    mem += s.work;
    for (int i = 0; i < ASH_ROPE_KINDS; i++) f->cs[i] = mem, mem += s.cs[i];
    if (!act8) return;
    int64_t w = (widest_input(hp) + 31) / 32 * 32;
    f->a = (ash_act8){.q = (int8_t *)mem, .d = mem + s.q8, .b = (int16_t *)(mem + s.q8 + s.d8), .ld_q = w, .ld_d = w / 32, .ld_b = w / 16};
}

/* ---- what a stage knows ---- */
typedef struct {
    ash_fwd *f;
    const ash_layer *l;
    const float *post;   /* post norm of the pending output, may be NULL */
    bool pending;
    bool quant;          /* fill f->a for the next product */
    bool shared_kv;      /* K and V are another layer's */
    const float *norm;
    const ash_kv *kv;
    int pos0, first, n_tok;
    const ash_token *tokens;
} stage;

static void run_stage(const stage *s, ash_pool_fn fn) {
    int64_t n = s->n_tok - s->first;
    if (n > 0) ash_pool_run(s->f->pool, n, STAGE_GRAIN, fn, (void *)(uintptr_t)s);
}

static void quant_row(ash_fwd *f, int64_t t, const float *x, int K) {
    f->k->quant8(x, K, f->a.q + t * f->a.ld_q, f->a.d + t * f->a.ld_d, f->a.b + t * f->a.ld_b);
}

static void tap(ash_fwd *f, int il, ash_tap_point p, const float *x, int first, int n_tok, int K) {
    if (f->tap && n_tok > first) f->tap(f->tap_ctx, il, p, x + (int64_t)first * K, K, n_tok - first, K);
}

/* ---- matrix products: one dispatch for all matrices that read the same input ---- */
static bool has_8bit(const ash_fwd *f, const ash_mat *w) { return f->mode == ASH_MM_FAST && ash_dtype_i8_form(w->type).G > 0; }

static void product(ash_fwd *f, const ash_mm_job *jobs, int n_jobs, const float *x, int first, int n_tok) {
    const int K = jobs[0].w->K;
    bool q8 = false;
    for (int i = 0; i < n_jobs; i++) q8 = q8 || has_8bit(f, jobs[i].w);
    x += (int64_t)first * K;
    if (!q8) {
        ash_mm_f32(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, jobs, n_jobs, x, K, n_tok - first);
        return;
    }
    ash_act8 a = f->a;
    a.q += first * a.ld_q, a.d += first * a.ld_d, a.b += first * a.ld_b;
    ash_mm_i8(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, jobs, n_jobs, a, x, K, n_tok - first);
}

/* y[i] rows have the width of the matrix' rows. */
static void products(ash_fwd *f, int il, const ash_role *roles, float *const *y, int n, const float *x, int first, int n_tok) {
    if (n_tok <= first) return;
    const ash_layer *l = &f->m->layers[il];
    ash_mm_job jobs[3];
    for (int i = 0; i < n; i++) {
        const ash_mat *w = &l->w[roles[i]];
        jobs[i] = (ash_mm_job){w, y[i] + (int64_t)first * w->n_rows, w->n_rows};
        if (f->mode == ASH_MM_PACKED)
            f->k->gemmf(f->packed[roles[i]], w->K, w->n_rows, x + (int64_t)first * w->K, w->K, n_tok - first, jobs[i].y, jobs[i].ldy);
    }
    if (f->mode != ASH_MM_PACKED) product(f, jobs, n, x, first, n_tok);
}

/* ---- start ---- */
static void embed_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    const ash_mat *w = &s->f->m->embd;
    const float scale = s->f->m->hp.embd_scale;
    for (int64_t t = b; t < e; t++) {
        float *x = s->f->x + t * w->K;
        s->f->k->decode[w->type](w->data + (size_t)s->tokens[t] * w->row_bytes, x, w->K);
        if (scale != 1.0f)
            for (int i = 0; i < w->K; i++) x[i] *= scale;
    }
}

void ash_fwd_embed(ash_fwd *f, const ash_token *t, int n) {
    stage s = {.f = f, .n_tok = n, .tokens = t};
    run_stage(&s, embed_stage);
}

static void rope_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    const ash_hparams *hp = &s->f->m->hp;
    for (int kind = 0; kind < hp->n_rope; kind++) {
        const ash_rope *r = &hp->rope[kind];
        for (int64_t t = b; t < e; t++) {
            float *cs = s->f->cs[kind] + t * r->n_rot;
            for (int i = 0; i < r->n_rot / 2; i++) {
                double a = (double)r->freq[i] * (double)(s->pos0 + t);
                cs[2 * i] = (float)cos(a) * r->magnitude;
                cs[2 * i + 1] = (float)sin(a) * r->magnitude;
            }
        }
    }
}

void ash_fwd_rope(ash_fwd *f, int pos0, int n_tok) {
    stage s = {.f = f, .pos0 = pos0, .n_tok = n_tok};
    run_stage(&s, rope_stage);
}

/* ---- stages of a layer ---- */
/* x += post norm(y) for one token. */
static void add_pending(const stage *s, int64_t t) {
    const int n = s->f->m->hp.n_embd;
    float *y = s->f->y + t * n;
    if (s->post) s->f->k->rmsnorm(y, s->post, n, s->f->m->hp.eps, y);
    s->f->k->addto(s->f->x + t * n, y, n);
}

/* What waits is added, the result normalised and quantized: the input of Q, K, V or of gate, up. */
static void norm_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        if (s->pending) add_pending(s, t);
        float *h = s->f->h + t * n;
        s->f->k->rmsnorm(s->f->x + t * n, s->norm, n, s->f->m->hp.eps, h);
        if (s->quant) quant_row(s->f, t, h, n);
    }
}

static void flush_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    for (int64_t t = s->first + b; t < s->first + e; t++) add_pending(s, t);
}

/* Head norms, rotation, K and V into the cache. */
static void kv_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const ash_hparams *hp = &f->m->hp;
    const int hd = l->head_dim, n_rot = hp->rope[l->rope].n_rot;
    const ash_rope_fn rope = hp->rope_neox ? f->k->rope_neox : f->k->rope_norm;
    const size_t es = f->kv_f16 ? 2 : 4;
    for (int64_t t = b; t < e; t++) {
        const float *cs = f->cs[l->rope] + t * n_rot;
        float *q = f->q + t * l->n_head * hd, *k = f->kk + t * l->n_head_kv * hd, *v = f->vv + t * l->n_head_kv * hd;
        if (l->norm[ASH_N_Q])
            for (int i = 0; i < l->n_head; i++) f->k->rmsnorm(q + i * hd, l->norm[ASH_N_Q], hd, hp->eps, q + i * hd);
        rope(q, l->n_head, hd, n_rot, cs);
        if (s->shared_kv) continue;
        if (l->norm[ASH_N_K])
            for (int i = 0; i < l->n_head_kv; i++) f->k->rmsnorm(k + i * hd, l->norm[ASH_N_K], hd, hp->eps, k + i * hd);
        rope(k, l->n_head_kv, hd, n_rot, cs);
        const int64_t slot = (s->pos0 + t) % s->kv->cap;
        for (int i = 0; i < l->n_head_kv; i++) {
            size_t at = ((size_t)i * (size_t)s->kv->cap + (size_t)slot) * (size_t)hd * es;
            char *dk = (char *)s->kv->k + at, *dv = (char *)s->kv->v + at;
            if (f->kv_f16) {
                f->k->to_f16(k + i * hd, (uint16_t *)(void *)dk, hd);
                f->k->to_f16(v + i * hd, (uint16_t *)(void *)dv, hd);
            } else {
                memcpy(dk, k + i * hd, (size_t)hd * sizeof(float));
                memcpy(dv, v + i * hd, (size_t)hd * sizeof(float));
            }
        }
    }
}

/* One job: tokens [t0, t1) of the batch, `group` query heads from head h0 on, all on one KV head. */
static void attend(const stage *s, int t0, int t1, int h0, int group, int ith) {
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int hd = l->head_dim, cap = s->kv->cap, kv_head = h0 / (l->n_head / l->n_head_kv);
    const size_t es = f->kv_f16 ? 2 : 4;
    int lo[ATTN_TILE], hi[ATTN_TILE];
    int p0 = s->pos0 + t0;
    int key0 = l->window ? ASH_MAX(0, p0 - l->window + 1) : 0; /* first position any of them sees */
    for (int t = t0; t < t1; t++) {
        int p = s->pos0 + t;
        lo[t - t0] = (l->window ? ASH_MAX(0, p - l->window + 1) : 0) - key0;
        hi[t - t0] = p + 1 - key0;
    }
    int n_keys = s->pos0 + t1 - key0, slot = key0 % cap, n1 = ASH_MIN(n_keys, cap - slot);
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
    const stage *s = ctx;
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
    const stage *s = ctx;
    const int K = s->l->w[ASH_W_O].K;
    for (int64_t t = s->first + b; t < s->first + e; t++) quant_row(s->f, t, s->f->o + t * K, K);
}

static void glu_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const stage *s = ctx;
    const int n = s->l->n_ff;
    const ash_glu_fn glu = s->f->m->hp.act == ASH_ACT_GELU ? s->f->k->gelu_mul : s->f->k->silu_mul;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *g = s->f->g + t * n;
        glu(g, s->f->u + t * n, n);
        if (s->quant) quant_row(s->f, t, g, n);
    }
}

/* ---- a layer ---- */
void ash_fwd_attn(ash_fwd *f, int il, const ash_kv *kv, int pos0, int n_tok, int first, int pending) {
    const ash_layer *l = &f->m->layers[il];
    stage s = {.f = f, .l = l, .kv = kv, .pos0 = pos0, .n_tok = n_tok, .norm = l->norm[ASH_N_ATTN]};
    s.pending = pending >= 0;
    s.post = s.pending ? f->m->layers[pending].norm[ASH_N_POST_FFN] : NULL;
    s.quant = has_8bit(f, &l->w[ASH_W_Q]) || has_8bit(f, &l->w[ASH_W_K]) || has_8bit(f, &l->w[ASH_W_V]);
    s.shared_kv = l->kv_layer != il;
    run_stage(&s, norm_stage);
    tap(f, il, ASH_TAP_ATTN_IN, f->h, 0, n_tok, f->m->hp.n_embd);
    products(f, il, (const ash_role[]){ASH_W_Q, ASH_W_K, ASH_W_V}, (float *const[]){f->q, f->kk, f->vv}, s.shared_kv ? 1 : 3, f->h, 0,
             n_tok);
    run_stage(&s, kv_stage);

    s.first = first;
    int n = n_tok - first;
    if (n <= 0) return;
    int64_t jobs = n <= 4 ? l->n_head : (int64_t)((n + ATTN_TILE - 1) / ATTN_TILE) * l->n_head_kv;
    ash_pool_run(f->pool, jobs, 1, attn_stage, &s);
    if (has_8bit(f, &l->w[ASH_W_O])) run_stage(&s, quant_o_stage);
    tap(f, il, ASH_TAP_O_IN, f->o, first, n_tok, l->w[ASH_W_O].K);
    products(f, il, (const ash_role[]){ASH_W_O}, (float *const[]){f->y}, 1, f->o, first, n_tok);
}

void ash_fwd_ffn(ash_fwd *f, int il, int n_tok, int first, bool attn_pending) {
    const ash_layer *l = &f->m->layers[il];
    stage s = {.f = f, .l = l, .n_tok = n_tok, .first = first, .norm = l->norm[ASH_N_FFN], .pending = attn_pending};
    s.post = l->norm[ASH_N_POST_ATTN];
    s.quant = has_8bit(f, &l->w[ASH_W_GATE]) || has_8bit(f, &l->w[ASH_W_UP]);
    run_stage(&s, norm_stage);
    tap(f, il, ASH_TAP_FFN_IN, f->h, first, n_tok, f->m->hp.n_embd);
    products(f, il, (const ash_role[]){ASH_W_GATE, ASH_W_UP}, (float *const[]){f->g, f->u}, 2, f->h, first, n_tok);
    s.quant = has_8bit(f, &l->w[ASH_W_DOWN]);
    run_stage(&s, glu_stage);
    tap(f, il, ASH_TAP_DOWN_IN, f->g, first, n_tok, l->n_ff);
    products(f, il, (const ash_role[]){ASH_W_DOWN}, (float *const[]){f->y}, 1, f->g, first, n_tok);
}

void ash_fwd_flush(ash_fwd *f, int il, ash_norm norm, int n_tok, int first) {
    stage s = {.f = f, .n_tok = n_tok, .first = first, .post = f->m->layers[il].norm[norm], .pending = true};
    run_stage(&s, flush_stage);
}

void ash_fwd_head(ash_fwd *f, int first, int n, float *logits) {
    const ash_model *m = f->m;
    stage s = {.f = f, .n_tok = first + n, .first = first, .norm = m->out_norm, .quant = has_8bit(f, &m->head)};
    run_stage(&s, norm_stage);
    ash_mm_job job = {&m->head, logits, m->hp.n_vocab};
    product(f, &job, 1, f->h, first, first + n);
    if (m->hp.final_softcap > 0) f->k->softcap(logits, (int64_t)n * m->hp.n_vocab, m->hp.final_softcap);
}
