/* sweep_pass.c - one pass over the layers with some chunks and all active units ("streams"). In each layer: unpack the
 * weights, run the reference, then every live stream through it; streams are born in the layer they change. Only the
 * differences to the reference are kept between layers. Scoring is in sweep_score.c. */
#include "eval/sweep_score.h"

#include "ashlar/quant.h"
#include "eval/vec.h"

#include <math.h>

typedef struct {
    ash_sweep_job *j;
    uint32_t n_chunks;
    uint32_t *ids;           /* their numbers in the job, ascending */
    ash_stream *s;
    uint32_t n_streams;
    size_t row;              /* T * E */
    float *x, *next;         /* reference's residual [chunk][T][E]: entering, leaving the layer */
    ash_dlayer L;
    float *scratch;          /* per thread: the reference's intermediates, a stream's difference, delta.c's scratch */
    size_t scratch_floats, ref_floats;
    const float *dw[ASH_DTYPE_MAX][ASH_W_COUNT]; /* changed minus original, per type at hand */
    const uint32_t *list;    /* streams of this dispatch */
    uint32_t n_list, n_groups;
} pass;

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

const ash_mat *ash_sweep_mat(const ash_model *m, int layer, int role) {
    const ash_mat *w = role == ASH_ROLE_EMBD ? &m->embd : role == ASH_ROLE_OUTPUT ? (m->tied ? NULL : &m->head) : &m->layers[layer].w[role];
    return w && w->data ? w : NULL;
}

double ash_sweep_macs(const ash_model *m, int T, const ash_sweep_unit *units, size_t n) {
    double layer = 0, total = 0;
    for (int r = 0; r < ASH_W_COUNT; r++) layer += (double)m->layers[0].w[r].n_rows * m->layers[0].w[r].K;
    layer += (double)T * m->hp.max_q; /* attention, both products */
    for (size_t i = 0; i < n; i++) {
        double left = m->hp.n_layer - (units[i].layer > 0 ? units[i].layer : 0) - 0.5;
        if (units[i].roles & 1u << ASH_ROLE_OUTPUT) left = 0;
        total += left * layer * T;
    }
    return total;
}

double ash_sweep_take_macs(const ash_sweep_job *j, const ash_sweep_take *take, uint32_t n_take) {
    double total = 0;
    for (uint32_t i = 0; i < n_take; i++) total += take[i].n * ash_sweep_macs(j->m, j->T, &j->units[take[i].unit], 1);
    return total;
}

/* A probe changes a matrix of a third of the layers in float32 and lives from the first of them on; the reference itself counts too. */
double ash_sweep_probe_macs(const ash_model *m, int T) {
    ash_sweep_unit u[ASH_SWEEP_PROBES];
    for (int k = 0; k < ASH_SWEEP_PROBES; k++) u[k] = (ash_sweep_unit){k * m->hp.n_layer / ASH_SWEEP_PROBES, 1, ASH_Q8_0};
    ash_sweep_unit whole = {0, 1, ASH_Q8_0};
    return ash_sweep_macs(m, T, u, ASH_SWEEP_PROBES) + 4 * ash_sweep_macs(m, T, &whole, 1);
}

uint64_t ash_sweep_diff_bytes(const ash_model *m, int T, uint64_t n_takes) { return n_takes * (uint64_t)T * (uint64_t)m->hp.n_embd * 2; }

uint64_t ash_sweep_rest_bytes(const ash_model *m, int n_threads, int T, uint64_t n_chunks) {
    uint64_t layer = 0;
    for (int l = 0; l < m->hp.n_layer; l++) {
        uint64_t n = 0;
        for (int r = 0; r < ASH_W_COUNT; r++) n += ash_packed_floats(m->layers[l].w[r].n_rows, m->layers[l].w[r].K);
        layer = ASH_MAX(layer, n);
    }
    return layer * 4 * 3 + layer * 9 / 8 + n_chunks * (uint64_t)T * (uint64_t)m->hp.n_embd * 8 +
           (uint64_t)n_threads * (ash_dref_floats(m, T) + ash_delta_scratch_floats(m, T)) * 4;
}

/* ---- streams ---- */
static bool changes(const ash_stream *s, int l) {
    return s->unit.type != ASH_F32 && (s->unit.roles & ASH_ROLES_LAYER) && l >= s->from && l < s->to;
}

static bool alive(const ash_stream *s, int l) { return s->diff && l >= s->from && (!s->zero || changes(s, l)); }

