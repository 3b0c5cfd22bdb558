/* tmpl_filters.c - the tables: filters, tests, methods of strings and dictionaries, global functions. A new
 * one is a static function and a row. Arguments are checked against the row's least and greatest number
 * before the function runs; keyword arguments are looked up by name with arg(). */
#include "tmpl/tmpl_int.h"

#include <math.h>
#include <utf8proc.h>

/* Argument i by position, or by keyword; NULL if not given. */
static const tv *arg(const tmpl_args *a, int i, const char *name) {
    for (int k = 0; k < a->n; k++)
        if (a->kw[k].n && name && str_eq(a->kw[k], name)) return &a->v[k];
    return i >= 0 && i < a->n && a->kw[i].n == 0 ? &a->v[i] : NULL;
}

static ash_status want_str(tmpl_ctx *c, const tv *v, ash_str *out) {
    *out = (ash_str){"", 0};
    if (v->kind == TV_STR) return *out = v->u.s, ASH_OK;
    if (v->kind == TV_UNDEF) return ash_tmpl_fail(c, ASH_E_FORMAT, "\"%.*s\" is not defined", (int)ASH_MIN(v->u.s.n, (size_t)60), v->u.s.p);
    return ash_tmpl_fail(c, ASH_E_FORMAT, "expected a string, got %s", ash_tv_kind_name(v));
}

/* ---- strings ---- */
static bool space_char(uint32_t c) { /* Python's str.isspace */
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool in_set(uint32_t cp, ash_str set) {
    for (size_t i = 0; i < set.n;) {
        uint32_t x;
        i += ash_tmpl_char(set.p + i, set.n - i, &x);
        if (x == cp) return true;
    }
    return false;
}

/* Strip characters of `set` (none: white space) at the left and/or right. */
static ash_str strip(ash_str s, const ash_str *set, bool left, bool right) {
    uint32_t cp;
    while (left && s.n) {
        size_t k = ash_tmpl_char(s.p, s.n, &cp);
        if (set ? !in_set(cp, *set) : !space_char(cp)) break;
        s.p += k;
        s.n -= k;
    }
    while (right && s.n) {
        size_t k = 1;
        while (k < 4 && k < s.n && ((uint8_t)s.p[s.n - k] & 0xc0) == 0x80) k++;
        if (ash_tmpl_char(s.p + s.n - k, k, &cp) != k) {
            k = 1;
            cp = (uint8_t)s.p[s.n - 1];
        }
        if (set ? !in_set(cp, *set) : !space_char(cp)) break;
        s.n -= k;
    }
    return s;
}

static ash_status strip_with(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool l, bool r, tv *out) {
    ash_str s, set;
    const tv *chars = arg(a, 0, "chars");
    ASH_TRY(ash_tv_str(c, self, &s));
    if (chars && chars->kind != TV_NONE) ASH_TRY(want_str(c, chars, &set));
    s = strip(s, chars && chars->kind != TV_NONE ? &set : NULL, l, r);
    *out = tv_str(s.p, s.n);
    return ASH_OK;
}
static ash_status f_trim(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, true, true, out); }
static ash_status m_lstrip(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, true, false, out); }
static ash_status m_rstrip(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, false, true, out); }

/* mode: 'u', 'l', 'c' (first up, rest low), 't' (each word so) */
static ash_status change_case(tmpl_ctx *c, const tv *self, char mode, tv *out) {
    ash_str s;
    ash_buf b = {0};
    ASH_TRY(ash_tv_str(c, self, &s));
    bool up = mode != 'l';
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t k = ash_tmpl_char(s.p + i, s.n - i, &cp);
        if (k == 1 && cp >= 128) ash_buf_addc(&b, s.p[i]); /* not UTF-8 */
        else {
            utf8proc_uint8_t o[4];
            utf8proc_int32_t x = up ? utf8proc_toupper((utf8proc_int32_t)cp) : utf8proc_tolower((utf8proc_int32_t)cp);
            if (up && cp == 0xdf) ash_buf_adds(&b, mode == 'u' ? "SS" : "Ss");
            else ash_buf_add(&b, o, (size_t)utf8proc_encode_char(x, o));
        }
        i += k;
        if (mode == 'c') up = false;
        if (mode == 't') up = k == 1 && (space_char(cp) || strchr("-({[<", (int)cp));
    }
    return ash_tv_from_buf(c, &b, ASH_OK, out);
}
static ash_status f_upper(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)a; return change_case(c, self, 'u', out); }
static ash_status f_lower(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)a; return change_case(c, self, 'l', out); }
static ash_status f_capitalize(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)a; return change_case(c, self, 'c', out); }
static ash_status f_title(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)a; return change_case(c, self, 't', out); }

