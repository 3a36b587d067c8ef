import {
  type CpuidEntry,
  type HypercallFrame,
  HypercallResult,
  MsrResult,
} from "../../core/backend.ts";
import { GuestMemory } from "../../core/guest_memory.ts";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import type { LocalApics } from "../../hyperv/local_apics.ts";
import { Partition, type PartitionOptions } from "../../hyperv/partition.ts";
import {
  memoryPair,
  type MemoryTransport,
} from "../../hyperv/transports/memory_pair.ts";

/** A clock that a test turns. 1 TSC tick is 1 ns. */
export class TestClock {
  readonly tscFrequency = 1_000_000_000;
  tsc = 0n;
  readTsc(): bigint {
    return this.tsc;
  }
}

/** An interrupt that was raised. */
export interface Raised {
  vcpu: number;
  vector: number;
  autoEoi: boolean;
}

/** Local APICs that keep what they are told. */
export class TestApics implements LocalApics {
  #raised: Raised[] = [];
  /** Processors whose interrupts were ended. */
  readonly ended: number[] = [];
  /** Register writes, as `vcpu offset value` in hexadecimal. */
  readonly written: string[] = [];
  readonly #registers = new Map<number, number>();
  interrupt(vcpu: number, vector: number, autoEoi: boolean): void {
    this.#raised.push({ vcpu, vector, autoEoi });
  }
  endOfInterrupt(vcpu: number): void {
    this.ended.push(vcpu);
  }
  read(vcpu: number, offset: number): number {
    return this.#registers.get(vcpu * 0x1000 + offset) ?? 0;
  }
  write(vcpu: number, offset: number, value: number): void {
    this.#registers.set(vcpu * 0x1000 + offset, value);
    this.written.push(
      [vcpu, offset, value].map((n) => n.toString(16)).join(" "),
    );
  }
  /** The interrupts that were raised since the last look. */
  take(): Raised[] {
    const raised = this.#raised;
    this.#raised = [];
    return raised;
  }
}

/** A partition with its surroundings. */
export interface Bench {
  partition: Partition;
  memory: GuestMemory;
  clock: TestClock;
  apics: TestApics;
  /** The debugger's end. */
  peer: MemoryTransport;
  /** The partition's end. */
  wire: MemoryTransport;
}

/** Bytes of RAM in a {@linkcode bench}. */
export const RAM = 0x4_0000;

/** A partition over 256 KiB of RAM with local APICs and a debug device on a wire in memory. */
export function bench(
  options: Omit<Partial<PartitionOptions>, "syndbg" | "apics"> & {
    /** How the debug device is used; `none` leaves it out. */
    mode?: "msr" | "hypercall" | "none";
    /** False: a machine without local APICs. */
    withApics?: boolean;
  } = {},
): Bench {
  const { mode = "msr", withApics = true, ...rest } = options;
  const apics = new TestApics();
  const memory = new GuestMemory(RAM, 0);
  const clock = new TestClock();
  const [wire, peer] = memoryPair();
  wire.peer = { ipv4: 0x7f00_0001, port: 50_000 };
  const partition = new Partition({
    memory,
    clock,
    ...(withApics && { apics }),
    ...(mode !== "none" && { syndbg: { transport: wire, mode } }),
    ...rest,
  });
  return { partition, memory, clock, apics, peer, wire };
}

/** RDMSR: the value, or undefined where the guest gets #GP. */
export function rdmsr(
  partition: Partition,
  index: number,
  vcpu = 0,
): bigint | undefined {
  const value = new Uint32Array(2);
  const result = partition.readMsr(vcpu, index, value);
  return result === MsrResult.Handled
    ? BigInt(value[1]!) << 32n | BigInt(value[0]!)
    : undefined;
}

/** WRMSR: false where the guest gets #GP. */
export function wrmsr(
  partition: Partition,
  index: number,
  value: bigint,
  vcpu = 0,
): boolean {
  return partition.writeMsr(
    vcpu,
    index,
    Number(BigInt.asUintN(32, value)),
    Number(BigInt.asUintN(32, value >> 32n)),
  ) === MsrResult.Handled;
}

