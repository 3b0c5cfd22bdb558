/* damage.c - what a type does to a matrix: the relative squared error of encoding it (measured on a sample of rows, weighted by
 * importance), and the step from that error to nats of KL divergence (calibration on a sweep).
 *
 * Calibration works on logarithms. Every measurement (e, d) of a unit has a relative uncertainty; two of them give a slope,
 * pulled towards the median slope of all units as far as the noise demands; units are pulled towards the mean of their role in
 * the same way (normal prior, deviation 0.6 within a role). Numbers and reasons: docs/plan.md. */
#include "plan/plan_int.h"

#include "ashlar/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLE = 1 << 17, TABLE_FACTOR = 4 };

/* Sensitivities d = c * e without any measurement: medians over the layers of SmolLM2 135M as a sweep measured them, in the order of
 * ASH_ROLE_* (q k v o gate up down). Good enough to order roles, not more. A tied table or a head has a weighted error that a few strong
 * channels dominate, so its c is large where importance weights are known. */
static const double typical_c[7] = {0.038, 0.053, 0.087, 0.047, 0.10, 0.10, 0.12};

double ash_plan_typical(int role) {
    if (role >= ASH_ROLE_EXP_GATE && role <= ASH_ROLE_EXP_DOWN) role = ASH_ROLE_GATE + role - ASH_ROLE_EXP_GATE;
    if (role == ASH_ROLE_PLE_GATE || role == ASH_ROLE_PLE_OUT) role = ASH_ROLE_O; /* as attention's: a small update of the residual */
    return role >= 0 && role < ASH_ROLE_N_LAYER ? typical_c[role] : 0.3;
}

static const float *im_weights(void *im, const char *tensor, uint64_t n) { return ash_imatrix_weights(im, tensor, n); }
static bool im_sensitivity(void *im, const char *tensor, uint64_t n_in, uint64_t n_out, const float **in, const float **out) {
    return ash_imatrix_sensitivity(im, tensor, n_in, n_out, in, out);
}
static const float *im_counts(void *im, const char *tensor, uint64_t n) { return ash_imatrix_counts(im, tensor, n); }

ash_importance ash_plan_importance(const struct ash_imatrix *im) {
    return im ? (ash_importance){im_weights, (void *)(uintptr_t)im, im_counts, im_sensitivity} : (ash_importance){0};
}

const float *ash_plan_weights(const ash_importance *im, const ash_gguf_tensor *t, uint64_t *n_mat) {
    *n_mat = t->ne[2];
    const float *w = im->weights && t->ne[2] > 1 ? im->weights(im->ctx, t->name, t->ne[0] * t->ne[2]) : NULL;
    if (w) return w;
    *n_mat = 1;
    return im->weights ? im->weights(im->ctx, t->name, t->ne[0]) : NULL;
}

static double typical(const ash_planner *p, const plan_unit *u) {
    if (isfinite(u->fisher)) return exp(u->fisher);
    if (u->pub.role < 0 || u->pub.lookup_only) return 0.3;
    if (u->pub.role != ASH_ROLE_EMBD && u->pub.role != ASH_ROLE_OUTPUT) return ash_plan_typical(u->pub.role) * exp(u->prior);
    bool weighted = p->o.importance.weights && p->o.importance.weights(p->o.importance.ctx, u->pub.tensor, ash_gguf_tensor_at(p->g, u->tensor)->ne[0]);
    return weighted ? 40 : 1;
}

/* ---- encoding errors ---- */

typedef struct {
    ash_planner *p;
    plan_unit *u;
    uint64_t ne0, n_rows, sample; /* widened row length, rows of the source, rows sampled */
    const float *imp;             /* widened, n_mat times; or NULL */
    const float *share;           /* n_mat: how much a matrix (expert) is used, or NULL: all the same */
    uint64_t n_mat, mat_rows;     /* matrices with weights of their own, their rows */
    float *rows;                  /* sample x ne0 */
    double *err;                  /* n_opts x sample */
    double *norm;                 /* sample; */
    double *raw;                  /* sample: without importance */
    const float *in, *out;        /* sensitivities of columns (widened) and source rows, or NULL */
    double *nats;                 /* n_opts x sample: the error in nats per share of `out` */
    uint8_t *code;                /* per thread: one encoded row */
    float *scratch;               /* per thread: source row, decoded row */
    size_t code_stride, scratch_stride;
    ash_error *errs;
} enc;

