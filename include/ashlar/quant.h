/* ashlar/quant.h - encoders: float32 rows into GGUF block types. */
#ifndef ASHLAR_QUANT_H
#define ASHLAR_QUANT_H

#include "ashlar/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* True for the types ash_quant_row can write. */
ASH_API bool ash_quant_can(ash_dtype t);
/* True when llama-quantize would want an importance matrix for good results (reported, never demanded). */
ASH_API bool ash_quant_wants_imatrix(ash_dtype t);

/* Encode one row of n elements (multiple of the block size). `imp` is n importance weights (mean
 * squared input per column; any positive scale) or NULL. Deterministic; thread-safe; NaN/Inf in src is
 * ASH_E_FORMAT naming the column. Minimises sum imp[j] * (x - x')^2 (imp = 1 without). */
ASH_API ash_status ash_quant_row(ash_dtype t, const float *src, void *dst, uint64_t n,
                                 const float *imp, ash_error *err);

/* n_rows rows, in parallel over `n_threads` given by an opaque pool may be NULL (see engine pools). */
struct ash_pool;
ASH_API ash_status ash_quant_rows(ash_dtype t, const float *src, void *dst, uint64_t n_rows, uint64_t n,
                                  const float *imp, struct ash_pool *pool, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
