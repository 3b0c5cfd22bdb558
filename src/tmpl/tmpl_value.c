/* tmpl_value.c - what can be done with values: truth, comparison, arithmetic, lookup, printing. Python's
 * rules, as far as templates can see them. Strings are UTF-8; positions and lengths count characters. */
#include "tmpl/tmpl_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char *ash_tv_kind_name(const tv *v) {
    static const char *const names[] = {"an undefined value", "none",        "a bool",      "an integer", "a number",  "a string",
                                        "a list",             "a dictionary", "a namespace", "a loop",     "a function", "a macro"};
    return names[v->kind];
}

size_t ash_tmpl_char(const char *s, size_t n, uint32_t *cp) {
    const uint8_t *p = (const uint8_t *)s;
    size_t k = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 1;
    *cp = p[0];
    if (k == 1 || k > n) return 1;
    uint32_t c = p[0] & (0xffu >> (k + 1));
    for (size_t i = 1; i < k; i++) {
        if ((p[i] & 0xc0) != 0x80) return 1; /* broken: one byte at a time */
        c = c << 6 | (p[i] & 0x3f);
    }
    *cp = c;
    return k;
}

static int64_t char_count(ash_str s) {
    int64_t n = 0;
    for (size_t i = 0; i < s.n; n++) {
        uint32_t cp;
        i += ash_tmpl_char(s.p + i, s.n - i, &cp);
    }
    return n;
}

bool ash_tv_true(const tv *v) {
    switch (v->kind) {
    case TV_UNDEF: case TV_NONE: return false;
    case TV_BOOL: return v->u.b;
    case TV_INT: return v->u.i != 0;
    case TV_FLOAT: return v->u.f != 0;
    case TV_STR: return v->u.s.n != 0;
    case TV_LIST: return v->u.l->n != 0;
    case TV_DICT: return v->u.d->n != 0;
    default: return true;
    }
}

static bool number_of(const tv *v, double *f) {
    if (v->kind == TV_BOOL) return *f = v->u.b, true;
    if (v->kind == TV_INT) return *f = (double)v->u.i, true;
    if (v->kind == TV_FLOAT) return *f = v->u.f, true;
    return false;
}
static bool int_of(const tv *v, int64_t *i) {
    if (v->kind == TV_BOOL) return *i = v->u.b, true;
    if (v->kind == TV_INT) return *i = v->u.i, true;
    return false;
}

/* ---- dictionaries ---- */
tv *ash_tv_dict_get(const tv_dict *d, ash_str k) {
    for (size_t i = 0; i < d->n; i++)
        if (str_same(d->k[i], k)) return &d->v[i];
    return NULL;
}

ash_status ash_tv_dict_set(tmpl_ctx *c, tv_dict *d, ash_str k, tv v) {
    tv *old = ash_tv_dict_get(d, k);
    if (old) return *old = v, ASH_OK;
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        ash_str *nk = ash_tmpl_alloc(c, cap * sizeof *nk);
        tv *nv = ash_tmpl_alloc(c, cap * sizeof *nv);
        if (!nk || !nv) return ash_tmpl_nomem(c);
        if (d->n) {
            memcpy(nk, d->k, d->n * sizeof *nk);
            memcpy(nv, d->v, d->n * sizeof *nv);
        }
        d->k = nk;
        d->v = nv;
        d->cap = cap;
    }
    d->k[d->n] = k;
    d->v[d->n++] = v;
    return ASH_OK;
}

/* ---- comparison ---- */
ash_status ash_tv_equal(tmpl_ctx *c, const tv *a, const tv *b, int depth, bool *out) {
    double x, y;
    int64_t i, j;
    *out = false;
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    if (int_of(a, &i) && int_of(b, &j)) return *out = i == j, ASH_OK;
    if (number_of(a, &x) && number_of(b, &y)) return *out = x == y, ASH_OK;
    if (a->kind != b->kind) return ASH_OK;
    switch (a->kind) {
    case TV_UNDEF: case TV_NONE: *out = true; break;
    case TV_STR: *out = str_same(a->u.s, b->u.s); break;
    case TV_LIST:
        if (a->u.l->n != b->u.l->n) break;
        *out = true;
        for (size_t k = 0; *out && k < a->u.l->n; k++) ASH_TRY(ash_tv_equal(c, &a->u.l->v[k], &b->u.l->v[k], depth + 1, out));
        break;
    case TV_DICT:
        if (a->u.d->n != b->u.d->n) break;
        *out = true;
        for (size_t k = 0; *out && k < a->u.d->n; k++) {
            const tv *o = ash_tv_dict_get(b->u.d, a->u.d->k[k]);
            if (!o) *out = false;
            else ASH_TRY(ash_tv_equal(c, &a->u.d->v[k], o, depth + 1, out));
        }
        break;
    case TV_NS: *out = a->u.d == b->u.d; break;
    case TV_LOOP: *out = a->u.loop == b->u.loop; break;
    case TV_FUNC: *out = a->u.func == b->u.func; break;
    case TV_MACRO: *out = a->u.macro == b->u.macro; break;
    default: break;
    }
    return ASH_OK;
}

