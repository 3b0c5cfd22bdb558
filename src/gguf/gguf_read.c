/* gguf_read.c - open and validate. Nothing in the file is believed before it is checked: counts against
 * the bytes that are left, lengths, types, alignment, unique names, tensor ranges inside the file and
 * free of overlap. Every refusal is one sentence that names the key, tensor or byte offset.
 *
 * Memory: under 4 times the header's bytes. A count is believed only as far as the bytes after it could hold
 * that many of the smallest entries; tensor names are copied, everything else points into the file.
 * Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md; see docs/formats/gguf-subset.md. */
#include "gguf/gguf_int.h"

typedef unsigned long long ull;

/* A name for messages: at most 80 bytes of it. */
#define SHOW(s) (int)ASH_MIN((s).n, (size_t)80), (s).p

static ash_status truncated(const ash_rd *r, ash_error *err, const char *what) {
    return ash_fail_at(err, ASH_E_FORMAT, r->pos, "truncated at byte %llu of %llu, in %s", (ull)r->pos, (ull)r->n, what);
}

static ash_status read_str(ash_rd *r, ash_str *s, const char *what, ash_error *err) {
    uint64_t at = r->pos, n = ash_rd_u64(r);
    if (r->bad) return truncated(r, err, what);
    if (n > ash_rd_left(r))
        return ash_fail_at(err, ASH_E_FORMAT, at, "%s at byte %llu claims a length of %llu but %llu bytes are left", what, (ull)at, (ull)n,
                           (ull)ash_rd_left(r));
    s->p = ash_rd_bytes(r, n);
    s->n = (size_t)n;
    return ASH_OK;
}

/* ---- header ---- */
static ash_status bad_magic(const uint8_t *p, uint64_t n, ash_error *err) {
    static const struct {
        const char *magic, *what;
    } known[] = {{"lmgg", "an old GGML file"},
                 {"tjgg", "an old GGJT file"},
                 {"fmgg", "an old GGMF file"},
                 {"algg", "an old GGLA adapter file"},
                 {"PK\3\4", "a ZIP archive (a PyTorch checkpoint?)"}};
    for (size_t i = 0; n >= 4 && i < ASH_ARRAY_LEN(known); i++)
        if (memcmp(p, known[i].magic, 4) == 0) return ash_fail(err, ASH_E_UNSUPPORTED, "%s, not GGUF", known[i].what);
    if (n >= 4 && memcmp(p, "FUGG", 4) == 0)
        return ash_fail(err, ASH_E_UNSUPPORTED, "a big-endian GGUF file; only little-endian is supported");
    if (n >= 16 && p[8] == '{' && p[9] == '"' && p[6] == 0 && p[7] == 0)
        return ash_fail(err, ASH_E_UNSUPPORTED, "looks like a safetensors file, not GGUF");
    char show[16];
    size_t k = 0;
    for (size_t i = 0; i < 4 && i < n; i++) show[k++] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '.';
    show[k] = 0;
    return ash_fail(err, ASH_E_FORMAT, "not a GGUF file: it begins with \"%s\", not \"GGUF\"", show);
}

