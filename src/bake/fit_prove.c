/* fit_prove.c - the finished file, and the proof: divergence on the test text, the best single type that fits, random mixes of the
 * same size, text from both models, and the report that holds all of it. */
#include "bake/fit_int.h"

#include "ashlar/quant.h"
#include "model/model_int.h"

#include <math.h>
#include <stdio.h>

enum { MIN_COMPENSATE = 64 }; /* windows of 512 tokens */

static ash_report_est to_est(ash_est e) { return (ash_report_est){e.v, e.lo, e.hi}; }
static const ash_report_est none = {NAN, NAN, NAN};

static char *text(fit *f, const char *fmt, ...) ASH_PRINTF(2, 3);
static char *text(fit *f, const char *fmt, ...) {
    char s[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    char *p = ash_arena_strndup(&f->r->arena, s, strlen(s));
    return p ? p : (char *)"";
}

static void add_file(fit *f, ash_report_kind kind, const char *label, uint64_t bytes, double bpw, double blocks, double predicted, ash_report_est kld, ash_report_est top1, ash_report_est ppl) {
    if (f->r->report.n_files < FIT_MAX_FILES) f->r->files[f->r->report.n_files++] = (ash_report_file){kind, label, bytes, bpw, blocks, predicted, kld, top1, ppl};
}

static void add_measured(fit *f, ash_report_kind kind, const char *label, double predicted, const fit_meas *m) {
    add_file(f, kind, label, m->bytes, m->bpw, m->bpw_blocks, predicted, to_est(m->kld), to_est(m->top1), to_est(m->ppl));
}

/* ---- the file itself ---- */

/* A name that a recipe can carry without a thought about encodings. */
static bool plain_name(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f) return false;
    return true;
}

/* Few windows overfit (docs/decisions/0008): plain rounding is the safer then. */
bool fit_compensates(const fit *f) { return !f->o->plain && f->o->effort != ASH_EFFORT_QUICK && f->calib.tok.n / 512 >= MIN_COMPENSATE; }

ash_status fit_make(fit *f, fit_meas *m, ash_error *err) {
    ash_bake_opts o;
    ash_bake_result r = {0};
    ash_str name = {0};
    ash_planner *p = f->pl[f->which];
    ash_recipe_free(f->r->recipe);
    f->r->recipe = NULL;
    ASH_TRY(ash_planner_recipe(p, f->choice, &f->r->recipe, err));
    ash_gguf_get_str(f->src, "general.name", &name);
    ash_recipe_info i = ash_recipe_get_info(f->r->recipe);
    char *nm = ash_arena_strndup(&f->r->arena, name.p ? name.p : "", ASH_MIN(name.n, 200));
    i.model_name = nm && plain_name(nm) ? nm : "";
    i.model_sha256 = f->src_sha;
    i.budget_bytes = f->budget;
    ASH_TRY(ash_recipe_set_info(f->r->recipe, &i, err));
    char *path = fit_path(f, "recipe.json");
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    ASH_TRY(ash_recipe_save(f->r->recipe, path, err));
    fit_cand c = {f->r->recipe, 0};
    ASH_TRY(fit_bake_opts(f, &c, &o, err));
    if (fit_compensates(f)) {
        o.compensate = ash_bake_comp_defaults();
        o.compensate.model = f->model;
        o.compensate.text = &f->calib.tok;
    }
    ash_status st = ash_bake(&r, f->src, f->o->out, &o, err);
    size_t n_comp = 0;
    for (size_t k = 0; st == ASH_OK && k < r.n; k++) n_comp += r.t[k].compensated;
    if (n_comp) fit_note(f, "Codes and scales of %zu matrices were chosen with the second moments of their inputs (compensated rounding); the plan, its prediction and the other files are plainly rounded.", n_comp);
    if (st == ASH_OK) *m = (fit_meas){.bytes = r.file_bytes, .bpw = r.bpw, .bpw_blocks = r.bpw_blocks, .predicted = f->predicted};
    ash_bake_result_free(&r);
    return st;
}

/* ---- controls ---- */

