/* probe.c - the papers' test as a demonstration: one question, ten words of answer, one status. It says next to nothing about a
 * model's quality and is never part of a verdict; what it is good for is to keep failures of the harness (LOAD_FAIL, ABORT,
 * TIMEOUT) apart from wrong answers. */
#include "ashlar/lab.h"

#include "eval/chat.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_TOKENS = 64 };
static const char k_question[] = "A train travels 120 miles in 2 hours. What is its average speed in miles per hour? Answer with the number only.";

const char *ash_probe_name(ash_probe p) {
    static const char *const n[] = {"OK", "WRONG", "LOOP", "TIMEOUT", "NAN", "ABORT", "LOAD_FAIL", "-"};
    return (unsigned)p < ASH_ARRAY_LEN(n) ? n[p] : "?";
}

static ash_status question(const ash_model *m, const ash_vocab *v, ash_token **t, size_t *n, ash_error *err) {
    ash_chat c;
    if (ash_chat_init(&c, m, NULL) != ASH_OK) return ash_tokenize(v, k_question, strlen(k_question), ASH_TOKENIZE_BOS, t, n, err);
    json_t *l = json_pack("[{s:s, s:s}]", "role", "user", "content", k_question);
    char *s = l ? json_dumps(l, 0) : NULL;
    ash_status st = s ? ash_chat_tokens(&c, s, true, t, n, NULL, NULL, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a question");
    free(s);
    json_decref(l);
    ash_chat_free(&c);
    return st;
}

ash_probe ash_lab_probe(const char *path, double seconds, int n_threads) {
    ash_model *m = NULL;
    ash_session *s = NULL;
    ash_token *t = NULL;
    ash_detok *d = NULL;
    ash_buf text = {0};
    ash_error err = {0};
    size_t n = 0;
    ash_probe p = ASH_PROBE_LOAD_FAIL;
    const double end = ash_now() + seconds;
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = 512;
    o.n_threads = n_threads;
    o.precision = ASH_PREC_FAST;
    if (ash_model_load(&m, path, &err) != ASH_OK) goto done;
    const ash_vocab *v = ash_model_vocab(m, &err);
    if (!v || question(m, v, &t, &n, &err) != ASH_OK || n == 0 || n + MAX_TOKENS > 512 || ash_session_new(&s, m, &o, &err) != ASH_OK || ash_detok_new(&d, v, false, &err) != ASH_OK) goto done;
    p = ASH_PROBE_WRONG;
    if (ash_session_sync(s, t, n, NULL, &err) != ASH_OK) goto done;
    ash_buf_adds(&text, "");
    for (int k = 0; k < MAX_TOKENS; k++) {
        const float *x = ash_session_logits(s);
        int32_t best = 0, vocab = ash_model_n_vocab(m);
        ash_str piece;
        for (int32_t i = 0; i < vocab; i++) {
            if (!isfinite(x[i])) {
                p = ASH_PROBE_NAN;
                goto done;
            }
            if (x[i] > x[best]) best = i;
        }
        if (ash_vocab_is_eog(v, best)) break;
        if (ash_now() > end) {
            p = ASH_PROBE_TIMEOUT;
            goto done;
        }
        if (ash_detok_next(d, best, &piece, &err) != ASH_OK) goto done;
        ash_buf_add(&text, piece.p, piece.n);
        if (ash_session_append(s, best, &err) != ASH_OK) goto done;
    }
    if (!ash_buf_ok(&text)) goto done;
    p = strstr(text.p, "60") ? ASH_PROBE_OK : ash_text_loops(text.p, text.n) ? ASH_PROBE_LOOP : ASH_PROBE_WRONG;
done:
    ash_buf_free(&text);
    ash_detok_free(d);
    ash_tokens_free(t);
    ash_session_free(s);
    ash_model_free(m);
    return p;
}
