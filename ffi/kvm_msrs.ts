import type { KvmFile } from "./kvm_file.ts";
import { MsrEntry, MsrList, Msrs, Size } from "./kvm_layout.ts";
import { Struct } from "./struct.ts";

/** An MSR and its value. */
export type MsrValue = [index: number, value: bigint];

/** More than any kernel lists. */
const CAPACITY = 1024;

/**
 * MSRs that make up a vCPU's state.
 *
 * @param kvm `/dev/kvm`.
 * @throws {Error} If the kernel does not give the list.
 */
export function listMsrs(kvm: KvmFile): number[] {
  const { bytes, view } = new Struct(Size.msrList + 4 * CAPACITY);
  view.setUint32(MsrList.nmsrs, CAPACITY, true);
  kvm.pass("list MSRs", "GetMsrIndexList", bytes);
  const count = Math.min(CAPACITY, view.getUint32(MsrList.nmsrs, true));
  return Array.from(
    { length: count },
    (_, n) => view.getUint32(MsrList.indices + 4 * n, true),
  );
}

/** Reads MSRs as the host. Those that the vCPU does not have are left out. */
export function readMsrs(
  vcpu: KvmFile,
  indices: readonly number[],
): MsrValue[] {
  const values: MsrValue[] = [];
  for (let next = 0; next < indices.length;) {
    const part = indices.slice(next);
    const { bytes, view } = msrsStruct(part.map((index) => [index, 0n]));
    // The kernel stops at the first that it refuses.
    const done = Math.max(0, vcpu.try("GetMsrs", bytes));
    for (let n = 0; n < done; n++) {
      const at = Msrs.entries + n * Size.msrEntry + MsrEntry.data;
      values.push([part[n]!, view.getBigUint64(at, true)]);
    }
    next += done === part.length ? done : done + 1;
  }
  return values;
}

/** Writes MSRs as the host, without those that the vCPU refuses: how many it took. */
export function writeMsrs(vcpu: KvmFile, values: readonly MsrValue[]): number {
  let taken = 0;
  for (let next = 0; next < values.length;) {
    const part = values.slice(next);
    const done = Math.max(0, vcpu.try("SetMsrs", msrsStruct(part).bytes));
    taken += done;
    next += done === part.length ? done : done + 1;
  }
  return taken;
}

/** `struct kvm_msrs` with entries. */
export function msrsStruct(values: readonly MsrValue[]): Struct {
  const struct = new Struct(Size.msrs + values.length * Size.msrEntry);
  struct.view.setUint32(Msrs.nmsrs, values.length, true);
  values.forEach(([index, value], n) => {
    const at = Msrs.entries + n * Size.msrEntry;
    struct.view.setUint32(at + MsrEntry.index, index, true);
    struct.view.setBigUint64(at + MsrEntry.data, value, true);
  });
  return struct;
}
