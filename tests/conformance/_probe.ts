/**
 * Machines whose guest executes what a test asks for, in the mode that it asks for: see
 * `tests/guests/lib/probe.inc`.
 */
import { assertEquals } from "@std/assert";
import type { GuestMemory } from "../../core/guest_memory.ts";
import { loadImage } from "../../core/loaders/load_image.ts";
import type { Machine } from "../../core/machine.ts";
import {
  createGuestMachine,
  type GuestMachineOptions,
} from "../../hyperv/guest_machine.ts";
import type { Partition } from "../../hyperv/partition.ts";
import {
  memoryPair,
  type MemoryTransport,
} from "../../hyperv/transports/memory_pair.ts";
import { probeLegacyGuest } from "../guests/built/probe_legacy_guest.ts";
import { probeLongGuest } from "../guests/built/probe_long_guest.ts";
import type { CallInstruction, ConformanceBackend } from "./backends.ts";

/** Registers of a probe, in the order of its fields. */
const REGISTERS = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsi",
  "rdi",
  "rbp",
  "r8",
  "r9",
] as const;
type Register = typeof REGISTERS[number];

/** Modes that code can run in, with their number in the guest that has them. */
const LONG = { "long": 0, "long-user": 1, "compat": 2, "compat-user": 3 };
const LEGACY = { "protected": 0, "protected-user": 1, "real": 2, "v86": 3 };

/** A mode that code can run in. */
export type Mode = keyof typeof LONG | keyof typeof LEGACY;

/** All of them. */
export const MODES = [...Object.keys(LONG), ...Object.keys(LEGACY)] as Mode[];

/** Machine code and what it starts with. */
export interface Probe {
  /** At most 32 bytes. */
  code: readonly number[];
  /** Default `long`. */
  mode?: Mode;
  /** Others start as {@linkcode FILL}. */
  registers?: Partial<Record<Register, bigint>>;
  /** The code is a call of the hypervisor, by what the guest's backend has for it. */
  calls?: true;
}

/** What became of a probe. */
export interface ProbeResult {
  /** Undefined where the code ran to its end, else as `#GP(0)` or `#UD`. */
  fault: string | undefined;
  /** Offset of the instruction that faulted. */
  offset: number;
  registers: Record<Register, bigint>;
  /** EDX and EAX as one number. */
  edxEax: bigint;
}

/** Value of registers that a probe does not set. */
export const FILL = 0x5a5a_5a5an;

/** RAM of a {@linkcode ProbeGuest} in bytes. */
export const RAM = 8 * 2 ** 20;
/** Pages that a probe may use: all from here to the end of RAM. */
export const FREE = 0x40_0000;

const PROBES = 0x30_0000;
/** Code for calls where the instructions do not trap, and the address of it. */
const CALL_CODE = 0x3f_0000;
const CALL_POINTER = 0x3f_0800;
const TABLE = 0x30_1000;
const SIZE = 256;
const CODE = 32;
const NOP = 0x90;
const NAMES: Readonly<Record<number, string>> = {
  1: "#DB",
  6: "#UD",
  13: "#GP",
  14: "#PF",
};

/** A machine, its partition, and the debugger's end of the wire. */
export class ProbeGuest {
  readonly machine: Machine;
  readonly memory: GuestMemory;
  readonly partition: Partition;
  /** What the partition sends goes there, what is sent there comes to the guest. */
  readonly peer: MemoryTransport;
  /** The partition's end. */
  readonly wire: MemoryTransport;
  readonly applyCpuid: () => void;
  /** Code for calls of the hypervisor where the instructions do not trap. */
  readonly callCode: Uint8Array<ArrayBuffer> | undefined;

