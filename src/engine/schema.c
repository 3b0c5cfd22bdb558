/* schema.c - a JSON schema as GBNF. Every schema becomes one expression; what $ref names becomes a rule, so recursion
 * is a rule that calls itself. Objects write their properties in the schema's order. The text that the grammar lets
 * through fits the schema, but for the keywords that are named in `ignored`; it need not reach all that would fit. */
#include "engine/schema_int.h"

#include <math.h>
#include <stdio.h>

static ash_status build(schema *s, const json_t *j, const char *path, ash_buf *o);

ash_status ash_sc_fail(schema *s, ash_status st, const char *fmt, ...) {
    char msg[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return ash_fail(s->err, st, "schema %s: %s", *s->path ? s->path : "/", msg);
}

ash_status ash_sc_ignore(schema *s, const char *keyword, const char *why) {
    if (s->strict) return ash_sc_fail(s, ASH_E_UNSUPPORTED, "%s %s", keyword, why);
    ash_buf_addf(&s->ignored, "%s/%s: %s\n", s->path, keyword, why);
    return ASH_OK;
}

static ash_status rule(schema *s, const char *name, const ash_buf *body) {
    if (++s->n_rules > SC_MAX_RULES) return ash_sc_fail(s, ASH_E_LIMIT, "more than %d rules", SC_MAX_RULES);
    if (s->rules.n + body->n > SC_MAX_TEXT) return ash_sc_fail(s, ASH_E_LIMIT, "its grammar is longer than %d MiB", SC_MAX_TEXT >> 20);
    ash_buf_addf(&s->rules, "%s ::= ", name);
    ash_buf_add(&s->rules, body->p ? body->p : "\"\"", body->p ? body->n : 2);
    ash_buf_addc(&s->rules, '\n');
    return ASH_OK;
}

/* A fresh rule for what `body` holds; its name goes to `name`, body is emptied. */
static ash_status named(schema *s, char kind, ash_buf *body, char name[24]) {
    snprintf(name, 24, "%c%u", kind, s->n_rules);
    ash_status st = body->oom ? ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema") : rule(s, name, body);
    ash_buf_free(body);
    *body = (ash_buf){0};
    return st;
}

/* ---- what all schemas share ---- */
static void ws(schema *s) {
    if (!s->has_ws) ash_buf_adds(&s->rules, "ws ::= \"\" | \" \" | \"\\n\" [ \\t]{0,20}\n");
    s->has_ws = true;
}
void ash_sc_chars(schema *s) {
    if (!s->has_char) /* an escaped surrogate is left out: it would count as a character of its own */
        ash_buf_adds(&s->rules, "char ::= [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" ([0-9a-cA-CefEF] hex{3} | [dD] "
                                "[0-7] hex{2}))\nhex ::= [0-9a-fA-F]\n");
    s->has_char = true;
}
#define INTEGER "\"-\"? (\"0\" | [1-9] [0-9]{0,15})"
#define FRACTION "(\".\" [0-9]{1,15})?"
static void any_value(schema *s, ash_buf *o, const char *which) {
    ws(s);
    ash_sc_chars(s);
    if (!s->has_value)
        ash_buf_adds(&s->rules, "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
                                "object ::= \"{\" ws (member (\",\" ws member)*)? ws \"}\"\nmember ::= string \":\" ws value\n"
                                "array ::= \"[\" ws (value (\",\" ws value)*)? ws \"]\"\nstring ::= \"\\\"\" char* \"\\\"\"\n"
                                "number ::= " INTEGER " " FRACTION " ([eE] [-+]? [0-9]{1,2})?\n");
    s->has_value = true;
    ash_buf_adds(o, which);
}

/* Text as a GBNF literal. */
static void literal(ash_buf *o, const char *p, size_t n) {
    ash_buf_addc(o, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\')
            ash_buf_addf(o, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            ash_buf_addf(o, "\\x%02X", c);
        else
            ash_buf_addc(o, (char)c);
    }
    ash_buf_addc(o, '"');
}

static ash_status constant(schema *s, const json_t *v, ash_buf *o) {
    char *t = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (!t) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    literal(o, t, strlen(t));
    ash_buf_addc(o, ' ');
    free(t);
    return ASH_OK;
}

static bool count_of(const json_t *j, const char *key, int64_t *n) {
    const json_t *v = json_object_get(j, key);
    if (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) && fabs(json_real_value(v)) < 1e15)
        return *n = (int64_t)json_real_value(v), true;
    return json_is_integer(v) ? (*n = json_integer_value(v), true) : false;
}
static ash_status limits(schema *s, const json_t *j, const char *lo, const char *hi, int64_t *min, int64_t *max) {
    *min = 0;
    *max = -1;
    bool a = count_of(j, lo, min), b = count_of(j, hi, max);
    if ((a && *min < 0) || (b && *max < 0)) return ash_sc_fail(s, ASH_E_FORMAT, "%s or %s is negative", lo, hi);
    if (*min > 100000 || *max > 100000) return ash_sc_fail(s, ASH_E_LIMIT, "%s or %s is over 100000", lo, hi);
    if (b && *max < *min) return ash_sc_fail(s, ASH_E_FORMAT, "%s is over %s", lo, hi);
    return ASH_OK;
}

/* ---- strings and numbers ---- */
static const char *format_of(const char *f) {
#define D2 "[0-9]{2} "
#define DATE                                                                                                                               \
    "[1-9] [0-9]{3} \"-\" ((\"0\" [13578] | \"10\" | \"12\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\" | \"31\") | (\"0\" [469] | \"11\") " \
    "\"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") "                                                                                           \
    "| \"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8])) "
#define CLOCK "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9] "
#define TIME CLOCK "\":\" [0-5] [0-9] (\".\" [0-9]{1,6})? (\"Z\" | [-+] " CLOCK ") "
#define LABEL "[a-z0-9] ([a-z0-9-]{0,20} [a-z0-9])? "
#define HOST LABEL "(\".\" " LABEL "){0,3} \".\" [a-z]{2,8} "
#define OCTET "(\"25\" [0-5] | \"2\" [0-4] [0-9] | \"1\" [0-9]{2} | [1-9]? [0-9]) "
    static const char *const rows[][2] = {
        {"date", DATE},
        {"time", TIME},
        {"date-time", DATE "\"T\" " TIME},
        {"uuid", "[0-9a-f]{8} (\"-\" [0-9a-f]{4}){3} \"-\" [0-9a-f]{12} "},
        {"ipv4", OCTET "(\".\" " OCTET "){3} "},
        {"hostname", HOST},
        {"email", "[a-z0-9]{1,30} ([._+-] [a-z0-9]{1,30}){0,3} \"@\" " HOST},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(rows); i++)
        if (strcmp(rows[i][0], f) == 0) return rows[i][1];
    return NULL;
}

static ash_status string(schema *s, const json_t *j, ash_buf *o) {
    int64_t min, max;
    const json_t *re = json_object_get(j, "pattern"), *f = json_object_get(j, "format");
    const char *fixed = json_is_string(f) ? format_of(json_string_value(f)) : NULL;
    bool sized = json_object_get(j, "minLength") || json_object_get(j, "maxLength");
    ASH_TRY(limits(s, j, "minLength", "maxLength", &min, &max));
    if (f && !fixed) ASH_TRY(ash_sc_ignore(s, "format", "is not one of date, time, date-time, uuid, ipv4, hostname, email"));
    if (re && fixed) ASH_TRY(ash_sc_ignore(s, "format", "stands beside a pattern"));
    if (sized && (re || fixed)) ASH_TRY(ash_sc_ignore(s, "minLength, maxLength", "stand beside a pattern or format"));
    if (re && !json_is_string(re)) return ash_sc_fail(s, ASH_E_FORMAT, "pattern is no text");
    ash_buf_adds(o, "\"\\\"\" ");
    if (re)
        ASH_TRY(ash_sc_pattern(s, json_string_value(re), json_string_length(re), o));
    else if (fixed)
        ash_buf_adds(o, fixed);
    else {
        ash_sc_chars(s);
        if (max >= 0)
            ash_buf_addf(o, "char{%lld,%lld} ", (long long)min, (long long)max);
        else if (min)
            ash_buf_addf(o, "char{%lld,} ", (long long)min);
        else
            ash_buf_adds(o, "char* ");
    }
    ash_buf_adds(o, "\"\\\"\" ");
    return ASH_OK;
}

/* The whole numbers that the bounds allow; *has: which ends exist. */
static ash_status bounds(schema *s, const json_t *j, bool has[2], int64_t v[2]) {
    static const char *const keys[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
    has[0] = has[1] = false;
    for (int i = 0; i < 4; i++) {
        const json_t *x = json_object_get(j, keys[i]);
        if (!x) continue;
        if (!json_is_number(x)) return ash_sc_fail(s, ASH_E_UNSUPPORTED, "%s is no number", keys[i]);
        double d = json_number_value(x);
        if (!(fabs(d) < 9e15)) { /* exact as a double, and far from overflow */
            ASH_TRY(ash_sc_ignore(s, keys[i], "is beyond 9e15"));
            continue;
        }
        int64_t b = i == 0 ? (int64_t)ceil(d) : i == 1 ? (int64_t)floor(d) + 1 : i == 2 ? (int64_t)floor(d) : (int64_t)ceil(d) - 1;
        int e = i / 2;
        v[e] = !has[e] ? b : e ? ASH_MIN(v[e], b) : ASH_MAX(v[e], b);
        has[e] = true;
    }
    if (has[0] && has[1] && v[0] > v[1]) return ash_sc_fail(s, ASH_E_UNSUPPORTED, "no whole number lies between the bounds");
    return ASH_OK;
}

static ash_status number(schema *s, const json_t *j, bool whole, ash_buf *o) {
    bool has[2], any = false;
    int64_t v[2] = {0, 0};
    if (json_object_get(j, "multipleOf")) ASH_TRY(ash_sc_ignore(s, "multipleOf", "is not supported"));
    ASH_TRY(bounds(s, j, has, v));
    if (!has[0] && !has[1]) {
        if (whole)
            ash_buf_adds(o, INTEGER " ");
        else
            any_value(s, o, "number ");
        return ASH_OK;
    }
    if (whole) return ash_sc_integers(s, has[0], v[0], has[1], v[1], o);
    /* the end itself, or something between it and the end nearer to zero with digits after the point */
    ash_buf_adds(o, "(");
    if (!has[1] || v[1] >= 0) {
        int64_t lo = has[0] && v[0] > 0 ? v[0] : 0;
        if (!has[1] || v[1] > lo) {
            ASH_TRY(ash_sc_integers(s, true, lo, has[1], v[1] - 1, o));
            ash_buf_adds(o, " " FRACTION);
            any = true;
        }
        if (has[1]) ash_buf_addf(o, any ? " | \"%lld\"" : "\"%lld\"", (long long)v[1]);
        any = true;
    }
    if (!has[0] || v[0] < 0) {
        int64_t lo = has[1] && v[1] < 0 ? -v[1] : 0;
        ash_buf_adds(o, any ? " | \"-\" (" : "\"-\" (");
        bool more = !has[0] || -v[0] > lo;
        if (more) {
            ASH_TRY(ash_sc_integers(s, true, lo, has[0], -v[0] - 1, o));
            ash_buf_adds(o, " " FRACTION);
        }
        if (has[0]) ash_buf_addf(o, more ? " | \"%lld\"" : "\"%lld\"", (long long)-v[0]);
        ash_buf_adds(o, ")");
    }
    ash_buf_adds(o, ")");
    return ASH_OK;
}

/* ---- arrays and objects ---- */
static ash_status sub(schema *s, const json_t *j, const char *path, const char *key, ash_buf *o) {
    char at[256];
    snprintf(at, sizeof at, "%s/%s", path, key);
    return build(s, j, at, o);
}

static ash_status array(schema *s, const json_t *j, const char *path, ash_buf *o) {
    const json_t *items = json_object_get(j, "items"), *prefix = json_object_get(j, "prefixItems");
    int64_t min, max, k = (int64_t)json_array_size(prefix);
    ash_buf one = {0};
    char name[24];
    ASH_TRY(limits(s, j, "minItems", "maxItems", &min, &max));
    ws(s);
    ash_buf_adds(o, "\"[\" ws ");
    if (max == 0) return ash_buf_adds(o, "\"]\" "), ASH_OK;
    for (int64_t i = 0; i < k && (max < 0 || i < max); i++) {
        if (i) ash_buf_adds(o, "\",\" ws ");
        ASH_TRY(sub(s, json_array_get(prefix, (size_t)i), path, "prefixItems", o));
    }
    bool rest = json_is_false(items) ? false : k == 0 || items || min > k;
    bool limited = max >= 0;
    min = ASH_MAX(min - k, 0);
    max = ASH_MAX(max - k, 0);
    if (!rest && min > 0) return ash_sc_fail(s, ASH_E_FORMAT, "minItems is more than there are items");
    if (rest && (!limited || max > 0)) {
        ash_status st = items ? sub(s, items, path, "items", &one) : (any_value(s, &one, "value"), ASH_OK);
        if (st != ASH_OK) return ash_buf_free(&one), st;
        ASH_TRY(named(s, 'i', &one, name));
        char upto[24] = "";
        if (k) { /* all have a comma before them */
            if (limited) snprintf(upto, sizeof upto, "%lld", (long long)max);
            ash_buf_addf(o, "(\",\" ws %s){%lld,%s} ", name, (long long)min, upto);
        } else {
            if (limited) snprintf(upto, sizeof upto, "%lld", (long long)max - 1);
            ash_buf_addf(o, "(%s (\",\" ws %s){%lld,%s})%s ", name, name, (long long)(min ? min - 1 : 0), upto, min ? "" : "?");
        }
    }
    ash_buf_adds(o, "ws \"]\" ");
    return ASH_OK;
}

/* A key that is none of `known`, in quotes: a tree over their bytes, in which every step may leave all of them. */
typedef struct {
    const char **key;
    size_t n;
} keys;
static ash_status other_tail(schema *s, keys k, size_t at, ash_buf *o) {
    bool ends = false;
    ash_buf_adds(o, "([^\\\"\\\\\\x7F\\x00-\\x1F");
    for (size_t i = 0; i < k.n; i++) {
        if (strlen(k.key[i]) == at)
            ends = true;
        else if (i == 0 || strlen(k.key[i - 1]) == at || k.key[i - 1][at] != k.key[i][at])
            ash_buf_addf(o, "\\x%02X", (unsigned char)k.key[i][at]);
    }
    ash_buf_adds(o, "] char* ");
    for (size_t i = 0, e; i < k.n; i = e) {
        e = i + 1;
        if (strlen(k.key[i]) == at) continue;
        while (e < k.n && k.key[e][at] == k.key[i][at]) e++;
        ash_buf_addf(o, "| \"\\x%02X\" ", (unsigned char)k.key[i][at]);
        ASH_TRY(other_tail(s, (keys){k.key + i, e - i}, at + 1, o));
    }
    if (!ends && at > 0) ash_buf_adds(o, "| \"\"");
    ash_buf_adds(o, ") ");
    return ASH_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static ash_status other_key(schema *s, const json_t *props, ash_buf *o) {
    ash_sc_chars(s);
    keys k = {ash_alloc((json_object_size(props) + 1) * sizeof *k.key), 0};
    if (!k.key) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    const char *key;
    json_t *v;
    bool plain = true;
    json_object_foreach((json_t *)(uintptr_t)props, key, v) {
        size_t n = strlen(key);
        plain = plain && n < SC_MAX_DEPTH;
        for (size_t i = 0; i < n; i++)
            plain = plain && (unsigned char)key[i] < 0x7f && (unsigned char)key[i] >= 0x20 && key[i] != '"' && key[i] != '\\';
        k.key[k.n++] = key;
    }
    if (k.n) qsort(k.key, k.n, sizeof *k.key, by_text);
    ash_status st = ASH_OK;
    ash_buf_adds(o, "\"\\\"\" ");
    if (!k.n)
        ash_buf_adds(o, "char* ");
    else if (plain)
        st = other_tail(s, k, 0, o);
    else { /* keys that JSON may spell in several ways: other keys begin with a character that none of them has */
        st = ash_sc_ignore(s, "additionalProperties", "beside keys that are not plain ASCII could repeat one of them");
        ash_buf_adds(o, "char* ");
    }
    ash_buf_adds(o, "\"\\\"\" ");
    ash_free(k.key);
    return st;
}

static bool listed(const json_t *l, const char *key) {
    size_t i;
    json_t *v;
    json_array_foreach(l, i, v) if (json_is_string(v) && strcmp(json_string_value(v), key) == 0) return true;
    return false;
}

/* From the last property to the first: `first`, when none is written yet, and `more`, when a comma is due. */
static ash_status object(schema *s, const json_t *j, const char *path, ash_buf *o) {
    json_t *props = json_object_get(j, "properties"), *v;
    const json_t *req = json_object_get(j, "required"), *extra = json_object_get(j, "additionalProperties");
    const char *key;
    char first[24] = "", more[24] = "", name[24] = "", pair[64] = "";
    size_t n = json_object_size(props), i;
    ash_buf b = {0};
    ash_status st = ASH_OK;
    json_t *r;
    if (props && !json_is_object(props)) return ash_sc_fail(s, ASH_E_FORMAT, "properties is no object");
    bool open = extra ? !json_is_false(extra) : n == 0;
    if (!n && open && (!extra || json_is_true(extra)) && !json_array_size(req)) return any_value(s, o, "object "), ASH_OK;
    json_array_foreach(req, i, r) {
        if (!json_is_string(r)) return ash_sc_fail(s, ASH_E_FORMAT, "required holds something else than names");
        if (!json_object_get(props, json_string_value(r)))
            return ash_sc_fail(s, ASH_E_UNSUPPORTED, "the required property \"%.60s\" is not among the properties", json_string_value(r));
    }
    ws(s);
    if (open) {
        ASH_TRY_GOTO(other_key(s, props, &b), done);
        ash_buf_adds(&b, "\":\" ws ");
        if (json_is_object(extra))
            ASH_TRY_GOTO(sub(s, extra, path, "additionalProperties", &b), done);
        else
            any_value(s, &b, "value");
        ASH_TRY_GOTO(named(s, 'o', &b, pair), done);
    }
    /* what follows the last property */
    if (open) ash_buf_addf(&b, "(%s (\",\" ws %s)*)?", pair, pair);
    ASH_TRY_GOTO(named(s, 'f', &b, first), done);
    if (open) ash_buf_addf(&b, "(\",\" ws %s)*", pair);
    ASH_TRY_GOTO(named(s, 'm', &b, more), done);
    const char **order = ash_alloc((n + 1) * sizeof *order);
    if (!order) {
        st = ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
        goto done;
    }
    i = 0;
    json_object_foreach(props, key, v) order[i++] = key;
    for (; i-- > 0 && st == ASH_OK;) {
        bool must = listed(req, order[i]);
        json_t *text = json_string(order[i]);
        st = text ? constant(s, text, &b) : ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
        json_decref(text);
        ash_buf_adds(&b, "\":\" ws ");
        if (st == ASH_OK) st = sub(s, json_object_get(props, order[i]), path, order[i], &b);
        if (st == ASH_OK) st = named(s, 'p', &b, name);
        char f[24] = "", m[24] = "";
        ash_buf_addf(&b, "%s %s", name, more);
        if (!must) ash_buf_addf(&b, " | %s", first);
        if (st == ASH_OK) st = named(s, 'f', &b, f);
        ash_buf_addf(&b, "\",\" ws %s %s", name, more);
        if (!must) ash_buf_addf(&b, " | %s", more);
        if (st == ASH_OK) st = named(s, 'm', &b, m);
        memcpy(first, f, sizeof f);
        memcpy(more, m, sizeof m);
    }
    ash_free(order);
    if (st == ASH_OK) ash_buf_addf(o, "\"{\" ws %s ws \"}\" ", first);
done:
    ash_buf_free(&b);
    return st;
}

/* ---- $ref and the combining keywords ---- */
static const json_t *resolve(const schema *s, const char *ref) {
    const json_t *j = s->root;
    if (*ref++ != '#') return NULL;
    while (*ref == '/' && j) {
        char part[256];
        size_t n = 0;
        for (ref++; *ref && *ref != '/'; ref++) {
            char c = *ref;
            if (c == '~' && (ref[1] == '0' || ref[1] == '1')) c = *++ref == '0' ? '~' : '/';
            if (n + 1 == sizeof part) return NULL;
            part[n++] = c;
        }
        part[n] = 0;
        j = json_is_array(j) ? json_array_get(j, strtoul(part, NULL, 10)) : json_object_get(j, part);
    }
    return *ref ? NULL : j;
}

static bool one_of(const char *key, const char *const *list) {
    for (; *list; list++)
        if (strcmp(key, *list) == 0) return true;
    return false;
}
static const char *const annotations[] = {"title",      "description", "default",   "examples",    "$schema",
                                          "$id",        "$comment",    "$defs",     "definitions", "$anchor",
                                          "deprecated", "readOnly",    "writeOnly", "nullable",    NULL};

static json_t *keep(schema *s, json_t *j) { return j && json_array_append_new(s->own, j) == 0 ? j : NULL; }

/* b's demands added to a copy of a. */
static ash_status merge(schema *s, const json_t *a, const json_t *b, int depth, json_t **out) {
    const char *key, *p;
    json_t *v, *w;
    if (depth > SC_MAX_DEPTH) return ash_sc_fail(s, ASH_E_LIMIT, "allOf nested deeper than %d", SC_MAX_DEPTH);
    if (++s->merges > SC_MAX_RULES) return ash_sc_fail(s, ASH_E_LIMIT, "more than %d schemas to put together", SC_MAX_RULES);
    json_t *r = keep(s, json_copy((json_t *)(uintptr_t)a));
    if (!r) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    if (json_is_true(b)) return *out = r, ASH_OK;
    if (!json_is_object(b) || !json_is_object(a)) return ash_sc_fail(s, ASH_E_FORMAT, "a schema is neither an object nor true");
    const char *ref = json_string_value(json_object_get(b, "$ref"));
    if (ref) {
        const json_t *to = resolve(s, ref);
        if (!to) return ash_sc_fail(s, ASH_E_FORMAT, "$ref \"%.80s\" leads nowhere", ref);
        ASH_TRY(merge(s, r, to, depth + 1, &r));
    }
    json_object_foreach((json_t *)(uintptr_t)b, key, v) {
        json_t *old = json_object_get(r, key), *now = v;
        if (strcmp(key, "$ref") == 0) continue;
        if (strcmp(key, "allOf") == 0) {
            size_t i;
            json_array_foreach(v, i, w) ASH_TRY(merge(s, r, w, depth + 1, &r));
            continue;
        }
        if (!old || one_of(key, annotations) || json_equal(old, v)) {
        } else if (strcmp(key, "properties") == 0 && json_is_object(old) && json_is_object(v)) {
            now = keep(s, json_copy(old));
            json_object_foreach(v, p, w) {
                json_t *had = json_object_get(now, p);
                if (had && !json_equal(had, w))
                    json_object_set_new(now, p, json_pack("{s:[O,O]}", "allOf", had, w));
                else
                    json_object_set(now, p, w);
            }
        } else if (strcmp(key, "required") == 0 && json_is_array(old)) {
            now = keep(s, json_copy(old));
            if (now) json_array_extend(now, v);
        } else if (json_is_number(old) && json_is_number(v) && (strncmp(key, "min", 3) == 0 || strcmp(key, "exclusiveMinimum") == 0))
            now = json_number_value(old) > json_number_value(v) ? old : v;
        else if (json_is_number(old) && json_is_number(v) && (strncmp(key, "max", 3) == 0 || strcmp(key, "exclusiveMaximum") == 0))
            now = json_number_value(old) < json_number_value(v) ? old : v;
        else if (strcmp(key, "additionalProperties") == 0 && (json_is_false(old) || json_is_false(v)))
            now = json_is_false(old) ? old : v;
        else if (strcmp(key, "type") == 0 && json_is_string(old) && json_is_array(v) && listed(v, json_string_value(old)))
            now = old;
        else if (strcmp(key, "type") == 0 && json_is_array(old) && json_is_string(v) && listed(old, json_string_value(v))) {
        } else
            return ash_sc_fail(s, ASH_E_UNSUPPORTED, "allOf: %s is demanded twice in ways that are not merged", key);
        if (!now || json_object_set(r, key, now)) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    }
    *out = r;
    return ASH_OK;
}

static ash_status reference(schema *s, const char *ref, ash_buf *o) {
    const char *known = json_string_value(json_object_get(s->refs, ref));
    if (known) return ash_buf_addf(o, "%s ", known), ASH_OK;
    const json_t *to = resolve(s, ref);
    if (!to) return ash_sc_fail(s, ASH_E_FORMAT, "$ref \"%.80s\" leads nowhere (only \"#/...\" of the same document is followed)", ref);
    char name[24];
    snprintf(name, sizeof name, "r-%zu", json_object_size(s->refs));
    if (json_object_set_new(s->refs, ref, json_string(name))) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    ash_buf b = {0};
    ash_status st = build(s, to, ref, &b);
    if (st == ASH_OK && b.oom) st = ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    if (st == ASH_OK) st = rule(s, name, &b);
    ash_buf_free(&b);
    ash_buf_addf(o, "%s ", name);
    return st;
}

/* Each branch together with what stands beside the keyword. */
static ash_status branches(schema *s, const json_t *j, const char *word, const char *path, ash_buf *o) {
    const json_t *list = json_object_get(j, word);
    json_t *base = keep(s, json_copy((json_t *)(uintptr_t)j)), *v, *both;
    size_t i;
    bool plain = true;
    const char *key;
    if (!base) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
    if (!json_is_array(list) || !json_array_size(list)) return ash_sc_fail(s, ASH_E_FORMAT, "%s is no list of schemas", word);
    json_object_del(base, word);
    json_object_foreach(base, key, v) plain = plain && one_of(key, annotations);
    ash_buf_adds(o, "(");
    json_array_foreach(list, i, v) {
        if (i) ash_buf_adds(o, "| ");
        if (plain)
            ASH_TRY(sub(s, v, path, word, o));
        else {
            ASH_TRY(merge(s, base, v, 0, &both));
            ASH_TRY(sub(s, both, path, word, o));
        }
    }
    ash_buf_adds(o, ") ");
    return ASH_OK;
}

static const char *const known_keys[] = {"type",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "items",
                                         "prefixItems",
                                         "minItems",
                                         "maxItems",
                                         "minLength",
                                         "maxLength",
                                         "pattern",
                                         "format",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         "multipleOf",
                                         "enum",
                                         "const",
                                         "anyOf",
                                         "oneOf",
                                         "allOf",
                                         "$ref",
                                         NULL};

static const char *implied_type(const json_t *j) {
    static const char *const by_key[][2] = {{"properties", "object"}, {"required", "object"},         {"additionalProperties", "object"},
                                            {"items", "array"},       {"prefixItems", "array"},       {"minItems", "array"},
                                            {"maxItems", "array"},    {"minLength", "string"},        {"maxLength", "string"},
                                            {"pattern", "string"},    {"format", "string"},           {"minimum", "number"},
                                            {"maximum", "number"},    {"exclusiveMinimum", "number"}, {"exclusiveMaximum", "number"},
                                            {"multipleOf", "number"}};
    for (size_t i = 0; i < ASH_ARRAY_LEN(by_key); i++)
        if (json_object_get(j, by_key[i][0])) return by_key[i][1];
    return "";
}

static ash_status typed(schema *s, const json_t *j, const char *type, const char *path, ash_buf *o) {
    if (strcmp(type, "object") == 0) return object(s, j, path, o);
    if (strcmp(type, "array") == 0) return array(s, j, path, o);
    if (strcmp(type, "string") == 0) return string(s, j, o);
    if (strcmp(type, "integer") == 0) return number(s, j, true, o);
    if (strcmp(type, "number") == 0) return number(s, j, false, o);
    if (strcmp(type, "boolean") == 0) return ash_buf_adds(o, "(\"true\" | \"false\") "), ASH_OK;
    if (strcmp(type, "null") == 0) return ash_buf_adds(o, "\"null\" "), ASH_OK;
    if (!*type) return any_value(s, o, "value "), ASH_OK;
    return ash_sc_fail(s, ASH_E_FORMAT, "there is no type \"%.40s\"", type);
}

static ash_status build_here(schema *s, const json_t *j, const char *path, ash_buf *o) {
    const char *key;
    json_t *v;
    size_t i;
    if (json_is_true(j)) return any_value(s, o, "value "), ASH_OK;
    if (json_is_false(j)) return ash_sc_fail(s, ASH_E_UNSUPPORTED, "false lets nothing through");
    if (!json_is_object(j)) return ash_sc_fail(s, ASH_E_FORMAT, "a schema is neither an object nor true");
    json_object_foreach((json_t *)(uintptr_t)j, key, v) if (!one_of(key, annotations) && !one_of(key, known_keys))
        ASH_TRY(ash_sc_ignore(s, key, "is not supported"));
    const char *ref = json_string_value(json_object_get(j, "$ref"));
    const json_t *all = json_object_get(j, "allOf");
    bool beside = false;
    json_object_foreach((json_t *)(uintptr_t)j, key, v) beside = beside || (one_of(key, known_keys) && strcmp(key, "$ref") != 0);
    if (ref && !beside) return reference(s, ref, o);
    if (ref || all) { /* everything into one schema */
        json_t *base = keep(s, json_object()), *merged;
        if (!base) return ash_fail(s->err, ASH_E_NOMEM, "out of memory for a schema");
        ASH_TRY(merge(s, base, j, 0, &merged));
        return build(s, merged, path, o);
    }
    if ((v = json_object_get(j, "const"))) return constant(s, v, o);
    if ((v = json_object_get(j, "enum"))) {
        json_t *x;
        if (!json_is_array(v) || !json_array_size(v)) return ash_sc_fail(s, ASH_E_FORMAT, "enum is no list of values");
        ash_buf_adds(o, "(");
        json_array_foreach(v, i, x) {
            if (i) ash_buf_adds(o, "| ");
            ASH_TRY(constant(s, x, o));
        }
        ash_buf_adds(o, ") ");
        return ASH_OK;
    }
    if (json_object_get(j, "anyOf")) return branches(s, j, "anyOf", path, o);
    if (json_object_get(j, "oneOf")) {
        ASH_TRY(ash_sc_ignore(s, "oneOf", "is read as anyOf: that no second branch fits is not checked"));
        return branches(s, j, "oneOf", path, o);
    }
    v = json_object_get(j, "type");
    bool null_too = json_is_true(json_object_get(j, "nullable"));
    if (null_too) ash_buf_adds(o, "(\"null\" | ");
    if (json_is_array(v)) {
        json_t *t;
        ash_buf_adds(o, "(");
        json_array_foreach(v, i, t) {
            if (i) ash_buf_adds(o, "| ");
            if (!json_is_string(t)) return ash_sc_fail(s, ASH_E_FORMAT, "type holds something else than names");
            ASH_TRY(typed(s, j, json_string_value(t), path, o));
        }
        if (!i) return ash_sc_fail(s, ASH_E_FORMAT, "type is an empty list");
        ash_buf_adds(o, ") ");
    } else
        ASH_TRY(typed(s, j, json_is_string(v) ? json_string_value(v) : implied_type(j), path, o));
    if (null_too) ash_buf_adds(o, ") ");
    return ASH_OK;
}

static ash_status build(schema *s, const json_t *j, const char *path, ash_buf *o) {
    const char *outer = s->path;
    s->path = path;
    if (++s->depth > SC_MAX_DEPTH) return ash_sc_fail(s, ASH_E_LIMIT, "nested deeper than %d", SC_MAX_DEPTH);
    if (o->n > SC_MAX_TEXT || json_array_size(s->own) > 100000)
        return ash_sc_fail(s, ASH_E_LIMIT, "its grammar is longer than %d MiB", SC_MAX_TEXT >> 20);
    ASH_TRY(build_here(s, j, path, o));
    s->depth--;
    s->path = outer;
    return ASH_OK;
}

/* ---- public ---- */
ash_status ash_schema_to_gbnf(const char *text, size_t n, bool strict, char **gbnf, char **ignored, ash_error *err) {
    *gbnf = NULL;
    if (ignored) *ignored = NULL;
    json_error_t e;
    if (n > SC_MAX_TEXT) return ash_fail(err, ASH_E_LIMIT, "a schema of %zu bytes is over the limit of %d", n, SC_MAX_TEXT);
    json_t *root = json_loadb(text, n, JSON_DECODE_ANY, &e);
    if (!root)
        return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)ASH_MAX(e.position, 0), "the schema is not JSON: line %d: %s", e.line, e.text);
    schema s = {.root = root, .refs = json_object(), .own = json_array(), .path = "", .strict = strict, .err = err};
    ash_buf o = {0};
    ash_status st = s.refs && s.own ? build(&s, root, "", &o) : ASH_E_NOMEM;
    ash_buf_adds(&s.ignored, "");
    if (st == ASH_OK && !o.oom) {
        ash_buf_addf(&s.rules, "root ::= ");
        ash_buf_add(&s.rules, o.p, o.n);
        ash_buf_addc(&s.rules, '\n');
    }
    if ((st == ASH_OK && (o.oom || s.rules.oom || s.ignored.oom)) || st == ASH_E_NOMEM)
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for a schema");
    if (st == ASH_OK) {
        *gbnf = s.rules.p;
        s.rules.p = NULL;
        if (ignored) {
            *ignored = s.ignored.p;
            s.ignored.p = NULL;
        }
    }
    ash_buf_free(&o);
    ash_buf_free(&s.rules);
    ash_buf_free(&s.ignored);
    json_decref(s.refs);
    json_decref(s.own);
    json_decref(root);
    return st;
}

ash_status ash_grammar_schema(ash_grammar **g, const char *text, size_t n, bool strict, char **ignored, ash_error *err) {
    char *gbnf;
    *g = NULL;
    ASH_TRY(ash_schema_to_gbnf(text, n, strict, &gbnf, ignored, err));
    ash_status st = ash_grammar_gbnf(g, gbnf, strlen(gbnf), NULL, err);
    ash_text_free(gbnf);
    if (st != ASH_OK) {
        if (ignored) {
            ash_text_free(*ignored);
            *ignored = NULL;
        }
        return ash_error_prefix(err, "schema: ");
    }
    return ASH_OK;
}
