/**
 * The CPU's own MSRs (SDM volume 4; APM volume 2, appendix A). All others are the host's.
 *
 * @module
 */
import { MsrResult } from "../backend.ts";
import type { Cpu } from "./cpu.ts";
import {
  EFER,
  MSR_APIC_BASE,
  MSR_CSTAR,
  MSR_FMASK,
  MSR_KERNEL_GS_BASE,
  MSR_LSTAR,
  MSR_MISC_ENABLE,
  MSR_MTRR,
  MSR_MTRR_DEF_TYPE,
  MSR_PAT,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  MSR_SYSENTER_ESP,
  MSR_TSC_AUX,
  SEG,
  Seg,
  SEG_BASE,
  SEG_WORDS,
  TSC_OFFSET,
} from "./layout.ts";
import { updateMode } from "./mode.ts";
import { canonical, Cr, flushTlb, PHYSICAL_BITS } from "./paging.ts";
import { CR0 } from "./layout.ts";

const TWO32 = 0x1_0000_0000;
const FS_BASE = SEG + Seg.FS * SEG_WORDS + SEG_BASE;
const GS_BASE = SEG + Seg.GS * SEG_WORDS + SEG_BASE;

/** The TSC of the running vCPU: `out[0]` low, `out[1]` high word, unsigned. */
export function readTsc(cpu: Cpu, out: Uint32Array): void {
  tscOf(cpu.i32, cpu.clock(), out);
}

/** The TSC of the vCPU whose state is in `i` at a time of the clock. */
export function tscOf(i: Int32Array, time: number, out: Uint32Array): void {
  // The clock stays far below 2^53; the offset is any 64-bit number.
  const now = Math.floor(time);
  const low = (now % TWO32) + (i[TSC_OFFSET]! >>> 0);
  out[0] = low >= TWO32 ? low - TWO32 : low;
  out[1] = Math.floor(now / TWO32) + i[TSC_OFFSET + 1]! +
    (low >= TWO32 ? 1 : 0);
}

function writeTsc(cpu: Cpu, low: number, high: number): void {
  const i = cpu.i32;
  const now = Math.floor(cpu.clock());
  const difference = (low >>> 0) - (now % TWO32);
  i[TSC_OFFSET] = difference < 0 ? difference + TWO32 : difference;
  i[TSC_OFFSET + 1] = high - Math.floor(now / TWO32) -
    (difference < 0 ? 1 : 0);
}

/** Where a plainly stored MSR is kept, or -1. */
function stored(index: number): number {
  switch (index) {
    case 0x174:
      return MSR_SYSENTER_CS;
    case 0x175:
      return MSR_SYSENTER_ESP;
    case 0x176:
      return MSR_SYSENTER_EIP;
    case 0x1a0:
      return MSR_MISC_ENABLE;
    case 0x277:
      return MSR_PAT;
    case 0x2ff:
      return MSR_MTRR_DEF_TYPE;
    case 0x1b:
      return MSR_APIC_BASE;
    case 0xc000_0081:
      return MSR_STAR;
    case 0xc000_0082:
      return MSR_LSTAR;
    case 0xc000_0083:
      return MSR_CSTAR;
    case 0xc000_0084:
      return MSR_FMASK;
    case 0xc000_0100:
      return FS_BASE;
    case 0xc000_0101:
      return GS_BASE;
    case 0xc000_0102:
      return MSR_KERNEL_GS_BASE;
    case 0xc000_0103:
      return MSR_TSC_AUX;
  }
  if (index >= 0x200 && index <= 0x20f) return MSR_MTRR + 2 * (index - 0x200);
  if (index === 0x250) return MSR_MTRR + 32;
  if (index === 0x258 || index === 0x259) {
    return MSR_MTRR + 34 + 2 * (index - 0x258);
  }
  if (index >= 0x268 && index <= 0x26f) {
    return MSR_MTRR + 38 + 2 * (index - 0x268);
  }
  return -1;
}

/** Registers that read as a constant; writes to those marked are accepted and ignored. */
function constant(index: number): number {
  switch (index) {
    case 0xfe: // IA32_MTRRCAP: 8 variable ranges, fixed ranges, WC
      return 0x508;
    case 0xc001_0015: // HWCR: the TSC counts at the frequency of P0
      return 0x100_0000;
    case 0x17: // IA32_PLATFORM_ID
    case 0x8b: // IA32_BIOS_SIGN_ID
    case 0x179: // IA32_MCG_CAP: no banks
    case 0xc001_001f: // NB_CFG
    case 0xc001_0010: // SYSCFG
    case 0xc001_1029: // DE_CFG
      return 0;
    default:
      return -1;
  }
}

