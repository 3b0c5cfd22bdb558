/* ashlar/fit.h - the main job: measure a model, cut it to a budget, prove the result. One call, resumable. */
#ifndef ASHLAR_FIT_H
#define ASHLAR_FIT_H

#include "ashlar/bake.h"
#include "ashlar/eval.h"
#include "ashlar/report.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ASH_BUDGET_SIZE = 0, ASH_BUDGET_BPW, ASH_BUDGET_RAM, ASH_BUDGET_KLD /* the smallest file found that measures at or below it on the test text */ } ash_budget_kind;
typedef enum { ASH_EFFORT_QUICK = 0, ASH_EFFORT_NORMAL, ASH_EFFORT_HIGH } ash_effort;

typedef struct {
    const char *model, *out;
    const char *ref;            /* what "the original" is; NULL: the model as given */
    ash_budget_kind budget;
    double amount;              /* bytes, bits per weight of the whole file, or nats per token */
    uint32_t n_ctx;             /* RAM budgets: context whose KV counts; 0: 2048 */
    const char *const *calib, *const *test; /* text files */
    size_t n_calib, n_test;
    const ash_dtype *types;     /* allowed; NULL: the standard types */
    size_t n_types;
    ash_plan_method method;     /* ASH_PLAN_DAMAGE; a baseline takes neither sweep nor refinement */
    const ash_dtype *sweep_types; /* what the sweep measures each matrix in; NULL: two types around the budget's mean bits. Fits to several sizes that name */
    size_t n_sweep_types;         /* the same types (1 to 4) and share a work directory share the sweep */
    int widen;                  /* -1: weigh it, 0: never, 1: always */
    int controls;               /* random mixes of the same size; -1: no control file at all */
    ash_effort effort;
    bool plain;                 /* plain rounding; else the finished file is compensated (bake.h) where the calibration text is long enough */
    uint64_t seed;
    int n_threads;              /* 0: all usable processors */
    const char *workdir;        /* NULL: "<out>.fit" */
    const char *command;        /* for the report; may be NULL */
    ash_progress progress;
    void (*say)(void *ctx, const char *line); /* the estimate, and what was decided; may be NULL */
    void *say_ctx;
} ash_fit_opts;
ASH_API ash_fit_opts ash_fit_defaults(void);

typedef struct ash_fit_result ash_fit_result;
ASH_API const ash_report *ash_fit_report(const ash_fit_result *r); /* borrowed */
ASH_API const ash_recipe *ash_fit_recipe(const ash_fit_result *r); /* borrowed */
ASH_API void ash_fit_result_free(ash_fit_result *r);

/* Importance, sweep, plan, refine by measured divergence, quantize, prove on the test text, controls. Every stage leaves its
 * result in the work directory under a key of all it depends on; an interrupted call (progress returns false, ASH_E_CANCELLED)
 * leaves an old `out` intact, and the next one continues. ASH_E_LIMIT names the smallest possible file; ASH_E_USAGE when
 * calibration and test text share more than 0.1 % of their 16-word windows. */
ASH_API ash_status ash_fit(ash_fit_result **r, const ash_fit_opts *o, ash_error *err);

/* ---- many sizes: the Pareto front (docs/front.md) ---- */
typedef struct {
    ash_report_kind kind;       /* ASH_RF_FIT, ASH_RF_BASELINE or ASH_RF_PRESET */
    char label[48];             /* "fit 88.2 MB", "lagrange 88.2 MB", "Q4_K_M" */
    char path[512];             /* "" when the file was not kept */
    uint64_t budget;            /* 0: a preset */
    uint64_t bytes;
    double bpw, bpw_blocks;
    double predicted_kld;       /* NAN: none */
    ash_report_est kld, top1, ppl;
    uint32_t n_ctx, n_chunks;
    bool reused;                /* measured by an earlier call */
    bool pareto;                /* no other row is as small with less divergence */
} ash_front_row;

typedef struct {
    ash_fit_opts fit;           /* budget, amount, out, controls and method are not used; workdir is needed. No sweep_types: Q4_0 and Q2_K */
    const uint64_t *sizes;      /* whole-file bytes; NULL: n_sizes of them, evenly spaced on a logarithmic scale */
    size_t n_sizes;
    const size_t *presets;      /* indices (plan.h), measured as made by our encoders */
    size_t n_presets;
    bool lagrange, lagrange_rel; /* the baselines at every size as well */
    double kld;                 /* > 0: also look for the smallest file that measures at or below */
    bool keep;                  /* leave fits and baselines in the work directory: fit-BYTES.gguf, lagrange-BYTES.gguf by their budgets */
    /* After every row; rows are in the order of measuring. May be NULL. */
    void (*rows)(void *ctx, const ash_front_row *rows, size_t n);
    void *rows_ctx;
} ash_front_opts;
typedef struct {
    ash_front_row *rows;
    size_t n;
    size_t smallest;            /* row of the smallest file at or below `kld`; SIZE_MAX: not asked for, or none */
    char model[256];            /* name from the file */
} ash_front_result;
/* One importance matrix, one sweep, one reference for all sizes. Every measured row stays in the work directory: an interrupted call continues. */
ASH_API ash_status ash_front(ash_front_result *r, const ash_front_opts *o, ash_error *err);
ASH_API void ash_front_result_free(ash_front_result *r);

/* Whole-file bytes that a budget allows for this model: --bpw by its weights; --ram less a session's KV and scratch at n_ctx
 * and 16 MiB for the program. m may be NULL unless the budget is RAM. */
ASH_API ash_status ash_fit_budget(uint64_t *bytes, const ash_gguf *g, ash_model *m, ash_budget_kind kind, double amount, uint32_t n_ctx, ash_error *err);
/* Share of the test text's 16-word windows that also occur in the calibration text. */
ASH_API ash_status ash_fit_overlap(double *share, const char *calib, size_t n_calib, const char *test, size_t n_test, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
