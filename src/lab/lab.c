/* lab.c - the one table of experiments, and how a run is set up. The experiments themselves are in lab_quant.c (types) and
 * lab_shape.c (layers and windows). */
#include "lab/lab_int.h"

#include "lab/lab_list.h"

#include <stdio.h>
#include <stdlib.h>

#define X(fn, name, paper, claim, method, many) {{name, paper, claim, method, many}, fn},
static const struct {
    ash_lab_experiment e;
    ash_status (*run)(lab *l, ash_error *err);
} k_list[] = {LAB_EXPERIMENTS(X)};
#undef X

size_t ash_lab_count(void) { return ASH_ARRAY_LEN(k_list); }
const ash_lab_experiment *ash_lab_at(size_t i) { return &k_list[i].e; }
const ash_lab_experiment *ash_lab_find(const char *name) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(k_list); i++)
        if (strcmp(k_list[i].e.name, name) == 0) return &k_list[i].e;
    return NULL;
}

const char *ash_lab_verdict_name(ash_lab_verdict v) {
    static const char *const n[] = {"reproduced", "refuted", "not testable here"};
    return (unsigned)v < ASH_ARRAY_LEN(n) ? n[v] : "?";
}

ash_lab_opts ash_lab_defaults(void) { return (ash_lab_opts){.n_ctx = 256, .n_chunks = 4, .n_random = 3, .seed = 1, .probe_seconds = 60, .scratch = "."}; }

void ash_lab_result_free(ash_lab_result *r) {
    if (!r) return;
    ash_free(r->rows);
    *r = (ash_lab_result){0};
}

ash_status lab_oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory for an experiment"); }

ash_lab_row *lab_row(lab *l, const char *fmt, ...) {
    ash_lab_row *p = ash_realloc(l->r->rows, (l->r->n_rows + 1) * sizeof *p);
    if (!p) return NULL;
    l->r->rows = p;
    p += l->r->n_rows++;
    *p = (ash_lab_row){.probe = ASH_PROBE_NONE};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->label, sizeof p->label, fmt, ap);
    va_end(ap);
    return p;
}

ash_status lab_verdict(lab *l, ash_lab_verdict v, const char *fmt, ...) {
    va_list ap;
    l->r->verdict = v;
    va_start(ap, fmt);
    vsnprintf(l->r->reason, sizeof l->r->reason, fmt, ap);
    va_end(ap);
    return ASH_OK;
}

ash_status lab_use(lab *l, const char *path, ash_error *err) {
    ash_eval_ref_free(l->ref);
    ash_eval_text_free(&l->t);
    ash_model_free(l->m);
    l->ref = NULL;
    l->m = NULL;
    ASH_TRY(ash_model_load(&l->m, path, err));
    if (!ash_model_generates(l->m)) return ash_fail(err, ASH_E_UNSUPPORTED, "%s: an encoder predicts no text to experiment with", path);
    return ash_eval_text_load(&l->t, l->m, l->o->text, err);
}

ash_status lab_measure(lab *l, const char *path, ash_lab_row *row, ash_error *err) {
    ash_model *m = NULL;
    ash_eval_result r = {0};
    ash_status st;
    if (!l->ref) ASH_TRY(ash_eval_ref_compute(&l->ref, l->m, &l->t, &l->eo, err));
    ASH_TRY_GOTO(ash_model_load(&m, path, err), done);
    ASH_TRY_GOTO(ash_eval_measure(&r, m, &l->t, l->ref, &l->eo, err), done);
    row->kld = r.kld;
    row->has_kld = true;
    l->r->n_ctx = r.n_ctx;
    l->r->n_chunks = r.n_chunks;
done:
    ash_eval_result_free(&r);
    ash_model_free(m);
    return st;
}

void lab_probe(lab *l, const char *path, ash_lab_row *row) {
    double s = l->o->probe_seconds == 0 ? 60 : l->o->probe_seconds;
    if (s < 0) return;
    row->probe = l->o->probe ? l->o->probe(l->o->probe_ctx, path, s, l->o->n_threads) : ash_lab_probe(path, s, l->o->n_threads);
}

