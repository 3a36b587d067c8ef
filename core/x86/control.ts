/**
 * Control and debug registers and XCR0 (SDM volume 3A, 2.5 and 2.6; volume 3B, 18.2).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { FAULT, fault, gp0, undefinedOpcode, Vector } from "./fault.ts";
import {
  Attr,
  CR0,
  CR2,
  CR3,
  CR4,
  CR8,
  DR,
  DR6,
  DR7,
  EFER,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  HIGH,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_WORDS,
  XCR0,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { Cr, flushTlb, loadPdptes, PHYSICAL_BITS } from "./paging.ts";
import { setDebugStatus } from "./watch.ts";

const CS_ATTR = SEG + Seg.CS * SEG_WORDS + SEG_ATTR;
const TR_ATTR = SEG + Seg.TR * SEG_WORDS + SEG_ATTR;

const CR0_BITS = Cr.PE | Cr.MP | Cr.EM | Cr.TS | Cr.ET | Cr.NE | Cr.WP |
  Cr.AM | Cr.NW | Cr.CD | Cr.PG;
/** CR4 bits of features that CPUID shows. */
const CR4_BITS = Cr.TSD | Cr.DE | Cr.PSE | Cr.PAE | Cr.MCE | Cr.PGE | Cr.PCE |
  Cr.OSFXSR | Cr.OSXMMEXCPT | Cr.OSXSAVE | Cr.UMIP | Cr.FSGSBASE | Cr.PCIDE |
  Cr.SMEP | Cr.SMAP;

/** Sets CR0 with all its checks. */
export function setCr0(cpu: Cpu, value: number): void {
  const i = cpu.i32;
  const old = i[CR0]!;
  // Reserved bits below 32 are ignored (SDM volume 3A, 2.5).
  const next = (value & CR0_BITS) | Cr.ET;
  if ((next & Cr.PG) !== 0 && (next & Cr.PE) === 0) gp0(cpu);
  if ((next & Cr.NW) !== 0 && (next & Cr.CD) === 0) gp0(cpu);
  const wasPaging = (old & Cr.PG) !== 0;
  const paging = (next & Cr.PG) !== 0;
  const cr4 = i[CR4]!;
  if (paging && !wasPaging) {
    if ((i[EFER]! & Cr.LME) !== 0) {
      if ((cr4 & Cr.PAE) === 0 || (i[CS_ATTR]! & Attr.L) !== 0) gp0(cpu);
      // A 16-bit TSS may not be in force (APM volume 2, 14.6.1).
      if ((i[TR_ATTR]! & (Attr.Unusable | 8)) === 0 && trIsTss(cpu)) gp0(cpu);
      i[EFER] = i[EFER]! | Cr.LMA;
    } else if ((cr4 & Cr.PAE) !== 0 && !loadPdptes(cpu, i[CR3]!)) gp0(cpu);
  } else if (!paging && wasPaging) {
    if ((cr4 & Cr.PCIDE) !== 0) gp0(cpu);
    if ((i[EFER]! & Cr.LMA) !== 0) {
      if ((i[CS_ATTR]! & Attr.L) !== 0) gp0(cpu);
      i[EFER] = i[EFER]! & ~Cr.LMA;
    }
  } else if (
    paging && (cr4 & Cr.PAE) !== 0 && (i[EFER]! & Cr.LMA) === 0 &&
    ((old ^ next) & (Cr.CD | Cr.NW)) !== 0 && !loadPdptes(cpu, i[CR3]!)
  ) gp0(cpu);
  i[CR0] = next;
  if (((old ^ next) & (Cr.PG | Cr.WP | Cr.PE)) !== 0) flushTlb(cpu);
  updateMode(cpu);
}

function trIsTss(cpu: Cpu): boolean {
  return (cpu.i32[TR_ATTR]! & (Attr.S | Attr.Present | 7)) ===
    (Attr.Present | 1);
}

/** Sets CR3; with PCIDs bit 63 asks for no flush, which flushing satisfies too. */
export function setCr3(cpu: Cpu, low: number, high: number): void {
  const i = cpu.i32;
  const long = (i[EFER]! & Cr.LMA) !== 0;
  if (long) {
    let reserved = high & ~((1 << (PHYSICAL_BITS - 32)) - 1);
    if ((i[CR4]! & Cr.PCIDE) !== 0) reserved &= 0x7fff_ffff;
    if (reserved !== 0) gp0(cpu);
    i[CR3 + 1] = high & 0x7fff_ffff;
  } else {
    if (
      (i[CR0]! & Cr.PG) !== 0 && (i[CR4]! & Cr.PAE) !== 0 &&
      !loadPdptes(cpu, low)
    ) gp0(cpu);
    i[CR3 + 1] = 0;
  }
  i[CR3] = low;
  flushTlb(cpu);
}

