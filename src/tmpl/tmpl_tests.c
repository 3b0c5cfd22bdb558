/* tmpl_tests.c - the tables of tests (`x is defined`) and of global functions. */
#include "tmpl/tmpl_int.h"

static ash_status yes(tv *out, bool b) { return *out = tv_bool(b), ASH_OK; }
static bool indexed(const tv *v) {
    return v->kind == TV_DICT || v->kind == TV_STR || v->kind == TV_UNDEF || (v->kind == TV_LIST && v->u.l->form <= TL_RANGE);
}

#define TEST(name, cond)                                                               \
    static ash_status name(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { \
        (void)c;                                                                       \
        (void)a;                                                                       \
        return yes(out, cond);                                                         \
    }
TEST(t_defined, self->kind != TV_UNDEF)
TEST(t_undefined, self->kind == TV_UNDEF)
TEST(t_none, self->kind == TV_NONE)
TEST(t_string, self->kind == TV_STR)
TEST(t_boolean, self->kind == TV_BOOL)
TEST(t_integer, self->kind == TV_INT)
TEST(t_float, self->kind == TV_FLOAT)
TEST(t_number, self->kind == TV_INT || self->kind == TV_FLOAT || self->kind == TV_BOOL)
TEST(t_mapping, self->kind == TV_DICT)
TEST(t_iterable, self->kind == TV_LIST || indexed(self) || self->kind == TV_LOOP)
TEST(t_sequence, indexed(self))
TEST(t_true, self->kind == TV_BOOL && self->u.b)
TEST(t_false, self->kind == TV_BOOL && !self->u.b)
TEST(t_callable, self->kind == TV_FUNC || self->kind == TV_MACRO)
TEST(t_escaped, self->kind == TV_STR && self->safe)
#undef TEST

static ash_status t_odd(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)a;
    int64_t i;
    if (!ash_tv_int(self, &i)) return ash_tmpl_fail(c, ASH_E_FORMAT, "%s is neither odd nor even", ash_tv_kind_name(self));
    return yes(out, i & 1);
}
static ash_status t_even(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ASH_TRY(t_odd(c, self, a, out));
    return yes(out, !out->u.b);
}
static ash_status t_divisibleby(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    int64_t i, j;
    if (!ash_tv_int(self, &i) || !ash_tv_int(&a->v[0], &j) || j == 0) return ash_tmpl_fail(c, ASH_E_FORMAT, "divisibleby needs integers");
    return yes(out, j == -1 || i % j == 0);
}
static ash_status cased(const tv *self, bool upper, tv *out) { /* Python's isupper, islower: of the ASCII letters */
    bool some = false, other = false;
    for (size_t i = 0; self->kind == TV_STR && i < self->u.s.n; i++) {
        char ch = self->u.s.p[i];
        bool u = ch >= 'A' && ch <= 'Z', l = ch >= 'a' && ch <= 'z';
        some = some || (upper ? u : l);
        other = other || (upper ? l : u);
    }
    return yes(out, some && !other);
}
static ash_status t_upper(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return cased(self, true, out);
}
static ash_status t_lower(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)c;
    (void)a;
    return cased(self, false, out);
}
static ash_status t_sameas(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    const tv *o = &a->v[0];
    if (self->kind != o->kind) return yes(out, false);
    if (self->kind == TV_LIST) return yes(out, self->u.l == o->u.l);
    if (self->kind == TV_DICT) return yes(out, self->u.d == o->u.d);
    return ash_tv_binary(c, OP_EQ, self, o, out);
}
#define COMPARE(name, op) \
    static ash_status name(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { return ash_tv_binary(c, op, self, &a->v[0], out); }
COMPARE(t_eq, OP_EQ)
COMPARE(t_ne, OP_NE)
COMPARE(t_lt, OP_LT)
COMPARE(t_le, OP_LE)
COMPARE(t_gt, OP_GT)
COMPARE(t_ge, OP_GE)
COMPARE(t_in, OP_IN)
#undef COMPARE

static const tmpl_func tests[] = {
    {"!=", 1, 1, t_ne},
    {"<", 1, 1, t_lt},
    {"<=", 1, 1, t_le},
    {"==", 1, 1, t_eq},
    {">", 1, 1, t_gt},
    {">=", 1, 1, t_ge},
    {"boolean", 0, 0, t_boolean},
    {"callable", 0, 0, t_callable},
    {"defined", 0, 0, t_defined},
    {"divisibleby", 1, 1, t_divisibleby},
    {"eq", 1, 1, t_eq},
    {"equalto", 1, 1, t_eq},
    {"escaped", 0, 0, t_escaped},
    {"even", 0, 0, t_even},
    {"false", 0, 0, t_false},
    {"float", 0, 0, t_float},
    {"ge", 1, 1, t_ge},
    {"greaterthan", 1, 1, t_gt},
    {"gt", 1, 1, t_gt},
    {"in", 1, 1, t_in},
    {"integer", 0, 0, t_integer},
    {"iterable", 0, 0, t_iterable},
    {"le", 1, 1, t_le},
    {"lessthan", 1, 1, t_lt},
    {"lower", 0, 0, t_lower},
    {"lt", 1, 1, t_lt},
    {"mapping", 0, 0, t_mapping},
    {"ne", 1, 1, t_ne},
    {"none", 0, 0, t_none},
    {"number", 0, 0, t_number},
    {"odd", 0, 0, t_odd},
    {"sameas", 1, 1, t_sameas},
    {"sequence", 0, 0, t_sequence},
    {"string", 0, 0, t_string},
    {"true", 0, 0, t_true},
    {"undefined", 0, 0, t_undefined},
    {"upper", 0, 0, t_upper},
};

ash_status ash_tmpl_test(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, bool *out) {
    const tmpl_func *f = ash_tmpl_find(tests, ASH_ARRAY_LEN(tests), name);
    tv v;
    *out = false;
    if (!f) return ash_tmpl_unknown(c, "test", name);
    ASH_TRY(ash_tmpl_call(c, f, "test", self, a, &v));
    *out = v.u.b;
    return ASH_OK;
}

/* ---- functions ---- */
static ash_status g_raise(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    (void)out;
    ash_str s;
    ASH_TRY(ash_tv_str(c, &a->v[0], &s));
    return ash_fail(c->err, ASH_E_FORMAT, "the chat template refuses this conversation: %.*s", (int)ASH_MIN(s.n, (size_t)240), s.p);
}

static ash_status g_dict(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) { /* dict and namespace */
    (void)self;
    ASH_TRY(ash_tv_dict_new(c, out));
    for (int i = 0; i < a->n; i++) {
        if (a->kw[i].n) {
            ASH_TRY(ash_tv_dict_set(c, out->u.d, a->kw[i], a->v[i]));
            continue;
        }
        if (a->v[i].kind != TV_DICT)
            return ash_tmpl_fail(c, ASH_E_UNSUPPORTED, "a dictionary made of %s is not supported", ash_tv_kind_name(&a->v[i]));
        for (size_t k = 0; k < a->v[i].u.d->n; k++) ASH_TRY(ash_tv_dict_set(c, out->u.d, a->v[i].u.d->k[k], a->v[i].u.d->v[k]));
    }
    return ASH_OK;
}
static ash_status g_namespace(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    ASH_TRY(g_dict(c, self, a, out));
    out->kind = TV_NS;
    return ASH_OK;
}

static ash_status g_range(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < a->n; i++)
        if (!ash_tv_int(&a->v[i], &v[i])) return ash_tmpl_fail(c, ASH_E_FORMAT, "range needs integers");
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
    ASH_TRY(ash_tv_list_new(c, TL_RANGE, (size_t)n, out));
    for (int64_t i = 0; i < n; i++) out->u.l->v[i] = tv_int(v[0] + i * v[2]);
    out->u.l->n = (size_t)n;
    return ASH_OK;
}

static ash_status g_strftime(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out) {
    (void)self;
    ash_str fmt;
    ash_buf b = {0};
    ASH_TRY(ash_tmpl_want_str(c, &a->v[0], &fmt));
    return ash_tv_from_buf(c, &b, ash_tmpl_strftime(c, &b, fmt, &c->now), out);
}

static const tmpl_func functions[] = {{"dict", 0, TMPL_MAX_ARGS, g_dict},
                                      {"namespace", 0, TMPL_MAX_ARGS, g_namespace},
                                      {"raise_exception", 1, 1, g_raise},
                                      {"range", 1, 3, g_range},
                                      {"strftime_now", 1, 1, g_strftime}};

const tmpl_func *ash_tmpl_function(ash_str name) { return ash_tmpl_find(functions, ASH_ARRAY_LEN(functions), name); }
