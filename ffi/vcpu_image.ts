/**
 * All that KVM keeps of a vCPU, as the kernel's own structs.
 *
 * @module
 */
import type { KvmFile } from "./kvm_file.ts";
import { Size } from "./kvm_layout.ts";
import { type MsrValue, readMsrs, writeMsrs } from "./kvm_msrs.ts";

/** Structs in the order in which they are written: CR4 goes before what it allows. */
const PARTS = [
  { name: "sregs", size: Size.sregs, get: "GetSregs", set: "SetSregs" },
  { name: "xcrs", size: Size.xcrs, get: "GetXcrs", set: "SetXcrs" },
  { name: "xsave", size: Size.xsave, get: "GetXsave", set: "SetXsave" },
  { name: "regs", size: Size.regs, get: "GetRegs", set: "SetRegs" },
  {
    name: "debugregs",
    size: Size.debugregs,
    get: "GetDebugregs",
    set: "SetDebugregs",
  },
  {
    name: "mpState",
    size: Size.mpState,
    get: "GetMpState",
    set: "SetMpState",
  },
  {
    name: "events",
    size: Size.vcpuEvents,
    get: "GetVcpuEvents",
    set: "SetVcpuEvents",
  },
] as const;

/** A vCPU's state: structs by name, and MSRs. */
export type VcpuImage =
  & Record<typeof PARTS[number]["name"], Uint8Array<ArrayBuffer>>
  & { msrs: MsrValue[] };

/**
 * Copies a vCPU's state out.
 *
 * @throws {Error} If the kernel does not give it.
 */
export function readImage(vcpu: KvmFile, msrs: readonly number[]): VcpuImage {
  const image: Partial<VcpuImage> = { msrs: readMsrs(vcpu, msrs) };
  for (const { name, size, get } of PARTS) {
    const bytes = new Uint8Array(size);
    vcpu.pass("read vCPU state", get, bytes);
    image[name] = bytes;
  }
  return image as VcpuImage;
}

/**
 * Gives a vCPU state.
 *
 * @throws {Error} If the kernel refuses it.
 */
export function writeImage(vcpu: KvmFile, image: VcpuImage): void {
  for (const { name, set } of PARTS) {
    if (name === "events") writeMsrs(vcpu, image.msrs);
    vcpu.pass("write vCPU state", set, image[name]);
  }
}

/** Whether plain data is a vCPU's state. */
export function isImage(data: unknown): data is VcpuImage {
  if (typeof data !== "object" || data === null) return false;
  const image = data as Record<string, unknown>;
  return PARTS.every(({ name, size }) => {
    const part = image[name];
    return part instanceof Uint8Array && part.length === size;
  }) && Array.isArray(image["msrs"]) &&
    image["msrs"].every((msr: unknown) =>
      Array.isArray(msr) && typeof msr[0] === "number" &&
      typeof msr[1] === "bigint"
    );
}

/** A copy that shares nothing. */
export function copyImage(image: VcpuImage): VcpuImage {
  const copy: Partial<VcpuImage> = {
    msrs: image.msrs.map(([index, value]) => [index, value]),
  };
  for (const { name } of PARTS) copy[name] = new Uint8Array(image[name]);
  return copy as VcpuImage;
}
