/* safetensors.h - read one safetensors file: a JSON header of names, types, shapes and byte ranges, then the data.
 * Format: github.com/huggingface/safetensors (README, "Format"). Nothing in the file is trusted: the header's length,
 * every range, that ranges neither overlap nor leave holes, and that each range is as long as its type and shape say. */
#ifndef ASH_SAFETENSORS_H
#define ASH_SAFETENSORS_H

#include "ashlar/tensor.h"
#include "base/base.h"

enum { ASH_ST_MAX_DIMS = 8 };

typedef struct {
    const char *name;                 /* NUL-terminated, owned by the file */
    int dtype;                        /* ash_dtype, or -1: a type that has no counterpart (FP8, U8, BOOL, ...) */
    char dtype_name[12];              /* as the file spells it */
    int n_dims;                       /* 0: a scalar */
    uint64_t shape[ASH_ST_MAX_DIMS];  /* outermost first; the last is the row length */
    uint64_t n_elems, n_bytes, begin; /* begin: from the start of the data */
    const uint8_t *data;              /* into the mapping; any alignment */
} ash_st_tensor;

typedef struct ash_st ash_st; /* immutable after open */

ash_status ash_st_open(ash_st **s, const char *path, ash_error *err);
/* Over caller-owned bytes that outlive s. */
ash_status ash_st_open_mem(ash_st **s, const void *p, size_t n, ash_error *err);
void ash_st_close(ash_st *s);
size_t ash_st_count(const ash_st *s);
const ash_st_tensor *ash_st_at(const ash_st *s, size_t i);           /* in the order of the data */
const ash_st_tensor *ash_st_find(const ash_st *s, const char *name); /* NULL if absent */

#endif