ash_status ash_tv_less(tmpl_ctx *c, const tv *a, const tv *b, bool *out) {
    double x, y;
    int64_t i, j;
    if (int_of(a, &i) && int_of(b, &j)) return *out = i < j, ASH_OK;
    if (number_of(a, &x) && number_of(b, &y)) return *out = x < y, ASH_OK;
    if (a->kind == TV_STR && b->kind == TV_STR) { /* UTF-8 keeps the order of code points */
        int r = memcmp(a->u.s.p, b->u.s.p, ASH_MIN(a->u.s.n, b->u.s.n));
        *out = r < 0 || (r == 0 && a->u.s.n < b->u.s.n);
        return ASH_OK;
    }
    return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot order %s and %s", ash_tv_kind_name(a), ash_tv_kind_name(b));
}

ash_status ash_tv_contains(tmpl_ctx *c, const tv *in, const tv *x, bool *out) {
    *out = false;
    switch (in->kind) {
    case TV_UNDEF: return ASH_OK;
    case TV_STR:
        if (x->kind != TV_STR) return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot look for %s in a string", ash_tv_kind_name(x));
        *out = x->u.s.n == 0 || memmem(in->u.s.p, in->u.s.n, x->u.s.p, x->u.s.n) != NULL;
        return ASH_OK;
    case TV_LIST:
        for (size_t i = 0; !*out && i < in->u.l->n; i++) ASH_TRY(ash_tv_equal(c, &in->u.l->v[i], x, 0, out));
        return ASH_OK;
    case TV_DICT: *out = x->kind == TV_STR && ash_tv_dict_get(in->u.d, x->u.s); return ASH_OK;
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot look into %s", ash_tv_kind_name(in));
    }
}

/* ---- printing ---- */
/* Shortest text that reads back as the same double, as Python prints it. */
static void print_float(ash_buf *b, double f) {
    char t[40];
    if (isnan(f)) return ash_buf_adds(b, "nan");
    if (isinf(f)) return ash_buf_adds(b, f < 0 ? "-inf" : "inf");
    for (int p = 1; p <= 17; p++) {
        snprintf(t, sizeof t, "%.*g", p, f);
        if (strtod(t, NULL) == f) break;
    }
    double a = fabs(f);
    if (strchr(t, 'e') && a >= 1e-4 && a < 1e16) snprintf(t, sizeof t, "%.1f", f); /* Python switches to exponents later */
    ash_buf_adds(b, t);
    if (!strpbrk(t, ".e")) ash_buf_adds(b, ".0");
}

static void print_repr(ash_buf *b, ash_str s) {
    char q = memchr(s.p, '\'', s.n) && !memchr(s.p, '"', s.n) ? '"' : '\'';
    ash_buf_addc(b, q);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if (ch == '\\' || ch == (unsigned char)q) ash_buf_addc(b, '\\'), ash_buf_addc(b, (char)ch);
        else if (ch == '\n') ash_buf_adds(b, "\\n");
        else if (ch == '\t') ash_buf_adds(b, "\\t");
        else if (ch == '\r') ash_buf_adds(b, "\\r");
        else if (ch < 32 || ch == 127) ash_buf_addf(b, "\\x%02x", ch);
        else ash_buf_addc(b, (char)ch);
    }
    ash_buf_addc(b, q);
}

static ash_status room(tmpl_ctx *c, const ash_buf *b) {
    if (b->oom) return ash_tmpl_nomem(c);
    if (b->n > TMPL_MAX_OUTPUT) return ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    return ASH_OK;
}

