/* tmpl_string.c - filters and methods of strings. Rows of two tables; a filter turns its value into text first,
 * a method is only found on a string. Markup stays markup where Python keeps it so. */
#include "tmpl/tmpl_int.h"

#include <stdlib.h>
#include <utf8proc.h>

bool ash_tmpl_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
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
ash_str ash_tmpl_strip(ash_str s, const ash_str *set, bool left, bool right) {
    uint32_t cp;
    while (left && s.n) {
        size_t k = ash_tmpl_char(s.p, s.n, &cp);
        if (set ? !in_set(cp, *set) : !ash_tmpl_space(cp)) break;
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
        if (set ? !in_set(cp, *set) : !ash_tmpl_space(cp)) break;
        s.n -= k;
    }
    return s;
}

static tv part(const tv *self, const char *p, size_t n) { /* of a string, as safe as the whole */
    tv v = tv_str(p, n);
    v.safe = self->kind == TV_STR && self->safe;
    return v;
}

static ash_status strip_with(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool l, bool r, tv *out) {
    ash_str s, set;
    const tv *chars = ash_tmpl_arg(a, 0, "chars");
    if (chars && chars->kind == TV_NONE) chars = NULL;
    ASH_TRY(ash_tv_str(c, self, &s));
    if (chars) ASH_TRY(ash_tmpl_want_str(c, chars, &set));
    s = ash_tmpl_strip(s, chars ? &set : NULL, l, r);
    *out = part(self, s.p, s.n);
    return ASH_OK;
}
static ash_status f_trim(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, true, true, out); }
static ash_status m_lstrip(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, true, false, out); }
static ash_status m_rstrip(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return strip_with(c, self, a, false, true, out); }

static bool letter(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return true;
    default: return false;
    }
}

/* mode: 'u', 'l', 'c' (first up, rest low), 't' (each word so, words as Jinja's filter splits them), 'T' (after every non-letter) */
static ash_status change_case(tmpl_ctx *c, const tv *self, char mode, tv *out) {
    ash_str s;
    ash_buf b = {0};
    ASH_TRY(ash_tv_str(c, self, &s));
    bool up = mode != 'l';
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t k = ash_tmpl_char(s.p + i, s.n - i, &cp);
        if (k == 1 && cp >= 128)
            ash_buf_addc(&b, s.p[i]); /* not UTF-8 */
        else {
            utf8proc_uint8_t o[4];
            utf8proc_int32_t x = up ? utf8proc_toupper((utf8proc_int32_t)cp) : utf8proc_tolower((utf8proc_int32_t)cp);
            if (up && mode != 'u') x = utf8proc_totitle((utf8proc_int32_t)cp);
            if (up && cp == 0xdf)
                ash_buf_adds(&b, mode == 'u' || mode == 't' ? "SS" : "Ss");
            else
                ash_buf_add(&b, o, (size_t)utf8proc_encode_char(x, o));
        }
        i += k;
        if (mode == 'c') up = false;
        if (mode == 't') up = ash_tmpl_space(cp) || (cp < 128 && cp && strchr("-({[<", (int)cp));
        if (mode == 'T') up = !letter(cp);
    }
    ASH_TRY(ash_tv_from_buf(c, &b, ASH_OK, out));
    out->safe = self->kind == TV_STR && self->safe;
    return ASH_OK;
}
static ash_status f_upper(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return change_case(c, self, 'u', out);
}
static ash_status f_lower(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return change_case(c, self, 'l', out);
}
static ash_status f_capitalize(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return change_case(c, self, 'c', out);
}
static ash_status f_title(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return change_case(c, self, 't', out);
}
static ash_status m_title(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return change_case(c, self, 'T', out);
}

