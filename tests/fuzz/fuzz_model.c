/* fuzz_model.c - any bytes as a model: load, and run three tokens through what was accepted, in both precisions, one by one and
 * together; an encoder gives an embedding. Nothing is believed of the shapes and keys of the file. */
#include "ashlar/engine.h"
#include "model/model_int.h"

#include <stdlib.h>

static ash_status drop(void *ctx, size_t pos, const float *x, ash_error *e) {
    (void)pos, (void)e;
    *(double *)ctx += (double)x[0];
    return ASH_OK;
}

static void run(ash_model *m, ash_precision p, uint32_t batch) {
    ash_session *s = NULL;
    ash_error e;
    double sum = 0;
    ash_token t[3] = {0};
    for (int i = 1; i < 3; i++) t[i] = i % ash_model_n_vocab(m);
    ash_session_opts o = {.n_ctx = 3, .n_batch = batch, .n_threads = 1, .precision = p, .cpu_level = -1, .snapshot_bytes = 1};
    if (ash_session_new(&s, m, &o, &e) != ASH_OK) return; /* too large, or too few positions */
    if (!ash_model_generates(m)) {
        if (ash_session_eval_hidden(s, t, 3, 0, drop, &sum, &e) != ASH_OK) abort();
    } else if (ash_session_sync(s, t, 3, NULL, &e) != ASH_OK || ash_session_eval_all(s, t, 3, 0, drop, &sum, &e) != ASH_OK) {
        abort();
    }
    ash_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    ash_gguf *g;
    ash_model *m;
    ash_error e = {0};
    if (n > 1 << 20 || ash_gguf_open_mem(&g, p, n, &e) != ASH_OK) return 0;
    if (ash_model_load_gguf(&m, g, &e) != ASH_OK) {
        if (!e.msg[0]) abort();
        return 0;
    }
    run(m, ASH_PREC_EXACT, 1);
    run(m, ASH_PREC_FAST, 3);
    ash_model_free(m);
    return 0;
}
