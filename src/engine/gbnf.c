/* gbnf.c - the text of a grammar to a tree. The notation is llama.cpp's, after its public description
 * (grammars/README.md): name ::= "text" [classes] . (groups) | * + ? {m,n}, comments from # to the line's end. A rule
 * ends with its line, but goes on after | and inside parentheses; also when the next line begins with |. */
#include "engine/grammar_int.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    gx_tree *t;
    const char *p, *end;
    uint32_t line;
    int depth;
    ash_status st;
    ash_error *err;
} parser;

static gx *alternatives(parser *x);

static void *fail(parser *x, ash_status st, const char *fmt, ...) ASH_PRINTF(3, 4);
static void *fail(parser *x, ash_status st, const char *fmt, ...) {
    if (x->st != ASH_OK) return NULL;
    char msg[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    x->st = ash_fail(x->err, st, "grammar line %u: %s", x->line, msg);
    return NULL;
}
static void *take(parser *x, size_t n) {
    void *p = ash_arena_alloc(&x->t->arena, n);
    if (!p && x->st == ASH_OK) x->st = ash_fail(x->err, ASH_E_NOMEM, "out of memory for a grammar");
    return p;
}
static gx *node(parser *x, gx_kind kind) {
    gx *n = x->st == ASH_OK ? take(x, sizeof *n) : NULL;
    if (n) *n = (gx){.kind = (uint8_t)kind, .line = x->line};
    return n;
}

static bool name_char(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

/* Blanks and comments; line ends too if `lines`. */
static void skip(parser *x, bool lines) {
    while (x->p < x->end) {
        char c = *x->p;
        if (c == '#') {
            while (x->p < x->end && *x->p != '\n' && *x->p != '\r') x->p++;
        } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
            x->line += c == '\n';
            x->p++;
        } else
            break;
    }
}
static bool is(const parser *x, char c) { return x->p < x->end && *x->p == c; }

/* ---- names ---- */
static uint32_t slot_of(const gx_tree *t, ash_str name) {
    uint32_t i = (uint32_t)ash_hash64(name.p, name.n) & (t->n_slot - 1);
    while (t->slot[i] && !(t->rule[t->slot[i] - 1].name.n == name.n && memcmp(t->rule[t->slot[i] - 1].name.p, name.p, name.n) == 0))
        i = (i + 1) & (t->n_slot - 1);
    return i;
}
int64_t ash_gbnf_find(const gx_tree *t, ash_str name) { return t->n_slot ? (int64_t)t->slot[slot_of(t, name)] - 1 : -1; }

static int64_t rule_id(parser *x, ash_str name) {
    gx_tree *t = x->t;
    if (!t->n_slot) {
        t->n_slot = 65536; /* more than twice GR_MAX_RULES */
        if (!(t->slot = take(x, t->n_slot * sizeof *t->slot))) return t->n_slot = 0, -1;
        memset(t->slot, 0, t->n_slot * sizeof *t->slot);
    }
    uint32_t i = slot_of(t, name);
    if (t->slot[i]) return t->slot[i] - 1;
    if (t->n == GR_MAX_RULES) return fail(x, ASH_E_LIMIT, "more than %d rules", GR_MAX_RULES), -1;
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        gx_rule *r = take(x, cap * sizeof *r);
        if (!r) return -1;
        if (t->n) memcpy(r, t->rule, t->n * sizeof *r);
        t->rule = r;
        t->cap = cap;
    }
    t->rule[t->n] = (gx_rule){.name = name, .line = x->line};
    t->slot[i] = ++t->n;
    return t->n - 1;
}

/* ---- characters ---- */
static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* The character at x->p, escapes read. */
static bool character(parser *x, uint32_t *cp) {
    if (x->p >= x->end) return fail(x, ASH_E_FORMAT, "the grammar ends inside a literal"), false;
    unsigned char c = (unsigned char)*x->p;
    if (c != '\\') {
        int len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (!len || x->end - x->p < len) return fail(x, ASH_E_FORMAT, "not UTF-8"), false;
        *cp = len == 1 ? c : c & (0xffu >> (len + 1));
        for (int i = 1; i < len; i++) {
            if (((unsigned char)x->p[i] & 0xc0) != 0x80) return fail(x, ASH_E_FORMAT, "not UTF-8"), false;
            *cp = *cp << 6 | ((unsigned char)x->p[i] & 0x3f);
        }
        if (c == '\n') x->line++;
        x->p += len;
        return true;
    }
    if (x->end - x->p < 2) return fail(x, ASH_E_FORMAT, "the grammar ends in a backslash"), false;
    char e = x->p[1];
    x->p += 2;
    int n = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    switch (e) {
    case 'n': *cp = '\n'; return true;
    case 'r': *cp = '\r'; return true;
    case 't': *cp = '\t'; return true;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
    case '/': *cp = (uint32_t)e; return true;
    case 'x':
    case 'u':
    case 'U': break;
    default: return fail(x, ASH_E_FORMAT, "unknown escape \\%c", e >= 32 && e < 127 ? e : '?'), false;
    }
    *cp = 0;
    if (x->end - x->p < n) return fail(x, ASH_E_FORMAT, "an escape is cut off"), false;
    for (int i = 0; i < n; i++) {
        int h = hex(*x->p++);
        if (h < 0 || *cp > 0xfffffff) return fail(x, ASH_E_FORMAT, "bad \\%c escape", e), false;
        *cp = *cp << 4 | (uint32_t)h;
    }
    if (*cp > 0x10ffff || (*cp >= 0xd800 && *cp < 0xe000)) return fail(x, ASH_E_FORMAT, "\\%c%X is no character", e, *cp), false;
    return true;
}

