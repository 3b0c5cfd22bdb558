/* layer.h - one layer at a time, for eval and the sweep: the same stage functions as the session's forward pass
 * (fwd.c), run by the calling thread on weights given as float32 panels. No allocation; several threads may work on
 * different data with the same model. */
#ifndef ASH_LAYER_H
#define ASH_LAYER_H

#include "ashlar/text.h"
#include "kern/kern.h"
#include "model/model_int.h"

/* Points where a matrix reads its input: normalised residual -> Q, K, V; attention result -> O; normalised residual ->
 * gate, up; activated product -> down; the same for one expert; the router's input; inputs of the per-layer embedding
 * stage's two matrices, and of the projection that makes its inputs (layer -1). */
typedef enum {
    ASH_TAP_ATTN_IN,
    ASH_TAP_O_IN,
    ASH_TAP_FFN_IN,
    ASH_TAP_DOWN_IN,
    ASH_TAP_ROUTER_IN,
    ASH_TAP_EXP_IN,
    ASH_TAP_EXP_DOWN_IN,
    ASH_TAP_PLE_IN,
    ASH_TAP_PLE_PROJ_IN,
    ASH_TAP_PLE_MODEL_IN,
    ASH_TAP_COUNT
} ash_tap_point;
/* n_tok rows of K floats, stride ldx; valid during the call. `expert`: 0 but for the expert points. */
typedef void (*ash_layer_tap)(void *ctx, int layer, ash_tap_point p, int expert, const float *x, int64_t ldx, int n_tok, int K);
/* The tap point whose input the role's matrix reads. */
ash_tap_point ash_role_tap(ash_role role);

/* A sequence between layers: the residual stream x[n][n_embd], and right after it what later layers need of earlier ones
 * (per-layer embedding inputs, lent keys and values): nothing for most models. Floats of all, a multiple of 16. */
size_t ash_layer_state_floats(const ash_model *m, int n_tok);
/* Where in it the per-layer embedding inputs and the lent keys and values begin. */
void ash_layer_state_parts(const ash_model *m, int n_tok, size_t *ple, size_t *lent);

/* The state entering layer 0, embedding scale applied. Ids must be in range. */
void ash_embed_tokens(const ash_model *m, const ash_kern *k, const ash_token *t, int n, float *x);

/* Floats of scratch that ash_layer_apply and ash_final_norm need for a sequence of n_tok. 64-byte aligned, please. */
size_t ash_layer_scratch_floats(const ash_model *m, int n_tok);

/* Residual stream entering the layer -> leaving it, in place (x: a state as above). One sequence at positions 0..n_tok-1.
 * packed[role]: ash_mm_pack of the matrix (or of any other matrix of that shape), NULL where the layer has none; experts and
 * the matrices of the per-layer embedding are read from the file. Layers in order. tap may be NULL. Float32 K and V.
 * Same bits as a session at ASH_PREC_EXACT. */
void ash_layer_apply(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                     float *scratch, ash_layer_tap tap, void *ctx);

/* Later entries into the same layer, for sweeps that change one matrix: ASH_STAGE_FFN skips attention (x is the
 * residual after attention has been added). ASH_STAGE_ATTN is ash_layer_apply. */
typedef enum { ASH_STAGE_ATTN, ASH_STAGE_FFN } ash_layer_stage;
void ash_layer_apply_from(const ash_model *m, const ash_kern *k, int layer, ash_layer_stage stage, const float *const packed[ASH_W_COUNT],
                          float *x, int n_tok, float *scratch, ash_layer_tap tap, void *ctx);
/* Attention half only: x -> residual after attention. */
void ash_layer_apply_attn(const ash_model *m, const ash_kern *k, int layer, const float *const packed[ASH_W_COUNT], float *x, int n_tok,
                          float *scratch, ash_layer_tap tap, void *ctx);

/* y[n_tok][n_embd] = final norm of x (may be in place): the head's input. */
void ash_final_norm(const ash_model *m, const ash_kern *k, const float *x, int n_tok, float *y);

#endif
