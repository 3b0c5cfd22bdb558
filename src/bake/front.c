/* front.c - size against divergence over many sizes: fits (fit_size.c), the Lagrangian baselines and stock presets, all measured on the
 * same text against one reference, with one importance matrix and one sweep. Rows are remembered in the work directory; a later call takes
 * them from there. */
#include "bake/fit_int.h"
#include "plan/plan_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    fit f;
    const ash_front_opts *o;
    ash_front_result *r;
    size_t cap;
} front;

void ash_front_result_free(ash_front_result *r) {
    if (!r) return;
    ash_free(r->rows);
    *r = (ash_front_result){.smallest = SIZE_MAX};
}

static void mark_pareto(ash_front_result *r) {
    for (size_t i = 0; i < r->n; i++) {
        ash_front_row *x = &r->rows[i];
        x->pareto = true;
        for (size_t k = 0; k < r->n; k++) {
            const ash_front_row *y = &r->rows[k];
            if (k != i && y->bytes <= x->bytes && y->kld.v <= x->kld.v && (y->bytes < x->bytes || y->kld.v < x->kld.v)) x->pareto = false;
        }
    }
}

static ash_status add(front *t, ash_report_kind kind, const char *label, const char *path, uint64_t budget, const fit_meas *m, bool reused,
                      ash_error *err) {
    ash_front_result *r = t->r;
    if (r->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 32;
        ash_front_row *p = ash_realloc(r->rows, cap * sizeof *p);
        if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for the front");
        r->rows = p, t->cap = cap;
    }
    ash_front_row *x = &r->rows[r->n];
    *x = (ash_front_row){.kind = kind,
                         .budget = budget,
                         .bytes = m->bytes,
                         .bpw = m->bpw,
                         .bpw_blocks = m->bpw_blocks,
                         .predicted_kld = m->predicted,
                         .n_ctx = m->n_ctx,
                         .n_chunks = m->n_chunks,
                         .kld = {m->kld.v, m->kld.lo, m->kld.hi},
                         .top1 = {m->top1.v, m->top1.lo, m->top1.hi},
                         .ppl = {m->ppl.v, m->ppl.lo, m->ppl.hi},
                         .reused = reused};
    snprintf(x->label, sizeof x->label, "%s", label);
    snprintf(x->path, sizeof x->path, "%s", path);
    r->n++;
    mark_pareto(r);
    if (t->o->rows) t->o->rows(t->o->rows_ctx, r->rows, r->n);
    return ASH_OK;
}

static ash_status one_size(front *t, uint64_t budget, ash_plan_method method, fit_meas *m, ash_error *err) {
    static const char *const names[] = {"fit", "lagrange", "lagrange-rel"};
    char label[48];
    bool reused;
    char *path = fit_path(&t->f, "%s-%llu.gguf", names[method], (unsigned long long)budget);
    if (!path) return ash_fail(err, ASH_E_NOMEM, "out of memory for the front");
    ASH_TRY(fit_at(&t->f, budget, method, path, t->o->keep, m, &reused, err));
    const bool small = m->bytes < 1000000;
    snprintf(label, sizeof label, "%s %.1f %s", names[method], (double)m->bytes / (small ? 1e3 : 1e6), small ? "kB" : "MB");
    return add(t, method == ASH_PLAN_DAMAGE ? ASH_RF_FIT : ASH_RF_BASELINE, label, t->o->keep ? path : "", budget, m, reused, err);
}

static ash_status search_step(void *ctx, uint64_t budget, fit_meas *m, ash_error *err) {
    return one_size(ctx, budget, ASH_PLAN_DAMAGE, m, err);
}

static ash_status one_preset(front *t, size_t preset, ash_error *err) {
    ash_recipe *r = NULL;
    ash_error why = {0};
    char stage[64];
    fit_meas m;
    if (ash_preset_recipe(&r, preset, t->f.src, 0, t->f.im != NULL, &why) != ASH_OK) {
        fit_say(&t->f, "preset %s is left out: %s", ash_preset_name(preset), why.msg);
        return ASH_OK;
    }
    fit_cand c = {r, 0};
    snprintf(stage, sizeof stage, "preset %s", ash_preset_name(preset));
    ash_status st = fit_test_ref(&t->f, err);
    if (st == ASH_OK) st = fit_measure(&t->f, &c, t->f.test_ref, stage, false, &m, err);
    if (st == ASH_OK) st = add(t, ASH_RF_PRESET, ash_preset_name(preset), "", 0, &m, false, err);
    ash_recipe_free(r);
    return st;
}

