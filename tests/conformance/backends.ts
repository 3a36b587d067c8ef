import type { Backend } from "../../core/backend.ts";
import { interpreter } from "../../core/x86/backend.ts";
import {
  type HypervMode,
  openKvm,
  probeKvm,
} from "../../ffi/kvm_backend_unsafe.ts";
import { cpuid, type Mode, MODES, ProbeGuest } from "./_probe.ts";

/**
 * How a guest calls the hypervisor: an instruction, or, where neither traps, the code that the
 * backend has for it.
 */
export type CallInstruction = "vmcall" | "vmmcall" | "page";

/** A backend that the guest programs run on. */
export interface ConformanceBackend {
  /** Begins the name of each of its tests. */
  name: string;
  /** Makes one, for one machine. */
  create: (enforceCpuid?: boolean) => Backend;
  /** What a guest's calls can be. */
  calls: readonly CallInstruction[];
  /** Of them those that code of CPL 3 may try: KVM gives the other vendor's instruction #GP there. */
  userCalls: readonly CallInstruction[];
  /** The kernel is Hyper-V, as the profile `kvm` has it, and the partition serves its exits alone. */
  kernel: boolean;
  /** Why code of a mode cannot run, for modes in which it cannot. */
  unfit: ReadonlyMap<Mode, string>;
  /** Why no code runs that takes exceptions and interrupts by software, if so. */
  noInterrupts?: string;
}

/** In the nested guest nothing may be missing, and the interpreter has had its turn outside. */
const nested = Deno.env.has("SYNDBG_REQUIRE_KVM");

const interp: ConformanceBackend = {
  name: "interp",
  create: () => interpreter(),
  calls: ["vmcall", "vmmcall"],
  userCalls: ["vmcall", "vmmcall"],
  kernel: false,
  unfit: new Map(),
};

function isIntel(): boolean {
  const [vendor] = openKvm().supportedCpuid();
  return vendor?.ebx === 0x756e_6547;
}

/** KVM in a mode, if this machine has it, with the modes of the processor that it fails at. */
async function kvm(mode: HypervMode): Promise<ConformanceBackend[]> {
  const kernel = mode === "kernel";
  const found = probeKvm({ hyperv: { mode } });
  if (!found.available && !nested) {
    console.log(`Skipped: guest programs on kvm (${mode}): ${found.reason}`);
    return [];
  }
  const unfit = new Map<Mode, string>();
  const backend: ConformanceBackend = {
    name: `kvm (${mode})`,
    create: (enforceCpuid = false) =>
      openKvm({ hyperv: { mode, enforceCpuid } }),
    calls: kernel ? ["vmcall", "vmmcall"] : ["page"],
    userCalls: !kernel ? [] : [isIntel() ? "vmcall" : "vmmcall"],
    kernel,
    unfit,
  };
  if (nested) return [backend];
  const failed = found.checks.find(({ name, passed }) =>
    name === "INT n in ring 0" && !passed
  );
  if (failed) backend.noInterrupts = `INT fails on this KVM: ${failed.detail}`;
  for (const of of MODES) {
    const guest = new ProbeGuest(backend);
    try {
      const { fault, registers } = await guest.one(
        cpuid(0x4000_0001, of),
        1000,
      );
      const signature = registers.rax & 0xffff_ffffn;
      if (fault !== undefined || signature !== 0x3123_7648n) {
        unfit.set(of, `CPUID in ${of} mode is wrong on this KVM`);
      }
    } catch {
      unfit.set(of, `code in ${of} mode does not run on this KVM`);
    } finally {
      guest.close();
    }
  }
  for (const why of unfit.values()) {
    console.log(`Skipped: guest programs on ${backend.name}: ${why}`);
  }
  return [backend];
}

/** All backends that this machine has: what a guest sees must not depend on which runs it. */
export const backends: readonly ConformanceBackend[] = [
  ...(nested ? [] : [interp]),
  ...await kvm("user"),
  ...await kvm("kernel"),
];
