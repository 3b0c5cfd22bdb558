/* lora.c - adapters at run time: two thin float32 products beside a matrix' own, so that the weights stay as they are in
 * the file and several adapters stack. */
#include "engine/fwd_int.h"
#include "model/adapter.h"

typedef struct {
    const float *x;
    float *y;
    int64_t ldy;
    int n;
    float scale;
} add_ctx;

static void add_part(void *ctx, int64_t b, int64_t e, int ith) {
    (void)ith;
    const add_ctx *c = ctx;
    for (int64_t t = b; t < e; t++) {
        const float *x = c->x + t * c->n;
        float *y = c->y + t * c->ldy;
        for (int i = 0; i < c->n; i++) y[i] += c->scale * x[i];
    }
}

/* y[t][ldy] += scale * B (A x), B's rows in pieces that lora_y holds. */
static void add(ash_fwd *f, const ash_lora_mat *l, float scale, const float *x, int n_rows, float *y, int64_t ldy) {
    const int64_t piece = ash_fwd_widest(&f->m->hp);
    ash_mm_job ja = {&l->a, f->lora_t, l->a.n_rows};
    ash_mm_f32(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, &ja, 1, x, l->a.K, n_rows);
    for (int64_t r = 0; r < l->b.n_rows; r += piece) {
        ash_mat b = l->b;
        b.data += (size_t)r * b.row_bytes;
        b.n_rows = ASH_MIN(piece, l->b.n_rows - r);
        ash_mm_job jb = {&b, f->lora_y, b.n_rows};
        ash_mm_f32(f->k, f->pool, f->mm_scratch, f->mm_scratch_bytes, &jb, 1, f->lora_t, l->a.n_rows, n_rows);
        add_ctx c = {f->lora_y, y + r, ldy, (int)b.n_rows, scale * l->scale};
        ash_pool_run(f->pool, n_rows, ASH_STAGE_GRAIN, add_part, &c);
    }
}

void ash_lora_add(ash_fwd *f, int il, ash_role role, const float *x, int n_rows, float *y) {
    for (int i = 0; i < f->n_lora; i++) {
        const ash_lora_mat *l = ash_adapter_mat(f->lora[i].a, il, role);
        if (l->a.data && n_rows > 0) add(f, l, f->lora[i].scale, x, n_rows, y, l->b.n_rows);
    }
}

void ash_lora_head(ash_fwd *f, const float *x, int n_rows, float *logits) {
    for (int i = 0; i < f->n_lora; i++)
        if (f->lora[i].a->head.a.data) add(f, &f->lora[i].a->head, f->lora[i].scale, x, n_rows, logits, f->m->hp.n_vocab);
}
