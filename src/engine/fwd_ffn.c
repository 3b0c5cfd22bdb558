/* fwd_ffn.c - the feed-forward half of a layer: a gated or plain FFN, experts instead of it or beside it, and the
 * per-layer embedding stage. */
#include "engine/fwd_int.h"

#include <math.h>

/* gelu(x) = x/2 (1 + erf(x / sqrt 2)), in place */
static void gelu_erf(float *x, int n) {
    for (int i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678118654752f));
}

static void act_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_fwd *f = s->f;
    const ash_layer *l = s->l;
    const int n = l->n_ff;
    const bool gated = l->w[ASH_W_GATE].data != NULL;
    const ash_glu_fn glu = f->m->hp.act == ASH_ACT_SILU ? f->k->silu_mul : f->k->gelu_mul;
    const float *gate_b = l->bias[ASH_W_GATE], *up_b = l->bias[ASH_W_UP];
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *g = f->g + t * n, *u = gated ? f->u + t * n : g;
        if (gate_b && gated) f->k->addto(g, gate_b, n);
        if (up_b) f->k->addto(u, up_b, n);
        if (gated)
            glu(g, u, n);
        else
            gelu_erf(g, n);
        if (s->quant) ash_quant_row(s->f, t, g, n);
    }
}

static void dense(ash_fwd *f, int il, int n_tok, int first) {
    const ash_layer *l = &f->m->layers[il];
    const bool gated = l->w[ASH_W_GATE].data != NULL;
    ash_stage s = {.f = f, .l = l, .il = il, .n_tok = n_tok, .first = first, .quant = ash_has_8bit(f, &l->w[ASH_W_DOWN])};
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_GATE, ASH_W_UP}, (float *const[]){f->g, gated ? f->u : f->g}, 2, f->h, first, n_tok);
    ash_stage_run(&s, act_stage);
    ash_tap(f, il, ASH_TAP_DOWN_IN, 0, f->g + (int64_t)first * l->n_ff, n_tok - first, l->n_ff);
    ash_fwd_products(f, il, (const ash_role[]){ASH_W_DOWN}, (float *const[]){f->y}, 1, f->g, first, n_tok);
}

void ash_fwd_ffn(ash_fwd *f, int il, int n_tok, int first, bool attn_pending) {
    const ash_layer *l = &f->m->layers[il];
    const int e = f->m->hp.n_embd;
    ash_pending p = ash_attn_output(l);
    ash_stage s = {.f = f, .l = l, .il = il, .n_tok = n_tok, .first = first, .norm = l->norm[ASH_N_FFN], .norm_b = l->norm_b[ASH_N_FFN]};
    if (attn_pending) s.pend = &p;
    s.quant = ash_has_8bit(f, &l->w[ASH_W_GATE]) || ash_has_8bit(f, &l->w[ASH_W_UP]);
    ash_stage_run(&s, ash_norm_stage);
    if (l->w[ASH_W_DOWN].data) {
        ash_tap(f, il, ASH_TAP_FFN_IN, 0, f->h + (int64_t)first * e, n_tok - first, e);
        dense(f, il, n_tok, first);
    }
    if (l->moe) ash_moe_layer(f, il, n_tok, first);
    if (l->ple_gate.data) ash_ple_layer(f, il, n_tok, first);
}
