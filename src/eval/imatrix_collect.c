/* imatrix_collect.c - sums of squared matrix inputs, taken in the forward pass. Every chunk has its own sums and they are
 * added in chunk order, so that the result does not depend on threads. */
#include "eval/exec.h"
#include "eval/imatrix.h"

/* A weight tensor whose input is watched. */
typedef struct {
    const char *name;
    ash_tap_point p;
    int K, n_mat; /* n_mat experts share the tensor */
    bool runs;
} item;

enum { MAX_ITEMS = ASH_W_COUNT + 7 };

static int add_item(item *it, int n, const ash_mat *w, const char *name, ash_tap_point p, int n_mat, bool runs) {
    if (!w->data) return n;
    for (int i = 0; i < n; i++)
        if (it[i].name == name) return n; /* a fused tensor: one entry */
    it[n] = (item){name, p, w->K, n_mat, runs};
    return n + 1;
}

/* Weight tensors of layer l, and of the model's input with layer 0. */
static int items_of(const ash_model *m, int l, item *it) {
    const ash_layer *y = &m->layers[l];
    const ash_moe *x = y->moe;
    int n = 0;
    for (int r = 0; r < ASH_W_COUNT; r++)
        n = add_item(it, n, &y->w[r], y->name[r], ash_role_tap((ash_role)r), 1, (r != ASH_W_K && r != ASH_W_V) || y->kv_layer == l);
    if (x) {
        n = add_item(it, n, &x->router, x->router_name, ASH_TAP_ROUTER_IN, 1, true);
        n = add_item(it, n, &x->gate.w, x->gate.name, ASH_TAP_EXP_IN, m->hp.n_expert, true);
        n = add_item(it, n, &x->up.w, x->up.name, ASH_TAP_EXP_IN, m->hp.n_expert, true);
        n = add_item(it, n, &x->down.w, x->down.name, ASH_TAP_EXP_DOWN_IN, m->hp.n_expert, true);
    }
    n = add_item(it, n, &y->ple_gate, y->ple_gate_name, ASH_TAP_PLE_IN, 1, true);
    n = add_item(it, n, &y->ple_proj, y->ple_proj_name, ASH_TAP_PLE_PROJ_IN, 1, true);
    if (l == 0) n = add_item(it, n, &m->ple_proj, m->ple_proj_name, ASH_TAP_PLE_MODEL_IN, 1, true);
    return n;
}

/* Where the sums of a layer's tap points lie: [n_mat][K] each. */
typedef struct {
    size_t at[ASH_TAP_COUNT], rows_at[ASH_TAP_COUNT];
    int K[ASH_TAP_COUNT], n_mat[ASH_TAP_COUNT]; /* K 0: nobody reads there */
    size_t n, n_rows;
} layout;

static layout layout_of(const ash_model *m, int l) {
    layout o = {0};
    item it[MAX_ITEMS];
    int n = items_of(m, l, it);
    for (int i = 0; i < n; i++) {
        if (o.K[it[i].p] || !it[i].runs) continue;
        o.at[it[i].p] = o.n, o.rows_at[it[i].p] = o.n_rows;
        o.K[it[i].p] = it[i].K, o.n_mat[it[i].p] = it[i].n_mat;
        o.n += (size_t)it[i].K * (size_t)it[i].n_mat;
        o.n_rows += (size_t)it[i].n_mat;
    }
    return o;
}

typedef struct {
    const layout *o; /* of the layer being run */
    double *sum;     /* of this chunk and layer */
    uint64_t *rows;  /* rows seen, by matrix */
} chunk_sums;

typedef struct {
    ash_imatrix *im;
    const ash_model *m;
    layout *o;            /* by layer */
    size_t *at, *rows_at; /* by layer, in total and rows */
    chunk_sums *c;
    uint32_t n_chunks;
    double *total;
    uint64_t *rows;
} collect;

static void tap(void *ctx, int layer, ash_tap_point p, int expert, const float *x, int64_t ldx, int n_tok, int K) {
    (void)layer;
    chunk_sums *c = ctx;
    if (c->o->K[p] != K) return;
    double *s = c->sum + c->o->at[p] + (size_t)expert * (size_t)K;
    for (int t = 0; t < n_tok; t++) {
        const float *r = x + t * ldx;
        for (int i = 0; i < K; i++) s[i] += (double)r[i] * (double)r[i];
    }
    c->rows[c->o->rows_at[p] + (size_t)expert] += (uint64_t)n_tok;
}

