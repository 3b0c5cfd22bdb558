/* test_recipe.c - the recipe reader and writer: both forms, round trip, and what it must refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "ashlar/plan.h"
#include "base/base.h"

static ash_status parse(ash_recipe **r, const char *s, ash_error *err) { return ash_recipe_parse(r, s, strlen(s), "test", err); }

static void globs(void **state) {
    (void)state;
    assert_true(ash_glob("blk.*.ffn_down.weight", "blk.12.ffn_down.weight"));
    assert_false(ash_glob("blk.*.ffn_down.weight", "blk.12.ffn_up.weight"));
    assert_true(ash_glob("*", ""));
    assert_true(ash_glob("blk.?.*", "blk.3.attn_q.weight"));
    assert_false(ash_glob("blk.?.*", "blk.13.attn_q.weight"));
    assert_true(ash_glob("*a*b*c", "xxaxxbxbxc"));
    assert_false(ash_glob("a", "ab"));
    assert_false(ash_glob("", "a"));
}

static void lines(void **state) {
    (void)state;
    ash_recipe *r;
    ash_error err = {0};
    assert_int_equal(parse(&r, "# a comment\n\nwiden = 256\n token_embd.weight = q5_0   # lookup and head\r\nblk.*.ffn_down.weight=Q4_K\n* = keep", &err), ASH_OK);
    assert_int_equal(ash_recipe_n_rules(r), 3);
    assert_int_equal(ash_recipe_get_info(r).widen, 256);
    ash_recipe_rule a = ash_recipe_rule_at(r, 0);
    assert_string_equal(a.pattern, "token_embd.weight");
    assert_int_equal(a.type, ASH_Q5_0);
    assert_string_equal(a.reason, "lookup and head");
    assert_int_equal(ash_recipe_find(r, "blk.4.ffn_down.weight"), 1);
    assert_int_equal(ash_recipe_find(r, "output.weight"), 2);
    assert_int_equal(ash_recipe_rule_at(r, 2).type, ASH_TYPE_KEEP);
    ash_recipe_free(r);
}

static void json_round_trip(void **state) {
    (void)state;
    ash_recipe *r, *q;
    ash_error err = {0};
    char *s, *s2;
    size_t n, n2;
    assert_int_equal(ash_recipe_new(&r, &err), ASH_OK);
    ash_recipe_info i = {.created_by = "ashlar 9", .model_name = "a \"quoted\"\n\\ name", .widen = 256, .predicted_kld = 0.03125, .predicted_bytes = 5, .budget_bytes = 85000000,
                         .model_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};
    assert_int_equal(ash_recipe_set_info(r, &i, &err), ASH_OK);
    assert_int_equal(ash_recipe_add(r, "blk.0.attn_q.weight", ASH_IQ4_XS, "because", &err), ASH_OK);
    assert_int_equal(ash_recipe_add(r, "blk.0.attn_k.weight", ASH_TYPE_KEEP, "", &err), ASH_OK);
    assert_int_equal(ash_recipe_json(r, &s, &n, &err), ASH_OK);
    assert_int_equal(ash_recipe_parse(&q, s, n, "round trip", &err), ASH_OK);
    assert_string_equal(ash_recipe_get_info(q).model_name, i.model_name);
    assert_int_equal(ash_recipe_rule_at(q, 0).type, ASH_IQ4_XS);
    assert_int_equal(ash_recipe_json(q, &s2, &n2, &err), ASH_OK);
    assert_int_equal(n, n2);
    assert_string_equal(s, s2);
    ash_recipe_text_free(s);
    ash_recipe_text_free(s2);
    ash_recipe_free(r);
    ash_recipe_free(q);
}

static void refusals(void **state) {
    (void)state;
    static const char *const bad[] = {
        "", "\n\n", "# only a comment", "a", "a =", "= Q4_0", "a = Q9_9", "widen = 1\na = Q4_0", "widen = x\na=Q4_0", "{", "{}", "[1]",
        "{\"format\":\"ashlar-recipe\",\"version\":2,\"rules\":[]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rules\":[]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rules\":[1]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rules\":[{\"tensor\":\"a\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rules\":[{\"tensor\":\"a\",\"type\":\"Q4_0\",\"reson\":\"x\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rulez\":[],\"rules\":[{\"tensor\":\"a\",\"type\":\"Q4_0\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"widen\":1,\"rules\":[{\"tensor\":\"a\",\"type\":\"Q4_0\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"widen\":-256,\"rules\":[{\"tensor\":\"a\",\"type\":\"Q4_0\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"model\":{\"sha256\":\"xyz\"},\"rules\":[{\"tensor\":\"a\",\"type\":\"Q4_0\"}]}",
        "{\"format\":\"ashlar-recipe\",\"version\":1,\"rules\":[{\"tensor\":\"\",\"type\":\"Q4_0\"}]}"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        ash_recipe *r = (ash_recipe *)1;
        ash_error err = {0};
        assert_int_equal(parse(&r, bad[i], &err), ASH_E_FORMAT);
        assert_null(r);
        assert_true(strncmp(err.msg, "test", 4) == 0 || strncmp(err.msg, "recipe", 6) == 0);
    }
    ash_recipe *r;
    ash_error err = {0};
    assert_int_equal(parse(&r, "a = Q4_0\nb = Q5_7\n", &err), ASH_E_FORMAT);
    assert_non_null(strstr(err.msg, "test:2"));
    assert_int_equal(ash_recipe_load(&r, "/nonexistent/recipe", &err), ASH_E_IO);
}

static void out_of_memory_is_a_status(void **state) {
    (void)state;
    for (uint64_t k = 1;; k++) {
        ash_recipe *r;
        ash_alloc_fail_after(k);
        ash_status st = parse(&r, "widen = 256\na = Q4_0 # why\nb* = keep\n", NULL);
        ash_alloc_fail_after(0);
        if (st == ASH_OK) {
            ash_recipe_free(r);
            break;
        }
        assert_int_equal(st, ASH_E_NOMEM);
        assert_true(k < 100);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(globs), cmocka_unit_test(lines), cmocka_unit_test(json_round_trip), cmocka_unit_test(refusals),
                                       cmocka_unit_test(out_of_memory_is_a_status)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