static ash_status replace(tmpl_ctx *c, ash_str s, ash_str from, ash_str to, int64_t left, tv *out) {
    ash_buf b = {0};
    ash_status st = ASH_OK;
    size_t i = 0;
    while (i <= s.n && left > 0 && st == ASH_OK) {
        const char *q = from.n == 0 ? s.p + i : s.n > i ? memmem(s.p + i, s.n - i, from.p, from.n) : NULL;
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
static int64_t count_arg(const tmpl_args *a, int i, const char *name) {
    const tv *max = ash_tmpl_arg(a, i, name);
    int64_t n;
    return max && ash_tv_int(max, &n) && n >= 0 ? n : INT64_MAX;
}
static ash_status f_replace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s, from, to;
    const tv *x = ash_tmpl_arg(a, 0, "old"), *y = ash_tmpl_arg(a, 1, "new");
    if (!x || !y) return ash_tmpl_fail(c, ASH_E_FORMAT, "replace needs two strings");
    ASH_TRY(ash_tv_str(c, self, &s));
    ASH_TRY(ash_tv_str(c, x, &from));
    ASH_TRY(ash_tv_str(c, y, &to));
    return replace(c, s, from, to, count_arg(a, 2, "count"), out);
}
static ash_status m_replace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str from, to;
    tv with = a->v[1];
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &from));
    ASH_TRY(ash_tmpl_want_str(c, &a->v[1], &to));
    if (self->safe && !with.safe) ASH_TRY(ash_tmpl_escape(c, to, &with));
    ASH_TRY(replace(c, self->u.s, from, with.u.s, count_arg(a, 2, "count"), out));
    out->safe = self->safe;
    return ASH_OK;
}

/* A string, or one of a tuple of strings, at the beginning or end. */
static ash_status affix(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool end, tv *out) {
    ash_str s = self->u.s, x;
    const tv *v = &a->v[0];
    size_t n = 1;
    if (v->kind == TV_LIST && v->u.l->form == TL_TUPLE) n = v->u.l->n, v = v->u.l->v;
    *out = tv_bool(false);
    for (size_t i = 0; i < n && !out->u.b; i++) {
        ASH_TRY(ash_tmpl_want_str(c, &v[i], &x));
        *out = tv_bool(x.n <= s.n && (x.n == 0 || memcmp(x.p, end ? s.p + s.n - x.n : s.p, x.n) == 0));
    }
    return ASH_OK;
}
static ash_status m_startswith(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return affix(c, self, a, false, out); }
static ash_status m_endswith(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return affix(c, self, a, true, out); }
static ash_status m_removeprefix(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str x, s = self->u.s;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &x));
    bool has = x.n && x.n <= s.n && memcmp(x.p, s.p, x.n) == 0;
    return *out = part(self, has ? s.p + x.n : s.p, has ? s.n - x.n : s.n), ASH_OK;
}
static ash_status m_removesuffix(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str x, s = self->u.s;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &x));
    bool has = x.n && x.n <= s.n && memcmp(x.p, s.p + s.n - x.n, x.n) == 0;
    return *out = part(self, s.p, has ? s.n - x.n : s.n), ASH_OK;
}

/* ---- splitting ---- */
static const char *last_of(ash_str s, ash_str x) {
    for (size_t i = s.n >= x.n ? s.n - x.n + 1 : 0; i-- > 0;)
        if (memcmp(s.p + i, x.p, x.n) == 0) return s.p + i;
    return NULL;
}

/* Pieces of s in order; l NULL: only counted. `right`: splits are made from the right. */
static size_t pieces(const tv *self, const ash_str *sep, int64_t left, bool right, tv *l) {
    ash_str s = self->u.s;
    size_t n = 0;
    if (!sep) { /* runs of white space */
        for (;;) {
            s = ash_tmpl_strip(s, NULL, !right, right);
            if (s.n == 0) return n;
            size_t e = 0;
            uint32_t cp;
            if (left-- <= 0) {
                if (l) l[n] = part(self, s.p, s.n);
                return n + 1;
            }
            if (right) {
                e = s.n;
                for (size_t i = 0; i < s.n;) { /* after the last space */
                    size_t k = ash_tmpl_char(s.p + i, s.n - i, &cp);
                    i += k;
                    if (ash_tmpl_space(cp)) e = s.n - i;
                }
                if (l) l[n] = part(self, s.p + s.n - e, e);
                s.n -= e;
            } else {
                while (e < s.n) {
                    size_t m = ash_tmpl_char(s.p + e, s.n - e, &cp);
                    if (ash_tmpl_space(cp)) break;
                    e += m;
                }
                if (l) l[n] = part(self, s.p, e);
                s.p += e;
                s.n -= e;
            }
            n++;
        }
    }
    for (;;) {
        const char *q = left-- > 0 && s.n >= sep->n ? right ? last_of(s, *sep) : memmem(s.p, s.n, sep->p, sep->n) : NULL;
        if (!q) break;
        size_t at = (size_t)(q - s.p);
        if (l) l[n] = right ? part(self, q + sep->n, s.n - at - sep->n) : part(self, s.p, at);
        if (!right)
            s.p += at + sep->n, s.n -= at + sep->n;
        else
            s.n = at;
        n++;
    }
    if (l) l[n] = part(self, s.p, s.n);
    return n + 1;
}

