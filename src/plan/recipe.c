/* recipe.c - recipes: an ordered list of rules and a note of how it was made; written as JSON, read as JSON or as
 * lines. Everything read here comes from outside: limits on size, depth (jansson's own, 2048), rules and string
 * lengths; unknown keys are errors, so that a misspelt one is never silently ignored. Format: docs/formats/recipe.md. */
#include "ashlar/plan.h"

#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { MAX_RULES = 65536, MAX_NAME = 256, MAX_REASON = 1024, MAX_BYTES = 16 << 20 };

typedef struct { char *pattern, *reason; int type; } rule;

struct ash_recipe {
    ash_arena arena; /* all strings */
    rule *rules;
    size_t n, cap;
    ash_recipe_info info;
};

ash_status ash_recipe_new(ash_recipe **out, ash_error *err) {
    ash_recipe *r = *out = ash_calloc(1, sizeof *r);
    if (!r) return ash_fail(err, ASH_E_NOMEM, "out of memory for a recipe");
    r->info = (ash_recipe_info){.created_by = "", .model_name = "", .model_sha256 = "", .predicted_kld = -1};
    return ASH_OK;
}

void ash_recipe_free(ash_recipe *r) {
    if (!r) return;
    ash_arena_free(&r->arena);
    ash_free(r->rules);
    ash_free(r);
}

static const char *keep(ash_recipe *r, const char *s) { return s && *s ? ash_arena_strndup(&r->arena, s, strlen(s)) : ""; }

ash_status ash_recipe_set_info(ash_recipe *r, const ash_recipe_info *info, ash_error *err) {
    ash_recipe_info i = *info;
    i.created_by = keep(r, info->created_by);
    i.model_name = keep(r, info->model_name);
    i.model_sha256 = keep(r, info->model_sha256);
    if (!i.created_by || !i.model_name || !i.model_sha256) return ash_fail(err, ASH_E_NOMEM, "out of memory for a recipe");
    r->info = i;
    return ASH_OK;
}

ash_recipe_info ash_recipe_get_info(const ash_recipe *r) { return r->info; }

ash_status ash_recipe_add(ash_recipe *r, const char *pattern, int type, const char *reason, ash_error *err) {
    size_t n = strlen(pattern);
    if (n == 0 || n > MAX_NAME) return ash_fail(err, ASH_E_FORMAT, "recipe rule %zu: a pattern has 1 to %d bytes", r->n + 1, MAX_NAME);
    if (reason && strlen(reason) > MAX_REASON) return ash_fail(err, ASH_E_FORMAT, "recipe rule %s: the reason is longer than %d bytes", pattern, MAX_REASON);
    if (type != ASH_TYPE_KEEP && !ash_dtype_get(type)) return ash_fail(err, ASH_E_FORMAT, "recipe rule %s: no type has the id %d", pattern, type);
    if (r->n >= MAX_RULES) return ash_fail(err, ASH_E_LIMIT, "a recipe holds at most %d rules", MAX_RULES);
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 64;
        rule *p = ash_realloc(r->rules, cap * sizeof *p);
        if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for a recipe");
        r->rules = p;
        r->cap = cap;
    }
    rule x = {(char *)keep(r, pattern), (char *)keep(r, reason), type};
    if (!x.pattern || !x.reason) return ash_fail(err, ASH_E_NOMEM, "out of memory for a recipe");
    r->rules[r->n++] = x;
    return ASH_OK;
}

size_t ash_recipe_n_rules(const ash_recipe *r) { return r->n; }
ash_recipe_rule ash_recipe_rule_at(const ash_recipe *r, size_t i) {
    return (ash_recipe_rule){r->rules[i].pattern, r->rules[i].type, r->rules[i].reason};
}

/* Linear-time backtracking: only the last star ever needs another try. */
bool ash_glob(const char *p, const char *s) {
    const char *star = NULL, *back = NULL;
    while (*s) {
        if (*p == '*') star = p++, back = s;
        else if (*p == '?' || *p == *s) p++, s++;
        else if (star) p = star + 1, s = ++back;
        else return false;
    }
    while (*p == '*') p++;
    return *p == 0;
}

int64_t ash_recipe_find(const ash_recipe *r, const char *tensor) {
    for (size_t i = 0; i < r->n; i++)
        if (ash_glob(r->rules[i].pattern, tensor)) return (int64_t)i;
    return -1;
}

static bool parse_type(const char *s, int *type) {
    ash_dtype t;
    if (strcasecmp(s, "keep") == 0) return *type = ASH_TYPE_KEEP, true;
    if (!ash_dtype_parse(s, &t)) return false;
    return *type = (int)t, true;
}

