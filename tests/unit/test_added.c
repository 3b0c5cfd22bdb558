/* test_added.c - added tokens of every kind (lstrip, rstrip, single_word, normalized): a tokenizer with them is converted, and texts must
 * give what the Hugging Face library gave (tests/data/convert/make_added.py). */
#include "text_setup.h"

#include "ashlar/convert.h"
#include "base/base.h" /* ASH_ARRAY_LEN */

#include <sys/stat.h>

static json_t *read_json(const char *base, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/convert/%s%s", getenv("ASH_TEST_DATA"), base, name);
    json_t *o = json_load_file(path, 0, NULL);
    if (!o) fail_msg("%s cannot be read", path);
    return o;
}

static void check(const json_t *want) {
    char dir[64], base[32];
    snprintf(base, sizeof base, "tok-%s", json_string_value(json_object_get(want, "base")));
    json_t *tokenizer = read_json(base, "/tokenizer.json"), *config = read_json(base, "/tokenizer_config.json"), *o, *c;
    size_t i, n_good = 0;
    json_array_foreach(json_object_get(want, "added"), i, o) json_array_append(json_object_get(tokenizer, "added_tokens"), o);
    snprintf(dir, sizeof dir, "./test_added_%d", (int)getpid());
    assert_int_equal(mkdir(dir, 0700), 0);
    char file[128], conf[128], out[128];
    snprintf(file, sizeof file, "%s/tokenizer.json", dir);
    snprintf(conf, sizeof conf, "%s/tokenizer_config.json", dir);
    snprintf(out, sizeof out, "%s/v.gguf", dir);
    assert_int_equal(json_dump_file(tokenizer, file, 0), 0);
    assert_int_equal(json_dump_file(config, conf, 0), 0);
    ash_convert_opts co = ash_convert_defaults();
    ash_convert_result r;
    ash_error e = {0};
    co.vocab_only = true;
    if (ash_convert(&r, dir, out, &co, &e) != ASH_OK) fail_msg("%s: %s", base, e.msg);
    voc v = load_path(out);
    json_array_foreach(json_object_get(want, "cases"), i, c) {
        const json_t *s = json_array_get(c, 0), *ids = json_array_get(c, 1);
        size_t n;
        ash_token *t = tok(v.v, json_string_value(s), json_string_length(s), ASH_TOKENIZE_SPECIAL, &n);
        bool good = n == json_array_size(ids);
        for (size_t k = 0; good && k < n; k++) good = t[k] == json_integer_value(json_array_get(ids, k));
        if (!good) print_error("%s: \"%s\"\n", base, json_string_value(s));
        n_good += good;
        ash_tokens_free(t);
    }
    assert_int_equal(i, 40);
    assert_int_equal(n_good, i);
    /* tokens are found by their stored text, whatever set they are in */
    json_array_foreach(json_object_get(want, "added"), i, o) {
        const json_t *s = json_object_get(o, "content");
        if (strchr(json_string_value(s), ' ')) continue; /* SentencePiece: stored otherwise */
        assert_int_equal(ash_vocab_find(v.v, json_string_value(s), json_string_length(s)), json_integer_value(json_object_get(o, "id")));
    }
    drop(&v);
    unlink(file), unlink(conf), unlink(out);
    rmdir(dir);
    json_decref(tokenizer);
    json_decref(config);
}

static void test_added(void **s) {
    (void)s;
    static const char *const bases[] = {"qwen", "llama", "bert", "gemma", "mistral"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(bases); i++) {
        char name[32];
        size_t k;
        json_t *one;
        snprintf(name, sizeof name, "added/%s.json", bases[i]);
        json_t *all = read_json("", name);
        json_array_foreach(all, k, one) check(one);
        assert_int_equal(k, 3);
        json_decref(all);
    }
}

int main(void) {
    const struct CMUnitTest t[] = {cmocka_unit_test(test_added)};
    return cmocka_run_group_tests(t, NULL, NULL);
}
