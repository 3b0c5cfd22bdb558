/* fit_int.h - what the parts of `fit` share: texts, the work directory with its cache of measurements, candidates. */
#ifndef ASH_FIT_INT_H
#define ASH_FIT_INT_H

#include "ashlar/fit.h"
#include "base/base.h"

enum { FIT_MAX_CHUNKS = 64, FIT_MAX_FILES = 256, FIT_MAX_CHECKS = 64, FIT_MAX_NOTES = 32, FIT_MAX_FACTS = 40, FIT_WIDEN = 256, FIT_MAX_SWEEP_TYPES = 4 };

enum { FIT_T_IMPORTANCE, FIT_T_SWEEP, FIT_T_PLAN, FIT_T_COUNT };

/* One measured file. */
typedef struct {
    ash_est kld, top1, ppl, ppl_ref;
    double rel_half;                  /* half-width of kld */
    uint32_t n_ctx, n_chunks;
    uint64_t n_scored;
    double chunk[FIT_MAX_CHUNKS];     /* mean KLD of each chunk */
    uint64_t bytes;
    double bpw, bpw_blocks;
    double predicted;                 /* NAN: none */
} fit_meas;

typedef struct {
    ash_buf text;                     /* all files, a blank line between */
    ash_eval_text tok;
    char sha[65];
} fit_text;

/* What to bake: a recipe or one type for all. */
typedef struct { const ash_recipe *recipe; int type; } fit_cand;

struct ash_fit_result {
    ash_arena arena;
    ash_report report;
    ash_report_file files[FIT_MAX_FILES];
    ash_report_check checks[FIT_MAX_CHECKS];
    ash_report_sample samples[4];
    ash_report_fact facts[FIT_MAX_FACTS];
    const char *notes[FIT_MAX_NOTES];
    ash_report_cell *cells;
    ash_recipe *recipe;
};

typedef struct {
    const ash_fit_opts *o;
    ash_fit_result *r;
    char *dir;                        /* work directory */
    ash_gguf *src;
    ash_model *model, *ref;           /* ref may be the same object */
    char src_sha[65], ref_sha[65];
    fit_text calib, test;
    double overlap;
    uint64_t budget;                  /* whole-file bytes */
    ash_imatrix *im;
    char im_key[17];
    ash_sweep_result sweep;
    bool swept;
    ash_planner *pl[2];               /* as it is, widened; NULL: not possible or not wanted */
    int which;                        /* the one chosen */
    int *choice;                      /* its best choice so far */
    double predicted, measured;       /* of that choice, on calibration text */
    ash_eval_ref *calib_ref, *test_ref;
    ash_gguf *base;                   /* last accepted candidate: tensors are taken over from it */
    char *base_path;
    int n_fits, n_comp, n_plain;      /* for the estimate: fits, baselines, presets */
    uint64_t largest;                 /* largest file of them */
    char sweep_key[17];
    double t_start, t_stage[FIT_T_COUNT]; /* seconds of the stages before the proof */
} fit;

/* Effort: how many chunks, how many candidates. */
typedef struct {
    uint32_t imatrix_chunks, sweep_max_chunks, verify_chunks, proof_chunks;
    double sweep_until;
    bool sweep;
    int groups;                       /* 0: verify only; 1: by role; 2: by role and depth */
} fit_effort;
fit_effort fit_effort_of(const ash_fit_opts *o);

/* fit.c: open everything, texts, importance, sweep, planners, calibration reference. f->budget is set before where o->budget is not to say. */
ash_status fit_prepare(fit *f, ash_error *err);
void fit_close(fit *f);
/* fit_size.c: one finished file at one size, measured on the test text. method: what the plan minimises. The row's key is all it depends on. keep: path stays. */
ash_status fit_at(fit *f, uint64_t budget, ash_plan_method method, const char *path, bool keep, fit_meas *m, bool *reused, ash_error *err);
/* The smallest budget whose file measures at or below kld; `make` makes each of those tried. known: what was measured before. ASH_E_LIMIT when no file does. */
typedef struct { uint64_t budget; double kld; } fit_known;
typedef ash_status (*fit_each)(void *ctx, uint64_t budget, fit_meas *m, ash_error *err);
ash_status fit_search(fit *f, double kld, const fit_known *known, size_t n_known, fit_each make, void *ctx, uint64_t *budget, ash_error *err);
/* Bytes between which plans can differ. */
ash_status fit_range(const fit *f, uint64_t *least, uint64_t *most, ash_error *err);
/* fit_state.c */
ash_status fit_state_open(fit *f, ash_error *err);                 /* creates the work directory */
char *fit_path(const fit *f, const char *fmt, ...) ASH_PRINTF(2, 3); /* arena string inside it; NULL: out of memory */
void fit_key(char out[17], const char *fmt, ...) ASH_PRINTF(2, 3); /* 16 hex digits of what a result depends on */
bool fit_cache_get(const fit *f, const char *key, fit_meas *m);
ash_status fit_cache_put(const fit *f, const char *key, const fit_meas *m, ash_error *err);
void fit_say(const fit *f, const char *fmt, ...) ASH_PRINTF(2, 3);
/* Whether the finished file is rounded with second moments. */
bool fit_compensates(const fit *f);
void fit_note(fit *f, const char *fmt, ...) ASH_PRINTF(2, 3);       /* a sentence for the report */
void fit_fact(fit *f, const char *key, const char *fmt, ...) ASH_PRINTF(3, 4);

/* fit_text.c */
ash_status fit_text_load(fit_text *t, const ash_model *m, const char *const *files, size_t n, ash_error *err);
void fit_text_free(fit_text *t);

/* fit_measure.c: bake a candidate into the work directory and measure it against ref. adopt: keep it as the new base. */
ash_status fit_measure(fit *f, const fit_cand *c, ash_eval_ref *ref, const char *stage, bool adopt, fit_meas *m, ash_error *err);
/* Measure a file that exists. */
ash_status fit_measure_file(fit *f, const char *path, ash_eval_ref *ref, const char *stage, fit_meas *m, ash_error *err);
/* Reference of the test text, made once. */
ash_status fit_test_ref(fit *f, ash_error *err);
ash_status fit_bake_opts(fit *f, const fit_cand *c, ash_bake_opts *o, ash_error *err);
void fit_check(fit *f, const char *label, double predicted, const fit_meas *m); /* a row of predicted against measured */

/* fit_refine.c: choose widened or not, verify, correct the planner by measured groups; sets which, choice, predicted, measured */
ash_status fit_refine(fit *f, ash_error *err);
/* fit_prove.c: write o->out by the plan; sizes go into m. */
ash_status fit_make(fit *f, fit_meas *m, ash_error *err);
/* the finished file on the test text, controls, samples, and the report */
ash_status fit_prove(fit *f, ash_error *err);

#endif
