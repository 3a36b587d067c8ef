/**
 * Tests that need KVM: skipped by name where it, or what a test needs of it, is missing. With SYNDBG_REQUIRE_KVM set, as in
 * the nested guest, they fail instead.
 */
import {
  type HypercallFrame,
  HypercallResult,
  MsrResult,
  type Vcpu,
  type VmHost,
} from "../../core/backend.ts";
import { GuestMemory } from "../../core/guest_memory.ts";
import { enter, type EntryMode } from "../../core/loaders/entry_state.ts";
import {
  type HypervMode,
  type KvmBackend,
  type KvmFindings,
  type KvmOptions,
  type KvmVm,
  openKvm,
  probeKvm,
} from "../../ffi/kvm_backend_unsafe.ts";

/** RAM of a {@linkcode Guest}. */
export const RAM = 0x7_0000;
/** Where its code is. */
export const CODE = 0x7c00;
/** A page outside RAM. */
export const OUTSIDE = 0x8_0000;

/** What this machine's KVM does in a mode. */
export function findings(mode: HypervMode): KvmFindings {
  return probeKvm({ hyperv: { mode } });
}

const known: Partial<Record<HypervMode, KvmFindings>> = {};
const told = new Set<string>();

/** Why a test cannot run here. */
function missing(
  mode: HypervMode,
  needs: readonly string[],
): string | undefined {
  const found = known[mode] ??= findings(mode);
  if (!found.available) return found.reason;
  const failed = found.checks.find(({ name, passed }) =>
    !passed && needs.includes(name)
  );
  return failed && `this KVM fails at ${failed.name}: ${failed.detail}`;
}

/**
 * A test of KVM.
 *
 * @param options.needs Names of checks of {@linkcode probeKvm} that must have passed.
 * @param options.lacking What a try has shown this KVM not to have, even where KVM is required.
 */
export function kvmTest(
  name: string,
  options: {
    mode?: HypervMode;
    needs?: readonly string[];
    lacking?: string | undefined;
  },
  fn: () => void | Promise<void>,
): void {
  const { mode = "user", needs = [], lacking } = options;
  const reason = lacking ?? missing(mode, needs);
  const required = lacking === undefined && Deno.env.has("SYNDBG_REQUIRE_KVM");
  if (reason !== undefined && !required && !told.has(reason)) {
    told.add(reason);
    console.log(`Skipped, mode ${mode}, ${name} and its like: ${reason}`);
  }
  Deno.test({
    name: `kvm (${mode}): ${name}`,
    ignore: reason !== undefined && !required,
    fn,
  });
}

/** Both modes. */
export const MODES: readonly HypervMode[] = ["user", "kernel"];

/** A host that keeps a record, and answers what a test sets. */
export class TestHost implements VmHost {
  readonly log: string[] = [];
  /** Values of MSRs, `refused` for #GP; others are unknown. */
  readonly msrs = new Map<number, bigint | "refused">();
  vector = -1;
  port: (port: number, size: number, value: number) => void = () => {};
  input: (port: number, size: number) => number = () => 0xffff_ffff;
  call: (frame: HypercallFrame) => HypercallResult = () =>
    HypercallResult.Unknown;
  wrote: (index: number) => void = () => {};

  readMsr(_vcpu: number, index: number, value: Uint32Array): MsrResult {
    this.log.push(`rdmsr ${index.toString(16)}`);
    const found = this.msrs.get(index);
    if (found === undefined) return MsrResult.Unknown;
    if (found === "refused") return MsrResult.Refused;
    value[0] = Number(BigInt.asUintN(32, found));
    value[1] = Number(found >> 32n);
    return MsrResult.Handled;
  }

  writeMsr(
    _vcpu: number,
    index: number,
    low: number,
    high: number,
  ): MsrResult {
    const value = BigInt(high) << 32n | BigInt(low);
    this.log.push(`wrmsr ${index.toString(16)} ${value.toString(16)}`);
    const found = this.msrs.get(index);
    if (found === undefined) return MsrResult.Unknown;
    if (found === "refused") return MsrResult.Refused;
    this.msrs.set(index, value);
    this.wrote(index);
    return MsrResult.Handled;
  }

