/* gguf_write.c - build a header in memory, then write the file: header, padding, tensor data in
 * declaration order, each padded to the alignment, the last one too (as the converters do). Values are
 * kept in their stored bytes, so copied metadata is byte-identical. Files are written as version 3.
 * Nothing is visible under the final name before ash_gguf_writer_finish. */
#include "gguf/gguf_int.h"

typedef unsigned long long ull;

typedef struct {
    char *key;
    size_t n_key;
    ash_gv_type type;
    void *val; /* as stored after the type field */
    size_t n_val;
} entry;

typedef struct {
    char name[GGUF_MAX_NAME + 1];
    ash_dtype type;
    int n_dims;
    uint64_t ne[ASH_GGUF_MAX_DIMS];
    uint64_t n_bytes;
    uint64_t offset; /* only with `raw`; else it follows from the order */
} decl;

struct ash_gguf_writer {
    entry *kv;
    size_t n_kv, cap_kv;
    decl *t;
    uint32_t *order; /* of t, by name */
    size_t n_t, cap_t;
    bool raw;
    ash_outfile *out;
    size_t cur;        /* tensor being written */
    uint64_t cur_done; /* its bytes so far */
    ash_status failed; /* a failed write is final */
};

static ash_status oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory building a GGUF header"); }

ash_status ash_gguf_writer_new(ash_gguf_writer **w, ash_error *err) { return (*w = ash_calloc(1, sizeof **w)) ? ASH_OK : oom(err); }

void ash_gguf_writer_free(ash_gguf_writer *w) {
    if (!w) return;
    ash_outfile_abort(w->out);
    for (size_t i = 0; i < w->n_kv; i++) {
        ash_free(w->kv[i].key);
        ash_free(w->kv[i].val);
    }
    ash_free(w->kv);
    ash_free(w->t);
    ash_free(w->order);
    ash_free(w);
}

/* ---- metadata ---- */
static entry *find(const ash_gguf_writer *w, const char *key, size_t n) {
    for (size_t i = 0; i < w->n_kv; i++)
        if (w->kv[i].n_key == n && memcmp(w->kv[i].key, key, n) == 0) return &w->kv[i];
    return NULL;
}

static ash_status check_open(const ash_gguf_writer *w, ash_error *err) {
    return w->out ? ash_fail(err, ASH_E_STATE, "the header of a GGUF file is already written") : ASH_OK;
}

/* Takes ownership of val. `fresh`: the caller knows that the key is not there yet. */
static ash_status put(ash_gguf_writer *w, const char *key, size_t n_key, ash_gv_type type, void *val, size_t n_val, bool fresh,
                      ash_error *err) {
    ash_status s = check_open(w, err);
    if (s == ASH_OK) s = ash_gguf_check_key(key, n_key, err);
    if (s == ASH_OK && !val) s = oom(err);
    if (s == ASH_OK && n_key == 17 && memcmp(key, "general.alignment", 17) == 0) {
        uint32_t a = 0;
        if (type == ASH_GV_U32) memcpy(&a, val, sizeof a);
        if (a < GGUF_MIN_ALIGN || a > GGUF_MAX_ALIGN || (a & (a - 1)))
            s = ash_fail(err, ASH_E_RANGE, "general.alignment must be a u32 power of two from %d to %d", GGUF_MIN_ALIGN, GGUF_MAX_ALIGN);
    }
    entry *e = s == ASH_OK && !fresh ? find(w, key, n_key) : NULL;
    if (e) {
        ash_free(e->val);
        e->type = type;
        e->val = val;
        e->n_val = n_val;
        return ASH_OK;
    }
    if (s == ASH_OK && w->n_kv == GGUF_MAX_KV) s = ash_fail(err, ASH_E_LIMIT, "a GGUF file may have at most %d metadata keys", GGUF_MAX_KV);
    if (s == ASH_OK && w->n_kv == w->cap_kv) {
        size_t cap = w->cap_kv ? 2 * w->cap_kv : 64;
        entry *p = ash_realloc(w->kv, cap * sizeof *p);
        if (p)
            w->kv = p, w->cap_kv = cap;
        else
            s = oom(err);
    }
    char *k = s == ASH_OK ? ash_strndup(key, n_key) : NULL;
    if (s == ASH_OK && !k) s = oom(err);
    if (s != ASH_OK) {
        ash_free(val);
        return s;
    }
    w->kv[w->n_kv++] = (entry){k, n_key, type, val, n_val};
    return ASH_OK;
}

