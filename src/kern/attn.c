/* attn.c - attention of a block of query tokens on one KV head, from the table's kernels.
 *
 * The block's query heads become R rows (token-major), scaled once. Scores of all keys that any row
 * sees, soft-cap and softmax over what the row itself sees, zero elsewhere, then the weighted values:
 * each score is one fma chain over the head dimension, each output one over the row's keys (zero weights
 * change nothing), so neither the block nor the path below shows in the result. Few rows read K and V as
 * they lie (qkm, pvm); many rows turn K into panels, a chunk of keys at a time, and use gemmf.
 */
#include "kern/kern.h"

#define SCORE_FLOATS 131072 /* 512 KiB of scores at a time, unless one token's heads need more */
#define MAX_ROWS 96
#define CHUNK 128           /* keys packed at a time */
#define FEW_ROWS 12

static size_t pitch_of(int n_keys) { return ((size_t)ASH_MAX(n_keys, 1) + 15) / 16 * 16; }

/* Floats of each part of the scratch. */
static size_t rows_floats(int hd, int group) { return ((size_t)ASH_MAX(MAX_ROWS, group) * (size_t)hd + 15) / 16 * 16; }
static size_t panel_floats(int hd) { return (size_t)CHUNK * (size_t)hd; }
static size_t tile_floats(int hd) { return ((size_t)ASH_PANEL_ROWS * (size_t)hd + 15) / 16 * 16; }

size_t ash_attn_scratch_bytes(int hd, int group, int n_keys) {
    size_t scores = ASH_MAX((size_t)SCORE_FLOATS, (size_t)ASH_MAX(group, 1) * pitch_of(n_keys));
    return (2 * rows_floats(hd, group) + panel_floats(hd) + tile_floats(hd) + scores) * sizeof(float);
}

typedef struct {
    const ash_kern *k;
    const ash_attn *a;
    float *q, *out;      /* R rows of hd, scaled queries and results */
    float *panels, *tile;
    float *s;            /* R rows of `pitch` scores, key `lo` first */
    size_t pitch;
    int t0, nt;          /* tokens of the block */
    int lo, hi;          /* keys any of them sees */
} block;

/* The part of segment g that the block sees: first key (counted in the segment), count, and its place in the scores. */
static int part_of(const block *b, int g, int *first, int *at) {
    int base = 0;
    for (int i = 0; i < g; i++) base += b->a->seg[i].n;
    int f = ASH_MAX(b->lo - base, 0), e = ASH_MIN(b->hi - base, b->a->seg[g].n);
    *first = f;
    *at = base + f - b->lo;
    return e - f;
}

static const char *key_at(const ash_attn *a, const void *base, int64_t ld, int64_t j) {
    return (const char *)base + (size_t)(j * ld) * (a->f16 ? 2 : 4);
}

static void scores_few(const block *b, int rows) {
    const ash_attn *a = b->a;
    ash_qkm_fn qkm = a->f16 ? b->k->qkm_f16 : b->k->qkm_f32;
    for (int g = 0; g < a->n_seg; g++) {
        int first, at, n = part_of(b, g, &first, &at);
        if (n > 0)
            qkm(b->q, a->hd, rows, key_at(a, a->seg[g].k, a->seg[g].ldk, first), a->seg[g].ldk, n, a->hd, 1.0f, b->s + at, (int64_t)b->pitch);
    }
}

/* n (<= 16) keys from k on, into one panel. */
static void pack_keys(const block *b, const char *k, int64_t ldk, int n, float *panel) {
    const ash_attn *a = b->a;
    if (!a->f16) {
        b->k->packf((const float *)(const void *)k, ldk, n, a->hd, panel);
        return;
    }
    for (int j = 0; j < n; j++) b->k->from_f16((const uint16_t *)(const void *)key_at(a, k, ldk, j), b->tile + (size_t)j * (size_t)a->hd, a->hd);
    b->k->packf(b->tile, a->hd, n, a->hd, panel);
}