  readPort(_vcpu: number, port: number, size: number): number {
    this.log.push(`in ${port.toString(16)} ${size}`);
    return this.input(port, size);
  }

  writePort(_vcpu: number, port: number, size: number, value: number): void {
    this.log.push(
      `out ${port.toString(16)} ${size} ${(value >>> 0).toString(16)}`,
    );
    this.port(port, size, value);
  }

  readMmio(_vcpu: number, gpa: number, data: Uint8Array): void {
    this.log.push(`load ${gpa.toString(16)} ${data.length}`);
    data.forEach((_, n) => data[n] = 0xa0 + n);
  }

  writeMmio(_vcpu: number, gpa: number, data: Uint8Array): void {
    this.log.push(`store ${gpa.toString(16)} ${data.toHex()}`);
  }

  hypercall(frame: HypercallFrame): HypercallResult {
    this.log.push("hypercall");
    return this.call(frame);
  }

  acknowledgeInterrupt(): number {
    this.log.push("acknowledge");
    return this.vector;
  }
}

/** A VM of KVM with one vCPU. Use with `using`. */
export class Guest implements Disposable {
  readonly host = new TestHost();
  readonly memory = new GuestMemory(RAM, 0);
  readonly backend: KvmBackend;
  readonly vm: KvmVm;
  readonly vcpu: Vcpu;

  constructor(options: KvmOptions["hyperv"] = { mode: "user" }) {
    this.backend = openKvm({ hyperv: options });
    this.vm = this.backend.createVm(this.memory, this.host);
    this.vcpu = this.vm.createVcpu();
    this.vcpu.setCpuid(this.backend.supportedCpuid());
  }

  /** Puts code at {@linkcode CODE} and enters it. */
  enter(mode: EntryMode, ...code: (number | readonly number[])[]): this {
    this.memory.write(CODE, new Uint8Array(code.flat()));
    enter(this.memory, this.vcpu, CODE, mode);
    return this;
  }

  /** Real-mode interrupt handler that writes its vector to port 0x66, and halts or returns. */
  handler(vector: number, then: "hlt" | "iret"): void {
    const at = 0x9000 + vector * 16;
    this.memory.writeU32(vector * 4, at);
    this.memory.write(
      at,
      new Uint8Array([0xb0, vector, 0xe6, 0x66, then === "hlt" ? 0xf4 : 0xcf]),
    );
  }

  /** Runs to an exit that is no end of a slice: its reason, and an error's text. */
  run(): string {
    for (let n = 0; n < 500; n++) {
      const exit = this.vcpu.run(20);
      if (exit.reason === "internal-error") return exit.message;
      if (exit.reason !== "interrupted") return exit.reason;
    }
    return "the guest does not end";
  }

  [Symbol.dispose](): void {
    this.vm.close();
  }
}

/** 32 bits, little-endian. */
export function dword(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
}

/** 16 bits, little-endian. */
export function word(value: number): number[] {
  return dword(value).slice(0, 2);
}

export const HLT = 0xf4;
export const NOP = 0x90;
export const CLI = 0xfa;
export const STI = 0xfb;
export const RDMSR: readonly number[] = [0x0f, 0x32];
export const WRMSR: readonly number[] = [0x0f, 0x30];
export const CPUID: readonly number[] = [0x0f, 0xa2];
/** jmp $ */
export const SPIN: readonly number[] = [0xeb, 0xfe];

/** mov ecx, n: in 16-bit code with its prefix. */
export function movEcx(value: number, bits: 16 | 32 = 32): number[] {
  return [...(bits === 16 ? [0x66] : []), 0xb9, ...dword(value)];
}

/** mov eax, n */
export function movEax(value: number, bits: 16 | 32 = 32): number[] {
  return [...(bits === 16 ? [0x66] : []), 0xb8, ...dword(value)];
}

/** out n, al */
export function outAl(port: number): number[] {
  return [0xe6, port];
}
