/* fwd.c - the one forward pass: buffers, products, input and head. A layer is a few stages over tokens (norm, rope,
 * activation: element-wise and cheap) between matrix products; each stage does for a token all that can be done for it, so
 * that a single token passes with one dispatch per product and one for attention. Nothing here allocates, and no token's
 * value depends on which other tokens are in the batch: stages and kernels work token by token in a fixed order.
 * Halves of a layer: fwd_attn.c, fwd_ffn.c; experts: moe.c; per-layer embeddings: ple.c. */
#include "engine/fwd_int.h"

#include <math.h>

/* ---- buffers ---- */
static uint64_t pad16(uint64_t n) { return (n + 15) / 16 * 16; } /* 64-byte rows of floats */

int ash_fwd_widest(const ash_hparams *hp) {
    return ASH_MAX(ASH_MAX(hp->n_embd, hp->n_ple), ASH_MAX(hp->max_q, ASH_MAX(hp->max_ff, hp->n_ff_exp)));
}

static float *cut(float *mem, uint64_t *at, uint64_t n) {
    float *p = mem ? mem + *at : NULL;
    *at += pad16(n);
    return p;
}

/* n_tok and every dimension are at most 2^28 and 2^20: no overflow in 64 bits */
uint64_t ash_fwd_place(ash_fwd *f, const ash_model *m, int n_tok, bool act8, int max_rank, float *mem) {
    const ash_hparams *hp = &m->hp;
    const uint64_t n = (uint64_t)n_tok, e = (uint64_t)hp->n_embd, ple = n * (uint64_t)hp->n_layer * (uint64_t)hp->n_ple;
    const uint64_t used = (uint64_t)hp->n_expert_used, rows = ASH_MAX(n, used); /* a single token has a row per expert */
    uint64_t at = 0, end;
    f->x = cut(mem, &at, n * e);
    f->h = cut(mem, &at, n * e);
    f->y = cut(mem, &at, n * e);
    const uint64_t work = at; /* attention, FFN, experts and the making of ple take turns */
    f->q = cut(mem, &at, n * (uint64_t)hp->max_q);
    f->o = cut(mem, &at, n * (uint64_t)hp->max_q);
    f->kk = cut(mem, &at, n * (uint64_t)hp->max_kv);
    f->vv = cut(mem, &at, n * (uint64_t)hp->max_kv);
    end = at, at = work;
    f->g = cut(mem, &at, n * (uint64_t)ASH_MAX(hp->max_ff, hp->n_ple));
    f->u = cut(mem, &at, n * (uint64_t)hp->max_ff);
    end = ASH_MAX(end, at), at = work;
    f->ple_tmp = cut(mem, &at, ple);
    end = ASH_MAX(end, at), at = work;
    if (hp->n_expert) {
        f->moe.x = cut(mem, &at, n * e);
        f->moe.y = cut(mem, &at, rows * e);
        f->moe.g = cut(mem, &at, rows * (uint64_t)hp->n_ff_exp);
        f->moe.u = cut(mem, &at, rows * (uint64_t)hp->n_ff_exp);
        f->moe.z = cut(mem, &at, n * e);
        f->moe.p = cut(mem, &at, n * (uint64_t)hp->n_expert);
        f->moe.weight = cut(mem, &at, n * used);
        f->moe.expert = (int32_t *)cut(mem, &at, n * used);
        f->moe.order = (int32_t *)cut(mem, &at, n * used);
        f->moe.start = (int32_t *)cut(mem, &at, (uint64_t)hp->n_expert + 1);
    }
    at = ASH_MAX(end, at);
    for (int i = 0; i < ASH_ROPE_KINDS; i++) f->cs[i] = cut(mem, &at, n * (uint64_t)hp->rope[i].n_rot);
    f->ple = cut(mem, &at, ple);
    if (max_rank) {
        f->lora_t = cut(mem, &at, n * (uint64_t)max_rank);
        f->lora_y = cut(mem, &at, n * (uint64_t)ash_fwd_widest(hp));
    }
    if (act8) {
        const uint64_t w = (uint64_t)(ash_fwd_widest(hp) + 31) / 32 * 32;
        f->a = (ash_act8){.ld_q = (int64_t)w, .ld_d = (int64_t)w / 32, .ld_b = (int64_t)w / 16};
        f->a.q = (int8_t *)cut(mem, &at, rows * w / 4);
        f->a.d = cut(mem, &at, rows * w / 32);
        f->a.b = (int16_t *)(void *)cut(mem, &at, rows * w / 32);
    }
    return at;
}

