/* ref_file.c - bytes of reference files: .aref (own) and llama-perplexity's base file, both ways. Works on memory
 * only, so that the parsers can be fuzzed; ref.c does the files. */
#include "eval/ref.h"

#include "tensor/f16.h"

#include <math.h>

#define AREF_MAGIC "ASHAREF1"
enum { AREF_F16 = 1, AREF_BOS = 2 };
enum { MAX_CTX = 1 << 20, MAX_CHUNKS = 1 << 22, MAX_EMBD = 1 << 17, MAX_VOCAB = 1 << 24, MAX_PATH = 4096 };

void ash_ref_clear(ash_eval_ref *r) {
    ash_free(r->tok);
    ash_free(r->hidden);
    ash_free(r->model_path);
    ash_model_free(r->m);
    ash_map_close(&r->map);
    *r = (ash_eval_ref){0};
}

static ash_status check_shape(const ash_eval_ref *r, const char *what, ash_error *err) {
    if (r->n_ctx < 8 || r->n_ctx > MAX_CTX || r->n_chunks < 1 || r->n_chunks > MAX_CHUNKS || r->n_vocab < 2 || r->n_vocab > MAX_VOCAB)
        return ash_fail(err, ASH_E_FORMAT, "%s: %u chunks of %u tokens over a vocabulary of %u is not believable", what, r->n_chunks,
                        r->n_ctx, r->n_vocab);
    if (r->first >= r->n_ctx - 1) return ash_fail(err, ASH_E_FORMAT, "%s: no scored position (first %u of %u)", what, r->first, r->n_ctx);
    return ASH_OK;
}

/* n_chunks * n_ctx tokens, each within the vocabulary. */
static ash_status read_tokens(ash_eval_ref *r, ash_rd *rd, const char *what, ash_error *err) {
    uint64_t n = (uint64_t)r->n_ctx * r->n_chunks; /* < 2^42 */
    if (ash_rd_left(rd) / 4 < n) return ash_fail_at(err, ASH_E_FORMAT, rd->pos, "%s: the file ends within its tokens", what);
    r->tok = ash_calloc(n, sizeof *r->tok);
    if (!r->tok) return ash_fail(err, ASH_E_NOMEM, "out of memory for %llu tokens", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t t = ash_rd_u32(rd);
        if (t >= r->n_vocab)
            return ash_fail_at(err, ASH_E_FORMAT, rd->pos - 4, "%s: token %u is outside its vocabulary of %u", what, t, r->n_vocab);
        r->tok[i] = (ash_token)t;
    }
    return ASH_OK;
}

static bool is_hex(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    return true;
}

