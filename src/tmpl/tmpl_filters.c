/* tmpl_filters.c - filters of sequences, mappings and numbers; methods of dictionaries and lists; the lookup of
 * both kinds. A new one is a static function and a row. Arguments are checked against the row's least and greatest
 * number before the function runs; keyword arguments are looked up by name. */
#include "tmpl/tmpl_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define arg ash_tmpl_arg

const tv *ash_tmpl_arg(const tmpl_args *a, int i, const char *name) {
    for (int k = 0; k < a->n; k++)
        if (a->kw[k].n && name && str_eq(a->kw[k], name)) return &a->v[k];
    return i >= 0 && i < a->n && a->kw[i].n == 0 ? &a->v[i] : NULL;
}

ash_status ash_tmpl_want_str(tmpl_ctx *c, const tv *v, ash_str *out) {
    *out = (ash_str){"", 0};
    if (v->kind == TV_STR) return *out = v->u.s, ASH_OK;
    if (v->kind == TV_UNDEF) return ash_tv_undefined(c, v);
    return ash_tmpl_fail(c, ASH_E_FORMAT, "expected a string, got %s", ash_tv_kind_name(v));
}

static bool flag(const tmpl_args *a, int i, const char *name) {
    const tv *v = arg(a, i, name);
    return v && ash_tv_true(v);
}

static ash_status add(tv *l, tv v) { return l->u.l->v[l->u.l->n++] = v, ASH_OK; } /* room was made by list_new */

/* x.a.0.b as the filters' `attribute` says it; *out may come out undefined. */
static ash_status attribute(tmpl_ctx *c, tv x, const tv *path, tv *out) {
    if (path->kind == TV_INT) return ash_tv_item(c, &x, path, out);
    ash_str p;
    ASH_TRY(ash_tmpl_want_str(c, path, &p));
    for (size_t i = 0;;) {
        size_t e = i;
        bool digits = true;
        int64_t n = 0;
        for (; e < p.n && p.p[e] != '.'; e++) {
            digits = digits && p.p[e] >= '0' && p.p[e] <= '9' && e - i < 18;
            if (digits) n = n * 10 + (p.p[e] - '0');
        }
        tv key = digits && e > i ? tv_int(n) : tv_str(p.p + i, e - i);
        ASH_TRY(ash_tv_item(c, &x, &key, out));
        if (e >= p.n) return ASH_OK;
        x = *out;
        i = e + 1;
    }
}

static ash_status lowered(tmpl_ctx *c, tv v, tv *out) {
    static const ash_str name = {"lower", 5};
    static const tmpl_args none;
    *out = v;
    return v.kind == TV_STR ? ash_tmpl_filter(c, name, &v, &none, out) : ASH_OK;
}

/* ---- sequences ---- */
static ash_status f_length(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_LIST && self->u.l->form != TL_ITER) return *out = tv_int((int64_t)self->u.l->n), ASH_OK;
    if (self->kind == TV_DICT) return *out = tv_int((int64_t)self->u.d->n), ASH_OK;
    if (self->kind == TV_UNDEF) return *out = tv_int(0), ASH_OK;
    if (self->kind != TV_STR) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s has no length", ash_tv_kind_name(self));
    *out = tv_int(ash_tmpl_chars(self->u.s));
    return ASH_OK;
}

static ash_status f_default(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    const tv *d = arg(a, 0, "default_value");
    bool use = self->kind == TV_UNDEF || (flag(a, 1, "boolean") && !ash_tv_true(self));
    *out = !use ? *self : d ? *d : tv_str("", 0);
    return ASH_OK;
}

static ash_status end_item(tmpl_ctx *c, const tv *self, bool last, tv *out) {
    if (last && self->kind == TV_LIST && self->u.l->form == TL_ITER) return ash_tmpl_fail(c, ASH_E_FORMAT, "an iterator has no last item");
    tv end = tv_int(last ? -1 : 0);
    if (self->kind == TV_STR) return ash_tv_item(c, self, &end, out);
    tv_list l;
    ASH_TRY(ash_tv_items(c, self, &l));
    *out = l.n ? l.v[last ? l.n - 1 : 0] : tv_undef((ash_str){"an item of nothing", 18});
    return ASH_OK;
}
static ash_status f_first(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return end_item(c, self, false, out);
}
static ash_status f_last(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return end_item(c, self, true, out);
}

