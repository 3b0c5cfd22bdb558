/* test_text.c - tokenizers: vectors of the models' own tokenizers, lossless round trips, streaming, special tokens,
 * end-of-generation sets. */
#include "text_setup.h"

/* ---- vectors: texts between separator lines, ids a line each ---- */
static int vectors(const ash_vocab *v, const char *stem) {
    char path[64];
    ash_buf in = {0}, out = {0};
    snprintf(path, sizeof path, "%s.inp", stem);
    assert_int_equal(ash_file_read(text_data(path), 1 << 20, &in, NULL), ASH_OK);
    snprintf(path, sizeof path, "%s.out", stem);
    assert_int_equal(ash_file_read(text_data(path), 1 << 20, &out, NULL), ASH_OK);
    static const char sep[] = "\n__ggml_vocab_test__\n";
    const char *p = in.p, *line = out.p;
    int n = 0, bad = 0;
    while (p) {
        const char *q = strstr(p, sep);
        size_t len = q ? (size_t)(q - p) : strlen(p), k;
        if (!q && len == 0) break;
        ash_token *t = tok(v, p, len, 0, &k);
        ash_buf got = {0};
        ash_buf_adds(&got, "");
        for (size_t i = 0; i < k; i++) ash_buf_addf(&got, " %d", t[i]);
        size_t ll = strcspn(line, "\n"), trim = ll;
        while (trim && line[trim - 1] == ' ') trim--;
        if (trim != got.n || memcmp(got.p, line, trim) != 0) {
            print_error("%s, text %d (\"%.*s\"): got%s\n  want%.*s\n", stem, n, (int)len, p, got.p, (int)ll, line);
            bad++;
        }
        ash_buf_free(&got);
        ash_tokens_free(t);
        line += ll + (line[ll] == '\n');
        n++;
        p = q ? q + sizeof sep - 1 : NULL;
    }
    ash_buf_free(&in);
    ash_buf_free(&out);
    assert_int_equal(bad, 0);
    return n;
}

static void test_vectors(void **s) {
    (void)s;
    static const char *const stems[] = {"smollm2", "gpt-2", "llama-spm", "bert-bge"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(stems); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gguf", stems[i]);
        voc v = load(name);
        assert_true(vectors(v.v, stems[i]) >= 40);
        drop(&v);
    }
}

/* Gemma's vocabulary is too big to keep here; the real model has it. */
static void test_real_gemma(void **s) {
    (void)s;
    const char *dir = getenv("ASH_MODEL_DIR");
    char path[512];
    snprintf(path, sizeof path, "%s/gemma3.gguf", dir ? dir : "");
    if (!dir || access(path, R_OK) != 0) {
        print_message("skipped: no model (gemma3.gguf in ASH_MODEL_DIR)\n");
        return;
    }
    voc v = load_path(path);
    assert_true(vectors(v.v, "gemma-3") >= 40);
    assert_true(ash_vocab_is_eog(v.v, ash_vocab_find(v.v, "<end_of_turn>", 13)));
    assert_false(ash_vocab_is_eog(v.v, ash_vocab_find(v.v, "</s>", 4))); /* an HTML tag here */
    drop(&v);
}

static void check_ids(const char *what, const char *text, json_t *want, const ash_token *t, size_t k) {
    bool same = json_array_size(want) == k;
    for (size_t i = 0; same && i < k; i++) same = json_integer_value(json_array_get(want, i)) == t[i];
    if (same) return;
    for (size_t i = 0; i < k; i++) print_error(" %d", t[i]);
    char *w = json_dumps(want, 0);
    print_error("\nwant %s\n", w);
    fail_msg("%s: %s", what, text);
}

