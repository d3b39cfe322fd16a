// floor: the least that labelling a tree can take, as far as we know. It has no care for mounts, hard links, races, counts or errors, and
// is not for use: "make bench" compares with it.
//
//	floor [-t THREADS] [-a] [-x] LABEL TREE
//
// -a reads each label and writes only what differs; -x removes the labels instead. It prints the number of entries and of failures.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char attribute[] = "security.selinux";
static const char *label;
static size_t label_size;
static bool compare, removing;
static atomic_long entries, failures;

// A directory, open, with the number of those that still need its handle.
struct directory {
	int fd;
	atomic_int users;
};

// What waits: a directory to open below another.
struct job {
	struct job *next;
	struct directory *above;
	char name[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct job *jobs;
static long unfinished;

static void leave(struct directory *d) {
	if (atomic_fetch_sub(&d->users, 1) == 1) {
		close(d->fd);
		free(d);
	}
}

static void one(const char *name) {
	if (removing) {
		if (lremovexattr(name, attribute) != 0 && errno != ENODATA)
			failures++;
		return;
	}
	if (compare) {
		char now[512];
		ssize_t n = lgetxattr(name, attribute, now, sizeof now);
		if (n == (ssize_t)label_size && memcmp(now, label, n) == 0)
			return;
	}
	if (lsetxattr(name, attribute, label, label_size, 0) != 0)
		failures++;
}

struct entry { // getdents64(2)
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

static void run(struct job *j) {
	static __thread char buffer[128 << 10] __attribute__((aligned(8)));
	int fd = openat(j->above ? j->above->fd : AT_FDCWD, j->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
	if (j->above)
		leave(j->above);
	if (fd < 0 || fchdir(fd) != 0) {
		failures++;
		return;
	}
	struct directory *d = malloc(sizeof *d);
	d->fd = fd;
	d->users = 1;
	long n, seen = 0;
	while ((n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
		struct job *found = NULL, *last = NULL;
		long count = 0;
		for (long at = 0; at < n;) {
			struct entry *e = (void *)(buffer + at);
			at += e->length;
			if (e->name[0] == '.' && (e->name[1] == 0 || (e->name[1] == '.' && e->name[2] == 0)))
				continue;
			seen++;
			if (e->type == DT_DIR) {
				size_t size = strlen(e->name) + 1;
				struct job *k = malloc(sizeof *k + size);
				memcpy(k->name, e->name, size);
				k->above = d;
				k->next = found;
				if (found == NULL)
					last = k;
				found = k;
				count++;
			}
		}
		if (found) {
			atomic_fetch_add(&d->users, count);
			pthread_mutex_lock(&lock);
			last->next = jobs;
			jobs = found;
			unfinished += count;
			pthread_cond_broadcast(&more);
			pthread_mutex_unlock(&lock);
		}
		for (long at = 0; at < n;) {
			struct entry *e = (void *)(buffer + at);
			at += e->length;
			if (e->name[0] == '.' && (e->name[1] == 0 || (e->name[1] == '.' && e->name[2] == 0)))
				continue;
			one(e->name);
		}
	}
	entries += seen;
	leave(d);
}

static void *work(void *unused) {
	(void)unused;
	unshare(CLONE_FS); // a current directory of its own
	pthread_mutex_lock(&lock);
	while (unfinished > 0) {
		struct job *j = jobs;
		if (j == NULL) {
			pthread_cond_wait(&more, &lock);
			continue;
		}
		jobs = j->next;
		pthread_mutex_unlock(&lock);
		run(j);
		free(j);
		pthread_mutex_lock(&lock);
		if (--unfinished == 0)
			pthread_cond_broadcast(&more);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

int main(int argc, char **argv) {
	int threads = 1, option;
	while ((option = getopt(argc, argv, "t:ax")) != -1) {
		switch (option) {
		case 't': threads = atoi(optarg); break;
		case 'a': compare = true; break;
		case 'x': removing = true; break;
		default: return 2;
		}
	}
	if (argc - optind != 2 || threads < 1 || threads > 256)
		return 2;
	label = argv[optind];
	label_size = strlen(label) + 1;
	const char *root = argv[optind + 1];
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	jobs = calloc(1, sizeof *jobs + strlen(root) + 1);
	strcpy(jobs->name, root);
	unfinished = 1;
	pthread_t thread[256];
	for (int i = 0; i < threads; i++)
		pthread_create(&thread[i], NULL, work, NULL);
	for (int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	if (failures == 0)
		one(root);
	printf("%ld %ld\n", entries + 1, failures);
	return failures != 0;
}