static ash_status read_header(ash_gguf *g, ash_rd *r, uint64_t *n_kv, uint64_t *n_tensors, ash_error *err) {
    if (r->n == 0) return ash_fail(err, ASH_E_FORMAT, "the file is empty");
    if (r->n < 4 || memcmp(r->p, "GGUF", 4) != 0) return bad_magic(r->p, r->n, err);
    ash_rd_u32(r);
    g->version = ash_rd_u32(r);
    if (r->bad) return truncated(r, err, "the header");
    /* Converters leave the magic as bytes and swap the rest, so a big-endian file shows in its version. */
    if (g->version && (g->version & 0xffff) == 0)
        return ash_fail_at(err, ASH_E_UNSUPPORTED, 4, "a big-endian GGUF file; only little-endian is supported");
    if (g->version < 2 || g->version > 3)
        return ash_fail_at(err, ASH_E_UNSUPPORTED, 4, "GGUF version %u is not supported (2 and 3 are)", g->version);
    *n_tensors = ash_rd_u64(r);
    *n_kv = ash_rd_u64(r);
    if (r->bad) return truncated(r, err, "the header");
    if (*n_kv > ash_rd_left(r) / GGUF_MIN_KV_BYTES)
        return ash_fail_at(err, ASH_E_FORMAT, 16, "the header claims %llu metadata keys, more than the %llu bytes after it can hold",
                           (ull)*n_kv, (ull)ash_rd_left(r));
    if (*n_kv > GGUF_MAX_KV)
        return ash_fail_at(err, ASH_E_FORMAT, 16, "the header claims %llu metadata keys; the limit is %d", (ull)*n_kv, GGUF_MAX_KV);
    if (*n_tensors > ash_rd_left(r) / GGUF_MIN_TENSOR_BYTES || *n_tensors > UINT32_MAX)
        return ash_fail_at(err, ASH_E_FORMAT, 8, "the header claims %llu tensors, more than the %llu bytes after it can hold",
                           (ull)*n_tensors, (ull)ash_rd_left(r));
    return ASH_OK;
}

/* ---- metadata ---- */
ash_status ash_gguf_check_key(const char *p, size_t n, ash_error *err) {
    if (n == 0) return ash_fail(err, ASH_E_FORMAT, "a metadata key is empty");
    if (n > GGUF_MAX_KEY) return ash_fail(err, ASH_E_FORMAT, "a metadata key is %llu bytes long; the limit is %d", (ull)n, GGUF_MAX_KEY);
    if (memchr(p, 0, n)) return ash_fail(err, ASH_E_FORMAT, "a metadata key holds a NUL byte");
    if (!ash_utf8_valid(p, n)) return ash_fail(err, ASH_E_FORMAT, "a metadata key is not valid UTF-8");
    return ASH_OK;
}

