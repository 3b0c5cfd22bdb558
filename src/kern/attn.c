/* attn.c - attention of a block of query tokens on one KV head, from the table's kernels.
 *
 * The block's query heads become R rows (token-major), scaled once. Scores of all keys that any row
 * sees, soft-cap and softmax over what the row itself sees, zero elsewhere, then the weighted values:
 * each score is one fma chain over the head dimension, each output one over the row's keys (zero weights
 * change nothing), so neither the block nor the path below shows in the result. Few rows read plain K as
 * it lies (qkm); many rows turn K into panels, a chunk of keys at a time, and use gemmf. Blocks are read as they lie for few rows
 * (qk_k8, pv_v8 and so on); for many, keys become panels and values rows of floats, a chunk that stays in the first-level cache
 * at a time.
 * Scores can be had in parts of the keys, outputs in parts of the head dimension: that is how threads share one token.
 */
#include "kern/kv_block.h"

#define SCORE_FLOATS 131072 /* 512 KiB of scores at a time, unless one token's heads need more */
#define CHUNK 128           /* keys packed at a time, at most */
#define CHUNK_FLOATS 8192   /* decoded floats at a time: 32 KiB */
#define FEW_ROWS 12

/* whole blocks: their last keys may be beyond what is seen */
static size_t pitch_of(int n_keys) { return ((size_t)ASH_MAX(n_keys, 1) + 31) / 32 * 32; }

/* Floats of each part of the scratch. */
static size_t rows_floats(int hd, int group) { return ((size_t)ASH_MAX(ASH_ATTN_ROWS, group) * (size_t)hd + 15) / 16 * 16; }
static size_t panel_floats(int hd) { return (size_t)CHUNK * (size_t)ash_kv_padded(hd); }
static size_t tile_floats(int hd) { return (size_t)ASH_PANEL_ROWS * (size_t)ash_kv_padded(hd); }
static size_t before_scores(int hd, int group) { return 2 * rows_floats(hd, group) + panel_floats(hd) + tile_floats(hd); }

size_t ash_attn_scratch_bytes(int hd, int group, int n_keys) {
    size_t scores = ASH_MAX((size_t)SCORE_FLOATS, (size_t)ASH_MAX(group, 1) * pitch_of(n_keys));
    return (before_scores(hd, group) + scores) * sizeof(float);
}

float *ash_attn_shared(void *scratch, int hd, int group) { return (float *)scratch + before_scores(hd, group); }

typedef struct {
    const ash_kern *k;
    const ash_attn *a;
    float *q, *out;       /* R rows of hd, scaled queries and results */
    float *panels, *tile; /* CHUNK and 16 keys; panels hold decoded values as well */
    ash_attn_scores s;
    int t0, nt;           /* tokens of the block */
} block;

static block block_of(const ash_kern *k, const ash_attn *a, void *scratch) {
    float *m = scratch;
    block b = {.k = k, .a = a, .q = m, .out = m + rows_floats(a->hd, a->group), .nt = a->n_q};
    b.panels = b.out + rows_floats(a->hd, a->group);
    b.tile = b.panels + panel_floats(a->hd);
    return b;
}

/* Room for the keys that tokens [t0, t0 + nt) see; it starts at a multiple of 32, so that whole blocks fit. */
static ash_attn_scores shape_of(const ash_attn *a, int t0, int nt) {
    int lo = a->lo[t0], hi = a->hi[t0];
    for (int t = t0; t < t0 + nt; t++) lo = ASH_MIN(lo, a->lo[t]), hi = ASH_MAX(hi, a->hi[t]);
    lo -= lo % ASH_KV_BLOCK;
    return (ash_attn_scores){.base = lo, .end = hi, .pitch = pitch_of(hi - lo)};
}

/* The part of run g in keys [j0, j1): first key (counted in the run), count, and its column. Only keys that somebody sees
 * of plain runs: the others may not be there. */
static int part_of(const block *b, const ash_keys *runs, int g, int j0, int j1, int *first, int *at) {
    int base = 0;
    for (int i = 0; i < g; i++) base += runs[i].n;
    if (runs[g].form >= ASH_KEYS_K8) {
        j0 -= j0 % ASH_KV_BLOCK;
    } else {
        int lo = b->a->lo[b->t0];
        for (int t = b->t0 + 1; t < b->t0 + b->nt; t++) lo = ASH_MIN(lo, b->a->lo[t]);
        j0 = ASH_MAX(j0, lo);
    }
    int f = ASH_MAX(j0 - base, 0), e = ASH_MIN(j1 - base, runs[g].n);
    *first = f;
    *at = base + f - b->s.base;
    return e - f;
}