static void *dup_bytes(const void *p, size_t n) {
    void *q = ash_alloc(n);
    if (q && n) memcpy(q, p, n);
    return q;
}

#define SET(name, T, ctype, stored)                                                                 \
    ash_status ash_gguf_set_##name(ash_gguf_writer *w, const char *key, ctype v, ash_error *err) {  \
        stored x = (stored)v;                                                                       \
        return put(w, key, strlen(key), ASH_GV_##T, dup_bytes(&x, sizeof x), sizeof x, false, err); \
    }
SET(u32, U32, uint32_t, uint32_t)
SET(u64, U64, uint64_t, uint64_t)
SET(i32, I32, int32_t, int32_t)
SET(f32, F32, float, float)
SET(bool, BOOL, bool, uint8_t)
#undef SET

ash_status ash_gguf_set_str(ash_gguf_writer *w, const char *key, const char *s, size_t n, ash_error *err) {
    uint64_t len = n;
    uint8_t *v = ash_alloc(8 + n);
    if (v) {
        memcpy(v, &len, 8);
        if (n) memcpy(v + 8, s, n);
    }
    return put(w, key, strlen(key), ASH_GV_STRING, v, 8 + n, false, err);
}

/* Array value: element type, count, elements. */
static void *array_value(ash_gv_type elem, uint64_t n, const void *data, uint64_t n_bytes) {
    uint32_t e = elem;
    uint8_t *v = ash_alloc(12 + n_bytes);
    if (!v) return NULL;
    memcpy(v, &e, 4);
    memcpy(v + 4, &n, 8);
    if (data && n_bytes) memcpy(v + 12, data, n_bytes);
    return v;
}

ash_status ash_gguf_set_array(ash_gguf_writer *w, const char *key, ash_gv_type elem, const void *data, uint64_t n, ash_error *err) {
    uint32_t size = ash_gv_size(elem);
    uint64_t bytes;
    if (!size) return ash_fail(err, ASH_E_USAGE, "key %s: array elements of type %s have no fixed size", key, ash_gv_name(elem));
    if (ash_mul_ovf(n, size, &bytes) || bytes > INT64_MAX) return ash_fail(err, ASH_E_RANGE, "key %s: the array is too large", key);
    return put(w, key, strlen(key), ASH_GV_ARRAY, array_value(elem, n, data, bytes), (size_t)bytes + 12, false, err);
}

ash_status ash_gguf_set_str_array(ash_gguf_writer *w, const char *key, const ash_str *s, uint64_t n, ash_error *err) {
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < n; i++)
        if (ash_add_ovf(bytes, s[i].n, &bytes) || ash_add_ovf(bytes, 8, &bytes) || bytes > INT64_MAX)
            return ash_fail(err, ASH_E_RANGE, "key %s: the array is too large", key);
    uint8_t *v = array_value(ASH_GV_STRING, n, NULL, bytes), *p = v ? v + 12 : NULL;
    for (uint64_t i = 0; p && i < n; i++) {
        uint64_t len = s[i].n;
        memcpy(p, &len, 8);
        if (len) memcpy(p + 8, s[i].p, len);
        p += 8 + len;
    }
    return put(w, key, strlen(key), ASH_GV_ARRAY, v, (size_t)bytes + 12, false, err);
}

ash_status ash_gguf_unset(ash_gguf_writer *w, const char *key) {
    ASH_TRY(check_open(w, NULL));
    entry *e = find(w, key, strlen(key));
    if (!e) return ASH_OK;
    ash_free(e->key);
    ash_free(e->val);
    memmove(e, e + 1, (size_t)(w->kv + w->n_kv - (e + 1)) * sizeof *e);
    w->n_kv--;
    return ASH_OK;
}

