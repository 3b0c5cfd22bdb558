/* delta.c - the arithmetic of delta.h. Attention of a chunk is two float32 matrix products per head on packed keys and
 * values, the same routine for reference and variant, so that equal inputs give equal bits. */
#include "eval/delta.h"

#include "eval/vec.h"

#include <math.h>

enum { Q_TILE = 32,   /* queries per attention block: bounds the work wasted above the diagonal */
       FFN_TILE = 64 }; /* tokens per feed-forward block: intermediates stay in L2 */

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }
static int up32(int n) { return (n + 31) / 32 * 32; }

typedef struct { int E, Q, KV, F, Ep, Qp, Fp; } dims;

static dims dims_of(const ash_model *m) {
    const ash_hparams *hp = &m->hp;
    dims d = {hp->n_embd, hp->max_q, hp->max_kv, hp->max_ff, up32(hp->n_embd), up32(hp->max_q), up32(hp->max_ff)};
    return d;
}

/* ---- weights ---- */
size_t ash_dmat_q_bytes(int64_t n_rows, int K) { return up16((size_t)n_rows) * (size_t)up32(K); }
size_t ash_dmat_s_floats(int64_t n_rows, int K) { return up16((size_t)n_rows) * (size_t)up32(K) / 32; }

static void build_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    ash_dmat *w = ctx;
    for (int64_t p = begin; p < end; p++) {
        const float *f = w->f + (size_t)p * (size_t)w->K * 16;
        uint8_t *q = w->q + (size_t)p * (size_t)w->Kp * 16;
        float *s = w->s + (size_t)p * (size_t)(w->Kp / 32) * 16;
        for (int g = 0; g < w->Kp / 32; g++) {
            float top[16] = {0}, inv[16];
            int n = ASH_MIN(32, w->K - g * 32);
            for (int i = 0; i < n; i++)
                for (int r = 0; r < 16; r++) top[r] = fmaxf(top[r], fabsf(f[(size_t)(g * 32 + i) * 16 + (size_t)r]));
            for (int r = 0; r < 16; r++) {
                s[g * 16 + r] = top[r] / 127.f;
                inv[r] = top[r] > 0 ? 127.f / top[r] : 0;
            }
            for (int i = 0; i < 32; i++)
                for (int r = 0; r < 16; r++) {
                    float v = i < n ? f[(size_t)(g * 32 + i) * 16 + (size_t)r] * inv[r] : 0;
                    q[(size_t)((g * 32 + i) / 4) * 64 + (size_t)r * 4 + (size_t)(i % 4)] = (uint8_t)((int)(v < 0 ? v - 0.5f : v + 0.5f) + 128);
                }
        }
    }
}

void ash_dmat_build(const ash_exec *e, ash_dmat *w) { ash_pool_run(e->pool, (w->n_rows + 15) / 16, 4, build_part, w); }

/* ---- placing buffers ---- */
size_t ash_dref_floats(const ash_model *m, int T) {
    dims d = dims_of(m);
    return up16((size_t)T * ((size_t)d.E * 9 + (size_t)d.Q * 2 + (size_t)d.KV * 2 + (size_t)d.F * 3)) + 16;
}

void ash_dref_place(ash_dref *r, const ash_model *m, int T, float *p) {
    dims d = dims_of(m);
    size_t t = (size_t)T, E = t * (size_t)d.E, Q = t * (size_t)d.Q, KV = t * (size_t)d.KV, F = t * (size_t)d.F;
    float **e[] = {&r->x, &r->x0, &r->a, &r->o, &r->po, &r->x1, &r->f, &r->d, &r->pd};
    for (size_t i = 0; i < ASH_ARRAY_LEN(e); i++, p += E) *e[i] = p;
    r->q = p, p += Q;
    r->att = p, p += Q;
    r->k = p, p += KV;
    r->v = p, p += KV;
    r->g = p, p += F;
    r->u = p, p += F;
    r->h = p;
}

