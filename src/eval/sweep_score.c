/* sweep_score.c - KL divergence of all streams at every scored position on the position's support set (support.h). The
 * reference's logits are computed once per position; a position's head rows are unpacked once and multiplied with the
 * differences of all streams' final hidden states. */
#include "eval/sweep_score.h"

#include "eval/support.h"
#include "eval/vec.h"

#include <math.h>

enum { STREAM_TILE = 64 };

typedef struct {
    ash_sweep_job *j;
    ash_stream *s;
    uint32_t n_streams, n_chunks, per; /* per: scored positions of a chunk */
    const uint32_t *ids;     /* the chunks' numbers */
    const float *x;          /* [chunk][state], T rows of E first */
    size_t state;
    float *h;                /* [chunk * per][E]: the reference's final states */
    ash_support *sup;        /* [chunk * per] */
    float *logits;           /* of the block at hand; become probabilities */
    uint32_t at;             /* its first position */
    float *kl;               /* [chunk * per][n_streams] */
    float *scratch;
    size_t scratch_floats;
    const uint32_t *plain;   /* streams without a changed head */
    uint32_t n_plain;
    /* changed head of one table stream */
    uint32_t table;
    const int32_t *slot;     /* token -> encoded row, or -1 */
    const float *rows;       /* decoded(encoded) rows that occur */
    uint32_t stride;         /* every stride-th position is scored for tables */
} score;

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

static void choose_part(void *ctx, int64_t begin, int64_t end, int ith) {
    (void)ith;
    score *c = ctx;
    int64_t V = c->j->m->hp.n_vocab;
    for (int64_t i = begin; i < end; i++) {
        float *p = c->logits + i * V;
        uint64_t pos = c->at + (uint64_t)i, id = c->ids[pos / c->per] * 65536ull + pos % c->per;
        c->j->e.k->softmax(p, (int)V);
        ash_support_choose(&c->sup[pos], p, V, c->j->o.seed * 0x9e3779b97f4a7c15ull + id);
    }
}

/* Per thread: panels of the support's head rows, one group of 16 decoded rows, states and logit differences of a tile. */
static size_t scratch_floats(int E) {
    return up16((size_t)ASH_SUP_N * (size_t)E) + up16(16 * (size_t)E) + up16((STREAM_TILE + 1) * (size_t)E) + up16((size_t)(STREAM_TILE + 1) * ASH_SUP_N) +
           up16(3 * (size_t)E);
}

/* Final hidden state of stream s at a position. */
static void state_of(const score *c, const ash_stream *s, uint32_t chunk, int t, float *d, float *out) {
    const int E = c->j->m->hp.n_embd;
    const float *x = c->x + (size_t)chunk * c->state + (size_t)t * (size_t)E;
    ash_vec_from_bf16(d, s->diff + (size_t)(chunk - s->c0) * s->row + (size_t)t * (size_t)E, E);
    ash_vec_add(d, x, d, E);
    c->j->e.k->rmsnorm(d, c->j->m->out_norm, E, c->j->m->hp.eps, out);
}

static void cap_diff(const score *c, const float *base, float *d, int n) {
    float cap = c->j->m->hp.final_softcap;
    if (cap <= 0) return;
    for (int i = 0; i < n; i++) d[i] = cap * (tanhf((base[i] + d[i]) / cap) - tanhf(base[i] / cap));
}