ash_status ash_aref_parse(ash_eval_ref *r, const void *p, size_t n, ash_error *err) {
    const char *what = "reference file";
    ash_rd rd = ash_rd_init(p, n);
    const void *magic = ash_rd_bytes(&rd, 8);
    if (!magic || memcmp(magic, AREF_MAGIC, 8) != 0) return ash_fail(err, ASH_E_FORMAT, "%s: not an .aref file", what);
    uint32_t version = ash_rd_u32(&rd), flags = ash_rd_u32(&rd);
    if (rd.bad) return ash_fail(err, ASH_E_FORMAT, "%s: the file ends within its header", what);
    if (version != 1) return ash_fail(err, ASH_E_UNSUPPORTED, "%s: version %u (this program reads 1)", what, version);
    if (flags & ~3u) return ash_fail(err, ASH_E_UNSUPPORTED, "%s: unknown flags 0x%x", what, flags);
    r->n_ctx = ash_rd_u32(&rd);
    r->first = ash_rd_u32(&rd);
    r->n_chunks = ash_rd_u32(&rd);
    r->n_embd = ash_rd_u32(&rd);
    r->n_vocab = ash_rd_u32(&rd);
    r->bos = (ash_token)ash_rd_u32(&rd);
    r->add_bos = flags & AREF_BOS;
    r->head_hash = ash_rd_u64(&rd);
    const char *sha = ash_rd_bytes(&rd, 64);
    uint32_t path_len = ash_rd_u32(&rd);
    if (rd.bad) return ash_fail(err, ASH_E_FORMAT, "%s: the file ends within its header", what);
    ASH_TRY(check_shape(r, what, err));
    if (r->n_embd < 1 || r->n_embd > MAX_EMBD) return ash_fail(err, ASH_E_FORMAT, "%s: %u is no hidden size", what, r->n_embd);
    if (r->add_bos && (r->bos < 0 || (uint32_t)r->bos >= r->n_vocab)) return ash_fail(err, ASH_E_FORMAT, "%s: BOS %d is out of range", what, (int)r->bos);
    if (sha[0] && !is_hex(sha, 64)) return ash_fail(err, ASH_E_FORMAT, "%s: its text hash is no hash", what);
    if (sha[0]) memcpy(r->text_sha256, sha, 64);
    const char *path = path_len <= MAX_PATH ? ash_rd_bytes(&rd, path_len) : NULL;
    if (!path || memchr(path, 0, path_len)) return ash_fail(err, ASH_E_FORMAT, "%s: bad model path", what);
    uint64_t rows = (uint64_t)r->n_chunks * ash_ref_per_chunk(r), cells, bytes; /* rows < 2^42 */
    size_t esz = flags & AREF_F16 ? 2 : 4;
    if (ash_mul_ovf(rows, r->n_embd, &cells) || ash_mul_ovf(cells, esz, &bytes))
        return ash_fail(err, ASH_E_FORMAT, "%s: its size overflows", what);
    uint64_t want = (uint64_t)r->n_ctx * r->n_chunks * 4, scales = flags & AREF_F16 ? rows * 4 : 0;
    if (ash_add_ovf(bytes, want + scales + 8, &want) || ash_rd_left(&rd) != want)
        return ash_fail(err, ASH_E_FORMAT, "%s: %llu bytes after the header, %llu expected", what, (unsigned long long)ash_rd_left(&rd),
                        (unsigned long long)want);
    uint64_t sum;
    memcpy(&sum, (const uint8_t *)p + n - 8, 8);
    if (sum != ash_hash64(p, n - 8)) return ash_fail(err, ASH_E_FORMAT, "%s: the checksum does not match: the file is damaged", what);
    r->model_path = ash_strndup(path, path_len);
    if (!r->model_path) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ASH_TRY(read_tokens(r, &rd, what, err));
    r->hidden = ash_alloc_aligned(cells * sizeof(float), 64);
    if (!r->hidden) return ash_fail(err, ASH_E_NOMEM, "out of memory for %llu hidden states", (unsigned long long)rows);
    for (uint64_t i = 0; i < rows; i++) {
        float *h = r->hidden + i * r->n_embd;
        if (flags & AREF_F16) {
            float scale = ash_rd_f32(&rd);
            const uint8_t *b = ash_rd_bytes(&rd, 2 * (uint64_t)r->n_embd);
            for (uint32_t j = 0; j < r->n_embd; j++) {
                uint16_t v;
                memcpy(&v, b + 2 * j, 2);
                h[j] = scale * ash_f16_to_f32(v);
            }
        } else {
            memcpy(h, ash_rd_bytes(&rd, 4 * (uint64_t)r->n_embd), 4 * (size_t)r->n_embd);
        }
        for (uint32_t j = 0; j < r->n_embd; j++)
            if (!isfinite(h[j])) return ash_fail(err, ASH_E_FORMAT, "%s: hidden state %llu is not finite", what, (unsigned long long)i);
    }
    return ASH_OK;
}

static void put_u32(ash_buf *b, uint32_t v) { ash_buf_add(b, &v, 4); }

