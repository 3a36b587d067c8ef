/**
 * A kernel in a few lines: enough of KVM to make a vCPU, whose exits a test writes. Needs no device and no permission.
 */
import { Cap, Ioctl, Run } from "../../ffi/kvm_layout.ts";
import type { RunThread, SystemCalls } from "../../ffi/system_calls.ts";

const RUN_SIZE = 0x3000;
const CPUID_ENTRY = 40;

/** A system whose `/dev/kvm` is this object. */
export class FakeKernel implements SystemCalls {
  /** The errno of a failing {@linkcode FakeKernel.open}, or 0. */
  openErrno = 0;
  version = 12;
  readonly missing = new Set<number>();
  /** Leaves of KVM's own Hyper-V, as function and EAX to EDX. */
  hyperv: number[][] = [];
  /** The exit pages of the vCPU. */
  run = new Uint8Array(RUN_SIZE);
  view = new DataView(this.run.buffer);
  /** What happens at each entry, in turn; nothing more: HLT. */
  readonly entries: (() => void)[] = [];
  /** Bytes that were passed, by request. */
  readonly passed: { request: number; bytes: Uint8Array }[] = [];
  readonly opened = new Set<number>();
  #errno = 0;
  #next = 3;
  #timers = 0;

  #descriptor(): number {
    this.opened.add(this.#next);
    return this.#next++;
  }

  /** Sets the exit reason of an entry. */
  exit(reason: number): void {
    this.view.setUint32(Run.exitReason, reason, true);
  }

  open(): number {
    this.#errno = this.openErrno;
    return this.openErrno !== 0 ? -1 : this.#descriptor();
  }

  close(fd: number): void {
    this.opened.delete(fd);
  }

  ioctl(_fd: number, request: number, argument: number): number {
    switch (request) {
      case Ioctl.GetApiVersion:
        return this.version;
      case Ioctl.CheckExtension:
        if (this.missing.has(argument)) return 0;
        return argument === Cap.Hyperv && this.hyperv.length === 0 ? 0 : 1;
      case Ioctl.GetVcpuMmapSize:
        return RUN_SIZE;
      case Ioctl.GetTscKhz:
        return 1_000_000;
      case Ioctl.CreateVm:
      case Ioctl.CreateVcpu:
        return this.#descriptor();
      case Ioctl.Run: {
        const entry = this.entries.shift();
        if (entry === undefined) this.exit(5);
        else entry();
        return 0;
      }
    }
    return 0;
  }

  ioctlBytes(
    _fd: number,
    request: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): number {
    this.passed.push({ request, bytes: bytes.slice() });
    const view = new DataView(bytes.buffer);
    switch (request) {
      case Ioctl.GetSupportedCpuid:
      case Ioctl.GetSupportedHvCpuid: {
        const leaves = request === Ioctl.GetSupportedHvCpuid
          ? this.hyperv
          : [[1, 0, 0, 0, 0]];
        view.setUint32(0, leaves.length, true);
        leaves.forEach(([leaf, ...values], n) => {
          view.setUint32(8 + n * CPUID_ENTRY, leaf!, true);
          values.forEach((value, i) =>
            view.setUint32(8 + n * CPUID_ENTRY + 12 + 4 * i, value, true)
          );
        });
        return 0;
      }
      case Ioctl.GetMsrIndexList:
        view.setUint32(0, 0, true);
        return 0;
      case Ioctl.GetMsrs:
      case Ioctl.SetMsrs:
        return view.getUint32(0, true);
    }
    return 0;
  }

  errno(): number {
    return this.#errno;
  }

  address(): bigint {
    return 0x1000n;
  }

  mapOver(pages: Uint8Array<ArrayBuffer>): boolean {
    this.run = pages.fill(0);
    this.view = new DataView(pages.buffer, pages.byteOffset, pages.length);
    return true;
  }

  unmap(pages: Uint8Array<ArrayBuffer>): void {
    pages.fill(0);
  }

  createTimer(): number {
    return this.#timers++;
  }

  setTimer(): void {}

  createRunThread(): RunThread {
    return {
      run: (fd) => Promise.resolve(this.ioctl(fd, Ioctl.Run, 0)),
      interrupt: () => {},
      settle: () => {},
      close: () => {},
    };
  }

  deleteTimer(): void {
    this.#timers--;
  }
}

/** What KVM_GET_SUPPORTED_HV_CPUID of Linux 6 gives, in short. */
export const HYPERV_LEAVES: readonly number[][] = [
  [0x4000_0000, 0x4000_0082, 0, 0, 0],
  [0x4000_0001, 0x3123_7648, 0, 0, 0],
  [0x4000_0003, 0xaaff, 0x10_0830, 0, 0x4d12],
  [0x4000_0004, 0xa2c, 0xfff, 0, 0],
  [0x4000_0082, 2, 0, 0, 0],
];