/* Skip over the n elements of an array at r->pos. */
static ash_status walk_array(ash_rd *r, uint32_t elem, uint64_t n, int depth, ash_str key, ash_error *err) {
    uint64_t at = r->pos;
    if (elem >= ASH_GV_COUNT)
        return ash_fail_at(err, ASH_E_FORMAT, at, "key %.*s: unknown array element type %u at byte %llu", SHOW(key), elem, (ull)(at - 12));
    uint64_t least = elem == ASH_GV_STRING ? 8 : elem == ASH_GV_ARRAY ? 12 : ash_gv_size((ash_gv_type)elem);
    if (n > ash_rd_left(r) / least)
        return ash_fail_at(err, ASH_E_FORMAT, at, "key %.*s: an array of %llu %s elements at byte %llu does not fit in the %llu bytes left",
                           SHOW(key), (ull)n, ash_gv_name((ash_gv_type)elem), (ull)at, (ull)ash_rd_left(r));
    if (elem == ASH_GV_ARRAY) {
        if (depth >= GGUF_MAX_DEPTH)
            return ash_fail_at(err, ASH_E_FORMAT, at, "key %.*s: arrays nested deeper than %d at byte %llu", SHOW(key), GGUF_MAX_DEPTH,
                               (ull)at);
        for (uint64_t i = 0; i < n; i++) {
            uint32_t e = ash_rd_u32(r);
            uint64_t k = ash_rd_u64(r);
            if (r->bad) return truncated(r, err, "a nested array");
            ASH_TRY(walk_array(r, e, k, depth + 1, key, err));
        }
        return ASH_OK;
    }
    if (elem == ASH_GV_STRING) {
        for (uint64_t i = 0; i < n; i++) {
            uint64_t pos = r->pos, k = ash_rd_u64(r);
            if (!ash_rd_bytes(r, k))
                return ash_fail_at(err, ASH_E_FORMAT, pos, "key %.*s: string %llu of %llu at byte %llu runs past the end of the file",
                                   SHOW(key), (ull)i, (ull)n, (ull)pos);
        }
        return ASH_OK;
    }
    const uint8_t *p = ash_rd_bytes(r, n * least); /* n <= left / least: no overflow */
    if (elem == ASH_GV_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (p[i] > 1)
                return ash_fail_at(err, ASH_E_FORMAT, at + i, "key %.*s: a bool of value %u at byte %llu", SHOW(key), p[i], (ull)(at + i));
    return ASH_OK;
}

static ash_status read_value(ash_rd *r, ash_gguf_kv *kv, ash_error *err) {
    uint64_t at = r->pos;
    switch (kv->type) {
    case ASH_GV_U8: kv->v.u = ash_rd_u8(r); break;
    case ASH_GV_I8: kv->v.i = (int8_t)ash_rd_u8(r); break;
    case ASH_GV_U16: kv->v.u = ash_rd_u16(r); break;
    case ASH_GV_I16: kv->v.i = (int16_t)ash_rd_u16(r); break;
    case ASH_GV_U32: kv->v.u = ash_rd_u32(r); break;
    case ASH_GV_I32: kv->v.i = (int32_t)ash_rd_u32(r); break;
    case ASH_GV_U64: kv->v.u = ash_rd_u64(r); break;
    case ASH_GV_I64: kv->v.i = (int64_t)ash_rd_u64(r); break;
    case ASH_GV_F32: kv->v.f = (double)ash_rd_f32(r); break;
    case ASH_GV_F64: kv->v.f = ash_rd_f64(r); break;
    case ASH_GV_BOOL:
        kv->v.u = ash_rd_u8(r);
        if (kv->v.u > 1)
            return ash_fail_at(err, ASH_E_FORMAT, at, "key %.*s: a bool of value %llu at byte %llu", SHOW(kv->key), (ull)kv->v.u, (ull)at);
        break;
    case ASH_GV_STRING: {
        ash_status s = read_str(r, &kv->str, "its value", err);
        if (s != ASH_OK && err) ash_error_prefix(err, "key %.*s", SHOW(kv->key));
        return s;
    }
    case ASH_GV_ARRAY: {
        uint32_t elem = ash_rd_u32(r);
        kv->n = ash_rd_u64(r);
        if (r->bad) break;
        uint64_t start = r->pos;
        ASH_TRY(walk_array(r, elem, kv->n, 1, kv->key, err));
        kv->elem_type = (ash_gv_type)elem;
        kv->data = r->p + start;
        kv->data_bytes = r->pos - start;
        return ASH_OK;
    }
    default:
        return ash_fail_at(err, ASH_E_FORMAT, at - 4, "key %.*s: unknown value type %u at byte %llu", SHOW(kv->key), (unsigned)kv->type,
                           (ull)(at - 4));
    }
    if (r->bad) return ash_fail_at(err, ASH_E_FORMAT, at, "key %.*s: truncated at byte %llu, in its value", SHOW(kv->key), (ull)r->pos);
    return ASH_OK;
}

static int cmp_kv(const void *ctx, uint32_t a, uint32_t b) {
    const ash_gguf_kv *kv = ctx;
    return ash_str_cmp(kv[a].key, kv[b].key);
}

static uint32_t *sorted(size_t n, ash_index_cmp cmp, const void *ctx) {
    uint32_t *idx = ash_alloc(n * sizeof *idx);
    if (!idx) return NULL;
    for (size_t i = 0; i < n; i++) idx[i] = (uint32_t)i;
    ash_index_sort(idx, n, cmp, ctx);
    return idx;
}

static ash_status read_kvs(ash_gguf *g, ash_rd *r, uint64_t n_kv, ash_error *err) {
    if (!(g->kv = ash_alloc(n_kv * sizeof *g->kv))) return ash_fail(err, ASH_E_NOMEM, "out of memory reading metadata");
    for (uint64_t i = 0; i < n_kv; i++) {
        ash_gguf_kv *kv = &g->kv[i];
        *kv = (ash_gguf_kv){0};
        uint64_t at = r->pos;
        ASH_TRY(read_str(r, &kv->key, "a metadata key", err));
        ash_status s = ash_gguf_check_key(kv->key.p, kv->key.n, err);
        if (s != ASH_OK) {
            if (err) {
                ash_error_prefix(err, "key %llu at byte %llu", (ull)i, (ull)at);
                err->pos = at;
            }
            return s;
        }
        uint32_t type = ash_rd_u32(r);
        if (r->bad) return truncated(r, err, "the type of a metadata value");
        kv->type = (ash_gv_type)type;
        ASH_TRY(read_value(r, kv, err));
        g->n_kv = i + 1;
    }
    g->kv_order = sorted(g->n_kv, cmp_kv, g->kv);
    if (!g->kv_order) return ash_fail(err, ASH_E_NOMEM, "out of memory reading metadata");
    for (size_t i = 1; i < g->n_kv; i++) {
        ash_str a = g->kv[g->kv_order[i - 1]].key, b = g->kv[g->kv_order[i]].key;
        if (ash_str_cmp(a, b) == 0) return ash_fail(err, ASH_E_FORMAT, "key %.*s appears twice", SHOW(a));
    }
    return ASH_OK;
}

static ash_status read_alignment(ash_gguf *g, ash_error *err) {
    g->alignment = GGUF_DEFAULT_ALIGN;
    const ash_gguf_kv *kv = ash_gguf_find(g, "general.alignment");
    if (!kv) return ASH_OK;
    if (kv->type != ASH_GV_U32) return ash_fail(err, ASH_E_FORMAT, "general.alignment is of type %s, not u32", ash_gv_name(kv->type));
    uint64_t a = kv->v.u;
    if (a < GGUF_MIN_ALIGN || a > GGUF_MAX_ALIGN || (a & (a - 1)))
        return ash_fail(err, ASH_E_FORMAT, "general.alignment is %llu; a power of two from %d to %d is needed", (ull)a, GGUF_MIN_ALIGN,
                        GGUF_MAX_ALIGN);
    g->alignment = a;
    return ASH_OK;
}

/* ---- tensors ---- */
static int cmp_name(const void *ctx, uint32_t a, uint32_t b) {
    const ash_gguf_tensor *t = ctx;
    return strcmp(t[a].name, t[b].name);
}
static int cmp_offset(const void *ctx, uint32_t a, uint32_t b) {
    const ash_gguf_tensor *t = ctx;
    return (t[a].offset > t[b].offset) - (t[a].offset < t[b].offset);
}

static ash_status read_tensor(ash_gguf *g, ash_rd *r, ash_gguf_tensor *t, size_t *name_bytes, ash_error *err) {
    *t = (ash_gguf_tensor){.ne = {1, 1, 1, 1}};
    uint64_t at = r->pos;
    ash_str name = {0};
    ASH_TRY(read_str(r, &name, "a tensor name", err));
    if (name.n == 0) return ash_fail_at(err, ASH_E_FORMAT, at, "the tensor at byte %llu has an empty name", (ull)at);
    if (name.n > GGUF_MAX_NAME)
        return ash_fail_at(err, ASH_E_FORMAT, at, "the tensor name at byte %llu is %llu bytes long; the limit is %d", (ull)at, (ull)name.n,
                           GGUF_MAX_NAME);
    if (memchr(name.p, 0, name.n)) return ash_fail_at(err, ASH_E_FORMAT, at, "the tensor name at byte %llu holds a NUL byte", (ull)at);
    if (!ash_utf8_valid(name.p, name.n))
        return ash_fail_at(err, ASH_E_FORMAT, at, "the tensor name at byte %llu is not valid UTF-8", (ull)at);
    uint32_t n_dims = ash_rd_u32(r);
    if (r->bad) return truncated(r, err, "a tensor's description");
    if (n_dims > ASH_GGUF_MAX_DIMS)
        return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s has %u dimensions; the limit is %d", SHOW(name), n_dims, ASH_GGUF_MAX_DIMS);
    uint64_t n_elem = 1, rows = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        t->ne[i] = ash_rd_u64(r);
        if (r->bad) return truncated(r, err, "a tensor's description");
        if (t->ne[i] == 0) return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s: dimension %u is 0", SHOW(name), i);
        if (ash_mul_ovf(n_elem, t->ne[i], &n_elem) || n_elem > INT64_MAX)
            return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s: its dimensions overflow", SHOW(name));
        if (i) rows *= t->ne[i];
    }
    uint32_t type = ash_rd_u32(r);
    t->offset = ash_rd_u64(r);
    if (r->bad) return truncated(r, err, "a tensor's description");
    const ash_dtype_info *info = type < ASH_DTYPE_MAX ? ash_dtype_get((int)type) : NULL;
    if (!info) return ash_fail_at(err, ASH_E_UNSUPPORTED, at, "tensor %.*s has unknown type %u", SHOW(name), type);
    t->type = (ash_dtype)type;
    t->n_dims = (int)n_dims;
    if (t->ne[0] % info->block_elems)
        return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s: rows of %llu are no multiple of the %u values in a block of %s", SHOW(name),
                           (ull)t->ne[0], info->block_elems, info->name);
    uint64_t row = ash_dtype_row_bytes(t->type, t->ne[0]);
    if (!row || ash_mul_ovf(row, rows, &t->n_bytes) || t->n_bytes > INT64_MAX)
        return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s: its size overflows", SHOW(name));
    if (t->offset % g->alignment)
        return ash_fail_at(err, ASH_E_FORMAT, at, "tensor %.*s: offset %llu is not aligned to %llu", SHOW(name), (ull)t->offset,
                           (ull)g->alignment);
    *name_bytes += name.n;
    t->data = (const uint8_t *)name.p; /* until name_tensors; its length stands before it in the file */
    return ASH_OK;
}