/* Per-thread scratch. */
typedef struct {
    float *xv, *n, *q, *k, *v, *att, *da, *o; /* [T] x E, Ep, Q, KV, KV, Q, Qp, E */
    float *g, *u, *fn, *tmp;                  /* [FFN_TILE] x F, Fp, Ep, max(F, E) */
    float *kp, *vp, *s;                  /* attention: keys, values, scores */
    ash_act8 a8;
} bufs;

static size_t place(bufs *b, const ash_model *m, int T, float *p0) {
    dims d = dims_of(m);
    float *p = p0;
    size_t t = (size_t)T, ft = (size_t)ASH_MIN(T, FFN_TILE), hd = up16((size_t)m->hp.max_head_dim);
#define TAKE(f, n) (b->f = p, p += up16(n))
    TAKE(xv, t * (size_t)d.E);
    TAKE(n, t * (size_t)d.Ep);
    TAKE(q, t * (size_t)d.Q);
    TAKE(k, t * (size_t)d.KV);
    TAKE(v, t * (size_t)d.KV);
    TAKE(att, t * (size_t)d.Q);
    TAKE(da, t * (size_t)d.Qp);
    TAKE(o, t * (size_t)d.E);
    TAKE(g, ft * (size_t)d.F);
    TAKE(u, ft * (size_t)d.Fp);
    TAKE(fn, ft * (size_t)d.Ep);
    TAKE(tmp, ft * (size_t)ASH_MAX(d.F, d.E));
    TAKE(kp, up16(t) * hd);
    TAKE(vp, up16(t) * hd);
    TAKE(s, (size_t)Q_TILE * up16(t));
#undef TAKE
    int Kx = ASH_MAX(ASH_MAX(d.Ep, d.Qp), d.Fp);
    b->a8.ld_q = Kx;
    b->a8.ld_d = Kx / 32;
    b->a8.ld_b = Kx / 16;
    b->a8.q = (int8_t *)p;
    p += up16(t * (size_t)Kx / 4);
    b->a8.d = p;
    p += up16(t * (size_t)Kx / 32);
    b->a8.b = (int16_t *)(void *)p;
    p += up16(t * (size_t)Kx / 32);
    return (size_t)(p - p0);
}

size_t ash_delta_scratch_floats(const ash_model *m, int T) {
    bufs b;
    return up16(place(&b, m, T, NULL)) + 16;
}

/* ---- pieces ---- */
/* y[t][row] (stride n_rows) = w * x for n tokens of differences, stride ldx = w->Kp, padding zero. */
static void diff_mul(const ash_dlayer *L, const ash_dmat *w, ash_act8 a8, const float *x, int n, float *y) {
    if (L->exact) {
        L->k->gemmf(w->f, w->K, w->n_rows, x, w->Kp, n, y, w->n_rows);
        return;
    }
    ash_panel8 p = {w->q, w->s, NULL};
    L->k->gemm8_g32(p, ash_dtype_i8_form(ASH_Q8_0), w->Kp, (int)w->n_rows, a8, n, y, w->n_rows);
}

static void diff_quant(const ash_dlayer *L, const ash_dmat *w, ash_act8 a8, const float *x, int n) {
    if (L->exact) return;
    for (int t = 0; t < n; t++)
        L->k->quant8(x + (size_t)t * (size_t)w->Kp, w->Kp, a8.q + t * a8.ld_q, a8.d + t * a8.ld_d, a8.b + t * a8.ld_b);
}

/* y += dw * x: the changed matrix acts on the variant's own input (stride ldx). */
static void changed_add(const ash_dlayer *L, const ash_dmat *w, const float *dw, const float *x, int64_t ldx, int n, float *y, float *tmp) {
    L->k->gemmf(dw, w->K, w->n_rows, x, ldx, n, tmp, w->n_rows);
    L->k->addto(y, tmp, (int64_t)n * w->n_rows);
}

