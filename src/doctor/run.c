/* run.c - one forward pass over a few lines of plain English, and some greedy text after it: whether numbers stay numbers, whether the
 * model knows the language at all, whether it repeats itself. */
#include "doctor/doctor_int.h"

#include "ashlar/engine.h"

#include <math.h>

static const char k_text[] =
    "The small town lies on the bank of a wide river. In the morning the market opens, and people come to buy bread, fruit and fish. "
    "Children walk to school with their friends. In the evening the lights go on in the houses, and many families sit down at the table to "
    "eat and talk about the day.";

enum { MIN_VOCAB = 4096, GREEDY = 48, PERIOD = 8 };
static const double FLAT_NLL = 6.0, POOR_NLL = 4.8;

/* -log p of token t */
static double nll_of(const float *logits, int n, ash_token t) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) max = fmax(max, (double)logits[i]);
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return max + log(sum) - (double)logits[t];
}

static bool finite_all(const float *x, int n) {
    for (int i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static ash_token best(const float *x, int n) {
    int b = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

/* The last tokens repeat with a period of at most PERIOD. */
static int loop_of(const ash_token *t, int n) {
    for (int p = 1; p <= PERIOD; p++) {
        int k = n - 1;
        while (k >= p && t[k] == t[k - p]) k--;
        if (n - 1 - k >= 32) return p;
    }
    return 0;
}

/* The text's log-likelihood, position by position. */
typedef struct {
    ash_doctor *d;
    const ash_token *t;
    size_t n, scored, bad_at; /* bad_at: tokens read when a logit was not finite; 0: all are */
    double nll;
} scoring;

enum { WARM = 8 }; /* positions that are not scored */

static ash_status score(void *ctx, size_t pos, const float *logits, ash_error *err) {
    scoring *s = ctx;
    const ash_progress *p = &s->d->o.progress;
    const int nv = s->d->model->hp.n_vocab;
    if (p->fn && !p->fn(p->ctx, "run", (double)pos, (double)(s->n + GREEDY), NULL)) return ash_fail(err, ASH_E_CANCELLED, "cancelled");
    if (s->bad_at) return ASH_OK;
    if (!finite_all(logits, nv))
        s->bad_at = pos + 1;
    else if (pos + 1 >= WARM && pos + 1 < s->n)
        s->nll += nll_of(logits, nv, s->t[pos + 1]), s->scored++;
    return ASH_OK;
}

/* GREEDY tokens after the text; 0 when the model stopped by itself. */
static ash_status go_on(ash_doctor *d, ash_session *s, const ash_vocab *v, const scoring *sc, int *period, ash_error *err) {
    ash_token out[GREEDY];
    const ash_progress *p = &d->o.progress;
    *period = 0;
    ASH_TRY(ash_session_sync(s, sc->t, sc->n, NULL, err));
    for (int i = 0; i < GREEDY; i++) {
        out[i] = best(ash_session_logits(s), d->model->hp.n_vocab);
        if (ash_vocab_is_eog(v, out[i])) return ASH_OK;
        if (p->fn && !p->fn(p->ctx, "run", (double)(sc->n + (size_t)i), (double)(sc->n + GREEDY), NULL))
            return ash_fail(err, ASH_E_CANCELLED, "cancelled");
        ASH_TRY(ash_session_append(s, out[i], err));
    }
    *period = loop_of(out, GREEDY);
    return ASH_OK;
}

static void judge(ash_doctor *d, const scoring *sc) {
    if (sc->bad_at) {
        ash_doc_say(d, ASH_DOC_RUN_NONFINITE, "", "after %zu tokens of plain text", sc->bad_at);
        return;
    }
    d->ran = true;
    d->nll = sc->nll / (double)sc->scored;
    if (d->nll > POOR_NLL)
        ash_doc_say(d, d->nll > FLAT_NLL ? ASH_DOC_RUN_FLAT : ASH_DOC_RUN_POOR, "",
                    "%.2f nats per token of plain English; working models have 1.5 to 4", d->nll);
}

ash_status ash_doc_run(ash_doctor *d, ash_error *err) {
    const ash_model *m = d->model;
    const ash_vocab *v = ash_model_vocab(m, NULL);
    ash_session *s = NULL;
    ash_token *t = NULL;
    size_t n = 0;
    int period = 0;
    ash_error e = {0};
    if (!m->hp.causal || !v || ash_vocab_size(v) != m->hp.n_vocab || m->hp.n_vocab < MIN_VOCAB)
        return ASH_OK;                                     /* a toy's words say nothing */
    if (ash_doc_said(d, ASH_DOC_NONFINITE)) return ASH_OK; /* known already */
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 256;
    o.n_threads = d->o.n_threads;
    o.precision = ASH_PREC_FAST;
    ash_status st = ash_tokenize(v, k_text, sizeof k_text - 1, ASH_TOKENIZE_BOS, &t, &n, &e);
    if (st != ASH_OK || n < 16 || n > 200) goto done; /* a language without these words */
    ASH_TRY_GOTO(ash_session_new(&s, d->model, &o, &e), done);
    scoring sc = {.d = d, .t = t, .n = n};
    ASH_TRY_GOTO(ash_session_eval_all(s, t, n, 0, score, &sc, &e), done);
    judge(d, &sc);
    if (sc.bad_at) goto done;
    ASH_TRY_GOTO(go_on(d, s, v, &sc, &period, &e), done);
    if (period)
        ash_doc_say(d, period <= 2 ? ASH_DOC_RUN_STUCK : ASH_DOC_RUN_LOOP, "", "the last 32 of %d greedy tokens repeat every %d",
                    (int)GREEDY, period);
done:
    ash_session_free(s);
    ash_tokens_free(t);
    if (st == ASH_E_LIMIT) return ASH_OK; /* no memory for a run on this machine */
    if (st != ASH_OK && err) *err = e;
    return st;
}
