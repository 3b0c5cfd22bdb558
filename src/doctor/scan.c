/* scan.c - every tensor's data, read once, rows over all cores: the figures that weights.c and couple.c judge.
 *
 * The loops over a row have no branches in them, so that the compiler makes vectors of them: reading is what takes the time. */
#include "doctor/doctor_int.h"

#include <math.h>
#include <stdlib.h>

enum { ZERO_RUN = 256, PROFILE_LEAST = 64, PROFILE_MOST = 1 << 20, LANES = 16 };
static const float TINY_VALUE = 1e-20f;

typedef struct {
    doc_stats s;
    char pad[64];
} per_thread;

typedef struct {
    const ash_gguf_tensor *t;
    uint64_t K, row_bytes;
    float *row;     /* per thread: K values */
    float *rms;     /* per row */
    uint64_t *hash; /* per row, or NULL: a vector, or a table of words */
    float *col;     /* per thread: K sums of squares, or NULL */
    per_thread *per;
} job;

typedef struct {
    float sum2, max;
    uint32_t zero, bad, tiny, negative;
} row_figures;

/* Sums over a row in LANES parts, so that their order is the same whatever the machine's vectors are. */
static row_figures figures_of(const float *x, uint64_t K) {
    float sum[LANES] = {0}, max[LANES] = {0};
    uint32_t zero = 0, bad = 0, tiny = 0, negative = 0;
    uint64_t i = 0;
    for (; i + LANES <= K; i += LANES)
        for (int k = 0; k < LANES; k++) {
            const float v = x[i + k], a = fabsf(v);
            sum[k] += v * v;
            max[k] = a > max[k] ? a : max[k];
            zero += a == 0.0f;
            bad += !(a <= 3.4028234e38f);
            tiny += a < TINY_VALUE;
            negative += v < 0.0f;
        }
    for (; i < K; i++) {
        const float v = x[i], a = fabsf(v);
        sum[0] += v * v;
        max[0] = a > max[0] ? a : max[0];
        zero += a == 0.0f, bad += !(a <= 3.4028234e38f), tiny += a < TINY_VALUE, negative += v < 0.0f;
    }
    for (int k = 1; k < LANES; k++) sum[0] += sum[k], max[0] = max[k] > max[0] ? max[k] : max[0];
    return (row_figures){sum[0], max[0], zero, bad, tiny - zero, negative};
}

/* Sum of squares where float32 overflows or something is not finite: slow, and rare. */
static double sum_of_finite(const float *x, uint64_t K, double *max) {
    double sum = 0;
    *max = 0;
    for (uint64_t i = 0; i < K; i++)
        if (isfinite(x[i])) sum += (double)x[i] * (double)x[i], *max = fmax(*max, fabs((double)x[i]));
    return sum;
}

/* The longest run of zeros that a value follows and a value precedes: not padding. */
static uint64_t hole(const float *x, uint64_t K) {
    uint64_t run = 0, most = 0;
    bool seen = false;
    for (uint64_t i = 0; i < K; i++) {
        if (x[i] == 0.0f) {
            run++;
            continue;
        }
        if (seen && run > most) most = run;
        run = 0;
        seen = true;
    }
    return most;
}