/* Widened row that shows source row r. */
static uint64_t wide_row(const ash_planner *p, size_t tensor, uint64_t src_row, uint64_t hint) {
    if (!p->widen) return src_row;
    for (uint64_t w = hint;; w++)
        if (ash_widen_source_row(p->widen, p->g, tensor, w) == (int64_t)src_row) return w;
}

/* Row i of the sample: where in the source, its importance and its share. */
static uint64_t source_row(const enc *x, uint64_t i) { return i * x->n_rows / x->sample; }
static const float *imp_of(const enc *x, uint64_t i) { return x->imp ? x->imp + source_row(x, i) / x->mat_rows * x->ne0 : NULL; }
static double share_of(const enc *x, uint64_t i) { return x->share ? (double)x->share[source_row(x, i) / x->mat_rows] : 1; }

static void fetch(void *ctx, int64_t b, int64_t e, int ith) {
    enc *x = ctx;
    if (x->errs[ith].code != ASH_OK) return;
    for (int64_t i = b; i < e; i++) {
        uint64_t src = source_row(x, (uint64_t)i);
        const float *imp = imp_of(x, (uint64_t)i);
        float *row = x->rows + (uint64_t)i * x->ne0;
        if (!ash_widen_row(x->p->widen, x->p->g, x->u->tensor, wide_row(x->p, x->u->tensor, src, src), row, x->scratch + (size_t)ith * x->scratch_stride)) {
            ash_fail(&x->errs[ith], ASH_E_UNSUPPORTED, "its type cannot be decoded");
            return;
        }
        double s = 0, raw = 0;
        for (uint64_t j = 0; j < x->ne0; j++) {
            const double sq = (double)row[j] * (double)row[j];
            s += (imp ? (double)imp[j] : 1.0) * sq;
            raw += sq;
        }
        x->norm[i] = s * share_of(x, (uint64_t)i);
        x->raw[i] = raw;
    }
}

/* Items are (option, row) pairs, option-major. */
static void encode(void *ctx, int64_t b, int64_t e, int ith) {
    enc *x = ctx;
    if (x->errs[ith].code != ASH_OK) return;
    uint8_t *code = x->code + (size_t)ith * x->code_stride;
    float *back = x->scratch + (size_t)ith * x->scratch_stride;
    for (int64_t i = b; i < e; i++) {
        const ash_plan_option *o = &x->u->opts[(uint64_t)i / x->sample];
        const float *row = x->rows + ((uint64_t)i % x->sample) * x->ne0, *imp = imp_of(x, (uint64_t)i % x->sample);
        if (o->rel_err == 0) continue; /* the source's own type */
        if (ash_quant_row(o->type, row, code, x->ne0, imp, &x->errs[ith]) != ASH_OK) return;
        ash_dtype_decode(o->type, code, back, x->ne0);
        double s = 0, nats = 0;
        for (uint64_t j = 0; j < x->ne0; j++) {
            double d = (double)row[j] - (double)back[j];
            s += (imp ? (double)imp[j] : 1.0) * d * d;
            if (x->in) nats += (double)x->in[j] * d * d;
        }
        if (x->in) x->nats[i] = 0.5 * nats * (double)x->out[source_row(x, (uint64_t)i % x->sample)];
        x->err[i] = s * share_of(x, (uint64_t)i % x->sample);
    }
}

/* Experts that a token runs through; 0: unknown. */
static uint32_t experts_run(const ash_gguf *g) {
    ash_str arch;
    char key[128];
    uint64_t n = 0;
    if (!ash_gguf_get_str(g, "general.architecture", &arch) || arch.n > 64) return 0;
    snprintf(key, sizeof key, "%.*s.expert_used_count", (int)arch.n, arch.p);
    return ash_gguf_get_u64(g, key, &n) && n < 65536 ? (uint32_t)n : 0;
}

/* Log of nats per relative error by the backward pass: mean over the types, which differ little; the sampled rows stand for all. */
static double log_cost(const enc *x) {
    double share = 0, sum = 0;
    int n = 0;
    for (uint64_t i = 0; i < x->sample; i++) share += (double)x->out[source_row(x, i)];
    for (int k = 0; k < x->u->pub.n_opts; k++) {
        double nats = 0;
        for (uint64_t i = 0; i < x->sample; i++) nats += x->nats[(uint64_t)k * x->sample + i];
        if (!(nats > 0) || !(share > 0) || !(x->u->opts[k].rel_err > 0)) continue;
        sum += log(nats / share / x->u->opts[k].rel_err);
        n++;
    }
    return n ? sum / n : -INFINITY;
}

