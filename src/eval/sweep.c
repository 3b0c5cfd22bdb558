/* sweep.c - the knockout sweep: units, passes until the intervals are good, checkpoints, cost. */
#include "eval/sweep_int.h"

#include "ashlar/quant.h"
#include "eval/imatrix.h"
#include "eval/ranks.h"

#include <math.h>

static const char *const ROLE_NAMES[ASH_ROLE_COUNT] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "token_embd", "output",
                                                       "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "inp_gate", "proj", "per_layer_token_embd", "per_layer_model_proj"};

_Static_assert((int)ASH_ROLE_Q == (int)ASH_W_Q && (int)ASH_ROLE_DOWN == (int)ASH_W_DOWN && (int)ASH_ROLE_N_LAYER == (int)ASH_W_COUNT, "roles are the model's");

const char *ash_role_name(int role) { return role >= 0 && role < ASH_ROLE_COUNT ? ROLE_NAMES[role] : "?"; }

int ash_role_parse(const char *s, size_t n) {
    for (int i = 0; i < ASH_ROLE_COUNT; i++)
        if (strlen(ROLE_NAMES[i]) == n && memcmp(ROLE_NAMES[i], s, n) == 0) return i;
    return -1;
}

ash_sweep_opts ash_sweep_defaults(void) {
    return (ash_sweep_opts){.n_ctx = 32, .skip = 8, .min_chunks = 16, .max_chunks = 2048, .until = 0.2, .cpu_level = -1, .seed = 1, .mem_bytes = 512000000};
}

ash_sweep_opts ash_sweep_filled(const ash_sweep_opts *o) {
    ash_sweep_opts d = ash_sweep_defaults(), r = *o;
    if (!r.n_ctx) r.n_ctx = d.n_ctx;
    if (!r.skip) r.skip = d.skip;
    if (!r.min_chunks) r.min_chunks = d.min_chunks;
    if (!r.max_chunks) r.max_chunks = d.max_chunks;
    if (!(r.until > 0)) r.until = d.until;
    if (!r.mem_bytes) r.mem_bytes = d.mem_bytes;
    if (r.max_chunks < r.min_chunks) r.max_chunks = r.min_chunks;
    return r;
}

/* ---- units ---- */
enum { TABLES = ~ASH_ROLES_LAYER & ((1u << ASH_ROLE_COUNT) - 1) };

/* The roles that read the same tensor as r, if r is the first of them in this layer; 0 otherwise. */
static uint32_t fused_roles(const ash_model *m, int layer, int r) {
    ash_part p, q;
    uint32_t roles = 1u << r;
    if (!ash_part_of(m, layer, r, &p)) return 0;
    for (int o = 0; o < ASH_ROLE_COUNT; o++) {
        if (o == r || !(ASH_ROLES_LAYER >> o & 1) || !ash_part_of(m, layer, o, &q) || q.name != p.name) continue;
        if (o < r) return 0;
        roles |= 1u << o;
    }
    return roles;
}

/* For a role of every layer: as the first layer that has it. */
static uint32_t class_roles(const ash_model *m, int r) {
    ash_part p;
    for (int l = 0; l < m->hp.n_layer; l++)
        if (ash_part_of(m, l, r, &p)) return fused_roles(m, l, r);
    return 0;
}

ash_status ash_sweep_units(ash_sweep_unit **out, size_t *n_out, const ash_model *m, char grain, const ash_dtype *types, size_t n_types,
                           const ash_dtype *table_types, size_t n_table_types, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    if (grain != 't' && grain != 'l' && grain != 'c') return ash_fail(err, ASH_E_USAGE, "unit must be tensor, layer or class");
    size_t L = (size_t)m->hp.n_layer, cap = (L * ASH_ROLE_COUNT + 1) * (n_types + 1) + ASH_ROLE_COUNT * n_table_types;
    ash_sweep_unit *u = ash_calloc(cap, sizeof *u);
    if (!u) return ash_fail(err, ASH_E_NOMEM, "out of memory for %zu units", cap);
    size_t n = 0;
    for (size_t l = 0; l < (grain == 'c' ? 1 : L); l++)
        for (int r = 0; r < (grain == 'l' ? 1 : ASH_ROLE_COUNT); r++) {
            if (!(ASH_ROLES_LAYER >> r & 1)) continue;
            const uint32_t roles = grain == 'l' ? ASH_ROLES_LAYER : grain == 'c' ? class_roles(m, r) : fused_roles(m, (int)l, r);
            for (size_t t = 0; roles && t < n_types; t++) u[n++] = (ash_sweep_unit){grain == 'c' ? -1 : (int32_t)l, roles, types[t]};
        }
    ash_part p;
    for (size_t t = 0; t < n_types && ash_part_of(m, 0, ASH_ROLE_PLE_IN, &p); t++) u[n++] = (ash_sweep_unit){-1, 1u << ASH_ROLE_PLE_IN, types[t]};
    for (size_t t = 0; t < n_table_types; t++)
        for (int r = 0; r < ASH_ROLE_COUNT; r++)
            if (TABLES >> r & 1 && r != ASH_ROLE_PLE_IN && ash_part_of(m, 0, r, &p)) u[n++] = (ash_sweep_unit){-1, 1u << r, table_types[t]};
    *out = u;
    *n_out = n;
    return ASH_OK;
}

