/* fuzz_tokenizer.c - first byte even: the rest is text for two small vocabularies made here, and must come
 * back unchanged; odd: the rest is a GGUF whose vocabulary is loaded and used. */
#include "ashlar/text.h"
#include "text/merge_int.h"

#include <stdio.h>
#include <stdlib.h>

static ash_vocab *bpe, *spm;

static void put(ash_buf *b, uint64_t v, int n) { ash_buf_add(b, &v, (size_t)n); }
static void str(ash_buf *b, const char *s, size_t n) {
    put(b, n, 8);
    ash_buf_add(b, s, n);
}
static void key(ash_buf *b, const char *k, uint32_t type) {
    str(b, k, strlen(k));
    put(b, type, 4);
}

/* Byte-level alphabet as in GPT-2: printable Latin-1 stands for itself, the rest from U+0100 on. */
static size_t byte_char(int c, char *o) {
    static int map[256], ready;
    if (!ready++) {
        int next = 256;
        for (int i = 0; i < 256; i++) map[i] = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174 ? i : next++;
    }
    int cp = map[c];
    if (cp < 128) return o[0] = (char)cp, 1;
    o[0] = (char)(0xc0 | cp >> 6);
    o[1] = (char)(0x80 | (cp & 63));
    return 2;
}

static ash_vocab *make(bool byte_level) {
    /* pieces in order of preference: runs that overlap in every way */
    static const char *const bpe_pieces[] = {"a a", "b a", "aa aa", "a b", "ab c", "b c", "aaaa a", "bc bc", "ba ba", "\xc4\xa0 a", "\xc4\xa0 \xc4\xa0"};
    static const char *const spm_pieces[] = {"aa", "ba", "aaaa", "ab", "abc", "bc", "aaaaa", "bcbc", ("\xe2\x96\x81" "a"), "\xe2\x96\x81\xe2\x96\x81", "\xc3\xa9"};
    enum { N = 11 };
    static ash_buf bufs[2]; /* they and the GGUFs live as long as the vocabularies */
    static ash_gguf *ggufs[2];
    ash_buf *b = &bufs[byte_level];
    uint32_t n = 256 + N + 3;
    ash_buf_adds(b, "GGUF");
    put(b, 3, 4);
    put(b, 0, 8);
    put(b, byte_level ? 5 : 4, 8);
    key(b, "tokenizer.ggml.model", 8);
    if (byte_level) {
        str(b, "gpt2", 4);
        key(b, "tokenizer.ggml.pre", 8);
        str(b, "qwen2", 5);
    } else
        str(b, "llama", 5);
    key(b, "tokenizer.ggml.tokens", 9);
    put(b, 8, 4);
    put(b, n, 8);
    for (int i = 0; i < 256; i++) {
        char t[8];
        size_t k = byte_level ? byte_char(i, t) : (size_t)snprintf(t, sizeof t, "<0x%02X>", i);
        str(b, t, k);
    }
    for (int i = 0; i < N; i++) {
        char t[16];
        size_t k = 0;
        for (const char *p = byte_level ? bpe_pieces[i] : spm_pieces[i]; *p; p++)
            if (*p != ' ') t[k++] = *p;
        str(b, t, k);
    }
    str(b, "<end>", 5);
    str(b, "aab", 3);
    str(b, "\n\n", 2);
    key(b, "tokenizer.ggml.token_type", 9);
    put(b, 5, 4);
    put(b, n, 8);
    for (uint32_t i = 0; i < n; i++) put(b, i < 256 && !byte_level ? 6 : i == 256 + N ? 3 : i > 256 + N ? 4 : 1, 4);
    if (byte_level) {
        key(b, "tokenizer.ggml.merges", 9);
        put(b, 8, 4);
        put(b, N, 8);
        for (int i = 0; i < N; i++) str(b, bpe_pieces[i], strlen(bpe_pieces[i]));
    } else {
        key(b, "tokenizer.ggml.scores", 9);
        put(b, 6, 4);
        put(b, n, 8);
        for (uint32_t i = 0; i < n; i++) {
            float f = i < 256 ? 0 : -(float)((i * 7) % 5); /* with equal scores, and longer before shorter */
            ash_buf_add(b, &f, 4);
        }
    }
    ash_vocab *v;
    ash_error e;
    if (ash_gguf_open_mem(&ggufs[byte_level], b->p, b->n, &e) != ASH_OK || ash_vocab_load(&v, ggufs[byte_level], &e) != ASH_OK) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return v;
}

