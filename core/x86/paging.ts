/**
 * Linear to guest-physical addresses (SDM volume 3A, chapter 4): 32-bit, PSE,
 * PAE and 4-level paging, with NX, WP, SMEP, SMAP, accessed and dirty bits.
 * 5-level paging and protection keys are not offered in CPUID.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { dropCode, pageHasCode } from "./code_map.ts";
import { faultCode, Vector } from "./fault.ts";
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  EFER,
  EFLAGS,
  Flag,
  PDPTE,
  TLB,
  TLB_ENTRIES,
  TLB_GEN,
  TLB_R,
  TLB_SET_WORDS,
  TLB_W,
  TLB_WORDS,
  TLB_X,
  TlbSet,
  WALK_GPA,
} from "./layout.ts";
import { watchedPage } from "./watch.ts";

/** Bits of a guest-physical address. CPUID 0x80000008 says the same. */
export const PHYSICAL_BITS = 40;
const PHYSICAL_HIGH = (1 << (PHYSICAL_BITS - 32)) - 1;

/** What an access is; the bits are those of the page-fault error code. */
export const Access = {
  Read: 0,
  Write: 2,
  User: 4,
  Fetch: 16,
} as const;

const P = 1, RW = 2, US = 4, A = 32, D = 64, PS = 128;
const RSVD = 8;

/** Bits of the control registers that matter here. */
export const Cr = {
  /** CR0. */
  PE: 1,
  MP: 2,
  EM: 4,
  TS: 8,
  ET: 16,
  NE: 32,
  WP: 0x1_0000,
  AM: 0x4_0000,
  NW: 0x2000_0000,
  CD: 0x4000_0000,
  PG: 0x8000_0000 | 0,
  /** CR4. */
  VME: 1,
  PVI: 2,
  TSD: 4,
  DE: 8,
  PSE: 16,
  PAE: 32,
  MCE: 64,
  PGE: 128,
  PCE: 256,
  OSFXSR: 512,
  OSXMMEXCPT: 1024,
  UMIP: 2048,
  FSGSBASE: 0x1_0000,
  PCIDE: 0x2_0000,
  OSXSAVE: 0x4_0000,
  SMEP: 0x10_0000,
  SMAP: 0x20_0000,
  /** EFER. */
  SCE: 1,
  LME: 256,
  LMA: 1024,
  NXE: 2048,
} as const;

/** Whether a 64-bit address with this high word is canonical for 4-level paging. */
export function canonical(high: number): boolean {
  return high >> 15 === high >> 31;
}

/** Forgets every cached translation. */
export function flushTlb(cpu: Cpu): void {
  const i = cpu.i32;
  const next = i[TLB_GEN]! + 1;
  if (next > 4095) {
    i.fill(0, TLB, TLB + 4 * TLB_SET_WORDS);
    i[TLB_GEN] = 1;
  } else i[TLB_GEN] = next;
}

/** Selects the TLBs for the current CPL, EFLAGS.AC and CR4.SMAP. */
export function selectTlb(cpu: Cpu): void {
  const i = cpu.i32;
  const user = i[CPL] === 3;
  const ac = (i[EFLAGS]! & Flag.AC) !== 0;
  let set: number = TlbSet.Supervisor;
  if (user) {
    set = ac && (i[CR0]! & Cr.AM) !== 0 ? TlbSet.None : TlbSet.User;
  } else if (ac && (i[CR4]! & Cr.SMAP) !== 0) set = TlbSet.SupervisorAc;
  const base = TLB + set * TLB_SET_WORDS;
  i[TLB_R] = base;
  i[TLB_W] = base + TLB_WORDS;
  // Alignment checks are not for fetches.
  i[TLB_X] = TLB + 2 * TLB_WORDS +
    (user ? TlbSet.User * TLB_SET_WORDS : set * TLB_SET_WORDS);
}

/** Raises #PF for a linear address. */
export function pageFault(
  cpu: Cpu,
  low: number,
  high: number,
  error: number,
): never {
  cpu.i32[CR2] = low;
  cpu.i32[CR2 + 1] = high;
  faultCode(cpu, Vector.PF, error);
}

/** A word of a paging structure; outside RAM the bus gives all ones. */
function entryWord(cpu: Cpu, gpa: number): number {
  return gpa + 4 <= cpu.ramSize ? cpu.dv.getInt32(cpu.ramBase + gpa, true) : -1;
}

function setEntryBits(cpu: Cpu, gpa: number, value: number): void {
  if (gpa + 4 > cpu.ramSize) return;
  cpu.dv.setInt32(cpu.ramBase + gpa, value, true);
  if (pageHasCode(cpu, gpa)) dropCode(cpu, gpa, 4);
}

