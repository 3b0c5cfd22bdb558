/* test_text_merge.c - merging: long inputs, and the ways through long words against the plain ones, on all vocabularies at hand
 * and on made-up ones. */
#include "text_setup.h"

/* ---- a megabyte of something unpleasant ---- */
static void test_long(void **s) {
    (void)s;
    enum { N = 1 << 20 };
    static const char *const names[] = {"gpt-2.gguf", "smollm2.gguf", "llama-spm.gguf", "golden-llama.gguf", "golden-gemma3.gguf"};
    char *p = malloc(N + 8);
    ash_rng r;
    ash_rng_seed(&r, 7);
    for (size_t m = 0; m < ASH_ARRAY_LEN(names); m++) {
        voc v = load(names[m]);
        for (int kind = 0; kind < 6; kind++) {
            size_t n = N;
            switch (kind) {
            case 0: memset(p, 'a', N); break;
            case 1: memset(p, ' ', N); break;
            case 2: memset(p, '\n', N); break;
            case 3: for (size_t i = 0; i < N; i++) p[i] = (char)('a' + ash_rng_below(&r, 26)); break;
            case 4: for (size_t i = 0; i < N; i++) p[i] = "<|im_end|"[i % 9]; break;
            case 5: /* spaces, then a letter at the very end; invalid bytes for the byte vocabularies */
                memset(p, ' ', N);
                p[N - 1] = 'x';
                break;
            }
            check_lossless(v.v, p, n, ASH_TOKENIZE_SPECIAL);
        }
        drop(&v);
    }
    /* marks in descending class order: NFC must not sort them in square time */
    voc v = load("golden-qwen3.gguf");
    for (size_t i = 0; i + 4 <= N; i += 4) memcpy(p + i, i & 4 ? "\xcc\x96\xcc\x96" : "\xcc\x81\xcc\x81", 4);
    size_t k;
    ash_token *t = tok(v.v, p, N, 0, &k);
    assert_true(k > 0);
    ash_tokens_free(t);
    drop(&v);
    free(p);
}

/* Long words go another way than short ones: both must agree. Words joined by something that no token
 * crosses are the same as the words alone; a long word is compared with a plain quadratic merge. */
static void test_long_equals_short(void **s) {
    (void)s;
    voc v = load("llama-spm.gguf");
    ash_rng r;
    ash_rng_seed(&r, 3);
    char p[400];
    for (int round = 0; round < 300; round++) {
        size_t n = 20 + ash_rng_below(&r, 300);
        for (size_t i = 0; i < n; i++) p[i] = (char)('a' + ash_rng_below(&r, round % 3 == 0 ? 2 : round % 3 == 1 ? 4 : 26));
        /* reference: best score first, leftmost of equals */
        size_t at[401], k = 0;
        at[k++] = 0;
        for (size_t i = 0; i <= n; i++) at[k++] = i + 1; /* symbol 0 is the prefix space: text " " + p */
        char t[404];
        t[0] = ' ';
        memcpy(t + 1, p, n);
        const ash_gguf_kv *sc = ash_gguf_find(v.g, "tokenizer.ggml.scores");
        size_t ns = n + 1;
        for (;;) {
            double best = -1e300;
            size_t bi = SIZE_MAX;
            for (size_t i = 0; i + 1 < ns; i++) {
                char st[410];
                size_t len = at[i + 2] - at[i], m = 0;
                if (len > 64) continue;
                for (size_t q = at[i]; q < at[i + 2]; q++) {
                    if (t[q] == ' ') memcpy(st + m, "\xe2\x96\x81", 3), m += 3;
                    else st[m++] = t[q];
                }
                ash_token id = ash_vocab_find(v.v, st, m);
                double x;
                if (id < 0 || ash_vocab_token_type(v.v, id) != ASH_TOK_NORMAL) continue;
                assert_true(ash_gguf_array_f64(sc, (uint64_t)id, &x));
                if (x > best) best = x, bi = i;
            }
            if (bi == SIZE_MAX) break;
            memmove(at + bi + 1, at + bi + 2, (ns - bi - 1) * sizeof *at);
            ns--;
        }
        size_t kk;
        ash_token *ids = tok(v.v, p, n, 0, &kk);
        assert_int_equal(kk, ns);
        for (size_t i = 0; i < kk; i++) assert_int_equal(ash_token_piece(v.v, ids[i], false, NULL, 0), at[i + 1] - at[i]);
        ash_tokens_free(ids);
    }
    drop(&v);
}

