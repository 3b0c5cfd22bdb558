/* example.h - the one thing the examples share: a call that must succeed, or main ends with its sentence. */
#ifndef ASH_EXAMPLE_H
#define ASH_EXAMPLE_H

#include "ashlar/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ash_error err;

#define OK(call)                                                     \
    do {                                                             \
        if ((call) != ASH_OK) {                                      \
            fprintf(stderr, "%s\n", err.msg);                        \
            exit(1);                                                 \
        }                                                            \
    } while (0)
#define ARGS(n, usage)                                               \
    do {                                                             \
        if (argc < (n) + 1) {                                        \
            fprintf(stderr, "usage: %s %s\n", argv[0], usage);       \
            exit(2);                                                 \
        }                                                            \
    } while (0)

#endif
