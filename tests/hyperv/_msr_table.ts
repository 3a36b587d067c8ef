/**
 * The MSR table of Linux tools/testing/selftests/kvm/x86/hyperv_features.c: CPUID bits are added
 * one after the other and each MSR opens with its own.
 *
 * @module
 */
import type { LeafBit } from "./_partition.ts";

/** An access of an MSR by a guest, and what comes with it. */
export interface MsrRow {
  /** CPUID bits that come with this row. */
  add?: readonly LeafBit[];
  /** From this row on there is a SynIC. */
  synic?: true;
  msr: number;
  /** Absent: the MSR is read. */
  write?: bigint;
  /** Whether there is no #GP. */
  ok: boolean;
  /** Not read back after the write. */
  writeOnly?: true;
}

const R = (msr: number, ok: boolean, ...add: LeafBit[]): MsrRow => ({
  msr,
  ok,
  add,
});
const W = (
  msr: number,
  write: bigint,
  ok: boolean,
  ...add: LeafBit[]
): MsrRow => ({ msr, write, ok, add });

/** Stages 0 to 47. */
export const MSR_ROWS: readonly MsrRow[] = [
  R(0x4000_0000, false),
  R(0x4000_0001, false),
  W(0x4000_0000, 0x8100n << 48n, true, "03.EAX.5"),
  R(0x4000_0000, true),
  R(0x4000_0001, true),
  R(0x4000_0010, false),
  R(0x4000_0010, true, "03.EAX.0"),
  W(0x4000_0010, 1n, false),
  R(0x4000_0020, false),
  R(0x4000_0020, true, "03.EAX.1"),
  W(0x4000_0020, 1n, false),
  R(0x4000_0002, false),
  R(0x4000_0002, true, "03.EAX.6"),
  W(0x4000_0002, 1n, false),
  R(0x4000_0003, false),
  R(0x4000_0003, true, "03.EAX.7"),
  W(0x4000_0003, 0n, true),
  R(0x4000_0021, false),
  R(0x4000_0021, true, "03.EAX.9"),
  W(0x4000_0021, 0n, true),
  R(0x4000_0084, false),
  { ...R(0x4000_0084, false), synic: true },
  R(0x4000_0084, true, "03.EAX.2"),
  W(0x4000_0084, 0n, true),
  R(0x4000_00b0, false),
  R(0x4000_00b0, true, "03.EAX.3"),
  W(0x4000_00b0, 0n, true),
  W(0x4000_00b0, 0x1000n, false),
  W(0x4000_00b0, 0x1000n, true, "03.EDX.19"),
  R(0x4000_0070, false),
  { ...W(0x4000_0070, 1n, true, "03.EAX.4"), writeOnly: true },
  R(0x4000_0022, false),
  R(0x4000_0022, true, "03.EAX.11"),
  W(0x4000_0022, 1n, false),
  R(0x4000_0106, false),
  R(0x4000_0106, true, "03.EAX.13"),
  W(0x4000_0106, 1n, true),
  W(0x4000_0108, 1n, false),
  R(0x4000_0100, false),
  R(0x4000_0100, true, "03.EDX.10"),
  W(0x4000_0100, 1n, true),
  R(0x4000_00f2, false),
  R(0x4000_00f2, true, "03.EDX.11", "82.EAX.1"),
  W(0x4000_00f2, 0n, true),
  R(0x4000_0118, false),
  R(0x4000_0118, true, "03.EAX.15"),
  W(0x4000_0118, 0xdead_beefn, false),
  W(0x4000_0118, 1n, true),
];
