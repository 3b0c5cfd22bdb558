/* tmpl_ops.c - operators on values: Python's arithmetic, text joined and repeated, markup escaped. */
#include "tmpl/tmpl_int.h"

#include <math.h>

static const char *op_name(tmpl_op op) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**", "~"};
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

ash_status ash_tmpl_escape(tmpl_ctx *c, ash_str s, tv *out) {
    ash_buf b = {0};
    for (size_t i = 0; i < s.n; i++) switch (s.p[i]) {
        case '&': ash_buf_adds(&b, "&amp;"); break;
        case '<': ash_buf_adds(&b, "&lt;"); break;
        case '>': ash_buf_adds(&b, "&gt;"); break;
        case '\'': ash_buf_adds(&b, "&#39;"); break;
        case '"': ash_buf_adds(&b, "&#34;"); break;
        default: ash_buf_addc(&b, s.p[i]);
        }
    ASH_TRY(ash_tv_from_buf(c, &b, ASH_OK, out));
    out->safe = true;
    return ASH_OK;
}

/* Text + text; next to markup, what is not is escaped. */
static ash_status add_text(tmpl_ctx *c, tv a, tv b, tv *out) {
    bool safe = a.safe || b.safe;
    if (safe && !a.safe) ASH_TRY(ash_tmpl_escape(c, a.u.s, &a));
    if (safe && !b.safe) ASH_TRY(ash_tmpl_escape(c, b.u.s, &b));
    ASH_TRY(join(c, a.u.s, b.u.s, out));
    out->safe = safe;
    return ASH_OK;
}

