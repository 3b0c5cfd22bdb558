/* test_tmpl.c - chat templates against Jinja2's renderings (tests/data/templates/expected.json), limits,
 * broken templates, out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/text.h"
#include "base/base.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static ash_status render(const char *src, size_t n, const ash_chat_msg *m, size_t n_m, bool gen, char **out, size_t *n_out, ash_error *e) {
    ash_tmpl *t;
    *out = NULL;
    ash_status st = ash_tmpl_parse(&t, src, n, e);
    if (st == ASH_OK) st = ash_tmpl_render(t, m, n_m, gen, "<bos>", "<eos>", out, n_out, e);
    ash_tmpl_free(t);
    return st;
}

static char *dump(const json_t *j) { return j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL; }

static bool same_text(const json_t *c, const char *out, size_t n) {
    const json_t *want = json_object_get(c, "text"), *hash = json_object_get(c, "sha256");
    if (want) return json_string_length(want) == n && memcmp(json_string_value(want), out, n) == 0;
    if (!hash || json_integer_value(json_object_get(c, "bytes")) != (json_int_t)n) return false;
    char hex[65];
    ash_sha256 h;
    ash_sha256_init(&h);
    ash_sha256_add(&h, out, n);
    ash_sha256_hex(&h, hex);
    return strcmp(hex, json_string_value(hash)) == 0;
}

/* 2026-02-03 04:05:06, a Tuesday: the clock of make_expected.py */
static const struct tm k_now = {.tm_year = 126, .tm_mon = 1, .tm_mday = 3, .tm_hour = 4, .tm_min = 5, .tm_sec = 6, .tm_wday = 2, .tm_yday = 33};

static void test_expected(void **s) {
    (void)s;
    char path[512];
    const char *dir = getenv("ASH_TEST_DATA");
    snprintf(path, sizeof path, "%s/templates/expected.json", dir);
    json_t *doc = json_load_file(path, JSON_ALLOW_NUL, NULL), *c;
    assert_non_null(doc);
    size_t i, bad = 0, equal = 0, refused = 0;
    json_array_foreach(json_object_get(doc, "cases"), i, c) {
        const char *file = json_string_value(json_object_get(c, "file")), *name = json_string_value(json_object_get(c, "conversation"));
        const json_t *conv = json_object_get(json_object_get(doc, "conversations"), name);
        char *part[4] = {dump(json_object_get(conv, "messages")), dump(json_object_get(conv, "tools")), dump(json_object_get(conv, "documents")),
                         dump(json_object_get(conv, "vars"))};
        ash_tmpl_input in = {part[0], part[1], part[2], part[3], json_is_true(json_object_get(c, "gen")), "<bos>", "<eos>", &k_now};
        ash_buf src = {0};
        ash_error e = {0};
        if (file) {
            snprintf(path, sizeof path, "%s/templates/%s", dir, file);
            assert_int_equal(ash_file_read(path, 1 << 20, &src, &e), ASH_OK);
        } else
            ash_buf_add(&src, json_string_value(json_object_get(c, "source")), json_string_length(json_object_get(c, "source")));
        char *out = NULL;
        size_t n_out = 0;
        ash_tmpl *t;
        ash_status st = ash_tmpl_parse(&t, src.p, src.n, &e);
        if (st == ASH_OK) st = ash_tmpl_render_json(t, &in, &out, &n_out, &e);
        ash_tmpl_free(t);
        const json_t *error = json_object_get(c, "error");
        bool ok = st == ASH_OK ? same_text(c, out, n_out) : error && e.msg[0] && st != ASH_E_NOMEM && st != ASH_E_INTERNAL;
        equal += ok && st == ASH_OK;
        refused += ok && st != ASH_OK;
        if (!ok) {
            const json_t *want = json_object_get(c, "text");
            print_error("%s, %s:\n got %s: %s\nwant %s\n", file ? file : src.p, name, ash_status_name(st), st == ASH_OK ? out : e.msg,
                        want ? json_string_value(want) : error ? json_string_value(error) : "(see make_expected.py --show)");
            bad++;
        }
        ash_text_free(out);
        ash_buf_free(&src);
        for (int k = 0; k < 4; k++) free(part[k]);
    }
    json_decref(doc);
    print_message("%zu equal, %zu refused alike\n", equal, refused);
    assert_int_equal(bad, 0);
    assert_true(equal >= 1200);
}

static ash_status try(const char *src, ash_error *e) {
    char *out;
    size_t n;
    ash_chat_msg m = {"user", "hi"};
    ash_status st = render(src, strlen(src), &m, 1, true, &out, &n, e);
    ash_text_free(out);
    return st;
}

