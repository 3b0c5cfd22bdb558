/* test_grammar.c - GBNF and the matcher: what is accepted and refused, masks against token by token, constrained
 * sampling, hostile grammars, out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/engine.h"
#include "engine/grammar_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static ash_grammar *compile(const char *src) {
    ash_grammar *g;
    ash_error e = {0};
    if (ash_grammar_gbnf(&g, src, strlen(src), NULL, &e) != ASH_OK) fail_msg("%s: %s", src, e.msg);
    return g;
}

static bool fits(const ash_grammar *g, const char *text, size_t n) {
    ash_matcher *m;
    ash_error e = {0};
    assert_int_equal(ash_matcher_new(&m, g, NULL, &e), ASH_OK);
    bool ok = ash_matcher_text(m, text, n) && ash_matcher_may_end(m);
    ash_matcher_free(m);
    return ok;
}

static const char json[] = "root ::= ws value ws\n"
                           "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
                           "object ::= \"{\" ws (pair (ws \",\" ws pair)*)? ws \"}\"\npair ::= string ws \":\" ws value\n"
                           "array ::= \"[\" ws (value (ws \",\" ws value)*)? ws \"]\"\n"
                           "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\"\n"
                           "number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)? ([eE] [+-]? [0-9]+)?\nws ::= [ \\t\\n]*\n";

static void test_accept(void **s) {
    (void)s;
    static const struct { const char *src, *yes[8], *no[8]; } cases[] = {
        {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yesno", "yes ", "YES"}},
        {"root ::= \"a\"* \"b\"+ \"c\"?", {"b", "aab", "bbc", "abc"}, {"", "a", "ac", "bcc"}},
        {"root ::= \"a\"{2} \"b\"{1,3} \"c\"{2,} \"d\"{,2}", {"aabcc", "aabbbcccc", "aabccdd"}, {"abcc", "aacc", "aabbbbcc", "aabc", "aabccddd"}},
        {"root ::= [a-c] [^a-c] .", {"ax!", "b\xc3\xa9\xe2\x82\xac", "c\xf0\x9f\x99\x82" "a"}, {"ab!", "dxx", "ax", "a\xc3x", "a\xed\xa0\x80x", "a\xff!"}},
        {"root ::= [\xc3\xa9-\xe2\x82\xac]+", {"\xc3\xa9", "\xe2\x82\xac\xc4\x80", "\xe1\x80\x80"}, {"e", "\xc3\xa8", "\xe2\x82\xad", "\xc3"}},
        {"root ::= \"\\u00e9\\x41\\n\\t\\\\\\\"\" [\\]\\-\\^\\n]", {"\xc3\xa9" "A\n\t\\\"]", "\xc3\xa9" "A\n\t\\\"-", "\xc3\xa9" "A\n\t\\\"^"}, {"\xc3\xa9" "A\n\t\\\"x"}},
        {"root ::= (\"a\" | \"b\"\n \"c\")+ # note\n", {"a", "bc", "abca"}, {"b", "c", ""}},
        {"root ::= x |\n y\n\n# more\nx ::= \"1\"\n  | \"2\"\ny ::= \"3\"", {"1", "2", "3"}, {"4", ""}},
        {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())", ")("}},
        {"root ::= a b\na ::= \"x\"*\nb ::= \"x\" \"y\"", {"xy", "xxxy"}, {"y", "xx"}},
        {"root ::= (\"a\"*)* (\"\" | \"b\")* \"c\"", {"c", "aac", "abbc"}, {"ca", "bac"}},
        {"root ::= item (\",\" item)*\nitem ::= [0-9]+", {"1", "1,22,3"}, {"", ",", "1,", "1,,2"}},
        {"root ::= [] | \"a\"", {"a"}, {"", "b"}},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        ash_grammar *g = compile(cases[i].src);
        for (const char *const *t = cases[i].yes; *t; t++)
            if (!fits(g, *t, strlen(*t))) fail_msg("%s refuses \"%s\"", cases[i].src, *t);
        for (const char *const *t = cases[i].no; *t; t++)
            if (fits(g, *t, strlen(*t))) fail_msg("%s accepts \"%s\"", cases[i].src, *t);
        ash_grammar_free(g);
    }
    static const char *const yes[] = {"{}", " [1, -2.5e+3, \"a\\u00e9\\n\", null, {\"k\": [[], {}]}] ", "\"\xf0\x9f\x99\x82\"", "0"};
    static const char *const no[] = {"{", "{,}", "[1,]", "01", "\"\t\"", "\"\\x\"", "nul", "{\"a\" 1}", "\"\xff\""};
    ash_grammar *g = compile(json);
    for (size_t i = 0; i < ASH_ARRAY_LEN(yes); i++)
        if (!fits(g, yes[i], strlen(yes[i]))) fail_msg("JSON refuses %s", yes[i]);
    for (size_t i = 0; i < ASH_ARRAY_LEN(no); i++)
        if (fits(g, no[i], strlen(no[i]))) fail_msg("JSON accepts %s", no[i]);
    ash_grammar_free(g);
}

/* Every code point's encoding against a range, at the borders of ranges of all lengths. */
static void test_utf8(void **s) {
    (void)s;
    static const uint32_t edge[] = {0, 1, 0x41, 0x7e, 0x7f, 0x80, 0x81, 0x7fe, 0x7ff, 0x800, 0x801, 0xfff, 0x1000, 0x1234, 0xd7ff, 0xe000, 0xfffe, 0xffff, 0x10000, 0x10abc, 0x3ffff, 0x40000, 0x10fffe, 0x10ffff};
    for (size_t a = 0; a < ASH_ARRAY_LEN(edge); a += 2)
        for (size_t b = a; b < ASH_ARRAY_LEN(edge); b += 3) {
            char src[64];
            snprintf(src, sizeof src, "root ::= [\\U%08X-\\U%08X]", edge[a], edge[b]);
            ash_grammar *g = compile(src);
            for (size_t k = 0; k < ASH_ARRAY_LEN(edge); k++) {
                uint32_t c = edge[k];
                char t[4];
                size_t n = 1;
                if (c < 0x80) t[0] = (char)c;
                else if (c < 0x800) t[0] = (char)(0xc0 | c >> 6), t[1] = (char)(0x80 | (c & 63)), n = 2;
                else if (c < 0x10000) t[0] = (char)(0xe0 | c >> 12), t[1] = (char)(0x80 | (c >> 6 & 63)), t[2] = (char)(0x80 | (c & 63)), n = 3;
                else t[0] = (char)(0xf0 | c >> 18), t[1] = (char)(0x80 | (c >> 12 & 63)), t[2] = (char)(0x80 | (c >> 6 & 63)), t[3] = (char)(0x80 | (c & 63)), n = 4;
                if (fits(g, t, n) != (c >= edge[a] && c <= edge[b])) fail_msg("%s and U+%04X", src, c);
            }
            ash_grammar_free(g);
        }
}

