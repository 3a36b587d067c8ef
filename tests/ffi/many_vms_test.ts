import { assertEquals } from "@std/assert";
import { GuestMemory } from "../../core/guest_memory.ts";
import { createKvmBackend } from "../../ffi/kvm_backend.ts";
import { Ioctl } from "../../ffi/kvm_layout.ts";
import { libc } from "../../ffi/libc_unsafe.ts";
import type { SystemCalls } from "../../ffi/system_calls.ts";
import { held } from "./_held.ts";
import { kvmTest, RAM, TestHost } from "./_kvm.ts";

kvmTest("a thousand VMs in a row leave nothing behind", {}, () => {
  // The kernel sleeps some 10 ms when it takes an MSR filter, which holds nothing.
  const real = libc();
  const system: SystemCalls = {
    ...real,
    ioctlBytes: (fd, request, bytes) =>
      request === Ioctl.X86SetMsrFilter
        ? 0
        : real.ioctlBytes(fd, request, bytes),
  };
  const backend = createKvmBackend(system);
  const memory = new GuestMemory(RAM, 0);
  const host = new TestHost();
  const before = held();
  for (let n = 0; n < 1000; n++) {
    const vm = backend.createVm(memory, host);
    vm.createVcpu();
    vm.close();
    if (n === 0) assertEquals(held(), before);
  }
  assertEquals(held(), before);
});
