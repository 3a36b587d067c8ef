import { assertEquals } from "@std/assert";
import * as layout from "../../ffi/kvm_layout.ts";

/** Header name of a constant: `GET_SREGS` of `GetSregs`, `X86_USER_SPACE_MSR` of `X86UserSpaceMsr`. */
function upper(name: string): string {
  return name.replace(/(?!^)[A-Z]/g, (c) => `_${c}`).toUpperCase();
}

/** Field name: `exit_reason` of `exitReason`. */
function lower(name: string): string {
  return name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}

type Numbers = Readonly<Record<string, number>>;

const CONSTANTS: readonly [prefix: string, Numbers][] = [
  ["KVM_", layout.Ioctl],
  ["KVM_CAP_", layout.Cap],
  ["KVM_EXIT_", layout.Exit],
  ["KVM_EXIT_IO_", layout.IoDirection],
  ["KVM_EXIT_HYPERV_", layout.HypervExit],
  ["KVM_MSR_EXIT_REASON_", layout.MsrExitReason],
  ["KVM_SYSTEM_EVENT_", layout.SystemEvent],
  ["KVM_MSR_FILTER_", layout.MsrFilterFlag],
  ["KVM_CPUID_FLAG_", { SignifcantIndex: layout.CpuidFlag.SignifcantIndex }],
  ["KVM_GUESTDBG_", layout.GuestDebugBit],
];

const STRUCTS: readonly [struct: string, path: string, Numbers][] = [
  ["kvm_run", "", layout.Run],
  ["kvm_run", "io.", layout.RunIo],
  ["kvm_run", "mmio.", layout.RunMmio],
  ["kvm_run", "msr.", layout.RunMsr],
  ["kvm_run", "debug.arch.", layout.RunDebug],
  ["kvm_run", "internal.", layout.RunInternal],
  ["kvm_run", "fail_entry.", layout.RunFailEntry],
  ["kvm_run", "system_event.", layout.RunSystemEvent],
  ["kvm_run", "hyperv.", layout.RunHyperv],
  ["kvm_run", "hyperv.u.hcall.", layout.RunHcall],
  ["kvm_run", "hyperv.u.syndbg.", layout.RunSyndbg],
  ["kvm_regs", "", layout.Regs],
  ["kvm_sregs", "", layout.Sregs],
  ["kvm_segment", "", layout.SegmentField],
  ["kvm_dtable", "", layout.DtableField],
  ["kvm_translation", "", layout.Translation],
  ["kvm_userspace_memory_region", "", layout.MemoryRegion],
  ["kvm_enable_cap", "", layout.EnableCap],
  ["kvm_msrs", "", layout.Msrs],
  ["kvm_msr_entry", "", layout.MsrEntry],
  ["kvm_msr_list", "", layout.MsrList],
  ["kvm_msr_filter", "", layout.MsrFilter],
  ["kvm_msr_filter_range", "", layout.MsrFilterRange],
  ["kvm_cpuid2", "", layout.Cpuid2],
  ["kvm_cpuid_entry2", "", layout.CpuidEntry2],
  ["kvm_vcpu_events", "", layout.VcpuEvents],
  ["kvm_guest_debug", "", layout.GuestDebugField],
];

/** Every expression of the header, with our number. */
function expectations(): Map<string, number> {
  const all = new Map<string, number>();
  for (const [prefix, numbers] of CONSTANTS) {
    for (const [name, value] of Object.entries(numbers)) {
      all.set(prefix + upper(name), value);
    }
  }
  for (const [struct, path, fields] of STRUCTS) {
    for (const [name, value] of Object.entries(fields)) {
      all.set(`offsetof(struct ${struct}, ${path}${lower(name)})`, value);
    }
  }
  for (const [name, value] of Object.entries(layout.Size)) {
    all.set(`sizeof(struct kvm_${lower(name)})`, value);
  }
  all.set("KVM_API_VERSION", layout.API_VERSION);
  return all;
}

/** Runs a program that prints the expressions, or says why it cannot be had. */
function ask(expressions: readonly string[]): string | bigint[] {
  const folder = Deno.makeTempDirSync();
  try {
    const lines = expressions.map((expression) =>
      `printf("%llu\\n", (unsigned long long)(${expression}));`
    );
    Deno.writeTextFileSync(
      `${folder}/layout.c`,
      `#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n` +
        `int main(void) {\n${lines.join("\n")}\nreturn 0;\n}\n`,
    );
    const made = new Deno.Command("gcc", {
      args: ["-o", `${folder}/layout`, `${folder}/layout.c`],
    }).outputSync();
    if (!made.success) return new TextDecoder().decode(made.stderr);
    const { stdout } = new Deno.Command(`${folder}/layout`).outputSync();
    return new TextDecoder().decode(stdout).trim().split("\n").map(BigInt);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "gcc is missing";
    throw error;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Why the comparison cannot be made here. */
function missing(): string | undefined {
  if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return undefined;
  const probe = ask(["1"]);
  if (typeof probe !== "string") return undefined;
  console.log(
    `Skipped: comparing the layout with <linux/kvm.h>: ${probe.split("\n")[0]}`,
  );
  return probe;
}

Deno.test({
  name: "kvm_layout.ts is what a C compiler makes of <linux/kvm.h>",
  ignore: missing() !== undefined,
  fn() {
    const expected = expectations();
    const answer = ask([...expected.keys()]);
    if (typeof answer === "string") throw new Error(answer);
    const found = new Map([...expected.keys()].map((key, n) => [
      key,
      Number(answer[n]),
    ]));
    assertEquals(found, expected);
  },
});
