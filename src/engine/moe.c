/* moe.c - experts: the router in float32, softmax, the n_expert_used largest (of equal ones the lower index), their
 * probabilities renormalised; then expert by expert, so that all its tokens share one matrix product. A token's sum runs over
 * its experts by ascending index whatever else is in the batch, so that batching changes no bit. */
#include "engine/fwd_int.h"

/* Input of the router where it has one of its own: rms norm(residual) * in_scale * scale, in moe.x. */
static void router_in_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_moe *x = s->l->moe;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *r = s->f->moe.x + t * n;
        s->f->k->rmsnorm(s->f->x + t * n, NULL, n, s->f->m->hp.eps, r);
        for (int i = 0; i < n; i++) r[i] *= x->in_scale * x->router_scale[i];
    }
}

/* Choose: experts of the token, ascending, with their weights. */
static void choose_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_hparams *hp = &s->f->m->hp;
    const ash_moe_bufs *m = &s->f->moe;
    const int n = hp->n_expert, used = hp->n_expert_used;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *p = m->p + t * n, *w = m->weight + t * used, sum = 0;
        int32_t *id = m->expert + t * used;
        s->f->k->softmax(p, n);
        for (int k = 0; k < used; k++) {
            int best = -1; /* comparing this way, numbers that are none cannot choose an expert twice */
            for (int i = 0; i < n; i++)
                if (p[i] != -1.0f && (best < 0 || p[i] > p[best])) best = i;
            const float v = p[best];
            sum += v;
            p[best] = -1; /* taken */
            int at = k;
            for (; at > 0 && id[at - 1] > best; at--) id[at] = id[at - 1], w[at] = w[at - 1];
            id[at] = best, w[at] = v;
        }
        for (int k = 0; k < used; k++) {
            w[k] /= sum;
            if (s->l->moe->down_scale) w[k] *= s->l->moe->down_scale[id[k]];
        }
    }
}

/* order, start: the tokens of each expert. */
static void group_tokens(ash_fwd *f, int first, int n_tok) {
    const int n = f->m->hp.n_expert, used = f->m->hp.n_expert_used;
    ash_moe_bufs *m = &f->moe;
    memset(m->start, 0, (size_t)(n + 1) * sizeof *m->start);
    for (int i = first * used; i < n_tok * used; i++) m->start[m->expert[i] + 1]++;
    for (int i = 0; i < n; i++) m->start[i + 1] += m->start[i];
    for (int i = first * used; i < n_tok * used; i++) m->order[m->start[m->expert[i]]++] = i;
    for (int i = n; i > 0; i--) m->start[i] = m->start[i - 1]; /* back to where the groups begin */
    m->start[0] = 0;
}

/* Rows of one expert: stages run over [0, n_rows). */
static void gather_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd, used = s->f->m->hp.n_expert_used;
    for (int64_t i = b; i < e; i++) {
        const float *h = s->f->h + (int64_t)(s->f->moe.order[s->row0 + i] / used) * n;
        float *x = s->f->moe.x + i * n;
        memcpy(x, h, (size_t)n * sizeof *x);
        if (s->quant) ash_quant_row(s->f, i, x, n);
    }
}

static void glu_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_glu_fn glu = s->f->m->hp.act == ASH_ACT_SILU ? s->f->k->silu_mul : s->f->k->gelu_mul;
    const int n = s->l->moe->n_ff;
    for (int64_t i = b; i < e; i++) {
        float *g = s->f->moe.g + i * n;
        glu(g, s->f->moe.u + i * n, n);
        if (s->quant) ash_quant_row(s->f, i, g, n);
    }
}

static void add_weighted(float *z, const float *y, float w, int n) {
    for (int i = 0; i < n; i++) z[i] += w * y[i];
}

static void scatter_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd, used = s->f->m->hp.n_expert_used;
    for (int64_t i = b; i < e; i++) {
        int32_t at = s->f->moe.order[s->row0 + i];
        add_weighted(s->z + (int64_t)(at / used) * n, s->f->moe.y + i * n, s->f->moe.weight[at], n);
    }
}

static void run_expert(ash_fwd *f, ash_stage *s, int x) {
    const ash_moe *moe = s->l->moe;
    ash_moe_bufs *b = &f->moe;
    const ash_mat gate = ash_bank_at(&moe->gate, x), up = ash_bank_at(&moe->up, x), down = ash_bank_at(&moe->down, x);
    const int n = b->start[x + 1] - b->start[x], e = f->m->hp.n_embd;
    s->row0 = b->start[x], s->n_tok = n, s->first = 0;
    s->quant = ash_has_8bit(f, &gate) || ash_has_8bit(f, &up);
    ash_stage_run(s, gather_stage);
    ash_tap(f, s->il, ASH_TAP_EXP_IN, x, b->x, n, e);
    ash_mm_job in[2] = {{&gate, b->g, moe->n_ff}, {&up, b->u, moe->n_ff}}, out = {&down, b->y, e};
    ash_fwd_product(f, in, 2, b->x, 0, n);
    s->quant = ash_has_8bit(f, &down);
    ash_stage_run(s, glu_stage);
    ash_tap(f, s->il, ASH_TAP_EXP_DOWN_IN, x, b->g, n, moe->n_ff);
    ash_fwd_product(f, &out, 1, b->g, 0, n);
    ash_stage_run(s, scatter_stage);
}

