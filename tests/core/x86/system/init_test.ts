import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "../../../../core/guest_memory.ts";
import type { VmHost } from "../../../../core/backend.ts";
import { enter } from "../../../../core/loaders/entry_state.ts";
import { interpreter } from "../../../../core/x86/backend.ts";
import { Machine } from "./_machine.ts";

Deno.test("INIT puts a vCPU into real mode and keeps MSRs, time and the cache bits of CR0", () => {
  let time = 0;
  const { memory, vcpu } = new Machine(() => time);
  enter(memory, vcpu, 0x8000, "long", { rax: 1n, rdx: 2n });
  vcpu.setMsr(0xc000_0082, 0xffff_8000_1234_5678n);
  vcpu.setMsr(0x277, 0x0606_0606_0606_0606n);
  vcpu.setMsr(0x10, 1_000_000n);
  vcpu.setSystemRegisters({
    cr0: 0xc000_0011n,
    cr2: 5n,
    cr8: 7n,
    apicBase: 0xfee0_0d00n,
  });
  time = 500;
  vcpu.init();
  const { rax, rdx, rip, rflags } = vcpu.getRegisters();
  const { cs, ds, cr0, cr2, cr3, cr4, cr8, efer, apicBase, idt } = vcpu
    .getSystemRegisters();
  assertEquals([rax, rdx > 0n, rip, rflags], [0n, true, 0xfff0n, 2n]);
  assertEquals([cs.selector, cs.base, cs.limit], [
    0xf000,
    0xffff_0000n,
    0xffff,
  ]);
  assertEquals([ds.selector, ds.base, ds.limit], [0, 0n, 0xffff]);
  assertEquals(
    [cr0, cr2, cr3, cr4, cr8, efer],
    [0x4000_0010n, 0n, 0n, 0n, 0n, 0n],
  );
  assertEquals([apicBase, idt.limit], [0xfee0_0d00n, 0xffff]);
  assertEquals(vcpu.getMsr(0xc000_0082), 0xffff_8000_1234_5678n);
  assertEquals(vcpu.getMsr(0x277), 0x0606_0606_0606_0606n);
  assertEquals(vcpu.getMsr(0x10), 1_000_500n);
});

Deno.test("INIT wakes a halted vCPU and drops what waited, a startup IPI says where it goes on", () => {
  const { memory, vcpu } = new Machine();
  memory.write(0x8000, new Uint8Array([0xf4]));
  enter(memory, vcpu, 0x8000, "real");
  assertEquals(vcpu.run().reason, "hlt");
  vcpu.injectNmi();
  vcpu.setInterruptRequest(true);
  vcpu.init();
  // mov ax, cs; mov ds, ax; mov [0], ax; hlt
  memory.write(
    0x1_2000,
    new Uint8Array([0x8c, 0xc8, 0x8e, 0xd8, 0xa3, 0x00, 0x01, 0xf4]),
  );
  vcpu.startup(0x12);
  assertEquals(vcpu.run().reason, "hlt");
  assertEquals(memory.view.getUint16(0x1_2100, true), 0x1200);
  assertEquals(vcpu.getRegisters().rip, 8n);
});

Deno.test("MOV to CR8 is told to the host, and the host can set CR8", () => {
  const told: number[][] = [];
  const memory = new GuestMemory(0x20_0000);
  const host: Partial<VmHost> = {
    setTaskPriority: (...args) => void told.push(args),
  };
  const vm = interpreter().createVm(memory, host as VmHost);
  const vcpu = vm.createVcpu();
  // mov eax, 9; mov cr8, rax; hlt; mov rax, cr8; hlt
  const code = [0xb8, 9, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0xf4];
  memory.write(0x8000, new Uint8Array(code));
  enter(memory, vcpu, 0x8000, "long");
  vcpu.run();
  assertEquals(told, [[0, 9]]);
  vcpu.setTaskPriority(3);
  assertEquals(vcpu.getSystemRegisters().cr8, 3n);
  assertEquals(told.length, 1);
});

Deno.test("a vCPU that is not active takes signals, and only they are allowed while another runs", () => {
  const memory = new GuestMemory(0x20_0000);
  const errors: string[] = [];
  let tsc = 0n;
  const host: Partial<VmHost> = {
    writePort: () => {
      second.setInterruptRequest(true);
      second.setInterruptRequest(false);
      second.injectNmi();
      second.kick();
      second.flushTlb();
      second.setCpuid([]);
      tsc = second.getMsr(0x10)!;
      try {
        second.getRegisters();
      } catch (error) {
        errors.push((error as Error).message);
      }
    },
  };
  const vm = interpreter(() => 1000).createVm(memory, host as VmHost);
  const first = vm.createVcpu();
  const second = vm.createVcpu();
  // out 0x80, al; hlt
  memory.write(0x8000, new Uint8Array([0xe6, 0x80, 0xf4]));
  // The handler of NMI.
  memory.write(0x9000, new Uint8Array([0xf4]));
  memory.writeU32(8, 0x9000);
  memory.write(0xa000, new Uint8Array([0xeb, 0xfe]));
  enter(memory, second, 0xa000, "real");
  second.setMsr(0x10, 5000n);
  enter(memory, first, 0x8000, "real", { rax: 0x55n });
  assertEquals(first.run().reason, "hlt");
  assertEquals(first.getRegisters().rax, 0x55n);
  assertEquals(errors, ["Cannot use vCPU 1: vCPU 0 is running"]);
  assertEquals(tsc, 5000n);
  assertEquals(second.run().reason, "interrupted");
  assertEquals(second.run().reason, "hlt");
  assertEquals(second.getRegisters().rip, 0x9001n);
});

Deno.test("a vCPU refuses a state whose leaves are none, and mends words that no guest could make", () => {
  const { vcpu } = new Machine();
  const state = vcpu.save();
  assertThrows(
    () =>
      vcpu.restore({ ...state, data: { ...state.data, cpuid: [{ leaf: 1 }] } }),
    TypeError,
    "Cannot restore vCPU",
  );
  const bytes = new Uint8Array(state.data["state"] as Uint8Array).fill(0xff);
  vcpu.restore({ ...state, data: { ...state.data, state: bytes } });
  assertEquals(vcpu.getSystemRegisters().cr8, 15n);
  vcpu.reset();
});

Deno.test("flushTlb has a vCPU look at its page tables again", () => {
  const memory = new GuestMemory(0x20_0000);
  const host: Partial<VmHost> = {
    writePort: () => {
      // The page at 4 MiB is now the one at 0.
      memory.writeU64(0x6_2000 + 16, 0x83n);
      vcpu.flushTlb();
    },
  };
  const vcpu = interpreter().createVm(memory, host as VmHost).createVcpu();
  // mov esi, 0x400000; mov al, [rsi + 0x9000]; out 0x80, al; mov al, [rsi + 0x9000]; hlt
  const read = [0x8a, 0x86, 0x00, 0x90, 0, 0];
  memory.write(
    0x8000,
    new Uint8Array([0xbe, 0, 0, 0x40, 0, ...read, 0xe6, 0x80, ...read, 0xf4]),
  );
  memory.write(0x9000, new Uint8Array([1]));
  memory.write(0x10_9000, new Uint8Array([2]));
  enter(memory, vcpu, 0x8000, "long");
  memory.writeU64(0x6_2000 + 16, 0xa003n);
  memory.writeU64(0xa000 + 9 * 8, 0x10_9003n);
  assertEquals(vcpu.run().reason, "hlt");
  assertEquals(vcpu.getRegisters().rax & 0xffn, 1n);
});
