/* ple.c - per-layer embeddings (Gemma 4 E-series): each token has, per layer, a small vector made from a table of its own
 * and a projection of its embedding; after a layer's FFN it gates a low-rank update of the residual. */
#include "engine/fwd_int.h"

#include <math.h>

/* ple = (norm(proj x / sqrt(n_embd)) + table row) / sqrt(2); f->ple holds the table rows, f->ple_tmp the projection. */
static void combine_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_model *m = s->f->m;
    const int n = m->hp.n_ple, wide = m->ple_proj.n_rows > 0 ? (int)m->ple_proj.n_rows : 0;
    const float in = 1.0f / sqrtf((float)m->hp.n_embd), out = 0.70710678118654752f;
    for (int64_t t = b; t < e; t++) {
        float *p = s->f->ple + t * wide, *q = s->f->ple_tmp + t * wide;
        for (int i = 0; i < wide; i++) q[i] *= in;
        for (int il = 0; il < m->hp.n_layer; il++) s->f->k->rmsnorm(q + il * n, m->ple_norm, n, m->hp.eps, q + il * n);
        for (int i = 0; i < wide; i++) p[i] = (p[i] + q[i]) * out;
    }
}

static void quant_x_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = b; t < e; t++) ash_quant_row(s->f, t, s->f->x + t * n, n);
}

void ash_fwd_ple_inputs(ash_fwd *f, int n_tok) {
    const ash_model *m = f->m;
    if (!m->hp.n_ple) return;
    ash_stage s = {.f = f, .n_tok = n_tok};
    if (ash_has_8bit(f, &m->ple_proj)) ash_stage_run(&s, quant_x_stage);
    ash_tap(f, -1, ASH_TAP_PLE_MODEL_IN, 0, f->x, n_tok, m->hp.n_embd);
    ash_mm_job job = {&m->ple_proj, f->ple_tmp, m->ple_proj.n_rows};
    ash_fwd_product(f, &job, 1, f->x, 0, n_tok);
    ash_stage_run(&s, combine_stage);
}

static void gate_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_hparams *hp = &s->f->m->hp;
    const int n = hp->n_ple;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *g = s->f->g + t * n;
        s->f->k->gelu_mul(g, s->f->ple + (t * hp->n_layer + s->il) * n, n);
        if (s->quant) ash_quant_row(s->f, t, g, n);
    }
}

void ash_ple_layer(ash_fwd *f, int il, int n_tok, int first) {
    const ash_layer *l = &f->m->layers[il];
    const int e = f->m->hp.n_embd, n = f->m->hp.n_ple, rows = n_tok - first;
    if (rows <= 0) return;
    ash_pending p = ash_ffn_output(l);
    ash_stage s = {.f = f, .l = l, .il = il, .n_tok = n_tok, .first = first, .pend = &p, .quant = ash_has_8bit(f, &l->ple_gate)};
    ash_stage_run(&s, ash_flush_stage);
    const float *x = f->x + (int64_t)first * e;
    float *g = f->g + (int64_t)first * n;
    ash_tap(f, il, ASH_TAP_PLE_IN, 0, x, rows, e);
    ash_mm_job in = {&l->ple_gate, g, n}, out = {&l->ple_proj, f->y + (int64_t)first * e, e};
    ash_fwd_product(f, &in, 1, x, first, rows);
    s.quant = ash_has_8bit(f, &l->ple_proj);
    ash_stage_run(&s, gate_stage);
    ash_tap(f, il, ASH_TAP_PLE_PROJ_IN, 0, g, rows, n);
    ash_fwd_product(f, &out, 1, g, first, rows);
}
