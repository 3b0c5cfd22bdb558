/* moments.c - moments.h: a layer over all chunks in groups; the taps put the matrices' inputs by, and then rows of the sums are made in
 * parallel, each in chunk order. */
#include "eval/moments.h"

#include "quant/compensate.h"

#include <math.h>

struct ash_moments {
    ash_exec e;
    const ash_model *m;
    const comp_fns *f;
    bool prefix;
    uint32_t n_ctx, n_chunks, group;
    size_t per;    /* floats of a chunk's state */
    float *x, *xq; /* states of all chunks; xq: of the prefix */
    float *tmp;    /* states of a group, where they must not advance */
    float *pack, *scratch;
    size_t scratch_floats;
    uint64_t mem_bytes;
    /* of the layer being run */
    int layer;
    const float *packed[ASH_W_COUNT];
    int K[ASH_MOMENT_POINTS];
    float *in[ASH_MOMENT_POINTS]; /* [group][n_ctx][K] */
    float *H[ASH_MOMENT_POINTS];
};

static size_t layer_floats(const ash_model *m, int l) {
    size_t n = 0;
    for (int r = 0; r < ASH_W_COUNT; r++) n += ash_packed_floats(m->layers[l].w[r].n_rows, m->layers[l].w[r].K);
    return n;
}

static void drop(float **p) {
    ash_free(*p);
    *p = NULL;
}

static void drop_layer(ash_moments *mo) {
    for (int p = 0; p < ASH_MOMENT_POINTS; p++) {
        drop(&mo->in[p]), drop(&mo->H[p]);
        mo->K[p] = 0;
    }
}

void ash_moments_free(ash_moments *mo) {
    if (!mo) return;
    drop_layer(mo);
    ash_free(mo->x);
    ash_free(mo->tmp);
    ash_free(mo->pack);
    ash_free(mo->scratch);
    ash_exec_free(&mo->e);
    ash_free(mo);
}

uint32_t ash_moments_chunks(const ash_moments *mo) { return mo->n_chunks; }
ash_pool *ash_moments_pool(const ash_moments *mo) { return mo->e.pool; }

typedef struct {
    ash_moments *mo;
    const ash_token *tok;
} embed_ctx;

static void embed_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const embed_ctx *c = ctx;
    const ash_moments *mo = c->mo;
    for (int64_t i = begin; i < end; i++)
        ash_embed_tokens(mo->m, mo->e.k, c->tok + (size_t)i * mo->n_ctx, (int)mo->n_ctx, mo->x + (size_t)i * mo->per);
}

ash_status ash_moments_new(ash_moments **out, const ash_model *m, const ash_eval_text *t, bool prefix, const ash_eval_opts *o,
                           ash_error *err) {
    ash_status st = ASH_OK;
    ash_token *tok = NULL;
    size_t widest = 0, n;
    *out = NULL;
    if (!m->hp.causal) return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s does not predict tokens", ash_model_arch(m));
    ash_moments *mo = ash_calloc(1, sizeof *mo);
    if (!mo) return ash_fail(err, ASH_E_NOMEM, "out of memory for second moments");
    mo->m = m;
    mo->prefix = prefix;
    mo->mem_bytes = o->mem_bytes ? o->mem_bytes : 2048ull << 20;
    ASH_TRY_GOTO(ash_eval_windows(t, o, &mo->n_ctx, &mo->n_chunks, err), done);
    ASH_TRY_GOTO(ash_exec_init(&mo->e, o->n_threads, o->cpu_level, err), done);
    mo->f = ash_comp_fns(mo->e.k->level);
    mo->group = ASH_MIN(mo->n_chunks, (uint32_t)ASH_MAX(4, mo->e.n_threads));
    mo->per = ash_layer_state_floats(m, (int)mo->n_ctx);
    for (int l = 0; l < m->hp.n_layer; l++) widest = ASH_MAX(widest, layer_floats(m, l));
    mo->scratch_floats = (ash_layer_scratch_floats(m, (int)mo->n_ctx) + 15) / 16 * 16;
    n = (size_t)mo->n_chunks * mo->per * sizeof(float);
    mo->x = ash_alloc_aligned(n, 64);
    mo->tmp = prefix ? ash_alloc_aligned((size_t)mo->group * mo->per * sizeof(float), 64) : NULL;
    mo->pack = ash_alloc_aligned(widest * sizeof(float), 64);
    mo->scratch = ash_alloc_aligned((size_t)mo->e.n_threads * mo->scratch_floats * sizeof(float), 64);
    tok = ash_chunk_tokens(t->tokens, mo->n_ctx, mo->n_chunks, t->add_bos, t->bos);
    if (!mo->x || !mo->pack || !mo->scratch || !tok || (prefix && !mo->tmp)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %u chunks of %u tokens", mo->n_chunks, mo->n_ctx);
        goto done;
    }
    for (size_t i = 0; i < (size_t)mo->n_ctx * mo->n_chunks; i++)
        if (tok[i] < 0 || tok[i] >= m->hp.n_vocab) {
            st = ash_fail(err, ASH_E_RANGE, "token %d at %zu is outside the model's vocabulary of %d", (int)tok[i], i, m->hp.n_vocab);
            goto done;
        }
    embed_ctx c = {mo, tok};
    ash_pool_run(mo->e.pool, mo->n_chunks, 1, embed_part, &c);
done:
    ash_free(tok);
    if (st == ASH_OK)
        *out = mo;
    else
        ash_moments_free(mo);
    return st;
}

