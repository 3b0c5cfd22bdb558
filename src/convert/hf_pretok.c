/* hf_pretok.c - which pre-tokenizer a tokenizer.json describes. The pre_tokenizer object is written out in a canonical form
 * (types, patterns, behaviours; options that do not change the split are left out) and looked up. An unknown one is an
 * error, as a wrong split makes a model worse without any other sign. */
#include "convert/hf_int.h"

#include <stdlib.h>

#define CONTRACT "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3 CONTRACT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2 CONTRACT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN35 CONTRACT "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K_TIKTOKEN \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define CASED "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define O200K                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?" CASED SUFFIX "|[^\\r\\n\\p{L}\\p{N}]?" UPPER SUFFIX \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN                                                                 \
    "[^\\r\\n\\p{L}\\p{N}]?" CASED "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define GPT2_LONG "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK3                                                                                                                          \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
#define SPLIT(re) "split(" re ",Isolated)"
#define REMOVED(re) "split(" re ",Removed,inverted)"
#define BYTES ">bytes"
#define BYTES_GPT2 ">bytes+gpt2"

/* Canonical form and name; several forms may have one name. The first rows with a name say what --pre can be given. */
static const struct {
    const char *name, *form;
} known[] = {
    {"llama-bpe", SPLIT(LLAMA3) BYTES},
    {"qwen2", SPLIT(QWEN2) BYTES},
    {"qwen35", SPLIT(QWEN35) BYTES},
    {"gpt-2", BYTES_GPT2},
    {"gpt-2", SPLIT(GPT2) BYTES},
    {"gpt-2", SPLIT(GPT2_LONG) BYTES},
    {"smollm", ">digits1" BYTES_GPT2},
    {"dbrx", REMOVED(CL100K) BYTES},
    {"dbrx", SPLIT(CL100K_TIKTOKEN) BYTES},
    {"gpt-4o", SPLIT(O200K) BYTES},
    {"gpt-4o", REMOVED(O200K) BYTES},
    {"tekken", SPLIT(TEKKEN) BYTES},
    {"starcoder", NULL},
    {"stablelm2", NULL},
    {"falcon", ">punct(Contiguous)" BYTES_GPT2 ">digits" SPLIT("[0-9][0-9][0-9]")},
    {"deepseek-llm", NULL},
    {"deepseek-coder", NULL},
    {"deepseek-r1-qwen", NULL},
    {"deepseek-v3", SPLIT("\\p{N}{1,3}") SPLIT("[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+") SPLIT(DEEPSEEK3) BYTES},
};

const char *ash_convert_pre(int i) {
    if (i < 0) return NULL;
    for (size_t k = 0; k < ASH_ARRAY_LEN(known); k++) {
        bool again = false;
        for (size_t j = 0; j < k; j++) again |= strcmp(known[j].name, known[k].name) == 0;
        if (!again && i-- == 0) return known[k].name;
    }
    return NULL;
}

static void form(ash_buf *b, const json_t *p, int depth) {
    const char *type = ash_hf_str(p, "type");
    if (!type || depth > 8) {
        ash_buf_adds(b, ">?");
    } else if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *v;
        json_array_foreach(json_object_get(p, "pretokenizers"), i, v) form(b, v, depth + 1);
    } else if (strcmp(type, "Split") == 0) {
        const json_t *pat = json_object_get(p, "pattern");
        const char *re = ash_hf_str(pat, "Regex"), *lit = ash_hf_str(pat, "String"), *how = ash_hf_str(p, "behavior");
        ash_buf_adds(b, re ? "split(" : "literal(");
        ash_buf_adds(b, re ? re : lit ? lit : "?");
        ash_buf_addf(b, ",%.40s%s)", how ? how : "?", ash_hf_bool(p, "invert", false) ? ",inverted" : "");
    } else if (strcmp(type, "ByteLevel") == 0) {
        ash_buf_adds(b, ash_hf_bool(p, "use_regex", true) ? BYTES_GPT2 : BYTES);
        if (ash_hf_bool(p, "add_prefix_space", false)) ash_buf_adds(b, "+space");
    } else if (strcmp(type, "Digits") == 0) {
        ash_buf_adds(b, ash_hf_bool(p, "individual_digits", false) ? ">digits1" : ">digits");
    } else if (strcmp(type, "Punctuation") == 0) {
        const char *how = ash_hf_str(p, "behavior");
        ash_buf_addf(b, ">punct(%.40s)", how ? how : "Isolated");
    } else
        ash_buf_addf(b, ">%.60s", type);
}

ash_status ash_hf_pretok(const json_t *tokenizer, const char **name, ash_error *err) {
    ash_buf b = {0};
    ash_status st = ASH_OK;
    *name = NULL;
    form(&b, json_object_get(tokenizer, "pre_tokenizer"), 0);
    if (!ash_buf_ok(&b)) st = ash_fail(err, ASH_E_NOMEM, "out of memory");
    for (size_t i = 0; st == ASH_OK && i < ASH_ARRAY_LEN(known); i++)
        if (known[i].form && strcmp(known[i].form, b.p ? b.p : "") == 0) *name = known[i].name;
    if (*name && strcmp(*name, "qwen2") == 0) { /* the same split without NFC has another name */
        char *norm = json_dumps(json_object_get(tokenizer, "normalizer"), JSON_ENCODE_ANY);
        if (!norm || !strstr(norm, "\"NFC\"")) *name = "stablelm2";
        free(norm);
    }
    if (st == ASH_OK && !*name)
        st = ash_fail(err, ASH_E_UNSUPPORTED, "tokenizer.json: unknown pre-tokenizer %.180s; --pre NAME forces one", b.n ? b.p : "(none)");
    ash_buf_free(&b);
    return st;
}