static void norm_rows(const ash_dlayer *L, const float *x, const float *w, int T, int64_t ldy, float *y) {
    const int E = L->m->hp.n_embd;
    for (int t = 0; t < T; t++) L->k->rmsnorm(x + (size_t)t * (size_t)E, w, E, L->m->hp.eps, y + t * ldy);
}

/* Head norms and rotation, in place. */
static void qk_finish(const ash_dlayer *L, float *q, float *k) {
    const ash_layer *l = &L->m->layers[L->layer];
    const ash_hparams *hp = &L->m->hp;
    const int hd = l->head_dim, n_rot = hp->rope[l->rope].n_rot;
    const ash_rope_fn rope = hp->rope_neox ? L->k->rope_neox : L->k->rope_norm;
    for (int t = 0; t < L->T; t++) {
        const float *cs = L->cs[l->rope] + (size_t)t * (size_t)n_rot;
        float *qt = q + (size_t)t * (size_t)(l->n_head * hd), *kt = k + (size_t)t * (size_t)(l->n_head_kv * hd);
        for (int i = 0; l->norm[ASH_N_Q] && i < l->n_head; i++) L->k->rmsnorm(qt + i * hd, l->norm[ASH_N_Q], hd, hp->eps, qt + i * hd);
        for (int i = 0; l->norm[ASH_N_K] && i < l->n_head_kv; i++) L->k->rmsnorm(kt + i * hd, l->norm[ASH_N_K], hd, hp->eps, kt + i * hd);
        rope(qt, l->n_head, hd, n_rot, cs);
        rope(kt, l->n_head_kv, hd, n_rot, cs);
    }
}

/* out[T][ldo] = causal attention of finished q, k, v. */
static void attend(const ash_dlayer *L, const bufs *b, const float *q, const float *k, const float *v, float *out, int64_t ldo) {
    const ash_layer *l = &L->m->layers[L->layer];
    const ash_hparams *hp = &L->m->hp;
    const int hd = l->head_dim, T = L->T, group = l->n_head / l->n_head_kv;
    const int64_t lq = (int64_t)l->n_head * hd, lk = (int64_t)l->n_head_kv * hd, ls = (int64_t)up16((size_t)T);
    for (int kvh = 0; kvh < l->n_head_kv; kvh++) {
        for (int r = 0; r < T; r += 16) L->k->packf(k + r * lk + kvh * hd, lk, ASH_MIN(16, T - r), hd, b->kp + (size_t)r * (size_t)hd);
        for (int c = 0; c < hd; c += 16) /* values: a panel's lane is a dimension, its depth the keys */
            for (int t = 0; t < T; t++) {
                float *p = b->vp + ((size_t)c / 16 * (size_t)T + (size_t)t) * 16;
                int n = ASH_MIN(16, hd - c);
                memcpy(p, v + t * lk + kvh * hd + c, (size_t)n * sizeof(float));
                for (int i = n; i < 16; i++) p[i] = 0;
            }
        for (int h = kvh * group; h < (kvh + 1) * group; h++)
            for (int t0 = 0; t0 < T; t0 += Q_TILE) {
                int n = ASH_MIN(Q_TILE, T - t0), n_keys = t0 + n;
                L->k->gemmf(b->kp, hd, n_keys, q + t0 * lq + h * hd, lq, n, b->s, ls);
                for (int t = 0; t < n; t++) {
                    float *s = b->s + t * ls;
                    int hi = t0 + t + 1, lo = l->window ? ASH_MAX(0, hi - l->window) : 0;
                    for (int i = lo; i < hi; i++) s[i] *= hp->attn_scale;
                    if (hp->attn_softcap > 0) L->k->softcap(s + lo, hi - lo, hp->attn_softcap);
                    L->k->softmax(s + lo, hi - lo);
                    for (int i = 0; i < lo; i++) s[i] = 0;
                    for (int i = hi; i < n_keys; i++) s[i] = 0;
                }
                for (int c = 0; c < hd; c += 16)
                    L->k->gemmf(b->vp + (size_t)c * (size_t)T, n_keys, ASH_MIN(16, hd - c), b->s, ls, n, out + t0 * ldo + h * hd + c, ldo);
            }
    }
}