static const char *key_at(const ash_keys *r, int64_t j) {
    return (const char *)r->p + (size_t)(j * r->ld) * (r->form == ASH_KEYS_F16 ? 2 : 4);
}
static bool plain(const ash_keys *r) { return r->form < ASH_KEYS_K8; }

/* Keys of a chunk of rows of `width` floats: a multiple of 32. */
static int chunk_of(int width) { return ASH_MAX(32, ASH_MIN(CHUNK, CHUNK_FLOATS / width / 32 * 32)); }

/* n (<= 16) keys of a plain run from key j on, into one panel. */
static void pack_keys(const block *b, const ash_keys *r, int j, int n, float *panel) {
    const int hd = b->a->hd;
    if (r->form == ASH_KEYS_F32) {
        b->k->packf((const float *)(const void *)key_at(r, j), r->ld, n, hd, panel);
        return;
    }
    for (int i = 0; i < n; i++) b->k->from_f16((const uint16_t *)(const void *)key_at(r, j + i), b->tile + (size_t)i * (size_t)hd, hd);
    b->k->packf(b->tile, hd, n, hd, panel);
}

/* Keys [j, j + n) of a run as panels. */
static void panels_of(const block *b, const ash_keys *r, int j, int n) {
    const int hd = b->a->hd;
    if (plain(r)) {
        for (int i = 0; i < n; i += ASH_PANEL_ROWS)
            pack_keys(b, r, j + i, ASH_MIN(ASH_PANEL_ROWS, n - i), b->panels + (size_t)i * (size_t)hd);
        return;
    }
    const uint8_t *p = (const uint8_t *)r->p + (size_t)(j / ASH_KV_BLOCK) * ash_kv_block_bytes(r->form, hd);
    (r->form == ASH_KEYS_K8 ? b->k->k8_panels : b->k->k4_panels)(p, hd, (n + ASH_PANEL_ROWS - 1) / ASH_PANEL_ROWS, b->panels);
}

static void score_keys(const block *b, int j0, int j1) {
    const ash_attn *a = b->a;
    const int hd = a->hd, rows = b->nt * a->group;
    for (int t = 0; t < b->nt; t++) {
        const float *q = a->q + (b->t0 + t) * a->ldq;
        float *d = b->q + (size_t)t * (size_t)a->group * (size_t)hd;
        for (int i = 0; i < a->group * hd; i++) d[i] = q[i] * a->scale;
    }
    for (int g = 0; g < a->n_k; g++) {
        const ash_keys *r = &a->k[g];
        int first, at, n = part_of(b, a->k, g, j0, j1, &first, &at);
        if (n <= 0) continue;
        if (plain(r) && rows < FEW_ROWS) {
            ash_qkm_fn qkm = r->form == ASH_KEYS_F16 ? b->k->qkm_f16 : b->k->qkm_f32;
            qkm(b->q, hd, rows, key_at(r, first), r->ld, n, hd, 1.0f, b->s.s + at, (int64_t)b->s.pitch);
            continue;
        }
        if (!plain(r) && rows < FEW_ROWS) {
            ash_qkb_fn qkb = r->form == ASH_KEYS_K8 ? b->k->qk_k8 : b->k->qk_k4;
            const int n_blocks = (n + ASH_KV_BLOCK - 1) / ASH_KV_BLOCK;
            qkb(b->q, hd, rows, (const uint8_t *)r->p + (size_t)(first / ASH_KV_BLOCK) * ash_kv_block_bytes(r->form, hd), n_blocks, hd, b->s.s + at,
                (int64_t)b->s.pitch);
            continue;
        }
        const int chunk = plain(r) ? CHUNK : chunk_of(hd);
        for (int c = 0; c < n; c += chunk) {
            const int cn = ASH_MIN(chunk, n - c);
            panels_of(b, r, first + c, cn);
            b->k->gemmf(b->panels, hd, cn, b->q, hd, rows, b->s.s + at + c, (int64_t)b->s.pitch);
        }
    }
}

static void weigh_row(const block *b, int r) {
    const ash_attn *a = b->a;
    float *s = b->s.s + (size_t)r * b->s.pitch;
    const int t = b->t0 + r / a->group, lo = a->lo[t] - b->s.base, hi = a->hi[t] - b->s.base, end = b->s.end - b->s.base;
    if (a->cap > 0) b->k->softcap(s + lo, hi - lo, a->cap);
    b->k->softmax(s + lo, hi - lo);
    memset(s, 0, (size_t)lo * sizeof *s);
    memset(s + hi, 0, (size_t)(end - hi) * sizeof *s);
}