static void test_errors(void **s) {
    (void)s;
    static const struct { const char *src; ash_status st; const char *part; } cases[] = {
        {"", ASH_E_FORMAT, "no rules"},
        {"x ::= \"a\"", ASH_E_FORMAT, "no rule \"root\""},
        {"root ::= a", ASH_E_FORMAT, "the rule a is used and not defined"},
        {"root ::= \"a\"\nroot ::= \"b\"", ASH_E_FORMAT, "line 2: the rule root is there twice"},
        {"root ::= \"a", ASH_E_FORMAT, "ends inside a literal"},
        {"root ::= [a", ASH_E_FORMAT, "literal"},
        {"root ::= [z-a]", ASH_E_FORMAT, "backwards"},
        {"root ::= (\"a\"", ASH_E_FORMAT, "parenthesis"},
        {"root ::= \"a\")", ASH_E_FORMAT, "unexpected"},
        {"root ::= \"\\q\"", ASH_E_FORMAT, "escape"},
        {"root ::= \"\\uD800\"", ASH_E_FORMAT, "no character"},
        {"root = \"a\"", ASH_E_FORMAT, "expected a rule"},
        {"root ::= \"a\"{3,1}", ASH_E_FORMAT, "over the most"},
        {"root ::= \"a\"{x}", ASH_E_FORMAT, "expected {m}"},
        {"root ::= <[5]>", ASH_E_UNSUPPORTED, "angle brackets"},
        {"root ::= \"\xff\"", ASH_E_FORMAT, "UTF-8"},
        /* hostile */
        {"root ::= root \"a\" | \"b\"", ASH_E_FORMAT, "left recursion"},
        {"root ::= \"\" x\nx ::= y?  root\ny ::= \"\"", ASH_E_FORMAT, "left recursion"},
        {"root ::= \"x\" a\na ::= b | \"1\"\nb ::= c \"2\"\nc ::= a*", ASH_E_FORMAT, "left recursion"},
        {"root ::= \"a\"{1000000}", ASH_E_LIMIT, "repeated"},
        {"root ::= ((\"ab\"{1000}){1000}){1000}", ASH_E_LIMIT, "unrolls"},
        {"root ::= ((\"\"{0,100000}){0,100000}){0,100000}", ASH_E_LIMIT, "unrolls"},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        ash_grammar *g;
        ash_error e = {0};
        ash_status st = ash_grammar_gbnf(&g, cases[i].src, strlen(cases[i].src), NULL, &e);
        if (st != cases[i].st || !strstr(e.msg, cases[i].part)) fail_msg("%s: %s %s", cases[i].src, ash_status_name(st), e.msg);
    }
    ash_buf b = {0};
    ash_buf_adds(&b, "root ::= ");
    for (int i = 0; i < 100000; i++) ash_buf_addc(&b, '(');
    ash_grammar *g;
    ash_error e = {0};
    assert_int_equal(ash_grammar_gbnf(&g, b.p, b.n, NULL, &e), ASH_E_LIMIT);
    ash_buf_reset(&b);
    ash_buf_adds(&b, "root ::= r0\n"); /* a chain of rules that may all be nothing */
    for (int i = 0; i < 15000; i++) ash_buf_addf(&b, "r%d ::= r%d \"x\"?\n", i, i + 1);
    ash_buf_adds(&b, "r15000 ::= \"\"\n");
    assert_int_equal(ash_grammar_gbnf(&g, b.p, b.n, NULL, &e), ASH_OK);
    ash_grammar_free(g);
    ash_buf_free(&b);
    /* twice as many ways at every byte: refused in one sentence when they are too many, and usable again after a reset */
    g = compile("root ::= \"x\" root \"y\" | \"x\" root \"z\" | \"\"");
    ash_matcher *m;
    assert_int_equal(ash_matcher_new(&m, g, NULL, &e), ASH_OK);
    bool ok = true;
    for (int i = 0; ok && i < 100; i++) ok = ash_matcher_text(m, "x", 1);
    assert_false(ok);
    assert_int_equal(ash_matcher_error(m, &e), ASH_E_LIMIT);
    ash_matcher_reset(m);
    assert_true(ash_matcher_text(m, "xxyz", 4) && ash_matcher_may_end(m));
    ash_matcher_free(m);
    ash_grammar_free(g);
}

