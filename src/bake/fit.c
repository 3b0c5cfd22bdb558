/* fit.c - the stages of a fit in order: open, budget, texts, importance, sweep, planners, refine (fit_refine.c), quantize,
 * prove (fit_prove.c). Each long stage leaves its result in the work directory and is skipped when it is there already. */
#include "bake/fit_int.h"

#include "model/model_int.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const uint64_t PROGRAM_BYTES = 16u << 20;
static const double MAX_OVERLAP = 0.001;

ash_fit_opts ash_fit_defaults(void) { return (ash_fit_opts){.widen = -1, .controls = 3, .effort = ASH_EFFORT_NORMAL, .seed = 1}; }
const ash_report *ash_fit_report(const ash_fit_result *r) { return &r->report; }
const ash_recipe *ash_fit_recipe(const ash_fit_result *r) { return r->recipe; }

void ash_fit_result_free(ash_fit_result *r) {
    if (!r) return;
    ash_recipe_free(r->recipe);
    ash_free(r->cells);
    ash_arena_free(&r->arena);
    ash_free(r);
}

ash_status ash_fit_budget(uint64_t *bytes, const ash_gguf *g, ash_model *m, ash_budget_kind kind, double amount, uint32_t n_ctx, ash_error *err) {
    if (!(amount > 0) || amount > 1e17) return ash_fail(err, ASH_E_USAGE, "the budget must be a positive amount");
    if (kind == ASH_BUDGET_SIZE) return *bytes = (uint64_t)amount, ASH_OK;
    if (kind == ASH_BUDGET_BPW) {
        double w = 0;
        for (size_t i = 0; i < ash_gguf_n_tensors(g); i++) {
            const ash_gguf_tensor *t = ash_gguf_tensor_at(g, i);
            w += (double)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
        }
        if (amount > 64) return ash_fail(err, ASH_E_USAGE, "%g bits per weight is no budget", amount);
        *bytes = (uint64_t)(amount * w / 8);
        return ASH_OK;
    }
    if (kind != ASH_BUDGET_RAM) return ash_fail(err, ASH_E_USAGE, "what a budget of divergence takes is known by measuring only");
    if (!m) return ash_fail(err, ASH_E_USAGE, "a RAM budget needs the model");
    ash_session *s;
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = n_ctx ? n_ctx : 2048;
    o.precision = ASH_PREC_FAST;
    ASH_TRY(ash_session_new(&s, m, &o, err));
    uint64_t used = ash_session_bytes(s) + PROGRAM_BYTES;
    ash_session_free(s);
    if (amount <= (double)used)
        return ash_fail(err, ASH_E_LIMIT, "a RAM budget of %.1f MB leaves nothing for weights: %u tokens of context and scratch take %.1f MB", amount / 1e6, o.n_ctx, (double)used / 1e6);
    *bytes = (uint64_t)amount - used;
    return ASH_OK;
}

/* Smallest file the allowed types give, without encoding anything. */
static ash_status smallest(uint64_t *bytes, const fit *f, uint32_t widen, ash_error *err) {
    static const ash_dtype all[] = {ASH_Q2_K, ASH_Q3_K, ASH_IQ4_XS, ASH_Q4_0, ASH_IQ4_NL, ASH_Q8_0, ASH_F16};
    const ash_dtype *types = f->o->types ? f->o->types : all;
    size_t n_types = f->o->types ? f->o->n_types : ASH_ARRAY_LEN(all);
    ash_widen *w = NULL;
    bool own_head = ash_gguf_find_tensor(f->src, "output.weight") != NULL;
    if (widen) ASH_TRY(ash_widen_new(&w, f->src, widen, err));
    ash_status st = ash_bake_fixed_bytes(bytes, f->src, widen, err);
    uint64_t al = ash_gguf_alignment(f->src);
    for (size_t i = 0; i < ash_gguf_n_tensors(f->src) && st == ASH_OK; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(f->src, i);
        uint64_t ne[ASH_GGUF_MAX_DIMS], best = t->n_bytes;
        if (!ash_plan_is_matrix(t)) continue;
        if (f->o->budget == ASH_BUDGET_RAM && own_head && strcmp(t->name, "token_embd.weight") == 0) continue;
        ash_widen_shape(w, f->src, i, ne);
        if (memcmp(ne, t->ne, sizeof ne) != 0) best = UINT64_MAX;
        for (size_t k = 0; k < n_types; k++) {
            uint64_t b;
            if (!ash_mul_ovf(ash_dtype_row_bytes(types[k], ne[0]), ne[1] * ne[2] * ne[3], &b) && b && b < best) best = b;
        }
        if (best == UINT64_MAX) *bytes = UINT64_MAX / 2; /* nothing fits this row */
        else *bytes += (best + al - 1) / al * al;
    }
    ash_widen_free(w);
    return st;
}