ash_status ash_tv_print(tmpl_ctx *c, ash_buf *b, const tv *v, bool repr, int depth) {
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    switch (v->kind) {
    case TV_UNDEF: break;
    case TV_NONE: ash_buf_adds(b, "None"); break;
    case TV_BOOL: ash_buf_adds(b, v->u.b ? "True" : "False"); break;
    case TV_INT: ash_buf_addf(b, "%lld", (long long)v->u.i); break;
    case TV_FLOAT: print_float(b, v->u.f); break;
    case TV_STR:
        if (repr) print_repr(b, v->u.s);
        else ash_buf_add(b, v->u.s.p, v->u.s.n);
        break;
    case TV_LIST:
        ash_buf_addc(b, '[');
        for (size_t i = 0; i < v->u.l->n; i++) {
            if (i) ash_buf_adds(b, ", ");
            ASH_TRY(ash_tv_print(c, b, &v->u.l->v[i], true, depth + 1));
        }
        ash_buf_addc(b, ']');
        break;
    case TV_DICT:
        ash_buf_addc(b, '{');
        for (size_t i = 0; i < v->u.d->n; i++) {
            if (i) ash_buf_adds(b, ", ");
            print_repr(b, v->u.d->k[i]);
            ash_buf_adds(b, ": ");
            ASH_TRY(ash_tv_print(c, b, &v->u.d->v[i], true, depth + 1));
        }
        ash_buf_addc(b, '}');
        break;
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot print %s", ash_tv_kind_name(v));
    }
    return room(c, b);
}

static void json_string(ash_buf *b, ash_str s) {
    ash_buf_addc(b, '"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        switch (ch) {
        case '"': ash_buf_adds(b, "\\\""); break;
        case '\\': ash_buf_adds(b, "\\\\"); break;
        case '\n': ash_buf_adds(b, "\\n"); break;
        case '\r': ash_buf_adds(b, "\\r"); break;
        case '\t': ash_buf_adds(b, "\\t"); break;
        case '\b': ash_buf_adds(b, "\\b"); break;
        case '\f': ash_buf_adds(b, "\\f"); break;
        default:
            if (ch < 32) ash_buf_addf(b, "\\u%04x", ch);
            else ash_buf_addc(b, (char)ch);
        }
    }
    ash_buf_addc(b, '"');
}

static void json_break(ash_buf *b, int indent, int depth) {
    if (indent < 0) return;
    ash_buf_addc(b, '\n');
    for (int i = 0; i < indent * depth; i++) ash_buf_addc(b, ' ');
}

ash_status ash_tv_json(tmpl_ctx *c, ash_buf *b, const tv *v, int indent, int depth) {
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    bool dict = v->kind == TV_DICT;
    size_t n = dict ? v->u.d->n : v->kind == TV_LIST ? v->u.l->n : 0;
    switch (v->kind) {
    case TV_NONE: ash_buf_adds(b, "null"); break;
    case TV_BOOL: ash_buf_adds(b, v->u.b ? "true" : "false"); break;
    case TV_INT: ash_buf_addf(b, "%lld", (long long)v->u.i); break;
    case TV_FLOAT: print_float(b, v->u.f); break;
    case TV_STR: json_string(b, v->u.s); break;
    case TV_LIST: case TV_DICT:
        ash_buf_addc(b, dict ? '{' : '[');
        for (size_t i = 0; i < n; i++) {
            if (i) ash_buf_adds(b, indent < 0 ? ", " : ",");
            json_break(b, indent, depth + 1);
            if (dict) {
                json_string(b, v->u.d->k[i]);
                ash_buf_adds(b, ": ");
            }
            ASH_TRY(ash_tv_json(c, b, dict ? &v->u.d->v[i] : &v->u.l->v[i], indent, depth + 1));
        }
        if (n) json_break(b, indent, depth);
        ash_buf_addc(b, dict ? '}' : ']');
        break;
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "%s has no JSON form", ash_tv_kind_name(v));
    }
    return room(c, b);
}

ash_status ash_tv_from_buf(tmpl_ctx *c, ash_buf *b, ash_status st, tv *out) {
    if (st == ASH_OK && !ash_buf_ok(b)) st = ash_tmpl_nomem(c);
    if (st == ASH_OK) {
        char *p = ash_tmpl_alloc(c, b->n + 1);
        if (!p) st = ash_tmpl_nomem(c);
        else {
            if (b->n) memcpy(p, b->p, b->n);
            *out = tv_str(p, b->n);
        }
    }
    ash_buf_free(b);
    return st;
}

