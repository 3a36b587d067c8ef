#include "kd.h"
#include "memory.h"

#define INT3 0xcc

/* WinDbg restores handles 1 to 32 when it attaches. */
enum { SLOTS = 32 };

static struct {
  bool used;
  uint8_t original;
  uint64_t address;
} slots[SLOTS];

uint32_t kd_breakpoint_set(uint64_t address)
{
  uint32_t free = SLOTS;
  for (uint32_t n = SLOTS; n-- > 0;) {
    if (!slots[n].used) free = n;
    else if (slots[n].address == address) return n + 1;
  }
  uint8_t original, breakpoint = INT3;
  if (free == SLOTS || kd_read(KD_VIRTUAL, address, &original, 1) == 0 ||
      kd_write(KD_VIRTUAL, address, &breakpoint, 1) == 0) {
    return 0;
  }
  slots[free].used = true;
  slots[free].original = original;
  slots[free].address = address;
  return free + 1;
}

bool kd_breakpoint_restore(uint32_t handle)
{
  if (handle < 1 || handle > SLOTS || !slots[handle - 1].used) return false;
  slots[handle - 1].used = false;
  return kd_write(KD_VIRTUAL, slots[handle - 1].address, &slots[handle - 1].original, 1) == 1;
}

bool kd_breakpoint_remove(uint64_t address)
{
  for (uint32_t n = 0; n < SLOTS; n++) {
    if (slots[n].used && slots[n].address == address) return kd_breakpoint_restore(n + 1);
  }
  return false;
}

void kd_breakpoint_mask(uint64_t address, uint8_t *bytes, size_t length)
{
  for (uint32_t n = 0; n < SLOTS; n++) {
    if (slots[n].used && slots[n].address - address < length) {
      bytes[slots[n].address - address] = slots[n].original;
    }
  }
}
