/* ashlar/text.h - tokenizers and chat templates. */
#ifndef ASHLAR_TEXT_H
#define ASHLAR_TEXT_H

#include "ashlar/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t ash_token;

typedef enum {
    ASH_TOK_NORMAL = 1, ASH_TOK_UNKNOWN = 2, ASH_TOK_CONTROL = 3, ASH_TOK_USER_DEFINED = 4,
    ASH_TOK_UNUSED = 5, ASH_TOK_BYTE = 6
} ash_token_type; /* values as in tokenizer.ggml.token_type */

typedef struct ash_vocab ash_vocab; /* immutable; may be shared by threads */

/* Build from a GGUF's tokenizer.ggml.* keys (a vocabulary-only file is enough). The gguf must outlive
 * the vocab. ASH_E_UNSUPPORTED names the unknown tokenizer model or pre-tokenizer. */
ASH_API ash_status ash_vocab_load(ash_vocab **v, const ash_gguf *g, ash_error *err);
ASH_API void ash_vocab_free(ash_vocab *v);
ASH_API int32_t ash_vocab_size(const ash_vocab *v);
ASH_API const char *ash_vocab_model(const ash_vocab *v);     /* "gpt2", "llama", "gemma4", "bert", "t5" */
ASH_API ash_str ash_vocab_token_text(const ash_vocab *v, ash_token t); /* as stored; empty if out of range */
ASH_API ash_token_type ash_vocab_token_type(const ash_vocab *v, ash_token t);
ASH_API ash_token ash_vocab_find(const ash_vocab *v, const char *text, size_t n); /* -1 if absent */
ASH_API ash_token ash_vocab_bos(const ash_vocab *v);         /* -1 if none */
ASH_API ash_token ash_vocab_eos(const ash_vocab *v);
ASH_API bool ash_vocab_add_bos(const ash_vocab *v);
/* End-of-generation set: eos, eot, eom by id keys and by known text ("<|im_end|>", "<end_of_turn>", ...). */
ASH_API bool ash_vocab_is_eog(const ash_vocab *v, ash_token t);

enum { ASH_TOKENIZE_BOS = 1, /* add BOS if the model wants it */
       ASH_TOKENIZE_SPECIAL = 2, /* parse special-token text */
       ASH_TOKENIZE_EOS = 4 /* add EOS if the model wants it (few do) */ };
/* Encode n bytes of UTF-8. Invalid bytes are kept by their byte tokens. Where a byte-level vocabulary
 * lacks one (SmolLM2 lacks 21), an invalid byte becomes U+FFFD and a control character is dropped, as
 * the model's own tokenizer does. *out is malloc'ed by the library (free with ash_tokens_free). Linear
 * in n. */
ASH_API ash_status ash_tokenize(const ash_vocab *v, const char *text, size_t n, unsigned flags,
                                ash_token **out, size_t *n_out, ash_error *err);
ASH_API void ash_tokens_free(ash_token *t);

/* Raw bytes of one token as it appears in running text (byte-level decoded, U+2581 as space; control
 * tokens give their text when `special`). Writes at most cap bytes, returns the full length. Pieces
 * concatenate losslessly; a character may span tokens, see ash_detok. */
ASH_API size_t ash_token_piece(const ash_vocab *v, ash_token t, bool special, char *buf, size_t cap);

/* A whole sequence at once, without the space that tokenizing put in front. *out is NUL-terminated
 * (invalid bytes as they are), free with ash_text_free. */
ASH_API ash_status ash_detokenize(const ash_vocab *v, const ash_token *t, size_t n, bool special,
                                  char **out, size_t *n_out, ash_error *err);

/* Streaming detokenizer: holds back an incomplete UTF-8 tail until it completes or flush. */
typedef struct ash_detok ash_detok;
ASH_API ash_status ash_detok_new(ash_detok **d, const ash_vocab *v, bool special, ash_error *err);
ASH_API void ash_detok_free(ash_detok *d);
ASH_API void ash_detok_reset(ash_detok *d);
/* Feed one token; *out is borrowed until the next call: complete UTF-8 only, maybe empty. */
ASH_API ash_status ash_detok_next(ash_detok *d, ash_token t, ash_str *out, ash_error *err);
ASH_API ash_str ash_detok_flush(ash_detok *d); /* leftover bytes, invalid ones as U+FFFD */

/* ---- chat templates: the Jinja subset that chat templates use ---- */
typedef struct { const char *role, *content; } ash_chat_msg; /* NUL-terminated UTF-8 */
typedef struct ash_tmpl ash_tmpl;
ASH_API ash_status ash_tmpl_parse(ash_tmpl **t, const char *src, size_t n, ash_error *err);
ASH_API void ash_tmpl_free(ash_tmpl *t);
/* Render messages; bos/eos text may be "". *out is NUL-terminated, free with ash_text_free. Bounded in
 * steps, depth and output. */
ASH_API ash_status ash_tmpl_render(const ash_tmpl *t, const ash_chat_msg *msgs, size_t n_msgs,
                                   bool add_generation_prompt, const char *bos, const char *eos,
                                   char **out, size_t *n_out, ash_error *err);
ASH_API void ash_text_free(char *s);

/* The same with all that Hugging Face's apply_chat_template hands over, as JSON text: tool calls, content in parts,
 * reasoning, None values. Texts may be NULL where said; integers must fit 64 bits. */
struct tm;
typedef struct {
    const char *messages;      /* array of objects */
    const char *tools;         /* array, or NULL: the template sees none */
    const char *documents;     /* likewise */
    const char *vars;          /* object of further variables ("enable_thinking", "date_string", ...), or NULL */
    bool add_generation_prompt;
    const char *bos, *eos;     /* text of the tokens; NULL: "" */
    const struct tm *now;      /* local time for strftime_now; NULL: the template finds no such function */
} ash_tmpl_input;
ASH_API ash_status ash_tmpl_render_json(const ash_tmpl *t, const ash_tmpl_input *in, char **out, size_t *n_out, ash_error *err);

/* Turn markers ("<|im_start|>", "<end_of_turn>") that the template prints for a plain conversation and that the
 * vocabulary does not hold as one special token: the model would read them as ordinary text. *out: their texts, one a
 * line, empty if all is well (also where the template refuses the conversation); free with ash_text_free. */
ASH_API ash_status ash_tmpl_stray_tokens(const ash_tmpl *t, const ash_vocab *v, const char *bos, const char *eos, char **out, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
