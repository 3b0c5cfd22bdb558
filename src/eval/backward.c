/* backward.c - the backward pass of backward.h, in float32. The forward pass keeps only the residual entering each layer; a layer's intermediates
 * are computed anew (delta.h's reference) when its turn comes backwards, so memory is n_layer x tokens x n_embd and one layer per thread.
 * Products with a transposed matrix run on panels of the transpose, the same kernel as forward. Threads take whole windows. */
#include "eval/backward.h"

#include "eval/sweep_int.h"

#include <math.h>

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

typedef struct {
    const ash_exec *e;
    const ash_backward_job *j;
    ash_dlayer L;
    float *x;                    /* [n_layer + 1][n_chunks * T][E]: residual entering each layer */
    float *gx;                   /* [n_chunks * T][E]: gradient at the residual */
    float *pack, *flip;          /* a layer's matrices as panels, and their transposes */
    const float *wt[ASH_W_COUNT];
    float *scratch;              /* per thread: ash_dref, delta's scratch, ours */
    size_t per_thread, ref_floats, delta_floats;
} pass;

/* Panels of the transpose from panels of w: element (row r, column k) lies at [r / 16][k][r % 16]. */
typedef struct { const float *from; float *to; int K; int64_t n_rows; } flip_ctx;
static void flip_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const flip_ctx *c = ctx;
    for (int64_t b = begin; b < end; b++)
        for (int64_t r = 0; r < c->n_rows; r++)
            for (int i = 0; i < 16; i++) {
                const int64_t k = b * 16 + i;
                c->to[(b * c->n_rows + r) * 16 + i] = k < c->K ? c->from[(r / 16 * c->K + k) * 16 + r % 16] : 0;
            }
}

static size_t pack_floats(const ash_model *m, bool flipped) {
    size_t most = 0;
    for (int l = 0; l < m->hp.n_layer; l++) {
        size_t n = 0;
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            n += flipped ? ash_packed_floats(w->K, (int)w->n_rows) : ash_packed_floats(w->n_rows, w->K);
        }
        most = ASH_MAX(most, n);
    }
    return most;
}

static void layer_weights(pass *p, int l, bool flipped) {
    float *f = p->pack, *t = p->flip;
    p->L.layer = l;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *w = &p->j->m->layers[l].w[r];
        p->L.w[r] = (ash_dmat){.K = w->K, .Kp = (w->K + 31) / 32 * 32, .n_rows = w->n_rows, .f = f};
        ash_mm_pack(p->e->k, p->e->pool, w, f);
        p->wt[r] = t;
        if (flipped) {
            flip_ctx c = {f, t, w->K, w->n_rows};
            ash_pool_run(p->e->pool, (w->K + 15) / 16, 1, flip_part, &c);
        }
        f += ash_packed_floats(w->n_rows, w->K);
        t += ash_packed_floats(w->K, (int)w->n_rows);
    }
}

/* ---- pieces ---- */
/* y = x / rms(x) * w: gx (= or +=) its gradient. */
static void norm_back(const float *x, const float *w, int n, float eps, const float *gy, float *gx, bool add) {
    double ss = 0, dot = 0;
    for (int i = 0; i < n; i++) ss += (double)x[i] * (double)x[i];
    const double inv = 1 / sqrt(ss / n + (double)eps);
    for (int i = 0; i < n; i++) dot += (double)gy[i] * (double)w[i] * (double)x[i];
    const double pull = dot * inv * inv * inv / n;
    for (int i = 0; i < n; i++) {
        const float g = (float)((double)gy[i] * (double)w[i] * inv - (double)x[i] * pull);
        gx[i] = add ? gx[i] + g : g;
    }
}

static void norm_back_rows(const pass *p, const float *x, const float *w, const float *gy, float *gx, bool add) {
    const int E = p->j->m->hp.n_embd;
    for (int t = 0; t < p->L.T; t++) norm_back(x + (size_t)t * (size_t)E, w, E, p->j->m->hp.eps, gy + (size_t)t * (size_t)E, gx + (size_t)t * (size_t)E, add);
}