static void glu(const ash_dlayer *L, float *g, const float *u, int64_t n) {
    (L->m->hp.act == ASH_ACT_GELU ? L->k->gelu_mul : L->k->silu_mul)(g, u, n);
}

/* Zero the padding columns of rows with stride ld. */
static void zero_pad(float *x, int n, int K, int ld) {
    for (int t = 0; ld > K && t < n; t++) memset(x + (size_t)t * (size_t)ld + K, 0, (size_t)(ld - K) * sizeof(float));
}

/* ---- the reference ---- */
void ash_dref_run(const ash_dlayer *L, ash_dref *r, float *scratch) {
    bufs b;
    place(&b, L->m, L->T, scratch);
    const ash_layer *l = &L->m->layers[L->layer];
    const int T = L->T, E = L->m->hp.n_embd;
    const size_t n = (size_t)T * (size_t)E;
    const ash_kern *k = L->k;
    const ash_dmat *w = L->w;
    memcpy(r->x0, r->x, n * sizeof(float));
    norm_rows(L, r->x, l->norm[ASH_N_ATTN], T, E, r->a);
    k->gemmf(w[ASH_W_Q].f, E, w[ASH_W_Q].n_rows, r->a, E, T, r->q, w[ASH_W_Q].n_rows);
    k->gemmf(w[ASH_W_K].f, E, w[ASH_W_K].n_rows, r->a, E, T, r->k, w[ASH_W_K].n_rows);
    k->gemmf(w[ASH_W_V].f, E, w[ASH_W_V].n_rows, r->a, E, T, r->v, w[ASH_W_V].n_rows);
    memcpy(b.q, r->q, (size_t)T * (size_t)w[ASH_W_Q].n_rows * sizeof(float));
    memcpy(b.k, r->k, (size_t)T * (size_t)w[ASH_W_K].n_rows * sizeof(float));
    qk_finish(L, b.q, b.k);
    attend(L, &b, b.q, b.k, r->v, r->att, w[ASH_W_O].K);
    k->gemmf(w[ASH_W_O].f, w[ASH_W_O].K, E, r->att, w[ASH_W_O].K, T, r->o, E);
    if (l->norm[ASH_N_POST_ATTN]) norm_rows(L, r->o, l->norm[ASH_N_POST_ATTN], T, E, r->po);
    const float *o = l->norm[ASH_N_POST_ATTN] ? r->po : r->o;
    memcpy(r->x1, r->x, n * sizeof(float));
    k->addto(r->x1, o, (int64_t)n);
    norm_rows(L, r->x1, l->norm[ASH_N_FFN], T, E, r->f);
    const int64_t F = w[ASH_W_GATE].n_rows;
    k->gemmf(w[ASH_W_GATE].f, E, F, r->f, E, T, r->g, F);
    k->gemmf(w[ASH_W_UP].f, E, F, r->f, E, T, r->u, F);
    memcpy(r->h, r->g, (size_t)T * (size_t)F * sizeof(float));
    glu(L, r->h, r->u, (int64_t)T * F);
    k->gemmf(w[ASH_W_DOWN].f, (int)F, E, r->h, F, T, r->d, E);
    if (l->norm[ASH_N_POST_FFN]) norm_rows(L, r->d, l->norm[ASH_N_POST_FFN], T, E, r->pd);
    memcpy(r->x, r->x1, n * sizeof(float));
    k->addto(r->x, l->norm[ASH_N_POST_FFN] ? r->pd : r->d, (int64_t)n);
}