static ash_status check_ranges(ash_gguf *g, ash_error *err) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        ash_gguf_tensor *t = &g->tensor[i];
        uint64_t begin, end;
        if (ash_add_ovf(g->data_offset, t->offset, &begin) || ash_add_ovf(begin, t->n_bytes, &end))
            return ash_fail(err, ASH_E_FORMAT, "tensor %s: offset %llu is impossible", t->name, (ull)t->offset);
        if (end > g->n && !g->unranged)
            return ash_fail_at(err, ASH_E_FORMAT, begin, "tensor %s needs bytes %llu to %llu but the file ends at %llu (truncated?)",
                               t->name, (ull)begin, (ull)end, (ull)g->n);
        t->data = g->unranged ? NULL : g->p + begin;
    }
    bool ascending = true;
    for (size_t i = 1; ascending && i < g->n_tensors; i++) ascending = g->tensor[i - 1].offset <= g->tensor[i].offset;
    uint32_t *idx = NULL;
    if (!ascending && !(idx = sorted(g->n_tensors, cmp_offset, g->tensor)))
        return ash_fail(err, ASH_E_NOMEM, "out of memory checking tensors");
    ash_status s = ASH_OK;
    for (size_t i = 1; s == ASH_OK && i < g->n_tensors; i++) {
        const ash_gguf_tensor *a = &g->tensor[idx ? idx[i - 1] : i - 1], *b = &g->tensor[idx ? idx[i] : i];
        if (a->offset + a->n_bytes > b->offset)
            s = ash_fail_at(err, ASH_E_FORMAT, g->data_offset + b->offset, "tensors %s and %s overlap at byte %llu", a->name, b->name,
                            (ull)(g->data_offset + b->offset));
    }
    ash_free(idx);
    return s;
}

