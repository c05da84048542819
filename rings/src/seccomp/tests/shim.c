// The two sides of a kernel test: a launcher that loads filters and starts a program, and a program that makes calls.
//
//   shim confine FILTERS FD COOKIE PROGRAM ARG0 ARG...   as the real launch: the last steps are the filters and one exec
//   shim call NUMBER,A,B,C,D,E,F...                      makes each call, prints its errno (0 = it worked)
//   shim int80                                           getpid by the 32-bit entry; prints whether it came back
//
// An argument of a call is a number, `p` for the address of a zeroed page, or `/...` for the address of that text.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what) {
    fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
    exit(125);
}

static int confine(char **argv) {
    FILE *filters = fopen(argv[0], "r");
    int fd = atoi(argv[1]);
    unsigned long long cookie = strtoull(argv[2], NULL, 0);
    if (!filters) fail("filters");
    int program = open(argv[3], O_PATH | O_CLOEXEC);
    if (program < 0) fail(argv[3]);
    if (dup3(program, fd, O_CLOEXEC) < 0) fail("dup3");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no_new_privs");
    unsigned count;
    static struct sock_filter code[16][4096];
    static struct sock_fprog programs[16];
    int loaded = 0;
    for (; loaded < 16 && fread(&count, sizeof count, 1, filters) == 1; loaded++) {
        if (count > 4096 || fread(code[loaded], sizeof code[0][0], count, filters) != count) fail("short filters");
        programs[loaded] = (struct sock_fprog){.len = count, .filter = code[loaded]};
    }
    fclose(filters);
    if (!loaded) fail("no filters");
    for (int i = 0; i < loaded; i++)
        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &programs[i])) fail("seccomp");
    syscall(SYS_execveat, fd, "", argv + 4, environ, AT_EMPTY_PATH, cookie);
    fail("execveat");
    return 125;
}

static int call(char **argv) {
    static char page[4096];
    for (; *argv; argv++) {
        long values[7] = {0};
        char *rest = *argv, *text;
        for (int i = 0; i < 7 && (text = strsep(&rest, ",")); i++)
            values[i] = *text == 'p' ? (long)page : *text == '/' ? (long)text : (long)strtoull(text, NULL, 0);
        errno = 0;
        long result = syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
        printf("%d\n", result == -1 ? errno : 0);
    }
    return 0;
}

static int int80(void) {
#ifdef __x86_64__
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    puts(result == getpid() ? "came back" : "refused");
#else
    puts("refused");
#endif
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 6 && !strcmp(argv[1], "confine")) return confine(argv + 2);
    if (argc > 2 && !strcmp(argv[1], "call")) return call(argv + 2);
    if (argc > 1 && !strcmp(argv[1], "int80")) return int80();
    return 2;
}