/* ---- a variant ---- */
/* Difference after an optional post-norm: d = norm(y + d) - normed; y, normed [T][E]. */
static void post_norm_diff(const ash_dlayer *L, const float *w, const float *y, const float *normed, float *d, float *tmp) {
    const int E = L->m->hp.n_embd;
    if (!w) return;
    for (int t = 0; t < L->T; t++) {
        float *dt = d + (size_t)t * (size_t)E;
        ash_vec_add(tmp, y + (size_t)t * (size_t)E, dt, E);
        L->k->rmsnorm(tmp, w, E, L->m->hp.eps, dt);
        ash_vec_sub(dt, dt, normed + (size_t)t * (size_t)E, E);
    }
}

static void ffn_delta(const ash_dlayer *L, const bufs *b, const ash_dref *r, const float *const dw[], bool zero, const float *x1v, int t0, int n,
                      float *d) {
    const ash_layer *l = &L->m->layers[L->layer];
    const ash_kern *k = L->k;
    const int E = L->m->hp.n_embd;
    const ash_dmat *wg = &L->w[ASH_W_GATE], *wu = &L->w[ASH_W_UP], *wd = &L->w[ASH_W_DOWN];
    const int64_t F = wg->n_rows;
    const int Ep = wg->Kp, Fp = wd->Kp;
    float *fv = b->n; /* the variant's normed input, [n][E] */
    for (int t = 0; t < n; t++) {
        k->rmsnorm(x1v + (size_t)t * (size_t)E, l->norm[ASH_N_FFN], E, L->m->hp.eps, fv + (size_t)t * (size_t)E);
        ash_vec_sub(b->fn + (size_t)t * (size_t)Ep, fv + (size_t)t * (size_t)E, r->f + (size_t)(t0 + t) * (size_t)E, E);
    }
    zero_pad(b->fn, n, E, Ep);
    float *g = b->g, *u = b->u;
    if (zero) {
        memset(g, 0, (size_t)n * (size_t)F * sizeof(float));
        memset(u, 0, (size_t)n * (size_t)F * sizeof(float));
    } else {
        diff_quant(L, wg, b->a8, b->fn, n);
        diff_mul(L, wg, b->a8, b->fn, n, g);
        diff_mul(L, wu, b->a8, b->fn, n, u);
    }
    bool same = zero && !dw[ASH_W_GATE] && !dw[ASH_W_UP];
    if (!same) {
        if (dw[ASH_W_GATE]) changed_add(L, wg, dw[ASH_W_GATE], fv, E, n, g, b->tmp);
        if (dw[ASH_W_UP]) changed_add(L, wu, dw[ASH_W_UP], fv, E, n, u, b->tmp);
        k->addto(g, r->g + (size_t)t0 * (size_t)F, n * F);
        k->addto(u, r->u + (size_t)t0 * (size_t)F, n * F);
        glu(L, g, u, n * F); /* g: the variant's h */
    }
    const float *hv = same ? r->h + (size_t)t0 * (size_t)F : g;
    if (same) {
        memset(d, 0, (size_t)n * (size_t)E * sizeof(float));
    } else {
        /* difference of h, padded; u is free now */
        float *dh = b->u;
        for (int t = 0; t < n; t++)
            ash_vec_sub(dh + (size_t)t * (size_t)Fp, g + (size_t)t * (size_t)F, r->h + (size_t)(t0 + t) * (size_t)F, (int)F);
        zero_pad(dh, n, (int)F, Fp);
        diff_quant(L, wd, b->a8, dh, n);
        diff_mul(L, wd, b->a8, dh, n, d);
    }
    if (dw[ASH_W_DOWN]) changed_add(L, wd, dw[ASH_W_DOWN], hv, F, n, d, b->tmp);
}

