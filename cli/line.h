/* line.h - one line of input from a person (libedit with history and editing) or from a pipe. */
#ifndef ASH_CLI_LINE_H
#define ASH_CLI_LINE_H

typedef enum { LINE_OK, LINE_END, LINE_INTERRUPTED } line_result;

/* Ctrl-C while waiting gives LINE_INTERRUPTED when a handler without SA_RESTART is installed. *out lives until the next
 * call and has no newline. */
line_result line_read(const char *prompt, char **out);
void line_done(void);

#endif