/* Copies of all names in one block of exactly their size. */
static ash_status name_tensors(ash_gguf *g, size_t name_bytes, ash_error *err) {
    if (!(g->names = ash_alloc(name_bytes + g->n_tensors))) return ash_fail(err, ASH_E_NOMEM, "out of memory reading tensor names");
    char *p = g->names;
    for (size_t i = 0; i < g->n_tensors; i++) {
        uint64_t n;
        memcpy(&n, g->tensor[i].data - 8, 8);
        memcpy(p, g->tensor[i].data, n);
        p[n] = 0;
        g->tensor[i].name = p;
        p += n + 1;
    }
    return ASH_OK;
}

static ash_status read_tensors(ash_gguf *g, ash_rd *r, uint64_t n_tensors, ash_error *err) {
    /* Metadata took some of the bytes the header check counted on. */
    if (n_tensors > ash_rd_left(r) / GGUF_MIN_TENSOR_BYTES)
        return ash_fail_at(err, ASH_E_FORMAT, 8, "the header claims %llu tensors but %llu bytes are left for their descriptions",
                           (ull)n_tensors, (ull)ash_rd_left(r));
    if (!(g->tensor = ash_alloc(n_tensors * sizeof *g->tensor))) return ash_fail(err, ASH_E_NOMEM, "out of memory reading tensors");
    size_t name_bytes = 0;
    for (uint64_t i = 0; i < n_tensors; i++) {
        ASH_TRY(read_tensor(g, r, &g->tensor[i], &name_bytes, err));
        g->n_tensors = i + 1;
    }
    ASH_TRY(name_tensors(g, name_bytes, err));
    g->tensor_order = sorted(g->n_tensors, cmp_name, g->tensor);
    if (!g->tensor_order) return ash_fail(err, ASH_E_NOMEM, "out of memory reading tensors");
    for (size_t i = 1; i < g->n_tensors; i++) {
        const char *a = g->tensor[g->tensor_order[i - 1]].name, *b = g->tensor[g->tensor_order[i]].name;
        if (strcmp(a, b) == 0) return ash_fail(err, ASH_E_FORMAT, "tensor %s appears twice", a);
    }
    uint64_t end;
    if (ash_add_ovf(r->pos, g->alignment - 1, &end)) return truncated(r, err, "the header");
    g->data_offset = end & ~(g->alignment - 1);
    return check_ranges(g, err);
}