static ash_status check_budget(fit *f, bool can_widen, ash_error *err) {
    uint64_t plain = UINT64_MAX, wide = UINT64_MAX;
    if (f->o->widen != 1) ASH_TRY(smallest(&plain, f, 0, err));
    if (can_widen) ASH_TRY(smallest(&wide, f, FIT_WIDEN, err));
    uint64_t least = ASH_MIN(plain, wide);
    if (f->budget && f->budget < least)
        return ash_fail(err, ASH_E_LIMIT, "the budget of %.1f MB cannot be met: the smallest possible file has %.1f MB (%llu bytes)%s", (double)f->budget / 1e6, (double)least / 1e6,
                        (unsigned long long)least, wide < plain ? ", with widened rows" : "");
    return ASH_OK;
}

static ash_status open_all(fit *f, ash_error *err) {
    const ash_fit_opts *o = f->o;
    if (o->n_sweep_types > FIT_MAX_SWEEP_TYPES) return ash_fail(err, ASH_E_USAGE, "a sweep for a fit takes at most %d types", FIT_MAX_SWEEP_TYPES);
    if (!o->n_calib || !o->n_test) return ash_fail(err, ASH_E_USAGE, "a fit needs a calibration text and a test text");
    ASH_TRY(ash_model_load(&f->model, o->model, err));
    if (o->ref && strcmp(o->ref, o->model) != 0) ASH_TRY(ash_model_load(&f->ref, o->ref, err));
    else f->ref = ash_model_ref(f->model);
    if (ash_model_n_vocab(f->ref) != ash_model_n_vocab(f->model))
        return ash_fail(err, ASH_E_USAGE, "%s and %s have different vocabularies: one cannot be the other's reference", o->ref, o->model);
    ASH_TRY(ash_gguf_open(&f->src, o->model, err));
    if (o->budget == ASH_BUDGET_KLD && !(o->amount > 0 && o->amount < 100)) return ash_fail(err, ASH_E_USAGE, "a KLD of %g nats is no budget", o->amount);
    if (o->budget != ASH_BUDGET_KLD && !f->n_fits) ASH_TRY(ash_fit_budget(&f->budget, f->src, f->model, o->budget, o->amount, o->n_ctx, err));
    if (!o->out) return ASH_OK;
    /* an output that cannot be written should be known now and not in minutes */
    ash_outfile *probe;
    ASH_TRY(ash_outfile_open(&probe, o->out, err));
    ash_outfile_abort(probe);
    return ASH_OK;
}

static ash_status read_texts(fit *f, ash_error *err) {
    ASH_TRY(fit_text_load(&f->calib, f->model, f->o->calib, f->o->n_calib, err));
    ASH_TRY(fit_text_load(&f->test, f->model, f->o->test, f->o->n_test, err));
    ASH_TRY(ash_fit_overlap(&f->overlap, f->calib.text.p, f->calib.text.n, f->test.text.p, f->test.text.n, err));
    if (f->overlap > MAX_OVERLAP)
        return ash_fail(err, ASH_E_USAGE, "calibration and test text share %.2f %% of their 16-word windows (at most 0.1 %% is allowed): a proof on text the fit was tuned on proves nothing",
                        100 * f->overlap);
    return ASH_OK;
}

/* ---- importance ---- */

static ash_status importance(fit *f, ash_error *err) {
    fit_effort e = fit_effort_of(f->o);
    fit_key(f->im_key, "imatrix 1 %s %s %u", f->src_sha, f->calib.sha, e.imatrix_chunks);
    char *path = fit_path(f, "imatrix-%s.gguf", f->im_key);
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    ash_eval_opts o = ash_eval_defaults();
    o.n_chunks = e.imatrix_chunks;
    o.n_threads = f->o->n_threads;
    o.progress = f->o->progress;
    if (access(path, R_OK) != 0 || ash_imatrix_load(&f->im, path, NULL) != ASH_OK) ASH_TRY(ash_imatrix_collect(&f->im, f->model, &f->calib.tok, f->o->calib[0], &o, err));
    else if (ash_imatrix_has_gradients(f->im)) return ASH_OK;
    /* what each output matters: seconds, and nothing is lost where the model's layers have no backward pass */
    const ash_status st = ash_imatrix_gradients(f->im, f->model, &f->calib.tok, 0, &o, err);
    if (st != ASH_OK && st != ASH_E_UNSUPPORTED) return st;
    return ash_imatrix_save(f->im, path, err);
}

