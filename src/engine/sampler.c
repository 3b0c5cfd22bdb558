/* sampler.c - from logits to a token, in llama.cpp's order: logit bias, penalties, top-k, top-p, min-p, temperature,
 * draw. Deterministic by seed: ties go to the lower id, one random number per draw. All memory is taken in new; no
 * step sorts the whole vocabulary. */
#include "ashlar/engine.h"
#include "base/base.h"
#include "engine/grammar_int.h"

#include <math.h>

enum { MAX_WINDOW = 1 << 24 };

typedef struct {
    float logit;
    ash_token id;
} cand;

struct ash_sampler {
    ash_sampler_opts o;
    int32_t n_vocab;
    ash_rng rng;
    cand *c;          /* n_vocab */
    int32_t *count;   /* how often each id occurs in the window; NULL without penalties */
    ash_token *ring;  /* the window; NULL when it is everything */
    int32_t ring_n, ring_at;
    ash_matcher *matcher; /* NULL: no grammar */
};

ash_sampler_opts ash_sampler_defaults(const ash_gguf *g) {
    /* llama.cpp's defaults; its seed is random, the caller chooses here */
    ash_sampler_opts o = {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .penalty_last_n = 64};
    if (!g) return o;
    double f;
    int64_t i;
    if (ash_gguf_get_f64(g, "general.sampling.temp", &f) && f >= 0 && f <= 100) o.temperature = (float)f;
    if (ash_gguf_get_i64(g, "general.sampling.top_k", &i) && i >= 0 && i <= INT32_MAX) o.top_k = (int32_t)i;
    if (ash_gguf_get_f64(g, "general.sampling.top_p", &f) && f > 0 && f <= 1) o.top_p = (float)f;
    if (ash_gguf_get_f64(g, "general.sampling.min_p", &f) && f >= 0 && f <= 1) o.min_p = (float)f;
    if (ash_gguf_get_f64(g, "general.sampling.penalty_repeat", &f) && f > 0 && f <= 100) o.repeat_penalty = (float)f;
    if (ash_gguf_get_i64(g, "general.sampling.penalty_last_n", &i) && i >= -1 && i <= MAX_WINDOW) o.penalty_last_n = (int32_t)i;
    return o;
}

ash_status ash_sampler_new(ash_sampler **out, const ash_sampler_opts *opts, int32_t n_vocab, ash_error *err) {
    *out = NULL;
    if (n_vocab < 1) return ash_fail(err, ASH_E_USAGE, "a sampler needs a vocabulary");
    if (!(opts->repeat_penalty > 0)) return ash_fail(err, ASH_E_RANGE, "repeat penalty %g is not positive", (double)opts->repeat_penalty);
    if (isnan(opts->temperature) || isnan(opts->top_p) || isnan(opts->min_p) || !isfinite(opts->presence_penalty) || !isfinite(opts->frequency_penalty))
        return ash_fail(err, ASH_E_RANGE, "a sampler option is not a number");
    if (opts->penalty_last_n < -1 || opts->penalty_last_n > MAX_WINDOW)
        return ash_fail(err, ASH_E_RANGE, "a penalty window of %d tokens is not possible", opts->penalty_last_n);
    for (size_t i = 0; i < opts->n_bias; i++)
        if (opts->bias[i].token < 0 || opts->bias[i].token >= n_vocab)
            return ash_fail(err, ASH_E_RANGE, "logit bias for id %d; the model has ids 0 to %d", opts->bias[i].token, n_vocab - 1);
    ash_sampler *s = ash_calloc(1, sizeof *s);
    if (!s) return ash_fail(err, ASH_E_NOMEM, "out of memory for a sampler");
    s->o = *opts;
    s->n_vocab = n_vocab;
    ash_rng_seed(&s->rng, opts->seed);
    s->c = ash_alloc((size_t)n_vocab * sizeof *s->c);
    bool penal = opts->penalty_last_n != 0 && (opts->repeat_penalty != 1 || opts->presence_penalty != 0 || opts->frequency_penalty != 0);
    if (penal) s->count = ash_calloc((size_t)n_vocab, sizeof *s->count);
    if (penal && opts->penalty_last_n > 0) s->ring = ash_alloc((size_t)opts->penalty_last_n * sizeof *s->ring);
    if (!s->c || (penal && !s->count) || (penal && opts->penalty_last_n > 0 && !s->ring)) {
        ash_sampler_free(s);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a sampler");
    }
    *out = s;
    return ASH_OK;
}

