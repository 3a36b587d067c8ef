/*
 * A kernel debugging stub for x86-64 kernels: KDNET over Hyper-V's synthetic debugger. README.md
 * says how to link it.
 *
 * It serves one processor. Everything here is to be called at CPL 0; kd_poll and kd_trap with
 * interrupts off.
 */
#ifndef KDSTUB_H
#define KDSTUB_H

#include <stdbool.h>
#include <stdint.h>

/* What an interrupt handler's prologue saves, in the order in which it pushes it, rax first. */
struct kd_registers {
  uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
  uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
  /* The vector, and the CPU's error code or 0. */
  uint64_t vector, error;
  uint64_t rip, cs, rflags, rsp, ss;
};

struct kd_options {
  /* Four numbers of base 36 with dots between, as bcdedit's "key". */
  const char *key;
  /*
   * Where the kernel reaches a byte of physical memory, and what is behind it up to the end of its
   * page; NULL where there is none. It may be a window that moves with each call.
   */
  void *(*physical)(uint64_t address);
  /*
   * A page, executable for the kernel, on which the hypervisor may put its call sequence. NULL:
   * VMCALL or VMMCALL, by the CPU's vendor, as Windows' transport does.
   */
  void *hypercall_page;
  /* UDP port of the debugger, and IPv4 addresses with the first number highest; 0: 50000, none. */
  uint16_t port;
  uint32_t host_ip;
  /* In hypercall mode 0 asks DHCP. */
  uint32_t target_ip;
  /* The kernel's own image, for the debugger's list of modules. */
  const char *image;
  uint64_t base;
  uint32_t size;
  /* What GetVersion reports: a build number, and addresses of Windows' lists or 0. */
  uint16_t build;
  uint64_t module_list;
  uint64_t debugger_data;
  /* The thread that runs, as a debugger is to name it. May be NULL. */
  uint64_t (*thread)(void);
  /* Restarts the machine. */
  void (*reboot)(void);
  /* What the debugger's .crash asks for; it does not return. */
  void (*crash)(uint32_t code);
};

enum kd_result {
  KD_OK,
  /* The key is not of the form above. */
  KD_BAD_KEY,
  /* There is no Hyper-V, or it has no synthetic debugger or no reference counter. */
  KD_NO_DEVICE,
  /* The device is there and does not answer as it should. */
  KD_FAILED,
};

/* The options are kept: they must stay where they are. Nothing waits for a debugger. */
enum kd_result kd_init(const struct kd_options *options);

/* To be called often, best by the timer's handler: finds a debugger, lets it break in. */
void kd_poll(struct kd_registers *registers);

/*
 * To be called first by the handler of every exception. True: it is dealt with, and the handler
 * returns to `registers`. False: it is the kernel's.
 */
bool kd_trap(struct kd_registers *registers);

/* Shows text to the debugger; without one it is lost. */
void kd_print(const char *text);

/* Whether a debugger has answered and has not gone silent. */
bool kd_connected(void);

#endif