/* Predicted damage of one type everywhere, with its fallbacks; negative when a unit lacks the option. */
static double uniform_damage(const ash_planner *p, const ash_bake_result *r) {
    double d = 0;
    size_t at = 0;
    for (size_t u = 0; u < ash_planner_n_units(p); u++) {
        ash_plan_unit x = ash_planner_unit(p, u);
        while (at < r->n && strcmp(r->t[at].name, x.tensor) != 0) at++;
        int k = 0;
        while (at < r->n && k < x.n_opts && x.opts[k].type != r->t[at].to) k++;
        if (at == r->n || k == x.n_opts) return -1;
        d += x.opts[k].damage;
    }
    return d;
}

/* The best single type at or below the budget, and the nearest above it for the picture. */
static ash_status uniform_controls(fit *f, ash_error *err) {
    static const ash_dtype types[] = {ASH_Q2_K, ASH_Q3_K, ASH_IQ4_XS, ASH_Q4_0, ASH_IQ4_NL, ASH_Q4_K, ASH_Q4_1, ASH_Q5_0, ASH_Q5_K, ASH_Q5_1, ASH_Q6_K, ASH_Q8_0};
    ash_planner *p = f->pl[0] ? f->pl[0] : f->pl[1];
    int best = -1, above = -1;
    double best_d = INFINITY;
    uint64_t above_bytes = UINT64_MAX;
    for (size_t i = 0; i < ASH_ARRAY_LEN(types); i++) {
        ash_bake_opts o = ash_bake_defaults();
        ash_bake_result r;
        if (!ash_quant_can(types[i])) continue;
        o.type = (int)types[i];
        ASH_TRY(ash_bake_dry(&r, f->src, &o, err));
        double d = uniform_damage(p, &r);
        if (r.n_fallback == 0 || r.n_fallback < r.n / 4) { /* mostly fallbacks would carry a wrong name */
            if (r.file_bytes <= f->budget && d >= 0 && d < best_d) best = (int)i, best_d = d;
            if (r.file_bytes > f->budget && r.file_bytes < above_bytes) above = (int)i, above_bytes = r.file_bytes;
        }
        ash_bake_result_free(&r);
    }
    int pick[2] = {best, f->o->effort == ASH_EFFORT_QUICK ? -1 : above};
    for (int k = 0; k < 2; k++) {
        if (pick[k] < 0) continue;
        fit_cand c = {NULL, (int)types[pick[k]]};
        fit_meas m;
        char stage[64];
        snprintf(stage, sizeof stage, "control: %s everywhere", ash_dtype_name(types[pick[k]]));
        ASH_TRY(fit_measure(f, &c, f->test_ref, stage, false, &m, err));
        add_measured(f, ASH_RF_UNIFORM, text(f, "%s everywhere", ash_dtype_name(types[pick[k]])), NAN, &m);
    }
    if (best < 0) fit_note(f, "No single type gives a file at or below the budget.");
    return ASH_OK;
}

/* The smallest file of llama-quantize's general presets, made with our own encoders and the same importance. */
static ash_status preset_control(fit *f, ash_error *err) {
    ash_recipe *best = NULL;
    size_t which = 0;
    uint64_t bytes = UINT64_MAX;
    ash_status st = ASH_OK;
    for (size_t i = 0; i < ash_preset_count() && st == ASH_OK; i++) {
        ash_recipe *r = NULL;
        ash_bake_opts o;
        ash_bake_result b = {0};
        if (!ash_preset_general(i) || ash_preset_recipe(&r, i, f->src, 0, f->im != NULL, NULL) != ASH_OK) continue;
        fit_cand c = {r, 0};
        st = fit_bake_opts(f, &c, &o, err);
        if (st == ASH_OK && ash_bake_dry(&b, f->src, &o, NULL) == ASH_OK && b.file_bytes < bytes) {
            ash_recipe *t = best;
            best = r, r = t;
            bytes = b.file_bytes, which = i;
        }
        ash_bake_result_free(&b);
        ash_recipe_free(r);
    }
    if (st == ASH_OK && best) {
        fit_cand c = {best, 0};
        fit_meas m;
        char stage[64];
        snprintf(stage, sizeof stage, "control: preset %s", ash_preset_name(which));
        st = fit_measure(f, &c, f->test_ref, stage, false, &m, err);
        if (st == ASH_OK) {
            bool over = bytes > f->budget;
            add_measured(f, ASH_RF_PRESET, text(f, "%s preset%s", ash_preset_name(which), over ? " (over)" : ""), NAN, &m);
            fit_note(f, "%s is the smallest of llama-quantize's presets for this model (one-bit and ternary ones left out)%s; made here with the same encoders and importance.",
                     ash_preset_name(which), over ? ", and larger than the budget" : "");
        }
    }
    ash_recipe_free(best);
    return st;
}

