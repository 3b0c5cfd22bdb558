/* pretok.c - the pre-tokenizers of byte-level BPE: which pattern splits text into words.
 *
 * The patterns are those published with the models' tokenizer.json (GPT-2, Llama 3, Qwen2, SmolLM).
 * \s is spelled out as Unicode's White_Space, because PCRE2's \s under UCP also takes U+180E. */
#include "text/text_int.h"

#define WS "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S_ "[" WS "]"
#define NOT_S "[^" WS "]"

/* ` ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` ends all of them in some form. */
static const char gpt2[] = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" S_ "+(?!" NOT_S ")|" S_ "+";
/* Digits are split off one by one first, then GPT-2's pattern runs on what is between them; in one
 * pattern that means a run of spaces before a digit stays whole. */
static const char smollm[] = "\\p{N}|'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?[^" WS "\\p{L}\\p{N}]+|" S_ "+(?![^" WS "\\p{N}])|" S_ "+";
static const char llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S_
                             "*[\\r\\n]+|" S_ "+(?!" NOT_S ")|" S_ "+";
static const char qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S_
                            "*[\\r\\n]+|" S_ "+(?!" NOT_S ")|" S_ "+";

static const ash_pretok table[] = {
    /* name, pattern, add_bos, ignore_merges, nfc */
    {"gpt-2", gpt2, false, false, false},
    {"smollm", smollm, false, false, false},
    {"starcoder", smollm, false, false, false},
    {"llama-bpe", llama3, true, true, false},
    {"llama3", llama3, true, true, false},
    {"llama-v3", llama3, true, true, false},
    {"qwen2", qwen2, false, false, true},
};

const ash_pretok *ash_pretok_find(ash_str name) {
    for (size_t i = 0; i < ASH_ARRAY_LEN(table); i++)
        if (strlen(table[i].name) == name.n && memcmp(table[i].name, name.p, name.n) == 0) return &table[i];
    return NULL;
}

static void *re_alloc(size_t n, void *ctx) {
    (void)ctx;
    return ash_alloc(n);
}
static void re_free(void *p, void *ctx) {
    (void)ctx;
    ash_free(p);
}

pcre2_general_context *ash_pcre2_context(void) { return pcre2_general_context_create(re_alloc, re_free, NULL); }

ash_status ash_pretok_compile(ash_vocab *v, ash_error *err) {
    ash_status st = ASH_OK;
    pcre2_general_context *gc = ash_pcre2_context();
    pcre2_compile_context *cc = gc ? pcre2_compile_context_create(gc) : NULL;
    if (!cc) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the pre-tokenizer");
        goto done;
    }
    int code;
    PCRE2_SIZE at;
    v->re = pcre2_compile((PCRE2_SPTR)v->pre->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &at, cc);
    if (!v->re) {
        st = code == PCRE2_ERROR_HEAP_FAILED /* 121, as a compile error */
                 ? ash_fail(err, ASH_E_NOMEM, "out of memory for the pre-tokenizer")
                 : ash_fail(err, ASH_E_INTERNAL, "pre-tokenizer %s does not compile: PCRE2 error %d", v->pre->name, code);
        goto done;
    }
    v->jit = pcre2_jit_compile(v->re, PCRE2_JIT_COMPLETE) == 0; /* without JIT it is only slower */
done:
    pcre2_compile_context_free(cc);
    pcre2_general_context_free(gc);
    return st;
}
