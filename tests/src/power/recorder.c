/* Records what a process does to the files below one folder, in the order in which it happens, and lets calls fail.
 *
 * Preloaded into a process that writes (see power.rs); everything it says goes into a trace (see power/trace.rs). A
 * write and its record are one step under a lock, so the order of the trace is the order of the writes, over all
 * threads. A sync runs beside other calls, as it does without us: its beginning and its end are recorded, and covers
 * what was written before it began. All calls are made without the C library, so nothing here calls itself.
 *
 *   SLUICE_POWER_ROOT    the folder, an absolute path without a slash at its end
 *   SLUICE_POWER_TRACE   where the trace goes
 *   SLUICE_POWER_FAIL    which call fails: kinds (1 writes, 2 syncs, 4 names; added), which one of them from 1 on, the
 *                        error's number, and how (0 this once, 1 from here on, 2 after half of a write, from here on)
 *   SLUICE_POWER_RANDOM  a number that all randomness of the system follows from
 *
 * MDBX trusts pages that were not synced if the machine was not started since, and syncs less on a file system in
 * memory. So the machine's boot is a new one for every process, and memory looks like a disk. Its lock file, mapped
 * for writing and worthless after a start, is left out; any other file that is mapped for writing is told of. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, SIZE, FLUSH, SYNC_BEGIN, SYNC_END, SYNC_FAILED, RENAME, UNLINK, MAKE_DIR, MARK, FAULT, BLIND };
enum { WRITES = 1, SYNCS = 2, NAMES = 4 };
enum { PLAIN = 1, DURABLE = 2, MARKS = 4 };

struct record {
    uint32_t kind, length; /* bytes behind it */
    uint64_t file, offset, count;
};

#define FILES 65536
#define TMPFS 0x01021994
#define EXT4 0xEF53
static const char boot[] = "/proc/sys/kernel/random/boot_id";
static const char other_boot[] = "/proc/sys/kernel/random/uuid";
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static unsigned char files[FILES];
static const char *root;
static size_t root_length;
static int trace = -1;
static uint64_t position, random_state;
static int fail_kinds, fail_nth, fail_errno, fail_how, calls;

static void die(const char *why) {
    syscall(SYS_write, 2, why, strlen(why));
    abort();
}

/* Writes a record; under the lock. */
static uint64_t put(enum kind kind, uint64_t file, uint64_t offset, uint64_t count, const struct iovec *data, int parts) {
    struct record record = {kind, 0, file, offset, count};
    struct iovec all[1026] = {{&record, sizeof record}};
    size_t sum = sizeof record;
    if (parts > 1024) die("too many parts in one write\n");
    for (int i = 0; i < parts; i++) {
        all[i + 1] = data[i];
        sum += data[i].iov_len;
    }
    if (sum - sizeof record > UINT32_MAX) die("too much in one write\n");
    record.length = (uint32_t)(sum - sizeof record);
    if (syscall(SYS_writev, trace, all, parts + 1) != (ssize_t)sum) die("the trace takes no more\n");
    return position++;
}

static uint64_t put_text(enum kind kind, uint64_t file, const char *one, const char *two) {
    struct iovec texts[2] = {{(void *)one, strlen(one) + 1}, {(void *)two, two ? strlen(two) + 1 : 0}};
    return put(kind, file, 0, 0, texts, two ? 2 : 1);
}

__attribute__((constructor)) static void start(void) {
    const char *to = getenv("SLUICE_POWER_TRACE"), *fail = getenv("SLUICE_POWER_FAIL"), *seed = getenv("SLUICE_POWER_RANDOM");
    root = getenv("SLUICE_POWER_ROOT");
    if (!root || !to) return;
    root_length = strlen(root);
    trace = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (trace < 0) die("the recorder has no trace\n");
    if (fail && sscanf(fail, "%d,%d,%d,%d", &fail_kinds, &fail_nth, &fail_errno, &fail_how) != 4) die("which call fails?\n");
    random_state = seed ? strtoull(seed, 0, 10) | 1 : 0;
    struct stat status;
    if (stat(root, &status)) die("the folder is not there\n");
    put_text(MAKE_DIR, status.st_ino, root, 0);
}

