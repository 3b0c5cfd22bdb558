/* whole.h - one layer for a reference and for variants, for every architecture: the engine's own layer function in float32 on
 * the reference's state plus the variant's difference. Slower than delta.h, which repeats the arithmetic of plain layers on
 * differences alone; it knows experts, biases, fused matrices, shared keys and values and per-layer embeddings because the
 * engine does. A difference of zero gives exactly 0: the same function on the same bits. docs/decisions/0004 has both. */
#ifndef ASH_EVAL_WHOLE_H
#define ASH_EVAL_WHOLE_H

#include "eval/exec.h"

/* A matrix, or the stack of a layer's experts: matrix e at w->data + e * stride. */
typedef struct {
    const ash_mat *w;
    size_t stride;
    int n_mat;
    const char *name; /* of the tensor, which other roles may share (fused) */
} ash_part;
/* The part that a role (ASH_ROLE_*) has in a layer (any layer for tables); false where there is none, or none that runs. */
bool ash_part_of(const ash_model *m, int layer, int role, ash_part *p);

/* What one type makes of the matrices of a layer. */
typedef struct {
    const float *panels[ASH_W_COUNT]; /* changed matrices as panels; NULL: not at hand */
    ash_mat rows[ASH_ROLE_COUNT];     /* experts and per-layer embeddings: changed float32 rows; data NULL: not at hand */
} ash_change;

typedef struct {
    const ash_model *m;
    const ash_kern *k;
    int T, layer;
    const float *packed[ASH_W_COUNT]; /* NULL where the layer has none */
} ash_whole;

/* Floats of a chunk's state, of a stream's difference (with or without its own per-layer inputs), of per-thread scratch. */
size_t ash_whole_state(const ash_model *m, int T);
size_t ash_whole_diff(const ash_model *m, int T, bool with_ple);
size_t ash_whole_scratch_floats(const ash_model *m, int T);

/* Reference: state entering -> leaving the layer. */
void ash_whole_ref(const ash_whole *L, const float *in, float *out, float *scratch);
/* Variant: keep (bfloat16) is its difference to `in` on entry (`zero`: not read, all zero) and to `out` on return. `roles` of
 * `c` are changed in this layer. */
void ash_whole_run(const ash_whole *L, const float *in, const float *out, const ash_change *c, uint32_t roles, bool zero, bool with_ple,
                   uint16_t *keep, float *scratch);

/* Float32 rows of a part after decode(encode()) in `type`; imp: columns of every matrix, or NULL; counts: rows that each of
 * the matrices saw, or NULL. err_sums as ash_change_build's, matrices weighted by their counts. */
ash_status ash_change_rows(const ash_exec *e, const ash_part *p, ash_dtype type, const float *imp, const float *counts, float *rows,
                           double err_sums[2], ash_error *err);

#endif
