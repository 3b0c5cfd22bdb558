/* compensate.h - the matrices of a bake that are coded with second moments (quant/compensate.h): made layer by layer before the file is
 * written, kept in files beside it (`OUT.comp-N`), which an interrupted bake finds again. */
#ifndef ASH_BAKE_COMPENSATE_H
#define ASH_BAKE_COMPENSATE_H

#include "ashlar/bake.h"
#include "base/base.h"

typedef struct ash_parts ash_parts;

/* t[i]: what bake decided for tensor i of src. Sets t[i].compensated. */
ash_status ash_parts_make(ash_parts **p, const ash_gguf *src, const ash_widen *widen, ash_bake_tensor *t, size_t n, const char *out,
                          const ash_bake_opts *o, ash_error *err);
/* The bytes of tensor i, or NULL. */
const uint8_t *ash_parts_find(const ash_parts *p, size_t i);
/* Sums of e^T H e over everything compensated: plain codes, and as written. */
void ash_parts_loss(const ash_parts *p, double loss[2]);
/* `done`: the files are no longer wanted. */
void ash_parts_free(ash_parts *p, bool done);

#endif