void ash_sampler_free(ash_sampler *s) {
    if (!s) return;
    ash_free(s->c);
    ash_free(s->count);
    ash_free(s->ring);
    ash_free(s);
}

void ash_sampler_accept(ash_sampler *s, ash_token t) {
    if (!s->count || t < 0 || t >= s->n_vocab) return;
    if (s->ring) {
        if (s->ring_n == s->o.penalty_last_n) s->count[s->ring[s->ring_at]]--;
        else s->ring_n++;
        s->ring[s->ring_at] = t;
        s->ring_at = (s->ring_at + 1) % s->o.penalty_last_n;
    }
    if (s->count[t] < INT32_MAX) s->count[t]++;
}

static bool better(cand a, cand b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

/* Max-heap by better(). */
static void sift(cand *c, size_t i, size_t n) {
    cand x = c[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && better(c[k + 1], c[k])) k++;
        if (!better(c[k], x)) break;
        c[i] = c[k];
    }
    c[i] = x;
}
static void sift_worst(cand *c, size_t i, size_t n) { /* the same with the worst on top */
    cand x = c[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && better(c[k], c[k + 1])) k++;
        if (!better(x, c[k])) break;
        c[i] = c[k];
    }
    c[i] = x;
}

/* The k best of n to the front, best first: a heap of k with the worst on top, then unwound. */
static size_t keep_top(cand *c, size_t n, size_t k) {
    if (k < n) {
        for (size_t i = k / 2; i-- > 0;) sift_worst(c, i, k);
        for (size_t i = k; i < n; i++)
            if (better(c[i], c[0])) c[0] = c[i], sift_worst(c, 0, k);
        n = k;
    } else {
        for (size_t i = n / 2; i-- > 0;) sift_worst(c, i, n);
    }
    for (size_t e = n; e > 1; e--) {
        cand worst = c[0];
        c[0] = c[e - 1];
        sift_worst(c, 0, e - 1);
        c[e - 1] = worst;
    }
    return n;
}

/* Shortest run of best candidates whose probability reaches p. `sorted`: c is best first already; else only as much
 * as needed is taken off a heap. */
static size_t keep_mass(cand *c, size_t n, float p, bool sorted) {
    double sum = 0, cum = 0;
    if (!sorted)
        for (size_t i = n / 2; i-- > 0;) sift(c, i, n);
    float max = c[0].logit;
    for (size_t i = 0; i < n; i++) sum += (double)expf(c[i].logit - max);
    if (sorted) {
        for (size_t i = 0; i < n; i++) {
            cum += (double)expf(c[i].logit - max);
            if (cum >= (double)p * sum) return i + 1;
        }
        return n;
    }
    /* popped candidates go to the end, best last */
    size_t left = n;
    while (left > 0) {
        cand top = c[0];
        c[0] = c[--left];
        if (left) sift(c, 0, left);
        c[left] = top;
        cum += (double)expf(top.logit - max);
        if (cum >= (double)p * sum) break;
    }
    size_t kept = n - left;
    for (size_t i = 0, j = n - 1; i < j; i++, j--) { /* reverse: best first */
        cand x = c[i];
        c[i] = c[j];
        c[j] = x;
    }
    return kept;
}

