import type { Backend } from "../core/backend.ts";
import { interpreter } from "../core/x86/backend.ts";
import {
  type HypervMode,
  KvmUnavailable,
  openKvm,
  probeKvm,
} from "../ffi/kvm_backend_unsafe.ts";
import { type Options, parseChoice, UsageError } from "./usage.ts";

/** The options that {@linkcode openBackend} looks at. */
export const BACKEND_OPTIONS: readonly string[] = ["backend", "kvm-hyperv"];

/** A backend, and why it is this one. */
export interface BackendChoice {
  backend: Backend;
  /** One line; undefined where the user named a backend that is fit. */
  note: string | undefined;
}

/**
 * Opens the backend that `--backend` and `--kvm-hyperv` name; `auto` takes KVM where it is fit.
 *
 * @param enforceCpuid Whether a kernel that is Hyper-V itself has to refuse what CPUID does not offer.
 * @throws {UsageError} If it cannot be had here.
 */
export function openBackend(
  options: Options,
  enforceCpuid = false,
): BackendChoice {
  const name = parseChoice("backend", options.value("backend") ?? "auto", [
    "auto",
    "interp",
    "kvm",
  ]);
  const mode = parseChoice(
    "kvm-hyperv",
    options.value("kvm-hyperv") ?? "auto",
    ["auto", "user", "kernel"],
  );
  if (name === "interp") return { backend: interpreter(), note: undefined };
  const settings = { hyperv: { mode, enforceCpuid } };
  const { available, fit, reason } = probeKvm(settings);
  if (name === "auto" && !fit) {
    return { backend: interpreter(), note: `backend interp: ${reason}` };
  }
  if (!available) throw new UsageError(`Cannot use --backend kvm: ${reason}`);
  try {
    const note = name === "auto" || !fit ? `backend kvm: ${reason}` : undefined;
    return { backend: openKvm(settings), note };
  } catch (error) {
    if (!(error instanceof KvmUnavailable)) throw error;
    throw new UsageError(`Cannot use --backend kvm: ${error.message}`);
  }
}

/** What {@linkcode openBackend} can open on this machine, a line each. */
export function describeBackends(): string[] {
  const lines = ["interp yes  the x86 interpreter runs everywhere"];
  const modes: readonly HypervMode[] = ["user", "kernel"];
  const found = modes.map((mode) => probeKvm({ hyperv: { mode } }));
  modes.forEach((mode, n) => {
    const { available, reason } = found[n]!;
    lines.push(`kvm    ${available ? "yes" : "no "}  ${mode}: ${reason}`);
  });
  for (const { name, passed, detail } of found[0]!.checks) {
    lines.push(`       ${passed ? "yes" : "no "}  ${name}: ${detail}`);
  }
  if (found[0]!.available) {
    lines.push(
      "       note  user: a bare VMCALL or VMMCALL is KVM's own there; the hypercall page works",
    );
  }
  const taken = found.some(({ fit }) => fit) ? "kvm" : "interp";
  return [...lines, `auto   takes ${taken}`];
}
