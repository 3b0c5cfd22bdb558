/* lab_int.h - what experiments share: the run's context, rows, variants of a model that are written, measured and removed. */
#ifndef ASH_LAB_INT_H
#define ASH_LAB_INT_H

#include "ashlar/bake.h"
#include "ashlar/lab.h"
#include "ashlar/slice.h"
#include "model/model_int.h"

typedef struct {
    const ash_lab_opts *o;
    ash_lab_result *r;
    const char *const *paths;
    size_t n_paths;
    ash_model *m;             /* the first model */
    ash_eval_text t;
    ash_eval_ref *ref;        /* of m, made when first asked for */
    ash_eval_opts eo;
    char *tmp[2];             /* scratch files */
} lab;

/* A new row, or NULL: out of memory. */
ash_lab_row *lab_row(lab *l, const char *fmt, ...) ASH_PRINTF(2, 3);
ash_status lab_verdict(lab *l, ash_lab_verdict v, const char *fmt, ...) ASH_PRINTF(3, 4);
ash_status lab_oom(ash_error *err);
/* Another model takes the first one's place (its reference goes). */
ash_status lab_use(lab *l, const char *path, ash_error *err);
/* KL divergence of the file to the model's own. */
ash_status lab_measure(lab *l, const char *path, ash_lab_row *row, ash_error *err);
void lab_probe(lab *l, const char *path, ash_lab_row *row);
/* The preset `name` of the model into `out`; rows are widened where that makes k-quants fit. *real: at least nine tenths of the blocks'
 * weights have super-block types, so that the preset is what its name says. */
ash_status lab_preset(lab *l, const char *name, const ash_imatrix *im, const char *out, double *bpw, bool *real, ash_error *err);
/* Feed-forward ratio, averaged over layers, and whether any layer has a window. */
double lab_ffn_ratio(const ash_model *m);
bool lab_has_window(const ash_model *m);

/* Bands of the mean KL divergence, in nats: above BROKEN a model is unusable, below FAINT the change cannot be told. */
#define LAB_BROKEN 0.8
#define LAB_FAINT 0.05

#endif