static ash_status split(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool right, tv *out) {
    ash_str sep = {NULL, 0};
    const tv *by = ash_tmpl_arg(a, 0, "sep");
    bool words = !by || by->kind == TV_NONE;
    if (!words) {
        ASH_TRY(ash_tmpl_want_str(c, by, &sep));
        if (sep.n == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "split by an empty string");
    }
    int64_t left = count_arg(a, 1, "maxsplit");
    size_t n = pieces(self, words ? NULL : &sep, left, right, NULL);
    c->steps += n;
    ASH_TRY(ash_tmpl_step(c));
    ASH_TRY(ash_tv_list_new(c, TL_LIST, n, out));
    out->u.l->n = n;
    pieces(self, words ? NULL : &sep, left, right, out->u.l->v);
    if (right)
        for (size_t i = 0; i < n / 2; i++) {
            tv t = out->u.l->v[i];
            out->u.l->v[i] = out->u.l->v[n - 1 - i];
            out->u.l->v[n - 1 - i] = t;
        }
    return ASH_OK;
}
static ash_status m_split(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return split(c, self, a, false, out); }
static ash_status m_rsplit(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return split(c, self, a, true, out); }

static ash_status partition(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool right, tv *out) {
    ash_str s = self->u.s, sep;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &sep));
    if (sep.n == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "split by an empty string");
    const char *q = s.n < sep.n ? NULL : right ? last_of(s, sep) : memmem(s.p, s.n, sep.p, sep.n);
    ASH_TRY(ash_tv_list_new(c, TL_TUPLE, 3, out));
    tv *v = out->u.l->v;
    out->u.l->n = 3;
    size_t at = q ? (size_t)(q - s.p) : 0;
    v[0] = q ? part(self, s.p, at) : right ? part(self, "", 0) : *self;
    v[1] = q ? part(self, q, sep.n) : part(self, "", 0);
    v[2] = q ? part(self, q + sep.n, s.n - at - sep.n) : right ? *self : part(self, "", 0);
    return ASH_OK;
}
static ash_status m_partition(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return partition(c, self, a, false, out); }
static ash_status m_rpartition(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return partition(c, self, a, true, out); }

/* Length of the line break at p, or 0. */
static size_t line_break(const char *p, size_t n) {
    uint32_t cp;
    size_t k = ash_tmpl_char(p, n, &cp);
    if (cp == '\r') return n > 1 && p[1] == '\n' ? 2 : 1;
    return (cp >= 10 && cp <= 12) || (cp >= 0x1c && cp <= 0x1e) || (k > 1 && (cp == 0x85 || cp == 0x2028 || cp == 0x2029)) ? k : 0;
}
static ash_status m_splitlines(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s = self->u.s;
    const tv *keep = ash_tmpl_arg(a, 0, "keepends");
    bool ends = keep && ash_tv_true(keep);
    size_t lines = 1;
    for (size_t i = 0; i < s.n; i++) lines += line_break(s.p + i, s.n - i) != 0;
    ASH_TRY(ash_tv_list_new(c, TL_LIST, lines, out));
    for (size_t from = 0, i = 0; from < s.n;) {
        size_t k = 0;
        while (i < s.n && !(k = line_break(s.p + i, s.n - i))) i++;
        out->u.l->v[out->u.l->n++] = part(self, s.p + from, i - from + (ends ? k : 0));
        from = i += k;
    }
    return ASH_OK;
}

