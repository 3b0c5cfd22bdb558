/* gguf_int.h - what the files of src/gguf share: limits, the reader's object, small helpers. */
#ifndef ASH_GGUF_INT_H
#define ASH_GGUF_INT_H

#include "ashlar/gguf.h"
#include "base/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "scalars are read and written by memcpy");

enum {
    GGUF_MAX_KV = 1 << 16, /* real files have under 100 */
    GGUF_MAX_KEY = 65535,  /* gguf.md: "at most 2^16-1 bytes" */
    GGUF_MAX_NAME = 64,    /* gguf.md: "at most 64 bytes" */
    GGUF_MAX_DEPTH = 4,    /* arrays in arrays */
    GGUF_MIN_ALIGN = 8,    /* gguf.md: "a multiple of 8" */
    GGUF_MAX_ALIGN = 1 << 20,
    GGUF_DEFAULT_ALIGN = 32,
    GGUF_MIN_KV_BYTES = 8 + 1 + 4 + 1,         /* key length, one byte of key, type, a bool */
    GGUF_MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8, /* name length, one byte, dims, type, offset */
    GGUF_HEADER_BYTES = 4 + 4 + 8 + 8
};

/* Entries are allocated for the claimed counts, which the header check has bounded by the bytes left. */
_Static_assert(sizeof(ash_gguf_kv) + sizeof(uint32_t) <= 4 * GGUF_MIN_KV_BYTES, "metadata takes under 4 times its bytes");
_Static_assert(sizeof(ash_gguf_tensor) + 2 * sizeof(uint32_t) + GGUF_MAX_NAME / 8 <= 4 * GGUF_MIN_TENSOR_BYTES, "and so do tensors");

struct ash_gguf {
    ash_map map;
    const uint8_t *p;
    uint64_t n;
    uint32_t version;
    uint64_t alignment, data_offset;
    size_t n_kv, n_tensors;
    ash_gguf_kv *kv;
    ash_gguf_tensor *tensor;
    uint32_t *kv_order, *tensor_order; /* indices sorted by name */
    char *names;                       /* of all tensors, NUL-terminated, one block */
    bool unranged;                     /* while parsing: tensors may lie beyond the end */
    void *zero;                        /* a hollow file's bytes: the header, then zeros */
    uint64_t n_zero;
};

/* Header and tensor list of g->p, g->n. */
ash_status ash_gguf_parse(ash_gguf *g, ash_error *err);
/* A hollow file's own copy of a tensor's bytes, to be filled by who opened it; NULL for other files. */
void *ash_gguf_hollow_data(ash_gguf *g, const char *tensor);

/* Bytes of one fixed-size value; 0 for STRING, ARRAY and unknown types. */
uint32_t ash_gv_size(ash_gv_type t);
const char *ash_gv_name(ash_gv_type t);

/* Shorter strings first among equal prefixes, as memcmp orders bytes. */
int ash_str_cmp(ash_str a, ash_str b);
bool ash_utf8_valid(const char *p, size_t n);

/* Heap sort of indices: no allocation, n log n whatever a hostile file does. */
typedef int (*ash_index_cmp)(const void *ctx, uint32_t a, uint32_t b);
void ash_index_sort(uint32_t *idx, size_t n, ash_index_cmp cmp, const void *ctx);

/* The parts of a header on their own, for edits that leave the data section as it is. */
ash_status ash_gguf_writer_add_raw(ash_gguf_writer *w, const ash_gguf_tensor *t, ash_error *err);
ash_status ash_gguf_writer_header(const ash_gguf_writer *w, ash_buf *out, ash_error *err);
ash_status ash_gguf_check_key(const char *p, size_t n, ash_error *err);
/* One scalar in its stored width: value in kv->v. */
ash_status ash_gguf_set_scalar(ash_gguf_writer *w, const ash_gguf_kv *kv, ash_error *err);
/* The array as the writer has it: its elements' bytes, to be changed in place. NULL: no such key, or no array. */
uint8_t *ash_gguf_writer_array(ash_gguf_writer *w, const char *key, ash_gv_type *elem, uint64_t *n);

/* ---- gguf_assign.c ---- */
/* "KEY=VALUE", and with `arrays` KEY[3]=V, KEY[*]=V, KEY=[V,V]; types of the keys in `g`. */
ash_status ash_gguf_assign(ash_gguf_writer *w, const ash_gguf *g, const char *text, bool arrays, ash_error *err);
/* The key (owned), the value inside text; which element: UINT64_MAX all, UINT64_MAX - 1 none named. */
ash_status ash_gguf_assigned_key(const char *text, char **key, const char **value, uint64_t *which, ash_error *err);

/* ---- gguf_edit.c ---- */
/* g's data section under w's header (tensors added raw), beside and renamed. */
ash_status ash_gguf_write_over(const ash_gguf *g, ash_gguf_writer *w, const char *path, ash_error *err);
/* The tensors of g under the metadata of kv: both must outlive it. */
ash_status ash_gguf_with_kv(ash_gguf **out, const ash_gguf *g, const ash_gguf *kv, ash_error *err);

#endif