/* Dimensions [d0, d1) of the outputs: rows of hd in b->out, then the caller's. */
static void sum_values(const block *b, int d0, int d1) {
    const ash_attn *a = b->a;
    const int hd = a->hd, rows = b->nt * a->group, nd = d1 - d0, width = ash_kv_padded(nd);
    for (int r = 0; r < rows; r++) memset(b->out + (size_t)r * (size_t)hd + d0, 0, (size_t)nd * sizeof *b->out);
    for (int g = 0; g < a->n_v; g++) {
        const ash_keys *r = &a->v[g];
        int first, at, n = part_of(b, a->v, g, b->s.base, b->s.end, &first, &at);
        if (n <= 0) continue;
        const float *s = b->s.s + at;
        if (plain(r)) {
            ash_pvm_fn pvm = r->form == ASH_KEYS_F16 ? b->k->pvm_f16 : b->k->pvm_f32;
            const size_t skip = (size_t)d0 * (r->form == ASH_KEYS_F16 ? 2 : 4);
            pvm(s, (int64_t)b->s.pitch, rows, key_at(r, first) + skip, r->ld, n, nd, b->out + d0, hd);
            continue;
        }
        const size_t row = ash_kv_block_bytes(r->form, hd) / ASH_KV_BLOCK;
        ash_kvrows_fn decode = r->form == ASH_KEYS_V8 ? b->k->v8_rows : b->k->v4_rows;
        if (rows < FEW_ROWS) {
            ash_pvb_fn pvb = r->form == ASH_KEYS_V8 ? b->k->pv_v8 : b->k->pv_v4;
            pvb(s, (int64_t)b->s.pitch, rows, (const uint8_t *)r->p + (size_t)first * row, hd, d0, nd, n, b->out + d0, hd);
            continue;
        }
        const int chunk = chunk_of(width);
        for (int c = 0; c < n; c += chunk) {
            const int cn = ASH_MIN(chunk, n - c);
            decode((const uint8_t *)r->p + (size_t)(first + c) * row, hd, d0, nd, cn, b->panels, width);
            b->k->pvm_f32(s + c, (int64_t)b->s.pitch, rows, b->panels, width, cn, nd, b->out + d0, hd);
        }
    }
    for (int r = 0; r < rows; r++)
        memcpy(a->out + (b->t0 + r / a->group) * a->ldo + r % a->group * hd + d0, b->out + (size_t)r * (size_t)hd + d0, (size_t)nd * sizeof(float));
}

void ash_attn_run(const ash_kern *k, const ash_attn *a, void *scratch) {
    block b = block_of(k, a, scratch);
    for (int t = 0; t < a->n_q; t += b.nt) {
        b.t0 = t, b.nt = 1;
        b.s = shape_of(a, t, 1);
        for (; t + b.nt < a->n_q; b.nt++) { /* as many tokens as rows and scores allow */
            const ash_attn_scores more = shape_of(a, t, b.nt + 1);
            const size_t rows = (size_t)(b.nt + 1) * (size_t)a->group;
            if (rows > ASH_ATTN_ROWS || rows * more.pitch > SCORE_FLOATS) break;
            b.s = more;
        }
        b.s.s = ash_attn_shared(scratch, a->hd, a->group);
        score_keys(&b, b.s.base, b.s.end);
        for (int r = 0; r < b.nt * a->group; r++) weigh_row(&b, r);
        sum_values(&b, 0, a->hd);
    }
}

ash_attn_scores ash_attn_shape(const ash_attn *a) { return shape_of(a, 0, a->n_q); }

void ash_attn_score(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int j0, int j1, void *scratch) {
    block b = block_of(k, a, scratch);
    b.s = *s;
    score_keys(&b, j0, ASH_MIN(j1, s->end));
}

void ash_attn_weigh(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int row) {
    const block b = {.k = k, .a = a, .s = *s, .nt = a->n_q};
    weigh_row(&b, row);
}

void ash_attn_sum(const ash_kern *k, const ash_attn *a, const ash_attn_scores *s, int d0, int d1, void *scratch) {
    block b = block_of(k, a, scratch);
    b.s = *s;
    sum_values(&b, d0, ASH_MIN(d1, a->hd));
}