/* ---- lines: PATTERN = TYPE [# reason]; `widen = 256` stands alone without quotes or wildcards ---- */

static ash_status parse_lines(ash_recipe *r, const char *text, size_t n, const char *name, ash_error *err) {
    size_t line = 0;
    for (size_t at = 0; at < n;) {
        const char *b = text + at, *nl = memchr(b, '\n', n - at);
        const char *e = nl ? nl : text + n;
        at = nl ? (size_t)(nl - text) + 1 : n;
        line++;
        if (memchr(b, 0, (size_t)(e - b))) return ash_fail(err, ASH_E_FORMAT, "%s:%zu: the line holds a zero byte: this is no recipe", name, line);
        const char *hash = memchr(b, '#', (size_t)(e - b));
        const char *note = hash ? hash + 1 : e, *note_end = e;
        if (hash) e = hash;
        while (b < e && (unsigned char)*b <= ' ') b++;
        while (e > b && (unsigned char)e[-1] <= ' ') e--;
        while (note < note_end && (unsigned char)*note <= ' ') note++;
        while (note_end > note && (unsigned char)note_end[-1] <= ' ') note_end--;
        if (b == e) continue;
        const char *eq = memchr(b, '=', (size_t)(e - b));
        char pat[MAX_NAME + 1], type[32], reason[MAX_REASON + 1];
        if (!eq) return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)(b - text), "%s:%zu: expected PATTERN = TYPE", name, line);
        const char *pe = eq, *tb = eq + 1;
        while (pe > b && (unsigned char)pe[-1] <= ' ') pe--;
        while (tb < e && (unsigned char)*tb <= ' ') tb++;
        if (pe == b || (size_t)(pe - b) > MAX_NAME || tb == e || (size_t)(e - tb) >= sizeof type || (size_t)(note_end - note) > MAX_REASON)
            return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)(b - text), "%s:%zu: expected PATTERN = TYPE", name, line);
        memcpy(pat, b, (size_t)(pe - b));
        pat[pe - b] = 0;
        memcpy(type, tb, (size_t)(e - tb));
        type[e - tb] = 0;
        memcpy(reason, note, (size_t)(note_end - note));
        reason[note_end - note] = 0;
        if (strcmp(pat, "widen") == 0) {
            char *end;
            unsigned long v = strtoul(type, &end, 10);
            if (*end || v > 65536 || v == 1) return ash_fail(err, ASH_E_FORMAT, "%s:%zu: widen is 0 or a block size such as 256, not %s", name, line, type);
            r->info.widen = (uint32_t)v;
            continue;
        }
        int t;
        if (!parse_type(type, &t)) return ash_fail(err, ASH_E_FORMAT, "%s:%zu: unknown type \"%s\"", name, line, type);
        ash_status st = ash_recipe_add(r, pat, t, reason, err);
        if (st != ASH_OK) return ash_error_prefix(err, "%s:%zu", name, line), st;
    }
    return ASH_OK;
}

/* ---- JSON ---- */

typedef struct { const char *name; ash_error *err; } jctx;

static ash_status bad(jctx *c, const char *what, const char *key) {
    return ash_fail(c->err, ASH_E_FORMAT, "%s: recipe: %s \"%.80s\"", c->name, what, key);
}

/* Each key must be one of `allowed`. */
static ash_status only_keys(jctx *c, json_t *o, const char *const *allowed, size_t n, const char *where) {
    const char *k;
    json_t *v;
    json_object_foreach(o, k, v) {
        bool ok = false;
        for (size_t i = 0; i < n; i++) ok |= strcmp(k, allowed[i]) == 0;
        if (!ok) return ash_fail(c->err, ASH_E_FORMAT, "%s: recipe: unknown key \"%.80s\" in %s", c->name, k, where);
    }
    return ASH_OK;
}

static ash_status get_str(jctx *c, json_t *o, const char *key, size_t max, const char **out) {
    json_t *v = json_object_get(o, key);
    if (!v) return ASH_OK;
    if (!json_is_string(v) || json_string_length(v) > max) return bad(c, "a short string is expected for", key);
    *out = json_string_value(v);
    return ASH_OK;
}

static ash_status get_u64(jctx *c, json_t *o, const char *key, uint64_t max, uint64_t *out) {
    json_t *v = json_object_get(o, key);
    if (!v) return ASH_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) return bad(c, "a whole number in range is expected for", key);
    *out = (uint64_t)json_integer_value(v);
    return ASH_OK;
}