static ash_status random_controls(fit *f, ash_error *err) {
    ash_planner *p = f->pl[f->which];
    int *choice = ash_alloc(ash_planner_n_units(p) * sizeof *choice);
    ash_status st = ASH_OK;
    if (!choice) return ash_fail(err, ASH_E_NOMEM, "out of memory for the controls");
    for (int i = 0; i < f->o->controls && st == ASH_OK; i++) {
        ash_solution s;
        ash_recipe *r = NULL;
        fit_meas m;
        char stage[64];
        if (ash_planner_random(p, f->budget, f->o->seed * 1000003u + (uint64_t)i, choice, &s, err) != ASH_OK) {
            fit_note(f, "No random mix of this size could be drawn: the budget leaves no freedom.");
            break;
        }
        st = ash_planner_recipe(p, choice, &r, err);
        snprintf(stage, sizeof stage, "control: random mix %d", i + 1);
        fit_cand c = {r, 0};
        if (st == ASH_OK) st = fit_measure(f, &c, f->test_ref, stage, false, &m, err);
        if (st == ASH_OK) add_measured(f, ASH_RF_RANDOM, text(f, "random mix %d", i + 1), s.damage, &m);
        ash_recipe_free(r);
    }
    ash_free(choice);
    return st;
}

/* ---- samples ---- */

static ash_status continue_text(fit *f, ash_model *m, const char *prompt, bool chat, int n_new, ash_buf *out, ash_error *err) {
    const ash_vocab *v = ash_model_vocab(m, err);
    ash_session *s = NULL;
    ash_detok *d = NULL;
    ash_token *t = NULL;
    size_t n = 0;
    if (!v) return err ? err->code : ASH_E_UNSUPPORTED;
    ash_status st = ash_tokenize(v, prompt, strlen(prompt), ASH_TOKENIZE_BOS | (chat ? ASH_TOKENIZE_SPECIAL : 0), &t, &n, err);
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = (uint32_t)(n + (size_t)n_new + 1);
    o.n_threads = f->o->n_threads;
    o.precision = ASH_PREC_FAST;
    if (st == ASH_OK) st = ash_session_new(&s, m, &o, err);
    if (st == ASH_OK) st = ash_detok_new(&d, v, false, err);
    if (st == ASH_OK) st = ash_session_sync(s, t, n, NULL, err);
    for (int i = 0; i < n_new && st == ASH_OK; i++) {
        const float *x = ash_session_logits(s);
        int32_t best = 0;
        ash_str piece;
        for (int32_t k = 1; k < ash_model_n_vocab(m); k++)
            if (x[k] > x[best]) best = k;
        if (ash_vocab_is_eog(v, best)) break;
        st = ash_detok_next(d, best, &piece, err);
        if (st == ASH_OK) {
            ash_buf_add(out, piece.p, piece.n);
            st = ash_session_append(s, best, err);
        }
    }
    ash_tokens_free(t);
    ash_detok_free(d);
    ash_session_free(s);
    return st;
}