/* Whether this call fails; sets the error. */
static int fails(int kind) {
    if (!(fail_kinds & kind) || (++calls < fail_nth) || (fail_how == 0 && calls > fail_nth)) return 0;
    put(FAULT, 0, 0, (uint64_t)fail_errno, 0, 0);
    errno = fail_errno;
    return 1;
}

/* Whether half of this write is done before the next one fails. */
static int is_torn(void) { return fail_how == 2 && (fail_kinds & WRITES) && calls + 1 == fail_nth; }

static int ends(const char *path, const char *with) {
    size_t all = strlen(path), tail = strlen(with);
    return all >= tail && !strcmp(path + all - tail, with);
}

static int inside(const char *path) {
    return trace >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]) && !ends(path, ".lck");
}

static unsigned char known(int fd) { return fd >= 0 && fd < FILES ? files[fd] : 0; }

static uint64_t inode(int fd) {
    struct stat status;
    if (fstat(fd, &status)) die("a file without a number\n");
    return status.st_ino;
}

static int opened(int dir, const char *path, int flags, mode_t mode) {
    if (trace >= 0 && !strcmp(path, boot)) path = other_boot;
    if (!inside(path)) return syscall(SYS_openat, dir, path, flags, mode);
    if (ends(path, "/mark")) {
        int mark = syscall(SYS_openat, dir, "/dev/null", O_WRONLY | O_CLOEXEC, 0);
        if (mark >= 0 && mark < FILES) files[mark] = MARKS;
        return mark;
    }
    pthread_mutex_lock(&order);
    struct stat before;
    int is_new = (flags & O_CREAT) && stat(path, &before) != 0;
    int fd = (is_new && fails(NAMES)) ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
    int error = errno;
    if (fd >= FILES) die("too many files\n");
    if (fd >= 0) {
        if (is_new) put_text(CREATE, inode(fd), path, 0);
        else if (flags & O_TRUNC) put(SIZE, inode(fd), 0, 0, 0, 0);
        files[fd] = PLAIN | (flags & (O_DSYNC | O_SYNC) ? DURABLE : 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return opened(dir, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }

int close(int fd) {
    if (known(fd)) files[fd] = 0;
    return syscall(SYS_close, fd);
}

/* Writes parts at an offset, or behind the last write if it is negative. */
static ssize_t written(int fd, const struct iovec *parts, int count, off_t at) {
    if (!(known(fd) & (PLAIN | MARKS))) {
        if (at < 0) return syscall(SYS_writev, fd, parts, count);
        return syscall(SYS_pwritev, fd, parts, count, at, 0);
    }
    ssize_t done;
    size_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    pthread_mutex_lock(&order);
    if (known(fd) & MARKS) {
        put(MARK, 0, 0, 0, parts, count);
        done = (ssize_t)sum;
    } else {
        struct iovec half = {count > 0 ? parts[0].iov_base : 0, count > 0 ? parts[0].iov_len / 2 : 0};
        int failed = 0;
        if (is_torn() && half.iov_len) {
            put(FAULT, 0, 0, 0, 0, 0);
            parts = &half, count = 1, sum = half.iov_len, calls++;
        } else {
            failed = fails(WRITES);
        }
        off_t offset = at < 0 ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : at;
        done = failed ? -1 : syscall(SYS_pwritev, fd, parts, count, offset, 0);
        if (done >= 0) {
            if ((size_t)done != sum) die("a write was cut\n");
            uint64_t file = inode(fd);
            uint64_t at_write = put(WRITE, file, (uint64_t)offset, 0, parts, count);
            if (at < 0) syscall(SYS_lseek, fd, offset + done, SEEK_SET);
            if (!(known(fd) & DURABLE)) {
            } else if (!fails(SYNCS)) {
                put(FLUSH, file, (uint64_t)offset, sum, 0, 0);
            } else {
                put(SYNC_FAILED, file, at_write, 0, 0, 0);
                errno = fail_errno;
                done = -1;
            }
        }
    }
    int error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

static ssize_t written_one(int fd, const void *data, size_t length, off_t at) {
    struct iovec part = {(void *)data, length};
    return written(fd, &part, 1, at);
}

ssize_t write(int fd, const void *data, size_t length) { return written_one(fd, data, length, -1); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return written_one(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return written_one(fd, data, length, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return written(fd, parts, count, at); }

static int resized(int fd, off_t size) {
    if (!known(fd)) return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&order);
    int done = fails(WRITES) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    int error = errno;
    if (!done) put(SIZE, inode(fd), (uint64_t)size, 0, 0, 0);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size) { return resized(fd, size); }
int ftruncate64(int fd, off_t size) { return resized(fd, size); }

static int allocated(int fd, int mode, off_t at, off_t length) {
    if (known(fd)) die("room is taken in advance, which no trace tells of\n");
    return syscall(SYS_fallocate, fd, mode, at, length);
}

int fallocate(int fd, int mode, off_t at, off_t length) { return allocated(fd, mode, at, length); }
int fallocate64(int fd, int mode, off_t at, off_t length) { return allocated(fd, mode, at, length); }

static int synced(int fd, long call) {
    if (!known(fd)) return syscall(call, fd);
    pthread_mutex_lock(&order);
    uint64_t file = inode(fd), begin = put(SYNC_BEGIN, file, 0, 0, 0, 0);
    int failed = fails(SYNCS);
    if (failed) put(SYNC_FAILED, file, begin, 0, 0, 0);
    int error = errno;
    pthread_mutex_unlock(&order);
    errno = error;
    if (failed) return -1;
    if (syscall(call, fd)) die("a sync failed that nobody asked to fail\n");
    pthread_mutex_lock(&order);
    put(SYNC_END, file, begin, 0, 0, 0);
    pthread_mutex_unlock(&order);
    return 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* A change of names: the call, what is recorded of it, and the paths. */
static int named(long call, enum kind kind, const char *one, const char *two, long mode) {
    if (!inside(one)) return syscall(call, AT_FDCWD, one, two ? AT_FDCWD : mode, two, 0);
    pthread_mutex_lock(&order);
    struct stat status = {0};
    int done = fails(NAMES) ? -1 : (int)syscall(call, AT_FDCWD, one, two ? AT_FDCWD : mode, two, 0);
    int error = errno;
    if (!done) put_text(kind, kind == MAKE_DIR && !stat(one, &status) ? status.st_ino : 0, one, two);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int rename(const char *from, const char *to) { return named(SYS_renameat2, RENAME, from, to, 0); }
int unlink(const char *path) { return named(SYS_unlinkat, UNLINK, path, 0, 0); }
int rmdir(const char *path) { return named(SYS_unlinkat, UNLINK, path, 0, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) { return named(SYS_mkdirat, MAKE_DIR, path, 0, mode); }

static void *mapped(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    if ((known(fd) & PLAIN) && (protection & PROT_WRITE) && (flags & MAP_SHARED)) {
        pthread_mutex_lock(&order);
        put(BLIND, inode(fd), 0, 0, 0, 0);
        pthread_mutex_unlock(&order);
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) { return mapped(at, length, protection, flags, fd, offset); }
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off_t offset) { return mapped(at, length, protection, flags, fd, offset); }

int fstatfs(int fd, struct statfs *status) {
    int done = syscall(SYS_fstatfs, fd, status);
    if (!done && known(fd) && status->f_type == TMPFS) status->f_type = EXT4;
    return done;
}

int fstatfs64(int fd, struct statfs64 *status) { return fstatfs(fd, (struct statfs *)status); }

ssize_t getrandom(void *to, size_t length, unsigned flags) {
    if (!random_state) return syscall(SYS_getrandom, to, length, flags);
    pthread_mutex_lock(&order);
    for (size_t i = 0; i < length; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        ((unsigned char *)to)[i] = (unsigned char)(random_state >> 56);
    }
    pthread_mutex_unlock(&order);
    return (ssize_t)length;
}