/* ---- matrix products ---- */
void ash_fwd_product(ash_fwd *f, const ash_mm_job *jobs, int n_jobs, const float *x, int q_row, int n_rows) {
    const int K = jobs[0].w->K;
    bool q8 = false;
    for (int i = 0; i < n_jobs; i++) q8 = q8 || ash_has_8bit(f, jobs[i].w);
    if (!q8) {
        ash_mm_f32(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, jobs, n_jobs, x, K, n_rows);
        return;
    }
    ash_act8 a = f->a;
    a.q += q_row * a.ld_q, a.d += q_row * a.ld_d, a.b += q_row * a.ld_b;
    ash_mm_i8(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, jobs, n_jobs, a, x, K, n_rows);
}

void ash_fwd_products(ash_fwd *f, int il, const ash_role *roles, float *const *y, int n, const float *x, int first, int n_tok) {
    if (n_tok <= first) return;
    const ash_layer *l = &f->m->layers[il];
    ash_mm_job jobs[3];
    int n_jobs = 0;
    for (int i = 0; i < n; i++) {
        const ash_mat *w = &l->w[roles[i]];
        if (!w->data) continue;
        const ash_mm_job j = {w, y[i] + (int64_t)first * w->n_rows, w->n_rows};
        if (f->mode == ASH_MM_PACKED)
            f->k->gemmf(f->packed[roles[i]], w->K, w->n_rows, x + (int64_t)first * w->K, w->K, n_tok - first, j.y, j.ldy);
        jobs[n_jobs++] = j;
    }
    if (f->mode != ASH_MM_PACKED && n_jobs) ash_fwd_product(f, jobs, n_jobs, x + (int64_t)first * jobs[0].w->K, first, n_tok - first);
    if (!f->n_lora) return;
    for (int i = 0; i < n; i++) {
        const ash_mat *w = &l->w[roles[i]];
        if (w->data) ash_lora_add(f, il, roles[i], x + (int64_t)first * w->K, n_tok - first, y[i] + (int64_t)first * w->n_rows);
    }
}

/* ---- norms and what waits ---- */
/* Layer norm in double: cheap beside the products, and the order of its sums is plain. */
static void layer_norm(const float *x, const float *w, const float *b, int n, float eps, float *y) {
    double sum = 0, sq = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i];
    const double mean = sum / n;
    for (int i = 0; i < n; i++) sq += ((double)x[i] - mean) * ((double)x[i] - mean);
    const float s = (float)(1.0 / sqrt(sq / n + (double)eps)), c = (float)mean;
    for (int i = 0; i < n; i++) y[i] = (x[i] - c) * s * w[i] + b[i];
}

void ash_norm_row(const ash_fwd *f, const float *x, const float *w, const float *b, int n, float *y) {
    if (f->m->hp.layer_norm)
        layer_norm(x, w, b, n, f->m->hp.eps, y);
    else
        f->k->rmsnorm(x, w, n, f->m->hp.eps, y);
}

ash_pending ash_attn_output(const ash_layer *l) {
    return (ash_pending){l->bias[ASH_W_O], l->norm[ASH_N_POST_ATTN], l->norm[ASH_N_OUT_ATTN], l->norm_b[ASH_N_OUT_ATTN], 1.0f};
}

ash_pending ash_ffn_output(const ash_layer *l) {
    return (ash_pending){l->moe ? NULL : l->bias[ASH_W_DOWN], l->norm[ASH_N_POST_FFN], l->norm[ASH_N_OUT_FFN], l->norm_b[ASH_N_OUT_FFN],
                         1.0f};
}

ash_pending ash_layer_output(const ash_layer *l) {
    ash_pending p = l->ple_gate.data ? (ash_pending){.post = l->norm[ASH_N_PLE]} : ash_ffn_output(l);
    p.scale = l->out_scale;
    return p;
}

void ash_add_pending(const ash_stage *s, int64_t t) {
    const ash_fwd *f = s->f;
    const ash_pending *p = s->pend;
    const int n = f->m->hp.n_embd;
    float *y = f->y + t * n, *x = f->x + t * n;
    if (p->bias) f->k->addto(y, p->bias, n);
    if (p->post) ash_norm_row(f, y, p->post, NULL, n, y);
    f->k->addto(x, y, n);
    if (p->after) ash_norm_row(f, x, p->after, p->after_b, n, x);
    if (p->scale != 1.0f)
        for (int i = 0; i < n; i++) x[i] *= p->scale;
}

void ash_norm_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        if (s->pend) ash_add_pending(s, t);
        float *h = s->f->h + t * n, *x = s->f->x + t * n;
        if (s->norm)
            ash_norm_row(s->f, x, s->norm, s->norm_b, n, h);
        else
            memcpy(h, x, (size_t)n * sizeof *h);
        if (s->quant) ash_quant_row(s->f, t, h, n);
    }
}

