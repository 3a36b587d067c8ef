import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { GuestMemory } from "../../core/guest_memory.ts";
import { createKvmBackend } from "../../ffi/kvm_backend.ts";
import { KvmUnavailable } from "../../ffi/kvm_file.ts";
import { Cap } from "../../ffi/kvm_layout.ts";
import { runProgram } from "../_remote.ts";
import { FakeKernel } from "./_fake_kernel.ts";
import { kvmTest, TestHost } from "./_kvm.ts";

const CASES: readonly [string, (kernel: FakeKernel) => void, string][] = [
  [
    "no device",
    (kernel) => kernel.openErrno = 2,
    "there is no /dev/kvm: turn virtualization on",
  ],
  [
    "a device of no driver",
    (kernel) => kernel.openErrno = 6,
    "load kvm_amd or kvm_intel",
  ],
  [
    "a forbidden device",
    (kernel) => kernel.openErrno = 13,
    "no permission for /dev/kvm: join the group",
  ],
  [
    "a busy device",
    (kernel) => kernel.openErrno = 16,
    "/dev/kvm cannot be opened: EBUSY",
  ],
  [
    "another interface",
    (kernel) => kernel.version = 11,
    "version 11 of its interface, not 12",
  ],
  [
    "an old kernel",
    (kernel) => kernel.missing.add(Cap.X86UserSpaceMsr),
    "lacks X86UserSpaceMsr: Linux 5.10 or later is needed",
  ],
];

for (const [name, spoil, text] of CASES) {
  Deno.test(`${name} is told in one line`, () => {
    const kernel = new FakeKernel();
    spoil(kernel);
    const error = assertThrows(() => createKvmBackend(kernel), KvmUnavailable);
    assertStringIncludes(error.message, text);
    assertEquals(error.message.includes("\n"), false);
    assertEquals(kernel.opened.size, 0);
  });
}

Deno.test("a host that is told of no exit sees a failing KVM_RUN", () => {
  const kernel = new FakeKernel();
  const vm = createKvmBackend(kernel).createVm(
    new GuestMemory(0x1_0000, 0),
    new TestHost(),
  );
  const vcpu = vm.createVcpu();
  for (
    const [reason, word, text] of [
      [9, 0x8000_0021, "cannot enter the guest: hardware reason 0x80000021"],
      [17, 1, "an instruction that it cannot emulate"],
      [17, 3, "suberror 3"],
      [99, 0, "KVM exit 99 is not known"],
    ] as const
  ) {
    kernel.entries.push(() => {
      kernel.exit(reason);
      kernel.view.setUint32(32, word, true);
    });
    const exit = vcpu.run();
    if (exit.reason !== "internal-error") throw new Error(exit.reason);
    assertStringIncludes(exit.message, text);
  }
  vm.close();
});

const PROBE = `import { openKvm, probeKvm } from "${new URL(
  "../../ffi/kvm_backend_unsafe.ts",
  import.meta.url,
)}";
const { available, reason } = probeKvm();
console.log(available, reason);
try {
  console.log(openKvm().name);
} catch (error) {
  console.log(error.name, error.message);
}
`;

Deno.test("without permission KVM names the flag, and nothing prompts", async () => {
  if (Deno.build.os !== "linux") return;
  const { stdout, stderr, code } = await runProgram(PROBE, ["--no-check"]);
  assertEquals(code, 0, stderr);
  const text =
    "permission is missing: run deno with --allow-ffi=/lib/x86_64-linux-gnu/libc.so.6";
  assertEquals(stdout, `false ${text}\nLibcUnavailable ${text}\n`);
});

Deno.test("a C library that is none is told in one line", async () => {
  const { stdout } = await runProgram(
    PROBE.replaceAll("Kvm()", 'Kvm({ libc: "/dev/null" })'),
    ["--no-check", "--allow-ffi"],
  );
  assertStringIncludes(
    stdout,
    "LibcUnavailable the C library cannot be loaded from /dev/null",
  );
});

kvmTest("the permission for the C library's path is enough", {}, async () => {
  const libc = "/lib/x86_64-linux-gnu/libc.so.6";
  const { stdout, stderr } = await runProgram(PROBE, [
    "--no-check",
    `--allow-ffi=${libc}`,
  ]);
  assertStringIncludes(stdout, "true ", stderr);
  assertStringIncludes(stdout, "\nkvm\n");
});
