/* tmpl_int.h - what the files of src/tmpl share.
 *
 * A template is lexed (tmpl_lex.c), parsed to a tree in an arena (tmpl_parse.c) and walked for each
 * rendering (tmpl_eval.c) with values that live in an arena of their own (tmpl_value.c, tmpl_ops.c, printed by
 * tmpl_print.c). Filters, methods, tests and functions are rows of tables: tmpl_filters.c, tmpl_string.c,
 * tmpl_tests.c. tmpl_render.c is the public side. Semantics: Jinja2 3.1 with trim_blocks, lstrip_blocks and
 * loop controls in its sandbox, as Hugging Face's apply_chat_template sets it up. */
#ifndef ASH_TMPL_INT_H
#define ASH_TMPL_INT_H

#include "ashlar/text.h"
#include "base/base.h"

#include <time.h>

enum {
    TMPL_MAX_SOURCE = 1 << 20,  /* bytes of template */
    TMPL_MAX_NODE_DEPTH = 150,  /* nesting of the tree, and so of the walk of one macro */
    TMPL_MAX_CALL_DEPTH = 1000, /* nesting of the walk over all macros: bounds the stack */
    TMPL_MAX_VALUE_DEPTH = 64,  /* nesting of lists and dicts when compared or printed */
    TMPL_MAX_STEPS = 5000000,   /* nodes evaluated in one rendering */
    TMPL_MAX_OUTPUT = 32 << 20,
    TMPL_MAX_MEMORY = 128 << 20,
    TMPL_MAX_RANGE = 100000
};

/* ---- values ---- */
typedef enum { TV_UNDEF, TV_NONE, TV_BOOL, TV_INT, TV_FLOAT, TV_STR, TV_LIST, TV_DICT, TV_NS, TV_LOOP, TV_FUNC, TV_MACRO } tv_kind;

typedef struct tv_list tv_list;
typedef struct tv_dict tv_dict;
typedef struct tmpl_node tmpl_node;

typedef struct {
    uint8_t kind; /* tv_kind */
    bool safe;    /* STR: markup, as the filters `safe` and `escape` make it; what is added to it is escaped */
    union {
        bool b;
        int64_t i;
        double f;
        ash_str s; /* STR; UNDEF: the name that is not defined, for the message */
        tv_list *l;
        tv_dict *d; /* DICT, NS */
        struct tmpl_loop *loop;
        const struct tmpl_func *func; /* a global function, or a dictionary's method that is named but not called */
        const struct tmpl_closure *macro;
    } u;
} tv;

/* What Python would have where we have a list: all can be looped over, only some indexed, counted, printed. */
typedef enum { TL_LIST, TL_TUPLE, TL_RANGE, TL_ITER, TL_KEYS, TL_VALUES, TL_ITEMS } tv_form;
struct tv_list {
    tv *v;
    size_t n;
    uint8_t form;
};
struct tv_dict {
    ash_str *k;
    tv *v;
    size_t n, cap;
}; /* keys are strings, in order of insertion */
typedef struct tmpl_loop {
    int64_t i, n, depth;
    const tv_list *items;
} tmpl_loop;
typedef struct tmpl_closure {
    const tmpl_node *node;
    size_t visible;
} tmpl_closure; /* visible: 0 for a macro of the top level */

/* ---- tree ---- */
typedef enum {
    /* statements, linked by next */
    N_TEXT,
    N_PRINT,
    N_IF,
    N_FOR,
    N_SET,
    N_SET_BLOCK,
    N_FILTER_BLOCK,
    N_WITH,
    N_BREAK,
    N_CONTINUE,
    N_MACRO,
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_UNARY,
    N_BINARY,
    N_AND,
    N_OR,
    N_COND
} tmpl_kind;

typedef enum {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_CONCAT,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_NOT,
    OP_NEG,
    OP_POS
} tmpl_op;

/* Which field means what:
 *  TEXT s | PRINT a | IF a cond, b then, c else (b, c statement lists) | FOR args targets, a iterable,
 *  d condition, b body, c else | SET args targets (NAME or ATTR), b value | SET_BLOCK a target, b body, c filters
 *  FILTER_BLOCK b body, c filters (a chain of FILTER that ends at a NULL a) | WITH args: name, value, ...; b body
 *  MACRO s name, args parameters (NAME with the default in b), b body
 *  CONST val | NAME s | LIST, TUPLE args | DICT args: key, value, key, ... | ATTR a, s | ITEM a, b | SLICE a, b, c, d
 *  CALL a, args | FILTER a, s, args | TEST a, s, args, op OP_NOT | UNARY op a | BINARY op a b | COND a if b else c
 * Arguments are linked by next; a keyword argument has its name in `kw`. */