/* act(g) and its derivative. */
static double act_of(ash_act a, double g, double *slope) {
    if (a == ASH_ACT_SILU) {
        const double s = 1 / (1 + exp(-g));
        *slope = s * (1 + g * (1 - s));
        return g * s;
    }
    const double c = 0.7978845608028654, in = c * (g + 0.044715 * g * g * g), t = tanh(in);
    *slope = 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * c * (1 + 3 * 0.044715 * g * g);
    return 0.5 * g * (1 + t);
}

/* Head norms and rotation of heads, in place; and the way back: from the gradient at the result to the one at `raw`. */
static void heads_finish(const pass *p, const float *norm, int n_head, float *q) {
    const ash_layer *l = &p->j->m->layers[p->L.layer];
    const ash_hparams *hp = &p->j->m->hp;
    const int hd = l->head_dim;
    for (int t = 0; t < p->L.T; t++) {
        float *qt = q + (size_t)t * (size_t)(n_head * hd);
        for (int i = 0; norm && i < n_head; i++) p->e->k->rmsnorm(qt + i * hd, norm, hd, hp->eps, qt + i * hd);
        if (l->rope == ASH_ROPE_NONE) continue;
        const int n_rot = hp->rope[l->rope].n_rot;
        (hp->rope_neox ? p->e->k->rope_neox : p->e->k->rope_norm)(qt, n_head, hd, n_rot, p->L.cs[l->rope] + (size_t)t * (size_t)n_rot);
    }
}

static void heads_back(const pass *p, const float *norm, int n_head, const float *raw, float *g) {
    const ash_layer *l = &p->j->m->layers[p->L.layer];
    const ash_hparams *hp = &p->j->m->hp;
    const int hd = l->head_dim;
    for (int t = 0; t < p->L.T; t++)
        for (int h = 0; h < n_head; h++) {
            float *gh = g + ((size_t)t * (size_t)n_head + (size_t)h) * (size_t)hd;
            const float *rh = raw + ((size_t)t * (size_t)n_head + (size_t)h) * (size_t)hd;
            if (l->rope != ASH_ROPE_NONE) {
                const int n_rot = hp->rope[l->rope].n_rot;
                const float *cs = p->L.cs[l->rope] + (size_t)t * (size_t)n_rot;
                for (int i = 0; i < n_rot / 2; i++) { /* the transpose of the rotation */
                    const int a = hp->rope_neox ? i : 2 * i, b = hp->rope_neox ? i + n_rot / 2 : 2 * i + 1;
                    const float ga = gh[a], gb = gh[b];
                    gh[a] = ga * cs[2 * i] + gb * cs[2 * i + 1];
                    gh[b] = gb * cs[2 * i] - ga * cs[2 * i + 1];
                }
            }
            if (norm) norm_back(rh, norm, hd, hp->eps, gh, gh, false);
        }
}