static ash_status f_list(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    tv_list l;
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(ash_tv_list_new(c, TL_LIST, 0, out));
    out->u.l->v = l.v;
    out->u.l->n = l.n;
    return ASH_OK;
}

static ash_status f_join(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str sep = {"", 0};
    tv_list l;
    ash_buf b = {0};
    const tv *d = arg(a, 0, "d"), *by = arg(a, 1, "attribute");
    if (d) ASH_TRY(ash_tv_str(c, d, &sep));
    ASH_TRY(ash_tv_items(c, self, &l));
    ash_status st = ASH_OK;
    for (size_t i = 0; i < l.n && st == ASH_OK; i++) {
        tv x = l.v[i];
        if (i) ash_buf_add(&b, sep.p, sep.n);
        if (by) st = attribute(c, l.v[i], by, &x);
        if (st == ASH_OK) st = ash_tv_print(c, &b, &x, false, 0);
    }
    return ash_tv_from_buf(c, &b, st, out);
}

static ash_status f_reverse(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_STR) {
        tv step = tv_int(-1);
        return ash_tv_slice(c, self, NULL, NULL, &step, out);
    }
    tv_list l;
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(ash_tv_list_new(c, TL_ITER, l.n, out));
    for (size_t i = l.n; i-- > 0;) add(out, l.v[i]);
    return ASH_OK;
}

typedef struct {
    tv key, val;
} keyed;

/* Merge sort, stable; `down` keeps the order of equals, too, as Python's reverse=True does. */
static ash_status sort_keyed(tmpl_ctx *c, keyed *k, size_t n, bool down) {
    keyed *t = ash_tmpl_alloc(c, n * sizeof *t), *from = k, *to = t;
    if (!t) return ash_tmpl_nomem(c);
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w) {
            size_t mid = ASH_MIN(lo + w, n), hi = ASH_MIN(lo + 2 * w, n), i = lo, j = mid;
            for (size_t o = lo; o < hi; o++) {
                bool right = i == mid;
                if (i < mid && j < hi)
                    ASH_TRY(ash_tv_less(c, down ? &from[i].key : &from[j].key, down ? &from[j].key : &from[i].key, 0, &right));
                to[o] = right ? from[j++] : from[i++];
            }
        }
        keyed *x = from;
        from = to;
        to = x;
    }
    if (from != k) memcpy(k, from, n * sizeof *k);
    return ASH_OK;
}

static ash_status keys_of(tmpl_ctx *c, const tv_list *l, const tv *by, bool cased, keyed **out) {
    keyed *k = ash_tmpl_alloc(c, l->n * sizeof *k);
    if (!k) return ash_tmpl_nomem(c);
    for (size_t i = 0; i < l->n; i++) {
        k[i] = (keyed){l->v[i], l->v[i]};
        if (by && by->kind != TV_NONE) ASH_TRY(attribute(c, l->v[i], by, &k[i].key));
        if (!cased) ASH_TRY(lowered(c, k[i].key, &k[i].key));
    }
    *out = k;
    return ASH_OK;
}

static ash_status f_sort(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    tv_list l;
    keyed *k;
    const tv *by = arg(a, 2, "attribute");
    if (by && by->kind == TV_STR && by->u.s.n && memchr(by->u.s.p, ',', by->u.s.n))
        return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "sorting by several attributes is not supported");
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(keys_of(c, &l, by, flag(a, 1, "case_sensitive"), &k));
    ASH_TRY(sort_keyed(c, k, l.n, flag(a, 0, "reverse")));
    ASH_TRY(ash_tv_list_new(c, TL_LIST, l.n, out));
    for (size_t i = 0; i < l.n; i++) add(out, k[i].val);
    return ASH_OK;
}