/** Whether a memory type is valid in IA32_PAT (SDM volume 3A, 12.12.2). */
function patType(type: number): boolean {
  return type === 0 || type === 1 || (type >= 4 && type <= 7);
}

/** Reads one of the CPU's own MSRs. False: it has none of this number. */
export function readOwnMsr(
  cpu: Cpu,
  index: number,
  out: Uint32Array,
): boolean {
  const i = cpu.i32;
  if (index === 0x10) {
    readTsc(cpu, out);
    return true;
  }
  if (index === 0xc000_0080) {
    out[0] = i[EFER]!;
    out[1] = 0;
    return true;
  }
  const at = stored(index);
  if (at >= 0) {
    out[0] = i[at]!;
    out[1] = i[at + 1]!;
    return true;
  }
  const value = constant(index);
  if (value < 0) return false;
  out[0] = value;
  out[1] = 0;
  return true;
}

/** Reserved bits of IA32_APIC_BASE, and the one that switches x2APIC mode on. */
const APIC_BASE_RESERVED = 0x2ff;
const APIC_BASE_X2APIC = 0x400;

/** IA32_APIC_BASE: the local APIC is the host's, which has a say. */
function apicBaseAllowed(cpu: Cpu, low: number, high: number): boolean {
  if (
    (high >>> (PHYSICAL_BITS - 32)) !== 0 || (low & APIC_BASE_RESERVED) !== 0
  ) return false;
  const { host, vcpu } = cpu;
  const result = host.writeMsr(vcpu, 0x1b, low >>> 0, high >>> 0);
  return result === MsrResult.Handled ||
    (result === MsrResult.Unknown && (low & APIC_BASE_X2APIC) === 0);
}

/** What {@linkcode writeOwnMsr} made of a write. */
export const OwnMsr = { Done: 0, Unknown: 1, Refused: 2 } as const;

/** Writes one of the CPU's own MSRs as the guest may: a value of {@linkcode OwnMsr}. */
export function guestWriteOwnMsr(
  cpu: Cpu,
  index: number,
  low: number,
  high: number,
): number {
  const i = cpu.i32;
  switch (index) {
    case 0xc000_0080: {
      const allowed = Cr.SCE | Cr.LME | Cr.LMA | Cr.NXE;
      if (high !== 0 || (low & ~allowed) !== 0) return OwnMsr.Refused;
      if (((low ^ i[EFER]!) & Cr.LME) !== 0 && (i[CR0]! & Cr.PG) !== 0) {
        return OwnMsr.Refused;
      }
      i[EFER] = (low & ~Cr.LMA) | (i[EFER]! & Cr.LMA);
      flushTlb(cpu);
      return OwnMsr.Done;
    }
    case 0x175:
    case 0x176:
    case 0xc000_0082:
    case 0xc000_0083:
    case 0xc000_0100:
    case 0xc000_0101:
    case 0xc000_0102:
      if (!canonical(high)) return OwnMsr.Refused;
      break;
    case 0xc000_0084:
    case 0xc000_0103:
      if (high !== 0) return OwnMsr.Refused;
      break;
    case 0x277:
      for (let n = 0; n < 4; n++) {
        if (!patType((low >>> (8 * n)) & 255)) return OwnMsr.Refused;
        if (!patType((high >>> (8 * n)) & 255)) return OwnMsr.Refused;
      }
      break;
    case 0x1b:
      if (!apicBaseAllowed(cpu, low, high)) return OwnMsr.Refused;
      break;
  }
  return writeOwnMsr(cpu, index, low, high) ? OwnMsr.Done : OwnMsr.Unknown;
}

/** Writes one of the CPU's own MSRs as the host, with no checks. False: it has none such. */
export function writeOwnMsr(
  cpu: Cpu,
  index: number,
  low: number,
  high: number,
): boolean {
  const i = cpu.i32;
  if (index === 0x10) {
    writeTsc(cpu, low, high);
    return true;
  }
  if (index === 0xc000_0080) {
    i[EFER] = low;
    updateMode(cpu);
    return true;
  }
  const at = stored(index);
  if (at >= 0) {
    i[at] = low;
    i[at + 1] = high;
    return true;
  }
  // IA32_BIOS_SIGN_ID and AMD's configuration registers take writes and forget them.
  return index !== 0xfe && constant(index) >= 0;
}
