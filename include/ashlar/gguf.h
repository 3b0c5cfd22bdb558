/* ashlar/gguf.h - read (v2, v3), edit and write GGUF files.
 * Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Nothing in a file is trusted. */
#ifndef ASHLAR_GGUF_H
#define ASHLAR_GGUF_H

#include "ashlar/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ASH_GGUF_MAX_DIMS 4

typedef enum {
    ASH_GV_U8 = 0, ASH_GV_I8, ASH_GV_U16, ASH_GV_I16, ASH_GV_U32, ASH_GV_I32, ASH_GV_F32,
    ASH_GV_BOOL, ASH_GV_STRING, ASH_GV_ARRAY, ASH_GV_U64, ASH_GV_I64, ASH_GV_F64, ASH_GV_COUNT
} ash_gv_type;

/* One metadata entry. Scalars sit in `u`/`i`/`f` by kind (bool in u). Arrays: element type, count, and
 * for fixed-size elements a borrowed pointer to little-endian, possibly unaligned data; strings and
 * nested arrays are walked with ash_gguf_array_str. */
typedef struct {
    ash_str key;
    ash_gv_type type;
    ash_gv_type elem_type;    /* ARRAY */
    union {                   /* small on purpose: a file of tiny keys must not blow up in memory */
        union { uint64_t u; int64_t i; double f; } v;
        uint64_t n;           /* ARRAY: elements */
    };
    union {
        ash_str str;          /* STRING */
        struct {
            const uint8_t *data; /* ARRAY: first element's bytes */
            uint64_t data_bytes;
        };
    };
} ash_gguf_kv;

typedef struct {
    char *name;               /* NUL-terminated, owned by the gguf */
    ash_dtype type;
    int n_dims;
    uint64_t ne[ASH_GGUF_MAX_DIMS]; /* ne[0] = row length; unused dims are 1 */
    uint64_t offset;          /* from the start of the data section */
    uint64_t n_bytes;
    const uint8_t *data;      /* into the mapping */
} ash_gguf_tensor;

typedef struct ash_gguf ash_gguf; /* immutable after open; may be shared by threads */

/* Map and validate a file: every count, length, type, alignment, name (unique) and tensor range is
 * checked before anything is believed. Memory use is bounded by a small multiple of the header. */
ASH_API ash_status ash_gguf_open(ash_gguf **g, const char *path, ash_error *err);
/* The same over caller-owned bytes that must outlive g (tests, fuzzing). */
ASH_API ash_status ash_gguf_open_mem(ash_gguf **g, const void *p, size_t n, ash_error *err);
/* A header alone: `p` holds the first n bytes of a file, at least up to its tensor data, which need not be there. All tensor values read as
 * zero and take no memory. p is copied. The second takes a file, which may be cut off anywhere after its header; *lost (may be NULL) gets the
 * bytes that are missing at its end. */
ASH_API ash_status ash_gguf_open_header(ash_gguf **g, const void *p, size_t n, ash_error *err);
ASH_API ash_status ash_gguf_open_cut(ash_gguf **g, const char *path, uint64_t *lost, ash_error *err);
ASH_API bool ash_gguf_hollow(const ash_gguf *g); /* opened by one of these two */
ASH_API void ash_gguf_close(ash_gguf *g);
/* Let the metadata's pages of a mapped file leave memory; they come back when read. Thread-safe. */
ASH_API void ash_gguf_forget_metadata(const ash_gguf *g);

ASH_API const char *ash_gguf_path(const ash_gguf *g);      /* "" for memory */
ASH_API uint64_t ash_gguf_file_bytes(const ash_gguf *g);
ASH_API uint32_t ash_gguf_version(const ash_gguf *g);
ASH_API uint64_t ash_gguf_alignment(const ash_gguf *g);
ASH_API uint64_t ash_gguf_data_offset(const ash_gguf *g);
ASH_API size_t ash_gguf_n_kv(const ash_gguf *g);
ASH_API const ash_gguf_kv *ash_gguf_kv_at(const ash_gguf *g, size_t i);
ASH_API const ash_gguf_kv *ash_gguf_find(const ash_gguf *g, const char *key); /* NULL if absent */
ASH_API size_t ash_gguf_n_tensors(const ash_gguf *g);
ASH_API const ash_gguf_tensor *ash_gguf_tensor_at(const ash_gguf *g, size_t i);
ASH_API const ash_gguf_tensor *ash_gguf_find_tensor(const ash_gguf *g, const char *name);

