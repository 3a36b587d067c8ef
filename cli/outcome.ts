import type { Machine, MachineOutcome } from "../core/machine.ts";
import { formatRegisters } from "./registers.ts";
import { ExitCode } from "./usage.ts";

/** Says on stderr how a run ended unless the guest chose it; returns the exit code. */
export function reportOutcome(
  machine: Machine,
  outcome: MachineOutcome,
): number {
  switch (outcome.kind) {
    case "exit":
      return outcome.code;
    case "poweroff":
      return ExitCode.Success;
    case "halted":
      console.error("syndbg: the guest halted");
      return ExitCode.Success;
    case "reset":
      console.error("syndbg: the guest asked for a reset");
      return ExitCode.Success;
    case "shutdown":
      console.error("syndbg: triple fault");
      console.error(formatRegisters(machine.vcpus[0]!));
      return ExitCode.TripleFault;
    case "timeout":
      console.error("syndbg: the time is over");
      return ExitCode.Timeout;
    case "aborted":
      console.error("syndbg: interrupted");
      return ExitCode.Interrupted;
    case "error":
      console.error(`syndbg: ${outcome.message}`);
      console.error(formatRegisters(machine.vcpus[0]!));
      return ExitCode.Failure;
  }
}

/**
 * Runs `work` with a signal that Ctrl-C raises.
 */
export async function withInterrupt<T>(
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const interrupt = (): void => controller.abort();
  Deno.addSignalListener("SIGINT", interrupt);
  try {
    return await work(controller.signal);
  } finally {
    Deno.removeSignalListener("SIGINT", interrupt);
  }
}