static void plain_part(void *ctx, int64_t begin, int64_t end, int ith) {
    score *c = ctx;
    const ash_kern *k = c->j->e.k;
    const ash_model *m = c->j->m;
    const int E = m->hp.n_embd;
    float *panels = c->scratch + (size_t)ith * c->scratch_floats, *rows = panels + up16((size_t)ASH_SUP_N * (size_t)E),
          *x = rows + up16(16 * (size_t)E), *d = x + up16((STREAM_TILE + 1) * (size_t)E),
          *tmp = d + up16((size_t)(STREAM_TILE + 1) * ASH_SUP_N);
    for (int64_t pos = begin; pos < end; pos++) {
        uint32_t chunk = (uint32_t)pos / c->per;
        int t = (int)((uint32_t)pos % c->per + c->j->o.skip);
        const ash_support *sp = &c->sup[pos];
        const float *h = c->h + (size_t)pos * (size_t)E;
        for (int r = 0; r < sp->n; r += 16) {
            int nr = ASH_MIN(16, sp->n - r);
            for (int i = 0; i < nr; i++) k->decode[m->head.type](m->head.data + (size_t)sp->id[r + i] * m->head.row_bytes, rows + (size_t)i * (size_t)E, E);
            k->packf(rows, E, nr, E, panels + (size_t)r * (size_t)E);
        }
        for (uint32_t s0 = 0; s0 < c->n_plain;) {
            uint32_t n = 0, which[STREAM_TILE];
            for (; n < STREAM_TILE && s0 < c->n_plain; s0++)
                if (ash_stream_has(&c->s[c->plain[s0]], chunk)) which[n++] = c->plain[s0];
            if (n == 0) break;
            for (uint32_t i = 0; i < n; i++) {
                float *xi = x + (size_t)i * (size_t)E;
                state_of(c, &c->s[which[i]], chunk, t, tmp, xi);
                ash_vec_sub(xi, xi, h, E);
            }
            memcpy(x + (size_t)n * (size_t)E, h, (size_t)E * sizeof(float)); /* plain logits, for the soft-cap */
            k->gemmf(panels, E, sp->n, x, E, (int)n + 1, d, ASH_SUP_N);
            for (uint32_t i = 0; i < n; i++) {
                float *di = d + (size_t)i * ASH_SUP_N;
                cap_diff(c, d + (size_t)n * ASH_SUP_N, di, sp->n);
                c->kl[(size_t)pos * c->n_streams + which[i]] = (float)ash_vec_kl(sp->w, di, sp->n);
            }
        }
    }
}

/* The positions of a chunk that tables are scored at: every stride-th. */
static uint32_t table_positions(const score *c) { return (c->per + c->stride - 1) / c->stride; }

static void table_part(void *ctx, int64_t begin, int64_t end, int ith) {
    score *c = ctx;
    const ash_kern *k = c->j->e.k;
    const ash_model *m = c->j->m;
    const int E = m->hp.n_embd;
    float *x = c->scratch + (size_t)ith * c->scratch_floats, *row = x + up16((size_t)E), *tmp = row + up16((size_t)E), *d = tmp + up16((size_t)E),
          *base = d + ASH_SUP_N;
    for (int64_t i = begin; i < end; i++) {
        const ash_stream *s = &c->s[c->table];
        uint32_t chunk = s->c0 + (uint32_t)i / table_positions(c), in = (uint32_t)i % table_positions(c) * c->stride, pos = chunk * c->per + in;
        int t = (int)(in + c->j->o.skip);
        const ash_support *sp = &c->sup[pos];
        const float *h = c->h + (size_t)pos * (size_t)E;
        if (s->diff) state_of(c, s, chunk, t, tmp, x);
        else memcpy(x, h, (size_t)E * sizeof(float));
        for (int r = 0; r < sp->n; r++) {
            k->decode[m->head.type](m->head.data + (size_t)sp->id[r] * m->head.row_bytes, row, E);
            k->qk_f32(h, row, E, 1, E, 1, &base[r]);
            k->qk_f32(x, c->rows + (size_t)c->slot[sp->id[r]] * (size_t)E, E, 1, E, 1, &d[r]);
            d[r] -= base[r];
        }
        cap_diff(c, base, d, sp->n);
        c->kl[(size_t)pos * c->n_streams + c->table] = (float)ash_vec_kl(sp->w, d, sp->n);
    }
}

typedef struct {
    score *c;
    const int32_t *ids;
    ash_dtype type;
    const float *imp;
    float *rows;
    size_t tmp_floats;
    _Atomic int failed;
    ash_error err;
} encode_ctx;