static float dot(const float *a, const float *b, int n) {
    double s = 0;
    for (int i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
    return (float)s;
}

/* Gradients at finished q, k and at v from the one at the attention's output. s, ds: scratch of T. */
static void attn_back(const pass *p, const float *q, const float *k, const float *v, const float *ga, float *gq, float *gk, float *gv, float *s, float *ds) {
    const ash_layer *l = &p->j->m->layers[p->L.layer];
    const ash_hparams *hp = &p->j->m->hp;
    const int hd = l->head_dim, T = p->L.T, group = l->n_head / l->n_head_kv;
    const size_t lq = (size_t)l->n_head * (size_t)hd, lk = (size_t)l->n_head_kv * (size_t)hd;
    memset(gq, 0, (size_t)T * lq * sizeof *gq);
    memset(gk, 0, (size_t)T * lk * sizeof *gk);
    memset(gv, 0, (size_t)T * lk * sizeof *gv);
    for (int h = 0; h < l->n_head; h++) {
        const size_t at = (size_t)(h / group) * (size_t)hd;
        for (int t = 0; t < T; t++) {
            const int lo = l->window ? ASH_MAX(0, t + 1 - l->window) : 0, n = t + 1 - lo;
            const float *qt = q + (size_t)t * lq + (size_t)(h * hd), *gt = ga + (size_t)t * lq + (size_t)(h * hd);
            float *gqt = gq + (size_t)t * lq + (size_t)(h * hd);
            double mean = 0;
            for (int i = 0; i < n; i++) {
                s[i] = dot(qt, k + (size_t)(lo + i) * lk + at, hd) * hp->attn_scale;
                ds[i] = dot(gt, v + (size_t)(lo + i) * lk + at, hd); /* gradient at the probabilities */
            }
            const float cap = hp->attn_softcap;
            float *back = ds + T; /* derivative of the cap */
            if (cap > 0) {
                p->e->k->softcap(s, n, cap);
                for (int i = 0; i < n; i++) back[i] = 1 - s[i] / cap * (s[i] / cap);
            }
            p->e->k->softmax(s, n);
            for (int i = 0; i < n; i++) mean += (double)s[i] * (double)ds[i];
            for (int i = 0; i < n; i++) {
                const float w = s[i], d = (float)((double)w * ((double)ds[i] - mean)) * hp->attn_scale * (cap > 0 ? back[i] : 1);
                const size_t key = (size_t)(lo + i) * lk + at;
                for (int c = 0; c < hd; c++) {
                    gv[key + (size_t)c] += w * gt[c];
                    gqt[c] += d * k[key + (size_t)c];
                    gk[key + (size_t)c] += d * qt[c];
                }
            }
        }
    }
}

/* ---- one window through one layer ---- */
static size_t own_floats(const ash_model *m, int T) {
    const ash_hparams *hp = &m->hp;
    return up16((size_t)T * (3 * (size_t)hp->n_embd + 3 * (size_t)hp->max_q + 3 * (size_t)hp->max_kv + 3 * (size_t)hp->max_ff) + 3 * (size_t)T) + 16;
}

static void forward_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    const size_t n = (size_t)p->L.T * (size_t)p->j->m->hp.n_embd, all = n * p->j->n_chunks;
    float *s = p->scratch + (size_t)ith * p->per_thread;
    ash_dref r;
    ash_dref_place(&r, p->j->m, p->L.T, s);
    for (int64_t c = begin; c < end; c++) {
        float *x = p->x + (size_t)p->L.layer * all + (size_t)c * n;
        memcpy(r.x, x, n * sizeof *x);
        ash_dref_run(&p->L, &r, s + p->ref_floats);
        memcpy(x + all, r.x, n * sizeof *x);
    }
}