/* ---- a layer over a group of chunks ---- */

typedef struct {
    ash_moments *mo;
    float *x; /* states, advanced in place */
    bool taps;
} pass;
typedef struct {
    pass *p;
    size_t chunk;
} tap_ctx;

static double mean_square(const float *x, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return s / (double)n;
}

/* What leaves O and down is added to the residual, and every reader normalises that: an error counts by its size against the residual's. (A
 * first token's residual can be a thousand times the others'; without this its error would be all that the moments see.) Where the sum is
 * normalised before it is added, the input's own size goes out of it too. */
static float token_weight(const ash_moments *mo, ash_tap_point p, const float *residual, const float *x, int K) {
    const ash_layer *l = &mo->m->layers[mo->layer];
    if (p != ASH_TAP_O_IN && p != ASH_TAP_DOWN_IN) return 1;
    double s = mean_square(residual, (size_t)mo->m->hp.n_embd);
    if (l->norm[p == ASH_TAP_O_IN ? ASH_N_POST_ATTN : ASH_N_POST_FFN]) s *= mean_square(x, (size_t)K);
    return s > 0 ? (float)(1 / sqrt(s)) : 0;
}

/* The first token is what most heads look at when they look at nothing. Seen once in a window, it would be where
 * compensation puts the errors, so it counts as half a window. */
static void tap(void *ctx, int layer, ash_tap_point p, int expert, const float *x, int64_t ldx, int n_tok, int K) {
    (void)layer, (void)expert;
    const tap_ctx *c = ctx;
    const ash_moments *mo = c->p->mo;
    const size_t k = (size_t)K, E = (size_t)mo->m->hp.n_embd;
    if ((int)p >= ASH_MOMENT_POINTS || mo->K[p] != K) return;
    float *d = mo->in[p] + c->chunk * mo->n_ctx * k;
    for (int t = 0; t < n_tok; t++) {
        float w = token_weight(mo, p, c->p->x + c->chunk * mo->per + (size_t)t * E, x + t * ldx, K);
        if (t == 0) w *= sqrtf(ASH_MOMENT_FIRST * (float)n_tok);
        for (size_t i = 0; i < k; i++) d[(size_t)t * k + i] = w * x[(size_t)t * (size_t)ldx + i];
    }
}

static void layer_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    const ash_moments *mo = p->mo;
    for (int64_t c = begin; c < end; c++) {
        tap_ctx t = {p, (size_t)c};
        ash_layer_apply(mo->m, mo->e.k, mo->layer, mo->packed, p->x + (size_t)c * mo->per, (int)mo->n_ctx,
                        mo->scratch + (size_t)ith * mo->scratch_floats, p->taps ? tap : NULL, &t);
    }
}

static void pack_layer(ash_moments *mo, int l, const ash_mat *w) {
    float *p = mo->pack;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *own = &mo->m->layers[l].w[r], *a = w && w[r].data ? &w[r] : own;
        mo->packed[r] = own->data ? p : NULL;
        if (own->data) ash_mm_pack(mo->e.k, mo->e.pool, a, p);
        p += ash_packed_floats(own->n_rows, own->K);
    }
    mo->layer = l;
}

/* ---- sums ---- */

enum { TILE = 64 };
typedef struct {
    ash_moments *mo;
    int p;
    size_t n_tok;
} sum_ctx;

static void sum_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const sum_ctx *c = ctx;
    const ash_moments *mo = c->mo;
    const int K = mo->K[c->p];
    for (int64_t b = begin; b < end; b++) {
        const int j0 = (int)b * TILE, n = ASH_MIN(TILE, K - j0);
        for (size_t k = 0; k < c->n_tok; k += mo->n_ctx) { /* a chunk at a time: its inputs stay in the cache */
            const rank_job u = {.M = mo->H[c->p],
                                .P = mo->in[c->p],
                                .R = mo->in[c->p],
                                .ldm = K,
                                .ldp = K,
                                .ldr = K,
                                .k0 = (int64_t)k,
                                .k1 = (int64_t)(k + mo->n_ctx)};
            mo->f->rank(&u, j0, n, j0, K - j0);
        }
    }
}

