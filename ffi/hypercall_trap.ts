/**
 * Hypercalls where KVM has no Hyper-V of its own. VMCALL and VMMCALL then belong to KVM and cannot be trapped; but what
 * a hypercall page holds is the hypervisor's affair, so ours holds a port write, which comes to us.
 *
 * @module
 */
import type { HypercallFrame } from "../core/backend.ts";
import { Regs, SegmentField, Sregs } from "./kvm_layout.ts";
import type { Struct } from "./struct.ts";

/** Port of {@linkcode HYPERCALL_CODE}: no device of a PC has it. */
export const HYPERCALL_PORT = 0xe4;
/**
 * `out 0xe4, eax; ret`: the same bytes in 32 and 64-bit code (and `out 0xe4, ax` in 16-bit code). It changes no register and no
 * flag, as the hypercall ABI wants it (TLFS 3.7); the results are written into the registers when it traps. Where the
 * guest's privilege does not allow port writes (CPL 3 with IOPL below 3) it raises #GP instead of #UD.
 */
export const HYPERCALL_CODE: readonly number[] = [
  0xe7,
  HYPERCALL_PORT,
  0xc3,
];
/** Length of the instruction in it that traps. */
export const HYPERCALL_LENGTH = 2;

/** Where `struct kvm_regs` has the registers of {@linkcode HypercallFrame.gpr}. */
const ORDER = [
  Regs.rax,
  Regs.rcx,
  Regs.rdx,
  Regs.rbx,
  Regs.rsp,
  Regs.rbp,
  Regs.rsi,
  Regs.rdi,
  Regs.r8,
  Regs.r9,
  Regs.r10,
  Regs.r11,
  Regs.r12,
  Regs.r13,
  Regs.r14,
  Regs.r15,
] as const;

/** Where the XSAVE area has XMM0 (SDM volume 1, 13.4.2). */
const XMM = 160;
const EFLAGS_VM = 1 << 17;
const CR0_PE = 1;
const EFER_LMA = 1 << 10;

/** The frame of a hypercall, filled from the kernel's structs. */
export class TrapFrame implements HypercallFrame {
  readonly vcpu: number;
  longMode = false;
  protectedMode = false;
  cpl = 0;
  readonly gpr: Uint32Array = new Uint32Array(32);
  readonly #readXsave: () => Uint8Array;

  /**
   * Makes the one frame of a vCPU.
   *
   * @param readXsave Gives the vCPU's XSAVE area, for calls with input in XMM registers.
   */
  constructor(vcpu: number, readXsave: () => Uint8Array) {
    this.vcpu = vcpu;
    this.#readXsave = readXsave;
  }

  /** XMM0 to XMM5, read from the kernel each time. */
  get xmm(): Uint8Array {
    return this.#readXsave().subarray(XMM, XMM + 6 * 16);
  }

  /** Takes registers in. */
  load(regs: Struct, sregs: Struct): void {
    ORDER.forEach((at, n) => {
      this.gpr[2 * n] = regs.view.getUint32(at, true);
      this.gpr[2 * n + 1] = regs.view.getUint32(at + 4, true);
    });
    const { view } = sregs;
    const v86 = (regs.view.getUint32(Regs.rflags, true) & EFLAGS_VM) !== 0;
    this.protectedMode = (view.getUint32(Sregs.cr0, true) & CR0_PE) !== 0 &&
      !v86;
    // The DPL of SS is the CPL (SDM volume 3A, 5.5).
    this.cpl = !this.protectedMode
      ? (v86 ? 3 : 0)
      : view.getUint8(Sregs.ss + SegmentField.dpl);
    this.longMode = (view.getUint32(Sregs.efer, true) & EFER_LMA) !== 0 &&
      view.getUint8(Sregs.cs + SegmentField.l) !== 0;
  }

  /** Linear address of the instruction before RIP, if it has the length of ours. */
  instruction(regs: Struct, sregs: Struct): bigint {
    const base = this.longMode
      ? 0n
      : sregs.view.getBigUint64(Sregs.cs + SegmentField.base, true);
    const rip = regs.view.getBigUint64(Regs.rip, true);
    return BigInt.asUintN(64, base + rip - BigInt(HYPERCALL_LENGTH));
  }

  /** Puts the general registers back. */
  store(regs: Struct): void {
    ORDER.forEach((at, n) => {
      regs.view.setUint32(at, this.gpr[2 * n]!, true);
      regs.view.setUint32(at + 4, this.gpr[2 * n + 1]!, true);
    });
  }
}