/* One chunk and a share of the streams: the reference through the layer, then each stream while the reference's
 * intermediates are in the cache. */
static void item_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    float *mem = p->scratch + (size_t)ith * p->scratch_floats, *d = mem + p->ref_floats, *scratch = d + up16(p->row);
    ash_dref ref;
    ash_dref_place(&ref, p->L.m, p->L.T, mem);
    for (int64_t i = begin; i < end; i++) {
        uint32_t c = (uint32_t)(i / p->n_groups), g = (uint32_t)(i % p->n_groups);
        memcpy(ref.x, p->x + c * p->row, p->row * sizeof(float));
        ash_dref_run(&p->L, &ref, scratch);
        if (g == 0) memcpy(p->next + c * p->row, ref.x, p->row * sizeof(float));
        for (uint32_t k = g; k < p->n_list; k += p->n_groups) {
            const ash_stream *s = &p->s[p->list[k]];
            if (!ash_stream_has(s, c)) continue;
            uint16_t *keep = s->diff + (c - s->c0) * p->row;
            const float *dw[ASH_W_COUNT] = {0};
            if (changes(s, p->L.layer))
                for (int r = 0; r < ASH_W_COUNT; r++)
                    if (s->unit.roles & 1u << r) dw[r] = p->dw[s->unit.type][r];
            if (s->zero) memset(d, 0, p->row * sizeof(float));
            else ash_vec_from_bf16(d, keep, (int64_t)p->row);
            ash_delta_run(&p->L, &ref, dw, s->zero, d, scratch);
            ash_vec_to_bf16(keep, d, (int64_t)p->row);
        }
    }
}

static void run_list(pass *p, const uint32_t *list, uint32_t n) {
    uint32_t want = 8 * (uint32_t)p->j->e.n_threads; /* items, so that threads end together */
    p->list = list;
    p->n_list = n;
    p->n_groups = p->n_chunks >= want ? 1 : (want + p->n_chunks - 1) / p->n_chunks;
    p->n_groups = ASH_MAX(ASH_MIN(p->n_groups, n / 16), 1u); /* each share runs the reference anew */
    ash_pool_run(p->j->e.pool, (int64_t)p->n_chunks * p->n_groups, 1, item_part, p);
    for (uint32_t i = 0; i < n; i++) p->s[list[i]].zero = false;
}

static const float *imp_of(const ash_sweep_job *j, int l, int r) {
    return j->im ? ash_imatrix_weights(j->im, j->m->layers[l].name[r], (uint64_t)j->m->layers[l].w[r].K) : NULL;
}

/* What a type does to the matrices of this layer that some stream changes to it. */
static ash_status build_type(pass *p, int l, ash_dtype type, float *dw, ash_error *err) {
    ash_sweep_job *j = p->j;
    uint32_t roles = 0;
    for (uint32_t i = 0; i < p->n_streams; i++)
        if (changes(&p->s[i], l) && p->s[i].unit.type == type) roles |= p->s[i].unit.roles;
    double sums[ASH_W_COUNT][2] = {{0}};
    for (int r = 0; r < ASH_W_COUNT; r++) {
        const ash_mat *w = ash_sweep_mat(j->m, l, r);
        p->dw[type][r] = NULL;
        if (!(roles & 1u << r) || !w) continue;
        ash_status st = ash_change_build(&j->e, w, type, imp_of(j, l, r), dw, sums[r], err);
        if (st != ASH_OK) return ash_error_prefix(err, "tensor %s", j->m->layers[l].name[r]), st;
        p->dw[type][r] = dw;
        dw += ash_packed_floats(w->n_rows, w->K);
    }
    for (uint32_t i = 0; i < p->n_streams; i++) {
        ash_stream *s = &p->s[i];
        if (!changes(s, l) || s->unit.type != type) continue;
        for (int r = 0; r < ASH_W_COUNT; r++)
            if (s->unit.roles & 1u << r) {
                s->err[0] += sums[r][0];
                s->err[1] += sums[r][1];
            }
    }
    return ASH_OK;
}