/* The tokens of a word from left to right, and by the one big merge. */
static void check_long(const char *what, const ash_vocab *v, ash_long *m, ash_bucket *b, const char *p, size_t n) {
    ash_tokvec x = {0}, y = {0};
    ash_symvec s = {0};
    assert_true(ash_long_merge(m, p, (uint32_t)n, &x));
    assert_true(ash_bucket_merge(b, p, 0, (uint32_t)n, &s));
    for (size_t i = 0; i < s.n; i++) ash_emit(v, v->kind != ASH_VK_BPE, p + s.p[i].start, s.p[i].len, s.p[i].id, &y);
    for (size_t i = 0; i < x.n && i < y.n; i++)
        if (x.p[i] != y.p[i]) fail_msg("%s: token %zu of %zu: %d, should be %d", what, i, x.n, x.p[i], y.p[i]);
    assert_int_equal(x.n, y.n);
    ash_free(x.p);
    ash_free(y.p);
    ash_free(s.p);
}

/* Random words: letters of a set, bytes, or tokens side by side, which is what goes wrong most often from left to right. */
static size_t random_word(ash_rng *r, const ash_vocab *v, int round, char *p, size_t cap) {
    static const char *const sets[] = {"a", " ", "ab", "=-", "the ", "aeinrst", "abcdefghijklmnopqrstuvwxyz", "e\xcc\x81\xc3\xa9 x",
                                       "\xe2\x96\x81\xe6\x97\xa5\xe6\x9c\xac", "\xf0\x9f\x99\x82 a"};
    size_t n = 1 + ash_rng_below(r, cap - 1), which = (size_t)round % (ASH_ARRAY_LEN(sets) + 4), k = 0;
    while (k < n) {
        if (which < ASH_ARRAY_LEN(sets))
            p[k++] = sets[which][ash_rng_below(r, strlen(sets[which]))];
        else if (which == ASH_ARRAY_LEN(sets))
            p[k++] = (char)ash_rng_below(r, 256);
        else {
            uint32_t id = (uint32_t)ash_rng_below(r, (uint64_t)v->n), len = v->raw_off[id + 1] - v->raw_off[id];
            uint32_t use = which % 2 ? len : (uint32_t)ash_rng_below(r, len + 1); /* whole, or only a part of it */
            for (uint32_t i = 0; i < use && k < n; i++) p[k++] = v->raw[v->raw_off[id] + i];
            if (use == 0) p[k++] = 'e';
        }
    }
    return n;
}

static void long_words(const char *name, const voc *v, int rounds) {
    ash_rng r;
    ash_rng_seed(&r, 11);
    static char p[3000];
    ash_long *m = ash_long_new(v->v);
    ash_bucket *b = ash_bucket_new(v->v);
    assert_non_null(m);
    assert_non_null(b);
    for (int round = 0; round < rounds; round++) check_long(name, v->v, m, b, p, random_word(&r, v->v, round, p, round % 3 ? sizeof p : 60));
    ash_long_free(m);
    ash_bucket_free(b);
}

/* A long word from left to right against the one big merge, for every vocabulary that merges. */
static void test_long_merge(void **s) {
    (void)s;
    static const char *const names[] = {"gpt-2.gguf",        "smollm2.gguf",         "llama-spm.gguf",    "golden-llama.gguf",
                                        "golden-gemma3.gguf", "golden-gemma4-e.gguf", "golden-qwen3.gguf", "golden-phi3.gguf"};
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) {
        voc v = load(names[i]);
        long_words(names[i], &v, 400);
        drop(&v);
    }
    char path[512];
    const char *dir = getenv("ASH_MODEL_DIR");
    snprintf(path, sizeof path, "%s/gemma3.gguf", dir ? dir : "");
    if (dir && access(path, R_OK) == 0) {
        voc v = load_path(path);
        long_words("gemma3", &v, 400);
        drop(&v);
    }
}