/* The stored bytes of a scalar. Returns their count. */
static size_t scalar_bytes(const ash_gguf_kv *kv, uint8_t out[8]) {
    size_t size = ash_gv_size(kv->type);
    if (kv->type == ASH_GV_F32) {
        float f = (float)kv->v.f; /* exact: it came from a float */
        memcpy(out, &f, sizeof f);
    } else if (kv->type == ASH_GV_F64)
        memcpy(out, &kv->v.f, 8);
    else
        memcpy(out, &kv->v.u, size); /* two's complement, little-endian: the low bytes */
    return size;
}

ash_status ash_gguf_set_scalar(ash_gguf_writer *w, const ash_gguf_kv *kv, ash_error *err) {
    uint8_t b[8];
    size_t n = scalar_bytes(kv, b);
    if (!n) return ash_fail(err, ASH_E_USAGE, "key %.*s is not a scalar", (int)ASH_MIN(kv->key.n, (size_t)80), kv->key.p);
    return put(w, kv->key.p, kv->key.n, kv->type, dup_bytes(b, n), n, false, err);
}

static ash_status copy_one(ash_gguf_writer *w, const ash_gguf_kv *kv, bool fresh, ash_error *err) {
    uint8_t b[8];
    void *v;
    size_t n;
    if (kv->type == ASH_GV_STRING) {
        uint64_t len = kv->str.n;
        n = 8 + kv->str.n;
        if ((v = ash_alloc(n))) {
            memcpy(v, &len, 8);
            if (len) memcpy((uint8_t *)v + 8, kv->str.p, len);
        }
    } else if (kv->type == ASH_GV_ARRAY) {
        n = 12 + (size_t)kv->data_bytes;
        v = array_value(kv->elem_type, kv->n, kv->data, kv->data_bytes);
    } else {
        n = scalar_bytes(kv, b);
        v = dup_bytes(b, n);
    }
    return put(w, kv->key.p, kv->key.n, kv->type, v, n, fresh, err);
}

ash_status ash_gguf_copy_kv_one(ash_gguf_writer *w, const ash_gguf_kv *kv, ash_error *err) { return copy_one(w, kv, false, err); }

ash_status ash_gguf_copy_kv(ash_gguf_writer *w, const ash_gguf *src, ash_error *err) {
    bool fresh = w->n_kv == 0; /* keys of an open gguf are unique */
    for (size_t i = 0; i < ash_gguf_n_kv(src); i++) ASH_TRY(copy_one(w, ash_gguf_kv_at(src, i), fresh, err));
    return ASH_OK;
}

uint8_t *ash_gguf_writer_array(ash_gguf_writer *w, const char *key, ash_gv_type *elem, uint64_t *n) {
    entry *e = find(w, key, strlen(key));
    uint32_t t;
    if (!e || e->type != ASH_GV_ARRAY) return NULL;
    memcpy(&t, e->val, 4);
    memcpy(n, (uint8_t *)e->val + 4, 8);
    *elem = (ash_gv_type)t;
    return (uint8_t *)e->val + 12;
}

static uint64_t alignment(const ash_gguf_writer *w) {
    const entry *e = find(w, "general.alignment", 17);
    uint32_t a = GGUF_DEFAULT_ALIGN;
    if (e) memcpy(&a, e->val, sizeof a);
    return a;
}

