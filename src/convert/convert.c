/* convert.c - a model folder becomes a GGUF: config.json, tokenizer, tensors, in this order; quantized types by way of a
 * file in the source's own precision, which bake then encodes. */
#include "convert/hf_int.h"

#include "ashlar/bake.h"
#include "ashlar/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

ash_convert_opts ash_convert_defaults(void) { return (ash_convert_opts){.type = ASH_CONVERT_AUTO}; }

/* "/models/smol/" -> "smol" */
static ash_status folder_name(const char *dir, char *out, size_t size, ash_error *err) {
    char *full = realpath(dir, NULL);
    const char *leaf = full ? strrchr(full, '/') : NULL;
    ash_status st = ASH_OK;
    if (!full)
        st = ash_fail(err, ASH_E_IO, "cannot open the folder %s", dir);
    else
        snprintf(out, size, "%s", leaf && leaf[1] ? leaf + 1 : "model");
    free(full);
    return st;
}

static uint32_t file_type(ash_dtype t) { return t == ASH_F16 ? 1 : t == ASH_BF16 ? 32 : 0; }

static ash_status header(ash_hf *h, ash_gguf_writer *w, ash_convert_result *r, ash_error *err) {
    char name[256];
    const ash_convert_opts *o = h->o;
    const char *arch = h->arch ? h->arch->gguf : "llama"; /* a vocabulary alone needs some name */
    ASH_TRY(folder_name(h->dir, name, sizeof name, err));
    const char *n = o->name ? o->name : name;
    ASH_TRY(ash_gguf_set_str(w, "general.architecture", arch, strlen(arch), err));
    ASH_TRY(ash_gguf_set_str(w, "general.type", "model", 5, err));
    ASH_TRY(ash_gguf_set_str(w, "general.name", n, strlen(n), err));
    if (h->arch) ASH_TRY(ash_hf_config_keys(h, w, err));
    ASH_TRY(ash_hf_tokenizer(h, w, r, err));
    snprintf(r->arch, sizeof r->arch, "%s", arch);
    snprintf(r->hf_arch, sizeof r->hf_arch, "%s", h->arch ? h->arch->hf : "");
    return ASH_OK;
}

/* An adapter's own keys. PEFT scales by alpha / r, or by alpha / sqrt(r) (rsLoRA); GGUF knows the first, so alpha grows. */
static ash_status adapter_header(ash_hf *h, ash_gguf_writer *w, ash_convert_result *r, ash_error *err) {
    json_t *c;
    char name[256];
    double rank = 0, alpha = 0;
    ASH_TRY(ash_hf_json_file(&c, h->dir, "adapter_config.json", ASH_HF_MAX_CONFIG, err));
    const char *kind = ash_hf_str(c, "peft_type");
    ash_status st = ASH_OK;
    if (!c)
        st = ash_fail(err, ASH_E_IO, "%s holds no adapter_config.json", h->dir);
    else if (!kind || strcmp(kind, "LORA") != 0)
        st = ash_fail(err, ASH_E_UNSUPPORTED, "adapter_config.json: an adapter of kind \"%.40s\" cannot be converted", kind ? kind : "");
    else if (ash_hf_bool(c, "use_dora", false) || ash_hf_bool(c, "fan_in_fan_out", false) ||
             json_object_size(json_object_get(c, "alpha_pattern")) || json_object_size(json_object_get(c, "rank_pattern")))
        st = ash_fail(err, ASH_E_UNSUPPORTED,
                      "adapter_config.json: use_dora, fan_in_fan_out and patterns of rank or alpha are not supported");
    else {
        rank = json_number_value(json_object_get(c, "r"));
        alpha = json_number_value(json_object_get(c, "lora_alpha"));
        if (!(rank >= 1 && rank <= 65536 && alpha > 0 && alpha < 1e9))
            st = ash_fail(err, ASH_E_RANGE, "adapter_config.json: r or lora_alpha is missing");
        if (ash_hf_bool(c, "use_rslora", false)) alpha *= sqrt(rank);
    }
    json_decref(c);
    if (st != ASH_OK) return st;
    ASH_TRY(folder_name(h->dir, name, sizeof name, err));
    const char *n = h->o->name ? h->o->name : name;
    ASH_TRY(ash_gguf_set_str(w, "general.architecture", h->arch->gguf, strlen(h->arch->gguf), err));
    ASH_TRY(ash_gguf_set_str(w, "general.type", "adapter", 7, err));
    ASH_TRY(ash_gguf_set_str(w, "adapter.type", "lora", 4, err));
    ASH_TRY(ash_gguf_set_f32(w, "adapter.lora.alpha", (float)alpha, err));
    ASH_TRY(ash_gguf_set_str(w, "general.name", n, strlen(n), err));
    snprintf(r->arch, sizeof r->arch, "%s", h->arch->gguf);
    snprintf(r->hf_arch, sizeof r->hf_arch, "%s", h->arch->hf);
    return ASH_OK;
}

