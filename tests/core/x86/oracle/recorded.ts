/**
 * Outcomes as they are kept: only what differs from the start of the case.
 *
 * An outcome is: the vector (bit 7: RIP follows); RIP (8 bytes); flags (2); with an error code that
 * (2), with a page fault CR2 (8); a mask of changed registers (2) and each of them (8, in 32-bit code
 * 4); the number of changed 8-byte words of the window (2) and each of them (index 2, word 8).
 *
 * @module
 */
import { type Case, hasError, type Outcome, visible } from "./cases.ts";

/** RIP of an outcome that needs no telling. */
function usualRip(test: Case, vector: number): bigint {
  return BigInt(vector === 3 ? test.at + test.code.length + 1 : test.at);
}

/** Packs the outcomes of cases. */
export function pack(
  cases: readonly Case[],
  outcomes: readonly Outcome[],
): Uint8Array {
  const out: number[] = [];
  const put = (value: number | bigint, bytes: number): void => {
    let rest = BigInt(value);
    for (let n = 0; n < bytes; n++, rest >>= 8n) out.push(Number(rest & 255n));
  };
  outcomes.forEach((outcome, number) => {
    const test = cases[number]!;
    const told = outcome.rip !== usualRip(test, outcome.vector);
    put(outcome.vector | (told ? 0x80 : 0), 1);
    if (told) put(outcome.rip, 8);
    put(outcome.flags, 2);
    if (hasError(outcome.vector)) put(outcome.error, 2);
    if (outcome.vector === 14) put(outcome.cr2, 8);
    const before = visible(test, test.registers);
    const changed = outcome.registers.map((value, n) => value !== before[n]);
    put(changed.reduce((mask, x, n) => mask | (x ? 1 << n : 0), 0), 2);
    outcome.registers.forEach((value, n) => {
      if (changed[n]) put(value, test.bits / 8);
    });
    const was = words(test.bytes), is = words(outcome.bytes);
    const indices = [...is.keys()].filter((n) => was[n] !== is[n]);
    put(indices.length, 2);
    for (const n of indices) {
      put(n, 2);
      put(is[n]!, 8);
    }
  });
  return new Uint8Array(out);
}

/**
 * Unpacks the outcomes of cases.
 *
 * @throws {RangeError} If the data are of other cases.
 */
export function unpack(
  cases: readonly Case[],
  data: Uint8Array,
): Outcome[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let at = 0;
  const word = (bytes: 1 | 2 | 4 | 8): bigint => {
    at += bytes;
    return bytes === 8
      ? view.getBigUint64(at - 8, true)
      : bytes === 4
      ? BigInt(view.getUint32(at - 4, true))
      : BigInt(bytes === 2 ? view.getUint16(at - 2, true) : data[at - 1]!);
  };
  const outcomes = cases.map((test): Outcome => {
    const first = Number(word(1));
    const vector = first & 0x7f;
    const rip = first === vector ? usualRip(test, vector) : word(8);
    const flags = Number(word(2));
    const error = hasError(vector) ? Number(word(2)) : 0;
    const cr2 = vector === 14 ? word(8) : 0n;
    const registers = visible(test, test.registers);
    const mask = Number(word(2));
    registers.forEach((_, n) => {
      if ((mask & (1 << n)) !== 0) {
        registers[n] = word(test.bits === 64 ? 8 : 4);
      }
    });
    const bytes = test.bytes.slice();
    const window = new DataView(bytes.buffer);
    for (let left = Number(word(2)); left > 0; left--) {
      const index = Number(word(2));
      window.setBigUint64(8 * index, word(8), true);
    }
    return { vector, error, cr2, rip, flags, registers, bytes };
  });
  if (at !== data.length) {
    throw new RangeError(`Cannot unpack outcomes: ${data.length} bytes`);
  }
  return outcomes;
}

function words(bytes: Uint8Array): bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from(
    { length: bytes.length / 8 },
    (_, n) => view.getBigUint64(8 * n, true),
  );
}