static ash_status f_replace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s, from, to;
    ash_buf b = {0};
    const tv *max = arg(a, 2, "count");
    int64_t left = max && max->kind == TV_INT && max->u.i >= 0 ? max->u.i : INT64_MAX;
    if (!arg(a, 0, "old") || !arg(a, 1, "new")) return ash_tmpl_fail(c, ASH_E_FORMAT, "replace needs two strings");
    ASH_TRY(ash_tv_str(c, self, &s));
    ASH_TRY(want_str(c, arg(a, 0, "old"), &from));
    ASH_TRY(want_str(c, arg(a, 1, "new"), &to));
    ash_status st = ASH_OK;
    size_t i = 0;
    while (i <= s.n && left > 0 && st == ASH_OK) {
        const char *q = from.n ? memmem(s.p + i, s.n - i, from.p, from.n) : s.p + i;
        if (!q) break;
        ash_buf_add(&b, s.p + i, (size_t)(q - s.p) - i);
        ash_buf_add(&b, to.p, to.n);
        i = (size_t)(q - s.p) + from.n;
        left--;
        if (from.n == 0) { /* between all characters */
            if (i == s.n) {
                i++;
                break;
            }
            uint32_t cp;
            size_t k = ash_tmpl_char(s.p + i, s.n - i, &cp);
            ash_buf_add(&b, s.p + i, k);
            i += k;
        }
        if (b.n > TMPL_MAX_OUTPUT) st = ash_tmpl_fail(c, ASH_E_LIMIT, "replace makes too long a text");
    }
    if (i < s.n) ash_buf_add(&b, s.p + i, s.n - i);
    return ash_tv_from_buf(c, &b, st, out);
}

static ash_status m_startswith(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str x;
    ASH_TRY(want_str(c, &a->v[0], &x));
    *out = tv_bool(x.n <= self->u.s.n && memcmp(x.p, self->u.s.p, x.n) == 0);
    return ASH_OK;
}
static ash_status m_endswith(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str x, s = self->u.s;
    ASH_TRY(want_str(c, &a->v[0], &x));
    *out = tv_bool(x.n <= s.n && memcmp(x.p, s.p + s.n - x.n, x.n) == 0);
    return ASH_OK;
}

static ash_status new_list(tmpl_ctx *c, size_t cap, tv_list **out) {
    *out = ash_tmpl_alloc(c, sizeof **out);
    tv *v = *out ? ash_tmpl_alloc(c, cap * sizeof *v) : NULL;
    if (!v) return ash_tmpl_nomem(c);
    **out = (tv_list){v, 0};
    return ASH_OK;
}

static ash_status m_split(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s = self->u.s, sep = {NULL, 0};
    const tv *by = arg(a, 0, "sep"), *max = arg(a, 1, "maxsplit");
    int64_t left = max && max->kind == TV_INT && max->u.i >= 0 ? max->u.i : INT64_MAX;
    bool words = !by || by->kind == TV_NONE;
    if (!words) {
        ASH_TRY(want_str(c, by, &sep));
        if (sep.n == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "split by an empty string");
    }
    tv_list *l = NULL;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        size_t n = 0, i = 0;
        int64_t k = left;
        while (words) {
            ash_str rest = strip((ash_str){s.p + i, s.n - i}, NULL, true, false);
            if (rest.n == 0) break;
            size_t e = 0;
            uint32_t cp;
            while (e < rest.n) {
                size_t m = ash_tmpl_char(rest.p + e, rest.n - e, &cp);
                if (space_char(cp)) break;
                e += m;
            }
            if (k-- == 0) e = strip(rest, NULL, false, true).n;
            if (l) l->v[n] = tv_str(rest.p, e);
            n++;
            i = (size_t)(rest.p - s.p) + e;
            if (k < 0) break;
        }
        while (!words) {
            const char *q = k-- > 0 ? memmem(s.p + i, s.n - i, sep.p, sep.n) : NULL;
            size_t e = q ? (size_t)(q - s.p) : s.n;
            if (l) l->v[n] = tv_str(s.p + i, e - i);
            n++;
            if (!q) break;
            i = e + sep.n;
        }
        if (!l) ASH_TRY(new_list(c, n, &l));
        else l->n = n;
    }
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