ash_status ash_tv_str(tmpl_ctx *c, const tv *v, ash_str *out) {
    if (v->kind == TV_STR) return *out = v->u.s, ASH_OK;
    ash_buf b = {0};
    tv r = tv_str("", 0);
    ASH_TRY(ash_tv_from_buf(c, &b, ash_tv_print(c, &b, v, false, 0), &r));
    *out = r.u.s;
    return ASH_OK;
}

/* ---- operators ---- */
static const char *op_name(tmpl_op op) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "~"};
    return op <= OP_CONCAT ? names[op] : "?";
}

static ash_status join(tmpl_ctx *c, ash_str a, ash_str b, tv *out) {
    char *p = ash_tmpl_alloc(c, a.n + b.n + 1);
    if (!p) return ash_tmpl_nomem(c);
    if (a.n) memcpy(p, a.p, a.n);
    if (b.n) memcpy(p + a.n, b.p, b.n);
    *out = tv_str(p, a.n + b.n);
    return ASH_OK;
}

static ash_status arith_int(tmpl_ctx *c, tmpl_op op, int64_t i, int64_t j, tv *out) {
    int64_t r = 0;
    bool ovf = false;
    switch (op) {
    case OP_ADD: ovf = __builtin_add_overflow(i, j, &r); break;
    case OP_SUB: ovf = __builtin_sub_overflow(i, j, &r); break;
    case OP_MUL: ovf = __builtin_mul_overflow(i, j, &r); break;
    case OP_FLOORDIV: case OP_MOD:
        if (j == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "division by zero");
        if (j == -1) { /* INT64_MIN / -1 traps */
            if (op == OP_MOD) r = 0;
            else ovf = __builtin_sub_overflow((int64_t)0, i, &r);
            break;
        }
        r = i / j;
        if (i % j != 0 && (i < 0) != (j < 0)) r--; /* Python rounds down */
        if (op == OP_MOD) r = i - r * j;
        break;
    default: break;
    }
    if (ovf) return ash_tmpl_fail(c, ASH_E_FORMAT, "a number is too big");
    *out = tv_int(r);
    return ASH_OK;
}

ash_status ash_tv_binary(tmpl_ctx *c, tmpl_op op, const tv *a, const tv *b, tv *out) {
    bool t = false;
    double x, y;
    int64_t i, j;
    switch (op) {
    case OP_EQ: case OP_NE:
        ASH_TRY(ash_tv_equal(c, a, b, 0, &t));
        return *out = tv_bool(t == (op == OP_EQ)), ASH_OK;
    case OP_LT: ASH_TRY(ash_tv_less(c, a, b, &t)); return *out = tv_bool(t), ASH_OK;
    case OP_GT: ASH_TRY(ash_tv_less(c, b, a, &t)); return *out = tv_bool(t), ASH_OK;
    case OP_LE: ASH_TRY(ash_tv_less(c, b, a, &t)); return *out = tv_bool(!t), ASH_OK;
    case OP_GE: ASH_TRY(ash_tv_less(c, a, b, &t)); return *out = tv_bool(!t), ASH_OK;
    case OP_IN: case OP_NOT_IN:
        ASH_TRY(ash_tv_contains(c, b, a, &t));
        return *out = tv_bool(t == (op == OP_IN)), ASH_OK;
    case OP_CONCAT: {
        ash_str s, u;
        ASH_TRY(ash_tv_str(c, a, &s));
        ASH_TRY(ash_tv_str(c, b, &u));
        return join(c, s, u, out);
    }
    default: break;
    }
    if (op == OP_ADD && a->kind == TV_STR && b->kind == TV_STR) return join(c, a->u.s, b->u.s, out);
    if (op == OP_ADD && a->kind == TV_LIST && b->kind == TV_LIST) {
        size_t n = a->u.l->n, m = b->u.l->n;
        tv_list *l = ash_tmpl_alloc(c, sizeof *l);
        tv *v = ash_tmpl_alloc(c, (n + m) * sizeof *v);
        if (!l || !v) return ash_tmpl_nomem(c);
        if (n) memcpy(v, a->u.l->v, n * sizeof *v);
        if (m) memcpy(v + n, b->u.l->v, m * sizeof *v);
        *l = (tv_list){v, n + m};
        *out = (tv){.kind = TV_LIST, .u.l = l};
        return ASH_OK;
    }
    if (op == OP_MUL && a->kind == TV_STR && int_of(b, &j)) {
        size_t n = a->u.s.n;
        if (j <= 0 || n == 0) return *out = tv_str("", 0), ASH_OK;
        if ((uint64_t)j > TMPL_MAX_OUTPUT / n) return ash_tmpl_fail(c, ASH_E_LIMIT, "a repeated string is too long");
        char *p = ash_tmpl_alloc(c, n * (size_t)j);
        if (!p) return ash_tmpl_nomem(c);
        for (int64_t k = 0; k < j; k++) memcpy(p + (size_t)k * n, a->u.s.p, n);
        return *out = tv_str(p, n * (size_t)j), ASH_OK;
    }
    if (op != OP_DIV && int_of(a, &i) && int_of(b, &j)) return arith_int(c, op, i, j, out);
    if (number_of(a, &x) && number_of(b, &y)) {
        double r;
        if (y == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) return ash_tmpl_fail(c, ASH_E_FORMAT, "division by zero");
        switch (op) {
        case OP_ADD: r = x + y; break;
        case OP_SUB: r = x - y; break;
        case OP_MUL: r = x * y; break;
        case OP_DIV: r = x / y; break;
        case OP_FLOORDIV: r = floor(x / y); break;
        default: r = x - floor(x / y) * y;
        }
        *out = (tv){.kind = TV_FLOAT, .u.f = r};
        return ASH_OK;
    }
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF) {
        ash_str n = a->kind == TV_UNDEF ? a->u.s : b->u.s;
        return ash_tmpl_fail(c, ASH_E_FORMAT, "\"%.*s\" is not defined", (int)ASH_MIN(n.n, (size_t)60), n.p);
    }
    return ash_tmpl_fail(c, ASH_E_FORMAT, "%s %s %s does not work", ash_tv_kind_name(a), op_name(op), ash_tv_kind_name(b));
}