/* ---- tensors ---- */
static ash_status add(ash_gguf_writer *w, const char *name, ash_dtype type, int n_dims, const uint64_t *ne, uint64_t offset,
                      ash_error *err) {
    ASH_TRY(check_open(w, err));
    size_t n_name = strlen(name);
    if (n_name == 0 || n_name > GGUF_MAX_NAME)
        return ash_fail(err, ASH_E_RANGE, "tensor name \"%.80s\" must have 1 to %d bytes", name, GGUF_MAX_NAME);
    if (!ash_utf8_valid(name, n_name)) return ash_fail(err, ASH_E_RANGE, "a tensor name is not valid UTF-8");
    if (n_dims < 0 || n_dims > ASH_GGUF_MAX_DIMS) return ash_fail(err, ASH_E_RANGE, "tensor %s: %d dimensions", name, n_dims);
    decl d = {.type = type, .n_dims = n_dims, .ne = {1, 1, 1, 1}, .offset = offset};
    memcpy(d.name, name, n_name + 1);
    uint64_t rows = 1;
    for (int i = 0; i < n_dims; i++) {
        d.ne[i] = ne[i];
        if (ne[i] == 0 || (i && ash_mul_ovf(rows, ne[i], &rows)))
            return ash_fail(err, ASH_E_RANGE, "tensor %s: dimension %d is %llu", name, i, (ull)ne[i]);
    }
    const ash_dtype_info *info = ash_dtype_get((int)type);
    if (!info) return ash_fail(err, ASH_E_UNSUPPORTED, "tensor %s: unknown type %d", name, (int)type);
    uint64_t row = ash_dtype_row_bytes(type, d.ne[0]);
    if (!row)
        return ash_fail(err, ASH_E_RANGE, "tensor %s: rows of %llu are no multiple of the %u values in a block of %s", name, (ull)d.ne[0],
                        info->block_elems, info->name);
    if (ash_mul_ovf(row, rows, &d.n_bytes) || d.n_bytes > INT64_MAX)
        return ash_fail(err, ASH_E_RANGE, "tensor %s: its size overflows", name);
    size_t lo = 0, hi = w->n_t;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, w->t[w->order[mid]].name);
        if (c == 0) return ash_fail(err, ASH_E_USAGE, "tensor %s is declared twice", name);
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (w->n_t == w->cap_t) {
        size_t cap = w->cap_t ? 2 * w->cap_t : 256;
        decl *p = ash_realloc(w->t, cap * sizeof *p);
        if (!p) return oom(err);
        w->t = p;
        uint32_t *q = ash_realloc(w->order, cap * sizeof *q);
        if (!q) return oom(err);
        w->order = q;
        w->cap_t = cap;
    }
    memmove(w->order + lo + 1, w->order + lo, (w->n_t - lo) * sizeof *w->order);
    w->order[lo] = (uint32_t)w->n_t;
    w->t[w->n_t++] = d;
    return ASH_OK;
}

ash_status ash_gguf_add_tensor(ash_gguf_writer *w, const char *name, ash_dtype type, int n_dims, const uint64_t *ne, ash_error *err) {
    return add(w, name, type, n_dims, ne, 0, err);
}

ash_status ash_gguf_writer_add_raw(ash_gguf_writer *w, const ash_gguf_tensor *t, ash_error *err) {
    w->raw = true;
    return add(w, t->name, t->type, t->n_dims, t->ne, t->offset, err);
}

/* ---- the file ---- */
static uint64_t round_up(uint64_t n, uint64_t a) { return (n + a - 1) & ~(a - 1); }

static uint64_t header_bytes(const ash_gguf_writer *w) {
    uint64_t n = GGUF_HEADER_BYTES;
    for (size_t i = 0; i < w->n_kv; i++) n += 8 + w->kv[i].n_key + 4 + w->kv[i].n_val;
    for (size_t i = 0; i < w->n_t; i++) n += 8 + strlen(w->t[i].name) + 4 + 8 * (uint64_t)w->t[i].n_dims + 4 + 8;
    return n;
}

uint64_t ash_gguf_writer_bytes(const ash_gguf_writer *w) {
    uint64_t a = alignment(w), n = round_up(header_bytes(w), a);
    for (size_t i = 0; i < w->n_t; i++)
        if (ash_add_ovf(n, round_up(w->t[i].n_bytes, a), &n)) return UINT64_MAX;
    return n;
}

static void add_u32(ash_buf *b, uint32_t v) { ash_buf_add(b, &v, sizeof v); }
static void add_u64(ash_buf *b, uint64_t v) { ash_buf_add(b, &v, sizeof v); }

