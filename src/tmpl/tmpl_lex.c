/* tmpl_lex.c - template source to tokens, with Jinja2's whitespace control: trim_blocks (a newline right
 * after a block or comment goes), lstrip_blocks (blanks before a block or comment that begins its line
 * go), "-" and "+" at either end of a tag, and the last newline of the source dropped. */
#include "tmpl/tmpl_int.h"

#include <stdlib.h>

typedef struct {
    ash_arena *a;
    const char *p, *end, *begin;
    uint32_t line;
    tmpl_token *t;
    size_t n, cap;
    ash_error *err;
} lexer;

static ash_status nomem(lexer *x) { return ash_fail(x->err, ASH_E_NOMEM, "out of memory for a template"); }

static ash_status push(lexer *x, tk_kind kind, ash_str s) {
    if (x->n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 64;
        tmpl_token *t = ash_arena_alloc(x->a, cap * sizeof *t);
        if (!t) return nomem(x);
        if (x->n) memcpy(t, x->t, x->n * sizeof *t);
        x->t = t;
        x->cap = cap;
    }
    x->t[x->n++] = (tmpl_token){.kind = kind, .line = x->line, .s = s};
    return ASH_OK;
}

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static int hex(const char *p, const char *end, int n) {
    int v = 0;
    if (end - p < n) return -1;
    for (int i = 0; i < n; i++) {
        char c = p[i];
        int d = digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Python's escapes; an unknown one stays as it is. The result is never longer. */
static ash_status string(lexer *x) {
    char q = *x->p++, *o = NULL;
    uint32_t line = x->line;
    const char *start = x->p, *p = x->p;
    while (p < x->end && *p != q) {
        if (*p == '\\' && x->end - p > 1) p++;
        if (*p == '\n') x->line++;
        p++;
    }
    if (p >= x->end) return ash_fail(x->err, ASH_E_FORMAT, "template line %u: a string is not closed", line);
    size_t n = 0;
    o = ash_arena_alloc(x->a, (size_t)(p - start) + 1);
    if (!o) return nomem(x);
    const char *stop = p;
    for (p = start; p < stop;) {
        if (*p != '\\' || stop - p < 2) {
            o[n++] = *p++;
            continue;
        }
        char c = p[1];
        p += 2;
        int v, len = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        switch (c) {
        case 'n': o[n++] = '\n'; break;
        case 't': o[n++] = '\t'; break;
        case 'r': o[n++] = '\r'; break;
        case 'b': o[n++] = '\b'; break;
        case 'f': o[n++] = '\f'; break;
        case 'v': o[n++] = '\v'; break;
        case 'a': o[n++] = '\a'; break;
        case '\\':
        case '\'':
        case '"': o[n++] = c; break;
        case '\n': break; /* joined lines */
        case 'x':
        case 'u':
        case 'U':
            v = hex(p, stop, len);
            if (v < 0 || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
                return ash_fail(x->err, ASH_E_FORMAT, "template line %u: bad \\%c escape", line, c);
            n += ash_utf8_put((uint32_t)v, o + n);
            p += len;
            break;
        default:
            if (c >= '0' && c <= '7') {
                v = c - '0';
                for (int i = 0; i < 2 && p < stop && *p >= '0' && *p <= '7'; i++) v = v * 8 + (*p++ - '0');
                char u[4];
                size_t k = ash_utf8_put((uint32_t)v, u); /* "\377" is two bytes out of four */
                memcpy(o + n, u, k);
                n += k;
            } else {
                o[n++] = '\\';
                o[n++] = c;
            }
        }
    }
    x->p = stop + 1;
    return push(x, TK_STR, (ash_str){o, n});
}

static ash_status number(lexer *x) {
    const char *p = x->p;
    char buf[64];
    size_t n = 0;
    bool fl = false;
    for (; p < x->end && n < sizeof buf - 1; p++) {
        if (*p == '_') continue;
        if (*p == '.' && !fl && x->end - p > 1 && digit(p[1]))
            fl = true;
        else if ((*p == 'e' || *p == 'E') && x->end - p > 1 &&
                 (digit(p[1]) || (x->end - p > 2 && (p[1] == '+' || p[1] == '-') && digit(p[2])))) {
            fl = true;
            buf[n++] = *p++;
        } else if (!digit(*p))
            break;
        buf[n++] = *p;
    }
    buf[n] = 0;
    if (n >= 19 && !fl) return ash_fail(x->err, ASH_E_FORMAT, "template line %u: the number %s is too long", x->line, buf);
    ash_status st = push(x, fl ? TK_FLOAT : TK_INT, (ash_str){x->p, (size_t)(p - x->p)});
    if (st != ASH_OK) return st;
    if (fl)
        x->t[x->n - 1].f = strtod(buf, NULL);
    else
        x->t[x->n - 1].i = strtoll(buf, NULL, 10);
    x->p = p;
    return ASH_OK;
}

/* Inside {{ }} or {% %}, up to and with the closing tag. */
static ash_status inside(lexer *x, bool stmt) {
    static const char *const ops[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
                                      ">",  "=",  "|",  "(",  ")",  "[",  "]", "{", "}", ".", ",", ":"};
    uint32_t line = x->line;
    int depth = 0; /* braces of dict literals */
    for (;;) {
        while (x->p < x->end && blank(*x->p)) x->line += *x->p++ == '\n';
        size_t left = (size_t)(x->end - x->p);
        if (left == 0) return ash_fail(x->err, ASH_E_FORMAT, "template line %u: %s is not closed", line, stmt ? "{%" : "{{");
        const char *close = stmt ? "%}" : "}}";
        size_t sign = (*x->p == '-' || *x->p == '+') ? 1 : 0;
        if (left >= 2 + sign && memcmp(x->p + sign, close, 2) == 0 && (stmt || depth == 0)) {
            char s = sign ? *x->p : 0;
            ASH_TRY(push(x, stmt ? TK_STMT_CLOSE : TK_EXPR_CLOSE, (ash_str){x->p, 2}));
            x->p += sign + 2;
            if (s == '-') {
                while (x->p < x->end && blank(*x->p)) x->line += *x->p++ == '\n';
            } else if (stmt && s != '+' && x->p < x->end && *x->p == '\n') {
                x->p++;
                x->line++;
            }
            return ASH_OK;
        }
        char c = *x->p;
        if (c == '"' || c == '\'')
            ASH_TRY(string(x));
        else if (digit(c))
            ASH_TRY(number(x));
        else if (name_start(c)) {
            const char *p = x->p;
            while (p < x->end && (name_start(*p) || digit(*p))) p++;
            ASH_TRY(push(x, TK_NAME, (ash_str){x->p, (size_t)(p - x->p)}));
            x->p = p;
        } else {
            size_t k = 0;
            for (; k < ASH_ARRAY_LEN(ops); k++)
                if (left >= strlen(ops[k]) && memcmp(x->p, ops[k], strlen(ops[k])) == 0) break;
            if (k == ASH_ARRAY_LEN(ops)) return ash_fail(x->err, ASH_E_FORMAT, "template line %u: unexpected character \"%c\"", x->line, c);
            depth += c == '{' ? 1 : c == '}' ? -1 : 0;
            ASH_TRY(push(x, TK_OP, (ash_str){x->p, strlen(ops[k])}));
            x->p += strlen(ops[k]);
        }
    }
}

static ash_status comment(lexer *x) {
    uint32_t line = x->line;
    for (x->p += 2; x->end - x->p >= 2; x->p++) {
        if (x->p[0] == '#' && x->p[1] == '}') {
            bool strip = x->p[-1] == '-', keep = x->p[-1] == '+';
            x->p += 2;
            if (strip)
                while (x->p < x->end && blank(*x->p)) x->line += *x->p++ == '\n';
            else if (!keep && x->p < x->end && *x->p == '\n') {
                x->p++;
                x->line++;
            }
            return ASH_OK;
        }
        x->line += *x->p == '\n';
    }
    return ash_fail(x->err, ASH_E_FORMAT, "template line %u: {# is not closed", line);
}

/* Is there `{% word %}` at p, with any signs and blanks? Its length, or 0. */
static size_t tag(const char *p, const char *end, const char *word, char *close_sign) {
    const char *q = p;
    if (end - q < 2 || q[0] != '{' || q[1] != '%') return 0;
    q += 2;
    if (q < end && (*q == '-' || *q == '+')) q++;
    while (q < end && blank(*q)) q++;
    size_t n = strlen(word);
    if ((size_t)(end - q) < n || memcmp(q, word, n) != 0) return 0;
    q += n;
    while (q < end && blank(*q)) q++;
    *close_sign = 0;
    if (q < end && (*q == '-' || *q == '+')) *close_sign = *q++;
    return end - q >= 2 && q[0] == '%' && q[1] == '}' ? (size_t)(q + 2 - p) : 0;
}

/* What follows a tag's end: "-" eats white space, else one newline goes unless "+". */
static void after_tag(lexer *x, char sign) {
    if (sign == '-') {
        while (x->p < x->end && blank(*x->p)) x->line += *x->p++ == '\n';
    } else if (sign != '+' && x->p < x->end && *x->p == '\n') {
        x->p++;
        x->line++;
    }
}

/* Text between {% raw %} (of length n at x->p) and {% endraw %}, as it is. */
static ash_status raw_block(lexer *x, size_t n, char sign) {
    uint32_t line = x->line;
    for (const char *q = x->p; q < x->p + n; q++) x->line += *q == '\n';
    x->p += n;
    after_tag(x, sign == '-' ? '-' : '+'); /* trim_blocks does not look at this tag */
    for (const char *q = x->p; q < x->end; q++) {
        n = tag(q, x->end, "endraw", &sign);
        if (!n) continue;
        const char *e = q, *b = q;
        if (q[2] == '-')
            while (e > x->p && blank(e[-1])) e--;
        else if (q[2] != '+') {
            while (b > x->p && (b[-1] == ' ' || b[-1] == '\t')) b--;
            if (b == x->begin || b[-1] == '\n') e = b;
        }
        if (e > x->p) ASH_TRY(push(x, TK_TEXT, (ash_str){x->p, (size_t)(e - x->p)}));
        for (; x->p < q + n; x->p++) x->line += *x->p == '\n';
        after_tag(x, sign);
        return ASH_OK;
    }
    return ash_fail(x->err, ASH_E_FORMAT, "template line %u: {%% raw %%} has no {%% endraw %%}", line);
}

ash_status ash_tmpl_lex(ash_arena *a, const char *src, size_t n, tmpl_token **out, size_t *n_out, ash_error *err) {
    if (n > TMPL_MAX_SOURCE) return ash_fail(err, ASH_E_LIMIT, "a chat template of %zu bytes is over the limit of %d", n, TMPL_MAX_SOURCE);
    lexer x = {.a = a, .line = 1, .err = err};
    char *s = ash_arena_alloc(a, n + 1);
    if (!s) return nomem(&x);
    size_t m = 0; /* newlines as \n, the last one dropped */
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r') {
            if (i + 1 < n && src[i + 1] == '\n') continue;
            s[m++] = '\n';
        } else
            s[m++] = src[i];
    }
    if (m && s[m - 1] == '\n') m--;
    x.p = x.begin = s;
    x.end = s + m;
    while (x.p < x.end) {
        const char *q = x.p;
        while (q < x.end && !(*q == '{' && x.end - q > 1 && (q[1] == '{' || q[1] == '%' || q[1] == '#'))) q++;
        const char *text_end = q;
        if (q < x.end) {
            char sign = x.end - q > 2 ? q[2] : 0;
            if (sign == '-')
                while (text_end > x.p && blank(text_end[-1])) text_end--;
            else if (sign != '+' && q[1] != '{') { /* lstrip_blocks: only blanks since the line's beginning */
                const char *b = q;
                while (b > x.p && (b[-1] == ' ' || b[-1] == '\t')) b--;
                if (b == x.begin || b[-1] == '\n') text_end = b;
            }
        }
        if (text_end > x.p) ASH_TRY(push(&x, TK_TEXT, (ash_str){x.p, (size_t)(text_end - x.p)}));
        for (; x.p < q; x.p++) x.line += *x.p == '\n';
        if (q == x.end) break;
        if (q[1] == '#') {
            ASH_TRY(comment(&x));
            continue;
        }
        char sign;
        size_t raw = tag(q, x.end, "raw", &sign);
        if (raw) {
            ASH_TRY(raw_block(&x, raw, sign));
            continue;
        }
        bool stmt = q[1] == '%';
        ASH_TRY(push(&x, stmt ? TK_STMT_OPEN : TK_EXPR_OPEN, (ash_str){q, 2}));
        x.p = q + 2;
        if (x.p < x.end && (*x.p == '-' || *x.p == '+')) x.p++;
        ASH_TRY(inside(&x, stmt));
    }
    ASH_TRY(push(&x, TK_EOF, (ash_str){"", 0}));
    *out = x.t;
    *n_out = x.n;
    return ASH_OK;
}