/** A call's result: RAX (EDX:EAX), or how it ended without one. */
export type CallOutcome = bigint | "#UD" | "unknown" | "retry";

/** Where and how a hypercall is made. */
export interface CallOptions {
  longMode?: boolean;
  protectedMode?: boolean;
  cpl?: number;
  vcpu?: number;
  /** XMM0 to XMM5 as 64-bit halves. */
  xmm?: readonly bigint[];
}

const RAX = 0, RCX = 2, RDX = 4, RBX = 6, RSI = 12, RDI = 14, R8 = 16;

function set(gpr: Uint32Array, at: number, value: bigint): void {
  gpr[at] = Number(BigInt.asUintN(32, value));
  gpr[at + 1] = Number(BigInt.asUintN(32, value >> 32n));
}

/** VMCALL with an input value and two parameters. */
export function vmcall(
  partition: Partition,
  input: bigint,
  first = 0n,
  second = 0n,
  options: CallOptions = {},
): CallOutcome {
  const {
    longMode = true,
    protectedMode = true,
    cpl = 0,
    vcpu = 0,
    xmm,
  } = options;
  const gpr = new Uint32Array(32).fill(0xa5a5_a5a5);
  if (longMode) {
    set(gpr, RCX, input);
    set(gpr, RDX, first);
    set(gpr, R8, second);
  } else {
    const words = (value: bigint, high: number, low: number): void => {
      gpr[high] = Number(BigInt.asUintN(32, value >> 32n));
      gpr[low] = Number(BigInt.asUintN(32, value));
    };
    words(input, RDX, RAX);
    words(first, RBX, RCX);
    words(second, RDI, RSI);
  }
  const halves = new BigUint64Array(12);
  if (xmm !== undefined) halves.set(xmm);
  const frame: HypercallFrame = {
    vcpu,
    longMode,
    protectedMode,
    cpl,
    gpr,
    xmm: new Uint8Array(halves.buffer),
  };
  switch (partition.hypercall(frame)) {
    case HypercallResult.Handled:
      return longMode
        ? BigInt(gpr[RAX + 1]!) << 32n | BigInt(gpr[RAX]!)
        : BigInt(gpr[RDX]!) << 32n | BigInt(gpr[RAX]!);
    case HypercallResult.InvalidOpcode:
      return "#UD";
    case HypercallResult.Retry:
      return "retry";
    default:
      return "unknown";
  }
}

/** Says who the guest is, without which there are no hypercalls. */
export function identify(partition: Partition): void {
  wrmsr(partition, HvMsr.GuestOsId, 0x0001_0001_0101_0001n);
}

/** Partition's leaves with 3, 4 and 0x82 zeroed: where the kernel's own feature tests begin. */
export function bareLeaves(partition: Partition): CpuidEntry[] {
  const cleared = [0x4000_0003, 0x4000_0004, 0x4000_0082];
  return partition.cpuidEntries().map((entry) =>
    cleared.includes(entry.leaf)
      ? { leaf: entry.leaf, eax: 0, ebx: 0, ecx: 0, edx: 0 }
      : entry
  );
}

/** A bit of a hypervisor leaf, as `03.EAX.5`. */
export type LeafBit = `${string}.${"EAX" | "EBX" | "EDX"}.${number}`;

/** Sets bits in leaves. */
export function setBits(
  leaves: readonly CpuidEntry[],
  bits: readonly LeafBit[],
): CpuidEntry[] {
  const result = leaves.map((entry) => ({ ...entry }));
  for (const bit of bits) {
    const [leaf, register, number] = bit.split(".");
    const entry = result.find((e) =>
      e.leaf === 0x4000_0000 + parseInt(leaf!, 16)
    )!;
    const key = register!.toLowerCase() as "eax" | "ebx" | "edx";
    entry[key] = (entry[key] | (1 << Number(number))) >>> 0;
  }
  return result;
}

/** Bytes from numbers, as a text. */
export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}
