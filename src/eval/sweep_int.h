/* sweep_int.h - what the files of the sweep share: the state that outlives a pass (and is checkpointed), and one pass. */
#ifndef ASH_EVAL_SWEEP_INT_H
#define ASH_EVAL_SWEEP_INT_H

#include "eval/delta.h"
#include "eval/stats.h"
#include "eval/whole.h"

/* Three probes knock down ffn_down in a third of the layers each. How much a chunk of text suffers under any knockout is partly a property of
 * the chunk; the probes show it, on many more chunks than the units can afford (sweep_stat.c). One matrix per layer follows the units better
 * than all seven at once (residual deviation 0.31 against 0.33 on SmolLM2 135M, chunks of 64 tokens), and costs less. */
enum { ASH_SWEEP_PROBES = 3, ASH_SWEEP_EXTRA = ASH_SWEEP_PROBES + 2 };

/* Per unit: results so far. Chunk k of every unit is the same text. */
typedef struct {
    uint32_t n;        /* chunks measured: the first n */
    uint8_t done;      /* interval good enough, or no more chunks */
    uint8_t encoded;   /* rel_err is known */
    double rel_err;
    double *kld;       /* [max_chunks] means */
} ash_sweep_state;

typedef struct {
    uint32_t n_units, max_chunks;
    uint32_t n_chunks;       /* most chunks any unit has */
    uint32_t n_probe;        /* chunks of the probes; 0: no probes */
    uint32_t probed;         /* they have run */
    uint64_t job;            /* hash of model, tokens, units and options: another job's checkpoint is refused */
    double identity, noise;  /* of the controls, measured in the first pass */
    double pooled;           /* relative variance of the average unit's chunks, from ash_sweep_pool; 0: not known */
    ash_sweep_state *u;
    double *values;          /* storage behind u[].kld */
    double *probe;           /* [ASH_SWEEP_PROBES][n_probe] chunk means */
} ash_sweep_book;
ash_status ash_book_init(ash_sweep_book *b, uint32_t n_units, uint32_t max_chunks, uint32_t n_probe, uint64_t job, ash_error *err);
void ash_book_free(ash_sweep_book *b);
/* Checkpoint bytes. Load checks everything; a file of another job is ASH_E_STATE, damage is ASH_E_FORMAT. b is initialised
 * with the expected counts and job. */
ash_status ash_book_save(const ash_sweep_book *b, const char *path, ash_error *err);
ash_status ash_book_parse(ash_sweep_book *b, const void *p, size_t n, ash_error *err);

/* A job while it runs. */
typedef struct {
    ash_exec e;
    ash_model *m;
    const ash_imatrix *im;
    const ash_sweep_unit *units;
    ash_sweep_opts o;        /* defaults filled in */
    ash_sweep_book book;
    ash_token *tok;          /* [max_chunks, or n_probe if that is more][T], BOS in place */
    uint32_t n_probe;
    int T;
    bool whole;              /* layers by the engine's own function: not a plain model (or asked for by a test) */
    bool exact;              /* tests: differences through float32 products */
    double work_done, work_total; /* multiply-accumulates, for the progress */
    double *speed;           /* rank 0 of several: what each rank did per second in the last pass */
} ash_sweep_job;

/* sweep_layer.c: memory for the largest layer's weights, unpacked; filling L with layer l; the rotations of L->T positions. */
typedef struct {
    float *f;
    uint8_t *q;            /* q, s: not with `whole` */
    float *s;
    size_t floats;         /* of f */
} ash_layer_mem;
ash_status ash_layer_mem_alloc(ash_layer_mem *lm, const ash_model *m, bool whole, ash_error *err);
void ash_layer_pack(const ash_exec *e, const ash_layer_mem *lm, const ash_model *m, int l, const float *packed[ASH_W_COUNT]);
/* Floats of all changed matrices of any one layer. */
size_t ash_layer_change_floats(const ash_model *m);
void ash_layer_mem_free(ash_layer_mem *lm);
void ash_layer_weights(const ash_exec *e, const ash_layer_mem *lm, int l, ash_dlayer *L);
ash_status ash_layer_ropes(ash_dlayer *L, ash_error *err);
void ash_layer_ropes_free(ash_dlayer *L);

/* Name of the tensor when the unit is one tensor, else NULL. */
const char *ash_unit_tensor(const ash_model *m, const ash_sweep_unit *u);
/* Values of a stream's difference, and of the reference's state between layers, for one chunk. */
size_t ash_sweep_row_values(const ash_model *m, int T, bool whole, const ash_sweep_unit *u);
size_t ash_sweep_state_floats(const ash_model *m, int T, bool whole);