/* Evenly on a logarithmic scale, from a little above the smallest file to 6.5 bits per weight or the largest. */
static ash_status spread(front *t, uint64_t *sizes, size_t n, ash_error *err) {
    uint64_t least, most, weights = 0;
    ASH_TRY(fit_range(&t->f, &least, &most, err));
    for (size_t i = 0; i < ash_gguf_n_tensors(t->f.src); i++) {
        const ash_gguf_tensor *x = ash_gguf_tensor_at(t->f.src, i);
        weights += x->ne[0] * x->ne[1] * x->ne[2] * x->ne[3];
    }
    double lo = 1.02 * (double)least, hi = fmin((double)most, fmax(6.5 / 8 * (double)weights, 1.2 * lo));
    if (hi < lo) lo = (double)least, hi = fmax((double)most, lo);
    for (size_t i = 0; i < n; i++) sizes[i] = (uint64_t)(n > 1 ? lo * pow(hi / lo, (double)i / (double)(n - 1)) : lo);
    return ASH_OK;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static ash_status run(front *t, ash_error *err) {
    const ash_front_opts *o = t->o;
    fit *f = &t->f;
    ash_status st = ASH_OK;
    uint64_t *sizes = ash_alloc((o->n_sizes + 1) * sizeof *sizes);
    if (!sizes) return ash_fail(err, ASH_E_NOMEM, "out of memory for the front");
    if (o->sizes) {
        memcpy(sizes, o->sizes, o->n_sizes * sizeof *sizes);
        qsort(sizes, o->n_sizes, sizeof *sizes, by_value);
        if (o->n_sizes) f->budget = sizes[0], f->largest = sizes[o->n_sizes - 1];
    }
    f->n_fits = (int)o->n_sizes + (o->kld > 0 ? 4 : 0);
    f->n_fits = ASH_MAX(f->n_fits, 1);
    f->n_comp = (int)o->n_sizes * (o->lagrange + o->lagrange_rel);
    f->n_plain = (int)o->n_presets;
    ASH_TRY_GOTO(fit_prepare(f, err), done);
    ash_str name = {0};
    const char *slash = strrchr(f->o->model, '/');
    if (ash_gguf_get_str(f->src, "general.name", &name) && name.n)
        snprintf(t->r->model, sizeof t->r->model, "%.*s", (int)ASH_MIN(name.n, 200), name.p);
    else
        snprintf(t->r->model, sizeof t->r->model, "%s", slash ? slash + 1 : f->o->model);
    if (!o->sizes) ASH_TRY_GOTO(spread(t, sizes, o->n_sizes, err), done);
    for (size_t i = o->n_sizes; i-- > 0;) { /* large first: the smaller take tensors over from them */
        fit_meas m;
        ASH_TRY_GOTO(one_size(t, sizes[i], ASH_PLAN_DAMAGE, &m, err), done);
        if (o->lagrange) ASH_TRY_GOTO(one_size(t, sizes[i], ASH_PLAN_LAGRANGE, &m, err), done);
        if (o->lagrange_rel) ASH_TRY_GOTO(one_size(t, sizes[i], ASH_PLAN_LAGRANGE_REL, &m, err), done);
    }
    if (o->kld > 0) {
        uint64_t budget;
        fit_known known[256];
        size_t n_known = 0;
        for (size_t i = 0; i < t->r->n && n_known < ASH_ARRAY_LEN(known); i++)
            if (t->r->rows[i].kind == ASH_RF_FIT) known[n_known++] = (fit_known){t->r->rows[i].budget, t->r->rows[i].kld.v};
        ASH_TRY_GOTO(fit_search(f, o->kld, known, n_known, search_step, t, &budget, err), done);
        for (size_t i = 0; i < t->r->n; i++)
            if (t->r->rows[i].kind == ASH_RF_FIT && t->r->rows[i].kld.v <= o->kld &&
                (t->r->smallest == SIZE_MAX || t->r->rows[i].bytes < t->r->rows[t->r->smallest].bytes))
                t->r->smallest = i;
    }
    for (size_t i = 0; i < o->n_presets; i++) ASH_TRY_GOTO(one_preset(t, o->presets[i], err), done);
done:
    ash_free(sizes);
    return st;
}

ash_status ash_front(ash_front_result *r, const ash_front_opts *o, ash_error *err) {
    front t = {.o = o, .r = r, .f = {.t_start = ash_now()}};
    ash_fit_opts fo = o->fit;
    *r = (ash_front_result){.smallest = SIZE_MAX};
    if (!fo.model || !fo.workdir) return ash_fail(err, ASH_E_USAGE, "a front needs a model and a work directory");
    if (o->n_sizes > 256 || (!o->n_sizes && !o->n_presets && !(o->kld > 0)))
        return ash_fail(err, ASH_E_USAGE, "a front takes 1 to 256 sizes, or presets, or a divergence to look for");
    if (o->kld > 0 && !(o->kld < 100)) return ash_fail(err, ASH_E_USAGE, "a KLD of %g nats is nothing to look for", o->kld);
    fo.budget = ASH_BUDGET_SIZE, fo.out = NULL, fo.controls = -1, fo.method = ASH_PLAN_DAMAGE;
    t.f.o = &fo;
    if (!(t.f.r = ash_calloc(1, sizeof *t.f.r))) return ash_fail(err, ASH_E_NOMEM, "out of memory for the front");
    ash_status st = run(&t, err);
    fit_close(&t.f);
    ash_fit_result_free(t.f.r);
    if (st != ASH_OK) ash_front_result_free(r);
    return st;
}
