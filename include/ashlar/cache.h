/* ashlar/cache.h - the folder of models that were pulled: find by name, list, remove; and the catalogue of known models.
 * The library is given the folder; which one it is, the program decides. */
#ifndef ASHLAR_CACHE_H
#define ASHLAR_CACHE_H

#include "ashlar/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char name[128]; /* what other commands take */
    char file[160]; /* in the folder */
    uint64_t bytes; /* a folder's is the sum of its files */
    bool folder;
    char source[512], sha256[65], licence[64]; /* "" when not recorded */
} ash_cache_entry;

/* A name is 1 to 120 letters, digits, '.', '_' and '-', and does not begin with '.'. */
ASH_API bool ash_cache_name_ok(const char *name);
/* Path of the model called `name`: a file NAME.gguf or NAME. false: not there. */
ASH_API bool ash_cache_find(const char *dir, const char *name, char *path, size_t size);
/* Sorted by name. A folder that does not exist is an empty one. Free *e with ash_cache_free. */
ASH_API ash_status ash_cache_list(const char *dir, ash_cache_entry **e, size_t *n, ash_error *err);
ASH_API void ash_cache_free(ash_cache_entry *e);
/* Remove a model, its record and what is left of an interrupted pull; *bytes is what that freed. */
ASH_API ash_status ash_cache_remove(const char *dir, const char *name, uint64_t *bytes, ash_error *err);
/* Note where `file` came from, beside it. */
ASH_API ash_status ash_cache_record(const char *dir, const char *file, const char *source, const char *sha256, const char *licence,
                                    ash_error *err);

/* ---- the catalogue: models that were fetched and checked, a JSON file that ships with the program ---- */
enum { ASH_CATALOGUE_PARTS = 16 };
typedef struct {
    const char *name, *about, *licence, *sha256; /* sha256, bytes: of the finished file */
    uint64_t bytes;
    const char *member;                     /* of the archives: a file whose name contains this */
    const char *folder;                     /* "" or: the folder of the one archive that `convert` reads; sha256 is then the archive's */
    const char *parts[ASH_CATALOGUE_PARTS]; /* sources, joined in this order of their members' names */
    const char *part_sha256[ASH_CATALOGUE_PARTS];
    int n_parts;
} ash_catalogue_model;
typedef struct ash_catalogue ash_catalogue;
ASH_API ash_status ash_catalogue_load(ash_catalogue **c, const char *path, ash_error *err);
ASH_API void ash_catalogue_free(ash_catalogue *c);
ASH_API size_t ash_catalogue_count(const ash_catalogue *c);
ASH_API const ash_catalogue_model *ash_catalogue_at(const ash_catalogue *c, size_t i);
ASH_API const ash_catalogue_model *ash_catalogue_find(const ash_catalogue *c, const char *name); /* NULL */

#ifdef __cplusplus
}
#endif
#endif