/* ---- open, close ---- */
ash_status ash_gguf_parse(ash_gguf *g, ash_error *err) {
    ash_rd r = ash_rd_init(g->p, g->n);
    uint64_t n_kv = 0, n_tensors = 0;
    ASH_TRY(read_header(g, &r, &n_kv, &n_tensors, err));
    ASH_TRY(read_kvs(g, &r, n_kv, err));
    ASH_TRY(read_alignment(g, err));
    return read_tensors(g, &r, n_tensors, err);
}

ash_status ash_gguf_open(ash_gguf **out, const char *path, ash_error *err) {
    *out = NULL;
    ash_gguf *g = ash_calloc(1, sizeof *g);
    if (!g) return ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    ash_status s = ash_map_open(&g->map, path, err);
    if (s == ASH_OK) {
        g->p = g->map.p;
        g->n = g->map.n;
        s = ash_gguf_parse(g, err);
        if (s != ASH_OK && err) ash_error_prefix(err, "%s", path);
    }
    if (s != ASH_OK) {
        ash_gguf_close(g);
        return s;
    }
    *out = g;
    return ASH_OK;
}

ash_status ash_gguf_open_mem(ash_gguf **out, const void *p, size_t n, ash_error *err) {
    *out = NULL;
    ash_gguf *g = ash_calloc(1, sizeof *g);
    if (!g) return ash_fail(err, ASH_E_NOMEM, "out of memory opening a GGUF");
    g->p = p;
    g->n = n;
    ash_status s = ash_gguf_parse(g, err);
    if (s != ASH_OK) {
        ash_gguf_close(g);
        return s;
    }
    *out = g;
    return ASH_OK;
}

void ash_gguf_forget_metadata(const ash_gguf *g) {
    if (g->map.p) ash_range_use(g->map.p, ash_gguf_data_offset(g), ASH_RANGE_FORGET, NULL);
}

void ash_gguf_close(ash_gguf *g) {
    if (!g) return;
    ash_map_close(&g->map);
    ash_zero_unmap(g->zero, g->n_zero);
    ash_free(g->kv);
    ash_free(g->tensor);
    ash_free(g->kv_order);
    ash_free(g->tensor_order);
    ash_free(g->names);
    ash_free(g);
}
