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
    size_t state;            /* floats of a chunk between layers: T * E, with `whole` what else the engine carries */
    float *x, *next;         /* the reference's states [chunk]: entering, leaving the layer */
    bool whole;
    ash_dlayer L;            /* plain models: delta.h */
    ash_whole W;             /* others: whole.h */
    float *scratch;          /* per thread, thread_floats */
    size_t scratch_floats;
    ash_change *change;      /* [ASH_DTYPE_MAX], of the types at hand: panels are changed minus original; with `whole` changed */
    const uint32_t *list;    /* streams of this dispatch */
    uint32_t n_list, n_groups;
} pass;

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

double ash_sweep_layer_macs(const ash_model *m, int T, int layer) {
    const ash_layer *l = &m->layers[layer];
    double n = (double)T * l->n_head * l->head_dim; /* attention, both products */
    ash_part p;
    for (int r = 0; r < ASH_ROLE_COUNT; r++)
        if (ASH_ROLES_LAYER >> r & 1 && ash_part_of(m, layer, r, &p)) n += (double)(p.n_mat > 1 ? m->hp.n_expert_used : 1) * (double)p.w->n_rows * p.w->K;
    return n;
}

double ash_sweep_macs(const ash_model *m, int T, const ash_sweep_unit *units, size_t n) {
    double total = 0;
    for (int l = 0; l < m->hp.n_layer; l++) { /* a unit takes half of its own layer and all later ones */
        const double layer = ash_sweep_layer_macs(m, T, l) * T;
        for (size_t i = 0; i < n; i++) {
            const int from = ASH_MAX(units[i].layer, 0);
            if (!(units[i].roles & 1u << ASH_ROLE_OUTPUT) && l >= from) total += l == from ? 0.5 * layer : layer;
        }
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

/* Roles whose change reaches the per-layer embedding inputs, which other streams share with the reference. */
static bool moves_ple(uint32_t roles) { return roles & (1u << ASH_ROLE_EMBD | 1u << ASH_ROLE_PLE_TABLE | 1u << ASH_ROLE_PLE_IN); }

size_t ash_sweep_state_floats(const ash_model *m, int T, bool whole) { return whole ? ash_whole_state(m, T) : (size_t)T * (size_t)m->hp.n_embd; }

size_t ash_sweep_row_values(const ash_model *m, int T, bool whole, const ash_sweep_unit *u) {
    return whole ? ash_whole_diff(m, T, moves_ple(u->roles)) : (size_t)T * (size_t)m->hp.n_embd;
}

uint64_t ash_sweep_diff_bytes(const ash_model *m, int T, bool whole, uint64_t n_takes) {
    const ash_sweep_unit plain = {0, 1, ASH_Q8_0};
    return n_takes * 2 * ash_sweep_row_values(m, T, whole, &plain);
}

/* Per thread: the reference's side of a chunk, a difference, the layer's scratch. */
static size_t thread_floats(const ash_model *m, int T, bool whole) {
    if (whole) return up16(ash_whole_state(m, T)) + ash_whole_scratch_floats(m, T);
    return up16(ash_dref_floats(m, T)) + up16((size_t)T * (size_t)m->hp.n_embd) + ash_delta_scratch_floats(m, T);
}

uint64_t ash_sweep_rest_bytes(const ash_model *m, int n_threads, int T, bool whole, uint64_t n_chunks) {
    uint64_t layer = 0;
    for (int l = 0; l < m->hp.n_layer; l++) {
        uint64_t n = 0;
        for (int r = 0; r < ASH_W_COUNT; r++) n += ash_packed_floats(m->layers[l].w[r].n_rows, m->layers[l].w[r].K);
        layer = ASH_MAX(layer, n);
    }
    return layer * 4 + ash_layer_change_floats(m) * 4 * 2 + (whole ? 0 : layer * 9 / 8) + n_chunks * ash_sweep_state_floats(m, T, whole) * 8 +
           (uint64_t)n_threads * thread_floats(m, T, whole) * 4;
}

/* ---- streams ---- */
static bool changes(const ash_stream *s, int l) {
    return s->unit.type != ASH_F32 && (s->unit.roles & (ASH_ROLES_LAYER | 1u << ASH_ROLE_PLE_IN)) && l >= s->from && l < s->to;
}

static bool alive(const ash_stream *s, int l) { return s->diff && l >= s->from && (!s->zero || changes(s, l)); }

/* One chunk and a share of the streams: the reference through the layer, then each stream while the reference's
 * intermediates are in the cache. */
static void delta_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    float *mem = p->scratch + (size_t)ith * p->scratch_floats, *d = mem + up16(ash_dref_floats(p->L.m, p->L.T)), *scratch = d + up16(p->state);
    ash_dref ref;
    ash_dref_place(&ref, p->L.m, p->L.T, mem);
    for (int64_t i = begin; i < end; i++) {
        uint32_t c = (uint32_t)(i / p->n_groups), g = (uint32_t)(i % p->n_groups);
        memcpy(ref.x, p->x + c * p->state, p->state * sizeof(float));
        ash_dref_run(&p->L, &ref, scratch);
        if (g == 0) memcpy(p->next + c * p->state, ref.x, p->state * sizeof(float));
        for (uint32_t k = g; k < p->n_list; k += p->n_groups) {
            const ash_stream *s = &p->s[p->list[k]];
            if (!ash_stream_has(s, c)) continue;
            uint16_t *keep = s->diff + (c - s->c0) * s->row;
            const float *dw[ASH_W_COUNT] = {0};
            if (changes(s, p->L.layer))
                for (int r = 0; r < ASH_W_COUNT; r++)
                    if (s->unit.roles & 1u << r) dw[r] = p->change[s->unit.type].panels[r];
            if (s->zero) memset(d, 0, s->row * sizeof(float));
            else ash_vec_from_bf16(d, keep, (int64_t)s->row);
            ash_delta_run(&p->L, &ref, dw, s->zero, d, scratch);
            ash_vec_to_bf16(keep, d, (int64_t)s->row);
        }
    }
}

static void whole_part(void *ctx, int64_t begin, int64_t end, int ith) {
    pass *p = ctx;
    float *out = p->scratch + (size_t)ith * p->scratch_floats, *scratch = out + up16(p->state);
    for (int64_t i = begin; i < end; i++) {
        uint32_t c = (uint32_t)(i / p->n_groups), g = (uint32_t)(i % p->n_groups);
        const float *in = p->x + c * p->state;
        ash_whole_ref(&p->W, in, out, scratch);
        if (g == 0) memcpy(p->next + c * p->state, out, p->state * sizeof(float));
        for (uint32_t k = g; k < p->n_list; k += p->n_groups) {
            const ash_stream *s = &p->s[p->list[k]];
            if (!ash_stream_has(s, c)) continue;
            const uint32_t roles = changes(s, p->W.layer) ? s->unit.roles : 0;
            ash_whole_run(&p->W, in, out, &p->change[s->unit.type], roles, s->zero, s->ple, s->diff + (c - s->c0) * s->row, scratch);
        }
    }
}

static void run_list(pass *p, const uint32_t *list, uint32_t n) {
    uint32_t want = 8 * (uint32_t)p->j->e.n_threads; /* items, so that threads end together */
    p->list = list;
    p->n_list = n;
    p->n_groups = p->n_chunks >= want ? 1 : (want + p->n_chunks - 1) / p->n_chunks;
    p->n_groups = ASH_MAX(ASH_MIN(p->n_groups, n / 16), 1u); /* each share runs the reference anew */
    ash_pool_run(p->j->e.pool, (int64_t)p->n_chunks * p->n_groups, 1, p->whole ? whole_part : delta_part, p);
    for (uint32_t i = 0; i < n; i++) p->s[list[i]].zero = false;
}

/* One matrix of layer l, or its experts, in `type`: into dst, error sums into sums. Returns the floats used. */
static ash_status build_part(pass *p, const ash_part *part, int r, ash_dtype type, float *dst, size_t *used, double sums[2], ash_error *err) {
    const ash_sweep_job *j = p->j;
    const ash_mat *w = part->w;
    const float *imp = j->im ? ash_imatrix_weights(j->im, part->name, (uint64_t)w->K * (uint64_t)part->n_mat) : NULL;
    ash_change *c = &p->change[type];
    if (r < ASH_ROLE_N_LAYER) {
        *used = ash_packed_floats(w->n_rows, w->K);
        c->panels[r] = dst;
        ASH_TRY(ash_change_build(&j->e, w, type, imp, dst, sums, err));
        if (p->whole) ash_vec_add(dst, dst, p->W.packed[r], (int64_t)*used);
        return ASH_OK;
    }
    const float *counts = j->im && part->n_mat > 1 ? ash_imatrix_counts(j->im, part->name, (uint64_t)part->n_mat) : NULL;
    *used = up16((size_t)part->n_mat * (size_t)w->n_rows * (size_t)w->K);
    c->rows[r] = (ash_mat){.type = ASH_F32, .data = (const uint8_t *)dst, .n_rows = w->n_rows, .K = w->K, .row_bytes = (size_t)w->K * sizeof(float)};
    return ash_change_rows(&j->e, part, type, imp, counts, dst, sums, err);
}

/* What a type does to the matrices of this layer that some stream changes to it. */
static ash_status build_type(pass *p, int l, ash_dtype type, float *dw, ash_error *err) {
    ash_sweep_job *j = p->j;
    uint32_t roles = 0;
    for (uint32_t i = 0; i < p->n_streams; i++)
        if (changes(&p->s[i], l) && p->s[i].unit.type == type) roles |= p->s[i].unit.roles;
    double sums[ASH_ROLE_COUNT][2] = {{0}};
    p->change[type] = (ash_change){0};
    for (int r = 0; r < ASH_ROLE_COUNT; r++) {
        ash_part part;
        size_t used;
        if (!(roles & 1u << r) || !ash_part_of(j->m, l, r, &part)) continue;
        ash_status st = build_part(p, &part, r, type, dw, &used, sums[r], err);
        if (st != ASH_OK) return ash_error_prefix(err, "tensor %s", part.name), st;
        dw += used;
    }
    for (uint32_t i = 0; i < p->n_streams; i++) {
        ash_stream *s = &p->s[i];
        if (!changes(s, l) || s->unit.type != type) continue;
        for (int r = 0; r < ASH_ROLE_COUNT; r++)
            if (s->unit.roles & 1u << r) {
                s->err[0] += sums[r][0];
                s->err[1] += sums[r][1];
            }
    }
    return ASH_OK;
}

/* All streams through layer l. Types are taken as many at a time as dw has room for. */
static ash_status run_layer(pass *p, const ash_layer_mem *lm, int l, uint32_t *list, float *dw, size_t layer_floats, int dw_sets, ash_error *err) {
    if (p->whole) ash_layer_pack(&p->j->e, lm, p->j->m, l, p->W.packed), p->W.layer = l;
    else ash_layer_weights(&p->j->e, lm, l, &p->L);
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
    const bool inputs = (s->unit.roles & 1u << ASH_ROLE_PLE_TABLE) != 0; /* the table of per-layer embeddings, else the tokens' own */
    const ash_mat *w = inputs ? &m->ple_embd : &m->embd;
    const int E = ASH_MAX(w->K, m->hp.n_embd);
    const float scale = inputs ? sqrtf((float)m->hp.n_ple) : m->hp.embd_scale;
    size_t at = 0, lent;
    if (inputs) ash_layer_state_parts(m, j->T, &at, &lent);
    ash_status st = ASH_OK;
    float *d = ash_calloc(s->row, sizeof(float)), *row = ash_alloc((size_t)E * sizeof(float)), *one = ash_alloc((size_t)E * sizeof(float)),
          *tmp = ash_alloc(ash_change_row_floats(E) * sizeof(float));
    if (!d || !row || !one || !tmp) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a stream");
        goto done;
    }
    const float *imp = j->im && !inputs ? ash_imatrix_weights(j->im, m->embd_name, (uint64_t)w->K) : NULL;
    for (uint32_t k = 0; k < s->n; k++) {
        uint32_t c = s->c0 + k;
        for (int t = 0; t < p->j->T; t++) {
            const size_t from = at + (size_t)t * (size_t)w->K;
            float *dt = d + from;
            if (s->kind == ASH_STREAM_NOISE) {
                for (int i = 0; i < w->K; i++) dt[i] = p->x[c * p->state + from + (size_t)i] * ((t * 31 + i * 7) % 3 - 1) * 0x1p-24f;
                continue;
            }
            ash_token tok = j->tok[(size_t)p->ids[c] * (size_t)j->T + (size_t)t];
            j->e.k->decode[w->type](w->data + (size_t)tok * w->row_bytes, row, w->K);
            ASH_TRY_GOTO(ash_change_row(j->e.k, row, s->unit.type, imp, w->K, one, tmp, err), done);
            for (int i = 0; i < w->K; i++) {
                dt[i] = (one[i] - row[i]) * scale;
                double im = imp ? (double)imp[i] : 1, e = (double)one[i] - (double)row[i];
                s->err[0] += im * e * e; /* over the rows that occur */
                s->err[1] += im * (double)row[i] * (double)row[i];
            }
        }
        ash_vec_to_bf16(s->diff + k * s->row, d, (int64_t)s->row);
    }
    s->zero = false;
done:
    ash_free(d);
    ash_free(row);
    ash_free(one);
    ash_free(tmp);
    return st;
}