void ash_sweep_units_free(ash_sweep_unit *u) { ash_free(u); }

const char *ash_unit_tensor(const ash_model *m, const ash_sweep_unit *u) {
    const char *name = NULL;
    for (int r = 0; r < ASH_ROLE_COUNT; r++) {
        ash_part p;
        if (!(u->roles & 1u << r)) continue;
        if ((u->layer < 0 && !(TABLES >> r & 1)) || !ash_part_of(m, u->layer, r, &p) || (name && name != p.name)) return NULL;
        name = p.name;
    }
    return name;
}

static ash_status check_units(const ash_model *m, const ash_sweep_unit *u, size_t n, ash_error *err) {
    if (n == 0 || n > 1u << 20) return ash_fail(err, ASH_E_USAGE, "%zu units to sweep is not possible", n);
    if (!m->hp.causal) return ash_fail(err, ASH_E_UNSUPPORTED, "architecture %s does not predict tokens: a sweep measures what it predicts", ash_model_arch(m));
    for (size_t i = 0; i < n; i++) {
        if (u[i].roles == 0 || u[i].roles >= 1u << ASH_ROLE_COUNT || u[i].layer < -1 || u[i].layer >= m->hp.n_layer)
            return ash_fail(err, ASH_E_USAGE, "unit %zu: layer %d, roles 0x%x are not in this model", i, u[i].layer, u[i].roles);
        if ((u[i].roles & TABLES) && (u[i].layer != -1 || (u[i].roles & (u[i].roles - 1))))
            return ash_fail(err, ASH_E_USAGE, "unit %zu: a table is a unit of its own", i);
        ash_part p;
        if ((u[i].roles & TABLES) && !ash_part_of(m, 0, __builtin_ctz(u[i].roles), &p))
            return ash_fail(err, ASH_E_USAGE, "unit %zu: the model has no %s tensor%s", i, ash_role_name(__builtin_ctz(u[i].roles)), m->tied ? " (tied)" : "");
        if (u[i].type != ASH_F32 && !ash_quant_can(u[i].type))
            return ash_fail(err, ASH_E_UNSUPPORTED, "unit %zu: %s cannot be encoded", i, ash_dtype_name(u[i].type));
    }
    return ASH_OK;
}

/* ---- the job's identity ---- */
static uint64_t job_hash(const ash_model *m, const ash_token *tok, size_t n_tok, const ash_imatrix *im, const ash_sweep_unit *u, size_t n,
                         const ash_sweep_opts *o) {
    uint64_t h[8] = {0};
    const ash_gguf *g = m->gguf;
    for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) { /* names, shapes and the first bytes of every tensor */
        const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
        uint64_t x[4] = {h[0], ash_hash64(t->name, strlen(t->name)), t->n_bytes, ash_hash64(t->data, (size_t)ASH_MIN(t->n_bytes, 65536u))};
        h[0] = ash_hash64(x, sizeof x);
    }
    h[1] = ash_hash64(tok, n_tok * sizeof *tok);
    for (size_t i = 0; i < n; i++) {
        uint64_t x[4] = {h[2], (uint64_t)(uint32_t)u[i].layer, u[i].roles, (uint64_t)u[i].type};
        h[2] = ash_hash64(x, sizeof x);
    }
    for (size_t i = 0; im && i < ash_imatrix_n(im); i++) {
        ash_imatrix_entry e = ash_imatrix_at(im, i);
        uint64_t x[2] = {h[3], ash_hash64(e.sum2, e.n * sizeof(float))};
        h[3] = ash_hash64(x, sizeof x);
    }
    h[4] = (uint64_t)o->n_ctx << 32 | o->skip;
    h[5] = (uint64_t)o->min_chunks << 32 | o->max_chunks;
    memcpy(&h[6], &o->until, 8);
    h[7] = o->seed ^ o->mem_bytes * 31; /* the budget decides how many chunks a pass takes */
    return ash_hash64(h, sizeof h);
}

