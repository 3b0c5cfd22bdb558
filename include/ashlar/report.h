/* ashlar/report.h - the account of a fit: as text, as JSON, and as one HTML page without outside references.
 *
 * The caller fills an ash_report (everything borrowed) and asks for a rendering. Output is deterministic: it holds no clock,
 * no random ids. All strings may come from model files: they are escaped. */
#ifndef ASHLAR_REPORT_H
#define ASHLAR_REPORT_H

#include "ashlar/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct { double v, lo, hi; } ash_report_est; /* NAN: not measured */

typedef enum { ASH_RF_FIT = 0, ASH_RF_UNIFORM, ASH_RF_RANDOM, ASH_RF_SOURCE, ASH_RF_PRESET, ASH_RF_BASELINE, ASH_RF_COUNT } ash_report_kind;

typedef struct {
    ash_report_kind kind;
    const char *label;       /* "fit", "IQ4_NL everywhere", "random mix 1" */
    uint64_t bytes;
    double bpw, bpw_blocks;  /* whole file, matrices of the blocks */
    double predicted_kld;    /* NAN: none */
    ash_report_est kld, top1, ppl;
} ash_report_file;

typedef struct {
    int32_t layer;           /* -1: table or head */
    int role;                /* row of the grid: 0 q 1 k 2 v 3 o 4 gate 5 up 6 down, 7 table, 8 head */
    const char *tensor;
    const char *type;        /* chosen */
    double bpw;              /* of that type */
    uint64_t bytes;
    double sensitivity;      /* predicted nats when this matrix alone is at a 4-bit error */
    double damage;           /* predicted nats as chosen */
    bool measured;
} ash_report_cell;

typedef struct { const char *label; double predicted, measured, half; } ash_report_check;
typedef struct { const char *prompt, *reference, *fit; } ash_report_sample;
typedef struct { const char *key, *value; } ash_report_fact;

typedef struct {
    const char *model;       /* name */
    const char *arch;
    uint64_t n_weights, source_bytes;
    uint64_t budget_bytes;
    const char *budget_text; /* "--size 85MB" */
    uint32_t widen;
    uint32_t n_chunks, n_ctx; /* of the proof */
    uint64_t n_scored;
    const ash_report_file *files; /* files[0] is the fit */
    size_t n_files;
    const ash_report_cell *cells;
    size_t n_cells;
    int32_t n_layer;
    const ash_report_check *checks; /* predicted against measured */
    size_t n_checks;
    const ash_report_sample *samples;
    size_t n_samples;
    const ash_report_fact *facts;   /* everything needed to repeat it */
    size_t n_facts;
    const char *const *notes;       /* sentences: what fell back, what was not measured */
    size_t n_notes;
} ash_report;

/* NUL-terminated text; free with ash_report_free. */
ASH_API ash_status ash_report_table(const ash_report *r, char **out, size_t *n, ash_error *err);
ASH_API ash_status ash_report_json(const ash_report *r, char **out, size_t *n, ash_error *err);
ASH_API ash_status ash_report_html(const ash_report *r, char **out, size_t *n, ash_error *err);
/* The files alone as a standalone SVG: bits per weight against divergence, of the whole file above, of the blocks below; lines join the fits and the baselines. */
ASH_API ash_status ash_report_svg(const ash_report *r, char **out, size_t *n, ash_error *err);
/* The same two charts and a table of the files as one HTML page. */
ASH_API ash_status ash_report_front_html(const ash_report *r, char **out, size_t *n, ash_error *err);
ASH_API void ash_report_free(char *s);

#ifdef __cplusplus
}
#endif
#endif
