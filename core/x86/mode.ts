import type { Cpu } from "./cpu.ts";
import {
  Attr,
  CR0,
  CR4,
  EFER,
  EFLAGS,
  Flag,
  MODE,
  Mode,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_WORDS,
  SHADOW,
  XCR0,
} from "./layout.ts";
import { Cr, selectTlb } from "./paging.ts";
import { debugControl } from "./watch.ts";

const CS_ATTR = SEG + Seg.CS * SEG_WORDS + SEG_ATTR;
const SS_ATTR = SEG + Seg.SS * SEG_WORDS + SEG_ATTR;

/** XCR0 bits for XMM registers and the upper halves of YMM registers. */
export const YMM_STATE = 6;

/** Base 0, limit 4 GiB, usable. */
function spansAll(i: Int32Array, seg: number): boolean {
  const at = SEG + seg * SEG_WORDS;
  return i[at + SEG_BASE] === 0 && i[at + SEG_LIMIT] === -1 &&
    (i[at + SEG_ATTR]! & Attr.Unusable) === 0;
}

/** As {@linkcode spansAll}, and writable data that grows up. */
function flatData(i: Int32Array, seg: number): boolean {
  const kind = i[SEG + seg * SEG_WORDS + SEG_ATTR]! &
    (Attr.Code | Attr.ExpandDown | Attr.Writable);
  return kind === Attr.Writable && spansAll(i, seg);
}

/**
 * Recomputes the mode key and the choice of TLBs. Called after whatever changes
 * control registers, segment registers, CPL, debug registers, the interrupt
 * shadow, or EFLAGS.TF, VM and AC.
 */
export function updateMode(cpu: Cpu): void {
  const i = cpu.i32;
  const flags = i[EFLAGS]!;
  const cs = i[CS_ATTR]!;
  const longActive = (i[EFER]! & Cr.LMA) !== 0;
  let mode = 0;
  if (longActive) mode |= Mode.LongActive;
  if (longActive && (cs & Attr.L) !== 0) mode |= Mode.Long;
  else {
    if ((cs & Attr.Db) !== 0) mode |= Mode.Code32;
    if (spansAll(i, Seg.CS)) mode |= Mode.FlatCode;
    if (
      flatData(i, Seg.DS) && flatData(i, Seg.ES) && flatData(i, Seg.SS)
    ) mode |= Mode.FlatData;
    if ((i[SS_ATTR]! & Attr.Db) !== 0) mode |= Mode.Stack32;
  }
  if ((i[CR0]! & Cr.PE) !== 0) {
    mode |= Mode.Protected;
    if ((flags & Flag.VM) !== 0) mode |= Mode.V86;
  }
  if (
    (mode & (Mode.Protected | Mode.V86)) === Mode.Protected &&
    (i[CR0]! & Cr.TS) === 0 && (i[CR4]! & Cr.OSXSAVE) !== 0 &&
    (i[XCR0]! & YMM_STATE) === YMM_STATE
  ) mode |= Mode.Avx;
  if ((i[CR0]! & (Cr.EM | Cr.TS)) === 0) {
    mode |= Mode.Mmx;
    if ((i[CR4]! & Cr.OSFXSR) !== 0) mode |= Mode.Sse;
  }
  if (
    (flags & Flag.TF) !== 0 || i[SHADOW] !== 0 || cpu.hostStep ||
    (debugControl(cpu) & 0xff) !== 0
  ) mode |= Mode.Single;
  i[MODE] = mode;
  selectTlb(cpu);
}