void ash_flush_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const int n = s->f->m->hp.n_embd;
    for (int64_t t = s->first + b; t < s->first + e; t++) {
        ash_add_pending(s, t);
        if (s->quant) ash_quant_row(s->f, t, s->f->x + t * n, n);
    }
}

void ash_fwd_flush(ash_fwd *f, int il, ash_flush what, int n_tok, int first) {
    const ash_layer *l = &f->m->layers[il];
    ash_pending p = what == ASH_AFTER_ATTN ? ash_attn_output(l) : ash_layer_output(l);
    ash_stage s = {.f = f, .n_tok = n_tok, .first = first, .pend = &p};
    ash_stage_run(&s, ash_flush_stage);
}

/* ---- start ---- */
static void add_row(const ash_fwd *f, const ash_mat *w, int64_t row, float *x) {
    enum { STEP = 256 }; /* a multiple of every type's block */
    float tmp[STEP];
    const ash_dtype_info *d = ash_dtype_get((int)w->type);
    for (int k = 0; k < w->K; k += STEP) {
        const int n = ASH_MIN(STEP, w->K - k);
        f->k->decode[w->type](w->data + (size_t)row * w->row_bytes + (size_t)k / d->block_elems * d->block_bytes, tmp, n);
        f->k->addto(x + k, tmp, n);
    }
}

static void embed_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_fwd *f = s->f;
    const ash_model *m = f->m;
    const ash_mat *w = &m->embd, *p = &m->ple_embd;
    const float scale = m->hp.embd_scale, ple_scale = sqrtf((float)m->hp.n_ple);
    for (int64_t t = b; t < e; t++) {
        float *x = f->x + t * w->K;
        f->k->decode[w->type](w->data + (size_t)s->tokens[t] * w->row_bytes, x, w->K);
        ash_model_forget_row(m, w, s->tokens[t]);
        if (scale != 1.0f)
            for (int i = 0; i < w->K; i++) x[i] *= scale;
        if (m->type_embd.data) add_row(f, &m->type_embd, 0, x); /* every token is of type 0 */
        if (m->pos_embd.data) add_row(f, &m->pos_embd, s->pos0 + t, x);
        if (m->embd_norm) ash_norm_row(f, x, m->embd_norm, m->embd_norm_b, w->K, x);
        if (!p->data) continue;
        float *ple = f->ple + t * p->K;
        f->k->decode[p->type](p->data + (size_t)s->tokens[t] * p->row_bytes, ple, p->K);
        ash_model_forget_row(m, p, s->tokens[t]);
        for (int i = 0; i < p->K; i++) ple[i] *= ple_scale;
    }
}

void ash_fwd_embed(ash_fwd *f, const ash_token *t, int pos0, int n) {
    ash_stage s = {.f = f, .pos0 = pos0, .n_tok = n, .tokens = t};
    ash_stage_run(&s, embed_stage);
}

static void rope_stage(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const ash_stage *s = ctx;
    const ash_hparams *hp = &s->f->m->hp;
    for (int kind = 0; kind < hp->n_rope; kind++) {
        const ash_rope *r = &hp->rope[kind];
        const float *freq = s->f->rope_long && r->freq_long ? r->freq_long : r->freq;
        for (int64_t t = b; t < e; t++) {
            float *cs = s->f->cs[kind] + t * r->n_rot;
            for (int i = 0; i < r->n_rot / 2; i++) {
                double a = (double)freq[i] * (double)(s->pos0 + t);
                cs[2 * i] = (float)cos(a) * r->magnitude;
                cs[2 * i + 1] = (float)sin(a) * r->magnitude;
            }
        }
    }
}

void ash_fwd_rope(ash_fwd *f, int pos0, int n_tok) {
    ash_stage s = {.f = f, .pos0 = pos0, .n_tok = n_tok};
    ash_stage_run(&s, rope_stage);
}

/* ---- end ---- */
void ash_fwd_hidden(ash_fwd *f, int first, int n) {
    ash_stage s = {.f = f, .n_tok = first + n, .first = first, .norm = f->m->out_norm};
    ash_stage_run(&s, ash_norm_stage);
}

void ash_fwd_head(ash_fwd *f, int first, int n, float *logits) {
    const ash_model *m = f->m;
    ash_stage s = {.f = f, .n_tok = first + n, .first = first, .norm = m->out_norm, .quant = ash_has_8bit(f, &m->head)};
    ash_stage_run(&s, ash_norm_stage);
    ash_mm_job job = {&m->head, logits, m->hp.n_vocab};
    const float *h = f->h + (int64_t)first * m->hp.n_embd;
    ash_fwd_product(f, &job, 1, h, first, n);
    if (f->n_lora) ash_lora_head(f, h, n, logits);
    if (m->hp.final_softcap > 0) f->k->softcap(logits, (int64_t)n * m->hp.n_vocab, m->hp.final_softcap);
}