/* The file's chat template over one user message; NULL when there is none that works. */
static char *chat_prompt(fit *f, const char *msg) {
    ash_str src;
    ash_tmpl *t = NULL;
    char *s = NULL, *kept = NULL;
    size_t n = 0;
    if (!ash_gguf_get_str(f->src, "tokenizer.chat_template", &src)) return NULL;
    if (ash_tmpl_parse(&t, src.p, src.n, NULL) == ASH_OK) {
        ash_chat_msg m = {"user", msg};
        if (ash_tmpl_render(t, &m, 1, true, "", "", &s, &n, NULL) == ASH_OK) kept = ash_arena_strndup(&f->r->arena, s, n);
    }
    ash_text_free(s);
    ash_tmpl_free(t);
    return kept;
}

static ash_status samples(fit *f, ash_error *err) {
    static const char *const chat[] = {"Give me three uses for an old brick.", "Explain in two sentences why the sky is blue."};
    static const char *const plain[] = {"The old stone bridge over the river", "Water boils at a lower temperature on a mountain because"};
    ash_model *fitted = NULL;
    ash_status st = ash_model_load(&fitted, f->o->out, err);
    for (int i = 0; i < 2 && st == ASH_OK; i++) {
        char *p = chat_prompt(f, chat[i]);
        const char *shown = p ? chat[i] : plain[i], *prompt = p ? p : plain[i];
        ash_buf a = {0}, b = {0};
        if (f->o->progress.fn && !f->o->progress.fn(f->o->progress.ctx, "samples", i, 2, NULL)) st = ash_fail(err, ASH_E_CANCELLED, "cancelled while writing samples; the file itself is finished");
        if (st == ASH_OK) st = continue_text(f, f->ref, prompt, p != NULL, 80, &a, err);
        if (st == ASH_OK) st = continue_text(f, fitted, prompt, p != NULL, 80, &b, err);
        if (st == ASH_OK) {
            char *x = ash_arena_strndup(&f->r->arena, a.p ? a.p : "", a.n), *y = ash_arena_strndup(&f->r->arena, b.p ? b.p : "", b.n);
            if (x && y) f->r->samples[f->r->report.n_samples++] = (ash_report_sample){shown, x, y};
        }
        ash_buf_free(&a);
        ash_buf_free(&b);
    }
    ash_model_free(fitted);
    return st;
}

/* ---- the report ---- */

/* Row of the picture: experts stand where a dense model has its own. */
static int grid_row(const fit *f, int role) {
    bool dense = ash_model_hp(f->model)->max_ff > 0 && ash_model_mat(f->model, 0, ASH_W_DOWN)->data;
    return role >= ASH_ROLE_EXP_GATE && role <= ASH_ROLE_EXP_DOWN && !dense ? role - ASH_ROLE_EXP_GATE + ASH_ROLE_GATE : role;
}

static ash_status cells(fit *f, ash_error *err) {
    ash_planner *p = f->pl[f->which];
    size_t n = ash_planner_n_units(p);
    f->r->cells = ash_calloc(n + 1, sizeof *f->r->cells);
    if (!f->r->cells) return ash_fail(err, ASH_E_NOMEM, "out of memory for the report");
    for (size_t i = 0; i < n; i++) {
        ash_plan_unit u = ash_planner_unit(p, i);
        const ash_plan_option *o = &u.opts[f->choice[i]];
        f->r->cells[i] = (ash_report_cell){.layer = u.layer, .role = grid_row(f, u.role), .tensor = text(f, "%s", u.tensor), .type = ash_dtype_name(o->type), .bpw = ash_dtype_bpw(o->type), .bytes = o->bytes,
                                           .sensitivity = u.k * pow(0.005 / u.e0, u.slope), .damage = o->damage, .measured = u.measured};
    }
    f->r->report.cells = f->r->cells;
    f->r->report.n_cells = n;
    return ASH_OK;
}

static void texts_fact(fit *f, const char *key, const char *const *files, size_t n, const fit_text *t) {
    ash_buf b = {0};
    for (size_t i = 0; i < n; i++) ash_buf_addf(&b, "%s%s", i ? ", " : "", files[i]);
    fit_fact(f, key, "%s\nSHA-256 %s, %zu bytes, %zu tokens", b.p ? b.p : "", t->sha, t->text.n, t->tok.n);
    ash_buf_free(&b);
}

