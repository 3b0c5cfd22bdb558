/* exec.c - threads, the batched forward pass and head logits of eval. Layer-major: a layer's matrices are unpacked to
 * float32 panels once and all chunks pass through them, so that weights are read once per pass however many chunks
 * there are. Results do not depend on threads or grouping (kern.h's contract). */
#include "eval/exec.h"

ash_status ash_exec_init(ash_exec *e, int n_threads, int cpu_level, ash_error *err) {
    *e = (ash_exec){0};
    ash_cpu_level lv = ash_cpu_detect();
    if (cpu_level >= 0 && cpu_level < (int)lv) lv = (ash_cpu_level)cpu_level;
    e->k = ash_kern_get(lv);
    e->n_threads = n_threads > 0 ? n_threads : ash_cpu_count();
    return ash_pool_new(&e->pool, e->n_threads, err);
}

void ash_exec_free(ash_exec *e) {
    ash_pool_free(e->pool);
    e->pool = NULL;
}

ash_status ash_progress_at(const ash_progress *p, const char *stage, double done, double total, const char *note, ash_error *err) {
    if (p && p->fn && !p->fn(p->ctx, stage, done, total, note)) return ash_fail(err, ASH_E_CANCELLED, "%s was cancelled", stage);
    return ASH_OK;
}

ash_token *ash_chunk_tokens(const ash_token *t, uint32_t n_ctx, uint32_t n_chunks, bool add_bos, ash_token bos) {
    size_t n = (size_t)n_ctx * n_chunks;
    ash_token *out = ash_calloc(n ? n : 1, sizeof *out);
    if (!out) return NULL;
    memcpy(out, t, n * sizeof *out);
    if (add_bos && bos >= 0)
        for (uint32_t c = 0; c < n_chunks; c++) out[(size_t)c * n_ctx] = bos;
    return out;
}

typedef struct {
    const ash_exec *e;
    const ash_fwd_job *j;
    int layer;
    const float *packed[ASH_W_COUNT];
    float *x;         /* per chunk a layer state (layer.h): n_ctx rows of n_embd first */
    size_t per;       /* its floats */
    float *scratch;   /* per thread */
    size_t scratch_floats;
    float *hidden;
} fwd_ctx;

static size_t round16(size_t n) { return (n + 15) / 16 * 16; }

static void embed_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    fwd_ctx *f = ctx;
    const size_t per = f->per;
    for (int64_t c = begin; c < end; c++)
        ash_embed_tokens(f->j->m, f->e->k, f->j->tok + (size_t)c * f->j->n_ctx, (int)f->j->n_ctx, f->x + (size_t)c * per);
}

static void layer_part(void *ctx, int64_t begin, int64_t end, int ith) {
    fwd_ctx *f = ctx;
    const ash_watch *w = f->j->watch;
    const size_t per = f->per;
    for (int64_t c = begin; c < end; c++)
        ash_layer_apply(f->j->m, f->e->k, f->layer, f->packed, f->x + (size_t)c * per, (int)f->j->n_ctx,
                        f->scratch + (size_t)ith * f->scratch_floats, w ? w->tap : NULL,
                        w && w->tap ? (char *)w->tap_ctx + (size_t)c * w->tap_stride : NULL);
}

static void norm_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    fwd_ctx *f = ctx;
    size_t E = (size_t)f->j->m->hp.n_embd, n = f->j->end - f->j->first;
    for (int64_t c = begin; c < end; c++)
        ash_final_norm(f->j->m, f->e->k, f->x + (size_t)c * f->per + (size_t)f->j->first * E, (int)n, f->hidden + (size_t)c * n * E);
}

static size_t layer_floats(const ash_model *m, int l) {
    size_t n = 0;
    for (int r = 0; r < ASH_W_COUNT; r++) n += ash_packed_floats(m->layers[l].w[r].n_rows, m->layers[l].w[r].K);
    return n;
}

static size_t max_layer_floats(const ash_model *m) {
    size_t n = 0;
    for (int l = 0; l < m->hp.n_layer; l++) n = ASH_MAX(n, layer_floats(m, l));
    return n;
}

uint64_t ash_fwd_bytes(const ash_exec *e, const ash_model *m, uint32_t n_ctx, uint32_t n_chunks) {
    return 4 * ((uint64_t)n_chunks * ash_layer_state_floats(m, (int)n_ctx) + max_layer_floats(m) +
                (uint64_t)e->n_threads * round16(ash_layer_scratch_floats(m, (int)n_ctx)));
}

