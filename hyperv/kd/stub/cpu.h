/* Instructions that C has no words for. */
#ifndef KD_CPU_H
#define KD_CPU_H

#include <stdbool.h>
#include <stdint.h>

struct kd_cpuid {
  uint32_t eax, ebx, ecx, edx;
};

static inline struct kd_cpuid kd_cpuid(uint32_t leaf)
{
  struct kd_cpuid r;
  __asm__ volatile("cpuid"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(0));
  return r;
}

static inline uint64_t kd_tsc(void)
{
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}

static inline void kd_pause(void)
{
  __asm__ volatile("pause" ::: "memory");
}

/* Turns interrupts off; returns the flags as they were. */
static inline uint64_t kd_interrupts_off(void)
{
  uint64_t flags;
  __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags)::"memory");
  return flags;
}

static inline void kd_interrupts_restore(uint64_t flags)
{
  if (flags & 0x200) __asm__ volatile("sti" ::: "memory");
}

#define KD_REGISTER(name)                                  \
  static inline uint64_t kd_read_##name(void)              \
  {                                                        \
    uint64_t value;                                        \
    __asm__ volatile("movq %%" #name ", %0" : "=r"(value)); \
    return value;                                          \
  }                                                        \
  static inline void kd_write_##name(uint64_t value)       \
  {                                                        \
    __asm__ volatile("movq %0, %%" #name ::"r"(value) : "memory"); \
  }

KD_REGISTER(cr0)
KD_REGISTER(cr2)
KD_REGISTER(cr3)
KD_REGISTER(cr4)
KD_REGISTER(cr8)
KD_REGISTER(dr0)
KD_REGISTER(dr1)
KD_REGISTER(dr2)
KD_REGISTER(dr3)
KD_REGISTER(dr6)
KD_REGISTER(dr7)

/* What SGDT and SIDT store. */
struct kd_table {
  uint16_t limit;
  uint64_t base;
} __attribute__((packed));

/*
 * Accesses that may fault, where the kernel's handler calls kd_trap: false if they did.
 */
bool kd_read_msr(uint32_t msr, uint64_t *value);
bool kd_write_msr(uint32_t msr, uint64_t value);
bool kd_try_write_cr0(uint64_t value);
bool kd_try_write_cr3(uint64_t value);
bool kd_try_write_cr4(uint64_t value);

struct kd_registers;
/* Whether a fault came from one of those accesses; then `registers` go on behind it. */
bool kd_resume(struct kd_registers *registers);

uint32_t kd_in(uint16_t port, uint32_t size);
void kd_out(uint16_t port, uint32_t size, uint32_t value);

#endif