/** Sets CR4 with all its checks. */
export function setCr4(cpu: Cpu, low: number, high: number): void {
  const i = cpu.i32;
  const old = i[CR4]!;
  if (high !== 0 || (low & ~CR4_BITS) !== 0) gp0(cpu);
  const long = (i[EFER]! & Cr.LMA) !== 0;
  if (long && (low & Cr.PAE) === 0) gp0(cpu);
  if ((low & Cr.PCIDE) !== 0 && (old & Cr.PCIDE) === 0) {
    if (!long || (i[CR3]! & 0xfff) !== 0) gp0(cpu);
  }
  const paePaging = (i[CR0]! & Cr.PG) !== 0 && (low & Cr.PAE) !== 0 && !long;
  if (
    paePaging && ((old ^ low) & (Cr.PAE | Cr.PGE | Cr.PSE | Cr.SMEP)) !== 0 &&
    !loadPdptes(cpu, i[CR3]!)
  ) gp0(cpu);
  i[CR4] = low;
  flushTlb(cpu);
  updateMode(cpu);
}

/** Reads a control register: low word, high word in HIGH. #UD for those that are none. */
export function readControl(cpu: Cpu, number: number): number {
  const i = cpu.i32;
  i[HIGH] = 0;
  switch (number) {
    case 0:
      return i[CR0]!;
    case 2:
      i[HIGH] = i[CR2 + 1]!;
      return i[CR2]!;
    case 3:
      i[HIGH] = i[CR3 + 1]!;
      return i[CR3]!;
    case 4:
      return i[CR4]!;
    case 8:
      return i[CR8]!;
    default:
      undefinedOpcode(cpu);
  }
}

/** Writes a control register. #UD for those that are none. */
export function writeControl(
  cpu: Cpu,
  number: number,
  low: number,
  high: number,
): void {
  const i = cpu.i32;
  switch (number) {
    case 0:
      if (high !== 0) gp0(cpu);
      setCr0(cpu, low);
      return;
    case 2:
      i[CR2] = low;
      i[CR2 + 1] = high;
      return;
    case 3:
      setCr3(cpu, low, high);
      return;
    case 4:
      setCr4(cpu, low, high);
      return;
    case 8:
      if (high !== 0 || (low & ~15) !== 0) gp0(cpu);
      i[CR8] = low;
      cpu.host.setTaskPriority?.(cpu.vcpu, low);
      return;
    default:
      undefinedOpcode(cpu);
  }
}

/** DR7.GD: an access to a debug register raises #DB with DR6.BD. */
function checkDebugAccess(cpu: Cpu, number: number): number {
  const i = cpu.i32;
  let n = number;
  if (n === 4 || n === 5) {
    if ((i[CR4]! & Cr.DE) !== 0) undefinedOpcode(cpu);
    n += 2;
  }
  if (n > 7) undefinedOpcode(cpu);
  if ((i[DR7]! & 0x2000) !== 0) {
    setDebugStatus(cpu, 0x2000);
    i[DR7] = i[DR7]! & ~0x2000;
    i[FAULT_VECTOR] = Vector.DB;
    i[FAULT_HAS_ERROR] = 0;
    throw FAULT;
  }
  return n;
}

/** Reads a debug register: low word, high word in HIGH. */
export function readDebug(cpu: Cpu, number: number): number {
  const i = cpu.i32;
  const n = checkDebugAccess(cpu, number);
  i[HIGH] = 0;
  if (n === 6) return i[DR6]!;
  if (n === 7) return i[DR7]!;
  i[HIGH] = i[DR + 2 * n + 1]!;
  return i[DR + 2 * n]!;
}

/** Writes a debug register. */
export function writeDebug(
  cpu: Cpu,
  number: number,
  low: number,
  high: number,
): void {
  const i = cpu.i32;
  const n = checkDebugAccess(cpu, number);
  if (n >= 6) {
    if (high !== 0) gp0(cpu);
    if (n === 6) i[DR6] = (low & 0xe00f) | 0xffff_0ff0;
    else i[DR7] = (low & ~0xd800) | 0x400;
  } else {
    i[DR + 2 * n] = low;
    i[DR + 2 * n + 1] = high;
  }
  // Pages with data breakpoints must miss in the TLB.
  flushTlb(cpu);
  updateMode(cpu);
}

/** LMSW: sets PE (never clears it), MP, EM and TS. */
export function loadMachineStatus(cpu: Cpu, value: number): void {
  const old = cpu.i32[CR0]!;
  setCr0(cpu, (old & ~14) | (value & 15) | (old & Cr.PE));
}

/** XSETBV of XCR0. */
export function setXcr0(cpu: Cpu, low: number, high: number): void {
  if (high !== 0 || (low & 1) === 0 || (low & ~7) !== 0 || (low & 6) === 4) {
    gp0(cpu);
  }
  cpu.i32[XCR0] = low;
  updateMode(cpu);
}

/** Bytes of the XSAVE area that has room for components (bits as in XCR0), compacted or not. */
export function saveAreaSize(components: number): number {
  // Legacy region and header, and the upper halves of 16 YMM registers.
  return (components & 4) !== 0 ? 832 : 576;
}

/** #UD unless CR4.OSXSAVE is set. */
export function checkOsxsave(cpu: Cpu): void {
  if ((cpu.i32[CR4]! & Cr.OSXSAVE) === 0) fault(cpu, Vector.UD);
}
