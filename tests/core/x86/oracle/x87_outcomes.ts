/**
 * Outcomes of x87 cases: whether they are as wanted, and how to show them.
 *
 * @module
 */
import type { Case, Outcome } from "./cases.ts";
import type { X87Family } from "./x87_cases.ts";

/** MXCSR and its mask, which are no x87 state. */
const MXCSR = 24;

/** Everything of an outcome that counts, as bytes; the state comes last. */
function flatten({ bytes, state, ...outcome }: Outcome): Uint8Array {
  const head = 40;
  const out = new Uint8Array(head + bytes.length + state!.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, outcome.vector, true);
  view.setUint32(4, outcome.error, true);
  view.setBigUint64(8, outcome.cr2, true);
  view.setBigUint64(16, outcome.rip, true);
  view.setUint32(24, outcome.flags, true);
  // RAX is the only register that x87 instructions change.
  view.setBigUint64(32, outcome.registers[0]!, true);
  out.set(bytes, head);
  out.set(state!, head + bytes.length);
  out.fill(0, head + bytes.length + MXCSR, head + bytes.length + MXCSR + 8);
  return out;
}

/** A hash of outcomes, 32 bits (FNV-1a). */
export function digest(outcomes: readonly Outcome[]): number {
  let hash = 0x811c_9dc5;
  for (const outcome of outcomes) {
    for (const byte of flatten(outcome)) {
      hash = Math.imul(hash ^ byte, 0x0100_0193);
    }
  }
  return hash >>> 0;
}

/** ST(n) of a state. */
export function register(state: Uint8Array, n: number): bigint {
  const view = new DataView(state.buffer, state.byteOffset);
  return (BigInt(view.getUint16(40 + 16 * n, true)) << 64n) |
    view.getBigUint64(32 + 16 * n, true);
}

/** Whether two numbers are the same or neighbours. */
export function close(x: bigint, y: bigint): boolean {
  // Without the integer bit neighbours differ by 1 where the exponent changes too.
  const order = (bits: bigint): bigint =>
    ((bits >> 64n) << 63n) | (bits & 0x7fff_ffff_ffff_ffffn);
  const difference = order(x) - order(y);
  return difference >= -1n && difference <= 1n;
}

/** Whether an outcome is as wanted. */
export function same(
  family: X87Family,
  got: Outcome,
  wanted: Outcome,
): boolean {
  const a = flatten(got), b = flatten(wanted);
  if (!family.exact) {
    const state = a.length - got.state!.length;
    for (let n = 0; n < 2; n++) {
      if (!close(register(got.state!, n), register(wanted.state!, n))) {
        return false;
      }
    }
    for (const bytes of [a, b]) {
      bytes.fill(0, state + 32, state + 64);
      // C1 tells how the last bit was rounded.
      bytes[state + 3]! &= ~2;
    }
  }
  return a.every((byte, n) => byte === b[n]);
}

function hex(n: number | bigint, digits = 4): string {
  return n.toString(16).padStart(digits, "0");
}

function show(outcome: Outcome): string {
  const { state, bytes } = outcome;
  const view = new DataView(state!.buffer, state!.byteOffset);
  const word = (at: number): string => hex(view.getUint16(at, true));
  const st = Array.from({ length: 8 }, (_, n) => hex(register(state!, n), 20));
  return [
    `#${outcome.vector} at ${hex(outcome.rip)}, CR2 ${hex(outcome.cr2)}, flags`,
    `${hex(outcome.flags)}, AX ${hex(outcome.registers[0]!)}, FCW ${word(0)}`,
    `FSW ${word(2)}, tags ${hex(state![4]!, 2)}, FOP ${word(6)}, FIP`,
    `${hex(view.getBigUint64(8, true))}, FDP`,
    `${hex(view.getBigUint64(16, true))}\n  ST ${st.join(" ")}\n  memory`,
    bytes.slice(0, 64).toHex(),
  ].join(" ");
}

/** A case and its outcomes as text. */
export function describe(test: Case, got: Outcome, wanted: Outcome): string {
  const { at, code, bits, flags, registers, bytes, state } = test;
  const start: Outcome = {
    vector: 0,
    error: 0,
    cr2: 0n,
    rip: BigInt(at),
    flags,
    registers,
    bytes,
    state: state!,
  };
  return [
    `${code.toHex()} (${bits} bits)`,
    `before ${show(start)}`,
    `got ${show(got)}`,
    `wanted ${show(wanted)}`,
  ].join("\n");
}

/** Bytes of a packed outcome. */
const PACKED = 22;

/** Status word, ST(0) and ST(1) of outcomes whose results are not exact. */
export function pack(outcomes: readonly Outcome[]): Uint8Array {
  const out = new Uint8Array(PACKED * outcomes.length);
  outcomes.forEach(({ state }, n) => {
    out.set(state!.subarray(2, 4), PACKED * n);
    out.set(state!.subarray(32, 42), PACKED * n + 2);
    out.set(state!.subarray(48, 58), PACKED * n + 12);
  });
  return out;
}

/** Outcomes like given ones with what {@linkcode pack} kept of others put in. */
export function unpack(
  outcomes: readonly Outcome[],
  data: Uint8Array,
): Outcome[] {
  return outcomes.map((outcome, n) => {
    const state = outcome.state!.slice();
    const at = PACKED * n;
    state.set(data.subarray(at, at + 2), 2);
    state.set(data.subarray(at + 2, at + 12), 32);
    state.set(data.subarray(at + 12, at + 22), 48);
    return { ...outcome, state };
  });
}