static ash_status unit_errors(ash_planner *p, plan_unit *u, ash_pool *pool, ash_error *err) {
    const ash_gguf_tensor *t = ash_gguf_tensor_at(p->g, u->tensor);
    uint64_t ne[ASH_GGUF_MAX_DIMS], want = p->o.sample ? p->o.sample : SAMPLE;
    int nt = ash_pool_threads(pool), n_opts = u->pub.n_opts;
    ash_status st = ASH_OK;
    ash_widen_shape(p->widen, p->g, u->tensor, ne);
    if (u->pub.layer < 0) want *= TABLE_FACTOR;
    enc x = {.p = p, .u = u, .ne0 = ne[0], .n_rows = t->ne[1] * t->ne[2] * t->ne[3]};
    const float *raw = ash_plan_weights(&p->o.importance, t, &x.n_mat);
    x.mat_rows = x.n_rows / x.n_mat;
    if (x.n_mat > 1 && p->o.importance.counts) x.share = p->o.importance.counts(p->o.importance.ctx, t->name, x.n_mat);
    x.sample = ASH_MIN(x.n_rows, ASH_MAX(ASH_MAX(16, 2 * t->ne[2]), want / ne[0]));
    x.code_stride = (ne[0] * 4 + 63) / 64 * 64;
    x.scratch_stride = ASH_MAX(ne[0], t->ne[0]);
    const float *in, *out;
    const bool felt = x.n_mat == 1 && p->o.importance.sensitivity && p->o.importance.sensitivity(p->o.importance.ctx, t->name, t->ne[0], x.n_rows, &in, &out);
    float *wide = felt ? ash_alloc(ne[0] * sizeof *wide) : NULL;
    float *imp = raw ? ash_alloc(x.n_mat * ne[0] * sizeof *imp) : NULL;
    x.rows = ash_alloc(x.sample * ne[0] * sizeof *x.rows);
    x.err = ash_calloc((size_t)n_opts * x.sample, sizeof *x.err);
    x.nats = felt ? ash_calloc((size_t)n_opts * x.sample, sizeof *x.nats) : NULL;
    x.norm = ash_calloc(x.sample, sizeof *x.norm);
    x.raw = ash_calloc(x.sample, sizeof *x.raw);
    x.code = ash_alloc((size_t)nt * x.code_stride);
    x.scratch = ash_alloc((size_t)nt * x.scratch_stride * sizeof *x.scratch);
    x.errs = ash_calloc((size_t)nt, sizeof *x.errs);
    if (!x.rows || !x.err || !x.norm || !x.raw || !x.code || !x.scratch || !x.errs || (raw && !imp) || (felt && (!wide || !x.nats))) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory while sampling tensor %s", t->name);
        goto done;
    }
    for (uint64_t k = 0; raw && k < x.n_mat; k++) {
        bool live = false;
        float *one = imp + k * ne[0];
        ash_widen_spread(p->widen, p->g, u->tensor, raw + k * t->ne[0], one);
        for (uint64_t j = 0; j < ne[0]; j++) live = live || one[j] > 0;
        for (uint64_t j = 0; !live && j < ne[0]; j++) one[j] = 1.0f; /* no token chose this expert */
    }
    x.imp = imp;
    if (felt) {
        ash_widen_spread(p->widen, p->g, u->tensor, in, wide);
        x.in = wide;
        x.out = out;
    }
    int64_t grain = ASH_MAX(1, (int64_t)(8192 / ne[0]));
    ash_pool_run(pool, (int64_t)x.sample, grain, fetch, &x);
    ash_pool_run(pool, (int64_t)x.sample * n_opts, grain, encode, &x);
    for (int k = 0; k < nt; k++)
        if (x.errs[k].code != ASH_OK) {
            st = x.errs[k].code;
            if (err) *err = x.errs[k];
            ash_error_prefix(err, "tensor %s", t->name);
            goto done;
        }
    double norm = 0, raw_sum = 0, used = 0;
    for (uint64_t i = 0; i < x.sample; i++) norm += x.norm[i], raw_sum += x.raw[i], used += share_of(&x, i);
    u->energy = used > 0 ? norm / used * (double)t->ne[1] : 0;
    u->raw = raw_sum / (double)x.sample / (double)t->ne[0];
    /* Squared error per token: a table is looked up in one row at a time, of a layer's experts a few run. */
    uint32_t n_run = 0;
    if (x.share) n_run = experts_run(p->g);
    u->power = u->energy * (n_run ? (double)n_run : (double)(t->ne[2] * t->ne[3]));
    if (p->o.importance.weights && !raw && u->pub.lookup_only) u->power /= (double)t->ne[1];
    for (int k = 0; k < n_opts; k++) {
        double s = 0;
        if (u->opts[k].rel_err == 0) continue;
        for (uint64_t i = 0; i < x.sample; i++) s += x.err[(uint64_t)k * x.sample + i];
        u->opts[k].rel_err = norm > 0 ? s / norm : 0;
    }
    u->fisher = felt ? log_cost(&x) : -INFINITY;
