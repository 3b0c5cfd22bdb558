/* convert.c - a model folder becomes a GGUF: config.json, tokenizer, tensors, in this order; quantized types by way of a
 * file in the source's own precision, which bake then encodes. */
#include "convert/hf_int.h"

#include "ashlar/bake.h"
#include "ashlar/quant.h"

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

/* The float file at `path`. */
static ash_status write_float(const char *path, ash_dtype type, ash_hf_plan *plan, ash_gguf_writer *w, ash_convert_result *r,
                              ash_error *err) {
    if (plan) {
        ASH_TRY(ash_gguf_set_u32(w, "general.file_type", file_type(type), err));
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
    ash_hf h = {.dir = dir, .o = o};
    ash_hf_plan *plan = NULL;
    ash_gguf_writer *w = NULL;
    ash_buf tmp = {0};
    bool encode = o->type >= 0 && o->type != ASH_F32 && o->type != ASH_F16 && o->type != ASH_BF16;
    ash_status st = ASH_OK;
    if (encode && !ash_quant_can((ash_dtype)o->type)) {
        st = ash_fail(err, ASH_E_UNSUPPORTED, "there is no encoder for %s", ash_dtype_name((ash_dtype)o->type));
        goto done;
    }
    ASH_TRY_GOTO(ash_hf_json_file(&h.root, dir, "config.json", ASH_HF_MAX_CONFIG, err), done);
    if (!h.root && !o->vocab_only) {
        st = ash_fail(err, ASH_E_IO, "%s holds no config.json", dir);
        goto done;
    }
    h.cfg = h.root;
    if (h.root) ASH_TRY_GOTO(ash_hf_config_load(&h, err), done);
    ASH_TRY_GOTO(ash_gguf_writer_new(&w, err), done);
    ASH_TRY_GOTO(header(&h, w, &r, err), done);
    if (!o->vocab_only) ASH_TRY_GOTO(ash_hf_plan_new(&plan, &h, err), done);
    ash_dtype type = o->type < 0 || encode ? (plan ? ash_hf_plan_type(plan) : ASH_F32) : (ash_dtype)o->type;
    if (encode && plan) {
        ash_buf_addf(&tmp, "%s.float-%d", out, (int)getpid());
        if (!ash_buf_ok(&tmp)) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory");
            goto done;
        }
    }
    st = write_float(tmp.p ? tmp.p : out, type, plan, w, &r, err);
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