static void encode_part(void *ctx, int64_t begin, int64_t end, int ith) {
    encode_ctx *n = ctx;
    const ash_model *m = n->c->j->m;
    const int E = m->hp.n_embd;
    float *row = n->c->scratch + (size_t)ith * n->c->scratch_floats, *tmp = row + up16((size_t)E);
    for (int64_t i = begin; i < end && !n->failed; i++) {
        ash_error err;
        n->c->j->e.k->decode[m->head.type](m->head.data + (size_t)n->ids[i] * m->head.row_bytes, row, E);
        if (ash_change_row(n->c->j->e.k, row, n->type, n->imp, E, n->rows + (size_t)i * (size_t)E, tmp, &err) != ASH_OK && !n->failed++) n->err = err;
    }
}

static void output_error(const score *c, ash_stream *s, const int32_t *ids, int32_t n, const float *imp) {
    const ash_model *m = c->j->m;
    const int E = m->hp.n_embd;
    float *row = c->scratch;
    for (int32_t i = 0; i < n; i++) {
        c->j->e.k->decode[m->head.type](m->head.data + (size_t)ids[i] * m->head.row_bytes, row, E);
        for (int k = 0; k < E; k++) {
            double w = imp ? (double)imp[k] : 1, v = (double)row[k], d = (double)c->rows[(size_t)i * (size_t)E + (size_t)k] - v;
            s->err[0] += w * d * d;
            s->err[1] += w * v * v;
        }
    }
}

/* Tokens in the support sets that stream s is scored on: ids[], and slot[token] = its place there, -1 elsewhere. */
static int32_t tokens_of(const score *c, const ash_stream *s, int32_t *slot, int32_t *ids) {
    const int32_t V = (int32_t)c->j->m->hp.n_vocab;
    int32_t n = 0;
    memset(slot, 0xff, (size_t)V * sizeof *slot);
    for (uint32_t chunk = s->c0; chunk < s->c0 + s->n; chunk++)
        for (uint32_t in = 0; in < c->per; in += c->stride) {
            const ash_support *sp = &c->sup[(size_t)chunk * c->per + in];
            for (int i = 0; i < sp->n; i++) slot[sp->id[i]] = 0;
        }
    for (int32_t i = 0; i < V; i++)
        if (slot[i] == 0) {
            ids[n] = i;
            slot[i] = n++;
        }
    return n;
}

/* Streams with another head: rows of the tokens in the support sets go through encode and decode, one type at a time. */
static ash_status score_tables(score *c, ash_error *err) {
    ash_status st = ASH_OK;
    const ash_model *m = c->j->m;
    const int E = m->hp.n_embd;
    int32_t *slot = ash_alloc((size_t)m->hp.n_vocab * sizeof *slot), *ids = ash_alloc((size_t)m->hp.n_vocab * sizeof *ids);
    float *rows = NULL;
    if (!slot || !ids) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the head");
        goto done;
    }
    for (uint32_t i = 0; i < c->n_streams; i++) {
        ash_stream *s = &c->s[i];
        if (!s->table) continue;
        int32_t n_ids = tokens_of(c, s, slot, ids);
        ash_free(rows);
        rows = ash_alloc_aligned((size_t)n_ids * (size_t)E * sizeof(float) + 64, 64);
        if (!rows) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for %d rows of the head", n_ids);
            goto done;
        }
        encode_ctx n = {.c = c, .ids = ids, .rows = rows, .type = s->unit.type};
        n.imp = c->j->im ? ash_imatrix_weights(c->j->im, m->head_name, (uint64_t)E) : NULL;
        ash_pool_run(c->j->e.pool, n_ids, 16, encode_part, &n);
        if (n.failed) {
            if (err) *err = n.err;
            st = n.err.code;
            ash_error_prefix(err, "tensor %s", m->head_name);
            goto done;
        }
        c->slot = slot;
        c->rows = rows;
        if (s->unit.roles & 1u << ASH_ROLE_OUTPUT) output_error(c, s, ids, n_ids, n.imp); /* an embedding's was summed at the start */
        c->table = i;
        ash_pool_run(c->j->e.pool, (int64_t)s->n * table_positions(c), 4, table_part, c);
        ASH_TRY_GOTO(ash_progress_at(&c->j->o.progress, "sweep", c->j->work_done, c->j->work_total, "tables", err), done);
    }
