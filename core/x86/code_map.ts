/**
 * Which bytes of RAM have been decoded, and what happens when they change. A
 * page with decoded code is kept out of the write TLBs, so that stores to
 * it take the slow path, and there a map of 64-byte chunks tells code from data.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { CODE_GEN, CODE_MAP, PAGE_GEN } from "./layout.ts";
import { flushTlb } from "./paging.ts";

/** Whether code was decoded from the page of a guest-physical address in RAM. */
export function pageHasCode(cpu: Cpu, gpa: number): boolean {
  const at = CODE_MAP + ((gpa >>> 12) << 1);
  return (cpu.i32[at]! | cpu.i32[at + 1]!) !== 0;
}

/** Marks bytes as decoded; they are all in RAM and in one page. */
export function markCode(cpu: Cpu, gpa: number, length: number): void {
  const i = cpu.i32;
  const at = CODE_MAP + ((gpa >>> 12) << 1);
  // Translations for writing to the page may be cached: from now on they must miss.
  if ((i[at]! | i[at + 1]!) === 0) flushTlb(cpu);
  const last = ((gpa + length - 1) & 4095) >>> 6;
  for (let chunk = (gpa & 4095) >>> 6; chunk <= last; chunk++) {
    const word = at + (chunk >>> 5);
    i[word] = i[word]! | (1 << (chunk & 31));
  }
}

/**
 * Drops the code of a page if a store of `length` bytes touched any.
 *
 * @returns Whether it did.
 */
export function dropCode(cpu: Cpu, gpa: number, length: number): boolean {
  const i = cpu.i32;
  const page = gpa >>> 12;
  const at = CODE_MAP + (page << 1);
  const last = Math.min(4095, (gpa & 4095) + length - 1) >>> 6;
  for (let chunk = (gpa & 4095) >>> 6; chunk <= last; chunk++) {
    if ((i[at + (chunk >>> 5)]! & (1 << (chunk & 31))) !== 0) {
      i[at] = 0;
      i[at + 1] = 0;
      i[PAGE_GEN + page] = i[PAGE_GEN + page]! + 1;
      i[CODE_GEN] = i[CODE_GEN]! + 1;
      return true;
    }
  }
  return false;
}

/** Drops code in a range of any length that the host wrote to. */
export function dropCodeRange(cpu: Cpu, gpa: number, length: number): void {
  const end = gpa + length;
  while (gpa < end) {
    const next = Math.min(end, gpa - (gpa % 4096) + 4096);
    if (pageHasCode(cpu, gpa)) dropCode(cpu, gpa, next - gpa);
    gpa = next;
  }
}
