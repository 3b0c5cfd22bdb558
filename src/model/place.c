/* place.c - which weights are read for every token and which are only looked up, and what the kernel is told about each. */
#include "model/model_int.h"

enum { PAGE = 4096, FOLIO = 2 << 20, TABLES = 4, LARGE_TABLE = 16 << 20 };

/* The lookup tables; a tied head is read whole, so its table is none. */
static int tables(const ash_model *m, const ash_mat *t[TABLES]) {
    int n = 0;
    if (m->embd.data && (!m->hp.causal || m->embd.data != m->head.data)) t[n++] = &m->embd;
    if (m->ple_embd.data) t[n++] = &m->ple_embd;
    if (m->pos_embd.data) t[n++] = &m->pos_embd;
    if (m->type_embd.data) t[n++] = &m->type_embd;
    return n;
}

uint64_t ash_model_lookup_touched(const ash_model *m, uint64_t tokens) {
    const ash_mat *t[TABLES];
    uint64_t sum = 0;
    int n = tables(m, t);
    for (int i = 0; i < n; i++) {
        const uint64_t whole = (uint64_t)t[i]->n_rows * t[i]->row_bytes;
        const uint64_t rows =
            t[i] == &m->type_embd || (tokens && whole >= LARGE_TABLE) ? 1 : tokens; /* of a large table only the last row stays */
        /* a row of b bytes at any offset lies on 1 + (b - 1) / PAGE pages on average; rows of positions are neighbours */
        const uint64_t b = t[i]->row_bytes;
        const uint64_t touched = t[i] == &m->pos_embd || b < 1 ? rows * b : rows * (PAGE + b - 1);
        sum += ASH_MIN(touched, whole);
    }
    return sum;
}

void ash_model_advise(const ash_model *m) {
    const ash_mat *t[TABLES];
    int n = tables(m, t);
    for (int i = 0; i < n; i++) ash_range_use(t[i]->data, (uint64_t)t[i]->n_rows * t[i]->row_bytes, ASH_RANGE_RANDOM, NULL);
}

void ash_model_forget_row(const ash_model *m, const ash_mat *w, ash_token row) {
    const uint64_t whole = (uint64_t)w->n_rows * w->row_bytes;
    if (whole < LARGE_TABLE || (m->hp.causal && w->data == m->head.data)) return;
    if (!*ash_gguf_path(m->gguf)) return; /* bytes of the caller's, no mapping: they would be lost */
    const uint64_t b = (uint64_t)row * w->row_bytes, base = (uintptr_t)w->data % FOLIO;
    uint64_t from = (base + b) / FOLIO * FOLIO, to = (base + b + w->row_bytes + FOLIO - 1) / FOLIO * FOLIO;
    from = from > base ? from - base : 0;
    to = ASH_MIN(to - base, whole);
    ash_range_use(w->data + from, to - from, ASH_RANGE_FORGET, NULL);
}

/* ---- the rest: matrices that products read ---- */
typedef ash_status (*range_fn)(void *ctx, const void *p, uint64_t n, ash_error *err);

static ash_status mat(const ash_mat *w, range_fn fn, void *ctx, ash_error *err) {
    return w->data ? fn(ctx, w->data, (uint64_t)w->n_rows * w->row_bytes, err) : ASH_OK;
}

static ash_status bank(const ash_model *m, const ash_bank *b, range_fn fn, void *ctx, ash_error *err) {
    return b->w.data ? fn(ctx, b->w.data, b->stride * (uint64_t)m->hp.n_expert, err) : ASH_OK;
}

/* Matrices a file holds but no layer runs (keys and values of layers that share another's) are left out. */
static ash_status each_live(const ash_model *m, range_fn fn, void *ctx, ash_error *err) {
    for (int il = 0; il < m->hp.n_layer; il++) {
        const ash_layer *l = &m->layers[il];
        for (int r = 0; r < ASH_W_COUNT; r++)
            if (l->kv_layer == il || (r != ASH_W_K && r != ASH_W_V)) ASH_TRY(mat(&l->w[r], fn, ctx, err));
        ASH_TRY(mat(&l->ple_gate, fn, ctx, err));
        ASH_TRY(mat(&l->ple_proj, fn, ctx, err));
        if (!l->moe) continue;
        ASH_TRY(mat(&l->moe->router, fn, ctx, err));
        ASH_TRY(bank(m, &l->moe->gate, fn, ctx, err));
        ASH_TRY(bank(m, &l->moe->up, fn, ctx, err));
        ASH_TRY(bank(m, &l->moe->down, fn, ctx, err));
    }
    ASH_TRY(mat(&m->ple_proj, fn, ctx, err));
    return m->hp.causal ? mat(&m->head, fn, ctx, err) : ASH_OK;
}

static ash_status add_bytes(void *ctx, const void *p, uint64_t n, ash_error *err) {
    (void)p, (void)err;
    *(uint64_t *)ctx += n;
    return ASH_OK;
}

void ash_model_weight_bytes(const ash_model *m, uint64_t *live, uint64_t *lookup) {
    const ash_mat *t[TABLES];
    int n = tables(m, t);
    *live = *lookup = 0;
    for (int i = 0; i < n; i++) *lookup += (uint64_t)t[i]->n_rows * t[i]->row_bytes;
    each_live(m, add_bytes, live, NULL);
}

static ash_status use(void *ctx, const void *p, uint64_t n, ash_error *err) { return ash_range_use(p, n, *(ash_range_how *)ctx, err); }

ash_status ash_model_place(ash_model *m, unsigned how, ash_error *err) {
    static const struct {
        unsigned bit;
        ash_range_how how;
    } steps[] = {{ASH_WEIGHTS_HUGE, ASH_RANGE_HUGE}, {ASH_WEIGHTS_POPULATE, ASH_RANGE_POPULATE}, {ASH_WEIGHTS_LOCK, ASH_RANGE_LOCK}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(steps); i++) {
        ash_range_how h = steps[i].how;
        if (how & steps[i].bit) ASH_TRY(each_live(m, use, &h, err));
    }
    return ASH_OK;
}