/* ---- lookup ---- */
static tv undef(ash_str name) { return (tv){.kind = TV_UNDEF, .u.s = name}; }

/* Byte offset of character i of a string. */
static size_t char_at(ash_str s, int64_t i) {
    size_t at = 0;
    for (; i > 0 && at < s.n; i--) {
        uint32_t cp;
        at += ash_tmpl_char(s.p + at, s.n - at, &cp);
    }
    return at;
}

ash_status ash_tv_item(tmpl_ctx *c, const tv *a, const tv *key, tv *out) {
    int64_t i, n;
    *out = undef(key->kind == TV_STR ? key->u.s : (ash_str){"item", 4});
    switch (a->kind) {
    case TV_UNDEF: return ash_tmpl_fail(c, ASH_E_FORMAT, "\"%.*s\" is not defined", (int)ASH_MIN(a->u.s.n, (size_t)60), a->u.s.p);
    case TV_LIST: case TV_STR:
        if (!int_of(key, &i)) return ASH_OK;
        n = a->kind == TV_LIST ? (int64_t)a->u.l->n : char_count(a->u.s);
        if (i < 0) i += n;
        if (i < 0 || i >= n) return ASH_OK;
        if (a->kind == TV_LIST) *out = a->u.l->v[i];
        else {
            size_t p = char_at(a->u.s, i);
            uint32_t cp;
            *out = tv_str(a->u.s.p + p, ash_tmpl_char(a->u.s.p + p, a->u.s.n - p, &cp));
        }
        return ASH_OK;
    case TV_DICT: case TV_NS:
        if (key->kind == TV_STR) {
            const tv *v = ash_tv_dict_get(a->u.d, key->u.s);
            if (v) *out = *v;
        }
        return ASH_OK;
    case TV_LOOP: return key->kind == TV_STR ? ash_tv_attr(c, a, key->u.s, out) : ASH_OK;
    default: return ASH_OK;
    }
}

