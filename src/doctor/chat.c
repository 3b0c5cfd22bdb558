/* chat.c - the tokens that begin and end a text, and the chat template: whether it is of this model, prints what is said, and ends a turn
 * with a token at which the model stops. */
#include "doctor/doctor_int.h"

#include <stdio.h>
#include <time.h>

#define USER_SAYS "Ask-4711"
#define ANSWER "Reply-0815"

static int show(ash_str s) { return (int)ASH_MIN(s.n, 40); }

/* Names of ends: anything else that is no turn marker of the template is suspect. */
static bool like_an_end(ash_str s) {
    static const char *const k[] = {"end", "END", "eo", "EO", "/s", "sep", "SEP", "stop", "STOP", "return"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(k); i++)
        if (memmem(s.p, s.n, k[i], strlen(k[i]))) return true;
    return false;
}

static bool special(const ash_vocab *v, ash_token t) {
    const ash_token_type y = ash_vocab_token_type(v, t);
    return y == ASH_TOK_CONTROL || y == ASH_TOK_USER_DEFINED;
}

/* Begin and end by their types alone. */
static void ends_by_type(ash_doctor *d, const ash_vocab *v) {
    const ash_token eos = ash_vocab_eos(v), bos = ash_vocab_bos(v);
    if (strcmp(ash_vocab_model(v), "bert") == 0) return;
    if (eos >= 0 && ash_vocab_token_type(v, eos) == ASH_TOK_NORMAL) {
        const ash_str s = ash_vocab_token_text(v, eos);
        ash_doc_say(d, ASH_DOC_STOP_TOKEN, "tokenizer.ggml.eos_token_id", "%d is \"%.*s\", an ordinary token", (int)eos, show(s), s.p);
    }
    if (bos >= 0 && ash_vocab_token_type(v, bos) == ASH_TOK_NORMAL) {
        const ash_str s = ash_vocab_token_text(v, bos);
        ash_doc_say(d, ASH_DOC_START_TOKEN, "tokenizer.ggml.bos_token_id", "%d is \"%.*s\", an ordinary token", (int)bos, show(s), s.p);
    }
}

/* What follows the answer in a rendered talk must begin with a token that ends a turn, and the end token must not open one. */
static void ends_by_template(ash_doctor *d, const ash_vocab *v, const char *text, size_t n) {
    const char *ask = memmem(text, n, USER_SAYS, strlen(USER_SAYS)), *said = memmem(text, n, ANSWER, strlen(ANSWER));
    const ash_token eos = ash_vocab_eos(v);
    if (!ask || !said || said < ask || eos < 0 || ash_vocab_token_type(v, eos) == ASH_TOK_NORMAL) return;
    const ash_str e = ash_vocab_token_text(v, eos);
    const char *after = said + strlen(ANSWER), *end = text + n;
    if (!e.n || memmem(after, (size_t)(end - after), e.p, e.n)) return;
    if (eos != ash_vocab_bos(v) && memmem(text, (size_t)(said - text), e.p, e.n))
        ash_doc_say(d, ASH_DOC_STOP_TOKEN, "tokenizer.ggml.eos_token_id",
                    "\"%.*s\" opens a turn in the chat template, and does not end one", show(e), e.p);
    else if (!like_an_end(e) && after < end)
        ash_doc_say(d, ASH_DOC_STOP_TOKEN, "tokenizer.ggml.eos_token_id", "%d is \"%.*s\", which ends no turn in the chat template",
                    (int)eos, show(e), e.p);
}

/* Pairs of turn markers; a vocabulary that has both as special tokens is of a model that was taught to talk with them, or is made to be. */
static void turns(ash_doctor *d, const ash_vocab *v, const char *text, size_t n) {
    static const char *const k[][2] = {{"<|im_start|>", "<|im_end|>"},        {"<start_of_turn>", "<end_of_turn>"},
                                       {"<|start_header_id|>", "<|eot_id|>"}, {"<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"},
                                       {"<|user|>", "<|assistant|>"},         {"<|turn>", "<turn|>"}};
    const ash_token eos = ash_vocab_eos(v), bos = ash_vocab_bos(v);
    int pair = -1;
    for (size_t i = 0; i < ASH_ARRAY_LEN(k) && pair < 0; i++) {
        const ash_token a = ash_vocab_find(v, k[i][0], strlen(k[i][0])), b = ash_vocab_find(v, k[i][1], strlen(k[i][1]));
        if (a >= 0 && b >= 0 && special(v, a) && special(v, b)) pair = (int)i;
    }
    if (pair < 0) return;
    for (ash_token t = 0; t < ash_vocab_size(v); t++) {
        const ash_str s = ash_vocab_token_text(v, t);
        if (t != eos && t != bos && s.n > 2 && special(v, t) && memmem(text, n, s.p, s.n)) return;
        if (t == eos && t != bos && s.n && memmem(text, n, s.p, s.n) && (memcmp(s.p, k[pair][1], ASH_MIN(s.n, strlen(k[pair][1]))) == 0))
            return;
    }
    ash_doc_say(d, ASH_DOC_TEMPLATE_TURNS, "tokenizer.chat_template",
                "%s and %s are in the vocabulary, the template prints no special token", k[pair][0], k[pair][1]);
}

