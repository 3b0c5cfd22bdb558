/* hf_json.c - JSON files of a model folder: size limits, numbers as doubles, access by one of several names. */
#include "convert/hf_int.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

static ash_status join(ash_buf *b, const char *dir, const char *name, ash_error *err) {
    ash_buf_addf(b, "%s/%s", dir, name);
    return ash_buf_ok(b) ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory");
}

bool ash_hf_exists(const char *dir, const char *name) { /* no allocation: a failed one must not look like a missing file */
    char p[PATH_MAX];
    return snprintf(p, sizeof p, "%s/%s", dir, name) < (int)sizeof p && access(p, F_OK) == 0;
}

ash_status ash_hf_json_parse(json_t **out, const char *p, size_t n, const char *what, ash_error *err) {
    json_error_t je;
    *out = json_loadb(p, n, JSON_DECODE_INT_AS_REAL, &je);
    if (!*out && json_error_code(&je) == json_error_out_of_memory) return ash_fail(err, ASH_E_NOMEM, "out of memory reading %s", what);
    if (!*out) return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)ASH_MAX(je.position, 0), "%s, line %d: %.120s", what, je.line, je.text);
    return ASH_OK;
}

ash_status ash_hf_json_file(json_t **out, const char *dir, const char *name, uint64_t limit, ash_error *err) {
    ash_buf path = {0}, text = {0};
    *out = NULL;
    if (!ash_hf_exists(dir, name)) return ASH_OK;
    ash_status st = join(&path, dir, name, err);
    if (st == ASH_OK) st = ash_file_read(path.p, limit, &text, err);
    if (st == ASH_OK) st = ash_hf_json_parse(out, text.p, text.n, name, err);
    if (st == ASH_OK && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        st = ash_fail(err, ASH_E_FORMAT, "%s is no JSON object", name);
    }
    ash_buf_free(&path);
    ash_buf_free(&text);
    return st;
}

const json_t *ash_hf_get(const json_t *o, const char *names) {
    for (const char *p = names; *p;) {
        size_t k = strcspn(p, "|");
        char key[64];
        if (k < sizeof key) {
            memcpy(key, p, k);
            key[k] = 0;
            const json_t *v = json_object_get(o, key);
            if (v && !json_is_null(v)) return v;
        }
        p += k + (p[k] == '|');
    }
    return NULL;
}

bool ash_hf_int(const json_t *v, int64_t *out) {
    if (!json_is_number(v)) return false;
    double x = json_number_value(v);
    if (!(fabs(x) <= 9007199254740992.0) || x != floor(x)) return false;
    *out = (int64_t)x;
    return true;
}

bool ash_hf_bool(const json_t *o, const char *name, bool dflt) {
    const json_t *v = json_object_get(o, name);
    return json_is_boolean(v) ? json_is_true(v) : dflt;
}

const char *ash_hf_str(const json_t *o, const char *name) { return json_string_value(json_object_get(o, name)); }

void ash_hf_note(ash_hf *h, const char *fmt, ...) {
    char line[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (h->notes.n) ash_buf_addc(&h->notes, '\n');
    ash_buf_adds(&h->notes, line);
}