ash_status ash_tv_attr(tmpl_ctx *c, const tv *a, ash_str name, tv *out) {
    if (a->kind == TV_LOOP) {
        const tmpl_loop *l = a->u.loop;
        if (str_eq(name, "index")) *out = tv_int(l->i + 1);
        else if (str_eq(name, "index0")) *out = tv_int(l->i);
        else if (str_eq(name, "revindex")) *out = tv_int(l->n - l->i);
        else if (str_eq(name, "revindex0")) *out = tv_int(l->n - l->i - 1);
        else if (str_eq(name, "first")) *out = tv_bool(l->i == 0);
        else if (str_eq(name, "last")) *out = tv_bool(l->i == l->n - 1);
        else if (str_eq(name, "length")) *out = tv_int(l->n);
        else if (str_eq(name, "previtem")) *out = l->i > 0 ? l->items->v[l->i - 1] : undef(name);
        else if (str_eq(name, "nextitem")) *out = l->i + 1 < l->n ? l->items->v[l->i + 1] : undef(name);
        else return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "loop.%.*s is not supported", (int)ASH_MIN(name.n, (size_t)40), name.p);
        return ASH_OK;
    }
    tv key = tv_str(name.p, name.n);
    return ash_tv_item(c, a, &key, out);
}

static ash_status bound(tmpl_ctx *c, const tv *v, int64_t missing, int64_t n, int64_t lo, int64_t hi, int64_t *out) {
    *out = missing;
    if (!v || v->kind == TV_NONE) return ASH_OK;
    if (!int_of(v, out)) return ash_tmpl_fail(c, ASH_E_FORMAT, "a slice needs integers, not %s", ash_tv_kind_name(v));
    if (*out < 0) *out = *out < -n ? -1 : *out + n;
    *out = *out < lo ? lo : *out > hi ? hi : *out;
    return ASH_OK;
}

ash_status ash_tv_slice(tmpl_ctx *c, const tv *a, const tv *from, const tv *to, const tv *step, tv *out) {
    int64_t n, s = 1, b, e;
    if (a->kind == TV_LIST) n = (int64_t)a->u.l->n;
    else if (a->kind == TV_STR) n = char_count(a->u.s);
    else if (a->kind == TV_UNDEF) return ash_tmpl_fail(c, ASH_E_FORMAT, "\"%.*s\" is not defined", (int)ASH_MIN(a->u.s.n, (size_t)60), a->u.s.p);
    else return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot slice %s", ash_tv_kind_name(a));
    if (step && step->kind != TV_NONE && (!int_of(step, &s) || s == 0 || s == INT64_MIN)) return ash_tmpl_fail(c, ASH_E_FORMAT, "bad step of a slice");
    int64_t lo = s > 0 ? 0 : -1, hi = s > 0 ? n : n - 1;
    ASH_TRY(bound(c, from, s > 0 ? 0 : n - 1, n, lo, hi, &b));
    ASH_TRY(bound(c, to, s > 0 ? n : -1, n, lo, hi, &e));
    if (a->kind == TV_STR && s == 1) {
        size_t p = char_at(a->u.s, b), q = e > b ? char_at(a->u.s, e) : p;
        *out = tv_str(a->u.s.p + p, q - p);
        return ASH_OK;
    }
    if (a->kind == TV_STR) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "a step in a string's slice is not supported");
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    tv *v = ash_tmpl_alloc(c, (size_t)n * sizeof *v);
    if (!l || !v) return ash_tmpl_nomem(c);
    size_t m = 0;
    for (int64_t i = b; s > 0 ? i < e : i > e;) {
        v[m++] = a->u.l->v[i];
        if (__builtin_add_overflow(i, s, &i)) break;
    }
    *l = (tv_list){v, m};
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

ash_status ash_tv_items(tmpl_ctx *c, const tv *v, tv_list *out) {
    *out = (tv_list){NULL, 0};
    switch (v->kind) {
    case TV_UNDEF: return ASH_OK;
    case TV_LIST: *out = *v->u.l; return ASH_OK;
    case TV_DICT:
        out->v = ash_tmpl_alloc(c, v->u.d->n * sizeof *out->v);
        if (!out->v) return ash_tmpl_nomem(c);
        for (; out->n < v->u.d->n; out->n++) out->v[out->n] = tv_str(v->u.d->k[out->n].p, v->u.d->k[out->n].n);
        return ASH_OK;
    case TV_STR: {
        ash_str s = v->u.s;
        out->v = ash_tmpl_alloc(c, (size_t)char_count(s) * sizeof *out->v);
        if (!out->v) return ash_tmpl_nomem(c);
        for (size_t i = 0; i < s.n;) {
            uint32_t cp;
            size_t k = ash_tmpl_char(s.p + i, s.n - i, &cp);
            out->v[out->n++] = tv_str(s.p + i, k);
            i += k;
        }
        return ASH_OK;
    }
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot loop over %s", ash_tv_kind_name(v));
    }
}
