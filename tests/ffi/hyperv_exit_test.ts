/**
 * Exits of KVM's own Hyper-V, at the offsets of the kernel's interface, played by a fake kernel.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "../../core/guest_memory.ts";
import type { HypervHandler } from "../../hyperv/defs/kernel_exits.ts";
import { createKvmBackend } from "../../ffi/kvm_backend.ts";
import { KvmUnavailable } from "../../ffi/kvm_file.ts";
import { Cap, Ioctl } from "../../ffi/kvm_layout.ts";
import type { KvmOptions } from "../../ffi/kvm_options.ts";
import { FakeKernel, HYPERV_LEAVES } from "./_fake_kernel.ts";
import { TestHost } from "./_kvm.ts";

/** A handler that is not expected to be called but for `methods`. */
function handler(methods: Partial<HypervHandler>): HypervHandler {
  const unexpected = (): never => {
    throw new Error("not this one");
  };
  return {
    syndbg: unexpected,
    hypercall: unexpected,
    reset: unexpected,
    crash: unexpected,
    ...methods,
  };
}

function start(
  hyperv: NonNullable<KvmOptions["hyperv"]> = {},
): { kernel: FakeKernel; vm: ReturnType<typeof makeVm> } {
  const kernel = new FakeKernel();
  kernel.hyperv = HYPERV_LEAVES.map((leaf) => [...leaf]);
  return { kernel, vm: makeVm(kernel, hyperv) };
}

function makeVm(
  kernel: FakeKernel,
  hyperv: NonNullable<KvmOptions["hyperv"]>,
): ReturnType<ReturnType<typeof createKvmBackend>["createVm"]> {
  return createKvmBackend(kernel, { hyperv })
    .createVm(new GuestMemory(0x1_0000, 0), new TestHost());
}

/** An exit as the kernel writes it. */
function exit(
  kernel: FakeKernel,
  type: number,
  words: Readonly<Record<number, bigint>>,
): () => void {
  return () => {
    kernel.exit(27);
    kernel.view.setUint32(32, type, true);
    for (const [at, value] of Object.entries(words)) {
      kernel.view.setBigUint64(Number(at), value, true);
    }
  };
}

Deno.test("a debug exit gives its registers, and STATUS goes back", () => {
  const seen: unknown[] = [];
  const { kernel, vm } = start();
  vm.hypervHandler = handler({
    syndbg: (...values) => {
      seen.push(values);
      return 0x0005_0004n;
    },
  });
  const vcpu = vm.createVcpu();
  const status: bigint[] = [];
  kernel.entries.push(
    exit(kernel, 3, {
      40: 0x4000_00f1n,
      48: 0xffff_0000_0005_0001n,
      56: 0xdead_dead_dead_deadn,
      64: 0x1000n,
      72: 0xf000_0000_0000_2000n,
      80: 0x3000n,
    }),
    () => {
      status.push(kernel.view.getBigUint64(56, true));
      kernel.exit(5);
    },
  );
  assertEquals(vcpu.run().reason, "hlt");
  assertEquals(seen, [[
    0,
    0x4000_00f1,
    0xffff_0000_0005_0001n,
    0x1000n,
    0xf000_0000_0000_2000n,
    0x3000n,
  ]]);
  assertEquals(status, [0x0005_0004n]);
  vm.close();
  assertEquals(kernel.opened.size, 0);
});

Deno.test("STATUS is written from outside where a signal came before the debug exit", () => {
  for (const interrupted of [true, false]) {
    const { kernel, vm } = start();
    const vcpu = vm.createVcpu();
    vm.hypervHandler = handler({ syndbg: () => 0x0005_0004n });
    const debug = exit(kernel, 3, { 40: 0x4000_00f1n });
    if (interrupted) {
      kernel.entries.push(() => kernel.exit(10));
      assertEquals(vcpu.run().reason, "interrupted");
    }
    // The second follows an exit, which the kernel finishes as it should.
    kernel.entries.push(debug, debug);
    assertEquals(vcpu.run().reason, "hlt");
    const written = kernel.passed.filter(({ request }) =>
      request === Ioctl.SetMsrs
    ).map(({ bytes }) => bytes.toHex());
    assertEquals(
      written,
      interrupted
        ? ["0100000000000000" + "f200004000000000" + "0400050000000000"]
        : [],
    );
    vm.close();
  }
});

Deno.test("with nobody to serve it STATUS is 0, and a call unknown", () => {
  const { kernel, vm } = start();
  const vcpu = vm.createVcpu();
  const results: bigint[] = [];
  kernel.entries.push(
    exit(kernel, 3, { 40: 0x4000_00f1n, 56: 0x77n }),
    () => {
      results.push(kernel.view.getBigUint64(56, true));
      exit(kernel, 2, { 40: 0x69n, 48: 0x77n })();
    },
    () => {
      results.push(kernel.view.getBigUint64(48, true));
      kernel.exit(5);
    },
  );
  assertEquals(vcpu.run().reason, "hlt");
  assertEquals(results, [0n, 2n]);
  vm.close();
});

Deno.test("a hypercall exit gives its parameters, and the result goes back", () => {
  const { kernel, vm } = start();
  const vcpu = vm.createVcpu();
  const seen: unknown[] = [];
  const results: bigint[] = [];
  vm.hypervHandler = handler({
    hypercall: (...values) => {
      seen.push(values);
      return 0x1b_0000_0008n;
    },
  });
  kernel.entries.push(
    exit(kernel, 2, { 40: 0x1_0069n, 48: 0x77n, 56: 0x1000n, 64: 0x2008n }),
    () => {
      results.push(kernel.view.getBigUint64(48, true));
      // The SynIC's exits need nothing from us.
      exit(kernel, 1, {})();
    },
  );
  assertEquals(vcpu.run().reason, "hlt");
  assertEquals(seen, [[0, 0x1_0069n, 0x1000n, 0x2008n]]);
  assertEquals(results, [0x1b_0000_0008n]);
  vm.close();
});