/* ---- lists and dictionaries ---- */
static ash_status f_length(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_LIST) return *out = tv_int((int64_t)self->u.l->n), ASH_OK;
    if (self->kind == TV_DICT) return *out = tv_int((int64_t)self->u.d->n), ASH_OK;
    if (self->kind == TV_UNDEF) return *out = tv_int(0), ASH_OK;
    if (self->kind != TV_STR) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s has no length", ash_tv_kind_name(self));
    int64_t n = 0;
    for (size_t i = 0; i < self->u.s.n; n++) {
        uint32_t cp;
        i += ash_tmpl_char(self->u.s.p + i, self->u.s.n - i, &cp);
    }
    *out = tv_int(n);
    return ASH_OK;
}

static ash_status f_default(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    const tv *d = arg(a, 0, "default_value"), *also_false = arg(a, 1, "boolean");
    bool use = self->kind == TV_UNDEF || (also_false && ash_tv_true(also_false) && !ash_tv_true(self));
    *out = !use ? *self : d ? *d : tv_str("", 0);
    return ASH_OK;
}

static ash_status f_first(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    tv zero = tv_int(0);
    if (self->kind == TV_LIST || self->kind == TV_STR) return ash_tv_item(c, self, &zero, out);
    tv_list l;
    ASH_TRY(ash_tv_items(c, self, &l));
    *out = l.n ? l.v[0] : (tv){.kind = TV_UNDEF, .u.s = {"first", 5}};
    return ASH_OK;
}
static ash_status f_last(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    tv end = tv_int(-1);
    if (self->kind == TV_LIST || self->kind == TV_STR) return ash_tv_item(c, self, &end, out);
    tv_list l;
    ASH_TRY(ash_tv_items(c, self, &l));
    *out = l.n ? l.v[l.n - 1] : (tv){.kind = TV_UNDEF, .u.s = {"last", 4}};
    return ASH_OK;
}

static ash_status f_list(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    if (!l) return ash_tmpl_nomem(c);
    ASH_TRY(ash_tv_items(c, self, l));
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

static ash_status f_join(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str sep = {"", 0};
    tv_list l;
    ash_buf b = {0};
    if (arg(a, 1, "attribute")) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "join with an attribute is not supported");
    if (arg(a, 0, "d")) ASH_TRY(ash_tv_str(c, arg(a, 0, "d"), &sep));
    ASH_TRY(ash_tv_items(c, self, &l));
    ash_status st = ASH_OK;
    for (size_t i = 0; i < l.n && st == ASH_OK; i++) {
        if (i) ash_buf_add(&b, sep.p, sep.n);
        st = ash_tv_print(c, &b, &l.v[i], false, 0);
    }
    return ash_tv_from_buf(c, &b, st, out);
}

static ash_status m_join(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { /* "sep".join(list) */
    tmpl_args sep = {.v = {*self}, .n = 1};
    return f_join(c, &a->v[0], &sep, out);
}

static ash_status f_reverse(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_STR) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "reversing a string is not supported");
    tv_list l, *r;
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(new_list(c, l.n, &r));
    for (; r->n < l.n; r->n++) r->v[r->n] = l.v[l.n - 1 - r->n];
    *out = (tv){.kind = TV_LIST, .u.l = r};
    return ASH_OK;
}

