import { Ioctl } from "./kvm_layout.ts";
import { Errno, errnoName, type SystemCalls } from "./system_calls.ts";

/** A request by its name in {@linkcode Ioctl}. */
export type Request = keyof typeof Ioctl;

/** A request's name in the header: `KVM_GET_SREGS` of `GetSregs`. */
function headerName(request: Request): string {
  return `KVM${request.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`;
}

/** An open file descriptor of KVM: `/dev/kvm`, a VM or a vCPU. */
export class KvmFile {
  readonly system: SystemCalls;
  #fd: number;

  /** Takes over a descriptor. */
  constructor(system: SystemCalls, fd: number) {
    this.system = system;
    this.#fd = fd;
  }

  /** The descriptor, or -1 when it is closed. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * A request with a number.
   *
   * @throws {Error} If it fails; `action` is what could not be done.
   */
  call(action: string, request: Request, argument = 0): number {
    const result = this.system.ioctl(this.#fd, Ioctl[request], argument);
    return result >= 0 ? result : this.#fail(action, request);
  }

  /**
   * A request with a struct.
   *
   * @throws {Error} If it fails; `action` is what could not be done.
   */
  pass(
    action: string,
    request: Request,
    bytes: Uint8Array<ArrayBuffer>,
  ): number {
    const result = this.system.ioctlBytes(this.#fd, Ioctl[request], bytes);
    return result >= 0 ? result : this.#fail(action, request);
  }

  /** A request with a struct that may fail: what the kernel returns. */
  try(request: Request, bytes: Uint8Array<ArrayBuffer>): number {
    return this.system.ioctlBytes(this.#fd, Ioctl[request], bytes);
  }

  /** Closes the descriptor, once. */
  close(): void {
    if (this.#fd < 0) return;
    this.system.close(this.#fd);
    this.#fd = -1;
  }

  #fail(action: string, request: Request): never {
    const why = this.#fd < 0
      ? "the VM is closed"
      : errnoName(this.system.errno());
    throw new Error(`Cannot ${action}: ${headerName(request)}: ${why}`);
  }
}

const DEVICE = "/dev/kvm";

/** Why there is no KVM, in one line, with what helps. */
export class KvmUnavailable extends Error {
  /** As for every error. */
  override name = "KvmUnavailable";
}

/**
 * Opens `/dev/kvm`.
 *
 * @throws {KvmUnavailable} If it is missing or forbidden.
 */
export function openDevice(system: SystemCalls): KvmFile {
  const fd = system.open(DEVICE);
  if (fd >= 0) return new KvmFile(system, fd);
  const errno = system.errno();
  switch (errno) {
    case Errno.NoEntry:
    case Errno.NoDevice:
    case Errno.NoDeviceAddress:
      throw new KvmUnavailable(
        `there is no ${DEVICE}: turn virtualization on in the firmware, or nested in the outer hypervisor, and load kvm_amd or kvm_intel`,
      );
    case Errno.Access:
    case Errno.Perm:
      throw new KvmUnavailable(
        `no permission for ${DEVICE}: join the group that owns it, usually kvm, and log in again`,
      );
    default:
      throw new KvmUnavailable(
        `${DEVICE} cannot be opened: ${errnoName(errno)}`,
      );
  }
}