void ash_delta_run(const ash_dlayer *L, const ash_dref *r, const float *const dw[ASH_W_COUNT], bool zero, float *d, float *scratch) {
    bufs b;
    place(&b, L->m, L->T, scratch);
    const ash_layer *l = &L->m->layers[L->layer];
    const ash_kern *k = L->k;
    const int T = L->T, E = L->m->hp.n_embd;
    const ash_dmat *w = L->w;
    const int Ep = w[ASH_W_Q].Kp, Qp = w[ASH_W_O].Kp, Qn = w[ASH_W_O].K;
    const size_t n = (size_t)T * (size_t)E;
    const bool born_attn = dw[ASH_W_Q] || dw[ASH_W_K] || dw[ASH_W_V];
    float *att = b.att;

    if (!zero || born_attn) {
        /* input difference, and the variant's own input where a changed matrix reads it */
        float *av = b.xv;
        for (int t = 0; t < T; t++) {
            const float *dt = d + (size_t)t * (size_t)E;
            float *row = b.n + (size_t)t * (size_t)Ep;
            float *avt = av + (size_t)t * (size_t)E;
            ash_vec_add(row, r->x0 + (size_t)t * (size_t)E, dt, E);
            k->rmsnorm(row, l->norm[ASH_N_ATTN], E, L->m->hp.eps, avt);
            ash_vec_sub(row, avt, r->a + (size_t)t * (size_t)E, E);
        }
        zero_pad(b.n, T, E, Ep);
        float *out[3] = {b.q, b.k, b.v};
        const float *ref[3] = {r->q, r->k, r->v};
        if (!zero) diff_quant(L, &w[ASH_W_Q], b.a8, b.n, T);
        for (int i = 0; i < 3; i++) {
            const ash_dmat *wi = &w[ASH_W_Q + i];
            if (zero) memset(out[i], 0, (size_t)T * (size_t)wi->n_rows * sizeof(float));
            else diff_mul(L, wi, b.a8, b.n, T, out[i]);
            if (dw[ASH_W_Q + i]) changed_add(L, wi, dw[ASH_W_Q + i], av, E, T, out[i], b.att);
            k->addto(out[i], ref[i], (int64_t)T * wi->n_rows);
        }
        qk_finish(L, b.q, b.k);
        attend(L, &b, b.q, b.k, b.v, att, Qn);
    } else if (dw[ASH_W_O]) {
        memcpy(att, r->att, (size_t)T * (size_t)Qn * sizeof(float));
    }
    /* attention output: difference times O, plus the change of O on the variant's own attention result */
    bool o_same = zero && !born_attn && !dw[ASH_W_O];
    if (!o_same) {
        if (zero && !born_attn) {
            memset(b.o, 0, n * sizeof(float));
        } else {
            float *da = b.da;
            for (int t = 0; t < T; t++) ash_vec_sub(da + (size_t)t * (size_t)Qp, att + (size_t)t * (size_t)Qn, r->att + (size_t)t * (size_t)Qn, Qn);
            zero_pad(da, T, Qn, Qp);
            diff_quant(L, &w[ASH_W_O], b.a8, da, T);
            diff_mul(L, &w[ASH_W_O], b.a8, da, T, b.o);
        }
        if (dw[ASH_W_O]) changed_add(L, &w[ASH_W_O], dw[ASH_W_O], att, Qn, T, b.o, b.xv);
        post_norm_diff(L, l->norm[ASH_N_POST_ATTN], r->o, r->po, b.o, b.xv);
        k->addto(d, b.o, (int64_t)n);
    }
    const bool ffn_zero = o_same;
    for (int t0 = 0; t0 < T; t0 += FFN_TILE) {
        int nt = ASH_MIN(FFN_TILE, T - t0);
        ash_vec_add(b.xv, r->x1 + (size_t)t0 * (size_t)E, d + (size_t)t0 * (size_t)E, nt * E);
        ffn_delta(L, &b, r, dw, ffn_zero, b.xv, t0, nt, b.o + (size_t)t0 * (size_t)E);
    }
    post_norm_diff(L, l->norm[ASH_N_POST_FFN], r->d, r->pd, b.o, b.xv);
    k->addto(d, b.o, (int64_t)n);
}
