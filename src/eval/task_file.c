/* task_file.c - items of tasks from JSONL. Owns the shapes that are known (docs/formats/tasks.md) and what counts as the same
 * answer. Everything read is from outside: lines of any content give an item or a sentence with the line's number. */
#include "ashlar/task.h"

#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_CHOICES = 64, MAX_ITEMS = 1 << 20 };

struct ash_tasks {
    ash_arena arena;
    ash_task_item *item;
    size_t n, cap;
};

const char *ash_task_kind_name(ash_task_kind k) {
    static const char *const names[] = {"choice", "text", "number", "code"};
    return (unsigned)k < ASH_ARRAY_LEN(names) ? names[k] : "?";
}

size_t ash_tasks_n(const ash_tasks *t) { return t->n; }
const ash_task_item *ash_tasks_at(const ash_tasks *t, size_t i) { return &t->item[i]; }

void ash_tasks_free(ash_tasks *t) {
    if (!t) return;
    ash_arena_free(&t->arena);
    ash_free(t->item);
    ash_free(t);
}

static const char *text_of(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }

/* The parts, one after the other, in the arena; NULL when out of memory. */
static char *join(ash_tasks *t, const char *a, const char *b, const char *c) {
    size_t na = strlen(a), nb = strlen(b), nc = strlen(c);
    char *s = ash_arena_alloc(&t->arena, na + nb + nc + 1);
    if (!s) return NULL;
    memcpy(s, a, na);
    memcpy(s + na, b, nb);
    memcpy(s + na + nb, c, nc + 1);
    return s;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Between a prompt and what continues it. */
static const char *gap(const char *prompt, const char *next) {
    size_t n = strlen(prompt);
    return n == 0 || is_space(prompt[n - 1]) || is_space(*next) ? "" : " ";
}

/* WikiHow's marks: " [title]" ends a sentence, other [marks] go, double spaces too (as lm-evaluation-harness reads the set). */
static void clean_marks(char *s) {
    char *w = s;
    for (const char *r = s; *r;) {
        if (strncmp(r, " [title]", 8) == 0) {
            *w++ = '.';
            *w++ = ' ';
            r += 8;
        } else if (*r == '[' && strchr(r, ']')) {
            r = strchr(r, ']') + 1;
        } else {
            *w++ = *r++;
        }
    }
    *w = 0;
    for (w = s; *s; s++)
        if (!(*s == ' ' && s[1] == ' ')) *w++ = *s;
    *w = 0;
}

/* An index given as a number, as its digits, or as the text or label it names. */
static bool answer_of(const json_t *a, const json_t *choices, const json_t *labels, uint32_t n, uint32_t *out) {
    const char *s = json_string_value(a);
    if (json_is_integer(a)) {
        json_int_t v = json_integer_value(a);
        if (v < 0 || v >= (json_int_t)n) return false;
        return *out = (uint32_t)v, true;
    }
    if (!s) return false;
    for (uint32_t i = 0; i < n; i++) {
        const char *c = json_string_value(json_array_get(choices, i)), *l = json_string_value(json_array_get(labels, i));
        if ((l && strcmp(l, s) == 0) || (c && strcmp(c, s) == 0)) return *out = i, true;
    }
    if (labels) return false;
    if (*s >= '0' && *s <= '9') {
        char *end;
        unsigned long v = strtoul(s, &end, 10);
        if (*end || v >= n) return false;
        return *out = (uint32_t)v, true;
    }
    if (s[0] >= 'A' && s[0] <= 'Z' && !s[1] && (uint32_t)(s[0] - 'A') < n) return *out = (uint32_t)(s[0] - 'A'), true;
    return false;
}

static ash_status oom(ash_error *err) { return ash_fail(err, ASH_E_NOMEM, "out of memory for tasks"); }

static ash_status choice_item(ash_tasks *t, ash_task_item *it, const json_t *choices, const json_t *labels, const json_t *answer, bool marks, ash_error *err) {
    size_t n = json_array_size(choices);
    if (n < 2 || n > MAX_CHOICES) return ash_fail(err, ASH_E_FORMAT, "line %u: %zu choices; 2 to %d are possible", it->line, n, MAX_CHOICES);
    const char **c = ash_arena_alloc(&t->arena, n * sizeof *c);
    if (!c) return oom(err);
    for (size_t i = 0; i < n; i++) {
        const char *s = json_string_value(json_array_get(choices, i));
        if (!s || !*s) return ash_fail(err, ASH_E_FORMAT, "line %u: choice %zu is no text", it->line, i + 1);
        char *own = join(t, gap(it->prompt, s), s, "");
        if (!own) return oom(err);
        if (marks) clean_marks(own);
        if (!*own) return ash_fail(err, ASH_E_FORMAT, "line %u: choice %zu is empty", it->line, i + 1);
        c[i] = own;
    }
    if (!answer_of(answer, choices, labels, (uint32_t)n, &it->answer)) return ash_fail(err, ASH_E_FORMAT, "line %u: the answer names none of the %zu choices", it->line, n);
    it->kind = ASH_TASK_CHOICE;
    it->choices = c;
    it->n_choices = (uint32_t)n;
    it->gold = c[it->answer];
    return ASH_OK;
}

static ash_status hellaswag(ash_tasks *t, ash_task_item *it, const json_t *o, ash_error *err) {
    const char *ctx = text_of(o, "ctx"), *label = text_of(o, "activity_label");
    char *p = join(t, label ? label : "", label ? ": " : "", ctx);
    if (!p) return oom(err);
    clean_marks(p);
    it->shape = "hellaswag";
    it->prompt = p;
    return choice_item(t, it, json_object_get(o, "endings"), NULL, json_object_get(o, "label"), true, err);
}

/* {"question": Q, "choices": {"text": [], "label": []}, "answerKey": "B"}, or the stem and the choices inside the question. */
static ash_status arc(ash_tasks *t, ash_task_item *it, const json_t *o, ash_error *err) {
    const json_t *q = json_object_get(o, "question"), *ch = json_object_get(o, "choices");
    const char *stem = json_string_value(q);
    json_t *texts = NULL, *labels = NULL, *e;
    size_t i;
    if (!stem) stem = text_of(q, "stem");
    if (!ch) ch = json_object_get(q, "choices");
    if (json_is_object(ch)) {
        texts = json_incref(json_object_get(ch, "text"));
        labels = json_incref(json_object_get(ch, "label"));
    } else if (json_is_array(ch)) {
        texts = json_array(), labels = json_array();
        json_array_foreach((json_t *)(uintptr_t)ch, i, e) {
            json_array_append(texts, json_object_get(e, "text"));
            json_array_append(labels, json_object_get(e, "label"));
        }
    }
    ash_status st;
    it->shape = "arc";
    it->prompt = stem ? join(t, "Question: ", stem, "\nAnswer:") : NULL;
    if (!stem) st = ash_fail(err, ASH_E_FORMAT, "line %u: the question is no text", it->line);
    else if (!it->prompt) st = oom(err);
    else st = choice_item(t, it, texts, labels, json_object_get(o, "answerKey"), false, err);
    json_decref(texts);
    json_decref(labels);
    return st;
}

static ash_status expect(ash_tasks *t, ash_task_item *it, ash_task_kind k, const char *shape, const char *p0, const char *p1, const char *p2, const char *expected, const char *gold,
                         ash_error *err) {
    it->kind = k;
    it->shape = shape;
    it->prompt = join(t, p0, p1, p2);
    it->expected = join(t, expected, "", "");
    it->gold = it->prompt ? join(t, gap(it->prompt, gold), gold, "") : NULL;
    return it->gold && it->expected ? ASH_OK : oom(err);
}

static ash_status item_of(ash_tasks *t, ash_task_item *it, const json_t *o, ash_error *err) {
    const char *q = text_of(o, "question"), *a = text_of(o, "answer"), *p = text_of(o, "prompt"), *code = text_of(o, "canonical_solution"), *target = text_of(o, "target");
    if (text_of(o, "ctx") && json_is_array(json_object_get(o, "endings"))) return hellaswag(t, it, o, err);
    if (json_object_get(o, "answerKey")) return arc(t, it, o, err);
    if (p && code) return expect(t, it, ASH_TASK_CODE, "humaneval", p, "", "", code, code, err);
    const char *mark = a ? strstr(a, "####") : NULL;
    if (q && mark) return expect(t, it, ASH_TASK_NUMBER, "gsm8k", "Question: ", q, "\nAnswer:", mark + 4, a, err);
    if (p && json_is_array(json_object_get(o, "choices"))) {
        it->shape = "own";
        it->prompt = join(t, p, "", "");
        return it->prompt ? choice_item(t, it, json_object_get(o, "choices"), NULL, json_object_get(o, "answer"), false, err) : oom(err);
    }
    if (p && (a || target)) return expect(t, it, ASH_TASK_TEXT, "own", p, "", "", a ? a : target, a ? a : target, err);
    return ash_fail(err, ASH_E_FORMAT,
                    "line %u has no known shape: prompt + choices + answer, prompt + answer, HellaSwag (ctx, endings, label), ARC (question, choices, answerKey), GSM8K (question, "
                    "answer with ####), HumanEval (prompt, canonical_solution)",
                    it->line);
}

ash_status ash_tasks_parse(ash_tasks **out, const char *text, size_t n, ash_error *err) {
    *out = NULL;
    ash_tasks *t = ash_calloc(1, sizeof *t);
    if (!t) return oom(err);
    ash_status st = ASH_OK;
    uint32_t line = 0;
    for (size_t at = 0; st == ASH_OK && at < n;) {
        const char *nl = memchr(text + at, '\n', n - at);
        size_t end = nl ? (size_t)(nl - text) : n, s = at;
        line++;
        at = end + 1;
        while (s < end && is_space(text[s])) s++;
        if (s == end) continue;
        json_error_t je;
        json_t *o = json_loadb(text + s, end - s, 0, &je);
        if (t->n == MAX_ITEMS) st = ash_fail(err, ASH_E_LIMIT, "more than %d items", MAX_ITEMS);
        if (st == ASH_OK && t->n == t->cap) {
            size_t cap = t->cap ? 2 * t->cap : 64;
            ash_task_item *p = ash_realloc(t->item, cap * sizeof *p);
            if (p) t->item = p, t->cap = cap;
            else st = oom(err);
        }
        if (st == ASH_OK && !json_is_object(o)) st = ash_fail(err, ASH_E_FORMAT, "line %u is no JSON object%s%.120s", line, o ? "" : ": ", o ? "" : je.text);
        if (st == ASH_OK) {
            ash_task_item *it = &t->item[t->n];
            *it = (ash_task_item){.line = line};
            st = item_of(t, it, o, err);
            if (st == ASH_OK && t->n && it->kind != t->item[0].kind)
                st = ash_fail(err, ASH_E_FORMAT, "line %u is of kind %s, and line %u of kind %s: a file has one", line, ash_task_kind_name(it->kind), t->item[0].line,
                              ash_task_kind_name(t->item[0].kind));
            t->n += st == ASH_OK;
        }
        json_decref(o);
    }
    if (st == ASH_OK && !t->n) st = ash_fail(err, ASH_E_FORMAT, "there is no item in it");
    if (st == ASH_OK) *out = t;
    else ash_tasks_free(t);
    return st;
}

ash_status ash_tasks_load(ash_tasks **t, const char *path, ash_error *err) {
    *t = NULL;
    ash_buf b = {0};
    ash_status st = ash_file_read(path, 1ull << 30, &b, err);
    if (st == ASH_OK) {
        st = ash_tasks_parse(t, b.p ? b.p : "", b.n, err);
        if (st != ASH_OK && err) ash_error_prefix(err, "%s", path);
    }
    ash_buf_free(&b);
    return st;
}

/* ---- the same answer ---- */
/* A number in s, thousands' commas left out: the one after the last "####", else the last one. */
static bool last_number(const char *s, double *out) {
    const char *mark = NULL;
    for (const char *p = s; (p = strstr(p, "####")); p += 4) mark = p + 4;
    bool any = false;
    for (const char *p = mark ? mark : s; *p;) {
        bool neg = p[0] == '-' && p[1] >= '0' && p[1] <= '9';
        if (!(*p >= '0' && *p <= '9') && !neg) {
            p++;
            continue;
        }
        char num[64];
        size_t k = 0;
        if (neg) num[k++] = *p++;
        for (bool dot = false; k < sizeof num - 1; p++) {
            if (*p >= '0' && *p <= '9') num[k++] = *p;
            else if (*p == '.' && !dot && p[1] >= '0' && p[1] <= '9') dot = true, num[k++] = '.';
            else if (!(*p == ',' && p[1] >= '0' && p[1] <= '9' && p[2] >= '0' && p[2] <= '9' && p[3] >= '0' && p[3] <= '9')) break;
        }
        num[k] = 0;
        while (*p >= '0' && *p <= '9') p++; /* digits beyond any number's worth */
        *out = strtod(num, NULL);
        any = true;
        if (mark) return true;
    }
    return any;
}

/* Equal but for leading and trailing space, and runs of it inside. */
static bool same_words(const char *a, const char *b) {
    for (;;) {
        while (is_space(*a)) a++;
        while (is_space(*b)) b++;
        if (!*a || !*b) return !*a && !*b;
        while (*a && !is_space(*a) && *a == *b) a++, b++;
        if ((*a && !is_space(*a)) || (*b && !is_space(*b))) return false;
    }
}

/* The next line that is not blank: its text without spaces at the end; false at the end. */
static bool next_line(const char **p, const char **s, size_t *n) {
    while (**p) {
        const char *e = strchr(*p, '\n'), *begin = *p;
        if (!e) e = *p + strlen(*p);
        *p = *e ? e + 1 : e;
        while (e > begin && is_space(e[-1])) e--;
        if (e > begin) return *s = begin, *n = (size_t)(e - begin), true;
    }
    return false;
}

static bool same_lines(const char *a, const char *b) {
    const char *x, *y;
    size_t nx, ny;
    for (;;) {
        bool p = next_line(&a, &x, &nx), q = next_line(&b, &y, &ny);
        if (!p || !q) return p == q;
        if (nx != ny || memcmp(x, y, nx) != 0) return false;
    }
}

bool ash_task_match(const ash_task_item *it, const char *text) {
    double a, b;
    switch (it->kind) {
    case ASH_TASK_NUMBER: return last_number(text, &a) && last_number(it->expected, &b) && fabs(a - b) <= 1e-6 * fmax(1, fabs(b));
    case ASH_TASK_CODE: return same_lines(text, it->expected);
    case ASH_TASK_TEXT: return same_words(text, it->expected);
    default: return false;
    }
}