static ash_status f_unique(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    tv_list l;
    keyed *k;
    size_t n = 0;
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(keys_of(c, &l, arg(a, 1, "attribute"), flag(a, 0, "case_sensitive"), &k));
    ASH_TRY(ash_tv_list_new(c, TL_ITER, l.n, out));
    for (size_t i = 0; i < l.n; i++) {
        bool seen = false;
        for (size_t j = 0; j < n && !seen; j++) ASH_TRY(ash_tv_equal(c, &k[j].key, &k[i].key, 0, &seen));
        if (seen) continue;
        k[n++] = k[i];
        add(out, k[i].val);
    }
    return ASH_OK;
}

static ash_status extreme(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool max, tv *out) {
    tv_list l;
    keyed *k;
    size_t best = 0;
    ASH_TRY(ash_tv_items(c, self, &l));
    if (!l.n) return *out = tv_undef((ash_str){"the least or greatest of nothing", 32}), ASH_OK;
    ASH_TRY(keys_of(c, &l, arg(a, 1, "attribute"), flag(a, 0, "case_sensitive"), &k));
    for (size_t i = 1; i < l.n; i++) {
        bool better;
        ASH_TRY(ash_tv_less(c, max ? &k[best].key : &k[i].key, max ? &k[i].key : &k[best].key, 0, &better));
        if (better) best = i;
    }
    return *out = l.v[best], ASH_OK;
}
static ash_status f_min(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return extreme(c, self, a, false, out); }
static ash_status f_max(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return extreme(c, self, a, true, out); }

static ash_status f_sum(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    tv_list l;
    const tv *by = arg(a, 0, "attribute"), *start = arg(a, 1, "start");
    tv sum = start ? *start : tv_int(0), x;
    ASH_TRY(ash_tv_items(c, self, &l));
    if (sum.kind == TV_STR) return ash_tmpl_fail(c, ASH_E_FORMAT, "sum of strings");
    for (size_t i = 0; i < l.n; i++) {
        x = l.v[i];
        if (by && by->kind != TV_NONE) ASH_TRY(attribute(c, l.v[i], by, &x));
        tv r;
        ASH_TRY(ash_tv_binary(c, OP_ADD, &sum, &x, &r));
        sum = r;
    }
    return *out = sum, ASH_OK;
}

static ash_status f_batch(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    tv_list l;
    int64_t n;
    const tv *fill = arg(a, 1, "fill_with");
    if (!ash_tv_int(&a->v[0], &n) || n < 1 || n > TMPL_MAX_RANGE) return ash_tmpl_fail(c, ASH_E_FORMAT, "batch needs a positive number");
    ASH_TRY(ash_tv_items(c, self, &l));
    ASH_TRY(ash_tv_list_new(c, TL_ITER, l.n / (size_t)n + 1, out));
    for (size_t i = 0; i < l.n;) {
        tv row;
        ASH_TRY(ash_tv_list_new(c, TL_LIST, (size_t)n, &row));
        while (i < l.n && row.u.l->n < (size_t)n) add(&row, l.v[i++]);
        while (fill && fill->kind != TV_NONE && row.u.l->n < (size_t)n) add(&row, *fill);
        add(out, row);
    }
    return ASH_OK;
}

/* ---- filters that take a filter's or test's name ---- */
static tmpl_args rest_of(const tmpl_args *a, int skip) {
    tmpl_args r = {.n = 0};
    for (int i = skip; i < a->n; i++, r.n++) r.v[r.n] = a->v[i], r.kw[r.n] = a->kw[i];
    return r;
}

/* Jinja2's map and select give nothing for what is false, whether or not one could loop over it. */
static ash_status items_if_true(tmpl_ctx *c, const tv *v, tv_list *l) {
    *l = (tv_list){0};
    return ash_tv_true(v) ? ash_tv_items(c, v, l) : ASH_OK;
}

static ash_status f_map(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    tv_list l;
    const tv *by = arg(a, -1, "attribute"), *def = arg(a, -1, "default");
    ASH_TRY(items_if_true(c, self, &l));
    ASH_TRY(ash_tv_list_new(c, TL_ITER, l.n, out));
    ash_str name = {"", 0};
    if (!by) {
        if (!a->n || a->kw[0].n) return ash_tmpl_fail(c, ASH_E_FORMAT, "map needs a filter's name or an attribute");
        ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &name));
    }
    tmpl_args rest = rest_of(a, 1);
    for (size_t i = 0; i < l.n; i++) {
        tv x;
        ASH_TRY(ash_tmpl_step(c));
        if (by) {
            ASH_TRY(attribute(c, l.v[i], by, &x));
            if (x.kind == TV_UNDEF && def) x = *def;
        } else
            ASH_TRY(ash_tmpl_filter(c, name, &l.v[i], &rest, &x));
        add(out, x);
    }
    return ASH_OK;
}

