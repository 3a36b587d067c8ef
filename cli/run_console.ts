import type { Machine } from "../core/machine.ts";
import { readElfSymbols } from "../hyperv/kd/symbols.ts";
import { type ConsoleOptions, runConsole } from "./debug/console.ts";
import { reportOutcome } from "./outcome.ts";

/** Whether a `--debug` option asks for a console. */
export function isKd(option: string): boolean {
  return option === "kd" || option.startsWith("kd:");
}

/** Whether an image has symbols for the console. */
export function hasSymbols(image: Uint8Array): boolean {
  try {
    return readElfSymbols(image).length > 0;
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

/** Runs the guest with a debugger's console beside it, until either ends. */
export async function runWithConsole(
  machine: Machine,
  timeout: number,
  options: ConsoleOptions,
): Promise<number> {
  const left = new AbortController();
  const gone = new AbortController();
  const running = machine.run({ timeout, signal: left.signal });
  running.finally(() => gone.abort());
  const code = await runConsole({ ...options, gone: gone.signal });
  const ended = gone.signal.aborted;
  left.abort();
  const outcome = await running;
  return ended ? reportOutcome(machine, outcome) : code;
}
