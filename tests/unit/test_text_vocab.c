/* test_text_vocab.c - vocabularies from their keys: pre-tokenizers, white space that goes with a token, broken keys, out of memory. */
#include "text_setup.h"

/* ---- pre-tokenizers: every pattern compiles; where the words end ---- */
static void words(const char *pre, const char *text, const char *want) {
    char path[] = "/tmp/ash-vocab-XXXXXX";
    temp_file(path);
    ash_gguf_writer *w;
    ash_str t[2] = {{"a", 1}, {"b", 1}};
    assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
    ash_gguf_set_str(w, "tokenizer.ggml.model", "gpt2", 4, NULL);
    ash_gguf_set_str(w, "tokenizer.ggml.pre", pre, strlen(pre), NULL);
    ash_gguf_set_str_array(w, "tokenizer.ggml.tokens", t, 2, NULL);
    ash_gguf_set_str_array(w, "tokenizer.ggml.merges", t, 0, NULL);
    assert_int_equal(ash_gguf_writer_begin(w, path, NULL), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, NULL), ASH_OK);
    ash_gguf_writer_free(w);
    voc v = load_path(path);
    unlink(path);
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    ash_buf got = {0}, cur = {0}, next = {0};
    /* pieces are separated by U+0001, each pattern splits all of them; bytes are taken as they are */
    ash_buf_adds(&cur, text);
    for (int k = 0; k < v.v->n_re; k++) {
        ash_buf_reset(&next);
        const char *p = cur.p, *end = p + cur.n;
        for (; p < end; p++) {
            size_t n = 0, at = 0;
            while (p + n < end && p[n] != 1) n++;
            while (at < n) {
                int rc = pcre2_match(v.v->re[k], (PCRE2_SPTR)p, n, at, 0, md, NULL);
                const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(md);
                size_t to = rc < 0 ? n : ov[0] > at ? ov[0] : ov[1];
                ash_buf_add(&next, p + at, to - at);
                ash_buf_addc(&next, 1);
                at = to;
            }
            p += n;
        }
        ash_buf_reset(&cur);
        ash_buf_add(&cur, next.p, next.n);
    }
    for (size_t i = 0; i + 1 < cur.n; i++) ash_buf_addc(&got, cur.p[i] == 1 ? '|' : cur.p[i]);
    assert_string_equal(got.p, want);
    ash_buf_free(&got);
    ash_buf_free(&cur);
    ash_buf_free(&next);
    pcre2_match_data_free(md);
    drop(&v);
}

static void test_pretok(void **s) {
    (void)s;
    static const char text[] = "I'm  at 12345, fooBar\n\n  x!!";
    words("gpt-2", text, "I|'m| | at| 12345|,| fooBar|\n\n | x|!!");
    words("smollm", text, "I|'m| | at| |1|2|3|4|5|,| fooBar|\n\n | x|!!");
    words("llama-bpe", text, "I|'m| | at| |123|45|,| fooBar|\n\n| | x|!!");
    words("qwen2", text, "I|'m| | at| |1|2|3|4|5|,| fooBar|\n\n| | x|!!");
    words("qwen35", "e\xcc\x81 x\xcc\x81", "e\xcc\x81| x\xcc\x81");
    words("gpt-4o", text, "I'm| | at| |123|45|,| foo|Bar|\n\n| | x|!!");
    words("tekken", text, "I|'m| | at| |1|2|3|4|5|,| foo|Bar|\n\n| | x|!!");
    words("falcon", text, "I|'|m| | at| |123|45|,| fooBar|\n\n | x|!!");
    words("deepseek-llm", text, "I|'|m| | at| |1|2|3|4|5|,| fooBar|\n|\n| | x|!!");
    words("deepseek-coder", text, "I|'|m| | at| |1|2|3|4|5|,| fooBar|\n|\n| | x|!!");
    words("deepseek-v3", text, "I|'m| | at| |123|45|,| fooBar|\n\n| | x|!!");
    static const char *const others[] = {"phi-2", "mpt", "olmo", "jais", "starcoder", "refact", "command-r", "codeshell", "llama3", "llama-v3",
                                         "falcon3", "dbrx", "smaug-bpe", "deepseek-r1-qwen", "stablelm2", "llama4"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(others); i++) words(others[i], "a b", "a| b");
}