/* What a sweep was worth: the order of sensitivities that could have been said without one. */
static ash_status predictors(fit *f, ash_error *err) {
    ash_plan_rank w, h, g;
    char more[96] = "";
    if (!f->swept) return ASH_OK;
    ASH_TRY(ash_planner_rank(f->pl[f->which], ASH_PREDICT_WEIGHTS, f->o->seed, &w, err));
    ASH_TRY(ash_planner_rank(f->pl[f->which], ASH_PREDICT_HEADER, f->o->seed, &h, err));
    ASH_TRY(ash_planner_rank(f->pl[f->which], ASH_PREDICT_GRADIENT, f->o->seed, &g, err));
    if (g.n >= 8) snprintf(more, sizeof more, "; %.2f (%.2f to %.2f) from a backward pass", g.rho, g.lo, g.hi);
    if (w.n >= 8)
        fit_fact(f, "predicted without a sweep", "rank correlation with the measured sensitivities of %zu matrices: %.2f (95 %%: %.2f to %.2f) from weights and importance, %.2f (%.2f to %.2f) from the header alone%s",
                 w.n, w.rho, w.lo, w.hi, h.rho, h.lo, h.hi, more);
    return ASH_OK;
}

static void facts(fit *f) {
    const ash_fit_opts *o = f->o;
    char sha[65] = "";
    fit_effort e = fit_effort_of(o);
    if (o->command) fit_fact(f, "command", "%s", o->command);
    fit_fact(f, "program", "ashlar %s", ash_version());
    fit_fact(f, "processor", "%s, %s, %d threads", ash_cpu_model(), ash_cpu_level_name(ash_cpu_detect()), o->n_threads > 0 ? o->n_threads : ash_cpu_count());
    fit_fact(f, "source", "%s\nSHA-256 %s", o->model, f->src_sha);
    if (f->ref != f->model) fit_fact(f, "reference", "%s\nSHA-256 %s", o->ref, f->ref_sha);
    else fit_fact(f, "reference", "the source as given, decoded to float32");
    if (ash_sha256_file(o->out, sha, NULL) == ASH_OK) fit_fact(f, "output", "%s\nSHA-256 %s", o->out, sha);
    texts_fact(f, "calibration text", o->calib, o->n_calib, &f->calib);
    texts_fact(f, "test text", o->test, o->n_test, &f->test);
    fit_fact(f, "shared by the texts", "%.3f %% of 16-word windows", 100 * f->overlap);
    fit_fact(f, "importance", "%u chunks of 512 tokens", e.imatrix_chunks);
    if (f->swept)
        fit_fact(f, "sweep", "%zu variants, up to %u chunks of %u tokens (%u scored each), identity %g, noise floor %.1e", f->sweep.n_rows, f->sweep.n_chunks, f->sweep.n_ctx, f->sweep.n_scored,
                 f->sweep.identity, f->sweep.noise_floor);
    else if (o->method != ASH_PLAN_DAMAGE) fit_fact(f, "method", "the Lagrangian baseline on %s errors per matrix; no sweep, no refinement", o->method == ASH_PLAN_LAGRANGE ? "weighted squared" : "relative");
    else fit_fact(f, "sweep", "none: sensitivities are typical ones (--effort quick)");
    if (isfinite(f->measured)) fit_fact(f, "plan", "predicted KLD %.4g, measured %.4g on %u chunks of the calibration text", f->predicted, f->measured, ash_eval_ref_n_chunks(f->calib_ref));
    fit_fact(f, "seed and effort", "%llu, %s", (unsigned long long)o->seed, o->effort == ASH_EFFORT_QUICK ? "quick" : o->effort == ASH_EFFORT_HIGH ? "high" : "normal");
    double all = ash_now() - f->t_start, before = f->t_stage[FIT_T_IMPORTANCE] + f->t_stage[FIT_T_SWEEP] + f->t_stage[FIT_T_PLAN];
    fit_fact(f, "time", "%.0f s (importance %.0f, sweep %.0f, plan and verify %.0f, proof and controls %.0f)", all, f->t_stage[FIT_T_IMPORTANCE], f->t_stage[FIT_T_SWEEP],
             f->t_stage[FIT_T_PLAN], all - before);
}