/* Room for the points of a layer: those some matrix reads, of widths that the sums can take. */
static ash_status make_room(ash_moments *mo, int l, ash_error *err) {
    const ash_layer *y = &mo->m->layers[l];
    uint64_t used = 0;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_tap_point p = ash_role_tap((ash_role)r);
        const int K = y->w[r].K;
        if (!y->w[r].data || mo->K[p] || K % 16) continue;
        const uint64_t k = (uint64_t)K, in = 4 * k * mo->n_ctx * mo->group, sums = 4 * k * k;
        if (in + sums > mo->mem_bytes - used) continue;
        used += in + sums;
        mo->in[p] = ash_alloc_aligned(in, 64);
        mo->H[p] = ash_alloc_aligned(sums, 64);
        if (!mo->in[p] || !mo->H[p]) return ash_fail(err, ASH_E_NOMEM, "out of memory for second moments of %d columns", K);
        memset(mo->in[p], 0, in);
        memset(mo->H[p], 0, sums);
        mo->K[p] = K;
    }
    return ASH_OK;
}

ash_status ash_moments_layer(ash_moments *mo, int l, bool want, ash_error *err) {
    drop_layer(mo);
    if (!want && mo->prefix) return ASH_OK; /* ash_moments_replace takes the states on */
    if (want) ASH_TRY(make_room(mo, l, err));
    pack_layer(mo, l, NULL);
    for (uint32_t c = 0; c < mo->n_chunks; c += mo->group) {
        const uint32_t n = ASH_MIN(mo->group, mo->n_chunks - c);
        pass p = {mo, mo->x + (size_t)c * mo->per, want};
        if (mo->prefix) p.x = memcpy(mo->tmp, p.x, (size_t)n * mo->per * sizeof(float));
        ash_pool_run(mo->e.pool, n, 1, layer_part, &p);
        for (int q = 0; q < ASH_MOMENT_POINTS; q++) {
            sum_ctx s = {mo, q, (size_t)n * mo->n_ctx};
            if (mo->K[q]) ash_pool_run(mo->e.pool, (mo->K[q] + TILE - 1) / TILE, 1, sum_part, &s);
        }
    }
    for (int q = 0; q < ASH_MOMENT_POINTS; q++) drop(&mo->in[q]);
    return ASH_OK;
}

ash_status ash_moments_replace(ash_moments *mo, int l, const ash_mat w[ASH_W_COUNT], ash_error *err) {
    if (!mo->prefix) return ash_fail(err, ASH_E_INTERNAL, "moments without a prefix");
    pack_layer(mo, l, w);
    pass p = {mo, mo->x, false};
    ash_pool_run(mo->e.pool, mo->n_chunks, 1, layer_part, &p);
    return ASH_OK;
}

float *ash_moments_take(ash_moments *mo, ash_tap_point p, int *K) {
    if ((int)p >= ASH_MOMENT_POINTS || !mo->H[p]) return NULL;
    float *H = mo->H[p];
    *K = mo->K[p];
    mo->H[p] = NULL;
    return H;
}

typedef struct {
    ash_moments *mo;
    uint32_t c0;
} norm_ctx;

static void norm_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const norm_ctx *n = ctx;
    const ash_moments *mo = n->mo;
    for (int64_t c = begin; c < end; c++)
        ash_final_norm(mo->m, mo->e.k, mo->x + (n->c0 + (size_t)c) * mo->per, (int)mo->n_ctx,
                       mo->in[0] + (size_t)c * mo->n_ctx * (size_t)mo->m->hp.n_embd);
}

ash_status ash_moments_head(ash_moments *mo, float **out, ash_error *err) {
    const size_t k = (size_t)mo->m->hp.n_embd;
    *out = NULL;
    drop_layer(mo);
    if (k % 16) return ASH_OK;
    mo->in[0] = ash_alloc_aligned(k * mo->n_ctx * mo->group * sizeof(float), 64);
    mo->H[0] = ash_alloc_aligned(k * k * sizeof(float), 64);
    if (!mo->in[0] || !mo->H[0]) return ash_fail(err, ASH_E_NOMEM, "out of memory for second moments of %zu columns", k);
    memset(mo->H[0], 0, k * k * sizeof(float));
    mo->K[0] = (int)k;
    for (uint32_t c = 0; c < mo->n_chunks; c += mo->group) {
        const uint32_t n = ASH_MIN(mo->group, mo->n_chunks - c);
        norm_ctx nc = {mo, c};
        ash_pool_run(mo->e.pool, n, 1, norm_part, &nc);
        sum_ctx s = {mo, 0, (size_t)n * mo->n_ctx};
        ash_pool_run(mo->e.pool, (int64_t)((k + TILE - 1) / TILE), 1, sum_part, &s);
    }
    int K;
    *out = ash_moments_take(mo, ASH_TAP_ATTN_IN, &K);
    drop_layer(mo);
    return ASH_OK;
}
