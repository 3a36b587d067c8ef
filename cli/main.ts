/**
 * The command line. This file only routes; each command has its own.
 *
 * @module
 */
import { cpuidCommand } from "./cpuid.ts";
import { debugCommand } from "./debug.ts";
import { decodeCommand } from "./decode.ts";
import { demoCommand } from "./demo.ts";
import { doctorCommand } from "./doctor.ts";
import { helpCommand } from "./help.ts";
import { runCommand } from "./run.ts";
import { ExitCode, UsageError } from "./usage.ts";
import { versionCommand } from "./version.ts";

type Command = (args: readonly string[]) => number | Promise<number>;

const COMMANDS: ReadonlyMap<string, Command> = new Map<string, Command>([
  ["demo", demoCommand],
  ["run", runCommand],
  ["debug", debugCommand],
  ["decode", decodeCommand],
  ["doctor", doctorCommand],
  ["cpuid", cpuidCommand],
  ["help", helpCommand],
  ["--help", helpCommand],
  ["-h", helpCommand],
  ["--version", versionCommand],
]);

/** Runs the command that `args` names, the demo without one; returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  const command = COMMANDS.get(name ?? "demo");
  try {
    if (command !== undefined) return await command(rest);
    if (name?.startsWith("-")) return await demoCommand(args);
    throw new UsageError(`Cannot run ${name}: unknown command (see --help)`);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    return ExitCode.Usage;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
