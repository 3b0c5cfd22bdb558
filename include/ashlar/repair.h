/* ashlar/repair.h - win back part of what quantizing lost: a low-rank correction of the remaining error, as a standard GGUF LoRA. */
#ifndef ASHLAR_REPAIR_H
#define ASHLAR_REPAIR_H

#include "ashlar/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint64_t budget_bytes;     /* of the adapter's tensors; its header is small and comes on top */
    int max_rank;              /* per matrix; 0: 64 */
    ash_importance importance; /* weights the error's columns; none: all alike */
    /* Nats of KLD that `tensor` costs at relative weighted squared error e, for dividing the bytes among matrices; NULL: the planner's
     * table of typical sensitivities, linear in e. Called from one thread. */
    double (*damage)(void *ctx, const char *tensor, double rel_err);
    void *damage_ctx;
    uint64_t seed; /* of the random start block */
    int n_threads; /* 0: all usable processors */
    ash_progress progress;
} ash_repair_opts;
ASH_API ash_repair_opts ash_repair_defaults(void);

typedef struct {
    const char *tensor; /* borrowed from the quantized file */
    uint64_t rows, cols;
    int rank; /* 0: left as it is */
    uint64_t bytes;
    double rel_err, rel_err_after; /* importance-weighted squared error over the weighted square of the original */
} ash_repair_tensor;

typedef struct {
    ash_repair_tensor *t; /* in file order */
    size_t n;
    uint64_t file_bytes, tensor_bytes;
    double damage, damage_after; /* sums over the matrices, in the units of `damage` */
} ash_repair_result;
ASH_API void ash_repair_result_free(ash_repair_result *r);

/* For every matrix of the blocks that both files hold in the same shape (no banks of experts, no tables): E = original - quantized; the
 * leading singular directions of E diag(sqrt(importance)) are the best correction of a given rank for inputs without correlation (closed
 * form; as in LQER, arXiv:2402.02446). Ranks are chosen greedily by damage won per byte. Writes `out` (F16 factors, adapter.lora.alpha 0,
 * so that ranks may differ) beside and renamed; `ashlar run --lora` and llama.cpp's --lora load it. Memory: one matrix in float32 and its
 * factors at max_rank for all matrices. ASH_E_LIMIT: the budget holds not one direction. r may be NULL. */
ASH_API ash_status ash_repair(ash_repair_result *r, const ash_gguf *original, const ash_gguf *quantized, const char *out,
                              const ash_repair_opts *o, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
