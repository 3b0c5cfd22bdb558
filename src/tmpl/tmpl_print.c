/* tmpl_print.c - values as text: Python's str and repr, json.dumps, strftime. */
#include "tmpl/tmpl_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

/* Python's repr of a float: the shortest digits that read back as the same double, with an exponent below 1e-4 and
 * from 1e16 on. `json`: NaN and Infinity as json.dumps spells them. */
static void print_float(ash_buf *b, double f, bool json) {
    char t[40], digits[20];
    if (isnan(f)) return ash_buf_adds(b, json ? "NaN" : "nan");
    if (isinf(f)) return ash_buf_adds(b, f < 0 ? json ? "-Infinity" : "-inf" : json ? "Infinity" : "inf");
    for (int p = 0; p <= 16; p++) {
        snprintf(t, sizeof t, "%.*e", p, f);
        if (strtod(t, NULL) == f) break;
    }
    int n = 0, e = atoi(strchr(t, 'e') + 1);
    for (const char *p = t; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    if (t[0] == '-') ash_buf_addc(b, '-');
    if (e < -4 || e >= 16) {
        ash_buf_addc(b, digits[0]);
        if (n > 1) ash_buf_addc(b, '.');
        ash_buf_add(b, digits + 1, (size_t)n - 1);
        ash_buf_addf(b, "e%c%02d", e < 0 ? '-' : '+', abs(e));
        return;
    }
    if (e < 0) ash_buf_adds(b, "0.");
    for (int i = -1; i > e; i--) ash_buf_addc(b, '0');
    for (int i = 0; i < n || i <= e; i++) {
        if (e >= 0 && i == e + 1) ash_buf_addc(b, '.');
        ash_buf_addc(b, i < n ? digits[i] : '0');
    }
    if (n <= e + 1) ash_buf_adds(b, ".0");
}

/* Python's str.isprintable of one character. */
static bool printable(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return cp == ' ';
    default: return true;
    }
}

static void print_repr(ash_buf *b, const tv *v) {
    ash_str s = v->u.s;
    char q = s.n && memchr(s.p, '\'', s.n) && !memchr(s.p, '"', s.n) ? '"' : '\'';
    if (v->safe) ash_buf_adds(b, "Markup(");
    ash_buf_addc(b, q);
    for (size_t i = 0, k; i < s.n; i += k) {
        uint32_t cp;
        k = ash_tmpl_char(s.p + i, s.n - i, &cp);
        if (cp == '\\' || cp == (unsigned char)q)
            ash_buf_addc(b, '\\'), ash_buf_addc(b, (char)cp);
        else if (cp == '\n')
            ash_buf_adds(b, "\\n");
        else if (cp == '\t')
            ash_buf_adds(b, "\\t");
        else if (cp == '\r')
            ash_buf_adds(b, "\\r");
        else if (cp < 32 || cp == 127)
            ash_buf_addf(b, "\\x%02x", cp);
        else if (k == 1 || printable(cp))
            ash_buf_add(b, s.p + i, k); /* bytes that are not UTF-8 stay */
        else
            ash_buf_addf(b, cp < 256 ? "\\x%02x" : cp < 65536 ? "\\u%04x" : "\\U%08x", cp);
    }
    ash_buf_addc(b, q);
    if (v->safe) ash_buf_addc(b, ')');
}

static ash_status room(tmpl_ctx *c, const ash_buf *b) {
    if (b->oom) return ash_tmpl_nomem(c);
    if (b->n > TMPL_MAX_OUTPUT) return ash_tmpl_fail(c, ASH_E_LIMIT, "the text grows over %d MiB", TMPL_MAX_OUTPUT >> 20);
    return ASH_OK;
}

static ash_status print_list(tmpl_ctx *c, ash_buf *b, const tv_list *l, int depth) {
    static const char *const open[] = {"[", "(", "", "", "dict_keys([", "dict_values([", "dict_items(["};
    static const char *const close[] = {"]", ")", "", "", "])", "])", "])"};
    ash_buf_adds(b, open[l->form]);
    for (size_t i = 0; i < l->n; i++) {
        if (i) ash_buf_adds(b, ", ");
        ASH_TRY(ash_tv_print(c, b, &l->v[i], true, depth + 1));
    }
    if (l->form == TL_TUPLE && l->n == 1) ash_buf_addc(b, ',');
    ash_buf_adds(b, close[l->form]);
    return ASH_OK;
}