/* ---- sweep ---- */

/* Two types on both sides of the budget's mean bits, where the damage is large enough to see; or those asked for. */
static size_t sweep_types(const fit *f, ash_dtype t[FIT_MAX_SWEEP_TYPES]) {
    double w = 0;
    for (size_t i = 0; i < f->o->n_sweep_types; i++) t[i] = f->o->sweep_types[i];
    if (f->o->n_sweep_types) return f->o->n_sweep_types;
    for (size_t i = 0; i < ash_gguf_n_tensors(f->src); i++) {
        const ash_gguf_tensor *x = ash_gguf_tensor_at(f->src, i);
        w += (double)x->ne[0] * (double)x->ne[1] * (double)x->ne[2];
    }
    double bits = 8.0 * (double)f->budget / w;
    if (f->o->budget == ASH_BUDGET_KLD || f->n_fits) return t[0] = ASH_Q4_0, t[1] = ASH_Q2_K, 2; /* any size may come */
    t[0] = bits >= 3.6 ? ASH_Q4_0 : ASH_Q3_K;
    t[1] = bits >= 3.6 ? ASH_Q3_K : ASH_Q2_K;
    return 2;
}

static ash_status sweep_setup(fit *f, ash_sweep_opts *o, ash_sweep_unit **u, size_t *n, ash_error *err) {
    fit_effort e = fit_effort_of(f->o);
    ash_dtype t[FIT_MAX_SWEEP_TYPES];
    char key[17], names[96] = "";
    const size_t n_t = sweep_types(f, t);
    for (size_t i = 0; i < n_t; i++) snprintf(names + strlen(names), sizeof names - strlen(names), "%s%d", i ? " " : "", (int)t[i]);
    *o = ash_sweep_defaults();
    o->max_chunks = e.sweep_max_chunks;
    o->until = e.sweep_until;
    o->n_threads = f->o->n_threads;
    o->seed = f->o->seed;
    o->spill_dir = f->dir;
    o->progress = f->o->progress;
    fit_key(key, "sweep 1 %s %s %s %s %u %g %llu", f->src_sha, f->calib.sha, f->im_key, names, e.sweep_max_chunks, e.sweep_until, (unsigned long long)f->o->seed);
    memcpy(f->sweep_key, key, sizeof key);
    o->checkpoint = fit_path(f, "sweep-%s.ckpt", key);
    if (!o->checkpoint) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    return ash_sweep_units(u, n, f->model, 't', t, n_t, t, n_t, err);
}

static ash_status sweep(fit *f, ash_error *err) {
    ash_sweep_opts o;
    ash_sweep_unit *u = NULL;
    size_t n = 0;
    ASH_TRY(sweep_setup(f, &o, &u, &n, err));
    ash_status st = ash_sweep_run(&f->sweep, f->model, &f->calib.tok, f->im, u, n, &o, err);
    ash_sweep_units_free(u);
    f->swept = st == ASH_OK;
    return st;
}

/* Time, memory and disk, said before anything long begins. Layers, encoders and head are timed on this machine (ash_sweep_estimate); the
 * rest is counting how often each stage uses them. */