ash_status lab_preset(lab *l, const char *name, const ash_imatrix *im, const char *out, double *bpw, bool *real, ash_error *err) {
    const ash_gguf *g = ash_model_gguf(l->m);
    ash_widen *w = NULL;
    ash_recipe *recipe = NULL;
    ash_bake_result br = {0};
    ash_bake_opts o = ash_bake_defaults();
    ash_error none = {0};
    size_t preset;
    uint32_t widen = 0;
    ash_status st;
    if (!ash_preset_find(name, &preset)) return ash_fail(err, ASH_E_INTERNAL, "there is no preset %s", name);
    if (ash_widen_new(&w, g, 256, &none) == ASH_OK && ash_widen_needed(w)) widen = 256;
    ASH_TRY_GOTO(ash_preset_recipe(&recipe, preset, g, widen, im != NULL, err), done);
    o.recipe = recipe;
    o.widen = widen;
    o.file_type = ash_preset_file_type(preset);
    o.n_threads = l->o->n_threads;
    o.progress = l->o->progress;
    if (im) o.importance = ash_plan_importance(im);
    ASH_TRY_GOTO(ash_bake(&br, g, out, &o, err), done);
    uint64_t all = 0, super = 0;
    for (size_t i = 0; i < br.n; i++) {
        if (!br.t[i].is_matrix || strncmp(br.t[i].name, "blk.", 4) != 0) continue;
        all += br.t[i].n_weights;
        if (ash_dtype_get((int)br.t[i].to)->block_elems == 256) super += br.t[i].n_weights;
    }
    *bpw = br.bpw_blocks;
    if (widen) l->r->widened = true;
    *real = all && (double)super >= 0.9 * (double)all;
done:
    ash_bake_result_free(&br);
    ash_recipe_free(recipe);
    ash_widen_free(w);
    return st;
}

double lab_ffn_ratio(const ash_model *m) {
    double s = 0;
    for (int i = 0; i < m->hp.n_layer; i++) s += m->layers[i].n_ff;
    return s / m->hp.n_layer / m->hp.n_embd;
}

bool lab_has_window(const ash_model *m) { return m->hp.max_window > 0; }

ash_status ash_lab_run(ash_lab_result *r, const ash_lab_experiment *e, const char *const *models, size_t n_models, const ash_lab_opts *o, ash_error *err) {
    *r = (ash_lab_result){.what = e, .verdict = ASH_LAB_NOT_TESTABLE};
    lab l = {.o = o, .r = r, .paths = models, .n_paths = n_models, .eo = ash_eval_defaults()};
    const double t0 = ash_now();
    ash_status st;
    size_t k = 0;
    while (k < ASH_ARRAY_LEN(k_list) && &k_list[k].e != e) k++;
    if (k == ASH_ARRAY_LEN(k_list)) return ash_fail(err, ASH_E_USAGE, "that is no experiment of the list");
    if (n_models == 0 || (n_models > 1 && !e->many)) return ash_fail(err, ASH_E_USAGE, "%s takes one model", e->name);
    if (!o->text || !o->calib) return ash_fail(err, ASH_E_USAGE, "an experiment needs a text to measure on and one for importance");
    l.eo.n_ctx = o->n_ctx ? o->n_ctx : 256;
    l.eo.n_chunks = o->n_chunks ? o->n_chunks : 4;
    l.eo.n_threads = o->n_threads;
    l.eo.seed = o->seed;
    l.eo.progress = o->progress;
    for (int i = 0; i < 2; i++) {
        ash_buf b = {0};
        ash_buf_addf(&b, "%s/ashlar-lab-%016llx-%d.gguf", o->scratch ? o->scratch : ".", (unsigned long long)(ash_now() * 1e9), i);
        l.tmp[i] = b.p;
        if (!ash_buf_ok(&b)) {
            st = lab_oom(err);
            goto done;
        }
    }
    ASH_TRY_GOTO(lab_use(&l, models[0], err), done);
    ASH_TRY_GOTO(ash_sha256_file(models[0], r->model_sha256, err), done);
    memcpy(r->text_sha256, l.t.sha256, sizeof r->text_sha256);
    st = k_list[k].run(&l, err);
    r->seconds = ash_now() - t0;
done:
    for (int i = 0; i < 2; i++) {
        if (l.tmp[i]) remove(l.tmp[i]);
        ash_free(l.tmp[i]);
    }
    ash_eval_ref_free(l.ref);
    ash_eval_text_free(&l.t);
    ash_model_free(l.m);
    if (st != ASH_OK) ash_lab_result_free(r);
    return st;
}