/* ---- looking ---- */
static ash_status find(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool right, bool must, tv *out) {
    ash_str s = self->u.s, x;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &x));
    const char *q = x.n == 0 ? s.p + (right ? s.n : 0) : s.n < x.n ? NULL : right ? last_of(s, x) : memmem(s.p, s.n, x.p, x.n);
    if (!q && must) return ash_tmpl_fail(c, ASH_E_FORMAT, "the string looked for is not there");
    *out = tv_int(q ? ash_tmpl_chars((ash_str){s.p, (size_t)(q - s.p)}) : -1);
    return ASH_OK;
}
static ash_status m_find(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return find(c, self, a, false, false, out); }
static ash_status m_rfind(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return find(c, self, a, true, false, out); }
static ash_status m_index(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return find(c, self, a, false, true, out); }
static ash_status m_count(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s = self->u.s, x;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &x));
    int64_t n = 0;
    if (x.n == 0)
        n = ash_tmpl_chars(s) + 1;
    else
        for (const char *q; s.n >= x.n && (q = memmem(s.p, s.n, x.p, x.n)); n++) {
            s.n -= (size_t)(q - s.p) + x.n;
            s.p = q + x.n;
        }
    *out = tv_int(n);
    return ASH_OK;
}
static bool is_alpha(uint32_t cp) { return letter(cp); }
static bool is_digit(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND; }
static bool is_alnum(uint32_t cp) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
    return letter(cp) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
static ash_status all_of(const tv *self, bool (*is)(uint32_t), tv *out) {
    bool all = self->u.s.n > 0;
    for (size_t i = 0; all && i < self->u.s.n;) {
        uint32_t cp;
        i += ash_tmpl_char(self->u.s.p + i, self->u.s.n - i, &cp);
        all = is(cp);
    }
    return *out = tv_bool(all), ASH_OK;
}
static ash_status m_isalpha(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return all_of(self, is_alpha, out);
}
static ash_status m_isdigit(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return all_of(self, is_digit, out);
}
static ash_status m_isalnum(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return all_of(self, is_alnum, out);
}
static ash_status m_isspace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return all_of(self, ash_tmpl_space, out);
}

static ash_status m_join(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { /* "sep".join(list) */
    tv_list l;
    ash_buf b = {0};
    ASH_TRY(ash_tv_items(c, &a->v[0], &l));
    ash_status st = ASH_OK;
    for (size_t i = 0; i < l.n && st == ASH_OK; i++) {
        tv x = l.v[i];
        if (x.kind != TV_STR)
            st = ash_tmpl_fail(c, ASH_E_FORMAT, "joining %s", ash_tv_kind_name(&x));
        else if (self->safe && !x.safe)
            st = ash_tmpl_escape(c, x.u.s, &x);
        if (st != ASH_OK) break;
        if (i) ash_buf_add(&b, self->u.s.p, self->u.s.n);
        ash_buf_add(&b, x.u.s.p, x.u.s.n);
        if (b.n > TMPL_MAX_OUTPUT) st = ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    }
    ASH_TRY(ash_tv_from_buf(c, &b, st, out));
    out->safe = self->safe;
    return ASH_OK;
}

static ash_status m_zfill(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str s = self->u.s;
    int64_t w, n = ash_tmpl_chars(s);
    if (!ash_tv_int(&a->v[0], &w)) return ash_tmpl_fail(c, ASH_E_FORMAT, "zfill needs an integer");
    if (w > TMPL_MAX_OUTPUT) return ash_tmpl_fail(c, ASH_E_LIMIT, "zfill makes too long a text");
    ash_buf b = {0};
    size_t sign = s.n && (s.p[0] == '-' || s.p[0] == '+');
    ash_buf_add(&b, s.p, sign);
    for (int64_t i = n; i < w; i++) ash_buf_addc(&b, '0');
    ash_buf_add(&b, s.p + sign, s.n - sign);
    return ash_tv_from_buf(c, &b, ASH_OK, out);
}

/* indent(width=4, first=false, blank=false); width may be the text to put in front */
static ash_status f_indent(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *width = ash_tmpl_arg(a, 0, "width"), *first = ash_tmpl_arg(a, 1, "first"), *blank = ash_tmpl_arg(a, 2, "blank");
    ash_str s, pad = {"    ", 4};
    int64_t w;
    ash_buf b = {0}, spaces = {0};
    ash_status st = ash_tmpl_want_str(c, self, &s); /* a filter that does not turn its value into text */
    if (width && width->kind == TV_STR)
        pad = width->u.s;
    else if (width && ash_tv_int(width, &w)) {
        if (w > 1000) st = ash_tmpl_fail(c, ASH_E_LIMIT, "indent by %lld", (long long)w);
        for (int64_t i = 0; st == ASH_OK && i < w; i++) ash_buf_addc(&spaces, ' ');
        pad = (ash_str){spaces.p ? spaces.p : "", spaces.n};
    }
    bool each = blank && ash_tv_true(blank), begin = true;
    if (st == ASH_OK && first && ash_tv_true(first)) ash_buf_add(&b, pad.p, pad.n);
    for (size_t i = 0; st == ASH_OK && i < s.n; begin = false) { /* a line and its end */
        size_t e = i, k = 0;
        while (e < s.n && !(k = line_break(s.p + e, s.n - e))) e++;
        if (!begin && (each || e > i)) ash_buf_add(&b, pad.p, pad.n);
        ash_buf_add(&b, s.p + i, e - i);
        if (k) ash_buf_addc(&b, '\n');
        if (k && e + k == s.n && each) ash_buf_add(&b, pad.p, pad.n); /* after the last end of line, too */
        i = e + k;
        if (b.n > TMPL_MAX_OUTPUT) st = ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    }
    if (spaces.oom) b.oom = true;
    st = ash_tv_from_buf(c, &b, st, out);
    ash_buf_free(&spaces);
    return st;
}

static ash_status f_string(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_STR) return *out = *self, ASH_OK;
    ash_str s;
    ASH_TRY(ash_tv_str(c, self, &s));
    *out = tv_str(s.p, s.n);
    return ASH_OK;
}
static ash_status f_safe(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ASH_TRY(f_string(c, self, a, out));
    out->safe = true;
    return ASH_OK;
}
static ash_status f_escape(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    ash_str s;
    if (self->kind == TV_STR && self->safe) return *out = *self, ASH_OK;
    ASH_TRY(ash_tv_str(c, self, &s));
    return ash_tmpl_escape(c, s, out);
}

