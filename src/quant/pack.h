/* pack.h - from a fit's scales and codes to the bytes of GGUF blocks. */
#ifndef ASH_PACK_H
#define ASH_PACK_H

#include "quant/fit.h"

/* Write `n_blocks` consecutive blocks of type t to dst from lanes 0.. of `f` (1 to 16 lanes per block). */
void ash_pack(ash_dtype t, const fit_out *f, int n_blocks, uint8_t *const *dst);

#endif
