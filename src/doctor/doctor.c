/* doctor.c - opens what can be opened of a file, runs the checks, keeps the findings. */
#include "doctor/doctor_int.h"

#include <stdio.h>

static const ash_doc_info k_checks[] = {
#define X(id, severity, run, text, advice) {#id, ASH_DOC_##severity, run, text, advice},
    ASH_DOCTOR_LIST(X)
#undef X
};

ash_doctor_opts ash_doctor_defaults(void) { return (ash_doctor_opts){0}; }
ash_doc_info ash_doctor_check(int c) { return c >= 0 && c < ASH_DOC_COUNT ? k_checks[c] : (ash_doc_info){0}; }

void ash_doc_say(ash_doctor *d, ash_doc_check c, const char *where, const char *fmt, ...) {
    if (d->n == DOC_MAX) return;
    ash_doc_finding *f = &d->f[d->n++];
    va_list ap;
    f->check = c;
    snprintf(f->where, sizeof f->where, "%s", where);
    va_start(ap, fmt);
    vsnprintf(f->what, sizeof f->what, fmt, ap);
    va_end(ap);
    for (char *p = f->what; *p; p++)
        if ((unsigned char)*p < ' ') *p = ' ';
}

bool ash_doc_said(const ash_doctor *d, ash_doc_check c) {
    for (size_t i = 0; i < d->n; i++)
        if (d->f[i].check == c) return true;
    return false;
}

/* What comes after "PATH: " in a message that begins so. */
static const char *bare(const char *msg, const char *path) {
    const size_t n = strlen(path);
    return n && strncmp(msg, path, n) == 0 && msg[n] == ':' && msg[n + 1] == ' ' ? msg + n + 2 : msg;
}

/* Keys and values of layers that read another layer's. */
static void dead(ash_doctor *d) {
    size_t n = 0;
    const char *first = NULL;
    for (int il = 0; il < d->model->hp.n_layer; il++) {
        const ash_layer *l = &d->model->layers[il];
        for (int r = ASH_W_K; r <= ASH_W_V; r++)
            if (l->kv_layer != il && l->w[r].data) {
                if (!first) first = l->name[r];
                n++;
            }
    }
    if (n) ash_doc_say(d, ASH_DOC_DEAD, first, "%zu matrices of layers that read another layer's keys and values", n);
}

static ash_status load(ash_model **m, const char *path, const void *p, size_t n, ash_error *err) {
    ash_gguf *g;
    if (!p) return ash_model_load(m, path, err);
    ASH_TRY(ash_gguf_open_mem(&g, p, n, err));
    return ash_model_load_gguf(m, g, err);
}

/* Does what the file holds make a model? A file without an embedding and without layers is none on purpose: a vocabulary, an adapter. */
static ash_status bind(ash_doctor *d, const void *p, size_t n, ash_error *err) {
    ash_error e = {0};
    ash_status st = load(&d->model, d->path, p, n, &e);
    if (st == ASH_E_NOMEM) return ash_fail(err, st, "%s", e.msg);
    if (st == ASH_OK) {
        dead(d);
        return ASH_OK;
    }
    bool layers = ash_gguf_find_tensor(d->g, "token_embd.weight") != NULL;
    for (size_t i = 0; !layers && i < ash_gguf_n_tensors(d->g); i++) {
        const char *name = ash_gguf_tensor_at(d->g, i)->name;
        layers = doc_in_layer(ash_gguf_tensor_at(d->g, i)) && !strstr(name, ".lora_");
    }
    const bool foreign = strstr(e.msg, "is not supported (known") != NULL; /* an architecture that the engine does not have */
    ash_doc_say(d, foreign || !layers ? ASH_DOC_ARCH : ASH_DOC_BIND, "", "%s", bare(e.msg, d->path));
    return ASH_OK;
}

/* A header that is whole before data that is not. */
static bool open_cut(ash_doctor *d, uint64_t *lost) { return d->path[0] && ash_gguf_open_cut(&d->own, d->path, lost, NULL) == ASH_OK; }

