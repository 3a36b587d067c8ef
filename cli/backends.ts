import type { Backend } from "../core/backend.ts";
import { interpreter } from "../core/x86/backend.ts";
import { parseChoice, UsageError } from "./usage.ts";

/** What is known of a backend on this machine. */
export interface BackendFinding {
  name: string;
  available: boolean;
  /** Why or why not, in one line. */
  reason: string;
}

/** Looks for the backends, the preferred ones first. */
export function findBackends(): BackendFinding[] {
  return [
    {
      name: "kvm",
      available: false,
      reason: "this version has no KVM backend",
    },
    {
      name: "interp",
      available: true,
      reason: "the x86 interpreter runs everywhere",
    },
  ];
}

/**
 * The backend of that name; `auto` takes the first that this machine offers.
 *
 * @throws {UsageError} If there is no such backend here.
 */
export function openBackend(option: string): Backend {
  const name = parseChoice("backend", option, ["auto", "interp", "kvm"]);
  const finding = findBackends().find((found) =>
    name === "auto" ? found.available : found.name === name
  );
  if (!finding?.available) {
    throw new UsageError(
      `Cannot use --backend ${name}: ${finding?.reason ?? "none found"}`,
    );
  }
  return interpreter();
}
