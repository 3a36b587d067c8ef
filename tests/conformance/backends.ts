import type { Backend } from "../../core/backend.ts";
import { interpreter } from "../../core/x86/backend.ts";

/** A backend that the guest programs run on. */
export interface ConformanceBackend {
  /** Begins the name of each of its tests. */
  name: string;
  /** Makes one, for one machine. */
  create: () => Backend;
}

/** All backends that this machine has: what a guest sees must not depend on which runs it. */
export const backends: readonly ConformanceBackend[] = [
  { name: "interp", create: interpreter },
];
