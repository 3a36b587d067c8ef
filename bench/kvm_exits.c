// What an exit of KVM costs in C: the yardstick of kvm_bench.ts, with the same guest.
// Usage: kvm_exits port|msr COUNT; prints nanoseconds for all of them.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define MEMORY 0x70000
#define CODE 0x7c00
#define MSR 0x400000f1

static void die(const char *what) {
  perror(what);
  exit(1);
}

static long call(int fd, unsigned long request, void *argument) {
  long result = ioctl(fd, request, argument);
  if (result < 0) die("ioctl");
  return result;
}

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int msr = strcmp(argv[1], "msr") == 0;
  long count = atol(argv[2]);
  int kvm = open("/dev/kvm", O_RDWR);
  if (kvm < 0) die("/dev/kvm");
  int vm = call(kvm, KVM_CREATE_VM, 0);
  uint8_t *memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  struct kvm_userspace_memory_region region = {
      .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
  call(vm, KVM_SET_USER_MEMORY_REGION, &region);
  struct kvm_enable_cap cap = {
      .cap = KVM_CAP_X86_USER_SPACE_MSR,
      .args = {KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER}};
  call(vm, KVM_ENABLE_CAP, &cap);
  uint8_t denied[64] = {0};
  struct kvm_msr_filter filter = {
      .ranges = {{.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                  .nmsrs = 512,
                  .base = 0x40000000,
                  .bitmap = denied}}};
  call(vm, KVM_X86_SET_MSR_FILTER, &filter);
  int vcpu = call(vm, KVM_CREATE_VCPU, 0);
  struct kvm_run *run = mmap(0, call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
                             PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) die("mmap");
  // out 0x40, al or wrmsr; jmp back to it
  const uint8_t port_code[] = {0xe6, 0x40, 0xeb, 0xfc};
  const uint8_t msr_code[] = {0x0f, 0x30, 0xeb, 0xfc};
  memcpy(memory + CODE, msr ? msr_code : port_code, 4);
  struct kvm_sregs sregs;
  call(vcpu, KVM_GET_SREGS, &sregs);
  sregs.cs.selector = 0;
  sregs.cs.base = 0;
  call(vcpu, KVM_SET_SREGS, &sregs);
  struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rcx = MSR};
  call(vcpu, KVM_SET_REGS, &regs);

  volatile uint64_t sum = 0;
  double start = 0;
  // The first tenth warms up.
  for (long n = -count / 10; n < count; n++) {
    if (n == 0) start = nanoseconds();
    call(vcpu, KVM_RUN, 0);
    if (run->exit_reason == KVM_EXIT_IO) {
      sum += *((uint8_t *)run + run->io.data_offset);
    } else if (run->exit_reason == KVM_EXIT_X86_WRMSR) {
      sum += run->msr.data;
      run->msr.error = 0;
    } else {
      fprintf(stderr, "exit reason %u\n", run->exit_reason);
      return 1;
    }
  }
  printf("%.0f\n", nanoseconds() - start);
  return 0;
}