done:
    ash_free(imp);
    ash_free(wide);
    ash_free(x.nats);
    ash_free(x.rows);
    ash_free(x.err);
    ash_free(x.norm);
    ash_free(x.raw);
    ash_free(x.code);
    ash_free(x.scratch);
    ash_free(x.errs);
    return st;
}

ash_status ash_plan_errors(ash_planner *p, ash_error *err) {
    ash_pool *pool;
    ASH_TRY(ash_pool_new(&pool, p->o.n_threads > 0 ? p->o.n_threads : ash_cpu_count(), err));
    ash_status st = ASH_OK;
    for (size_t i = 0; i < p->n && st == ASH_OK; i++) {
        if (p->o.progress.fn && !p->o.progress.fn(p->o.progress.ctx, "encoding errors", (double)i, (double)p->n, p->u[i].pub.tensor))
            st = ash_fail(err, ASH_E_CANCELLED, "cancelled while measuring encoding errors");
        else st = unit_errors(p, &p->u[i], pool, err);
    }
    if (st == ASH_OK && p->o.progress.fn) p->o.progress.fn(p->o.progress.ctx, "encoding errors", (double)p->n, (double)p->n, NULL);
    ash_pool_free(pool);
    return st == ASH_OK ? ash_plan_prior(p, err) : st;
}

/* ---- from errors to nats ---- */

void ash_plan_apply(plan_unit *u) {
    for (int k = 0; k < u->pub.n_opts; k++) {
        ash_plan_option *o = &u->opts[k];
        o->damage = o->rel_err > 0 ? u->scale * u->pub.k * pow(o->rel_err / u->pub.e0, u->pub.slope) : 0;
    }
}

ash_status ash_planner_measured(ash_planner *p, const char *tensor, double rel_err, double kld, double half, ash_error *err) {
    if (!(rel_err > 0) || !isfinite(kld) || !(half >= 0)) return ash_fail(err, ASH_E_USAGE, "measurement of %s: error %g, divergence %g +- %g is not usable", tensor, rel_err, kld, half);
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->u[i].pub.tensor, tensor) == 0 && p->u[i].n_m < PLAN_MAX_MEASURED) p->u[i].m[p->u[i].n_m++] = (plan_measured){rel_err, kld, half};
    return ASH_OK;
}

void ash_planner_dead(ash_planner *p, const char *tensor) {
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->u[i].pub.tensor, tensor) == 0) p->u[i].scale = 0, ash_plan_apply(&p->u[i]);
}

static int cmp_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

/* Relative deviation of a measurement; one below the noise floor says little. */
static double rel_sd(const plan_measured *m, double floor) {
    double d = ASH_MAX(m->kld, ASH_MAX(floor, 1e-12));
    return clamp(hypot(m->half / 1.96, floor) / d, 0.03, 1.5);
}

static double log_kld(const plan_measured *m, double floor) { return log(ASH_MAX(m->kld, ASH_MAX(0.5 * floor, 1e-12))); }

/* Slope between the measurements with the least and the most error; false when they are too close. */
static bool raw_slope(const plan_unit *u, double floor, double *slope, double *sd) {
    int lo = 0, hi = 0;
    for (int i = 1; i < u->n_m; i++) {
        if (u->m[i].err < u->m[lo].err) lo = i;
        if (u->m[i].err > u->m[hi].err) hi = i;
    }
    if (u->n_m < 2 || u->m[hi].err < 1.5 * u->m[lo].err) return false;
    double dx = log(u->m[hi].err / u->m[lo].err);
    *slope = (log_kld(&u->m[hi], floor) - log_kld(&u->m[lo], floor)) / dx;
    *sd = hypot(rel_sd(&u->m[lo], floor), rel_sd(&u->m[hi], floor)) / dx;
    return true;
}

