/* attn.c - attention of a block of query tokens on one KV head, from the table's kernels.
 *
 * The block's query heads become R rows (token-major), scaled once. Scores of all keys that any row
 * sees, soft-cap and softmax over what the row itself sees, zero elsewhere, then the weighted values:
 * each score is one fma chain over the head dimension, each output one over the row's keys (zero weights
 * change nothing), so neither the block nor the path below shows in the result. Few rows read K and V as
 * they lie (qkm, pvm); many rows turn K into panels, a chunk of keys at a time, and use gemmf. Quantized blocks are decoded
 * a chunk at a time and go the way of float keys.
 */
#include "kern/kv_block.h"

#define SCORE_FLOATS 131072 /* 512 KiB of scores at a time, unless one token's heads need more */
#define MAX_ROWS 96
#define CHUNK 128 /* keys packed at a time */
#define FEW_ROWS 12

static size_t pitch_of(int n_keys) { return ((size_t)ASH_MAX(n_keys, 1) + 15) / 16 * 16; }

/* Floats of each part of the scratch. */
static size_t rows_floats(int hd, int group) { return ((size_t)ASH_MAX(MAX_ROWS, group) * (size_t)hd + 15) / 16 * 16; }
static size_t panel_floats(int hd) { return (size_t)CHUNK * (size_t)ash_kv_padded(hd); }
static size_t tile_floats(int hd) { return (size_t)ASH_PANEL_ROWS * (size_t)ash_kv_padded(hd); }

size_t ash_attn_scratch_bytes(int hd, int group, int n_keys) {
    size_t scores = ASH_MAX((size_t)SCORE_FLOATS, (size_t)ASH_MAX(group, 1) * pitch_of(n_keys));
    return (2 * rows_floats(hd, group) + panel_floats(hd) + tile_floats(hd) + scores) * sizeof(float);
}

typedef struct {
    const ash_kern *k;
    const ash_attn *a;
    float *q, *out;       /* R rows of hd, scaled queries and results */
    float *panels, *tile; /* CHUNK and 16 keys; panels hold decoded keys or values as well */
    float *s;             /* R rows of `pitch` scores, key `lo` first */
    size_t pitch;
    int t0, nt; /* tokens of the block */
    int lo, hi; /* keys any of them sees */
} block;

/* The part of run g that the block sees: first key (counted in the run), count, and its place in the scores. */
static int part_of(const block *b, const ash_keys *runs, int g, int *first, int *at) {
    int base = 0;
    for (int i = 0; i < g; i++) base += runs[i].n;
    int f = ASH_MAX(b->lo - base, 0), e = ASH_MIN(b->hi - base, runs[g].n);
    *first = f;
    *at = base + f - b->lo;
    return e - f;
}

static const char *key_at(const ash_keys *r, int64_t j) {
    return (const char *)r->p + (size_t)(j * r->ld) * (r->form == ASH_KEYS_F16 ? 2 : 4);
}
static bool plain(const ash_keys *r) { return r->form == ASH_KEYS_F32 || r->form == ASH_KEYS_F16; }

/* Keys [j, j + n) of a quantized run as floats, padded rows. */
static void decode_keys(const block *b, const ash_keys *r, int j, int n, float *out) {
    const int64_t ld = ash_kv_padded(b->a->hd);
    for (int i = r->skip + j, end = i + n, m; i < end; i += m, out += m * ld) {
        const int t = i % ASH_KV_BLOCK;
        m = ASH_MIN(end - i, ASH_KV_BLOCK - t);
        ash_kv_decode(b->k, r->form, (const uint8_t *)r->p + (size_t)(i / ASH_KV_BLOCK) * (size_t)r->ld, b->a->hd, t, m, out, ld);
    }
}

