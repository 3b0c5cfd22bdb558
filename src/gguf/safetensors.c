/* safetensors.c - the reader of safetensors.h: header length, JSON, then one check per tensor and one over all ranges. */
#include "gguf/safetensors.h"

#include "gguf/gguf_int.h"

#include <jansson.h>
#include <stdlib.h>

typedef unsigned long long ull;

enum { MAX_HEADER = 100000000 /* the format's own limit */, MAX_TENSORS = 1 << 20 };

struct ash_st {
    ash_map map;
    json_t *header; /* owns the names */
    ash_st_tensor *t;
    size_t n;
    uint32_t *order; /* of t, by name */
};

/* Element types: name, bits, counterpart or -1. */
static const struct {
    const char *name;
    uint32_t bits;
    int dtype;
} types[] = {{"F64", 64, ASH_F64}, {"F32", 32, ASH_F32}, {"F16", 16, ASH_F16}, {"BF16", 16, ASH_BF16}, {"I64", 64, ASH_I64},
             {"I32", 32, ASH_I32}, {"I16", 16, ASH_I16}, {"I8", 8, ASH_I8},    {"U64", 64, -1},        {"U32", 32, -1},
             {"U16", 16, -1},      {"U8", 8, -1},        {"BOOL", 8, -1},      {"C64", 64, -1},        {"F8_E4M3", 8, -1},
             {"F8_E5M2", 8, -1},   {"F8_E8M0", 8, -1},   {"F6_E2M3", 6, -1},   {"F6_E3M2", 6, -1},     {"F4", 4, -1}};

/* A JSON number that is a whole one from 0 to 2^53. Integers are read as doubles, so that one beyond 64 bits is a refused
 * value and not a refused file. */
static bool whole(const json_t *v, uint64_t *out) {
    if (!json_is_number(v)) return false;
    double x = json_number_value(v);
    if (!(x >= 0 && x <= 9007199254740992.0) || x != (double)(uint64_t)x) return false;
    *out = (uint64_t)x;
    return true;
}

static ash_status one(ash_st_tensor *t, const char *name, const json_t *v, uint64_t n_data, const uint8_t *data, ash_error *err) {
    const char *dt = json_string_value(json_object_get(v, "dtype"));
    const json_t *shape = json_object_get(v, "shape"), *off = json_object_get(v, "data_offsets");
    size_t k = 0;
    *t = (ash_st_tensor){.name = name, .dtype = -1, .n_elems = 1};
    if (!dt || !json_is_array(shape) || !json_is_array(off) || json_array_size(off) != 2)
        return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: dtype, shape or data_offsets is missing", name);
    while (k < ASH_ARRAY_LEN(types) && strcmp(types[k].name, dt) != 0) k++;
    if (k == ASH_ARRAY_LEN(types)) return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %.100s: unknown type \"%.20s\"", name, dt);
    t->dtype = types[k].dtype;
    memcpy(t->dtype_name, types[k].name, strlen(types[k].name) + 1);
    if (json_array_size(shape) > ASH_ST_MAX_DIMS)
        return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %.100s has %zu dimensions", name, json_array_size(shape));
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dims; i++)
        if (!whole(json_array_get(shape, (size_t)i), &t->shape[i]) || ash_mul_ovf(t->n_elems, t->shape[i], &t->n_elems))
            return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: dimension %d is no size", name, i);
    uint64_t end, bits;
    if (!whole(json_array_get(off, 0), &t->begin) || !whole(json_array_get(off, 1), &end) || t->begin > end || end > n_data)
        return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: its bytes do not lie in the %llu bytes of data", name, (ull)n_data);
    t->n_bytes = end - t->begin;
    if (ash_mul_ovf(t->n_elems, types[k].bits, &bits) || bits % 8 || bits / 8 != t->n_bytes)
        return ash_fail(err, ASH_E_FORMAT, "tensor %.100s: %llu bytes do not hold %llu values of %s", name, (ull)t->n_bytes,
                        (ull)t->n_elems, dt);
    t->data = data ? data + t->begin : NULL;
    return ASH_OK;
}

static int by_begin(const void *a, const void *b) {
    const ash_st_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* empty ones first */
    return strcmp(x->name, y->name);
}