static double median_slope(const ash_planner *p, double floor) {
    double *v = ash_alloc((p->n + 1) * sizeof *v), s, sd, r = 1;
    size_t n = 0;
    if (!v) return 1;
    for (size_t i = 0; i < p->n; i++)
        if (raw_slope(&p->u[i], floor, &s, &sd) && sd < 0.5) v[n++] = s;
    if (n) {
        qsort(v, n, sizeof *v, cmp_double);
        r = clamp(v[n / 2], 0.8, 1.3);
    }
    ash_free(v);
    return r;
}

void ash_planner_calibrate(ash_planner *p, double floor) {
    static const double slope_sd = 0.1, role_sd = 0.6; /* priors */
    double all = median_slope(p, floor), e_ref = 0.005; /* about a 4-bit type */
    double role_sum[PLAN_N_ROLES] = {0}, role_w[PLAN_N_ROLES] = {0}, off_sum = 0, off_w = 0;
    for (size_t i = 0; i < p->n; i++) {
        plan_unit *u = &p->u[i];
        double s, sd;
        u->pub.measured = u->n_m > 0;
        u->pub.slope = all;
        u->pub.e0 = e_ref;
        if (!u->n_m) continue;
        if (raw_slope(u, floor, &s, &sd)) {
            double w = 1 / (sd * sd), w0 = 1 / (slope_sd * slope_sd);
            u->pub.slope = clamp((clamp(s, 0.8, 1.3) * w + all * w0) / (w + w0), 0.8, 1.3);
        }
        double sum = 0, sw = 0, le = 0;
        for (int k = 0; k < u->n_m; k++) le += log(u->m[k].err) / u->n_m;
        for (int k = 0; k < u->n_m; k++) {
            double d = rel_sd(&u->m[k], floor), w = 1 / (d * d);
            sum += w * (log_kld(&u->m[k], floor) - u->pub.slope * (log(u->m[k].err) - le));
            sw += w;
        }
        u->pub.e0 = exp(le);
        u->pub.k = sum / sw;         /* log k for now */
        u->pub.half = 1.96 / sqrt(sw); /* relative for now */
        if (u->pub.role >= 0) {
            double at_ref = u->pub.k + u->pub.slope * (log(e_ref) - le), w = 1 / (1 / sw + role_sd * role_sd);
            role_sum[u->pub.role] += w * at_ref;
            role_w[u->pub.role] += w;
            off_sum += w * (at_ref - log(typical(p, u) * e_ref));
            off_w += w;
        }
    }
    double off = off_w > 0 ? off_sum / off_w : 0;
    for (size_t i = 0; i < p->n; i++) {
        plan_unit *u = &p->u[i];
        int role = u->pub.role;
        bool has_role = role >= 0 && role_w[role] > 0;
        double mean = has_role ? role_sum[role] / role_w[role] : log(typical(p, u) * e_ref) + off;
        if (!u->n_m) {
            u->pub.k = exp(mean);
            u->pub.half = 0;
        } else {
            double k = u->pub.k, rel = u->pub.half / 1.96;
            double prior = mean - u->pub.slope * (log(e_ref) - log(u->pub.e0)); /* the role's mean at this unit's error */
            if (has_role && u->pub.layer >= 0) {
                double w = 1 / (rel * rel), w0 = 1 / (role_sd * role_sd);
                k = (k * w + prior * w0) / (w + w0);
            }
            u->pub.k = exp(k);
            u->pub.half = u->pub.k * u->pub.half;
        }
        ash_plan_apply(u);
    }
}

void ash_planner_unscale(ash_planner *p) {
    for (size_t i = 0; i < p->n; i++)
        if (p->u[i].scale > 0) p->u[i].scale = 1, ash_plan_apply(&p->u[i]);
}

void ash_planner_scale(ash_planner *p, int32_t lo, int32_t hi, uint32_t roles, double f) {
    for (size_t i = 0; i < p->n; i++) {
        plan_unit *u = &p->u[i];
        if (u->pub.layer < lo || u->pub.layer > hi || u->pub.role < 0 || !(roles >> u->pub.role & 1)) continue;
        u->scale *= f;
        ash_plan_apply(u);
    }
}