/* What a pass does: unit number `unit` takes its chunks [at, at + n), the probes and the controls (identity and noise; unit 0 is not
 * meant) theirs. Results are written to their places in the book, whose counts stay: ash_sweep_advance moves them. `macs` is for
 * the progress: of the whole round, when this is a part of it. */
typedef struct { uint32_t unit, at, n; } ash_sweep_take;
typedef struct {
    ash_sweep_take *take;
    uint32_t n_take;
    ash_sweep_take probes, controls; /* n = 0: not in this pass */
} ash_sweep_part;
ash_status ash_sweep_pass(ash_sweep_job *j, const ash_sweep_part *w, double macs, ash_error *err);
void ash_sweep_advance(ash_sweep_book *b, const ash_sweep_part *w);

/* sweep_share.c: a pass over all processes, decided by rank 0. Every rank's book has all results afterwards; they do not depend on who
 * computed what. The other ranks call ash_sweep_follow until it says the sweep is over; rank 0 says so with ash_sweep_over. */
ash_status ash_sweep_round(ash_sweep_job *j, const ash_sweep_part *w, ash_error *err);
ash_status ash_sweep_follow(ash_sweep_job *j, bool *over, ash_error *err);
ash_status ash_sweep_over(ash_sweep_job *j, ash_status st, ash_error *err);
/* Who does what: cuts w into parts[n], by cost over speed. Only units whose error is known are cut; the probes by chunks. Exposed for tests. */
ash_status ash_sweep_divide(const ash_sweep_job *j, const ash_sweep_part *w, const double *speed, int n, ash_sweep_part *parts, ash_error *err);
void ash_sweep_parts_free(ash_sweep_part *parts, int n);
double ash_sweep_take_macs(const ash_sweep_job *j, const ash_sweep_take *take, uint32_t n_take);
double ash_sweep_probe_macs(const ash_model *m, int T);
/* A unit's figure: mean and 95 % half-width, by the plain mean of its chunks or as a ratio to a probe, whichever is tighter. */
void ash_sweep_stat(const ash_sweep_book *b, const ash_sweep_unit *u, uint32_t unit, int n_layer, double *mean, double *half);
/* Fill b->pooled from the first n_first chunks of all units that have them. */
void ash_sweep_pool(ash_sweep_book *b, const ash_sweep_unit *units, int n_layer, uint32_t n_first);
/* Options with the defaults in place. */
ash_sweep_opts ash_sweep_filled(const ash_sweep_opts *o);
enum { ASH_SWEEP_PROBE_CHUNKS = 160, ASH_SWEEP_PROBE_UNITS = 32, /* probes pay when many units share them */
       ASH_SWEEP_WORTH_A_PASS = 96 /* chunks of single units: a pass has costs of its own, so that few units take more at once */,
       ASH_SWEEP_PASS_CHUNKS = 512 /* most of a pass */ };
/* Passes until every unit is done, with checkpoints. */
ash_status ash_sweep_run_job(ash_sweep_job *j, ash_error *err);
/* Bytes of differences (spillable) of n_takes chunks of single units, and of everything else for a pass over n_chunks. */
uint64_t ash_sweep_diff_bytes(const ash_model *m, int T, bool whole, uint64_t n_takes);
uint64_t ash_sweep_rest_bytes(const ash_model *m, int n_threads, int T, bool whole, uint64_t n_chunks);
/* Multiply-accumulates of one chunk for a set of units. */
double ash_sweep_macs(const ash_model *m, int T, const ash_sweep_unit *units, size_t n);
double ash_sweep_layer_macs(const ash_model *m, int T, int layer);

/* Changed matrix minus original as float32 panels, through encode and decode of `type`; rows that are no multiple of the
 * block are padded with zero columns. imp: K weights or NULL. err_sums += {sum imp err^2, sum imp w^2}. */
ash_status ash_change_build(const ash_exec *e, const ash_mat *w, ash_dtype type, const float *imp, float *panels, double err_sums[2], ash_error *err);
/* One row of floats through encode and decode, padded likewise; tmp: ash_change_row_floats(K) floats. */
size_t ash_change_row_floats(int K);
ash_status ash_change_row(const ash_kern *k, const float *src, ash_dtype type, const float *imp, int K, float *dst, float *tmp, ash_error *err);
uint64_t ash_padded_cols(ash_dtype t, uint64_t K);

#endif
