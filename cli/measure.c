/* measure.c - see measure.h. */
#include "measure.h"

#include "ashlar/task.h"

#include <string.h>

bool cli_is_gguf(const char *path) {
    char b[4] = {0};
    FILE *f = fopen(path, "rbe");
    size_t n = f ? fread(b, 1, 4, f) : 0;
    if (f) fclose(f);
    return n == 4 && memcmp(b, "GGUF", 4) == 0;
}

ash_status cli_ref_load(ash_eval_ref **ref, ash_eval_text *t, const ash_model *m, const char *text_path, const char *chat_path, const char *ref_path, const char *ref_model, const ash_eval_opts *o,
                        ash_error *err) {
    ash_model *rm = NULL;
    ash_status st = ASH_OK;
    bool need_text = true;
    if (ref_path && !cli_is_gguf(ref_path)) {
        if (ref_model) ASH_TRY_GOTO(ash_model_load(&rm, ref_model, err), done);
        ASH_TRY_GOTO(ash_eval_ref_open(ref, ref_path, rm, err), done);
        need_text = text_path || chat_path;
    }
    if (need_text && chat_path) {
        ASH_TRY_GOTO(ash_eval_text_chat(t, m, chat_path, NULL, err), done);
    } else if (need_text) {
        const char *path = text_path ? text_path : cli_data_file("wikitext2-test.txt");
        if (!path) {
            st = ash_fail(err, ASH_E_USAGE, "the default text is not installed; give --text FILE");
            goto done;
        }
        ASH_TRY_GOTO(ash_eval_text_load(t, m, path, err), done);
    }
    if (ref_path && !*ref) {
        ASH_TRY_GOTO(ash_model_load(&rm, ref_path, err), done);
        ASH_TRY_GOTO(ash_eval_ref_compute(ref, rm, t, o, err), done);
    }
done:
    ash_model_free(rm); /* the reference holds its own */
    return st;
}

const char *cli_est(ash_est e, char *buf) {
    snprintf(buf, 64, "%.4f [%.4f, %.4f]", e.v, e.lo, e.hi);
    return buf;
}
