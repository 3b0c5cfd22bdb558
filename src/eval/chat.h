/* chat.h - conversations as tokens, by the model's own template. */
#ifndef ASH_EVAL_CHAT_H
#define ASH_EVAL_CHAT_H

#include "ashlar/eval.h"
#include "base/base.h"

typedef struct {
    const ash_vocab *v;
    ash_tmpl *tmpl;
    char *bos, *eos;
} ash_chat;
ash_status ash_chat_init(ash_chat *c, const ash_model *m, ash_error *err);
void ash_chat_free(ash_chat *c);
/* `messages` is a JSON array. Tokens of the rendered text; `out_text` (may be NULL) gets the text (ash_text_free). */
ash_status ash_chat_tokens(const ash_chat *c, const char *messages, bool add_generation_prompt, ash_token **t, size_t *n, char **out_text, size_t *n_text, ash_error *err);
/* The text ends in three times the same piece of 8 to 200 bytes. */
bool ash_text_loops(const char *s, size_t n);

#endif
