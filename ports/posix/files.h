/* Files for port.c and files.c. */
#ifndef ACORN_POSIX_FILES_H_
#define ACORN_POSIX_FILES_H_

#include <stddef.h>
#include <stdint.h>

/* Opens a regular file to read. Returns 0, or an errno value with nothing to close. */
int acorn_open_file(int *fd, uint64_t *bytes, const char *path);

/* Reads all of `bytes` bytes from `offset` on. Returns 0, or an errno value; EIO where the file ends before. */
int acorn_read_at(int fd, void *to, uint64_t offset, size_t bytes);

#endif /* ACORN_POSIX_FILES_H_ */