static void test_golden(void **s) {
    (void)s;
    static const char *const names[] = {"golden-llama", "golden-gemma3", "golden-qwen3", "golden-bert", "golden-gemma4-e", "golden-phi3", "golden-t5"};
    for (size_t m = 0; m < ASH_ARRAY_LEN(names); m++) {
        char name[64];
        snprintf(name, sizeof name, "%s.gguf", names[m]);
        voc v = load(name);
        snprintf(name, sizeof name, "%s.json", names[m]);
        json_t *cases = json_load_file(text_data(name), 0, NULL);
        assert_int_equal(json_array_size(cases), 32);
        size_t i, k, nd;
        json_t *c;
        json_array_foreach(cases, i, c) {
            json_t *text = json_object_get(c, "text"), *dec = json_object_get(c, "decoded");
            const char *p = json_string_value(text);
            size_t n = json_string_length(text);
            ash_token *t = tok(v.v, p, n, ASH_TOKENIZE_SPECIAL, &k);
            check_ids(names[m], p, json_object_get(c, "ids"), t, k);
            char *d;
            assert_int_equal(ash_detokenize(v.v, t, k, true, &d, &nd, NULL), ASH_OK);
            assert_int_equal(nd, json_string_length(dec));
            assert_memory_equal(d, json_string_value(dec), nd);
            ash_text_free(d);
            ash_tokens_free(t);
            t = tok(v.v, p, n, ASH_TOKENIZE_SPECIAL | ASH_TOKENIZE_BOS | ASH_TOKENIZE_EOS, &k);
            check_ids(names[m], p, json_object_get(c, "ids_with_special"), t, k);
            ash_tokens_free(t);
        }
        json_decref(cases);
        drop(&v);
    }
}

/* Random text: bytes, characters, runs, words, special tokens' texts. No U+2581 (SPM: it is a space). */
static size_t random_text(ash_rng *r, char *p, size_t cap) {
    static const char *const bits[] = {" ", "  ", "\n", "'s", "the", " and", "<|im_end|>", "</s>", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x99\x82",
                                       "123", "e\xcc\x81", "\xe2\x80\x99", "\xf0\x9f", "\xe2", "\t", "...", "<0x41>", "\xef\xbf\xbd"};
    size_t n = 0, want = ash_rng_below(r, cap - 64);
    while (n < want) {
        switch (ash_rng_below(r, 4)) {
        case 0: p[n++] = (char)ash_rng_below(r, 256); break;
        case 1: p[n++] = (char)(32 + ash_rng_below(r, 95)); break;
        case 2: {
            const char *b = bits[ash_rng_below(r, ASH_ARRAY_LEN(bits))];
            memcpy(p + n, b, strlen(b));
            n += strlen(b);
            break;
        }
        default: {
            size_t m = 1 + ash_rng_below(r, 20);
            memset(p + n, (char)(ash_rng_below(r, 2) ? ' ' : 'a'), m);
            n += m;
        }
        }
    }
    for (size_t i = 0; i + 2 < n; i++)
        if (memcmp(p + i, "\xe2\x96\x81", 3) == 0) p[i] = 'x';
    return n;
}

static void test_lossless(void **s) {
    (void)s;
    static const char *const names[] = {"gpt-2.gguf", "llama-spm.gguf", "golden-llama.gguf", "golden-gemma3.gguf"};
    ash_rng r;
    ash_rng_seed(&r, 42);
    char buf[700];
    for (size_t m = 0; m < ASH_ARRAY_LEN(names); m++) {
        voc v = load(names[m]);
        for (int i = 0; i < 1500; i++) {
            size_t n = random_text(&r, buf, sizeof buf);
            /* llama-spm: a space is put after each special token too, and stays */
            check_lossless(v.v, buf, n, (i & 1) && m != 1 ? ASH_TOKENIZE_SPECIAL : 0);
        }
        drop(&v);
    }
}

/* SmolLM2 lacks tokens for some bytes: invalid ones become U+FFFD, control characters vanish. */
static void test_missing_bytes(void **s) {
    (void)s;
    voc v = load("smollm2.gguf");
    size_t k, nd;
    ash_token *t = tok(v.v, "a\xff" "b\x04" "c", 5, 0, &k);
    char *d;
    assert_int_equal(ash_detokenize(v.v, t, k, true, &d, &nd, NULL), ASH_OK);
    assert_string_equal(d, "a\xef\xbf\xbd" "bc");
    ash_text_free(d);
    ash_tokens_free(t);
    drop(&v);
}