ash_status ash_tv_print(tmpl_ctx *c, ash_buf *b, const tv *v, bool repr, int depth) {
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    switch ((tv_kind)v->kind) {
    case TV_UNDEF:
        if (repr) ash_buf_adds(b, "Undefined");
        break;
    case TV_NONE: ash_buf_adds(b, "None"); break;
    case TV_BOOL: ash_buf_adds(b, v->u.b ? "True" : "False"); break;
    case TV_INT: ash_buf_addf(b, "%lld", (long long)v->u.i); break;
    case TV_FLOAT: print_float(b, v->u.f, false); break;
    case TV_STR:
        if (repr)
            print_repr(b, v);
        else
            ash_buf_add(b, v->u.s.p, v->u.s.n);
        break;
    case TV_LIST:
        if (v->u.l->form == TL_ITER || v->u.l->form == TL_RANGE)
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "printing %s is not supported", ash_tv_kind_name(v));
        ASH_TRY(print_list(c, b, v->u.l, depth));
        break;
    case TV_DICT:
    case TV_NS:
        if (v->kind == TV_NS) ash_buf_adds(b, "<Namespace ");
        ash_buf_addc(b, '{');
        for (size_t i = 0; i < v->u.d->n; i++) {
            if (i) ash_buf_adds(b, ", ");
            tv key = tv_str(v->u.d->k[i].p, v->u.d->k[i].n);
            print_repr(b, &key);
            ash_buf_adds(b, ": ");
            ASH_TRY(ash_tv_print(c, b, &v->u.d->v[i], true, depth + 1));
        }
        ash_buf_adds(b, v->kind == TV_NS ? "}>" : "}");
        break;
    default: return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "printing %s is not supported", ash_tv_kind_name(v));
    }
    return room(c, b);
}

/* ---- JSON ---- */
static void json_string(ash_buf *b, ash_str s, bool ascii) {
    ash_buf_addc(b, '"');
    for (size_t i = 0, k; i < s.n; i += k) {
        uint32_t cp;
        k = ash_tmpl_char(s.p + i, s.n - i, &cp);
        switch (cp) {
        case '"': ash_buf_adds(b, "\\\""); break;
        case '\\': ash_buf_adds(b, "\\\\"); break;
        case '\n': ash_buf_adds(b, "\\n"); break;
        case '\r': ash_buf_adds(b, "\\r"); break;
        case '\t': ash_buf_adds(b, "\\t"); break;
        case '\b': ash_buf_adds(b, "\\b"); break;
        case '\f': ash_buf_adds(b, "\\f"); break;
        default:
            if (cp < 32 || (ascii && k > 1 && cp < 65536))
                ash_buf_addf(b, "\\u%04x", cp);
            else if (ascii && k > 1)
                ash_buf_addf(b, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10), 0xdc00 + (cp & 0x3ff));
            else if (ascii && cp == 127)
                ash_buf_addc(b, 127);
            else
                ash_buf_add(b, s.p + i, k);
        }
    }
    ash_buf_addc(b, '"');
}

static ash_status json_break(tmpl_ctx *c, ash_buf *b, const tmpl_json_opts *o, int depth) {
    if (!o->pretty) return ASH_OK;
    ash_buf_addc(b, '\n');
    for (int i = 0; i < depth; i++) ash_buf_add(b, o->indent.p, o->indent.n);
    return room(c, b);
}

static int by_key(const void *a, const void *b) {
    ash_str x = *(const ash_str *)a, y = *(const ash_str *)b;
    int r = memcmp(x.p, y.p, ASH_MIN(x.n, y.n));
    return r ? r : (x.n > y.n) - (x.n < y.n);
}

ash_status ash_tv_json(tmpl_ctx *c, ash_buf *b, const tv *v, const tmpl_json_opts *o, int depth) {
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    bool dict = v->kind == TV_DICT;
    if (v->kind == TV_LIST && v->u.l->form > TL_TUPLE) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s has no JSON form", ash_tv_kind_name(v));
    size_t n = dict ? v->u.d->n : v->kind == TV_LIST ? v->u.l->n : 0;
    ash_str *keys = dict ? v->u.d->k : NULL;
    if (dict && o->sort && n) {
        keys = ash_tmpl_alloc(c, n * sizeof *keys);
        if (!keys) return ash_tmpl_nomem(c);
        memcpy(keys, v->u.d->k, n * sizeof *keys);
        qsort(keys, n, sizeof *keys, by_key);
    }
    switch ((tv_kind)v->kind) {
    case TV_NONE: ash_buf_adds(b, "null"); break;
    case TV_BOOL: ash_buf_adds(b, v->u.b ? "true" : "false"); break;
    case TV_INT: ash_buf_addf(b, "%lld", (long long)v->u.i); break;
    case TV_FLOAT: print_float(b, v->u.f, true); break;
    case TV_STR: json_string(b, v->u.s, o->ascii); break;
    case TV_LIST:
    case TV_DICT:
        ash_buf_addc(b, dict ? '{' : '[');
        for (size_t i = 0; i < n; i++) {
            if (i) ash_buf_add(b, o->item.p, o->item.n);
            ASH_TRY(json_break(c, b, o, depth + 1));
            if (dict) {
                json_string(b, keys[i], o->ascii);
                ash_buf_add(b, o->key.p, o->key.n);
            }
            ASH_TRY(ash_tv_json(c, b, dict ? ash_tv_dict_get(v->u.d, keys[i]) : &v->u.l->v[i], o, depth + 1));
        }
        if (n) ASH_TRY(json_break(c, b, o, depth));
        ash_buf_addc(b, dict ? '}' : ']');
        break;
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "%s has no JSON form", ash_tv_kind_name(v));
    }
    return room(c, b);
}

