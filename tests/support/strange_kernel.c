/* Runs a command on a kernel that answers strangely: real system calls, really refused or really lied to, by seccomp.
 *
 *   strange_kernel no-landlock CMD...             Landlock's calls answer ENOSYS
 *   strange_kernel no-landlock-no-mounts CMD...   and those that make mounts answer EPERM
 *   strange_kernel lying-limit CMD...             every file called pids.max takes any value and reads back as `max`
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LANDLOCK_CREATE = 444, LANDLOCK_ADD = 445, LANDLOCK_RESTRICT = 446 };
static const int landlock[] = {LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT};
static const int mounts[] = {SYS_mount, SYS_pivot_root, 428 /* open_tree */, 429 /* move_mount */, 442 /* mount_setattr */};

static void die(const char *what) {
    perror(what);
    exit(99);
}

static struct sock_filter code[64];
static unsigned short length;

static void emit(struct sock_filter instruction) { code[length++] = instruction; }

static void begin(void) {
    emit((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
}

static void answer(const int *numbers, size_t count, unsigned action) {
    for (size_t i = 0; i < count; i++) {
        emit((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], 0, 1));
        emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
    }
}

static int load(unsigned flags) {
    emit((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = {length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (fd < 0) die("seccomp");
    return fd;
}

/* Whether the call opens a file called pids.max. */
static int is_limit(const struct seccomp_notif *call) {
    char path[4096] = {0};
    struct iovec here = {path, sizeof path - 1}, there = {(void *)call->data.args[1], sizeof path - 1};
    /* A short read is fine: the page ends where the text does. */
    if (process_vm_readv(call->pid, &here, 1, &there, 1, 0) <= 0) {
        size_t rest = 4096 - (call->data.args[1] & 4095);
        there.iov_len = rest;
        if (process_vm_readv(call->pid, &here, 1, &there, 1, 0) <= 0) return 0;
    }
    const char *name = strrchr(path, '/');
    return strcmp(name ? name + 1 : path, "pids.max") == 0;
}

static void lie(int listener, const struct seccomp_notif *call) {
    int fd;
    if (call->data.args[2] & (O_WRONLY | O_RDWR)) {
        fd = open("/dev/null", O_RDWR);
    } else {
        int ends[2];
        if (pipe(ends) || write(ends[1], "max\n", 4) != 4) die("pipe");
        close(ends[1]);
        fd = ends[0];
    }
    struct seccomp_notif_addfd add = {.id = call->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = fd, .newfd_flags = O_CLOEXEC};
    /* The caller may be dead by now. */
    ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
    close(fd);
}

static void serve(int listener) {
    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        if (poll(&wait, 1, -1) < 0 && errno == EINTR) continue;
        if (wait.revents & POLLHUP) return;
        struct seccomp_notif call = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) continue;
        if (is_limit(&call)) {
            lie(listener, &call);
            continue;
        }
        struct seccomp_notif_resp go_on = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &go_on);
    }
}

static int lying_limit(char **command) {
    int told[2];
    if (pipe2(told, O_CLOEXEC)) die("pipe");
    /* One table of descriptors until the exec: the listener made by the child is ours too. */
    pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child < 0) die("clone");
    if (child == 0) {
        int opens[] = {SYS_openat};
        begin();
        answer(opens, 1, SECCOMP_RET_USER_NOTIF);
        int listener = load(SECCOMP_FILTER_FLAG_NEW_LISTENER);
        if (write(told[1], &listener, sizeof listener) != sizeof listener) die("write");
        execvp(command[0], command);
        die(command[0]);
    }
    int listener, status;
    if (read(told[0], &listener, sizeof listener) != sizeof listener) die("read");
    serve(listener);
    if (waitpid(child, &status, 0) < 0) die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
    if (argc < 3) return 64;
    if (strcmp(argv[1], "lying-limit") == 0) return lying_limit(argv + 2);
    begin();
    answer(landlock, 3, SECCOMP_RET_ERRNO | ENOSYS);
    if (strcmp(argv[1], "no-landlock-no-mounts") == 0) answer(mounts, sizeof mounts / sizeof *mounts, SECCOMP_RET_ERRNO | EPERM);
    load(0);
    execvp(argv[2], argv + 2);
    die(argv[2]);
}
