/* fit_state.c - the work directory of a fit: stage results under keys of everything they depend on, and one cache of
 * measurements. A key that does not match is a stage that runs again; a damaged cache is an empty one. */
#include "bake/fit_int.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>

fit_effort fit_effort_of(const ash_fit_opts *o) {
    fit_effort e = {24, 48, 6, 16, 0.2, true, 1};
    if (o->effort == ASH_EFFORT_QUICK) e = (fit_effort){8, 0, 4, 8, 0, false, 0};
    if (o->effort == ASH_EFFORT_HIGH) e = (fit_effort){64, 128, 12, 32, 0.1, true, 2};
    if (o->method != ASH_PLAN_DAMAGE) e.sweep = false, e.groups = 0; /* a baseline knows no sensitivities */
    return e;
}

ash_status fit_state_open(fit *f, ash_error *err) {
    ash_buf b = {0};
    if (f->o->workdir) ash_buf_adds(&b, f->o->workdir);
    else ash_buf_addf(&b, "%s.fit", f->o->out);
    if (!ash_buf_ok(&b) || !(f->dir = ash_arena_strndup(&f->r->arena, b.p, b.n))) {
        ash_buf_free(&b);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    }
    ash_buf_free(&b);
    if (mkdir(f->dir, 0777) != 0 && errno != EEXIST) return ash_fail(err, ASH_E_IO, "%s: cannot make the work directory: %s", f->dir, strerror(errno));
    return ASH_OK;
}

char *fit_path(const fit *f, const char *fmt, ...) {
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    size_t n = strlen(f->dir) + strlen(name) + 2;
    char *s = ash_arena_alloc(&f->r->arena, n);
    if (s) snprintf(s, n, "%s/%s", f->dir, name);
    return s;
}

void fit_key(char out[17], const char *fmt, ...) {
    char s[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    snprintf(out, 17, "%016llx", (unsigned long long)ash_hash64(s, ASH_MIN((size_t)ASH_MAX(n, 0), sizeof s - 1)));
}

/* ---- measurements: measured.json, an object of key -> figures ---- */

static json_t *cache_load(const fit *f) {
    ash_buf b = {0};
    char *path = fit_path(f, "measured.json");
    json_t *o = NULL;
    if (path && ash_file_read(path, 64 << 20, &b, NULL) == ASH_OK && b.n) o = json_loadb(b.p, b.n, JSON_REJECT_DUPLICATES, NULL);
    ash_buf_free(&b);
    if (!json_is_object(o)) {
        json_decref(o);
        o = json_object();
    }
    return o;
}

static bool get_num(json_t *o, const char *key, double *v) {
    json_t *x = json_object_get(o, key);
    if (!json_is_number(x)) return false;
    *v = json_number_value(x);
    return true;
}

static bool get_est(json_t *o, const char *key, ash_est *e) {
    json_t *a = json_object_get(o, key);
    if (!json_is_array(a) || json_array_size(a) != 3) return false;
    for (size_t i = 0; i < 3; i++)
        if (!json_is_number(json_array_get(a, i))) return false;
    *e = (ash_est){json_number_value(json_array_get(a, 0)), json_number_value(json_array_get(a, 1)), json_number_value(json_array_get(a, 2))};
    return true;
}

bool fit_cache_get(const fit *f, const char *key, fit_meas *m) {
    json_t *all = cache_load(f), *o = json_object_get(all, key), *c;
    double n_ctx, n_chunks, n_scored, bytes;
    *m = (fit_meas){0};
    bool ok = json_is_object(o) && get_est(o, "kld", &m->kld) && get_est(o, "top1", &m->top1) && get_est(o, "ppl", &m->ppl) && get_est(o, "ppl_ref", &m->ppl_ref) &&
              get_num(o, "n_ctx", &n_ctx) && get_num(o, "n_chunks", &n_chunks) && get_num(o, "n_scored", &n_scored) && get_num(o, "bytes", &bytes) &&
              get_num(o, "bpw", &m->bpw) && get_num(o, "bpw_blocks", &m->bpw_blocks) && (c = json_object_get(o, "chunks")) && json_is_array(c) &&
              json_array_size(c) <= FIT_MAX_CHUNKS && n_ctx >= 0 && n_ctx < 1e9 && n_chunks >= 0 && n_chunks < 1e9 && n_scored >= 0 && n_scored < 1e15 && bytes >= 0 && bytes < 1e18;
    if (ok) {
        if (!get_num(o, "predicted", &m->predicted)) m->predicted = NAN;
        m->n_ctx = (uint32_t)n_ctx, m->n_chunks = (uint32_t)n_chunks, m->n_scored = (uint64_t)n_scored, m->bytes = (uint64_t)bytes;
        for (size_t i = 0; i < json_array_size(c); i++) m->chunk[i] = json_number_value(json_array_get(c, i));
    }
    json_decref(all);
    return ok;
}

static json_t *est_json(ash_est e) { return json_pack("[f, f, f]", isfinite(e.v) ? e.v : 0, isfinite(e.lo) ? e.lo : 0, isfinite(e.hi) ? e.hi : 0); }

ash_status fit_cache_put(const fit *f, const char *key, const fit_meas *m, ash_error *err) {
    json_t *all = cache_load(f), *o = json_object(), *c = json_array();
    for (uint32_t i = 0; i < m->n_chunks && i < FIT_MAX_CHUNKS; i++) json_array_append_new(c, json_real(isfinite(m->chunk[i]) ? m->chunk[i] : 0));
    json_object_set_new(o, "kld", est_json(m->kld));
    json_object_set_new(o, "top1", est_json(m->top1));
    json_object_set_new(o, "ppl", est_json(m->ppl));
    json_object_set_new(o, "ppl_ref", est_json(m->ppl_ref));
    json_object_set_new(o, "n_ctx", json_integer(m->n_ctx));
    json_object_set_new(o, "n_chunks", json_integer(m->n_chunks));
    json_object_set_new(o, "n_scored", json_integer((json_int_t)m->n_scored));
    json_object_set_new(o, "bytes", json_integer((json_int_t)m->bytes));
    json_object_set_new(o, "bpw", json_real(m->bpw));
    json_object_set_new(o, "bpw_blocks", json_real(m->bpw_blocks));
    if (isfinite(m->predicted)) json_object_set_new(o, "predicted", json_real(m->predicted));
    json_object_set_new(o, "chunks", c);
    json_object_set_new(all, key, o);
    char *s = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17)), *path = fit_path(f, "measured.json");
    json_decref(all);
    ash_status st = s && path ? ash_file_write_atomic(path, s, strlen(s), err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a fit");
    free(s);
    return st;
}

/* ---- lines to the user and to the report ---- */

void fit_say(const fit *f, const char *fmt, ...) {
    char s[512];
    va_list ap;
    if (!f->o->say) return;
    va_start(ap, fmt);
    vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    f->o->say(f->o->say_ctx, s);
}

static char *arena_vf(fit *f, const char *fmt, va_list ap) {
    char s[2048];
    vsnprintf(s, sizeof s, fmt, ap);
    return ash_arena_strndup(&f->r->arena, s, strlen(s));
}

void fit_note(fit *f, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = arena_vf(f, fmt, ap);
    va_end(ap);
    if (s && f->r->report.n_notes < FIT_MAX_NOTES) f->r->notes[f->r->report.n_notes++] = s;
}

void fit_fact(fit *f, const char *key, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = arena_vf(f, fmt, ap);
    va_end(ap);
    if (s && f->r->report.n_facts < FIT_MAX_FACTS) f->r->facts[f->r->report.n_facts++] = (ash_report_fact){key, s};
}