for (const [type, served] of [[2, "reset"], [3, "crash"]] as const) {
  Deno.test(`a system event of type ${type} is the handler's: ${served}`, () => {
    const { kernel, vm } = start();
    const vcpu = vm.createVcpu();
    const seen: unknown[] = [];
    const note = (name: string) => (...values: unknown[]): void => {
      seen.push([name, ...values]);
    };
    vm.hypervHandler = handler({
      reset: note("reset"),
      crash: note("crash"),
    });
    const event = (): void => {
      kernel.exit(24);
      kernel.view.setUint32(32, type, true);
    };
    kernel.entries.push(event, () => kernel.exit(5));
    assertEquals(vcpu.run().reason, "hlt");
    assertEquals(
      seen,
      [type === 2 ? ["reset"] : ["crash", [0n, 0n, 0n, 0n, 0n]]],
    );
    vm.close();
  });
}

Deno.test("OPTIONS is written from the host, and CPUID enforced when asked", () => {
  const { kernel, vm } = start({ enforceCpuid: true });
  assertEquals(vm.createVcpu().setMsr(0x4000_00ff, 4n), true);
  const options = kernel.passed.filter(({ request }) =>
    request === Ioctl.SetMsrs
  ).map(({ bytes }) => bytes.toHex());
  assertEquals(options, [
    "0100000000000000" + "ff00004000000000" + "0400000000000000",
  ]);
  const caps = kernel.passed.filter(({ request }) =>
    request === Ioctl.EnableCap
  ).map(({ bytes }) => {
    const view = new DataView(bytes.buffer);
    return [view.getUint32(0, true), view.getBigUint64(8, true)];
  });
  assertEquals(caps, [
    // Unknown MSRs come to us, none is filtered.
    [Cap.X86UserSpaceMsr, 2n],
    [Cap.EnforcePvFeatureCpuid, 1n],
    [Cap.HypervEnforceCpuid, 1n],
  ]);
  assertEquals(
    kernel.passed.some(({ request }) => request === Ioctl.X86SetMsrFilter),
    false,
  );
  vm.close();
});

Deno.test("leaves offer nothing that the kernel does not have", () => {
  const { kernel, vm } = start();
  const vcpu = vm.createVcpu();
  vcpu.setCpuid([
    { leaf: 1, eax: 1, ebx: 0, ecx: 0x8000_0000, edx: 0 },
    {
      leaf: 0x4000_0000,
      eax: 0x4000_0082,
      ebx: 0x7263_694d,
      ecx: 0x666f_736f,
      edx: 0x7648_2074,
    },
    // AccessDebugMsrs (bit 12) and EDX bit 3 are not the kernel's.
    { leaf: 0x4000_0003, eax: 0x1020, ebx: 0x800, ecx: 9, edx: 0x80a },
    { leaf: 0x4000_0004, eax: 0x24, ebx: 0xffff_ffff, ecx: 0, edx: 0 },
    { leaf: 0x4000_0082, eax: 3, ebx: 0, ecx: 0, edx: 0 },
  ]);
  const { bytes } = kernel.passed.findLast(({ request }) =>
    request === Ioctl.SetCpuid2
  )!;
  const view = new DataView(bytes.buffer);
  const leaves = Array.from({ length: view.getUint32(0, true) }, (_, n) => {
    const word = (at: number): number => view.getUint32(8 + 40 * n + at, true);
    return [word(0), word(12), word(16), word(20), word(24)];
  });
  assertEquals(leaves, [
    [1, 1, 0, 0x8000_0000, 0],
    [0x4000_0000, 0x4000_0082, 0x7263_694d, 0x666f_736f, 0x7648_2074],
    [0x4000_0003, 0x20, 0x800, 0, 0x802],
    [0x4000_0004, 0x24, 0xffff_ffff, 0, 0],
    [0x4000_0082, 2, 0, 0, 0],
  ]);
  vm.close();
});

Deno.test("the mode is what the kernel has, or what was asked for", () => {
  const kernel = new FakeKernel();
  assertEquals(createKvmBackend(kernel).hyperv, "user");
  assertThrows(
    () => createKvmBackend(kernel, { hyperv: { mode: "kernel" } }),
    KvmUnavailable,
    "has no Hyper-V with a synthetic debugger",
  );
  kernel.hyperv = HYPERV_LEAVES.map((leaf) => [...leaf]);
  const backend = createKvmBackend(kernel);
  assertEquals([backend.hyperv, backend.hypercallCode], ["kernel", undefined]);
  const forced = createKvmBackend(kernel, { hyperv: { mode: "user" } });
  assertEquals(forced.hyperv, "user");
  assertEquals(forced.hypercallCode?.toHex(), "e7e4c3");
  kernel.missing.add(Cap.HypervEnforceCpuid);
  assertThrows(
    () => createKvmBackend(kernel, { hyperv: { enforceCpuid: true } }),
    KvmUnavailable,
    "cannot enforce",
  );
  // A Hyper-V of before the synthetic debugger.
  kernel.hyperv.pop();
  assertEquals(createKvmBackend(kernel).hyperv, "user");
  assertEquals(kernel.opened.size, 0);
});
