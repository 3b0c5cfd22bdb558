/* moments.c - moments.h: a layer over all chunks in groups; the taps put the matrices' inputs by, and then rows of the sums are made in
 * parallel, each in chunk order. */
#include "eval/moments.h"

#include "quant/compensate.h"

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
    float *in[ASH_MOMENT_POINTS];  /* [group][n_ctx][K] */
    float *in0[ASH_MOMENT_POINTS]; /* the same of the unchanged model, beside a prefix */
    float *H[ASH_MOMENT_POINTS], *C[ASH_MOMENT_POINTS];
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
        drop(&mo->in[p]), drop(&mo->in0[p]), drop(&mo->H[p]), drop(&mo->C[p]);
        mo->K[p] = 0;
    }
}

void ash_moments_free(ash_moments *mo) {
    if (!mo) return;
    drop_layer(mo);
    ash_free(mo->x);
    ash_free(mo->xq);
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
    mo->xq = prefix ? ash_alloc_aligned(n, 64) : NULL;
    mo->tmp = prefix ? ash_alloc_aligned((size_t)mo->group * mo->per * sizeof(float), 64) : NULL;
    mo->pack = ash_alloc_aligned(widest * sizeof(float), 64);
    mo->scratch = ash_alloc_aligned((size_t)mo->e.n_threads * mo->scratch_floats * sizeof(float), 64);
    tok = ash_chunk_tokens(t->tokens, mo->n_ctx, mo->n_chunks, t->add_bos, t->bos);
    if (!mo->x || !mo->pack || !mo->scratch || !tok || (prefix && (!mo->xq || !mo->tmp))) {
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
    if (prefix) memcpy(mo->xq, mo->x, n);
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
    float *x;   /* states, advanced in place */
    float **in; /* where taps go; NULL: no taps */
} pass;
typedef struct {
    pass *p;
    size_t chunk;
} tap_ctx;

static void tap(void *ctx, int layer, ash_tap_point p, int expert, const float *x, int64_t ldx, int n_tok, int K) {
    (void)layer, (void)expert;
    const tap_ctx *c = ctx;
    const ash_moments *mo = c->p->mo;
    if ((int)p >= ASH_MOMENT_POINTS || mo->K[p] != K || !c->p->in[p]) return;
    float *d = c->p->in[p] + c->chunk * mo->n_ctx * (size_t)K;
    for (int t = 0; t < n_tok; t++) memcpy(d + (size_t)t * (size_t)K, x + t * ldx, (size_t)K * sizeof(float));
}

static void layer_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    const ash_moments *mo = p->mo;
    for (int64_t c = begin; c < end; c++) {
        tap_ctx t = {p, (size_t)c};
        ash_layer_apply(mo->m, mo->e.k, mo->layer, mo->packed, p->x + (size_t)c * mo->per, (int)mo->n_ctx,
                        mo->scratch + (size_t)ith * mo->scratch_floats, p->in ? tap : NULL, &t);
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
    bool cross;
} sum_ctx;

static void sum_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    const sum_ctx *c = ctx;
    const ash_moments *mo = c->mo;
    const int K = mo->K[c->p];
    for (int64_t b = begin; b < end; b++) {
        const int j0 = (int)b * TILE, i0 = c->cross ? 0 : j0, n = ASH_MIN(TILE, K - j0);
        for (size_t k = 0; k < c->n_tok; k += mo->n_ctx) { /* a chunk at a time: its inputs stay in the cache */
            const rank_job u = {.M = c->cross ? mo->C[c->p] : mo->H[c->p],
                                .P = mo->in[c->p],
                                .R = c->cross ? mo->in0[c->p] : mo->in[c->p],
                                .ldm = K,
                                .ldp = K,
                                .ldr = K,
                                .k0 = (int64_t)k,
                                .k1 = (int64_t)(k + mo->n_ctx)};
            mo->f->rank(&u, j0, n, i0, K - i0);
        }
    }
}

