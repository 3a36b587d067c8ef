import type { Cpu } from "./cpu.ts";
import {
  Cc,
  CC_OP,
  CR0,
  DR6,
  DR7,
  EFLAGS,
  FCW,
  FTW,
  GDTR,
  GPR,
  IDTR,
  MSR,
  MSR_APIC_BASE,
  MSR_PAT,
  MXCSR,
  RIP,
  SEG,
  Seg,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SEL,
  SEG_WORDS,
  STATE_BYTES,
  XCR0,
} from "./layout.ts";
import { Cr } from "./paging.ts";

/** Processor signature in EDX after RESET; CPUID leaf 1 says the same. */
export const SIGNATURE = 0x00a2_0f10;

/** Sets the running vCPU's state as after RESET (SDM volume 3A, table 9-1). */
export function reset(cpu: Cpu): void {
  const i = cpu.i32;
  i.fill(0, 0, STATE_BYTES >> 2);
  init(cpu);
  i[CR0] = 0x6000_0010;
  i[MSR_PAT] = 0x0007_0406;
  i[MSR_PAT + 1] = 0x0007_0406;
  // Enabled, at its usual place, of the bootstrap processor.
  i[MSR_APIC_BASE] = (0xfee0_0800 | (cpu.vcpu === 0 ? 0x100 : 0)) | 0;
  // All registers are 0 and valid, unlike after FNINIT.
  i[FCW] = 0x40;
  i[FTW] = 0xff;
  i[MXCSR] = 0x1f80;
  i[XCR0] = 1;
}

/** Sets it as after INIT: MSRs and what follows them in the layout stay, of CR0 only CD and NW. */
export function init(cpu: Cpu): void {
  const i = cpu.i32;
  const cache = i[CR0]! & (Cr.CD | Cr.NW);
  i.fill(0, 0, MSR);
  i[GPR + 4] = SIGNATURE;
  i[RIP] = 0xfff0;
  i[EFLAGS] = 2;
  i[CC_OP] = Cc.Explicit;
  i[CR0] = Cr.ET | cache;
  i[DR6] = 0xffff_0ff0 | 0;
  i[DR7] = 0x400;
  for (let seg = 0; seg < 6; seg++) {
    const at = SEG + seg * SEG_WORDS;
    i[at + SEG_LIMIT] = 0xffff;
    i[at + SEG_ATTR] = 0x93;
  }
  const cs = SEG + Seg.CS * SEG_WORDS;
  i[cs + SEG_SEL] = 0xf000;
  i[cs + SEG_BASE] = 0xffff_0000 | 0;
  i[cs + SEG_ATTR] = 0x9b;
  for (const [seg, attr] of [[Seg.LDTR, 0x82], [Seg.TR, 0x8b]] as const) {
    i[SEG + seg * SEG_WORDS + SEG_LIMIT] = 0xffff;
    i[SEG + seg * SEG_WORDS + SEG_ATTR] = attr;
  }
  i[GDTR + 2] = 0xffff;
  i[IDTR + 2] = 0xffff;
}