static ash_status choose(tmpl_ctx *c, const tv *self, const tmpl_args *a, bool keep, bool attr, tv *out) {
    tv_list l;
    ASH_TRY(items_if_true(c, self, &l));
    ASH_TRY(ash_tv_list_new(c, TL_ITER, l.n, out));
    ash_str test = {"", 0};
    bool has_test = a->n > attr;
    if (has_test) ASH_TRY(ash_tmpl_want_str(c, &a->v[attr], &test));
    tmpl_args rest = rest_of(a, attr + 1);
    for (size_t i = 0; i < l.n; i++) {
        tv x = l.v[i];
        bool yes;
        ASH_TRY(ash_tmpl_step(c));
        if (attr) ASH_TRY(attribute(c, l.v[i], &a->v[0], &x));
        if (has_test)
            ASH_TRY(ash_tmpl_test(c, test, &x, &rest, &yes));
        else
            yes = ash_tv_true(&x);
        if (yes == keep) add(out, l.v[i]);
    }
    return ASH_OK;
}
static ash_status f_select(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return choose(c, self, a, true, false, out); }
static ash_status f_reject(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return choose(c, self, a, false, false, out); }
static ash_status f_selectattr(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return choose(c, self, a, true, true, out); }
static ash_status f_rejectattr(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return choose(c, self, a, false, true, out); }

/* ---- dictionaries ---- */
static ash_status pairs(tmpl_ctx *c, const tv_dict *d, tv_form form, tv *out) {
    ASH_TRY(ash_tv_list_new(c, form, d->n, out));
    for (size_t i = 0; i < d->n; i++) {
        tv p;
        ASH_TRY(ash_tv_list_new(c, TL_TUPLE, 2, &p));
        add(&p, tv_str(d->k[i].p, d->k[i].n));
        add(&p, d->v[i]);
        add(out, p);
    }
    return ASH_OK;
}
static ash_status m_items(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    return pairs(c, self->u.d, TL_ITEMS, out);
}
static ash_status f_items(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    if (self->kind == TV_UNDEF) return ash_tv_list_new(c, TL_ITER, 0, out);
    if (self->kind != TV_DICT) return ash_tmpl_fail(c, ASH_E_FORMAT, "items of %s", ash_tv_kind_name(self));
    return pairs(c, self->u.d, TL_ITER, out);
}
static ash_status m_keys(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ASH_TRY(f_list(c, self, a, out));
    out->u.l->form = TL_KEYS;
    return ASH_OK;
}
static ash_status m_values(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    ASH_TRY(ash_tv_list_new(c, TL_VALUES, 0, out));
    out->u.l->v = self->u.d->v;
    out->u.l->n = self->u.d->n;
    return ASH_OK;
}
static ash_status m_get(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    const tv *v = a->v[0].kind == TV_STR ? ash_tv_dict_get(self->u.d, a->v[0].u.s) : NULL;
    *out = v ? *v : a->n > 1 ? a->v[1] : (tv){.kind = TV_NONE};
    return ASH_OK;
}
static ash_status m_copy(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    ASH_TRY(ash_tv_dict_new(c, out));
    for (size_t i = 0; i < self->u.d->n; i++) ASH_TRY(ash_tv_dict_set(c, out->u.d, self->u.d->k[i], self->u.d->v[i]));
    return ASH_OK;
}