static ash_status m_items(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_UNDEF) return f_list(c, self, a, out);
    if (self->kind != TV_DICT) return ash_tmpl_fail(c, ASH_E_FORMAT, "items of %s", ash_tv_kind_name(self));
    tv_list *l;
    ASH_TRY(new_list(c, self->u.d->n, &l));
    for (size_t i = 0; i < self->u.d->n; i++) {
        tv_list *p;
        ASH_TRY(new_list(c, 2, &p));
        p->v[0] = tv_str(self->u.d->k[i].p, self->u.d->k[i].n);
        p->v[1] = self->u.d->v[i];
        p->n = 2;
        l->v[l->n++] = (tv){.kind = TV_LIST, .u.l = p};
    }
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}
static ash_status m_values(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    if (!l) return ash_tmpl_nomem(c);
    *l = (tv_list){self->u.d->v, self->u.d->n};
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}
static ash_status m_get(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    const tv *v = a->v[0].kind == TV_STR ? ash_tv_dict_get(self->u.d, a->v[0].u.s) : NULL;
    *out = v ? *v : a->n > 1 ? a->v[1] : (tv){.kind = TV_NONE};
    return ASH_OK;
}

/* ---- conversions ---- */
static ash_status f_string(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    ash_str s;
    ASH_TRY(ash_tv_str(c, self, &s));
    *out = tv_str(s.p, s.n);
    return ASH_OK;
}
static ash_status f_int(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *d = arg(a, 0, "default");
    *out = d ? *d : tv_int(0);
    if (self->kind == TV_INT) *out = *self;
    else if (self->kind == TV_BOOL) *out = tv_int(self->u.b);
    else if (self->kind == TV_FLOAT && fabs(self->u.f) < 9e18) *out = tv_int((int64_t)self->u.f);
    else if (self->kind == TV_STR) {
        ash_str s = strip(self->u.s, NULL, true, true);
        int64_t v = 0;
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
        if (i == s.n || s.n - i > 18) return ASH_OK;
        for (size_t k = i; k < s.n; k++) {
            if (s.p[k] < '0' || s.p[k] > '9') return ASH_OK;
            v = v * 10 + (s.p[k] - '0');
        }
        *out = tv_int(s.p[0] == '-' ? -v : v);
    } else if (self->kind != TV_NONE && self->kind != TV_UNDEF)
        return ash_tmpl_fail(c, ASH_E_FORMAT, "%s as an integer", ash_tv_kind_name(self));
    return ASH_OK;
}
static ash_status f_tojson(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_buf b = {0};
    const tv *i = arg(a, -1, "indent");
    for (int k = 0; k < a->n; k++)
        if (!str_eq(a->kw[k], "indent") && !str_eq(a->kw[k], "ensure_ascii"))
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "this argument of tojson is not supported");
    const tv *ascii = arg(a, -1, "ensure_ascii");
    if (ascii && ash_tv_true(ascii)) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "tojson(ensure_ascii=true) is not supported");
    int indent = i && i->kind == TV_INT && i->u.i >= 0 ? (int)ASH_MIN(i->u.i, 16) : -1;
    return ash_tv_from_buf(c, &b, ash_tv_json(c, &b, self, indent, 0), out);
}
static ash_status f_abs(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_FLOAT) return *out = (tv){.kind = TV_FLOAT, .u.f = fabs(self->u.f)}, ASH_OK;
    if (self->kind != TV_INT || self->u.i == INT64_MIN) return ash_tmpl_fail(c, ASH_E_FORMAT, "abs of %s", ash_tv_kind_name(self));
    *out = tv_int(self->u.i < 0 ? -self->u.i : self->u.i);
    return ASH_OK;
}
static ash_status f_same(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)c; (void)a; *out = *self; return ASH_OK; }

static const tmpl_func filters[] = {
    {"abs", 0, 0, f_abs},         {"capitalize", 0, 0, f_capitalize}, {"count", 0, 0, f_length}, {"d", 0, 2, f_default},
    {"default", 0, 2, f_default}, {"first", 0, 0, f_first},           {"int", 0, 1, f_int},      {"items", 0, 0, m_items},
    {"join", 0, 2, f_join},       {"last", 0, 0, f_last},             {"length", 0, 0, f_length}, {"list", 0, 0, f_list},
    {"lower", 0, 0, f_lower},     {"replace", 2, 3, f_replace},       {"reverse", 0, 0, f_reverse}, {"safe", 0, 0, f_same},
    {"string", 0, 0, f_string},   {"title", 0, 0, f_title},           {"tojson", 0, 4, f_tojson}, {"trim", 0, 1, f_trim},
    {"upper", 0, 0, f_upper},
};

