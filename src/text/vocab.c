/* vocab.c - a vocabulary out of a GGUF's tokenizer.ggml.* keys, and plain questions about it.
 *
 * Key names and meanings: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Defaults of absent keys
 * are llama.cpp's: "llama" adds BOS and a leading space, "gpt2" neither, Llama 3's pre-tokenizer adds
 * BOS. The tables for lookup are built in vocab_index.c. */
#include "text/text_int.h"

/* Texts that end a turn or a document in some model. A token counts when it is CONTROL or USER_DEFINED;
 * "</s>" only as CONTROL, because Gemma has it as an HTML tag. */
static const char *const eog_texts[] = {
    "<|im_end|>",    "<|endoftext|>",   "<|eot_id|>",    "<|eom_id|>",
    "<end_of_turn>", "<|end|>",         "<turn|>",       "</s>",
    "<eos>",         "<|end_of_text|>", "<EOT>",         "_<EOT>",
    "[EOT]",         "[EOS]",           "<|eot|>",       "<|return|>",
    "<|call|>",      "<|end_of_turn|>", "<|endofturn|>", "<end_of_utterance>",
    "<|fim_pad|>",   "<|fim_repo|>",    "<|file_sep|>",
};
/* The last three are what code models emit after a file; they never stand inside an answer. */

static bool str_is(ash_str s, const char *t) { return s.n == strlen(t) && memcmp(s.p, t, s.n) == 0; }

/* A token id key: absent or -1 is none, anything else out of range is an error. */
static ash_status id_key(const ash_vocab *v, const ash_gguf *g, const char *key, int32_t *out, ash_error *err) {
    int64_t id;
    *out = -1;
    if (!ash_gguf_get_i64(g, key, &id)) {
        if (ash_gguf_find(g, key) && ash_gguf_find(g, key)->type != ASH_GV_U64)
            return ash_fail(err, ASH_E_FORMAT, "key %s is not an integer", key);
        return ASH_OK;
    }
    if (id == -1 || id == UINT32_MAX) return ASH_OK;
    if (id < 0 || id >= v->n)
        return ash_fail(err, ASH_E_FORMAT, "key %s is %lld, but the vocabulary has %d tokens", key, (long long)id, v->n);
    *out = (int32_t)id;
    return ASH_OK;
}

static void add_eog(ash_vocab *v, int32_t id) {
    if (id < 0 || v->n_eog == (int)ASH_ARRAY_LEN(v->eog)) return;
    for (int i = 0; i < v->n_eog; i++)
        if (v->eog[i] == id) return;
    v->eog[v->n_eog++] = id;
}

static void find_eog(ash_vocab *v, int32_t eot, int32_t eom) {
    add_eog(v, v->eos);
    add_eog(v, eot);
    add_eog(v, eom);
    for (size_t i = 0; i < ASH_ARRAY_LEN(eog_texts); i++) {
        ash_token t = ash_vocab_find(v, eog_texts[i], strlen(eog_texts[i]));
        if (t < 0) continue;
        bool control = v->type[t] == ASH_TOK_CONTROL;
        if (control || (v->type[t] == ASH_TOK_USER_DEFINED && strcmp(eog_texts[i], "</s>") != 0)) add_eog(v, t);
    }
}

static ash_status load_tokens(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    const ash_gguf_kv *tok = ash_gguf_find(g, "tokenizer.ggml.tokens"), *typ = ash_gguf_find(g, "tokenizer.ggml.token_type");
    if (!tok || tok->type != ASH_GV_ARRAY || tok->elem_type != ASH_GV_STRING)
        return ash_fail(err, ASH_E_FORMAT, "the file has no vocabulary: key tokenizer.ggml.tokens is %s",
                        tok ? "not an array of strings" : "absent");
    if (tok->n == 0 || tok->n > (1u << 24))
        return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.tokens has %llu entries", (unsigned long long)tok->n);
    if (typ && (typ->type != ASH_GV_ARRAY || typ->n != tok->n))
        return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.token_type has %llu entries for %llu tokens", (unsigned long long)typ->n,
                        (unsigned long long)tok->n);
    v->n = (int32_t)tok->n;
    v->text = ash_calloc((size_t)v->n, sizeof *v->text);
    v->type = ash_alloc((size_t)v->n);
    if (!v->text || !v->type) return ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary of %d tokens", v->n);
    uint64_t cursor = 0;
    for (int32_t i = 0; i < v->n; i++) {
        int64_t t = ASH_TOK_NORMAL;
        if (!ash_gguf_array_str(tok, &cursor, &v->text[i]))
            return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.tokens ends at entry %d of %d", i, v->n);
        if (typ && (!ash_gguf_array_i64(typ, (uint64_t)i, &t) || t < 0 || t > ASH_TOK_BYTE))
            return ash_fail(err, ASH_E_FORMAT, "key tokenizer.ggml.token_type, entry %d: not a token type", i);
        v->type[i] = t == 0 ? ASH_TOK_NORMAL : (uint8_t)t; /* 0 is "undefined" */
    }
    return ASH_OK;
}