/** Upper entries of the walk under way whose accessed bit is to be set if it succeeds. */
const UNACCESSED = new Float64Array(3);

/** 2^12 in a physical address from the words of an entry. */
function entryAddress(low: number, high: number): number {
  return ((high & PHYSICAL_HIGH) * 0x1_0000_0000) + ((low & -4096) >>> 0);
}

/**
 * Walks the paging structures. On success {@linkcode WALK_GPA} holds the address,
 * accessed and dirty bits are set (unless `probe`), and the result says with
 * bits {@linkcode Access.Write} and {@linkcode Access.Fetch} what else of the
 * same privilege the page allows right now with no further walk.
 *
 * @param access Bits of {@linkcode Access}.
 * @param probe No fault and no side effects: -1 where the access would fault.
 */
export function walk(
  cpu: Cpu,
  low: number,
  high: number,
  access: number,
  probe = false,
): number {
  const i = cpu.i32;
  const cr0 = i[CR0]!;
  if ((cr0 & Cr.PG) === 0) {
    i[WALK_GPA] = low;
    i[WALK_GPA + 1] = 0;
    return Access.Write | Access.Fetch;
  }
  const cr4 = i[CR4]!;
  const efer = i[EFER]!;
  const nxe = (efer & Cr.NXE) !== 0 && (cr4 & Cr.PAE) !== 0;
  const fail = (cause: number): number => {
    if (probe) return -1;
    let error = cause | (access & (Access.Write | Access.User));
    if ((access & Access.Fetch) !== 0 && (nxe || (cr4 & Cr.SMEP) !== 0)) {
      error |= Access.Fetch;
    }
    return pageFault(cpu, low, high, error);
  };
  let rights = RW | US;
  let noExecute = false;
  let entryLow = 0, entryHigh = 0, at = 0;
  let shift = 12;
  let unaccessed = 0;
  let gpa: number;
  if ((cr4 & Cr.PAE) === 0) {
    at = ((i[CR3]! & -4096) >>> 0) + ((low >>> 22) << 2);
    entryLow = entryWord(cpu, at);
    if ((entryLow & P) === 0) return fail(0);
    rights &= entryLow;
    if ((entryLow & PS) !== 0 && (cr4 & Cr.PSE) !== 0) {
      // PSE-36: bits 20:13 are address bits 39:32, bit 21 is reserved.
      if ((entryLow & 0x20_0000) !== 0) return fail(RSVD | P);
      shift = 22;
      gpa = ((entryLow >>> 13) & 255) * 0x1_0000_0000 +
        (((entryLow & 0xffc0_0000) | (low & 0x3f_ffff)) >>> 0);
    } else {
      if ((entryLow & A) === 0) UNACCESSED[unaccessed++] = at;
      at = ((entryLow & -4096) >>> 0) + (((low >>> 12) & 1023) << 2);
      entryLow = entryWord(cpu, at);
      if ((entryLow & P) === 0) return fail(0);
      rights &= entryLow;
      gpa = ((entryLow & -4096) | (low & 4095)) >>> 0;
    }
  } else {
    let level: number;
    let table: number;
    if ((efer & Cr.LMA) !== 0) {
      table = entryAddress(i[CR3]!, i[CR3 + 1]!);
      level = 3;
    } else {
      const n = low >>> 30;
      if ((i[PDPTE + 2 * n]! & P) === 0) return fail(0);
      table = entryAddress(i[PDPTE + 2 * n]!, i[PDPTE + 2 * n + 1]!);
      level = 1;
    }
    for (;;) {
      shift = 12 + 9 * level;
      const index = shift < 32
        ? ((low >>> shift) | (shift > 23 ? high << (32 - shift) : 0)) & 511
        : (high >>> (shift - 32)) & 511;
      at = table + index * 8;
      entryLow = entryWord(cpu, at);
      entryHigh = entryWord(cpu, at + 4);
      if ((entryLow & P) === 0) return fail(0);
      const large = (entryLow & PS) !== 0 && level > 0;
      let reserved = (entryHigh & 0xf_ffff & ~PHYSICAL_HIGH) !== 0;
      if ((entryHigh & 0x8000_0000) !== 0) {
        if (nxe) noExecute = true;
        else reserved = true;
      }
      // In PAE paging bits 62:52 are reserved too.
      if ((efer & Cr.LMA) === 0 && (entryHigh & 0x7ff0_0000) !== 0) {
        reserved = true;
      }
      if (large && level === 3) reserved = true;
      if (large && (entryLow & ((1 << shift) - 1) & ~0x1fff) !== 0) {
        reserved = true;
      }
      if (reserved) return fail(RSVD | P);
      rights &= entryLow;
      if (large || level === 0) break;
      if ((entryLow & A) === 0) UNACCESSED[unaccessed++] = at;
      table = entryAddress(entryLow, entryHigh);
      level--;
    }
    const mask = shift >= 30 ? 0x3fff_ffff : (1 << shift) - 1;
    gpa = (entryHigh & PHYSICAL_HIGH) * 0x1_0000_0000 +
      (((entryLow & ~mask & -4096) | (low & mask)) >>> 0);
  }

  const user = (access & Access.User) !== 0;
  const userPage = (rights & US) !== 0;
  let writable = (rights & RW) !== 0;
  if (user) {
    if (!userPage) return fail(P);
  } else {
    if ((cr0 & Cr.WP) === 0) writable = true;
    if (userPage) {
      if ((access & Access.Fetch) !== 0) {
        if ((cr4 & Cr.SMEP) !== 0) return fail(P);
      } else if (
        (cr4 & Cr.SMAP) !== 0 &&
        ((i[EFLAGS]! & Flag.AC) === 0 || (access & IMPLICIT) !== 0)
      ) return fail(P);
    }
  }
  if ((access & Access.Write) !== 0 && !writable) return fail(P);
  if ((access & Access.Fetch) !== 0 && noExecute) return fail(P);

  if (!probe) {
    for (let n = 0; n < unaccessed; n++) {
      const upper = UNACCESSED[n]!;
      setEntryBits(cpu, upper, entryWord(cpu, upper) | A);
    }
    const want = entryLow | A | ((access & Access.Write) !== 0 ? D : 0);
    if (want !== entryLow) setEntryBits(cpu, at, want);
    entryLow = want;
  }
  i[WALK_GPA] = gpa | 0;
  i[WALK_GPA + 1] = Math.floor(gpa / 0x1_0000_0000);
  return (writable && (entryLow & D) !== 0 ? Access.Write : 0) |
    (noExecute ? 0 : Access.Fetch);
}