/* The same for vocabularies that no training would make: scores without order, many of them equal, merges
 * of which later ones have the better rank, symbols without a token, tokens that nothing makes. */
static void test_odd_vocab(void **s) {
    (void)s;
    ash_rng r;
    ash_rng_seed(&r, 5);
    for (int round = 0; round < 300; round++) {
        bool spm = round & 1;
        enum { MAX = 80 };
        static char text[MAX][16], merge[MAX][32];
        ash_str t[MAX], mg[MAX];
        float score[MAX];
        uint64_t n = 0, n_mg = 0;
        const char *letters = round % 3 ? "abc" : "ab";
        for (const char *c = letters; *c; c++) /* SPM: some letters are no token */
            if (!spm || ash_rng_below(&r, 4)) text[n][0] = *c, text[n][1] = 0, n++;
        if (n == 0) text[n][0] = 'a', text[n][1] = 0, n++;
        while (n < MAX) {
            char x[16];
            if (spm) {
                size_t len = 2 + ash_rng_below(&r, 6), k = 0;
                for (; k < len; k++) x[k] = letters[ash_rng_below(&r, strlen(letters))];
                x[k] = 0;
            } else {
                const char *a = text[ash_rng_below(&r, n)], *b = text[ash_rng_below(&r, n)];
                if (strlen(a) + strlen(b) > 14) continue;
                char both[32];
                snprintf(both, sizeof both, "%s%s", a, b);
                memcpy(x, both, sizeof x);
                snprintf(merge[n_mg++], sizeof merge[0], "%.14s %.14s", a, b);
            }
            memcpy(text[n++], x, sizeof x);
        }
        for (uint64_t i = 0; i < n; i++) {
            t[i] = (ash_str){text[i], strlen(text[i])};
            score[i] = (float)ash_rng_below(&r, round % 5 ? 1000 : 4);
        }
        for (uint64_t i = n_mg; i > 1; i--) { /* any order of ranks */
            uint64_t j = ash_rng_below(&r, i);
            char x[32];
            memcpy(x, merge[i - 1], 32), memcpy(merge[i - 1], merge[j], 32), memcpy(merge[j], x, 32);
        }
        for (uint64_t i = 0; i < n_mg; i++) mg[i] = (ash_str){merge[i], strlen(merge[i])};
        char path[] = "/tmp/ash-vocab-XXXXXX";
        temp_file(path);
        ash_gguf_writer *w;
        assert_int_equal(ash_gguf_writer_new(&w, NULL), ASH_OK);
        ash_gguf_set_str(w, "tokenizer.ggml.model", spm ? "llama" : "gpt2", spm ? 5 : 4, NULL);
        ash_gguf_set_str(w, "tokenizer.ggml.pre", "gpt-2", 5, NULL);
        ash_gguf_set_str_array(w, "tokenizer.ggml.tokens", t, n, NULL);
        if (spm) ash_gguf_set_array(w, "tokenizer.ggml.scores", ASH_GV_F32, score, n, NULL);
        else ash_gguf_set_str_array(w, "tokenizer.ggml.merges", mg, n_mg, NULL);
        assert_int_equal(ash_gguf_writer_begin(w, path, NULL), ASH_OK);
        assert_int_equal(ash_gguf_writer_finish(w, NULL), ASH_OK);
        ash_gguf_writer_free(w);
        voc v = load_path(path);
        unlink(path);
        ash_long *m = ash_long_new(v.v);
        ash_bucket *b = ash_bucket_new(v.v);
        char p[200];
        for (int i = 0; i < 60; i++) {
            size_t len = 1 + ash_rng_below(&r, sizeof p - 1);
            for (size_t k = 0; k < len; k++) p[k] = letters[ash_rng_below(&r, strlen(letters))];
            check_long("made up", v.v, m, b, p, len);
        }
        ash_long_free(m);
        ash_bucket_free(b);
        drop(&v);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_long_equals_short),
        cmocka_unit_test(test_long_merge),
        cmocka_unit_test(test_odd_vocab),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