struct tmpl_node {
    uint8_t kind, op;
    uint16_t depth;
    uint32_t line;
    tmpl_node *a, *b, *c, *d, *args, *next;
    ash_str s, kw;
    tv val;
};

struct ash_tmpl {
    ash_arena arena;
    tmpl_node *body;
};

/* ---- lexer ---- */
typedef enum {
    TK_EOF,
    TK_TEXT,
    TK_EXPR_OPEN,
    TK_EXPR_CLOSE,
    TK_STMT_OPEN,
    TK_STMT_CLOSE,
    TK_NAME,
    TK_STR,
    TK_INT,
    TK_FLOAT,
    TK_OP
} tk_kind;
typedef struct {
    tk_kind kind;
    uint32_t line;
    ash_str s;
    int64_t i;
    double f;
} tmpl_token; /* OP: s is the operator */
/* All tokens of a source, in the arena; whitespace control is applied, strings are unescaped. */
ash_status ash_tmpl_lex(ash_arena *a, const char *src, size_t n, tmpl_token **out, size_t *n_out, ash_error *err);
ash_status ash_tmpl_tree(ash_arena *a, const tmpl_token *t, size_t n, tmpl_node **out, ash_error *err);

/* ---- rendering ---- */
typedef struct {
    ash_str name;
    tv val;
} tmpl_var;
typedef struct {
    ash_arena arena;
    ash_buf out;
    tmpl_var *var; /* innermost last */
    size_t n_var, cap_var;
    size_t n_top; /* the first of them that the top level set; a macro sees these and its own */
    size_t base;  /* where the own ones of the running macro begin; 0 outside */
    uint64_t steps;
    int depth; /* of the walk */
    int loops; /* around the node at hand */
    bool has_now;
    struct tm now; /* for strftime_now */
    uint32_t line; /* of the node at hand, for messages */
    int flow;      /* 0, N_BREAK, N_CONTINUE */
    ash_error *err;
} tmpl_ctx;

ash_status ash_tmpl_fail(tmpl_ctx *c, ash_status code, const char *fmt, ...) ASH_PRINTF(3, 4); /* "template line N: ..." */
ash_status ash_tmpl_step(tmpl_ctx *c);                                                         /* counts; E_LIMIT */
void *ash_tmpl_alloc(tmpl_ctx *c, size_t n);                                                   /* NULL: out of memory or over the limit */
ash_status ash_tmpl_nomem(tmpl_ctx *c);

/* ---- values (tmpl_value.c) ---- */
const char *ash_tv_kind_name(const tv *v); /* "a string", "undefined" */
bool ash_tv_true(const tv *v);
ash_status ash_tv_equal(tmpl_ctx *c, const tv *a, const tv *b, int depth, bool *out);
ash_status ash_tv_less(tmpl_ctx *c, const tv *a, const tv *b, int depth, bool *out);
ash_status ash_tv_contains(tmpl_ctx *c, const tv *in, const tv *x, bool *out);
ash_status ash_tv_item(tmpl_ctx *c, const tv *a, const tv *key, tv *out);
ash_status ash_tv_attr(tmpl_ctx *c, const tv *a, ash_str name, tv *out);
ash_status ash_tv_slice(tmpl_ctx *c, const tv *a, const tv *from, const tv *to, const tv *step, tv *out);
/* What `for` goes over: items of a list, keys of a dict, characters of a string. An iterator is used up by it. */
ash_status ash_tv_items(tmpl_ctx *c, const tv *v, tv_list *out);
ash_status ash_tv_list_new(tmpl_ctx *c, tv_form form, size_t cap, tv *out); /* empty, room for cap */
ash_status ash_tv_dict_new(tmpl_ctx *c, tv *out);
ash_status ash_tv_dict_set(tmpl_ctx *c, tv_dict *d, ash_str k, tv v);
tv *ash_tv_dict_get(const tv_dict *d, ash_str k);
ash_status ash_tv_undefined(tmpl_ctx *c, const tv *v);       /* the failure of using an undefined value */
size_t ash_tmpl_char(const char *p, size_t n, uint32_t *cp); /* bytes of the character at p; >= 1 */
int64_t ash_tmpl_chars(ash_str s);                           /* number of characters */
size_t ash_tmpl_char_at(ash_str s, int64_t i);               /* byte offset of character i */
bool ash_tv_number(const tv *v, double *f);
bool ash_tv_int(const tv *v, int64_t *i);
ash_status ash_tv_binary(tmpl_ctx *c, tmpl_op op, const tv *a, const tv *b, tv *out); /* tmpl_ops.c */
ash_status ash_tmpl_escape(tmpl_ctx *c, ash_str s, tv *out);                          /* & < > ' " as HTML spells them; marks it safe */

