/* sweep_report.c - the result of a sweep as JSON (docs/formats/sweep.md). */
#include "eval/sweep_int.h"

#include <jansson.h>
#include <math.h>

static json_t *unit_json(const ash_sweep_row *r) {
    const ash_sweep_unit *u = &r->unit;
    json_t *roles = json_array(), *o = json_object();
    for (int i = 0; i < ASH_ROLE_COUNT; i++)
        if (u->roles & 1u << i) json_array_append_new(roles, json_string(ash_role_name(i)));
    json_object_set_new(o, "layer", u->layer < 0 ? json_null() : json_integer(u->layer));
    json_object_set_new(o, "roles", roles);
    if (r->tensor) json_object_set_new(o, "tensor", json_string(r->tensor));
    json_object_set_new(o, "type", json_string(ash_dtype_name(u->type)));
    json_object_set_new(o, "kld", json_real(r->kld));
    json_object_set_new(o, "half", isfinite(r->half) ? json_real(r->half) : json_null());
    json_object_set_new(o, "n_chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "rel_err", json_real(r->rel_err));
    json_object_set_new(o, "bytes", json_integer((json_int_t)r->bytes));
    json_object_set_new(o, "widened", json_boolean(r->widened));
    if (r->dead) json_object_set_new(o, "dead", json_true());
    return o;
}

ash_status ash_sweep_json(const ash_sweep_result *r, const ash_model *m, char **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    json_t *o = json_object(), *rows = json_array();
    json_object_set_new(o, "format", json_string("ashlar-sweep"));
    json_object_set_new(o, "version", json_integer(1));
    json_object_set_new(o, "model", json_string(ash_gguf_path(m->gguf)));
    json_object_set_new(o, "arch", json_string(ash_model_arch(m)));
    json_object_set_new(o, "text_sha256", json_string(r->text_sha256));
    json_object_set_new(o, "n_ctx", json_integer(r->n_ctx));
    json_object_set_new(o, "n_scored", json_integer(r->n_scored));
    json_object_set_new(o, "n_chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "identity", json_real(r->identity));
    json_object_set_new(o, "noise_floor", json_real(r->noise_floor));
    json_object_set_new(o, "seconds", json_real(r->seconds));
    for (size_t i = 0; i < r->n_rows; i++) json_array_append_new(rows, unit_json(&r->rows[i]));
    json_object_set_new(o, "rows", rows);
    char *s = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(o);
    if (!s) return ash_fail(err, ASH_E_NOMEM, "out of memory for the sweep's JSON");
    *out = ash_strdup(s);
    *n_out = strlen(s);
    free(s);
    return *out ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for the sweep's JSON");
}