done:
    ash_free(slot);
    ash_free(ids);
    ash_free(rows);
    return st;
}

ash_status ash_sweep_score(ash_sweep_job *j, ash_stream *s, uint32_t n_streams, const float *x, size_t state, const uint32_t *ids, uint32_t n_chunks, ash_error *err) {
    ash_status st = ASH_OK;
    const ash_model *m = j->m;
    const size_t E = (size_t)m->hp.n_embd, V = (size_t)m->hp.n_vocab;
    score c = {.j = j, .s = s, .n_streams = n_streams, .n_chunks = n_chunks, .ids = ids, .per = (uint32_t)j->T - j->o.skip, .x = x, .state = state};
    const uint32_t n_pos = n_chunks * c.per;
    c.stride = V > 65536 ? 4 : 1; /* a large table's rows are dear to encode */
    c.scratch_floats = ASH_MAX(scratch_floats((int)E), up16(E) + ash_change_row_floats((int)E) + 64);
    int cap = ash_head_block(m, 1, 64ull << 20);
    float *logits = ash_alloc_aligned((size_t)cap * V * sizeof(float), 64);
    void *hs = ash_alloc_aligned(ash_head_scratch_bytes(&j->e, m), 64);
    uint32_t *plain = ash_calloc(n_streams, sizeof *plain);
    bool any_table = false;
    c.h = ash_alloc_aligned((size_t)n_pos * E * sizeof(float), 64);
    c.sup = ash_calloc(n_pos, sizeof *c.sup);
    c.kl = ash_calloc((size_t)n_pos * n_streams, sizeof *c.kl);
    c.scratch = ash_alloc_aligned((size_t)j->e.n_threads * c.scratch_floats * sizeof(float), 64);
    if (!logits || !hs || !plain || !c.h || !c.sup || !c.kl || !c.scratch) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for scoring %u positions", n_pos);
        goto done;
    }
    for (uint32_t k = 0; k < n_chunks; k++)
        ash_final_norm(m, j->e.k, x + (size_t)k * state + (size_t)j->o.skip * E, (int)c.per, c.h + (size_t)k * c.per * E);
    for (uint32_t p = 0; p < n_pos; p += (uint32_t)cap) {
        int n = (int)ASH_MIN((uint32_t)cap, n_pos - p);
        ash_head_logits(&j->e, m, c.h + (size_t)p * E, n, logits, hs);
        c.logits = logits;
        c.at = p;
        ash_pool_run(j->e.pool, n, 1, choose_part, &c);
    }
    for (uint32_t i = 0; i < n_streams; i++) {
        s[i].kld = ash_calloc(s[i].n, sizeof *s[i].kld);
        if (!s[i].kld) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for the results");
            goto done;
        }
        if (s[i].table) any_table = true;
        else if (s[i].diff && !s[i].zero) plain[c.n_plain++] = i;
    }
    c.plain = plain;
    if (c.n_plain) ash_pool_run(j->e.pool, n_pos, 1, plain_part, &c);
    if (any_table) ASH_TRY_GOTO(score_tables(&c, err), done);
    for (uint32_t i = 0; i < n_streams; i++)
        for (uint32_t k = 0; k < s[i].n; k++) {
            double sum = 0;
            uint32_t n = 0, stride = s[i].table ? c.stride : 1;
            for (uint32_t in = 0; in < c.per; in += stride, n++) sum += (double)c.kl[((size_t)(s[i].c0 + k) * c.per + in) * n_streams + i];
            s[i].kld[k] = n ? sum / n : 0;
        }
done:
    ash_free(logits);
    ash_free(hs);
    ash_free(plain);
    ash_free(c.h);
    ash_free(c.sup);
    ash_free(c.kl);
    ash_free(c.scratch);
    return st;
}
