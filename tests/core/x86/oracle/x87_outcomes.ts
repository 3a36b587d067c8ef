/**
 * Comparing and showing outcomes of x87 cases.
 *
 * @module
 */
import type { Case, Outcome } from "./cases.ts";
import type { X87Family } from "./x87_cases.ts";

/** Everything of an outcome that counts, as bytes. */
export function flatten(outcome: Outcome): Uint8Array {
  const state = outcome.state!;
  const out = new Uint8Array(40 + outcome.bytes.length + state.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, outcome.vector, true);
  view.setUint32(4, outcome.error, true);
  view.setBigUint64(8, outcome.cr2, true);
  view.setBigUint64(16, outcome.rip, true);
  view.setUint32(24, outcome.flags, true);
  // The only register that x87 instructions change.
  view.setBigUint64(32, outcome.registers[0]!, true);
  out.set(outcome.bytes, 40);
  out.set(state, 40 + outcome.bytes.length);
  // MXCSR and its mask are no x87 state.
  out.fill(0, 40 + outcome.bytes.length + 24, 40 + outcome.bytes.length + 32);
  return out;
}

function value(state: Uint8Array, n: number): bigint {
  const view = new DataView(state.buffer, state.byteOffset);
  return (BigInt(view.getUint16(40 + 16 * n, true)) << 64n) |
    view.getBigUint64(32 + 16 * n, true);
}

/** Whether an outcome is as wanted. */
export function same(
  family: X87Family,
  got: Outcome,
  wanted: Outcome,
): boolean {
  const a = flatten(got), b = flatten(wanted);
  if (!family.exact) {
    const base = 40 + got.bytes.length;
    for (let n = 0; n < 2; n++) {
      const difference = value(got.state!, n) - value(wanted.state!, n);
      // One unit in the last place.
      if (difference < -1n || difference > 1n) return false;
      a.fill(0, base + 32 + 16 * n, base + 42 + 16 * n);
      b.fill(0, base + 32 + 16 * n, base + 42 + 16 * n);
    }
    // C1 tells how the last bit was rounded.
    a[base + 3]! &= ~2;
    b[base + 3]! &= ~2;
  }
  return a.every((byte, n) => byte === b[n]);
}

function show(outcome: Outcome): string {
  const state = outcome.state!;
  const view = new DataView(state.buffer, state.byteOffset);
  const hex = (n: number | bigint, digits: number): string =>
    n.toString(16).padStart(digits, "0");
  const st = Array.from(
    { length: 8 },
    (_, n) => hex(value(state, n), 20).replace(/^.{4}/, "$&:"),
  );
  return `  #${outcome.vector} cr2 ${hex(outcome.cr2, 4)} rip ${
    hex(outcome.rip, 4)
  } flags ${hex(outcome.flags, 3)} ax ${hex(outcome.registers[0]!, 4)} FCW ${
    hex(view.getUint16(0, true), 4)
  } FSW ${hex(view.getUint16(2, true), 4)} tags ${hex(state[4]!, 2)} FOP ${
    hex(view.getUint16(6, true), 3)
  } FIP ${hex(view.getBigUint64(8, true), 1)} FDP ${
    hex(view.getBigUint64(16, true), 1)
  }\n    ${st.slice(0, 4).join(" ")}\n    ${st.slice(4).join(" ")}\n    ${
    outcome.bytes.slice(0, 64).toHex()
  }`;
}

/** A case and its outcomes as text. */
export function describe(
  test: Case,
  got?: Outcome,
  wanted?: Outcome,
): string {
  const lines = [`${test.code.toHex()} (${test.bits} bits)`];
  if (got && wanted) {
    const { bytes, state, registers } = test;
    const start = {
      ...got,
      vector: 0,
      rip: BigInt(test.at),
      flags: test.flags,
      bytes,
      registers,
      state: state!,
    };
    lines.push("before", show(start), "got", show(got), "wanted", show(wanted));
  }
  return lines.join("\n");
}
