/* Registers in the layouts of Windows: CONTEXT and KSPECIAL_REGISTERS of amd64. */
#include "cpu.h"
#include "kd.h"

/* Offsets in CONTEXT. */
enum {
  CONTEXT_FLAGS = 0x30,
  MXCSR = 0x34,
  SEGMENTS = 0x38,
  EFLAGS = 0x44,
  DR0 = 0x48,
  DR6 = 0x68,
  DR7 = 0x70,
  RAX = 0x78,
  RIP = 0xf8,
  AMD64 = 0x100000,
  CONTROL = 1,
  INTEGER = 2,
  SEGMENT = 4,
  DEBUG = 0x10,
  MXCSR_DEFAULT = 0x1f80,
};

/* The general registers of kd_stopped in the order of CONTEXT. */
static uint64_t *general(unsigned n)
{
  struct kd_registers *r = kd_stopped;
  uint64_t *const order[16] = {
    &r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
    &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15,
  };
  return order[n];
}

#define SELECTOR(name)                                           \
  static uint16_t name(void)                                     \
  {                                                              \
    uint16_t selector;                                           \
    __asm__ volatile("movw %%" #name ", %0" : "=r"(selector));   \
    return selector;                                             \
  }

SELECTOR(ds)
SELECTOR(es)
SELECTOR(fs)
SELECTOR(gs)

void kd_get_context(uint8_t context[KD_CONTEXT_BYTES])
{
  const struct kd_registers *r = kd_stopped;
  const uint16_t segments[6] = {
    (uint16_t)r->cs, ds(), es(), fs(), gs(), (uint16_t)r->ss,
  };
  kd_zero(context, KD_CONTEXT_BYTES);
  kd_put32(context + CONTEXT_FLAGS, AMD64 | CONTROL | INTEGER | SEGMENT | DEBUG);
  kd_put32(context + MXCSR, MXCSR_DEFAULT);
  kd_copy(context + SEGMENTS, segments, sizeof segments);
  kd_put32(context + EFLAGS, (uint32_t)r->rflags);
  for (unsigned n = 0; n < 4; n++) kd_put64(context + DR0 + 8 * n, kd_debug.dr[n]);
  kd_put64(context + DR6, kd_debug.dr6);
  kd_put64(context + DR7, kd_debug.dr7);
  for (unsigned n = 0; n < 16; n++) kd_put64(context + RAX + 8 * n, *general(n));
  kd_put64(context + RIP, r->rip);
}

/* Segments stay: the code that goes on needs them as they are. */
void kd_set_context(const uint8_t *context)
{
  enum { RSP = 4 };
  struct kd_registers *r = kd_stopped;
  uint32_t flags = kd_get32(context + CONTEXT_FLAGS);
  for (unsigned n = 0; n < 16; n++) {
    if (flags & (n == RSP ? CONTROL : INTEGER)) *general(n) = kd_get64(context + RAX + 8 * n);
  }
  if (flags & CONTROL) {
    r->rip = kd_get64(context + RIP);
    r->rflags = kd_get32(context + EFLAGS) | 2;
  }
  if (flags & DEBUG) {
    for (unsigned n = 0; n < 4; n++) kd_debug.dr[n] = kd_get64(context + DR0 + 8 * n);
    kd_debug.dr6 = kd_get64(context + DR6);
    kd_debug.dr7 = kd_get64(context + DR7);
  }
}

/* MSRs in KSPECIAL_REGISTERS. */
static const struct {
  uint8_t offset;
  uint32_t msr;
} special_msrs[] = {
  { 0x78, 0x1d9 },      { 0xa8, 0xc0000101 }, { 0xb0, 0xc0000102 }, { 0xb8, 0xc0000081 },
  { 0xc0, 0xc0000082 }, { 0xc8, 0xc0000083 }, { 0xd0, 0xc0000084 },
};
enum { SPECIAL_MSRS = sizeof special_msrs / sizeof special_msrs[0] };

void kd_get_special(uint8_t special[KD_SPECIAL_BYTES])
{
  struct kd_table gdt, idt;
  uint16_t tr, ldt;
  __asm__ volatile("sgdt %0" : "=m"(gdt));
  __asm__ volatile("sidt %0" : "=m"(idt));
  __asm__ volatile("str %0" : "=r"(tr));
  __asm__ volatile("sldt %0" : "=r"(ldt));
  kd_zero(special, KD_SPECIAL_BYTES);
  kd_put64(special, kd_read_cr0());
  kd_put64(special + 8, kd_read_cr2());
  kd_put64(special + 0x10, kd_read_cr3());
  kd_put64(special + 0x18, kd_read_cr4());
  for (unsigned n = 0; n < 4; n++) kd_put64(special + 0x20 + 8 * n, kd_debug.dr[n]);
  kd_put64(special + 0x40, kd_debug.dr6);
  kd_put64(special + 0x48, kd_debug.dr7);
  kd_copy(special + 0x56, &gdt, sizeof gdt);
  kd_copy(special + 0x66, &idt, sizeof idt);
  kd_put16(special + 0x70, tr);
  kd_put16(special + 0x72, ldt);
  kd_put32(special + 0x74, MXCSR_DEFAULT);
  kd_put64(special + 0xa0, kd_read_cr8());
  for (unsigned n = 0; n < SPECIAL_MSRS; n++) {
    uint64_t value;
    kd_read_msr(special_msrs[n].msr, &value);
    kd_put64(special + special_msrs[n].offset, value);
  }
}

/* Only what differs is written: a debugger sends all back for the sake of one. Tables stay. */
bool kd_set_special(const uint8_t special[KD_SPECIAL_BYTES])
{
  bool done = true;
  uint8_t now[KD_SPECIAL_BYTES];
  kd_get_special(now);
  uint64_t cr0 = kd_get64(special), cr3 = kd_get64(special + 0x10), cr4 = kd_get64(special + 0x18);
  if (cr0 != kd_get64(now)) done = kd_try_write_cr0(cr0);
  if (cr3 != kd_get64(now + 0x10)) done = kd_try_write_cr3(cr3) && done;
  if (cr4 != kd_get64(now + 0x18)) done = kd_try_write_cr4(cr4) && done;
  kd_write_cr2(kd_get64(special + 8));
  kd_write_cr8(kd_get64(special + 0xa0) & 15);
  for (unsigned n = 0; n < 4; n++) kd_debug.dr[n] = kd_get64(special + 0x20 + 8 * n);
  kd_debug.dr6 = kd_get64(special + 0x40);
  kd_debug.dr7 = kd_get64(special + 0x48);
  for (unsigned n = 0; n < SPECIAL_MSRS; n++) {
    uint64_t value = kd_get64(special + special_msrs[n].offset);
    if (value != kd_get64(now + special_msrs[n].offset)) {
      done = kd_write_msr(special_msrs[n].msr, value) && done;
    }
  }
  return done;
}
