/**
 * 64-bit registers as pairs of 32-bit words, low word first.
 *
 * @module
 */
import { MsrResult } from "../core/backend.ts";

/** The number that two words make, unsigned. */
export function pair(low: number, high: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

/** Low word of a number, unsigned. */
export function lowWord(value: bigint): number {
  return Number(BigInt.asUintN(32, value));
}

/** High word of a 64-bit number, unsigned. */
export function highWord(value: bigint): number {
  return Number(BigInt.asUintN(32, value >> 32n));
}

/** Gives a number as what RDMSR reads. */
export function put(value: Uint32Array, number: bigint): MsrResult {
  value[0] = lowWord(number);
  value[1] = highWord(number);
  return MsrResult.Handled;
}

/** The page that a register names: bits 63 to 12 (not exact from 2^53 on, which is no RAM). */
export function pageOf(low: number, high: number): number {
  return (high >>> 0) * 0x1_0000_0000 + ((low & -4096) >>> 0);
}

/** Whether a value is an array of `length` 32-bit words, signed. */
export function isWords(value: unknown, length: number): value is number[] {
  return Array.isArray(value) && value.length === length &&
    value.every((word) => Number.isInteger(word) && (word | 0) === word);
}