ash_status ash_gguf_writer_header(const ash_gguf_writer *w, ash_buf *b, ash_error *err) {
    uint64_t a = alignment(w), offset = 0;
    ash_buf_adds(b, "GGUF");
    add_u32(b, 3);
    add_u64(b, w->n_t);
    add_u64(b, w->n_kv);
    for (size_t i = 0; i < w->n_kv; i++) {
        const entry *e = &w->kv[i];
        add_u64(b, e->n_key);
        ash_buf_add(b, e->key, e->n_key);
        add_u32(b, e->type);
        ash_buf_add(b, e->val, e->n_val);
    }
    for (size_t i = 0; i < w->n_t; i++) {
        const decl *t = &w->t[i];
        add_u64(b, strlen(t->name));
        ash_buf_adds(b, t->name);
        add_u32(b, (uint32_t)t->n_dims);
        for (int j = 0; j < t->n_dims; j++) add_u64(b, t->ne[j]);
        add_u32(b, t->type);
        add_u64(b, w->raw ? t->offset : offset);
        offset += round_up(t->n_bytes, a);
    }
    while (b->n % a && ash_buf_ok(b)) ash_buf_addc(b, 0);
    return ash_buf_ok(b) ? ASH_OK : oom(err);
}

ash_status ash_gguf_writer_begin(ash_gguf_writer *w, const char *path, ash_error *err) {
    ASH_TRY(check_open(w, err));
    if (w->raw) return ash_fail(err, ASH_E_STATE, "a header with fixed offsets cannot take data");
    if (ash_gguf_writer_bytes(w) > INT64_MAX) return ash_fail(err, ASH_E_LIMIT, "%s would be too large for a file", path);
    ash_buf b = {0};
    ash_status s = ash_gguf_writer_header(w, &b, err);
    if (s == ASH_OK) s = ash_outfile_open(&w->out, path, err);
    if (s == ASH_OK) s = ash_outfile_write(w->out, b.p, b.n, err);
    ash_buf_free(&b);
    if (s != ASH_OK) {
        ash_outfile_abort(w->out);
        w->out = NULL;
    }
    return s;
}

ash_status ash_gguf_writer_data(ash_gguf_writer *w, const void *p, size_t n, ash_error *err) {
    static const uint8_t zeros[4096];
    if (!w->out) return ash_fail(err, ASH_E_STATE, "tensor data before the header of a GGUF file");
    if (w->failed != ASH_OK) return ash_fail(err, w->failed, "an earlier write failed");
    const uint8_t *q = p;
    ash_status s = ASH_OK;
    while (n && s == ASH_OK) {
        if (w->cur == w->n_t) {
            s = ash_fail(err, ASH_E_STATE, "%llu bytes of data after the last tensor", (ull)n);
            break;
        }
        uint64_t size = w->t[w->cur].n_bytes, left = size - w->cur_done;
        size_t k = (size_t)ASH_MIN((uint64_t)n, left);
        s = ash_outfile_write(w->out, q, k, err);
        q += k;
        n -= k;
        w->cur_done += k;
        if (s == ASH_OK && w->cur_done == size) {
            for (uint64_t pad = round_up(size, alignment(w)) - size; pad && s == ASH_OK;) {
                size_t z = (size_t)ASH_MIN(pad, (uint64_t)sizeof zeros);
                s = ash_outfile_write(w->out, zeros, z, err);
                pad -= z;
            }
            w->cur++;
            w->cur_done = 0;
        }
    }
    return w->failed = s;
}

ash_status ash_gguf_writer_finish(ash_gguf_writer *w, ash_error *err) {
    if (!w->out) return ash_fail(err, ASH_E_STATE, "finish before the header of a GGUF file");
    if (w->failed != ASH_OK) return ash_fail(err, w->failed, "an earlier write failed");
    if (w->cur < w->n_t)
        return ash_fail(err, ASH_E_STATE, "tensor %s has %llu of %llu bytes", w->t[w->cur].name, (ull)w->cur_done,
                        (ull)w->t[w->cur].n_bytes);
    return ash_outfile_commit(&w->out, err);
}