static void scores_few(const block *b, int rows) {
    const ash_attn *a = b->a;
    const int hd = a->hd;
    for (int g = 0; g < a->n_k; g++) {
        const ash_keys *r = &a->k[g];
        int first, at, n = part_of(b, a->k, g, &first, &at);
        if (n <= 0) continue;
        if (plain(r)) {
            ash_qkm_fn qkm = r->form == ASH_KEYS_F16 ? b->k->qkm_f16 : b->k->qkm_f32;
            qkm(b->q, hd, rows, key_at(r, first), r->ld, n, hd, 1.0f, b->s + at, (int64_t)b->pitch);
            continue;
        }
        for (int c = 0; c < n; c += CHUNK) {
            const int cn = ASH_MIN(CHUNK, n - c);
            decode_keys(b, r, first + c, cn, b->panels);
            b->k->qkm_f32(b->q, hd, rows, b->panels, ash_kv_padded(hd), cn, hd, 1.0f, b->s + at + c, (int64_t)b->pitch);
        }
    }
}

/* n (<= 16) keys of a run from key j on, into one panel. */
static void pack_keys(const block *b, const ash_keys *r, int j, int n, float *panel) {
    const int hd = b->a->hd;
    if (r->form == ASH_KEYS_F32) {
        b->k->packf((const float *)(const void *)key_at(r, j), r->ld, n, hd, panel);
        return;
    }
    const int ld = plain(r) ? hd : ash_kv_padded(hd);
    if (plain(r))
        for (int i = 0; i < n; i++) b->k->from_f16((const uint16_t *)(const void *)key_at(r, j + i), b->tile + (size_t)i * (size_t)hd, hd);
    else
        decode_keys(b, r, j, n, b->tile);
    b->k->packf(b->tile, ld, n, hd, panel);
}

static void scores_many(const block *b, int rows) {
    const ash_attn *a = b->a;
    for (int g = 0; g < a->n_k; g++) {
        int first, at, n = part_of(b, a->k, g, &first, &at);
        for (int c = 0; c < n; c += CHUNK) {
            int cn = ASH_MIN(CHUNK, n - c);
            for (int j = 0; j < cn; j += ASH_PANEL_ROWS)
                pack_keys(b, &a->k[g], first + c + j, ASH_MIN(ASH_PANEL_ROWS, cn - j), b->panels + (size_t)j * (size_t)a->hd);
            b->k->gemmf(b->panels, a->hd, cn, b->q, a->hd, rows, b->s + at + c, (int64_t)b->pitch);
        }
    }
}

static void weigh_values(const block *b, int rows) {
    const ash_attn *a = b->a;
    const int hd = a->hd;
    for (int g = 0; g < a->n_v; g++) {
        const ash_keys *r = &a->v[g];
        int first, at, n = part_of(b, a->v, g, &first, &at);
        if (n <= 0) continue;
        if (plain(r)) {
            ash_pvm_fn pvm = r->form == ASH_KEYS_F16 ? b->k->pvm_f16 : b->k->pvm_f32;
            pvm(b->s + at, (int64_t)b->pitch, rows, key_at(r, first), r->ld, n, hd, b->out, hd);
            continue;
        }
        for (int c = 0; c < n; c += CHUNK) {
            const int cn = ASH_MIN(CHUNK, n - c);
            decode_keys(b, r, first + c, cn, b->panels);
            b->k->pvm_f32(b->s + at + c, (int64_t)b->pitch, rows, b->panels, ash_kv_padded(hd), cn, hd, b->out, hd);
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
    if (rows < FEW_ROWS)
        scores_few(b, rows);
    else
        scores_many(b, rows);

    for (int r = 0; r < rows; r++) {
        float *s = b->s + (size_t)r * b->pitch;
        int lo = a->lo[b->t0 + r / a->group] - b->lo, hi = a->hi[b->t0 + r / a->group] - b->lo, end = b->hi - b->lo;
        if (a->cap > 0) b->k->softcap(s + lo, hi - lo, a->cap);
        b->k->softmax(s + lo, hi - lo);
        memset(s, 0, (size_t)lo * sizeof *s);
        memset(s + hi, 0, (size_t)(end - hi) * sizeof *s);
    }

    memset(b->out, 0, (size_t)rows * (size_t)hd * sizeof *b->out);
    weigh_values(b, rows);
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