static gx *literal(parser *x) {
    const char *start = ++x->p, *e = start;
    while (e < x->end && *e != '"') e += *e == '\\' && x->end - e > 1 ? 2 : 1;
    gx *n = node(x, GX_BYTES);
    char *o = n ? take(x, (size_t)(e - start) + 1) : NULL; /* unescaped text is never longer */
    size_t len = 0;
    if (!o) return NULL;
    while (x->st == ASH_OK && !is(x, '"')) {
        uint32_t cp;
        if (!character(x, &cp)) return NULL;
        len += ash_utf8_put(cp, o + len);
    }
    x->p++;
    n->bytes = (ash_str){o, len};
    return n;
}

static int by_lo(const void *a, const void *b) {
    const gx_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

static gx *class(parser *x) {
    gx_range *r = NULL;
    uint32_t n = 0, cap = 0;
    x->p++;
    bool not = is(x, '^');
    x->p += not ;
    while (x->st == ASH_OK && !is(x, ']')) {
        uint32_t lo, hi;
        if (!character(x, &lo)) return NULL;
        hi = lo;
        if (is(x, '-') && x->end - x->p > 1 && x->p[1] != ']') {
            x->p++;
            if (!character(x, &hi)) return NULL;
            if (hi < lo) return fail(x, ASH_E_FORMAT, "a range runs backwards");
        }
        if (n == cap) {
            gx_range *q = take(x, (cap = cap ? cap * 2 : 8) * sizeof *q);
            if (!q) return NULL;
            if (n) memcpy(q, r, n * sizeof *q);
            r = q;
        }
        r[n++] = (gx_range){lo, hi};
    }
    if (x->st != ASH_OK) return NULL;
    x->p++;
    uint32_t m = 0;
    if (n) qsort(r, n, sizeof *r, by_lo);
    for (uint32_t i = 0; i < n; i++) { /* overlapping and touching ones become one */
        if (m && r[i].lo <= r[m - 1].hi + 1)
            r[m - 1].hi = ASH_MAX(r[m - 1].hi, r[i].hi);
        else
            r[m++] = r[i];
    }
    gx *g = node(x, GX_SET);
    if (!g) return NULL;
    g->set = r;
    g->n_set = m;
    if (!not ) return g;
    gx_range *c = take(x, (m + 1) * sizeof *c);
    uint32_t k = 0, from = 0;
    if (!c) return NULL;
    for (uint32_t i = 0; i < m; i++) {
        if (r[i].lo > from) c[k++] = (gx_range){from, r[i].lo - 1};
        from = r[i].hi + 1;
    }
    if (from <= 0x10ffff) c[k++] = (gx_range){from, 0x10ffff};
    g->set = c;
    g->n_set = k;
    return g;
}

/* ---- structure ---- */
static bool number(parser *x, uint32_t *out) {
    uint64_t v = 0;
    const char *s = x->p;
    for (; x->p < x->end && *x->p >= '0' && *x->p <= '9'; x->p++)
        if ((v = v * 10 + (uint64_t)(*x->p - '0')) > GR_MAX_REPEAT)
            return fail(x, ASH_E_LIMIT, "repeated more than %d times", GR_MAX_REPEAT), false;
    *out = (uint32_t)v;
    return x->p > s;
}

/* * + ? {m} {m,} {,n} {m,n} after an item, any number of them. */
static gx *repeated(parser *x, gx *a, bool group) {
    int n = 0;
    while (a && x->st == ASH_OK) {
        uint32_t min = 0, max = GR_INF;
        skip(x, group);
        if (is(x, '*'))
            x->p++;
        else if (is(x, '+'))
            min = 1, x->p++;
        else if (is(x, '?'))
            max = 1, x->p++;
        else if (is(x, '{')) {
            x->p++;
            skip(x, true);
            bool has = number(x, &min);
            skip(x, true);
            if (is(x, ',')) {
                x->p++;
                skip(x, true);
                if (!number(x, &max)) max = GR_INF;
            } else if (has)
                max = min;
            skip(x, true);
            if (x->st != ASH_OK) return NULL;
            if (!is(x, '}')) return fail(x, ASH_E_FORMAT, "expected {m}, {m,} or {m,n}");
            x->p++;
            if (max < min) return fail(x, ASH_E_FORMAT, "{%u,%u}: the least is over the most", min, max);
        } else
            return a;
        if (++n > GR_MAX_DEPTH) return fail(x, ASH_E_LIMIT, "nested deeper than %d", GR_MAX_DEPTH);
        gx *r = node(x, GX_REP);
        if (!r) return NULL;
        r->kid = a;
        r->min = min;
        r->max = max;
        a = r;
    }
    return a;
}

static gx *item(parser *x) {
    char c = *x->p;
    if (c == '"') return literal(x);
    if (c == '[') return class(x);
    if (c == '.') {
        gx *n = node(x, GX_SET);
        gx_range *r = n ? take(x, sizeof *r) : NULL;
        if (!r) return NULL;
        x->p++;
        *r = (gx_range){0, 0x10ffff};
        n->set = r;
        n->n_set = 1;
        return n;
    }
    if (c == '(') {
        if (++x->depth > GR_MAX_DEPTH) return fail(x, ASH_E_LIMIT, "nested deeper than %d", GR_MAX_DEPTH);
        x->p++;
        gx *a = alternatives(x);
        skip(x, true);
        if (x->st == ASH_OK && !is(x, ')')) return fail(x, ASH_E_FORMAT, "a parenthesis is not closed");
        x->p++;
        x->depth--;
        return a;
    }
    if (c == '<') return fail(x, ASH_E_UNSUPPORTED, "tokens in angle brackets are not supported");
    const char *s = x->p;
    while (x->p < x->end && name_char(*x->p)) x->p++;
    if (x->p == s) return fail(x, ASH_E_FORMAT, "unexpected character \"%c\"", c >= 32 && c < 127 ? c : '?');
    gx *n = node(x, GX_REF);
    int64_t id = n ? rule_id(x, (ash_str){s, (size_t)(x->p - s)}) : -1;
    if (id < 0) return NULL;
    n->rule = (uint32_t)id;
    return n;
}

static gx *sequence(parser *x) {
    gx *n = node(x, GX_SEQ);
    gx **tail = n ? &n->kid : NULL;
    bool group = x->depth > 0;
    while (x->st == ASH_OK) {
        skip(x, group);
        if (x->p >= x->end || *x->p == '|' || *x->p == ')' || *x->p == '\n' || *x->p == '\r') break;
        gx *a = repeated(x, item(x), group);
        if (!a) return NULL;
        if (a->next) return fail(x, ASH_E_INTERNAL, "an item is in two places");
        *tail = a;
        tail = &a->next;
    }
    return x->st == ASH_OK ? n : NULL;
}

static gx *alternatives(parser *x) {
    gx *n = node(x, GX_ALT);
    gx **tail = n ? &n->kid : NULL;
    while (x->st == ASH_OK) {
        if (!(*tail = sequence(x))) return NULL;
        tail = &(*tail)->next;
        skip(x, x->depth > 0);
        if (!is(x, '|')) { /* the next line may begin with one */
            const char *p = x->p;
            uint32_t line = x->line;
            skip(x, true);
            if (!is(x, '|')) {
                x->p = p;
                x->line = line;
                break;
            }
        }
        x->p++;
        skip(x, true);
    }
    return x->st == ASH_OK ? n : NULL;
}

ash_status ash_gbnf_parse(gx_tree *t, const char *src, size_t n, ash_error *err) {
    *t = (gx_tree){0};
    parser x = {.t = t, .p = src, .end = src + n, .line = 1, .err = err};
    if (n > GR_MAX_SOURCE) return ash_fail(err, ASH_E_LIMIT, "a grammar of %zu bytes is over the limit of %d", n, GR_MAX_SOURCE);
    for (;;) {
        skip(&x, true);
        if (x.p >= x.end) break;
        const char *s = x.p;
        while (x.p < x.end && name_char(*x.p)) x.p++;
        ash_str name = {s, (size_t)(x.p - s)};
        skip(&x, false);
        if (!name.n || x.end - x.p < 3 || memcmp(x.p, "::=", 3) != 0) {
            fail(&x, ASH_E_FORMAT, "expected a rule: name ::= ...");
            break;
        }
        x.p += 3;
        int64_t id = rule_id(&x, name);
        if (id < 0) break;
        if (t->rule[id].body) {
            fail(&x, ASH_E_FORMAT, "the rule %.*s is there twice", (int)ASH_MIN(name.n, (size_t)60), name.p);
            break;
        }
        t->rule[id].line = x.line;
        skip(&x, true);
        gx *b = alternatives(&x);
        if (!b) break;
        t->rule[id].body = b;
        skip(&x, false);
        if (x.p < x.end && *x.p != '\n' && *x.p != '\r') {
            fail(&x, ASH_E_FORMAT, "unexpected \"%c\"", *x.p >= 32 && *x.p < 127 ? *x.p : '?');
            break;
        }
    }
    if (x.st == ASH_OK && !t->n) fail(&x, ASH_E_FORMAT, "the grammar has no rules");
    for (uint32_t i = 0; i < t->n && x.st == ASH_OK; i++)
        if (!t->rule[i].body) {
            x.line = t->rule[i].line;
            fail(&x, ASH_E_FORMAT, "the rule %.*s is used and not defined", (int)ASH_MIN(t->rule[i].name.n, (size_t)60), t->rule[i].name.p);
        }
    return x.st;
}

void ash_gbnf_free(gx_tree *t) { ash_arena_free(&t->arena); }
