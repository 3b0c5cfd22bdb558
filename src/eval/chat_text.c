/* chat_text.c - conversations from JSONL, rendered by the model's template, as a text to be measured on. */
#include "eval/chat.h"

#include "ashlar/task.h"

#include <jansson.h>
#include <stdlib.h>

static char *special_text(const ash_vocab *v, ash_token t) {
    ash_str s = t >= 0 ? ash_vocab_token_text(v, t) : (ash_str){"", 0};
    return ash_strndup(s.p ? s.p : "", s.n);
}

ash_status ash_chat_init(ash_chat *c, const ash_model *m, ash_error *err) {
    ash_str src;
    *c = (ash_chat){0};
    c->v = ash_model_vocab(m, err);
    if (!c->v) return err ? err->code : ASH_E_UNSUPPORTED;
    if (!ash_gguf_get_str(ash_model_gguf(m), "tokenizer.chat_template", &src)) return ash_fail(err, ASH_E_UNSUPPORTED, "the model has no chat template");
    c->bos = special_text(c->v, ash_vocab_bos(c->v));
    c->eos = special_text(c->v, ash_vocab_eos(c->v));
    ash_status st = c->bos && c->eos ? ash_tmpl_parse(&c->tmpl, src.p, src.n, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a chat template");
    if (st != ASH_OK) ash_chat_free(c);
    return st;
}

void ash_chat_free(ash_chat *c) {
    ash_tmpl_free(c->tmpl);
    ash_free(c->bos);
    ash_free(c->eos);
    *c = (ash_chat){0};
}

ash_status ash_chat_tokens(const ash_chat *c, const char *messages, bool gen, ash_token **t, size_t *n, char **out_text, size_t *n_text, ash_error *err) {
    char *s;
    size_t len;
    ash_tmpl_input in = {.messages = messages, .add_generation_prompt = gen, .bos = c->bos, .eos = c->eos};
    ASH_TRY(ash_tmpl_render_json(c->tmpl, &in, &s, &len, err));
    bool has_bos = *c->bos && strncmp(s, c->bos, strlen(c->bos)) == 0; /* a template that writes BOS itself must not get a second one */
    ash_status st = ash_tokenize(c->v, s, len, ASH_TOKENIZE_SPECIAL | (has_bos ? 0 : ASH_TOKENIZE_BOS), t, n, err);
    if (st == ASH_OK && out_text) {
        *out_text = s;
        *n_text = len;
    } else {
        ash_text_free(s);
    }
    return st;
}

/* The messages of one line as a new array, or NULL. */
static json_t *messages_of(const json_t *o) {
    const json_t *l = json_is_array(o) ? o : json_object_get(o, "messages");
    json_t *out = json_array(), *e;
    size_t i;
    if (json_is_array(l)) {
        json_array_foreach((json_t *)(uintptr_t)l, i, e) {
            if (!json_is_string(json_object_get(e, "role"))) goto no;
            json_array_append(out, e);
        }
    } else if ((l = json_object_get(o, "conversations")) && json_is_array(l)) {
        json_array_foreach((json_t *)(uintptr_t)l, i, e) {
            const char *from = json_string_value(json_object_get(e, "from")), *value = json_string_value(json_object_get(e, "value"));
            if (!from || !value) goto no;
            const char *role = strcmp(from, "human") == 0 ? "user" : strcmp(from, "gpt") == 0 ? "assistant" : from;
            json_array_append_new(out, json_pack("{s:s, s:s}", "role", role, "content", value));
        }
    } else {
        const char *q = json_string_value(json_object_get(o, "question")), *a = json_string_value(json_object_get(o, "answer"));
        if (!q || !a) goto no;
        json_array_append_new(out, json_pack("{s:s, s:s}", "role", "user", "content", q));
        json_array_append_new(out, json_pack("{s:s, s:s}", "role", "assistant", "content", a));
    }
    if (json_array_size(out)) return out;
no:
    json_decref(out);
    return NULL;
}

static ash_status add_line(ash_eval_text *t, size_t *cap, ash_sha256 *sha, const ash_chat *c, const char *line, size_t n, uint32_t no, ash_error *err) {
    json_error_t je;
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, &je), *msgs = o ? messages_of(o) : NULL;
    char *s = msgs ? json_dumps(msgs, JSON_COMPACT) : NULL, *text = NULL;
    size_t n_text = 0, k = 0;
    ash_token *tok = NULL;
    ash_status st = ASH_OK;
    if (!o)
        st = ash_fail(err, ASH_E_FORMAT, "line %u is no JSON: %.120s", no, je.text);
    else if (!msgs)
        st = ash_fail(err, ASH_E_FORMAT, "line %u is no conversation: \"messages\", \"conversations\", or \"question\" and \"answer\" are known", no);
    else if (!s)
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a conversation");
    if (st == ASH_OK) {
        st = ash_chat_tokens(c, s, false, &tok, &k, &text, &n_text, err);
        if (st != ASH_OK && err) ash_error_prefix(err, "line %u", no);
    }
    if (st == ASH_OK && t->n + k > *cap) {
        *cap = 2 * (t->n + k);
        ash_token *p = ash_realloc(t->tokens, *cap * sizeof *p);
        if (p) t->tokens = p;
        else st = ash_fail(err, ASH_E_NOMEM, "out of memory for %zu tokens", *cap);
    }
    if (st == ASH_OK) {
        if (k) memcpy(t->tokens + t->n, tok, k * sizeof *tok);
        t->n += k;
        t->n_bytes += n_text;
        ash_sha256_add(sha, text, n_text);
    }
    ash_tokens_free(tok);
    ash_text_free(text);
    free(s);
    json_decref(msgs);
    json_decref(o);
    return st;
}

ash_status ash_eval_text_chat(ash_eval_text *t, const ash_model *m, const char *path, uint32_t *n_conversations, ash_error *err) {
    *t = (ash_eval_text){0};
    ash_buf b = {0};
    ash_chat c = {0};
    ash_sha256 sha;
    size_t cap = 0;
    uint32_t line = 0, n = 0;
    ash_status st;
    ash_sha256_init(&sha);
    ASH_TRY_GOTO(ash_file_read(path, 1ull << 30, &b, err), done);
    ASH_TRY_GOTO(ash_chat_init(&c, m, err), done);
    for (size_t at = 0; at < b.n;) {
        const char *nl = memchr(b.p + at, '\n', b.n - at);
        size_t end = nl ? (size_t)(nl - b.p) : b.n, s = at;
        line++;
        at = end + 1;
        while (s < end && (b.p[s] == ' ' || b.p[s] == '\t' || b.p[s] == '\r')) s++;
        if (s == end) continue;
        ASH_TRY_GOTO(add_line(t, &cap, &sha, &c, b.p + s, end - s, line, err), done);
        n++;
    }
    if (!n) {
        st = ash_fail(err, ASH_E_FORMAT, "no conversation in it");
        goto done;
    }
    t->add_bos = ash_vocab_add_bos(c.v);
    t->bos = ash_vocab_bos(c.v);
    ash_sha256_hex(&sha, t->sha256);
    if (n_conversations) *n_conversations = n;
done:
    if (st != ASH_OK) {
        ash_eval_text_free(t);
        if (err && st != ASH_E_IO) ash_error_prefix(err, "%s", path);
    }
    ash_chat_free(&c);
    ash_buf_free(&b);
    return st;
}