ash_status ash_eval_ref_save(const ash_eval_ref *r, const char *path, ash_error *err) {
    if (!r->hidden) return ash_fail(err, ASH_E_STATE, "only a computed reference can be saved as .aref");
    /* float32 is exact (a model against itself gives 0); float16 only where float32 would not be 30 times smaller
     * than 16 bits per vocabulary entry. */
    bool f16 = 4ull * r->n_embd * 30 > 2ull * r->n_vocab;
    uint64_t rows = (uint64_t)r->n_chunks * ash_ref_per_chunk(r);
    const char *mp = r->model_path ? r->model_path : "";
    char sha[64] = {0};
    memcpy(sha, r->text_sha256, strlen(r->text_sha256) == 64 ? 64 : 0);
    ash_buf b = {0};
    ash_buf_add(&b, AREF_MAGIC, 8);
    put_u32(&b, 1);
    put_u32(&b, (f16 ? AREF_F16 : 0) | (r->add_bos ? AREF_BOS : 0));
    put_u32(&b, r->n_ctx);
    put_u32(&b, r->first);
    put_u32(&b, r->n_chunks);
    put_u32(&b, r->n_embd);
    put_u32(&b, r->n_vocab);
    put_u32(&b, (uint32_t)r->bos);
    ash_buf_add(&b, &r->head_hash, 8);
    ash_buf_add(&b, sha, 64);
    put_u32(&b, (uint32_t)ASH_MIN(strlen(mp), (size_t)MAX_PATH));
    ash_buf_add(&b, mp, ASH_MIN(strlen(mp), (size_t)MAX_PATH));
    ash_buf_add(&b, r->tok, (size_t)r->n_ctx * r->n_chunks * sizeof *r->tok);
    for (uint64_t i = 0; i < rows; i++) {
        const float *h = r->hidden + i * r->n_embd;
        if (!f16) {
            ash_buf_add(&b, h, 4 * (size_t)r->n_embd);
            continue;
        }
        float top = 0; /* a scale per state keeps the values in float16's range */
        for (uint32_t j = 0; j < r->n_embd; j++) top = fmaxf(top, fabsf(h[j]));
        float scale = top > 0 ? top : 1;
        ash_buf_add(&b, &scale, 4);
        for (uint32_t j = 0; j < r->n_embd; j++) {
            uint16_t v = ash_f32_to_f16(h[j] / scale);
            ash_buf_add(&b, &v, 2);
        }
    }
    ash_status st;
    if (!ash_buf_ok(&b)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for the reference file");
    } else {
        uint64_t sum = ash_hash64(b.p, b.n);
        ash_buf_add(&b, &sum, 8);
        st = ash_buf_ok(&b) ? ash_file_write_atomic(path, b.p, b.n, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for the reference file");
    }
    ash_buf_free(&b);
    return st;
}

/* ---- base file ---- */
size_t ash_base_row_bytes(uint32_t n_vocab) { return 8 + 2 * (size_t)((n_vocab + 1) / 2 * 2); }

ash_status ash_base_parse(ash_eval_ref *r, const void *p, size_t n, ash_error *err) {
    const char *what = "base file";
    ash_rd rd = ash_rd_init(p, n);
    const void *magic = ash_rd_bytes(&rd, 8);
    if (!magic || memcmp(magic, "_logits_", 8) != 0) return ash_fail(err, ASH_E_FORMAT, "%s: not a llama-perplexity base file", what);
    r->n_ctx = ash_rd_u32(&rd);
    r->n_vocab = ash_rd_u32(&rd);
    r->n_chunks = ash_rd_u32(&rd);
    if (rd.bad) return ash_fail(err, ASH_E_FORMAT, "%s: the file ends within its header", what);
    r->first = r->n_ctx / 2;
    ASH_TRY(check_shape(r, what, err));
    r->row_bytes = ash_base_row_bytes(r->n_vocab);
    ASH_TRY(read_tokens(r, &rd, what, err));
    uint64_t rows = (uint64_t)r->n_chunks * ash_ref_per_chunk(r), bytes;
    if (ash_mul_ovf(rows, r->row_bytes, &bytes) || ash_rd_left(&rd) < bytes)
        return ash_fail(err, ASH_E_FORMAT, "%s: the file ends within its %llu rows", what, (unsigned long long)rows);
    r->rows = ash_rd_bytes(&rd, bytes);
    return ASH_OK;
}

void ash_base_row_encode(const float *logits, double lse, uint32_t n_vocab, uint8_t *row) {
    float top = logits[0], low = logits[0];
    for (uint32_t i = 1; i < n_vocab; i++) {
        top = logits[i] > top ? logits[i] : top;
        low = logits[i] < low ? logits[i] : low;
    }
    low = fmaxf(low, top - 16);
    float scale = (top - low) / 65535.f, min_lp = (float)(low - lse), inv = scale > 0 ? 1 / scale : 0;
    memcpy(row, &scale, 4);
    memcpy(row + 4, &min_lp, 4);
    for (uint32_t i = 0; i < (n_vocab + 1) / 2 * 2; i++) {
        float v = i < n_vocab && logits[i] > low ? (logits[i] - low) * inv : 0;
        uint16_t c = (uint16_t)(v < 65535.f ? v + 0.5f : 65535.f);
        memcpy(row + 8 + 2 * (size_t)i, &c, 2);
    }
}

void ash_base_row_decode(const uint8_t *row, uint32_t n_vocab, float *logp) {
    enum { NEVER = -200 };
    float scale, min_lp;
    memcpy(&scale, row, 4);
    memcpy(&min_lp, row + 4, 4);
    if (!isfinite(scale)) scale = 0;
    if (!isfinite(min_lp)) min_lp = 0;
    bool cut = scale * 65535.f > 15.9f;
    for (uint32_t i = 0; i < n_vocab; i++) {
        uint16_t c;
        memcpy(&c, row + 8 + 2 * (size_t)i, 2);
        logp[i] = c || !cut ? min_lp + scale * (float)c : NEVER;
    }
}

float ash_base_row_at(const uint8_t *row, uint32_t i) {
    float scale, min_lp;
    uint16_t c;
    memcpy(&scale, row, 4);
    memcpy(&min_lp, row + 4, 4);
    memcpy(&c, row + 8 + 2 * (size_t)i, 2);
    return min_lp + scale * (float)c;
}