/* Room for the points of a layer: those some matrix reads, of widths that the sums can take. */
static ash_status make_room(ash_moments *mo, int l, ash_error *err) {
    const ash_layer *y = &mo->m->layers[l];
    const int sets = mo->prefix ? 2 : 1;
    uint64_t used = 0;
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_tap_point p = ash_role_tap((ash_role)r);
        const int K = y->w[r].K;
        if (!y->w[r].data || mo->K[p] || K % 16) continue;
        const uint64_t k = (uint64_t)K, bytes = (uint64_t)sets * 4 * (k * k + k * mo->n_ctx * mo->group);
        if (bytes > mo->mem_bytes - used) continue;
        used += bytes;
        for (int s = 0; s < sets; s++) {
            float *in = ash_alloc_aligned(k * mo->n_ctx * mo->group * sizeof(float), 64), *H = ash_alloc_aligned(k * k * sizeof(float), 64);
            *(s ? &mo->in0[p] : &mo->in[p]) = in;
            *(s ? &mo->C[p] : &mo->H[p]) = H;
            if (!in || !H) return ash_fail(err, ASH_E_NOMEM, "out of memory for second moments of %d columns", K);
            memset(in, 0, k * mo->n_ctx * mo->group * sizeof(float));
            memset(H, 0, k * k * sizeof(float));
        }
        mo->K[p] = K;
    }
    return ASH_OK;
}

ash_status ash_moments_layer(ash_moments *mo, int l, bool want, ash_error *err) {
    drop_layer(mo);
    if (want) ASH_TRY(make_room(mo, l, err));
    pack_layer(mo, l, NULL);
    for (uint32_t c = 0; c < mo->n_chunks; c += mo->group) {
        const uint32_t n = ASH_MIN(mo->group, mo->n_chunks - c);
        pass p = {mo, mo->x + (size_t)c * mo->per, want ? (mo->prefix ? mo->in0 : mo->in) : NULL};
        ash_pool_run(mo->e.pool, n, 1, layer_part, &p);
        if (mo->prefix && want) {
            memcpy(mo->tmp, mo->xq + (size_t)c * mo->per, (size_t)n * mo->per * sizeof(float));
            p.x = mo->tmp, p.in = mo->in;
            ash_pool_run(mo->e.pool, n, 1, layer_part, &p);
        }
        for (int q = 0; want && q < ASH_MOMENT_POINTS; q++) {
            sum_ctx s = {mo, q, (size_t)n * mo->n_ctx, false};
            if (!mo->K[q]) continue;
            ash_pool_run(mo->e.pool, (mo->K[q] + TILE - 1) / TILE, 1, sum_part, &s);
            s.cross = true;
            if (mo->prefix) ash_pool_run(mo->e.pool, (mo->K[q] + TILE - 1) / TILE, 1, sum_part, &s);
        }
    }
    for (int q = 0; q < ASH_MOMENT_POINTS; q++) drop(&mo->in[q]), drop(&mo->in0[q]);
    return ASH_OK;
}

ash_status ash_moments_replace(ash_moments *mo, int l, const ash_mat w[ASH_W_COUNT], ash_error *err) {
    if (!mo->prefix) return ash_fail(err, ASH_E_INTERNAL, "moments without a prefix");
    pack_layer(mo, l, w);
    pass p = {mo, mo->xq, NULL};
    ash_pool_run(mo->e.pool, mo->n_chunks, 1, layer_part, &p);
    return ASH_OK;
}

float *ash_moments_take(ash_moments *mo, ash_tap_point p, int *K, float **cross) {
    if (cross) *cross = NULL;
    if ((int)p >= ASH_MOMENT_POINTS || !mo->H[p]) return NULL;
    float *H = mo->H[p];
    *K = mo->K[p];
    mo->H[p] = NULL;
    if (cross) *cross = mo->C[p], mo->C[p] = NULL;
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
        ash_final_norm(mo->m, mo->e.k, (mo->prefix ? mo->xq : mo->x) + (n->c0 + (size_t)c) * mo->per, (int)mo->n_ctx,
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
        sum_ctx s = {mo, 0, (size_t)n * mo->n_ctx, false};
        ash_pool_run(mo->e.pool, (int64_t)((k + TILE - 1) / TILE), 1, sum_part, &s);
    }
    int K;
    *out = ash_moments_take(mo, 0, &K, NULL);
    drop_layer(mo);
    return ASH_OK;
}
