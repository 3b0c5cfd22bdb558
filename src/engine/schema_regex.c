/* schema_regex.c - `pattern`: the common part of regular expressions as GBNF for the inside of a JSON string. Every
 * single-character item becomes a set of code points, written as JSON spells them: raw where it may, escaped where it
 * must. Literals, classes, ., \d \w \s and their opposites, groups, |, * + ? {m,n}, ^ at the beginning and $ at the
 * end; without them text may stand before and after. Look-around, back references and \b are refused. */
#include "engine/schema_int.h"

typedef struct {
    uint32_t lo, hi;
} span;
typedef struct {
    span v[128];
    int n;
} set;
typedef struct {
    schema *s;
    const char *p, *end;
    ash_buf *o;
    int depth;
} regex;

static void add(set *a, uint32_t lo, uint32_t hi) {
    if (a->n < 128) a->v[a->n++] = (span){lo, hi};
}

/* Sorted and apart. */
static void tidy(set *a) {
    for (int i = 1; i < a->n; i++)
        for (int j = i; j > 0 && a->v[j].lo < a->v[j - 1].lo; j--) {
            span t = a->v[j];
            a->v[j] = a->v[j - 1];
            a->v[j - 1] = t;
        }
    int m = 0;
    for (int i = 0; i < a->n; i++) {
        if (m && a->v[i].lo <= a->v[m - 1].hi + 1)
            a->v[m - 1].hi = ASH_MAX(a->v[m - 1].hi, a->v[i].hi);
        else
            a->v[m++] = a->v[i];
    }
    a->n = m;
}

static void invert(set *a) {
    set r = {.n = 0};
    uint32_t from = 0;
    tidy(a);
    for (int i = 0; i < a->n; i++) {
        if (a->v[i].lo > from) add(&r, from, a->v[i].lo - 1);
        from = a->v[i].hi + 1;
    }
    if (from <= 0x10ffff) add(&r, from, 0x10ffff);
    *a = r;
}

static bool has(const set *a, uint32_t c) {
    for (int i = 0; i < a->n; i++)
        if (c >= a->v[i].lo && c <= a->v[i].hi) return true;
    return false;
}