/* Deep and long texts run through the tables many times over. */
static void test_long(void **s) {
    (void)s;
    ash_grammar *g = compile(json);
    ash_matcher *m;
    ash_error e = {0};
    assert_int_equal(ash_matcher_new(&m, g, NULL, &e), ASH_OK);
    for (int i = 0; i < 30000; i++) assert_true(ash_matcher_text(m, "[", 1));
    for (int i = 0; i < 30000; i++) assert_true(ash_matcher_text(m, "]", 1));
    assert_true(ash_matcher_may_end(m));
    ash_matcher_reset(m);
    assert_true(ash_matcher_text(m, "[", 1));
    for (int i = 0; i < 20000; i++) assert_true(ash_matcher_text(m, "{\"k\":[1,{\"a\":\"b\"}]},", 20));
    assert_true(ash_matcher_text(m, "0]", 2) && ash_matcher_may_end(m));
    ash_matcher_free(m);
    ash_grammar_free(g);
    g = compile("root ::= [a-z]{0,20000} \"!\"");
    assert_int_equal(ash_matcher_new(&m, g, NULL, &e), ASH_OK);
    for (int i = 0; i < 20000; i++) assert_true(ash_matcher_text(m, "q", 1));
    assert_true(ash_matcher_text(m, "!", 1) && ash_matcher_may_end(m));
    ash_matcher_free(m);
    ash_grammar_free(g);
}