/* dictsort(case_sensitive=false, by="key", reverse=false) */
static ash_status f_dictsort(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *by = arg(a, 1, "by");
    bool val = by && by->kind == TV_STR && str_eq(by->u.s, "value"), cased = flag(a, 0, "case_sensitive");
    if (by && !val && !(by->kind == TV_STR && str_eq(by->u.s, "key")))
        return ash_tmpl_fail(c, ASH_E_FORMAT, "dictsort is by \"key\" or \"value\"");
    if (self->kind == TV_UNDEF) return ash_tv_undefined(c, self);
    if (self->kind != TV_DICT) return ash_tmpl_fail(c, ASH_E_FORMAT, "dictsort of %s", ash_tv_kind_name(self));
    ASH_TRY(pairs(c, self->u.d, TL_LIST, out));
    tv_list *l = out->u.l;
    keyed *k = ash_tmpl_alloc(c, l->n * sizeof *k);
    if (!k) return ash_tmpl_nomem(c);
    for (size_t i = 0; i < l->n; i++) {
        k[i] = (keyed){l->v[i].u.l->v[val], l->v[i]};
        if (!cased) ASH_TRY(lowered(c, k[i].key, &k[i].key));
    }
    ASH_TRY(sort_keyed(c, k, l->n, flag(a, 2, "reverse")));
    for (size_t i = 0; i < l->n; i++) l->v[i] = k[i].val;
    return ASH_OK;
}

static ash_status m_list_index(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    for (size_t i = 0; i < self->u.l->n; i++) {
        bool same;
        ASH_TRY(ash_tv_equal(c, &self->u.l->v[i], &a->v[0], 0, &same));
        if (same) return *out = tv_int((int64_t)i), ASH_OK;
    }
    return ash_tmpl_fail(c, ASH_E_FORMAT, "the item looked for is not there");
}
static ash_status m_list_count(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    int64_t n = 0;
    for (size_t i = 0; i < self->u.l->n; i++) {
        bool same;
        ASH_TRY(ash_tv_equal(c, &self->u.l->v[i], &a->v[0], 0, &same));
        n += same;
    }
    return *out = tv_int(n), ASH_OK;
}

/* ---- conversions ---- */
/* A number as Python's int() and float() read one: digits with single underscores between. */
static bool parse_number(ash_str s, bool whole, double *f, int64_t *i) {
    char t[64], *end;
    size_t n = 0;
    s = ash_tmpl_strip(s, NULL, true, true);
    if (!s.n || s.n >= sizeof t) return false;
    for (size_t k = 0; k < s.n; k++) {
        char ch = s.p[k];
        if (ch == '_' && k && k + 1 < s.n && s.p[k - 1] >= '0' && s.p[k - 1] <= '9' && s.p[k + 1] >= '0' && s.p[k + 1] <= '9') continue;
        bool ok = (ch >= '0' && ch <= '9') || ch == '-' || ch == '+' || (!whole && (ch == '.' || ch == 'e' || ch == 'E'));
        if (!ok) return false;
        t[n++] = ch;
    }
    t[n] = 0;
    if (whole && n > 19) return false;
    if (whole)
        *i = strtoll(t, &end, 10);
    else
        *f = strtod(t, &end);
    return end != t && *end == 0;
}
static ash_status f_int(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *d = arg(a, 0, "default");
    double f;
    int64_t i;
    *out = d ? *d : tv_int(0);
    if (self->kind == TV_UNDEF) return ash_tv_undefined(c, self);
    if (arg(a, 1, "base")) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "int with a base is not supported");
    if (ash_tv_int(self, &i))
        *out = tv_int(i);
    else if (self->kind == TV_FLOAT && fabs(self->u.f) < 9e18)
        *out = tv_int((int64_t)self->u.f);
    else if (self->kind == TV_STR && parse_number(self->u.s, true, &f, &i))
        *out = tv_int(i);
    else if (self->kind == TV_STR && parse_number(self->u.s, false, &f, &i) && fabs(f) < 9e18)
        *out = tv_int((int64_t)f);
    return ASH_OK;
}
static ash_status f_float(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *d = arg(a, 0, "default");
    double f;
    int64_t i;
    if (self->kind == TV_UNDEF) return ash_tv_undefined(c, self);
    if (ash_tv_number(self, &f) || (self->kind == TV_STR && parse_number(self->u.s, false, &f, &i)))
        *out = (tv){.kind = TV_FLOAT, .u.f = f};
    else
        *out = d ? *d : (tv){.kind = TV_FLOAT, .u.f = 0};
    return ASH_OK;
}
static ash_status f_round(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *p = arg(a, 0, "precision"), *m = arg(a, 1, "method");
    int64_t digits = 0;
    double x;
    if (p && !ash_tv_int(p, &digits)) return ash_tmpl_fail(c, ASH_E_FORMAT, "round needs an integer");
    if (!ash_tv_number(self, &x)) return ash_tmpl_fail(c, ASH_E_FORMAT, "round of %s", ash_tv_kind_name(self));
    if (digits < 0 || digits > 20) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "round to %lld digits is not supported", (long long)digits);
    bool ceil_it = m && m->kind == TV_STR && str_eq(m->u.s, "ceil"), floor_it = m && m->kind == TV_STR && str_eq(m->u.s, "floor");
    if (m && !ceil_it && !floor_it && !(m->kind == TV_STR && str_eq(m->u.s, "common")))
        return ash_tmpl_fail(c, ASH_E_FORMAT, "round: unknown method");
    if (ceil_it || floor_it) {
        double unit = pow(10, (double)digits);
        x = (ceil_it ? ceil(x * unit) : floor(x * unit)) / unit;
    } else if (self->kind != TV_FLOAT)
        return ash_tv_int(self, &digits), *out = tv_int(digits), ASH_OK;
    else {
        char t[400]; /* a double has at most 309 digits before the point */
        snprintf(t, sizeof t, "%.*f", (int)digits, x);
        x = strtod(t, NULL);
    }
    *out = (tv){.kind = TV_FLOAT, .u.f = x};
    return ASH_OK;
}
static ash_status f_abs(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    int64_t i;
    if (self->kind == TV_FLOAT) return *out = (tv){.kind = TV_FLOAT, .u.f = fabs(self->u.f)}, ASH_OK;
    if (self->kind == TV_UNDEF) return ash_tv_undefined(c, self);
    if (!ash_tv_int(self, &i) || i == INT64_MIN) return ash_tmpl_fail(c, ASH_E_FORMAT, "abs of %s", ash_tv_kind_name(self));
    *out = tv_int(i < 0 ? -i : i);
    return ASH_OK;
}