static ash_status parse_rules(jctx *c, ash_recipe *r, json_t *arr) {
    static const char *const keys[] = {"tensor", "type", "reason"};
    size_t i;
    json_t *o;
    json_array_foreach(arr, i, o) {
        const char *tensor = NULL, *type = NULL, *reason = "";
        int t;
        if (!json_is_object(o)) return ash_fail(c->err, ASH_E_FORMAT, "%s: recipe: rule %zu is not an object", c->name, i + 1);
        ASH_TRY(only_keys(c, o, keys, ASH_ARRAY_LEN(keys), "a rule"));
        ASH_TRY(get_str(c, o, "tensor", MAX_NAME, &tensor));
        ASH_TRY(get_str(c, o, "type", 32, &type));
        ASH_TRY(get_str(c, o, "reason", MAX_REASON, &reason));
        if (!tensor || !type) return ash_fail(c->err, ASH_E_FORMAT, "%s: recipe: rule %zu needs \"tensor\" and \"type\"", c->name, i + 1);
        if (!parse_type(type, &t)) return bad(c, "unknown type", type);
        ASH_TRY(ash_recipe_add(r, tensor, t, reason, c->err));
    }
    return ASH_OK;
}

static ash_status parse_json(ash_recipe *r, const char *text, size_t n, const char *name, ash_error *err) {
    static const char *const top[] = {"format", "version", "created_by", "model", "budget_bytes", "widen", "predicted", "rules"};
    static const char *const model_keys[] = {"name", "sha256"}, *const pred_keys[] = {"kld", "bytes"};
    jctx c = {name, err};
    json_error_t je;
    ash_status st = ASH_OK;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    if (!o) return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)ASH_MAX(je.position, 0), "%s:%d: %.120s", name, je.line, je.text);
    ash_recipe_info info = r->info;
    const char *format = "";
    uint64_t version = 0, widen = 0;
    json_t *m, *p, *rules;
    if (!json_is_object(o)) {
        st = ash_fail(err, ASH_E_FORMAT, "%s: a recipe is a JSON object", name);
        goto done;
    }
    ASH_TRY_GOTO(only_keys(&c, o, top, ASH_ARRAY_LEN(top), "the recipe"), done);
    ASH_TRY_GOTO(get_str(&c, o, "format", 64, &format), done);
    ASH_TRY_GOTO(get_u64(&c, o, "version", 1000, &version), done);
    if (strcmp(format, "ashlar-recipe") != 0 || version != 1) {
        st = ash_fail(err, ASH_E_FORMAT, "%s: not a recipe of version 1 (\"format\": \"ashlar-recipe\", \"version\": 1)", name);
        goto done;
    }
    ASH_TRY_GOTO(get_str(&c, o, "created_by", 256, &info.created_by), done);
    ASH_TRY_GOTO(get_u64(&c, o, "budget_bytes", INT64_MAX, &info.budget_bytes), done);
    ASH_TRY_GOTO(get_u64(&c, o, "widen", 65536, &widen), done);
    if (widen == 1) {
        st = bad(&c, "0 or a block size is expected for", "widen");
        goto done;
    }
    info.widen = (uint32_t)widen;
    if ((m = json_object_get(o, "model"))) {
        if (!json_is_object(m)) {
            st = bad(&c, "an object is expected for", "model");
            goto done;
        }
        ASH_TRY_GOTO(only_keys(&c, m, model_keys, ASH_ARRAY_LEN(model_keys), "\"model\""), done);
        ASH_TRY_GOTO(get_str(&c, m, "name", 1024, &info.model_name), done);
        ASH_TRY_GOTO(get_str(&c, m, "sha256", 64, &info.model_sha256), done);
        if (*info.model_sha256 && (strlen(info.model_sha256) != 64 || strspn(info.model_sha256, "0123456789abcdef") != 64)) {
            st = bad(&c, "64 hex digits are expected for", "sha256");
            goto done;
        }
    }
    if ((p = json_object_get(o, "predicted"))) {
        if (!json_is_object(p)) {
            st = bad(&c, "an object is expected for", "predicted");
            goto done;
        }
        ASH_TRY_GOTO(only_keys(&c, p, pred_keys, ASH_ARRAY_LEN(pred_keys), "\"predicted\""), done);
        ASH_TRY_GOTO(get_u64(&c, p, "bytes", INT64_MAX, &info.predicted_bytes), done);
        json_t *k = json_object_get(p, "kld");
        if (k && (!json_is_number(k) || json_number_value(k) < 0)) {
            st = bad(&c, "a number >= 0 is expected for", "kld");
            goto done;
        }
        if (k) info.predicted_kld = json_number_value(k);
    }
    if (!(rules = json_object_get(o, "rules")) || !json_is_array(rules)) {
        st = bad(&c, "a list is expected for", "rules");
        goto done;
    }
    ASH_TRY_GOTO(parse_rules(&c, r, rules), done);
    st = ash_recipe_set_info(r, &info, err);