static void mark_ids(pass *p, ash_sweep_take t) {
    for (uint32_t k = 0; k < t.n; k++) p->ids[t.at + k] = 1;
}

/* The chunks that some stream takes. ids has room for max_chunks or the probes' chunks, whichever is more. */
static void choose_ids(pass *p, const ash_sweep_part *w) {
    const uint32_t cap = ASH_MAX(p->j->book.max_chunks, p->j->book.n_probe);
    for (uint32_t i = 0; i < w->n_take; i++) mark_ids(p, w->take[i]);
    mark_ids(p, w->probes);
    mark_ids(p, w->controls);
    p->n_chunks = 0;
    for (uint32_t id = 0; id < cap; id++)
        if (p->ids[id]) p->ids[p->n_chunks++] = id; /* never ahead of what is read */
}

/* Where chunk number id is in the pass. */
static uint32_t place_of(const pass *p, uint32_t id) {
    uint32_t c = 0;
    while (c < p->n_chunks && p->ids[c] < id) c++;
    return c;
}

/* The streams of a pass; returns values of their differences together. */
static uint64_t list_streams(pass *p, const ash_sweep_part *w) {
    ash_sweep_job *j = p->j;
    const int L = j->m->hp.n_layer;
    const ash_sweep_unit probe = {-1, 1u << ASH_ROLE_DOWN | 1u << ASH_ROLE_EXP_DOWN, ash_quant_can(ASH_IQ4_NL) ? ASH_IQ4_NL : ASH_Q8_0};
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->n_take; i++) {
        const ash_sweep_take t = w->take[i];
        ash_sweep_unit u = j->units[t.unit];
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_UNIT, .unit = u, .from = ASH_MAX(u.layer, 0),
                                            .to = u.roles & 1u << ASH_ROLE_PLE_IN ? 1 : u.layer < 0 ? L : u.layer + 1,
                                            .c0 = place_of(p, t.at), .n = t.n};
    }
    for (int k = 0; w->probes.n && k < ASH_SWEEP_PROBES; k++)
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_PROBE, .unit = probe, .from = k * L / ASH_SWEEP_PROBES, .to = (k + 1) * L / ASH_SWEEP_PROBES,
                                            .c0 = place_of(p, w->probes.at), .n = w->probes.n};
    if (w->controls.n) {
        ash_sweep_unit same = {-1, ASH_ROLES_LAYER, ASH_F32};
        uint32_t c0 = place_of(p, w->controls.at);
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_IDENTITY, .unit = same, .to = L, .c0 = c0, .n = w->controls.n};
        p->s[p->n_streams++] = (ash_stream){.kind = ASH_STREAM_NOISE, .unit = same, .to = L, .c0 = c0, .n = w->controls.n};
    }
    for (uint32_t i = 0; i < p->n_streams; i++) {
        ash_stream *s = &p->s[i];
        s->zero = true;
        s->ple = p->whole && (s->kind == ASH_STREAM_NOISE || moves_ple(s->unit.roles));
        s->row = s->ple ? p->state : ash_sweep_row_values(j->m, j->T, p->whole, &s->unit);
        if (s->unit.roles != 1u << ASH_ROLE_OUTPUT) total += s->n * s->row;
        s->table = s->unit.type != ASH_F32 && (s->unit.roles & (1u << ASH_ROLE_OUTPUT | (j->m->tied ? 1u << ASH_ROLE_EMBD : 0u)));
    }
    return total;
}