static void scores_many(const block *b, int rows) {
    const ash_attn *a = b->a;
    for (int g = 0; g < a->n_seg; g++) {
        int first, at, n = part_of(b, g, &first, &at);
        for (int c = 0; c < n; c += CHUNK) {
            int cn = ASH_MIN(CHUNK, n - c);
            for (int j = 0; j < cn; j += ASH_PANEL_ROWS)
                pack_keys(b, key_at(a, a->seg[g].k, a->seg[g].ldk, first + c + j), a->seg[g].ldk, ASH_MIN(ASH_PANEL_ROWS, cn - j),
                          b->panels + (size_t)j * (size_t)a->hd);
            b->k->gemmf(b->panels, a->hd, cn, b->q, a->hd, rows, b->s + at + c, (int64_t)b->pitch);
        }
    }
}

static void run_block(const block *b) {
    const ash_attn *a = b->a;
    const int hd = a->hd, rows = b->nt * a->group;
    for (int t = 0; t < b->nt; t++) {
        const float *q = a->q + (b->t0 + t) * a->ldq;
        float *d = b->q + (size_t)t * (size_t)a->group * (size_t)hd;
        for (int i = 0; i < a->group * hd; i++) d[i] = q[i] * a->scale;
    }
    if (rows < FEW_ROWS) scores_few(b, rows);
    else scores_many(b, rows);

    for (int r = 0; r < rows; r++) {
        float *s = b->s + (size_t)r * b->pitch;
        int lo = a->lo[b->t0 + r / a->group] - b->lo, hi = a->hi[b->t0 + r / a->group] - b->lo, end = b->hi - b->lo;
        if (a->cap > 0) b->k->softcap(s + lo, hi - lo, a->cap);
        b->k->softmax(s + lo, hi - lo);
        memset(s, 0, (size_t)lo * sizeof *s);
        memset(s + hi, 0, (size_t)(end - hi) * sizeof *s);
    }

    memset(b->out, 0, (size_t)rows * (size_t)hd * sizeof *b->out);
    ash_pvm_fn pvm = a->f16 ? b->k->pvm_f16 : b->k->pvm_f32;
    for (int g = 0; g < a->n_seg; g++) {
        int first, at, n = part_of(b, g, &first, &at);
        if (n > 0) pvm(b->s + at, (int64_t)b->pitch, rows, key_at(a, a->seg[g].v, a->seg[g].ldv, first), a->seg[g].ldv, n, hd, b->out, hd);
    }
    size_t row = (size_t)a->group * (size_t)hd;
    for (int t = 0; t < b->nt; t++) memcpy(a->out + (b->t0 + t) * a->ldo, b->out + (size_t)t * row, row * sizeof(float));
}

void ash_attn_run(const ash_kern *k, const ash_attn *a, void *scratch) {
    float *m = scratch;
    block b = {.k = k, .a = a, .q = m, .out = m + rows_floats(a->hd, a->group)};
    b.panels = b.out + rows_floats(a->hd, a->group);
    b.tile = b.panels + panel_floats(a->hd);
    b.s = b.tile + tile_floats(a->hd);
    for (int t = 0; t < a->n_q; t += b.nt) {
        b.t0 = t, b.nt = 0, b.lo = a->lo[t], b.hi = a->hi[t];
        do { /* as many tokens as rows and scores allow, at least one */
            int lo = ASH_MIN(b.lo, a->lo[t + b.nt]), hi = ASH_MAX(b.hi, a->hi[t + b.nt]);
            size_t rows = (size_t)(b.nt + 1) * (size_t)a->group;
            if (b.nt > 0 && (rows > MAX_ROWS || rows * pitch_of(hi - lo) > SCORE_FLOATS)) break;
            b.lo = lo, b.hi = hi, b.nt++;
        } while (t + b.nt < a->n_q);
        b.pitch = pitch_of(b.hi - b.lo);
        run_block(&b);
    }
}
