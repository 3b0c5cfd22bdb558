/* sensitivity.c - from a backward pass to what an error of a matrix costs, per column and row. With g the gradient at a token's output and x its input,
 * F_ij = sum_t g_ti^2 x_tj^2 is the diagonal of the Fisher information (errors at different tokens taken as independent). Kept is its rank-one form
 * c_j r_i / N with c_j = sum_t |g_t|^2 x_tj^2, r_i = sum_t |x_t|^2 g_ti^2, N = sum_t |g_t|^2 |x_t|^2, which has the right margins: a token whose
 * input is huge and whose gradient is nil (the first one) then counts for nothing, unlike in a product of two means. */
#include "eval/backward.h"
#include "eval/imatrix.h"

#include <math.h>

enum { WINDOW = 32, SKIP = 8, WINDOWS = 32 }; /* as the sweep's: short windows, so that many texts are seen */

typedef struct {
    const ash_model *m;
    ash_imatrix *im;
    uint32_t n_chunks;
    size_t at[ASH_W_COUNT], per; /* doubles of a chunk: c then r of every role, for the widest layer */
    double *sum;                 /* [n_chunks][per], of one layer */
    float *out;                  /* [2 * per] */
    uint64_t n_scored;
    ash_status st;
    ash_error err;
} gather;

static void tap(void *ctx, uint32_t chunk, int layer, ash_role role, const float *g, int n_rows, const float *x, int K) {
    (void)layer;
    gather *s = ctx;
    double *c = s->sum + (size_t)chunk * s->per + s->at[role], *r = c + K;
    for (int t = 0; t < WINDOW; t++, g += n_rows, x += K) {
        double gg = 0, xx = 0;
        for (int i = 0; i < n_rows; i++) gg += (double)g[i] * (double)g[i];
        for (int i = 0; i < K; i++) xx += (double)x[i] * (double)x[i];
        for (int i = 0; i < K; i++) c[i] += gg * ((double)x[i] * (double)x[i]);
        for (int i = 0; i < n_rows; i++) r[i] += xx * ((double)g[i] * (double)g[i]);
    }
}

static void layer_done(void *ctx, int layer) {
    gather *s = ctx;
    for (uint32_t k = 1; k < s->n_chunks; k++)
        for (size_t i = 0; i < s->per; i++) s->sum[i] += s->sum[(size_t)k * s->per + i];
    for (int role = 0; role < ASH_W_COUNT && s->st == ASH_OK; role++) {
        const ash_mat *w = &s->m->layers[layer].w[role];
        ash_im_entry *e = ash_im_find(s->im, s->m->layers[layer].name[role]);
        const double *c = s->sum + s->at[role], *r = c + w->K;
        double n = 0;
        for (int64_t i = 0; i < w->n_rows; i++) n += r[i];
        if (!e || e->n != (uint64_t)w->K || !(n > 0) || !isfinite(n)) continue;
        for (int i = 0; i < w->K; i++) s->out[i] = (float)(c[i] / (double)s->n_scored);
        for (int64_t i = 0; i < w->n_rows; i++) s->out[w->K + i] = (float)(r[i] / n);
        s->st = ash_im_set_grad(s->im, e, s->out, s->out + w->K, (uint64_t)w->n_rows, &s->err);
    }
    memset(s->sum, 0, (size_t)s->n_chunks * s->per * sizeof *s->sum);
}

ash_status ash_imatrix_gradients(ash_imatrix *im, ash_model *m, const ash_eval_text *t, uint32_t windows, const ash_eval_opts *o, ash_error *err) {
    ash_status st = ASH_OK;
    const uint32_t have = (uint32_t)ASH_MIN(t->n / WINDOW, UINT32_MAX), n = ASH_MIN(windows ? windows : WINDOWS, have);
    if (!n) return ash_fail(err, ASH_E_USAGE, "the text has %zu tokens; gradients need at least %d", t->n, WINDOW);
    gather s = {.m = m, .im = im, .n_chunks = n, .n_scored = (uint64_t)n * (WINDOW - SKIP)};
    ash_exec e = {0};
    ash_token *tok = ash_alloc((size_t)n * WINDOW * sizeof *tok), *labels = ash_calloc((size_t)n * WINDOW, sizeof *labels);
    for (int r = 0; r < ASH_W_COUNT; r++) {
        size_t most = 0;
        for (int l = 0; l < m->hp.n_layer; l++) most = ASH_MAX(most, (size_t)m->layers[l].w[r].K + (size_t)m->layers[l].w[r].n_rows);
        s.at[r] = s.per;
        s.per += most;
    }
    s.sum = ash_calloc((size_t)n * s.per + 1, sizeof *s.sum);
    s.out = ash_alloc((s.per + 1) * sizeof *s.out);
    if (!tok || !labels || !s.sum || !s.out) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for gradients");
        goto done;
    }
    for (uint32_t c = 0; c < n; c++) { /* spread over the text */
        const size_t from = (size_t)((uint64_t)c * have / n) * WINDOW;
        memcpy(tok + (size_t)c * WINDOW, t->tokens + from, WINDOW * sizeof *tok);
        if (t->add_bos && t->bos >= 0) tok[(size_t)c * WINDOW] = t->bos;
    }
    ASH_TRY_GOTO(ash_exec_init(&e, o->n_threads, o->cpu_level, err), done);
    ash_backward_job j = {.m = m, .tok = tok, .T = WINDOW, .skip = SKIP, .n_chunks = n, .labels = labels, .draw = true, .seed = o->seed, .tap = tap, .layer_done = layer_done,
                          .ctx = &s, .progress = &o->progress};
    ASH_TRY_GOTO(ash_backward(&e, &j, err), done);
    if (s.st != ASH_OK) {
        st = s.st;
        if (err) *err = s.err;
    }
done:
    ash_exec_free(&e);
    ash_free(tok);
    ash_free(labels);
    ash_free(s.sum);
    ash_free(s.out);
    return st;
}