/** Of an access: the CPU's own, to a descriptor table or TSS, with supervisor rights. */
export const IMPLICIT = 0x100;

/** The address that the last walk found, as a number. */
export function walkedAddress(cpu: Cpu): number {
  return (cpu.i32[WALK_GPA + 1]! >>> 0) * 0x1_0000_0000 +
    (cpu.i32[WALK_GPA]! >>> 0);
}

/**
 * Translates for an access of the current CPL (or {@linkcode IMPLICIT}) and
 * remembers the page in the TLB where RAM can be reached directly. Result:
 * the guest-physical address.
 */
export function translate(
  cpu: Cpu,
  low: number,
  high: number,
  access: number,
): number {
  const i = cpu.i32;
  const implicit = (access & IMPLICIT) !== 0;
  const user = i[CPL] === 3 && !implicit;
  const allowed = walk(
    cpu,
    low,
    high,
    access | (user ? Access.User : 0),
  );
  const gpa = walkedAddress(cpu);
  if (gpa >= cpu.ramSize || implicit) return gpa;
  const entry = ((low >>> 12) & (TLB_ENTRIES - 1)) << 2;
  const tag = (low & -4096) | i[TLB_GEN]!;
  const delta = (cpu.ramBase + gpa - low) | 0;
  if ((access & Access.Fetch) !== 0) {
    fill(i, i[TLB_X]! + entry, tag, high, delta);
    return gpa;
  }
  if (
    i[TLB_R] === TLB + TlbSet.None * TLB_SET_WORDS ||
    watchedPage(cpu, low, high)
  ) return gpa;
  fill(i, i[TLB_R]! + entry, tag, high, delta);
  if (
    (access & Access.Write) !== 0 && (allowed & Access.Write) !== 0 &&
    !pageHasCode(cpu, gpa)
  ) fill(i, i[TLB_W]! + entry, tag, high, delta);
  return gpa;
}

function fill(
  i: Int32Array,
  at: number,
  tag: number,
  high: number,
  delta: number,
): void {
  i[at] = tag;
  i[at + 1] = high;
  i[at + 2] = delta;
}

/**
 * Loads the four page-directory pointers of PAE paging (SDM volume 3A, 4.4.1).
 *
 * @returns False if one has reserved bits set; then none is changed.
 */
export function loadPdptes(cpu: Cpu, cr3: number): boolean {
  const i = cpu.i32;
  const table = (cr3 & ~31) >>> 0;
  const words: number[] = [];
  for (let n = 0; n < 8; n += 2) {
    const low = entryWord(cpu, table + 4 * n);
    const high = entryWord(cpu, table + 4 * n + 4);
    if (
      (low & P) !== 0 &&
      ((low & 0x1e6) !== 0 || (high & ~PHYSICAL_HIGH) !== 0)
    ) return false;
    words.push(low, high);
  }
  i.set(words, PDPTE);
  return true;
}
