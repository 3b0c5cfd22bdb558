/* fit_measure.c - candidates as real files: bake into the work directory (taking over what the last accepted candidate already
 * holds), load, measure. Results are remembered under everything they depend on. */
#include "bake/fit_int.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

ash_status fit_bake_opts(fit *f, const fit_cand *c, ash_bake_opts *o, ash_error *err) {
    (void)err;
    *o = ash_bake_defaults();
    o->type = c->recipe ? ASH_BAKE_RECIPE : c->type;
    o->recipe = c->recipe;
    o->any_source = true; /* the source was hashed at the start */
    if (f->im) o->importance = ash_plan_importance(f->im);
    o->n_threads = f->o->n_threads;
    o->progress = f->o->progress;
    if (f->base) o->reuse = (const ash_gguf *const *)&f->base, o->n_reuse = 1;
    return ASH_OK;
}

ash_status fit_test_ref(fit *f, ash_error *err) {
    if (f->test_ref) return ASH_OK;
    ash_eval_opts o = ash_eval_defaults();
    o.n_chunks = fit_effort_of(f->o).proof_chunks;
    o.n_threads = f->o->n_threads;
    o.seed = f->o->seed;
    o.progress = f->o->progress;
    return ash_eval_ref_compute(&f->test_ref, f->ref, &f->test.tok, &o, err);
}

typedef struct { const ash_progress *p; const char *stage; } relabel;
static bool relabelled(void *ctx, const char *stage, double done, double total, const char *note) {
    relabel *r = ctx;
    (void)note;
    return !r->p->fn || r->p->fn(r->p->ctx, r->stage, done, total, stage);
}

ash_status fit_measure_file(fit *f, const char *path, ash_eval_ref *ref, const char *stage, fit_meas *m, ash_error *err) {
    ash_model *cand = NULL;
    ash_eval_result res = {0};
    relabel rl = {&f->o->progress, stage};
    ash_status st = ash_model_load(&cand, path, err);
    if (st == ASH_OK) {
        ash_eval_opts o = ash_eval_defaults();
        o.n_threads = f->o->n_threads;
        o.seed = f->o->seed;
        o.n_ctx = ash_eval_ref_n_ctx(ref);
        o.n_chunks = ash_eval_ref_n_chunks(ref);
        o.progress = (ash_progress){relabelled, &rl};
        st = ash_eval_measure(&res, cand, NULL, ref, &o, err);
    }
    if (st == ASH_OK) {
        m->kld = res.kld, m->top1 = res.same_top1, m->ppl = res.ppl, m->ppl_ref = res.ppl_ref;
        m->n_ctx = res.n_ctx, m->n_chunks = res.n_chunks, m->n_scored = res.n_scored;
        for (uint32_t i = 0; i < res.n_chunks && i < FIT_MAX_CHUNKS && res.chunk_kld; i++) m->chunk[i] = res.chunk_kld[i];
    }
    ash_eval_result_free(&res);
    ash_model_free(cand);
    return st;
}

static ash_status cand_key(const fit *f, const fit_cand *c, const ash_eval_ref *ref, char key[17], ash_error *err) {
    char *s = NULL;
    size_t n = 0;
    uint64_t h = (uint64_t)c->type;
    if (c->recipe) {
        ASH_TRY(ash_recipe_json(c->recipe, &s, &n, err));
        /* rules decide the file, their reasons do not */
        ash_buf b = {0};
        ash_buf_addf(&b, "%u", ash_recipe_get_info(c->recipe).widen);
        for (size_t i = 0; i < ash_recipe_n_rules(c->recipe); i++) {
            ash_recipe_rule r = ash_recipe_rule_at(c->recipe, i);
            ash_buf_addf(&b, "\n%s %d", r.pattern, r.type);
        }
        h = ash_hash64(b.p, b.n);
        bool ok = ash_buf_ok(&b);
        ash_buf_free(&b);
        ash_recipe_text_free(s);
        if (!ok) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    }
    fit_key(key, "measure 1 %s %016llx %s %s %s %s %u %u", ash_version(), (unsigned long long)h, f->src_sha, f->ref_sha, f->im_key, ash_eval_ref_text_sha256(ref),
            ash_eval_ref_n_ctx(ref), ash_eval_ref_n_chunks(ref));
    return ASH_OK;
}

static ash_status adopt_file(fit *f, char *path, ash_error *err) {
    ash_gguf *g = NULL;
    ASH_TRY(ash_gguf_open(&g, path, err));
    char *keep = fit_path(f, "base.gguf");
    if (!keep || rename(path, keep) != 0) {
        ash_gguf_close(g);
        return ash_fail(err, ASH_E_IO, "%s: cannot rename a candidate", path);
    }
    ash_gguf_close(f->base); /* its mapping outlived its name */
    f->base = g;
    f->base_path = keep;
    return ASH_OK;
}

ash_status fit_measure(fit *f, const fit_cand *c, ash_eval_ref *ref, const char *stage, bool adopt, fit_meas *m, ash_error *err) {
    char key[17];
    ash_bake_opts o;
    ash_bake_result r = {0};
    char *path = fit_path(f, "candidate.gguf");
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    ASH_TRY(cand_key(f, c, ref, key, err));
    ASH_TRY(fit_bake_opts(f, c, &o, err));
    relabel rl = {&f->o->progress, stage};
    o.progress = (ash_progress){relabelled, &rl};
    if (!adopt && fit_cache_get(f, key, m)) return ASH_OK;
    bool known = adopt && fit_cache_get(f, key, m);
    ash_status st = ash_bake(&r, f->src, path, &o, err);
    if (st == ASH_OK && !known) {
        *m = (fit_meas){.bytes = r.file_bytes, .bpw = r.bpw, .bpw_blocks = r.bpw_blocks, .predicted = NAN};
        st = fit_measure_file(f, path, ref, stage, m, err);
        if (st == ASH_OK) st = fit_cache_put(f, key, m, err);
    }
    if (st == ASH_OK && adopt) st = adopt_file(f, path, err);
    else unlink(path);
    ash_bake_result_free(&r);
    return st;
}

void fit_check(fit *f, const char *label, double predicted, const fit_meas *m) {
    char *s = ash_arena_strndup(&f->r->arena, label, strlen(label));
    if (s && f->r->report.n_checks < FIT_MAX_CHECKS)
        f->r->checks[f->r->report.n_checks++] = (ash_report_check){s, predicted, m->kld.v, isfinite(m->kld.hi) ? (m->kld.hi - m->kld.lo) / 2 : 0};
}
