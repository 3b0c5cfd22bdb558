/* pretok.c - the pre-tokenizers of byte-level BPE: which patterns split text into words.
 *
 * The patterns are those published with the models' tokenizer.json. Several in a row work one after the
 * other. \s is spelled out as Unicode's White_Space, because PCRE2's \s under UCP also takes U+180E. Runs
 * are possessive or guarded where a failing match would otherwise try each of their ends in turn. */
#include "text/text_int.h"

#define WS "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S_ "[" WS "]"
#define NOT_S "[^" WS "]"
#define SPACES S_ "+(?!" NOT_S ")|" S_ "+" /* all but the last of a run, if something follows */
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
/* Digits are split off one by one first, then GPT-2's pattern runs on what is between them; in one
 * pattern that means a run of spaces before a digit stays whole. */
#define SMOLLM "\\p{N}|'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?[^" WS "\\p{L}\\p{N}]+|" S_ "+(?![^" WS "\\p{N}])|" S_ "+"
/* Llama 3 and its kin: n digits at a time, letters as given */
#define LLAMA(digits, letters, more) \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?" letters "+|" digits "| ?[^" WS "\\p{L}" more "\\p{N}]+[\\r\\n]*|" S_ "*[\\r\\n]+|" SPACES
/* words that begin anew at a capital after a small letter */
#define CASED "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define O200K(after, digits)                                                                                                        \
    "[^\\r\\n\\p{L}\\p{N}]?" CASED after "|[^\\r\\n\\p{L}\\p{N}]?" UPPER after "|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" S_ \
    "*[\\r\\n]+|" SPACES
#define PUNCT "[!-/:-@\\[-`{-~\\p{P}]+"
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* The published list of letter ranges is the cased letters of Unicode 11, without the mathematical ones. */
#define CASED_LETTERS "(?:(?![\\x{1d400}-\\x{1d7ff}\\x{16e40}-\\x{16e7f}])[\\p{Lu}\\p{Ll}\\p{Lt}])+"

/* Falcon's tokenizer looks for digits in the byte-level alphabet, in which six more bytes are numbers. */
/* clang-format off */
static const ash_pretok table[] = {
    /* name, patterns, add_bos, ignore_merges, nfc, n_chars */
    {"gpt-2", {GPT2}, false, false, false, 0},
    {"phi-2", {GPT2}, false, false, false, 0},
    {"mpt", {GPT2}, false, false, false, 0},
    {"olmo", {GPT2}, false, false, false, 0},
    {"jais", {GPT2}, false, false, false, 0},
    {"smollm", {SMOLLM}, false, false, false, 0},
    {"starcoder", {SMOLLM}, false, false, false, 0},
    {"refact", {SMOLLM}, false, false, false, 0},
    {"command-r", {SMOLLM}, false, false, false, 0},
    {"codeshell", {SMOLLM}, false, false, false, 0},
    {"llama-bpe", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, true, true, false, 0},
    {"llama3", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, true, true, false, 0},
    {"llama-v3", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, true, true, false, 0},
    {"falcon3", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, true, true, false, 0},
    {"dbrx", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, false, false, false, 0},
    {"smaug-bpe", {LLAMA("\\p{N}{1,3}", "\\p{L}", "")}, false, false, false, 0},
    {"qwen2", {LLAMA("\\p{N}", "\\p{L}", "")}, false, false, true, 0},
    {"deepseek-r1-qwen", {LLAMA("\\p{N}", "\\p{L}", "")}, false, false, true, 0},
    {"stablelm2", {LLAMA("\\p{N}", "\\p{L}", "")}, false, false, false, 0},
    {"qwen35", {LLAMA("\\p{N}", "[\\p{L}\\p{M}]", "\\p{M}")}, false, false, true, 0},
    {"gpt-4o", {O200K(CONTRACTION "?", "\\p{N}{1,3}")}, false, false, false, 0},
    {"llama4", {O200K(CONTRACTION "?", "\\p{N}{1,3}")}, false, false, false, 0},
    {"tekken", {O200K("", "\\p{N}")}, true, true, false, 0},
    {"falcon", {PUNCT, GPT2, "[0-9\\xb2\\xb3\\xb9\\xbc-\\xbe]+", "[0-9][0-9][0-9]"}, false, false, false, 2},
    {"deepseek-llm", {"[\\r\\n]", S_ "?" CASED_LETTERS, S_ "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
                      "(?<!" S_ ")" S_ "++$", CJK, "\\p{N}"}, false, false, false, 0},
    {"deepseek-coder", {"[\\r\\n]", S_ "?\\p{L}+", S_ "?\\p{P}+", CJK, "\\p{N}"}, false, false, false, 0},
    {"deepseek-v3", {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
                     "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" S_ "*[\\r\\n]+|" SPACES},
     true, false, false, 0},
};
/* clang-format on */

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
    v->jit = true;
    for (int i = 0; i < ASH_PRE_MAX && v->pre->pattern[i]; i++) {
        uint32_t flags = v->pre->n_chars && i >= v->pre->n_chars ? 0 : PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK;
        v->re[i] = pcre2_compile((PCRE2_SPTR)v->pre->pattern[i], PCRE2_ZERO_TERMINATED, flags, &code, &at, cc);
        if (!v->re[i]) {
            st = code == PCRE2_ERROR_HEAP_FAILED /* 121, as a compile error */
                     ? ash_fail(err, ASH_E_NOMEM, "out of memory for the pre-tokenizer")
                     : ash_fail(err, ASH_E_INTERNAL, "pre-tokenizer %s does not compile: PCRE2 error %d at %zu", v->pre->name, code,
                                (size_t)at);
            goto done;
        }
        v->n_re = i + 1;
        v->jit = v->jit && pcre2_jit_compile(v->re[i], PCRE2_JIT_COMPLETE) == 0; /* without JIT it is only slower */
    }
done:
    pcre2_compile_context_free(cc);
    pcre2_general_context_free(gc);
    return st;
}