static ash_status start_streams(pass *p, uint16_t *diff, ash_error *err) {
    for (uint32_t i = 0; i < p->n_streams; i++) {
        ash_stream *s = &p->s[i];
        if (s->unit.roles != 1u << ASH_ROLE_OUTPUT) {
            s->diff = diff;
            diff += s->n * s->row;
        }
        if (s->kind == ASH_STREAM_NOISE || (s->unit.roles & (1u << ASH_ROLE_EMBD | 1u << ASH_ROLE_PLE_TABLE))) ASH_TRY(start_stream(p, s, err));
        if (s->kind == ASH_STREAM_IDENTITY) { /* goes through all the arithmetic with a difference of zero */
            memset(s->diff, 0, s->n * s->row * sizeof *s->diff);
            s->zero = false;
        }
    }
    return ASH_OK;
}

static void collect(const pass *p, const ash_sweep_part *w) {
    ash_sweep_book *b = &p->j->book;
    int probe = 0;
    for (uint32_t i = 0; i < p->n_streams; i++) {
        const ash_stream *s = &p->s[i];
        double mean = 0;
        for (uint32_t c = 0; c < s->n; c++) mean += s->kld[c] / s->n;
        if (s->kind == ASH_STREAM_UNIT) {
            ash_sweep_state *u = &b->u[w->take[i].unit];
            memcpy(u->kld + w->take[i].at, s->kld, s->n * sizeof(double));
            if (!u->encoded) u->rel_err = s->err[1] > 0 ? s->err[0] / s->err[1] : 0;
        } else if (s->kind == ASH_STREAM_PROBE) {
            memcpy(b->probe + (size_t)probe++ * b->n_probe + w->probes.at, s->kld, s->n * sizeof(double));
        } else {
            *(s->kind == ASH_STREAM_IDENTITY ? &b->identity : &b->noise) = mean;
        }
    }
}