static int by_name(const void *ctx, uint32_t a, uint32_t b) {
    const ash_st *s = ctx;
    return strcmp(s->t[a].name, s->t[b].name);
}

static ash_status parse(ash_st *s, const uint8_t *p, uint64_t n, ash_error *err) {
    ash_rd r = ash_rd_init(p, n);
    uint64_t len = ash_rd_u64(&r);
    if (r.bad) return ash_fail_at(err, ASH_E_FORMAT, 0, "the file has %llu bytes, too few for a safetensors header", (ull)n);
    if (len > MAX_HEADER || len > ash_rd_left(&r))
        return ash_fail_at(err, ASH_E_FORMAT, 0, "the header claims %llu bytes, the file has %llu", (ull)len, (ull)n);
    const char *text = ash_rd_bytes(&r, len);
    uint64_t n_data = ash_rd_left(&r);
    json_error_t je;
    if (!len || *text != '{') return ash_fail_at(err, ASH_E_FORMAT, 8, "the header is no JSON object");
    s->header = json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &je);
    if (!s->header)
        return ash_fail_at(err, ASH_E_FORMAT, 8 + (uint64_t)ASH_MAX(je.position, 0), "the header is no valid JSON: %.120s", je.text);
    size_t size = json_object_size(s->header);
    if (size > MAX_TENSORS) return ash_fail(err, ASH_E_LIMIT, "the header names %zu tensors", size);
    s->t = ash_calloc(size + 1, sizeof *s->t);
    s->order = ash_calloc(size + 1, sizeof *s->order);
    if (!s->t || !s->order) return ash_fail(err, ASH_E_NOMEM, "out of memory for a safetensors header");
    const char *name;
    json_t *v;
    json_object_foreach(s->header, name, v) {
        if (strcmp(name, "__metadata__") == 0) continue;
        ASH_TRY(one(&s->t[s->n], name, v, n_data, p + r.pos, err));
        s->n++;
    }
    qsort(s->t, s->n, sizeof *s->t, by_begin);
    uint64_t at = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->t[i].begin != at)
            return ash_fail(err, ASH_E_FORMAT, "tensor %.100s begins at byte %llu of the data, where %s", s->t[i].name, (ull)s->t[i].begin,
                            s->t[i].begin < at ? "another one lies" : "a hole is before it");
        at += s->t[i].n_bytes;
    }
    if (at != n_data) return ash_fail(err, ASH_E_FORMAT, "%llu bytes of data belong to no tensor", (ull)(n_data - at));
    for (size_t i = 0; i < s->n; i++) s->order[i] = (uint32_t)i;
    ash_index_sort(s->order, s->n, by_name, s);
    return ASH_OK;
}

static ash_status fresh(ash_st **s, ash_error *err) {
    *s = ash_calloc(1, sizeof **s);
    return *s ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a safetensors file");
}

ash_status ash_st_open_mem(ash_st **out, const void *p, size_t n, ash_error *err) {
    ash_st *s;
    *out = NULL;
    ASH_TRY(fresh(&s, err));
    ash_status st = parse(s, p, n, err);
    if (st == ASH_OK)
        *out = s;
    else
        ash_st_close(s);
    return st;
}

ash_status ash_st_open(ash_st **out, const char *path, ash_error *err) {
    ash_st *s;
    *out = NULL;
    ASH_TRY(fresh(&s, err));
    ash_status st = ash_map_open(&s->map, path, err);
    if (st == ASH_OK && (st = parse(s, s->map.p, s->map.n, err)) != ASH_OK) ash_error_prefix(err, "%s", path);
    if (st == ASH_OK)
        *out = s;
    else
        ash_st_close(s);
    return st;
}

void ash_st_close(ash_st *s) {
    if (!s) return;
    json_decref(s->header);
    ash_free(s->t);
    ash_free(s->order);
    ash_map_close(&s->map);
    ash_free(s);
}

size_t ash_st_count(const ash_st *s) { return s->n; }
const ash_st_tensor *ash_st_at(const ash_st *s, size_t i) { return i < s->n ? &s->t[i] : NULL; }

const ash_st_tensor *ash_st_find(const ash_st *s, const char *name) {
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const ash_st_tensor *t = &s->t[s->order[mid]];
        int c = strcmp(name, t->name);
        if (c == 0) return t;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