static ash_status open_file(ash_doctor *d, const void *p, size_t n, ash_error *err) {
    ash_error e = {0};
    uint64_t lost = 0;
    ash_status st = p ? ash_gguf_open_mem(&d->own, p, n, &e) : ash_gguf_open(&d->own, d->path, &e);
    if (st == ASH_OK) {
        d->g = d->own;
        d->whole = ash_gguf_file_bytes(d->g);
        ASH_TRY(ash_doc_parts(d, err));
        return d->part ? ASH_OK : bind(d, p, n, err);
    }
    if (st == ASH_E_IO || st == ASH_E_NOMEM) return err ? *err = e, st : st;
    if (open_cut(d, &lost) && lost) {
        size_t cut = 0;
        const char *first = "";
        d->g = d->own;
        d->whole = ash_gguf_file_bytes(d->g) - lost;
        for (size_t i = 0; i < ash_gguf_n_tensors(d->g); i++) {
            const ash_gguf_tensor *t = ash_gguf_tensor_at(d->g, i);
            if (ash_gguf_data_offset(d->g) + t->offset + t->n_bytes <= d->whole) continue;
            if (!cut++) first = t->name;
        }
        ash_doc_say(d, ASH_DOC_TRUNCATED, first, "%llu bytes are missing at the end; %zu of %zu tensors are cut or gone",
                    (unsigned long long)lost, cut, ash_gguf_n_tensors(d->g));
        return ash_doc_parts(d, err);
    }
    ash_gguf_close(d->own);
    d->own = NULL;
    ash_doc_say(d, ASH_DOC_HEADER, "", "%s", bare(e.msg, d->path));
    return ASH_OK;
}

/* What was needed to judge the file's contents. */
static void forget(ash_doctor *d) {
    for (size_t i = 0; d->stats && i < ash_gguf_n_tensors(d->g); i++) {
        ash_free(d->stats[i].col);
        ash_free(d->stats[i].row);
    }
    ash_free(d->stats);
    ash_gguf_close(d->own);
    d->stats = NULL, d->own = NULL, d->g = NULL;
}

static ash_status examine(ash_doctor *d, const void *p, size_t n, ash_error *err) {
    ASH_TRY(open_file(d, p, n, err));
    if (!d->g) return ASH_OK;
    ASH_TRY(ash_doc_meta(d, err));
    if (!ash_gguf_hollow(d->g)) {
        ASH_TRY(ash_doc_scan(d, err));
        ASH_TRY(ash_doc_weights(d, err));
        if (d->model) ASH_TRY(ash_doc_couple(d, err));
    }
    forget(d); /* the model has a mapping of its own */
    return d->model && !d->o.no_run ? ash_doc_run(d, err) : ASH_OK;
}

static ash_status new (ash_doctor **out, const char *path, const void *p, size_t n, const ash_doctor_opts *o, ash_error *err) {
    *out = NULL;
    ash_doctor *d = ash_calloc(1, sizeof *d);
    if (d) d->f = ash_calloc(DOC_MAX, sizeof *d->f);
    if (!d || !d->f) {
        ash_free(d);
        return ash_fail(err, ASH_E_NOMEM, "out of memory for an examination");
    }
    d->o = *o;
    d->path = path;
    const ash_status st = examine(d, p, n, err);
    forget(d);
    ash_model_free(d->model);
    d->model = NULL, d->path = "";
    if (st == ASH_OK)
        *out = d;
    else
        ash_doctor_free(d);
    return st;
}

ash_status ash_doctor_new(ash_doctor **out, const char *path, const ash_doctor_opts *o, ash_error *err) {
    return new (out, path, NULL, 0, o, err);
}
ash_status ash_doctor_new_mem(ash_doctor **out, const void *p, size_t n, const ash_doctor_opts *o, ash_error *err) {
    return new (out, "", p ? p : "", p ? n : 0, o, err);
}

void ash_doctor_free(ash_doctor *d) {
    if (!d) return;
    ash_free(d->f);
    ash_free(d);
}

size_t ash_doctor_n(const ash_doctor *d) { return d->n; }
const ash_doc_finding *ash_doctor_at(const ash_doctor *d, size_t i) { return i < d->n ? &d->f[i] : NULL; }
bool ash_doctor_ran(const ash_doctor *d) { return d->ran; }
double ash_doctor_nll(const ash_doctor *d) { return d->nll; }

ash_doc_severity ash_doctor_verdict(const ash_doctor *d) {
    ash_doc_severity s = ASH_DOC_INFO;
    for (size_t i = 0; i < d->n; i++) s = ASH_MAX(s, k_checks[d->f[i].check].severity);
    return s;
}