/* SentencePiece's table: an array of bytes, the first four of which count those of the trie. */
static ash_status load_charsmap(ash_vocab *v, const ash_gguf *g, ash_error *err) {
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const ash_gguf_kv *kv = ash_gguf_find(g, key);
    if (!kv || (kv->type == ASH_GV_ARRAY && kv->n == 0)) return ASH_OK;
    uint32_t trie;
    if (kv->type != ASH_GV_ARRAY || (kv->elem_type != ASH_GV_U8 && kv->elem_type != ASH_GV_I8) || kv->n < 4)
        return ash_fail(err, ASH_E_FORMAT, "key %s is not an array of bytes", key);
    v->charsmap = (ash_str){(const char *)kv->data, (size_t)kv->n};
    memcpy(&trie, v->charsmap.p, 4);
    if (trie > kv->n - 4) return ash_fail(err, ASH_E_FORMAT, "key %s: a trie of %u bytes in %llu", key, trie, (unsigned long long)kv->n);
    return ASH_OK;
}

ash_status ash_vocab_load(ash_vocab **out, const ash_gguf *g, ash_error *err) {
    *out = NULL;
    ash_status st = ASH_OK;
    ash_str model, pre = {"", 0};
    if (!ash_gguf_get_str(g, "tokenizer.ggml.model", &model))
        return ash_fail(err, ASH_E_FORMAT, "the file has no vocabulary: key tokenizer.ggml.model is absent");
    ash_vocab *v = ash_calloc(1, sizeof *v);
    if (!v) return ash_fail(err, ASH_E_NOMEM, "out of memory for a vocabulary");
    if (str_is(model, "gpt2")) {
        v->kind = ASH_VK_BPE;
        if (!ash_gguf_get_str(g, "tokenizer.ggml.pre", &pre)) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "key tokenizer.ggml.pre is absent, so the pre-tokenizer is not known");
            goto fail;
        }
        v->pre = ash_pretok_find(pre);
        if (!v->pre) {
            st = ash_fail(err, ASH_E_UNSUPPORTED, "pre-tokenizer \"%.*s\" is not supported", (int)ASH_MIN(pre.n, 60), pre.p);
            goto fail;
        }
        v->add_bos = v->pre->add_bos;
    } else if (str_is(model, "llama")) {
        v->kind = ASH_VK_SPM; /* `pre` has no meaning here; files say "default" */
        v->add_bos = v->add_space_prefix = true;
    } else if (str_is(model, "gemma4")) {
        v->kind = ASH_VK_CPE;
        v->add_bos = true;
    } else if (str_is(model, "bert")) {
        v->kind = ASH_VK_WPM;
        v->add_bos = v->add_eos = v->add_space_prefix = v->lowercase = true;
    } else if (str_is(model, "t5")) {
        v->kind = ASH_VK_UGM;
        v->add_eos = v->add_space_prefix = v->squeeze = true;
    } else {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "tokenizer model \"%.*s\" is not supported", (int)ASH_MIN(model.n, 60), model.p);
        goto fail;
    }
    ASH_TRY_GOTO(load_tokens(v, g, err), fail);
    ash_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos);
    ash_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos);
    if (v->kind != ASH_VK_BPE && v->kind != ASH_VK_WPM) ash_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix);
    if (v->kind == ASH_VK_UGM) {
        ash_gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &v->squeeze);
        ASH_TRY_GOTO(load_charsmap(v, g, err), fail);
    }
    if (v->kind == ASH_VK_WPM) {
        ash_gguf_get_bool(g, "tokenizer.ggml.normalizer.lowercase", &v->lowercase);
        v->strip_accents = v->lowercase; /* as the published tokenizers do where they do not say */
        ash_gguf_get_bool(g, "tokenizer.ggml.normalizer.strip_accents", &v->strip_accents);
    }
    int32_t eot, eom;
    ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.bos_token_id", &v->bos, err), fail);
    ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.eos_token_id", &v->eos, err), fail);
    if (v->kind == ASH_VK_WPM && v->bos < 0) ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.cls_token_id", &v->bos, err), fail);
    if (v->kind == ASH_VK_WPM && v->eos < 0) ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.seperator_token_id", &v->eos, err), fail);
    ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.eot_token_id", &eot, err), fail);
    ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.eom_token_id", &eom, err), fail);
    ASH_TRY_GOTO(id_key(v, g, "tokenizer.ggml.unknown_token_id", &v->unk, err), fail);
    ASH_TRY_GOTO(ash_specials_how(v, g, err), fail);
    ASH_TRY_GOTO(ash_vocab_index(v, g, err), fail);
    ASH_TRY_GOTO(ash_vocab_lazy_new(v, err), fail);
    if (v->kind == ASH_VK_BPE) ASH_TRY_GOTO(ash_pretok_compile(v, err), fail);
    ASH_TRY_GOTO(ash_specials_load(v, err), fail);
    find_eog(v, eot, eom);
    *out = v;
    return ASH_OK;
