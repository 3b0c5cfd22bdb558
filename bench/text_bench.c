/* text_bench.c - tokenizer inside one process: load time, speed on ordinary text, and what a megabyte of
 * unpleasant text costs per byte relative to that. Processor time, least of several rounds in which the
 * kinds take turns, so that a busy machine slows all of them.
 *
 *     text_bench MODEL.gguf TEXT.txt [MAX [KIND]]     fails if a ratio is above MAX (default: never) */
#include "ashlar/text.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { N = 1 << 20, ROUNDS = 15 };

enum { TEXT, NO_SPACES, LETTERS, ONE_LETTER, SPACES, NEWLINES, RANDOM, WORD, DIGITS, CJK, KANA, EMOJI, BYTES, N_KINDS };
static const char *const names[N_KINDS] = {
    "text",         "text without spaces",       "letters of text", "one letter", "spaces",      "newlines",
    "random a-z",   "one word, again and again", "digits",          "random CJK", "random kana", "random emoji",
    "random bytes",
};

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Fill p[0..N) as the kind wants; bytes written. */
static size_t fill(char *p, int kind, const ash_buf *text) {
    ash_rng r;
    ash_rng_seed(&r, 1);
    size_t n = 0, src = 0;
    while (n + 4 <= N) {
        char ch = text->p[src];
        uint32_t cp = 0;
        src = (src + 1) % text->n;
        switch (kind) {
        case NO_SPACES:
            if (ch == ' ' || ch == '\n') continue;
            break;
        case LETTERS:
            if (!((ch | 32) >= 'a' && (ch | 32) <= 'z')) continue;
            break;
        case ONE_LETTER: ch = 'a'; break;
        case SPACES: ch = ' '; break;
        case NEWLINES: ch = '\n'; break;
        case RANDOM: ch = (char)('a' + ash_rng_below(&r, 26)); break;
        case WORD: ch = "counterintuitively"[n % 18]; break;
        case DIGITS: ch = (char)('0' + ash_rng_below(&r, 10)); break;
        case CJK: cp = 0x4e00 + ash_rng_below(&r, 5000); break;
        case KANA: cp = 0x3041 + ash_rng_below(&r, 80); break;
        case EMOJI: cp = 0x1f600 + ash_rng_below(&r, 80); break;
        case BYTES: ch = (char)ash_rng_below(&r, 256); break;
        default: break;
        }
        if (cp < 128)
            p[n++] = ch;
        else if (cp < 0x10000)
            p[n++] = (char)(0xe0 | cp >> 12), p[n++] = (char)(0x80 | (cp >> 6 & 63)), p[n++] = (char)(0x80 | (cp & 63));
        else {
            p[n++] = (char)(0xf0 | cp >> 18), p[n++] = (char)(0x80 | (cp >> 12 & 63));
            p[n++] = (char)(0x80 | (cp >> 6 & 63)), p[n++] = (char)(0x80 | (cp & 63));
        }
    }
    return n;
}

int main(int argc, char **argv) {
    ash_gguf *g;
    ash_vocab *v;
    ash_error e = {0};
    ash_buf text = {0};
    char *p[N_KINDS];
    size_t n[N_KINDS], k[N_KINDS];
    double best[N_KINDS], max = argc > 3 ? atof(argv[3]) : 0;
    int only = argc > 4 ? atoi(argv[4]) : -1, bad = 0;
    if (argc < 3 || argc > 5) return fprintf(stderr, "usage: text_bench MODEL.gguf TEXT.txt [MAX [KIND]]\n"), 2;
    double a = cpu();
    if (ash_gguf_open(&g, argv[1], &e) != ASH_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    double b = cpu();
    if (ash_vocab_load(&v, g, &e) != ASH_OK || ash_file_read(argv[2], 1u << 30, &text, &e) != ASH_OK || text.n == 0)
        return fprintf(stderr, "%s\n", e.msg), 3;
    double c = cpu();
    printf("%s: open %.1f ms, vocabulary of %d %.1f ms\n", argv[1], (b - a) * 1e3, ash_vocab_size(v), (c - b) * 1e3);
    for (int i = 0; i < N_KINDS; i++) {
        p[i] = malloc(N);
        if (!p[i]) return 4;
        n[i] = fill(p[i], i, &text);
        best[i] = 1e9;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < N_KINDS; i++) {
            ash_token *t;
            if (only >= 0 && i != only && i != TEXT) continue;
            double s = cpu();
            if (ash_tokenize(v, p[i], n[i], 0, &t, &k[i], &e) != ASH_OK) return fprintf(stderr, "%s\n", e.msg), 5;
            s = cpu() - s;
            ash_tokens_free(t);
            best[i] = ASH_MIN(best[i], s);
        }
    for (int i = 0; i < N_KINDS; i++) {
        if (only >= 0 && i != only && i != TEXT) continue;
        double each = best[i] / (double)n[i], ratio = each / (best[TEXT] / (double)n[TEXT]);
        bool over = max > 0 && ratio > max;
        printf("  %-26s %7.1f MB/s %7.2f ns/byte %6.2fx %8zu tokens%s\n", names[i], 1e-6 / each, each * 1e9, ratio, k[i],
               over ? "  TOO SLOW" : "");
        bad += over;
        free(p[i]);
    }
    ash_buf_free(&text);
    ash_vocab_free(v);
    ash_gguf_close(g);
    return bad ? 1 : 0;
}
