/* fuzz_hf_tokenizer.c - tokenizer files on arbitrary bytes. The first byte picks what the rest is: tokenizer.json (with and
 * without a gemma 4 config), tokenizer.model, vocab.txt, or tokenizer_config.json beside a small vocabulary. */
#include "convert/hf_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static const char *const files[] = {"tokenizer.json", "tokenizer.model", "vocab.txt", "tokenizer_config.json", "generation_config.json"};

static void clean(void) {
    char path[128];
    for (size_t i = 0; i < ASH_ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
}

static void leave(void) {
    clean();
    rmdir(dir);
}

static void put(const char *name, const void *p, size_t n) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    if (n) fwrite(p, 1, n, f);
    fclose(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n";
    static const ash_hf_arch gemma4 = {.kind = HF_GEMMA4, .hf = "Gemma4ForCausalLM", .gguf = "gemma4"};
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/tmp/fuzz_hf_%d", (int)getpid());
        mkdir(dir, 0700);
        atexit(leave);
    }
    if (!n) return 0;
    ash_convert_opts o = ash_convert_defaults();
    ash_convert_result r = {0};
    ash_hf h = {.dir = dir, .o = &o};
    ash_gguf_writer *w = NULL;
    clean();
    switch (p[0] % 5) {
    case 0: put("tokenizer.json", p + 1, n - 1); break;
    case 1:
        put("tokenizer.json", p + 1, n - 1);
        h.arch = &gemma4;
        break;
    case 2: put("tokenizer.model", p + 1, n - 1); break;
    case 3: put("vocab.txt", p + 1, n - 1); break;
    default:
        put("vocab.txt", vocab, sizeof vocab - 1);
        put("tokenizer_config.json", p + 1, n - 1);
        put("generation_config.json", p + 1, n - 1);
    }
    if (ash_gguf_writer_new(&w, NULL) == ASH_OK) ash_hf_tokenizer(&h, w, &r, NULL);
    ash_gguf_writer_free(w);
    ash_arena_free(&h.arena);
    ash_buf_free(&h.notes);
    return 0;
}