static void test_messages(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(try("{{ raise_exception('Roles must alternate') }}", &e), ASH_E_FORMAT);
    assert_string_equal(e.msg, "the chat template refuses this conversation: Roles must alternate");
    static const struct { const char *src, *part; } cases[] = {
        {"\n\n{{ 'a' | nosuch }}", "line 3: the filter \"nosuch\" is not supported"},
        {"{{ 1 is nosuch }}", "test \"nosuch\""},
        {"{{ nosuch(1) }}", "function nosuch()"},
        {"{{ 'a'.format(3) }}", "method .format()"},
        {"{% include 'x' %}", "{% include %}"},
        {"\n{% call m() %}{% endcall %}", "line 2: the statement {% call %}"},
        {"{{ '%d' % 3 }}", "formatting a string"},
        {"{{ strftime_now('%Y') }}", "function strftime_now()"},
        {"{% for x in y recursive %}{% endfor %}", "recursive"},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        assert_int_equal(try(cases[i].src, &e), ASH_E_UNSUPPORTED);
        if (!strstr(e.msg, cases[i].part) || !strstr(e.msg, "not supported")) fail_msg("%s: %s", cases[i].src, e.msg);
    }
    assert_int_equal(try("{% macro unused() %}{{ 1 | nosuch }}{% endmacro %}{% if false %}{{ 1 | nosuch }}{% endif %}ok", &e), ASH_OK);
}

static void test_limits(void **s) {
    (void)s;
    ash_error e;
    assert_int_equal(try("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{% set ns = namespace(s='0123456789') %}{% for a in range(90) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{% set ns = namespace(s=[1]) %}{% for a in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{% set ns = namespace(s=[1]) %}{% for a in range(50) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{{ 'x' * 99999999999 }}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{{ range(1000000) | list }}", &e), ASH_E_LIMIT);
    assert_int_equal(try("{{ 9223372036854775807 }}", &e), ASH_E_FORMAT);
    ash_buf b = {0};
    for (int i = 0; i < 100000; i++) ash_buf_adds(&b, "[");
    ash_buf src = {0};
    ash_buf_addf(&src, "{{ %s }}", b.p);
    assert_int_equal(try(src.p, &e), ASH_E_LIMIT);
    static const char *const chains[] = {"1+", "not ", "-", "(", "a.b.", "x if "};
    for (size_t k = 0; k < ASH_ARRAY_LEN(chains); k++) {
        ash_buf_reset(&src);
        ash_buf_adds(&src, "{{ ");
        for (int i = 0; i < 20000; i++) ash_buf_adds(&src, chains[k]);
        ash_buf_adds(&src, "1 }}");
        assert_int_not_equal(try(src.p, &e), ASH_OK);
    }
    ash_buf_reset(&src);
    for (int i = 0; i < 20000; i++) ash_buf_adds(&src, "{% if 1 %}");
    assert_int_equal(try(src.p, &e), ASH_E_LIMIT);
    ash_buf_reset(&src); /* a long template is not a deep one */
    for (int i = 0; i < 20000; i++) ash_buf_adds(&src, "{% if 1 %}{{ 'a' }}{% endif %}");
    assert_int_equal(try(src.p, &e), ASH_OK);
    ash_buf_free(&src);
    ash_buf_free(&b);
}

/* A conversation of 10,000 turns renders; strange bytes pass through. */
static void test_big(void **s) {
    (void)s;
    enum { N = 10000 };
    ash_chat_msg *m = calloc(N, sizeof *m);
    for (int i = 0; i < N; i++) m[i] = (ash_chat_msg){i & 1 ? "assistant" : "user", "some \xff\xfe words \xe2\x82"};
    const char *src = "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim | upper }}{% endfor %}";
    char *out;
    size_t n;
    ash_error e = {0};
    if (render(src, strlen(src), m, N, true, &out, &n, &e) != ASH_OK) fail_msg("%s", e.msg);
    assert_int_equal(n, N / 2 * (8 + 13 + 2 * strlen("SOME \xff\xfe WORDS \xe2\x82")));
    ash_text_free(out);
    free(m);
}

static void test_oom(void **s) {
    (void)s;
    static const char src[] = "{% set ns = namespace(a=[1, {'b': 2}]) %}{% for m in messages if m.role != 'x' %}{% set ns.a = ns.a + [loop.index] %}"
                              "{{ m.content | trim | upper | replace('H', 'J') ~ ns.a }}{{ ns.a | tojson(indent=2) }}{{ 'a b'.split() | join('-') }}"
                              "{% for k, v in {'x': 1}.items() %}{{ k }}{% endfor %}{{ messages[0:1] }}{% endfor %}"
                              "{% macro f(a, b='<') %}{{ a }}{{ b | e + a }}{% endmacro %}{% set t %}{{ f('q') }}{% endset %}{{ t | indent }}"
                              "{{ messages | map(attribute='role') | sort | join }}{{ {'b': 1} | dictsort }}{{ 'x'[::-1] * 3 }}{{ [2] * 3 }}";
    ash_chat_msg m[2] = {{"user", " hi "}, {"assistant", "yes"}};
    bool ok = false;
    for (uint64_t k = 1; !ok; k++) {
        char *out;
        size_t n;
        ash_error e;
        ash_alloc_fail_after(k);
        ash_status st = render(src, sizeof src - 1, m, 2, true, &out, &n, &e);
        ash_alloc_fail_after(0);
        ok = st == ASH_OK;
        if (!ok) assert_int_equal(st, ASH_E_NOMEM);
        ash_text_free(out);
        assert_true(k < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_expected), cmocka_unit_test(test_messages), cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_big), cmocka_unit_test(test_oom)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
