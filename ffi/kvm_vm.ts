import type { Vcpu, VmHost } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { KvmFile, openDevice } from "./kvm_file.ts";
import {
  Cap,
  EnableCap,
  MemoryRegion,
  MsrExitReason,
  MsrFilter,
  MsrFilterFlag,
  MsrFilterRange,
  Size,
} from "./kvm_layout.ts";
import type { HypervHandler } from "../hyperv/defs/kernel_exits.ts";
import type { HypervMode, KvmFacts, KvmOptions, KvmVm } from "./kvm_options.ts";
import { KvmVcpu } from "./kvm_vcpu.ts";
import { Struct } from "./struct.ts";
import type { SystemCalls } from "./system_calls.ts";

/** First synthetic MSR, and how many numbers belong to them (TLFS appendix F). */
export const SYNTHETIC_MSRS = { first: 0x4000_0000, count: 0x200 } as const;

// Where VMX keeps four pages of its own, above any RAM and below the firmware (as QEMU places them).
const IDENTITY_MAP = 0xfeff_c000n;
const TSS = 0xfeff_d000;

/** Enables a capability of a VM or a vCPU. */
export function enableCap(
  file: KvmFile,
  action: string,
  cap: number,
  argument: number,
): void {
  const { bytes, view } = new Struct(Size.enableCap);
  view.setUint32(EnableCap.cap, cap, true);
  view.setUint32(EnableCap.args, argument, true);
  file.pass(action, "EnableCap", bytes);
}

/** A VM: the kernel's, RAM as its one memory slot, and vCPUs. */
export class KvmVirtualMachine implements KvmVm {
  readonly memory: GuestMemory;
  readonly host: VmHost;
  readonly system: SystemCalls;
  readonly facts: KvmFacts;
  readonly mode: HypervMode;
  readonly options: NonNullable<KvmOptions["hyperv"]>;
  /** The kernel's VM. */
  readonly file: KvmFile;
  /** Ends time slices. */
  readonly timer: number;
  hypervHandler: HypervHandler | undefined;
  readonly #vcpus: KvmVcpu[] = [];
  #kernelIds = 0;

  /**
   * Makes a VM.
   *
   * @throws {Error} If the kernel refuses a step; then nothing is left of it.
   */
  constructor(
    system: SystemCalls,
    facts: KvmFacts,
    mode: HypervMode,
    options: NonNullable<KvmOptions["hyperv"]>,
    memory: GuestMemory,
    host: VmHost,
  ) {
    this.system = system;
    this.facts = facts;
    this.mode = mode;
    this.options = options;
    this.memory = memory;
    this.host = host;
    const kvm = openDevice(system);
    try {
      this.file = new KvmFile(system, kvm.call("create VM", "CreateVm"));
    } finally {
      kvm.close();
    }
    try {
      this.#setUp();
      this.timer = system.createTimer();
      if (this.timer < 0) {
        throw new Error("Cannot create VM: no timer for its time slices");
      }
    } catch (error) {
      this.file.close();
      throw error;
    }
  }

  #setUp(): void {
    const action = "create VM";
    const { file } = this;
    if (this.facts.wantsTssAddress) {
      const { bytes, view } = new Struct(8);
      view.setBigUint64(0, IDENTITY_MAP, true);
      file.pass(action, "SetIdentityMapAddr", bytes);
      file.call(action, "SetTssAddr", TSS);
    }
    const { bytes, view } = new Struct(Size.userspaceMemoryRegion);
    view.setBigUint64(
      MemoryRegion.memorySize,
      BigInt(this.memory.size),
      true,
    );
    view.setBigUint64(
      MemoryRegion.userspaceAddr,
      this.system.address(this.memory.bytes),
      true,
    );
    file.pass(action, "SetUserMemoryRegion", bytes);
    const user = this.mode === "user";
    enableCap(
      file,
      action,
      Cap.X86UserSpaceMsr,
      MsrExitReason.Unknown | (user ? MsrExitReason.Filter : 0),
    );
    if (user) this.#filterMsrs();
  }

  /** Sends the synthetic MSRs to us, whatever the kernel knows of them. */
  #filterMsrs(): void {
    const { bytes, view } = new Struct(Size.msrFilter);
    const at = MsrFilter.ranges;
    // The kernel copies the bits in this call: 0 denies. A buffer of its own does not move, as a small array could.
    const denied = new Uint8Array(new ArrayBuffer(SYNTHETIC_MSRS.count / 8));
    view.setUint32(
      at + MsrFilterRange.flags,
      MsrFilterFlag.Read | MsrFilterFlag.Write,
      true,
    );
    view.setUint32(at + MsrFilterRange.nmsrs, SYNTHETIC_MSRS.count, true);
    view.setUint32(at + MsrFilterRange.base, SYNTHETIC_MSRS.first, true);
    view.setBigUint64(
      at + MsrFilterRange.bitmap,
      this.system.address(denied),
      true,
    );
    this.file.pass("create VM", "X86SetMsrFilter", bytes);
  }

  get kernelHyperv(): boolean {
    return this.mode === "kernel";
  }

  /** How many vCPUs there are. */
  get count(): number {
    return this.#vcpus.length;
  }

  createVcpu(): Vcpu {
    const vcpu = new KvmVcpu(this, this.#vcpus.length);
    this.#vcpus.push(vcpu);
    return vcpu;
  }

  /** A number for the kernel's next vCPU. */
  nextKernelId(): number {
    return this.#kernelIds++;
  }

  close(): void {
    if (this.file.fd < 0) return;
    this.system.deleteTimer(this.timer);
    for (const vcpu of this.#vcpus) vcpu.close();
    this.file.close();
  }
}