/* ---- into the arena ---- */
ash_status ash_tv_from_buf(tmpl_ctx *c, ash_buf *b, ash_status st, tv *out) {
    if (st == ASH_OK && !ash_buf_ok(b)) st = ash_tmpl_nomem(c);
    if (st == ASH_OK) {
        char *p = ash_tmpl_alloc(c, b->n + 1);
        if (!p)
            st = ash_tmpl_nomem(c);
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

/* ---- dates: C's strftime in the C locale, without asking the environment ---- */
ash_status ash_tmpl_strftime(tmpl_ctx *c, ash_buf *b, ash_str fmt, const struct tm *t) {
    static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
    static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
    const char *day = days[t->tm_wday >= 0 && t->tm_wday < 7 ? t->tm_wday : 0],
               *month = months[t->tm_mon >= 0 && t->tm_mon < 12 ? t->tm_mon : 0];
    int hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12, year = t->tm_year + 1900;
    for (size_t i = 0; i < fmt.n; i++) {
        if (fmt.p[i] != '%') {
            ash_buf_addc(b, fmt.p[i]);
            continue;
        }
        if (++i == fmt.n) return ash_tmpl_fail(c, ASH_E_FORMAT, "a date format ends in %%");
        int pad = 2; /* %-d: no padding, %_d is left out */
        if (fmt.p[i] == '-' && i + 1 < fmt.n) pad = 1, i++;
        switch (fmt.p[i]) {
        case '%': ash_buf_addc(b, '%'); break;
        case 'a': ash_buf_add(b, day, 3); break;
        case 'A': ash_buf_adds(b, day); break;
        case 'b':
        case 'h': ash_buf_add(b, month, 3); break;
        case 'B': ash_buf_adds(b, month); break;
        case 'c': ash_buf_addf(b, "%.3s %.3s %2d %02d:%02d:%02d %d", day, month, t->tm_mday, t->tm_hour, t->tm_min, t->tm_sec, year); break;
        case 'd': ash_buf_addf(b, "%0*d", pad, t->tm_mday); break;
        case 'D':
        case 'x': ash_buf_addf(b, "%02d/%02d/%02d", t->tm_mon + 1, t->tm_mday, year % 100); break;
        case 'e': ash_buf_addf(b, "%2d", t->tm_mday); break;
        case 'f': ash_buf_adds(b, "000000"); break;
        case 'F': ash_buf_addf(b, "%d-%02d-%02d", year, t->tm_mon + 1, t->tm_mday); break;
        case 'H': ash_buf_addf(b, "%0*d", pad, t->tm_hour); break;
        case 'I': ash_buf_addf(b, "%0*d", pad, hour12); break;
        case 'j': ash_buf_addf(b, "%0*d", pad == 1 ? 1 : 3, t->tm_yday + 1); break;
        case 'm': ash_buf_addf(b, "%0*d", pad, t->tm_mon + 1); break;
        case 'M': ash_buf_addf(b, "%0*d", pad, t->tm_min); break;
        case 'n': ash_buf_addc(b, '\n'); break;
        case 'p': ash_buf_adds(b, t->tm_hour < 12 ? "AM" : "PM"); break;
        case 'R': ash_buf_addf(b, "%02d:%02d", t->tm_hour, t->tm_min); break;
        case 'S': ash_buf_addf(b, "%0*d", pad, t->tm_sec); break;
        case 't': ash_buf_addc(b, '\t'); break;
        case 'T':
        case 'X': ash_buf_addf(b, "%02d:%02d:%02d", t->tm_hour, t->tm_min, t->tm_sec); break;
        case 'u': ash_buf_addf(b, "%d", t->tm_wday ? t->tm_wday : 7); break;
        case 'w': ash_buf_addf(b, "%d", t->tm_wday); break;
        case 'y': ash_buf_addf(b, "%0*d", pad, year % 100); break;
        case 'Y': ash_buf_addf(b, "%d", year); break;
        case 'z':
        case 'Z': break; /* a time without a zone prints none */
        default: return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the date format %%%c is not supported", fmt.p[i]);
        }
    }
    return room(c, b);
}
