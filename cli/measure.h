/* measure.h - what commands that measure share: a text and a reference from their options. */
#ifndef ASH_MEASURE_H
#define ASH_MEASURE_H

#include "cli.h"

#include "ashlar/eval.h"

/* The text, or the conversations in m's template (both NULL: the text that ships with the program) with m's vocabulary, and the reference: `ref_path` is a model, an
 * .aref file or a base file of llama-perplexity; NULL: no reference is made. A file that holds the text's tokens itself
 * needs no text: t stays empty then unless text_path is given. */
ash_status cli_ref_load(ash_eval_ref **ref, ash_eval_text *t, const ash_model *m, const char *text_path, const char *chat_path, const char *ref_path, const char *ref_model, const ash_eval_opts *o,
                        ash_error *err);
/* A GGUF begins with "GGUF". */
bool cli_is_gguf(const char *path);
/* "0.1234 [0.1200, 0.1270]" into buf of 64 bytes. */
const char *cli_est(ash_est e, char *buf);

#endif
