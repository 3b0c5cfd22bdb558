/* tmpl_render.c - the public side: parse, render, and the check of what a template prints against a vocabulary.
 * Messages arrive as C strings or as JSON; either way the template sees Python's lists and dictionaries. */
#include "tmpl/tmpl_int.h"

#include <jansson.h>

enum { TMPL_MAX_JSON = 64 << 20 };

ash_status ash_tmpl_parse(ash_tmpl **out, const char *src, size_t n, ash_error *err) {
    *out = NULL;
    tmpl_token *tok;
    size_t n_tok;
    ash_tmpl *t = ash_calloc(1, sizeof *t);
    if (!t) return ash_fail(err, ASH_E_NOMEM, "out of memory for a template");
    ash_status st = ash_tmpl_lex(&t->arena, src, n, &tok, &n_tok, err);
    if (st == ASH_OK) st = ash_tmpl_tree(&t->arena, tok, n_tok, &t->body, err);
    if (st != ASH_OK) {
        ash_tmpl_free(t);
        return st;
    }
    *out = t;
    return ASH_OK;
}

void ash_tmpl_free(ash_tmpl *t) {
    if (!t) return;
    ash_arena_free(&t->arena);
    ash_free(t);
}

static ash_str lit(const char *s) { return (ash_str){s, strlen(s)}; }
static tv text(const char *s) { return s ? tv_str(s, strlen(s)) : tv_str("", 0); }

/* Strings stay where jansson has them: the document outlives the rendering. */
static ash_status from_json(tmpl_ctx *c, const json_t *j, int depth, tv *out) {
    size_t i;
    json_t *x;
    const char *key;
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_fail(c->err, ASH_E_LIMIT, "JSON nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    switch (json_typeof(j)) {
    case JSON_STRING: *out = tv_str(json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: *out = tv_int(json_integer_value(j)); break;
    case JSON_REAL: *out = (tv){.kind = TV_FLOAT, .u.f = json_real_value(j)}; break;
    case JSON_TRUE:
    case JSON_FALSE: *out = tv_bool(json_is_true(j)); break;
    case JSON_NULL: *out = (tv){.kind = TV_NONE}; break;
    case JSON_ARRAY:
        ASH_TRY(ash_tv_list_new(c, TL_LIST, json_array_size(j), out));
        json_array_foreach(j, i, x) ASH_TRY(from_json(c, x, depth + 1, &out->u.l->v[out->u.l->n++]));
        break;
    case JSON_OBJECT:
        ASH_TRY(ash_tv_dict_new(c, out));
        json_object_foreach((json_t *)(uintptr_t)j, key, x) {
            tv v;
            ASH_TRY(from_json(c, x, depth + 1, &v));
            ASH_TRY(ash_tv_dict_set(c, out->u.d, lit(key), v));
        }
        break;
    }
    return ASH_OK;
}

static ash_status parse_json(const char *what, const char *s, bool object, json_t **out, ash_error *err) {
    json_error_t e;
    size_t n = strlen(s);
    *out = NULL;
    if (n > TMPL_MAX_JSON) return ash_fail(err, ASH_E_LIMIT, "the %s are longer than %d MiB", what, TMPL_MAX_JSON >> 20);
    *out = json_loadb(s, n, JSON_ALLOW_NUL, &e);
    if (!*out)
        return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)(e.position < 0 ? 0 : e.position), "the %s are not JSON: line %d: %s", what, e.line,
                           e.text);
    if (object ? json_is_object(*out) : json_is_array(*out)) return ASH_OK;
    json_decref(*out);
    *out = NULL;
    return ash_fail(err, ASH_E_FORMAT, "the %s must be a JSON %s", what, object ? "object" : "array");
}

static ash_status bind_json(tmpl_ctx *c, const char *name, const char *what, const char *s, json_t **keep) {
    tv v = {.kind = TV_NONE};
    if (s) {
        ASH_TRY(parse_json(what, s, false, keep, c->err));
        ASH_TRY(from_json(c, *keep, 0, &v));
    }
    return ash_tmpl_bind(c, 0, lit(name), v);
}

static ash_status message_list(tmpl_ctx *c, const ash_chat_msg *msgs, size_t n) {
    tv l;
    ASH_TRY(ash_tv_list_new(c, TL_LIST, n, &l));
    for (size_t i = 0; i < n; i++) {
        tv d;
        ASH_TRY(ash_tv_dict_new(c, &d));
        ASH_TRY(ash_tv_dict_set(c, d.u.d, lit("role"), text(msgs[i].role)));
        ASH_TRY(ash_tv_dict_set(c, d.u.d, lit("content"), text(msgs[i].content)));
        l.u.l->v[l.u.l->n++] = d;
    }
    return ash_tmpl_bind(c, 0, lit("messages"), l);
}

/* The variables that apply_chat_template gives to a template; further ones from in->vars. */
static ash_status globals(tmpl_ctx *c, const ash_tmpl_input *in, const ash_chat_msg *msgs, size_t n, json_t *doc[4]) {
    ASH_TRY(ash_tmpl_bind(c, 0, lit("add_generation_prompt"), tv_bool(in->add_generation_prompt)));
    ASH_TRY(ash_tmpl_bind(c, 0, lit("bos_token"), text(in->bos)));
    ASH_TRY(ash_tmpl_bind(c, 0, lit("eos_token"), text(in->eos)));
    if (msgs || !in->messages)
        ASH_TRY(message_list(c, msgs, n));
    else
        ASH_TRY(bind_json(c, "messages", "messages", in->messages, &doc[0]));
    ASH_TRY(bind_json(c, "tools", "tools", in->tools, &doc[1]));
    ASH_TRY(bind_json(c, "documents", "documents", in->documents, &doc[2]));
    if (!in->vars) return ASH_OK;
    ASH_TRY(parse_json("variables", in->vars, true, &doc[3], c->err));
    const char *key;
    json_t *x;
    json_object_foreach(doc[3], key, x) {
        tv v;
        ASH_TRY(from_json(c, x, 0, &v));
        ASH_TRY(ash_tmpl_bind(c, 0, lit(key), v));
    }
    return ASH_OK;
}