void ash_sweep_advance(ash_sweep_book *b, const ash_sweep_part *w) {
    for (uint32_t i = 0; i < w->n_take; i++) {
        ash_sweep_state *u = &b->u[w->take[i].unit];
        u->n += w->take[i].n;
        u->encoded = 1;
        b->n_chunks = ASH_MAX(b->n_chunks, u->n);
    }
    if (w->probes.n) b->probed = 1;
}

ash_status ash_sweep_pass(ash_sweep_job *j, const ash_sweep_part *w, double macs, ash_error *err) {
    ash_status st = ASH_OK;
    const ash_model *m = j->m;
    const uint32_t n_take = w->n_take;
    pass p = {.j = j, .whole = j->whole, .state = ash_sweep_state_floats(m, j->T, j->whole)};
    p.L = (ash_dlayer){.m = m, .k = j->e.k, .T = j->T, .exact = j->exact};
    p.W = (ash_whole){.m = m, .k = j->e.k, .T = j->T};
    ash_layer_mem lm = {0};
    float *dw = NULL, *xs = NULL;
    uint16_t *diff = NULL;
    uint32_t *list = NULL;
    uint64_t diff_bytes = 0;
    bool spill = false;
    p.scratch_floats = thread_floats(m, j->T, p.whole);
    p.change = ash_calloc(ASH_DTYPE_MAX, sizeof *p.change);
    p.s = ash_calloc((size_t)n_take + ASH_SWEEP_EXTRA, sizeof *p.s);
    p.ids = ash_calloc(ASH_MAX(j->book.max_chunks, j->book.n_probe), sizeof *p.ids);
    if (!p.s || !p.ids || !p.change) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a pass of %u units", n_take);
        goto done;
    }
    choose_ids(&p, w);
    diff_bytes = list_streams(&p, w) * sizeof(uint16_t) + 64;
    spill = diff_bytes > j->o.mem_bytes;
    if (spill) {
        void *map = NULL;
        ASH_TRY_GOTO(ash_spill_map(j->o.spill_dir ? j->o.spill_dir : ".", diff_bytes, &map, err), done);
        diff = map;
    } else {
        diff = ash_alloc_aligned(diff_bytes, 64);
    }
    p.scratch = ash_alloc_aligned((size_t)j->e.n_threads * p.scratch_floats * sizeof(float), 64);
    xs = ash_alloc_aligned(2 * p.n_chunks * p.state * sizeof(float), 64);
    list = ash_calloc((size_t)n_take + ASH_SWEEP_EXTRA, sizeof *list);
    if (!diff || !p.scratch || !xs || !list) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a pass of %u units over %u chunks", n_take, p.n_chunks);
        goto done;
    }
    ASH_TRY_GOTO(ash_layer_mem_alloc(&lm, m, p.whole, err), done);
    if (!p.whole) ASH_TRY_GOTO(ash_layer_ropes(&p.L, err), done);
    const size_t layer_floats = ash_layer_change_floats(m);
    p.x = xs;
    p.next = xs + p.n_chunks * p.state;
    memset(xs, 0, p.n_chunks * p.state * sizeof(float)); /* lent keys and values do not exist yet */
    for (uint32_t c = 0; c < p.n_chunks; c++)
        ash_embed_tokens(m, j->e.k, j->tok + (size_t)p.ids[c] * (size_t)j->T, j->T, p.x + c * p.state);
    ASH_TRY_GOTO(start_streams(&p, diff, err), done);
    /* changed matrices of several types at once where they are small beside the budget, else one type at a time */
    uint64_t used = 0;
    for (uint32_t i = 0; i < p.n_streams; i++) used |= 1ull << p.s[i].unit.type;
    int sets = (int)ASH_MIN(ASH_MAX(j->o.mem_bytes / 4 / (layer_floats * sizeof(float)), 1u), (uint64_t)__builtin_popcountll(used));
    dw = ash_alloc_aligned((size_t)sets * layer_floats * sizeof(float), 64);
    if (!dw) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the changed matrices");
        goto done;
    }
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
    ASH_TRY_GOTO(ash_sweep_score(j, p.s, p.n_streams, p.x, p.state, p.ids, p.n_chunks, err), done);
    collect(&p, w);
    j->work_done += macs;
done:
    for (uint32_t i = 0; p.s && i < p.n_streams; i++) ash_free(p.s[i].kld);
    ash_free(p.s);
    ash_free(p.ids);
    ash_free(p.change);
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
