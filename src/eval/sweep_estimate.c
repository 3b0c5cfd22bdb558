/* sweep_estimate.c - what a sweep will cost in time, memory and disk. Time comes from the machine itself: the model's first layer is
 * unpacked, run as reference and as variant on every thread, its rows are encoded in the units' types, and the head is run on some
 * positions; the passes of the sweep are then played through with these times. */
#include "eval/sweep_int.h"

#include "eval/support.h"

#include <math.h>

typedef struct {
    const ash_exec *e;
    bool whole;
    ash_dlayer L;
    ash_whole W;
    const float *x; /* [T][E], or a state */
    float *scratch; /* per thread: reference, a difference, the layer's scratch; or rows to encode */
    size_t scratch_floats, ref_floats, row;
    int n_delta;
    ash_dtype type;
    _Atomic int failed;
} probe;

/* Seconds of the parts; those of chunks are with every thread busy, per chunk. */
typedef struct {
    double pack;                  /* a layer's weights */
    double ref, delta;            /* a chunk through a layer */
    double head;                  /* a position: logits and support set */
    double encode[ASH_DTYPE_MAX]; /* a weight */
} times;

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

static void whole_part(void *ctx, int64_t begin, int64_t end, int ith) {
    probe *p = ctx;
    float *out = p->scratch + (size_t)ith * p->scratch_floats;
    for (int64_t i = begin * (1 + p->n_delta); i < end * (1 + p->n_delta); i++) ash_whole_ref(&p->W, p->x, out, out + up16(p->row));
}

static void layer_part(void *ctx, int64_t begin, int64_t end, int ith) {
    probe *p = ctx;
    if (p->whole) {
        whole_part(ctx, begin, end, ith);
        return;
    }
    float *mem = p->scratch + (size_t)ith * p->scratch_floats, *d = mem + p->ref_floats, *scratch = d + up16(p->row);
    const float *dw[ASH_W_COUNT] = {0};
    ash_dref ref;
    ash_dref_place(&ref, p->L.m, p->L.T, mem);
    for (int64_t i = begin; i < end; i++) {
        memcpy(ref.x, p->x, p->row * sizeof(float));
        ash_dref_run(&p->L, &ref, scratch);
        for (int k = 0; k < p->n_delta; k++) {
            for (size_t j = 0; j < p->row; j++) d[j] = p->x[j] * 0.01f;
            ash_delta_run(&p->L, &ref, dw, false, d, scratch);
        }
    }
}

static void encode_part(void *ctx, int64_t begin, int64_t end, int ith) {
    probe *p = ctx;
    const int E = p->L.m->hp.n_embd;
    float *out = p->scratch + (size_t)ith * p->scratch_floats, *imp = out + up16((size_t)E), *tmp = imp + up16((size_t)E);
    for (int i = 0; i < E; i++) imp[i] = p->x[i] * p->x[i] + 1e-6f;
    for (int64_t i = begin; i < end; i++)
        if (ash_change_row(p->e->k, p->x + (size_t)(i % p->L.T) * (size_t)E, p->type, imp, E, out, tmp, NULL) != ASH_OK) p->failed = 1;
}

/* Seconds per item of fn with all threads busy, over at least min_s. */
static double time_items(const probe *p, ash_pool_fn fn, int64_t items, double min_s) {
    double t0 = ash_now(), dt;
    int64_t n = 0;
    do {
        ash_pool_run(p->e->pool, items, 1, fn, (void *)(uintptr_t)p);
        n += items;
        dt = ash_now() - t0;
    } while (dt < min_s);
    return dt / (double)n;
}

static ash_status time_head(const probe *p, double *per_position, ash_error *err) {
    const ash_model *m = p->L.m;
    const int E = m->hp.n_embd, n = ASH_MIN(p->L.T, ash_head_block(m, 1, 64ull << 20)); /* unpacking the head pays for many */
    ash_status st = ASH_OK;
    float *h = ash_alloc_aligned((size_t)n * (size_t)E * sizeof(float), 64),
          *logits = ash_alloc_aligned((size_t)n * (size_t)m->hp.n_vocab * sizeof(float), 64);
    void *hs = ash_alloc_aligned(ash_head_scratch_bytes(p->e, m), 64);
    ash_support *sup = ash_calloc(1, sizeof *sup);
    if (!h || !logits || !hs || !sup) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for an estimate");
        goto done;
    }
    memset(logits, 0, (size_t)n * (size_t)m->hp.n_vocab * sizeof(float)); /* pages are there */
    ash_final_norm(m, p->e->k, p->x, n, h);
    double t0 = ash_now();
    ash_head_logits(p->e, m, h, n, logits, hs);
    double t1 = ash_now();
    p->e->k->softmax(logits, (int)m->hp.n_vocab);
    ash_support_choose(sup, logits, m->hp.n_vocab, 1);
    *per_position = (t1 - t0) / n + (ash_now() - t1) / p->e->n_threads;