/* ---- streaming ---- */
static void test_stream(void **s) {
    (void)s;
    static const char *const names[] = {"gpt-2.gguf", "golden-gemma3.gguf"};
    for (size_t m = 0; m < 2; m++) {
        voc v = load(names[m]);
        ash_detok *d;
        assert_int_equal(ash_detok_new(&d, v.v, false, NULL), ASH_OK);
        const char *text = "na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82\xf0\x9f\x9a\x80 end";
        size_t k;
        ash_token *t = tok(v.v, text, strlen(text), 0, &k);
        ash_buf got = {0};
        uint64_t before = ash_alloc_count();
        char sink[256];
        size_t ns = 0;
        for (size_t i = 0; i < k; i++) {
            ash_str o;
            assert_int_equal(ash_detok_next(d, t[i], &o, NULL), ASH_OK);
            memcpy(sink + ns, o.p, o.n);
            ns += o.n;
            if (o.n) assert_true(((uint8_t)o.p[0] & 0xc0) != 0x80); /* never begins inside a character */
        }
        assert_int_equal(ash_alloc_count(), before);
        assert_int_equal(ash_detok_flush(d).n, 0);
        assert_int_equal(ns, strlen(text));
        assert_memory_equal(sink, text, ns);
        ash_tokens_free(t);
        /* a broken character in the middle, and one cut off at the end */
        const char *bad = "a\xf0\x9f" "b\xe6\x97";
        t = tok(v.v, bad, 6, 0, &k);
        for (size_t i = 0; i < k; i++) {
            ash_str o;
            assert_int_equal(ash_detok_next(d, t[i], &o, NULL), ASH_OK);
            ash_buf_add(&got, o.p, o.n);
        }
        assert_string_equal(got.p, "a\xef\xbf\xbd" "b");
        ash_str o = ash_detok_flush(d);
        assert_int_equal(o.n, 3);
        assert_memory_equal(o.p, "\xef\xbf\xbd", 3);
        assert_int_equal(ash_detok_next(d, -1, &o, NULL), ASH_E_RANGE);
        ash_tokens_free(t);
        ash_buf_free(&got);
        ash_detok_free(d);
        drop(&v);
    }
}

/* ---- special tokens ---- */
static void test_special(void **s) {
    (void)s;
    voc v = load("smollm2.gguf");
    const char *text = "<|im_start|>user\nhi<|im_end|>";
    size_t k;
    ash_token *t = tok(v.v, text, strlen(text), ASH_TOKENIZE_SPECIAL, &k);
    assert_int_equal(t[0], 1);
    assert_int_equal(t[k - 1], 2);
    assert_int_equal(k, 5);
    ash_tokens_free(t);
    t = tok(v.v, text, strlen(text), 0, &k);
    for (size_t i = 0; i < k; i++) assert_int_equal(ash_vocab_token_type(v.v, t[i]), ASH_TOK_NORMAL);
    ash_tokens_free(t);
    char buf[32];
    assert_int_equal(ash_token_piece(v.v, 2, false, buf, sizeof buf), 0);
    assert_int_equal(ash_token_piece(v.v, 2, true, buf, 4), 10);
    assert_memory_equal(buf, "<|im", 4);
    assert_int_equal(ash_vocab_find(v.v, "<|im_end|>", 10), 2);
    assert_int_equal(ash_vocab_find(v.v, "\xc4\xa0the", 5), 260);
    assert_int_equal(ash_vocab_find(v.v, "nosuchtoken", 11), -1);
    assert_true(ash_vocab_is_eog(v.v, 2));
    assert_true(ash_vocab_is_eog(v.v, 0)); /* <|endoftext|> */
    assert_false(ash_vocab_is_eog(v.v, 1));
    assert_false(ash_vocab_is_eog(v.v, -1));
    assert_int_equal(ash_vocab_bos(v.v), 1);
    assert_false(ash_vocab_add_bos(v.v));
    drop(&v);
    v = load("golden-gemma3.gguf");
    ash_token nl = ash_vocab_find(v.v, "\n\n", 2);
    assert_int_equal(ash_vocab_token_type(v.v, nl), ASH_TOK_USER_DEFINED);
    t = tok(v.v, "a\n\nb", 4, 0, &k); /* user-defined: parsed without asking */
    assert_int_equal(k, 3);
    assert_int_equal(t[1], nl);
    ash_tokens_free(t);
    assert_true(ash_vocab_is_eog(v.v, ash_vocab_find(v.v, "<end_of_turn>", 13)));
    assert_int_equal(ash_vocab_find(v.v, "<0x41>", 6), 8 + 0x41);
    drop(&v);
    v = load("llama-spm.gguf");
    assert_true(ash_vocab_add_bos(v.v));
    t = tok(v.v, "</s>", 4, ASH_TOKENIZE_BOS | ASH_TOKENIZE_SPECIAL, &k);
    assert_int_equal(k, 2);
    assert_int_equal(t[1], 2);
    ash_tokens_free(t);
    t = tok(v.v, "", 0, 0, &k);
    assert_int_equal(k, 0);
    ash_tokens_free(t);
    drop(&v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_real_gemma),
        cmocka_unit_test(test_lossless),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_missing_bytes),
        cmocka_unit_test(test_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