/* All candidates with bias and penalties. */
static size_t candidates(const ash_sampler *s, const float *logits) {
    const ash_sampler_opts *o = &s->o;
    cand *c = s->c;
    size_t n = (size_t)s->n_vocab;
    for (size_t i = 0; i < n; i++) c[i] = (cand){isnan(logits[i]) ? -INFINITY : logits[i], (ash_token)i};
    for (size_t i = 0; i < o->n_bias; i++) c[o->bias[i].token].logit += o->bias[i].bias;
    if (s->count)
        for (size_t i = 0; i < n; i++) {
            if (!s->count[i]) continue;
            float l = c[i].logit;
            l = l > 0 ? l / o->repeat_penalty : l * o->repeat_penalty;
            c[i].logit = l - (float)s->count[i] * o->frequency_penalty - o->presence_penalty;
        }
    return n;
}

/* Shortest run of the n sorted candidates whose mass (relative to max) reaches p of all; n + 1: all of them do not. */
static size_t run_of(const cand *c, size_t n, float max, double goal) {
    double cum = 0;
    for (size_t i = 0; i < n; i++)
        if ((cum += (double)expf(c[i].logit - max)) >= goal) return i + 1;
    return n + 1;
}

/* A few candidates in the order of their ids, as a mask leaves them. */
static size_t by_id(cand *c, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const cand x = c[i];
        size_t j = i;
        for (; j > 0 && c[j - 1].id > x.id; j--) c[j] = c[j - 1];
        c[j] = x;
    }
    return n;
}

/* What top-p and min-p leave of the candidates that fit the grammar, without a mask: the likeliest are tried one by one, and
 * what was not tried is bounded by the mass of the whole vocabulary. Where both bounds cut at the same place, that is the
 * place; 0: they never did, or nothing limits the candidates. Best first with top-p, else by id, as after a mask. */
static size_t allowed_nucleus(ash_sampler *s, const float *logits) {
    enum { MOST = 1024 };
    const ash_sampler_opts *o = &s->o;
    const bool by_mass = o->top_p < 1;
    if (!by_mass && !(o->min_p > 0)) return 0;
    size_t n = candidates(s, logits), kept = 0, i = 0, cut = 0;
    cand *c = s->c;
    float max = -INFINITY;
    double total = 0, tried = 0, held = 0;
    for (i = 0; i < n; i++) max = ASH_MAX(max, c[i].logit);
    if (!isfinite(max) || n <= MOST) return 0;
    if (by_mass)
        for (i = 0; i < n; i++) total += (double)expf(c[i].logit - max);
    n = keep_top(c, n, MOST);
    const double p = (double)ASH_MAX(o->top_p, 0.0f);
    const float drop = o->min_p > 0 ? logf(ASH_MIN(o->min_p, 1.0f)) : -INFINITY;
    bool all = false; /* that can be kept is there: what is tried further only tells how much mass fits */
    for (i = 0; i < n && !cut;) {
        const cand x = c[i++];
        const bool low = x.logit == -INFINITY || (kept && x.logit < c[0].logit + drop);
        const double w = by_mass && x.logit > -INFINITY ? (double)expf(x.logit - max) : 0;
        const bool first_low = low && !all;
        all |= low;
        if (all && !by_mass) return by_id(c, kept);
        tried += w;
        if (w > 0 || !by_mass)
            if (ash_matcher_allows(s->matcher, x.id)) {
                held += w;
                if (!all) c[kept++] = x;
            }
        if (!kept || !by_mass || (i < n && (i & (i - 1)) != 0 && !first_low)) continue; /* compared after 1, 2, 4, ... */
        /* the margin is far above what rounding does to either sum */
        const double rest = ASH_MAX(total - tried, 0.0) + 1e-5 * total;
        const size_t lo = run_of(c, kept, max, p * held * (1 - 1e-5)), hi = run_of(c, kept, max, p * (held + rest));
        if (all) cut = ASH_MIN(lo, kept) == ASH_MIN(hi, kept) ? ASH_MIN(lo, kept) : 0;
        else if (lo == hi && hi <= kept) cut = hi;
    }
    if (cut && o->min_p > 0)
        while (cut > 1 && c[cut - 1].logit < c[0].logit + drop) cut--;
    return cut;
}