done:
    ash_free(h);
    ash_free(logits);
    ash_free(hs);
    ash_free(sup);
    return st;
}

static ash_status measure(times *t, const ash_exec *e, const ash_model *m, int T, uint64_t types, ash_error *err) {
    const size_t E = (size_t)m->hp.n_embd;
    ash_status st = ASH_OK;
    probe p = {.e = e, .L = {.m = m, .k = e->k, .T = T}, .W = {.m = m, .k = e->k, .T = T}, .whole = !ash_model_plain(m, NULL, 0)};
    p.row = ash_sweep_state_floats(m, T, p.whole);
    ash_layer_mem lm = {0};
    float *x = NULL;
    ash_token *tok = ash_calloc((size_t)T, sizeof *tok);
    p.ref_floats = up16(ash_dref_floats(m, T));
    p.scratch_floats = p.whole ? up16(p.row) + ash_whole_scratch_floats(m, T) : p.ref_floats + up16(p.row) + ash_delta_scratch_floats(m, T);
    p.scratch_floats = ASH_MAX(p.scratch_floats, 2 * up16(E) + up16(ash_change_row_floats((int)E)));
    p.scratch = ash_alloc_aligned((size_t)e->n_threads * p.scratch_floats * sizeof(float), 64);
    x = ash_alloc_aligned(p.row * sizeof(float), 64);
    if (!tok || !p.scratch || !x) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for an estimate");
        goto done;
    }
    memset(x, 0, p.row * sizeof(float));
    ASH_TRY_GOTO(ash_layer_mem_alloc(&lm, m, p.whole, err), done);
    if (!p.whole) ASH_TRY_GOTO(ash_layer_ropes(&p.L, err), done);
    for (int i = 0; i < T; i++) tok[i] = (ash_token)((int64_t)m->hp.n_vocab * (i + 1) / (T + 2));
    ash_embed_tokens(m, e->k, tok, T, x);
    p.x = x;
    double t0 = 0;
    for (int i = 0; i < 2; i++) { /* the first time pages come in */
        t0 = ash_now();
        if (p.whole) ash_layer_pack(e, &lm, m, 0, p.W.packed);
        else ash_layer_weights(e, &lm, 0, &p.L);
    }
    t->pack = ash_now() - t0;
    time_items(&p, layer_part, e->n_threads, 0); /* threads awake, caches warm */
    t->ref = time_items(&p, layer_part, e->n_threads, 0.1);
    p.n_delta = 6;
    t->delta = (time_items(&p, layer_part, e->n_threads, 0.2) - t->ref) / p.n_delta;
    t->delta = ASH_MAX(t->delta, t->ref / 64);
    double macs = 0; /* layers may have several shapes: times of the average one */
    for (int l = 0; l < m->hp.n_layer; l++) macs += ash_sweep_layer_macs(m, T, l) / m->hp.n_layer;
    macs /= ash_sweep_layer_macs(m, T, 0);
    t->pack *= macs, t->ref *= macs, t->delta *= macs;
    for (int k = 0; k < ASH_DTYPE_MAX; k++)
        if (types >> k & 1) {
            p.type = (ash_dtype)k;
            t->encode[k] = time_items(&p, encode_part, 4 * (int64_t)e->n_threads, 0.02) / (double)E;
        }
    if (p.failed) {
        st = ash_fail(err, ASH_E_INTERNAL, "a type of the sweep could not encode a row of the model");
        goto done;
    }
    st = time_head(&p, &t->head, err);
done:
    ash_layer_mem_free(&lm);
    ash_layer_ropes_free(&p.L);
    ash_free(p.scratch);
    ash_free(x);
    ash_free(tok);
    return st;
}

/* Relative standard deviation over chunks that a unit's ratio to the probes has: share of units, deviation. From 210 units of
 * SmolLM2 135M at IQ4_NL, chunks of 32 tokens. */
static const struct {
    double share, sd;
} k_spread[] = {{.1, .22}, {.1, .26}, {.1, .30}, {.1, .33}, {.1, .38},  {.1, .43},
                {.1, .49}, {.1, .58}, {.1, .70}, {.06, .9}, {.03, 1.2}, {.01, 2.0}};

static double chunks_needed(const ash_sweep_opts *o, size_t k) {
    const double n0 = ASH_MAX(o->min_chunks, 24u);
    double v = (4 * 0.29 + (n0 - 1) * k_spread[k].sd * k_spread[k].sd) / (n0 + 3),
           n = 2.1 * 2.1 * v / (o->until * o->until) * 1.15; /* as sweep_stat.c; the probe's share */
    return n < o->min_chunks ? o->min_chunks : n > o->max_chunks ? o->max_chunks : n;
}