  constructor(
    backend: ConformanceBackend,
    options: Omit<Partial<GuestMachineOptions>, "backend" | "syndbg"> & {
      /** How the debug device is used; `none` leaves it out. Default `msr`. */
      syndbg?: "msr" | "hypercall" | "none";
    } = {},
  ) {
    const { syndbg = "msr", ...rest } = options;
    const made = backend.create(options.enforceCpuid);
    this.callCode = made.hypercallCode;
    const [wire, peer] = memoryPair();
    wire.peer = { ipv4: 0x7f00_0001, port: 50_000 };
    const guest = createGuestMachine({
      backend: made,
      memorySize: RAM,
      ...rest,
      ...(syndbg !== "none" && {
        syndbg: { transport: wire, mode: syndbg },
      }),
    });
    this.machine = guest.machine;
    this.memory = guest.memory;
    this.partition = guest.partition;
    this.applyCpuid = guest.applyCpuid;
    this.peer = peer;
    this.wire = wire;
  }

  /**
   * Boots the guest and has it run probes, which must be of one guest's modes. Partition and RAM stay
   * as they are, so runs can follow one another.
   */
  run(...probes: Probe[]): Promise<ProbeResult[]> {
    return this.#run(probes, 10_000);
  }

  async #run(probes: Probe[], timeout: number): Promise<ProbeResult[]> {
    const { memory, machine } = this;
    const legacy = (probes[0]?.mode ?? "long") in LEGACY;
    loadImage(
      memory,
      machine.vcpus[0]!,
      legacy ? probeLegacyGuest() : probeLongGuest(),
    );
    const numbers: Record<string, number> = legacy ? LEGACY : LONG;
    memory.writeU32(PROBES, probes.length);
    memory.fill(TABLE, probes.length * SIZE);
    probes.forEach((probe, n) => {
      const { mode = "long", registers = {} } = probe;
      const code = probe.calls ? this.#call(mode) : probe.code;
      const at = TABLE + n * SIZE;
      memory.fill(at, CODE, NOP);
      memory.write(at, new Uint8Array(code));
      memory.writeU32(at + 32, numbers[mode]!);
      REGISTERS.forEach((name, i) => {
        memory.writeU64(at + 40 + i * 8, registers[name] ?? FILL);
      });
    });
    assertEquals(await machine.run({ timeout }), { kind: "halted" });
    return probes.map((_, n) => this.#result(TABLE + n * SIZE));
  }

  #result(at: number): ProbeResult {
    const { view } = this.memory;
    assertEquals(view.getUint32(at + 196, true), 1, "the probe has run");
    const vector = view.getInt32(at + 112, true);
    const registers = {} as Record<Register, bigint>;
    REGISTERS.forEach((name, i) => {
      registers[name] = view.getBigUint64(at + 120 + i * 8, true);
    });
    const error = view.getUint32(at + 116, true).toString(16);
    const name = NAMES[vector] ?? `exception ${vector}`;
    return {
      fault: vector < 0
        ? undefined
        : vector === 13 || vector === 14
        ? `${name}(${error})`
        : name,
      offset: view.getUint32(at + 192, true),
      registers,
      edxEax: (registers.rdx & 0xffff_ffffn) << 32n |
        (registers.rax & 0xffff_ffffn),
    };
  }

  /** A call of the hypervisor by what traps. */
  #call(mode: Mode): readonly number[] {
    if (this.callCode === undefined) return INSTRUCTIONS.vmcall;
    const { memory } = this;
    memory.write(CALL_CODE, this.callCode);
    memory.writeU64(CALL_POINTER, BigInt(CALL_CODE));
    const pointer = [CALL_POINTER & 255, CALL_POINTER >> 8 & 255, 0x3f, 0];
    // call [CALL_POINTER]: no register changes.
    return is64(mode)
      ? [0xff, 0x14, 0x25, ...pointer]
      : [0xff, 0x15, ...pointer];
  }

  /** Runs one probe. */
  async one(probe: Probe, timeout = 10_000): Promise<ProbeResult> {
    return (await this.#run([probe], timeout))[0]!;
  }

  /** Frees the machine. */
  close(): void {
    this.machine.close();
  }
}