typedef enum { UNSORTED, SORTED, FINAL } order; /* FINAL: best first or by id, and all filters have been applied */

/* The candidates that fit the grammar. Where a mask is at hand it decides; else the likeliest are tried one by one, which in
 * a permissive place (inside a string) finds at once what the mask would leave. */
static size_t allowed(ash_sampler *s, const float *logits, order *how) {
    enum { MOST = 256 };
    const uint64_t *mask = ash_matcher_mask(s->matcher, true);
    size_t n, k = s->o.temperature <= 0 ? 1 : s->o.top_k > 0 ? (size_t)s->o.top_k : 0, kept = 0;
    cand *c = s->c;
    if (!mask && !k) {
        kept = allowed_nucleus(s, logits);
        if (kept) return *how = FINAL, kept;
    }
    n = candidates(s, logits);
    if (!mask && k && k <= MOST && 4 * k + 64 < n) {
        n = keep_top(c, n, 4 * k + 64);
        for (size_t i = 0; i < n && kept < k; i++)
            if (c[i].logit > -INFINITY && ash_matcher_allows(s->matcher, c[i].id)) c[kept++] = c[i];
        if (kept == k) return *how = SORTED, kept;
        n = candidates(s, logits); /* too few among them */
    }
    if (!mask) mask = ash_matcher_mask(s->matcher, false);
    if (!mask) return 0;
    kept = 0;
    n = ASH_MIN(n, (size_t)s->matcher->gv.n_words * 64); /* a head may be wider than its vocabulary */
    for (size_t i = 0; i < n; i++)
        if (mask[i >> 6] >> (i & 63) & 1) c[kept++] = c[i];
    return kept;
}

void ash_sampler_constrain(ash_sampler *s, ash_matcher *m) { s->matcher = m; }

static size_t best_of(const cand *c, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (better(c[i], c[best])) best = i;
    return best;
}

/* One of n by its probability. */
static ash_token draw(ash_sampler *s, const cand *c, size_t n, float max) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)expf((c[i].logit - max) / s->o.temperature);
    double u = ash_rng_f64(&s->rng) * sum, cum = 0;
    for (size_t i = 0; i < n; i++) {
        cum += (double)expf((c[i].logit - max) / s->o.temperature);
        if (u < cum) return c[i].id;
    }
    return c[n - 1].id;
}

ash_token ash_sampler_pick(ash_sampler *s, const float *logits) {
    const ash_sampler_opts *o = &s->o;
    cand *c = s->c;
    order how = UNSORTED;
    size_t n;
    if (s->matcher && o->temperature > 0 && o->top_k <= 0 && o->top_p >= 1 && !(o->min_p > 0)) {
        /* Anything may come: a draw without the grammar that fits it has the right distribution, and so has a new draw among
         * what fits after one that does not: p + (1 - A) p / A = p / A, with A the probability of all that fits. */
        n = candidates(s, logits);
        const size_t best = best_of(c, n);
        const ash_token t = isfinite(c[best].logit) ? draw(s, c, n, c[best].logit) : -1;
        if (t >= 0 && ash_matcher_allows(s->matcher, t)) return t;
    }
    n = s->matcher ? allowed(s, logits, &how) : candidates(s, logits);
    if (!n) return -1;
    const size_t best = best_of(c, n);
    if (o->temperature <= 0 || !isfinite(c[best].logit)) return c[best].id;
    const float max = c[best].logit;
    if (how == FINAL) return draw(s, c, n, max);

    if (o->top_k > 0 && (size_t)o->top_k < n) n = keep_top(c, n, (size_t)o->top_k), how = SORTED;
    if (o->top_p < 1) n = keep_mass(c, n, ASH_MAX(o->top_p, 0.0f), how == SORTED), how = SORTED;
    if (o->min_p > 0) {
        float least = max + logf(ASH_MIN(o->min_p, 1.0f));
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (c[i].logit >= least) c[kept++] = c[i];
        n = kept;
    }
    return draw(s, c, n, max);
}
