#include "memory.h"

#include "cpu.h"
#include "kd.h"

enum { PAGE = 4096 };
#define PRESENT 1ull
#define WRITE 2ull
#define LARGE 0x80ull
#define NO_EXECUTE (1ull << 63)
#define FRAME 0x000ffffffffff000ull
#define CR4_LA57 (1ull << 12)

bool kd_translate(uint64_t address, uint64_t *physical, unsigned *permissions)
{
  unsigned levels = kd_read_cr4() & CR4_LA57 ? 5 : 4;
  unsigned unused = 64 - (12 + 9 * levels);
  if ((uint64_t)((int64_t)(address << unused) >> unused) != address) return false;
  uint64_t table = kd_read_cr3() & FRAME;
  bool writable = true, executable = true;
  for (unsigned level = levels; level-- > 0;) {
    unsigned shift = 12 + 9 * level;
    const uint64_t *entry = kd_options->physical(table + 8 * (address >> shift & 511));
    if (entry == NULL || !(*entry & PRESENT)) return false;
    writable = writable && *entry & WRITE;
    executable = executable && !(*entry & NO_EXECUTE);
    table = *entry & FRAME;
    if (level == 0 || (level < 3 && *entry & LARGE)) {
      uint64_t offset = (1ull << shift) - 1;
      *physical = (table & ~offset) | (address & offset);
      *permissions = KD_READABLE | (writable ? KD_WRITABLE : 0) | (executable ? KD_EXECUTABLE : 0);
      return true;
    }
  }
  return false;
}

/* A pointer to an address, and the bytes behind it in its page. */
static uint8_t *reach(enum kd_space space, uint64_t address, size_t *room)
{
  unsigned permissions;
  uint64_t physical = address;
  *room = PAGE - address % PAGE;
  if (space == KD_VIRTUAL && !kd_translate(address, &physical, &permissions)) return NULL;
  return kd_options->physical(physical);
}

size_t kd_read(enum kd_space space, uint64_t address, void *to, size_t length)
{
  size_t done = 0, room;
  while (done < length) {
    const uint8_t *from = reach(space, address + done, &room);
    if (from == NULL) break;
    for (; room > 0 && done < length; room--) ((uint8_t *)to)[done++] = *from++;
  }
  return done;
}

size_t kd_write(enum kd_space space, uint64_t address, const void *from, size_t length)
{
  size_t done = 0, room;
  while (done < length) {
    uint8_t *to = reach(space, address + done, &room);
    if (to == NULL) break;
    for (; room > 0 && done < length; room--) *to++ = ((const uint8_t *)from)[done++];
  }
  return done;
}