/** What a test of a guest needs. */
export type GuestTestOptions =
  & NonNullable<ConstructorParameters<typeof ProbeGuest>[1]>
  & {
    /** Its code runs in this mode. Default `long`. */
    mode?: Mode;
    /** It needs what a kernel that is Hyper-V does otherwise, or only with an APIC of its own. */
    partition?: boolean;
    /** What the backend lacks for it. */
    lacking?: string | undefined;
  };

/**
 * Makes a test of a guest on a backend; the guest is closed after it. It is left out where a kernel has the partition's
 * part, and ignored where the backend cannot run its code.
 */
export function guestTest(
  backend: ConformanceBackend,
  name: string,
  options: GuestTestOptions,
  fn: (guest: ProbeGuest) => Promise<void>,
): void {
  const { mode = "long", partition, lacking, ...rest } = options;
  if (partition && backend.kernel) return;
  if (lacking !== undefined) {
    console.log(`Skipped: ${backend.name}: ${name}: ${lacking}`);
  }
  Deno.test({
    name: `${backend.name}: ${name}`,
    ignore: lacking !== undefined || backend.unfit.has(mode),
    async fn() {
      const guest = new ProbeGuest(backend, rest);
      try {
        await fn(guest);
      } finally {
        guest.close();
      }
    },
  });
}

const low = (value: bigint): bigint => value & 0xffff_ffffn;
const high = (value: bigint): bigint => value >> 32n & 0xffff_ffffn;

/** RDMSR. */
export function rdmsr(msr: number, mode: Mode = "long"): Probe {
  return { code: [0x0f, 0x32], mode, registers: { rcx: BigInt(msr) } };
}

/** WRMSR of EDX:EAX. */
export function wrmsr(msr: number, value: bigint, mode: Mode = "long"): Probe {
  return {
    code: [0x0f, 0x30],
    mode,
    registers: { rcx: BigInt(msr), rax: low(value), rdx: high(value) },
  };
}

/** CPUID. */
export function cpuid(leaf: number, mode: Mode = "long"): Probe {
  return {
    code: [0x0f, 0xa2],
    mode,
    registers: { rax: BigInt(leaf), rcx: 0n },
  };
}

/** MOV RAX, [R9]. */
export function load64(gpa: number): Probe {
  return { code: [0x49, 0x8b, 0x01], registers: { r9: BigInt(gpa) } };
}

/** How a hypercall is made. */
export interface CallOptions {
  mode?: Mode;
  /** An instruction, or the address of the hypercall page. Default: what the guest's backend has. */
  via?: CallInstruction | number;
}

const INSTRUCTIONS = {
  vmcall: [0x0f, 0x01, 0xc1],
  vmmcall: [0x0f, 0x01, 0xd9],
} as const;

/** Whether a mode has the 64-bit register conventions. */
function is64(mode: Mode): boolean {
  return mode === "long" || mode === "long-user";
}

/** A hypercall with an input value and two parameters, in the registers of the mode. */
export function hypercall(
  input: bigint,
  first = 0n,
  second = 0n,
  { mode = "long", via = "page" }: CallOptions = {},
): Probe {
  const code = typeof via === "number"
    ? [0xff, 0xd5] // call rbp, call ebp
    : via === "page"
    ? []
    : INSTRUCTIONS[via];
  const rbp = typeof via === "number" ? BigInt(via) : FILL;
  return {
    code,
    mode,
    ...(via === "page" && { calls: true }),
    registers: is64(mode) ? { rcx: input, rdx: first, r8: second, rbp } : {
      rax: low(input),
      rdx: high(input),
      rcx: low(first),
      rbx: high(first),
      rsi: low(second),
      rdi: high(second),
      rbp,
    },
  };
}

/** The result of a hypercall: the whole of RAX or EDX:EAX, or the fault. */
export function callResult(
  result: ProbeResult,
  mode: Mode = "long",
): bigint | string {
  return result.fault ?? (is64(mode) ? result.registers.rax : result.edxEax);
}

/** The result of RDMSR: the value, or the fault. */
export function msrValue(result: ProbeResult): bigint | string {
  return result.fault ?? result.edxEax;
}

/** A number as test names have it. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