static void backward_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    const ash_backward_job *j = p->j;
    const ash_model *m = j->m;
    const ash_layer *l = &m->layers[p->L.layer];
    const int T = p->L.T, E = m->hp.n_embd, Q = p->L.w[ASH_W_Q].K ? (int)p->L.w[ASH_W_Q].n_rows : 0, KV = (int)p->L.w[ASH_W_K].n_rows, F = (int)p->L.w[ASH_W_GATE].n_rows;
    const size_t t = (size_t)T, n = t * (size_t)E, all = n * j->n_chunks;
    const ash_kern *k = p->e->k;
    float *s = p->scratch + (size_t)ith * p->per_thread, *at = s + p->ref_floats + p->delta_floats;
    float *g1 = at, *g2 = g1 + n, *g3 = g2 + n, *q = g3 + n, *gq = q + t * (size_t)Q, *ga = gq + t * (size_t)Q, *kk = ga + t * (size_t)Q;
    float *gk = kk + t * (size_t)KV, *gv = gk + t * (size_t)KV, *gh = gv + t * (size_t)KV, *gg = gh + t * (size_t)F, *gu = gg + t * (size_t)F, *row = gu + t * (size_t)F;
    ash_dref r;
    ash_dref_place(&r, m, T, s);
    for (int64_t c = begin; c < end; c++) {
        float *gx = p->gx + (size_t)c * n;
        memcpy(r.x, p->x + (size_t)p->L.layer * all + (size_t)c * n, n * sizeof(float));
        ash_dref_run(&p->L, &r, s + p->ref_floats);
        /* feed-forward */
        const float *gd = gx;
        if (l->norm[ASH_N_POST_FFN]) norm_back_rows(p, r.d, l->norm[ASH_N_POST_FFN], gx, g1, false), gd = g1;
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_DOWN, gd, E, r.h, F);
        k->gemmf(p->wt[ASH_W_DOWN], E, F, gd, E, T, gh, F);
        for (size_t i = 0; i < t * (size_t)F; i++) {
            double slope, a = act_of(m->hp.act, (double)r.g[i], &slope);
            gu[i] = gh[i] * (float)a;
            gg[i] = gh[i] * r.u[i] * (float)slope;
        }
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_GATE, gg, F, r.f, E);
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_UP, gu, F, r.f, E);
        k->gemmf(p->wt[ASH_W_GATE], F, E, gg, F, T, g2, E);
        k->gemmf(p->wt[ASH_W_UP], F, E, gu, F, T, g3, E);
        k->addto(g2, g3, (int64_t)n);
        norm_back_rows(p, r.x1, l->norm[ASH_N_FFN], g2, gx, true);
        /* attention */
        const float *go = gx;
        if (l->norm[ASH_N_POST_ATTN]) norm_back_rows(p, r.o, l->norm[ASH_N_POST_ATTN], gx, g1, false), go = g1;
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_O, go, E, r.att, Q);
        k->gemmf(p->wt[ASH_W_O], E, Q, go, E, T, ga, Q);
        memcpy(q, r.q, t * (size_t)Q * sizeof(float));
        memcpy(kk, r.k, t * (size_t)KV * sizeof(float));
        heads_finish(p, l->norm[ASH_N_Q], l->n_head, q);
        heads_finish(p, l->norm[ASH_N_K], l->n_head_kv, kk);
        attn_back(p, q, kk, r.v, ga, gq, gk, gv, row, row + T);
        heads_back(p, l->norm[ASH_N_Q], l->n_head, r.q, gq);
        heads_back(p, l->norm[ASH_N_K], l->n_head_kv, r.k, gk);
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_Q, gq, Q, r.a, E);
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_K, gk, KV, r.a, E);
        j->tap(j->ctx, (uint32_t)c, p->L.layer, ASH_W_V, gv, KV, r.a, E);
        k->gemmf(p->wt[ASH_W_Q], Q, E, gq, Q, T, g2, E);
        k->gemmf(p->wt[ASH_W_K], KV, E, gk, KV, T, g3, E);
        k->addto(g2, g3, (int64_t)n);
        k->gemmf(p->wt[ASH_W_V], KV, E, gv, KV, T, g3, E);
        k->addto(g2, g3, (int64_t)n);
        norm_back_rows(p, r.x0, l->norm[ASH_N_ATTN], g2, gx, true);
    }
}

/* ---- the head: labels, and the gradient at the last residual ---- */
static void draw_labels(const float *logits, int64_t V, double lse, ash_rng *rng, ash_token *y) {
    double u = ash_rng_f64(rng), sum = 0;
    *y = (ash_token)(V - 1);
    for (int64_t v = 0; v < V; v++)
        if ((sum += exp((double)logits[v] - lse)) > u) {
            *y = (ash_token)v;
            return;
        }
}

