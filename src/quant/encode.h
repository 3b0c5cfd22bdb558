/* encode.h - the row driver with the CPU level given, for tests and benchmarks. */
#ifndef ASH_ENCODE_H
#define ASH_ENCODE_H

#include "ashlar/quant.h"
#include "base/base.h"

/* ash_quant_rows at a level (clamped to what the machine has). */
ash_status ash_quant_rows_at(ash_cpu_level level, ash_dtype t, const float *src, void *dst, uint64_t n_rows, uint64_t n, const float *imp,
                             ash_pool *pool, ash_error *err);

#endif
