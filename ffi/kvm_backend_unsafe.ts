/**
 * `/dev/kvm` as a backend. Importing this needs no permission and no Linux; opening needs `--allow-ffi=` with the path
 * of the C library, which gives whoever has it the powers of the whole process.
 *
 * Unsafe, because it loads native code (`libc_unsafe.ts`).
 *
 * @module
 */
import { createKvmBackend } from "./kvm_backend.ts";
import { KvmUnavailable } from "./kvm_file.ts";
import type { KvmBackend, KvmOptions } from "./kvm_options.ts";
import { examineKvm, type KvmFindings, noKvm } from "./kvm_probe.ts";
import { libc, LibcUnavailable } from "./libc_unsafe.ts";

export { HYPERCALL_CODE, HYPERCALL_PORT } from "./hypercall_trap.ts";
export { KvmUnavailable } from "./kvm_file.ts";
export type {
  HypervMode,
  KvmBackend,
  KvmOptions,
  KvmVm,
} from "./kvm_options.ts";
export type { KvmCheck, KvmFindings } from "./kvm_probe.ts";
export { LibcUnavailable } from "./libc_unsafe.ts";

/**
 * Opens KVM.
 *
 * @throws {LibcUnavailable} If the C library cannot be called; the text names the permission that is missing.
 * @throws {KvmUnavailable} If there is no KVM, or it cannot do what the options ask for.
 */
export function openKvm(options: KvmOptions = {}): KvmBackend {
  return createKvmBackend(libc(options.libc), options);
}

/**
 * Looks what KVM is worth on this machine, by running a tiny guest for a few milliseconds. It never throws and never
 * prompts.
 */
export function probeKvm(options: KvmOptions = {}): KvmFindings {
  try {
    return examineKvm(openKvm(options));
  } catch (error) {
    return noKvm(
      error instanceof KvmUnavailable || error instanceof LibcUnavailable
        ? error.message
        : `KVM fails: ${error instanceof Error ? error.message : error}`,
    );
  }
}