static ash_status estimate(fit *f, ash_error *err) {
    const fit_effort e = fit_effort_of(f->o);
    ash_sweep_opts so;
    ash_sweep_unit *u = NULL;
    ash_sweep_cost c = {0};
    size_t n = 0;
    double blocks = 0, weights = 0, sampled = 0;
    for (size_t i = 0; i < ash_gguf_n_tensors(f->src); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(f->src, i);
        if (!ash_plan_is_matrix(t)) continue;
        bool block = strncmp(t->name, "blk.", 4) == 0;
        double w = (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2];
        weights += w;
        if (block) blocks += t->ne[2] > 1 ? w * ash_model_hp(f->model)->n_expert_used / (double)t->ne[2] : w; /* experts: those chosen */
        sampled += ASH_MIN(w, block ? 131072.0 : 524288.0);
    }
    ASH_TRY(sweep_setup(f, &so, &u, &n, err));
    ash_status st = ash_sweep_estimate(&c, f->model, u, n, &so, err);
    ash_sweep_units_free(u);
    if (st != ASH_OK) return st;
    const double chunk = 512 * blocks / c.forward_rate, judged = chunk + 2 * 256 / c.head_rate, encode = weights / c.encode_rate;
    const int groups = e.groups == 0 ? 0 : e.groups == 1 ? 7 : 2 * 13, n_types = 12;
    const double t_im = e.imatrix_chunks * chunk, t_sweep = e.sweep ? c.seconds : 0;
    const int n_fits = f->o->budget == ASH_BUDGET_KLD ? 5 : ASH_MAX(f->n_fits, 1); /* steps of a search: three to six */
    const double t_plan = sampled * n_types / c.encode_rate + e.verify_chunks * chunk /* the reference */ + n_fits * (encode + e.verify_chunks * judged /* the first plan */ +
                          groups * (encode / 7 + e.verify_chunks * judged) + (e.groups ? encode / 2 + e.verify_chunks * judged : 0));
    const int n_comp = n_fits + f->n_comp, proofs = f->n_fits ? n_comp + f->n_plain : n_fits + (f->o->controls < 0 ? 0 : 2 + f->o->controls + (f->o->effort != ASH_EFFORT_QUICK)); /* this file, a stock mix, one or two single types, random mixes */
    const double t_comp = fit_compensates(f) ? 2.5 * ash_bake_comp_defaults().n_chunks * chunk + encode : 0;
    const double t_prove = n_comp * t_comp + e.proof_chunks * chunk + proofs * e.proof_chunks * judged + (proofs - (t_comp > 0 ? n_comp : 0)) * encode;
    const uint64_t mem = ASH_MAX(e.sweep ? c.mem_bytes : 0, 512u << 20), disk = 3 * ASH_MAX(f->budget, f->largest) + (e.sweep ? c.disk_bytes : 0);
    if (f->n_fits)
        fit_say(f, "estimate: about %.0f s (importance %.0f, sweep %.0f, %d plans %.0f, %d files rounded and measured %.0f); memory %.0f MB beside the model's mapping, disk %.0f MB and the files that are kept",
                t_im + t_sweep + t_plan + t_prove, t_im, t_sweep, n_fits, t_plan, proofs, t_prove, (double)mem / 1e6, (double)disk / 1e6);
    else
        fit_say(f, "estimate: about %.0f s (importance %.0f, sweep %.0f, plan and verify %.0f, proof and %d controls %.0f); memory %.0f MB beside the model's mapping, disk %.0f MB", t_im + t_sweep + t_plan + t_prove,
            t_im, t_sweep, t_plan, proofs - 1, t_prove, (double)mem / 1e6, (double)disk / 1e6);
    return ASH_OK;
}

/* ---- planners ---- */

/* Tensors that never run cost no damage in any type. */
static void mark_dead(const fit *f, ash_planner *p) {
    enum { MOST = 512 };
    const char *names[MOST];
    size_t n = f->im ? ash_imatrix_dead(f->im, f->model, names, MOST) : 0;
    for (size_t i = 0; i < ASH_MIN(n, (size_t)MOST); i++) ash_planner_dead(p, names[i]);
}

static ash_status planner(fit *f, int which, ash_error *err) {
    ash_planner_opts o = ash_planner_defaults();
    o.types = f->o->types;
    o.n_types = f->o->n_types;
    o.widen = which ? FIT_WIDEN : 0;
    if (f->im) o.importance = ash_plan_importance(f->im);
    o.lookup_free = f->o->budget == ASH_BUDGET_RAM;
    o.n_threads = f->o->n_threads;
    o.progress = f->o->progress;
    ASH_TRY(ash_bake_fixed_bytes(&o.fixed_bytes, f->src, o.widen, err));
    ASH_TRY(ash_planner_new(&f->pl[which], f->src, &o, err));
    mark_dead(f, f->pl[which]);
    if (!f->swept) return ASH_OK;
    for (size_t i = 0; i < f->sweep.n_rows; i++) {
        const ash_sweep_row *r = &f->sweep.rows[i];
        if (r->dead || !r->tensor || !(r->rel_err > 0) || !isfinite(r->kld)) continue;
        double half = isfinite(r->half) ? r->half : fabs(r->kld);
        ASH_TRY(ash_planner_measured(f->pl[which], r->tensor, r->rel_err, r->kld, half, err));
    }
    ash_planner_calibrate(f->pl[which], f->sweep.noise_floor);
    return ASH_OK;
}

