/* doctor_int.h - what the files of src/doctor share: the examination under way, a tensor's figures and profiles. */
#ifndef ASH_DOCTOR_INT_H
#define ASH_DOCTOR_INT_H

#include "ashlar/doctor.h"
#include "model/model_int.h"

enum { DOC_MAX = 1000 };

/* One tensor's figures over all its rows (scan.c). */
typedef struct {
    double sum2, max;
    uint64_t bad, bad_at; /* values that are not finite; index of the first */
    uint64_t tiny, negative, nonzero;
    uint64_t zero_rows, first_zero, zero_tail; /* zero_tail: rows of zeros that end the tensor */
    uint64_t same_rows, same_at, same_as;      /* rows that another row equals, byte for byte */
    uint64_t run, run_at;                      /* longest run of zeros with a value on either side, and its row */
    uint64_t constant_rows;
    float max_row, med_row, first; /* root mean squares; `first` is the first value */
    uint64_t max_row_at;
    uint64_t hash;    /* of the bytes; 0: not made */
    float *col, *row; /* log energy of every column (ne[0]) and row (ne[1]); NULL: not made */
} doc_stats;

struct ash_doctor {
    ash_doctor_opts o;
    const char *path; /* "" for memory */
    ash_gguf *own;
    ash_model *model;  /* NULL: not bound */
    const ash_gguf *g; /* NULL: no header */
    uint64_t whole;    /* bytes of the file that are there */
    doc_stats *stats;  /* by tensor index, during the examination only */
    ash_doc_finding *f;
    size_t n;
    bool ran, part; /* part: of a split model */
    double nll;
};

static inline uint64_t doc_weights(const ash_gguf_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }
static inline uint64_t doc_rows(const ash_gguf_tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }
static inline bool doc_in_layer(const ash_gguf_tensor *t) { return strncmp(t->name, "blk.", 4) == 0; }
static inline bool doc_is_vector(const ash_gguf_tensor *t) { return t->n_dims < 2 || doc_rows(t) == 1; }

void ash_doc_say(ash_doctor *d, ash_doc_check c, const char *where, const char *fmt, ...) ASH_PRINTF(4, 5);
bool ash_doc_said(const ash_doctor *d, ash_doc_check c);
ash_status ash_doc_scan(ash_doctor *d, ash_error *err);                     /* scan.c: d->stats of every tensor */
ash_status ash_doc_weights(ash_doctor *d, ash_error *err);                  /* weights.c: what they say */
ash_status ash_doc_couple(ash_doctor *d, ash_error *err);                   /* couple.c: whether the matrices of each layer go together */
ash_status ash_doc_meta(ash_doctor *d, ash_error *err);                     /* meta.c: hyperparameters, vocabulary, importance */
ash_status ash_doc_chat(ash_doctor *d, const ash_vocab *v, ash_error *err); /* chat.c: template, first and last token */
ash_status ash_doc_parts(ash_doctor *d, ash_error *err);                    /* parts.c: the other parts of a split model */
ash_status ash_doc_run(ash_doctor *d, ash_error *err);                      /* run.c: a forward pass */

#endif