/* One character of the set as JSON text: raw in a class; quote, backslash and control characters as escapes. */
static void put_set(regex *x, set *a) {
    static const struct {
        uint32_t c;
        char e;
    } esc[] = {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};
    ash_buf *o = x->o;
    bool any = false;
    tidy(a);
    ash_buf_adds(o, "(");
    set raw = {.n = 0};
    for (int i = 0; i < a->n; i++) { /* without 0-1f, quote and backslash */
        uint32_t lo = ASH_MAX(a->v[i].lo, 0x20), hi = a->v[i].hi;
        static const uint32_t cut[] = {'"', '\\'};
        for (int k = 0; k < 2 && lo <= hi; k++)
            if (cut[k] >= lo && cut[k] <= hi) {
                if (cut[k] > lo) add(&raw, lo, cut[k] - 1);
                lo = cut[k] + 1;
            }
        if (lo <= hi) add(&raw, lo, hi);
    }
    for (int i = 0; i < raw.n; i++) { /* surrogates are no characters and could not be read back */
        uint32_t lo = raw.v[i].lo, hi = raw.v[i].hi;
        if (lo >= 0xd800 && lo < 0xe000) lo = 0xe000;
        if (hi >= 0xd800 && hi < 0xe000) hi = 0xd7ff;
        if (lo > hi) continue;
        ash_buf_adds(o, any ? "" : "[");
        any = true;
        ash_buf_addf(o, "\\U%08X", lo);
        if (hi > lo) ash_buf_addf(o, "-\\U%08X", hi);
    }
    if (any) ash_buf_adds(o, "]");
    for (size_t i = 0; i < ASH_ARRAY_LEN(esc); i++)
        if (has(a, esc[i].c)) {
            ash_buf_addf(o, any ? " | \"\\\\%s\"" : "\"\\\\%s\"",
                         esc[i].e == '"'    ? "\\\""
                         : esc[i].e == '\\' ? "\\\\"
                                            : (char[]){esc[i].e, 0});
            any = true;
        }
    if (!any) ash_buf_adds(o, "[]");
    ash_buf_adds(o, ") ");
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* After a backslash: a class (true) or one character (false, in *c). */
static ash_status escape(regex *x, set *a, uint32_t *c, bool *class) {
    if (x->p >= x->end) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: ends in a backslash");
    char e = *x->p++;
    set k = {.n = 0};
    *class = true;
    switch (e) {
    case 'd':
    case 'D': add(&k, '0', '9'); break;
    case 'w':
    case 'W': add(&k, '0', '9'), add(&k, 'A', 'Z'), add(&k, '_', '_'), add(&k, 'a', 'z'); break;
    case 's':
    case 'S': add(&k, 9, 13), add(&k, ' ', ' '); break;
    default: *class = false;
    }
    if (*class) {
        if (e < 'a') invert(&k);
        for (int i = 0; i < k.n; i++) add(a, k.v[i].lo, k.v[i].hi);
        return ASH_OK;
    }
    switch (e) {
    case 'n': *c = '\n'; return ASH_OK;
    case 't': *c = '\t'; return ASH_OK;
    case 'r': *c = '\r'; return ASH_OK;
    case 'f': *c = '\f'; return ASH_OK;
    case 'v': *c = '\v'; return ASH_OK;
    case 'x':
    case 'u': {
        int n = e == 'x' ? 2 : 4;
        *c = 0;
        for (int i = 0; i < n; i++) {
            int h = x->p < x->end ? hex(*x->p++) : -1;
            if (h < 0) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: bad \\%c escape", e);
            *c = *c << 4 | (uint32_t)h;
        }
        return ASH_OK;
    }
    default:
        if ((e >= '0' && e <= '9') || (e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z'))
            return ash_sc_fail(x->s, ASH_E_UNSUPPORTED, "pattern: \\%c is not supported", e);
        *c = (unsigned char)e;
        return ASH_OK;
    }
}

static uint32_t utf8(regex *x) { /* the pattern came out of a JSON parser: it is UTF-8 */
    unsigned char c = (unsigned char)*x->p++;
    int n = c < 0xc0 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    uint32_t v = n ? c & (0x3fu >> n) : c;
    for (; n && x->p < x->end; n--) v = v << 6 | ((unsigned char)*x->p++ & 0x3f);
    return v;
}

static ash_status class(regex *x) {
    set a = {.n = 0};
    bool not = x->p < x->end && *x->p == '^';
    x->p += not ;
    for (bool first = true;; first = false) {
        if (x->p >= x->end) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: [ is not closed");
        if (*x->p == ']' && !first) break;
        if (*x->p == ']') break; /* ECMA-262: [] is empty */
        uint32_t lo, hi;
        bool cls = false;
        if (*x->p == '\\') {
            x->p++;
            ASH_TRY(escape(x, &a, &lo, &cls));
            if (!cls && lo == 'b') lo = '\b';
        } else
            lo = utf8(x);
        if (cls) continue;
        hi = lo;
        if (x->end - x->p > 1 && *x->p == '-' && x->p[1] != ']') {
            x->p++;
            if (*x->p == '\\') {
                x->p++;
                ASH_TRY(escape(x, &a, &hi, &cls));
                if (cls) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: a range ends in a class");
            } else
                hi = utf8(x);
            if (hi < lo) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: a range runs backwards");
        }
        if (a.n >= 100) return ash_sc_fail(x->s, ASH_E_LIMIT, "pattern: a class of more than 100 parts");
        add(&a, lo, hi);
    }
    x->p++;
    if (not ) invert(&a);
    put_set(x, &a);
    return ASH_OK;
}

static ash_status alternatives(regex *x);

static ash_status item(regex *x) {
    char c = *x->p;
    set a = {.n = 0};
    if (c == '(') {
        x->p++;
        if (x->p < x->end && *x->p == '?') {
            if (x->end - x->p < 2 || x->p[1] != ':')
                return ash_sc_fail(x->s, ASH_E_UNSUPPORTED, "pattern: (?%c is not supported", x->end - x->p < 2 ? ' ' : x->p[1]);
            x->p += 2;
        }
        if (++x->depth > SC_MAX_DEPTH) return ash_sc_fail(x->s, ASH_E_LIMIT, "pattern: nested deeper than %d", SC_MAX_DEPTH);
        ash_buf_adds(x->o, "(");
        ASH_TRY(alternatives(x));
        ash_buf_adds(x->o, ") ");
        x->depth--;
        if (x->p >= x->end || *x->p != ')') return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: ( is not closed");
        x->p++;
        return ASH_OK;
    }
    if (c == '[') return x->p++, class(x);
    if (c == '*' || c == '+' || c == '?' || c == '{') return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: nothing to repeat");
    if (c == '^' || c == '$') return ash_sc_fail(x->s, ASH_E_UNSUPPORTED, "pattern: %c is supported at its end only", c);
    if (c == '.') {
        x->p++;
        add(&a, '\n', '\n');
        add(&a, '\r', '\r');
        invert(&a);
    } else if (c == '\\') {
        uint32_t one;
        bool cls;
        x->p++;
        ASH_TRY(escape(x, &a, &one, &cls));
        if (!cls) add(&a, one, one);
    } else {
        uint32_t one = utf8(x);
        add(&a, one, one);
    }
    put_set(x, &a);
    return ASH_OK;
}

static ash_status repeated(regex *x) {
    while (x->p < x->end) {
        char c = *x->p;
        if (c == '*' || c == '+' || c == '?') {
            ash_buf_addf(x->o, "%c ", c);
            x->p++;
        } else if (c == '{') {
            const char *e = memchr(x->p, '}', (size_t)(x->end - x->p)), *q = x->p + 1;
            if (!e || e - x->p > 16) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: bad {m,n}");
            uint64_t low = 0, high = 0; /* at most 15 digits */
            const char *digits = q;
            while (q < e && *q >= '0' && *q <= '9') low = low * 10 + (uint64_t)(*q++ - '0');
            if (q == digits) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: bad {m,n}");
            if (q < e && *q == ',') {
                digits = ++q;
                while (q < e && *q >= '0' && *q <= '9') high = high * 10 + (uint64_t)(*q++ - '0');
                if (q > digits && high < low) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: {m,n} with n below m");
            }
            if (q != e) return ash_sc_fail(x->s, ASH_E_FORMAT, "pattern: bad {m,n}");
            ash_buf_add(x->o, x->p, (size_t)(e + 1 - x->p));
            ash_buf_addc(x->o, ' ');
            x->p = e + 1;
        } else
            return ASH_OK;
        if (x->p < x->end && *x->p == '?') x->p++; /* lazy: the same language */
        break;
    }
    return ASH_OK;
}

static ash_status alternatives(regex *x) {
    for (;;) {
        while (x->p < x->end && *x->p != '|' && *x->p != ')') {
            if (*x->p == '$' && x->p + 1 == x->end && x->depth == 0) break;
            ASH_TRY(item(x));
            ASH_TRY(repeated(x));
        }
        if (x->p >= x->end || *x->p != '|') return ASH_OK;
        ash_buf_adds(x->o, "| ");
        x->p++;
    }
}

ash_status ash_sc_pattern(schema *s, const char *re, size_t n, ash_buf *out) {
    regex x = {.s = s, .p = re, .end = re + n, .o = out};
    bool begin = n && re[0] == '^';
    x.p += begin;
    if (!begin) {
        ash_sc_chars(s);
        ash_buf_adds(out, "char* ");
    }
    ash_buf_adds(out, "(");
    ASH_TRY(alternatives(&x));
    ash_buf_adds(out, ") ");
    bool end = x.p < x.end && *x.p == '$';
    if (x.p + end != x.end) return ash_sc_fail(s, ASH_E_FORMAT, "pattern: unexpected \"%c\"", *x.p);
    /* ^a|b$ binds each sign to one branch only */
    for (const char *q = re, *e = re + n; q < e && (begin || end); q++) {
        if (*q == '\\')
            q++;
        else if (*q == '[') {
            while (q < e && *q != ']') q += *q == '\\' ? 2 : 1;
        } else if (*q == '(') {
            int depth = 1;
            for (q++; q < e && depth; q++) depth += *q == '(' ? 1 : *q == ')' ? -1 : 0, q += *q == '\\';
            q--;
        } else if (*q == '|')
            return ash_sc_fail(s, ASH_E_UNSUPPORTED, "pattern: ^ or $ beside | is not supported; put the branches into a group");
    }
    if (!end) {
        ash_sc_chars(s);
        ash_buf_adds(out, "char* ");
    }
    return ASH_OK;
}
