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

static ash_status render(const char *src, size_t n, const ash_chat_msg *m, size_t n_m, bool gen, char **out, size_t *n_out, ash_error *e) {
    ash_tmpl *t;
    *out = NULL;
    ash_status st = ash_tmpl_parse(&t, src, n, e);
    if (st == ASH_OK) st = ash_tmpl_render(t, m, n_m, gen, "<bos>", "<eos>", out, n_out, e);
    ash_tmpl_free(t);
    return st;
}

/* Templates that use what the subset leaves out; each must say so in one sentence. */
static const char *const partial[] = {
    "google-gemma-4-31B-it.jinja",          "google-gemma-4-31B-it-interleaved.jinja", "openai-gpt-oss-120b.jinja", "Qwen3.5-4B.jinja",
    "Mistral-Small-3.2-24B-Instruct-2506.jinja", "mistralai-Mistral-Nemo-Instruct-2407.jinja",
};

static void test_expected(void **s) {
    (void)s;
    char path[512];
    const char *dir = getenv("ASH_TEST_DATA");
    snprintf(path, sizeof path, "%s/templates/expected.json", dir);
    json_t *doc = json_load_file(path, 0, NULL), *c;
    assert_non_null(doc);
    size_t i, bad = 0, equal = 0, refused = 0, unsupported = 0;
    json_array_foreach(json_object_get(doc, "cases"), i, c) {
        const char *file = json_string_value(json_object_get(c, "file")), *conv = json_string_value(json_object_get(c, "conversation"));
        json_t *want = json_object_get(c, "text"), *list = json_object_get(json_object_get(doc, "conversations"), conv);
        ash_chat_msg m[16];
        size_t n_m = json_array_size(list), n_out = 0;
        for (size_t k = 0; k < n_m; k++) {
            json_t *pair = json_array_get(list, k);
            m[k] = (ash_chat_msg){json_string_value(json_array_get(pair, 0)), json_string_value(json_array_get(pair, 1))};
        }
        ash_buf src = {0};
        ash_error e = {0};
        if (file) {
            snprintf(path, sizeof path, "%s/templates/%s", dir, file);
            assert_int_equal(ash_file_read(path, 1 << 20, &src, &e), ASH_OK);
        } else
            ash_buf_adds(&src, json_string_value(json_object_get(c, "source")));
        char *out;
        ash_status st = render(src.p, src.n, m, n_m, json_is_true(json_object_get(c, "gen")), &out, &n_out, &e);
        bool is_partial = false;
        for (size_t k = 0; file && k < ASH_ARRAY_LEN(partial); k++) is_partial = is_partial || strcmp(partial[k], file) == 0;
        bool ok;
        if (st == ASH_OK) ok = want && json_string_length(want) == n_out && memcmp(json_string_value(want), out, n_out) == 0;
        else if (st == ASH_E_UNSUPPORTED) ok = is_partial && strstr(e.msg, "not supported") != NULL;
        else ok = !want && st == ASH_E_FORMAT && e.msg[0];
        equal += ok && st == ASH_OK;
        refused += ok && st == ASH_E_FORMAT;
        unsupported += ok && st == ASH_E_UNSUPPORTED;
        if (!ok) {
            print_error("%s, %s:\n got %s: %s\nwant %s\n", file ? file : src.p, conv, ash_status_name(st), st == ASH_OK ? out : e.msg,
                        want ? json_string_value(want) : json_string_value(json_object_get(c, "error")));
            bad++;
        }
        ash_text_free(out);
        ash_buf_free(&src);
    }
    json_decref(doc);
    print_message("%zu equal, %zu refused alike, %zu not supported\n", equal, refused, unsupported);
    assert_int_equal(bad, 0);
    assert_true(equal >= 150);
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
        {"{{ 'a'.zfill(3) }}", "method .zfill()"},
        {"{% include 'x' %}", "{% include %}"},
        {"{% set x %}a{% endset %}", "{% set %} block"},
        {"{% macro m(a, b=1) %}{{ a }}{% endmacro %}{{ m(1) }}", "macro m"},
        {"{{ 2 ** 3 }}", "**"},
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
    assert_int_equal(try("{{ range(1000000) }}", &e), ASH_E_LIMIT);
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
                              "{% for k, v in {'x': 1}.items() %}{{ k }}{% endfor %}{{ messages[0:1] }}{% endfor %}";
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
