/* imatrix.h - the importance matrix in memory: entries sorted by tensor name. */
#ifndef ASH_EVAL_IMATRIX_H
#define ASH_EVAL_IMATRIX_H

#include "ashlar/eval.h"
#include "base/base.h"

typedef struct {
    char *name;
    uint64_t n, n_mat; /* n columns over all matrices, n % n_mat == 0 */
    float *sum2, *counts, *mean;
    uint64_t n_out;          /* rows of the matrix; 0: no gradients */
    float *grad_in, *grad_out; /* n, n_out: ash_imatrix_gradients */
} ash_im_entry;

struct ash_imatrix {
    ash_arena arena;
    ash_im_entry *e;
    size_t n, cap;
    char *dataset;
    uint32_t chunks, chunk_size;
};

/* Append an entry (copies); sum2 are doubles or floats, whichever is not NULL. Call ash_im_finish once at the end: sorts,
 * makes the means. */
ash_status ash_im_add(ash_imatrix *im, const char *name, size_t name_len, uint64_t n, uint64_t n_mat, const double *sum2d, const float *sum2f,
                      const float *counts, ash_error *err);
/* Gradients of an entry (copies). */
ash_status ash_im_set_grad(ash_imatrix *im, ash_im_entry *e, const float *in, const float *out, uint64_t n_out, ash_error *err);
ash_im_entry *ash_im_find(const ash_imatrix *im, const char *name);
ash_status ash_im_finish(ash_imatrix *im, ash_error *err);
/* Rank 0's matrix (or none) for the others: *out is set on ranks above 0 only and theirs to free. */
ash_status ash_imatrix_share(ash_imatrix **out, const ash_imatrix *im, const ash_ranks *r, ash_error *err);

#endif