/* ---- text of values (tmpl_print.c) ---- */
/* Text as {{ }} prints it (Python's str), or as inside a list (Python's repr). */
ash_status ash_tv_print(tmpl_ctx *c, ash_buf *b, const tv *v, bool repr, int depth);
typedef struct {
    ash_str indent, item, key;
    bool pretty, sort, ascii;
} tmpl_json_opts; /* json.dumps; item and key: separators */
ash_status ash_tv_json(tmpl_ctx *c, ash_buf *b, const tv *v, const tmpl_json_opts *o, int depth);
ash_status ash_tv_str(tmpl_ctx *c, const tv *v, ash_str *out);               /* the same as print, in the arena */
ash_status ash_tv_from_buf(tmpl_ctx *c, ash_buf *b, ash_status st, tv *out); /* copies, frees b */
ash_status ash_tmpl_strftime(tmpl_ctx *c, ash_buf *b, ash_str fmt, const struct tm *t);

static inline tv tv_str(const char *p, size_t n) { return (tv){.kind = TV_STR, .u.s = {p, n}}; }
static inline tv tv_bool(bool b) { return (tv){.kind = TV_BOOL, .u.b = b}; }
static inline tv tv_int(int64_t i) { return (tv){.kind = TV_INT, .u.i = i}; }
static inline tv tv_undef(ash_str name) { return (tv){.kind = TV_UNDEF, .u.s = name}; }
static inline bool str_eq(ash_str a, const char *b) { return a.n == strlen(b) && memcmp(a.p, b, a.n) == 0; }
static inline bool str_same(ash_str a, ash_str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }

/* ---- tables ---- */
enum { TMPL_MAX_ARGS = 16 };
typedef struct {
    tv v[TMPL_MAX_ARGS];
    ash_str kw[TMPL_MAX_ARGS];
    int n;
} tmpl_args; /* kw.n == 0: by position */
typedef ash_status (*tmpl_fn)(tmpl_ctx *c, const tv *self, const tmpl_args *a, tv *out);
typedef struct tmpl_func {
    const char *name;
    int min, max;
    tmpl_fn fn;
} tmpl_func; /* arguments besides self */
const tmpl_func *ash_tmpl_find(const tmpl_func *t, size_t n, ash_str name);
const tv *ash_tmpl_arg(const tmpl_args *a, int i, const char *name); /* by position or by keyword; NULL: not given */
ash_status ash_tmpl_want_str(tmpl_ctx *c, const tv *v, ash_str *out);
ash_status ash_tmpl_call(tmpl_ctx *c, const tmpl_func *f, const char *kind, const tv *self, const tmpl_args *a, tv *out);
ash_status ash_tmpl_unknown(tmpl_ctx *c, const char *kind, ash_str name);
ash_status ash_tmpl_filter(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, tv *out); /* tmpl_filters.c */
ash_status ash_tmpl_test(tmpl_ctx *c, ash_str name, const tv *self, const tmpl_args *a, bool *out); /* tmpl_tests.c */
const tmpl_func *ash_tmpl_function(ash_str name);                                                   /* NULL: no such global; tmpl_tests.c */
const tmpl_func *ash_tmpl_method(const tv *self, ash_str name);                                     /* NULL: none; tmpl_filters.c */
/* Rows that tmpl_string.c gives to the tables of filters and methods. */
extern const tmpl_func ash_tmpl_str_filters[], ash_tmpl_str_methods[];
extern const size_t ash_tmpl_n_str_filters, ash_tmpl_n_str_methods;
bool ash_tmpl_space(uint32_t cp); /* Python's str.isspace of one character */
ash_str ash_tmpl_strip(ash_str s, const ash_str *set, bool left, bool right);

/* ---- the walk (tmpl_eval.c) ---- */
ash_status ash_tmpl_bind(tmpl_ctx *c, size_t scope, ash_str name, tv v);
ash_status ash_tmpl_run(tmpl_ctx *c, const tmpl_node *n, size_t scope);

#endif