/* A step through n chunks that visits each once and at any time has been nearly everywhere: n times the golden ratio, made
 * coprime to n. */
static size_t golden_step(size_t n) {
    for (size_t s = ASH_MAX((size_t)((double)n * 0.6180339887498949), (size_t)1);; s++) {
        size_t a = n, b = s;
        while (b) {
            size_t r = a % b;
            a = b;
            b = r;
        }
        if (a == 1) return s;
    }
}

/* The text is cut into chunks; they are taken in an order that is spread over the whole text whatever number of them is used in
 * the end. */
static ash_status choose_chunks(ash_sweep_job *j, const ash_eval_text *t, size_t n_units, ash_error *err) {
    size_t T = (size_t)j->T, have = t->n / T, M = ASH_MIN((size_t)j->o.max_chunks, have);
    if (have < j->o.min_chunks)
        return ash_fail(err, ASH_E_RANGE, "the text has %zu tokens; %u chunks of %d are the least a sweep needs", t->n, j->o.min_chunks, j->T);
    if (n_units >= ASH_SWEEP_PROBE_UNITS && have >= 4 * (size_t)ASH_SWEEP_PROBE_CHUNKS) j->n_probe = ASH_SWEEP_PROBE_CHUNKS;
    j->o.max_chunks = (uint32_t)M;
    M = ASH_MAX(M, (size_t)j->n_probe);
    j->tok = ash_calloc(M * T, sizeof *j->tok);
    if (!j->tok) return ash_fail(err, ASH_E_NOMEM, "out of memory for %zu chunks", M);
    ash_rng rng;
    ash_rng_seed(&rng, j->o.seed);
    size_t at = ash_rng_below(&rng, have), step = golden_step(have);
    for (size_t c = 0; c < M; c++, at = (at + step) % have) {
        memcpy(j->tok + c * T, t->tokens + at * T, T * sizeof *j->tok);
        if (t->add_bos && t->bos >= 0) j->tok[c * T] = t->bos;
    }
    for (size_t i = 0; i < M * T; i++)
        if (j->tok[i] < 0 || j->tok[i] >= j->m->hp.n_vocab)
            return ash_fail(err, ASH_E_RANGE, "token %d is outside the model's vocabulary of %d", (int)j->tok[i], j->m->hp.n_vocab);
    return ASH_OK;
}

/* ---- how many chunks next ---- */
static void unit_stat(const ash_sweep_job *j, size_t i, double *mean, double *half) {
    ash_sweep_stat(&j->book, &j->units[i], (uint32_t)i, j->m->hp.n_layer, mean, half);
}

static void know_average(ash_sweep_job *j) {
    if (!(j->book.pooled > 0) && j->book.n_chunks >= j->o.min_chunks) ash_sweep_pool(&j->book, j->units, j->m->hp.n_layer, j->o.min_chunks);
}

/* Marks finished units; returns the active ones. */
static uint32_t active_units(ash_sweep_job *j, uint32_t *act) {
    uint32_t n = 0;
    know_average(j);
    for (uint32_t i = 0; i < j->book.n_units; i++) {
        ash_sweep_state *u = &j->book.u[i];
        if (u->done) continue;
        double mean, half;
        unit_stat(j, i, &mean, &half);
        if ((u->n >= j->o.min_chunks && half <= j->o.until * mean) || u->n >= j->o.max_chunks || (u->n && mean == 0)) u->done = 1;
        else act[n++] = i;
    }
    return n;
}

/* What the active units take in the next pass: the least number at first, then what each is expected to need and a tenth more (to encode
 * a matrix once more costs as much as a chunk or two), but little more than doubling what it has: an early interval may owe its width to one
 * chunk. The memory budget cuts the longest. */