/* All streams through layer l. Types are taken as many at a time as dw has room for. */
static ash_status run_layer(pass *p, const ash_layer_mem *lm, int l, uint32_t *list, float *dw, size_t layer_floats, int dw_sets, ash_error *err) {
    ash_layer_weights(&p->j->e, lm, l, &p->L);
    uint64_t types = 0;
    for (uint32_t i = 0; i < p->n_streams; i++)
        if (changes(&p->s[i], l)) types |= 1ull << p->s[i].unit.type;
    bool first = true;
    while (first || types) {
        uint64_t now = 0;
        for (int t = 0, k = 0; t < ASH_DTYPE_MAX && k < dw_sets; t++)
            if (types & 1ull << t) {
                ASH_TRY(build_type(p, l, (ash_dtype)t, dw + (size_t)k++ * layer_floats, err));
                now |= 1ull << t;
            }
        uint32_t n = 0;
        for (uint32_t i = 0; i < p->n_streams; i++) {
            const ash_stream *s = &p->s[i];
            if (alive(s, l) && (changes(s, l) ? (now >> s->unit.type & 1) != 0 : first)) list[n++] = i;
        }
        run_list(p, list, n); /* also with no stream: the reference moves on */
        types &= ~now;
        first = false;
    }
    float *x = p->x;
    p->x = p->next;
    p->next = x;
    return ASH_OK;
}

/* Differences that exist before the first layer: another embedding table, or the noise control's last bits. */
static ash_status start_stream(pass *p, ash_stream *s, ash_error *err) {
    const ash_sweep_job *j = p->j;
    const ash_model *m = j->m;
    const int E = m->hp.n_embd;
    const size_t n = p->row;
    ash_status st = ASH_OK;
    float *d = ash_alloc(n * sizeof(float)), *row = ash_alloc((size_t)E * sizeof(float)), *one = ash_alloc((size_t)E * sizeof(float)),
          *tmp = ash_alloc(ash_change_row_floats(E) * sizeof(float));
    if (!d || !row || !one || !tmp) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a stream");
        goto done;
    }
    const float *imp = j->im ? ash_imatrix_weights(j->im, m->embd_name, (uint64_t)E) : NULL;
    for (uint32_t k = 0; k < s->n; k++) {
        uint32_t c = s->c0 + k;
        for (int t = 0; t < p->j->T; t++) {
            float *dt = d + (size_t)t * (size_t)E;
            if (s->kind == ASH_STREAM_NOISE) {
                for (int i = 0; i < E; i++) dt[i] = p->x[c * n + (size_t)t * (size_t)E + (size_t)i] * ((t * 31 + i * 7) % 3 - 1) * 0x1p-24f;
                continue;
            }
            ash_token tok = j->tok[(size_t)p->ids[c] * (size_t)j->T + (size_t)t];
            j->e.k->decode[m->embd.type](m->embd.data + (size_t)tok * m->embd.row_bytes, row, E);
            ASH_TRY_GOTO(ash_change_row(j->e.k, row, s->unit.type, imp, E, one, tmp, err), done);
            for (int i = 0; i < E; i++) {
                dt[i] = (one[i] - row[i]) * m->hp.embd_scale;
                double im = imp ? (double)imp[i] : 1, e = (double)one[i] - (double)row[i];
                s->err[0] += im * e * e; /* over the rows that occur */
                s->err[1] += im * (double)row[i] * (double)row[i];
            }
        }
        ash_vec_to_bf16(s->diff + k * n, d, (int64_t)n);
    }
    s->zero = false;
done:
    ash_free(d);
    ash_free(row);
    ash_free(one);
    ash_free(tmp);
    return st;
}

/* The chunks that some stream takes. ids has room for max_chunks or the probes' chunks, whichever is more. */
static void choose_ids(pass *p, const ash_sweep_take *take, uint32_t n_take, unsigned extra) {
    const ash_sweep_book *b = &p->j->book;
    const uint32_t cap = ASH_MAX(b->max_chunks, b->n_probe);
    for (uint32_t i = 0; i < n_take; i++)
        for (uint32_t k = 0; k < take[i].n; k++) p->ids[b->u[take[i].unit].n + k] = 1;
    p->n_chunks = 0;
    for (uint32_t id = 0; id < cap; id++)
        if (p->ids[id] || ((extra & ASH_PASS_PROBES) && id < b->n_probe)) p->ids[p->n_chunks++] = id; /* never ahead of what is read */
}

/* Where chunk number id is in the pass. */
static uint32_t place_of(const pass *p, uint32_t id) {
    uint32_t c = 0;
    while (c < p->n_chunks && p->ids[c] < id) c++;
    return c;
}

