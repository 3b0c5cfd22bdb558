/* line.c - see line.h. */
#include "line.h"

#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_LIBEDIT
#include <histedit.h>
#include <wchar.h>

static EditLine *g_el;
static History *g_hist;
static const char *g_prompt;

static char *show_prompt(EditLine *e) {
    (void)e;
    return (char *)(uintptr_t)g_prompt;
}

/* libedit's own reader retries once after a signal; this one gives up, so that Ctrl-C is seen at once. */
static int read_char(EditLine *e, wchar_t *out) {
    (void)e;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        char c;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n <= 0) return n == 0 ? 0 : -1;
        size_t r = mbrtowc(out, &c, 1, &state);
        if (r == (size_t)-2) continue;
        if (r == (size_t)-1) *out = L'?';
        return 1;
    }
}

static bool start_editor(void) {
    if (g_el) return true;
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    g_el = el_init("ashlar", stdin, stdout, stderr);
    if (!g_el) return false;
    el_set(g_el, EL_PROMPT, show_prompt);
    el_set(g_el, EL_EDITOR, "emacs");
    el_set(g_el, EL_SIGNAL, 0);
    el_set(g_el, EL_GETCFN, read_char);
    HistEvent ev;
    if ((g_hist = history_init())) {
        history(g_hist, &ev, H_SETSIZE, 500);
        el_set(g_el, EL_HIST, history, g_hist);
    }
    return true;
}

static line_result edited(const char *prompt, char **out) {
    static char *copy;
    int n = 0;
    g_prompt = prompt;
    errno = 0;
    const char *s = el_gets(g_el, &n);
    if (!s || n <= 0) {
        if (errno == EINTR) {
            el_reset(g_el);
            putchar('\n');
            return LINE_INTERRUPTED;
        }
        return LINE_END;
    }
    free(copy);
    copy = strdup(s);
    if (!copy) return LINE_END;
    copy[strcspn(copy, "\r\n")] = 0;
    HistEvent ev;
    if (*copy && g_hist) history(g_hist, &ev, H_ENTER, copy);
    *out = copy;
    return LINE_OK;
}
#endif

line_result line_read(const char *prompt, char **out) {
#ifdef HAVE_LIBEDIT
    if (cli_is_tty(stdin) && cli_is_tty(stdout) && start_editor()) return edited(prompt, out);
#endif
    static char *line;
    static size_t cap;
    if (cli_is_tty(stdin)) fputs(prompt, stdout), fflush(stdout);
    errno = 0;
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) {
        if (errno == EINTR) {
            clearerr(stdin);
            putchar('\n');
            return LINE_INTERRUPTED;
        }
        return LINE_END;
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    *out = line;
    return LINE_OK;
}

void line_done(void) {
#ifdef HAVE_LIBEDIT
    if (g_el) el_end(g_el);
    if (g_hist) history_end(g_hist);
    g_el = NULL;
    g_hist = NULL;
#endif
}
