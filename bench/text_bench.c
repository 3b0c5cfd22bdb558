/* text_bench.c - tokenizer inside one process: load time, MB/s on normal text, and the cost per byte of
 * unpleasant text relative to that.
 *
 *     build/release/text_bench MODEL.gguf TEXT.txt */
#include "ashlar/text.h"
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Processor time: other programs on the machine do not count. */
static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double best_of(const ash_vocab *v, const char *p, size_t n, int reps, size_t *k) {
    double best = 1e9;
    for (int i = 0; i < reps; i++) {
        ash_token *t;
        double a = cpu();
        if (ash_tokenize(v, p, n, ASH_TOKENIZE_SPECIAL, &t, k, NULL) != ASH_OK) return -1;
        a = cpu() - a;
        ash_tokens_free(t);
        if (a < best) best = a;
    }
    return best;
}

int main(int argc, char **argv) {
    ash_gguf *g;
    ash_vocab *v;
    ash_error e = {0};
    ash_buf text = {0};
    int only = argc == 4 ? atoi(argv[3]) : -1;
    if (argc != 3 && argc != 4) return fprintf(stderr, "usage: text_bench MODEL.gguf TEXT.txt\n"), 2;
    double a = cpu();
    if (ash_gguf_open(&g, argv[1], &e) != ASH_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    double b = cpu();
    if (ash_vocab_load(&v, g, &e) != ASH_OK || ash_file_read(argv[2], 1u << 30, &text, &e) != ASH_OK) return fprintf(stderr, "%s\n", e.msg), 3;
    double c = cpu();
    printf("open %.1f ms, vocabulary of %d %.1f ms\n", (b - a) * 1e3, ash_vocab_size(v), (c - b) * 1e3);
    enum { N = 1 << 20 };
    char *p = malloc(N);
    size_t k;
    double norm = 0;
    static const char *const names[] = {"text", "text, no spaces", "text, letters only", "one letter", "spaces", "newlines", "random a-z", "random bytes", "japanese"};
    for (int kind = 0; kind < 9; kind++) {
        if (only >= 0 && kind != only) continue;
        ash_rng r;
        ash_rng_seed(&r, 1);
        size_t i = 0, src = 0;
        while (i < N) {
            char ch = text.p[src];
            src = (src + 1) % text.n;
            if (kind == 1 && (ch == ' ' || ch == '\n')) continue;
            if (kind == 2 && !((ch | 32) >= 'a' && (ch | 32) <= 'z')) continue;
            if (kind == 3) ch = 'a';
            if (kind == 4) ch = ' ';
            if (kind == 5) ch = '\n';
            if (kind == 6) ch = (char)('a' + ash_rng_below(&r, 26));
            if (kind == 7) ch = (char)ash_rng_below(&r, 256);
            if (kind == 8) {
                if (i + 3 > N) break;
                p[i] = (char)0xe3, p[i + 1] = (char)(0x81 + ash_rng_below(&r, 2)), p[i + 2] = (char)(0x81 + ash_rng_below(&r, 60));
                i += 3;
                continue;
            }
            p[i++] = ch;
        }
        double t = best_of(v, p, i, 5, &k);
        if (kind == 0) norm = t;
        printf("%-20s %7.1f MB/s  %6.2f ns/byte  x%.2f  %zu tokens\n", names[kind], (double)i / t / 1e6, t / (double)i * 1e9, t / norm, k);
    }
    free(p);
    ash_buf_free(&text);
    ash_vocab_free(v);
    ash_gguf_close(g);
    return 0;
}