/* A schema, texts that its grammar lets through, texts that it does not. */
static void test_schema(void **s) {
    (void)s;
    static const struct { const char *src, *yes[7], *no[9]; } cases[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"},\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
         {"{\"b\":\"x\"}", "{\"a\": 1, \"b\": \"\", \"c\": null}", "{\"b\":\"\\n\\u00e9\",\"c\":null}"},
         {"{}", "{\"a\":1}", "{\"c\":null,\"b\":\"\"}", "{\"b\":\"x\",}", "{\"b\":\"x\",\"d\":1}", "{\"b\":\"\\ud800\"}", "{\"a\":1.5,\"b\":\"\"}"}},
        {"{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"integer\"},\"a\":{\"type\":\"boolean\"}},\"additionalProperties\":{\"type\":\"null\"}}",
         {"{}", "{\"ab\":1,\"a\":true,\"abc\":null,\"x\":null}", "{\"b\":null}"}, {"{\"ab\":null}", "{\"a\":null}", "{\"x\":1}", "{\"x\":null,}"}},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,\"two\",null,{\"k\":[]}]},\"minItems\":1,\"maxItems\":3}",
         {"[1]", "[1, \"two\",null]", "[{\"k\": []}]"}, {"[]", "[2]", "[1,1,1,1]", "[1,]"}},
        {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":false}", {"[1,\"a\"]"}, {"[1]", "[1,\"a\",2]"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]", "[ ]"}, {"[1]"}},
        {"{\"type\":\"integer\",\"minimum\":37,\"maximum\":412}", {"37", "99", "100", "400", "412"}, {"36", "413", "5", "1000", "040", "-40"}},
        {"{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":3}", {"-12", "-9", "0", "2"}, {"-13", "3", "-0", "10", "-20"}},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":99}", {"100", "123456"}, {"99", "9", "0100", "-100"}},
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", {"0", "1", "0.5"}, {"1.5", "-0.1", "2", ".5"}},
        {"{\"type\":\"number\",\"minimum\":-2,\"maximum\":-1}", {"-2", "-1.25", "-1"}, {"0", "-2.5", "-0.5"}},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", {"\"ab\"", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82\"", "\"\\n\\\"\""}, {"\"a\"", "\"abcd\"", "\"\""}},
        {"{\"type\":\"string\",\"pattern\":\"^[a-c\\\"]\\\\d{2,3}(x|y z)?$\"}", {"\"a12\"", "\"\\\"123x\"", "\"b12y z\""}, {"\"a1\"", "\"d12\"", "\"a12yz\""}},
        {"{\"type\":\"string\",\"pattern\":\"b.\\\\s\"}", {"\"xxbq yy\"", "\"b\\\\\\n\""}, {"\"b\"", "\"bqq\""}},
        {"{\"type\":\"string\",\"format\":\"date\"}", {"\"2024-02-28\"", "\"1999-12-31\""}, {"\"2024-02-30\"", "\"2024-13-01\"", "\"2024-04-31\""}},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}", {"\"255.0.10.199\""}, {"\"256.0.0.1\"", "\"1.2.3\""}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":[\"null\",\"boolean\"]}]}", {"1", "null", "true"}, {"\"a\"", "1.5"}},
        {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":1}},\"required\":[\"a\"]},{\"$ref\":\"#/$defs/x\"}],\"$defs\":{\"x\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{}}}}}",
         {"{\"a\":5}", "{\"a\":5,\"b\":[{}]}"}, {"{}", "{\"a\":0}", "{\"b\":1}"}},
        {"{\"$ref\":\"#/$defs/tree\",\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},\"required\":[\"v\"]}}}",
         {"{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[]},{\"v\":3}]}"}, {"{\"kids\":[]}", "{\"v\":1,\"kids\":[1]}"}},
        {"true", {"1", "{\"a\":[null,true,{}]}", "\"x\""}, {"", "{"}},
        {"{\"const\":\"a\\\"b\\u0001\\u00e9\"}", {"\"a\\\"b\\u0001\xc3\xa9\""}, {"\"a\""}},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        ash_grammar *g;
        ash_error e = {0};
        if (ash_grammar_schema(&g, cases[i].src, strlen(cases[i].src), true, NULL, &e) != ASH_OK) fail_msg("%s: %s", cases[i].src, e.msg);
        for (const char *const *t = cases[i].yes; *t; t++)
            if (!fits(g, *t, strlen(*t))) fail_msg("%s refuses %s", cases[i].src, *t);
        for (const char *const *t = cases[i].no; *t; t++)
            if (fits(g, *t, strlen(*t))) fail_msg("%s accepts %s", cases[i].src, *t);
        ash_grammar_free(g);
    }
    /* every integer around every pair of bounds */
    for (int lo = -25; lo <= 120; lo += 7)
        for (int hi = lo; hi <= lo + 111; hi += 11) {
            char src[96], t[16];
            snprintf(src, sizeof src, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", lo, hi);
            ash_grammar *g;
            ash_error e = {0};
            assert_int_equal(ash_grammar_schema(&g, src, strlen(src), true, NULL, &e), ASH_OK);
            for (int v = lo - 30; v <= hi + 30; v += 3) {
                snprintf(t, sizeof t, "%d", v);
                if (fits(g, t, strlen(t)) != (v >= lo && v <= hi)) fail_msg("%s and %s", src, t);
            }
            ash_grammar_free(g);
        }
    static const struct { const char *src; ash_status st; const char *part; } bad[] = {
        {"{", ASH_E_FORMAT, "not JSON"},
        {"[]", ASH_E_FORMAT, "neither an object nor true"},
        {"{\"type\":\"tuple\"}", ASH_E_FORMAT, "no type \"tuple\""},
        {"{\"type\":\"array\",\"uniqueItems\":true}", ASH_E_UNSUPPORTED, "uniqueItems is not supported"},
        {"{\"properties\":{\"a\":{\"not\":{}}}}", ASH_E_UNSUPPORTED, "schema /a: not"},
        {"{\"$ref\":\"#/nowhere\"}", ASH_E_FORMAT, "leads nowhere"},
        {"{\"$ref\":\"#\"}", ASH_E_FORMAT, "left recursion"},
        {"{\"$ref\":\"http://x/y\"}", ASH_E_FORMAT, "leads nowhere"},
        {"{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}", ASH_E_LIMIT, "allOf nested"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)b\"}", ASH_E_UNSUPPORTED, "(?="},
        {"{\"type\":\"string\",\"pattern\":\"a{2\"}", ASH_E_FORMAT, "{m,n}"},
        {"{\"type\":\"string\",\"minLength\":5,\"maxLength\":2}", ASH_E_FORMAT, "over"},
        {"{\"type\":\"string\",\"maxLength\":1000000}", ASH_E_LIMIT, "over 100000"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":90000},\"minItems\":90000},\"minItems\":90000}", ASH_E_LIMIT, "unrolls"},
        {"{\"type\":\"object\",\"required\":[\"a\"]}", ASH_E_UNSUPPORTED, "not among the properties"},
    };
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        ash_grammar *g;
        ash_error e = {0};
        ash_status st = ash_grammar_schema(&g, bad[i].src, strlen(bad[i].src), true, NULL, &e);
        if (st != bad[i].st || !strstr(e.msg, bad[i].part)) fail_msg("%s: %s %s", bad[i].src, ash_status_name(st), e.msg);
    }
    ash_grammar *g;
    ash_error e = {0};
    char *ignored;
    static const char lenient[] = "{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"number\",\"multipleOf\":2}}";
    assert_int_equal(ash_grammar_schema(&g, lenient, sizeof lenient - 1, false, &ignored, &e), ASH_OK);
    assert_string_equal(ignored, "/uniqueItems: is not supported\n/items/multipleOf: is not supported\n");
    ash_text_free(ignored);
    ash_grammar_free(g);
}