typedef struct { float *z; int64_t V; const ash_token *y; float cap; const ash_kern *k; } slope_ctx;
/* Logits -> gradient of log p(y) before the soft cap; y < 0: none. */
static void slope_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const slope_ctx *c = ctx;
    for (int64_t i = begin; i < end; i++) {
        float *z = c->z + i * c->V;
        const double lse = c->k->lse(z, c->V);
        for (int64_t v = 0; v < c->V; v++) {
            const double p = exp((double)z[v] - lse), d = (v == c->y[i] ? 1 : 0) - p;
            z[v] = c->y[i] < 0 ? 0 : (float)(c->cap > 0 ? d * (1 - (double)(z[v] / c->cap) * (double)(z[v] / c->cap)) : d);
        }
    }
}

enum { V_BLOCK = 2048 }; /* words of the head in float at a time, a multiple of 16 */
typedef struct { const ash_kern *k; const float *flip, *z; int64_t V, v0; int nv, E; float *part, *g; int n; } head_ctx;
static void head_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const head_ctx *c = ctx;
    for (int64_t t = begin; t < end; t++) {
        float *y = c->part + t * c->E;
        c->k->gemmf(c->flip, c->nv, c->E, c->z + t * c->V + c->v0, c->V, 1, y, c->E);
        c->k->addto(c->g + t * c->E, y, c->E);
    }
}

static ash_status head_back(pass *p, ash_error *err) {
    const ash_backward_job *j = p->j;
    const ash_model *m = j->m;
    const int E = m->hp.n_embd, block = ash_head_block(m, 1, 128u << 20);
    const size_t n = (size_t)j->n_chunks * (size_t)j->T;
    const int64_t V = m->hp.n_vocab;
    ash_status st = ASH_OK;
    const float *x = p->x + (size_t)m->hp.n_layer * n * (size_t)E;
    float *h = ash_alloc_aligned((size_t)block * (size_t)E * sizeof *h, 64), *z = ash_alloc_aligned((size_t)block * (size_t)V * sizeof *z, 64);
    float *panel = ash_alloc_aligned(ash_packed_floats(V_BLOCK, E) * sizeof *panel, 64), *flip = ash_alloc_aligned(ash_packed_floats(E, V_BLOCK) * sizeof *flip, 64);
    float *gh = ash_alloc_aligned(2 * (size_t)block * (size_t)E * sizeof *gh, 64);
    void *s = ash_alloc_aligned(ash_head_scratch_bytes(p->e, m), 64);
    if (!h || !z || !panel || !flip || !gh || !s) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the head's gradient");
        goto done;
    }
    ash_rng rng;
    ash_rng_seed(&rng, j->seed);
    for (size_t i = 0; i < n; i += (size_t)block) {
        const int nb = (int)ASH_MIN((size_t)block, n - i);
        ASH_TRY_GOTO(ash_progress_at(j->progress, "gradients", (double)i, 2 * (double)n, NULL, err), done);
        ash_final_norm(m, p->e->k, x + i * (size_t)E, nb, h);
        ash_head_logits(p->e, m, h, nb, z, s);
        for (int t = 0; j->draw && t < nb; t++) {
            ash_token *y = &j->labels[i + (size_t)t];
            const float *zt = z + (size_t)t * (size_t)V;
            *y = -1;
            if ((int)((i + (size_t)t) % (size_t)j->T) >= j->skip) draw_labels(zt, V, p->e->k->lse(zt, V), &rng, y);
        }
        slope_ctx sc = {z, V, j->labels + i, m->hp.final_softcap, p->e->k};
        ash_pool_run(p->e->pool, nb, 1, slope_part, &sc);
        memset(gh, 0, (size_t)nb * (size_t)E * sizeof *gh);
        for (int64_t v0 = 0; v0 < V; v0 += V_BLOCK) {
            ash_mat w = m->head;
            w.data += (size_t)v0 * w.row_bytes;
            w.n_rows = ASH_MIN((int64_t)V_BLOCK, V - v0);
            ash_mm_pack(p->e->k, p->e->pool, &w, panel);
            flip_ctx fc = {panel, flip, E, w.n_rows};
            ash_pool_run(p->e->pool, (E + 15) / 16, 1, flip_part, &fc);
            head_ctx hc = {p->e->k, flip, z, V, v0, (int)w.n_rows, E, gh + (size_t)block * (size_t)E, gh, nb};
            ash_pool_run(p->e->pool, nb, 8, head_part, &hc);
        }
        for (size_t t = 0; t < (size_t)nb; t++) {
            float *g = p->gx + (i + t) * (size_t)E;
            if (m->out_norm) norm_back(x + (i + t) * (size_t)E, m->out_norm, E, m->hp.eps, gh + t * (size_t)E, g, false);
            else memcpy(g, gh + t * (size_t)E, (size_t)E * sizeof *g);
        }
    }