done:
    json_decref(o);
    return st;
}

ash_status ash_recipe_parse(ash_recipe **out, const char *text, size_t n, const char *name, ash_error *err) {
    *out = NULL;
    if (n > MAX_BYTES) return ash_fail(err, ASH_E_LIMIT, "%s: a recipe has at most %d MiB", name, MAX_BYTES >> 20);
    ash_recipe *r;
    ASH_TRY(ash_recipe_new(&r, err));
    size_t i = 0;
    while (i < n && (unsigned char)text[i] <= ' ' && text[i]) i++;
    ash_status st = i < n && text[i] == '{' ? parse_json(r, text, n, name, err) : parse_lines(r, text, n, name, err);
    if (st == ASH_OK && r->n == 0) st = ash_fail(err, ASH_E_FORMAT, "%s: the recipe has no rules", name);
    if (st == ASH_OK) *out = r;
    else ash_recipe_free(r);
    return st;
}

ash_status ash_recipe_load(ash_recipe **r, const char *path, ash_error *err) {
    ash_buf b = {0};
    *r = NULL;
    ash_status st = ash_file_read(path, MAX_BYTES, &b, err);
    if (st == ASH_OK) st = ash_recipe_parse(r, b.p ? b.p : "", b.n, path, err);
    ash_buf_free(&b);
    return st;
}

/* JSON string with the escapes that RFC 8259 demands; bytes are passed through. */
static void put_str(ash_buf *b, const char *s) {
    ash_buf_addc(b, '"');
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\') ash_buf_addc(b, '\\');
        if (ch < 0x20) ash_buf_addf(b, "\\u%04x", ch);
        else ash_buf_addc(b, (char)ch);
    }
    ash_buf_addc(b, '"');
}

ash_status ash_recipe_json(const ash_recipe *r, char **out, size_t *n, ash_error *err) {
    ash_buf b = {0};
    const ash_recipe_info *i = &r->info;
    ash_buf_adds(&b, "{\n  \"format\": \"ashlar-recipe\",\n  \"version\": 1,\n  \"created_by\": ");
    put_str(&b, *i->created_by ? i->created_by : "ashlar");
    if (*i->model_name || *i->model_sha256) {
        ash_buf_adds(&b, ",\n  \"model\": {");
        if (*i->model_name) ash_buf_adds(&b, "\"name\": "), put_str(&b, i->model_name);
        if (*i->model_sha256) ash_buf_adds(&b, *i->model_name ? ", \"sha256\": " : "\"sha256\": "), put_str(&b, i->model_sha256);
        ash_buf_addc(&b, '}');
    }
    if (i->budget_bytes) ash_buf_addf(&b, ",\n  \"budget_bytes\": %llu", (unsigned long long)i->budget_bytes);
    ash_buf_addf(&b, ",\n  \"widen\": %u", i->widen);
    if (i->predicted_kld >= 0 && isfinite(i->predicted_kld))
        ash_buf_addf(&b, ",\n  \"predicted\": {\"kld\": %.9g, \"bytes\": %llu}", i->predicted_kld, (unsigned long long)i->predicted_bytes);
    ash_buf_adds(&b, ",\n  \"rules\": [");
    for (size_t k = 0; k < r->n; k++) {
        ash_buf_adds(&b, k ? ",\n    {\"tensor\": " : "\n    {\"tensor\": ");
        put_str(&b, r->rules[k].pattern);
        ash_buf_adds(&b, ", \"type\": ");
        put_str(&b, r->rules[k].type == ASH_TYPE_KEEP ? "keep" : ash_dtype_name((ash_dtype)r->rules[k].type));
        if (*r->rules[k].reason) ash_buf_adds(&b, ", \"reason\": "), put_str(&b, r->rules[k].reason);
        ash_buf_addc(&b, '}');
    }
    ash_buf_adds(&b, "\n  ]\n}\n");
    if (!ash_buf_ok(&b)) {
        ash_buf_free(&b);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for a recipe");
    }
    *out = b.p;
    if (n) *n = b.n;
    return ASH_OK;
}

void ash_recipe_text_free(char *s) { ash_free(s); }

ash_status ash_recipe_save(const ash_recipe *r, const char *path, ash_error *err) {
    char *s;
    size_t n;
    ASH_TRY(ash_recipe_json(r, &s, &n, err));
    ash_status st = ash_file_write_atomic(path, s, n, err);
    ash_recipe_text_free(s);
    return st;
}