/* spm: U+2581 becomes a space, and special tokens are followed by one; so those texts are left out. */
static void text(const ash_vocab *v, const char *p, size_t n, unsigned flags, bool exact) {
    ash_token *t;
    size_t k, nb;
    char *back;
    ash_error e;
    if (ash_tokenize(v, p, n, flags, &t, &k, &e) != ASH_OK) abort();
    for (size_t i = 0; i < k; i++)
        if (t[i] < 0 || t[i] >= ash_vocab_size(v)) abort();
    if (ash_detokenize(v, t, k, true, &back, &nb, &e) != ASH_OK) abort();
    if (exact && (nb != n || memcmp(back, p, n) != 0)) abort();
    ash_detok *d;
    if (ash_detok_new(&d, v, true, &e) != ASH_OK) abort();
    for (size_t i = 0; i < k; i++) {
        ash_str s;
        if (ash_detok_next(d, t[i], &s, &e) != ASH_OK) abort();
    }
    ash_detok_flush(d);
    ash_detok_free(d);
    ash_text_free(back);
    ash_tokens_free(t);
}

/* All ways of merging a word must agree. */
static void word(const ash_vocab *v, const char *p, size_t n) {
    ash_long *m = ash_long_new(v);
    ash_bucket *b = ash_bucket_new(v);
    ash_symvec s = {0};
    ash_tokvec t = {0}, plain = {0};
    if (!m || !b || !ash_long_merge(m, p, (uint32_t)n, &t) || !ash_bucket_merge(b, p, 0, (uint32_t)n, &s)) abort();
    for (size_t i = 0; i < s.n; i++) ash_emit(v, v->kind != ASH_VK_BPE, p + s.p[i].start, s.p[i].len, s.p[i].id, &plain);
    if (t.n != plain.n || (t.n && memcmp(t.p, plain.p, t.n * sizeof *t.p) != 0)) abort();
    if (n && n <= ASH_SHORT_MAX) {
        ash_sym u[ASH_SHORT_MAX];
        if (ash_merge_short(v, p, 0, (uint32_t)n, u, NULL) != s.n) abort();
        for (size_t i = 0; i < s.n; i++)
            if (s.p[i].start != u[i].start || s.p[i].id != u[i].id) abort();
    }
    ash_free(t.p);
    ash_free(plain.p);
    ash_free(s.p);
    ash_bucket_free(b);
    ash_long_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 || n > 1 << 16) return 0;
    const char *p = (const char *)data + 1;
    n--;
    if (data[0] % 2 == 0) {
        if (!bpe) bpe = make(true);
        if (!spm) spm = make(false);
        bool ascii = true; /* NFC may change anything else */
        for (size_t i = 0; i < n; i++) ascii = ascii && (uint8_t)p[i] < 128;
        word(bpe, p, n);
        word(spm, p, n);
        text(bpe, p, n, ASH_TOKENIZE_SPECIAL, ascii);
        text(spm, p, n, ASH_TOKENIZE_SPECIAL, false);
        bool has = memmem(p, n, "\xe2\x96\x81", 3) || memmem(p, n, "aab", 3) || memmem(p, n, "\n\n", 2);
        text(spm, p, n, 0, !has);
        return 0;
    }
    ash_gguf *g;
    ash_vocab *v;
    ash_error e;
    if (ash_gguf_open_mem(&g, p, n, &e) != ASH_OK) return 0;
    if (ash_vocab_load(&v, g, &e) == ASH_OK) {
        static const char sample[] = "Hello  w\xc3\xb6rld 123\n\n\xff aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab <|im_end|></s>";
        text(v, sample, sizeof sample - 1, 7, false);
        word(v, sample, sizeof sample - 1);
        for (int32_t i = 0; i < ash_vocab_size(v) && i < 600; i++) {
            ash_str s = ash_vocab_token_text(v, i);
            ash_vocab_find(v, s.p, s.n);
            ash_vocab_is_eog(v, i);
        }
        ash_vocab_free(v);
    }
    ash_gguf_close(g);
    return 0;
}
