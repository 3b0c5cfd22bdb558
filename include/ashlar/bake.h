/* ashlar/bake.h - apply a recipe: read, quantize, write. Tensor by tensor, straight from the source's mapping. */
#ifndef ASHLAR_BAKE_H
#define ASHLAR_BAKE_H

#include "ashlar/eval.h"
#include "ashlar/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ASH_BAKE_RECIPE = -1, /* types come from the recipe */
       ASH_BAKE_FLOAT = -2   /* float matrices keep their type, others become F16 (widen without quantizing) */ };

/* Compensated rounding: codes and scales chosen with the second moments of the matrices' real inputs (docs/decisions/0008-compensated-rounding.md). Standard types
 * come out. */
enum { ASH_COMPENSATE_FEEDBACK = 1,    /* a column's error is made good by the columns after it */
       ASH_COMPENSATE_CONDITIONED = 2, /* scales are chosen by what later columns cannot make good */
       ASH_COMPENSATE_DESCENT = 4,     /* codes are improved one at a time */
       ASH_COMPENSATE_REFIT = 8,       /* and scales */
       ASH_COMPENSATE_TIED = 16,       /* tables that are also the head, by the head's inputs */
       ASH_COMPENSATE_ALL = 15 };
typedef struct {
    ash_model *model;          /* the source, loaded; NULL: none of this */
    const ash_eval_text *text; /* calibration text */
    uint32_t n_ctx, n_chunks;  /* 0: 512, all of the text; every chunk's state stays in memory */
    unsigned what;             /* ASH_COMPENSATE_* */
    int passes;                /* of descent and refit */
    double damp;               /* share by which moments between columns are taken smaller than measured */
    bool prefix;               /* inputs from the layers already coded */
} ash_bake_comp;
ASH_API ash_bake_comp ash_bake_comp_defaults(void); /* all but model and text */

typedef struct {
    int type;                  /* one ash_dtype for every matrix, or ASH_BAKE_* */
    const ash_recipe *recipe;  /* with ASH_BAKE_RECIPE */
    uint32_t widen;            /* rows to multiples of this, 0: as they are; a recipe's own value is used with ASH_BAKE_RECIPE */
    bool strict;               /* `type` that does not fit a row: error instead of the named fallback */
    uint32_t file_type;        /* general.file_type to write; 0: by the type that most bytes have */
    bool any_source;           /* do not compare the source with the recipe's model hash */
    ash_importance importance;
    int n_threads;             /* 0: all usable processors */
    const ash_gguf *const *reuse; /* files baked before from the same source with the same importance: tensors that */
    size_t n_reuse;               /* already have the wanted type and shape are copied from them */
    ash_bake_comp compensate;
    ash_progress progress;
} ash_bake_opts;
ASH_API ash_bake_opts ash_bake_defaults(void);

typedef struct {
    const char *name;      /* borrowed from the source */
    ash_dtype from, to;
    int asked;             /* type asked for, or ASH_TYPE_KEEP; differs from `to` for a fallback */
    bool is_matrix;        /* quantizable */
    bool fallback, copied, compensated;
    uint64_t n_weights;    /* of the source; widened weights are not counted */
    uint64_t ne0, ne1;     /* written shape, rows flattened */
    uint64_t bytes;
    int64_t rule;          /* index in the recipe, -1: none */
} ash_bake_tensor;

typedef struct {
    ash_bake_tensor *t;
    size_t n, n_fallback;
    uint64_t file_bytes;   /* exact, before anything is written */
    uint64_t n_weights;    /* of the source */
    double loss[2];        /* compensated tensors: expected squared error of their outputs, plainly coded and as written */
    double bpw;            /* whole file x 8 / n_weights */
    double bpw_blocks;     /* matrices of the blocks only, against the source's weights */
} ash_bake_result;
ASH_API void ash_bake_result_free(ash_bake_result *r);

/* Bytes of the finished file besides its matrices (with `widen`): what the planner cannot change. */
ASH_API ash_status ash_bake_fixed_bytes(uint64_t *bytes, const ash_gguf *src, uint32_t widen, ash_error *err);
/* The nearest type of at least the same bits whose block divides n; t itself when it fits. */
ASH_API ash_dtype ash_bake_fallback(ash_dtype t, uint64_t n);

/* What would be written, and how large; writes nothing. Errors as ash_bake. */
ASH_API ash_status ash_bake_dry(ash_bake_result *r, const ash_gguf *src, const ash_bake_opts *o, ash_error *err);
/* Write `out` beside and rename. An unmatched rule, a rule for a tensor that cannot take it, and a type that does not
 * fit in a recipe are errors. Memory: nine rows per thread and at most 64 MiB of output. r may be NULL. */
ASH_API ash_status ash_bake(ash_bake_result *r, const ash_gguf *src, const char *out, const ash_bake_opts *o, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