static void rows(void *ctx, int64_t b, int64_t e, int ith) {
    job *j = ctx;
    doc_stats *s = &j->per[ith].s;
    float *x = j->row + (uint64_t)ith * j->K, *col = j->col ? j->col + (uint64_t)ith * j->K : NULL;
    for (int64_t r = b; r < e; r++) {
        const uint8_t *src = j->t->data + (uint64_t)r * j->row_bytes;
        ash_dtype_decode(j->t->type, src, x, j->K);
        const row_figures f = figures_of(x, j->K);
        double sum = (double)f.sum2, max = (double)f.max;
        if (f.bad || !isfinite(f.sum2)) sum = sum_of_finite(x, j->K, &max);
        if (f.bad) {
            uint64_t i = 0;
            while (isfinite(x[i])) i++;
            if (!s->bad || (uint64_t)r * j->K + i < s->bad_at) s->bad_at = (uint64_t)r * j->K + i;
            s->bad += f.bad;
        } else if (col) {
            for (uint64_t i = 0; i < j->K; i++) col[i] += x[i] * x[i];
        }
        s->tiny += f.tiny, s->negative += f.negative, s->nonzero += j->K - f.zero, s->sum2 += sum;
        s->max = fmax(s->max, max);
        if (f.zero >= ZERO_RUN && f.zero < j->K) {
            const uint64_t n = hole(x, j->K);
            if (n >= ZERO_RUN && n > s->run) s->run = n, s->run_at = (uint64_t)r;
        }
        uint64_t same = 1;
        while (same < j->K && x[same] == x[0]) same++;
        if (same == j->K) s->constant_rows += f.zero == 0;
        j->rms[r] = (float)sqrt(sum / (double)j->K);
        if (f.zero == j->K) j->rms[r] = 0;
        if (j->hash) j->hash[r] = ash_hash64(src, j->row_bytes);
    }
}

static int cmp_float(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

typedef struct {
    uint64_t hash, row;
} mark;

static int cmp_mark(const void *a, const void *b) {
    const mark *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->row > y->row) - (x->row < y->row);
}

/* Rows with the same bytes as another one; rows of zeros are counted elsewhere. */
static ash_status same_rows(const job *j, uint64_t n_rows, doc_stats *s, ash_error *err) {
    mark *m = ash_alloc((n_rows + 1) * sizeof *m);
    if (!m) return ash_fail(err, ASH_E_NOMEM, "out of memory comparing the rows of tensor %s", j->t->name);
    for (uint64_t r = 0; r < n_rows; r++) m[r] = (mark){j->hash[r], r};
    qsort(m, n_rows, sizeof *m, cmp_mark);
    for (uint64_t i = 1; i < n_rows; i++) {
        if (m[i].hash != m[i - 1].hash || j->rms[m[i].row] == 0.0f) continue;
        if (!s->same_rows++ || m[i].row < s->same_at) s->same_at = m[i].row, s->same_as = m[i - 1].row;
    }
    ash_free(m);
    return ASH_OK;
}

/* Log energies; columns and rows without any get the least there is. */
static ash_status profiles(const job *j, int nt, uint64_t n_rows, doc_stats *s, ash_error *err) {
    s->col = ash_alloc(j->K * sizeof *s->col);
    s->row = ash_alloc(n_rows * sizeof *s->row);
    if (!s->col || !s->row) return ash_fail(err, ASH_E_NOMEM, "out of memory for the profile of tensor %s", j->t->name);
    for (uint64_t i = 0; i < j->K; i++) {
        double sum = 0;
        for (int k = 0; k < nt; k++) sum += (double)j->col[(uint64_t)k * j->K + i];
        s->col[i] = (float)log(sum / (double)n_rows + 1e-20);
    }
    for (uint64_t r = 0; r < n_rows; r++) s->row[r] = (float)log((double)j->rms[r] * (double)j->rms[r] + 1e-20);
    return ASH_OK;
}

static void merge(doc_stats *s, const doc_stats *p) {
    if (p->bad && (!s->bad || p->bad_at < s->bad_at)) s->bad_at = p->bad_at;
    if (p->run > s->run) s->run = p->run, s->run_at = p->run_at;
    s->bad += p->bad, s->constant_rows += p->constant_rows, s->tiny += p->tiny, s->negative += p->negative;
    s->nonzero += p->nonzero, s->sum2 += p->sum2;
    s->max = fmax(s->max, p->max);
}

