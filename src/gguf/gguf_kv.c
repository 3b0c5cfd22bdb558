/* gguf_kv.c - lookup by name, typed getters, array access, and the small helpers of the module (value
 * sizes, index sort, UTF-8 check). Everything here works on a header that gguf_read.c has validated. */
#include "gguf/gguf_int.h"

#include <math.h>

static const struct {
    const char *name;
    uint32_t size;
} value_types[ASH_GV_COUNT] = {
    [ASH_GV_U8] = {"u8", 1},      [ASH_GV_I8] = {"i8", 1},       [ASH_GV_U16] = {"u16", 2}, [ASH_GV_I16] = {"i16", 2},
    [ASH_GV_U32] = {"u32", 4},    [ASH_GV_I32] = {"i32", 4},     [ASH_GV_F32] = {"f32", 4}, [ASH_GV_BOOL] = {"bool", 1},
    [ASH_GV_STRING] = {"str", 0}, [ASH_GV_ARRAY] = {"array", 0}, [ASH_GV_U64] = {"u64", 8}, [ASH_GV_I64] = {"i64", 8},
    [ASH_GV_F64] = {"f64", 8}};

uint32_t ash_gv_size(ash_gv_type t) { return (unsigned)t < ASH_GV_COUNT ? value_types[t].size : 0; }
const char *ash_gv_name(ash_gv_type t) { return (unsigned)t < ASH_GV_COUNT ? value_types[t].name : "?"; }

int ash_str_cmp(ash_str a, ash_str b) {
    size_t n = ASH_MIN(a.n, b.n);
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* Strict: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool ash_utf8_valid(const char *s, size_t n) {
    const uint8_t *p = (const uint8_t *)s;
    for (size_t i = 0; i < n;) {
        uint8_t c = p[i];
        size_t k = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (!k || k > n - i) return false;
        for (size_t j = 1; j < k; j++)
            if ((p[i + j] & 0xc0) != 0x80) return false;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) || (c == 0xf0 && p[i + 1] < 0x90) ||
            (c == 0xf4 && p[i + 1] > 0x8f))
            return false;
        i += k;
    }
    return true;
}

static void sift(uint32_t *a, size_t i, size_t n, ash_index_cmp cmp, const void *ctx) {
    for (uint32_t x = a[i];;) {
        size_t c = 2 * i + 1;
        if (c + 1 < n && cmp(ctx, a[c], a[c + 1]) < 0) c++;
        if (c >= n || cmp(ctx, x, a[c]) >= 0) {
            a[i] = x;
            return;
        }
        a[i] = a[c];
        i = c;
    }
}

void ash_index_sort(uint32_t *a, size_t n, ash_index_cmp cmp, const void *ctx) {
    for (size_t i = n / 2; i-- > 0;) sift(a, i, n, cmp, ctx);
    for (size_t i = n; i-- > 1;) {
        uint32_t x = a[0];
        a[0] = a[i];
        a[i] = x;
        sift(a, 0, i, cmp, ctx);
    }
}

/* ---- the object ---- */
const char *ash_gguf_path(const ash_gguf *g) { return g->map.path ? g->map.path : ""; }
uint64_t ash_gguf_file_bytes(const ash_gguf *g) { return g->n; }
uint32_t ash_gguf_version(const ash_gguf *g) { return g->version; }
uint64_t ash_gguf_alignment(const ash_gguf *g) { return g->alignment; }
uint64_t ash_gguf_data_offset(const ash_gguf *g) { return g->data_offset; }
size_t ash_gguf_n_kv(const ash_gguf *g) { return g->n_kv; }
const ash_gguf_kv *ash_gguf_kv_at(const ash_gguf *g, size_t i) { return i < g->n_kv ? &g->kv[i] : NULL; }
size_t ash_gguf_n_tensors(const ash_gguf *g) { return g->n_tensors; }
const ash_gguf_tensor *ash_gguf_tensor_at(const ash_gguf *g, size_t i) { return i < g->n_tensors ? &g->tensor[i] : NULL; }

