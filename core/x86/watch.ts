/**
 * Data breakpoints (SDM volume 3B, 18.2): DR0 to DR3 with RW 1 or 3. Pages
 * with one are kept out of the TLBs, so only accesses there pay for the test.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { DR, DR6, DR7, Event, EVENTS, PENDING_DB } from "./layout.ts";

/** Whether DR7 in force enables breakpoint n, locally or globally. */
function enabled(dr7: number, n: number): boolean {
  return ((dr7 >>> (2 * n)) & 3) !== 0;
}

/** DR7 in force: the host's while it debugs, else the guest's. */
export function debugControl(cpu: Cpu): number {
  return cpu.hostDebugRegisters?.dr7 ?? cpu.i32[DR7]!;
}

/** Puts the conditions of a #DB into DR6: bits 0 to 3 are replaced, the others stay until cleared. */
export function setDebugStatus(cpu: Cpu, conditions: number): void {
  cpu.i32[DR6] = (cpu.i32[DR6]! & ~15) | conditions;
}

/** Bytes that breakpoint n watches: 1, 2, 8 or 4. */
function watchedLength(dr7: number, n: number): number {
  return [1, 2, 8, 4][(dr7 >>> (18 + 4 * n)) & 3]!;
}

function addressLow(cpu: Cpu, n: number): number {
  const host = cpu.hostDebugRegisters;
  return host
    ? Number(BigInt.asIntN(32, host.addresses[n] ?? 0n))
    : cpu.i32[DR + 2 * n]!;
}

function addressHigh(cpu: Cpu, n: number): number {
  const host = cpu.hostDebugRegisters;
  return host
    ? Number(BigInt.asIntN(32, (host.addresses[n] ?? 0n) >> 32n))
    : cpu.i32[DR + 2 * n + 1]!;
}

/** Whether a data breakpoint lies in the page of a linear address. */
export function watchedPage(cpu: Cpu, low: number, high: number): boolean {
  const dr7 = debugControl(cpu);
  if ((dr7 & 0xff) === 0) return false;
  for (let n = 0; n < 4; n++) {
    if (!enabled(dr7, n) || ((dr7 >>> (16 + 4 * n)) & 1) === 0) continue;
    if (
      ((addressLow(cpu, n) ^ low) & -4096) === 0 && addressHigh(cpu, n) === high
    ) return true;
  }
  return false;
}

/** Notes the data breakpoints that an access hits, for a #DB after the instruction. */
export function watchAccess(
  cpu: Cpu,
  low: number,
  high: number,
  size: number,
  write: boolean,
): void {
  const dr7 = debugControl(cpu);
  if ((dr7 & 0xff) === 0) return;
  for (let n = 0; n < 4; n++) {
    const kind = (dr7 >>> (16 + 4 * n)) & 3;
    if (!enabled(dr7, n) || (kind !== 3 && !(kind === 1 && write))) continue;
    if (addressHigh(cpu, n) !== high) continue;
    const length = watchedLength(dr7, n);
    const first = (addressLow(cpu, n) & ~(length - 1)) >>> 0;
    const start = low >>> 0;
    if (start < first + length && first < start + size) {
      cpu.i32[PENDING_DB] = cpu.i32[PENDING_DB]! | (1 << n);
      cpu.i32[EVENTS] = cpu.i32[EVENTS]! | Event.Debug;
    }
  }
}

/** Conditions (DR6 bits 0 to 3) of instruction breakpoints at a linear address. */
export function watchFetch(cpu: Cpu, low: number, high: number): number {
  const dr7 = debugControl(cpu);
  let hit = 0;
  for (let n = 0; n < 4; n++) {
    if (
      enabled(dr7, n) && ((dr7 >>> (16 + 4 * n)) & 3) === 0 &&
      addressLow(cpu, n) === low && addressHigh(cpu, n) === high
    ) hit |= 1 << n;
  }
  return hit;
}