static uint32_t plan_pass(const ash_sweep_job *j, const uint32_t *act, uint32_t n, ash_sweep_take *take) {
    uint64_t total = 0;
    uint32_t longest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t have = j->book.u[act[i]].n, want, least = (ASH_SWEEP_WORTH_A_PASS + n - 1) / n;
        if (have < j->o.min_chunks) {
            want = j->o.min_chunks - have;
        } else {
            double mean, half;
            unit_stat(j, act[i], &mean, &half);
            double r = half / (j->o.until * mean);
            want = (uint32_t)ceil(have * (ASH_MIN((have < 64 ? 1.1 : 1.02) * r * r, 2.2) - 1));
            want = ASH_MAX(want, ASH_MAX(least, 3u));
        }
        take[i] = (ash_sweep_take){act[i], have, ASH_MIN(want, j->o.max_chunks - have)};
        total += take[i].n;
        longest = ASH_MAX(longest, take[i].n);
    }
    uint64_t fit = j->o.mem_bytes / ash_sweep_diff_bytes(j->m, j->T, j->whole, 1), states = j->o.mem_bytes / (8 * ash_sweep_state_floats(j->m, j->T, j->whole));
    uint32_t cap = ASH_MIN(longest, (uint32_t)ASH_SWEEP_PASS_CHUNKS);
    if (j->whole && states < cap) cap = (uint32_t)ASH_MAX(states, 4u); /* the reference's states have no spill */
    for (; cap > 0 && total + 2 * cap > fit; cap--) /* two for the controls */
        for (uint32_t i = 0; i < n; i++)
            if (take[i].n >= cap) total -= take[i].n - (cap - 1), take[i].n = cap - 1;
    if (cap == 0) cap = 4; /* not even one chunk each: to disk then */
    for (uint32_t i = 0; i < n; i++) {
        if (take[i].n == 0) take[i].n = ASH_MIN(cap, j->o.max_chunks - j->book.u[act[i]].n);
        take[i].n = ASH_MIN(take[i].n, cap);
    }
    return n;
}

static ash_status run_passes(ash_sweep_job *j, ash_error *err) {
    uint32_t *act = ash_calloc(j->book.n_units, sizeof *act);
    ash_sweep_take *take = ash_calloc(j->book.n_units, sizeof *take);
    ash_status st = ASH_OK;
    if (!act || !take) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory");
        goto done;
    }
    if (j->book.n_probe && !j->book.probed) {
        double probes = ash_sweep_probe_macs(j->m, j->T) * j->book.n_probe;
        j->work_total = probes + ash_sweep_macs(j->m, j->T, j->units, j->book.n_units) * j->o.min_chunks;
        ASH_TRY_GOTO(ash_sweep_round(j, &(ash_sweep_part){.probes = {0, 0, j->book.n_probe}}, err), done);
        if (j->o.checkpoint) ASH_TRY_GOTO(ash_book_save(&j->book, j->o.checkpoint, err), done);
    }
    for (;;) {
        uint32_t n = active_units(j, act);
        if (n == 0) break;
        n = plan_pass(j, act, n, take);
        j->work_total = j->work_done + ash_sweep_take_macs(j, take, n);
        for (uint32_t i = 0; i < n; i++) /* passes that are sure to come */
            if (j->book.u[take[i].unit].n + take[i].n < j->o.min_chunks)
                j->work_total += (j->o.min_chunks - j->book.u[take[i].unit].n - take[i].n) * ash_sweep_macs(j->m, j->T, &j->units[take[i].unit], 1);
        ash_sweep_part w = {.take = take, .n_take = n};
        if (j->book.n_chunks == 0) w.controls = take[0];
        ASH_TRY_GOTO(ash_sweep_round(j, &w, err), done);
        if (j->book.identity != 0) {
            st = ash_fail(err, ASH_E_INTERNAL, "the identity control gave a divergence of %g instead of 0", j->book.identity);
            goto done;
        }
        active_units(j, act);
        if (j->o.checkpoint) ASH_TRY_GOTO(ash_book_save(&j->book, j->o.checkpoint, err), done);
    }
done:
    ash_free(act);
    ash_free(take);
    return st;
}

ash_status ash_sweep_run_job(ash_sweep_job *j, ash_error *err) {
    if (ash_ranks_first(j->o.ranks)) return ash_sweep_over(j, run_passes(j, err), err);
    for (bool over = false; !over;) ASH_TRY(ash_sweep_follow(j, &over, err));
    know_average(j);
    return ASH_OK;
}

/* The checkpoint rank 0 has, in every rank's book. */
static ash_status load_checkpoint(ash_sweep_job *j, ash_error *err) {
    ash_buf b = {0};
    ash_error e = {0};
    if (ash_ranks_first(j->o.ranks) && j->o.checkpoint && ash_file_read(j->o.checkpoint, 1ull << 30, &b, &e) != ASH_OK) ash_buf_reset(&b); /* none yet */
    ash_status st = ash_ranks_share(j->o.ranks, &b, err);
    if (st == ASH_OK && b.n) {
        st = ash_book_parse(&j->book, b.p, b.n, err);
        if (st != ASH_OK && j->o.checkpoint) ash_error_prefix(err, "%s", j->o.checkpoint);
    }
    ash_buf_free(&b);
    return st;
}