static void stray(ash_doctor *d, const ash_vocab *v, const ash_tmpl *t, const char *bos, const char *eos) {
    char *list = NULL;
    ash_error e;
    if (ash_tmpl_stray_tokens(t, v, bos, eos, &list, &e) == ASH_OK && list && *list)
        ash_doc_say(d, ASH_DOC_TEMPLATE_TOKENS, "tokenizer.chat_template", "not in the vocabulary: %.200s", list);
    ash_text_free(list);
}

ash_status ash_doc_chat(ash_doctor *d, const ash_vocab *v, ash_error *err) {
    static const char talk[] =
        "[{\"role\": \"user\", \"content\": \"" USER_SAYS "\"}, {\"role\": \"assistant\", \"content\": \"" ANSWER "\"}]";
    static const char ask[] = "[{\"role\": \"user\", \"content\": \"" USER_SAYS "\"}]";
    static const struct tm day = {.tm_year = 100, .tm_mday = 1, .tm_wday = 6};
    ash_str src;
    ash_tmpl *t = NULL;
    ash_error e = {0};
    char bos[128] = "", eos[128] = "", *text = NULL;
    size_t n = 0;
    ends_by_type(d, v);
    if (!ash_gguf_get_str(d->g, "tokenizer.chat_template", &src)) return ASH_OK;
    ash_status st = ash_tmpl_parse(&t, src.p, src.n, &e);
    if (st == ASH_E_NOMEM) return ash_fail(err, st, "%s", e.msg);
    if (st != ASH_OK) {
        ash_doc_say(d, ASH_DOC_TEMPLATE, "tokenizer.chat_template", "%s", e.msg);
        return ASH_OK;
    }
    const ash_str b = ash_vocab_token_text(v, ash_vocab_bos(v)), o = ash_vocab_token_text(v, ash_vocab_eos(v));
    snprintf(bos, sizeof bos, "%.*s", (int)ASH_MIN(b.n, 100), b.n ? b.p : "");
    snprintf(eos, sizeof eos, "%.*s", (int)ASH_MIN(o.n, 100), o.n ? o.p : "");
    ash_tmpl_input in = {.messages = talk, .bos = bos, .eos = eos, .now = &day};
    st = ash_tmpl_render_json(t, &in, &text, &n, &e);
    if (st == ASH_OK) {
        if (!memmem(text, n, USER_SAYS, strlen(USER_SAYS)))
            ash_doc_say(d, ASH_DOC_TEMPLATE_TEXT, "tokenizer.chat_template", "what the user says is not printed");
        else if (!memmem(text, n, ANSWER, strlen(ANSWER)))
            ash_doc_say(d, ASH_DOC_TEMPLATE_TEXT, "tokenizer.chat_template", "what the assistant said is not printed");
        ends_by_template(d, v, text, n);
        turns(d, v, text, n);
    } else if (st != ASH_E_NOMEM) { /* some refuse a talk that ends with an answer, or one without tools; none refuses both */
        in.messages = ask, in.add_generation_prompt = true;
        st = ash_tmpl_render_json(t, &in, &text, &n, &e);
        in.tools = "[]";
        if (st != ASH_OK && st != ASH_E_NOMEM) st = ash_tmpl_render_json(t, &in, &text, &n, &e);
        if (st == ASH_OK && !memmem(text, n, USER_SAYS, strlen(USER_SAYS)))
            ash_doc_say(d, ASH_DOC_TEMPLATE_TEXT, "tokenizer.chat_template", "what the user says is not printed");
        else if (st != ASH_OK && st != ASH_E_NOMEM)
            ash_doc_say(d, ASH_DOC_TEMPLATE, "tokenizer.chat_template", "a question cannot be printed: %s", e.msg);
    }
    ash_text_free(text);
    stray(d, v, t, bos, eos);
    ash_tmpl_free(t);
    return st == ASH_E_NOMEM ? ash_fail(err, st, "%s", e.msg) : ASH_OK;
}