/* json.dumps(x, ensure_ascii, indent, separators, sort_keys) */
static ash_status f_tojson(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
    for (int k = 0; k < a->n; k++) {
        bool known = a->kw[k].n == 0;
        for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) known = known || str_eq(a->kw[k], names[i]);
        if (!known) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "this argument of tojson is not supported");
    }
    const tv *ind = arg(a, 1, "indent"), *sep = arg(a, 2, "separators");
    ash_buf b = {0}, pad = {0};
    tmpl_json_opts o = {.item = {", ", 2}, .key = {": ", 2}, .ascii = flag(a, 0, "ensure_ascii"), .sort = flag(a, 3, "sort_keys")};
    int64_t w;
    o.pretty = ind && ind->kind != TV_NONE;
    if (o.pretty) o.item.n = 1;
    if (o.pretty && ind->kind == TV_STR)
        o.indent = ind->u.s;
    else if (o.pretty) {
        if (!ash_tv_int(ind, &w)) return ash_tmpl_fail(c, ASH_E_FORMAT, "the indent of tojson is %s", ash_tv_kind_name(ind));
        if (w > 100) return ash_tmpl_fail(c, ASH_E_LIMIT, "tojson indented by %lld", (long long)w);
        for (int64_t i = 0; i < w; i++) ash_buf_addc(&pad, ' ');
        if (!ash_buf_ok(&pad))
            b.oom = true;
        else
            o.indent = (ash_str){pad.p ? pad.p : "", pad.n};
    }
    ash_status st = ASH_OK;
    if (sep && sep->kind != TV_NONE) {
        if (sep->kind != TV_LIST || sep->u.l->n != 2 || sep->u.l->v[0].kind != TV_STR || sep->u.l->v[1].kind != TV_STR)
            st = ash_tmpl_fail(c, ASH_E_FORMAT, "the separators of tojson are two strings");
        else
            o.item = sep->u.l->v[0].u.s, o.key = sep->u.l->v[1].u.s;
    }
    if (st == ASH_OK) st = ash_tv_json(c, &b, self, &o, 0);
    st = ash_tv_from_buf(c, &b, st, out);
    ash_buf_free(&pad);
    return st;
}
static ash_status f_attr(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ash_str name;
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &name));
    if (self->kind == TV_UNDEF) return ash_tv_undefined(c, self);
    if (self->kind == TV_DICT && !ash_tmpl_method(self, name)) return *out = tv_undef(name), ASH_OK; /* attributes only, no keys */
    return ash_tv_attr(c, self, name, out);
}

