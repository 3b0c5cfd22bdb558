/* text_windows.c - texts as tokens, and defaults of the measurements. */
#include "eval/exec.h"

ash_eval_opts ash_eval_defaults(void) {
    return (ash_eval_opts){.n_ctx = 512, .cpu_level = -1, .precision = ASH_PREC_EXACT, .seed = 1, .mem_bytes = 512ull << 20};
}

ash_status ash_eval_text_make(ash_eval_text *t, const ash_model *m, const char *s, size_t n, ash_error *err) {
    *t = (ash_eval_text){0};
    const ash_vocab *v = ash_model_vocab(m, err);
    if (!v) return err ? err->code : ASH_E_UNSUPPORTED;
    ASH_TRY(ash_tokenize(v, s, n, ASH_TOKENIZE_BOS, &t->tokens, &t->n, err));
    t->add_bos = ash_vocab_add_bos(v);
    t->bos = ash_vocab_bos(v);
    t->n_bytes = n;
    ash_sha256 h;
    ash_sha256_init(&h);
    ash_sha256_add(&h, s, n);
    ash_sha256_hex(&h, t->sha256);
    return ASH_OK;
}

ash_status ash_eval_text_load(ash_eval_text *t, const ash_model *m, const char *path, ash_error *err) {
    *t = (ash_eval_text){0};
    ash_buf b = {0};
    ash_status st = ash_file_read(path, 4ull << 30, &b, err);
    if (st == ASH_OK) {
        st = ash_eval_text_make(t, m, b.p ? b.p : "", b.n, err);
        if (st != ASH_OK) ash_error_prefix(err, "%s", path);
    }
    ash_buf_free(&b);
    return st;
}

void ash_eval_text_free(ash_eval_text *t) {
    if (!t) return;
    ash_tokens_free(t->tokens);
    *t = (ash_eval_text){0};
}