static ash_status render(const ash_tmpl *t, const ash_tmpl_input *in, const ash_chat_msg *msgs, size_t n_msgs, char **out, size_t *n_out,
                         ash_error *err) {
    *out = NULL;
    *n_out = 0;
    json_t *doc[4] = {NULL, NULL, NULL, NULL};
    tmpl_ctx c = {.line = 1, .err = err};
    if (in->now) c.has_now = true, c.now = *in->now;
    ash_status st = globals(&c, in, msgs, n_msgs, doc);
    if (st == ASH_OK) st = ash_tmpl_run(&c, t->body, 0);
    if (st == ASH_OK && c.flow) st = ash_tmpl_fail(&c, ASH_E_FORMAT, "break or continue outside of a loop");
    if (st == ASH_OK) {
        ash_buf_adds(&c.out, "");
        if (!ash_buf_ok(&c.out)) st = ash_tmpl_nomem(&c);
    }
    if (st == ASH_OK) {
        *out = c.out.p;
        *n_out = c.out.n;
        c.out.p = NULL;
    }
    ash_buf_free(&c.out);
    ash_arena_free(&c.arena);
    for (int i = 0; i < 4; i++) json_decref(doc[i]);
    return st;
}

ash_status ash_tmpl_render(const ash_tmpl *t, const ash_chat_msg *msgs, size_t n_msgs, bool add_generation_prompt, const char *bos,
                           const char *eos, char **out, size_t *n_out, ash_error *err) {
    ash_tmpl_input in = {.add_generation_prompt = add_generation_prompt, .bos = bos, .eos = eos};
    return render(t, &in, msgs, n_msgs, out, n_out, err);
}

ash_status ash_tmpl_render_json(const ash_tmpl *t, const ash_tmpl_input *in, char **out, size_t *n_out, ash_error *err) {
    *out = NULL;
    *n_out = 0;
    if (!in->messages) return ash_fail(err, ASH_E_USAGE, "there are no messages to render");
    return render(t, in, NULL, 0, out, n_out, err);
}

/* ---- turn markers ---- */
/* Length of a marker at p: <|name|>, <|name>, <name|>, <name_of_name>, also with the full-width bars that DeepSeek
 * uses; 0: none. Plain tags such as <tools> are text to many models and are not looked at. */
static size_t marker(const char *p, size_t n) {
    static const char wide[] = "\xef\xbd\x9c";
    bool bar = false;
    if (n < 3 || p[0] != '<') return 0;
    size_t i = 1, name = 0;
    for (; i < n && p[i] != '>'; i++) {
        if (i > 64 || p[i] == '<' || p[i] == ' ' || p[i] == '\n' || p[i] == '"' || p[i] == '{') return 0;
        bool edge = i == 1 || p[i + 1] == '>' || (i + 3 < n && p[i + 3] == '>');
        if (p[i] == '|' && edge)
            bar = true;
        else if (edge && n - i >= 3 && memcmp(p + i, wide, 3) == 0)
            bar = true;
        else if (p[i] >= 'a' && p[i] <= 'z')
            name++;
    }
    if (i == n || !name) return 0;
    return bar || memmem(p, i, "_of_", 4) || (memchr(p, '_', i) && memmem(p, i, "turn", 4)) ? i + 1 : 0;
}

ash_status ash_tmpl_stray_tokens(const ash_tmpl *t, const ash_vocab *v, const char *bos, const char *eos, char **out, ash_error *err) {
    static const ash_chat_msg msgs[] = {{"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}};
    static const struct tm day = {.tm_year = 100, .tm_mday = 1, .tm_wday = 6};
    ash_tmpl_input in = {.add_generation_prompt = true, .bos = bos, .eos = eos, .now = &day};
    char *s;
    size_t n;
    ash_buf list = {0};
    ash_error ignored;
    *out = NULL;
    ash_buf_adds(&list, "");
    ash_status st = render(t, &in, msgs, ASH_ARRAY_LEN(msgs), &s, &n, &ignored);
    if (st == ASH_OK) {
        for (size_t i = 0, k; i < n; i += k ? k : 1) {
            k = marker(s + i, n - i);
            if (!k) continue;
            ash_token id = ash_vocab_find(v, s + i, k);
            ash_token_type type = id < 0 ? ASH_TOK_UNKNOWN : ash_vocab_token_type(v, id);
            if (type == ASH_TOK_CONTROL || type == ASH_TOK_USER_DEFINED) continue;
            const char *seen = list.n ? memmem(list.p, list.n, s + i, k) : NULL;
            if (seen && seen[k] == '\n') continue;
            ash_buf_add(&list, s + i, k);
            ash_buf_addc(&list, '\n');
        }
        ash_text_free(s);
    }
    if (!ash_buf_ok(&list)) {
        ash_buf_free(&list);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for the check of a chat template");
    }
    *out = list.p;
    return ASH_OK;
}