static const tmpl_func string_methods[] = {
    {"strip", 0, 1, f_trim},           {"lstrip", 0, 1, m_lstrip}, {"rstrip", 0, 1, m_rstrip}, {"startswith", 1, 1, m_startswith},
    {"endswith", 1, 1, m_endswith},    {"split", 0, 2, m_split},   {"upper", 0, 0, f_upper},   {"lower", 0, 0, f_lower},
    {"capitalize", 0, 0, f_capitalize}, {"replace", 2, 3, f_replace}, {"join", 1, 1, m_join},
};
static const tmpl_func dict_methods[] = {{"items", 0, 0, m_items}, {"keys", 0, 0, f_list}, {"values", 0, 0, m_values}, {"get", 1, 2, m_get}};

/* ---- tests ---- */
static ash_status yes(tv *out, bool b) { return *out = tv_bool(b), ASH_OK; }
#define TEST(name, cond) \
    static ash_status name(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { (void)c; (void)a; return yes(out, cond); }
TEST(t_defined, self->kind != TV_UNDEF)
TEST(t_undefined, self->kind == TV_UNDEF)
TEST(t_none, self->kind == TV_NONE)
TEST(t_string, self->kind == TV_STR)
TEST(t_boolean, self->kind == TV_BOOL)
TEST(t_integer, self->kind == TV_INT)
TEST(t_float, self->kind == TV_FLOAT)
TEST(t_number, self->kind == TV_INT || self->kind == TV_FLOAT || self->kind == TV_BOOL)
TEST(t_mapping, self->kind == TV_DICT)
TEST(t_iterable, self->kind == TV_LIST || self->kind == TV_DICT || self->kind == TV_STR || self->kind == TV_UNDEF)
TEST(t_sequence, self->kind == TV_LIST || self->kind == TV_DICT || self->kind == TV_STR || self->kind == TV_UNDEF)
TEST(t_true, self->kind == TV_BOOL && self->u.b)
TEST(t_false, self->kind == TV_BOOL && !self->u.b)
TEST(t_callable, self->kind == TV_FUNC || self->kind == TV_MACRO)
#undef TEST
static ash_status t_odd(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind != TV_INT) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s is neither odd nor even", ash_tv_kind_name(self));
    return yes(out, self->u.i & 1);
}
static ash_status t_even(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ASH_TRY(t_odd(c, self, a, out));
    return yes(out, !out->u.b);
}
static ash_status t_divisibleby(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    if (self->kind != TV_INT || a->v[0].kind != TV_INT || a->v[0].u.i == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "divisibleby needs integers");
    return yes(out, a->v[0].u.i == -1 || self->u.i % a->v[0].u.i == 0);
}
static ash_status t_eq(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return ash_tv_binary(c, OP_EQ, self, &a->v[0], out); }
static ash_status t_ne(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return ash_tv_binary(c, OP_NE, self, &a->v[0], out); }
static ash_status t_in(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return ash_tv_binary(c, OP_IN, self, &a->v[0], out); }

static const tmpl_func tests[] = {
    {"boolean", 0, 0, t_boolean}, {"callable", 0, 0, t_callable}, {"defined", 0, 0, t_defined},     {"divisibleby", 1, 1, t_divisibleby},
    {"eq", 1, 1, t_eq},           {"equalto", 1, 1, t_eq},        {"even", 0, 0, t_even},           {"false", 0, 0, t_false},
    {"float", 0, 0, t_float},     {"in", 1, 1, t_in},             {"integer", 0, 0, t_integer},     {"iterable", 0, 0, t_iterable},
    {"mapping", 0, 0, t_mapping}, {"ne", 1, 1, t_ne},             {"none", 0, 0, t_none},           {"number", 0, 0, t_number},
    {"odd", 0, 0, t_odd},         {"sequence", 0, 0, t_sequence}, {"string", 0, 0, t_string},       {"true", 0, 0, t_true},
    {"undefined", 0, 0, t_undefined},
};

