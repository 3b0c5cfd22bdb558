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

ash_status ash_doc_run(ash_doctor *d, ash_error *err) {
    const ash_model *m = d->model;
    const ash_vocab *v = ash_model_vocab(m, NULL);
    ash_session *s = NULL;
    ash_token *t = NULL, out[GREEDY];
    size_t n = 0, scored = 0;
    ash_error e = {0};
    const int nv = m->hp.n_vocab;
    if (!m->hp.causal || !v || ash_vocab_size(v) != nv || nv < MIN_VOCAB) return ASH_OK; /* a toy's words say nothing */
    if (ash_doc_said(d, ASH_DOC_NONFINITE)) return ASH_OK;                               /* known already */
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 256;
    o.n_threads = d->o.n_threads;
    o.precision = ASH_PREC_FAST;
    ash_status st = ash_tokenize(v, k_text, sizeof k_text - 1, ASH_TOKENIZE_BOS, &t, &n, &e);
    if (st == ASH_OK && (n < 16 || n > 200)) goto done; /* a language without these words */
    if (st == ASH_OK) st = ash_session_new(&s, d->model, &o, &e);
    for (size_t i = 0; st == ASH_OK && i < n; i++) {
        const float *logits = i ? ash_session_logits(s) : NULL;
        if (i && !finite_all(logits, nv)) {
            ash_doc_say(d, ASH_DOC_RUN_NONFINITE, "", "after token %zu of plain text", i);
            goto done;
        }
        if (i >= 8) d->nll += nll_of(logits, nv, t[i]), scored++;
        st = ash_session_append(s, t[i], &e);
        if (d->o.progress.fn && !d->o.progress.fn(d->o.progress.ctx, "run", (double)i, (double)n, NULL))
            st = ash_fail(&e, ASH_E_CANCELLED, "cancelled");
    }
    if (st != ASH_OK) goto done;
    d->ran = true;
    d->nll /= (double)scored;
    if (d->nll > FLAT_NLL)
        ash_doc_say(d, ASH_DOC_RUN_FLAT, "", "%.2f nats per token of plain English; working models have 1.5 to 4", d->nll);
    else if (d->nll > POOR_NLL)
        ash_doc_say(d, ASH_DOC_RUN_POOR, "", "%.2f nats per token of plain English; working models have 1.5 to 4", d->nll);
    for (int i = 0; i < GREEDY; i++) {
        out[i] = best(ash_session_logits(s), nv);
        if (ash_vocab_is_eog(v, out[i])) goto done;
        ASH_TRY_GOTO(ash_session_append(s, out[i], &e), done);
    }
    const int p = loop_of(out, GREEDY);
    if (p == 1 || p == 2)
        ash_doc_say(d, ASH_DOC_RUN_STUCK, "", "the last 32 of %d greedy tokens repeat every %d", (int)GREEDY, p);
    else if (p)
        ash_doc_say(d, ASH_DOC_RUN_LOOP, "", "the last 32 of %d greedy tokens repeat every %d", (int)GREEDY, p);
done:
    ash_session_free(s);
    ash_tokens_free(t);
    if (st == ASH_E_LIMIT) return ASH_OK; /* no memory for a run on this machine */
    if (st != ASH_OK && err) *err = e;
    return st;
}