const ash_gguf_kv *ash_gguf_find(const ash_gguf *g, const char *key) {
    ash_str k = {key, strlen(key)};
    for (size_t lo = 0, hi = g->n_kv; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        const ash_gguf_kv *kv = &g->kv[g->kv_order[mid]];
        int c = ash_str_cmp(k, kv->key);
        if (c == 0) return kv;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const ash_gguf_tensor *ash_gguf_find_tensor(const ash_gguf *g, const char *name) {
    for (size_t lo = 0, hi = g->n_tensors; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        const ash_gguf_tensor *t = &g->tensor[g->tensor_order[mid]];
        int c = strcmp(name, t->name);
        if (c == 0) return t;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* ---- typed getters ---- */
static bool is_unsigned(ash_gv_type t) { return t == ASH_GV_U8 || t == ASH_GV_U16 || t == ASH_GV_U32 || t == ASH_GV_U64; }
static bool is_signed(ash_gv_type t) { return t == ASH_GV_I8 || t == ASH_GV_I16 || t == ASH_GV_I32 || t == ASH_GV_I64; }
static bool is_float(ash_gv_type t) { return t == ASH_GV_F32 || t == ASH_GV_F64; }

bool ash_gguf_get_u64(const ash_gguf *g, const char *key, uint64_t *out) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv) return false;
    if (is_unsigned(kv->type)) return *out = kv->v.u, true;
    if (is_signed(kv->type) && kv->v.i >= 0) return *out = (uint64_t)kv->v.i, true;
    return false;
}

bool ash_gguf_get_i64(const ash_gguf *g, const char *key, int64_t *out) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv) return false;
    if (is_signed(kv->type)) return *out = kv->v.i, true;
    if (is_unsigned(kv->type) && kv->v.u <= INT64_MAX) return *out = (int64_t)kv->v.u, true;
    return false;
}

bool ash_gguf_get_f64(const ash_gguf *g, const char *key, double *out) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv) return false;
    if (is_float(kv->type)) return *out = kv->v.f, true;
    if (is_signed(kv->type)) return *out = (double)kv->v.i, true;
    if (is_unsigned(kv->type)) return *out = (double)kv->v.u, true;
    return false;
}

bool ash_gguf_get_bool(const ash_gguf *g, const char *key, bool *out) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv || kv->type != ASH_GV_BOOL) return false;
    return *out = kv->v.u != 0, true;
}

bool ash_gguf_get_str(const ash_gguf *g, const char *key, ash_str *out) {
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv || kv->type != ASH_GV_STRING) return false;
    return *out = kv->str, true;
}

/* ---- arrays ---- */
/* Element i as integer (in *i_out) or float (in *f_out, *is_f set). */
static bool element(const ash_gguf_kv *kv, uint64_t i, int64_t *i_out, double *f_out, bool *is_f) {
    uint32_t size = kv->type == ASH_GV_ARRAY ? ash_gv_size(kv->elem_type) : 0;
    if (!size || i >= kv->n) return false;
    const uint8_t *p = kv->data + i * size;
    *is_f = false;
    switch (kv->elem_type) {
#define CASE(T, ctype)           \
    case ASH_GV_##T: {           \
        ctype x;                 \
        memcpy(&x, p, sizeof x); \
        *i_out = (int64_t)x;     \
        *f_out = (double)x;      \
        return true;             \
    }
        CASE(U8, uint8_t)
        CASE(BOOL, uint8_t)
        CASE(I8, int8_t)
        CASE(U16, uint16_t)
        CASE(I16, int16_t)
        CASE(U32, uint32_t)
        CASE(I32, int32_t)
        CASE(I64, int64_t)
#undef CASE
    case ASH_GV_U64: {
        uint64_t x;
        memcpy(&x, p, sizeof x);
        *f_out = (double)x;
        if (x > INT64_MAX)
            *is_f = true; /* no int64 holds it */
        else
            *i_out = (int64_t)x;
        return true;
    }
    case ASH_GV_F32: {
        float x;
        memcpy(&x, p, sizeof x);
        *f_out = (double)x;
        return *is_f = true;
    }
    case ASH_GV_F64: memcpy(f_out, p, sizeof *f_out); return *is_f = true;
    default: return false;
    }
}

bool ash_gguf_array_i64(const ash_gguf_kv *kv, uint64_t i, int64_t *out) {
    int64_t x = 0;
    double f = 0;
    bool is_f;
    if (!element(kv, i, &x, &f, &is_f)) return false;
    if (is_f) { /* a float that is an integer converts, others do not */
        if (!(f >= -9007199254740992.0 && f <= 9007199254740992.0) || f != floor(f)) return false;
        x = (int64_t)f;
    }
    return *out = x, true;
}

bool ash_gguf_array_f64(const ash_gguf_kv *kv, uint64_t i, double *out) {
    int64_t x = 0;
    double f = 0;
    bool is_f;
    if (!element(kv, i, &x, &f, &is_f)) return false;
    return *out = f, true;
}

bool ash_gguf_array_str(const ash_gguf_kv *kv, uint64_t *cursor, ash_str *out) {
    if (kv->type != ASH_GV_ARRAY || kv->elem_type != ASH_GV_STRING || *cursor >= kv->data_bytes) return false;
    ash_rd r = ash_rd_init(kv->data, kv->data_bytes);
    r.pos = *cursor;
    uint64_t n = ash_rd_u64(&r);
    const char *p = ash_rd_bytes(&r, n);
    if (!p) return false;
    *cursor = r.pos;
    return *out = (ash_str){p, (size_t)n}, true;
}