/* ---- functions ---- */
static ash_status g_raise(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    (void)out;
    ash_str s;
    ASH_TRY(ash_tv_str(c, &a->v[0], &s));
    return ash_fail(c->err, ASH_E_FORMAT, "the chat template refuses this conversation: %.*s", (int)ASH_MIN(s.n, (size_t)240), s.p);
}
static ash_status g_namespace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    tv_dict *d = ash_tmpl_alloc(c, sizeof *d);
    if (!d) return ash_tmpl_nomem(c);
    *d = (tv_dict){0};
    for (int i = 0; i < a->n; i++) {
        if (a->kw[i].n == 0) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "namespace with an argument without a name is not supported");
        ASH_TRY(ash_tv_dict_set(c, d, a->kw[i], a->v[i]));
    }
    *out = (tv){.kind = TV_NS, .u.d = d};
    return ASH_OK;
}
static ash_status g_range(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < a->n; i++) {
        if (a->v[i].kind != TV_INT) return ash_tmpl_fail(c, ASH_E_FORMAT, "range needs integers");
        v[i] = a->v[i].u.i;
    }
    if (a->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    for (int i = 0; i < 3; i++)
        if (v[i] > INT32_MAX || v[i] < INT32_MIN) return ash_tmpl_fail(c, ASH_E_LIMIT, "a range is too long");
    if (v[2] == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "range with a step of 0");
    int64_t n = v[2] > 0 ? (v[1] - v[0] + v[2] - 1) / v[2] : (v[0] - v[1] - v[2] - 1) / -v[2];
    if (n < 0) n = 0;
    if (n > TMPL_MAX_RANGE) return ash_tmpl_fail(c, ASH_E_LIMIT, "a range of %lld is over the limit of %d", (long long)n, TMPL_MAX_RANGE);
    tv_list *l;
    ASH_TRY(new_list(c, (size_t)n, &l));
    for (; l->n < (size_t)n; l->n++) l->v[l->n] = tv_int(v[0] + (int64_t)l->n * v[2]);
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

static const tmpl_func functions[] = {{"namespace", 0, TMPL_MAX_ARGS, g_namespace}, {"raise_exception", 1, 1, g_raise}, {"range", 1, 3, g_range}};

/* ---- lookup ---- */
static const tmpl_func *find(const tmpl_func *t, size_t n, ash_str name) {
    for (size_t i = 0; i < n; i++)
        if (str_eq(name, t[i].name)) return &t[i];
    return NULL;
}

ash_status ash_tmpl_call(tmpl_ctx *c, const tmpl_func *f, const char *kind, const tv *self, const tmpl_args *a, tv *out) {
    if (a->n < f->min || a->n > f->max) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s %s takes %d to %d arguments, not %d", kind, f->name, f->min, f->max, a->n);
    return f->fn(c, self, a, out);
}

static ash_status unknown(tmpl_ctx *c, const char *kind, ash_str name) {
    return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the %s \"%.*s\" is not supported", kind, (int)ASH_MIN(name.n, (size_t)60), name.p);
}

ash_status ash_tmpl_filter(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, tv *out) {
    const tmpl_func *f = find(filters, ASH_ARRAY_LEN(filters), name);
    return f ? ash_tmpl_call(c, f, "filter", self, a, out) : unknown(c, "filter", name);
}

ash_status ash_tmpl_test(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, bool *out) {
    const tmpl_func *f = find(tests, ASH_ARRAY_LEN(tests), name);
    tv v;
    if (!f) return unknown(c, "test", name);
    ASH_TRY(ash_tmpl_call(c, f, "test", self, a, &v));
    *out = v.u.b;
    return ASH_OK;
}

static const tmpl_func *method(const tv *self, ash_str name) {
    if (self->kind == TV_STR) return find(string_methods, ASH_ARRAY_LEN(string_methods), name);
    if (self->kind == TV_DICT) return find(dict_methods, ASH_ARRAY_LEN(dict_methods), name);
    return NULL;
}

bool ash_tmpl_has_method(const tv *self, ash_str name) { return method(self, name) != NULL; }

ash_status ash_tmpl_method(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, tv *out) {
    const tmpl_func *f = method(self, name);
    return f ? ash_tmpl_call(c, f, "method", self, a, out) : unknown(c, "method", name);
}

const tmpl_func *ash_tmpl_function(ash_str name) { return find(functions, ASH_ARRAY_LEN(functions), name); }