static void begin_layer(collect *c, int layer) {
    for (uint32_t k = 0; k < c->n_chunks; k++) c->c[k].o = &c->o[layer];
}

static void layer_done(void *ctx, int layer, uint32_t n_chunks) {
    collect *c = ctx;
    const layout *o = &c->o[layer];
    for (uint32_t k = 0; k < n_chunks; k++) {
        double *t = c->total + c->at[layer];
        uint64_t *r = c->rows + c->rows_at[layer];
        for (size_t i = 0; i < o->n; i++) t[i] += c->c[k].sum[i];
        for (size_t i = 0; i < o->n_rows; i++) r[i] += c->c[k].rows[i];
        memset(c->c[k].sum, 0, o->n * sizeof(double));
        memset(c->c[k].rows, 0, o->n_rows * sizeof(uint64_t));
    }
    begin_layer(c, layer + 1 < c->m->hp.n_layer ? layer + 1 : 0);
}

/* Room for the sums of all layers, and of one layer for each of g chunks. */
static ash_status make_room(collect *c, uint32_t g, ash_error *err) {
    const size_t L = (size_t)c->m->hp.n_layer;
    size_t n = 0, n_rows = 0, max = 1, max_rows = 1;
    bool ok = (c->o = ash_calloc(L, sizeof *c->o)) != NULL;
    ok = ok && (c->at = ash_calloc(L, sizeof *c->at)) != NULL && (c->rows_at = ash_calloc(L, sizeof *c->rows_at)) != NULL;
    for (size_t l = 0; ok && l < L; l++) {
        c->o[l] = layout_of(c->m, (int)l);
        c->at[l] = n, c->rows_at[l] = n_rows;
        n += c->o[l].n, n_rows += c->o[l].n_rows;
        max = ASH_MAX(max, c->o[l].n), max_rows = ASH_MAX(max_rows, c->o[l].n_rows);
    }
    ok = ok && (c->total = ash_calloc(n ? n : 1, sizeof *c->total)) != NULL &&
         (c->rows = ash_calloc(n_rows ? n_rows : 1, sizeof *c->rows)) != NULL;
    ok = ok && (c->c = ash_calloc(g, sizeof *c->c)) != NULL;
    if (ok) c->n_chunks = g;
    for (uint32_t k = 0; ok && k < g; k++)
        ok = (c->c[k].sum = ash_calloc(max, sizeof(double))) != NULL && (c->c[k].rows = ash_calloc(max_rows, sizeof(uint64_t))) != NULL;
    if (!ok) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance sums");
    begin_layer(c, 0);
    return ASH_OK;
}

static void free_room(collect *c) {
    for (uint32_t k = 0; c->c && k < c->n_chunks; k++) ash_free(c->c[k].sum), ash_free(c->c[k].rows);
    ash_free(c->c);
    ash_free(c->o);
    ash_free(c->at);
    ash_free(c->rows_at);
    ash_free(c->total);
    ash_free(c->rows);
}

/* Entries of layer l. */
static ash_status add_entries(collect *c, int l, ash_error *err) {
    item it[MAX_ITEMS];
    int n = items_of(c->m, l, it);
    const layout *o = &c->o[l];
    for (int i = 0; i < n; i++) {
        const uint64_t *rows = c->rows + c->rows_at[l] + o->rows_at[it[i].p];
        if (!it[i].runs) continue;
        float *counts = ash_alloc((size_t)it[i].n_mat * sizeof *counts);
        if (!counts) return ash_fail(err, ASH_E_NOMEM, "out of memory for the importance sums");
        uint64_t seen = 0;
        for (int k = 0; k < it[i].n_mat; k++) seen += rows[k], counts[k] = (float)rows[k];
        ash_status st = ASH_OK;
        if (seen)
            st = ash_im_add(c->im, it[i].name, strlen(it[i].name), (uint64_t)it[i].K * (uint64_t)it[i].n_mat, (uint64_t)it[i].n_mat,
                            c->total + c->at[l] + o->at[it[i].p], NULL, counts, err);
        ash_free(counts);
        ASH_TRY(st);
    }
    return ASH_OK;
}

