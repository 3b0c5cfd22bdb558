/* sweep_score.h - from final differences to KL divergence per stream and chunk. */
#ifndef ASH_EVAL_SWEEP_SCORE_H
#define ASH_EVAL_SWEEP_SCORE_H

#include "eval/sweep_int.h"

typedef enum { ASH_STREAM_UNIT, ASH_STREAM_PROBE, ASH_STREAM_IDENTITY, ASH_STREAM_NOISE } ash_stream_kind;

typedef struct {
    ash_sweep_unit unit;
    ash_stream_kind kind;
    int from, to;       /* layers it changes: [from, to) */
    uint32_t c0, n;     /* chunks of the pass it takes: [c0, c0 + n) */
    bool zero;          /* equal to the reference so far */
    bool table;         /* the head's rows change too */
    bool ple;           /* its per-layer embedding inputs may differ too */
    size_t row;         /* values of its difference for a chunk; [T][n_embd] of the residual first */
    uint16_t *diff;     /* [n][row] bfloat16; NULL: hidden states never differ */
    double err[2];      /* weighted squared error and squared weights */
    double *kld;        /* [n] out; owned */
} ash_stream;

static inline bool ash_stream_has(const ash_stream *s, uint32_t chunk) { return chunk - s->c0 < s->n; }

/* x: per chunk `state` floats, the reference's residual leaving the last layer [T][n_embd] first; ids: the chunks' numbers in the job, which seed their support sets.
 * Fills s[i].kld. */
ash_status ash_sweep_score(ash_sweep_job *j, ash_stream *s, uint32_t n_streams, const float *x, size_t state, const uint32_t *ids, uint32_t n_chunks, ash_error *err);

#endif
