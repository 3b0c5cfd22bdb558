/* ashlar/lab.h - published experiments on low-bit models as named, repeatable runs: the claim, the method, the figures with
 * their intervals, a verdict. The claims are those of the Grey Liquid Labs papers (experiments 1 to 9, the stability cliff). */
#ifndef ASHLAR_LAB_H
#define ASHLAR_LAB_H

#include "ashlar/eval.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ASH_LAB_REPRODUCED, ASH_LAB_REFUTED, ASH_LAB_NOT_TESTABLE } ash_lab_verdict;
ASH_API const char *ash_lab_verdict_name(ash_lab_verdict v); /* "reproduced", "refuted", "not testable here" */

typedef struct {
    const char *name;    /* "q2k" */
    const char *paper;   /* "Experiment 1" */
    const char *claim;   /* as published, in short */
    const char *method;  /* what is done here, and when the verdict is which */
    bool many;           /* takes several models */
} ash_lab_experiment;
ASH_API size_t ash_lab_count(void);
ASH_API const ash_lab_experiment *ash_lab_at(size_t i);
ASH_API const ash_lab_experiment *ash_lab_find(const char *name); /* NULL: no such experiment */

/* The papers' test: one prompt, one answer. A demonstration, never a verdict. */
typedef enum { ASH_PROBE_OK, ASH_PROBE_WRONG, ASH_PROBE_LOOP, ASH_PROBE_TIMEOUT, ASH_PROBE_NAN, ASH_PROBE_ABORT, ASH_PROBE_LOAD_FAIL, ASH_PROBE_NONE } ash_probe;
ASH_API const char *ash_probe_name(ash_probe p); /* "OK", ..., "-" */

typedef struct {
    uint32_t n_ctx, n_chunks; /* of the text; 0: 256 and 4 */
    uint32_t n_random;        /* random drops; 0: 3 */
    int n_threads;
    uint64_t seed;
    double probe_seconds;     /* limit of the probe; 0: 60; < 0: no probe */
    const char *text, *calib; /* files: measured on, and for importance */
    const char *scratch;      /* folder for variants, one at a time; each is removed */
    /* Runs the probe where a crash does not matter (a process of its own); NULL: ash_lab_probe in this process, which cannot
     * tell ABORT. */
    ash_probe (*probe)(void *ctx, const char *path, double seconds, int n_threads);
    void *probe_ctx;
    ash_progress progress;
} ash_lab_opts;
ASH_API ash_lab_opts ash_lab_defaults(void);
ASH_API ash_probe ash_lab_probe(const char *path, double seconds, int n_threads);

typedef struct {
    char label[64];
    bool has_kld;
    ash_est kld;           /* to the reference named in the method */
    double bpw;            /* of the blocks' matrices; 0: not quantized here */
    ash_probe probe;
    char note[160];
} ash_lab_row;
typedef struct {
    const ash_lab_experiment *what;
    ash_lab_verdict verdict;
    char reason[320];
    ash_lab_row *rows;
    size_t n_rows;
    uint32_t n_ctx, n_chunks;
    char text_sha256[65], model_sha256[65];
    bool widened; /* presets were made of widened rows; say ASH_LAB_WIDENED then */
    double seconds;
} ash_lab_result;
#define ASH_LAB_WIDENED "Rows of this model are no multiple of 256: for the presets they were widened with zero channels, so that the types are what the names say; bits are counted per weight of the model as it is."
ASH_API void ash_lab_result_free(ash_lab_result *r);
ASH_API ash_status ash_lab_run(ash_lab_result *r, const ash_lab_experiment *e, const char *const *models, size_t n_models, const ash_lab_opts *o, ash_error *err);

/* A report: Markdown (with `plot`, the name of the plot's file, or NULL), and the plot as SVG. NUL-terminated, free with ash_text_free. */
ASH_API ash_status ash_lab_markdown(const ash_lab_result *r, const char *model, const char *plot, char **out, size_t *n, ash_error *err);
ASH_API ash_status ash_lab_svg(const ash_lab_result *r, char **out, size_t *n, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
