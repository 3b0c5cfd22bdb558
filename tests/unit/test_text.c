/* test_text.c - tokenizers: vectors of the models' own tokenizers, lossless round trips, streaming,
 * special tokens, end-of-generation sets, long inputs, broken keys, out of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ashlar/text.h"
#include "text/merge_int.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct { ash_gguf *g; ash_vocab *v; } voc;

static const char *data(const char *name) {
    static char buf[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(buf[k], sizeof buf[k], "%s/tokenizers/%s", getenv("ASH_TEST_DATA"), name);
    return buf[k];
}

static voc load_path(const char *path) {
    voc v = {0};
    ash_error e = {0};
    if (ash_gguf_open(&v.g, path, &e) != ASH_OK) fail_msg("%s: %s", path, e.msg);
    if (ash_vocab_load(&v.v, v.g, &e) != ASH_OK) fail_msg("%s: %s", path, e.msg);
    return v;
}
static voc load(const char *name) { return load_path(data(name)); }
static void drop(voc *v) {
    ash_vocab_free(v->v);
    ash_gguf_close(v->g);
}

static ash_token *tok(const ash_vocab *v, const char *p, size_t n, unsigned flags, size_t *k) {
    ash_token *t;
    ash_error e = {0};
    if (ash_tokenize(v, p, n, flags, &t, k, &e) != ASH_OK) fail_msg("%s", e.msg);
    return t;
}

/* ---- vectors: texts between separator lines, ids a line each ---- */
static int vectors(const ash_vocab *v, const char *stem) {
    char path[64];
    ash_buf in = {0}, out = {0};
    snprintf(path, sizeof path, "%s.inp", stem);
    assert_int_equal(ash_file_read(data(path), 1 << 20, &in, NULL), ASH_OK);
    snprintf(path, sizeof path, "%s.out", stem);
    assert_int_equal(ash_file_read(data(path), 1 << 20, &out, NULL), ASH_OK);
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
        json_t *cases = json_load_file(data(name), 0, NULL);
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

/* ---- lossless: pieces of any bytes join to those bytes ---- */
static void check_lossless(const ash_vocab *v, const char *p, size_t n, unsigned flags) {
    size_t k, nd;
    ash_token *t = tok(v, p, n, flags, &k);
    char *d;
    assert_int_equal(ash_detokenize(v, t, k, true, &d, &nd, NULL), ASH_OK);
    if (nd != n || memcmp(d, p, n) != 0) fail_msg("%zu bytes came back as %zu", n, nd);
    ash_text_free(d);
    ash_tokens_free(t);
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

/* A long word from left to right against the one big merge, on words that overlap themselves. */
static void test_long_merge(void **s) {
    (void)s;
    static const char *const names[] = {"gpt-2.gguf", "smollm2.gguf", "llama-spm.gguf", "golden-gemma3.gguf", "golden-gemma4-e.gguf"};
    ash_rng r;
    ash_rng_seed(&r, 11);
    char p[3000];
    for (size_t i = 0; i < ASH_ARRAY_LEN(names); i++) {
        voc v = load(names[i]);
        ash_long *m = ash_long_new(v.v);
        ash_bucket *b = ash_bucket_new(v.v);
        assert_non_null(m);
        for (int round = 0; round < 600; round++) {
            size_t n = 1 + ash_rng_below(&r, sizeof p - 1);
            static const char *const sets[] = {"a", " ", "ab", "=-", "the ", "aeinrst", "abcdefghijklmnopqrstuvwxyz", "e\xcc\x81\xc3\xa9 x",
                                               "\xe2\x96\x81\xe6\x97\xa5\xe6\x9c\xac", "\xf0\x9f\x99\x82 a"};
            size_t which = (size_t)round % (ASH_ARRAY_LEN(sets) + 1);
            for (size_t k = 0; k < n; k++)
                p[k] = which < ASH_ARRAY_LEN(sets) ? sets[which][ash_rng_below(&r, strlen(sets[which]))] : (char)ash_rng_below(&r, 256);
            check_long(names[i], v.v, m, b, p, n);
        }
        ash_long_free(m);
        ash_bucket_free(b);
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
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
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

/* ---- pre-tokenizers: every pattern compiles; where the words end ---- */
static void words(const char *pre, const char *text, const char *want) {
    char path[] = "/tmp/ash-vocab-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
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
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
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
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
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
        assert_int_equal(ash_gguf_open(&g, data(names[m]), &e), ASH_OK);
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
        cmocka_unit_test(test_vectors),       cmocka_unit_test(test_golden),  cmocka_unit_test(test_real_gemma),
        cmocka_unit_test(test_lossless),      cmocka_unit_test(test_stream),  cmocka_unit_test(test_missing_bytes),
        cmocka_unit_test(test_special),       cmocka_unit_test(test_long),    cmocka_unit_test(test_long_equals_short),
        cmocka_unit_test(test_long_merge),   cmocka_unit_test(test_odd_vocab),    cmocka_unit_test(test_pretok),       cmocka_unit_test(test_strip),
        cmocka_unit_test(test_broken),        cmocka_unit_test(test_oom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
