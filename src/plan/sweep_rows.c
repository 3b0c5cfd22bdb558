/* sweep_rows.c - read a sweep's JSON for the planner: the rows that measured one tensor alone. Outside bytes: limits, types and
 * ranges are checked; rows of layers or classes, dead ones and identity controls are passed over, everything malformed is an error. */
#include "ashlar/plan.h"

#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

enum { MAX_SWEEP = 64 << 20, MAX_ROWS = 1 << 20 };

static ash_status row(ash_plan_sweep *s, json_t *o, size_t i, const char *name, ash_error *err) {
    json_t *t = json_object_get(o, "tensor"), *e = json_object_get(o, "rel_err"), *k = json_object_get(o, "kld"), *h = json_object_get(o, "half");
    if (!json_is_object(o)) return ash_fail(err, ASH_E_FORMAT, "%s: sweep row %zu is not an object", name, i + 1);
    if (!t || json_is_true(json_object_get(o, "dead"))) return ASH_OK;
    ash_plan_sweep_row r = {.half = json_is_number(h) ? json_number_value(h) : NAN};
    if (!json_is_string(t) || json_string_length(t) >= sizeof r.tensor || !json_is_number(e) || !json_is_number(k))
        return ash_fail(err, ASH_E_FORMAT, "%s: sweep row %zu needs a tensor's name, rel_err and kld", name, i + 1);
    memcpy(r.tensor, json_string_value(t), json_string_length(t) + 1);
    r.rel_err = json_number_value(e);
    r.kld = json_number_value(k);
    if (!(r.rel_err > 0)) return ASH_OK; /* the identity, or a type without loss */
    if (!(r.half >= 0)) r.half = fabs(r.kld);
    s->rows[s->n++] = r;
    return ASH_OK;
}

ash_status ash_plan_sweep_parse(ash_plan_sweep *s, const char *text, size_t n, const char *name, ash_error *err) {
    *s = (ash_plan_sweep){0};
    if (n > MAX_SWEEP) return ash_fail(err, ASH_E_LIMIT, "%s: a sweep has at most %d MiB", name, MAX_SWEEP >> 20);
    json_error_t je;
    ash_status st = ASH_OK;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je), *rows, *x;
    if (!o) return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)ASH_MAX(je.position, 0), "%s:%d: %.120s", name, je.line, je.text);
    const char *format = json_string_value(json_object_get(o, "format"));
    rows = json_object_get(o, "rows");
    if (!format || strcmp(format, "ashlar-sweep") != 0 || json_integer_value(json_object_get(o, "version")) != 1 || !json_is_array(rows) || json_array_size(rows) > MAX_ROWS) {
        st = ash_fail(err, ASH_E_FORMAT, "%s: not a sweep of version 1 (`ashlar sweep --json`)", name);
        goto done;
    }
    x = json_object_get(o, "noise_floor");
    s->noise_floor = json_is_number(x) && json_number_value(x) >= 0 ? json_number_value(x) : 0;
    s->rows = ash_calloc(json_array_size(rows) + 1, sizeof *s->rows);
    if (!s->rows) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a sweep of %zu rows", json_array_size(rows));
        goto done;
    }
    for (size_t i = 0; i < json_array_size(rows) && st == ASH_OK; i++) st = row(s, json_array_get(rows, i), i, name, err);
    if (st == ASH_OK && s->n == 0) st = ash_fail(err, ASH_E_FORMAT, "%s: no row of the sweep names a tensor (was it swept by tensor?)", name);
done:
    json_decref(o);
    if (st != ASH_OK) ash_plan_sweep_free(s);
    return st;
}

ash_status ash_plan_sweep_load(ash_plan_sweep *s, const char *path, ash_error *err) {
    ash_buf b = {0};
    *s = (ash_plan_sweep){0};
    ash_status st = ash_file_read(path, MAX_SWEEP, &b, err);
    if (st == ASH_OK) st = ash_plan_sweep_parse(s, b.p ? b.p : "", b.n, path, err);
    ash_buf_free(&b);
    return st;
}

void ash_plan_sweep_free(ash_plan_sweep *s) {
    if (!s) return;
    ash_free(s->rows);
    *s = (ash_plan_sweep){0};
}