/* ---- white space that goes with a special token ---- */
static void test_strip(void **s) {
    (void)s;
    static const struct { const char *text; int n, want[8]; } cases[] = {
        {"a <x>  b", 4, {0, 3, 4, 1}},       {"a <y> \n b", 4, {0, 4, 5, 1}}, {"a<x><y>b", 4, {0, 3, 5, 1}},
        {" \xe3\x80\x80<x>", 1, {3}},        {"<y> \xe3\x80\x80", 1, {5}},   {"<y> <x>", 2, {5, 3}},
    };
    char path[] = "/tmp/ash-vocab-XXXXXX";
    temp_file(path);
    ash_gguf_writer *w;
    ash_str t[] = {{"a", 1}, {"b", 1}, {"c", 1}, {"<x>", 3}, {"\xc4\xa0", 2}, {"<y>", 3}, {"<z>", 3}};
    int32_t types[] = {1, 1, 1, 3, 1, 3, 3}, left = 3, right = 5;
    assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
    ash_gguf_set_str(w, "tokenizer.ggml.model", "gpt2", 4, NULL);
    ash_gguf_set_str(w, "tokenizer.ggml.pre", "gpt-2", 5, NULL);
    ash_gguf_set_str_array(w, "tokenizer.ggml.tokens", t, ASH_ARRAY_LEN(t), NULL);
    ash_gguf_set_str_array(w, "tokenizer.ggml.merges", t, 0, NULL);
    ash_gguf_set_array(w, "tokenizer.ggml.token_type", ASH_GV_I32, types, ASH_ARRAY_LEN(t), NULL);
    ash_gguf_set_array(w, "ashlar.tokenizer.lstrip", ASH_GV_I32, &left, 1, NULL);
    ash_gguf_set_array(w, "ashlar.tokenizer.rstrip", ASH_GV_I32, &right, 1, NULL);
    assert_int_equal(ash_gguf_writer_begin(w, path, NULL), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, NULL), ASH_OK);
    ash_gguf_writer_free(w);
    voc v = load_path(path);
    unlink(path);
    for (size_t i = 0; i < ASH_ARRAY_LEN(cases); i++) {
        size_t k, m = 0;
        ash_token *ids = tok(v.v, cases[i].text, strlen(cases[i].text), ASH_TOKENIZE_SPECIAL, &k);
        for (size_t q = 0; q < k; q++) /* two spaces in a row are two tokens; count them once */
            if (q == 0 || ids[q] != 4 || ids[q - 1] != 4) ids[m++] = ids[q];
        assert_int_equal(m, cases[i].n);
        for (size_t q = 0; q < m; q++) assert_int_equal(ids[q], cases[i].want[q]);
        ash_tokens_free(ids);
    }
    drop(&v);
}

/* ---- broken keys ---- */
typedef struct { const char *model, *pre; const char *tokens[8]; int n; const char *merges[4]; int n_merges; float scores[8]; int n_scores; int32_t types[8]; int eos; } keys;

static ash_status load_keys(const keys *k, ash_error *e) {
    char path[] = "/tmp/ash-vocab-XXXXXX";
    temp_file(path);
    ash_gguf_writer *w;
    ash_str t[8], m[4];
    for (int i = 0; i < k->n; i++) t[i] = (ash_str){k->tokens[i], strlen(k->tokens[i])};
    for (int i = 0; i < k->n_merges; i++) m[i] = (ash_str){k->merges[i], strlen(k->merges[i])};
    assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
    if (k->model) ash_gguf_set_str(w, "tokenizer.ggml.model", k->model, strlen(k->model), NULL);
    if (k->pre) ash_gguf_set_str(w, "tokenizer.ggml.pre", k->pre, strlen(k->pre), NULL);
    if (k->n) ash_gguf_set_str_array(w, "tokenizer.ggml.tokens", t, (uint64_t)k->n, NULL);
    if (k->n_merges) ash_gguf_set_str_array(w, "tokenizer.ggml.merges", m, (uint64_t)k->n_merges, NULL);
    if (k->n_scores) ash_gguf_set_array(w, "tokenizer.ggml.scores", ASH_GV_F32, k->scores, (uint64_t)k->n_scores, NULL);
    if (k->types[0]) ash_gguf_set_array(w, "tokenizer.ggml.token_type", ASH_GV_I32, k->types, (uint64_t)k->n, NULL);
    if (k->eos) ash_gguf_set_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)k->eos, NULL);
    assert_int_equal(ash_gguf_writer_begin(w, path, NULL), ASH_OK);
    assert_int_equal(ash_gguf_writer_finish(w, NULL), ASH_OK);
    ash_gguf_writer_free(w);
    ash_gguf *g;
    ash_vocab *v = NULL;
    assert_int_equal(ash_gguf_open(&g, path, NULL), ASH_OK);
    ash_status st = ash_vocab_load(&v, g, e);
    if (st == ASH_OK) { /* whatever it is, it must work */
        size_t n;
        ash_token *ids = tok(v, "ab ab\xff", 6, 3, &n);
        ash_tokens_free(ids);
        ash_vocab_free(v);
    }
    ash_gguf_close(g);
    unlink(path);
    return st;
}

