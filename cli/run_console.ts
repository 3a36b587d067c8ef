import type { Machine, MachineOutcome } from "../core/machine.ts";
import { readElfSymbols } from "../hyperv/kd/symbols.ts";
import { type ConsoleOptions, runConsole } from "./debug/console.ts";
import type { SymbolFile } from "./debug/shell.ts";
import { reportOutcome } from "./outcome.ts";

/** Whether a `--debug` option asks for a console. */
export function isKd(option: string): boolean {
  return option === "kd" || option.startsWith("kd:");
}

/** An image as a file of symbols for the console, if it has some. */
export function imageSymbols(name: string, data: Uint8Array): SymbolFile[] {
  try {
    return readElfSymbols(data).length > 0 ? [{ name, data }] : [];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

/** Runs the guest with a debugger's console beside it, until either ends. */
export async function runWithConsole(
  machine: Machine,
  run: (signal: AbortSignal) => Promise<MachineOutcome>,
  options: ConsoleOptions,
): Promise<number> {
  const left = new AbortController();
  const gone = new AbortController();
  const running = run(left.signal);
  running.finally(() => gone.abort());
  const code = await runConsole({ ...options, gone: gone.signal });
  const ended = gone.signal.aborted;
  left.abort();
  const outcome = await running;
  return ended ? reportOutcome(machine, outcome) : code;
}