static ash_status setup_streams(pass *p, uint16_t *diff, const ash_sweep_take *take, uint32_t n_take, unsigned extra, ash_error *err) {
    ash_sweep_job *j = p->j;
    const int L = j->m->hp.n_layer;
    const ash_sweep_unit probe = {-1, 1u << ASH_ROLE_DOWN, ash_quant_can(ASH_IQ4_NL) ? ASH_IQ4_NL : ASH_Q8_0};
    for (uint32_t i = 0; i < n_take; i++) {
        ash_sweep_unit u = j->units[take[i].unit];
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_UNIT, .unit = u, .from = u.layer < 0 ? 0 : u.layer, .to = u.layer < 0 ? L : u.layer + 1,
                                            .c0 = place_of(p, j->book.u[take[i].unit].n), .n = take[i].n};
    }
    for (int k = 0; (extra & ASH_PASS_PROBES) && k < ASH_SWEEP_PROBES; k++)
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_PROBE, .unit = probe, .from = k * L / ASH_SWEEP_PROBES, .to = (k + 1) * L / ASH_SWEEP_PROBES, .n = p->n_chunks};
    if (extra & ASH_PASS_CONTROLS) {
        ash_sweep_unit same = {-1, ASH_ROLES_LAYER, ASH_F32};
        uint32_t c0 = place_of(p, j->book.u[take[0].unit].n);
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_IDENTITY, .unit = same, .to = L, .c0 = c0, .n = take[0].n};
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_NOISE, .unit = same, .to = L, .c0 = c0, .n = take[0].n};
    }
    for (uint32_t i = 0; i < p->n_streams; i++) {
        ash_stream *s = &p->s[i];
        s->zero = true;
        s->table = s->unit.type != ASH_F32 && (s->unit.roles & (1u << ASH_ROLE_OUTPUT | (j->m->tied ? 1u << ASH_ROLE_EMBD : 0u)));
        if (s->unit.roles != 1u << ASH_ROLE_OUTPUT) {
            s->diff = diff;
            diff += s->n * p->row;
        }
        if (s->kind == ASH_STREAM_NOISE || (s->unit.roles & 1u << ASH_ROLE_EMBD)) ASH_TRY(start_stream(p, s, err));
        if (s->kind == ASH_STREAM_IDENTITY) { /* goes through all the arithmetic with a difference of zero */
            memset(s->diff, 0, s->n * p->row * sizeof *s->diff);
            s->zero = false;
        }
    }
    return ASH_OK;
}

static void collect(const pass *p, const ash_sweep_take *take, unsigned extra) {
    ash_sweep_book *b = &p->j->book;
    int probe = 0;
    for (uint32_t i = 0; i < p->n_streams; i++) {
        const ash_stream *s = &p->s[i];
        double mean = 0;
        for (uint32_t c = 0; c < s->n; c++) mean += s->kld[c] / s->n;
        if (s->kind == ASH_STREAM_UNIT) {
            ash_sweep_state *u = &b->u[take[i].unit];
            memcpy(u->kld + u->n, s->kld, s->n * sizeof(double));
            u->n += s->n;
            b->n_chunks = ASH_MAX(b->n_chunks, u->n);
            if (!u->encoded) u->rel_err = s->err[1] > 0 ? s->err[0] / s->err[1] : 0;
            u->encoded = 1;
        } else if (s->kind == ASH_STREAM_PROBE) {
            memcpy(b->probe + (size_t)probe++ * b->n_probe, s->kld, s->n * sizeof(double));
        } else {
            *(s->kind == ASH_STREAM_IDENTITY ? &b->identity : &b->noise) = mean;
        }
    }
    if (extra & ASH_PASS_PROBES) b->probed = 1;
}