done:
    ash_free(h);
    ash_free(z);
    ash_free(panel);
    ash_free(flip);
    ash_free(gh);
    ash_free(s);
    return st;
}

ash_status ash_backward(const ash_exec *e, const ash_backward_job *j, ash_error *err) {
    const ash_model *m = j->m;
    char why[128];
    if (!m->hp.causal) return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s does not predict tokens", ash_model_arch(m));
    if (!ash_model_plain(m, why, sizeof why)) return ash_fail(err, ASH_E_UNSUPPORTED, "no gradients for this model: %s", why);
    ash_status st = ASH_OK;
    const size_t n = (size_t)j->n_chunks * (size_t)j->T, E = (size_t)m->hp.n_embd;
    for (size_t i = 0; i < n; i++)
        if (j->tok[i] < 0 || j->tok[i] >= m->hp.n_vocab) return ash_fail(err, ASH_E_RANGE, "token %d is outside the model's vocabulary of %d", (int)j->tok[i], m->hp.n_vocab);
    pass p = {.e = e, .j = j, .L = {.m = m, .k = e->k, .T = j->T}};
    p.ref_floats = up16(ash_dref_floats(m, j->T));
    p.delta_floats = up16(ash_delta_scratch_floats(m, j->T));
    p.per_thread = p.ref_floats + p.delta_floats + own_floats(m, j->T);
    p.x = ash_alloc_aligned((size_t)(m->hp.n_layer + 1) * n * E * sizeof(float), 64);
    p.gx = ash_alloc_aligned(n * E * sizeof(float), 64);
    p.pack = ash_alloc_aligned(pack_floats(m, false) * sizeof(float), 64);
    p.flip = ash_alloc_aligned(pack_floats(m, true) * sizeof(float), 64);
    p.scratch = ash_alloc_aligned((size_t)e->n_threads * p.per_thread * sizeof(float), 64);
    if (!p.x || !p.gx || !p.pack || !p.flip || !p.scratch) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for gradients of %u windows of %d tokens", j->n_chunks, j->T);
        goto done;
    }
    ASH_TRY_GOTO(ash_layer_ropes(&p.L, err), done);
    for (uint32_t c = 0; c < j->n_chunks; c++) ash_embed_tokens(m, e->k, j->tok + (size_t)c * (size_t)j->T, j->T, p.x + (size_t)c * (size_t)j->T * E);
    for (int l = 0; l < m->hp.n_layer; l++) {
        layer_weights(&p, l, false);
        ash_pool_run(e->pool, j->n_chunks, 1, forward_part, &p);
    }
    ASH_TRY_GOTO(head_back(&p, err), done);
    for (int l = m->hp.n_layer - 1; l >= 0; l--) {
        ASH_TRY_GOTO(ash_progress_at(j->progress, "gradients", 2 * m->hp.n_layer - l, 2 * m->hp.n_layer, NULL, err), done);
        layer_weights(&p, l, true);
        ash_pool_run(e->pool, j->n_chunks, 1, backward_part, &p);
        if (j->layer_done) j->layer_done(j->ctx, l);
    }
done:
    ash_layer_ropes_free(&p.L);
    ash_free(p.x);
    ash_free(p.gx);
    ash_free(p.pack);
    ash_free(p.flip);
    ash_free(p.scratch);
    return st;
}
