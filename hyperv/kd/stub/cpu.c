#include "cpu.h"

#include "kdstub.h"

/* Where a fault of the access that is being tried goes on, or 0. */
static uint64_t resume;

/*
 * Tries an instruction: `ok` stays false if it faults, for then the next one is not reached. The
 * label is in the same statement, so that nothing can come between.
 */
#define TRY(instruction, outputs, inputs)        \
  bool ok = false;                               \
  uint64_t label;                                \
  __asm__ volatile("leaq 1f(%%rip), %[label]\n\t" \
                   "movq %[label], %[resume]\n\t" \
                   instruction "\n\t"            \
                   "movb $1, %[ok]\n"            \
                   "1:\tmovq $0, %[resume]"      \
                   : [ok] "+q"(ok), [label] "=&r"(label), [resume] "+m"(resume) outputs \
                   : inputs                      \
                   : "memory")

#define COMMA ,

bool kd_read_msr(uint32_t msr, uint64_t *value)
{
  uint32_t low = 0, high = 0;
  TRY("rdmsr", COMMA "+a"(low) COMMA "+d"(high), "c"(msr));
  *value = (uint64_t)high << 32 | low;
  return ok;
}

bool kd_write_msr(uint32_t msr, uint64_t value)
{
  TRY("wrmsr", , "a"((uint32_t)value) COMMA "d"((uint32_t)(value >> 32)) COMMA "c"(msr));
  return ok;
}

bool kd_try_write_cr0(uint64_t value)
{
  TRY("movq %[value], %%cr0", , [value] "r"(value));
  return ok;
}

bool kd_try_write_cr3(uint64_t value)
{
  TRY("movq %[value], %%cr3", , [value] "r"(value));
  return ok;
}

bool kd_try_write_cr4(uint64_t value)
{
  TRY("movq %[value], %%cr4", , [value] "r"(value));
  return ok;
}

bool kd_resume(struct kd_registers *registers)
{
  if (resume == 0) return false;
  registers->rip = resume;
  return true;
}

uint32_t kd_in(uint16_t port, uint32_t size)
{
  uint32_t value = 0;
  if (size == 1) __asm__ volatile("inb %%dx, %%al" : "+a"(value) : "d"(port));
  else if (size == 2) __asm__ volatile("inw %%dx, %%ax" : "+a"(value) : "d"(port));
  else __asm__ volatile("inl %%dx, %%eax" : "+a"(value) : "d"(port));
  return value;
}

void kd_out(uint16_t port, uint32_t size, uint32_t value)
{
  if (size == 1) __asm__ volatile("outb %%al, %%dx" ::"a"(value), "d"(port));
  else if (size == 2) __asm__ volatile("outw %%ax, %%dx" ::"a"(value), "d"(port));
  else __asm__ volatile("outl %%eax, %%dx" ::"a"(value), "d"(port));
}
