/* moments.h - second moments E[x x^T] of the inputs of a model's matrices, one layer at a time.
 *
 * All chunks' states stay in memory between layers; a layer's moments are there from ash_moments_layer until the next call. With a prefix
 * the inputs are those that layers replaced by the caller give (by what the coded weights make of them). */
#ifndef ASH_EVAL_MOMENTS_H
#define ASH_EVAL_MOMENTS_H

#include "eval/exec.h"

typedef struct ash_moments ash_moments;
#define ASH_MOMENT_FIRST 0.5f /* the first token of a window counts as this share of the window's tokens */
#define ASH_MOMENT_POINTS 4 /* ASH_TAP_ATTN_IN .. ASH_TAP_DOWN_IN */

/* mem_bytes bounds what a layer's moments may take (points over it are left out: NULL). */
ash_status ash_moments_new(ash_moments **mo, const ash_model *m, const ash_eval_text *t, bool prefix, const ash_eval_opts *o,
                           ash_error *err);
void ash_moments_free(ash_moments *mo);
uint32_t ash_moments_chunks(const ash_moments *mo);
ash_pool *ash_moments_pool(const ash_moments *mo);

/* Layers in order, from 0. Without `want` nothing is summed. */
ash_status ash_moments_layer(ash_moments *mo, int layer, bool want, ash_error *err);
/* The next layer's inputs will be those that this one gives with matrices `w` (by role; data NULL: the model's own). Only with a prefix. */
ash_status ash_moments_replace(ash_moments *mo, int layer, const ash_mat w[ASH_W_COUNT], ash_error *err);
/* Takes the K x K sums (i <= j) of a point away; NULL when there are none. Free with ash_free. Tokens but the first count equally in what attention and
 * FFN read; before O and down by the residual they are added to (moments.c). */
float *ash_moments_take(ash_moments *mo, ash_tap_point p, int *K);
/* After the last layer: of the head's inputs. */
ash_status ash_moments_head(ash_moments *mo, float **H, ash_error *err);

#endif
