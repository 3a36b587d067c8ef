import type { GuestMemory } from "../core/guest_memory.ts";
import { HvInput } from "./defs/hypercall.ts";

/** Results of a hypercall beside status codes. */
export const CallResult = {
  /** The guest gets #UD. */
  InvalidOpcode: -1,
  /** The guest executes the call again. */
  Retry: -2,
} as const;

/** Words of a fast call's input in RDX and R8; the six XMM registers go on from there. */
const REGISTER_WORDS = 2;

/** A hypercall taken apart (TLFS 3.7). One object is reused. */
export class CallInput {
  code = 0;
  /** The input is in registers. */
  fast = false;
  /** Size of the variable header in 64-bit words. */
  variable = 0;
  repCount = 0;
  repStart = 0;
  low = 0;
  high = 0;
  /** Input list's GPA, or the first parameter of a fast call: a number and its words. */
  first = 0;
  firstLow = 0;
  firstHigh = 0;
  /** Output list's GPA, or the second parameter of a fast call. */
  second = 0;
  secondLow = 0;
  secondHigh = 0;
  vcpu = 0;
  /** XMM0 to XMM5, 16 bytes each; absent if the vCPU does not give them. */
  xmm: Uint8Array | undefined;
  /** A kernel passed the call on: it has looked at OPTIONS, and the call must end now. */
  forwarded = false;

  /** Takes the input value and parameters apart. */
  decode(
    vcpu: number,
    low: number,
    high: number,
    firstLow: number,
    firstHigh: number,
    secondLow: number,
    secondHigh: number,
  ): void {
    this.vcpu = vcpu;
    this.low = low;
    this.high = high;
    this.code = low & HvInput.CodeMask;
    this.fast = (low & HvInput.Fast) !== 0;
    this.variable = (low >>> HvInput.VariableShift) & HvInput.VariableMask;
    this.repCount = high & HvInput.RepCountMask;
    this.repStart = (high >>> HvInput.RepStartShift) & HvInput.RepCountMask;
    this.firstLow = firstLow >>> 0;
    this.firstHigh = firstHigh >>> 0;
    this.first = (firstHigh >>> 0) * 0x1_0000_0000 + (firstLow >>> 0);
    this.secondLow = secondLow >>> 0;
    this.secondHigh = secondHigh >>> 0;
    this.second = (secondHigh >>> 0) * 0x1_0000_0000 + (secondLow >>> 0);
  }

  /** The call has elements to go through. */
  get rep(): boolean {
    return this.repCount !== 0 || this.repStart !== 0;
  }

  /** Whether the input has `count` 64-bit words: in RAM, or in registers if it is fast. */
  has(memory: GuestMemory, count: number): boolean {
    return this.fast
      ? count <= REGISTER_WORDS + (this.xmm?.length ?? 0) / 8
      : memory.contains(this.first, 8 * count);
  }

  /** Word `n` of the input, which {@linkcode CallInput.has} has found to be there. */
  word(memory: GuestMemory, n: number): bigint {
    if (!this.fast) return memory.view.getBigUint64(this.first + 8 * n, true);
    if (n >= REGISTER_WORDS) {
      const { buffer, byteOffset } = this.xmm!;
      const at = byteOffset + 8 * (n - REGISTER_WORDS);
      return new DataView(buffer).getBigUint64(at, true);
    }
    return n === 0
      ? BigInt(this.firstHigh) << 32n | BigInt(this.firstLow)
      : BigInt(this.secondHigh) << 32n | BigInt(this.secondLow);
  }
}