ash_status ash_sweep_pass(ash_sweep_job *j, const ash_sweep_take *take, uint32_t n_take, unsigned extra, ash_error *err) {
    ash_status st = ASH_OK;
    const ash_model *m = j->m;
    pass p = {.j = j, .row = (size_t)j->T * (size_t)m->hp.n_embd};
    p.L = (ash_dlayer){.m = m, .k = j->e.k, .T = j->T, .exact = j->exact};
    ash_layer_mem lm = {0};
    float *dw = NULL, *xs = NULL;
    uint16_t *diff = NULL;
    uint32_t *list = NULL;
    uint64_t takes = 0, diff_bytes = 0;
    bool spill = false;
    p.ref_floats = up16(ash_dref_floats(m, j->T));
    p.scratch_floats = p.ref_floats + up16(p.row) + ash_delta_scratch_floats(m, j->T);
    p.s = ash_calloc((size_t)n_take + ASH_SWEEP_EXTRA, sizeof *p.s);
    p.ids = ash_calloc(ASH_MAX(j->book.max_chunks, j->book.n_probe), sizeof *p.ids);
    if (!p.s || !p.ids) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a pass of %u units", n_take);
        goto done;
    }
    choose_ids(&p, take, n_take, extra);
    for (uint32_t i = 0; i < n_take; i++) takes += take[i].n;
    if (extra & ASH_PASS_CONTROLS) takes += 2 * (uint64_t)take[0].n;
    if (extra & ASH_PASS_PROBES) takes += (uint64_t)ASH_SWEEP_PROBES * p.n_chunks;
    diff_bytes = ash_sweep_diff_bytes(m, j->T, takes);
    spill = diff_bytes > j->o.mem_bytes;
    if (spill) {
        void *map = NULL;
        ASH_TRY_GOTO(ash_spill_map(j->o.spill_dir ? j->o.spill_dir : ".", diff_bytes, &map, err), done);
        diff = map;
    } else {
        diff = ash_alloc_aligned(diff_bytes, 64);
    }
    p.scratch = ash_alloc_aligned((size_t)j->e.n_threads * p.scratch_floats * sizeof(float), 64);
    xs = ash_alloc_aligned(2 * p.n_chunks * p.row * sizeof(float), 64);
    list = ash_calloc((size_t)n_take + ASH_SWEEP_EXTRA, sizeof *list);
    if (!diff || !p.scratch || !xs || !list) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a pass of %u units over %u chunks", n_take, p.n_chunks);
        goto done;
    }
    ASH_TRY_GOTO(ash_layer_mem_alloc(&lm, m, err), done);
    ASH_TRY_GOTO(ash_layer_ropes(&p.L, err), done);
    const size_t layer_floats = lm.floats;
    p.x = xs;
    p.next = xs + p.n_chunks * p.row;
    for (uint32_t c = 0; c < p.n_chunks; c++)
        ash_embed_tokens(m, j->e.k, j->tok + (size_t)p.ids[c] * (size_t)j->T, j->T, p.x + c * p.row);
    ASH_TRY_GOTO(setup_streams(&p, diff, take, n_take, extra, err), done);
    /* changed matrices of several types at once where they are small beside the budget, else one type at a time */
    uint64_t used = 0;
    for (uint32_t i = 0; i < p.n_streams; i++) used |= 1ull << p.s[i].unit.type;
    int sets = (int)ASH_MIN(ASH_MAX(j->o.mem_bytes / 4 / (layer_floats * sizeof(float)), 1u), (uint64_t)__builtin_popcountll(used));
    dw = ash_alloc_aligned((size_t)sets * layer_floats * sizeof(float), 64);
    if (!dw) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the changed matrices");
        goto done;
    }
    double macs = n_take ? ash_sweep_take_macs(j, take, n_take) : ash_sweep_probe_macs(m, j->T) * p.n_chunks;
    for (int l = 0; l < m->hp.n_layer; l++) {
        double f = (double)l / m->hp.n_layer; /* live streams grow with depth: work done goes with the square */
        ASH_TRY_GOTO(ash_progress_at(&j->o.progress, "sweep", j->work_done + macs * f * f, j->work_total, NULL, err), done);
        ASH_TRY_GOTO(run_layer(&p, &lm, l, list, dw, layer_floats, sets, err), done);
    }
    ASH_TRY_GOTO(ash_progress_at(&j->o.progress, "sweep", j->work_done + macs, j->work_total, NULL, err), done);
    /* the layers' memory is free for the head's blocks */
    ash_layer_mem_free(&lm);
    ash_free(dw);
    dw = NULL;
    ASH_TRY_GOTO(ash_sweep_score(j, p.s, p.n_streams, p.x, p.ids, p.n_chunks, err), done);
    collect(&p, take, extra);
    j->work_done += macs;
done:
    for (uint32_t i = 0; p.s && i < p.n_streams; i++) ash_free(p.s[i].kld);
    ash_free(p.s);
    ash_free(p.ids);
    if (spill && diff) ash_spill_unmap(diff, diff_bytes);
    else if (!spill) ash_free(diff);
    ash_free(p.scratch);
    ash_free(xs);
    ash_free(list);
    ash_layer_mem_free(&lm);
    ash_layer_ropes_free(&p.L);
    ash_free(dw);
    return st;
}