ash_status ash_fwd_chunks(const ash_exec *e, const ash_fwd_job *j, float *hidden, ash_error *err) {
    ash_status st = ASH_OK;
    const ash_model *m = j->m;
    if (!m->hp.causal) return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s does not predict tokens", ash_model_arch(m));
    for (size_t i = 0; i < (size_t)j->n_ctx * j->n_chunks; i++)
        if (j->tok[i] < 0 || j->tok[i] >= m->hp.n_vocab)
            return ash_fail(err, ASH_E_RANGE, "token %d at %zu is outside the model's vocabulary of %d", (int)j->tok[i], i, m->hp.n_vocab);
    fwd_ctx f = {.e = e, .j = j, .hidden = hidden};
    f.scratch_floats = round16(ash_layer_scratch_floats(m, (int)j->n_ctx));
    float *pack = ash_alloc_aligned(max_layer_floats(m) * sizeof(float), 64);
    f.per = ash_layer_state_floats(m, (int)j->n_ctx);
    f.x = ash_alloc_aligned((size_t)j->n_chunks * f.per * sizeof(float), 64);
    f.scratch = ash_alloc_aligned((size_t)e->n_threads * f.scratch_floats * sizeof(float), 64);
    if (!pack || !f.x || !f.scratch) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %u chunks of %u tokens", j->n_chunks, j->n_ctx);
        goto done;
    }
    ash_pool_run(e->pool, j->n_chunks, 1, embed_part, &f);
    for (int l = 0; l < m->hp.n_layer; l++) {
        ASH_TRY_GOTO(ash_progress_at(j->progress, j->stage, j->done0 + l, j->total, NULL, err), done);
        float *p = pack;
        for (int r = 0; r < ASH_W_COUNT; r++) {
            const ash_mat *w = &m->layers[l].w[r];
            f.packed[r] = w->data ? p : NULL;
            if (w->data) ash_mm_pack(e->k, e->pool, w, p);
            p += ash_packed_floats(w->n_rows, w->K);
        }
        f.layer = l;
        ash_pool_run(e->pool, j->n_chunks, 1, layer_part, &f);
        if (j->watch && j->watch->layer_done) j->watch->layer_done(j->watch->done_ctx, l, j->n_chunks);
    }
    if (hidden) ash_pool_run(e->pool, j->n_chunks, 1, norm_part, &f);
done:
    ash_free(pack);
    ash_free(f.x);
    ash_free(f.scratch);
    return st;
}

/* ---- head ---- */
size_t ash_head_scratch_bytes(const ash_exec *e, const ash_model *m) {
    return (size_t)e->n_threads * ash_mm_scratch_bytes(m->head.K);
}

typedef struct { const ash_exec *e; float *y; int64_t n; float cap; } cap_ctx;

static void cap_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    cap_ctx *c = ctx;
    for (int64_t i = begin; i < end; i++) c->e->k->softcap(c->y + i * c->n, c->n, c->cap);
}

void ash_head_logits(const ash_exec *e, const ash_model *m, const float *hidden, int n_pos, float *logits, void *scratch) {
    int64_t V = m->hp.n_vocab;
    ash_mm_job job = {&m->head, logits, V};
    ash_mm_f32(e->k, e->pool, scratch, ash_mm_scratch_bytes(m->head.K), &job, 1, hidden, m->hp.n_embd, n_pos);
    if (m->hp.final_softcap > 0) {
        cap_ctx c = {e, logits, V, m->hp.final_softcap};
        ash_pool_run(e->pool, n_pos, 1, cap_part, &c);
    }
}

int ash_head_block(const ash_model *m, int n_bufs, uint64_t bytes) {
    uint64_t n = bytes / ((uint64_t)n_bufs * 4 * (uint64_t)m->hp.n_vocab);
    return (int)(n < 8 ? 8 : n > 128 ? 128 : n);
}

uint64_t ash_head_hash(const ash_model *m) {
    const ash_mat *h = &m->head;
    uint64_t part[5] = {(uint64_t)h->type, (uint64_t)h->n_rows, (uint64_t)h->K,
                        ash_hash64(h->data, (size_t)h->n_rows * h->row_bytes), 0};
    memcpy(&part[4], &m->hp.final_softcap, sizeof(float));
    return ash_hash64(part, sizeof part);
}
