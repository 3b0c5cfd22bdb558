/* tmpl_value.c - what can be done with values: truth, comparison, lookup, slices, looping. Python's
 * rules, as far as templates can see them. Strings are UTF-8; positions and lengths count characters. */
#include "tmpl/tmpl_int.h"

const char *ash_tv_kind_name(const tv *v) {
    static const char *const names[] = {"an undefined value", "none",        "a bool", "an integer", "a number", "a string", "a list",
                                        "a dictionary",       "a namespace", "a loop", "a function", "a macro"};
    static const char *const forms[] = {"a list",          "a tuple",           "a range",         "an iterator",
                                        "dictionary keys", "dictionary values", "dictionary items"};
    return v->kind == TV_LIST ? forms[v->u.l->form] : names[v->kind];
}

ash_status ash_tv_undefined(tmpl_ctx *c, const tv *v) {
    return ash_tmpl_fail(c, ASH_E_FORMAT, "\"%.*s\" is not defined", (int)ASH_MIN(v->u.s.n, (size_t)60), v->u.s.p);
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

int64_t ash_tmpl_chars(ash_str s) {
    int64_t n = 0;
    for (size_t i = 0; i < s.n; n++) {
        uint32_t cp;
        i += ash_tmpl_char(s.p + i, s.n - i, &cp);
    }
    return n;
}

bool ash_tv_true(const tv *v) {
    switch ((tv_kind)v->kind) {
    case TV_UNDEF:
    case TV_NONE: return false;
    case TV_BOOL: return v->u.b;
    case TV_INT: return v->u.i != 0;
    case TV_FLOAT: return v->u.f != 0;
    case TV_STR: return v->u.s.n != 0;
    case TV_LIST: return v->u.l->n != 0 || v->u.l->form == TL_ITER;
    case TV_DICT: return v->u.d->n != 0;
    default: return true;
    }
}

bool ash_tv_number(const tv *v, double *f) {
    if (v->kind == TV_BOOL) return *f = v->u.b, true;
    if (v->kind == TV_INT) return *f = (double)v->u.i, true;
    if (v->kind == TV_FLOAT) return *f = v->u.f, true;
    return false;
}
bool ash_tv_int(const tv *v, int64_t *i) {
    if (v->kind == TV_BOOL) return *i = v->u.b, true;
    if (v->kind == TV_INT) return *i = v->u.i, true;
    return false;
}

/* ---- lists and dictionaries ---- */
ash_status ash_tv_list_new(tmpl_ctx *c, tv_form form, size_t cap, tv *out) {
    tv_list *l = ash_tmpl_alloc(c, sizeof *l);
    tv *v = l ? ash_tmpl_alloc(c, cap * sizeof *v) : NULL;
    if (!v) return ash_tmpl_nomem(c);
    *l = (tv_list){v, 0, (uint8_t)form};
    *out = (tv){.kind = TV_LIST, .u.l = l};
    return ASH_OK;
}

ash_status ash_tv_dict_new(tmpl_ctx *c, tv *out) {
    tv_dict *d = ash_tmpl_alloc(c, sizeof *d);
    if (!d) return ash_tmpl_nomem(c);
    *d = (tv_dict){0};
    *out = (tv){.kind = TV_DICT, .u.d = d};
    return ASH_OK;
}

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
    if (ash_tv_int(a, &i) && ash_tv_int(b, &j)) return *out = i == j, ASH_OK;
    if (ash_tv_number(a, &x) && ash_tv_number(b, &y)) return *out = x == y, ASH_OK;
    if (a->kind != b->kind) return ASH_OK;
    switch ((tv_kind)a->kind) {
    case TV_UNDEF:
    case TV_NONE: *out = true; break;
    case TV_STR: *out = str_same(a->u.s, b->u.s); break;
    case TV_LIST:
        if (a->u.l->form != b->u.l->form || a->u.l->form == TL_ITER || a->u.l->form == TL_VALUES) {
            *out = a->u.l == b->u.l;
            break;
        }
        if (a->u.l->n != b->u.l->n) break;
        *out = true;
        for (size_t k = 0; *out && k < a->u.l->n; k++) ASH_TRY(ash_tv_equal(c, &a->u.l->v[k], &b->u.l->v[k], depth + 1, out));
        break;
    case TV_DICT:
        if (a->u.d->n != b->u.d->n) break;
        *out = true;
        for (size_t k = 0; *out && k < a->u.d->n; k++) {
            const tv *o = ash_tv_dict_get(b->u.d, a->u.d->k[k]);
            if (!o)
                *out = false;
            else
                ASH_TRY(ash_tv_equal(c, &a->u.d->v[k], o, depth + 1, out));
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

ash_status ash_tv_less(tmpl_ctx *c, const tv *a, const tv *b, int depth, bool *out) {
    double x, y;
    *out = false;
    if (depth > TMPL_MAX_VALUE_DEPTH) return ash_tmpl_fail(c, ASH_E_LIMIT, "values nested deeper than %d", TMPL_MAX_VALUE_DEPTH);
    ASH_TRY(ash_tmpl_step(c));
    int64_t i, j;
    if (ash_tv_int(a, &i) && ash_tv_int(b, &j)) return *out = i < j, ASH_OK;
    if (ash_tv_number(a, &x) && ash_tv_number(b, &y)) return *out = x < y, ASH_OK;
    if (a->kind == TV_STR && b->kind == TV_STR) { /* UTF-8 keeps the order of code points */
        int r = memcmp(a->u.s.p, b->u.s.p, ASH_MIN(a->u.s.n, b->u.s.n));
        *out = r < 0 || (r == 0 && a->u.s.n < b->u.s.n);
        return ASH_OK;
    }
    if (a->kind == TV_LIST && b->kind == TV_LIST && a->u.l->form == b->u.l->form &&
        a->u.l->form <= TL_TUPLE) { /* the first difference decides */
        const tv_list *p = a->u.l, *q = b->u.l;
        for (size_t k = 0; k < p->n && k < q->n; k++) {
            bool same;
            ASH_TRY(ash_tv_equal(c, &p->v[k], &q->v[k], depth + 1, &same));
            if (!same) return ash_tv_less(c, &p->v[k], &q->v[k], depth + 1, out);
        }
        *out = p->n < q->n;
        return ASH_OK;
    }
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF) return ash_tv_undefined(c, a->kind == TV_UNDEF ? a : b);
    return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot order %s and %s", ash_tv_kind_name(a), ash_tv_kind_name(b));
}

ash_status ash_tv_contains(tmpl_ctx *c, const tv *in, const tv *x, bool *out) {
    *out = false;
    switch ((tv_kind)in->kind) {
    case TV_UNDEF: return ASH_OK;
    case TV_STR:
        if (x->kind != TV_STR) return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot look for %s in a string", ash_tv_kind_name(x));
        *out = x->u.s.n == 0 || (in->u.s.n && memmem(in->u.s.p, in->u.s.n, x->u.s.p, x->u.s.n) != NULL);
        return ASH_OK;
    case TV_LIST:
        for (size_t i = 0; !*out && i < in->u.l->n; i++) ASH_TRY(ash_tv_equal(c, &in->u.l->v[i], x, 0, out));
        return ASH_OK;
    case TV_DICT: *out = x->kind == TV_STR && ash_tv_dict_get(in->u.d, x->u.s); return ASH_OK;
    default: return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot look into %s", ash_tv_kind_name(in));
    }
}

/* ---- lookup ---- */
size_t ash_tmpl_char_at(ash_str s, int64_t i) {
    size_t at = 0;
    for (; i > 0 && at < s.n; i--) {
        uint32_t cp;
        at += ash_tmpl_char(s.p + at, s.n - at, &cp);
    }
    return at;
}

/* What a dictionary has besides its keys. Those that change it do not exist in the sandbox. */
static bool dict_method(const tv *a, ash_str name, tv *out) {
    const tmpl_func *f = ash_tmpl_method(a, name);
    if (f) *out = (tv){.kind = TV_FUNC, .u.func = f};
    return f != NULL;
}

ash_status ash_tv_item(tmpl_ctx *c, const tv *a, const tv *key, tv *out) {
    int64_t i, n;
    *out = tv_undef(key->kind == TV_STR ? key->u.s : (ash_str){"item", 4});
    switch ((tv_kind)a->kind) {
    case TV_UNDEF: return ash_tv_undefined(c, a);
    case TV_LIST:
    case TV_STR:
        if (!ash_tv_int(key, &i) || (a->kind == TV_LIST && a->u.l->form > TL_RANGE)) return ASH_OK;
        n = a->kind == TV_LIST ? (int64_t)a->u.l->n : ash_tmpl_chars(a->u.s);
        if (i < 0) i += n;
        if (i < 0 || i >= n) return ASH_OK;
        if (a->kind == TV_LIST)
            *out = a->u.l->v[i];
        else {
            size_t p = ash_tmpl_char_at(a->u.s, i);
            uint32_t cp;
            *out = tv_str(a->u.s.p + p, ash_tmpl_char(a->u.s.p + p, a->u.s.n - p, &cp));
            out->safe = a->safe;
        }
        return ASH_OK;
    case TV_DICT:
    case TV_NS:
        if (key->kind == TV_LIST || key->kind == TV_DICT) /* no key of a dictionary: not even looked for */
            return ASH_OK;
        if (key->kind == TV_STR) {
            const tv *v = ash_tv_dict_get(a->u.d, key->u.s);
            if (v)
                *out = *v;
            else if (a->kind == TV_DICT)
                dict_method(a, key->u.s, out);
        }
        return ASH_OK;
    case TV_LOOP: return key->kind == TV_STR ? ash_tv_attr(c, a, key->u.s, out) : ASH_OK;
    default: return ASH_OK;
    }
}

ash_status ash_tv_attr(tmpl_ctx *c, const tv *a, ash_str name, tv *out) {
    if (a->kind == TV_LOOP) {
        const tmpl_loop *l = a->u.loop;
        if (str_eq(name, "index"))
            *out = tv_int(l->i + 1);
        else if (str_eq(name, "index0"))
            *out = tv_int(l->i);
        else if (str_eq(name, "revindex"))
            *out = tv_int(l->n - l->i);
        else if (str_eq(name, "revindex0"))
            *out = tv_int(l->n - l->i - 1);
        else if (str_eq(name, "first"))
            *out = tv_bool(l->i == 0);
        else if (str_eq(name, "last"))
            *out = tv_bool(l->i == l->n - 1);
        else if (str_eq(name, "length"))
            *out = tv_int(l->n);
        else if (str_eq(name, "depth"))
            *out = tv_int(l->depth);
        else if (str_eq(name, "depth0"))
            *out = tv_int(l->depth - 1);
        else if (str_eq(name, "previtem"))
            *out = l->i > 0 ? l->items->v[l->i - 1] : tv_undef(name);
        else if (str_eq(name, "nextitem"))
            *out = l->i + 1 < l->n ? l->items->v[l->i + 1] : tv_undef(name);
        else
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "loop.%.*s is not supported", (int)ASH_MIN(name.n, (size_t)40), name.p);
        return ASH_OK;
    }
    tv key = tv_str(name.p, name.n);
    if (a->kind == TV_DICT) { /* an attribute comes before a key of the same name */
        static const char *const changing[] = {"clear", "pop", "popitem", "setdefault", "update"};
        for (size_t i = 0; i < ASH_ARRAY_LEN(changing); i++)
            if (str_eq(name, changing[i])) return *out = tv_undef(name), ASH_OK;
        if (dict_method(a, name, out)) return ASH_OK;
    }
    return ash_tv_item(c, a, &key, out);
}

static ash_status bound(tmpl_ctx *c, const tv *v, int64_t missing, int64_t n, int64_t lo, int64_t hi, int64_t *out) {
    *out = missing;
    if (!v || v->kind == TV_NONE || v->kind == TV_UNDEF) { /* jinja2 takes None for what is not given */
        if (v && v->kind == TV_UNDEF) return ash_tv_undefined(c, v);
        return ASH_OK;
    }
    if (!ash_tv_int(v, out)) return ash_tmpl_fail(c, ASH_E_FORMAT, "a slice needs integers, not %s", ash_tv_kind_name(v));
    if (*out < 0) *out = *out < -n ? -1 : *out + n;
    *out = *out < lo ? lo : *out > hi ? hi : *out;
    return ASH_OK;
}

ash_status ash_tv_slice(tmpl_ctx *c, const tv *a, const tv *from, const tv *to, const tv *step, tv *out) {
    int64_t n, s = 1, b, e;
    if (a->kind == TV_LIST && a->u.l->form <= TL_RANGE)
        n = (int64_t)a->u.l->n;
    else if (a->kind == TV_STR)
        n = ash_tmpl_chars(a->u.s);
    else if (a->kind == TV_UNDEF)
        return ash_tv_undefined(c, a);
    else
        return ash_tmpl_fail(c, ASH_E_FORMAT, "cannot slice %s", ash_tv_kind_name(a));
    if (step && step->kind != TV_NONE && (!ash_tv_int(step, &s) || s == 0 || s == INT64_MIN))
        return ash_tmpl_fail(c, ASH_E_FORMAT, "bad step of a slice");
    int64_t lo = s > 0 ? 0 : -1, hi = s > 0 ? n : n - 1;
    ASH_TRY(bound(c, from, s > 0 ? 0 : n - 1, n, lo, hi, &b));
    ASH_TRY(bound(c, to, s > 0 ? n : -1, n, lo, hi, &e));
    if (a->kind == TV_STR && s == 1) {
        size_t p = ash_tmpl_char_at(a->u.s, b), q = e > b ? ash_tmpl_char_at(a->u.s, e) : p;
        *out = tv_str(a->u.s.p + p, q - p);
        out->safe = a->safe;
        return ASH_OK;
    }
    tv_list src;
    tv r;
    if (a->kind == TV_STR)
        ASH_TRY(ash_tv_items(c, a, &src));
    else
        src = *a->u.l;
    ASH_TRY(ash_tv_list_new(c, a->kind == TV_LIST ? (tv_form)src.form : TL_LIST, (size_t)n, &r));
    for (int64_t i = b; s > 0 ? i < e : i > e;) {
        r.u.l->v[r.u.l->n++] = src.v[i];
        if (__builtin_add_overflow(i, s, &i)) break;
    }
    if (a->kind == TV_LIST) return *out = r, ASH_OK;
    ash_buf t = {0};
    for (size_t i = 0; i < r.u.l->n; i++) ash_buf_add(&t, r.u.l->v[i].u.s.p, r.u.l->v[i].u.s.n);
    ASH_TRY(ash_tv_from_buf(c, &t, ASH_OK, out));
    out->safe = a->safe;
    return ASH_OK;
}

ash_status ash_tv_items(tmpl_ctx *c, const tv *v, tv_list *out) {
    *out = (tv_list){NULL, 0, TL_LIST};
    switch ((tv_kind)v->kind) {
    case TV_UNDEF: return ASH_OK;
    case TV_LIST:
        *out = *v->u.l;
        if (out->form == TL_ITER) v->u.l->n = 0; /* gone through once */
        return ASH_OK;
    case TV_DICT:
        out->v = ash_tmpl_alloc(c, v->u.d->n * sizeof *out->v);
        if (!out->v) return ash_tmpl_nomem(c);
        for (; out->n < v->u.d->n; out->n++) out->v[out->n] = tv_str(v->u.d->k[out->n].p, v->u.d->k[out->n].n);
        return ASH_OK;
    case TV_STR: {
        ash_str s = v->u.s;
        out->v = ash_tmpl_alloc(c, (size_t)ash_tmpl_chars(s) * sizeof *out->v);
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