static ash_vocab *vocab(const char *name, ash_gguf **g) {
    char path[512];
    ash_error e = {0};
    ash_vocab *v = NULL;
    snprintf(path, sizeof path, "%s/tokenizers/%s", getenv("ASH_TEST_DATA"), name);
    if (ash_gguf_open(g, path, &e) != ASH_OK || ash_vocab_load(&v, *g, &e) != ASH_OK) fail_msg("%s", e.msg);
    return v;
}

/* A mask is what asking for each token gives, along a random walk through the grammar. */
static void test_masks(void **s) {
    (void)s;
    static const char *const files[] = {"golden-llama.gguf", "golden-qwen3.gguf", "smollm2.gguf"};
    static const char *const grammars[] = {json, "root ::= [^x]{0,40} \"!\" | \"\xc3\xa9\"+ [0-9]{3,9}", "root ::= (\" \"? [A-Za-z]{1,7} [.,]?)+ \"\\n\""};
    for (size_t f = 0; f < ASH_ARRAY_LEN(files); f++) {
        ash_gguf *gg;
        ash_vocab *v = vocab(files[f], &gg);
        int32_t n = ash_vocab_size(v);
        for (size_t k = 0; k < ASH_ARRAY_LEN(grammars); k++) {
            ash_grammar *g = compile(grammars[k]);
            ash_matcher *m, *t;
            ash_error e = {0};
            assert_int_equal(ash_matcher_new(&m, g, v, &e), ASH_OK);
            assert_int_equal(ash_matcher_new(&t, g, v, &e), ASH_OK);
            ash_rng rng;
            ash_rng_seed(&rng, 7 + k);
            ash_buf text = {0};
            for (int step = 0; step < 40; step++) {
                const uint64_t *mask = ash_matcher_mask(m, false);
                assert_non_null(mask);
                ash_token pick = -1;
                uint64_t seen = 0;
                for (ash_token id = 0; id < n; id++) {
                    bool one = mask[id >> 6] >> (id & 63) & 1;
                    if (step < 6 && one != ash_matcher_allows(t, id)) fail_msg("%s, grammar %zu, step %d, token %d", files[f], k, step, id);
                    if (one && ash_rng_below(&rng, ++seen) == 0) pick = id;
                }
                if (pick < 0 || ash_vocab_is_eog(v, pick)) break;
                assert_int_equal(ash_matcher_accept(m, pick, &e), ASH_OK);
                assert_int_equal(ash_matcher_accept(t, pick, &e), ASH_OK);
                char piece[64];
                size_t len = ash_token_piece(v, pick, false, piece, sizeof piece);
                if (len <= sizeof piece) ash_buf_add(&text, piece, len);
                assert_true(ash_matcher_mask(m, true) == NULL || ash_matcher_mask(m, false) != NULL);
            }
            ash_matcher_reset(t);
            assert_true(ash_matcher_text(t, text.p ? text.p : "", text.n));
            ash_buf_free(&text);
            ash_matcher_free(m);
            ash_matcher_free(t);
            ash_grammar_free(g);
        }
        ash_vocab_free(v);
        ash_gguf_close(gg);
    }
}

