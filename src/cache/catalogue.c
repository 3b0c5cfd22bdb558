/* catalogue.c - the catalogue file: { "models": [ { "name", "about", "licence", "bytes", "sha256", "member" or "folder", "parts": [ {
 * "source", "sha256" } ] } ] }. It ships with the program, and is read as carefully as if it did not. */
#include "ashlar/cache.h"
#include "base/base.h"

#include <jansson.h>

enum { MAX_FILE = 1 << 20, MAX_MODELS = 4096 };

struct ash_catalogue {
    json_t *root; /* owns the strings */
    ash_catalogue_model *m;
    size_t n;
};

static const char *text(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool is_sha(const char *s) { return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64; }

static ash_status one(ash_catalogue_model *m, const json_t *o, ash_error *err) {
    const json_t *parts = json_object_get(o, "parts"), *p;
    size_t i;
    *m = (ash_catalogue_model){.name = text(o, "name"),
                               .about = text(o, "about"),
                               .licence = text(o, "licence"),
                               .sha256 = text(o, "sha256"),
                               .member = text(o, "member"),
                               .folder = text(o, "folder")};
    json_int_t bytes = json_integer_value(json_object_get(o, "bytes"));
    if (!ash_cache_name_ok(m->name) || !is_sha(m->sha256) || bytes <= 0 || json_array_size(parts) < 1 ||
        json_array_size(parts) > ASH_CATALOGUE_PARTS)
        return ash_fail(err, ASH_E_FORMAT, "catalogue: model \"%.60s\" lacks a name, size, checksum or parts", m->name);
    m->bytes = (uint64_t)bytes;
    json_array_foreach(parts, i, p) {
        m->parts[i] = text(p, "source");
        m->part_sha256[i] = text(p, "sha256");
        if (!*m->parts[i] || (*m->part_sha256[i] && !is_sha(m->part_sha256[i])))
            return ash_fail(err, ASH_E_FORMAT, "catalogue: part %zu of %s is malformed", i, m->name);
        m->n_parts++;
    }
    return ASH_OK;
}

ash_status ash_catalogue_load(ash_catalogue **out, const char *path, ash_error *err) {
    ash_buf b = {0};
    json_error_t je;
    *out = NULL;
    ash_catalogue *c = ash_calloc(1, sizeof *c);
    if (!c) return ash_fail(err, ASH_E_NOMEM, "out of memory for the catalogue");
    ash_status st = ash_file_read(path, MAX_FILE, &b, err);
    if (st == ASH_OK && !(c->root = json_loadb(b.p, b.n, 0, &je)))
        st = ash_fail(err, ASH_E_FORMAT, "%s, line %d: %.120s", path, je.line, je.text);
    const json_t *list = json_object_get(c->root, "models");
    size_t i, n = json_array_size(list);
    json_t *o;
    if (st == ASH_OK && n > MAX_MODELS) st = ash_fail(err, ASH_E_LIMIT, "%s lists more than %d models", path, MAX_MODELS);
    if (st == ASH_OK && !(c->m = ash_calloc(n + 1, sizeof *c->m))) st = ash_fail(err, ASH_E_NOMEM, "out of memory for the catalogue");
    json_array_foreach(list, i, o) {
        if (st == ASH_OK) st = one(&c->m[c->n++], o, err);
    }
    ash_buf_free(&b);
    if (st == ASH_OK)
        *out = c;
    else
        ash_catalogue_free(c);
    return st;
}

void ash_catalogue_free(ash_catalogue *c) {
    if (!c) return;
    json_decref(c->root);
    ash_free(c->m);
    ash_free(c);
}

size_t ash_catalogue_count(const ash_catalogue *c) { return c ? c->n : 0; }
const ash_catalogue_model *ash_catalogue_at(const ash_catalogue *c, size_t i) { return c && i < c->n ? &c->m[i] : NULL; }

const ash_catalogue_model *ash_catalogue_find(const ash_catalogue *c, const char *name) {
    for (size_t i = 0; c && i < c->n; i++)
        if (strcmp(c->m[i].name, name) == 0) return &c->m[i];
    return NULL;
}