/* Typed getters: true and *out set when the key exists with a compatible type (any integer type
 * whose value fits; F32/F64 or integer for f64). False otherwise, *out untouched. */
ASH_API bool ash_gguf_get_u64(const ash_gguf *g, const char *key, uint64_t *out);
ASH_API bool ash_gguf_get_i64(const ash_gguf *g, const char *key, int64_t *out);
ASH_API bool ash_gguf_get_f64(const ash_gguf *g, const char *key, double *out);
ASH_API bool ash_gguf_get_bool(const ash_gguf *g, const char *key, bool *out);
ASH_API bool ash_gguf_get_str(const ash_gguf *g, const char *key, ash_str *out);
/* i-th element of a numeric/bool array entry, converted. */
ASH_API bool ash_gguf_array_i64(const ash_gguf_kv *kv, uint64_t i, int64_t *out);
ASH_API bool ash_gguf_array_f64(const ash_gguf_kv *kv, uint64_t i, double *out);
/* Walk a string array: *cursor starts at 0; false at the end. */
ASH_API bool ash_gguf_array_str(const ash_gguf_kv *kv, uint64_t *cursor, ash_str *out);

/* ---- writing ----
 * Build the header (keys in call order, later set replaces earlier in place), declare every tensor,
 * then write the file; tensor data is supplied in declaration order, in pieces of any size. */
typedef struct ash_gguf_writer ash_gguf_writer;
ASH_API ash_status ash_gguf_writer_new(ash_gguf_writer **w, ash_error *err);
ASH_API void ash_gguf_writer_free(ash_gguf_writer *w); /* aborts an unfinished file */
ASH_API ash_status ash_gguf_set_u32(ash_gguf_writer *w, const char *key, uint32_t v, ash_error *err);
ASH_API ash_status ash_gguf_set_u64(ash_gguf_writer *w, const char *key, uint64_t v, ash_error *err);
ASH_API ash_status ash_gguf_set_i32(ash_gguf_writer *w, const char *key, int32_t v, ash_error *err);
ASH_API ash_status ash_gguf_set_f32(ash_gguf_writer *w, const char *key, float v, ash_error *err);
ASH_API ash_status ash_gguf_set_bool(ash_gguf_writer *w, const char *key, bool v, ash_error *err);
ASH_API ash_status ash_gguf_set_str(ash_gguf_writer *w, const char *key, const char *s, size_t n, ash_error *err);
ASH_API ash_status ash_gguf_set_array(ash_gguf_writer *w, const char *key, ash_gv_type elem, const void *data, uint64_t n, ash_error *err); /* fixed-size elements */
ASH_API ash_status ash_gguf_set_str_array(ash_gguf_writer *w, const char *key, const ash_str *s, uint64_t n, ash_error *err);
ASH_API ash_status ash_gguf_unset(ash_gguf_writer *w, const char *key); /* absent is fine */
/* Copy all metadata (bytes unchanged, order kept), or one entry. */
ASH_API ash_status ash_gguf_copy_kv(ash_gguf_writer *w, const ash_gguf *src, ash_error *err);
ASH_API ash_status ash_gguf_copy_kv_one(ash_gguf_writer *w, const ash_gguf_kv *kv, ash_error *err);
ASH_API ash_status ash_gguf_add_tensor(ash_gguf_writer *w, const char *name, ash_dtype type, int n_dims, const uint64_t *ne, ash_error *err);
/* Size the finished file will have (header + aligned data), known once all tensors are declared. */
ASH_API uint64_t ash_gguf_writer_bytes(const ash_gguf_writer *w);
ASH_API ash_status ash_gguf_writer_begin(ash_gguf_writer *w, const char *path, ash_error *err);
ASH_API ash_status ash_gguf_writer_data(ash_gguf_writer *w, const void *p, size_t n, ash_error *err);
ASH_API ash_status ash_gguf_writer_finish(ash_gguf_writer *w, ash_error *err); /* verifies completeness, fsync, rename */

/* Metadata edit without rewriting what need not move: `KEY=VALUE` set by type of the existing key
 * (new keys take "u32:", "i32:", "f32:", "bool:", "str:" prefixes; default str), written beside and renamed. */
ASH_API ash_status ash_gguf_edit(const char *path, const char *const *assignments, size_t n, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