ash_status ash_sweep_estimate(ash_sweep_cost *c, const ash_model *m, const ash_sweep_unit *units, size_t n, const ash_sweep_opts *opts,
                              ash_error *err) {
    *c = (ash_sweep_cost){0};
    ash_sweep_opts o = ash_sweep_filled(opts);
    const int T = (int)o.n_ctx;
    const double L = m->hp.n_layer, scored = T - (double)o.skip;
    times t = {0};
    ash_exec e = {0};
    uint64_t types = 0;
    for (size_t i = 0; i < n; i++) types |= 1ull << units[i].type;
    types &= ~(1ull << ASH_F32);
    ASH_TRY(ash_exec_init(&e, o.n_threads, o.cpu_level, err));
    ash_status st = measure(&t, &e, m, T, types, err);
    const int n_threads = e.n_threads;
    ash_exec_free(&e);
    if (st != ASH_OK) return st;

    const bool whole = !ash_model_plain(m, NULL, 0);
    double layer_macs = 0;
    for (int l = 0; l < m->hp.n_layer; l++) layer_macs += ash_sweep_layer_macs(m, T, l) * T / L;
    const double macs = ash_sweep_macs(m, T, units, n);
    double encode = 0, n_weights = 0; /* seconds and weights of a pass with all units */
    for (size_t i = 0; i < n; i++)
        for (int r = 0; r < ASH_ROLE_COUNT; r++) {
            ash_part p;
            if (!(units[i].roles & 1u << r) || !ash_part_of(m, units[i].layer, r, &p)) continue;
            double rows =
                ASH_ROLES_LAYER >> r & 1 ? (double)p.w->n_rows * p.n_mat * (units[i].layer < 0 ? L : 1) : (double)ASH_MIN(p.w->n_rows, (int64_t)120000);
            if (r == ASH_ROLE_PLE_TABLE) rows = ASH_MIN(rows, 64.0 * T); /* only tokens that occur */
            encode += rows * p.w->K * t.encode[units[i].type];
            n_weights += rows * p.w->K;
        }
    const double per_chunk = L * t.ref + scored * t.head;
    if (n >= ASH_SWEEP_PROBE_UNITS) /* ffn_down once more in float32, and three streams of 1, 2/3, 1/3 of the layers */
        c->seconds += ASH_SWEEP_PROBE_CHUNKS * (per_chunk + L * t.ref / 4 + 2 * L * t.delta) + L * t.pack;
    /* the passes: all units take the least number of chunks, then each what it lacks, up to 1.2 times what it has */
    double have[ASH_ARRAY_LEN(k_spread)] = {0}, most_takes = 0, most_chunks = 0;
    const double room = (double)(o.mem_bytes / ash_sweep_diff_bytes(m, T, whole, 1));
    for (;;) {
        double act = 0, takes = 0, longest = 0, least = o.max_chunks;
        for (size_t k = 0; k < ASH_ARRAY_LEN(k_spread); k++) {
            double units_k = k_spread[k].share * (double)n, need = chunks_needed(&o, k);
            if (need <= have[k]) continue;
            double want = have[k] < o.min_chunks ? o.min_chunks - have[k] : ASH_MIN(need * 1.1 - have[k], 1.2 * have[k]);
            want = ASH_MIN(ASH_MIN(want, o.max_chunks - have[k]), ASH_MAX(1, room / (double)n)); /* roughly as the budget cuts */
            act += units_k;
            takes += units_k * want;
            least = ASH_MIN(least, have[k]);
            have[k] += want;
            longest = ASH_MAX(longest, have[k]);
        }
        if (act < 0.5) break;
        double chunks = longest - least, groups = ASH_MAX(ASH_MIN(ceil(8.0 * n_threads / chunks), floor(act / 16)), 1.0);
        c->seconds += L * t.pack + act / (double)n * encode + chunks * (L * t.ref * groups + scored * t.head) +
                      takes / (double)n * macs / layer_macs * t.delta;
        c->macs += takes / (double)n * macs;
        c->chunks += takes / (double)n;
        most_takes = ASH_MAX(most_takes, takes);
        most_chunks = ASH_MAX(most_chunks, chunks);
    }
    uint64_t diff = ash_sweep_diff_bytes(m, T, whole, (uint64_t)most_takes);
    if (diff > o.mem_bytes) c->disk_bytes = diff;
    c->mem_bytes = (diff > o.mem_bytes ? 0 : diff) + ash_sweep_rest_bytes(m, n_threads, T, whole, (uint64_t)most_chunks);
    c->forward_rate = layer_macs / t.ref;
    c->head_rate = 1 / t.head;
    c->encode_rate = encode > 0 ? n_weights / encode : 0;
    return ASH_OK;
}