fail:
    ash_vocab_free(v);
    return st;
}

void ash_vocab_free(ash_vocab *v) {
    if (!v) return;
    for (int i = 0; i < v->n_re; i++) pcre2_code_free(v->re[i]);
    ash_free(v->score);
    ash_specials_free(v);
    ash_vocab_lazy_free(v);
    ash_free(v->text);
    ash_free(v->type);
    ash_free(v->raw);
    ash_free(v->raw_off);
    ash_free(v->slots);
    ash_free(v->merges);
    ash_free(v->maybe);
    ash_free(v->rank);
    ash_free(v->pair2);
    ash_free(v->joins);
    ash_free(v);
}

int32_t ash_vocab_size(const ash_vocab *v) { return v->n; }
const char *ash_vocab_model(const ash_vocab *v) {
    static const char *const names[] = {
        [ASH_VK_BPE] = "gpt2", [ASH_VK_SPM] = "llama", [ASH_VK_CPE] = "gemma4", [ASH_VK_WPM] = "bert", [ASH_VK_UGM] = "t5"};
    return names[v->kind];
}
ash_token ash_vocab_bos(const ash_vocab *v) { return v->bos; }
ash_token ash_vocab_eos(const ash_vocab *v) { return v->eos; }
bool ash_vocab_add_bos(const ash_vocab *v) { return v->add_bos && v->bos >= 0; }

ash_str ash_vocab_token_text(const ash_vocab *v, ash_token t) { return t >= 0 && t < v->n ? v->text[t] : (ash_str){"", 0}; }
ash_token_type ash_vocab_token_type(const ash_vocab *v, ash_token t) {
    return t >= 0 && t < v->n ? (ash_token_type)v->type[t] : ASH_TOK_UNUSED;
}

bool ash_vocab_is_eog(const ash_vocab *v, ash_token t) {
    for (int i = 0; i < v->n_eog; i++)
        if (v->eog[i] == t) return true;
    return false;
}

/* ---- pieces ---- */
size_t ash_token_piece(const ash_vocab *v, ash_token t, bool special, char *buf, size_t cap) {
    if (t < 0 || t >= v->n) return 0;
    if (!special && (v->type[t] == ASH_TOK_CONTROL || v->type[t] == ASH_TOK_UNKNOWN)) return 0;
    const char *p = v->raw + v->raw_off[t];
    size_t n = v->raw_off[t + 1] - v->raw_off[t];
    if (v->kind == ASH_VK_WPM) { /* a space before words and special tokens, none before these four */
        if (n == 2 && p[0] == ' ' && strchr(".?!,", p[1]) && p[1])
            p++, n--;
        else if (v->type[t] != ASH_TOK_NORMAL && n && p[0] != ' ') {
            if (cap) buf[0] = ' ';
            if (cap > 1) memcpy(buf + 1, p, ASH_MIN(n, cap - 1));
            return n + 1;
        }
    }
    if (cap) memcpy(buf, p, ASH_MIN(n, cap));
    return n;
}