const tmpl_func ash_tmpl_str_filters[] = {
    {"capitalize", 0, 0, f_capitalize}, {"e", 0, 0, f_escape},        {"escape", 0, 0, f_escape}, {"indent", 0, 3, f_indent},
    {"lower", 0, 0, f_lower},           {"replace", 2, 3, f_replace}, {"safe", 0, 0, f_safe},     {"string", 0, 0, f_string},
    {"title", 0, 0, f_title},           {"trim", 0, 1, f_trim},       {"upper", 0, 0, f_upper},
};
const size_t ash_tmpl_n_str_filters = ASH_ARRAY_LEN(ash_tmpl_str_filters);

const tmpl_func ash_tmpl_str_methods[] = {
    {"capitalize", 0, 0, f_capitalize},
    {"count", 1, 1, m_count},
    {"endswith", 1, 1, m_endswith},
    {"find", 1, 1, m_find},
    {"index", 1, 1, m_index},
    {"isalnum", 0, 0, m_isalnum},
    {"isalpha", 0, 0, m_isalpha},
    {"isdigit", 0, 0, m_isdigit},
    {"isspace", 0, 0, m_isspace},
    {"join", 1, 1, m_join},
    {"lower", 0, 0, f_lower},
    {"lstrip", 0, 1, m_lstrip},
    {"partition", 1, 1, m_partition},
    {"removeprefix", 1, 1, m_removeprefix},
    {"removesuffix", 1, 1, m_removesuffix},
    {"replace", 2, 3, m_replace},
    {"rfind", 1, 1, m_rfind},
    {"rpartition", 1, 1, m_rpartition},
    {"rsplit", 0, 2, m_rsplit},
    {"rstrip", 0, 1, m_rstrip},
    {"split", 0, 2, m_split},
    {"splitlines", 0, 1, m_splitlines},
    {"startswith", 1, 1, m_startswith},
    {"strip", 0, 1, f_trim},
    {"title", 0, 0, m_title},
    {"upper", 0, 0, f_upper},
    {"zfill", 1, 1, m_zfill},
};
const size_t ash_tmpl_n_str_methods = ASH_ARRAY_LEN(ash_tmpl_str_methods);