/* What every rank checks and makes for itself. */
static ash_status prepare(ash_sweep_job *j, const ash_eval_text *t, size_t n, ash_error *err) {
    if (j->o.n_ctx < 8 || j->o.n_ctx > 1u << 16 || j->o.skip + 1 > j->o.n_ctx)
        return ash_fail(err, ASH_E_USAGE, "chunks of %u tokens with %u not scored are not possible", j->o.n_ctx, j->o.skip);
    ASH_TRY(check_units(j->m, j->units, n, err));
    ASH_TRY(ash_exec_init(&j->e, j->o.n_threads, j->o.cpu_level, err));
    return choose_chunks(j, t, n, err);
}

static ash_status same_job(const ash_sweep_job *j, uint64_t job, ash_error *err) {
    const ash_ranks *r = j->o.ranks;
    uint64_t *all = ash_calloc((size_t)ash_ranks_n(r), sizeof *all);
    if (!all) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ash_status st = ash_ranks_gather_same(r, &job, sizeof job, all, err);
    for (int i = 1; st == ASH_OK && i < ash_ranks_n(r); i++)
        if (all[i] != all[0]) st = ash_fail(err, ASH_E_STATE, "process %d has another job than process 0: model, text, units or options differ", i);
    ash_free(all);
    return st;
}

ash_status ash_sweep_run(ash_sweep_result *res, ash_model *m, const ash_eval_text *t, const ash_imatrix *im, const ash_sweep_unit *units, size_t n,
                         const ash_sweep_opts *o, ash_error *err) {
    *res = (ash_sweep_result){0};
    double t0 = ash_now();
    ash_status st = ASH_OK;
    ash_sweep_job j = {.m = m, .im = im, .units = units, .o = ash_sweep_filled(o)};
    j.T = (int)j.o.n_ctx;
    j.whole = !ash_model_plain(m, NULL, 0);
    ash_imatrix *shared = NULL;
    ASH_TRY_GOTO(ash_ranks_agree(j.o.ranks, prepare(&j, t, n, err), err), done);
    ASH_TRY_GOTO(ash_imatrix_share(&shared, im, j.o.ranks, err), done);
    if (!ash_ranks_first(j.o.ranks)) j.im = shared;
    uint64_t job = job_hash(m, j.tok, (size_t)j.T * ASH_MAX(j.o.max_chunks, j.n_probe), j.im, units, n, &j.o);
    ASH_TRY_GOTO(same_job(&j, job, err), done);
    ASH_TRY_GOTO(ash_book_init(&j.book, (uint32_t)n, j.o.max_chunks, j.n_probe, job, err), done);
    ASH_TRY_GOTO(load_checkpoint(&j, err), done);
    ASH_TRY_GOTO(ash_sweep_run_job(&j, err), done);
    res->rows = ash_calloc(n, sizeof *res->rows);
    if (!res->rows) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the results");
        goto done;
    }
    res->n_rows = n;
    for (size_t i = 0; i < n; i++) {
        ash_sweep_row *r = &res->rows[i];
        r->unit = units[i];
        r->tensor = ash_unit_tensor(m, &units[i]);
        unit_stat(&j, i, &r->kld, &r->half);
        r->n_chunks = j.book.u[i].n;
        r->rel_err = j.book.u[i].rel_err;
        r->dead = true;
        for (int l = ASH_MAX(units[i].layer, 0); l < (units[i].layer < 0 ? m->hp.n_layer : units[i].layer + 1); l++)
            for (int role = 0; role < ASH_ROLE_COUNT; role++) {
                ash_part p;
                if (!(units[i].roles & 1u << role) || !ash_part_of(m, l, role, &p) || (TABLES >> role & 1 && l > 0)) continue;
                uint64_t cols = ash_padded_cols(units[i].type, (uint64_t)p.w->K);
                r->dead = false;
                r->widened |= cols != (uint64_t)p.w->K;
                r->bytes += (uint64_t)p.n_mat * (uint64_t)p.w->n_rows * ash_dtype_row_bytes(units[i].type, cols);
            }
    }
    res->noise_floor = j.book.noise;
    res->identity = j.book.identity;
    res->n_chunks = j.book.n_chunks;
    res->n_ctx = j.o.n_ctx;
    res->n_scored = j.o.n_ctx - j.o.skip;
    memcpy(res->text_sha256, t->sha256, sizeof res->text_sha256);
    res->seconds = ash_now() - t0;
done:
    ash_exec_free(&j.e);
    ash_free(j.tok);
    ash_free(j.speed);
    ash_imatrix_free(shared);
    ash_book_free(&j.book);
    if (st != ASH_OK) ash_sweep_result_free(res);
    return st;
}

void ash_sweep_result_free(ash_sweep_result *r) {
    if (!r) return;
    ash_free(r->rows);
    r->rows = NULL;
    r->n_rows = 0;
}