static ash_status arith_int(tmpl_ctx *c, tmpl_op op, int64_t i, int64_t j, tv *out) {
    int64_t r = 0;
    bool ovf = false;
    switch (op) {
    case OP_ADD: ovf = __builtin_add_overflow(i, j, &r); break;
    case OP_SUB: ovf = __builtin_sub_overflow(i, j, &r); break;
    case OP_MUL: ovf = __builtin_mul_overflow(i, j, &r); break;
    case OP_POW: /* by squaring: at most 64 steps, or it is too big */
        r = 1;
        for (int64_t base = i; j && !ovf;) {
            if (j & 1) ovf = __builtin_mul_overflow(r, base, &r);
            j >>= 1;
            if (j && base != 0 && base != 1) ovf = __builtin_mul_overflow(base, base, &base) || ovf;
        }
        break;
    case OP_FLOORDIV:
    case OP_MOD:
        if (j == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "division by zero");
        if (j == -1) { /* INT64_MIN / -1 traps */
            if (op == OP_MOD)
                r = 0;
            else
                ovf = __builtin_sub_overflow((int64_t)0, i, &r);
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

static ash_status arith_float(tmpl_ctx *c, tmpl_op op, double x, double y, tv *out) {
    double r, mod;
    if (y == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD)) return ash_tmpl_fail(c, ASH_E_FORMAT, "division by zero");
    switch (op) {
    case OP_ADD: r = x + y; break;
    case OP_SUB: r = x - y; break;
    case OP_MUL: r = x * y; break;
    case OP_DIV: r = x / y; break;
    case OP_POW:
        if ((x == 0 && y < 0) || (x < 0 && y != floor(y))) return ash_tmpl_fail(c, ASH_E_FORMAT, "a power without a real value");
        r = pow(x, y);
        if (isinf(r) && isfinite(x) && isfinite(y)) return ash_tmpl_fail(c, ASH_E_FORMAT, "a number is too big");
        break;
    default: /* the remainder has the sign of the divisor; x == (x // y) * y + x % y as well as can be */
        mod = fmod(x, y);
        if (mod != 0 && (y < 0) != (mod < 0))
            mod += y;
        else if (mod == 0)
            mod = copysign(0.0, y);
        if (op == OP_MOD)
            r = mod;
        else {
            double div = (x - mod) / y;
            r = floor(div);
            if (div - r > 0.5) r += 1;
            if (div == 0) r = copysign(0.0, x / y);
        }
    }
    *out = (tv){.kind = TV_FLOAT, .u.f = r};
    return ASH_OK;
}

static ash_status repeat(tmpl_ctx *c, const tv *a, int64_t times, tv *out) {
    bool list = a->kind == TV_LIST;
    size_t n = list ? a->u.l->n : a->u.s.n, unit = list ? sizeof(tv) : 1;
    if (times < 0 || n == 0) times = 0;
    if (n && (uint64_t)times > TMPL_MAX_OUTPUT / (n * unit))
        return ash_tmpl_fail(c, ASH_E_LIMIT, "a repeated %s is too long", list ? "list" : "string");
    size_t m = n * (size_t)times;
    if (list) {
        ASH_TRY(ash_tv_list_new(c, (tv_form)a->u.l->form, m, out));
        for (; out->u.l->n < m; out->u.l->n++) out->u.l->v[out->u.l->n] = a->u.l->v[out->u.l->n % n];
        return ASH_OK;
    }
    char *p = ash_tmpl_alloc(c, m + 1);
    if (!p) return ash_tmpl_nomem(c);
    for (size_t k = 0; k < (size_t)times; k++) memcpy(p + k * n, a->u.s.p, n);
    *out = tv_str(p, m);
    out->safe = a->safe;
    return ASH_OK;
}

static bool is_plain_list(const tv *v) { return v->kind == TV_LIST && v->u.l->form <= TL_TUPLE; }

/* Orders are computed as Python does: <= of floats is not the opposite of > (nan). */
static ash_status order(tmpl_ctx *c, tmpl_op op, const tv *a, const tv *b, tv *out) {
    double x, y;
    bool t = false;
    if ((a->kind == TV_FLOAT || b->kind == TV_FLOAT) && ash_tv_number(a, &x) && ash_tv_number(b, &y))
        return *out = tv_bool(op == OP_LT ? x < y : op == OP_LE ? x <= y : op == OP_GT ? x > y : x >= y), ASH_OK;
    bool swap = op == OP_GT || op == OP_LE;
    ASH_TRY(ash_tv_less(c, swap ? b : a, swap ? a : b, 0, &t));
    return *out = tv_bool(t == (op == OP_LT || op == OP_GT)), ASH_OK;
}

ash_status ash_tv_binary(tmpl_ctx *c, tmpl_op op, const tv *a, const tv *b, tv *out) {
    bool t = false;
    double x, y;
    int64_t i, j;
    switch (op) {
    case OP_EQ:
    case OP_NE: ASH_TRY(ash_tv_equal(c, a, b, 0, &t)); return *out = tv_bool(t == (op == OP_EQ)), ASH_OK;
    case OP_LT:
    case OP_GT:
    case OP_LE:
    case OP_GE: return order(c, op, a, b, out);
    case OP_IN:
    case OP_NOT_IN: ASH_TRY(ash_tv_contains(c, b, a, &t)); return *out = tv_bool(t == (op == OP_IN)), ASH_OK;
    case OP_CONCAT: {
        ash_str s, u;
        ASH_TRY(ash_tv_str(c, a, &s));
        ASH_TRY(ash_tv_str(c, b, &u));
        return join(c, s, u, out);
    }
    default: break;
    }
    if (op == OP_ADD && a->kind == TV_STR && b->kind == TV_STR) return add_text(c, *a, *b, out);
    if (op == OP_ADD && is_plain_list(a) && is_plain_list(b) && a->u.l->form == b->u.l->form) {
        size_t n = a->u.l->n, m = b->u.l->n;
        ASH_TRY(ash_tv_list_new(c, (tv_form)a->u.l->form, n + m, out));
        if (n) memcpy(out->u.l->v, a->u.l->v, n * sizeof(tv));
        if (m) memcpy(out->u.l->v + n, b->u.l->v, m * sizeof(tv));
        out->u.l->n = n + m;
        return ASH_OK;
    }
    if (op == OP_MUL && (a->kind == TV_STR || is_plain_list(a)) && ash_tv_int(b, &j)) return repeat(c, a, j, out);
    if (op == OP_MUL && (b->kind == TV_STR || is_plain_list(b)) && ash_tv_int(a, &j)) return repeat(c, b, j, out);
    if (op != OP_DIV && ash_tv_int(a, &i) && ash_tv_int(b, &j) && (op != OP_POW || j >= 0)) return arith_int(c, op, i, j, out);
    if (ash_tv_number(a, &x) && ash_tv_number(b, &y)) return arith_float(c, op, x, y, out);
    if (a->kind == TV_UNDEF || b->kind == TV_UNDEF) return ash_tv_undefined(c, a->kind == TV_UNDEF ? a : b);
    if (op == OP_MOD && a->kind == TV_STR) return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "formatting a string with %% is not supported");
    return ash_tmpl_fail(c, ASH_E_FORMAT, "%s %s %s does not work", ash_tv_kind_name(a), op_name(op), ash_tv_kind_name(b));
}