ash_status ash_imatrix_collect(ash_imatrix **out, ash_model *m, const ash_eval_text *t, const char *dataset, const ash_eval_opts *o,
                               ash_error *err) {
    *out = NULL;
    ash_status st = ASH_OK;
    uint32_t n_ctx, n_chunks, g = 0;
    ASH_TRY(ash_eval_windows(t, o, &n_ctx, &n_chunks, err));
    collect c = {.m = m};
    ash_exec e = {0};
    ash_token *tok = NULL;
    float *hidden = NULL;
    double *head = NULL;
    c.im = ash_calloc(1, sizeof *c.im);
    if (!c.im) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ASH_TRY_GOTO(ash_exec_init(&e, o->n_threads, o->cpu_level, err), done);
    if (!m->hp.causal) {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s does not predict tokens", ash_model_arch(m));
        goto done;
    }
    g = ash_chunks_per_group(&e, m, n_ctx, n_chunks, o->mem_bytes ? o->mem_bytes : 512ull << 20);
    uint32_t groups = (n_chunks + g - 1) / g;
    size_t L = (size_t)m->hp.n_layer, E = (size_t)m->hp.n_embd;
    ASH_TRY_GOTO(make_room(&c, g, err), done);
    head = ash_calloc(E, sizeof *head);
    hidden = ash_alloc_aligned((size_t)g * n_ctx * E * sizeof(float), 64);
    tok = ash_chunk_tokens(t->tokens, n_ctx, n_chunks, t->add_bos, t->bos);
    if (!tok || !head || !hidden) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the importance sums");
        goto done;
    }
    ash_watch w = {tap, c.c, sizeof *c.c, layer_done, &c};
    for (uint32_t i = 0, k = 0; i < groups; i++, k += g) {
        uint32_t nc = ASH_MIN(g, n_chunks - k);
        ash_fwd_job j = {.m = m,
                         .tok = tok + (size_t)k * n_ctx,
                         .n_chunks = nc,
                         .n_ctx = n_ctx,
                         .first = 0,
                         .end = n_ctx,
                         .watch = &w,
                         .progress = &o->progress,
                         .stage = "importance",
                         .done0 = (double)i * (double)L,
                         .total = (double)groups * (double)L};
        ASH_TRY_GOTO(ash_fwd_chunks(&e, &j, hidden, err), done);
        for (size_t p = 0; p < (size_t)nc * n_ctx; p++)
            for (size_t q = 0; q < E; q++) head[q] += (double)hidden[p * E + q] * (double)hidden[p * E + q];
    }
    for (int l = 0; l < m->hp.n_layer; l++) ASH_TRY_GOTO(add_entries(&c, l, err), done);
    float count = (float)((uint64_t)n_chunks * n_ctx);
    ASH_TRY_GOTO(ash_im_add(c.im, m->head_name, strlen(m->head_name), E, 1, head, NULL, &count, err), done);
    c.im->chunks = n_chunks;
    c.im->chunk_size = n_ctx;
    c.im->dataset = ash_strdup(dataset ? dataset : "");
    st = c.im->dataset ? ash_im_finish(c.im, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
done:
    free_room(&c);
    ash_free(tok);
    ash_free(head);
    ash_free(hidden);
    ash_exec_free(&e);
    if (st == ASH_OK)
        *out = c.im;
    else
        ash_imatrix_free(c.im);
    return st;
}

size_t ash_imatrix_dead(const ash_imatrix *im, const ash_model *m, const char **names, size_t cap) {
    size_t n = 0;
    for (int l = 0; l < m->hp.n_layer; l++) {
        item it[MAX_ITEMS];
        int k = items_of(m, l, it);
        for (int i = 0; i < k; i++) {
            if (ash_imatrix_weights(im, it[i].name, (uint64_t)it[i].K * (uint64_t)it[i].n_mat)) continue;
            if (n < cap) names[n] = it[i].name;
            n++;
        }
    }
    return n;
}