ash_status fit_prepare(fit *f, ash_error *err) {
    const ash_fit_opts *o = f->o;
    fit_effort e = fit_effort_of(o);
    ash_widen *w = NULL;
    ash_error why = {0};
    ASH_TRY(open_all(f, err));
    bool can_widen = o->widen != 0 && ash_widen_new(&w, f->src, FIT_WIDEN, &why) == ASH_OK && ash_widen_needed(w);
    ash_widen_free(w);
    if (o->widen == 1 && !can_widen) return ash_fail(err, ASH_E_USAGE, "%s", why.msg[0] ? why.msg : "the rows already are multiples of 256: there is nothing to widen");
    ASH_TRY(check_budget(f, can_widen, err));
    ASH_TRY(read_texts(f, err));
    ASH_TRY(fit_state_open(f, err));
    ASH_TRY(ash_sha256_file(o->model, f->src_sha, err));
    if (f->ref != f->model) ASH_TRY(ash_sha256_file(o->ref, f->ref_sha, err));
    else memcpy(f->ref_sha, f->src_sha, sizeof f->ref_sha);
    ASH_TRY(estimate(f, err));
    double t0 = ash_now();
    ASH_TRY(importance(f, err));
    f->t_stage[FIT_T_IMPORTANCE] = ash_now() - t0, t0 = ash_now();
    if (e.sweep) ASH_TRY(sweep(f, err));
    f->t_stage[FIT_T_SWEEP] = ash_now() - t0, t0 = ash_now();
    if (o->widen != 1) ASH_TRY(planner(f, 0, err));
    if (can_widen) ASH_TRY(planner(f, 1, err));
    ash_eval_opts eo = ash_eval_defaults();
    eo.n_chunks = e.verify_chunks;
    eo.n_threads = o->n_threads;
    eo.seed = o->seed;
    eo.progress = o->progress;
    ASH_TRY(ash_eval_ref_compute(&f->calib_ref, f->ref, &f->calib.tok, &eo, err));
    f->t_stage[FIT_T_PLAN] = ash_now() - t0;
    return ASH_OK;
}

void fit_close(fit *f) {
    ash_free(f->choice);
    ash_gguf_close(f->base);
    if (f->base_path) unlink(f->base_path);
    ash_planner_free(f->pl[0]);
    ash_planner_free(f->pl[1]);
    ash_eval_ref_free(f->calib_ref);
    ash_eval_ref_free(f->test_ref);
    ash_sweep_result_free(&f->sweep);
    ash_imatrix_free(f->im);
    fit_text_free(&f->calib);
    fit_text_free(&f->test);
    ash_gguf_close(f->src);
    ash_model_free(f->ref);
    ash_model_free(f->model);
}

/* A step of the search for a budget of nats. */
static ash_status try_size(void *ctx, uint64_t budget, fit_meas *m, ash_error *err) {
    fit *f = ctx;
    bool reused;
    char *path = fit_path(f, "search.gguf");
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    ASH_TRY(fit_at(f, budget, f->o->method, path, false, m, &reused, err));
    fit_say(f, "%llu bytes: KLD %.4g", (unsigned long long)m->bytes, m->kld.v);
    return ASH_OK;
}

static ash_status run(fit *f, ash_error *err) {
    ASH_TRY(fit_prepare(f, err));
    double t0 = ash_now();
    if (f->o->budget == ASH_BUDGET_KLD) ASH_TRY(fit_search(f, f->o->amount, NULL, 0, try_size, f, &f->budget, err));
    ASH_TRY(fit_refine(f, err));
    f->t_stage[FIT_T_PLAN] += ash_now() - t0;
    return fit_prove(f, err);
}

ash_status ash_fit(ash_fit_result **out, const ash_fit_opts *o, ash_error *err) {
    fit f = {.o = o, .t_start = ash_now()};
    *out = NULL;
    if (!o->model || !o->out) return ash_fail(err, ASH_E_USAGE, "a fit needs a model and a name for its output");
    if (strcmp(o->model, o->out) == 0 || (o->ref && strcmp(o->ref, o->out) == 0)) return ash_fail(err, ASH_E_USAGE, "the output would replace its own source");
    if (!(f.r = ash_calloc(1, sizeof *f.r))) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    ash_status st = run(&f, err);
    fit_close(&f);
    if (st == ASH_OK) *out = f.r;
    else ash_fit_result_free(f.r);
    return st;
}
