/* imatrix_collect.c - sums of squared matrix inputs, taken in the forward pass. Every chunk has its own sums and they are
 * added in chunk order, so that the result does not depend on threads. */
#include "eval/exec.h"
#include "eval/imatrix.h"

typedef struct {
    double *sum;  /* [ASH_TAP_COUNT][max_k] of this chunk and layer */
    int max_k;
    int tok[ASH_TAP_COUNT]; /* rows seen */
} chunk_sums;

typedef struct {
    ash_imatrix *im;
    const ash_model *m;
    chunk_sums *c;
    double *total;       /* [n_layer][ASH_TAP_COUNT][max_k] */
    uint64_t *rows;      /* [n_layer][ASH_TAP_COUNT] */
    int max_k;
} collect;

static void tap(void *ctx, int layer, ash_tap_point p, const float *x, int64_t ldx, int n_tok, int K) {
    (void)layer;
    chunk_sums *c = ctx;
    double *s = c->sum + (size_t)p * (size_t)c->max_k;
    for (int t = 0; t < n_tok; t++) {
        const float *r = x + t * ldx;
        for (int i = 0; i < K; i++) s[i] += (double)r[i] * (double)r[i];
    }
    c->tok[p] += n_tok;
}

static void layer_done(void *ctx, int layer, uint32_t n_chunks) {
    collect *c = ctx;
    for (uint32_t k = 0; k < n_chunks; k++) {
        for (int p = 0; p < ASH_TAP_COUNT; p++) {
            double *s = c->c[k].sum + (size_t)p * (size_t)c->max_k, *t = c->total + ((size_t)layer * ASH_TAP_COUNT + (size_t)p) * (size_t)c->max_k;
            for (int i = 0; i < c->max_k; i++) t[i] += s[i];
            c->rows[(size_t)layer * ASH_TAP_COUNT + (size_t)p] += (uint64_t)c->c[k].tok[p];
            c->c[k].tok[p] = 0;
        }
        memset(c->c[k].sum, 0, (size_t)ASH_TAP_COUNT * (size_t)c->max_k * sizeof(double));
    }
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
    for (int l = 0; l < m->hp.n_layer; l++)
        for (int r = 0; r < ASH_W_COUNT; r++) c.max_k = ASH_MAX(c.max_k, m->layers[l].w[r].K);
    g = ash_chunks_per_group(&e, m, n_ctx, n_chunks, o->mem_bytes ? o->mem_bytes : 512ull << 20);
    uint32_t groups = (n_chunks + g - 1) / g;
    size_t L = (size_t)m->hp.n_layer, per = (size_t)ASH_TAP_COUNT * (size_t)c.max_k, E = (size_t)m->hp.n_embd;
    c.total = ash_calloc(L * per, sizeof *c.total);
    c.rows = ash_calloc(L * ASH_TAP_COUNT, sizeof *c.rows);
    c.c = ash_calloc(g, sizeof *c.c);
    head = ash_calloc(E, sizeof *head);
    hidden = ash_alloc_aligned((size_t)g * n_ctx * E * sizeof(float), 64);
    tok = ash_chunk_tokens(t->tokens, n_ctx, n_chunks, t->add_bos, t->bos);
    bool ok = c.total && c.rows && c.c && tok && head && hidden;
    for (uint32_t k = 0; ok && k < g; k++) {
        c.c[k].max_k = c.max_k;
        c.c[k].sum = ash_calloc(per, sizeof(double));
        ok = c.c[k].sum != NULL;
    }
    if (!ok) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the importance sums");
        goto done;
    }
    ash_watch w = {tap, c.c, sizeof *c.c, layer_done, &c};
    for (uint32_t i = 0, k = 0; i < groups; i++, k += g) {
        uint32_t nc = ASH_MIN(g, n_chunks - k);
        ash_fwd_job j = {.m = m, .tok = tok + (size_t)k * n_ctx, .n_chunks = nc, .n_ctx = n_ctx, .first = 0, .end = n_ctx,
                         .watch = &w, .progress = &o->progress, .stage = "importance", .done0 = (double)i * (double)L, .total = (double)groups * (double)L};
        ASH_TRY_GOTO(ash_fwd_chunks(&e, &j, hidden, err), done);
        for (size_t p = 0; p < (size_t)nc * n_ctx; p++)
            for (size_t q = 0; q < E; q++) head[q] += (double)hidden[p * E + q] * (double)hidden[p * E + q];
    }
    for (size_t l = 0; l < L; l++)
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *mat = &m->layers[l].w[r];
            size_t p = l * ASH_TAP_COUNT + (size_t)ash_role_tap((ash_role)r);
            if (!mat->data || c.rows[p] == 0 || ((r == ASH_W_K || r == ASH_W_V) && m->layers[l].kv_layer != (int)l)) continue;
            const char *name = m->layers[l].name[r];
            float count = (float)c.rows[p];
            ASH_TRY_GOTO(ash_im_add(c.im, name, strlen(name), (uint64_t)mat->K, 1, c.total + p * (size_t)c.max_k, NULL, &count, err), done);
        }
    float count = (float)((uint64_t)n_chunks * n_ctx);
    ASH_TRY_GOTO(ash_im_add(c.im, m->head_name, strlen(m->head_name), E, 1, head, NULL, &count, err), done);
    c.im->chunks = n_chunks;
    c.im->chunk_size = n_ctx;
    c.im->dataset = ash_strdup(dataset ? dataset : "");
    st = c.im->dataset ? ash_im_finish(c.im, err) : ash_fail(err, ASH_E_NOMEM, "out of memory");
done:
    for (uint32_t k = 0; c.c && k < g; k++) ash_free(c.c[k].sum);
    ash_free(c.c);
    ash_free(c.total);
    ash_free(c.rows);
    ash_free(tok);
    ash_free(head);
    ash_free(hidden);
    ash_exec_free(&e);
    if (st == ASH_OK) *out = c.im;
    else ash_imatrix_free(c.im);
    return st;
}

size_t ash_imatrix_dead(const ash_imatrix *im, const ash_model *m, const char **names, size_t cap) {
    size_t n = 0;
    for (int l = 0; l < m->hp.n_layer; l++)
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *mat = &m->layers[l].w[r];
            const char *name = m->layers[l].name[r];
            if (!mat->data || !name || ash_imatrix_weights(im, name, (uint64_t)mat->K)) continue;
            if (n < cap) names[n] = name;
            n++;
        }
    return n;
}
