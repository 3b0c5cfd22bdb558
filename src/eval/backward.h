/* backward.h - gradients of log p(y) at the outputs of all matrices of the layers, y drawn from the model's own distribution.
 *
 * Over such y the mean of the squared gradient is the Fisher information, which is the Hessian of KL(p || p') at p' = p (Martens 2020, "New
 * insights and perspectives on the natural gradient method"): a change dW of one matrix costs 1/2 E[(sum_t g_t . dW x_t)^2] nats to second order.
 * Plain layers only, those of delta.h (ash_model_plain). */
#ifndef ASH_EVAL_BACKWARD_H
#define ASH_EVAL_BACKWARD_H

#include "eval/delta.h"

/* One matrix, one window: g[T][n_rows] gradients at its output, x[T][K] its input. Called by several threads, one per chunk at a time. */
typedef void (*ash_grad_tap)(void *ctx, uint32_t chunk, int layer, ash_role role, const float *g, int n_rows, const float *x, int K);
/* After a layer, alone. */
typedef void (*ash_grad_layer_done)(void *ctx, int layer);

typedef struct {
    const ash_model *m;
    const ash_token *tok;      /* [n_chunks][T], every chunk a sequence of its own */
    int T, skip;               /* scored are positions skip .. T-1 */
    uint32_t n_chunks;
    ash_token *labels;         /* [n_chunks][T]; drawn here where `draw`, else given; -1: not scored */
    bool draw;
    uint64_t seed;
    ash_grad_tap tap;
    ash_grad_layer_done layer_done; /* may be NULL */
    void *ctx;
    const ash_progress *progress;
} ash_backward_job;
ash_status ash_backward(const ash_exec *e, const ash_backward_job *j, ash_error *err);

#endif
