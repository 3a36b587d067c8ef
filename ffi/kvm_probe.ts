import { HypercallResult, MsrResult, type VmHost } from "../core/backend.ts";
import { GuestMemory } from "../core/guest_memory.ts";
import { enter, type EntryMode } from "../core/loaders/entry_state.ts";
import type { HypervMode, KvmBackend } from "./kvm_options.ts";

/** One thing that a guest needs, and whether KVM does it here. */
export interface KvmCheck {
  /** What was tried. */
  name: string;
  /** Whether it went as on a processor. */
  passed: boolean;
  /** What happened. */
  detail: string;
}

/** What KVM is worth on this machine. */
export interface KvmFindings {
  /** VMs can be made and run. */
  available: boolean;
  /** Guests run as on a processor, and faster than in an interpreter. */
  fit: boolean;
  /** Why or why not, and what helps, in one line. */
  reason: string;
  /** Who would be Hyper-V; undefined where KVM is not available. */
  hyperv: HypervMode | undefined;
  /** What the tiny guest showed. */
  checks: KvmCheck[];
}

/** The findings where there is no KVM. */
export function noKvm(reason: string): KvmFindings {
  return {
    available: false,
    fit: false,
    reason,
    hyperv: undefined,
    checks: [],
  };
}

const RAM = 0x7_0000;
const CODE = 0x7c00;
const PAGE_DIRECTORY = 0x8000;
const IDT = 0x9000;
const HANDLER = 0xa000;
const PORT = 0x10;
const ANSWER = 42;
/** mov al, ANSWER; out PORT, al; hlt */
const SAY = [0xb0, ANSWER, 0xe6, PORT, 0xf4];
const SLICE = 5;
/** Millions of instructions a second; a good interpreter in the same engine does as much. */
const WORTHWHILE = 50;

interface Trial {
  name: string;
  mode: EntryMode;
  code: number[];
  /** CR0 and CR4 where they are not those of entry. */
  cr0?: bigint;
  cr4?: bigint;
}

const TRIALS: readonly Trial[] = [
  { name: "real mode", mode: "real", code: SAY },
  {
    name: "32-bit paging",
    mode: "protected",
    code: [
      ...[0xb8, PAGE_DIRECTORY & 255, PAGE_DIRECTORY >> 8, 0, 0], // mov eax, …
      ...[0x0f, 0x22, 0xd8], // mov cr3, eax
      ...[0xb8, 0x10, 0, 0, 0], // mov eax, CR4.PSE
      ...[0x0f, 0x22, 0xe0], // mov cr4, eax
      ...[0xb8, 0x11, 0, 0, 0x80], // mov eax, CR0.PG | ET | PE
      ...[0x0f, 0x22, 0xc0], // mov cr0, eax
      ...SAY,
    ],
  },
  { name: "INT n in ring 0", mode: "long", code: [0xcd, 0x40] },
  {
    name: "SSE2 in ring 0",
    mode: "long",
    code: [0xf2, 0x0f, 0x2a, 0xc0, ...SAY], // cvtsi2sd xmm0, eax
    cr0: 0x8000_0013n,
    cr4: 0x620n,
  },
];

/** A host with one port. */
class ProbeHost implements VmHost {
  said = -1;
  readMsr(): MsrResult {
    return MsrResult.Unknown;
  }
  writeMsr(): MsrResult {
    return MsrResult.Unknown;
  }
  readPort(): number {
    return 0xffff_ffff;
  }
  writePort(_vcpu: number, port: number, _size: number, value: number): void {
    if (port === PORT) this.said = value;
  }
  readMmio(_vcpu: number, _gpa: number, data: Uint8Array): void {
    data.fill(0xff);
  }
  writeMmio(): void {}
  hypercall(): HypercallResult {
    return HypercallResult.Unknown;
  }
  acknowledgeInterrupt(): number {
    return -1;
  }
}

/** Runs tiny guests: a few milliseconds. */
export function examineKvm(backend: KvmBackend): KvmFindings {
  const memory = new GuestMemory(RAM, 0);
  const host = new ProbeHost();
  const vm = backend.createVm(memory, host);
  try {
    const vcpu = vm.createVcpu();
    vcpu.setCpuid(backend.supportedCpuid());
    memory.write(HANDLER, new Uint8Array(SAY));
    // A page of 4 MiB, present and writable; an interrupt gate to the handler.
    memory.writeU32(PAGE_DIRECTORY, 0x83);
    memory.writeU64(IDT + 0x40 * 16, BigInt(HANDLER) | 0x8e00_0008_0000n);
    const checks = TRIALS.map(({ name, mode, code, cr0, cr4 }): KvmCheck => {
      memory.write(CODE, new Uint8Array(code));
      enter(memory, vcpu, CODE, mode);
      if (mode === "long") {
        vcpu.setSystemRegisters({
          idt: { base: BigInt(IDT), limit: 0xfff },
          ...(cr0 !== undefined && { cr0 }),
          ...(cr4 !== undefined && { cr4 }),
        });
      }
      host.said = -1;
      const exit = vcpu.run(SLICE);
      const passed = exit.reason === "hlt" && host.said === ANSWER;
      const detail = passed
        ? "works"
        : exit.reason === "internal-error"
        ? exit.message
        : `ends with ${exit.reason}`;
      return { name, passed, detail };
    });
    // inc rcx; jmp: two instructions a turn.
    memory.write(CODE, new Uint8Array([0x48, 0xff, 0xc1, 0xeb, 0xfb]));
    enter(memory, vcpu, CODE, "long", { rcx: 0n });
    const start = performance.now();
    vcpu.run(1);
    const elapsed = performance.now() - start;
    const mips = 2 * Number(vcpu.getRegisters().rcx) / elapsed / 1000;
    checks.push({
      name: "speed of ring 0",
      passed: mips >= WORTHWHILE,
      detail: `${
        mips < 10 ? mips.toFixed(1) : Math.round(mips)
      } million instructions a second`,
    });
    return judge(backend, checks);
  } finally {
    vm.close();
  }
}

function judge(backend: KvmBackend, checks: KvmCheck[]): KvmFindings {
  const failed = checks.filter(({ passed }) => !passed);
  const mode = backend.hyperv === "kernel"
    ? "with KVM's own Hyper-V"
    : "Hyper-V's MSRs come to user space";
  const list = failed.map(({ name, detail }) => `${name} (${detail})`);
  return {
    available: true,
    fit: failed.length === 0,
    reason: failed.length === 0
      ? `the processor runs guests, ${mode}`
      : `KVM here is not fit for guests in general: ${list.join(", ")}`,
    hyperv: backend.hyperv,
    checks,
  };
}