ash_status fit_prove(fit *f, ash_error *err) {
    ash_report *rep = &f->r->report;
    fit_meas m;
    ASH_TRY(fit_make(f, &m, err));
    ASH_TRY(fit_test_ref(f, err));
    ASH_TRY(fit_measure_file(f, f->o->out, f->test_ref, "prove", &m, err));
    add_measured(f, ASH_RF_FIT, "this fit", f->predicted, &m);
    if (f->o->controls >= 0) {
        ASH_TRY(uniform_controls(f, err));
        ASH_TRY(preset_control(f, err));
        ASH_TRY(random_controls(f, err));
    }
    uint64_t weights = 0;
    for (size_t i = 0; i < ash_gguf_n_tensors(f->src); i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(f->src, i);
        weights += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    ash_bake_opts bo = ash_bake_defaults();
    ash_bake_result as_is = {0};
    ash_recipe *keep_all = NULL;
    if (ash_recipe_parse(&keep_all, "* = keep", 8, "source", NULL) == ASH_OK) {
        bo.recipe = keep_all;
        if (ash_bake_dry(&as_is, f->src, &bo, NULL) != ASH_OK) as_is = (ash_bake_result){0};
    }
    bool same = f->ref == f->model;
    add_file(f, ASH_RF_SOURCE, same ? "the original" : "source", ash_gguf_file_bytes(f->src), 8.0 * (double)ash_gguf_file_bytes(f->src) / (double)weights, as_is.bpw_blocks, NAN,
             same ? (ash_report_est){0, 0, 0} : none, same ? (ash_report_est){1, 1, 1} : none, same ? to_est(m.ppl_ref) : none);
    ash_bake_result_free(&as_is);
    ash_recipe_free(keep_all);
    ASH_TRY(samples(f, err));
    ASH_TRY(cells(f, err));
    ash_str name = {0};
    bool named = ash_gguf_get_str(f->src, "general.name", &name) && name.n;
    const char *slash = strrchr(f->o->model, '/');
    rep->model = named ? text(f, "%.*s", (int)ASH_MIN(name.n, 200), name.p) : text(f, "%s", slash ? slash + 1 : f->o->model);
    rep->arch = text(f, "%s", ash_model_arch(f->model));
    rep->n_weights = weights;
    rep->source_bytes = ash_gguf_file_bytes(f->src);
    rep->budget_bytes = f->budget;
    rep->budget_text = f->o->budget == ASH_BUDGET_SIZE ? text(f, "%.4g MB", f->o->amount / 1e6) : f->o->budget == ASH_BUDGET_BPW ? text(f, "%.4g bits per weight", f->o->amount) :
                       f->o->budget == ASH_BUDGET_KLD ? text(f, "KLD of %.4g", f->o->amount) :
                       text(f, "%.4g MB of RAM with %u tokens of context", f->o->amount / 1e6, f->o->n_ctx ? f->o->n_ctx : 2048);
    rep->widen = ash_planner_widen(f->pl[f->which]);
    rep->n_ctx = m.n_ctx, rep->n_chunks = m.n_chunks, rep->n_scored = m.n_scored;
    rep->n_layer = ash_model_n_layer(f->model);
    if (f->o->budget == ASH_BUDGET_KLD) fit_note(f, "The size was found by measuring finished files on the test text: the smallest of them at or below %.4g nats.", f->o->amount);
    if (f->o->budget == ASH_BUDGET_RAM) fit_note(f, "The file budget of %.1f MB is what the RAM budget leaves after context, scratch and program.", (double)f->budget / 1e6);
    facts(f);
    ASH_TRY(predictors(f, err));
    rep->files = f->r->files;
    rep->checks = f->r->checks;
    rep->samples = f->r->samples;
    rep->facts = f->r->facts;
    rep->notes = f->r->notes;
    return ASH_OK;
}