static void test_broken(void **s) {
    (void)s;
    ash_error e;
    keys good = {"gpt2", "gpt-2", {"a", "b", "ab", "<x>"}, 4, {"a b"}, 1, {0}, 0, {1, 1, 1, 3}, 3};
    keys spm = {"llama", NULL, {"a", "b", "ab", "<x>"}, 4, {0}, 0, {-1, -2, -3, 0}, 4, {1, 1, 1, 3}, 3};
    assert_int_equal(load_keys(&good, &e), ASH_OK);
    assert_int_equal(load_keys(&spm, &e), ASH_OK);
    keys k = good;
    k.model = NULL;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    k.model = "weird";
    assert_int_equal(load_keys(&k, &e), ASH_E_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "\"weird\""));
    k = good;
    k.pre = "no-such";
    assert_int_equal(load_keys(&k, &e), ASH_E_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "\"no-such\""));
    k.pre = NULL;
    assert_int_equal(load_keys(&k, &e), ASH_E_UNSUPPORTED);
    k = good;
    k.n = 0;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    k = good;
    k.eos = 4;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    assert_non_null(strstr(e.msg, "eos_token_id"));
    k = good;
    k.types[1] = 9;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    k = good;
    k.n_merges = 0;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    static const char *const bad[] = {"ab", "a c", "b a", " ", "a ", ""};
    for (size_t i = 0; i < ASH_ARRAY_LEN(bad); i++) {
        k = good;
        k.merges[0] = bad[i];
        assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
        assert_non_null(strstr(e.msg, "merges"));
    }
    k = spm;
    k.n_scores = 3;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    k = spm;
    k.scores[1] = 0.0f / 0.0f;
    assert_int_equal(load_keys(&k, &e), ASH_E_FORMAT);
    /* scores that make every merge come back below the current key: the heap path; all equal likewise */
    for (int i = 0; i < 4; i++) spm.scores[i] = 0;
    assert_int_equal(load_keys(&spm, &e), ASH_OK);
}

/* ---- out of memory at every allocation ---- */
static void test_oom(void **s) {
    (void)s;
    static const char *const names[] = {"golden-llama.gguf", "golden-gemma3.gguf", "golden-qwen3.gguf", "golden-bert.gguf", "golden-gemma4-e.gguf", "golden-t5.gguf"};
    ash_buf text = {0};
    for (int i = 0; i < 40; i++) ash_buf_adds(&text, "Hello w\xc3\xb6rld, 12 e\xcc\x81 \xff ");
    for (int i = 0; i < 900; i++) ash_buf_adds(&text, "abcabc"); /* a long word */
    for (size_t m = 0; m < ASH_ARRAY_LEN(names); m++) {
        ash_gguf *g;
        ash_error e;
        assert_int_equal(ash_gguf_open(&g, text_data(names[m]), &e), ASH_OK);
        bool ok = false;
        for (uint64_t n = 1; !ok; n++) {
            assert_true(n < 500);
            ash_vocab *v = NULL;
            ash_token *t = NULL;
            ash_detok *d = NULL;
            char *back = NULL;
            size_t k = 0, nb;
            ash_alloc_fail_after(n);
            ash_status st = ash_vocab_load(&v, g, &e);
            if (st == ASH_OK) st = ash_tokenize(v, text.p, text.n, 7, &t, &k, &e);
            if (st == ASH_OK) st = ash_detok_new(&d, v, true, &e);
            if (st == ASH_OK) st = ash_detokenize(v, t, k, true, &back, &nb, &e);
            ash_alloc_fail_after(0);
            ok = st == ASH_OK;
            if (!ok) assert_int_equal(st, ASH_E_NOMEM);
            ash_text_free(back);
            ash_detok_free(d);
            ash_tokens_free(t);
            ash_vocab_free(v);
        }
        ash_gguf_close(g);
    }
    ash_buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pretok),
        cmocka_unit_test(test_strip),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_oom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
