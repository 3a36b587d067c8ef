/* The kernel's memory by its page tables and the physical window: no access can fault. */
#ifndef KD_MEMORY_H
#define KD_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Permissions, as QueryMemory reports them. */
enum { KD_READABLE = 1, KD_WRITABLE = 2, KD_EXECUTABLE = 4 };

/* Where a virtual address lies in physical memory; false: it is not mapped. */
bool kd_translate(uint64_t address, uint64_t *physical, unsigned *permissions);

enum kd_space { KD_VIRTUAL, KD_PHYSICAL };

/*
 * Copy to and from memory whatever its protection, up to what is not there: the bytes copied.
 */
size_t kd_read(enum kd_space space, uint64_t address, void *to, size_t length);
size_t kd_write(enum kd_space space, uint64_t address, const void *from, size_t length);

#endif