static ash_status measure(const ash_gguf_tensor *t, ash_pool *pool, doc_stats *s, ash_error *err) {
    const int nt = ash_pool_threads(pool);
    const uint64_t n_rows = doc_rows(t);
    const bool matrix = !doc_is_vector(t), hashed = matrix && doc_in_layer(t);
    const bool profiled = hashed && t->n_dims == 2 && t->ne[0] >= PROFILE_LEAST && t->ne[0] <= PROFILE_MOST && n_rows >= PROFILE_LEAST &&
                          n_rows <= PROFILE_MOST;
    job j = {.t = t, .K = t->ne[0], .row_bytes = ash_dtype_row_bytes(t->type, t->ne[0])};
    ash_status st = ASH_OK;
    uint64_t scratch;
    if (ash_mul_ovf((uint64_t)nt * sizeof *j.row, j.K, &scratch))
        return ash_fail(err, ASH_E_NOMEM, "out of memory reading tensor %s", t->name);
    j.row = ash_alloc(scratch);
    j.rms = ash_calloc(n_rows, sizeof *j.rms);
    j.per = ash_calloc((size_t)nt, sizeof *j.per);
    if (hashed) j.hash = ash_calloc(n_rows, sizeof *j.hash);
    if (profiled) j.col = ash_calloc((size_t)nt * j.K, sizeof *j.col);
    if (!j.row || !j.rms || !j.per || (hashed && !j.hash) || (profiled && !j.col)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory reading tensor %s", t->name);
        goto done;
    }
    ash_pool_run(pool, (int64_t)n_rows, (int64_t)ASH_MAX(1, 65536 / j.K), rows, &j);
    for (int k = 0; k < nt; k++) merge(s, &j.per[k].s);
    if (profiled) ASH_TRY_GOTO(profiles(&j, nt, n_rows, s, err), done);
    if (hashed) ASH_TRY_GOTO(same_rows(&j, n_rows, s, err), done);
    for (uint64_t r = 0; r < n_rows; r++) {
        if (j.rms[r] == 0.0f && !s->zero_rows++) s->first_zero = r;
        if (j.rms[r] > s->max_row) s->max_row = j.rms[r], s->max_row_at = r;
    }
    for (uint64_t r = n_rows; r > 0 && j.rms[r - 1] == 0.0f; r--) s->zero_tail++;
    qsort(j.rms, n_rows, sizeof *j.rms, cmp_float);
    s->med_row = s->zero_rows < n_rows ? j.rms[s->zero_rows + (n_rows - s->zero_rows) / 2] : 0; /* of the rows that are not 0 */
    ash_dtype_decode(t->type, t->data, j.row, j.K);
    s->first = j.row[0];
    if (matrix) s->hash = ash_hash64(t->data, t->n_bytes);
done:
    ash_free(j.row);
    ash_free(j.rms);
    ash_free(j.per);
    ash_free(j.hash);
    ash_free(j.col);
    return st;
}

ash_status ash_doc_scan(ash_doctor *d, ash_error *err) {
    const size_t n = ash_gguf_n_tensors(d->g);
    ash_pool *pool = NULL;
    ash_status st;
    uint64_t done = 0, total = 0;
    d->stats = ash_calloc(n + 1, sizeof *d->stats);
    if (!d->stats) return ash_fail(err, ASH_E_NOMEM, "out of memory for the tensors' figures");
    ASH_TRY_GOTO(ash_pool_new(&pool, d->o.n_threads > 0 ? d->o.n_threads : ash_cpu_count(), err), done);
    for (size_t i = 0; i < n; i++) total += ash_gguf_tensor_at(d->g, i)->n_bytes;
    for (size_t i = 0; i < n; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
        if (d->o.progress.fn && !d->o.progress.fn(d->o.progress.ctx, "weights", (double)done, (double)total, t->name)) {
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled while reading tensor %s", t->name);
            goto done;
        }
        done += t->n_bytes;
        if (!ash_dtype_get((int)t->type) || t->type == ASH_F64 || (t->type >= ASH_I8 && t->type <= ASH_I64)) continue;
        ASH_TRY_GOTO(measure(t, pool, &d->stats[i], err), done);
    }
done:
    ash_pool_free(pool);
    return st;
}