static const tmpl_func filters[] = {
    {"abs", 0, 0, f_abs},
    {"attr", 1, 1, f_attr},
    {"batch", 1, 2, f_batch},
    {"count", 0, 0, f_length},
    {"d", 0, 2, f_default},
    {"default", 0, 2, f_default},
    {"dictsort", 0, 3, f_dictsort},
    {"first", 0, 0, f_first},
    {"float", 0, 1, f_float},
    {"int", 0, 2, f_int},
    {"items", 0, 0, f_items},
    {"join", 0, 2, f_join},
    {"last", 0, 0, f_last},
    {"length", 0, 0, f_length},
    {"list", 0, 0, f_list},
    {"map", 1, TMPL_MAX_ARGS, f_map},
    {"max", 0, 2, f_max},
    {"min", 0, 2, f_min},
    {"reject", 0, TMPL_MAX_ARGS, f_reject},
    {"rejectattr", 1, TMPL_MAX_ARGS, f_rejectattr},
    {"reverse", 0, 0, f_reverse},
    {"round", 0, 2, f_round},
    {"select", 0, TMPL_MAX_ARGS, f_select},
    {"selectattr", 1, TMPL_MAX_ARGS, f_selectattr},
    {"sort", 0, 3, f_sort},
    {"sum", 0, 2, f_sum},
    {"tojson", 0, 4, f_tojson},
    {"unique", 0, 2, f_unique},
};
static const tmpl_func dict_methods[] = {
    {"copy", 0, 0, m_copy}, {"get", 1, 2, m_get}, {"items", 0, 0, m_items}, {"keys", 0, 0, m_keys}, {"values", 0, 0, m_values}};
static const tmpl_func list_methods[] = {{"count", 1, 1, m_list_count}, {"index", 1, 1, m_list_index}};

/* ---- lookup ---- */
const tmpl_func *ash_tmpl_find(const tmpl_func *t, size_t n, ash_str name) {
    for (size_t i = 0; i < n; i++)
        if (str_eq(name, t[i].name)) return &t[i];
    return NULL;
}

ash_status ash_tmpl_call(tmpl_ctx *c, const tmpl_func *f, const char *kind, const tv *self, const tmpl_args *a, tv *out) {
    if (a->n < f->min || a->n > f->max)
        return ash_tmpl_fail(c, ASH_E_FORMAT, "%s %s takes %d to %d arguments, not %d", kind, f->name, f->min, f->max, a->n);
    return f->fn(c, self, a, out);
}

ash_status ash_tmpl_unknown(tmpl_ctx *c, const char *kind, ash_str name) {
    return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "the %s \"%.*s\" is not supported", kind, (int)ASH_MIN(name.n, (size_t)60), name.p);
}

ash_status ash_tmpl_filter(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, tv *out) {
    const tmpl_func *f = ash_tmpl_find(filters, ASH_ARRAY_LEN(filters), name);
    if (!f) f = ash_tmpl_find(ash_tmpl_str_filters, ash_tmpl_n_str_filters, name);
    return f ? ash_tmpl_call(c, f, "filter", self, a, out) : ash_tmpl_unknown(c, "filter", name);
}

const tmpl_func *ash_tmpl_method(const tv *self, ash_str name) {
    if (self->kind == TV_STR) return ash_tmpl_find(ash_tmpl_str_methods, ash_tmpl_n_str_methods, name);
    if (self->kind == TV_DICT) return ash_tmpl_find(dict_methods, ASH_ARRAY_LEN(dict_methods), name);
    if (self->kind == TV_LIST && self->u.l->form <= TL_RANGE) return ash_tmpl_find(list_methods, ASH_ARRAY_LEN(list_methods), name);
    return NULL;
}