/* Trying the likeliest and masking all give the same draw; nothing is allocated on the way. */
static void test_sampler(void **s) {
    (void)s;
    ash_gguf *gg;
    ash_vocab *v = vocab("smollm2.gguf", &gg);
    int32_t n = ash_vocab_size(v);
    float *logits = malloc((size_t)n * sizeof *logits);
    ash_grammar *g = compile(json);
    ash_error e = {0};
    ash_rng rng;
    ash_rng_seed(&rng, 3);
    /* flat logits, where masks are needed, and steep ones, where the likeliest decide; one mode has no filter at all */
    static const struct {
        float temperature, top_p, min_p, steep;
        int top_k;
    } modes[] = {{0, 0.95f, 0.05f, 20, 40},  {0.8f, 0.95f, 0.05f, 20, 40}, {0.8f, 0.95f, 0.05f, 20, 0}, {0.8f, 0.95f, 0.05f, 2e4f, 0}, {1.2f, 0.9f, 0, 2e4f, 0},
                 {1.0f, 1.0f, 0.02f, 2e3f, 0}, {1.0f, 0.5f, 0, 20, 0},     {1.0f, 1.0f, 0, 2e4f, 0}};
    for (size_t mode = 0; mode < ASH_ARRAY_LEN(modes); mode++) {
        ash_sampler_opts o = ash_sampler_defaults(NULL);
        o.temperature = modes[mode].temperature;
        o.top_k = modes[mode].top_k;
        o.top_p = modes[mode].top_p;
        o.min_p = modes[mode].min_p;
        o.seed = 11;
        ash_sampler *lazy, *full;
        ash_matcher *a, *b;
        assert_int_equal(ash_sampler_new(&lazy, &o, n, &e), ASH_OK);
        assert_int_equal(ash_sampler_new(&full, &o, n, &e), ASH_OK);
        assert_int_equal(ash_matcher_new(&a, g, v, &e), ASH_OK);
        assert_int_equal(ash_matcher_new(&b, g, v, &e), ASH_OK);
        ash_sampler_constrain(lazy, a);
        ash_sampler_constrain(full, b);
        for (int step = 0; step < 60; step++) {
            for (int32_t i = 0; i < n; i++) logits[i] = (float)(ash_rng_f64(&rng) - 0.5) * modes[mode].steep;
            assert_non_null(ash_matcher_mask(b, false)); /* so the second one masks */
            uint64_t before = ash_alloc_count();
            ash_token t = ash_sampler_pick(lazy, logits);
            assert_int_equal(ash_alloc_count(), before);
            assert_int_equal(t, ash_sampler_pick(full, logits));
            if (t < 0 || ash_vocab_is_eog(v, t)) break;
            assert_int_equal(ash_matcher_accept(a, t, &e), ASH_OK);
            assert_int_equal(ash_matcher_accept(b, t, &e), ASH_OK);
        }
        ash_sampler_free(lazy);
        ash_sampler_free(full);
        ash_matcher_free(a);
        ash_matcher_free(b);
    }
    ash_grammar_free(g);
    free(logits);
    ash_vocab_free(v);
    ash_gguf_close(gg);
}