enum { ONE_DISPATCH = 16 /* experts */ };

/* A single token: gate and up of all its experts read the same input, one dispatch. Same bits as expert by expert. */
static void run_token(ash_fwd *f, ash_stage *s, int t) {
    const ash_moe *moe = s->l->moe;
    ash_moe_bufs *b = &f->moe;
    const int used = f->m->hp.n_expert_used, e = f->m->hp.n_embd;
    const int32_t *id = b->expert + (int64_t)t * used;
    const float *w = b->weight + (int64_t)t * used;
    ash_mat mats[2 * ONE_DISPATCH];
    ash_mm_job jobs[2 * ONE_DISPATCH];
    for (int k = 0; k < used; k++) {
        mats[2 * k] = ash_bank_at(&moe->gate, id[k]), mats[2 * k + 1] = ash_bank_at(&moe->up, id[k]);
        jobs[2 * k] = (ash_mm_job){&mats[2 * k], b->g + (int64_t)k * moe->n_ff, moe->n_ff};
        jobs[2 * k + 1] = (ash_mm_job){&mats[2 * k + 1], b->u + (int64_t)k * moe->n_ff, moe->n_ff};
    }
    const float *h = f->h + (int64_t)t * e;
    if (ash_has_8bit(f, &moe->gate.w) || ash_has_8bit(f, &moe->up.w)) ash_quant_row(f, 0, h, e);
    ash_fwd_product(f, jobs, 2 * used, h, 0, 1);
    s->quant = ash_has_8bit(f, &moe->down.w), s->first = 0, s->n_tok = used;
    ash_stage_run(s, glu_stage);
    for (int k = 0; k < used; k++) {
        const ash_mat down = ash_bank_at(&moe->down, id[k]);
        ash_mm_job out = {&down, b->y, e};
        ash_fwd_product(f, &out, 1, b->g + (int64_t)k * moe->n_ff, k, 1);
        add_weighted(s->z + (int64_t)t * e, b->y, w[k], e);
    }
}

/* Beside a dense branch: y = norm(y) + norm(z). */
static void join_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        float *y = s->f->y + t * n, *z = s->f->moe.z + t * n;
        ash_norm_row(s->f, y, s->l->norm[ASH_N_POST_DENSE], NULL, n, y);
        ash_norm_row(s->f, z, s->l->norm[ASH_N_POST_EXP], NULL, n, z);
        s->f->k->addto(y, z, n);
    }
}

void ash_moe_layer(ash_fwd *f, int il, int n_tok, int first) {
    const ash_layer *l = &f->m->layers[il];
    const ash_moe *moe = l->moe;
    const int e = f->m->hp.n_embd, rows = n_tok - first;
    if (rows <= 0) return;
    const bool beside = l->w[ASH_W_DOWN].data != NULL;
    ash_stage s = {.f = f, .l = l, .il = il, .n_tok = n_tok, .first = first};
    const float *rin = f->h;
    if (moe->router_scale) {
        ash_stage_run(&s, router_in_stage);
        rin = f->moe.x;
    }
    ash_tap(f, il, ASH_TAP_ROUTER_IN, 0, rin + (int64_t)first * e, rows, e);
    ash_mm_job router = {&moe->router, f->moe.p + (int64_t)first * f->m->hp.n_expert, f->m->hp.n_expert};
    ash_mm_f32(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, &router, 1, rin + (int64_t)first * e, e, rows);
    ash_stage_run(&s, choose_stage);
    if (beside) { /* the experts' input has a norm of its own */
        ash_stage n = s;
        n.norm = l->norm[ASH_N_PRE_EXP];
        ash_stage_run(&n, ash_norm_stage);
    }
    s.z = beside ? f->moe.z : f->y;
    memset(s.z + (int64_t)first * e, 0, (size_t)rows * (size_t)e * sizeof(float));
    if (rows == 1 && !f->tap && f->m->hp.n_expert_used <= ONE_DISPATCH) {
        run_token(f, &s, first);
    } else {
        group_tokens(f, first, n_tok);
        for (int x = 0; x < f->m->hp.n_expert; x++)
            if (f->moe.start[x + 1] > f->moe.start[x]) run_expert(f, &s, x);
    }
    if (!beside) return;
    s.first = first, s.n_tok = n_tok;
    ash_stage_run(&s, join_stage);
}
