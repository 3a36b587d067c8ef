/**
 * What a VM holds goes back when it is closed, and when a step of setting it up fails.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "../../core/guest_memory.ts";
import { enter } from "../../core/loaders/entry_state.ts";
import { createKvmBackend } from "../../ffi/kvm_backend.ts";
import { Ioctl } from "../../ffi/kvm_layout.ts";
import { libc } from "../../ffi/libc_unsafe.ts";
import type { RunThread, SystemCalls } from "../../ffi/system_calls.ts";
import { held } from "./_held.ts";
import { CODE, Guest, HLT, kvmTest, MODES, RAM, TestHost } from "./_kvm.ts";

/** The system, with the call number `failing` made to fail; the count of all calls is kept. */
class FailingSystem implements SystemCalls {
  calls = 0;
  failing = -1;
  failed = "";
  readonly #system = libc();

  #fails(what: string): boolean {
    if (this.calls++ !== this.failing) return false;
    this.failed = what;
    return true;
  }
  open(path: string): number {
    return this.#fails("open") ? -1 : this.#system.open(path);
  }
  close(fd: number): void {
    this.#system.close(fd);
  }
  ioctl(fd: number, request: number, argument: number): number {
    // Asking what there is may be answered with no; a failing one is an answer.
    if (
      request === Ioctl.CheckExtension || request === Ioctl.GetTscKhz ||
      request === Ioctl.Run
    ) return this.#system.ioctl(fd, request, argument);
    return this.#fails(request.toString(16))
      ? -1
      : this.#system.ioctl(fd, request, argument);
  }
  ioctlBytes(
    fd: number,
    request: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): number {
    // Reading and writing MSRs, some of which the kernel always refuses, goes on after a refusal.
    if (request === Ioctl.GetMsrs || request === Ioctl.SetMsrs) {
      return this.#system.ioctlBytes(fd, request, bytes);
    }
    return this.#fails(request.toString(16))
      ? -1
      : this.#system.ioctlBytes(fd, request, bytes);
  }
  createRunThread(): RunThread {
    return this.#system.createRunThread();
  }
  errno(): number {
    return this.failed === "" ? this.#system.errno() : 12;
  }
  address(bytes: Uint8Array<ArrayBuffer>): bigint {
    return this.#system.address(bytes);
  }
  mapOver(pages: Uint8Array<ArrayBuffer>, fd: number): boolean {
    return !this.#fails("mmap") && this.#system.mapOver(pages, fd);
  }
  unmap(pages: Uint8Array<ArrayBuffer>): void {
    this.#system.unmap(pages);
  }
  createTimer(): number {
    return this.#fails("timer_create") ? -1 : this.#system.createTimer();
  }
  setTimer(id: number, milliseconds: number): void {
    this.#system.setTimer(id, milliseconds);
  }
  deleteTimer(id: number): void {
    this.#system.deleteTimer(id);
  }
}

for (const mode of MODES) {
  kvmTest("each step of setting up is made to fail in turn", { mode }, () => {
    const system = new FailingSystem();
    const memory = new GuestMemory(RAM, 0);
    memory.write(CODE, new Uint8Array([HLT]));
    const setUp = (): void => {
      system.calls = 0;
      system.failed = "";
      const options = { hyperv: { mode } };
      const backend = createKvmBackend(system, options);
      const vm = backend.createVm(memory, new TestHost());
      try {
        const vcpu = vm.createVcpu();
        vcpu.setCpuid(backend.supportedCpuid());
        enter(memory, vcpu, CODE, "real");
        assertEquals(vcpu.run(1000).reason, "hlt");
        // Changed leaves make another one.
        vcpu.setCpuid([]);
        vcpu.reset();
      } finally {
        vm.close();
      }
    };
    const before = held();
    let step = 0;
    for (;; step++) {
      system.failing = step;
      try {
        setUp();
        break;
      } catch (error) {
        if (system.failed === "") throw error;
        assertEquals(held(), before, `after a failing ${system.failed}`);
      }
    }
    assertEquals(step, system.calls);
    assertEquals(held(), before);
  });
}

kvmTest("a closed VM runs no more, and closes again", {}, () => {
  const guest = new Guest();
  guest.enter("real", HLT);
  guest.vm.close();
  guest.vm.close();
  assertEquals(guest.run(), "the VM is closed");
  guest.vcpu.kick();
  assertThrows(
    () => guest.vcpu.getRegisters(),
    Error,
    "Cannot read registers: KVM_GET_REGS: the VM is closed",
  );
  assertThrows(() => guest.vm.createVcpu(), Error, "the VM is closed");
});

kvmTest("a host that closes the VM in an exit ends the run", {}, () => {
  const guest = new Guest();
  guest.host.port = () => guest.vm.close();
  guest.enter("real", 0xe6, 0x40, HLT);
  assertEquals(guest.run(), "the VM is closed");
});