/* The float file at `path`. */
static ash_status write_float(const char *path, ash_dtype type, bool adapter, ash_hf_plan *plan, ash_gguf_writer *w, ash_convert_result *r,
                              ash_error *err) {
    if (plan) {
        if (!adapter) ASH_TRY(ash_gguf_set_u32(w, "general.file_type", file_type(type), err));
        ASH_TRY(ash_gguf_set_u32(w, "general.quantization_version", 2, err));
        ASH_TRY(ash_hf_plan_declare(plan, w, type, err));
        r->n_tensors = ash_hf_plan_count(plan);
        r->n_weights = ash_hf_plan_weights(plan);
    }
    r->type = type;
    r->file_bytes = ash_gguf_writer_bytes(w);
    ASH_TRY(ash_gguf_writer_begin(w, path, err));
    if (plan) ASH_TRY(ash_hf_plan_write(plan, w, "convert", err));
    return ash_gguf_writer_finish(w, err);
}

static ash_status quantize(const ash_convert_opts *o, const char *from, const char *to, ash_convert_result *r, ash_error *err) {
    ash_gguf *g;
    ash_bake_result b;
    ash_bake_opts bo = ash_bake_defaults();
    bo.type = o->type;
    bo.n_threads = o->n_threads;
    bo.progress = o->progress;
    ASH_TRY(ash_gguf_open(&g, from, err));
    ash_status st = ash_bake(&b, g, to, &bo, err);
    if (st == ASH_OK) {
        r->file_bytes = b.file_bytes;
        r->type = (ash_dtype)o->type;
        if (b.n_fallback) {
            size_t n = strlen(r->notes);
            snprintf(r->notes + n, sizeof r->notes - n, "%s%zu matrices have rows that do not fit %s and got the nearest type that does",
                     n ? "\n" : "", b.n_fallback, ash_dtype_name((ash_dtype)o->type));
        }
        ash_bake_result_free(&b);
    }
    ash_gguf_close(g);
    return st;
}

ash_status ash_convert(ash_convert_result *res, const char *dir, const char *out, const ash_convert_opts *o, ash_error *err) {
    ash_convert_result r = {0};
    ash_error local = {0};
    if (!err) err = &local;
    ash_hf h = {.dir = dir, .o = o, .adapter = o->base != NULL};
    const char *conf = o->base ? o->base : dir;
    ash_hf_plan *plan = NULL;
    ash_gguf_writer *w = NULL;
    ash_buf tmp = {0};
    bool encode = o->type >= 0 && o->type != ASH_F32 && o->type != ASH_F16 && o->type != ASH_BF16;
    ash_status st = ASH_OK;
    if (encode && !ash_quant_can((ash_dtype)o->type)) {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "there is no encoder for %s", ash_dtype_name((ash_dtype)o->type));
        goto done;
    }
    ASH_TRY_GOTO(ash_hf_json_file(&h.root, conf, "config.json", ASH_HF_MAX_CONFIG, err), done);
    if (h.adapter && (encode || o->vocab_only)) {
        st = ash_fail(err, ASH_E_USAGE, "an adapter is written in F32, F16 or BF16, with its tensors");
        goto done;
    }
    if (!h.root && !o->vocab_only) {
        st = ash_fail(err, ASH_E_IO, "%s holds no config.json", conf);
        goto done;
    }
    h.cfg = h.root;
    if (h.root) ASH_TRY_GOTO(ash_hf_config_load(&h, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(h.adapter ? adapter_header(&h, w, &r, err) : header(&h, w, &r, err), done);
    if (!o->vocab_only) ASH_TRY_GOTO(ash_hf_plan_new(&plan, &h, err), done);
    ash_dtype type = o->type < 0 || encode ? (plan ? ash_hf_plan_type(plan) : ASH_F32) : (ash_dtype)o->type;
    if (h.adapter && o->type < 0) type = ASH_F32; /* small, and small numbers */
    if (encode && plan) {
        ash_buf_addf(&tmp, "%s.float-%d", out, (int)getpid());
        if (!ash_buf_ok(&tmp)) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory");
            goto done;
        }
    }
    st = write_float(tmp.p ? tmp.p : out, type, h.adapter, plan, w, &r, err);
    if (h.notes.p) snprintf(r.notes, sizeof r.notes, "%s", h.notes.p);
    if (st == ASH_OK && tmp.p) st = quantize(o, tmp.p, out, &r, err);
    if (st == ASH_OK && res) *res = r;
done:
    if (tmp.p) unlink(tmp.p);
    ash_hf_plan_free(plan);
    ash_gguf_writer_free(w);
    json_decref(h.root);
    ash_arena_free(&h.arena);
    ash_buf_free(&h.notes);
    ash_buf_free(&tmp);
    return st;
}