/* A draw that is tried without the grammar first has the same distribution as one among what fits. */
static void test_draws(void **s) {
    (void)s;
    ash_gguf *gg;
    ash_vocab *v = vocab("smollm2.gguf", &gg);
    const int32_t n = ash_vocab_size(v);
    float *logits = malloc((size_t)n * sizeof *logits);
    ash_grammar *g = compile("root ::= \"0\" | \"1\" | \"2\"");
    ash_error e = {0};
    ash_matcher *m;
    ash_sampler *k;
    ash_sampler_opts o = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 5};
    assert_int_equal(ash_matcher_new(&m, g, v, &e), ASH_OK);
    assert_int_equal(ash_sampler_new(&k, &o, n, &e), ASH_OK);
    ash_sampler_constrain(k, m);
    ash_token id[4], *t;
    size_t nt;
    for (int i = 0; i < 4; i++) { /* 3 is likely and does not fit */
        char digit = (char)('0' + i);
        assert_int_equal(ash_tokenize(v, &digit, 1, 0, &t, &nt, &e), ASH_OK);
        assert_int_equal(nt, 1);
        id[i] = t[0];
        ash_tokens_free(t);
    }
    for (int32_t i = 0; i < n; i++) logits[i] = -40;
    for (int i = 0; i < 4; i++) logits[id[i]] = logf((float)(i + 1)); /* 1 : 2 : 3 : 4 */
    int count[3] = {0}, other = 0;
    const int draws = 3000;
    for (int i = 0; i < draws; i++) {
        ash_token x = ash_sampler_pick(k, logits);
        int w = x == id[0] ? 0 : x == id[1] ? 1 : x == id[2] ? 2 : -1;
        if (w < 0) other++;
        else count[w]++;
    }
    assert_int_equal(other, 0);
    for (int i = 0; i < 3; i++) { /* five standard deviations */
        const double p = (i + 1) / 6.0, sd = sqrt(draws * p * (1 - p));
        assert_true(fabs(count[i] - draws * p) < 5 * sd);
    }
    ash_sampler_free(k);
    ash_matcher_free(m);
    ash_grammar_free(g);
    free(logits);
    ash_vocab_free(v);
    ash_gguf_close(gg);
}

static void test_oom(void **s) {
    (void)s;
    ash_gguf *gg;
    ash_vocab *v = vocab("golden-llama.gguf", &gg);
    bool ok = false;
    for (uint64_t k = 1; !ok; k++) {
        ash_grammar *g;
        ash_matcher *m = NULL;
        ash_error e = {0};
        ash_alloc_fail_after(k);
        ash_status st = ash_grammar_gbnf(&g, json, sizeof json - 1, NULL, &e);
        if (st == ASH_OK) st = ash_matcher_new(&m, g, v, &e);
        ash_alloc_fail_after(0);
        ok = st == ASH_OK;
        if (!ok) assert_int_equal(st, ASH_E_NOMEM);
        ash_matcher_free(m);
        ash_grammar_free(g);
        assert_true(k < 1000);
    }
    ash_vocab_free(v);
    ash_gguf_close(gg);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_accept), cmocka_unit_test(test_utf8),  cmocka_unit_test(test_errors), cmocka_unit_test(test_long),
                                       cmocka_unit_test(test_schema), cmocka_unit_test(test_masks),  cmocka_unit_test(test_sampler), cmocka_unit_test(test_draws), cmocka_unit_test(test_oom)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
