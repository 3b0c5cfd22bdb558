/* tiny.h - the golden models and a made-up text, for tests of measurements. Include after cmocka. */
#ifndef ASH_TEST_TINY_H
#define ASH_TEST_TINY_H

#include <stdio.h>
#include <stdlib.h>

#include "ashlar/eval.h"
#include "model/model_int.h"

static inline ash_model *tiny_model(const char *name) {
    char path[512];
    ash_error e;
    ash_model *m = NULL;
    snprintf(path, sizeof path, "%s/golden/%s/model.gguf", getenv("ASH_TEST_DATA"), name);
    if (ash_model_load(&m, path, &e) != ASH_OK) fail_msg("%s", e.msg);
    return m;
}

/* n evenly drawn tokens, the same for the same seed; free t.tokens. */
static inline ash_eval_text tiny_text(const ash_model *m, size_t n, uint64_t seed) {
    ash_eval_text t = {.n = n, .bos = -1};
    t.tokens = ash_calloc(n, sizeof *t.tokens);
    assert_non_null(t.tokens);
    ash_rng r;
    ash_rng_seed(&r, seed);
    for (size_t i = 0; i < n; i++) t.tokens[i] = (ash_token)ash_rng_below(&r, (uint64_t)m->hp.n_vocab);
    return t;
}

#endif
